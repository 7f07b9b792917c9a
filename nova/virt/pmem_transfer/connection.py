# SPDX-License-Identifier: Apache-2.0

"""A connection to a receiver: a process of ssh, with our frames in a pipe."""

import collections
import os
import typing as ty

from nova.virt.pmem_transfer import extents
from nova.virt.pmem_transfer import pace
from nova.virt.pmem_transfer import pipes
from nova.virt.pmem_transfer import processes
from nova.virt.pmem_transfer import wire

if ty.TYPE_CHECKING:
    from nova.virt.pmem_transfer import buffers


#: Seconds to wait for the last words of a connection.
LAST_WORDS = 5


class Broken(Exception):
    """The connection has ended before its time."""


class Connection:
    """Queues what is to be sent; sends and receives without blocking.

    :ivar sent: bytes written so far
    :ivar pause: when to write again
    """

    def __init__(self, guard: processes.Guard, argv: list[str]) -> None:
        """Start the process.

        :raises Broken: if that fails
        """
        self.sent = 0
        self._sequence = 0
        self._queue: collections.deque = collections.deque()
        stdin, self.sink = os.pipe()
        self.source, stdout = os.pipe()
        try:
            self.pause = pipes.Pause(self.sink)
            os.set_blocking(self.sink, False)
            os.set_blocking(self.source, False)
            self._process = processes.Process(
                guard, argv, stdin=stdin, stdout=stdout)
        except processes.Failed as error:
            os.close(self.sink)
            os.close(self.source)
            raise Broken(str(error))
        finally:
            os.close(stdin)
            os.close(stdout)
        self.lines = wire.Lines(self.source)

    def close(self) -> None:
        """End the process, if it has not ended."""
        self.end_input()
        os.close(self.source)
        self._process.close()

    def end_input(self) -> None:
        if self.sink != -1:
            os.close(self.sink)
            self.sink = -1

    def wait(self, timeout: float) -> bool:
        """Wait so many seconds at most; return whether it has ended."""
        return self._process.wait(timeout)

    def exit_status(self, timeout: float) -> int | None:
        """Return the exit status, None if it does not end in time."""
        return self._process.status() if self.wait(timeout) else None

    def why(self, timeout: float) -> str:
        """Say how the process ended.

        :param timeout: seconds to wait for that
        """
        status = self.exit_status(timeout)
        how = ('did not end' if status is None
               else processes.how_ended(status))
        return '%s %s: %s' % (
            self._process.name, how, self._process.message() or 'no message')

    def is_sending(self) -> bool:
        return bool(self._queue)

    def say(self, data: bytes) -> None:
        self._queue.append(memoryview(data))

    def frame(
        self, kind: bytes, extent: extents.Extent | None = None,
        runs: ty.Sequence[extents.Run] = (), text: bytes = b'',
        buffer: 'buffers.Buffer | None' = None,
    ) -> None:
        """Queue a frame.

        The buffer must not change until it is answered: it is not copied,
        neither now nor when it is written to the pipe.

        :param text: what follows the header
        """
        place = () if extent is None else (
            extent.device, extent.offset, extent.length, len(runs))
        header = wire.Header(kind, self._sequence, *place)
        self._sequence = (self._sequence + 1) % 2 ** 32
        self.say(header.pack() + wire.pack_runs(runs) + text)
        self._queue.extend((buffer, *run) for run in runs)

    def send(self, limit: pace.Pace) -> bool:
        """Write what the pipe and the limit take; return if that is any.

        :raises Broken: if nobody reads it
        """
        before = self.sent
        try:
            while self._queue:
                piece = self._queue[0]
                is_text = isinstance(piece, memoryview)
                wanted = len(piece) if is_text else piece[2]
                allowed = limit.allowed(wanted)
                if not allowed:
                    break
                if is_text:
                    count = os.write(self.sink, piece[:allowed])
                    rest = piece[count:]
                else:
                    buffer, offset, _length = piece
                    count = os.splice(buffer.fd, self.sink, allowed,
                                      offset_src=offset)
                    rest = buffer, offset + count, wanted - count
                limit.used(count)
                self.sent += count
                if count == wanted:
                    self._queue.popleft()
                else:
                    self._queue[0] = rest
        except BlockingIOError:
            if self.sent > before:
                self.pause.begin()
            else:
                self.pause.end()
        except BrokenPipeError:
            # Whether we notice its end here or where it is read is chance.
            raise Broken('it reads no more: %s' % self.why(LAST_WORDS))
        return self.sent > before
