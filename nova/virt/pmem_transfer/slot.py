# SPDX-License-Identifier: Apache-2.0

"""A stream, as the sender sees it: a child to be heard, and to be ended."""

import contextlib
import functools
import json
import os
import select
import signal
import time
import typing as ty

from nova.virt.pmem_transfer import connection
from nova.virt.pmem_transfer import processes
from nova.virt.pmem_transfer import wire

#: Seconds to wait for the rest of what ssh says.
LAST_WORDS = 2


class Slot:
    """A place for a stream, with the connection that is in it.

    :ivar is_over: whether its share is done, or it is given up
    :ivar is_lost: whether it is given up
    :ivar is_ready: whether its connection was of use
    """

    def __init__(self, number: int, not_before: float) -> None:
        self.number = number
        self.not_before = not_before
        self.fruitless = 0
        self.heard_at = 0.0
        self.is_over = self.is_lost = False
        self.is_greeted = self.is_ready = False
        self.fork: processes.Fork | None = None
        self.ended: dict[str, ty.Any] = {}

    def start(self, guard: processes.Guard,
              body: ty.Callable[[ty.Callable[..., None]], None]) -> None:
        """Start a stream.

        :param body: what it does, with a function that tells us something
        :raises OSError: if there are too many processes or files
        """
        fds = list(os.pipe())
        try:
            fds += os.pipe()
            self._start(guard, body, *fds)
        except OSError:
            for fd in fds:
                os.close(fd)
            raise
        for fd in fds[1::2]:
            os.close(fd)

    def _start(self, guard: processes.Guard,
               body: ty.Callable[[ty.Callable[..., None]], None],
               told: int, tells: int, stderr: int, words: int) -> None:
        self.told, self.stderr = told, stderr
        self.lines = wire.Lines(functools.partial(os.read, self.told))
        self.words = b''
        self.ended = {}
        self.is_greeted = self.is_ready = False
        self.heard_at = time.monotonic()

        def run() -> None:
            # What ssh says goes there, too.
            os.dup2(words, 2)
            os.close(self.told)
            body(functools.partial(_say, tells))

        self.fork = processes.Fork(guard, run)

    def sources(self) -> list[int]:
        return [fd for fd in (self.told, self.stderr) if fd != -1]

    def read(self, fd: int) -> list[dict[str, ty.Any]]:
        """Read what has come; return what we are told.

        What ssh says is no sign of life of the stream.
        """
        if fd == self.stderr:
            data = os.read(fd, 64 * 1024)
            self.words = (self.words + data)[-processes.STDERR_KEPT:]
            if not data:
                self._close_words()
            return []
        self.heard_at = time.monotonic()
        lines = self.lines.read()
        if self.lines.ended:
            os.close(self.told)
            self.told = -1
        return [json.loads(line) for line in lines]  # noqa: N324

    def _close_words(self) -> None:
        os.close(self.stderr)
        self.stderr = -1

    def has_ended(self) -> bool:
        """Whether the stream is gone, and all that it had to say is known."""
        return self.told == -1 and (
            self.stderr == -1 or
            # Somebody else has it, like a command that ssh goes through.
            time.monotonic() > self.heard_at + LAST_WORDS)

    def reap(self) -> int:
        """Return the status of a stream that has ended."""
        for fd in self.sources():
            os.close(fd)
        fork, self.fork = self.fork, None
        return fork.status()


def end(slots: list[Slot]) -> None:
    """End the streams that are left, with what they have started."""
    left = [slot for slot in slots if slot.fork is not None]
    for slot in left:
        with contextlib.suppress(ProcessLookupError):
            slot.fork.end()
    until = time.monotonic() + connection.LAST_WORDS
    for slot in left:
        if not select.select([slot.fork], [], [], max(
                0, until - time.monotonic()))[0]:
            slot.fork.send(signal.SIGKILL)
        slot.reap()


def _say(fd: int, **fields: ty.Any) -> None:
    data = wire.line(**fields)
    while data:
        data = data[os.write(fd, data):]
