# SPDX-License-Identifier: Apache-2.0

import errno
import mmap
import os
import signal
import socket
from unittest import mock

import ddt
import fixtures

from nova import test
from nova.virt.pmem_transfer import extents
from nova.virt.pmem_transfer import memory

MIB = extents.MIB


class BacklogTestCase(test.NoDBTestCase):

    def setUp(self):
        super().setUp()
        self.backlog = memory.Backlog(5)

    def fill(self, data):
        def read(view):
            count = min(len(view), len(data))
            view[:count] = data[:count]
            return count
        return self.backlog.fill(read)

    def take(self, count):
        data = bytearray(count)
        return bytes(data[:self.backlog.take(memoryview(data))])

    def test_what_comes_goes_in_its_order(self):
        self.assertEqual(b'', self.take(3))
        self.assertTrue(self.fill(b'abc'))
        self.assertEqual(b'ab', self.take(2))
        self.assertTrue(self.fill(b'defgh'))
        self.assertFalse(self.backlog.has_room)
        self.assertEqual(3, len(self.backlog))
        self.assertEqual(b'cde', self.take(7))
        self.assertTrue(self.backlog.has_room)
        self.assertTrue(self.fill(b'fghijk'))
        self.assertEqual(b'fghij', self.take(5))

    def test_end(self):
        self.assertFalse(self.fill(b''))
        self.assertEqual(0, len(self.backlog))


class UnsaidTestCase(test.NoDBTestCase):

    def setUp(self):
        super().setUp()
        self.unsaid = memory.Unsaid()
        self.addCleanup(self.unsaid.close)
        self.ours, self.theirs = socket.socketpair()
        self.addCleanup(self.ours.close)
        self.addCleanup(self.theirs.close)
        self.ours.setblocking(False)

    def send(self):
        self.unsaid.send(self.ours.fileno())

    def test_all_is_sent_once(self):
        for text in b'ab', b'c':
            self.unsaid.add(text)
        self.assertEqual(2, self.unsaid.count)
        self.send()
        self.assertEqual(b'abc', self.theirs.recv(9))
        self.assertEqual(0, self.unsaid.count)
        self.send()
        self.unsaid.add(b'd')
        self.send()
        self.assertEqual(b'd', self.theirs.recv(9))

    def test_parent_of_who_was_killed(self):
        pid = os.fork()
        if not pid:
            self.unsaid.add(b'a')
            self.send()
            self.unsaid.add(b'b')
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(pid, 0)
        self.send()
        self.assertEqual(b'ab', self.theirs.recv(9))

    def test_nobody_reads(self):
        self.unsaid.add(bytes(8 * MIB))
        self.assertRaises(TimeoutError, self.send)
        self.send()

    def test_signal_while_it_is_sent(self):
        def sent_and_ended(fd, text):
            self.ours.send(text)
            raise SystemExit()

        self.unsaid.add(b'a')
        with mock.patch('os.write', sent_and_ended):
            self.assertRaises(SystemExit, self.send)
        self.send()
        self.assertEqual(b'a', self.theirs.recv(9))


