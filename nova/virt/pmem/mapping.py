#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.

"""Reading devices.

A device DAX node can only be mapped. To write one takes ``daxio``, which
stores past the caches of the CPU and flushes; reading takes no more than the
mapping that ``daxio`` would make as well, and no process for each extent.
"""

import contextlib
import mmap
import os
import typing as ty

from nova.virt.pmem import layout

if ty.TYPE_CHECKING:
    from nova.virt.pmem import buffers

#: Bytes of a page of a device, as a rule; the kernel copes with others.
PAGE = 2 * layout.MIB


class Mapping:
    """A device, mapped to be read."""

    def __init__(self, path: str, size: int) -> None:
        """Map it.

        :param size: bytes of the device; it can only be mapped as a whole if
            its alignment is not known
        :raises OSError: if it can't be mapped
        """
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._map = mmap.mmap(fd, size, access=mmap.ACCESS_READ)
        except ValueError as error:
            raise OSError(str(error))
        finally:
            os.close(fd)
        self._view = memoryview(self._map)

    def close(self) -> None:
        self._view.release()
        self._map.close()

    def copy(self, offset: int, length: int,
             buffer: 'buffers.Buffer', at: int = 0) -> None:
        """Copy bytes of the device into a buffer.

        The kernel does it, so that memory that is damaged or not there makes
        it fail, and does not kill us with SIGBUS.

        :raises OSError: if they can't be read
        """
        start, end = offset, offset + length
        while offset < end:
            count = os.pwrite(buffer.fd, self._view[offset:end], at)
            offset, at = offset + count, at + count
        # What is copied need not stay mapped. It is counted as ours only for
        # files in memory, which stand in for devices; devices may refuse. Only
        # these pages: the kernel looks at all that it is told of.
        first, last = start // PAGE, (end - 1) // PAGE
        with contextlib.suppress(OSError):
            self._map.madvise(mmap.MADV_DONTNEED, first * PAGE,
                              (last + 1 - first) * PAGE)
