# SPDX-License-Identifier: Apache-2.0

"""Where a writer was killed.

``daxio`` stores with ordinary stores what it reads, and flushes once, when it
has all of it. One that is killed in between leaves bytes in the caches of the
CPU: whoever compares them finds them equal, and a loss of power takes them
away. So each extent is noted before it is written, and again when that has
ended well. One that is noted once is not believed, but written again.

What was noted need not survive a loss of power: then the bytes do not, either.
"""

import os
import struct

from nova.virt.pmem_transfer import processes

#: How a record begins: one that is cut short shifts all that come after it.
_MARK = b'pmem'

#: That, whether it ended, device, offset, length; native sizes, as the file
#: stays here.
_RECORD = struct.Struct('=4s?IQQ')

#: Bytes that are read at a time: whole records.
_CHUNK = 4096 * _RECORD.size

#: What identifies an extent: device, offset, length.
Place = tuple[int, ...]


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
