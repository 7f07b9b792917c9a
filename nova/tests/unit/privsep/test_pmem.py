# SPDX-License-Identifier: Apache-2.0

import os
import subprocess
import sys

import ddt
import fixtures

from nova import exception
import nova.privsep.libvirt
from nova import test
from nova.tests import fixtures as nova_fixtures
from nova.virt import pmem_device

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
        with open(self.device, 'wb') as file:
            file.truncate(SIZE)
        self.size = self.useFixture(fixtures.MockPatchObject(
            pmem_device, 'size', return_value=SIZE)).mock
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
        with open(self.device, 'r+b') as file:
            file.seek(SIZE - 1)
            file.write(b'x')
        self.assertIn('there is data', self._fails((0, WIPED % SIZE)))

    def _hold(self, *command):
        """Have another process that says a word when it has the device."""
        holder = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(holder.stdin.close)
        self.addCleanup(holder.stdout.close)
        self.addCleanup(holder.wait)
        self.addCleanup(holder.kill)
        holder.stdout.readline()
        return holder

    def _open(self, how):
        return self._hold(
            'sh', '-c', 'exec 3%s%s; echo x; exec sleep 1000' % (
                how, self.device))

    def test_device_that_somebody_may_write(self):
        self.assertIn('process %d may write' % self._open('<>').pid,
                      self._fails())
        self.assertEqual([], self.commands)

    def test_device_that_somebody_has_mapped(self):
        code = ('import mmap, sys; f = open(sys.argv[1], "r+b"); '
                'm = mmap.mmap(f.fileno(), 0); f.close(); '
                'print(flush=True); sys.stdin.read()')
        self._hold(sys.executable, '-c', code, self.device)
        self.assertIn('may write', self._fails())

    def test_device_that_somebody_reads(self):
        self._open('<')
        self._wipe((0, WIPED % SIZE))

    def test_wiper_of_one_who_is_dead(self):
        # It has inherited the lock.
        self._hold('flock', '--no-fork', self.device,
                   'sh', '-c', 'echo x; exec sleep 1000')
        self.assertIn('somebody else', self._fails())
        self.assertEqual([], self.commands)

    def test_what_is_no_device(self):
        self.size.side_effect = OSError('is no character device')
        self.assertIn('is no character device', self._fails())
        self.assertEqual([], self.commands)
