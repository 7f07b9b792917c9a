# SPDX-License-Identifier: Apache-2.0

"""Streams whose receivers are not what they should be."""

import itertools
import os
import select
import socket
import threading
from unittest import mock

import ddt
import fixtures

from nova import test
from nova.tests.unit.virt.pmem_transfer import base
from nova.virt.pmem_transfer import connection
from nova.virt.pmem_transfer import extents
from nova.virt.pmem_transfer import memory
from nova.virt.pmem_transfer import stream
from nova.virt.pmem_transfer import wire

MIB = base.MIB


class Liar(threading.Thread):
    """A receiver that answers each frame as it is told, and stores nothing.

    :ivar frames: the headers that have come, with what came in each
    """

    def __init__(self, answers, stays):
        super().__init__()
        self.ours, self.theirs = socket.socketpair()
        self.answers = [text.encode() if isinstance(text, str) else text
                        for text in answers]
        self.stays = stays
        self.hello = b''
        self.frames = []
        self.start()

    def run(self):
        with self.theirs, self.theirs.makefile('rb') as file:
            try:
                self.hello = file.readline()
                self.answer(file)
                for sequence in itertools.count():
                    if not self.answers and not self.stays:
                        return
                    self.frames.append(self.frame(file, sequence))
                    self.answer(file)
            except (ConnectionError, EOFError):
                pass

    def answer(self, file):
        if self.answers:
            self.theirs.sendall(self.answers.pop(0).strip() + b'\n')

    @staticmethod
    def frame(file, sequence):
        data = file.read(wire.HEADER.size)
        if not data:
            raise EOFError()
        header = wire.Header.unpack(data, sequence)
        runs = [] if header.kind == wire.COMPARE else wire.unpack_runs(
            file.read(header.runs * wire.RUN.size))
        if header.kind == wire.COMPARE:
            return header, file.read(wire.KEY + wire.TAG * header.runs)
        length = sum(run.length for run in runs)
        return header, file.read(length)


class Holding(Liar):
    """Holds back each answer until something comes after what it is to."""

    def answer(self, file):
        file.peek(1)
        super().answer(file)


class StreamTestCase(base.CopyTestCase):
    """Streams in this very process."""

    ADDRESSES = ()

    def setUp(self):
        super().setUp()
        self.told = []
        self.looked = []
        self.failures = {}

    def hello(self):
        return wire.hello(devices=[
            {'name': new, 'size': self.pmem.size(new),
             'source_size': self.pmem.size(old)} for old, new in self.pairs])

    def run_stream(self, *answers, stays=True, wrap=lambda liar: liar.ours,
                   waits=(), kind=Liar, **changes):
        self.liar = liar = kind(answers, stays)
        job = self.job(address='', **changes)
        plan = extents.Plan([(each.size, each.target_size)
                             for each in job.devices], job.extent)
        sources = [memory.Mapping(each.path, each.size)
                   for each in job.devices]
        self.stream = stream.Stream(
            job, plan, sources, self.failures, 0,
            lambda **fields: self.told.append(fields), self.looked.append,
            mock.Mock(side_effect=[*waits, *itertools.repeat(True, 9)]))
        try:
            with liar.ours:
                self.stream.run(wrap(liar), wire.hello(stream=0),
                                range(len(plan)))
        finally:
            liar.join()
            for each in sources:
                each.close()

    def done(self):
        """Return the numbers of the extents that are done."""
        return [each['done'] for each in self.told if 'done' in each]

    def broken(self, *answers, **changes):
        return str(self.assertRaises(
            connection.Broken, self.run_stream, *answers, **changes))

    def refused(self, *answers, **changes):
        self.error = self.assertRaises(
            connection.Refused, self.run_stream, *answers, **changes)
        return str(self.error)


