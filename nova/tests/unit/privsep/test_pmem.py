# SPDX-License-Identifier: Apache-2.0

import os
import subprocess
from unittest import mock

import ddt
import fixtures

from nova import exception
import nova.privsep.libvirt
from nova import test
from nova.tests import fixtures as nova_fixtures

SIZE = 4096

WIPED = 'daxio: copied %d bytes to device "x"\n'


@ddt.ddt
class CleanupVPMEMTestCase(test.NoDBTestCase):
    """``daxio -z`` ends well whatever it has done."""

    def setUp(self):
        super().setUp()
        self.useFixture(nova_fixtures.PrivsepFixture())
        self.device = os.path.join(
            self.useFixture(fixtures.TempDir()).path, 'dax0.0')
        with open(self.device, 'wb') as device:
            device.truncate(SIZE)
        self.run_real = subprocess.run
        self.ends = []
        self.commands = []
        self.useFixture(fixtures.MockPatch('subprocess.run', self._run))

    def _run(self, command, **options):
        self.commands.append(command[1:] if command[0] == 'daxio' else 'look')
        if command[0] == 'daxio':
            status, stderr = self.ends.pop(0)
            return subprocess.CompletedProcess(command, status, '', stderr)
        return self.run_real(command, **options)

    def _wipe(self, *ends):
        self.ends = list(ends)
        nova.privsep.libvirt.cleanup_vpmem(self.device)

    def _fails(self, *ends):
        error = self.assertRaises(
            exception.VPMEMCleanupFailed, self._wipe, *ends)
        self.assertIn(self.device, error.format_message())
        return error.format_message()

    def test_all_of_it(self):
        self._wipe((0, WIPED % SIZE))
        self.assertEqual([('-z', '-o', self.device), 'look'], self.commands)

    @ddt.data(WIPED % (SIZE - 1), '',
              'daxio: neither input nor output is device dax\n')
    def test_less_than_that(self, stderr):
        self.assertIn(str(SIZE), self._fails((0, stderr)))

    def test_kernel_that_can_not_clear_bad_blocks(self):
        self._wipe((1, 'failed to clear bad blocks'), (0, WIPED % SIZE))
        self.assertEqual(
            ('-z', '-b', 'no', '-o', self.device), self.commands[1])

    def test_daxio_that_fails(self):
        self.assertIn('no way', self._fails((1, 'x'), (1, 'no way')))

    def test_page_that_is_left(self):
        with open(self.device, 'r+b') as device:
            device.seek(SIZE - 1)
            device.write(b'x')
        self.assertIn('there is data', self._fails((0, WIPED % SIZE)))

    def test_wiper_of_one_who_is_dead(self):
        # It has inherited the lock.
        wiper = subprocess.Popen(
            ['flock', self.device, 'sh', '-c', 'echo x; exec sleep 1000'],
            stdout=subprocess.PIPE)
        self.addCleanup(wiper.wait)
        self.addCleanup(wiper.kill)
        wiper.stdout.readline()
        self.assertIn('somebody else', self._fails())
        self.assertEqual([], self.commands)

    def test_device_dax_has_its_size_elsewhere(self):
        sizes = mock.mock_open(read_data='%d\n' % SIZE)
        with mock.patch('os.stat', return_value=os.stat('/dev/null')), \
                mock.patch('nova.privsep.pmem.open', sizes, create=True):
            self._wipe((0, WIPED % SIZE))
        sizes.assert_called_once_with('/sys/dev/char/1:3/size')
