# SPDX-License-Identifier: Apache-2.0

"""Whom a receiver lets in, and how it ends them and itself."""

import contextlib
import dataclasses
import fcntl
import os
import signal
import socket
import stat
import sys
from unittest import mock

import ddt
import fixtures
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import psutil

from nova import test
from nova.tests.unit.virt.pmem_transfer import base
from nova.virt.pmem_transfer import extents
from nova.virt.pmem_transfer import receiver
from nova.virt.pmem_transfer import wire

MIB = base.MIB
HELLO = dict(stream=0, extent=MIB, stall_timeout=20, generation=[0, 0])


@ddt.ddt
class HelloTestCase(test.NoDBTestCase):

    @ddt.data(('stream', -1), ('stream', 1.5), ('stream', None),
              ('stream', 64), ('stream', True),
              ('extent', 100 * MIB), ('extent', 0), ('extent', True),
              ('stall_timeout', 0), ('stall_timeout', 'x'),
              ('stall_timeout', True), ('stall_timeout', 3601),
              ('stall_timeout', float('nan')),
              ('generation', None), ('generation', 1), ('generation', [-1]),
              ('generation', ['x']), ('generation', [0] * 9),
              ('generation', [2 ** 63]), ('generation', [[0]]))
    @ddt.unpack
    def test_what_can_not_be_served(self, name, value):
        error = self.assertRaises(
            wire.ProtocolError, receiver.parse_hello,
            wire.hello(**dict(HELLO, **{name: value})))
        self.assertIn('the sender asks for', str(error))

    @ddt.data(*HELLO)
    def test_something_is_missing(self, name):
        fields = {key: value for key, value in HELLO.items() if key != name}
        self.assertRaises(wire.ProtocolError, receiver.parse_hello,
                          wire.hello(**fields))

    def test_what_can_be_served(self):
        hello = receiver.parse_hello(wire.hello(**HELLO, more='ignored'))
        self.assertEqual(HELLO, hello._asdict())

    @settings(deadline=None, database=None)
    @given(st.binary(max_size=300) | st.text(max_size=100).map(
        lambda text: text.encode()))
    def test_random_bytes(self, line):
        self.assertRaises(wire.ProtocolError, receiver.parse_hello, line)

    @settings(deadline=None, database=None)
    @given(st.data())
    def test_random_changes(self, data):
        line = bytearray(wire.hello(**HELLO))
        for _ in range(data.draw(st.integers(1, 4))):
            place = data.draw(st.integers(0, len(line) - 1))
            line[place:place + data.draw(st.integers(0, 3))] = data.draw(
                st.binary(max_size=3))
        # Anything else would end the receiver, not this connection.
        with contextlib.suppress(wire.ProtocolError):
            hello = receiver.parse_hello(bytes(line))
            self.assertLessEqual(hello.extent, extents.LARGEST)


class Sender:
    """A stream's connection, of which a test is the sender."""

    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(60)
        self._socket.connect(path)
        self._lines = self._socket.makefile('rb')

    def send(self, data):
        self._socket.sendall(data)

    def end(self):
        self._socket.shutdown(socket.SHUT_WR)

    def line(self):
        """Return what comes, None for the end."""
        try:
            line = self._lines.readline()
        except ConnectionError:
            return None
        return wire.parse_line(line) if line else None

    def close(self):
        self._lines.close()
        self._socket.close()


class ReceiverTestCase(base.CopyTestCase):
    """A real receiver, without ssh."""

    ADDRESSES = ()

    def setUp(self):
        super().setUp()
        self.add_pair(4 * MIB, 6 * MIB)

    def connect(self, **hello):
        """Connect, and say what a stream says first."""
        sender = self.dial()
        sender.send(wire.hello(**dict(HELLO, **hello)))
        return sender

    def dial(self):
        sender = Sender(self.socket)
        self.addCleanup(sender.close)
        return sender

    def admitted(self, **hello):
        sender = self.connect(**hello)
        self.assertIn('devices', sender.line())
        return sender

    def refused(self, sender, words, again):
        error = sender.line()
        self.assertIn(words, error['error'])
        self.assertIs(again, error['again'])
        self.assertIsNone(sender.line())

    def write(self, sender, offset=0, sequence=0):
        sender.send(wire.Header(wire.DATA, sequence, 0, offset, 5,
                                1).pack() + wire.pack_runs(
                                    [extents.Run(0, 5)]) + b'hello')

    def streams(self):
        """Return the processes of a receiver's streams."""
        return [each for each in psutil.Process(
            self.process.pid).children() if each.name() != 'sh']

    def is_over(self, sender, sequence=0):
        """See a stream to its end, which it was not yet at."""
        sender.send(wire.Header(wire.END, sequence).pack())
        self.assertEqual({'end': True}, sender.line())
        self.assertIsNone(sender.line())


