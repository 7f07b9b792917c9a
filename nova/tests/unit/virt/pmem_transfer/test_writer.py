# SPDX-License-Identifier: Apache-2.0

"""What is done with what comes over a stream."""

import contextlib
import functools
import json
import os
import socket
import threading
from unittest import mock

import ddt
import fixtures
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from nova import test
from nova.tests.unit.virt.pmem_transfer import base
from nova.virt.pmem_transfer import daxio
from nova.virt.pmem_transfer import extents
from nova.virt.pmem_transfer import memory
from nova.virt.pmem_transfer import processes
from nova.virt.pmem_transfer import receiver
from nova.virt.pmem_transfer import wire
from nova.virt.pmem_transfer import writer

KIB = base.KIB
MIB = base.MIB


class WriterTestCase(base.CopyTestCase):
    """Writers in this very process: a device of 4 MiB into one of 6 MiB."""

    ADDRESSES = ()

    def setUp(self):
        super().setUp()
        # What is refused is told on stderr, too.
        self.useFixture(fixtures.MockPatchObject(receiver, 'os'))
        self.add_pair(4 * MIB, 6 * MIB)
        self.pmem.fill('new0', seed='what was there')
        self.before = self.pmem.digest('new0')
        self.guard = self.useFixture(_Guard()).guard
        self.notes = os.open(os.path.join(self.state, 'notes'), os.O_RDWR |
                             os.O_CREAT | os.O_APPEND)
        self.addCleanup(os.close, self.notes)
        path = self.pmem.path('new0')
        mapping = memory.Mapping(path, 6 * MIB)
        self.addCleanup(mapping.close)
        self.target = writer.Target(
            wire.Target('new0', path, 6 * MIB, 4 * MIB), mapping)

    def writer(self, connection, extent=MIB, stall_timeout=20):
        connection.settimeout(stall_timeout)
        return writer.Writer(
            connection, receiver.Hello(0, extent, stall_timeout, []),
            [self.target], daxio.Unfinished(self.notes), self.guard,
            memory.Unsaid(), [self.notes])

    def serve(self, *frames, **hello):
        """Return what is answered to frames, after which nothing comes."""
        ours, theirs = socket.socketpair()
        feeder = threading.Thread(
            target=_feed, args=(ours, b''.join(frames)))
        feeder.start()
        with ours:
            with theirs:
                try:
                    self.writer(theirs, **hello).run()
                except Exception as error:
                    receiver.refuse(theirs, error)
            feeder.join()
            return [json.loads(line) for line in _all(ours).splitlines()]  # noqa: N324,E501

    def frame(self, sequence, offset=0, data=b'', device=0, kind=wire.DATA,
              length=None, runs=None, text=b'', tags=None):
        if runs is None:
            runs = [extents.Run(0, len(data))] if data else []
        if length is None:
            length = len(data)
        if tags is None:
            tags = wire.count_tags(length)
        header = wire.Header(kind, sequence, device, offset, length,
                             tags if kind == wire.COMPARE else len(runs))
        return header.pack() + wire.pack_runs(runs) + text + data

    def refused(self, words, *frames):
        """Assert that it ends in words, and that it wrote nothing."""
        lines = self.serve(*frames)
        self.assertIn(words, lines[-1]['error'])
        self.assertEqual(wire.VERSION, lines[-1][wire.NAME])
        self.assertEqual(self.before, self.pmem.digest('new0'))
        return lines[-1]


class _Guard(fixtures.Fixture):

    def _setUp(self):
        self.guard = processes.Guard()
        self.addCleanup(self.guard.close)


def _feed(connection, data):
    with contextlib.suppress(ConnectionError):
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)


def _all(connection):
    """Return what has come, before the end or the connection broke."""
    data = b''
    with contextlib.suppress(ConnectionError):
        while more := connection.recv(64 * 1024):
            data += more
    return data


