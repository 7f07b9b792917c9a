# SPDX-License-Identifier: Apache-2.0
"""This project's own copies, between hosts with real device DAX."""

from concurrent import futures
import signal
import time
import typing as ty

import pytest

from lab import guest as guests
from lab.tests import conftest
from lab.tests import hosts as compute
from nova.virt.pmem_transfer import extents

MIB = compute.MIB

#: What a tenant has on an NVDIMM, and calls it.
TENANT_DATA = b'a database'
TENANT_NAME = 'of-the-guest'


def assert_copied(source, target):
    for section in extents.sections(source.size, target.size):
        place = section.target_offset, section.length
        if section.source_offset is None:
            assert target.is_zero(*place), section
        else:
            assert target.digest(*place) == source.digest(
                section.source_offset, section.length), section


def wait_until_written(target, offset=0):
    """Wait until a place is written, so that a copy is under way."""
    while target.read(offset, 4) == b'\xee' * 4:
        # Memory does not tell of changes, and looking slows the guest down.
        time.sleep(0.1)


#: Write all the time, as a guest that has the device mapped.
WRITING = """
import mmap, os, random, sys
device = mmap.mmap(os.open(sys.argv[1], os.O_RDWR), int(sys.argv[2]))
numbers = random.Random(0)
while True:
    at = numbers.randrange(len(device) - 4096)
    device[at:at + 4096] = numbers.randbytes(4096)
"""


# A copy of two devices

class Moved(ty.NamedTuple):
    """A move that was made once for several tests.

    Its pairs are of equal sizes, and of unequal ones.

    :ivar digests: of the sources, before
    :ivar content: what the second source got: a guest's whole NVDIMM
    :ivar access: for each moment, what nova's user could open
    """

    move: compute.Move
    digests: list[str]
    content: bytes
    access: dict[str, dict[str, bool]]


@pytest.fixture(scope='module')
def moved(lab, pair_of_hosts):
    near, far = pair_of_hosts
    # A guest's NVDIMM is a whole namespace; what has 30 MiB was made of 32.
    medium = guests.Nvdimm(28 * MIB)
    tenant, = lab.power_on(nvdimms=[medium])
    compute.set_up(pair_of_hosts)
    tenant.wait_until_up()
    inside = tenant.create_namespace(TENANT_NAME, 16 * MIB)
    inside.write(MIB, TENANT_DATA)
    content = medium.read()
    tenant.close()

    pairs = [(near.create('same', 16 * MIB), far.create('same', 16 * MIB)),
             (near.create('small', 32 * MIB), far.create('large', 48 * MIB))]
    strangers = near.create('strange', 16 * MIB), far.create('strange',
                                                             16 * MIB)
    conftest.write_data(pairs[0][0])
    pairs[1][0].write(0, content)
    for _, target in pairs:
        target.fill(b'\xee')
    digests = [source.digest() for source, _ in pairs]
    move = compute.Move(near, far, pairs)

    def look():
        return {
            'sources': [near.can_open(source.node) for source, _ in pairs],
            'targets': [far.can_open(target.node) for _, target in pairs],
            'others': [host.can_open(other.node)
                       for host, other in zip(pair_of_hosts, strangers)]}

    access = {'at first': look()}
    far.call('prepare', move)
    access['prepared'] = look()
    with futures.ThreadPoolExecutor() as executor:
        copying = executor.submit(near.call, 'copy', move)
        wait_until_written(pairs[0][1])
        access['copying'] = look()
        copying.result()
    access['copied'] = look()
    far.call('finish', move)
    access['finished'] = look()
    move.status = 'finished'
    yield Moved(move, digests, content, access)
    conftest.clean_up(pair_of_hosts, [
        (near, 'same'), (near, 'small'), (near, 'strange'),
        (far, 'same'), (far, 'large'), (far, 'strange')])


def test_all_of_two_devices_arrives(moved):
    for source, target in moved.move.pairs:
        assert_copied(source, target)


def test_the_sources_are_as_they_were_and_held(moved):
    sources = [source for source, _ in moved.move.pairs]
    assert [source.digest() for source in sources] == moved.digests
    host = moved.move.source
    assert host.tickets() == [compute.MIGRATION + '.hold']
    assert host.call('dirty') == ['same', 'small']


def test_nova_can_open_what_it_is_lent_as_long_as_it_is(moved):
    """On the source while it copies, on the target from ticket to close."""
    def allowed(sources, targets):
        return {'sources': [sources] * 2, 'targets': [targets] * 2,
                'others': [False] * 2}

    assert moved.access == {
        'at first': allowed(False, False),
        'prepared': allowed(False, True),
        'copying': allowed(True, True),
        'copied': allowed(False, True),
        'finished': allowed(False, False)}


def test_the_target_is_free_of_tickets_when_its_guest_starts(moved):
    host = moved.move.target
    assert host.tickets() == []
    assert host.call('dirty') == []


