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

#: Whether it ended, device, offset, length; native sizes, the file stays here.
_RECORD = struct.Struct('=?IQQ')

#: What is appended to the name of the ticket.
SUFFIX = '.writes'

#: What identifies an extent: device, offset, length.
Place = tuple[int, int, int]


class Unfinished:
    """The notes of a copy; all its streams make them, in one file."""

    def __init__(self, ticket_path: str) -> None:
        self._fd = os.open(ticket_path + SUFFIX, os.O_RDWR | os.O_CREAT |
                           os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._left = self._read()

    def _read(self) -> set[Place]:
        left = set()
        with open(self._fd, 'rb', closefd=False) as notes:
            data = notes.read()
        whole = len(data) // _RECORD.size * _RECORD.size
        for ended, *place in _RECORD.iter_unpack(data[:whole]):
            if ended:
                left.discard(tuple(place))
            else:
                left.add(tuple(place))
        return left

    def begin(self, place: Place) -> None:
        """Note that an extent is about to be written.

        :raises OSError: if it can't be noted
        """
        self._left.add(place)
        os.write(self._fd, _RECORD.pack(False, *place))

    def end(self, place: Place) -> None:
        """Note that all of it was written and flushed."""
        self._left.discard(place)
        os.write(self._fd, _RECORD.pack(True, *place))

    def has(self, place: Place) -> bool:
        """Say whether any of an extent may have been begun and not ended."""
        device, start, length = place
        return any(device == other and start < offset + size and
                   offset < start + length
                   for other, offset, size in self._left)