class ShortageTestCase(ReceiverTestCase):
    """What is short for a moment costs one stream its connection at most."""

    def test_process(self):
        self.receive(base.fails_once(receiver, 'os', 'fork'))
        self.refused(self.connect(), 'there is none left', True)
        self.is_over(self.admitted())

    def test_file(self):
        self.receive(base.fails_once(receiver, 'os', 'pidfd_open'))
        sender = self.connect()
        answer = sender.line()
        if 'devices' in answer:
            # Its process was quicker than the one that could not watch it.
            answer = sender.line()
        self.assertIn('there is none left', answer['error'])
        self.assertIsNone(sender.line())
        self.is_over(self.admitted())

    def test_it_does_not_ask_again_at_once(self):
        busy = mock.Mock()
        busy._listener.accept.side_effect = OSError(24)
        with mock.patch('time.sleep') as sleep:
            receiver.Receiver._accept(busy)
        sleep.assert_called_once_with(receiver.PAUSE)

    def test_connection(self):
        self.receive(base.fails_once(receiver, 'socket.socket', 'accept'))
        self.is_over(self.admitted())

    def test_disk_that_has_its_log(self):
        # Else Python keeps nothing back that could not be written.
        self.useFixture(fixtures.EnvironmentVariable('PYTHONUNBUFFERED'))
        log, self.log = self.log, '/dev/full'
        try:
            self.receive()
        finally:
            self.log = log
        open(log, 'w').close()
        good, bad = self.admitted(), self.admitted(stream=1)
        bad.end()
        self.refused(bad, 'before the end', True)
        stranger = self.dial()
        stranger.send(b'GET / HTTP/1.0\n')
        self.refused(stranger, 'should begin with', False)
        self.is_over(good)
        self.is_over(self.admitted(stream=1))


@ddt.ddt
class AdmissionTestCase(ReceiverTestCase):

    def setUp(self):
        super().setUp()
        self.process = self.receive()

    def test_what_it_is_for(self):
        sender = self.connect()
        self.assertEqual(
            {wire.NAME: wire.VERSION, 'devices': [
                {'name': 'new0', 'size': 6 * MIB, 'source_size': 4 * MIB}]},
            sender.line())
        self.is_over(sender)

    @ddt.data((b'GET / HTTP/1.0\r\n\r\n', 'should begin with'),
              (b'\n', 'should begin with'), (b'x' * 1500, 'should begin with'),
              (b'{"nova-pmem-copy": 1}\n', 'the sender speaks version 1'),
              (wire.hello(**dict(HELLO, stream=-1)), 'the sender asks for'))
    @ddt.unpack
    def test_bad_handshake(self, data, words):
        sender = self.dial()
        sender.send(data)
        self.refused(sender, words, False)
        self.is_over(self.admitted())

    def test_no_handshake(self):
        sender = self.dial()
        sender.send(b'{"nova')
        sender.end()
        self.refused(sender, 'before the handshake', True)

    def test_handshake_in_pieces(self):
        hello = wire.hello(**HELLO)
        slow = self.dial()
        slow.send(hello[:5])
        # It does not hold up anybody.
        self.is_over(self.admitted(stream=1))
        slow.send(hello[5:] + wire.Header(wire.END, 0).pack())
        self.assertIn('devices', slow.line())
        self.assertEqual({'end': True}, slow.line())

    def test_many_callers(self):
        callers = [self.dial() for _ in range(20)]
        self.is_over(self.admitted())
        for each in callers:
            each.close()
        self.is_over(self.admitted())


