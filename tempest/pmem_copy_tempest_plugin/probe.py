# SPDX-License-Identifier: Apache-2.0
"""How the tests get at the data of a server's vPMEM devices."""

import abc
import base64
from collections.abc import Callable, Mapping, Sequence
import itertools
from typing import Any, NamedTuple
from xml.etree import ElementTree

from pmem_copy_tempest_plugin import pattern
from pmem_copy_tempest_plugin import shell

#: The name of the host in what the API tells administrators of a server.
HOST = 'OS-EXT-SRV-ATTR:host'

# What libvirt calls units of memory.
UNITS = {'b': 1, 'bytes': 1, 'KB': 10 ** 3, 'k': 2 ** 10, 'KiB': 2 ** 10,
         'MB': 10 ** 6, 'M': 2 ** 20, 'MiB': 2 ** 20,
         'GB': 10 ** 9, 'G': 2 ** 30, 'GiB': 2 ** 30,
         'TB': 10 ** 12, 'T': 2 ** 40, 'TiB': 2 ** 40}


class ProbeError(Exception):
    """The data could not be looked at, whatever it is."""


class Device(NamedTuple):
    """A vPMEM device.

    :ivar host: the compute host; empty if it is seen from the guest
    :ivar path: of the device node, there
    :ivar size: of the namespace in bytes, with the label area
    """

    host: str
    path: str
    size: int


class Block(NamedTuple):
    """A part of a device; offset and length are in bytes."""

    device: Device
    offset: int
    length: int = pattern.BLOCK


class Probe(abc.ABC):
    """Reads and writes the vPMEM devices of servers."""

    #: Whether it sees namespaces that no server has, and label areas.
    sees_hosts: bool

    @abc.abstractmethod
    def devices(self, server: Mapping[str, Any]) -> list[Device]:
        """Return the devices of a server, in the order of its labels.

        :param server: what the API tells administrators of it
        :raises ProbeError: if they can't be found out
        """

    @abc.abstractmethod
    def read(self, blocks: Sequence[Block]) -> list[bytes]:
        """Return what is in some blocks.

        They come together, since it may take long to get there.

        :raises ProbeError: if one can't be read, or only in part
        """

    @abc.abstractmethod
    def _write(self, contents: Mapping[Block, bytes]) -> None:
        """Write to some blocks, whatever comes of it.

        :raises ProbeError: if that is seen to fail
        """

    def write(self, contents: Mapping[Block, bytes]) -> None:
        """Write to some blocks, and read them back.

        :raises ProbeError: if what was written is not there
        """
        self._write(contents)
        for block, data in zip(contents, self.read(list(contents))):
            if data != contents[block]:
                raise ProbeError(f'what was written to {block} is not there')


def parse_domain(host: str, text: str | bytes) -> list[Device]:
    """Return the vPMEM devices that libvirt's XML of a guest names.

    :param host: where it was asked for
    :param text: the XML
    :raises ProbeError: if it is not such XML
    """
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ProbeError(f'on {host}: no XML of a domain: {error}') from error
    return [_parse_memory(host, memory)
            for memory in root.iterfind('./devices/memory')
            if memory.get('model') == 'nvdimm']


def _parse_memory(host: str, memory: ElementTree.Element) -> Device:
    path = memory.findtext('./source/path', '').strip()
    size = memory.find('./target/size')
    if not path or size is None:
        raise ProbeError(
            f'on {host}: an NVDIMM without path or size: '
            f'{ElementTree.tostring(memory, "unicode").strip()}')
    unit = size.get('unit', 'KiB')
    try:
        return Device(host, path, int(size.text or '') * UNITS[unit])
    except (ValueError, KeyError) as error:
        raise ProbeError(
            f'on {host}: {path} has {size.text!r} {unit}') from error


