# SPDX-License-Identifier: Apache-2.0
"""What nova-compute does around a copy on the host that receives it.

With real device nodes and their owners, processes, disk and loss of power.
"""

from concurrent import futures
import json
import re
import signal
import typing as ty

import pytest

from lab import guest as guests
from lab.tests import conftest
from lab.tests import hosts as compute
from lab.tests import test_copy
from nova.virt.pmem_transfer import wire

MIB = compute.MIB

#: Another migration.
OTHER = '11111111-2222-3333-4444-666666666666'

#: Map a device, say so by its first byte, and keep it until killed.
USE = """
import mmap, os, sys, time
mmap.mmap(os.open(sys.argv[1], os.O_RDWR), int(sys.argv[2]))[0] = 1
time.sleep(1000)
"""

DAXIO = '/usr/local/bin/daxio'  # found before the real one

#: Tell that it was started, and go on when told to.
SLOW_DAXIO = """\
#!/bin/sh
echo > /run/wiping
read < /run/go
exec /usr/bin/daxio "$@"
"""

#: Write nothing, tell so, and do not end; zero as the real one.
HANGING_DAXIO = """\
#!/bin/sh
case $* in *-z*) exec /usr/bin/daxio "$@" ;; esac
echo > /run/hanging
exec sleep 1000
"""

#: Wait for the lock on a file, and keep it until killed.
LOCK = """
import fcntl, sys, time
file = open(sys.argv[1])
fcntl.flock(file, fcntl.LOCK_EX)
open('/run/locked', 'w').close()
time.sleep(1000)
"""

#: End early, and with status 0, as the real one does.
SHORT_DAXIO = """\
#!/bin/sh
exec /usr/bin/daxio -l 2097152 "$@"
"""


def receive(move):
    """Say hello to the receiver; return what it says, None if there is none.
    """
    hello = wire.hello(stream=0, extent=2 * MIB, stall_timeout=60,
                       generation=[0, 0])
    result = move.target.guest.run(
        'python3', '-m', 'nova.cmd.pmem_join', move.socket,
        user='nova', stdin=hello, environment={'PYTHONPATH': compute.CODE})
    lines = result.stdout.splitlines()
    return json.loads(lines[0]) if lines else None


@pytest.fixture
def prepared(hosts, move):
    """A move that has only begun: its target is lent, and nothing sent."""
    near, far = hosts
    moving = move(near, far)
    far.call('prepare', moving)
    return moving


@pytest.fixture
def use(prepared):
    """Have nova's user map the target, as a guest does."""
    (_, target), = prepared.pairs
    user = prepared.target.guest.start(
        'python3', '-c', USE, target.node, str(target.size), user='nova')
    while target.read(0, 1) != b'\1':
        pass
    yield user
    user.signal(signal.SIGKILL)


@pytest.fixture
def daxio(prepared):
    """Put something in front of the real one."""
    guest = prepared.target.guest
    yield lambda script: guest.write(DAXIO, script.encode(), mode=0o755)
    guest.check('rm', '-f', DAXIO)


@pytest.fixture
def hanging(prepared, daxio):
    """A copy whose daxio hangs on the target; its sender does not mind."""
    near, guest = prepared.source, prepared.target.guest
    daxio(HANGING_DAXIO)
    guest.check('mkfifo', '-m', '666', '/run/hanging')
    near.lend(prepared.pairs[0][0])
    sender = near.start(prepared, attempts=1, patience=0)
    guest.check('cat', '/run/hanging')
    yield sender
    guest.check('rm', '/run/hanging')


# The check

def test_what_the_check_command_says(hosts, move):
    moving = move(*hosts)
    (source, _), = moving.pairs
    lines = {name: line[1:] for name, line in
             hosts[0].call('check', moving).items()}
    assert all(is_ok for is_ok, _ in lines.values()), lines
    assert lines['namespaces'] == [True, 'old 14 MiB by 2']
    assert lines['device nodes'] == [True, source.node]
    assert lines['daxio'][1].startswith('/usr/bin/daxio, version')


def test_what_the_check_command_says_of_what_is_not_there(hosts, move):
    moving = move(*hosts)
    (source, _), = moving.pairs
    source.name = 'gone'
    lines = hosts[0].call('check', moving)
    assert lines['namespaces'][1:] == [
        False, 'gone is missing: see ndctl list -X -M']
    source.name = 'old'


# Receiving

def test_a_receiver_may_write_what_is_lent_to_it(prepared):
    (source, target), = prepared.pairs
    assert receive(prepared)['devices'] == [{
        'name': 'new', 'size': target.size, 'source_size': source.size}]
    written = prepared.target.guest.run(
        'daxio', '-b', 'no', '-o', target.node, user='nova', stdin=b'x')
    assert written.status == 0