@ddt.ddt
class LiarTestCase(StreamTestCase):

    def setUp(self):
        super().setUp()
        self.add_pair(2 * MIB)

    @ddt.data('Welcome', '[]', '{}', '\xff', '{"nova-pmem-copy": []')
    def test_no_handshake(self, hello):
        self.assertIn('should begin with', self.refused(hello))

    @ddt.data('{"nova-pmem-copy": 3, "devices": []}',
              '{"nova-pmem-copy": 1, "error": "who are you?"}')
    def test_another_version(self, hello):
        self.assertIn('finish the upgrade', self.refused(hello))

    @ddt.data('[]', '{}', 'null', '[{"name": "new1"}]')
    def test_other_devices(self, devices):
        message = self.refused(
            '{"nova-pmem-copy": 2, "devices": %s}' % devices)
        self.assertIn('its ticket is for', message)
        self.assertEqual([], self.looked)

    def test_handshake_without_end(self):
        self.assertIn('a line without end', self.refused('x' * 99999))

    def test_refusal(self):
        message = self.refused(wire.hello(error='I am full'))
        self.assertEqual('refused: I am full', message)
        self.assertIsNone(self.error.number)

    def test_refusal_that_may_not_last(self):
        message = self.broken(wire.hello(error='I am full', again=True))
        self.assertEqual('I am full', message)

    def test_refusal_in_mid_copy(self):
        message = self.refused(
            self.hello(), wire.line(stored=[0, 0, MIB]),
            wire.hello(error='enough'))
        self.assertEqual('refused: enough', message)
        self.assertEqual(1, self.error.number)
        self.assertEqual([0], self.done())

    def test_endless_reason(self):
        self.assertLess(len(self.refused(
            wire.hello(error='x' * 9999))), 2000)

    @ddt.data({'stored': [0, MIB, MIB]}, {'stored': [0, 0, MIB - 1]},
              {'stored': [0, 0, 2 * MIB]}, {'same': [0, 0, MIB]},
              {'differs': [0, 0, MIB]}, {'stored': None}, {'what': 1}, {},
              {'failed': [0, MIB, MIB]}, {'end': True})
    def test_answer_to_what_was_not_sent(self, answer):
        message = self.refused(self.hello(), wire.line(**answer))
        self.assertIn('it answers', message)
        self.assertEqual([], self.done())

    @ddt.data({'stored': [0, 0, MIB]}, {'same': [0, MIB, MIB]})
    def test_answer_to_what_was_not_compared(self, answer):
        message = self.refused(self.hello(), wire.line(**answer), attempt=1)
        self.assertIn('it answers', message)

    def test_answer_that_comes_twice(self):
        answer = wire.line(stored=[0, 0, MIB])
        self.assertIn('it answers', self.refused(self.hello(),
                                                 answer + answer))
        self.assertEqual([0], self.done())

    def test_answer_before_anything_was_sent(self):
        self.assertIn('it answers', self.refused(
            self.hello() + wire.line(stored=[0, MIB, MIB])))

    @ddt.data({'end': False}, {'end': [2, 2 * MIB]}, {'end': 1.5}, {},
              {'end': True, 'stored': [0, 0, MIB]})
    def test_bad_end(self, end):
        message = self.refused(
            self.hello(), wire.line(stored=[0, 0, MIB]),
            wire.line(stored=[0, MIB, MIB]), wire.line(**end))
        self.assertIn('not ended as it was to', message)

    @ddt.data('no JSON', '[]', '"stored"')
    def test_answer_that_is_none(self, answer):
        self.assertIn('is no JSON', self.refused(self.hello(), answer))

    def test_nested_answer(self):
        self.assertIn('is no JSON', self.refused(self.hello(), '[' * 9999))

    def test_no_answer(self):
        message = self.broken(self.hello(), stall_timeout=0.5)
        self.assertIn('nothing has moved for 0.5 seconds', message)
        self.assertEqual(0, self.stream.at_work)

    def test_nothing_is_said(self):
        self.assertIn('nothing has moved', self.broken(stall_timeout=0.5))
        self.assertIsNone(self.stream.at_work)

    def test_it_goes_away(self):
        # Reset, if it has not read all that came.
        words = 'connection ended|Connection reset'
        self.assertRegex(self.broken(stays=False), words)
        self.assertRegex(self.broken(
            self.hello(), wire.line(stored=[0, 0, MIB]), stays=False), words)
        self.assertEqual([0], self.done())
        self.assertEqual(1, self.stream.at_work)

    def test_all_is_well_is_what_a_liar_can_say(self):
        # Only the receiver can know; see doc/protocol.rst.
        self.run_stream(self.hello(), wire.line(stored=[0, 0, MIB]),
                        wire.line(stored=[0, MIB, MIB]), wire.line(end=True))
        self.assertEqual([0, 1], self.done())
        self.assertEqual(
            2 * MIB, sum(len(data) for _header, data in self.liar.frames))
        self.assertEqual([0, 1], self.looked)


