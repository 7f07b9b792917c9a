# SPDX-License-Identifier: Apache-2.0

import os

import fixtures
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from nova import test
from nova.virt.pmem_transfer import buffers
from nova.virt.pmem_transfer import extents
from nova.virt.pmem_transfer import job as pmem_job
from nova.virt.pmem_transfer import layout
from nova.virt.pmem_transfer import proof
from nova.virt.pmem_transfer import wire
from nova.virt.pmem_transfer import work

KIB = 1024
MIB = layout.MIB
EXTENT = MIB


class WorkTestCase(test.NoDBTestCase):

    def setUp(self):
        super().setUp()
        self.folder = self.useFixture(fixtures.TempDir()).path
        self.buffer = buffers.Buffer(EXTENT)
        self.addCleanup(self.buffer.close)
        self.devices = []

    def add_device(self, data, target_size=None):
        path = os.path.join(self.folder, str(len(self.devices)))
        with open(path, 'wb') as device:
            device.write(data)
        self.devices.append(pmem_job.Device(
            'old', path, len(data), 'new', target_size or len(data)))
        return path

    def work(self, **options):
        return work.Work(pmem_job.Job(
            ('receiver',), tuple(self.devices), extent=EXTENT, **options))

    def load(self, some, piece):
        """Return what is said of a piece: its bytes."""
        piece.buffer = self.buffer
        self.buffer.view[:] = b'?' * EXTENT
        some.load(piece)
        data = bytearray(piece.extent.length)
        for offset, length in piece.runs:
            data[offset:offset + length] = self.buffer.view[
                offset:offset + length]
        return bytes(data)

    def assert_all(self, some, expected, before_each=lambda: None):
        for data in expected:
            found = bytearray()
            while len(found) < len(data):
                before_each()
                piece = some.take()
                self.assertEqual(len(found), piece.extent.offset)
                found += self.load(some, piece)
            self.assertTrue(data == found)
        self.assertEqual(0, len(some))

    @settings(deadline=None, database=None, max_examples=30)
    @given(st.data())
    def test_whatever_was_looked_at_ahead(self, data):
        self.devices = []
        expected = []
        for _ in range(data.draw(st.integers(1, 2))):
            size = data.draw(st.integers(2, 4)) * MIB
            target = size + data.draw(st.integers(0, 2)) * MIB
            content = bytearray(size)
            for place in data.draw(st.lists(st.integers(0, size - 1),
                                            max_size=5)):
                content[place:place + 5000] = os.urandom(
                    len(content[place:place + 5000]))
            self.add_device(content, target)
            end = size - 2 * MIB if target > size else size
            expected.append(content[:end] + bytes(target - size) +
                            content[end:])
        some = self.work()
        self.assertEqual(sum(map(len, expected)) // MIB, len(some))

        def look():
            for _ in range(data.draw(st.integers(0, 3))):
                if some.can_look_ahead():
                    some.look_ahead()

        self.assert_all(some, expected, look)
        self.assertFalse(some.can_look_ahead())

    def test_it_is_read_again_if_it_has_to_be_sent_again(self):
        path = self.add_device(b'a' * 4 * MIB)
        some = self.work()
        some.look_ahead()
        piece = some.take()
        self.assertEqual(b'a' * MIB, self.load(some, piece))
        with open(path, 'r+b') as device:
            device.write(b'b' * KIB + bytes(MIB - KIB))
        self.assertEqual(b'b' * KIB + bytes(MIB - KIB),
                         self.load(some, piece))

    def test_a_proof_is_of_all_bytes(self):
        self.add_device(os.urandom(3 * MIB), 4 * MIB)
        some = self.work(resume=True)
        some.look_ahead()
        with open(self.devices[0].path, 'rb') as device:
            data = device.read()
        for expected in (data[:MIB], bytes(MIB), data[MIB:2 * MIB],
                         data[2 * MIB:]):
            piece = some.take()
            some.load(piece)
            self.assertEqual((), piece.runs)
            proved = proof.Proof(piece.proof[:wire.KEY])
            proved.update(expected)
            self.assertEqual(piece.proof[wire.KEY:], proved.tag())
        # It differs: now its data is wanted.
        piece.compare = False
        self.assertTrue(expected == self.load(some, piece))
        self.assertEqual(b'', piece.proof)

    def test_no_more_ahead_than_is_good(self):
        self.add_device(os.urandom(3 * MIB) + bytes(60 * MIB))
        some = self.work()
        self.useFixture(fixtures.MockPatchObject(
            work, 'DATA_AHEAD', 2 * MIB - 1))
        self.useFixture(fixtures.MockPatchObject(work, 'EXTENTS_AHEAD', 50))

        def look():
            number = 0
            while some.can_look_ahead():
                some.look_ahead()
                number += 1
            return number

        self.assertEqual(2, look())
        self.assertEqual(0, look())
        some.take()
        self.assertEqual(1, look())
        some.take()
        some.take()
        self.assertEqual(50, look())
        self.assertEqual(60, len(some))

    def test_what_can_not_be_read_is_told_to_who_takes_it(self):
        path = self.add_device(b'a' * 4 * MIB)
        some = self.work()
        some.look_ahead()
        os.truncate(path, 2 * MIB)
        while some.can_look_ahead():
            some.look_ahead()
        self.assertEqual(b'a' * MIB, self.load(some, some.take()))
        self.assertEqual(b'a' * MIB, self.load(some, some.take()))
        piece = some.take()
        self.assertRaises(OSError, self.load, some, piece)
        os.truncate(path, 4 * MIB)
        self.assertEqual(bytes(MIB), self.load(some, piece))

    def test_no_device(self):
        os.unlink(self.add_device(bytes(2 * MIB)))
        some = self.work()
        some.look_ahead()
        self.assertRaises(FileNotFoundError, self.load, some, some.take())

    def test_a_large_device_takes_no_more_memory(self):
        self.devices = [pmem_job.Device('old', '/nowhere', 1024 ** 4, 'new',
                                        1024 ** 4)]
        some = self.work()
        self.assertEqual(1024 ** 4 // EXTENT, len(some))
        some.take()
        self.assertEqual(extents.Extent(0, EXTENT, EXTENT, EXTENT),
                         some.take().extent)
        self.assertEqual(1024 ** 4 // EXTENT - 2, len(some))
