# SPDX-License-Identifier: Apache-2.0

import os
import subprocess
from unittest import mock

import fixtures

from nova import test
from nova.virt import pmem_users


class UsersTestCase(test.NoDBTestCase):

    def setUp(self):
        super().setUp()
        self.path = os.path.join(
            self.useFixture(fixtures.TempDir()).path, 'dax0.0')
        with open(self.path, 'w'):
            pass

    def test_process_that_may_not_be_seen(self):
        with mock.patch('builtins.open', side_effect=PermissionError()):
            self.assertEqual(set(), pmem_users.written_by(os.getpid()))

    def test_process_that_has_ended(self):
        self.assertEqual(set(), pmem_users.written_by(2 ** 31 - 1))

    def test_what_is_gone_is_nobodys(self):
        os.unlink(self.path)
        self.assertEqual(set(), pmem_users.keys([self.path]))

    def test_file_is_known_by_any_path(self):
        other = self.path + '.other'
        os.link(self.path, other)
        self.assertEqual(pmem_users.key(self.path), pmem_users.key(other))

    def test_device_is_known_by_its_number(self):
        number = os.stat('/dev/null').st_rdev
        self.assertEqual((number,), pmem_users.key('/dev/null'))
        self.assertIn((number,), pmem_users.keys(['/dev/null']))

    def _open(self, mode):
        with open(self.path, mode) as file:
            process = subprocess.Popen(['sleep', '1000'], stdin=file)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def test_who_may_write(self):
        self.assertIsNone(pmem_users.writer(self.path))
        process = self._open('r+')
        self.assertEqual(process.pid, pmem_users.writer(self.path))

    def test_who_only_reads_does_not_write(self):
        self._open('r')
        self.assertIsNone(pmem_users.writer(self.path))

    def test_process_that_has_it_open(self):
        process = self._open('r+')
        self.assertIn(process.pid, pmem_users.others())
        self.assertIn(pmem_users.key(self.path),
                      pmem_users.written_by(process.pid))
