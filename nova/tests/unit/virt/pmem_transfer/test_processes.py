# SPDX-License-Identifier: Apache-2.0

import fcntl
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
from unittest import mock

import psutil

from nova import test
from nova.virt.pmem_transfer import memory
from nova.virt.pmem_transfer import processes
from nova.virt.pmem_transfer import sender

MIB = 1024 * 1024

# Has a child of each kind, tells of them when they run, and waits.
PARENT = '''
import os, sys, time
from nova.virt.pmem_transfer import processes
guard = processes.Guard()
one = processes.Process(guard, ['sleep', '1000'])
reader, writer = os.pipe()
two = processes.Fork(guard, lambda: (os.write(writer, b'x'), time.sleep(1000)))
os.read(reader, 1)
print(one._popen.pid, two.pid, guard.group, flush=True)
sys.stdin.read()
'''


class ReadingTestCase(test.NoDBTestCase):

    def test_more_files_than_select_knows(self):
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (
            max(1200, limits[0]), limits[1]))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        reader, writer = os.pipe()
        self.addCleanup(os.close, writer)
        high = fcntl.fcntl(reader, fcntl.F_DUPFD, 1100)
        os.close(reader)
        with open(high, 'rb') as file:
            self.assertFalse(processes.can_read(file, 0))
            os.write(writer, b'x')
            self.assertTrue(processes.can_read(file, 60))


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


class OrphanTestCase(test.NoDBTestCase):

    def test_nothing_outlives_who_was_killed(self):
        parent = subprocess.Popen(
            [sys.executable, '-c', PARENT], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, env=sender.environment(), text=True)
        self.addCleanup(parent.communicate)
        self.addCleanup(parent.kill)
        left = [psutil.Process(int(pid))
                for pid in parent.stdout.readline().split()]
        self.assertEqual(3, len(left))
        parent.kill()
        self.assertEqual([], psutil.wait_procs(left, timeout=60)[1])