class HoldingTestCase(StreamTestCase):

    def setUp(self):
        super().setUp()
        self.add_pair(2 * MIB)

    def ends_while_hastened(self, frames, *answers, **changes):
        """Have it answer and go, between a look for that and a byte of ours.

        :param frames: how many have come then
        """
        real, may_answer = stream.Stream._has_answer, threading.Event()

        def has_answer(one, timeout=0):
            found = real(one, timeout)
            if timeout and len(self.liar.frames) == frames:
                may_answer.set()
                self.liar.join()
            return found

        class Late(Liar):
            def answer(self, file):
                if len(self.frames) == frames:
                    may_answer.wait()
                super().answer(file)

        with mock.patch.object(stream.Stream, '_has_answer', has_answer):
            self.run_stream(self.hello(), *answers, kind=Late, stays=False,
                            **changes)

    def test_end_is_answered_just_before_it_is_hastened(self):
        stored = wire.line(stored=[0, 0, MIB]), wire.line(stored=[0, MIB, MIB])
        self.ends_while_hastened(3, *stored, wire.line(end=True))
        self.assertEqual([0, 1], self.done())

    def test_what_is_answered_to_one_that_waits_proves_nothing(self):
        self.assertRaises(
            connection.Broken, self.ends_while_hastened, 1,
            wire.line(same=[0, 0, MIB]), waits=[False] * 3)
        self.assertEqual([], self.done())
        self.assertIsNone(self.stream.at_work)

    def test_answers_that_sshd_holds_back(self):
        stored = wire.line(stored=[0, 0, MIB]), wire.line(stored=[0, MIB, MIB])
        self.run_stream(self.hello(), *stored, wire.line(end=True),
                        kind=Holding, stall_timeout=5)
        self.assertEqual([0, 1], self.done())

    def test_answer_that_does_not_come(self):
        """Only the beginning of a frame is sent ahead."""
        self.broken(self.hello(), stall_timeout=0.5, waits=[False])
        self.assertEqual(1, len(self.liar.frames))


