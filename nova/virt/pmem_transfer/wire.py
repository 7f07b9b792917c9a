# SPDX-License-Identifier: Apache-2.0

"""What nova-compute asks of sender and receiver, and what they say then.

A job goes to either as one line of JSON. To each other both say first a line
of JSON that names the version of the protocol. Then the sender sends frames,
each with a fixed header, and the receiver answers each in one line of JSON, in
order. ``doc/protocol.rst`` has the whole.
"""

from collections import abc
import dataclasses
import json
import os
import struct
import typing as ty

from nova.virt.pmem_transfer import extents

#: Version of everything after the first line. Ends of another version refuse
#: each other; the first line itself keeps its form for ever.
VERSION = 2

#: The key of the first line that makes it one of ours.
NAME = 'nova-pmem-copy'

#: The longest line in bytes, with its end.
LONGEST_LINE = 64 * 1024

#: Bytes of a text that go into a message.
QUOTED = 500

MAGIC = b'PMEM'
# Magic, kind, device, sequence number, offset, length, number of runs.
HEADER = struct.Struct('!4scHIQII')
RUN = struct.Struct('!II')

#: Kinds of frames: data, for an extent that has to be as said; tags, to ask
#: whether it is already, or which parts are; data for some parts; and the end.
DATA, COMPARE, PATCH, END = KINDS = b'D', b'C', b'P', b'E'

#: A one-time key and the tag that it gives of bytes.
KEY, TAG = 16, 16

#: Bytes that are compared together. A guest often writes a page here and
#: there, and tags of an extent's parts cost next to nothing over one of all.
PART = 64 * 1024

#: Version of the jobs: nova-compute and what it starts are of the same version
#: but for the moment of an upgrade.
JOB_VERSION = 3


@dataclasses.dataclass(frozen=True)
class Device:
    """A device to be copied; sizes are in bytes.

    :ivar name: of the namespace on this host
    :ivar path: of its device node
    :ivar target_name: of the namespace on the other host
    """

    name: str
    path: str
    size: int
    target_name: str
    target_size: int


@dataclasses.dataclass(frozen=True)
class Target:
    """A device that may be written; sizes are in bytes.

    :ivar name: of its namespace
    :ivar path: of its device node
    """

    name: str
    path: str
    size: int
    source_size: int

    def described(self) -> dict[str, ty.Any]:
        """Return what is said of it over the wire: never its path."""
        return {'name': self.name, 'size': self.size,
                'source_size': self.source_size}


@dataclasses.dataclass(frozen=True)
class _Job:
    """Goes over a pipe as one line of JSON."""

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))  # noqa: N324

    @classmethod
    def from_json(cls, text: str) -> ty.Self:
        """Read what :meth:`to_json` wrote.

        :raises ValueError: if it is anything else
        """
        try:
            fields = json.loads(text)  # noqa: N324
            if fields.get('version') != JOB_VERSION:
                raise ValueError('version %r' % (fields.get('version'),))
            return cls(**{name: tuple(value) if isinstance(value, list)
                          else value for name, value in fields.items()})
        except (AttributeError, RecursionError, TypeError) as error:
            raise ValueError(str(error)) from error


