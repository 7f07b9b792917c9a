# SPDX-License-Identifier: Apache-2.0

"""Copies as a whole: what arrives, what is sent, and what goes wrong."""

import os

import ddt

from nova.tests.unit.virt.pmem_transfer import base
from nova.virt.pmem_transfer import wire

KIB = base.KIB
MIB = base.MIB
GIB = 1024 * MIB


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

    def test_second_sender_sends_only_what_differs(self):
        self.add_pair(4 * MIB, 6 * MIB)
        self.receive()
        self.succeed()
        self.pmem.write('new0', MIB + 5, b'dirt')
        self.pmem.write('new0', 3 * MIB, b'dirt')
        result = self.succeed(attempt=1, streams=2)
        # One part, and an extent that is to be zero.
        self.assertEqual(5 * MIB - 64 * KIB, result.last['resumed'])
        self.assertLess(result.last['wire'], 64 * KIB + 4 * KIB)

    def test_many_streams(self):
        self.add_pair(64 * 64 * KIB)
        self.receive()
        result = self.succeed(address='', streams=64, extent=64 * KIB,
                              stall_timeout=120)
        self.assertEqual(0, result.last['retries'])

    def test_places_that_32_bits_do_not_hold(self):
        size = 4 * GIB + 6 * MIB
        self.add_pair(size, size + 2 * MIB, fill=False)
        # The last ones are in the label area, which moves to the new end.
        places = {at: at + (2 * MIB if at >= size - 2 * MIB else 0)
                  for at in (0, 4 * GIB - 3, 4 * GIB + MIB, size - 8)}
        for at in places:
            self.pmem.write('old0', at, b'%8d' % (at % MIB))
        self.receive()
        result = self.copy(address='', streams=2, extent=8 * MIB,
                           stall_timeout=100)
        self.assertEqual('done', result.last['event'], result.events)
        self.assertEqual(size + 2 * MIB, result.last['bytes'])
        self.assertLess(result.last['wire'], 64 * KIB)
        for at, there in places.items():
            self.assertEqual(b'%8d' % (at % MIB),
                             self.pmem.read('new0', there, 8))
        self.assertEqual(b'', self.pmem.read(
            'new0', size - 2 * MIB, 2 * MIB).strip(b'\0'))

    def test_low_bandwidth(self):
        """An extent takes longer than a stream may stand still."""
        self.add_pair(8 * MIB)
        self.receive()
        result = self.succeed(bandwidth=MIB, streams=4, extent=2 * MIB,
                              stall_timeout=5)
        self.assertEqual(0, result.last['retries'])

    def test_low_bandwidth_of_many_streams(self):
        """The share of each is less than what is given to the kernel else."""
        self.add_pair(64 * 256 * KIB)
        self.receive()
        # With too much at a time they would stand still for 16 seconds.
        self.succeed(address='', bandwidth=MIB, streams=64, extent=256 * KIB,
                     stall_timeout=12)

    def test_the_source_is_only_read(self):
        self.add_pair(2 * MIB)
        self.receive()
        self.succeed()
        self.assertEqual([], [
            call for call in self.pmem.calls('daxio')
            if self.pmem.path('old0') in call['args']])

    def test_nothing_is_left(self):
        self.add_pair(2 * MIB)
        receiver = self.receive()
        before = sorted(os.listdir(self.state))
        self.succeed()
        self.assertEqual(before, sorted(os.listdir(self.state)))
        self.end(receiver)
        self.assert_nothing_runs()


@ddt.ddt
class FaultTestCase(base.CopyTestCase):

    def setUp(self):
        super().setUp()
        self.add_pair(4 * MIB)
        self.receive()

    def test_patch_that_spoils_what_it_leaves_alone(self):
        self.succeed()
        for part in (0, 2):
            self.pmem.write('old0', part * wire.PART, b'changed')
        self.pmem.inject('flip', 'new0', at=wire.PART + 5)
        result = self.succeed(attempt=1)
        self.assertEqual(1, result.last['retries'])

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
