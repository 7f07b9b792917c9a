# SPDX-License-Identifier: Apache-2.0

"""Frames as they arrive, put together in buffers."""

from collections import abc
import dataclasses
import os

from nova.virt.pmem_transfer import buffers
from nova.virt.pmem_transfer import extents
from nova.virt.pmem_transfer import wire


@dataclasses.dataclass
class Frame:
    """A frame that has arrived as a whole.

    :ivar runs: where in the buffer data has come; the rest of the extent is
        not cleared yet
    :ivar proof: the key and the tag of a frame that compares
    """

    header: wire.Header
    runs: list[extents.Run] = dataclasses.field(default_factory=list)
    buffer: buffers.Buffer | None = None
    proof: bytes = b''


class Inbox:
    """Reads frames from a file descriptor, as far as there are buffers."""

    def __init__(
        self, fd: int, free: list[buffers.Buffer],
        check: abc.Callable[[wire.Header, list[extents.Run]], None],
    ) -> None:
        """Start with the first frame.

        :param free: buffers to take from for data
        :param check: called before data is taken in; raises if it is not
            to be
        """
        self._fd = fd
        self._free = free
        self._check = check
        self._sequence = 0
        self._done: Frame | None = None
        self._parser = self._parse()
        self._want = next(self._parser)
        self._within = False
        self.is_empty = False

    def fileno(self) -> int:
        return self._fd

    def is_ready(self) -> bool:
        """Say whether it can take what comes."""
        if not self._want and self._free:
            self._want = next(self._parser)
        return bool(self._want)

    def read(self) -> Frame | None:
        """Read what is there; return a frame if that completes one.

        :raises EOFError: at the end of input
        :raises wire.ProtocolError: if it is not what has to come
        """
        count = os.readv(self._fd, [self._want])
        self.is_empty = count < len(self._want)
        if not count:
            raise EOFError('in the middle of a frame' if self._within
                           else 'before the end of the copy')
        self._within = True
        self._want = self._want[count:]
        if not self._want:
            self._want = next(self._parser)
        done, self._done = self._done, None
        return done

    def _parse(self) -> abc.Iterator[memoryview]:
        """Yield the memory that is to be filled next.

        Empty memory means that there is no buffer.
        """
        while True:
            header = bytearray(wire.HEADER.size)
            yield memoryview(header)
            frame = Frame(wire.Header.unpack(header, self._sequence))
            self._sequence += 1
            if frame.header.kind == wire.DATA:
                yield from self._data(frame)
            elif frame.header.kind == wire.COMPARE:
                self._check(frame.header, [])
                proof = bytearray(wire.KEY + wire.TAG)
                yield memoryview(proof)
                frame.proof = bytes(proof)
            self._within = False
            self._done = frame

    def _data(self, frame: Frame) -> abc.Iterator[memoryview]:
        table = bytearray(frame.header.runs * wire.RUN.size)
        if table:
            yield memoryview(table)
        frame.runs = wire.unpack_runs(table)
        self._check(frame.header, frame.runs)
        if not frame.runs:
            return
        while not self._free:
            yield memoryview(b'')
        frame.buffer = self._free.pop()
        for run in frame.runs:
            yield frame.buffer.view[run.offset:run.offset + run.length]
