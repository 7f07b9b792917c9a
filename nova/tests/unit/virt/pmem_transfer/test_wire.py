# SPDX-License-Identifier: Apache-2.0

import functools
import os

import ddt
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from oslo_serialization import jsonutils

from nova import test
from nova.virt.pmem_transfer import extents
from nova.virt.pmem_transfer import wire

MIB = extents.MIB


@ddt.ddt
class HelloTestCase(test.NoDBTestCase):

    def refused(self, line):
        return str(self.assertRaises(
            wire.ProtocolError, wire.parse_hello, line, 'host2'))

    @ddt.data(b'', b'Welcome', b'[1]', b'{}', b'\xff\xfe', b'1' * 9999,
              b'{"nova-pmem-copy"', b'[' * 9999)
    def test_anything_else_is_quoted(self, line):
        message = self.refused(line)
        self.assertIn('host2 should begin with', message)
        self.assertLess(len(message), 3 * wire.QUOTED)

    @ddt.data(b'0', b'1', b'2.0', b'"1"', b'true', b'null', b'{}')
    def test_another_version(self, version):
        message = self.refused(b'{"nova-pmem-copy": %s}' % version)
        self.assertIn('host2 speaks version', message)
        self.assertIn('this end version 2', message)

    def test_what_both_ends_say(self):
        self.assertEqual({'nova-pmem-copy': 2, 'stream': 0},
                         wire.parse_hello(wire.hello(stream=0), 'host2'))


@ddt.ddt
class HeaderTestCase(test.NoDBTestCase):

    good = wire.Header(wire.DATA, 7, 1, 4096, MIB, 2)

    def test_round_trip(self):
        self.assertEqual(
            self.good, wire.Header.unpack(self.good.pack(), 7))

    def test_frames_out_of_order(self):
        for sequence in (6, 8):
            self.assertRaises(wire.ProtocolError, wire.Header.unpack,
                              self.good.pack(), sequence)

    @ddt.data({'kind': b'X'}, {'runs': 18})
    def test_bad_fields(self, fields):
        data = self.good._replace(**fields).pack()
        self.assertRaises(
            wire.ProtocolError, wire.Header.unpack, data, 7)

    @settings(database=None)
    @given(st.binary(min_size=wire.HEADER.size, max_size=wire.HEADER.size))
    def test_random_bytes(self, data):
        try:
            header = wire.Header.unpack(data, 0)
        except wire.ProtocolError:
            return
        self.assertEqual(data, header.pack())

    def test_runs(self):
        runs = [extents.Run(0, 5), extents.Run(10, 2 ** 32 - 1)]
        self.assertEqual(runs, wire.unpack_runs(wire.pack_runs(runs)))


class LinesTestCase(test.NoDBTestCase):

    def setUp(self):
        super().setUp()
        self.source, self.sink = os.pipe()
        self.addCleanup(os.close, self.source)
        self.lines = wire.Lines(functools.partial(os.read, self.source))

    def test_lines_in_pieces(self):
        os.write(self.sink, b'one\ntw')
        self.assertEqual([b'one'], self.lines.read())
        os.write(self.sink, b'o\n\nrest')
        os.close(self.sink)
        self.assertEqual([b'two', b''], self.lines.read())
        self.assertFalse(self.lines.ended)
        self.assertEqual([], self.lines.read())
        self.assertTrue(self.lines.ended)
        self.assertEqual(b'rest', self.lines.rest)

    def test_line_without_end(self):
        self.addCleanup(os.close, self.sink)
        os.write(self.sink, b'x' * wire.LONGEST_LINE)
        self.assertRaises(wire.ProtocolError, self.lines.read)


@ddt.ddt
class JobTestCase(test.NoDBTestCase):

    sending = wire.Sending(
        devices=(wire.Device(
            'old', '/dev/dax0.0', 4 * MIB, 'new', 4 * MIB),),
        socket='/there', address='host2', ssh=('ssh', '-v'))
    receiving = wire.Receiving(socket='/here', notes=7, targets=(
        wire.Target('new', '/dev/dax0.0', 4 * MIB, 4 * MIB),))

    def test_round_trip(self):
        for good in self.sending, self.receiving:
            self.assertEqual(good, type(good).from_json(good.to_json()))

    # It comes from our parent, so its values are not doubted.
    @ddt.data({'version': 1}, {'unknown': 1}, {'devices': [{'unknown': 1}]},
              {'devices': None})
    def test_job_of_another_version(self, changes):
        fields = {**jsonutils.loads(self.sending.to_json()), **changes}
        self.assertRaises(ValueError, wire.Sending.from_json,
                          jsonutils.dumps(fields))

    def test_malformed(self):
        # Not as data of ddt, which puts them into the names of tests.
        for text in '', '[]', '{}', '5', '[' * 99999:
            for kind in wire.Sending, wire.Receiving:
                self.assertRaises(ValueError, kind.from_json, text)
