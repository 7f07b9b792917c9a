# SPDX-License-Identifier: Apache-2.0
"""Faults of services and tools, brought about from the outside.

After each the server is on exactly one host, with all its data, and what it
has left elsewhere is wiped (``Scene.end`` looks).
"""

import signal
import time

import pytest

from cloud.host import Failed
from cloud.host import until
from cloud.pmem import MIB
from cloud.scene import TICKETS

#: Seconds that a database or broker is away.
OUTAGE = 20


def settles(server, source, target) -> str:
    """Wait until a move has ended, and check that the server is well."""
    status = server.becomes('ACTIVE', 'VERIFY_RESIZE')
    server.runs_on(source if status == 'ACTIVE' else target)
    server.has_its_data()
    return status


def never_began(server, source) -> bool:
    """Whether a request was lost before a host was asked for the server.

    Nova's own: a conductor that loses the database as it begins leaves a
    server in resize_prep for good, perhaps with a migration without a
    destination. No host has heard of the move, nor whether it was to copy, so
    there is nothing to put right but the state, which is for an operator.
    """
    def has_begun() -> bool:
        return (server.show()['OS-EXT-STS:task_state'] != 'resize_prep' or
                any(each['dest_compute'] for each in server.migrations()))

    try:
        until(has_begun, '', 60, 0.5)
        return False
    except Failed:
        server.runs_on(source)
        server.has_its_data()
        server.act({'os-resetState': {'state': 'active'}})
        return True


# nova-compute

@pytest.mark.parametrize('with_children', [
    pytest.param(True, id='all', marks=pytest.mark.core),
    pytest.param(False, id='itself')])
@pytest.mark.parametrize('side', ['source', 'target'])
def test_nova_compute_killed_in_the_copy(
        scene, source, target, side, with_children):
    server = scene.boot(on=source)
    held = scene.hold_copy(target)
    killed = {'source': source, 'target': target}[side]
    with scene.never_error(server):
        server.migrate()
        held.wait()
        killed.kill_nova(with_children)
        held.release()
        killed.start_nova()
        settles(server, source, target)


@pytest.mark.parametrize('side', ['source', 'target'])
def test_nova_compute_terminated_in_the_copy(scene, source, target, side):
    server = scene.boot(on=source)
    held = scene.hold_copy(target)
    ended = {'source': source, 'target': target}[side]
    with scene.never_error(server):
        server.migrate()
        held.wait()
        ended.nova.signal(signal.SIGTERM)
        held.release()
        ended.nova.wait(200)
        ended.start_nova()
        settles(server, source, target)


def test_nova_compute_frozen_as_the_guest_starts(scene, source, target):
    server = scene.boot(on=source)
    held = scene.hold_copy(target)
    server.migrate()
    held.wait()
    held.release()
    until(lambda: target.runs_guest(server.uuid), 'the guest does not start',
          interval=0.02)
    ours = target.nova_processes()
    target.nova.signal(signal.SIGSTOP, ours)
    assert server.show()['OS-EXT-STS:task_state'] is not None
    # The guest serves its users meanwhile.
    [namespace] = [target.memory.at(path)
                   for path in target.devices_of(server.uuid)]
    namespace.write(MIB, b'written after the start')
    target.kill_nova(with_children=True)
    target.start_nova()
    server.becomes('VERIFY_RESIZE', timeout=100)
    server.runs_on(target)
    with open(namespace.file, 'rb') as device:
        device.seek(MIB)
        assert device.read(23) == b'written after the start'


# What it stands on

def test_sshd_killed_in_the_copy(scene, source, target):
    server = scene.boot(on=source)
    held = scene.hold_copy(target)
    with scene.never_error(server):
        server.migrate()
        held.wait()
        target.sshd.kill()
        held.release()
        target.sshd.start()
        settles(server, source, target)


@pytest.mark.parametrize('side', ['source', 'target'])
def test_libvirtd_restarted_in_the_copy(scene, source, target, side):
    server = scene.boot(on=source)
    held = scene.hold_copy(target)
    with scene.never_error(server):
        server.migrate()
        held.wait()
        {'source': source, 'target': target}[side].restart_libvirtd()
        held.release()
        settles(server, source, target)


def test_conductor_stopped_as_the_guest_starts(scene, source, target):
    server = scene.boot(on=source)
    held = scene.hold_copy(target)
    server.migrate()
    held.wait()
    held.release()
    until(lambda: target.runs_guest(server.uuid), 'the guest does not start',
          interval=0.02)
    conductor = scene.controller.services['nova-conductor']
    conductor.kill()
    time.sleep(OUTAGE)
    conductor.start()
    settles(server, source, target)


@pytest.mark.parametrize('service', ['mariadb', 'rabbitmq'])
def test_outage_in_each_phase(scene, source, target, service):
    confirmed, reverted, copied, asked = (
        scene.boot(on=source) for _ in range(4))
    for server in confirmed, reverted:
        server.migrate()
        server.becomes('VERIFY_RESIZE')
    left = scene.where(source, confirmed)
    held = scene.hold_copy(target)
    copied.migrate()
    held.wait()
    asked.migrate()
    confirmed.act({'confirmResize': None})
    reverted.act({'revertResize': None})
    away = scene.controller.services[service]
    away.kill()
    # The copy ends, and its guest is to start, while the service is away.
    held.release()
    time.sleep(OUTAGE)
    scene.controller.repair()
    settles(copied, source, target)
    if not never_began(asked, source):
        settles(asked, source, target)
    for server, status in ((confirmed, 'confirmed'), (reverted, 'reverted')):
        server.becomes('ACTIVE', 'VERIFY_RESIZE')
        if server.migrations()[0]['status'] == 'finished':
            # The request itself was lost, which its user can see.
            server.act({'confirmResize' if server is confirmed
                        else 'revertResize': None})
        server.migration_is(status)
        server.becomes('ACTIVE')
        server.has_its_data()
    confirmed.runs_on(target)
    reverted.runs_on(source)
    until(left.is_zero, '%s is not wiped' % left)


