# SPDX-License-Identifier: Apache-2.0
"""What a cloud has before its users come: users, endpoints, flavors."""

import itertools

from cloud import controller

#: Types of the services, by the name of their user.
TYPES = {'keystone': 'identity', 'placement': 'placement', 'glance': 'image',
         'neutron': 'network', 'nova': 'compute'}

#: Who uses the cloud: user, project, roles.
USERS = (('admin', 'admin', ()), ('member', 'demo', ('member',)),
         ('reader', 'demo', ('reader',)))

IMAGE = 'empty'

#: Flavors: their vPMEM labels, as in ``hw:pmem``.
FLAVORS = {'small': 'SMALL', 'small2': 'SMALL,SMALL', 'large': 'LARGE',
           'plain': ''}


def clouds() -> dict:
    """Return a ``clouds.yaml`` with a cloud for each user."""
    return {'clouds': {user: {
        'region_name': 'RegionOne', 'identity_api_version': 3,
        'auth': {'auth_url': controller.url('keystone') + '/v3',
                 'username': user, 'password': controller.PASSWORD,
                 'project_name': project, 'user_domain_name': 'Default',
                 'project_domain_name': 'Default'}}
        for user, project, _ in USERS}}


def fill() -> None:
    """Create all of it, as the administrator."""
    # Only in the environment of the cloud.
    import openstack

    _identity(openstack.connect(cloud='admin'))
    # A session has the catalog of the time when it began.
    cloud = openstack.connect(cloud='admin')
    _flavors(cloud)
    # A guest need not boot: nobody waits for it.
    cloud.create_image(IMAGE, data=bytes(1024 * 1024), disk_format='raw',
                       container_format='bare', visibility='public',
                       wait=True)
    # Or the first list of ports fails.
    list(cloud.network.networks())


def _identity(cloud) -> None:
    identity = cloud.identity
    roles = {role.name: role for role in identity.roles()}
    service = identity.create_project(name='service', domain_id='default')
    demo = identity.create_project(name='demo', domain_id='default')
    for name, kind in TYPES.items():
        if name == 'keystone':
            continue
        user = identity.create_user(
            name=name, password=controller.PASSWORD, domain_id='default',
            default_project_id=service.id)
        for role in ('admin', 'service'):
            identity.assign_project_role_to_user(service, user, roles[role])
        made = identity.create_service(name=name, type=kind)
        suffix = '/v2.1' if name == 'nova' else ''
        for interface in ('public', 'internal', 'admin'):
            identity.create_endpoint(
                service_id=made.id, interface=interface,
                region_id='RegionOne', url=controller.url(name) + suffix)
    for name, project, wanted in USERS:
        if project == 'demo':
            user = identity.create_user(
                name=name, password=controller.PASSWORD, domain_id='default',
                default_project_id=demo.id)
            for role in wanted:
                identity.assign_project_role_to_user(demo, user, roles[role])


def _flavors(cloud) -> None:
    for number, (name, labels) in zip(itertools.count(1), FLAVORS.items()):
        flavor = cloud.compute.create_flavor(
            name=name, ram=64, vcpus=1, disk=1, flavorid=str(number))
        if labels:
            cloud.compute.create_flavor_extra_specs(
                flavor, {'hw:pmem': labels})
