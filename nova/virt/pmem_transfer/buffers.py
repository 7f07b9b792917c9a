# SPDX-License-Identifier: Apache-2.0

"""Memory: what is compared, and buffers that other processes have as files.

A pipe would cost two copies of every byte and many changes between processes.
From a file in memory ``daxio`` copies once, and the position of the file,
which it moves, proves how many bytes it has read.
"""

import ctypes
import mmap
import os

_libc = ctypes.CDLL(None)
# memoryviews compare byte by byte, 20 times slower.
_memcmp = _libc.memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)

_ZEROS = ctypes.create_string_buffer(64 * 1024)
_ZEROS_AT = ctypes.addressof(_ZEROS)


class Memory:
    """Bytes from an address on.

    :ivar size: their number
    """

    def __init__(self, address: int, size: int) -> None:
        self._address = address
        self.size = size

    def is_zero(self, offset: int, length: int) -> bool:
        """Say whether bytes are zero."""
        start = self._at(offset, length)
        end = start + length
        while start < end:
            size = min(len(_ZEROS), end - start)
            if _memcmp(start, _ZEROS_AT, size):
                return False
            start += size
        return True

    def equals(self, offset: int, other: 'Memory', at: int,
               length: int) -> bool:
        """Compare bytes with those of another one at an offset of its own."""
        return not _memcmp(self._at(offset, length), other._at(at, length),
                           length)

    def _at(self, offset: int, length: int) -> int:
        """Return the address of bytes.

        :raises ValueError: if they are not all ours
        """
        if not 0 <= offset <= offset + length <= self.size:
            raise ValueError('%d bytes at %d of %d' % (
                length, offset, self.size))
        return self._address + offset


class Buffer(Memory):
    """An anonymous file in memory, and a mapping of it.

    :ivar fd: the file
    :ivar view: its bytes
    """

    def __init__(self, size: int) -> None:
        self.fd = os.memfd_create('pmem-copy')
        os.ftruncate(self.fd, size)
        self._map = mmap.mmap(self.fd, size)
        # Damaged memory kills, and a tenant's data is not to lie around.
        self._map.madvise(mmap.MADV_DONTDUMP)
        self.view = memoryview(self._map)
        self._anchor = ctypes.c_char.from_buffer(self._map)
        super().__init__(ctypes.addressof(self._anchor), size)

    def close(self) -> None:
        del self._anchor
        self.view.release()
        self._map.close()
        os.close(self.fd)

    def seek(self, position: int) -> None:
        """Set the position of the file."""
        os.lseek(self.fd, position, os.SEEK_SET)

    def position(self) -> int:
        """Return how far whoever has the file has read or written it."""
        return os.lseek(self.fd, 0, os.SEEK_CUR)

    def clear(self, offset: int, length: int) -> None:
        """Set bytes to zero."""
        ctypes.memset(self._at(offset, length), 0, length)
