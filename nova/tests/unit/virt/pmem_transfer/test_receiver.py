# SPDX-License-Identifier: Apache-2.0

"""What a receiver lets in, and what it does with what comes."""

import json
import os
import subprocess
import threading
import time
from unittest import mock

import ddt
import fixtures
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from nova.tests.unit.virt.pmem_transfer import base
from nova.virt.pmem_transfer import admission
from nova.virt.pmem_transfer import device
from nova.virt.pmem_transfer import extents
from nova.virt.pmem_transfer import inbox
from nova.virt.pmem_transfer import receiver
from nova.virt.pmem_transfer import settings as pmem_settings
from nova.virt.pmem_transfer import wire

KIB = base.KIB
MIB = base.MIB
HELLO = dict(stream=0, extent=MIB, stall_timeout=20, reconnect=False)


class ReceiverTestCase(base.CopyTestCase):
    """Receivers in this very process, without ssh."""

    ADDRESSES = {}

    def setUp(self):
        super().setUp()
        self.useFixture(fixtures.MockPatchObject(
            pmem_settings, 'load',
            return_value=pmem_settings.Settings('host2', self.state)))
        self.useFixture(fixtures.MockPatch('sys.stderr'))
        self.add_pair(4 * MIB, 6 * MIB)
        self.pmem.fill('new0', seed='what was there')
        self.before = self.pmem.digest('new0')

    def receive(self, *frames, hello=None, arguments=(base.MIGRATION,)):
        """Return the exit status and the lines of a receiver."""
        data = (wire.hello(**HELLO) if hello is None else hello)
        data += b''.join(frames)
        source, inlet = os.pipe()
        outlet, sink = os.pipe()

        def feed():
            with open(inlet, 'wb') as pipe:
                try:
                    pipe.write(data)
                except BrokenPipeError:
                    pass

        feeder = threading.Thread(target=feed)
        feeder.start()
        try:
            status = receiver.run(list(arguments), source, sink)
        finally:
            os.close(source)
            os.close(sink)
            feeder.join()
        with open(outlet, 'rb') as pipe:
            return status, [json.loads(line) for line in pipe]  # noqa: N324

    def frame(self, sequence, offset=0, data=b'', device=0, kind=wire.DATA,
              length=None, runs=None, text=b''):
        if runs is None:
            runs = [extents.Run(0, len(data))] if data else []
        header = wire.Header(kind, sequence, device, offset,
                             len(data) if length is None else length,
                             len(runs))
        return header.pack() + wire.pack_runs(runs) + text + data

    def refused(self, *words, frames=(), **kwargs):
        """Assert that it ends in words, and that it wrote nothing."""
        status, lines = self.receive(*frames, **kwargs)
        self.assertEqual(1, status)
        for word in words:
            self.assertIn(word, lines[-1]['error'])
        self.assertEqual(1, lines[-1][wire.NAME])
        self.assertEqual(self.before, self.pmem.digest('new0'))
        return lines[-1]


