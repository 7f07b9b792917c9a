# SPDX-License-Identifier: Apache-2.0

"""Senders: their jobs, what they say to receivers, and copies at random."""

import json
import os
import select
import shlex
import socket
import sys
import tempfile
import threading
import time
from unittest import mock

import ddt
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from nova.cmd import pmem_join
from nova import test
from nova.tests.unit.virt.pmem_transfer import base
from nova.virt.pmem_transfer import connection
from nova.virt.pmem_transfer import processes
from nova.virt.pmem_transfer import sender
from nova.virt.pmem_transfer import stream
from nova.virt.pmem_transfer import wire

KIB = base.KIB
MIB = base.MIB


class Porter(threading.Thread):
    """Listens as a receiver does, and says one thing to whoever comes."""

    def __init__(self, path, answer):
        super().__init__(daemon=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.answer = answer
        self.hellos = []
        self.start()

    def run(self):
        while True:
            try:
                connection, _address = self.listener.accept()
            except OSError:
                return
            with connection, connection.makefile('rb') as file:
                self.hellos.append(wire.parse_line(file.readline()))
                connection.sendall(self.answer)

    def end(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.join()
        self.listener.close()


class SenderTestCase(base.CopyTestCase):
    """Real senders, without ssh."""

    ADDRESSES = ()

    def job(self, **changes):
        return super().job(**dict({'address': ''}, **changes))


@ddt.ddt
class JobTestCase(SenderTestCase):

    def setUp(self):
        super().setUp()
        self.add_pair(2 * MIB)

    @ddt.data('', '{}', 'null', '[]', '{"devices": 1}', 'no JSON',
              '{"version": 1}')
    def test_nonsense_instead_of_a_job(self, text):
        result = self.result(self.start_text(text))
        self.assertEqual(1, result.status)
        self.assertIn('no job', result.last['message'])

    def test_somebody_who_is_gone(self):
        self.receive()
        result = self.fail_to(parent=1)
        self.assertIn('is gone', result.last['message'])
        self.assertTrue(self.pmem.is_zero('new0'))

    def test_source_that_is_not_there(self):
        job = self.job()
        os.unlink(self.pmem.path('old0'))
        result = self.result(self.start_text(job.to_json()))
        self.assertIn('reading the source: ', result.last['message'])
        self.assertIn('No such file', result.last['message'])

    def test_source_that_is_short(self):
        os.truncate(self.pmem.path('old0'), MIB)
        self.assertIn('has %d bytes' % MIB, self.fail_to().last['message'])

    def test_target_that_is_too_small(self):
        self.pmem.add_namespace('large', 4 * MIB)
        self.pairs[0] = ('large', 'new0')
        self.assertIn('can not be copied', self.fail_to().last['message'])


@ddt.ddt
class PorterTestCase(SenderTestCase):

    def setUp(self):
        super().setUp()
        self.add_pair(4 * MIB)

    def porter(self, answer):
        porter = Porter(self.socket, answer)
        self.addCleanup(porter.end)
        return porter

    def test_nobody(self):
        result = self.fail_to(patience=60)
        self.assertEqual(3, len(result.told('retry')))
        self.assertIn('can not be reached', result.last['message'])
        self.assertIn('tried 3 times', result.last['message'])

    def test_refusal(self):
        porter = self.porter(wire.hello(error='not today'))
        result = self.fail_to()
        self.assertEqual('refused: not today', result.last['message'])
        self.assertEqual([], result.told('retry'))
        self.assertEqual(1, len(porter.hellos))

    def test_refusal_that_may_not_last(self):
        porter = self.porter(wire.hello(error='I am full', again=True))
        result = self.fail_to(attempts=2)
        self.assertEqual('I am full: no message (tried 2 times)',
                         result.last['message'])
        self.assertEqual(2, len(porter.hellos))

    def test_another_version(self):
        self.porter(b'{"nova-pmem-copy": 3}\n')
        result = self.fail_to()
        self.assertIn('finish the upgrade', result.last['message'])
        self.assertEqual([], result.told('retry'))

    def test_what_streams_say_first(self):
        porter = self.porter(wire.hello(error='wait', again=True))
        self.fail_to(streams=3, attempts=1, attempt=7, stall_timeout=9)
        self.assertEqual(
            [{wire.NAME: wire.VERSION, 'stream': number, 'extent': MIB,
              'stall_timeout': 9, 'generation': [7, 0]}
             for number in range(3)],
            sorted(porter.hellos, key=lambda hello: hello['stream']))

    def test_no_more_streams_than_extents(self):
        porter = self.porter(wire.hello(error='wait', again=True))
        self.fail_to(streams=9, attempts=1, extent=2 * MIB)
        self.assertEqual(2, len(porter.hellos))


class WaitingTestCase(SenderTestCase):
    """Senders that connect, and are told later to begin."""

    def setUp(self):
        super().setUp()
        self.add_pair(4 * MIB)

    def test_what_is_written_while_it_waits(self):
        self.receive()
        process = self.start_waiting(streams=2)
        self.assertTrue(self.pmem.is_zero('new0'))
        self.pmem.write('old0', MIB, os.urandom(MIB))
        begin = time.monotonic()
        result = self.result(process)
        self.assert_done(result)
        self.assertLess(result.last['seconds'], time.monotonic() - begin)
        self.assert_copied()
        self.assertEqual(0, result.last['retries'])

    def test_one_that_is_told_before_its_input_ends(self):
        self.receive()
        process = self.start_waiting()
        self.addCleanup(os.close, os.dup(process.stdin.fileno()))
        process.stdin.write('\n')
        self.assert_done(self.result(process))
        self.assert_copied()

    def test_one_that_is_told_at_once(self):
        """What it reads of its input is no more than the job."""
        self.receive()
        process = self.start_text(self.job().to_json() + '\n', waits=True)
        self.addCleanup(os.close, os.dup(process.stdin.fileno()))
        self.assert_done(self.result(process))

    def test_one_that_compares(self):
        receiver = self.receive()
        self.succeed()
        process = self.start_waiting(attempt=1000)
        self.pmem.write('old0', MIB, b'!')
        result = self.result(process)
        self.assertEqual(4 * MIB - 64 * KIB, result.last['resumed'])
        self.assert_copied()
        self.end(receiver)

    def listen(self):
        """Be reached, and say nothing, as a host with slow logins."""
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(self.socket)
        listener.listen()

    def test_signs_of_life_until_it_is_ready(self):
        self.listen()
        process = self.start(waits=True)
        for _ in range(3):
            self.assertIn('"progress"', process.stdout.readline())

    def test_nothing_is_told_while_nobody_reads(self):
        self.receive()
        process = self.start_waiting()
        self.assertEqual(([], [], []), select.select(
            [process.stdout], [], [], 3 * sender.PROGRESS_INTERVAL))
        self.assert_done(self.result(process))

    def test_one_that_takes_too_long_to_connect(self):
        self.listen()
        process = self.start(waits=True, time_limit=1)
        self.assertEqual('it is not connected after 1 seconds',
                         self.result_of_waiting(process).last['message'])

    def result_of_waiting(self, process):
        """Return how one ends that is not told to begin."""
        events = process.stdout.read()
        process.wait()
        return base.Result(process, events, '')

    def test_receiver_that_ends_meanwhile(self):
        """It begins again by itself, and so does the connection."""
        first = self.receive()
        # More of them than attempts, and all ask of the same extent.
        process = self.start_waiting(patience=60, streams=4, stall_timeout=4)
        self.end(first)
        for _ in range(4):
            event = json.loads(process.stdout.readline())  # noqa: N324
            self.assertEqual('retry', event['event'], event)
            self.assertNotIn('offset', event)
        self.receive()
        result = self.result(process)
        self.assert_done(result)
        self.assert_copied()

    def test_receiver_that_is_gone(self):
        first = self.receive()
        process = self.start_waiting()
        self.end(first)
        result = self.result(process)
        self.assertEqual('error', result.last['event'])

    def test_one_that_is_ended(self):
        self.receive()
        process = self.start_waiting(streams=2)
        process.terminate()
        self.assertIn('SIGTERM', self.result(process).last['message'])

    def test_nobody_to_connect_to(self):
        result = self.result(self.start(waits=True))
        self.assertEqual([], result.told('ready'))
        self.assertIn('can not be reached', result.last['message'])


@ddt.ddt
class SlotTestCase(test.NoDBTestCase):

    def ended(self, status, told=None, said=b''):
        """Let a stream be found ended by its sender."""
        slot = processes.Slot(0, 0)
        slot.ended = told or {}
        slot.words = said
        copy = mock.Mock(spec=sender.Copy)
        copy._is_reached = True
        sender.Copy._ended(copy, slot, status)
        return slot, copy

    def test_one_that_was_killed_when_its_share_was_done(self):
        slot, copy = self.ended(-9, {'over': True})
        self.assertTrue(slot.is_over)
        copy._broken.assert_not_called()

    def test_one_that_waits_is_of_use(self):
        """However often the link breaks meanwhile, it may stand again."""
        slot = processes.Slot(0, 0)
        slot.fruitless = 2
        copy = mock.Mock(spec=sender.Copy, _lost_at=5)
        sender.Copy._hear(copy, slot, {'waits': True})
        self.assertEqual((True, 0, None),
                         (slot.is_ready, slot.fruitless, copy._lost_at))

    @ddt.data((True, True, True), (True, False, True), (False, False, True),
              (False, True, False))
    @ddt.unpack
    def test_time_does_not_count_while_it_waits(
            self, has_begun, is_ready, is_over):
        copy = object.__new__(sender.Copy)
        copy._has_begun, copy._is_ready = has_begun, is_ready
        copy._start = time.monotonic() - 100
        copy._job = self.job_with(time_limit=50)
        try:
            copy._check_time()
        except sender.Failed:
            self.assertTrue(is_over)
        else:
            self.assertFalse(is_over)

    @ddt.data((5, 120, 1, False), (15, 120, 1, False), (130, 120, 1, True),
              (5, 1, 1, False), (15, 1, 1, True), (130, 120, 0, False),
              (130, 0, 1, False))
    @ddt.unpack
    def test_nobody_waits_for_longer_than_is_allowed(
            self, gone, patience, fruitless, is_over):
        """However often a connection may be tried, once one has broken."""
        slot = processes.Slot(0, 0)
        slot.fruitless = fruitless
        copy = mock.Mock(
            spec=sender.Copy, _is_reached=True,
            _lost_at=time.monotonic() - gone,
            _job=self.job_with(patience=patience, attempts=100))
        sender.Copy._check_link(copy, [slot])
        self.assertEqual(is_over, copy._check_patience.called)

    @staticmethod
    def job_with(**changes):
        return wire.Sending(devices=(), socket='', **changes)

    def test_one_that_was_killed(self):
        slot, copy = self.ended(-9)
        copy._broken.assert_called_once_with(
            slot, 'the process of the stream was killed by SIGKILL: '
            'no message', None)
        self.assertFalse(slot.is_over)

    def test_one_that_failed(self):
        slot, copy = self.ended(1, said=b'ZeroDivisionError: a bug\n')
        copy._broken.assert_called_once_with(
            slot, 'the process of the stream ended with status 1: '
            'ZeroDivisionError: a bug', None)

    def test_login_is_a_sign_of_life(self):
        """The handshake after it may take as long again."""
        seen = []
        one = mock.Mock()
        one.run.side_effect = lambda *_: seen.append('handshake')
        with mock.patch.object(stream, 'Stream', return_value=one), \
                mock.patch.object(connection, 'connected'):
            sender.Copy._stream(
                mock.MagicMock(_job=self.job_with()), 0, 0, iter(()), 0,
                lambda **fields: seen.append(fields))
        self.assertEqual([{'wire': 0}, 'handshake', {'over': True}], seen)

    def test_words_without_end_are_no_sign_of_life(self):
        slot = processes.Slot(0, 0)
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        slot.told, slot.stderr, slot.words = -1, reader, b''
        slot.heard_at = 5
        with os.fdopen(writer, 'wb') as pipe:
            pipe.write(b'x' * 5000)
            pipe.flush()
            self.assertEqual([], slot.read(reader))
        self.assertEqual(5, slot.heard_at)
        self.assertEqual(b'x' * 2048, slot.words)


class RandomCopyTestCase(SenderTestCase):

    @settings(deadline=None, database=None, max_examples=12)
    @given(data=st.data())
    def test_any_copy(self, data):
        """Whatever is copied, and wherever it is cut: bytes are equal."""
        self._draw_pairs(data)
        cuts = data.draw(st.lists(st.integers(0, 3 * MIB), max_size=2))
        changes = dict(
            streams=data.draw(st.integers(1, 3)),
            extent=data.draw(st.sampled_from(
                [700 * KIB, MIB, 2 * MIB, 8 * MIB])),
            attempt=data.draw(st.integers(0, 1)))
        # A draw can end all: nothing may have been started before the last.
        process = self.receive()
        try:
            result = self.succeed(
                address='somewhere', join=shlex.join(
                    [sys.executable, '-m', pmem_join.__name__]),
                ssh=('sh', '-c', self._cut(cuts)), attempts=len(cuts) + 1,
                **changes)
        finally:
            self.end(process)
        self.assertEqual(
            sum(self.pmem.size(new) for _old, new in self.pairs),
            result.last['bytes'])
        self.assertLessEqual(result.last['retries'], len(cuts))

    @settings(deadline=None, database=None, max_examples=8)
    @given(data=st.data())
    def test_what_changes_while_it_is_copied(self, data):
        """Passes over what a guest writes, and one when it is off.

        Whatever it has written when: in the end bytes are equal, and the last
        pass has sent no more than what may have changed since the one before.
        """
        self._draw_pairs(data)
        writes = st.lists(st.tuples(
            st.sampled_from([old for old, _new in self.pairs]),
            st.integers(0, 2 * MIB - 1), st.integers(1, 100 * KIB),
            st.booleans()), max_size=4)
        passes = data.draw(st.lists(
            st.tuples(writes, writes), min_size=1, max_size=3))
        changes = dict(streams=data.draw(st.integers(1, 3)),
                       extent=data.draw(st.sampled_from([MIB, 8 * MIB])))
        process = self.receive()
        try:
            for number, (meanwhile, afterwards) in enumerate(passes):
                sender = self.start(attempt=number * 1000, **changes)
                self._write(meanwhile)
                self.assert_done(self.result(sender))
                if number == len(passes) - 1:
                    last = self.start_waiting(
                        attempt=len(passes) * 1000, **changes)
                self._write(afterwards)
            result = self.result(last)
            self.assert_done(result)
            self.assert_copied()
        finally:
            self.end(process)
        since = [*meanwhile, *afterwards]
        self.assertLessEqual(result.last['wire'], sum(
            length + 2 * 64 * KIB for _name, _offset, length, _ in since) +
            MIB)

    def _write(self, writes):
        for name, offset, length, is_zero in writes:
            length = min(length, self.pmem.size(name) - offset)
            self.pmem.write(name, offset, bytes(length) if is_zero else
                            os.urandom(length))

    def _draw_pairs(self, data):
        self.pairs = []
        known = len(self.pmem._namespaces)
        for number in range(data.draw(st.integers(1, 2))):
            names = ('old%d' % (known + number), 'new%d' % (known + number))
            size = data.draw(st.integers(1, 5)) * 2 * MIB
            more = data.draw(st.integers(0, 1)) * 2 * MIB
            self.pairs.append(names)
            self.pmem.add_namespace(names[0], size)
            self.pmem.add_namespace(names[1], size + more)
            for name in names:
                self._draw_content(data, name, size)

    def _draw_content(self, data, name, size):
        for _ in range(data.draw(st.integers(0, 3))):
            offset = data.draw(st.integers(0, size - 1))
            self.pmem.write(name, offset, os.urandom(min(
                data.draw(st.integers(1, MIB)), size - offset)))

    def _cut(self, cuts):
        """Return an ssh whose input ends early the first few times.

        Its last argument is the command.
        """
        # Not head, which keeps what it has read until there is more.
        folder = tempfile.mkdtemp(dir=self.state)
        script = ''.join(
            'if mkdir %s/%d 2>&-; then dd bs=64K iflag=count_bytes count=%d '
            'status=none | sh -c "$2"; exit; fi;' % (folder, number, cut)
            for number, cut in enumerate(cuts))
        return script + 'exec sh -c "$2"'
