# SPDX-License-Identifier: Apache-2.0

"""Senders with receivers that are not what they should be, and at random."""

import os
import shlex
import sys
import tempfile
from unittest import mock

import ddt
import fixtures
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from nova.tests.unit.virt.pmem_transfer import base
from nova.virt.pmem_transfer import connection
from nova.virt.pmem_transfer import processes
from nova.virt.pmem_transfer import receiver
from nova.virt.pmem_transfer import sender
from nova.virt.pmem_transfer import stream
from nova.virt.pmem_transfer import wire

KIB = base.KIB
MIB = base.MIB

# A receiver that answers each frame as it is told, and stores nothing.
LIAR = '''
import sys
from nova.virt.pmem_transfer import wire
sys.stdin.buffer.readline()
answers = sys.argv[1:]
sys.stdout.write(answers.pop(0) + '\\n')
sys.stdout.flush()
while True:
    data = sys.stdin.buffer.read(wire.HEADER.size)
    if not data:
        break
    kind, runs = data[4:5], int.from_bytes(data[-4:], 'big')
    for run in wire.unpack_runs(sys.stdin.buffer.read(runs * 8)):
        sys.stdin.buffer.read(run.length)
    if answers:
        sys.stdout.write(answers.pop(0) + '\\n')
        sys.stdout.flush()
'''

# A receiver that answers what it can, and ends.
QUITTER = LIAR.replace(
    '    for run in wire.unpack_runs(', '    if not answers: break\n'
    '    for run in wire.unpack_runs(')

# A receiver that notes how many runs each frame has, and answers none.
MUTE = LIAR.replace(
    'answers = sys.argv[1:]',
    'log, *answers = sys.argv[1:]; log = open(log, "w", 1)').replace(
    '    for run in', '    log.write("%d\\n" % runs)\n    for run in')

# A receiver that notes what it is told first, and lets nobody in. That of the
# first stream does so when as many as it was told have started.
PORTER = '''
import os, sys
from nova.virt.pmem_transfer import wire
fifo, log, count = sys.argv[1:]
arrivals = os.open(fifo, os.O_RDWR)
os.write(arrivals, b'x')
hello = sys.stdin.readline()
with open(log, 'a') as told:
    told.write(hello)
if '"stream": 0' in hello:
    for _ in range(int(count)):
        os.read(arrivals, 1)
sys.stdout.buffer.write(wire.hello(error='not today'))
'''


class SenderTestCase(base.CopyTestCase):
    """Senders in this very process, without ssh."""

    ADDRESSES = ()

    def setUp(self):
        super().setUp()
        for name, value in (('STATE_PATH', self.state), ('HOST', 'host2')):
            self.useFixture(fixtures.EnvironmentVariable(
                'OS_DEFAULT__' + name, value))
        self.useFixture(fixtures.EnvironmentVariable(
            'PYTHONPATH', sender.environment()['PYTHONPATH']))
        self.events = []

    def tell(self, event, **fields):
        self.events.append(dict(fields, event=event))

    def local(self, *prefix):
        """Return the command of a receiver that needs no ssh."""
        return (*prefix, sys.executable, '-m', receiver.__name__,
                base.MIGRATION)

    def run_sender(self, **changes):
        job = self.job(**dict({'receiver': self.local()}, **changes))
        with processes.Guard() as guard:
            copy = sender.Copy(job, guard, self.tell)
            copy.run()
        return copy.totals()


