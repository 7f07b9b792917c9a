# SPDX-License-Identifier: Apache-2.0
"""The command-line client, as a user types it."""

import json
import subprocess

import pytest

from cloud.cloud import environment
from cloud.compute import configured


def openstack(*words: str, user: str = 'admin',
              ) -> subprocess.CompletedProcess:
    return subprocess.run(
        ['openstack', *words], env=environment(user), text=True,
        capture_output=True, timeout=400)


def listed(*words: str) -> list[dict] | dict:
    done = openstack(*words, '-f', 'json')
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.core
def test_migrate_wait_and_confirm(scene, source, target):
    server = scene.boot(on=source)
    with scene.never_error(server):
        done = openstack('server', 'migrate', '--copy-pmem-devices', '--host',
                         target.name, '--wait', server.uuid)
    assert done.returncode == 0, done.stderr
    assert 'Complete' in done.stdout
    server.runs_on(target)
    server.has_its_data()
    shown = listed('server', 'show', server.uuid)
    assert shown['status'] == 'VERIFY_RESIZE'
    [migration] = listed('server', 'migration', 'list', '--server',
                         server.uuid)
    assert migration['Status'] == 'finished'
    events = listed('server', 'event', 'list', server.uuid)
    assert events[0]['Action'] == 'migrate'
    done = openstack('server', 'resize', 'confirm', server.uuid)
    assert done.returncode == 0, done.stderr
    server.migration_is('confirmed')


@pytest.mark.core
def test_resize_wait_and_revert(scene, source):
    server = scene.boot(on=source)
    done = openstack('server', 'resize', '--copy-pmem-devices', '--flavor',
                     'large', '--wait', server.uuid)
    assert done.returncode == 0, done.stderr
    server.has_its_data()
    done = openstack('server', 'resize', 'revert', server.uuid)
    assert done.returncode == 0, done.stderr
    server.becomes('ACTIVE')
    server.runs_on(source)
    server.has_its_data()


@pytest.mark.core
def test_copy_that_rolls_back_ends_with_the_reason(scene, source, target):
    server = scene.boot(on=source)
    scene.fail_copies(target, action='exit', status=1, message='no luck\n')
    with scene.never_error(server):
        done = openstack('server', 'migrate', '--copy-pmem-devices', '--wait',
                         server.uuid)
    assert done.returncode == 1, done.stdout
    # Its user reads what happened; what was said over there, operators.
    assert 'can not be written' in done.stderr
    assert 'no luck' not in done.stderr
    assert 'no luck' in source.nova.text()
    server.runs_on(source)
    server.has_its_data()


@pytest.mark.core
def test_server_that_was_shut_off(scene, source, target):
    server = scene.boot(on=source)
    server.stop()
    scene.fail_copies(target, action='exit', status=1, message='no luck\n')
    done = openstack('server', 'migrate', '--copy-pmem-devices', '--wait',
                     server.uuid)
    assert done.returncode == 1, done.stdout
    target.memory.heal()
    done = openstack('server', 'migrate', '--copy-pmem-devices', '--wait',
                     server.uuid)
    assert done.returncode == 0, done.stderr
    server.confirm()
    assert server.becomes('SHUTOFF') == 'SHUTOFF'
    server.start()
    server.runs_on(target)
    server.has_its_data()


def test_move_that_is_confirmed_by_the_clock(scene, source, target):
    server = scene.boot(on=source)
    with configured(source, target, DEFAULT={'resize_confirm_window': 1}):
        done = openstack('server', 'migrate', '--copy-pmem-devices', '--wait',
                         server.uuid)
        assert done.returncode == 0, done.stderr
        server.migration_is('confirmed')
        server.becomes('ACTIVE')
    server.runs_on(target)
    server.has_its_data()


@pytest.mark.core
def test_reader_is_refused(scene, source):
    server = scene.boot(on=source)
    done = openstack('server', 'resize', '--copy-pmem-devices', '--flavor',
                     'large', server.uuid, user='reader')
    assert done.returncode == 1
    server.becomes('ACTIVE')


@pytest.mark.core
def test_check_of_a_host_and_of_its_peer(source, target):
    """All is set up well, and each host says so, as nova's user there."""
    done = source.run('nova-pmem-copy', 'check', '--peer', target.address,
                      '--json', user='nova', check=False)
    told = {each['name']: each for each in json.loads(done.stdout)['checks']}
    assert done.returncode == 0, done.stdout
    assert [name for name, each in told.items() if not each['ok']] == []
    assert 'nothing wrong' in told['peer']['text']