def test_a_guest_finds_its_labels_on_the_larger_device(lab, moved):
    """Its NVDIMM's label area is where it looks: at the new end."""
    _, target = moved.move.pairs[1]
    medium = guests.Nvdimm(target.size - guests.LABEL_SIZE, target.read())
    assert medium.size > len(moved.content)
    tenant, = lab.boot(nvdimms=[medium])
    checked = tenant.check('ndctl', 'check-labels', 'nmem0')
    assert 'successfully verified 1 nmem label' in checked.stderr
    assert tenant.namespace(TENANT_NAME).read(MIB, len(TENANT_DATA)) == (
        TENANT_DATA)
    tenant.close()


def test_what_was_left_behind_is_wiped_when_the_move_is_confirmed(moved):
    move = moved.move
    assert not any(source.is_zero() for source, _ in move.pairs)
    move.source.call('wipe_old', move)
    assert all(source.is_zero() for source, _ in move.pairs)
    assert move.source.tickets() == []
    assert not any(target.is_zero() for _, target in move.pairs)


# Other copies

def test_a_copy_within_a_host(hosts, move):
    near, _ = hosts
    within = move(near, near)
    near.call('prepare', within)
    near.call('copy', within)
    near.call('finish', within)
    (source, target), = within.pairs
    assert_copied(source, target)


@pytest.mark.parametrize('aligns', [(4096, 2 * MIB), (2 * MIB, 4096)])
def test_a_copy_between_alignments(hosts, move, aligns):
    near, _ = hosts
    moving = move(near, near, aligns, target_size=32 * MIB)
    (source, target), = moving.pairs
    assert [each.align for each in (source, target)] == list(aligns)
    near.call('prepare', moving)
    near.call('precopy', moving)
    source.write(source.size - 1, b'!')
    near.call('copy', moving)
    near.call('finish', moving)
    assert_copied(source, target)
    near.call('wipe_old', moving)
    assert source.is_zero()


def test_a_copy_of_what_is_aligned_to_1_gib(lab):
    """Pages that large can only be mapped, and let go, as a whole."""
    gib = 1024 * MIB
    host = compute.Host(*lab.boot(nvdimms=[5 * gib]))
    compute.set_up([host])
    source, target = (host.guest.create_namespace(
        name, 2 * gib, align=gib) for name in ('old', 'new'))
    assert {each.size for each in (source, target)} == {gib}
    places = 5, 300 * MIB + 1, gib - 10
    for place in places:
        source.write(place, b'%010d' % place)
    moving = compute.Move(host, host, [(source, target)])
    host.call('prepare', moving)
    host.call('precopy', moving)
    source.write(700 * MIB, b'!')
    host.call('copy', moving)
    host.call('finish', moving)
    for place in places:
        assert target.read(place, 10) == b'%010d' % place
    assert target.read(700 * MIB, 1) == b'!'
    host.guest.close()


def test_a_copy_goes_on_after_who_was_killed_at_either_end(hosts, move):
    """All in one, since each connection takes seconds under emulation."""
    near, far = hosts
    moving = move(near, far)
    (source, target), = moving.pairs
    near.lend(source)
    far.call('prepare', moving)
    sender = near.start(moving, attempts=1, patience=0)
    wait_until_written(target)
    near.kill('BatchMode')
    copy = compute.Copy(sender.wait())
    assert (copy.last['event'], copy.status) == ('error', 1), copy
    assert 'ssh was killed by SIGKILL' in copy.last['message']

    # The next sender takes over from whatever still writes.
    target.fill(b'\xee', 4 * MIB)
    sender = near.start(moving, attempt=1, patience=600)
    wait_until_written(target, 4 * MIB)
    far.kill('pmem_transfer.receiver')
    assert far.call('settle', moving) == []
    wait_until_written(target, 8 * MIB)
    far.kill_compute()
    compute.set_up([far])
    assert far.call('settle', moving) == []
    copy = compute.Copy(sender.wait())
    assert copy.last['event'] == 'done', copy
    assert copy.last['bytes'] == target.size
    assert len(copy.told('retry')) >= 2
    assert 2 * MIB <= copy.last['resumed'] < target.size
    far.call('finish', moving)
    assert_copied(source, target)


# A guest that runs

def test_a_guest_that_writes_all_the_time(hosts, move):
    near, far = hosts
    moving = move(near, far)
    (source, target), = moving.pairs
    far.call('prepare', moving)
    guest = near.guest.start(
        'python3', '-c', WRITING, source.node, str(source.size))
    before = source.read(0, source.size)
    while source.read(0, source.size) == before:
        pass
    near.call('precopy', moving)
    assert 'while the guest runs, pass 2' in near.log()
    guest.signal(signal.SIGKILL)
    guest.wait(timeout=10)
    digest = source.digest()
    near.call('copy', moving)
    assert 'and found it equal' in near.log()
    assert (source.digest(), target.digest()) == (digest, digest)


def test_a_guest_that_writes_next_to_nothing(hosts, move):
    near, far = hosts
    moving = move(near, far)
    (source, target), = moving.pairs
    far.call('prepare', moving)
    near.call('precopy', moving)
    assert target.digest() == source.digest()
    source.write(5, b'one thing')
    near.call('copy', moving)
    assert target.digest() == source.digest()
    # Only the part of an extent that it is in was sent.
    assert 'and found it equal; 0 MiB differed, 0 MiB were sent' in near.log()