@ddt.ddt
class LiarTestCase(SenderTestCase):

    def setUp(self):
        super().setUp()
        self.add_pair(2 * MIB)
        self.hello = wire.hello(devices=[
            {'name': 'new0', 'size': 2 * MIB, 'source_size': 2 * MIB}])

    def fails(self, *answers, **changes):
        words = [text if isinstance(text, str) else text.decode().strip()
                 for text in answers]
        return str(self.assertRaises(
            stream.Failed, self.run_sender,
            receiver=(sys.executable, '-c', LIAR, *words), **changes))

    @ddt.data('{"nova-pmem-copy": 2, "devices": []}',
              '{"nova-pmem-copy": 0, "error": "who are you?"}')
    def test_another_version(self, hello):
        self.assertIn('finish the upgrade', self.fails(hello))

    @ddt.data('[]', '{}', 'null', '[{"name": "new1"}]')
    def test_other_devices(self, devices):
        message = self.fails('{"nova-pmem-copy": 1, "devices": %s}' % devices)
        self.assertIn('its ticket is for', message)

    def test_refusal(self):
        message = self.fails(wire.hello(error='I am full'))
        self.assertEqual('refused: I am full', message)

    def test_refusal_that_may_not_last(self):
        message = self.fails(wire.hello(error='I am full', again=True),
                             attempts=2)
        self.assertEqual('I am full (tried 2 times)', message)

    @ddt.data({'stored': [0, MIB, MIB]}, {'stored': [0, 0, MIB - 1]},
              {'stored': [0, 0, 2 * MIB]}, {'same': [0, 0, MIB]},
              {'differs': [0, 0, MIB]}, {'stored': None}, {'what': 1}, {})
    def test_answer_to_what_was_not_sent(self, answer):
        message = self.fails(self.hello, wire.line(**answer))
        self.assertIn('it answers', message)

    def test_answer_that_comes_twice(self):
        answer = wire.line(stored=[0, 0, MIB]).decode()
        self.assertIn('it answers', self.fails(
            self.hello, answer + answer.strip()))

    def test_answer_before_the_data_came(self):
        self.assertIn('to nothing', self.fails(
            self.hello.decode() + wire.line(stored=[0, 0, MIB]).decode()))

    @ddt.data([2, 2 * MIB - 1], [1, 2 * MIB], [3, 2 * MIB], None, 'all')
    def test_sums_that_differ(self, end):
        message = self.fails(
            self.hello, wire.line(stored=[0, 0, MIB]),
            wire.line(stored=[0, MIB, MIB]), wire.line(end=end))
        self.assertIn('it has stored', message)

    def test_end_before_the_end(self):
        self.assertIn('it has stored', self.fails(
            self.hello, wire.line(end=[2, 2 * MIB])))

    @ddt.data('no JSON', '[]', '"stored"', '{' * 9999)
    def test_answer_that_is_none(self, answer):
        self.assertIn('is no JSON', self.fails(self.hello, answer))

    def test_no_answer(self):
        message = self.fails(self.hello, stall_timeout=0.5, attempts=2)
        self.assertIn('nothing has moved for 0.5 seconds', message)
        self.assertIn('tried 2 times', message)
        self.assertEqual(1, len([event for event in self.events
                                 if event['event'] == 'retry']))

    def test_no_handshake(self):
        self.assertIn('nothing has moved', str(self.assertRaises(
            stream.Failed, self.run_sender, receiver=('sleep', '60'),
            stall_timeout=0.5, attempts=1)))

    def test_all_is_well_is_what_a_liar_can_say(self):
        # Only the receiver can know; see doc/protocol.rst.
        totals = self.run_sender(receiver=(
            sys.executable, '-c', LIAR, self.hello.decode().strip(),
            wire.line(stored=[0, 0, MIB]).decode().strip(),
            wire.line(stored=[0, MIB, MIB]).decode().strip(),
            wire.line(end=[2, 2 * MIB]).decode().strip()))
        self.assertEqual(2 * MIB, totals['bytes'])


class BreakTestCase(SenderTestCase):

    def test_answers_count_that_came_before(self):
        """Here it is noticed first that nobody reads any more."""
        self.add_pair(8 * MIB, fill=False)
        hello = wire.hello(devices=[
            {'name': 'new0', 'size': 8 * MIB, 'source_size': 8 * MIB}])
        stored = [wire.line(stored=[0, number * MIB, MIB])
                  for number in range(3)]
        words = [text.decode().strip() for text in (hello, *stored)]
        real_send, real_read = connection.Connection.send, wire.Lines.read
        hidden = []

        def send(self_, limit):
            if real_send(self_, limit):
                return True
            if hidden:
                self.assertTrue(self_.wait(20))
                hidden.clear()
                raise connection.Broken('it reads no more')
            return False

        def read(self_):
            lines = [] if hidden else real_read(self_)
            hidden.extend(lines if not self_.ended else [])
            return lines

        self.useFixture(fixtures.MockPatchObject(
            connection.Connection, 'send', send))
        self.useFixture(fixtures.MockPatchObject(wire.Lines, 'read', read))
        error = self.assertRaises(
            stream.Failed, self.run_sender, attempts=1,
            receiver=(sys.executable, '-c', QUITTER, *words))
        self.assertRegex(str(error), r'^%d bytes at offset %d: ' % (
            MIB, 3 * MIB))


class HandshakeTestCase(SenderTestCase):

    def setUp(self):
        super().setUp()
        self.add_pair(4 * MIB)
        self.fifo = os.path.join(self.state, 'arrivals')
        os.mkfifo(self.fifo)
        self.log = os.path.join(self.state, 'told')

    def told(self, **changes):
        """Return what receivers were told before the first one refused."""
        error = self.assertRaises(
            stream.Failed, self.run_sender, attempts=1, receiver=(
                sys.executable, '-c', PORTER, self.fifo, self.log,
                str(changes['streams'])), **changes)
        self.assertEqual('refused: not today', str(error))
        with open(self.log) as log:
            return [wire.parse_line(line) for line in log]

    def test_streams_connect_at_once_and_wait_for_the_first(self):
        hello, = self.told(streams=3)
        self.assertEqual((0, False), (hello['stream'], hello['reconnect']))

    def test_resumed_copy_may_meet_a_receiver_of_the_last_one(self):
        hello, = self.told(streams=1, resume=True)
        self.assertIs(True, hello['reconnect'])

    def test_who_comes_after_one_that_was_killed_is_careful(self):
        self.assertRaises(
            stream.Failed, self.run_sender, attempts=2, receiver=(
                'sh', '-c', 'read -r line; echo "$line" >> %s; kill -BUS $$' %
                self.log))
        with open(self.log) as log:
            told = [wire.parse_line(line) for line in log]
        self.assertEqual([(False, False), (True, True)],
                         [(each['careful'], each['reconnect'])
                          for each in told])


