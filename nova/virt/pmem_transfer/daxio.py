# SPDX-License-Identifier: Apache-2.0

"""Running daxio, and not believing it.

``daxio`` stores all that it reads, and flushes it once, at the end. Its exit
status says little: it is 0 for a copy that was cut short by the end of its
input, or of the device. So a transfer counts only if the process ended well,
said once that it copied the expected number of bytes, and moved the position
of our file by as many.

One that is killed before it has flushed leaves bytes in the caches of the CPU:
whoever compares them finds them equal, and a loss of power takes them away. So
each extent is noted before it is written, and again when that has ended well.
One that is noted once is not believed, but written again. What was noted need
not survive a loss of power: then the bytes do not, either.
"""

import os
import re
import struct
import typing as ty

from nova.virt.pmem_transfer import processes

if ty.TYPE_CHECKING:
    from nova.virt.pmem_transfer import memory

#: What daxio 1.12 writes to stderr after a transfer, however short it was.
COPIED = re.compile(r'^daxio: copied (\d+) bytes to device ', re.MULTILINE)

#: How a record begins: one that is cut short shifts all that come after it.
_MARK = b'pmem'

#: That, whether it ended, device, offset, length; native sizes, as the file
#: stays here.
_RECORD = struct.Struct('=4s?IQQ')

#: Bytes of notes at most: as many as 160 TiB make. A hostile peer makes more.
MOST_NOTED = 2 ** 30

#: Bytes that are read at a time: whole records.
_CHUNK = 4096 * _RECORD.size

#: What identifies an extent: device, offset, length.
Place = tuple[int, ...]


class Daxio(processes.Process):
    """A transfer to a device, from a place in a buffer."""

    def __init__(
        self, guard: processes.Guard, argv: list[str], length: int,
        buffer: 'memory.Buffer | None' = None, start: int = 0,
        **streams: ty.Any,
    ) -> None:
        self._length = length
        self._buffer = buffer
        self._start = start
        self._late: float | None = None
        if buffer is not None:
            buffer.seek(start)
        super().__init__(guard, ['daxio', *argv, '-l', str(length)],
                         **streams)

    def give_up(self, seconds: float) -> None:
        """Kill it for having taken so long."""
        self._late = seconds
        self.kill()

    def finish(self) -> None:
        """Check that it has done what was asked, and forget it.

        :raises Failed: if not, with what it said
        """
        try:
            status = self.status()
            said = self.message() or 'nothing'
            copied = [int(count) for count in COPIED.findall(said)]
            moved = copied and (
                self._length if self._buffer is None
                else self._buffer.position() - self._start)
        finally:
            self.close()
        if self._late is not None:
            raise processes.Failed(
                'daxio did not move %d bytes in %g seconds and was killed' %
                (self._length, self._late))
        if status != 0:
            raise processes.Failed('daxio %s: %s' % (
                processes.how_ended(status), said))
        if copied != [self._length] or moved != self._length:
            raise processes.Failed(
                'daxio was to move %d bytes and said: %s' %
                (self._length, said))


def write(guard: processes.Guard, device: str, offset: int, length: int,
          buffer: 'memory.Buffer', start: int, **kwargs: ty.Any) -> Daxio:
    """Start to write bytes of a buffer to a device.

    Only root may clear bad blocks, and nobody here is.

    :param start: where in the buffer they are
    :raises processes.Failed: if daxio can't be started
    """
    return Daxio(guard, ['-o', device, '-s', str(offset), '-b', 'no'],
                 length, buffer, start, stdin=buffer.fd, **kwargs)


def zero(guard: processes.Guard, device: str, offset: int, length: int,
         **kwargs: ty.Any) -> Daxio:
    """Start to zero bytes of a device.

    :raises processes.Failed: if daxio can't be started
    """
    return Daxio(guard, ['-z', '-o', device, '-s', str(offset), '-b', 'no'],
                 length, **kwargs)


class Unfinished:
    """The notes of a copy; all its streams make them, in one file."""

    def __init__(self, fd: int) -> None:
        """Read them.

        :param fd: a file that is open to read, and to append to
        :raises processes.Failed: if they can't be read
        """
        self._fd = fd
        self._is_torn = False
        self._left: set[Place] = set()
        try:
            # Each pass adds to it: it may be larger than what memory is for.
            for offset in range(0, max(1, os.fstat(fd).st_size), _CHUNK):
                self._take(os.pread(fd, _CHUNK, offset))
        except OSError as error:
            raise _unnoted(error)

    def _take(self, data: bytes) -> None:
        whole = len(data) // _RECORD.size * _RECORD.size
        # A disk that was full has cut one short.
        self._is_torn |= whole != len(data)
        for mark, ended, *place in _RECORD.iter_unpack(data[:whole]):
            self._is_torn |= mark != _MARK
            (self._left.discard if ended else self._left.add)(tuple(place))

    def begin(self, *place: int) -> None:
        """Note that an extent is about to be written.

        :param place: device, offset and length, as everywhere here
        :raises processes.Failed: if it can't be noted
        """
        self._left.add(place)
        self._note(False, place)

    def end(self, *place: int) -> None:
        """Note that all of it was written and flushed.

        :raises processes.Failed: if it can't be noted
        """
        self._note(True, place)
        self._left.discard(place)

    def _note(self, ended: bool, place: Place) -> None:
        try:
            if os.fstat(self._fd).st_size >= MOST_NOTED:
                raise _unnoted('there are too many notes')
            count = os.write(self._fd, _RECORD.pack(_MARK, ended, *place))
        except OSError as error:
            raise _unnoted(error)
        if count < _RECORD.size:
            self._is_torn = True
            raise _unnoted('only %d bytes could be written' % count)

    def has(self, device: int, start: int, length: int) -> bool:
        """Say whether any of an extent may have been begun and not ended."""
        return self._is_torn or any(
            device == other and start < offset + size and
            offset < start + length for other, offset, size in self._left)


def _unnoted(reason: object) -> Exception:
    return processes.Failed('what is written can not be noted: %s' % reason)
