# SPDX-License-Identifier: Apache-2.0
"""What the tests of requests and the scenarios have in common."""

from collections.abc import Iterator
import contextlib
from typing import Any

from tempest import clients
from tempest.common import waiters
from tempest import config
from tempest.lib.common.utils import data_utils
from tempest.lib.common.utils import test_utils
from tempest.lib.services.compute import base_compute_client

from pmem_copy_tempest_plugin import probe
from pmem_copy_tempest_plugin import watch

CONF = config.CONF

#: What Nova calls the field.
FIELD = 'copy_pmem_devices'
#: The microversion that brought it.
MICROVERSION = '2.105'

#: What a server may be in when nothing is done with it.
QUIET = ('ACTIVE', 'SHUTOFF', 'VERIFY_RESIZE')


@contextlib.contextmanager
def at_microversion(version: str) -> Iterator[None]:
    """Send requests to Nova with another microversion than the class's."""
    before = base_compute_client.COMPUTE_MICROVERSION
    base_compute_client.COMPUTE_MICROVERSION = version
    try:
        yield
    finally:
        base_compute_client.COMPUTE_MICROVERSION = before


class PmemMixin:
    """Flavors and servers with vPMEM, and ways to wait for them.

    For test classes that have the credentials ``admin``.
    """

    @classmethod
    def skip_checks(cls) -> None:
        super().skip_checks()
        if not CONF.pmem_copy.labels:
            raise cls.skipException(
                'there is nothing to test without [pmem_copy]labels')
        if CONF.compute.min_compute_nodes < 2:
            raise cls.skipException(
                'moves need two hosts: [compute]min_compute_nodes is less')
        for feature in ('resize', 'cold_migration'):
            if not CONF.compute_feature_enabled[feature]:
                raise cls.skipException(
                    f'[compute-feature-enabled]{feature} is off')

    @classmethod
    def setup_clients(cls) -> None:
        super().setup_clients()
        cls.admin_servers = cls.os_admin.servers_client
        cls.admin_flavors = cls.os_admin.flavors_client
        cls.admin_services = cls.os_admin.services_client

    @classmethod
    def resource_setup(cls) -> None:
        super().resource_setup()
        cls.flavor = cls.make_flavor(
            CONF.compute.flavor_ref, CONF.pmem_copy.labels)
        cls.new_flavor = cls.make_flavor(
            CONF.compute.flavor_ref_alt,
            CONF.pmem_copy.resize_labels or CONF.pmem_copy.labels)

    @classmethod
    def make_flavor(cls, like: str, labels: str | None) -> str:
        """Make a flavor for the tests of this class.

        :param like: the id of the flavor whose sizes it gets
        :param labels: its vPMEM devices; None for one without
        :returns: its id
        """
        old = cls.admin_flavors.show_flavor(like)['flavor']
        specs = dict(cls.admin_flavors.list_flavor_extra_specs(like)[
            'extra_specs'])
        specs.pop('hw:pmem', None)
        if labels is not None:
            specs['hw:pmem'] = labels
        flavor = cls.admin_flavors.create_flavor(
            name=data_utils.rand_name(
                cls.__name__, prefix=CONF.resource_name_prefix),
            ram=old['ram'], vcpus=old['vcpus'], disk=old['disk'])['flavor']
        cls.addClassResourceCleanup(
            cls.admin_flavors.delete_flavor, flavor['id'])
        if specs:
            cls.admin_flavors.set_flavor_extra_spec(flavor['id'], **specs)
        return flavor['id']

    @classmethod
    def boot(cls, servers_client: Any, flavor: str,
             **details: Any) -> dict[str, Any]:
        """Boot a server without a network, and wait for it.

        :param servers_client: of whom it shall belong to
        :param details: what else the request says
        :returns: what the API tells administrators of it
        """
        server = servers_client.create_server(
            name=data_utils.rand_name(
                cls.__name__, prefix=CONF.resource_name_prefix),
            flavorRef=flavor, imageRef=CONF.compute.image_ref,
            networks='none', **details)['server']
        cls.addClassResourceCleanup(cls.delete, server['id'])
        waiters.wait_for_server_status(
            cls.admin_servers, server['id'], 'ACTIVE')
        return cls.show(server['id'])

    @classmethod
    def delete(cls, server_id: str) -> None:
        """Delete a server, if it is there, and wait until it is gone."""
        test_utils.call_and_ignore_notfound_exc(
            cls.admin_servers.delete_server, server_id)
        waiters.wait_for_server_termination(cls.admin_servers, server_id)

    @classmethod
    def show(cls, server_id: str) -> dict[str, Any]:
        """Return what the API tells administrators of a server."""
        return cls.admin_servers.show_server(server_id)['server']

    @classmethod
    def other_hosts(cls, host: str) -> list[str]:
        """Return the compute hosts that a server can move to from one."""
        services = cls.admin_services.list_services(
            binary='nova-compute')['services']
        return sorted(
            service['host'] for service in services
            if service['state'] == 'up' and service['status'] == 'enabled'
            and service['host'] != host)

    @contextlib.contextmanager
    def watched(self, server_id: str) -> Iterator[watch.Watch]:
        """Watch a server; it must not be shown as ERROR meanwhile.

        A move that comes back is no error of the server's, and a client that
        waits for it would give up.
        """
        # The thread has a client of its own: they are not made to be shared.
        client = clients.Manager(
            credentials=self.os_admin.credentials).servers_client
        watcher = watch.Watch(
            lambda: client.show_server(server_id)['server'],
            CONF.pmem_copy.poll_interval)
        try:
            yield watcher
        finally:
            watcher.close()
        self.assertNotIn('ERROR', watcher.statuses(), watcher.story())

    def wait_verify_resize(self, server_id: str) -> dict[str, Any]:
        """Wait until a move waits to be confirmed.

        :returns: what the API tells administrators of the server
        :raises BuildErrorException: if it is shown as ERROR
        :raises TimeoutException: if it does not get there
        """
        waiters.wait_for_server_status(
            self.admin_servers, server_id, 'VERIFY_RESIZE')
        return self.show(server_id)

    def confirm(self, server_id: str, status: str = 'ACTIVE') -> None:
        """Confirm a move, and wait until the server has a status."""
        self.admin_servers.confirm_resize_server(server_id)
        waiters.wait_for_server_status(self.admin_servers, server_id, status)

    def revert(self, server_id: str, status: str = 'ACTIVE') -> None:
        """Revert a move, and wait until the server has a status."""
        self.admin_servers.revert_resize_server(server_id)
        waiters.wait_for_server_status(self.admin_servers, server_id, status)

    def assert_moved(self, before: dict[str, Any],
                     after: dict[str, Any]) -> None:
        """Check that a server is on another host than it was."""
        self.assertNotEqual(before[probe.HOST], after[probe.HOST])
