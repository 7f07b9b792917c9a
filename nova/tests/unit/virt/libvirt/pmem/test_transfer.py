# SPDX-License-Identifier: Apache-2.0

import dataclasses
import os
import sys
from unittest import mock

import ddt
import fixtures
from oslo_utils.fixture import uuidsentinel as uuids

from nova import test
from nova.virt.libvirt.pmem import transfer
from nova.virt.pmem_transfer import wire

MIB = 1024 * 1024

DONE = {'event': 'done', 'bytes': 8, 'wire': 4, 'seconds': 0.5, 'retries': 1}

#: A sender that does as its arguments say, and notes the jobs it gets.
SENDER = """
import json, os, signal, sys
jobs, *steps = sys.argv[1:]
with open(jobs, 'a') as notes:
    notes.write(sys.stdin.readline())
with open(jobs) as notes:
    turn = len(notes.readlines())
for step in steps:
    if step == 'die':
        os.kill(os.getpid(), signal.SIGKILL)
    elif step == 'terminate':
        os.kill(os.getpid(), signal.SIGTERM)
    elif step == 'die once' and turn == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    elif step == 'close':
        os.close(1)
    elif step == 'complain':
        sys.stderr.write('something is wrong')
    elif step == 'begin':
        sys.stdin.readline()
    elif step == 'wait':
        signal.pause()
    elif step.startswith('exit'):
        sys.exit(int(step[4:]))
    elif step != 'die once':
        print(step, flush=True)
"""


def event(**fields):
    return transfer.jsonutils.dumps(fields)


