# SPDX-License-Identifier: Apache-2.0
"""How the probes find devices, and what they make of what they read."""

import subprocess

import pytest

from pmem_copy_tempest_plugin import faults
from pmem_copy_tempest_plugin import marks
from pmem_copy_tempest_plugin import pattern
from pmem_copy_tempest_plugin import probe
from pmem_copy_tempest_plugin import shell

MIB = 1024 * 1024
HOST = 'host1'
SERVER = {'id': '5b5b', probe.HOST: HOST}

DOMAIN = """\
<domain type='qemu' id='4'>
  <name>instance-00000001</name>
  <devices>
    <disk type='file'><source file='/var/lib/nova/disk'/></disk>
    <memory model='dimm'><target><size unit='KiB'>1</size></target></memory>
    %s
  </devices>
</domain>
"""

NVDIMM = """\
<memory model='nvdimm' access='shared'>
  <source><path>%s</path><alignsize unit='KiB'>2048</alignsize><pmem/></source>
  <target>
    <size unit='%s'>%s</size><node>0</node>
    <label><size unit='KiB'>2048</size></label>
  </target>
</memory>
"""


def domain(*memories):
    return DOMAIN % ''.join(NVDIMM % memory for memory in memories)


class TestParseDomain:
    @pytest.mark.parametrize('text', ['', 'error: no domain', '<domain>'])
    def test_no_xml(self, text):
        with pytest.raises(probe.ProbeError, match='host1: no XML'):
            probe.parse_domain(HOST, text)

    @pytest.mark.parametrize('memory', [
        ('', 'KiB', '1'), ('/dev/dax0.0', 'KiB', ''),
        ('/dev/dax0.0', 'KiB', 'x'), ('/dev/dax0.0', 'furlong', '1')])
    def test_odd_memory(self, memory):
        with pytest.raises(probe.ProbeError, match='host1: '):
            probe.parse_domain(HOST, domain(memory))

    def test_none(self):
        assert probe.parse_domain(HOST, domain()) == []

    def test_order_and_units(self):
        found = probe.parse_domain(HOST, domain(
            ('/dev/dax1.0', 'KiB', '16384'), ('/dev/dax0.3', 'MiB', '30'),
            ('/dev/dax0.2', 'b', '1024')))
        assert found == [
            probe.Device(HOST, '/dev/dax1.0', 16 * MIB),
            probe.Device(HOST, '/dev/dax0.3', 30 * MIB),
            probe.Device(HOST, '/dev/dax0.2', 1024)]


class TestPattern:
    @pytest.mark.parametrize('size', [0, MIB, 6 * MIB])
    def test_too_small(self, size):
        with pytest.raises(ValueError):
            pattern.guest_places(size)

    @pytest.mark.parametrize('size', [
        8 * MIB, 16 * MIB, 31457280, 1024 * MIB, 3 * 2 ** 40])
    def test_places_are_apart_and_inside(self, size):
        places = pattern.guest_places(size) + pattern.label_places()
        starts = [place.start(size) for place in places]
        assert starts[0] == 0
        assert starts == sorted(starts)
        assert starts[-1] + pattern.BLOCK == size
        assert all(after - before >= pattern.BLOCK
                   for before, after in zip(starts, starts[1:]))

    def test_guest_reads_whole_pages(self):
        assert all(place.offset % 4096 == 0
                   for place in pattern.guest_places(31457280))

    def test_no_two_blocks_are_equal(self):
        places = pattern.guest_places(16 * MIB)
        blocks = {each.block(index, place) for index in (0, 1)
                  for place in places
                  for each in (pattern.Pattern(), pattern.Pattern())}
        assert len(blocks) == 4 * len(places)

    def test_a_pattern_is_the_same_each_time(self):
        one = pattern.Pattern()
        place = pattern.label_places()[0]
        assert one.block(0, place) == one.block(0, place)
        assert len(one.block(0, place)) == pattern.BLOCK


