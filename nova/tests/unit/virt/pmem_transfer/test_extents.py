# SPDX-License-Identifier: Apache-2.0

import ddt
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from nova import test
from nova.virt.pmem_transfer import extents
from nova.virt.pmem_transfer import memory

KIB = 1024
MIB = extents.MIB


@ddt.ddt
class CheckTestCase(test.NoDBTestCase):
    """A device of 4 MiB into one of 6 MiB, in extents of 1 MiB at most."""

    sections = extents.sections(4 * MIB, 6 * MIB)

    def check(self, offset, length, *runs):
        extents.check((offset, length), [extents.Run(*run) for run in runs],
                      self.sections, MIB)

    @ddt.data((0, 0), (0, MIB + 1), (0, -1), (6 * MIB, 1), (6 * MIB - 1, 2),
              (2 * MIB - 1, 2), (2 ** 64 - 1, 1), (4 * MIB - 5, 10))
    @ddt.unpack
    def test_extent_that_is_not_allowed(self, offset, length):
        self.assertRaises(extents.NotAllowed, self.check, offset, length)

    @ddt.data([(0, 0)], [(0, 11)], [(10, 1)], [(0, 5), (4, 2)],
              [(5, 2), (0, 2)], [(2 ** 32 - 1, 2 ** 32 - 1)])
    def test_runs_that_are_not_allowed(self, runs):
        self.assertRaises(extents.NotAllowed, self.check, 0, 10, *runs)

    def test_data_where_zeros_have_to_be(self):
        self.check(2 * MIB, 10)
        self.assertRaises(
            extents.NotAllowed, self.check, 2 * MIB, 10, (0, 1))

    @ddt.data((0, MIB), (2 * MIB - 1, 1), (5 * MIB, MIB))
    @ddt.unpack
    def test_whole_sections_are_allowed(self, offset, length):
        self.check(offset, length, (0, length))


class PlanTestCase(test.NoDBTestCase):

    @staticmethod
    def _simple(sizes, limit):
        """Cut devices in the plainest way: section by section."""
        for device, pair in enumerate(sizes):
            for start, length, source in extents.sections(*pair):
                for done in range(0, length, limit):
                    yield extents.Extent(
                        device, start + done, min(limit, length - done),
                        None if source is None else source + done)

    @settings(deadline=None, database=None)
    @given(st.lists(st.tuples(st.integers(2 * MIB, 9 * MIB),
                              st.integers(0, 3 * MIB)), max_size=4),
           st.integers(64 * KIB, 4 * MIB))
    def test_each_is_known_by_its_number(self, devices, limit):
        sizes = [(size, size + more) for size, more in devices]
        plan = extents.Plan(sizes, limit)
        expected = list(self._simple(sizes, limit))
        self.assertEqual(len(expected), len(plan))
        self.assertEqual(expected, [plan[each] for each in range(len(plan))])

    @settings(deadline=None, database=None)
    @given(st.integers(2 * MIB, 9 * MIB), st.integers(0, 3 * MIB),
           st.integers(64 * KIB, 4 * MIB))
    def test_they_cover_the_target_once(self, size, more, limit):
        sections = extents.sections(size, size + more)
        plan = extents.Plan([(size, size + more)], limit)
        end = 0
        for number in range(len(plan)):
            extent = plan[number]
            self.assertEqual([0, end, extent.length], extent.place)
            extents.check((extent.offset, extent.length), (), sections, limit)
            end += extent.length
        self.assertEqual(size + more, end)

    def test_nothing(self):
        self.assertEqual(0, len(extents.Plan([], MIB)))

    def test_target_that_is_too_small(self):
        self.assertRaises(extents.DevicesDoNotFit, extents.Plan,
                          [(4 * MIB, 2 * MIB)], MIB)

    def test_large_device_takes_no_more_memory(self):
        tib = 1024 ** 4
        plan = extents.Plan([(tib, tib), (tib, 2 * tib)], MIB)
        self.assertEqual(3 * tib // MIB, len(plan))
        self.assertEqual(4, len(plan._parts))
        self.assertEqual(
            extents.Extent(1, 2 * tib - MIB, MIB, tib - MIB),
            plan[len(plan) - 1])


class RunsTestCase(test.NoDBTestCase):

    def setUp(self):
        super().setUp()
        self.buffer = memory.Buffer(MIB)
        self.other = memory.Buffer(MIB)
        self.addCleanup(self.other.close)
        self.addCleanup(self.buffer.close)

    @settings(deadline=None, database=None)
    @given(st.integers(0, 9), st.integers(1, MIB - 9 * extents.PAGE),
           st.lists(st.tuples(st.integers(0, MIB - 1),
                              st.integers(1, 200 * KIB)), max_size=6))
    def test_runs_hold_all_data_and_little_else(self, page, length, pieces):
        self.buffer.view[:] = bytes(MIB)
        for offset, size in pieces:
            end = min(offset + size, MIB)
            self.buffer.view[offset:end] = b'x' * (end - offset)
        start = page * extents.PAGE
        data = bytes(self.buffer.view[start:start + length])
        runs = extents.data_runs(self.buffer, start, length)
        found = bytearray(length)
        for run in runs:
            found[run.offset:run.offset + run.length] = data[
                run.offset:run.offset + run.length]
        self.assertTrue(found == data)
        self.assertLessEqual(len(runs), extents.most_runs(length))
        sections = extents.sections(2 * MIB, 2 * MIB)
        extents.check((0, length), runs, sections, MIB)
        # Runs don't begin or end with a page of zeros, nor span a block.
        for run in runs:
            part = data[run.offset:run.offset + run.length]
            self.assertTrue(any(part[:extents.PAGE]))
            self.assertTrue(any(part[-extents.PAGE:]))
            self.assertNotIn(bytes(2 * extents.ZERO_RUN), part)

    @settings(deadline=None, database=None)
    @given(st.integers(1, MIB), st.data())
    def test_memory_that_changes_while_it_is_looked_at(self, length, data):
        """A guest writes as it likes; what is sent must be in order."""
        class Changing:
            @staticmethod
            def is_zero(offset, size):
                assert 5 <= offset and size > 0
                assert offset + size <= 5 + length
                return data.draw(st.booleans())

        runs = extents.data_runs(Changing(), 5, length)
        extents.check((0, length), runs, extents.sections(
            2 * MIB, 2 * MIB), MIB)
        self.assertLessEqual(len(runs), extents.most_runs(length))

    def test_bytes_beyond_the_end(self):
        self.assertRaises(ValueError, self.buffer.is_zero, MIB, 1)
        self.assertRaises(ValueError, self.buffer.clear, MIB - 1, 2)
        self.assertRaises(ValueError, self.buffer.equals, 1, self.other, 0,
                          MIB)
        self.assertRaises(ValueError, self.buffer.equals, 0, self.other, 1,
                          MIB)