@ddt.ddt
class MappingTestCase(test.NoDBTestCase):

    def setUp(self):
        super().setUp()
        self.path = os.path.join(
            self.useFixture(fixtures.TempDir()).path, 'dev')
        self.data = os.urandom(6 * MIB)
        with open(self.path, 'wb') as device:
            device.write(self.data)
        self.mapping = memory.Mapping(self.path, len(self.data))
        self.addCleanup(self.mapping.close)
        self.buffer = memory.Buffer(4 * MIB)
        self.addCleanup(self.buffer.close)

    def test_no_device(self):
        self.assertRaises(
            FileNotFoundError, memory.Mapping, self.path + 'x', MIB)

    def test_file_that_is_short(self):
        # Its bytes would be mapped, and kill who reads them.
        error = self.assertRaises(
            OSError, memory.Mapping, self.path, 8 * MIB)
        self.assertIn('%d bytes and not %d' % (6 * MIB, 8 * MIB), str(error))

    def test_what_can_not_be_mapped(self):
        error = self.assertRaises(
            OSError, memory.Mapping, '/proc/stat',
            0)
        self.assertIn(error.errno, (errno.EINVAL, errno.ENODEV, errno.EIO))

    @ddt.data((0, 6 * MIB), (1, 3), (5 * MIB + 7, MIB - 7))
    @ddt.unpack
    def test_at_hand(self, offset, length):
        with self.mapping.at_hand(offset, length) as data:
            self.assertTrue(self.data[offset:offset + length] == data)
            self.buffer.view[:min(length, MIB)] = data[:MIB]
            self.assertTrue(self.mapping.equals(
                offset, self.buffer, 0, min(length, MIB)))

    def test_one_byte_is_another(self):
        self.buffer.view[:MIB] = self.data[MIB:2 * MIB]
        for place in (0, 12345, MIB - 1):
            self.buffer.view[place] ^= 1
            with self.mapping.at_hand(MIB, MIB):
                self.assertFalse(
                    self.mapping.equals(MIB, self.buffer, 0, MIB))
            self.buffer.view[place] ^= 1

    def test_bytes_beyond_the_end(self):
        beyond = (6 * MIB - 1, 2)
        self.assertRaises(ValueError, self.mapping.is_zero, *beyond)
        self.assertRaises(
            ValueError, self.mapping.at_hand(*beyond).__enter__)

    def test_memory_that_is_not_there(self):
        """It fails as memory that is damaged does, and does not kill us."""
        os.truncate(self.path, 3 * MIB)
        error = self.assertRaises(
            memory.Unreadable,
            self.mapping.at_hand(2 * MIB, 2 * MIB).__enter__)
        self.assertIn('Bad address', str(error))
        with self.mapping.at_hand(0, 2 * MIB) as data:
            self.assertTrue(self.data[:2 * MIB] == data)

    def test_memory_that_only_reading_shows_to_be_damaged(self):
        """Who reads it is killed, which is why that is another process."""
        os.truncate(self.path, 3 * MIB)
        # The kernel knows of nothing.
        self.useFixture(fixtures.MockPatchObject(
            memory, '_MADV_POPULATE_READ', 12345))
        pid = os.fork()
        if not pid:
            with self.mapping.at_hand(2 * MIB, 2 * MIB):
                self.mapping.is_zero(3 * MIB, 1)
            os._exit(0)
        self.assertEqual(signal.SIGBUS, os.waitpid(pid, 0)[1])

    def test_kernel_that_can_not_say_so(self):
        with mock.patch.object(memory, '_MADV_POPULATE_READ', 12345):
            with self.mapping.at_hand(0, MIB) as data:
                self.assertTrue(self.data[:MIB] == data)

    @ddt.data((0, MIB, 0, 2), (MIB, MIB, 0, 2), (MIB, 2 * MIB, 0, 4),
              (4 * MIB, 2 * MIB, 4, 2), (4 * MIB - 1, 2, 2, 4))
    @ddt.unpack
    def test_only_the_pages_that_were_read_are_let_go(
            self, offset, length, first, count):
        # Or each slice of a device would cost as much as the device is large.
        with mock.patch.object(memory, '_madvise',
                               wraps=memory._madvise) as madvise:
            with self.mapping.at_hand(offset, length):
                pass
        pages = (self.mapping._address + first * MIB, count * MIB)
        self.assertEqual(mock.call(*pages, mmap.MADV_DONTNEED),
                         madvise.call_args_list[-1])

    def test_end_of_a_device_that_is_no_whole_page(self):
        odd = memory.Mapping(self.path, 5 * MIB)
        self.addCleanup(odd.close)
        with odd.at_hand(4 * MIB, MIB) as data:
            self.assertTrue(self.data[4 * MIB:5 * MIB] == data)
