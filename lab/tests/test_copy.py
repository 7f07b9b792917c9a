# SPDX-License-Identifier: Apache-2.0
"""This project's own copies, between hosts with real device DAX."""

import json
import random
import signal
import time
import typing as ty

import pytest

from lab import guest as guests
from lab.tests import hosts as compute
from nova.virt.pmem import layout
from nova.virt.pmem import wire

#: One worker of pytest-xdist boots both guests, and has what they share.
pytestmark = pytest.mark.xdist_group('two guests')

MIB = 1024 * 1024

#: What a tenant has on an NVDIMM, and calls it.
TENANT_DATA = b'a database'
TENANT_NAME = 'of-the-guest'

#: Map a device, say so by its first byte, and keep it until killed.
USE = """
import mmap, os, sys, time
mmap.mmap(os.open(sys.argv[1], os.O_RDWR), int(sys.argv[2]))[0] = 1
time.sleep(1000)
"""


@pytest.fixture(scope='module')
def pair_of_hosts(lab):
    return [compute.Host(guest) for guest in lab.shared(2)]


@pytest.fixture
def hosts(guests, pair_of_hosts):
    for host in pair_of_hosts:
        host.set_up()
    return pair_of_hosts


@pytest.fixture
def pair(hosts):
    """Create a source and a target, which go with the test."""
    created = []

    def create(near, far, size=16 * MIB, target_size=16 * MIB):
        created.extend([(near, 'old'), (far, 'new')])
        source, target = near.create('old', size), far.create('new',
                                                              target_size)
        write_data(source)
        target.fill(b'\xee')
        near.lend('old')
        return source, target

    yield create
    for host, name in created:
        host.guest.namespace(name).destroy()
    hosts[1].guest.shell('rm -f ' + compute.TICKET)


