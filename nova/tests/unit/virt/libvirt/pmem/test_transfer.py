# SPDX-License-Identifier: Apache-2.0

import os
import sys
from unittest import mock

import ddt
import fixtures
from oslo_utils.fixture import uuidsentinel as uuids

from nova import test
from nova.virt.libvirt.pmem import transfer
from nova.virt.pmem_transfer import job as pmem_job

MIB = 1024 * 1024

DONE = {'event': 'done', 'bytes': 8, 'wire': 4, 'seconds': 0.5, 'retries': 1}

#: A sender that does as its arguments say, and notes the jobs it gets.
SENDER = """
import json, os, signal, sys
jobs, *steps = sys.argv[1:]
with open(jobs, 'a') as notes:
    notes.write(sys.stdin.read() + '\\n')
with open(jobs) as notes:
    turn = len(notes.readlines())
for step in steps:
    if step == 'die':
        os.kill(os.getpid(), signal.SIGKILL)
    elif step == 'die once' and turn == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    elif step == 'bad memory' and turn == 1:
        os.kill(os.getpid(), signal.SIGBUS)
    elif step == 'complain':
        sys.stderr.write('something is wrong')
    elif step == 'wait':
        signal.pause()
    elif step.startswith('exit'):
        sys.exit(int(step[4:]))
    elif step not in ('die once', 'bad memory'):
        print(step, flush=True)
"""


def event(**fields):
    return transfer.jsonutils.dumps(fields)


class ReceiverTestCase(test.NoDBTestCase):

    def test_another_host_is_reached_as_nova_reaches_it_elsewhere(self):
        argv = transfer.receiver_argv(uuids.migration, '192.0.2.7')
        self.assertEqual(['ssh', '-o', 'BatchMode=yes'], argv[:3])
        self.assertEqual(
            ['192.0.2.7', 'nova-pmem-receive ' + uuids.migration], argv[-2:])

    def test_command_of_the_deployer(self):
        self.flags(pmem_copy_receiver='/opt/my nova/receive', group='libvirt')
        argv = transfer.receiver_argv(uuids.migration, '192.0.2.7')
        self.assertEqual(
            "'/opt/my nova/receive' " + uuids.migration, argv[-1])

    def test_this_host(self):
        self.assertEqual(
            [sys.executable, '-m', 'nova.virt.pmem_transfer.receiver',
             uuids.migration],
            transfer.receiver_argv(uuids.migration, None))


@ddt.ddt
class TransferTestCase(test.NoDBTestCase):

    def setUp(self):
        super().setUp()
        self.flags(pmem_copy_bandwidth=5, pmem_copy_streams=2,
                   pmem_copy_stall_timeout=7, pmem_copy_attempts=3,
                   group='libvirt')
        self.jobs = os.path.join(
            self.useFixture(fixtures.TempDir()).path, 'jobs')
        self.job = transfer.new_job(
            uuids.migration, '192.0.2.7',
            [pmem_job.Device('old', '/dev/dax0.0', 4 * MIB, 'new', 8 * MIB)])
        self.running = []
        self.started = 0
        self.on_progress = mock.Mock()
        self.is_wanted = mock.Mock(return_value=True)

    def _begin(self, process):
        self.started += 1
        self.running.append(process)

    def _transfer(self, *steps):
        with mock.patch(
                'nova.virt.pmem_transfer.sender.command', return_value=[
                    sys.executable, '-c', SENDER, self.jobs, *steps]):
            return transfer.transfer(
                self.job, self._begin, self.running.remove, self.on_progress,
                self.is_wanted)

    def _fails(self, *steps):
        error = self.assertRaises(
            transfer.TransferFailed, self._transfer, *steps)
        self.assertEqual([], self.running)
        return error

    def _jobs(self):
        with open(self.jobs) as jobs:
            return [pmem_job.Job.from_json(line) for line in jobs]

    def test_options(self):
        self.assertEqual(
            (2, 5 * MIB, 7, 3, False, os.getpid()),
            (self.job.streams, self.job.bandwidth, self.job.stall_timeout,
             self.job.attempts, self.job.resume, self.job.parent))

    def test_success(self):
        totals = self._transfer(
            event(event='progress', done=4, total=8, wire=2, retries=0),
            event(event='retry', message='link cut'), event(**DONE))
        self.assertEqual(transfer.Totals(8, 4, 0.5, 1), totals)
        self.on_progress.assert_called_once_with(4, 8)
        self.assertIn('link cut', self.stdlog.logger.output)
        self.assertEqual([self.job], self._jobs())
        self.assertEqual((1, []), (self.started, self.running))

    def test_failure_in_its_own_words(self):
        error = self._fails(
            event(event='error', message='no such ticket', device='old'),
            'exit1')
        self.assertEqual(('no such ticket', 'old'), (str(error), error.device))
        self.assertEqual(1, self.started)

    @ddt.data(('exit0',), ('complain', 'exit1'), (event(**DONE), 'exit1'),
              (event(event='progress', done=8, total=8),))
    def test_only_done_and_well_ended_is_done(self, steps):
        error = self._fails(*steps)
        self.assertIsInstance(error, transfer.SenderKilled)
        if 'complain' in steps:
            self.assertIn('something is wrong', str(error))

    @ddt.data('nonsense', '[]', '{}', '"x"', event(event='progress'))
    def test_sender_that_talks_nonsense_is_ended(self, line):
        error = self._fails(line, 'wait')
        self.assertIn(line[:4], str(error))

    def test_killed_sender_is_started_again_to_go_on(self):
        self._transfer('die once', event(**DONE))
        self.assertEqual([False, True], [job.resume for job in self._jobs()])
        self.assertEqual((2, []), (self.started, self.running))

    def test_killed_by_memory_that_is_damaged(self):
        """The next one is careful, and so can say where it is."""
        self._fails('bad memory', event(
            event='error', message='reading the source', device='old'))
        self.assertEqual([(False, False), (True, True)],
                         [(job.resume, job.careful) for job in self._jobs()])

    def test_killed_by_something_else(self):
        self._fails('die')
        self.assertEqual([False] * 3, [job.careful for job in self._jobs()])

    def test_killed_each_time(self):
        self.assertIn('killed by SIGKILL', str(self._fails('die')))
        self.assertEqual(3, self.started)

    def test_killed_because_the_server_is_deleted(self):
        self.is_wanted.return_value = False
        self._fails('die')
        self.assertEqual(1, self.started)

    def test_hook_that_fails_leaves_nothing_running(self):
        self.on_progress.side_effect = KeyboardInterrupt
        self.assertRaises(
            KeyboardInterrupt, self._transfer,
            event(event='progress', done=4, total=8), 'wait')
        self.assertEqual([], self.running)

    def test_sender_that_does_not_start(self):
        with mock.patch('nova.virt.pmem_transfer.sender.command',
                        return_value=['/nonexistent']):
            error = self.assertRaises(
                transfer.TransferFailed, transfer.transfer,
                self.job, None, None, None, None)
        self.assertIn('/nonexistent', str(error))
