# SPDX-License-Identifier: Apache-2.0

"""Memory: what is compared, devices, and buffers that others have as files.

A device DAX node can only be mapped. To write one takes ``daxio``, which
flushes what it has stored; reading takes no more than the mapping that
``daxio`` would make as well, and no process for each extent.

From a file in memory ``daxio`` copies once, where a pipe would cost two copies
of every byte and many changes between processes. The position of the file,
which it moves, proves how many bytes it has read.

As a command this looks whether a device reads as zero, as a whole: in a
process of its own, for memory that is damaged kills who reads it.
"""

from collections import abc
import contextlib
import ctypes
import errno
import mmap
import os
import stat
import sys

from nova.virt.pmem_transfer import extents
from nova.virt.pmem_transfer import processes

#: Bytes of a page of a device, as a rule; the kernel copes with others.
PAGE = 2 * extents.MIB

# From Linux's <asm-generic/mman-common.h>; since 5.14.
_MADV_POPULATE_READ = 22

#: Bytes that are looked at together.
STEP = 64 * PAGE

_libc = ctypes.CDLL(None, use_errno=True)
# memoryviews compare byte by byte, 20 times slower.
_memcmp = _libc.memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)

# mmap.mmap does not tell the address of memory that is only read.
_mmap = _libc.mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int,
                  ctypes.c_int, ctypes.c_int, ctypes.c_long)
_munmap = _libc.munmap
_munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_madvise = _libc.madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_MAP_FAILED = ctypes.c_void_p(-1).value


class Unreadable(processes.Failed):
    """Bytes can't be read."""


class Memory:
    """Bytes from an address on.

    :ivar size: their number
    """

    def __init__(self, address: int, size: int) -> None:
        self._address = address
        self.size = size

    def is_zero(self, offset: int, length: int) -> bool:
        """Say whether bytes are zero: the first one, and each as the next."""
        start = self._at(offset, length)
        return not length or not (
            _memcmp(start, b'\0', 1) or
            _memcmp(start, start + 1, length - 1))

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


class Backlog:
    """Bytes that have come before anybody looks at them."""

    def __init__(self, size: int) -> None:
        """Have none yet.

        :param size: how many it can have
        """
        self._buffer = Buffer(size)
        self._start = self._end = 0

    def __len__(self) -> int:
        return self._end - self._start

    @property
    def has_room(self) -> bool:
        return self._end < self._buffer.size

    def fill(self, read: abc.Callable[[memoryview], int]) -> bool:
        """Add what comes; return whether that was not the end.

        :param read: reads into a buffer, and returns how many bytes
        """
        count = read(self._buffer.view[self._end:])
        self._end += count
        return count > 0

    def take(self, view: memoryview) -> int:
        """Move bytes to the start of a view; return how many."""
        count = min(len(view), len(self))
        view[:count] = self._buffer.view[self._start:self._start + count]
        self._start += count
        if not self:
            self._start = self._end = 0
        return count


class Unsaid:
    """Texts that wait to be said.

    A fork shares them with its parent, who can send them when it is killed.

    :ivar count: how many this process has added
    """

    def __init__(self) -> None:
        self._fd = os.memfd_create('pmem-unsaid')
        self.count = 0

    def add(self, text: bytes) -> None:
        os.write(self._fd, text)
        self.count += 1

    def send(self, fd: int) -> None:
        """Send all; do not wait, and do not try again.

        :param fd: a socket that does not block
        :raises TimeoutError: if it has no room: nobody reads what is sent
        """
        texts = os.pread(self._fd, os.fstat(self._fd).st_size, 0)
        if not texts:
            return
        # Before: a signal may end us at any moment.
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self.count = sent = 0
        with contextlib.suppress(BlockingIOError):
            sent = os.write(fd, texts)
        if sent < len(texts):
            raise TimeoutError('nobody reads the answers')

    def close(self) -> None:
        os.close(self._fd)


class Mapping(Memory):
    """A device, mapped to be read.

    Memory that is not there kills by SIGBUS whoever reads it. So its bytes are
    looked at only while they are :meth:`at_hand`, which fails for that. Damage
    shows only when it is read, and then the kernel kills all who have the page
    mapped.
    """

    def __init__(self, path: str, size: int) -> None:
        """Map it.

        :param size: bytes of the device; it can only be mapped as a whole if
            its alignment is not known
        :raises OSError: if it can't be mapped
        """
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
            if stat.S_ISREG(status.st_mode) and status.st_size < size:
                raise OSError('%s has %d bytes and not %d' % (
                    path, status.st_size, size))
            address = _mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED,
                            fd, 0)
            if address == _MAP_FAILED:
                raise _error(ctypes.get_errno())
        finally:
            os.close(fd)
        _madvise(address, size, mmap.MADV_DONTDUMP)
        super().__init__(address, size)
        self._view = memoryview(
            (ctypes.c_ubyte * size).from_address(address)).cast('B')

    def close(self) -> None:
        self._view.release()
        _munmap(self._address, self.size)

    @contextlib.contextmanager
    def at_hand(self, offset: int, length: int) -> abc.Iterator[memoryview]:
        """Have bytes in memory; yield them, and let go of them.

        What is not let go is counted as ours for files in memory, which stand
        in for devices. Only these pages: the kernel looks at all that it is
        told of.

        :raises Unreadable: if they can't be read
        """
        self._at(offset, length)
        pages = self._pages(offset, length)
        if _madvise(*pages, _MADV_POPULATE_READ):
            number = ctypes.get_errno()
            # An older kernel does not know how.
            if number != errno.EINVAL:
                raise Unreadable('it can not be read: %s' % _error(number))
        try:
            yield self._view[offset:offset + length]
        finally:
            self._let_go(*pages)

    def _pages(self, offset: int, length: int) -> tuple[int, int]:
        """Return the address and size of the pages that hold bytes."""
        start = offset // PAGE * PAGE
        end = min(-(-(offset + length) // PAGE) * PAGE, self.size)
        return self._address + start, end - start

    @staticmethod
    def _let_go(address: int, size: int) -> None:
        # Devices may refuse.
        _madvise(address, size, mmap.MADV_DONTNEED)


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def first_trace(path: str, size: int) -> int | None:
    """Return where there is something else than zero, about; or None.

    :param size: bytes of the device
    :raises OSError: if it can't be mapped
    :raises Unreadable: if it can't be read
    """
    device = Mapping(path, size)
    try:
        for offset in range(0, size, STEP):
            length = min(STEP, size - offset)
            with device.at_hand(offset, length):
                if not device.is_zero(offset, length):
                    return offset
        return None
    finally:
        device.close()


def main() -> int:
    path, size = sys.argv[1], int(sys.argv[2])
    found = first_trace(path, size)
    if found is None:
        return 0
    print('there is data within %d bytes from %d on' % (STEP, found),
          file=sys.stderr)
    return 1


if __name__ == '__main__':
    sys.exit(main())
