# SPDX-License-Identifier: Apache-2.0

"""What sender and receiver say to each other.

Both begin with a line of JSON that names the version of the protocol. Then
the sender sends frames, each with a fixed header, and the receiver answers
each in one line of JSON, in order. ``doc/protocol.rst`` has the whole.
"""

from collections import abc
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

#: Kinds of frames: data, for an extent that has to be as said; a digest, to
#: ask whether it is already; and the end.
DATA, COMPARE, END = KINDS = b'D', b'C', b'E'

#: A one-time key and the tag that it gives of an extent's bytes.
KEY, TAG = 16, 16

# A nonce must differ between messages of one key, and there is only one.
_NONCE = bytes(12)


class ProtocolError(Exception):
    """The peer said something that it must not."""


class Header(ty.NamedTuple):
    """The fixed part of a frame; see HEADER."""

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
        if kind == DATA and runs > extents.most_runs(length):
            raise ProtocolError('%d runs in %d bytes' % (runs, length))
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


class Proof:
    """The tag of bytes that are given piece by piece.

    It shows whether both ends have the same bytes, without sending them. A
    resumed copy asks this of whole devices. The fastest digest of hashlib
    takes three times as long as the authentication of AES-GCM, on a CPU that
    helps with both, and that would be most of the time of the copy. A new
    random key for each comparison makes it as good: two different texts of an
    extent's size have the same tag with a probability below 2**-100, whoever
    chose them, for the key was not known then.
    """

    def __init__(self, key: bytes) -> None:
        # Only a resumed copy needs this, and importing it takes a while.
        from cryptography.hazmat.primitives import ciphers
        from cryptography.hazmat.primitives.ciphers import algorithms
        from cryptography.hazmat.primitives.ciphers import modes

        self._encryptor = ciphers.Cipher(
            algorithms.AES(key), modes.GCM(_NONCE)).encryptor()

    def update(self, data: memoryview) -> None:
        self._encryptor.authenticate_additional_data(data)

    def tag(self) -> bytes:
        self._encryptor.finalize()
        return self._encryptor.tag


def proof(data: 'bytes | memoryview') -> bytes:
    """Return what is said to compare bytes: a new key, and its tag."""
    key = os.urandom(KEY)
    proved = Proof(key)
    proved.update(data)
    return key + proved.tag()


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