class OneOfEachTestCase(ReceiverTestCase):

    def setUp(self):
        super().setUp()
        self.process = self.receive()

    def test_streams_side_by_side(self):
        one, two = self.admitted(), self.admitted(stream=1)
        self.is_over(one)
        self.is_over(two)

    def test_second_connection_ends_the_first(self):
        one = self.admitted()
        two = self.admitted()
        self.assertIsNone(one.line())
        self.is_over(two)

    def test_second_connection_waits_for_the_end_of_daxio(self):
        hang = self.pmem.inject('hang', 'new0', at=3)
        one = self.admitted()
        self.write(one)
        daxio = psutil.Process(hang.wait())
        two = self.admitted()
        self.assertFalse(psutil.pid_exists(daxio.pid) and
                         daxio.status() != psutil.STATUS_ZOMBIE)
        self.is_over(two)

    def test_first_one_that_is_stopped(self):
        one = self.admitted()
        stream, = self.streams()
        stream.suspend()
        self.is_over(self.admitted())
        self.assertIsNone(one.line())

    def test_daxio_whose_stream_was_killed(self):
        """Who comes back must not write at once with it."""
        hang = self.pmem.inject('hang', 'new0', at=3)
        one = self.admitted()
        self.write(one)
        hang.wait()
        stream, = self.streams()
        stream.kill()
        self.assertIsNone(one.line())
        self.refused(self.connect(stall_timeout=0.5),
                     'an earlier stream still writes', True)
        # Whoever it is.
        self.refused(self.connect(stall_timeout=0.5, stream=1),
                     'an earlier stream still writes', True)
        hang.release()
        self.is_over(self.admitted())

    def test_later_generation(self):
        old = [self.admitted(stream=each) for each in range(3)]
        new = self.admitted(stream=1, generation=[0, 1])
        for each in old:
            self.assertIsNone(each.line())
        self.refused(self.connect(stream=2), 'a later sender has taken over',
                     False)
        other = self.admitted(stream=0, generation=[0, 1])
        self.is_over(new)
        self.is_over(other)

    def test_second_sender_begins_anew(self):
        old = self.admitted(generation=[0, 7])
        new = self.admitted(generation=[1, 0])
        self.assertIsNone(old.line())
        self.is_over(new)

    def test_killed_stream_ends_alone(self):
        one, two = self.admitted(), self.admitted(stream=1)
        first = min(self.streams(), key=lambda each: each.pid)
        first.kill()
        self.assertIsNone(one.line())
        self.is_over(two)

    def test_memory_that_is_damaged(self):
        """It kills whoever touches it: trying again does not help."""
        one, two = self.admitted(), self.admitted(stream=1)
        first = min(self.streams(), key=lambda each: each.pid)
        first.send_signal(signal.SIGBUS)
        self.refused(one, 'memory of the target is damaged', False)
        self.is_over(two)

    def test_sender_that_goes_away(self):
        one = self.admitted()
        stream, = self.streams()
        one.close()
        self.assertEqual([], psutil.wait_procs([stream], timeout=60)[1])


@ddt.ddt
class ConstantsTestCase(ReceiverTestCase):

    def test_nothing_is_said(self):
        self.receive(base.changed(receiver, HELLO_TIMEOUT=1))
        self.refused(self.dial(), 'no handshake in 1 seconds', True)

    @ddt.data(1, receiver.ANSWERS)
    def test_room_for_answers_that_nobody_reads(self, room):
        self.process = self.receive(base.changed(receiver, ANSWERS=room))
        sender = self.admitted()
        stream, = self.streams()
        count = 400
        sender.send(b''.join(
            wire.Header(wire.DATA, each, 0, each * 1024, 1024).pack()
            for each in range(count)) + wire.Header(wire.END, count).pack())
        self.assertEqual([], psutil.wait_procs([stream], timeout=60)[1])
        answers = list(iter(sender.line, None))
        self.assertEqual(room > 1, {'end': True} in answers)

    def test_many_say_nothing(self):
        """Not so many that all others are lost to the limit of select()."""
        self.receive(base.changed(receiver, CALLERS=2))
        callers = [self.dial() for _ in range(2)]
        self.refused(self.dial(), '2 others have not said yet', True)
        for each in callers:
            each.close()
        self.is_over(self.admitted())

    def test_nothing_comes(self):
        self.receive()
        self.refused(self.admitted(stall_timeout=0.5),
                     'nothing has come for 0.5 seconds', True)

    def test_what_is_not_expected_is_put_into_words(self):
        self.receive([sys.executable, '-c', (
            'from nova.virt.pmem_transfer import receiver as r; '
            'r.writer.Writer.run = lambda self: 1 / 0; r.main()')])
        self.refused(self.admitted(), 'ZeroDivisionError: division', False)