class SshTestCase(test.NoDBTestCase):

    def test_another_host_is_reached_as_nova_reaches_it_elsewhere(self):
        self.assertEqual(['ssh', '-o', 'BatchMode=yes'],
                         transfer.ssh_argv()[:3])

    def test_ciphers(self):
        self.assertIn('Ciphers=^aes128-gcm', ' '.join(transfer.ssh_argv()))
        self.flags(pmem_copy_ciphers='', group='libvirt')
        self.assertNotIn('Ciphers', ' '.join(transfer.ssh_argv()))


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
            uuids.migration, '/there', '192.0.2.7',
            [wire.Device('old', '/dev/dax0.0', 4 * MIB, 'new', 8 * MIB)])
        self.running = []
        self.started = 0
        self.on_progress = mock.Mock()
        self.is_wanted = mock.Mock(return_value=True)

    def _begin(self, process):
        self.started += 1
        self.running.append(process)

    def _transfer(self, *steps, waiting=None):
        with mock.patch(
                'nova.virt.pmem_transfer.sender.command', return_value=[
                    sys.executable, '-c', SENDER, self.jobs, *steps]):
            return transfer.transfer(
                uuids.migration, self.job, self._begin, self.running.remove,
                self.on_progress, self.is_wanted, waiting)

    def _fails(self, *steps):
        error = self.assertRaises(
            transfer.TransferFailed, self._transfer, *steps)
        self.assertEqual([], self.running)
        return error

    def _jobs(self):
        with open(self.jobs) as jobs:
            return [wire.Sending.from_json(line) for line in jobs]

    def test_options(self):
        self.assertEqual(
            (2, 5 * MIB, 7, 3, 120, 0, os.getpid()),
            (self.job.streams, self.job.bandwidth, self.job.stall_timeout,
             self.job.attempts, self.job.patience, self.job.attempt,
             self.job.parent))

    @ddt.data((0, 0, 1, 0), (800, 0, 1, 800), (800, 0, 4096, 3200),
              (10, 1, 2048, 20 + 2 * 2048))
    @ddt.unpack
    def test_time_limit(self, timeout, bandwidth, size, expected):
        self.flags(pmem_copy_completion_timeout=timeout,
                   pmem_copy_bandwidth=bandwidth, group='libvirt')
        job = transfer.new_job(
            uuids.migration, '/there', '', [wire.Device(
                'old', '/dev/dax0.0', size * MIB, 'new', size * MIB)])
        self.assertEqual(expected, job.time_limit)

    def test_success(self):
        totals = self._transfer(
            event(event='progress', done=4, total=8, wire=2, retries=0),
            event(event='retry', message='link cut'), event(**DONE))
        self.assertEqual(transfer.Totals(8, 4, 0.5, 1), totals)
        self.on_progress.assert_called_once_with(4, 8)
        self.assertIn('link cut', self.stdlog.logger.output)
        job, = self._jobs()
        self.assertLess(job.time_limit, self.job.time_limit)
        self.assertEqual(self.job, dataclasses.replace(
            job, time_limit=self.job.time_limit))
        self.assertEqual((1, []), (self.started, self.running))

    def test_failure_in_its_own_words(self):
        error = self._fails(
            event(event='error', message='no such ticket', device='old'),
            'exit1')
        self.assertEqual(('no such ticket', 'old'), (str(error), error.device))
        self.assertEqual(1, self.started)

    def test_reason_after_a_long_banner(self):
        """What ssh says at last is why; what we say first is of what."""
        said = 'ssh ended with status 255: %s\nPermission denied.' % (
            'Welcome! ' * 300)
        error = self._fails(event(event='retry', message=said),
                            event(event='error', message=said), 'exit1')
        logged, = (line for line in self.stdlog.logger.output.splitlines()
                   if 'trying again' in line)
        for text in str(error), logged:
            self.assertIn('ssh ended with status 255: Welcome!', text)
            self.assertTrue(text.endswith('\\nPermission denied.'))
            self.assertLess(len(text), 1200)

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
        self.assertEqual([0, 1], [job.attempt for job in self._jobs()])
        self.assertEqual((2, []), (self.started, self.running))

    def test_sender_that_gives_no_sign_of_life(self):
        self.job = dataclasses.replace(
            self.job, stall_timeout=0.1, attempts=1)
        with mock.patch.object(transfer, 'SILENCE', 0.1):
            self.assertIn('no sign of life', str(self._fails('wait')))

    def test_sender_that_says_that_it_is_done_and_does_not_end(self):
        self.job = dataclasses.replace(self.job, attempts=1)
        with mock.patch.object(transfer, 'SILENCE', 0.1):
            self.assertIn('does not end', str(self._fails(
                event(**DONE), 'close', 'wait')))

    def test_ended_on_purpose_before_it_could_say_so(self):
        self.assertIn('SIGTERM', str(self._fails('terminate')))
        self.assertEqual(1, self.started)

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

    def _waiting(self, *steps):
        with mock.patch(
                'nova.virt.pmem_transfer.sender.command', return_value=[
                    sys.executable, '-c', SENDER, self.jobs, *steps]):
            waiting = transfer.Sender(uuids.migration, self.job, self._begin,
                                      self.running.remove)
        self.addCleanup(waiting.close)
        return waiting

    def test_sender_that_waits(self):
        waiting = self._waiting(
            event(event='retry', message='x'), event(event='ready'), 'begin',
            event(event='progress', done=4, total=8), event(**DONE))
        waiting.wait_until_ready()
        self.assertEqual(1, len(self.running))
        totals = self._transfer(waiting=waiting)
        self.assertEqual(transfer.Totals(8, 4, 0.5, 1), totals)
        self.on_progress.assert_called_once_with(4, 8)
        self.assertEqual((1, []), (self.started, self.running))

    def test_sender_whose_input_a_fork_has_open(self):
        waiting = self._waiting(event(event='ready'), 'begin', event(**DONE))
        waiting.wait_until_ready()
        self.addCleanup(os.close, os.dup(self.running[0].stdin.fileno()))
        self._transfer(waiting=waiting)

    def test_sender_that_does_not_wait_long(self):
        """What it says at once after the other thing is not lost."""
        waiting = self._waiting('\n'.join((
            event(event='ready'), event(event='error', message='link cut'))),
            'exit1')
        waiting.wait_until_ready()
        error = self.assertRaises(transfer.TransferFailed, self._transfer,
                                  waiting=waiting)
        self.assertEqual('link cut', str(error))
        self.assertEqual([], self.running)

    def test_sender_that_is_killed_while_it_waits(self):
        waiting = self._waiting(event(event='ready'), 'die')
        waiting.wait_until_ready()
        self._transfer(event(**DONE), waiting=waiting)
        self.assertEqual([0, 1], [job.attempt for job in self._jobs()])
        self.assertEqual((2, []), (self.started, self.running))

    @ddt.data(('die',), ('exit0',),
              (event(event='error', message='no such ticket'), 'exit1'))
    def test_sender_that_is_never_ready(self, steps):
        waiting = self._waiting(*steps)
        self.assertRaises(transfer.TransferFailed, waiting.wait_until_ready)

    def test_sender_that_waits_in_vain(self):
        waiting = self._waiting(event(event='ready'), 'begin')
        waiting.wait_until_ready()
        for _ in range(2):
            waiting.close()
            self.assertEqual([], self.running)

    def test_sender_that_does_not_start(self):
        with mock.patch('nova.virt.pmem_transfer.sender.command',
                        return_value=['/nonexistent']):
            error = self.assertRaises(
                transfer.TransferFailed, transfer.transfer,
                uuids.migration, self.job, None, None, None, None)
        self.assertIn('/nonexistent', str(error))
