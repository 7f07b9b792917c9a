# SPDX-License-Identifier: Apache-2.0

import os
from unittest import mock

import fixtures

from nova import test
from nova.virt.pmem_transfer import processes
from nova.virt.pmem_transfer import unfinished

PLACE = 1, 4096, 8192


class UnfinishedTestCase(test.NoDBTestCase):

    def setUp(self):
        super().setUp()
        self.path = os.path.join(
            self.useFixture(fixtures.TempDir()).path, 'ticket')
        self.notes = self._open()

    def _open(self):
        notes = unfinished.Unfinished(self.path)
        self.addCleanup(os.close, notes._fd)
        return notes

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

    def test_full_disk(self):
        with mock.patch('os.write', side_effect=OSError(28, 'full')):
            error = self.assertRaises(
                processes.Failed, self.notes.begin, *PLACE)
        self.assertIn('can not be noted', str(error))
        self.assertTrue(self.notes.has(*PLACE))

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

    def test_no_place_for_notes(self):
        self.path = os.path.join(self.path, 'none')
        self.assertRaises(processes.Failed, self._open)