@ddt.ddt
class EndTestCase(ReceiverTestCase):

    def assert_all_is_over(self):
        """Assert that nobody writes: the notes can be locked."""
        with open(self.socket + '.writes') as notes:
            fcntl.flock(notes, fcntl.LOCK_EX)
        self.assert_nothing_runs()

    def busy(self):
        """Have it write."""
        self.process = self.receive()
        hang = self.pmem.inject('hang', 'new0', at=3)
        sender = self.admitted()
        self.write(sender)
        hang.wait()
        with open(self.process.notes) as notes:
            self.assertRaises(BlockingIOError, fcntl.flock, notes,
                              fcntl.LOCK_EX | fcntl.LOCK_NB)
        return sender

    def test_it_ends_with_its_stdin(self):
        sender = self.busy()
        self.process.stdin.close()
        self.process.wait()
        self.assertEqual(0, self.process.returncode)
        self.assertFalse(os.path.exists(self.socket))
        self.assert_all_is_over()
        self.assertIsNone(sender.line())

    def test_it_is_killed(self):
        sender = self.busy()
        self.process.kill()
        self.assert_all_is_over()
        self.assertIsNone(sender.line())
        # The next one takes the place of the socket that is left.
        self.assertTrue(os.path.exists(self.socket))
        self.process.wait()
        self.process = self.receive()
        self.is_over(self.admitted())

    def test_it_is_killed_while_stopped(self):
        self.busy()
        for stream in self.streams():
            stream.suspend()
        self.process.send_signal(signal.SIGSTOP)
        self.process.kill()
        self.assert_all_is_over()

    def test_it_is_terminated(self):
        """As all that nova-compute has started, while it waits for a move."""
        self.process = self.receive()
        for each in [*psutil.Process(self.process.pid).children(),
                     self.process]:
            each.terminate()
        sender = self.admitted()
        # Who takes its place has it end, by the same signal.
        other = self.admitted()
        self.assertIsNone(sender.line())
        self.write(other)
        self.assertEqual({'stored': [0, 0, 5]}, other.line())
        self.is_over(other, sequence=1)
        self.process.stdin.close()
        self.assertEqual(0, self.process.wait())
        self.assert_all_is_over()

    def test_who_may_connect(self):
        self.receive()
        self.assertEqual('ready\n', self.said)
        found = os.stat(self.socket)
        self.assertTrue(stat.S_ISSOCK(found.st_mode))
        self.assertEqual(0o600, stat.S_IMODE(found.st_mode))

    def failed(self, words, **kwargs):
        process = self.receive(**kwargs)
        self.assertIn(words, self.said)
        self.assertEqual(b'', process.stdout.read())
        self.assertEqual(1, process.wait())
        self.assertFalse(os.path.exists(self.socket))

    def test_long_path(self):
        self.failed('has more than 107 bytes: use a shorter state_path',
                    socket='/' + 'x' * 107)

    @ddt.data('', '{}', 'null', '[]', '5', 'no JSON', '\xff',
              '{"version": 1}')
    def test_malformed_job(self, text):
        self.failed('no job that can be done', text=text)

    def test_endless_job(self):
        self.failed('no job that can be done', text='x' * 10 ** 6)

    def test_no_job(self):
        command = [sys.executable, '-c', (
            'from nova.virt.pmem_transfer import receiver as r; import os; '
            'os.dup2(os.open("/dev/null", os.O_RDONLY), 0); r.main()')]
        self.failed('no job that can be done: there is none', command=command)

    def targets(self, **changes):
        target, = self.receiving().targets
        return (dataclasses.replace(target, **changes),)

    def test_device_that_is_not_there(self):
        self.failed('No such file', targets=self.targets(path='/nonsuch'))

    def test_device_that_is_too_small(self):
        self.failed('can not be copied', targets=self.targets(
            source_size=8 * MIB))

    def test_file_of_another_size(self):
        os.truncate(self.pmem.path('new0'), 4 * MIB)
        self.failed('has %d bytes' % (4 * MIB))