@ddt.ddt
class AdmissionTestCase(ReceiverTestCase):

    def setUp(self):
        super().setUp()
        self.open_ticket()

    @ddt.data((), ('a', 'b'))
    def test_arguments(self, arguments):
        self.refused('usage', arguments=arguments)

    @ddt.data('../../etc/passwd', '', base.MIGRATION.upper() + '\n', 'é')
    def test_no_uuid(self, text):
        self.refused('is no uuid', arguments=[text])

    def test_no_ticket(self):
        os.unlink(self.ticket_path)
        self.refused('there is no open ticket')

    @ddt.data('', '{}', 'null', '[]', 'x' * 99999, '[' * 99999)
    def test_malformed_ticket(self, text):
        self.open_ticket(text)
        self.refused('ticket')

    def test_ticket_of_another_migration(self):
        self.open_ticket(migration_uuid=base.INSTANCE)
        self.refused('of migration ' + base.INSTANCE)

    @ddt.data('arrived', 'over')
    def test_ticket_that_is_closed_to_writers(self, state):
        self.open_ticket(state=state)
        self.refused('is closed to writers')

    def test_ticket_of_another_host(self):
        self.open_ticket(host='host3')
        self.refused('is for host host3, and this is host2')

    def test_ticket_without_namespaces(self):
        self.open_ticket(targets=())
        self.refused('names no namespace')

    def test_ticket_that_is_replaced_while_it_is_read(self):
        read = admission.pmem_ticket.read

        def replace(*args):
            os.rename(self.ticket_path, self.ticket_path + '.old')
            self.open_ticket()
            return read(*args)

        with mock.patch.object(admission.pmem_ticket, 'read', replace):
            self.refused('was closed')

    @ddt.data(([], 'there is no namespace new0'),
              ([{'name': 'new0'}], 'without'),
              ([{'name': 'new0'}] * 2, 'there are 2 namespaces new0'),
              ([{'name': 'new0', 'size': 1, 'daxregion': {'devices': []}}],
               'has 0 devices'),
              ([{'name': 'new0', 'size': 6 * MIB, 'daxregion': {'devices': [
                  {'chardev': 'dax0.0'}, {'chardev': 'dax0.1'}]}}],
               'has 2 devices'),
              ([{'name': 'new0', 'size': 1, 'daxregion': {'devices': [
                  {'chardev': 'dax0.0'}]}}], 'has 1 bytes'),
              ([{'name': 'new0', 'size': 6 * MIB, 'daxregion': {'devices': [
                  {'chardev': 'none'}]}}], 'No such file'))
    @ddt.unpack
    def test_namespace(self, found, words):
        with mock.patch.object(
                admission, '_namespaces', return_value=found):
            self.refused(words)

    def test_ndctl_that_lists_something_odd(self):
        done = subprocess.CompletedProcess([], 0, b'[1, {"name": []}]', b'')
        with mock.patch('subprocess.run', return_value=done):
            self.refused('there is no namespace')

    @ddt.data((0, b'{}'), (0, b'5'), (0, b'no JSON'),
              (1, b''), (0, b'[' * 99999))
    @ddt.unpack
    def test_ndctl_that_fails(self, status, output):
        done = subprocess.CompletedProcess([], status, output, b'on fire')
        with mock.patch('subprocess.run', return_value=done):
            self.refused('ndctl does not tell')

    @ddt.data(OSError('x is no character device'), ValueError('is no number'))
    def test_node_that_is_no_device(self, error):
        with mock.patch.object(device, 'size', side_effect=error):
            self.refused(str(error))

    def test_file_of_another_size(self):
        os.truncate(self.pmem.path('new0'), 3 * MIB)
        self.before = self.pmem.digest('new0')
        self.refused('has %d bytes' % (3 * MIB))

    def test_device_that_is_not_lent(self):
        with mock.patch('os.geteuid', return_value=64060):
            self.refused('belongs to user 0 and is not lent to 64060')

    def test_device_that_is_a_guests(self):
        with open(self.pmem.path('new0')) as node:
            # Its own process does not count, so let another have it.
            with subprocess.Popen(['sleep', '60'], stdin=node) as guest:
                self.addCleanup(guest.wait)
                self.addCleanup(guest.kill)
                self.refused('is used by process %d (sleep)' % guest.pid)
                guest.kill()

    def test_device_that_a_receiver_of_the_same_copy_has(self):
        with open(self.pmem.path('new0')) as node, \
                open(self.ticket_path) as ticket:
            with subprocess.Popen(['sleep', '60'], stdin=node,
                                  pass_fds=[ticket.fileno()]) as fellow:
                opened = admission.OpenTicket(
                    os.path.dirname(self.ticket_path), base.MIGRATION)
                self.assertEqual('new0', admission.admit(
                    opened, 'host2')[0].name)
                os.close(opened.fd)
                fellow.kill()

    def locked(self, stream):
        opened = admission.OpenTicket(
            os.path.dirname(self.ticket_path), base.MIGRATION)
        self.addCleanup(os.close, opened.fd)
        opened.lock(stream, 0)

    def test_second_receiver_of_a_stream(self):
        self.locked(0)
        error = self.refused('another receiver has stream 0')
        self.assertIs(False, error['again'])

    def test_another_stream(self):
        self.locked(1)
        status, lines = self.receive(self.frame(0, kind=wire.END))
        self.assertEqual(0, status)
        self.assertEqual(
            [{'name': 'new0', 'size': 6 * MIB, 'source_size': 4 * MIB}],
            lines[0]['devices'])

    def test_who_comes_back_waits(self):
        self.locked(0)
        start = time.monotonic()
        error = self.refused('another receiver', hello=wire.hello(
            **dict(HELLO, reconnect=True, stall_timeout=1)))
        self.assertIs(True, error['again'])
        self.assertGreater(time.monotonic() - start, 0.4)

    @ddt.data(('stream', -1), ('stream', 1.5), ('stream', None),
              ('extent', 100 * MIB), ('extent', 0), ('extent', True),
              ('stall_timeout', 0), ('stall_timeout', 'x'),
              ('stall_timeout', float('nan')), ('reconnect', 1),
              ('careful', None))
    @ddt.unpack
    def test_hello(self, name, value):
        self.refused('the sender asks for', hello=wire.hello(
            **dict(HELLO, **{name: value})))

    def test_another_version(self):
        self.refused('the sender speaks version 2',
                     hello=b'{"nova-pmem-copy": 2}\n')

    @ddt.data(b'GET / HTTP/1.0\r\n\r\n', b'\n', b'x' * 9999)
    def test_nonsense(self, hello):
        self.refused('should begin with', hello=hello)

    def test_nothing(self):
        self.refused('before the handshake', hello=b'')

    def test_settings_are_read_before_anything_is_said(self):
        pmem_settings.load.side_effect = ValueError('no such file')
        self.refused('ValueError: no such file', hello=b'')


