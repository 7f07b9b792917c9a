# SPDX-License-Identifier: Apache-2.0

import random

import ddt
from oslo_utils import units

from nova import objects
from nova import test
from nova.virt.libvirt.pmem import pairing
from nova.virt.pmem_transfer import extents

MIB = units.Mi


def device(label, size=4 * MIB, name=None):
    return objects.LibvirtVPMEMDevice(
        label=label, name=name or 'ns_' + label.lower(), size=size,
        devpath='/dev/dax0.0', align=2 * MIB)


def devices(labels):
    return [device(label, name='%s%d' % (label, position))
            for position, label in enumerate(labels)]


@ddt.ddt
class PairDevicesTestCase(test.NoDBTestCase):

    @ddt.data(('A', ''), ('AB', 'A'), ('AA', 'B'))
    @ddt.unpack
    def test_fewer_targets_are_refused(self, old, new):
        error = self.assertRaises(
            extents.DevicesDoNotFit, pairing.pair_devices,
            devices(old), devices(new))
        self.assertIn('%d vPMEM devices are to be copied and %d claimed' % (
            len(old), len(new)), str(error))

    def test_smaller_target_is_refused_with_names_and_sizes(self):
        error = self.assertRaises(
            extents.DevicesDoNotFit, pairing.pair_devices,
            [device('A', 6 * MIB, 'old')], [device('A', 4 * MIB, 'new')])
        for part in ('old', 'new', str(6 * MIB), str(4 * MIB)):
            self.assertIn(part, str(error))

    def test_size_is_checked_of_the_pair_not_of_the_position(self):
        pairs = pairing.pair_devices(
            [device('A', 4 * MIB), device('B', 8 * MIB)],
            [device('B', 8 * MIB), device('A', 4 * MIB)])
        self.assertEqual(['A', 'B'], [pair.target.label for pair in pairs])

    @ddt.data(
        # sources, targets, positions of the targets in the order of sources
        ('', '', []),
        ('', 'A', []),
        ('A', 'A', [0]),
        ('A', 'B', [0]),
        ('A', 'BA', [1]),
        ('AB', 'BA', [1, 0]),
        ('AA', 'AA', [0, 1]),
        ('AB', 'AC', [0, 1]),
        ('AB', 'CA', [1, 0]),
        ('AAB', 'ABB', [0, 2, 1]),
        ('ABC', 'CXA', [2, 1, 0]),
        ('AB', 'XYAB', [2, 3]),
        ('AB', 'XYZ', [0, 1]),
    )
    @ddt.unpack
    def test_equal_labels_first_then_by_position(self, old, new, expected):
        targets = devices(new)
        pairs = pairing.pair_devices(devices(old), targets)
        self.assertEqual([targets[position].name for position in expected],
                         [pair.target.name for pair in pairs])
        self.assertEqual([each.name for each in devices(old)],
                         [pair.source.name for pair in pairs])

    def test_every_target_is_used_at_most_once(self):
        choose = random.Random(34)
        for _round in range(300):
            old = choose.choices('ABC', k=choose.randint(0, 5))
            new = choose.choices('ABC', k=choose.randint(len(old), 7))
            pairs = pairing.pair_devices(devices(old), devices(new))
            names = [pair.target.name for pair in pairs]
            self.assertEqual(len(old), len(set(names)), (old, new))
            # Whoever can have a device of its own label gets one.
            for label in 'ABC':
                equal = sum(pair.source.label == pair.target.label == label
                            for pair in pairs)
                self.assertEqual(min(old.count(label), new.count(label)),
                                 equal, (old, new))


@ddt.ddt
class SectionsTestCase(test.NoDBTestCase):

    @ddt.data((4 * MIB, 4 * MIB - 1), (4 * MIB, 0), (2 * MIB - 1, 4 * MIB),
              (0, 0))
    @ddt.unpack
    def test_what_can_not_hold_it_is_refused(self, source, target):
        self.assertRaises(extents.DevicesDoNotFit, extents.sections,
                          source, target)

    def test_equal_sizes_are_one_section(self):
        self.assertEqual([(0, 6 * MIB, 0)],
                         extents.sections(6 * MIB, 6 * MIB))

    def test_label_area_moves_to_the_end_of_a_larger_target(self):
        self.assertEqual(
            [(0, 4 * MIB, 0), (4 * MIB, 10 * MIB, None),
             (14 * MIB, 2 * MIB, 4 * MIB)],
            extents.sections(6 * MIB, 16 * MIB))

    def test_device_that_is_all_labels(self):
        self.assertEqual(
            [(0, 2 * MIB, None), (2 * MIB, 2 * MIB, 0)],
            extents.sections(2 * MIB, 4 * MIB))

    @ddt.data((2, 2), (2, 4), (4, 4), (4, 6), (6, 1024), (1000, 1002))
    @ddt.unpack
    def test_target_is_covered_once_and_source_used_once(self, old, new):
        cut = extents.sections(old * MIB, new * MIB)
        written = used = 0
        for section in cut:
            self.assertEqual(written, section.target_offset)
            self.assertGreater(section.length, 0)
            written += section.length
            if section.source_offset is not None:
                self.assertEqual(used, section.source_offset)
                used += section.length
        self.assertEqual((old * MIB, new * MIB), (used, written))
