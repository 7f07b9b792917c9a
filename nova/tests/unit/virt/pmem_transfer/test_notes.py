# SPDX-License-Identifier: Apache-2.0

import contextlib
import os
from unittest import mock

import fixtures

from nova import test
from nova.virt.pmem_transfer import daxio
from nova.virt.pmem_transfer import processes

PLACE = 1, 4096, 8192


class UnfinishedTestCase(test.NoDBTestCase):

    def setUp(self):
        super().setUp()
        self.path = os.path.join(
            self.useFixture(fixtures.TempDir()).path, 'notes')
        self.notes = self._open()

    def _open(self):
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        self.addCleanup(os.close, fd)
        return daxio.Unfinished(fd)

    def test_begun(self):
        self.notes.begin(*PLACE)
        for notes in (self.notes, self._open()):
            self.assertTrue(notes.has(*PLACE))
            self.assertTrue(notes.has(1, 0, 4097))
            self.assertTrue(notes.has(1, 12287, 1))
            self.assertFalse(notes.has(1, 0, 4096))
            self.assertFalse(notes.has(1, 12288, 1))
            self.assertFalse(notes.has(0, 4096, 8192))

    def test_ended(self):
        self.notes.begin(*PLACE)
        self.notes.end(*PLACE)
        for notes in (self.notes, self._open()):
            self.assertFalse(notes.has(*PLACE))

    def test_begun_by_one_and_ended_by_the_next(self):
        self.notes.begin(*PLACE)
        later = self._open()
        later.begin(*PLACE)
        later.end(*PLACE)
        self.assertFalse(self._open().has(*PLACE))

    def test_more_notes_than_a_copy_makes(self):
        for number in range(2):
            self.notes.begin(0, number, 1)
        with mock.patch.object(daxio, 'MOST_NOTED', 2 * daxio._RECORD.size):
            self.assertRaisesRegex(
                processes.Failed, 'can not be noted', self.notes.begin,
                *PLACE)
        self.assertEqual(2 * daxio._RECORD.size, os.path.getsize(self.path))

    def test_more_notes_than_are_read_at_a_time(self):
        with mock.patch.object(
                daxio, '_CHUNK', 2 * daxio._RECORD.size):
            for number in range(5):
                self.notes.begin(0, number, 1)
            found = self._open()
            self.notes.end(0, 1, 1)
            later = self._open()
        self.assertTrue(all(found.has(0, number, 1) for number in range(5)))
        self.assertFalse(found.has(1, 0, 9))
        self.assertFalse(later.has(0, 1, 1))
        self.assertTrue(later.has(0, 2, 1))

    def test_streams_that_make_notes_at_once(self):
        other = self._open()
        for number in range(9):
            self.notes.begin(0, number, 1)
            other.begin(1, number, 1)
            other.end(1, number, 1)
        found = self._open()
        self.assertTrue(all(found.has(0, number, 1) for number in range(9)))
        self.assertFalse(found.has(1, 0, 9))

    def test_full_disk(self):
        with mock.patch('os.write', side_effect=OSError(28, 'full')):
            error = self.assertRaises(
                processes.Failed, self.notes.begin, *PLACE)
        self.assertIn('can not be noted', str(error))
        self.assertTrue(self.notes.has(*PLACE))

    def test_end_that_can_not_be_noted(self):
        self.notes.begin(*PLACE)
        with mock.patch('os.write', side_effect=OSError(28, 'full')):
            self.assertRaises(processes.Failed, self.notes.end, *PLACE)
        for notes in (self.notes, self._open()):
            self.assertTrue(notes.has(*PLACE))

    def test_note_that_is_cut_short(self):
        """Nothing is believed any more, also not what comes after it."""
        write = os.write
        with mock.patch('os.write', lambda fd, data: write(fd, data[:5])):
            self.assertRaises(processes.Failed, self.notes.begin, *PLACE)
        later = self._open()
        later.begin(*PLACE)
        later.end(*PLACE)
        for notes in (self.notes, later, self._open()):
            self.assertTrue(notes.has(0, 0, 1))

    def test_notes_that_are_cut_short_twice(self):
        """Both together are as long as a note, and hide one in between."""
        write = os.write
        size = daxio._RECORD.size
        for cut in range(1, size):
            os.truncate(self.path, 0)
            for length in cut, size, size - cut:
                with mock.patch('os.write', lambda fd, data: write(
                        fd, data[:length])), contextlib.suppress(
                            processes.Failed):
                    self._open().begin(*PLACE)
            self.assertTrue(self._open().has(*PLACE), cut)

    def test_notes_that_can_not_be_read(self):
        reader, other = os.pipe()
        os.close(other)
        self.addCleanup(os.close, reader)
        self.assertRaises(processes.Failed, daxio.Unfinished, -1)
        # A pipe has no place to read at.
        self.assertRaises(processes.Failed, daxio.Unfinished, reader)