class TestHostShell:
    def shell(self, command='env A={address} sh -c', timeout=60):
        return shell.HostShell(command, {'host2': '192.0.2.2'}, timeout)

    def test_address(self):
        assert self.shell().run('host1', 'echo $A') == b'host1\n'
        assert self.shell().run('host2', 'echo $A') == b'192.0.2.2\n'

    def test_place_of_the_script(self):
        """As with ``ssh HOST "sudo sh -c {script}"``: two shells read it."""
        assert self.shell('sh -c "env B={host} sh -c {script}"').run(
            'host1', "echo '$B' $B") == b'$B host1\n'

    def test_input(self):
        assert self.shell().run('host1', 'cat', b'\0\xff') == b'\0\xff'

    def test_failure(self):
        with pytest.raises(shell.CommandFailed, match='host1.*status 3.*oops'):
            self.shell().run('host1', 'echo oops >&2; exit 3')

    def test_no_such_program(self):
        with pytest.raises(shell.CommandFailed, match='host1'):
            self.shell('/no/such/program').run('host1', 'true')

    def test_timeout(self):
        with pytest.raises(shell.CommandFailed, match='timed out'):
            self.shell(timeout=0.2).run('host1', 'exec sleep 20')

    def test_values_are_quoted(self):
        script = shell.fill_quoted('echo {device}', device="a  b'; exit 1")
        assert self.shell().run('host1', script) == b"a  b'; exit 1\n"

    def test_other_braces_are_left_alone(self):
        script = shell.fill_quoted(
            "A=1; echo ${A} {b} '{\"c\": 0}'", device='d')
        assert self.shell().run('host1', script) == b'1 {b} {"c": 0}\n'


@pytest.fixture
def hosts():
    return shell.HostShell('sh -c', {}, 60)


@pytest.fixture
def host_probe(hosts, tmp_path):
    """A probe of plain files; the XML of a server is in a file, too."""
    return probe.HostProbe(
        hosts, f'cat {tmp_path}/{{server}}.xml',
        f'cd {tmp_path}; for d in dax*; do '
        'echo $PWD/$d $(stat -c %s $d); done',
        'dd status=none bs=65536 iflag=skip_bytes,count_bytes '
        'if={device} skip={offset} count={length}',
        'dd status=none conv=notrunc bs=65536 oflag=seek_bytes '
        'of={device} seek={offset}')


@pytest.fixture
def devices(tmp_path):
    """Two devices, the second one larger."""
    found = []
    for number, size in enumerate((8 * MIB, 12 * MIB)):
        path = tmp_path / f'dax0.{number}'
        with path.open('wb') as file:
            file.truncate(size)
        found.append(probe.Device(HOST, str(path), size))
    return found


def copy(source, target):
    """Copy as a move has to: the label area stays at the end."""
    with open(source.path, 'rb') as file:
        data = file.read()
    with open(target.path, 'r+b') as file:
        file.write(data[:-pattern.LABEL_AREA])
        file.seek(-pattern.LABEL_AREA, 2)
        file.write(data[-pattern.LABEL_AREA:])


