# SPDX-License-Identifier: Apache-2.0

"""Running daxio, and not believing it.

``daxio`` stores all that it reads, and flushes it once, at the end. Its exit
status says little: it is 0 for a copy that was cut short by the end of its
input, or of the device. So a transfer counts only if the process ended well,
said once that it copied the expected number of bytes, and moved the position
of our file by as many.
"""

import re
import typing as ty

from nova.virt.pmem_transfer import processes

if ty.TYPE_CHECKING:
    from nova.virt.pmem_transfer import memory

#: What daxio 1.12 writes to stderr after a transfer, however short it was.
COPIED = re.compile(r'^daxio: copied (\d+) bytes to device ', re.MULTILINE)


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
