# SPDX-License-Identifier: Apache-2.0
"""Running Tempest on the cloud."""

import re
import shutil
import subprocess

from cloud.cloud import Cloud
from cloud.cloud import environment
from cloud import controller
from cloud import HOSTS
from cloud import ini
from cloud.scene import Scene
from cloud import TOP
from cloud import WORK

FOLDER = WORK / 'tempest'
HOME = WORK

#: This project's own tests.
PLUGIN = 'pmem_copy_tempest_plugin'

#: Tempest's tests of moves, which have to pass on flavors with vPMEM.
NOVAS = (r'tempest\.api\.compute\.admin\.test_migrations',
         # Those that need neither Cinder nor Neutron's networks.
         r'\.test_resize_server_(confirm|confirm_from_stopped|revert)\[')

_SSH = ('ssh -i %s -o BatchMode=yes -o StrictHostKeyChecking=no '
        '-o UserKnownHostsFile=/dev/null -o LogLevel=ERROR root@{address}')


#: As many tests of the plugin have to pass, at least; and of the short set.
ENOUGH = 37
ENOUGH_SHORT = 21

#: Tests of the plugin that have to fail until an issue is done, by the issue.
OPEN: dict[str, tuple[str, ...]] = {}


class Broken(Exception):
    """Tempest did not run as it should; the message is one line."""


def run_short(cloud: Cloud) -> int:
    """Run what is refused, and the shortest of each; see run_plugin."""
    return run_plugin(
        cloud, PLUGIN + r'.*\b(negative|smoke)\b', ENOUGH_SHORT, {})


def run_plugin(
    cloud: Cloud, regex: str = PLUGIN, enough: int = ENOUGH,
    open_: dict[str, tuple[str, ...]] = OPEN,
) -> int:
    """Run this project's tests, and return how many passed.

    :param enough: how many have to pass
    :param open_: those that have to fail, by the issue
    :raises Broken: if one was skipped, or ended otherwise than it should
    """
    _run(cloud, regex)
    results = subprocess.run(['stestr', 'last', '--subunit'], cwd=FOLDER,
                             env=environment(), capture_output=True).stdout
    known = ['--open=' + name for names in open_.values() for name in names]
    verified = subprocess.run(
        ['pmem-copy-tempest-verify', '--at-least', str(enough), *known, '-'],
        input=results, env=environment(), capture_output=True)
    said = verified.stdout.decode() + verified.stderr.decode()
    if verified.returncode:
        raise Broken('Tempest: ' + '; '.join(said.strip().splitlines()))
    return int(said.split()[0])


def run_novas(cloud: Cloud) -> int:
    """Run Tempest's own tests of moves, and return how many passed.

    :raises Broken: if one failed or was skipped, or none ran
    """
    _run(cloud, '|'.join(NOVAS))
    said = subprocess.run(['stestr', 'last'], cwd=FOLDER, text=True,
                          env=environment(), capture_output=True).stdout
    counts = {what: int(re.search(r'- %s: *(\d+)' % what, said)[1])
              for what in ('Passed', 'Skipped', 'Failed')}
    if counts['Skipped'] or counts['Failed'] or not counts['Passed']:
        raise Broken("Tempest's own tests: %s" % counts)
    return counts['Passed']


def _run(cloud: Cloud, regex: str) -> None:
    _configure(cloud)
    subprocess.run(
        ['tempest', 'run', '--concurrency', '2', '--config-file',
         FOLDER / 'etc' / 'tempest.conf', '--regex', regex],
        cwd=FOLDER, env=_environment())


def _environment() -> dict[str, str]:
    """Return an environment in which Tempest leaves the user's home alone.

    It notes its folders there, by their last names; so the second checkout of
    a machine could not run it.
    """
    return environment() | {'HOME': str(HOME)}


def _configure(cloud: Cloud) -> None:
    if not (FOLDER / '.stestr.conf').exists():
        shutil.rmtree(HOME / '.tempest', ignore_errors=True)
        subprocess.run(['tempest', 'init', FOLDER], env=_environment(),
                       check=True, capture_output=True)
    scene = Scene(cloud)
    plan = '/usr/bin/python3 -B %s/cloud/plan.py ' % TOP
    faults: dict[str, object] = {}
    for name, what in (('copy_failure', 'fail-copies'),
                       ('copy_hang', 'hang-copies'),
                       ('start_failure', 'fail-starts')):
        faults[name + '_command'] = plan + what
        faults[name + '_undo_command'] = plan + 'mend'
    (FOLDER / 'etc' / 'tempest.conf').write_text(ini.text({
        'DEFAULT': {'log_file': 'tempest.log', 'log_dir': FOLDER},
        'oslo_concurrency': {'lock_path': FOLDER / 'locks'},
        'auth': {'use_dynamic_credentials': 'true',
                 'create_isolated_networks': 'false',
                 'admin_username': 'admin', 'admin_project_name': 'admin',
                 'admin_password': controller.PASSWORD,
                 'admin_domain_name': 'Default'},
        'identity': {'uri_v3': controller.url('keystone') + '/v3',
                     'auth_version': 'v3', 'region': 'RegionOne'},
        'service_available': {'neutron': 'false', 'cinder': 'false',
                              'swift': 'false'},
        'validation': {'run_validation': 'false'},
        'compute': {'image_ref': scene.image, 'image_ref_alt': scene.image,
                    'flavor_ref': scene.flavors['small'],
                    'flavor_ref_alt': scene.flavors['large'],
                    'min_compute_nodes': 2, 'max_microversion': 'latest',
                    'build_timeout': 300, 'build_interval': 1},
        'compute-feature-enabled': {'resize': 'true', 'cold_migration': 'true',
                                    'live_migration': 'false',
                                    'vnc_console': 'false'},
        'pmem_copy': {
            # What is shown for a second is to be seen.
            'poll_interval': 0.1,
            'labels': 'SMALL', 'resize_labels': 'LARGE',
            'host_command': _SSH % (HOSTS / 'nova_key'),
            'host_addresses': ','.join('%s:%s' % (each.name, each.address)
                                       for each in cloud.computes),
            **faults}}))