class TestHostProbe:
    def test_devices_of_a_server(self, host_probe, tmp_path):
        (tmp_path / '5b5b.xml').write_text(
            domain(('/dev/dax0.0', 'KiB', '16384')))
        assert host_probe.devices(SERVER) == [
            probe.Device(HOST, '/dev/dax0.0', 16 * MIB)]

    def test_no_such_server(self, host_probe):
        with pytest.raises(probe.ProbeError, match='5b5b'):
            host_probe.devices(SERVER)

    def test_all_devices(self, host_probe, devices):
        assert host_probe.all_devices(HOST) == devices

    @pytest.mark.parametrize('command, message', [
        ('true', 'names nothing'), ('exit 1', 'status 1'),
        ('echo /dev/dax0.0', 'not enough values'),
        ('echo /dev/dax0.0 much', 'invalid literal')])
    def test_no_devices(self, hosts, command, message):
        tools = probe.HostProbe(hosts, '', command, '', '')
        with pytest.raises(probe.ProbeError, match=message):
            tools.all_devices(HOST)

    def test_short_read(self, host_probe, devices):
        with pytest.raises(probe.ProbeError, match='15 of 25 bytes'):
            host_probe.read([probe.Block(devices[0], 0, 5),
                             probe.Block(devices[0], 8 * MIB - 10, 20)])

    def test_second_read_fails(self, host_probe, devices):
        gone = devices[1]._replace(path='/no/such')
        with pytest.raises(probe.ProbeError, match='No such file'):
            host_probe.read([probe.Block(devices[0], 0), probe.Block(gone, 0),
                             probe.Block(devices[1], 0)])

    def test_nothing_to_read(self, host_probe):
        assert host_probe.read([]) == []

    def test_write_that_is_not_there(self, hosts, devices):
        tools = probe.HostProbe(hosts, '', '', 'head -c {length} /dev/zero',
                                'cat >/dev/null')
        with pytest.raises(probe.ProbeError, match='is not there'):
            tools.write({probe.Block(devices[0], 0, 3): b'abc'})

    def test_write(self, host_probe, devices):
        host_probe.write({probe.Block(devices[0], 4096, 3): b'abc',
                          probe.Block(devices[1], 1, 2): b'de',
                          probe.Block(devices[0], 0, 1): b'f'})
        assert host_probe.read([
            probe.Block(devices[0], 4095, 5), probe.Block(devices[1], 0, 4),
            probe.Block(devices[0], 0, 2)]) == [
                b'\0abc\0', b'\0de\0', b'f\0']

    def test_each_block_is_read_on_its_host(self, tmp_path, devices):
        """In the order asked for, and with one login for neighbours."""
        hosts = shell.HostShell(
            f'env H={{host}} LOG={tmp_path}/log sh -c', {}, 60)
        tools = probe.HostProbe(
            hosts, '', '', 'echo $H >>$LOG && echo $H', '')
        on_2 = devices[0]._replace(host='host2')
        blocks = [probe.Block(device, 0, 6)
                  for device in (devices[0], devices[1], on_2, devices[0])]
        assert tools.read(blocks) == [
            b'host1\n', b'host1\n', b'host2\n', b'host1\n']


class TestMark:
    def test_zero_and_not(self, host_probe, devices):
        assert marks.not_zero(host_probe, devices) == []
        host_probe.write(
            {probe.Block(devices[1], 12 * MIB - 1, 1): b'x'})
        assert marks.not_zero(host_probe, devices) == [
            f'the end of the label area of {devices[1]} is not zero']

    def test_intact_where_it_was_written(self, host_probe, devices):
        mark = marks.Mark(host_probe, devices)
        assert mark.missing(devices) == []

    def test_empty_device(self, host_probe, devices):
        mark = marks.Mark(host_probe, devices[:1])
        assert len(mark.missing(devices[1:])) == 6

    def test_fewer_devices(self, host_probe, devices):
        mark = marks.Mark(host_probe, devices)
        assert len(mark.missing(devices[:1])) == 1

    def test_devices_in_another_order(self, host_probe, devices):
        mark = marks.Mark(host_probe, devices)
        assert mark.missing(devices[::-1])

    def test_larger_device(self, host_probe, devices):
        mark = marks.Mark(host_probe, devices[:1])
        copy(devices[0], devices[1])
        assert mark.missing(devices[1:]) == []

    def test_label_area_left_where_it_was(self, host_probe, devices):
        mark = marks.Mark(host_probe, devices[:1])
        with open(devices[0].path, 'rb') as file:
            data = file.read()
        with open(devices[1].path, 'r+b') as file:
            file.write(data)
        assert [line.split(' of ')[0] for line in mark.missing(
            devices[1:])] == ['the beginning', 'the end', str(
                devices[1]) + ' is not zero behind the data']

    def test_one_bit_is_wrong(self, host_probe, devices):
        mark = marks.Mark(host_probe, devices[:1])
        with open(devices[0].path, 'r+b') as file:
            file.seek(pattern.EXTENT)
            byte = file.read(1)[0]
            file.seek(pattern.EXTENT)
            file.write(bytes([byte ^ 1]))
        assert [line[:20] for line in mark.missing(devices[:1])] == [
            'the end of an extent']

    def test_left_on_both(self, host_probe, devices):
        mark = marks.Mark(host_probe, devices[:1])
        assert mark.left_on(devices[1:]) == []
        copy(devices[0], devices[1])
        # All places of the one, the first and the last of the other.
        assert len(mark.left_on(devices)) == 6 + 2

    def test_another_pattern_is_not_left(self, host_probe, devices):
        mark = marks.Mark(host_probe, devices[:1])
        marks.Mark(host_probe, devices[:1])
        assert mark.left_on(devices) == []