@dataclasses.dataclass(frozen=True)
class Sending(_Job):
    """All that a sender has to know.

    :ivar devices: in the order of the ticket
    :ivar socket: the path at which the receiver listens, on its host
    :ivar address: of that host; empty if it is this one
    :ivar ssh: the command that leads there, with its options
    :ivar local: how the paths of sockets of ssh begin, where nobody else may
        open any
    :ivar join: the command that joins its input and output to a socket there;
        empty where ssh forwards
    :ivar streams: connections at once
    :ivar extent: bytes of an extent
    :ivar bandwidth: bytes per second over all streams, 0 for no limit
    :ivar stall_timeout: seconds that a stream may stand still
    :ivar attempts: how often to try an extent, or a connection
    :ivar patience: seconds to go on trying once the receiver was reached
    :ivar time_limit: seconds that this sender may take; 0 for no limit
    :ivar attempt: which sender of this copy it is, from 0; all but the first
        look what is there already
    :ivar parent: the process that wants it, whose child the sender is; 0 if
        that does not matter
    """

    devices: tuple[Device, ...]
    socket: str
    address: str = ''
    ssh: tuple[str, ...] = ('ssh',)
    local: str = ''
    join: str = ''
    streams: int = 2
    extent: int = 8 * extents.MIB
    bandwidth: int = 0
    stall_timeout: float = 60
    attempts: int = 3
    patience: float = 60
    time_limit: float = 0
    attempt: int = 0
    parent: int = 0
    version: int = JOB_VERSION

    def __post_init__(self) -> None:
        object.__setattr__(self, 'devices', tuple(
            each if isinstance(each, Device) else Device(**each)
            for each in self.devices))

    @property
    def total(self) -> int:
        """The bytes of all targets."""
        return sum(device.target_size for device in self.devices)


@dataclasses.dataclass(frozen=True)
class Receiving(_Job):
    """All that a receiver has to know.

    :ivar socket: the path at which to listen
    :ivar targets: what may be written, in the order of the ticket
    :ivar notes: the file descriptor of the notes, which is locked
    """

    socket: str
    targets: tuple[Target, ...]
    notes: int
    version: int = JOB_VERSION

    def __post_init__(self) -> None:
        object.__setattr__(self, 'targets', tuple(
            each if isinstance(each, Target) else Target(**each)
            for each in self.targets))


class ProtocolError(Exception):
    """The peer said something that it must not."""


class Header(ty.NamedTuple):
    """The fixed part of a frame; see HEADER.

    :ivar runs: the number of runs of data, or of tags that compare
    """

    kind: bytes
    sequence: int
    device: int = 0
    offset: int = 0
    length: int = 0
    runs: int = 0

    def pack(self) -> bytes:
        return HEADER.pack(MAGIC, self.kind, self.device, self.sequence,
                           self.offset, self.length, self.runs)

    @classmethod
    def unpack(cls, data: bytes, sequence: int) -> 'Header':
        """Read a header.

        :param sequence: the number that it has to have
        :raises ProtocolError: if it is none, or not the next one
        """
        magic, kind, device, number, offset, length, runs = HEADER.unpack(data)
        if magic != MAGIC or kind not in KINDS:
            raise ProtocolError('no frame but %r' % bytes(data))
        if number != sequence:
            raise ProtocolError('frame %d where %d has to come' % (
                number, sequence))
        # A patch without any would end the doubt about what is there.
        least = 1 if kind == PATCH else 0
        if kind in (DATA, PATCH) and not (
                least <= runs <= extents.most_runs(length)):
            raise ProtocolError('%d runs in %d bytes' % (runs, length))
        if kind == COMPARE and runs != count_tags(length):
            raise ProtocolError('%d tags of %d bytes' % (runs, length))
        return cls(kind, number, device, offset, length, runs)

    @property
    def place(self) -> list[int]:
        return [self.device, self.offset, self.length]


def pack_runs(runs: ty.Iterable[extents.Run]) -> bytes:
    return b''.join(RUN.pack(*run) for run in runs)


def unpack_runs(data: bytes) -> list[extents.Run]:
    return [extents.Run(*fields) for fields in RUN.iter_unpack(data)]


def line(**fields: ty.Any) -> bytes:
    """Return a line of JSON."""
    return json.dumps(fields).encode('ascii') + b'\n'  # noqa: N324


def hello(**fields: ty.Any) -> bytes:
    """Return the first line of either side."""
    return line(**{NAME: VERSION}, **fields)


def parse_line(data: bytes) -> dict[str, ty.Any]:
    """Read a line of JSON.

    :raises ProtocolError: if it is anything but an object
    """
    try:
        fields = json.loads(data)  # noqa: N324
    except (ValueError, RecursionError):
        raise ProtocolError('%s is no JSON' % quoted(data))
    if not isinstance(fields, dict):
        raise ProtocolError('%s is no JSON object' % quoted(data))
    return fields


