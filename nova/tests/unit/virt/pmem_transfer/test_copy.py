# SPDX-License-Identifier: Apache-2.0

"""Copies as a whole: what arrives, what is sent, and what goes wrong."""

import os
import signal
import sys
import time

import ddt
import fixtures
import psutil

from nova.tests.unit.virt.pmem_transfer import base

KIB = base.KIB
MIB = base.MIB


@ddt.ddt
class WholeCopyTestCase(base.CopyTestCase):

    def test_random_data(self):
        self.add_pair(4 * MIB)
        self.receive()
        result = self.succeed()
        self.assertEqual(4 * MIB, result.last['bytes'])
        self.assertEqual(4, result.last['extents'])
        self.assertEqual(0, result.last['retries'])
        self.assertEqual(0, result.last['resumed'])
        self.assertLess(result.last['wire'], 4 * MIB + 2 * KIB)
        self.assertGreater(result.last['wire'], 4 * MIB)
        progress = result.told('progress')
        self.assertEqual([0, 4 * MIB],
                         [progress[0]['done'], progress[0]['total']])

    @ddt.data(1, 2, 3)
    def test_several_devices_of_unequal_sizes(self, streams):
        self.add_pair(4 * MIB)
        self.add_pair(2 * MIB, 6 * MIB)
        self.add_pair(4 * MIB, 6 * MIB)
        for _old, new in self.pairs:
            self.pmem.fill(new, seed='dirt')
        self.receive()
        result = self.succeed(streams=streams)
        self.assertEqual(16 * MIB, result.last['bytes'])

    def test_more_streams_than_extents(self):
        self.add_pair(2 * MIB)
        self.receive()
        self.succeed(streams=8, extent=2 * MIB)

    def test_zeros_are_neither_sent_nor_written(self):
        self.add_pair(4 * MIB, fill=False)
        self.receive()
        result = self.succeed()
        self.assertLess(result.last['wire'], KIB)
        written = [call for call in self.pmem.calls('daxio')
                   if '-o' in call['args']]
        self.assertEqual([], written)

    def test_zeros_over_dirt_are_written(self):
        self.add_pair(4 * MIB, fill=False)
        self.pmem.write('new0', 3 * MIB + 7, b'dirt')
        self.receive()
        result = self.succeed()
        self.assertLess(result.last['wire'], KIB)
        written = [call['args'] for call in self.pmem.calls('daxio')
                   if '-o' in call['args']]
        self.assertEqual(1, len(written))
        self.assertIn('-z', written[0])

    def test_only_data_is_sent(self):
        self.add_pair(4 * MIB, fill=False)
        self.pmem.fill('new0', seed='dirt')
        pieces = {100: 5 * KIB, MIB - 64 * KIB: 128 * KIB,
                  2 * MIB + 300 * KIB: 1, 4 * MIB - 1: 1}
        for offset, length in pieces.items():
            self.pmem.write('old0', offset, b'x' * length)
        self.receive()
        result = self.succeed()
        self.assertLess(result.last['wire'],
                        sum(pieces.values()) + 12 * KIB)

    @ddt.data(False, True)
    def test_runs_are_written_alone(self, dirty):
        """Unless they are close, and zeros where there is something else."""
        self.add_pair(10 * MIB, fill=False)
        for offset, byte in ((MIB, b'a'), (5 * MIB, b'b'), (6 * MIB, b'c')):
            self.pmem.write('old0', offset, byte * 100 * KIB)
        zeroed = []
        if dirty:
            # Between two that are written at once it does not matter.
            for offset in (7, 5 * MIB + 200 * KIB):
                self.pmem.write('new0', offset, b'dirt')
            zeroed = [(0, MIB)]
        self.receive()
        result = self.succeed(extent=10 * MIB)
        self.assertEqual(0, result.last['retries'])
        calls = [(call['args'], '-z' in call['args'])
                 for call in self.pmem.calls('daxio')]
        for expected, zero in (
                ([(MIB, 100 * KIB), (5 * MIB, MIB + 100 * KIB)], False),
                (zeroed, True)):
            self.assertEqual(
                [(str(offset), str(length)) for offset, length in expected],
                [(args[args.index('-s') + 1], args[args.index('-l') + 1])
                 for args, is_zero in calls if is_zero == zero])

    def test_resumed_copy_sends_only_what_differs(self):
        self.add_pair(4 * MIB, 6 * MIB)
        self.receive()
        self.succeed()
        self.pmem.write('new0', MIB + 5, b'dirt')
        self.pmem.write('new0', 3 * MIB, b'dirt')
        result = self.succeed(resume=True, streams=2)
        self.assertEqual(4 * MIB, result.last['resumed'])
        self.assertLess(result.last['wire'], MIB + 2 * KIB)

    def test_the_source_is_only_read(self):
        self.add_pair(2 * MIB)
        self.receive()
        self.succeed()
        self.assertEqual([], [
            call for call in self.pmem.calls('daxio')
            if self.pmem.path('old0') in call['args']])

    def test_nothing_is_left(self):
        self.add_pair(2 * MIB)
        self.receive()
        self.succeed()
        self.assert_nothing_runs()


