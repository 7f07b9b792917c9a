# SPDX-License-Identifier: Apache-2.0
"""How the tests get at the data of a server's vPMEM devices."""

import abc
import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
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
    def read(self, device: Device, offset: int, length: int) -> bytes:
        """Return a part of a device, offset and length in bytes.

        :raises ProbeError: if it can't be read, or less was
        """

    @abc.abstractmethod
    def write(self, device: Device, offset: int, data: bytes) -> None:
        """Write to a device, from an offset in bytes.

        :raises ProbeError: if it can't be written
        """


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
        self._write = write

    def _run(self, host: str, command: str, data: bytes = b'',
             **values: object) -> bytes:
        try:
            return self._hosts.run_command(
                host, command,
                {name: str(value) for name, value in values.items()}, data)
        except shell.CommandFailed as error:
            raise ProbeError(str(error)) from error

    def devices(self, server: Mapping[str, Any]) -> list[Device]:
        host = server[HOST]
        return parse_domain(
            host, self._run(host, self._describe, server=server['id']))

    def all_devices(self, host: str) -> list[Device]:
        """Return all namespaces of a host, used or not.

        :raises ProbeError: if there is none, or they can't be listed
        """
        try:
            # It has no placeholders, and may well have braces.
            lines = self._hosts.run(
                host, self._list_all).decode().splitlines()
            found = [Device(host, path, int(size))
                     for path, size in map(str.split, lines)]
        except (shell.CommandFailed, ValueError) as error:
            raise ProbeError(str(error)) from error
        if not found:
            raise ProbeError(f'on {host}: "{self._list_all}" names nothing')
        return found

    def read(self, device: Device, offset: int, length: int) -> bytes:
        data = self._run(device.host, self._read, device=device.path,
                         offset=offset, length=length)
        # daxio counts a short copy as a success.
        if len(data) != length:
            raise ProbeError(
                f'on {device.host}: {len(data)} of {length} bytes were read '
                f'from {device.path} at {offset}')
        return data

    def write(self, device: Device, offset: int, data: bytes) -> None:
        self._run(device.host, self._write, data, device=device.path,
                  offset=offset, length=len(data))
        if self.read(device, offset, len(data)) != data:
            raise ProbeError(
                f'on {device.host}: {len(data)} bytes were written to '
                f'{device.path} at {offset} and are not there')


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

    def _dd(self, offset: int, length: int) -> str:
        if offset % self.PAGE or length % self.PAGE:
            raise ProbeError(f'{length} bytes at {offset} are no whole pages')
        return f'sudo dd bs={self.PAGE} count={length // self.PAGE} '

    def read(self, device: Device, offset: int, length: int) -> bytes:
        # The guest's cache may be older than what is on the device.
        answer = self._run(
            f'sudo blockdev --flushbufs {device.path}; ' +
            self._dd(offset, length) +
            f'if={device.path} skip={offset // self.PAGE} | base64')
        data = base64.b64decode(answer)
        if len(data) != length:
            raise ProbeError(
                f'in the guest: {len(data)} of {length} bytes were read from '
                f'{device.path} at {offset}')
        return data

    def write(self, device: Device, offset: int, data: bytes) -> None:
        text = base64.b64encode(data).decode()
        # One argument of a command has at most 128 KiB on Linux.
        self._run(
            f'echo {text} | base64 -d | ' + self._dd(offset, len(data)) +
            f'iflag=fullblock of={device.path} seek={offset // self.PAGE} '
            'conv=fsync')
        if self.read(device, offset, len(data)) != data:
            raise ProbeError(
                f'in the guest: {len(data)} bytes were written to '
                f'{device.path} at {offset} and are not there')


def _places(probe: Probe, device: Device) -> list[pattern.Place]:
    places = pattern.guest_places(device.size)
    if probe.sees_hosts:
        places += pattern.label_places()
    return places


def not_zero(probe: Probe, devices: Iterable[Device]) -> list[str]:
    """Say which places are not zero of those where data would be put.

    Whoever gets a namespace must find it zero.

    :returns: a line for each place
    :raises ProbeError: if a device can't be read
    """
    return [f'{place.name} of {device} is not zero'
            for device in devices for place in _places(probe, device)
            if any(probe.read(
                device, place.start(device.size), pattern.BLOCK))]


class Mark:
    """Known data that was written to all devices of a server.

    The devices it was written to are remembered: those it is looked for on
    later may be larger.
    """

    def __init__(self, probe: Probe, devices: Sequence[Device]) -> None:
        """Write the data.

        :raises ProbeError: if that fails
        :raises ValueError: if a device is too small
        """
        self._probe = probe
        self._pattern = pattern.Pattern()
        self.devices = list(devices)
        for index, device in enumerate(self.devices):
            for place in _places(self._probe, device):
                probe.write(device, place.start(device.size),
                            self._pattern.block(index, place))

    def missing(self, devices: Sequence[Device]) -> list[str]:
        """Say where the data is not, that should be on these devices.

        :param devices: in the order of those that it was written to; there
            may be more, and they may be larger
        :returns: a line for each place; none means that all is there
        :raises ProbeError: if a device can't be read
        """
        if len(devices) < len(self.devices):
            return [f'{len(devices)} devices have no room for what was on '
                    f'{len(self.devices)}']
        wrong = []
        for index, (old, new) in enumerate(zip(self.devices, devices)):
            if new.size < old.size:
                wrong.append(f'{new} has no room for what was on {old}')
                continue
            for place in _places(self._probe, old):
                if not self._holds(new, index, place):
                    wrong.append(f'{place.name} of {new} does not have what '
                                 f'was written to {old}')
            if new.size > old.size and self._probe.sees_hosts:
                # What the guest has gained, before the label area.
                if any(self._probe.read(
                        new, old.size - pattern.LABEL_AREA, pattern.BLOCK)):
                    wrong.append(f'{new} is not zero behind the data')
        return wrong

    def _holds(self, device: Device, index: int,
               place: pattern.Place) -> bool:
        found = self._probe.read(
            device, place.start(device.size), pattern.BLOCK)
        return found == self._pattern.block(index, place)

    def left_on(self, devices: Iterable[Device]) -> list[str]:
        """Say where this data still is.

        Others may have written to the same devices since.

        :returns: a line for each place
        :raises ProbeError: if a device can't be read
        """
        found = []
        for device in devices:
            for index, old in enumerate(self.devices):
                for place in _places(self._probe, old):
                    if place.start(device.size) + pattern.BLOCK > device.size:
                        continue
                    if self._holds(device, index, place):
                        found.append(
                            f'{place.name} of {device} still has what was '
                            f'written to {old}')
        return found