def parse_hello(data: bytes, peer: str) -> dict[str, ty.Any]:
    """Read the peer's first line.

    :param peer: what to call it in messages
    :raises ProtocolError: if it is not ours, or of another version
    """
    try:
        fields = parse_line(data)
        version = fields[NAME]
    except (ProtocolError, KeyError):
        raise ProtocolError(
            '%s should begin with the handshake of a copy, and printed %s' %
            (peer, quoted(data)))
    if type(version) is not int or version != VERSION:
        raise ProtocolError(
            '%s speaks version %s of the protocol for copying vPMEM, and this '
            'end version %d; finish the upgrade of both hosts first' %
            (peer, repr(version)[:QUOTED], VERSION))
    return fields


def quoted(data: bytes) -> str:
    """Return data in a form that is fit for a message."""
    text = data[:QUOTED].decode('utf-8', 'replace')
    return repr(text) + (' ...' if len(data) > QUOTED else '')


def count_tags(length: int) -> int:
    """Return how many tags compare an extent.

    :param length: its bytes
    """
    return -(-length // PART)


def parts(length: int) -> list[extents.Run]:
    """Return what each tag of an extent is of."""
    return [extents.Run(offset, min(PART, length - offset))
            for offset in range(0, length, PART)]


def parse_runs(found: ty.Any, length: int) -> list[extents.Run]:
    """Read which parts of an extent differ; neighbours become one run.

    :raises ProtocolError: if it is not parts of that, in their order
    """
    runs: list[extents.Run] = []
    end = 0
    for each in found if isinstance(found, list) and found else [None]:
        if not (isinstance(each, list) and len(each) == 2 and
                all(type(number) is int for number in each) and
                end <= each[0] < each[0] + each[1] <= length):
            raise ProtocolError('it says that %s differ of %d bytes' % (
                quoted(line(runs=found)), length))
        start = runs.pop().offset if runs and end == each[0] else each[0]
        end = sum(each)
        runs.append(extents.Run(start, end - start))
    return runs


def tags(key: bytes, data: 'bytes | memoryview') -> bytes:
    """Return the tags of an extent's parts, which show whether both ends have
    the same.

    A copy asks this of whole devices. The fastest digest of hashlib takes
    three times as long as the authentication of AES-GCM, on a CPU that helps
    with both, and that would be most of the time. A new random key for each
    frame makes it as good: two different texts of a part's size have the same
    tag with a probability below 2**-100, whoever chose them, for the key was
    not known then.
    """
    # Only a copy that compares needs this, and importing it takes a while.
    from cryptography.hazmat.primitives.ciphers import aead

    # Nothing is encrypted, so a tag is all that comes.
    tag = aead.AESGCM(key).encrypt
    view = memoryview(data)
    # The nonce must differ between messages of one key.
    return b''.join([
        tag(number.to_bytes(12, 'big'), b'', view[number * PART:][:PART])
        for number in range(count_tags(len(view)))])


def prepare_tags() -> None:
    """Import what tags need, which takes a while."""
    tags(bytes(KEY), b'')


def proof(data: 'bytes | memoryview') -> bytes:
    """Return what is said to compare bytes: a new key, and their tags."""
    key = os.urandom(KEY)
    return key + tags(key, data)


class Lines:
    """Lines that come in piece by piece."""

    def __init__(self, read: abc.Callable[[int], bytes]) -> None:
        """Start with the first one.

        :param read: reads so many bytes at most, like ``os.read``
        """
        self._read = read
        self.rest = b''
        self.ended = False

    def read(self) -> list[bytes]:
        """Read once, and return the lines that are complete.

        :raises ProtocolError: if a line is too long
        """
        data = self._read(LONGEST_LINE)
        self.ended = not data
        *lines, self.rest = (self.rest + data).split(b'\n')
        if len(self.rest) >= LONGEST_LINE:
            raise ProtocolError('a line without end: %s' % quoted(self.rest))
        return lines