@ddt.ddt
class FrameTestCase(WriterTestCase):

    @ddt.data(('no frame', b'x' * wire.HEADER.size, False),
              ('before the end', b'PME', True), ('before the end', b'', True))
    @ddt.unpack
    def test_bad_end(self, words, data, again):
        self.assertIs(again, self.refused(words, data)['again'])

    def test_truncated_data(self):
        self.refused('before the end', self.frame(0, data=b'x' * MIB)[:-1])

    def test_reordered_frames(self):
        self.refused('frame 1 where 0 has to come', self.frame(1, data=b'x'))

    @ddt.data(({'offset': 6 * MIB, 'data': b'x'}, 'more bytes than'),
              ({'offset': 6 * MIB - 1, 'data': b'xy'}, 'more bytes than'),
              ({'offset': 2 ** 63, 'data': b'x'}, 'more bytes than'),
              ({'offset': 0, 'data': b'x' * (MIB + 1)}, 'at most'),
              ({'offset': 3 * MIB, 'data': b'x'}, 'ticket says zeros'),
              ({'device': 1, 'data': b'x'}, 'there is no device 1'),
              ({'length': 5, 'runs': [extents.Run(3, 3)]}, 'beyond'),
              ({'length': 5, 'runs': [extents.Run(3, 1), extents.Run(2, 1)]},
               'runs'),
              ({'length': 5, 'runs': [extents.Run(0, 1)] * 2}, 'runs'),
              ({'length': 0}, 'an extent of 0 bytes'),
              ({'kind': wire.COMPARE, 'length': 5 * MIB}, 'at most'),
              ({'kind': wire.COMPARE, 'device': 1, 'length': 5},
               'there is no device 1'),
              ({'kind': wire.COMPARE, 'length': MIB, 'tags': 15}, '15 tags'),
              ({'kind': wire.COMPARE, 'length': MIB, 'tags': 0}, '0 tags'),
              ({'kind': wire.PATCH, 'length': 5, 'runs': [
                  extents.Run(3, 3)]}, 'beyond'),
              ({'kind': wire.PATCH, 'length': 5}, '0 runs'),
              ({'kind': wire.PATCH, 'offset': 3 * MIB, 'data': b'x'},
               'ticket says zeros'))
    @ddt.unpack
    def test_frame_that_is_not_allowed(self, fields, words):
        error = self.refused(words, self.frame(0, **fields))
        self.assertIs(False, error['again'])

    def test_nothing_comes(self):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            error = self.assertRaises(
                TimeoutError, self.writer(theirs, stall_timeout=0.5).run)
        self.assertIn('nothing has come for 0.5 seconds', str(error))

    @settings(deadline=None, database=None, max_examples=40)
    @given(st.data())
    def test_random_changes_of_what_comes(self, data):
        """It never writes where it must not, and always ends in words."""
        old = self.pmem.digest('old0')
        frames = [self.frame(0, 0, b'a' * 300), self.frame(1, 300, b'b' * 9),
                  self.frame(2, 4 * MIB, b'c' * 5), self.frame(
                      3, kind=wire.END)]
        stream = bytearray(b''.join(data.draw(st.permutations(frames))))
        for _ in range(data.draw(st.integers(0, 4))):
            place = data.draw(st.integers(0, len(stream) - 1))
            stream[place] = data.draw(st.integers(0, 255))
        cut = data.draw(st.integers(0, len(stream)))
        lines = self.serve(bytes(stream[:cut]),
                           data.draw(st.binary(max_size=60)))
        if 'end' not in lines[-1]:
            self.assertNotIn('Error: ', lines[-1]['error'])
        self.assertEqual(6 * MIB, os.path.getsize(self.pmem.path('new0')))
        self.assertEqual(old, self.pmem.digest('old0'))