# Tools

@pytest.mark.parametrize('fault', [
    {'action': 'kill', 'repeat': False},
    {'action': 'flip', 'repeat': False},
    {'action': 'short', 'repeat': False}], ids=lambda each: each['action'])
def test_daxio_fails_once(scene, source, target, fault):
    server = scene.boot(on=source)
    scene.fail_copies(target, **fault)
    with scene.never_error(server):
        server.migrate()
        server.becomes('VERIFY_RESIZE')
    settles(server, source, target)


@pytest.mark.parametrize('action', ['flip', 'short'])
def test_daxio_always_fails(scene, source, target, action):
    server = scene.boot(on=source)
    scene.fail_copies(target, action=action)
    with scene.never_error(server):
        server.migrate()
        server.migration_is('error')
        server.becomes('ACTIVE')
    settles(server, source, target)
    assert server.reason()


def test_daxio_hangs(scene, source, target):
    server = scene.boot(on=source)
    scene.hold_copy(target).wait_later()
    with scene.never_error(server):
        server.migrate()
        # It is given up after [libvirt]pmem_copy_stall_timeout.
        assert settles(server, source, target)


def test_wipe_fails_and_is_tried_again(scene, source, target):
    server = scene.boot(on=source)
    [left] = server.namespaces()
    for name in source.memory.namespaces:
        source.memory.plan(tool='daxio', device=name, side='zero', at=MIB,
                           action='exit', status=1, message='bad DIMM\n',
                           repeat=True)
    server.migrate()
    server.becomes('VERIFY_RESIZE')
    server.confirm()
    assert not left.is_zero()
    # Nobody gets it meanwhile.
    until(lambda: scene.reserved(source, left.label) == 1,
          '%s is offered to the scheduler' % left, 60, interval=1)
    source.memory.heal()
    until(left.is_zero, '%s is not wiped' % left, 60, interval=0.5)
    until(lambda: scene.reserved(source, left.label) == 0,
          '%s is not offered again' % left, 60, interval=1)


def test_no_room_for_tickets(scene, source, target):
    server = scene.boot(on=source)
    with scene.full_disk(target, TICKETS), scene.never_error(server):
        server.migrate()
        server.migration_is('error')
        server.becomes('ACTIVE')
        server.runs_on(source)
    server.has_its_data()


def test_device_node_replaced_in_the_copy(scene, source, target):
    server = scene.boot(on=source)
    held = scene.hold_copy(target, at=12 * MIB)
    server.migrate()
    held.wait()
    for name in target.memory.namespaces:
        target.memory.replace_node(name)
    held.release()
    settles(server, source, target)


def test_odd_namespace_appears_before_the_confirm(scene, source, target):
    server = scene.boot(on=source)
    [left] = server.namespaces()
    server.migrate()
    server.becomes('VERIFY_RESIZE')
    with source.memory.odd({'dev': 'namespace1.0', 'mode': 'fsdax',
                            'name': 'scratch', 'size': 4 * MIB,
                            'blockdev': 'pmem1'}):
        server.confirm()
        server.has_its_data()
        until(left.is_zero, '%s is not wiped' % left, 40, interval=0.5)


# The next server

def test_next_server_on_a_freed_namespace(scene, source, target):
    server = scene.boot('large', on=source)
    scene.boot('large', on=source)
    [freed] = server.namespaces()
    server.migrate()
    server.becomes('VERIFY_RESIZE')
    server.confirm()
    following = scene.boot('large', on=source, fill=False)
    assert following.namespaces() == [freed]
    assert freed.is_zero()


def test_next_server_after_a_slow_wipe(scene, source, target):
    server = scene.boot('large', on=source)
    scene.boot('large', on=source)
    [freed] = server.namespaces()
    server.migrate()
    server.becomes('VERIFY_RESIZE')
    source.memory.plan(tool='daxio', device=freed.name, side='zero',
                       at=16 * MIB, action='hang')
    # Longer than confirming waits for its wipe.
    server.confirm()
    until(lambda: scene.reserved(source, 'LARGE') == 1,
          'what is being wiped is offered to the scheduler', 60, interval=1)
    source.memory.heal()
    until(freed.is_zero, '%s is not wiped' % freed, interval=0.1)
    until(lambda: scene.reserved(source, 'LARGE') == 0,
          'what was wiped is not offered', 3, interval=0.2)


def test_evacuate_in_the_copy(scene, source, target):
    server = scene.boot('large', on=source)
    bystander = scene.boot('large', on=source)
    held = scene.hold_copy(target)
    server.migrate()
    held.wait()
    source.kill_nova(with_children=True)
    with scene.forced_down(source):
        server.act({'evacuate': {'host': target.name}})
        # So it is since microversion 2.95.
        server.becomes('SHUTOFF', timeout=100)
        held.release()
    until(lambda: not source.devices_of(server.uuid),
          'the source still has the server', 100, interval=0.5)
    bystander.has_its_data()