@ddt.ddt
class FaultTestCase(base.CopyTestCase):

    def setUp(self):
        super().setUp()
        self.add_pair(4 * MIB)
        self.receive()

    @ddt.data('exit', 'kill', 'short', 'flip')
    def test_extent_that_fails_once(self, action):
        details = {}
        if action == 'exit':
            details = {'message': 'daxio: on fire\n'}
        self.pmem.inject(action, 'new0', at=MIB + 5, **details)
        result = self.succeed()
        self.assertEqual(1, result.last['retries'])
        retry, = result.told('retry')
        self.assertEqual(('old0', MIB), (retry['device'], retry['offset']))
        self.assertIn({
            'exit': 'on fire', 'kill': 'was killed by SIGKILL',
            'short': 'was to move %d bytes' % MIB,
            'flip': 'reads back different'}[action], retry['message'])
        # The rest was not sent again.
        self.assertLess(result.last['wire'], 5 * MIB + 2 * KIB)

    @ddt.data('exit', 'kill', 'short', 'flip')
    def test_zeroing_that_fails_once(self, action):
        self.pmem.write('old0', 0, bytes(4 * MIB))
        self.pmem.fill('new0')
        self.pmem.inject(action, 'new0', side='zero', at=MIB + 5)
        self.assertEqual(1, self.succeed().last['retries'])

    @ddt.data('exit', 'flip', 'short')
    def test_extent_that_always_fails(self, action):
        details = {}
        if action == 'exit':
            details = {'message': 'daxio: on fire\n'}
        self.pmem.inject(action, 'new0', at=2 * MIB, repeat=True, **details)
        result = self.fail_to(streams=2, extent=512 * KIB)
        message = result.last['message']
        self.assertEqual('old0', result.last['device'])
        # Nova's own message names the devices and the host; see
        # PMEMCopyFailed.
        self.assertRegex(message, r'^%d bytes at offset %d: ' % (
            512 * KIB, 2 * MIB))
        self.assertIn(' (tried 3 times)', message)
        for words in ('old0', 'new0', 'host2'):
            self.assertNotIn(words, message)
        self.assertIn({'exit': 'on fire', 'flip': 'reads back different',
                       'short': 'was to move'}[action], message)
        self.assert_nothing_runs()

    @ddt.data('old0', 'new0')
    def test_device_that_is_damaged(self, name):
        # Memory that is not there fails as memory that is damaged does.
        if name == 'new0':
            # The last extent is zero, so it is read, but not written.
            self.pmem.write('old0', 3 * MIB, bytes(MIB))
        fault = self.pmem.inject('hang', 'new0', at=MIB)
        process = self.start()
        fault.wait()
        os.truncate(self.pmem.path(name), 3 * MIB)
        fault.release()
        result = self.result(process)
        self.assertEqual('error', result.last['event'])
        self.assertIn('Bad address', result.last['message'])
        self.assertIn({'old0': 'reading the source',
                       'new0': 'can not be read back'}[name],
                      result.last['message'])

    def test_device_whose_damage_only_reading_shows(self):
        """Who reads it is killed, and whoever waits for it told."""
        self.useFixture(fixtures.EnvironmentVariable(
            'PYTHONPATH', os.pathsep.join([self._without_asking(), *filter(
                None, [os.environ.get('PYTHONPATH')])])))
        self.pmem.write('old0', 3 * MIB, bytes(MIB))
        fault = self.pmem.inject('hang', 'new0', at=MIB)
        process = self.start(receiver=(
            'sh', '-c', 'OS_DEFAULT__STATE_PATH=%s OS_DEFAULT__HOST=host2 '
            'exec %s '
            '-m nova.virt.pmem_transfer.receiver %s' % (
                self.state, sys.executable, base.MIGRATION)))
        fault.wait()
        os.truncate(self.pmem.path('new0'), 3 * MIB)
        fault.release()
        result = self.result(process)
        self.assertIn('was killed by SIGBUS',
                      result.told('retry')[0]['message'])

    def _without_asking(self):
        """Return a folder whose modules have Python never ask the kernel."""
        folder = self.useFixture(fixtures.TempDir()).path
        with open(os.path.join(folder, 'sitecustomize.py'), 'w') as file:
            file.write('import device_files\n'
                       'from nova.virt.pmem_transfer import mapping\n'
                       'mapping._MADV_POPULATE_READ = 12345\n')
        return folder

    def test_extent_that_hangs_once(self):
        self.pmem.inject('hang', 'new0', at=MIB + 5)
        result = self.succeed(stall_timeout=3)
        retry, = result.told('retry')
        self.assertIn('in 1.5 seconds and was killed', retry['message'])

    @ddt.data(0, 2 * MIB, 3 * MIB - 1, 4 * MIB - 1)
    def test_byte_that_changes_anywhere_in_an_extent(self, place):
        """All of a large one is looked at, data and zeros, page by page."""
        for number in (0, 1):
            self.pmem.write('old0', number * 2 * MIB + MIB, bytes(MIB))
        fault = self.pmem.inject('hang', 'new0', at=0)
        process = self.start(extent=4 * MIB)
        fault.wait()
        self.pmem.write('new0', place, b'!')
        fault.release()
        self.assertEqual(0, self.result(process).status)
        self.assert_copied()

    def test_byte_that_changes_on_the_device_after_writing(self):
        # The fault is planned for the very end of the device.
        fault = self.pmem.inject('hang', 'new0', at=4 * MIB)
        process = self.start()
        fault.wait()
        self.pmem.write('new0', 3 * MIB + 77, b'changed')
        fault.release()
        result = self.result(process)
        self.assertEqual(0, result.status)
        self.assertIn('reads back different',
                      result.told('retry')[0]['message'])
        self.assert_copied()

    def test_connection_that_stands_still(self):
        fault = self.pmem.inject('hang', 'new0', at=MIB)
        process = self.start(stall_timeout=3)
        receiver = psutil.Process(fault.wait()).parent()
        receiver.suspend()
        self.addCleanup(receiver.kill)
        fault.release()
        result = self.result(process)
        self.assertIn('nothing has moved for 3 seconds',
                      result.told('retry')[0]['message'])
        # It is not the only one that could not get the stream: while the
        # receiver has its lock, it may come to its senses and write.
        self.assertIn('another receiver has stream 0',
                      result.last['message'])

    @ddt.data('ssh', 'receiver')
    def test_process_is_killed(self, what):
        fault = self.pmem.inject('hang', 'new0', at=2 * MIB + 5)
        process = self.start()
        daxio = psutil.Process(fault.wait())
        receiver = daxio.parent()
        if what == 'ssh':
            victim, = [each for each in psutil.Process(process.pid).children()
                       if each.name() == 'ssh']
        else:
            victim = receiver
        victim.kill()
        result = self.result(process)
        self.assertEqual(0, result.status, result.events)
        self.assertEqual(1, result.last['retries'])
        self.assertLess(result.last['wire'], 7 * MIB)
        self.assert_copied()
        self.assertEqual([], psutil.wait_procs([daxio], timeout=20)[1])

    def test_killed_sender_leaves_nothing(self):
        fault = self.pmem.inject('hang', 'new0', at=0)
        process = self.start(streams=2)
        left = [psutil.Process(fault.wait())]
        left += psutil.Process(process.pid).children(recursive=True)
        left.append(left[0].parent())
        self.assertLess(4, len(left))
        process.send_signal(signal.SIGKILL)
        process.wait()
        _gone, alive = psutil.wait_procs(left, timeout=20)
        self.assertEqual([], alive)

    @ddt.data('sender', 'daxio')
    def test_bytes_that_were_stored_and_not_flushed(self, what):
        """Who compares them finds them equal; a loss of power takes them."""
        fault = self.pmem.inject('hang', 'new0', at=MIB, flushes=True)
        process = self.start()
        daxio = psutil.Process(fault.wait())
        if what == 'daxio':
            # Its receiver can't say so any more.
            receiver = daxio.parent()
            receiver.suspend()
            daxio.kill()
            receiver.kill()
        process.kill()
        process.wait()
        psutil.wait_procs([daxio], timeout=20)
        result = self.succeed(resume=True)
        self.assertEqual(MIB, result.last['resumed'])
        self.assert_copied()

    def test_terminated_sender_leaves_nothing(self):
        fault = self.pmem.inject('hang', 'new0', at=MIB)
        process = self.start()
        left = [psutil.Process(fault.wait())]
        left += psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        process.communicate(timeout=20)
        self.assertEqual(128 + signal.SIGTERM, process.returncode)
        _gone, alive = psutil.wait_procs(left, timeout=20)
        self.assertEqual([], alive)

    def test_sender_ends_with_who_started_it(self):
        fault = self.pmem.inject('hang', 'new0', at=MIB)
        parent = self.start_by_another()
        fault.wait()
        left = parent.children(recursive=True)
        parent.kill()
        _gone, alive = psutil.wait_procs(left, timeout=20)
        self.assertEqual([], alive)

    def test_job_of_somebody_who_is_gone(self):
        result = self.fail_to(parent=1)
        self.assertIn('is gone', result.last['message'])
        self.assertTrue(self.pmem.is_zero('new0'))

    def test_ticket_that_is_closed_meanwhile(self):
        fault = self.pmem.inject('hang', 'new0', at=MIB)
        process = self.start()
        fault.wait()
        os.unlink(self.ticket_path)
        fault.release()
        result = self.result(process)
        self.assertIn('was closed', result.last['message'])
        self.assertEqual([], result.told('retry'))
        self.assertTrue(self.pmem.is_zero('new0', 2 * MIB))

    def test_second_copy_at_once(self):
        fault = self.pmem.inject('hang', 'new0', at=MIB)
        process = self.start(streams=2)
        fault.wait()
        result = self.fail_to(streams=2)
        self.assertIn('another receiver has stream 0',
                      result.last['message'])
        fault.release()
        self.assertEqual(0, self.result(process).status)
        self.assert_copied()

    def test_bandwidth_limit(self):
        start = time.monotonic()
        self.succeed(bandwidth=2 * MIB, streams=2)
        # 4 MiB, of which a tenth of a second's worth may go at once.
        self.assertGreater(time.monotonic() - start, 1.9)