@ddt.ddt
class AnswerTestCase(WriterTestCase):

    def compare(self, sequence, data, offset=0):
        return self.frame(sequence, offset, kind=wire.COMPARE,
                          length=len(data), text=wire.proof(data))

    @staticmethod
    def all_parts(length):
        return [list(run) for run in wire.parts(length)]

    def test_what_is_stored(self):
        lines = self.serve(
            self.frame(0, 5, b'x' * 7), self.frame(1, 4 * MIB, b'y' * 9),
            self.frame(2, 2 * MIB, length=MIB), self.frame(3, kind=wire.END))
        self.assertEqual(
            [{'stored': [0, 5, 7]}, {'stored': [0, 4 * MIB, 9]},
             {'stored': [0, 2 * MIB, MIB]}, {'end': True}], lines)
        self.assertEqual(b'x' * 7, self.pmem.read('new0', 5, 7))
        self.assertEqual(b'y' * 9, self.pmem.read('new0', 4 * MIB, 9))
        self.assertTrue(self.pmem.is_zero('new0', 2 * MIB, MIB))

    def test_what_is_compared(self):
        there = self.pmem.read('new0', 100, 9)
        lines = self.serve(
            self.compare(0, there, 100), self.compare(1, there, 101),
            self.compare(2, b'x' * MIB), self.frame(3, kind=wire.END))
        self.assertEqual(
            [{'same': [0, 100, 9]},
             {'differs': [0, 101, 9], 'runs': [[0, 9]]},
             {'differs': [0, 0, MIB], 'runs': self.all_parts(MIB)},
             {'end': True}],
            lines)
        self.assertEqual(self.before, self.pmem.digest('new0'))

    def test_what_is_compared_by_parts(self):
        there = bytearray(self.pmem.read('new0', 100, 3 * wire.PART + 9))
        for place in (5, 2 * wire.PART, len(there) - 1):
            there[place] ^= 1
        differs, _end = self.serve(
            self.compare(0, there, 100), self.frame(1, kind=wire.END))
        self.assertEqual(
            {'differs': [0, 100, len(there)], 'runs': [
                [0, wire.PART], [2 * wire.PART, wire.PART],
                [3 * wire.PART, 9]]}, differs)

    def test_equal_parts_have_tags_of_their_own(self):
        text = wire.proof(b'x' * 2 * wire.PART)
        self.assertNotEqual(text[-2 * wire.TAG:-wire.TAG], text[-wire.TAG:])

    def test_part_that_was_begun_is_not_believed(self):
        daxio.Unfinished(self.notes).begin(0, wire.PART + 5, 7)
        there = self.pmem.read('new0', 0, MIB)
        differs, _end = self.serve(
            self.compare(0, there), self.frame(1, kind=wire.END))
        self.assertEqual([[wire.PART, wire.PART]], differs['runs'])

    @settings(deadline=None, database=None, max_examples=20)
    @given(st.sets(st.integers(0, 4 * MIB // wire.PART - 1), min_size=1))
    def test_patch_leaves_the_rest_as_it_is(self, parts):
        self.target.sections = extents.sections(6 * MIB, 6 * MIB)
        expected = bytearray(self.pmem.read('new0', 0, 4 * MIB))
        runs = [extents.Run(part * wire.PART, wire.PART)
                for part in sorted(parts)]
        for run in runs:
            expected[run.offset:run.end] = bytes(wire.PART - 1) + b'x'
        stored, same, _end = self.serve(
            self.frame(0, runs=runs, kind=wire.PATCH, length=4 * MIB,
                       text=b''.join(expected[run.offset:run.end]
                                     for run in runs)),
            self.compare(1, expected), self.frame(2, kind=wire.END),
            extent=4 * MIB)
        self.assertEqual({'stored': [0, 0, 4 * MIB]}, stored)
        self.assertEqual({'same': [0, 0, 4 * MIB]}, same)

    def test_what_was_begun_is_not_believed(self):
        daxio.Unfinished(self.notes).begin(0, 0, MIB)
        there = self.pmem.read('new0', 0, MIB)
        differs, stored, same, _end = self.serve(
            self.compare(0, there), self.frame(1, 0, there),
            self.compare(2, there), self.frame(3, kind=wire.END))
        self.assertEqual([0, 0, MIB], differs['differs'])
        self.assertEqual({'stored': [0, 0, MIB]}, stored)
        self.assertEqual({'same': [0, 0, MIB]}, same)

    def test_zeros_that_were_begun_are_written_again(self):
        """They may be in the caches of the CPU only."""
        hang = self.pmem.inject(
            'hang', 'new0', side='zero', at=2 * MIB, flushes=True)
        zeros = functools.partial(self.frame, offset=2 * MIB, length=MIB)
        failed, stored, _end = self.serve(
            zeros(0), zeros(1), self.frame(2, kind=wire.END), stall_timeout=2)
        hang.wait()
        self.assertEqual([2 * MIB, 2 * MIB], [
            failed['failed'][1], stored['stored'][1]])
        self.assertEqual(2, sum('-z' in call['args'] for call in
                                self.pmem.calls('daxio')))
        self.assertFalse(
            daxio.Unfinished(self.notes).has(0, 2 * MIB, MIB))

    def test_zeros_that_somebody_else_has_begun(self):
        self.pmem.write('new0', 2 * MIB, bytes(MIB))
        daxio.Unfinished(self.notes).begin(0, 2 * MIB, MIB)
        stored, _end = self.serve(
            self.frame(0, 2 * MIB, length=MIB), self.frame(1, kind=wire.END))
        self.assertEqual({'stored': [0, 2 * MIB, MIB]}, stored)
        self.assertEqual(1, len(self.pmem.calls('daxio')))

    def test_zeroing_that_is_given_up_takes_daxio_with_it(self):
        self.pmem.inject('hang', 'new0', side='zero', at=2 * MIB + 5)

        def wait(process, _timeout):
            while not self.pmem.tools():
                pass
            raise SystemExit

        with mock.patch.object(processes.Process, 'wait', wait):
            self.assertRaises(SystemExit, self.serve,
                              self.frame(0, 2 * MIB, length=MIB))
        self.assertEqual([], self.pmem.tools())

    def test_write_that_fails_is_noted(self):
        self.pmem.inject('exit', 'new0', at=0, message='daxio: on fire\n')
        failed, _end = self.serve(self.frame(0, 0, b'x' * 7),
                                  self.frame(1, kind=wire.END))
        self.assertEqual([0, 0, 7], failed['failed'])
        self.assertIn('on fire', failed['error'])
        self.assertTrue(daxio.Unfinished(self.notes).has(0, 0, 7))

    def test_notes_that_can_not_be_made(self):
        with mock.patch.object(
                daxio.Unfinished, 'begin',
                side_effect=processes.Failed('the disk is full')):
            failed, _end = self.serve(self.frame(0, 0, b'x' * 7),
                                      self.frame(1, kind=wire.END))
        self.assertIn('the disk is full', failed['error'])
        self.assertEqual(self.before, self.pmem.digest('new0'))

    def test_end_that_can_not_be_noted(self):
        with mock.patch.object(
                daxio.Unfinished, 'end',
                side_effect=processes.Failed('the disk is full')):
            failed, _end = self.serve(self.frame(0, 0, b'x' * 7),
                                      self.frame(1, kind=wire.END))
        self.assertIn('the disk is full', failed['error'])

    def test_buffers_of_what_failed_are_used_again(self):
        self.pmem.inject('exit', 'new0', at=0, repeat=True)
        lines = self.serve(*(self.frame(each, 0, b'x' * 7)
                             for each in range(5)),
                           self.frame(5, kind=wire.END))
        self.assertEqual([[0, 0, 7]] * 5,
                         [line['failed'] for line in lines[:-1]])

    def test_target_that_can_not_be_read_back(self):
        os.truncate(self.pmem.path('new0'), 4 * MIB)
        failed, differs, _end = self.serve(
            self.frame(0, 3 * MIB + 2 ** 20, length=MIB),
            self.frame(1, 0, length=5), self.frame(2, kind=wire.END))
        self.assertIn('can not be read', failed['error'])
        self.assertEqual({'stored': [0, 0, 5]}, differs)

    def test_daxio_that_hangs(self):
        self.pmem.inject('hang', 'new0', at=3)
        failed, _end = self.serve(
            self.frame(0, 0, b'x' * 7), self.frame(1, kind=wire.END),
            stall_timeout=2)
        self.assertIn('in 1 seconds and was killed', failed['error'])

    @ddt.data([extents.Run(0, 9), extents.Run(3 * MIB, 9)],
              [extents.Run(0, 9)])
    def test_next_frame_takes_its_time(self, runs):
        """Meanwhile the one before it can't be stored to its end.

        It has more to be written after its first run: another one, or zeros.
        """
        clock = mock.Mock(monotonic=mock.Mock(return_value=0))
        read = writer.Writer._read

        def late(self_):
            frame = read(self_)
            clock.monotonic.return_value += 100
            return frame

        self.target.sections = extents.sections(6 * MIB, 6 * MIB)
        hang = self.pmem.inject('hang', 'new0', at=5)
        first = self.frame(0, data=b'x' * 9 * len(runs), runs=runs,
                           length=4 * MIB)
        rest = self.frame(1, 5 * MIB, b'y'), self.frame(2, kind=wire.END)
        with mock.patch.object(writer, 'time', clock), \
                mock.patch.object(writer.Writer, '_read', late):
            threading.Thread(target=lambda: (hang.wait(), hang.release())
                             ).start()
            lines = self.serve(first, *rest, extent=4 * MIB)
        self.assertEqual({'stored': [0, 0, 4 * MIB]}, lines[0])

    def test_what_comes_is_taken_in_while_daxio_writes(self):
        """As much as ssh sends unasked; what is beyond that waits."""
        self.target.sections = extents.sections(6 * MIB, 6 * MIB)
        hang = self.pmem.inject('hang', 'new0', at=3)
        frames = [self.frame(0, data=b'x' * 7),
                  self.frame(1, MIB, length=MIB), *(
                      self.frame(2 + each, (2 + each) * MIB,
                                 bytes([1 + each]) * MIB)
                      for each in range(4))]
        taken = b''.join(frames[:4])
        ours, theirs = socket.socketpair()
        answers = []

        def go():
            with ours:
                # More than fits into what lies between us.
                ours.sendall(taken)
                hang.release()
                _feed(ours, b''.join(frames[4:]) +
                      self.frame(6, kind=wire.END))
                answers.extend(_all(ours).splitlines())

        thread = threading.Thread(target=go)
        thread.start()
        with theirs:
            self.writer(theirs).run()
        thread.join()
        self.assertEqual(7, len(answers))
        for each in range(4):
            self.assertEqual(bytes([1 + each]) * MIB, self.pmem.read(
                'new0', (2 + each) * MIB, MIB))

    def test_sender_that_goes_away_while_its_next_frame_waits(self):
        self.pmem.inject('hang', 'new0', at=3)
        ours, theirs = socket.socketpair()
        ours.sendall(self.frame(0, data=b'x' * 7) + self.frame(1, 9, length=9))
        ours.close()
        with theirs:
            self.assertRaises((EOFError, OSError),
                              self.writer(theirs, stall_timeout=2).run)
        self.assertEqual([], self.pmem.tools())

    def test_answer_does_not_wait_for_the_next_frame(self):
        ours, theirs = socket.socketpair()
        second = self.frame(1, 5, b'x' * 7)
        answers = []

        def go():
            with ours, ours.makefile('rb') as file:
                ours.sendall(self.frame(0, 0, b'x' * 5) + second[:-1])
                answers.append(wire.parse_line(file.readline()))

        thread = threading.Thread(target=go)
        thread.start()
        with theirs:
            self.assertRaises(EOFError, self.writer(theirs).run)
        thread.join()
        self.assertEqual([{'stored': [0, 0, 5]}], answers)

    def test_answers_wait_for_each_other(self):
        """As long as there is something to do; but not for too long."""
        count = 2 * writer.MOST_UNSAID + 3
        frames = [self.frame(each, each, kind=wire.COMPARE, length=1,
                             text=wire.proof(b'z'))
                  for each in range(count)]
        sizes = []
        send = memory.Unsaid.send

        def counted(unsaid, fd):
            sizes.append(unsaid.count)
            send(unsaid, fd)

        with mock.patch.object(memory.Unsaid, 'send', counted):
            answers = self.serve(*frames, self.frame(count, kind=wire.END))
        self.assertEqual(count + 1, len(answers))
        self.assertEqual([writer.MOST_UNSAID] * 2 + [4],
                         [size for size in sizes if size])

    def test_what_comes_while_answers_are_given_is_read_in_its_turn(self):
        data = os.urandom(3 * MIB)
        has_come = iter([False, True] * 1000)
        with mock.patch.object(writer.Writer, '_has_come',
                               lambda _self: next(has_come)):
            answers = self.serve(
                self.frame(0, length=7),
                self.frame(1, MIB, data[:MIB]),
                self.frame(2, 4 * MIB, data[MIB:2 * MIB]),
                self.frame(3, 5 * MIB, data[2 * MIB:]),
                self.frame(4, kind=wire.END))
        self.assertEqual({'end': True}, answers[-1])
        self.assertTrue(data == self.pmem.read('new0', MIB, MIB) +
                        self.pmem.read('new0', 4 * MIB, 2 * MIB))

    def test_sender_that_does_not_read_answers(self):
        ours, theirs = socket.socketpair()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        count = 40 * writer.MOST_UNSAID
        frames = b''.join(self.frame(each, length=7) for each in range(count))
        feeder = threading.Thread(target=_feed, args=(ours, frames))
        feeder.start()
        with ours, theirs:
            error = self.assertRaises(TimeoutError, self.writer(theirs).run)
            self.assertIn('nobody reads', str(error))
            theirs.close()
            feeder.join()

    def test_sender_that_goes_away_takes_daxio_with_it(self):
        hang = self.pmem.inject('hang', 'new0', at=3)
        ours, theirs = socket.socketpair()

        def go():
            ours.sendall(self.frame(0, 0, b'x' * 7))
            hang.wait()
            ours.close()

        thread = threading.Thread(target=go)
        thread.start()
        with theirs:
            self.assertRaises(EOFError, self.writer(theirs).run)
        thread.join()
        self.assertEqual([], self.pmem.tools())


class SpansTestCase(test.NoDBTestCase):

    @settings(deadline=None, database=None)
    @given(st.lists(st.integers(1, 3 * MIB) | st.integers(7 * MIB, 9 * MIB),
                    max_size=9),
           st.booleans(), st.sampled_from([wire.DATA, wire.PATCH]))
    def test_spans_and_what_is_between_are_all(self, lengths, data_first,
                                               kind):
        runs, end = [], 0
        for number, length in enumerate(lengths):
            if number % 2 != data_first:
                runs.append(extents.Run(end, length))
            end += length
        total = end + 5
        cleared = []
        frame = writer.Frame(wire.Header(kind, 0), runs)
        spans = writer._spans(frame, cleared.append)
        between = list(writer._between(spans, total))
        end = 0
        for part in sorted([*spans, *between]):
            self.assertEqual(end, part.offset)
            self.assertGreater(part.length, 0)
            end = part.end
        self.assertEqual(total, end)
        # A span is made of runs, and what is put into the buffer between.
        end = None
        for part in sorted([*runs, *cleared]):
            if part.offset not in [span.offset for span in spans]:
                self.assertEqual(end, part.offset)
            end = part.end
        for one, two in zip(spans, spans[1:]):
            self.assertGreater(two.offset - one.end, writer.GAPS[kind])