class ForkTestCase(test.NoDBTestCase):

    def setUp(self):
        super().setUp()
        self.guard = processes.Guard()
        self.addCleanup(self._end_all)
        self.reader, self.writer = os.pipe()
        self.addCleanup(os.close, self.reader)
        self.forks = []

    def _end_all(self):
        self.guard.close()
        for fork in self.forks:
            fork.status()

    def _fork(self, body):
        """Start a child that says when it has ended; let go of our end."""
        self.forks.append(processes.Fork(self.guard, body))
        os.close(self.writer)
        return self.forks[-1]

    def _status(self, body):
        self._fork(body)
        return self.forks.pop().status()

    def test_one_that_ends_well(self):
        self.assertEqual(0, self._status(
            lambda: os.write(self.writer, b'hello')))
        self.assertEqual(b'hello', os.read(self.reader, 9))

    def test_one_that_fails(self):
        def fail():
            # Tests have another one than file descriptor 2.
            sys.stderr = os.fdopen(self.writer, 'w')
            raise ZeroDivisionError('a bug')

        self.assertEqual(1, self._status(fail))
        self.assertIn(b'ZeroDivisionError: a bug',
                      os.read(self.reader, 64 * 1024))

    def test_one_that_is_killed(self):
        self.assertEqual(-signal.SIGKILL, self._status(
            lambda: os.kill(os.getpid(), signal.SIGKILL)))

    def test_it_ends_in_order(self):
        """Also one that is stopped; and what it has begun is ended."""
        def wait():
            try:
                os.kill(os.getpid(), signal.SIGSTOP)
            finally:
                os.write(self.writer, b'in order')

        fork = self._fork(wait)
        os.waitid(os.P_PID, fork.pid, os.WSTOPPED | os.WNOWAIT)
        fork.end()
        self.assertEqual(b'in order', os.read(self.reader, 99))
        self.assertEqual(1, self.forks.pop().status())

    def test_it_is_told_to_end_before_it_has_begun(self):
        """It must not do what its parent does at an end."""
        handler = signal.signal(signal.SIGTERM, processes.terminate)
        self.addCleanup(signal.signal, signal.SIGTERM, handler)
        ours = os.getpid()
        for _ in range(50):
            fork = processes.Fork(self.guard, signal.pause)
            fork.end()
            try:
                self.assertIn(fork.status(), (1, -signal.SIGTERM))
            finally:
                if os.getpid() != ours:
                    os._exit(99)

    def _ended(self, change):
        """Return the status of one in which something happens at its end."""
        ours = os.getpid()
        try:
            return self._status(change)
        finally:
            if os.getpid() != ours:
                # It has come to where its parent goes on.
                os._exit(99)

    def test_words_that_can_not_be_written(self):
        self.assertEqual(0, self._ended(lambda: setattr(
            sys, 'stderr', mock.Mock(flush=mock.Mock(side_effect=OSError)))))

    def test_it_is_told_to_end_while_it_does(self):
        def change():
            sys.stderr = mock.Mock(
                flush=lambda: signal.raise_signal(signal.SIGTERM))
        self.assertEqual(0, self._ended(change))

    def test_it_is_told_to_end_just_before_it_does(self):
        self.assertEqual(1, self._ended(lambda: setattr(
            processes, 'end', mock.Mock(side_effect=SystemExit))))

    def test_it_is_told_to_end_twice(self):
        def change():
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                signal.raise_signal(signal.SIGTERM)
                os.write(self.writer, b'in order')

        self.assertEqual(1, self._ended(change))
        self.assertEqual(b'in order', os.read(self.reader, 99))

    def test_it_is_of_the_group_from_the_start(self):
        fork = self._fork(signal.pause)
        self.assertEqual(self.guard.group, os.getpgid(fork.pid))
        self.assertFalse(select.select([fork], [], [], 0)[0])

    def test_one_that_hangs_in_the_kernel_is_not_waited_for(self):
        os.close(self.writer)
        slot = processes.Slot(0, 0)
        slot.start(self.guard, lambda _tell: signal.pause())
        self.forks.append(slot.fork)
        with mock.patch.object(slot.fork, 'send'), \
                mock.patch.object(processes, 'LAST_WORDS', 0.1):
            processes.end_all([slot])
        self.assertEqual((None, True), (slot.fork, slot.is_lost))

    def test_it_ends_with_the_guard(self):
        fork = self._fork(signal.pause)
        self.guard.close()
        self.guard = processes.Guard()
        self.assertEqual(-signal.SIGKILL, self.forks.pop().status())
        self.assertIsNotNone(fork)


class WordsTestCase(test.NoDBTestCase):

    def test_how_it_ended(self):
        for status, words in (
                (3, 'ended with status 3'), (-9, 'was killed by SIGKILL'),
                (-63, 'was killed by signal 63')):
            self.assertEqual(words, processes.how_ended(status))

    def test_program_that_is_not_there(self):
        with processes.Guard() as guard:
            error = self.assertRaises(
                processes.Failed, processes.Process, guard, ['/nonsuch'])
        self.assertIn('nonsuch did not start', str(error))

    def test_program_that_can_not_be_watched(self):
        started = []

        def start(*args, **kwargs):
            started.append(popen(*args, **kwargs))
            return started[-1]

        popen = subprocess.Popen
        files = len(os.listdir('/proc/self/fd'))
        with processes.Guard() as guard, \
                mock.patch('subprocess.Popen', start), \
                mock.patch('os.pidfd_open', side_effect=OSError(24, 'many')):
            self.assertRaisesRegex(
                processes.Failed, 'sleep did not start.*many',
                processes.Process, guard, ['sleep', '1000'])
            self.assertEqual(-signal.SIGKILL, started[0].returncode)
        self.assertEqual(files, len(os.listdir('/proc/self/fd')))


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
        buffer = memory.Buffer(MIB)
        self.addCleanup(buffer.close)
        self.assertIn('dd', self._flags(buffer))

    def test_device(self):
        with tempfile.NamedTemporaryFile() as file:
            file.truncate(MIB)
            device = memory.Mapping(file.name, MIB)
            self.addCleanup(device.close)
            self.assertIn('dd', self._flags(device))
