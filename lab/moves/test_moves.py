# SPDX-License-Identifier: Apache-2.0
"""Whole moves: real services, real nova-computes, real device DAX.

One server's story, told in the order of this file, with a real guest's QEMU
that maps the devices: a case begins where the one before has ended. What is
on a device is looked at with nothing of Nova's.
"""

import random

import pytest

from lab.moves import computes

MIB = computes.MIB

#: Bytes at the end of a guest's vPMEM in which QEMU keeps its labels.
LABELS = 2 * MIB

#: What other servers might have there.
STRANGE = b'\xee'

NAMESPACES = {'SMALL': ['small'], 'LARGE': ['large'], 'OTHER': ['other']}
SIZES = {'small': 16 * MIB, 'large': 32 * MIB, 'other': 16 * MIB}


class Story:
    """A cloud with two hosts, and a server with its data.

    :ivar server: its uuid
    :ivar flavors: their ids by label
    :ivar data: what its vPMEM has, without what is behind the last byte
    """

    def __init__(self, cloud, near, far):
        self.cloud = cloud
        self.near = near
        self.far = far
        self.flavors = {
            label: cloud.create_flavor(label) for label in NAMESPACES}
        self.server = None

    def act(self, action, **details):
        self.cloud.act(self.server, action, **details)

    def wait_until(self, status, host):
        self.cloud.wait_until(self.server, status, host.name)

    def assert_runs_on(self, host, name):
        """See that QEMU has the namespace mapped, and no other."""
        assert host.nodes_in_use() == [host.guest.namespace(name).node]


@pytest.fixture(scope='module')
def story(lab, cloud, folder):
    guests = lab.boot(2, nvdimms=[128 * MIB], **computes.GUEST)
    near, far = hosts = [
        computes.Compute(guest, cloud.ports, NAMESPACES) for guest in guests]
    for host in hosts:
        # Its place is free when the namespaces are counted at the next boot.
        first = host.guest.create_namespace('first', 16 * MIB)
        for name, size in SIZES.items():
            host.guest.create_namespace(name, size).fill(STRANGE)
        first.destroy()
        host.set_up()
        host.start_compute()
    cloud.wait_for_hosts(hosts)
    for host in hosts:
        for name in ('small', 'large'):
            # Nova gives out what was wiped.
            host.guest.namespace(name).fill(b'\0')
    yield Story(cloud, near, far)
    for host in hosts:
        host.keep_log(folder)


def write_data(namespace):
    """Write what has holes, and ends in the label area."""
    some = random.Random(1).randbytes(MIB // 8)
    for offset in (0, 5 * MIB + 1, namespace.size - len(some)):
        namespace.write(offset, some)


def assert_same(source, target):
    """See that a target has what its source has, labels at its end."""
    data = source.size - LABELS
    assert source.digest(0, data) == target.digest(0, data)
    assert source.digest(data) == target.digest(target.size - LABELS)
    assert target.is_zero(data, target.size - LABELS - data)


def assert_strangers_untouched(story):
    for host in (story.near, story.far):
        other = host.guest.namespace('other')
        assert other.read() == STRANGE * other.size


def test_a_server_starts_on_a_real_device(story):
    story.server = story.cloud.create_server(
        story.flavors['SMALL'], story.near.name)
    story.wait_until('ACTIVE', story.near)
    story.assert_runs_on(story.near, 'small')
    write_data(story.near.guest.namespace('small'))


def test_a_resize_takes_the_data_to_a_larger_device(story):
    story.act('resize', flavorRef=story.flavors['LARGE'],
              copy_pmem_devices=True)
    story.wait_until('VERIFY_RESIZE', story.far)
    story.assert_runs_on(story.far, 'large')
    assert story.near.nodes_in_use() == []
    assert_same(story.near.guest.namespace('small'),
                story.far.guest.namespace('large'))


def test_a_revert_brings_it_back_and_wipes_the_destination(story):
    before = story.near.guest.namespace('small').digest()
    story.act('revertResize')
    story.wait_until('ACTIVE', story.near)
    story.assert_runs_on(story.near, 'small')
    assert story.far.nodes_in_use() == []
    assert story.near.guest.namespace('small').digest() == before
    assert story.far.guest.namespace('large').is_zero()
    assert_strangers_untouched(story)


def test_a_migration_takes_the_data_to_the_other_host(story):
    story.act('migrate', copy_pmem_devices=True)
    story.wait_until('VERIFY_RESIZE', story.far)
    story.assert_runs_on(story.far, 'small')
    assert_same(story.near.guest.namespace('small'),
                story.far.guest.namespace('small'))


def test_a_confirm_wipes_the_source(story):
    before = story.far.guest.namespace('small').digest()
    story.act('confirmResize')
    story.wait_until('ACTIVE', story.far)
    assert story.near.guest.namespace('small').is_zero()
    assert story.far.guest.namespace('small').digest() == before
    assert_strangers_untouched(story)


def test_a_host_that_boots_with_other_numbers_finds_the_right_device(story):
    """It lost its power; its server starts with it, where its data is."""
    far = story.far
    before = far.guest.namespace('small')
    digest = before.digest()
    far.guest.check('sync')  # nothing has happened there for a while
    far.guest.kill()
    far.power_on()
    now = far.guest.namespace('small')
    assert now.node != before.node
    assert before.node in [each.node for each in far.guest.namespaces()]

    far.start_compute()
    far.wait_for_domain()
    story.assert_runs_on(far, 'small')
    assert now.digest() == digest
    assert_strangers_untouched(story)


def test_a_delete_wipes_where_the_device_is_now(story):
    story.cloud.delete_server(story.server)
    assert story.far.nodes_in_use() == []
    assert story.far.guest.namespace('small').is_zero()
    assert_strangers_untouched(story)
