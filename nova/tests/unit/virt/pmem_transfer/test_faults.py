# SPDX-License-Identifier: Apache-2.0

"""Copies of which a process, a connection or a device breaks."""

import os
import signal
import sys

import ddt
import fixtures
import psutil

from nova.tests.unit.virt.pmem_transfer import base
from nova.virt.pmem_transfer import receiver
from nova.virt.pmem_transfer import sender

KIB = base.KIB
MIB = base.MIB

# Where memory breaks, in the tests of that: at a page of a device.
DAMAGE = 10 * MIB

# A sender whose streams get no signals, like one that hangs in the kernel.
UNKILLABLE = """
from nova.virt.pmem_transfer import sender
sender.SLACK = sender.processes.LAST_WORDS = 1
sender.processes.Fork.send = lambda *_arguments: None
sender.main()
"""


class FaultTestCase(base.CopyTestCase):
    """A copy of some extents, whose stages can be waited for."""

    SIZE = 4 * MIB

    def setUp(self):
        super().setUp()
        self.add_pair(self.SIZE)
        self.receiver = self.receive()

    def hang(self, *places):
        """Have daxio hang at some bytes; return how to wait for it."""
        return [self.pmem.inject('hang', 'new0', at=each) for each in places]

    def streams(self, process):
        """Return the processes of a sender's streams."""
        return [each for each in psutil.Process(process.pid).children()
                if each.name() not in ('sh', 'ssh')]

    def succeeds(self, process):
        """Assert that a copy that was started ends well."""
        result = self.result(process)
        self.assertEqual('done', result.last.get('event'),
                         (result.events, result.errors))
        self.assertEqual(0, result.status)
        self.assert_copied()
        return result

    def assert_gone(self, *left):
        self.assertEqual([], psutil.wait_procs(left, timeout=60)[1])


@ddt.ddt
class StreamTestCase(FaultTestCase):
    """Of two streams, each of which has something to write."""

    def setUp(self):
        super().setUp()
        self.hangs = self.hang(5, MIB + 5)

    def start_both(self, **changes):
        process = self.start(**dict(dict(streams=2), **changes))
        for each in self.hangs:
            each.wait()
        return process

    def go_on(self, process):
        for each in self.hangs:
            each.release()
        return self.succeeds(process)

    def test_ssh_is_killed(self):
        process = self.start_both()
        first, _second = self.streams(process)
        ssh, = first.children()
        ssh.kill()
        result = self.go_on(process)
        retry, = result.told('retry')
        self.assertIn('ssh was killed by SIGKILL', retry['message'])
        self.assertLess(result.last['wire'], 7 * MIB)

    def test_process_is_killed(self):
        process = self.start_both()
        first, _second = self.streams(process)
        ssh, = first.children()
        first.kill()
        self.assert_gone(ssh)
        retry, = self.go_on(process).told('retry')
        self.assertIn('the process of the stream was killed by SIGKILL',
                      retry['message'])
        self.end(self.receiver)
        self.assert_nothing_runs()

    def test_process_is_terminated(self):
        """By somebody else than the sender: another one takes its place."""
        process = self.start_both()
        self.streams(process)[0].terminate()
        self.assertEqual(1, self.go_on(process).last['retries'])

    def test_process_can_not_be_started(self):
        process = self.start_both(
            command=base.fails_once(sender, 'os', 'fork'))
        retry, = self.go_on(process).told('retry')
        self.assertIn('there is none left', retry['message'])

    def test_process_is_stopped(self):
        process = self.start_both(
            command=base.changed(sender, SLACK=1), stall_timeout=4)
        self.streams(process)[0].suspend()
        retries = self.go_on(process).told('retry')
        self.assertIn('nothing was heard of it for 5 seconds',
                      ' '.join(each['message'] for each in retries))

    def test_process_hangs_in_the_kernel(self):
        """Nothing ends it, so nobody waits for it: the other does its part."""
        process = self.start_both(command=[sys.executable, '-c', UNKILLABLE],
                                  stall_timeout=4)
        hung, = self.streams(process)[:1]
        hung.suspend()
        # nova-compute reads until nobody has it open.
        self.assertNotEqual(*(os.readlink('/proc/%d/fd/1' % each.pid)
                              for each in (process, hung)))
        retry, = self.go_on(process).told('retry')
        self.assertIn('nothing was heard of it for 5 seconds',
                      retry['message'])

    def test_writer_is_stopped(self):
        """Whoever comes in its place ends it."""
        process = self.start_both(stall_timeout=3)
        writer = psutil.Process(self.hangs[0].pid).parent()
        writer.suspend()
        result = self.go_on(process)
        self.assertIn('nothing has moved for 3 seconds',
                      result.told('retry')[0]['message'])
        self.assert_gone(writer)

    @ddt.data('kill', 'terminate')
    def test_writer_is_killed(self, action):
        process = self.start_both()
        daxio = psutil.Process(self.hangs[0].pid)
        getattr(daxio.parent(), action)()
        result = self.go_on(process)
        self.assertEqual(1, result.last['retries'])
        self.assertLess(result.last['wire'], 7 * MIB)
        self.assert_gone(daxio)

    def script(self, refused):
        """Return an ssh that refuses some of the times that it is started.

        The first one waits for the second, which is another stream's.
        """
        folder = self.useFixture(fixtures.TempDir()).path
        return ('sh', '-c', 'n=0; while ! mkdir %(folder)s/$n 2>&-; do '
                'n=$((n+1)); done; case $n in %(refused)s) '
                'while ! test -d %(folder)s/1; do sleep 0.1; done; '
                'echo go away >&2; exit 255;; esac; exec ssh "$@"' % {
                    'folder': folder, 'refused': refused}, 'ssh')

    def test_ssh_is_always_refused(self):
        """The other stream does it all."""
        process = self.start(streams=2, ssh=self.script('0|2|3'))
        for each in self.hangs:
            each.release()
        result = self.succeeds(process)
        self.assertEqual(3, result.last['retries'])
        stream, = {each['stream'] for each in result.told('retry')}
        for each in result.told('retry'):
            self.assertIn('go away', each['message'])
        self.assertEqual(4 * MIB, result.last['bytes'])

    def test_all_are_refused_at_first(self):
        """Nobody has got through yet: that does not come of a restart."""
        result = self.fail_to(streams=2, ssh=self.script('*'), patience=60)
        self.assertIn('go away', result.last['message'])
        self.assertIn('tried 3 times', result.last['message'])
        self.assertEqual(6, len(result.told('retry')))