@ddt.ddt
class WindowTestCase(SenderTestCase):

    @ddt.data(([0] * 20, [0] * stream.WINDOW),
              ([1] * 20, [1] * stream.BUFFERS),
              ([0, 1, 0, 0, 1, 0, 1], [0, 1, 0, 0, 1]))
    @ddt.unpack
    def test_what_is_sent_ahead_of_answers(self, data, expected):
        """Frames, and fewer of those that keep a buffer."""
        self.add_pair(20 * MIB, fill=False)
        for number, is_data in enumerate(data):
            if is_data:
                self.pmem.write('old0', number * MIB, b'x')
        log = os.path.join(self.useFixture(fixtures.TempDir()).path, 'log')
        hello = wire.hello(devices=[
            {'name': 'new0', 'size': 20 * MIB, 'source_size': 20 * MIB}])
        real = sender.select.select

        def wait(*arguments):
            """End the copy when it would wait for time to pass."""
            ready = real(*arguments)
            if os.path.exists(log) and arguments[-1] and not any(ready):
                raise stream.Failed('quiet')
            return ready

        self.useFixture(fixtures.MockPatchObject(
            sender, 'select', mock.Mock(select=wait)))
        self.useFixture(fixtures.MockPatchObject(
            sender, 'PROGRESS_INTERVAL', 1000))
        error = self.assertRaises(
            stream.Failed, self.run_sender, stall_timeout=2, attempts=1,
            receiver=(sys.executable, '-c', MUTE, log,
                      hello.decode().strip()))
        self.assertEqual('quiet', str(error))
        with open(log) as told:
            self.assertEqual(expected, [int(line) for line in told])


class Hungry:
    """A stream that sends whenever the bandwidth allows it."""

    is_greeted = True
    wire = 0

    def __init__(self, shared, number):
        self.shared = shared
        self.sent = 0

    def advance(self):
        if self.shared.allowed and not self.is_done:
            self.shared.allowed -= 1
            self.sent += 1

    @property
    def is_done(self):
        return self.sent == 5

    def close(self):
        pass


class BandwidthTestCase(SenderTestCase):

    def test_no_stream_starves(self):
        """Its receiver would give up, and the copy with it."""
        self.add_pair(4 * MIB)
        shared = mock.Mock(allowed=0, done=[4 * MIB])
        shared.work.extents = 4
        with mock.patch.object(stream, 'Stream', Hungry), \
                mock.patch.object(stream, 'Shared', return_value=shared):
            copy = sender.Copy(self.job(streams=4), None, self.tell)
        counts = []

        def wait():
            counts.append([each.sent for each in copy._streams])
            shared.allowed = 1

        with mock.patch.object(copy, '_wait', wait), \
                mock.patch.object(copy, '_tell_progress'):
            copy.run()
        self.assertEqual(20, len(counts))
        for sent in counts:
            self.assertLessEqual(max(sent) - min(sent), 1)


class RandomCopyTestCase(SenderTestCase):

    @settings(deadline=None, database=None, max_examples=20)
    @given(data=st.data())
    def test_any_copy(self, data):
        """Whatever is copied, and wherever it is cut: bytes are equal."""
        self.pairs = []
        self.events = []
        known = len(self.pmem._namespaces)
        for number in range(data.draw(st.integers(1, 2))):
            names = ('old%d' % (known + number), 'new%d' % (known + number))
            size = data.draw(st.integers(1, 5)) * 2 * MIB
            more = data.draw(st.integers(0, 1)) * 2 * MIB
            self.pairs.append(names)
            self.pmem.add_namespace(names[0], size)
            self.pmem.add_namespace(names[1], size + more)
            for name in names:
                for _ in range(data.draw(st.integers(0, 3))):
                    offset = data.draw(st.integers(0, size - 1))
                    self.pmem.write(name, offset, os.urandom(min(
                        data.draw(st.integers(1, MIB)), size - offset)))
        self.open_ticket()
        cuts = data.draw(st.lists(st.integers(0, 3 * MIB), max_size=2))
        totals = self.run_sender(
            receiver=('sh', '-c', self._cut(cuts)), attempts=len(cuts) + 1,
            streams=data.draw(st.integers(1, 3)),
            extent=data.draw(st.sampled_from(
                [700 * KIB, MIB, 2 * MIB, 8 * MIB])),
            resume=data.draw(st.booleans()))
        self.assert_copied()
        self.assertEqual(
            sum(self.pmem.size(new) for _old, new in self.pairs),
            totals['bytes'])
        self.assertLessEqual(totals['retries'], len(cuts))

    def _cut(self, cuts):
        """Return a receiver whose input ends early the first few times."""
        # Not head, which keeps what it has read until there is more.
        folder = tempfile.mkdtemp(dir=self.state)
        script = ''.join(
            'if mkdir %s/%d 2>&-; then dd bs=64K iflag=count_bytes count=%d '
            'status=none; exit; fi;' % (folder, number, cut)
            for number, cut in enumerate(cuts))
        return '{ %s cat; } | %s' % (script, shlex.join(self.local()))