def write_data(namespace):
    """Write what has holes, and ends in the label area.

    There is little of it, for ssh is slow under emulation.
    """
    namespace.fill(b'\0')
    some = random.Random(namespace.name).randbytes(MIB // 8)
    for offset in (0, 5 * MIB + 1, namespace.size - len(some)):
        namespace.write(offset, some)


def assert_copied(source, target):
    for section in layout.sections(source.size, target.size):
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


def kill(host, pattern):
    """Kill processes by what their command lines have."""
    host.guest.check('bash', '-c', (
        "kill -KILL $(grep -l '%s' /proc/[0-9]*/cmdline | cut -d / -f 3)"
        % pattern))


def receive(host):
    """Start a receiver as ssh does, and return the first thing it says."""
    hello = wire.hello(stream=0, extent=2 * MIB, stall_timeout=60,
                       reconnect=False)
    result = host.guest.run(
        'nova-pmem-receive', compute.MIGRATION, user='nova', stdin=hello)
    return json.loads(result.stdout.splitlines()[0])


# A copy of two devices

class Moved(ty.NamedTuple):
    """A copy that was made once for several tests.

    ``pairs`` are sources and targets: of equal sizes, and of unequal ones.
    ``content`` is what the second source got: a guest's whole NVDIMM.
    """

    pairs: list[tuple[guests.Namespace, guests.Namespace]]
    digests: list[str]
    copy: compute.Copy
    content: bytes


@pytest.fixture(scope='module')
def moved(lab, pair_of_hosts):
    near, far = pair_of_hosts
    # A guest's NVDIMM is a whole namespace; what has 30 MiB was made of 32.
    medium = guests.Nvdimm(28 * MIB)
    tenant, = lab.power_on(nvdimms=[medium])
    near.set_up()
    far.set_up()
    tenant.wait_until_up()
    inside = tenant.create_namespace(TENANT_NAME, 16 * MIB)
    inside.write(MIB, TENANT_DATA)
    content = medium.read()
    tenant.close()

    pairs = [(near.create('same', 16 * MIB), far.create('same', 16 * MIB)),
             (near.create('small', 32 * MIB), far.create('large', 48 * MIB))]
    write_data(pairs[0][0])
    pairs[1][0].write(0, content)
    for _, target in pairs:
        target.fill(b'\xee')
    near.lend('same', 'small')
    far.open_ticket(pairs)
    far.lend('same', 'large')
    digests = [source.digest() for source, _ in pairs]
    copy = near.copy(far, pairs, streams=2, extent=8 * MIB)
    far.close_ticket()
    yield Moved(pairs, digests, copy, content)
    for name in ('same', 'small'):
        near.guest.namespace(name).destroy()
    for name in ('same', 'large'):
        far.guest.namespace(name).destroy()


def test_all_of_two_devices_arrives(moved):
    assert moved.copy.last['event'] == 'done', moved.copy
    assert moved.copy.status == 0
    assert moved.copy.last['bytes'] == sum(
        target.size for _, target in moved.pairs)
    assert moved.copy.last['retries'] == 0
    for source, target in moved.pairs:
        assert_copied(source, target)


def test_the_sources_are_as_they_were(moved):
    assert [source.digest() for source, _ in moved.pairs] == moved.digests


def test_a_guest_finds_its_labels_on_the_larger_device(lab, moved):
    """Its NVDIMM's label area is where it looks: at the new end."""
    _, target = moved.pairs[1]
    medium = guests.Nvdimm(target.size - guests.LABEL_SIZE, target.read())
    assert medium.size > len(moved.content)
    tenant, = lab.boot(nvdimms=[medium])
    checked = tenant.check('ndctl', 'check-labels', 'nmem0')
    assert 'successfully verified 1 nmem label' in checked.stderr
    assert tenant.namespace(TENANT_NAME).read(MIB, len(TENANT_DATA)) == (
        TENANT_DATA)
    tenant.close()


def test_what_was_left_behind_can_be_wiped(moved):
    """As privsep does, as root, whoever the node is lent to."""
    source, _ = moved.pairs[0]
    assert not source.is_zero()
    source.guest.check('daxio', '-z', '-o', source.node)
    assert source.is_zero()


# Other copies

def test_a_copy_within_a_host(hosts, pair):
    near, _ = hosts
    source, target = pair(near, near)
    near.open_ticket([(source, target)])
    near.lend('new')
    copy = near.copy(near, [(source, target)], extent=8 * MIB)
    near.close_ticket()
    assert copy.last['event'] == 'done', copy
    assert_copied(source, target)


def test_a_copy_goes_on_after_all_that_can_happen(hosts, pair):
    """Its link is killed, its destination boots, its receiver is killed.

    All in one copy, since each connection takes seconds under emulation.
    """
    near, far = hosts
    gap = far.create('gap', 16 * MIB)
    far.create('between', 16 * MIB)
    gap.destroy()
    source, target = pair(near, far)
    far.open_ticket([(source, target)])
    far.lend('new')
    sender = near.start(far, [(source, target)], attempts=1)
    wait_until_written(target)
    kill(near, '^ssh')
    copy = compute.Copy(sender.wait())
    assert (copy.last['event'], copy.status) == ('error', 1), copy
    assert 'ssh was killed by SIGKILL' in copy.last['message']
    # What was started on the other side ends, too, and so writes no more.
    far.guest.shell('while pidof daxio; do :; done')

    far.guest.reboot()
    far.set_up()
    # The namespace is found by its name: it has another node now.
    before, target = target, far.guest.namespace('new')
    assert before.node != target.node
    assert not target.is_zero(0, MIB)
    target.fill(b'\xee', 4 * MIB)
    far.open_ticket([(source, target)])  # stands for its disk
    far.lend('new')
    sender = near.start(far, [(source, target)], resume=True)
    wait_until_written(target, 4 * MIB)
    kill(far, 'nova.virt.pmem.[r]eceiver')
    copy = compute.Copy(sender.wait())
    assert copy.last['event'] == 'done', copy
    assert len(copy.told('retry')) == 1
    assert 2 * MIB <= copy.last['resumed'] < target.size
    assert_copied(source, target)
    far.guest.namespace('between').destroy()


# Who may do what, and when

def test_nova_gets_at_a_device_from_lending_to_taking_back(hosts, pair):
    near, far = hosts
    source, target = pair(near, far)
    other = far.create('other', 16 * MIB)
    write = ['daxio', '-b', 'no', '-o', target.node]
    denied = (1, "daxio: failed to open '%s': Permission denied\n"
              % target.node)

    def try_to_write():
        result = far.guest.run(*write, user='nova', stdin=b'x')
        return result.status, result.stderr

    assert try_to_write() == denied
    far.open_ticket([(source, target)])
    assert try_to_write() == denied
    assert 'is not lent' in receive(far)['error']

    far.lend('new')
    assert try_to_write()[0] == 0
    assert receive(far)['devices'] == [{
        'name': 'new', 'size': target.size, 'source_size': source.size}]
    # Without a ticket the receiver does not; and of others it may none.
    assert far.guest.run('daxio', '-i', other.node, user='nova').status == 1
    far.close_ticket()
    assert 'there is no open ticket' in receive(far)['error']

    far.take_back('new')
    assert try_to_write() == denied
    other.destroy()


def test_a_device_that_is_in_use_is_not_written(hosts, pair):
    near, far = hosts
    source, target = pair(near, far)
    far.open_ticket([(source, target)])
    far.lend('new')
    user = far.guest.start('python3', '-c', USE, target.node,
                           str(target.size), user='nova')
    try:
        while target.read(0, 1) != b'\1':
            pass
        said = receive(far)
    finally:
        user.signal(signal.SIGKILL)
    assert 'is used by process %d (python3)' % user.pid in said['error']
