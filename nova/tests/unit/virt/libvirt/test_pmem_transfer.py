#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.

import os
import signal
import subprocess
import threading
from unittest import mock

import ddt

from nova import test
from nova.tests.fixtures import pmem
from nova.virt.libvirt import pmem_transfer
from nova.virt.pmem import layout

MIB = pmem.MIB


class ShellTestCase(test.NoDBTestCase):

    def test_this_host(self):
        self.assertEqual(['sh', '-c', 'daxio -x'],
                         pmem_transfer.Shell().argv('daxio -x'))

    def test_another_host_is_reached_as_nova_reaches_it_elsewhere(self):
        argv = pmem_transfer.Shell('192.0.2.7').argv('daxio -x')
        self.assertEqual(['ssh', '-o', 'BatchMode=yes'], argv[:3])
        self.assertEqual(['192.0.2.7', 'daxio -x'], argv[-2:])
        self.assertIn('ServerAliveInterval=15', argv)


@ddt.ddt
class TransferTestCase(test.NoDBTestCase):
    """Real processes, on this host."""

    def setUp(self):
        super().setUp()
        self.pmem = self.useFixture(pmem.PmemHosts(addresses=()))
        self.pmem.add_namespace('old', 4 * MIB)
        self.pmem.add_namespace('same', 4 * MIB)
        self.pmem.add_namespace('larger', 8 * MIB)
        self.digest = self.pmem.fill('old', seed=1)
        self.running = []
        self.started = 0

    def _copy(self, target='same', source='old', sections=None):
        def begin(process):
            self.running.append(process)
            self.started += 1

        transfer = pmem_transfer.Transfer(
            pmem_transfer.Shell(), begin, self.running.remove)
        if sections is None:
            sections = layout.sections(
                self.pmem.size('old'), self.pmem.size(target))
        transfer.copy(self.pmem.path(source), self.pmem.path(target), sections)

    def _fails(self, *args, **kwargs):
        error = self.assertRaises(
            pmem_transfer.TransferFailed, self._copy, *args, **kwargs)
        # Nothing is left that could still write.
        self.assertEqual([], self.running)
        return str(error)

    @ddt.data('read', 'write')
    def test_copy_that_stops_short(self, side):
        self.pmem.inject('short', 'old' if side == 'read' else 'same',
                         side=side, at=MIB + 5)
        message = self._fails()
        self.assertIn('was to move %d bytes' % (4 * MIB), message)
        self.assertIn('copied %d bytes' % (MIB + 5), message)

    @ddt.data(('old', 'read'), ('same', 'write'))
    @ddt.unpack
    def test_copy_that_fails_says_why(self, device, side):
        self.pmem.inject('exit', device, side=side, at=MIB, status=1,
                         message='daxio: the disk is on fire\n')
        self.assertIn('the disk is on fire', self._fails())

    @ddt.data(('old', 'read'), ('same', 'write'))
    @ddt.unpack
    def test_copy_that_is_killed(self, device, side):
        self.pmem.inject('kill', device, side=side, at=MIB)
        self._fails()

    @ddt.data(0, MIB, 4 * MIB - 1)
    def test_flipped_byte_is_found(self, offset):
        self.pmem.inject('flip', 'same', at=offset)
        self.assertIn('reads back different', self._fails())

    def test_flipped_byte_between_data_and_labels_is_found(self):
        self.pmem.inject('flip', 'larger', side='zero', at=3 * MIB)
        message = self._fails('larger')
        self.assertIn('reads back different', message)
        self.assertIn('%d bytes from offset %d' % (4 * MIB, 2 * MIB), message)

    def test_reading_back_short_is_no_proof(self):
        self.pmem.inject('short', 'same', side='read', at=MIB)
        self._fails()

    def test_zeroing_that_fails(self):
        self.pmem.inject('exit', 'larger', side='zero', at=3 * MIB)
        self._fails('larger')

    def test_missing_source(self):
        os.unlink(self.pmem.path('old'))
        self.assertIn('No such file', self._fails())

    def test_missing_target(self):
        os.unlink(self.pmem.path('same'))
        self._fails()

    def test_sections_beyond_the_device(self):
        self._fails(sections=[layout.Section(0, 5 * MIB, 0)])

    def test_tool_that_is_not_installed(self):
        with mock.patch('subprocess.Popen',
                        side_effect=FileNotFoundError(2, 'nothing', 'daxio')):
            self.assertIn('daxio did not start', self._fails())

    def test_no_process_gets_a_stream_of_ours(self):
        with mock.patch('subprocess.Popen', wraps=subprocess.Popen) as popen:
            self._copy('larger')
        for call in popen.call_args_list:
            for stream in ('stdin', 'stdout', 'stderr'):
                self.assertIsNotNone(call.kwargs[stream], call)

    def test_equal_sizes(self):
        self._copy()
        self.assertEqual(self.digest, self.pmem.digest('same'))
        self.assertEqual(self.digest, self.pmem.digest('old'))
        self.assertEqual([], self.running)
        self.assertEqual(5, self.started)

    def test_larger_target_full_of_dirt(self):
        self.pmem.fill('larger', seed='dirt')
        self._copy('larger')
        self.assertEqual(self.pmem.digest('old', 0, 2 * MIB),
                         self.pmem.digest('larger', 0, 2 * MIB))
        self.assertTrue(self.pmem.is_zero('larger', 2 * MIB, 4 * MIB))
        self.assertEqual(self.pmem.digest('old', 2 * MIB),
                         self.pmem.digest('larger', 6 * MIB))

    def test_killed_by_the_job_tracker(self):
        # Deleting the server kills what was announced, from another thread.
        fault = self.pmem.inject('hang', 'same', at=2 * MIB)
        failures = []

        def copy():
            try:
                self._copy()
            except pmem_transfer.TransferFailed as error:
                failures.append(error)

        thread = threading.Thread(target=copy)
        thread.start()
        fault.wait()
        for process in list(self.running):
            os.kill(process.pid, signal.SIGKILL)
        thread.join(60)
        self.assertEqual(1, len(failures))
        self.assertEqual([], self.running)