@ddt.ddt
class RefusalTestCase(base.CopyTestCase):

    def setUp(self):
        super().setUp()
        self.add_pair(2 * MIB)

    def refused(self, *words, **changes):
        result = self.fail_to(**changes)
        for word in words:
            self.assertIn(word, result.last['message'])
        self.assertNotIn('host2', result.last['message'])
        self.assertEqual([], result.told('retry'))
        self.assertTrue(self.pmem.is_zero('new0'))

    def test_no_ticket(self):
        self.refused('there is no open ticket')

    def test_shell_that_prints_something(self):
        self.receive()
        receiver = self.job().receiver
        self.refused('Welcome to the machine', 'should begin with',
                     receiver=(*receiver[:-1],
                               'echo Welcome to the machine; ' + receiver[-1]))

    def test_no_such_command(self):
        self.refused('127', 'not found', receiver=(
            *self.job().receiver[:-1], 'nova-pmem-nothing'))

    def test_no_connection(self):
        result = self.fail_to(receiver=('ssh', '-o', 'BatchMode=yes',
                                        '127.0.0.9', 'true'))
        self.assertEqual(2, len(result.told('retry')))
        self.assertIn('tried 3 times', result.last['message'])

    def test_program_that_is_not_there(self):
        result = self.fail_to(receiver=('nonsuch',))
        self.assertIn('nonsuch did not start', result.last['message'])

    @ddt.data('', '{}', 'null', '[]', '{"devices": 1}')
    def test_nonsense_instead_of_a_job(self, text):
        result = self.result(self.start_text(text))
        self.assertEqual(1, result.status)
        self.assertIn('no job', result.last['message'])