def test_only_nova_reaches_a_receiver(prepared):
    modes = prepared.target.guest.check(
        'stat', '-c', '%a %U', prepared.socket, compute.TICKETS).text
    assert modes.splitlines() == ['600 nova', '700 nova']


def test_a_namespace_that_has_a_ticket_is_not_claimed_again(prepared):
    again = compute.Move(
        prepared.source, prepared.target, prepared.pairs, uuid=OTHER)
    with pytest.raises(compute.Failed, match='are not ready'):
        prepared.target.call('prepare', again)
    assert 'new: not wiped yet' in prepared.target.log()


# Wiping

def test_nova_can_open_nothing_while_it_is_wiped(prepared, daxio):
    far, guest = prepared.target, prepared.target.guest
    (_, target), = prepared.pairs
    daxio(SLOW_DAXIO)
    guest.check('mkfifo', '/run/wiping', '/run/go')
    prepared.status = 'error'
    with futures.ThreadPoolExecutor() as executor:
        settling = executor.submit(far.call, 'settle', prepared)
        guest.check('cat', '/run/wiping')
        try:
            assert not far.can_open(target.node)
            assert receive(prepared) is None
            assert far.call('dirty', prepared) == ['new']
            assert not target.is_zero()
        finally:
            guest.shell('echo > /run/go')
        assert settling.result() == [compute.MIGRATION]
    assert target.is_zero()
    assert far.call('dirty', prepared) == far.tickets() == []


def test_a_wipe_that_ends_early_leaves_the_ticket_open(prepared, daxio):
    far = prepared.target
    (_, target), = prepared.pairs
    daxio(SHORT_DAXIO)
    prepared.status = 'error'
    assert far.call('settle', prepared) == []
    assert target.is_zero(0, 2 * MIB) and not target.is_zero()
    assert far.call('dirty', prepared) == ['new']
    assert 'daxio was to zero %d bytes and said' % target.size in far.log()

    far.guest.check('rm', DAXIO)
    assert far.call('settle', prepared) == [compute.MIGRATION]
    assert target.is_zero()


def test_who_still_writes_is_ended_before_the_wipe(prepared, hanging):
    far = prepared.target
    (_, target), = prepared.pairs
    prepared.status = 'error'
    assert far.call('settle', prepared) == [compute.MIGRATION]
    assert compute.Copy(hanging.wait()).last['event'] == 'error'
    assert target.is_zero()


def test_who_has_the_lock_on_the_notes_knows_that_nobody_writes(
        prepared, hanging):
    """Also when nova-compute was killed, and is there again."""
    far, guest = prepared.target, prepared.target.guest
    (_, target), = prepared.pairs
    other = guest.start('python3', '-c', LOCK, prepared.file('writes'))
    far.kill_compute()
    guest.shell('until [ -e /run/locked ]; do :; done')
    # It lets go of the lock a moment before it is gone.
    guest.shell('while pidof daxio sleep; do :; done')
    compute.set_up([far])
    prepared.status = 'error'
    assert far.call('settle', prepared) == []
    assert 'new is in use by what a copy has left' in far.log()
    assert not target.is_zero()

    other.kill()
    hanging.wait()
    guest.check('rm', '/run/locked')
    assert far.call('settle', prepared) == [compute.MIGRATION]
    assert target.is_zero()


def test_who_is_not_of_the_copy_is_not_ended(prepared, use):
    """QEMU may run as nova's user."""
    far = prepared.target
    (_, target), = prepared.pairs
    prepared.status = 'error'
    assert far.call('settle', prepared) == []
    assert 'process %d' % use.pid in far.log()
    assert not target.is_zero()

    use.signal(signal.SIGKILL)
    use.wait(timeout=10)
    assert far.call('settle', prepared) == [compute.MIGRATION]
    assert target.is_zero()


def test_a_move_that_is_under_way_is_left_alone(prepared):
    far = prepared.target
    (_, target), = prepared.pairs
    assert far.call('settle', prepared) == []
    assert far.can_open(target.node)
    assert not target.is_zero()


# A loss of power

class Crashed(ty.NamedTuple):
    """A move whose destination lost its power half way, and is up again.

    Its claim knows the device node as it was. ``target`` and ``stranger``
    are as they are now; the latter has the node that the target had.
    """

    move: compute.Move
    other: compute.Move
    target: guests.Namespace
    stranger: guests.Namespace