@ddt.ddt
class ReceiverTestCase(FaultTestCase):

    def test_it_is_started_again(self):
        """Only what was not acknowledged is sent anew."""
        hang, = self.hang(2 * MIB + 5)
        process = self.start(patience=60)
        hang.wait()
        self.end(self.receiver)
        self.receive()
        result = self.succeeds(process)
        self.assertLessEqual(1, result.last['retries'])
        self.assertEqual(4 * MIB, result.last['bytes'])
        self.assertLess(result.last['wire'], 7 * MIB)
        # What was acknowledged is not written again.
        self.assertEqual([1, 1], [
            [call['args'][call['args'].index('-s') + 1]
             for call in self.pmem.calls('daxio')].count(str(offset))
            for offset in (0, MIB)])

    def test_it_is_away_for_longer_than_a_stream_tries(self):
        hang, = self.hang(2 * MIB + 5)
        process = self.start(
            command=base.changed(sender, LONG_PAUSE=0.1), attempts=2,
            patience=600)
        hang.wait()
        self.end(self.receiver)
        # It has given up all streams, and tries for the third time.
        for _ in range(5):
            self.assertIn('"retry"', self.next_retry(process))
        self.receive()
        self.succeeds(process)

    @staticmethod
    def next_retry(process):
        return next(line for line in process.stdout if '"retry"' in line)

    def test_patience_ends_as_soon_as_one_stream_has_given_up(self):
        """Others would take ever longer, the more there are."""
        hangs = self.hang(2 * MIB + 5)
        process = self.start(
            command=base.changed(sender, CONNECTING=1, SLACK=0), attempts=2,
            streams=4)
        hangs[0].wait()
        self.end(self.receiver)
        result = self.result(process)
        self.assertIn('tried 2 times', result.last['message'])
        self.assertLess(len(result.told('retry')), 8)

    def test_no_patience(self):
        hang, = self.hang(2 * MIB + 5)
        process = self.start()
        hang.wait()
        self.end(self.receiver)
        result = self.result(process)
        self.assertEqual('error', result.last['event'])
        self.assertIn('tried 3 times', result.last['message'])
        self.assertEqual(3, len(result.told('retry')))
        self.assert_nothing_runs()

    def test_it_is_stopped(self):
        self.receiver.send_signal(signal.SIGSTOP)
        result = self.fail_to(address='', stall_timeout=0.5, attempts=2)
        self.assertIn('nothing has moved for 0.5 seconds',
                      result.last['message'])

    def test_later_sender_takes_over(self):
        hang, = self.hang(MIB)
        process = self.start()
        daxio = psutil.Process(hang.wait())
        result = self.succeed(attempt=1)
        self.assertEqual(MIB, result.last['resumed'])
        self.assert_gone(daxio)
        result = self.result(process)
        self.assertEqual('refused: a later sender has taken over',
                         result.last['message'])
        self.assert_copied()

    @ddt.data('sender', 'daxio')
    def test_bytes_that_were_stored_and_not_flushed(self, what):
        """Who compares them finds them equal; a loss of power takes them."""
        fault = self.pmem.inject('hang', 'new0', at=MIB, flushes=True)
        process = self.start()
        daxio = psutil.Process(fault.wait())
        if what == 'daxio':
            # Its stream can't say so any more.
            writer = daxio.parent()
            writer.suspend()
            daxio.kill()
            writer.kill()
        process.kill()
        process.wait()
        result = self.succeed(attempt=1)
        self.assertEqual(MIB, result.last['resumed'])

    def test_another_version(self):
        self.end(self.receiver)
        self.receive(base.changed(receiver, **{'wire.VERSION': 3}))
        result = self.fail_to()
        self.assertIn('finish the upgrade', result.last['message'])
        self.assertEqual([], result.told('retry'))


