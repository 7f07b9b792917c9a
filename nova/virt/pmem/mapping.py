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

if ty.TYPE_CHECKING:
    from nova.virt.pmem import buffers


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
        while length > 0:
            count = os.pwrite(
                buffer.fd, self._view[offset:offset + length], at)
            offset, length, at = offset + count, length - count, at + count
        # What is copied need not stay mapped. It is counted as ours only for
        # files in memory, which stand in for devices; devices may refuse.
        with contextlib.suppress(OSError):
            self._map.madvise(mmap.MADV_DONTNEED)