def create_renumbered(host):
    """Create namespaces; return one that gets another number by a boot.

    The kernel counts an NVDIMM's namespaces when it boots, by their places,
    and NVDIMMs as it comes across them. So the one that gets its number then
    is on the same NVDIMM, or at that place of another.

    :returns: that one, and a third one
    """
    for number in range(5):
        host.guest.create_namespace('away-%d' % number, 16 * MIB)
    places = [host.create('here-%d' % number, 16 * MIB)
              for number in range(5)]
    if not displaced(places):
        places.pop(0).destroy()
    place, number = displaced(places)[0]
    third = ({0, 1, 2} - {place, number}).pop()
    return places[place], places[third]


def displaced(places):
    """Return places and other numbers, which are places as well."""
    numbers = [int(each.node.rpartition('.')[2]) for each in places]
    return [(place, number) for place, number in enumerate(numbers)
            if place != number < len(places)]


@pytest.fixture(scope='module')
def crashed(lab, pair_of_hosts):
    near, far = pair_of_hosts
    compute.set_up(pair_of_hosts)
    target, damaged = create_renumbered(far)
    for each in far.guest.namespaces():
        each.fill(b'\xee')
    source = near.create('old', 16 * MIB)
    conftest.write_data(source)
    other = compute.Move(near, far, [(source, damaged)], uuid=OTHER)
    far.call('prepare', other)

    move = compute.Move(near, far, [(source, target)])
    near.lend(source)
    far.call('prepare', move)
    # With this nothing more is claimed.
    far.guest.write(other.file(), b'{"host": "B", ')
    far.guest.check('sync')
    sender = near.start(move)
    test_copy.wait_until_written(target)
    sender.kill()
    far.guest.kill()

    far.guest.boot()
    compute.set_up([far])
    namespaces = far.guest.namespaces()
    yield Crashed(
        move, other, far.guest.namespace(target.name),
        next(each for each in namespaces if each.node == target.node))
    conftest.clean_up(pair_of_hosts, [
        (near, 'old'), *((far, each.name) for each in namespaces)])


def test_devices_have_other_numbers_after_a_boot(crashed):
    (_, before), = crashed.move.pairs
    assert crashed.target.node != before.node == crashed.stranger.node


def test_a_ticket_outlives_a_loss_of_power(crashed):
    stored = json.loads(crashed.move.target.guest.read(crashed.move.file()))
    assert [each['name'] for each in stored['targets']] == [
        crashed.target.name]


def test_nothing_is_lent_after_a_boot(crashed):
    far = crashed.move.target
    assert not far.can_open(crashed.target.node)
    assert not far.can_open(crashed.stranger.node)


def test_a_damaged_ticket_keeps_all_out_of_use(crashed):
    """Nobody can tell which namespaces it is about."""
    far = crashed.move.target
    assert far.call('dirty') == sorted(
        each.name for each in far.guest.namespaces())
    assert far.call('settle', crashed.move) == []
    assert OTHER + '.receive' in far.tickets()


def test_a_damaged_ticket_is_written_again_as_the_database_knows_it(crashed):
    far = crashed.move.target
    assert far.call('settle', crashed.other, crashed.move) == []
    (_, damaged), = crashed.other.pairs
    assert far.call('dirty') == sorted([damaged.name, crashed.target.name])
    crashed.other.status = 'error'
    assert far.call('settle', crashed.other, crashed.move) == [OTHER]
    assert far.guest.namespace(damaged.name).is_zero()


def test_a_claim_from_before_the_boot_is_refused(crashed):
    """It would lend the device of somebody else."""
    far = crashed.move.target
    with pytest.raises(compute.Failed, match='are not ready'):
        far.call('prepare', crashed.move)
    assert re.search(' was .* and is .*restart', far.log())
    assert not far.can_open(crashed.stranger.node)


def test_a_copy_goes_on_where_the_device_is_now(crashed):
    near, move = crashed.move.source, crashed.move
    # What was received before is not all.
    sender = near.start(move, attempt=1)
    copy = compute.Copy(sender.wait())
    assert copy.last['event'] == 'done', copy
    test_copy.assert_copied(move.pairs[0][0], crashed.target)
    assert crashed.stranger.read() == b'\xee' * crashed.stranger.size


def test_what_was_received_is_wiped_where_it_is_now(crashed):
    far, move = crashed.move.target, crashed.move
    assert not crashed.target.is_zero()
    move.status = 'error'
    assert far.call('settle', move) == [compute.MIGRATION]
    assert crashed.target.is_zero()
    assert crashed.stranger.read() == b'\xee' * crashed.stranger.size


def test_a_move_begun_after_the_boot_goes_to_the_right_device(crashed):
    near, far = crashed.move.source, crashed.move.target
    (source, _), = crashed.move.pairs
    again = compute.Move(near, far, [(source, crashed.target)])
    far.call('prepare', again)
    near.call('copy', again)
    far.call('finish', again)
    test_copy.assert_copied(source, crashed.target)
    assert crashed.stranger.read() == b'\xee' * crashed.stranger.size