class TestGuestProbe:
    """With a shell here for one in a guest, and a file for its device."""

    @pytest.fixture
    def tools(self, tmp_path):
        (tmp_path / 'bin').mkdir()
        # What there is no block device for: the size is that of the file.
        for name, text in (
                ('sudo', 'exec "$@"'),
                ('blockdev', 'test $1 = --getsize64 && stat -c %s $2 || :'),
                ('test_b', 'test -f "$1"')):
            path = tmp_path / 'bin' / name
            path.write_text(f'#!/bin/sh\n{text}\n')
            path.chmod(0o755)
        (tmp_path / 'pmem0').write_bytes(bytes(10 * MIB))

        def run(command):
            command = command.replace('[ -b', 'test_b').replace(' ];', ';')
            command = command.replace('conv=fsync', 'conv=fsync,notrunc')
            return subprocess.run(
                ['bash', '-c', f'set -eu -o pipefail; {command}'],
                env={'PATH': f'{tmp_path}/bin:/usr/sbin:/usr/bin:/bin'},
                check=True, capture_output=True, text=True).stdout

        return probe.GuestProbe(
            lambda server: run, f'{tmp_path}/pmem{{index}}')

    def test_size_is_that_of_the_namespace(self, tools, tmp_path):
        assert tools.devices(SERVER) == [
            probe.Device('', f'{tmp_path}/pmem0', 12 * MIB)]

    def test_none(self, tools, tmp_path):
        (tmp_path / 'pmem0').unlink()
        with pytest.raises(probe.ProbeError, match='the guest has no'):
            tools.devices(SERVER)

    def test_no_whole_pages(self, tools):
        device = tools.devices(SERVER)[0]
        with pytest.raises(probe.ProbeError, match='not whole pages'):
            tools.read([probe.Block(device, 1)])

    def test_mark(self, tools):
        devices = tools.devices(SERVER)
        assert marks.not_zero(tools, devices) == []
        mark = marks.Mark(tools, devices)
        assert mark.missing(devices) == []
        assert len(marks.not_zero(tools, devices)) == 4

    def test_failure(self, tools):
        device = tools.devices(SERVER)[0]
        with pytest.raises(probe.ProbeError, match='in the guest'):
            tools.read([probe.Block(device._replace(path='/no/such'), 0)])


class TestCausedFault:
    def caused(self, hosts, tmp_path, command):
        undo = f'echo off {{server}} >>{tmp_path}/log'
        return faults.CausedFault(
            hosts, HOST, command, undo, '5b5b')

    def test_undone_once(self, hosts, tmp_path):
        fault = self.caused(
            hosts, tmp_path, f'echo on {{server}} >>{tmp_path}/log')
        with fault:
            fault.undo()
        assert (tmp_path / 'log').read_text() == (
            'on 5b5b\noff 5b5b\n')

    def test_undone_if_it_failed(self, hosts, tmp_path):
        with pytest.raises(Exception):
            self.caused(hosts, tmp_path, 'exit 1').setUp()
        assert (tmp_path / 'log').read_text() == 'off 5b5b\n'
