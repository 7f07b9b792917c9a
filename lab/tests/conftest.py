# SPDX-License-Identifier: Apache-2.0
"""Two hosts, and moves between them."""

import random

import pytest

from lab.tests import hosts as compute

MIB = compute.MIB


@pytest.fixture(scope='session')
def pair_of_hosts(lab):
    return [compute.Host(guest) for guest in lab.shared(2)]


@pytest.fixture
def hosts(guests, pair_of_hosts):
    compute.set_up(pair_of_hosts)
    return pair_of_hosts


@pytest.fixture
def move(hosts):
    """Begin a move from a source to a target, which go with the test."""
    created = []

    def begin(near, far, aligns=(2 * MIB, 2 * MIB), target_size=16 * MIB):
        source, target = (near.create('old', 16 * MIB, aligns[0]),
                          far.create('new', target_size, aligns[1]))
        created.extend([(near, source.name), (far, target.name)])
        write_data(source)
        target.fill(b'\xee')
        return compute.Move(near, far, [(source, target)])

    yield begin
    clean_up(hosts, created)


def clean_up(hosts, created):
    """Have nova-compute forget all moves, and destroy namespaces."""
    compute.set_up(hosts)
    for host in hosts:
        host.call('settle')  # the database knows of none
        assert host.tickets() == [], host.log()
    for host, name in created:
        host.guest.namespace(name).destroy()


def write_data(namespace):
    """Write what has holes, and ends in the label area.

    There is little of it, for ssh is slow under emulation.
    """
    namespace.fill(b'\0')
    some = random.Random(namespace.name).randbytes(MIB // 8)
    for offset in (0, 5 * MIB + 1, namespace.size - len(some)):
        namespace.write(offset, some)