class WorkTestCase(StreamTestCase):
    """What is sent, and in which order."""

    def setUp(self):
        super().setUp()
        self.add_pair(2 * MIB)
        # Answers are taken when all is sent, however early they come.
        self.useFixture(fixtures.MockPatchObject(
            stream.Stream, '_has_answer', return_value=False))

    def frames(self):
        return [(header.kind, header.offset, header.sequence)
                for header, _data in self.liar.frames]

    def test_extent_that_fails_is_sent_again(self):
        failed = wire.line(failed=[0, 0, MIB], error='no luck')
        self.run_stream(
            self.hello(), failed, wire.line(stored=[0, MIB, MIB]), failed,
            wire.line(stored=[0, 0, MIB]), wire.line(end=True))
        self.assertEqual([1, 0], self.done())
        self.assertEqual([{'failed': 0, 'error': 'no luck'}] * 2,
                         [each for each in self.told if 'failed' in each])
        self.assertEqual([0, MIB, 0, 0, 0],
                         [offset for _kind, offset, _number in self.frames()])

    def test_extent_that_always_fails(self):
        failed = wire.line(failed=[0, 0, MIB], error='no luck')
        message = self.refused(
            self.hello(), failed, wire.line(stored=[0, MIB, MIB]), failed,
            failed)
        self.assertEqual('no luck (tried 3 times)', message)
        self.assertEqual(0, self.error.number)

    def test_extent_that_has_failed_before(self):
        self.failures[1] = 2
        self.refused(self.hello(), wire.line(stored=[0, 0, MIB]),
                     wire.line(failed=[0, MIB, MIB], error='no luck'))
        self.assertEqual(1, self.error.number)

    def test_one_that_waits_shows_signs_of_life(self):
        """Whatever is answered then is no part of the copy."""
        self.run_stream(
            self.hello(), wire.line(same=[0, 0, MIB]),
            self.differs([0, wire.PART], place=[0, 0, MIB]),
            wire.line(failed=[0, 0, MIB], error='no luck'),
            *(wire.line(stored=[0, each * MIB, MIB]) for each in range(2)),
            wire.line(end=True),
            waits=[False, False, False, True, False, True], extent=MIB)
        self.assertEqual([0, 1], self.done())
        self.assertEqual(
            [wire.COMPARE] * 3 + [wire.DATA] * 2 + [wire.END],
            [kind for kind, __, __ in self.frames()])
        self.assertEqual(3, self.told.count({'waits': True}))
        self.assertEqual({}, self.failures)

    def test_one_that_waits_is_answered_something_else(self):
        self.assertIn('it answers', self.refused(
            self.hello(), wire.line(stored=[0, 0, MIB]), waits=[False]))

    def resume(self, *answers):
        self.run_stream(self.hello(), wire.line(same=[0, 0, MIB]), *answers,
                        attempt=1)
        return [each for each in self.told if 'done' in each]

    def differs(self, *runs, place=(0, MIB, MIB)):
        return wire.line(differs=place, runs=runs)

    def test_what_differs_is_sent(self):
        part = wire.PART
        told = self.resume(
            self.differs([part, part], [2 * part, part], [9 * part, part]),
            wire.line(stored=[0, MIB, MIB]), wire.line(end=True))
        self.assertEqual(
            [(wire.COMPARE, 0, 0), (wire.COMPARE, MIB, 1),
             (wire.PATCH, MIB, 2), (wire.END, 0, 3)],
            self.frames())
        self.assertEqual(
            [{'done': 0, 'resumed': MIB},
             {'done': 1, 'resumed': MIB - 3 * part}], told)
        data = [self.pmem.read('old0', offset, MIB)
                for offset in (0, MIB)]
        for expected, (header, text) in zip(data, self.liar.frames):
            self.assertEqual(text, self.proof(text, expected))
            self.assertEqual(16, header.runs)
        self.assertEqual(data[1][part:3 * part] + data[1][
            9 * part:10 * part], self.liar.frames[2][1])

    @staticmethod
    def proof(text, data):
        with mock.patch('os.urandom', return_value=text[:wire.KEY]):
            return wire.proof(data)

    def test_what_differs_as_a_whole_is_sent_as_a_whole(self):
        told = self.resume(
            self.differs(*([each * wire.PART, wire.PART]
                           for each in range(16))),
            wire.line(stored=[0, MIB, MIB]), wire.line(end=True))
        self.assertEqual(wire.DATA, self.frames()[2][0])
        self.assertEqual({'done': 1, 'resumed': 0}, told[1])

    def test_patch_that_fails_is_sent_again_as_a_whole(self):
        """What it has left alone may not be what it was any more."""
        self.resume(
            self.differs([0, wire.PART]),
            wire.line(failed=[0, MIB, MIB], error='no luck'),
            wire.line(stored=[0, MIB, MIB]), wire.line(end=True))
        self.assertEqual([wire.PATCH, wire.DATA],
                         [kind for kind, __, __ in self.frames()[2:4]])

    def test_what_fails_again_is_sent_after_a_while(self):
        failed = wire.line(failed=[0, MIB, MIB], error='no process')
        with mock.patch('time.sleep') as sleep:
            self.resume(failed, failed, wire.line(same=[0, MIB, MIB]),
                        wire.line(end=True))
        self.assertEqual([mock.call(0), mock.call(1)], sleep.mock_calls)

    def test_parts_that_can_not_differ(self):
        for runs in (None, [], {}, [5], [[0]], [[0, 0]], [[0, MIB + 1]],
                     [[5, 5], [0, 5]], [[0, 5], [4, 5]], [[-5, 9]],
                     [[0, 1.5]], [[True, 5]]):
            self.assertRaises(
                connection.Refused, self.resume,
                wire.line(differs=[0, MIB, MIB], runs=runs))

    def test_zeros_that_the_source_does_not_have_are_compared(self):
        self.pairs.clear()
        self.pmem.add_namespace('small', 2 * MIB)
        self.pmem.add_namespace('large', 4 * MIB)
        self.pairs.append(('small', 'large'))
        place = [0, 0, MIB]
        self.run_stream(
            self.hello(), wire.line(differs=place, runs=[[0, MIB]]),
            *(wire.line(same=[0, each * MIB, MIB]) for each in range(1, 4)),
            wire.line(stored=place), wire.line(end=True), attempt=1)
        header, text = self.liar.frames[0]
        self.assertEqual(place, header.place)
        self.assertEqual(text, self.proof(text, bytes(MIB)))
        # No data may go there.
        self.assertEqual((wire.DATA, 0, 4), self.frames()[4])

    def test_source_that_can_not_be_read(self):
        self.add_pair(4 * MIB)
        real = memory.Mapping.at_hand

        def damaged(mapping, offset, length):
            if mapping.size == 4 * MIB and offset == MIB:
                raise memory.Unreadable('Bad address')
            return real(mapping, offset, length)

        with mock.patch.object(memory.Mapping, 'at_hand', damaged):
            message = self.refused(self.hello())
        self.assertIn('reading the source', message)
        self.assertEqual(3, self.error.number)

    def test_memory_that_goes_away_under_the_kernel(self):
        """It reads what is sent; a failure of that is no broken stream."""
        real = extents.data_runs

        def runs(memory, offset, length):
            found = real(memory, offset, length)
            os.truncate(self.pmem.path('old0'), 0)
            return found

        with mock.patch.object(extents, 'data_runs', runs):
            self.assertIn('reading the source', self.refused(self.hello()))
        self.assertEqual(0, self.error.number)


