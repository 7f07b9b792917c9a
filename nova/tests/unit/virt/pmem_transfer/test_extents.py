# SPDX-License-Identifier: Apache-2.0

import ddt
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from nova import test
from nova.virt.pmem_transfer import buffers
from nova.virt.pmem_transfer import extents
from nova.virt.pmem_transfer import layout

KIB = 1024
MIB = layout.MIB


@ddt.ddt
class CheckTestCase(test.NoDBTestCase):
    """A device of 4 MiB into one of 6 MiB, in extents of 1 MiB at most."""

    sections = layout.sections(4 * MIB, 6 * MIB)

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


class CutTestCase(test.NoDBTestCase):

    @settings(deadline=None, database=None)
    @given(st.integers(2 * MIB, 9 * MIB), st.integers(0, 3 * MIB),
           st.integers(64 * KIB, 4 * MIB))
    def test_extents_cover_the_target_once(self, size, more, limit):
        sections = layout.sections(size, size + more)
        end = number = 0
        for extent in extents.cut(3, size, size + more, limit):
            self.assertEqual((3, end), (extent.device, extent.offset))
            number += 1
            extents.check((extent.offset, extent.length), (), sections, limit)
            end += extent.length
        self.assertEqual(size + more, end)
        self.assertEqual(number, extents.count(size, size + more, limit))


class RunsTestCase(test.NoDBTestCase):

    def setUp(self):
        super().setUp()
        self.buffer = buffers.Buffer(MIB)
        self.other = buffers.Buffer(MIB)
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
        sections = layout.sections(2 * MIB, 2 * MIB)
        extents.check((0, length), runs, sections, MIB)
        # Runs don't begin or end with a page of zeros, nor span a block.
        for run in runs:
            part = data[run.offset:run.offset + run.length]
            self.assertTrue(any(part[:extents.PAGE]))
            self.assertTrue(any(part[-extents.PAGE:]))
            self.assertNotIn(bytes(2 * extents.ZERO_RUN), part)

    def test_bytes_beyond_the_end(self):
        self.assertRaises(ValueError, self.buffer.is_zero, MIB, 1)
        self.assertRaises(ValueError, self.buffer.clear, MIB - 1, 2)
        self.assertRaises(ValueError, self.buffer.equals, 1, self.other, 0,
                          MIB)
        self.assertRaises(ValueError, self.buffer.equals, 0, self.other, 1,
                          MIB)
