# SPDX-License-Identifier: Apache-2.0

import os
import tempfile

from nova import test
from nova.virt.pmem_transfer import buffers
from nova.virt.pmem_transfer import mapping
from nova.virt.pmem_transfer import processes

MIB = 1024 * 1024


class StderrTestCase(test.NoDBTestCase):

    def setUp(self):
        super().setUp()
        guard = processes.Guard()
        self.addCleanup(guard.close)
        self.guard = guard

    def _run(self, script):
        process = processes.Process(self.guard, ['sh', '-c', script])
        self.addCleanup(process.close)
        self.assertTrue(process.wait(60))
        return process

    def test_last_words_after_a_long_banner(self):
        process = self._run(
            'head -c 5000 /dev/zero | tr "\\0" x >&2; echo denied >&2')
        self.assertEqual('x' * 2041 + 'denied', process.message())

    def test_peer_that_does_not_stop(self):
        process = self._run('head -c %d /dev/zero | tr "\\0" x >&2' % (
            8 * MIB))
        self.assertEqual('x' * 2048, process.message())
        self.assertEqual(64 * 1024, os.fstat(process._stderr).st_size)

    def test_nothing(self):
        self.assertEqual('', self._run('true').message())


class CoreDumpTestCase(test.NoDBTestCase):
    """A core dump has no bytes of a tenant's."""

    def _flags(self, memory):
        start = '%x-' % memory._address
        with open('/proc/self/smaps') as smaps:
            for line in smaps:
                if line.startswith(start):
                    break
            return next(line for line in smaps
                        if line.startswith('VmFlags')).split()

    def test_buffer(self):
        buffer = buffers.Buffer(MIB)
        self.addCleanup(buffer.close)
        self.assertIn('dd', self._flags(buffer))

    def test_device(self):
        with tempfile.NamedTemporaryFile() as file:
            file.truncate(MIB)
            device = mapping.Mapping(file.name, MIB)
            self.addCleanup(device.close)
            self.assertIn('dd', self._flags(device))