class WindowTestCase(StreamTestCase):

    def setUp(self):
        super().setUp()
        self.add_pair(40 * MIB, fill=False)

    def stored(self, count):
        return [wire.line(stored=[0, number * MIB, MIB])
                for number in range(count)]

    def test_what_is_sent_ahead_of_answers(self):
        self.broken(self.hello(), *self.stored(3), stall_timeout=0.5)
        self.assertEqual(3 + stream.WINDOW, len(self.liar.frames))
        self.assertEqual(3, self.stream.at_work)

    def test_answers_count_that_came_before(self):
        """Here it is noticed first that nobody reads any more."""
        class Late:
            """Sends the fourth frame when the receiver is gone."""

            def __init__(self, liar):
                self.liar = liar
                self.count = 0
                self.settimeout = liar.ours.settimeout
                self.recv = liar.ours.recv
                self.fileno = liar.ours.fileno

            def send(self, data):
                self.count += 1
                if self.count == 5:
                    self.liar.join()
                return self.liar.ours.send(data)

        message = self.broken(self.hello(), *self.stored(3), stays=False,
                              wrap=Late)
        self.assertNotIn('Broken pipe', message)
        self.assertEqual([0, 1, 2], self.done())
        self.assertEqual(3, self.stream.at_work)

    def test_answers_are_taken_when_they_come(self):
        """They tell how far it is; none must wait for the window to fill."""
        class Waiting:
            """Sends the second frame when the first one is answered."""

            def __init__(self, liar):
                self.liar = liar
                self.settimeout = liar.ours.settimeout
                self.recv = liar.ours.recv
                self.fileno = liar.ours.fileno

            def send(self, data):
                if not looked and len(data) == wire.HEADER.size and (
                        wire.HEADER.unpack(data)[3] == 1):
                    select.select([self.liar.ours], [], [])
                return self.liar.ours.send(data)

        looked = []
        self.told = mock.Mock(append=lambda fields: looked.append(
            list(self.looked)) if 'done' in fields else None)
        self.broken(self.hello(), *self.stored(1), wrap=Waiting,
                    stall_timeout=0.5)
        self.assertIn(looked, ([[0]], [[0, 1]]))


class PaceTestCase(test.NoDBTestCase):
    """On a clock that goes on while somebody sleeps."""

    def setUp(self):
        super().setUp()
        self.clock = mock.Mock(now=100.0)
        self.clock.monotonic.side_effect = lambda: self.clock.now
        self.clock.sleep.side_effect = self._sleep
        patcher = mock.patch.object(stream, 'time', self.clock)
        patcher.start()
        self.addCleanup(patcher.stop)

    def _sleep(self, seconds):
        self.clock.now += seconds

    def test_no_limit(self):
        limit = stream.Pace(0)
        limit.wait(10 ** 12)
        self.clock.sleep.assert_not_called()
        self.assertEqual(stream.MOST, limit.chunk)

    def test_limit(self):
        limit = stream.Pace(MIB)
        for _ in range(40):
            limit.wait(limit.chunk)
        self.assertAlmostEqual(
            100 + 40 * limit.chunk / MIB, self.clock.now, places=6)

    def test_what_was_not_used_is_not_made_up_for(self):
        limit = stream.Pace(MIB)
        self._sleep(1000)
        limit.wait(MIB)
        self.assertAlmostEqual(1100 + 1 - limit.BURST, self.clock.now)

    def test_pieces(self):
        """Some of them a second, so that the limit is felt evenly."""
        self.assertEqual(stream.LEAST, stream.Pace(1).chunk)
        self.assertEqual(MIB // 10, stream.Pace(MIB).chunk)
        self.assertEqual(stream.MOST, stream.Pace(10 ** 12).chunk)