class HostProbe(Probe):
    """Looks from the compute host, with the tools of persistent memory."""

    sees_hosts = True

    def __init__(self, hosts: shell.HostShell, describe: str, list_all: str,
                 read: str, write: str) -> None:
        """Describe how; the commands are those of the options.

        :param hosts: runs them
        :param describe: prints the XML of ``{server}``
        :param list_all: prints the path and size of a host's namespaces
        :param read: prints ``{length}`` bytes of ``{device}``
        :param write: writes its input to ``{device}``
        """
        self._hosts = hosts
        self._describe = describe
        self._list_all = list_all
        self._read = read
        self._write_command = write

    def _run(self, host: str, script: str, data: bytes = b'') -> bytes:
        try:
            return self._hosts.run(host, script, data)
        except shell.CommandFailed as error:
            raise ProbeError(str(error)) from error

    def devices(self, server: Mapping[str, Any]) -> list[Device]:
        host = server[HOST]
        return parse_domain(host, self._run(
            host, shell.fill_quoted(self._describe, server=server['id'])))

    def all_devices(self, host: str) -> list[Device]:
        """Return all namespaces of a host, used or not.

        :raises ProbeError: if there is none, or they can't be listed
        """
        try:
            # It has no placeholders, and may well have braces.
            lines = self._run(host, self._list_all).decode().splitlines()
            found = [Device(host, path, int(size))
                     for path, size in map(str.split, lines)]
        except ValueError as error:
            raise ProbeError(f'on {host}: {error}') from error
        if not found:
            raise ProbeError(f'on {host}: "{self._list_all}" names nothing')
        return found

    @staticmethod
    def _command(command: str, block: Block) -> str:
        return shell.fill_quoted(
            command, device=block.device.path, offset=str(block.offset),
            length=str(block.length))

    def read(self, blocks: Sequence[Block]) -> list[bytes]:
        found = []
        # Logging in takes longer than reading, so it is done once a host.
        for host, group in itertools.groupby(
                blocks, lambda block: block.device.host):
            wanted = list(group)
            data = self._run(host, ' && '.join(
                self._command(self._read, block) for block in wanted))
            total = sum(block.length for block in wanted)
            # daxio counts a short copy as a success.
            if len(data) != total:
                raise ProbeError(f'on {host}: {len(data)} of {total} bytes '
                                 f'were read: {wanted}')
            for block in wanted:
                found.append(data[:block.length])
                data = data[block.length:]
        return found

    def _write(self, contents: Mapping[Block, bytes]) -> None:
        for host, group in itertools.groupby(
                contents, lambda block: block.device.host):
            blocks = list(group)
            self._run(
                host, ' && '.join(
                    f'head -c {block.length} | ' +
                    self._command(self._write_command, block)
                    for block in blocks),
                b''.join(contents[block] for block in blocks))


class GuestProbe(Probe):
    """Looks from inside of the guest, where the user may use sudo.

    It needs a driver for persistent memory there, ``blockdev``, ``dd`` and
    ``base64``.
    """

    sees_hosts = False
    PAGE = 4096

    def __init__(self, connect: Callable[[Mapping[str, Any]],
                                         Callable[[str], str]],
                 path: str) -> None:
        """Describe how.

        :param connect: given a server, returns what runs a command line in
            its guest and returns the output
        :param path: of the devices there; ``{index}`` counts from 0
        """
        self._connect = connect
        self._path = path
        # Devices are asked for again whenever a server has moved.
        self._execute: Callable[[str], str] | None = None

    def devices(self, server: Mapping[str, Any]) -> list[Device]:
        self._execute = self._connect(server)
        found = []
        while True:
            path = self._path.format(index=len(found))
            answer = self._run(
                f'if [ -b {path} ]; then sudo blockdev --getsize64 {path}; '
                'else echo none; fi').strip()
            if answer == 'none':
                break
            if not answer.isdecimal():
                raise ProbeError(f'the size of {path} is {answer!r}')
            found.append(
                Device('', path, int(answer) + pattern.LABEL_AREA))
        if not found:
            raise ProbeError(f'the guest has no {path}')
        return found

    def _run(self, command: str) -> str:
        if self._execute is None:
            raise ProbeError('no guest has been asked for its devices yet')
        try:
            return self._execute(command)
        except Exception as error:
            # Whatever the client of the guest raises: it is one of many.
            raise ProbeError(f'in the guest: "{command}": {error}') from error

    def _dd(self, block: Block) -> str:
        if block.offset % self.PAGE or block.length % self.PAGE:
            raise ProbeError(f'not whole pages: {block}')
        return f'sudo dd bs={self.PAGE} count={block.length // self.PAGE} '

    def read(self, blocks: Sequence[Block]) -> list[bytes]:
        return [self._read(block) for block in blocks]

    def _read(self, block: Block) -> bytes:
        path = block.device.path
        # The guest's cache may be older than what is on the device.
        answer = self._run(
            f'sudo blockdev --flushbufs {path}; {self._dd(block)}'
            f'if={path} skip={block.offset // self.PAGE} | base64')
        data = base64.b64decode(answer)
        if len(data) != block.length:
            raise ProbeError(
                f'in the guest: {len(data)} bytes were read: {block}')
        return data

    def _write(self, contents: Mapping[Block, bytes]) -> None:
        for block, data in contents.items():
            text = base64.b64encode(data).decode()
            # One argument of a command has at most 128 KiB on Linux.
            self._run(
                f'echo {text} | base64 -d | {self._dd(block)}iflag=fullblock '
                f'of={block.device.path} seek={block.offset // self.PAGE} '
                'conv=fsync')
