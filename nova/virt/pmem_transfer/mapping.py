# SPDX-License-Identifier: Apache-2.0

"""Reading devices.

A device DAX node can only be mapped. To write one takes ``daxio``, which
flushes what it has stored; reading takes no more than the mapping that
``daxio`` would make as well, and no process for each extent.
"""

from collections import abc
import contextlib
import ctypes
import errno
import mmap
import os
import stat

from nova.virt.pmem_transfer import buffers
from nova.virt.pmem_transfer import layout

#: Bytes of a page of a device, as a rule; the kernel copes with others.
PAGE = 2 * layout.MIB

# From Linux's <asm-generic/mman-common.h>; since 5.14.
_MADV_POPULATE_READ = 22

# mmap.mmap does not tell the address of memory that is only read.
_libc = ctypes.CDLL(None, use_errno=True)
_mmap = _libc.mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int,
                  ctypes.c_int, ctypes.c_int, ctypes.c_long)
_munmap = _libc.munmap
_munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_madvise = _libc.madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_MAP_FAILED = ctypes.c_void_p(-1).value


class Mapping(buffers.Memory):
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

        :raises OSError: if they can't be read
        """
        self._at(offset, length)
        pages = self._pages(offset, length)
        if _madvise(*pages, _MADV_POPULATE_READ):
            number = ctypes.get_errno()
            # An older kernel does not know how.
            if number != errno.EINVAL:
                raise _error(number)
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