class SenderTestCase(FaultTestCase):

    def busy(self, **changes):
        """Return a sender that copies, and what it has started."""
        hangs = self.hang(5, MIB + 5)
        process = self.start(streams=2, **changes)
        daxios = [psutil.Process(each.wait()) for each in hangs]
        left = psutil.Process(process.pid).children(recursive=True)
        # The streams, an ssh for each, and a shell.
        self.assertLessEqual(5, len(left))
        return process, [*left, *daxios, *(
            each.parent() for each in daxios)]

    def test_it_is_killed(self):
        process, left = self.busy()
        process.kill()
        process.wait()
        self.assert_gone(*left)

    def test_it_is_terminated(self):
        process, left = self.busy()
        process.terminate()
        result = self.result(process)
        self.assertEqual(1, result.status)
        self.assertEqual('it was ended by SIGTERM', result.last['message'])
        self.assertEqual(1, len(result.told('error')))
        self.assert_gone(*left)
        # The sockets of ssh.
        self.assertEqual([], [name for name in os.listdir(self.state)
                              if name.startswith('ssh-')])

    def test_it_is_terminated_while_a_stream_is_stopped(self):
        process, left = self.busy()
        self.streams(process)[0].suspend()
        process.terminate()
        self.assertEqual('it was ended by SIGTERM',
                         self.result(process).last['message'])
        self.assert_gone(*left)

    def test_it_ends_with_who_started_it(self):
        fault, = self.hang(MIB)
        parent = self.start_by_another()
        fault.wait()
        left = parent.children(recursive=True)
        parent.kill()
        self.assert_gone(*left)

    def test_time_limit(self):
        self.hang(5)
        result = self.fail_to(time_limit=1)
        self.assertEqual('it is not done after 1 seconds',
                         result.last['message'])
        self.end(self.receiver)
        self.assert_nothing_runs()


class DamageTestCase(FaultTestCase):
    """Memory that is not there fails as memory that is damaged does."""

    # So much that the end is not looked at yet when all waits for the start.
    SIZE = 12 * MIB

    def copy_of_what_breaks(self, name, at, **changes):
        hang, = self.hang(MIB)
        process = self.start(**changes)
        hang.wait()
        os.truncate(self.pmem.path(name), at)
        hang.release()
        result = self.result(process)
        self.assertEqual('error', result.last['event'])
        self.assertEqual('old0', result.last['device'])
        return result

    def test_source(self):
        result = self.copy_of_what_breaks('old0', DAMAGE)
        self.assertRegex(
            result.last['message'], '^%d bytes at offset %d: reading the '
            'source: .*Bad address' % (MIB, DAMAGE))
        self.assertEqual([], result.told('retry'))

    def test_target(self):
        # Zeros there: they are read, and written if that has failed.
        self.pmem.write('old0', DAMAGE, bytes(2 * MIB))
        result = self.copy_of_what_breaks('new0', DAMAGE)
        self.assertRegex(result.told('retry')[0]['message'],
                         'it can not be read: .*Bad address')
        self.assertRegex(
            result.last['message'], '^%d bytes at offset %d: daxio was killed '
            'by SIGBUS' % (MIB, DAMAGE))

    def do_not_ask(self):
        """Have each Python that starts from here not ask the kernel.

        So damage shows only when it is read, and kills.
        """
        folder = self.useFixture(fixtures.TempDir()).path
        with open(os.path.join(folder, 'sitecustomize.py'), 'w') as file:
            file.write('import device_files\n'
                       'from nova.virt.pmem_transfer import memory\n'
                       'memory._MADV_POPULATE_READ = 12345\n')
        self.useFixture(fixtures.EnvironmentVariable(
            'PYTHONPATH', os.pathsep.join([folder, *filter(
                None, [os.environ.get('PYTHONPATH')])])))

    def test_source_whose_damage_only_reading_shows(self):
        self.do_not_ask()
        result = self.copy_of_what_breaks('old0', DAMAGE)
        self.assertEqual('%d bytes at offset %d: memory of the source is '
                         'damaged' % (MIB, DAMAGE), result.last['message'])

    def test_target_whose_damage_only_reading_shows(self):
        self.do_not_ask()
        self.end(self.receiver)
        self.receive()
        self.pmem.write('old0', DAMAGE, bytes(2 * MIB))
        result = self.copy_of_what_breaks('new0', DAMAGE)
        self.assertRegex(
            result.last['message'], '^%d bytes at offset %d: refused: memory '
            'of the target is damaged' % (MIB, DAMAGE))