@ddt.ddt
class SessionTestCase(ReceiverTestCase):

    def setUp(self):
        super().setUp()
        self.open_ticket()

    @ddt.data(('no frame', b'x' * wire.HEADER.size),
              ('in the middle', b'PME'), ('before the end', b''))
    @ddt.unpack
    def test_bad_end(self, words, data):
        self.refused(words, frames=[data])

    def test_truncated_data(self):
        self.refused('in the middle of a frame',
                     frames=[self.frame(0, data=b'x' * MIB)[:-1]])

    def test_reordered_frames(self):
        self.refused('frame 1 where 0 has to come',
                     frames=[self.frame(1, data=b'x')])

    @ddt.data(({'offset': 6 * MIB, 'data': b'x'}, 'more bytes than'),
              ({'offset': 6 * MIB - 1, 'data': b'xy'}, 'more bytes than'),
              ({'offset': 2 ** 63, 'data': b'x'}, 'more bytes than'),
              ({'offset': 0, 'data': b'x' * (MIB + 1)}, 'at most'),
              ({'offset': 3 * MIB, 'data': b'x'}, 'ticket says zeros'),
              ({'device': 1, 'data': b'x'}, 'there is no device 1'),
              ({'length': 5, 'runs': [extents.Run(3, 3)]}, 'beyond'),
              ({'kind': wire.COMPARE, 'length': 5 * MIB}, 'at most'))
    @ddt.unpack
    def test_frame_that_is_not_allowed(self, fields, words):
        self.refused(words, frames=[self.frame(0, **fields)])

    def test_nothing_comes(self):
        source, _inlet = os.pipe()
        self.addCleanup(os.close, _inlet)
        outlet, sink = os.pipe()
        os.write(_inlet, wire.hello(**dict(HELLO, stall_timeout=1)))
        self.assertEqual(1, receiver.run([base.MIGRATION], source, sink))
        os.close(sink)
        with open(outlet) as pipe:
            self.assertIn('nothing has come for 1 seconds', pipe.read())

    def test_ticket_that_is_closed(self):
        with mock.patch.object(admission.OpenTicket, 'check_open',
                               side_effect=[None, None, None,
                                            admission.Refused('closed!')]):
            status, lines = self.receive(
                self.frame(0, data=b'x' * 5), self.frame(1, 5, b'y' * 5),
                self.frame(2, kind=wire.END))
        self.assertEqual(1, status)
        self.assertEqual([0, 0, 5], lines[1]['stored'])
        self.assertIn('closed!', lines[2]['error'])
        self.assertEqual(b'x' * 5, self.pmem.read('new0', 0, 5))
        self.assertNotEqual(b'y' * 5, self.pmem.read('new0', 5, 5))

    def test_what_is_not_expected_is_put_into_words(self):
        with mock.patch.object(receiver.Session, '_store',
                               side_effect=ZeroDivisionError('a bug')):
            self.refused('ZeroDivisionError: a bug',
                         frames=[self.frame(0, data=b'x')])

    @settings(deadline=None, database=None)
    @given(st.lists(st.integers(1, 3 * MIB), max_size=9), st.booleans())
    def test_spans_and_what_is_between_are_all(self, lengths, data_first):
        runs, end = [], 0
        for number, length in enumerate(lengths):
            if number % 2 != data_first:
                runs.append(extents.Run(end, length))
            end += length
        total = end + 5
        cleared = []
        frame = inbox.Frame(wire.Header(wire.DATA, 0), runs, mock.Mock(
            clear=lambda *run: cleared.append(extents.Run(*run))))
        spans = receiver._spans(frame)
        between = list(receiver._between(spans, total))
        end = 0
        for part in sorted([*spans, *between]):
            self.assertEqual(end, part.offset)
            self.assertGreater(part.length, 0)
            end = part.end
        self.assertEqual(total, end)
        # A span is made of runs, and zeros that are put into the buffer.
        end = None
        for part in sorted([*runs, *cleared]):
            if part.offset not in [span.offset for span in spans]:
                self.assertEqual(end, part.offset)
            end = part.end
        for one, two in zip(spans, spans[1:]):
            self.assertGreater(two.offset - one.end, receiver.RUN_COST)

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
        more = data.draw(st.binary(max_size=60))
        status, lines = self.receive(bytes(stream[:cut]) + more)
        if status:
            self.assertEqual(1, status)
            self.assertIn('error', lines[-1])
            self.assertNotIn('Error: ', lines[-1]['error'])
        else:
            self.assertIn('end', lines[-1])
        self.assertEqual(6 * MIB, os.path.getsize(self.pmem.path('new0')))
        self.assertEqual(old, self.pmem.digest('old0'))

    @settings(deadline=None, database=None, max_examples=100)
    @given(st.binary(max_size=300) | st.text(max_size=100).map(
        lambda text: text.encode()))
    def test_random_hello(self, hello):
        self.refused(hello=hello)

    @settings(deadline=None, database=None, max_examples=100)
    @given(st.data())
    def test_random_ticket(self, data):
        text = bytearray(self.ticket().to_json().encode())
        for _ in range(data.draw(st.integers(1, 5))):
            place = data.draw(st.integers(0, len(text) - 1))
            text[place:place + data.draw(st.integers(0, 3))] = data.draw(
                st.binary(max_size=3))
        self.open_ticket(bytes(text).decode('latin1'))
        status, lines = self.receive(self.frame(0, kind=wire.END))
        self.assertIn(status, (0, 1))
        if status:
            self.assertNotIn('Error: ', lines[-1]['error'])
        self.assertEqual(self.before, self.pmem.digest('new0'))
