# SPDX-License-Identifier: Apache-2.0

"""Child processes that do not outlive us, and whose words are kept."""

from collections import abc
import contextlib
import ctypes
import fcntl
import functools
import json
import os
import select
import selectors
import signal
import subprocess
import sys
import time
import traceback
import typing as ty

from nova.virt.pmem_transfer import wire

#: Bytes of a process's stderr that are kept for messages.
STDERR_KEPT = 2048

#: Bytes of it that are taken at all.
STDERR_TAKEN = 64 * 1024

#: Seconds to wait for the last words of a child that is to end.
LAST_WORDS = 5

#: Seconds to wait for the rest of what its own children say.
REST = 2

# From Linux's <linux/prctl.h>.
_PR_SET_PDEATHSIG = 1


class Failed(Exception):
    """A process did not do what was asked, or can't be shown to have."""


class Guard:
    """Kills our children when we are gone, in whatever way we went.

    They are in a process group of its own, together with a shell that waits
    for the end of a pipe whose other end only we have. The kernel's way, a
    signal on the death of the parent, would need code to run between fork and
    exec: unsafe with threads, and with buffers mapped ten times slower than
    the vfork that it rules out. A further process in front of each child
    would cost as much as the child.
    """

    def __init__(self) -> None:
        reader, self._lifeline = os.pipe()
        try:
            self._shell = subprocess.Popen(
                ['/bin/sh', '-c', 'read -r _; kill -KILL 0'], stdin=reader,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                process_group=0)
        finally:
            os.close(reader)

    @property
    def group(self) -> int:
        return self._shell.pid

    def close(self) -> None:
        """Kill all children that are left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.group, signal.SIGKILL)
        os.close(self._lifeline)
        self._shell.wait()

    def let_go(self) -> None:
        """Leave it to our parent; for a fork, which is of the group itself.

        In this order: if our parent is gone, closing it kills us as well.
        """
        os.setpgid(0, self.group)
        os.close(self._lifeline)

    def __enter__(self) -> 'Guard':
        return self

    def __exit__(self, *_exception: ty.Any) -> None:
        self.close()


class Child:
    """A process whose file descriptor turns readable when it has ended."""

    _pidfd: int

    def fileno(self) -> int:
        return self._pidfd

    def wait(self, timeout: float) -> bool:
        """Wait so many seconds at most; return whether it has ended."""
        return bool(select.select([self], [], [], max(0, timeout))[0])


class Process(Child):
    """A child process with its stderr in a file."""

    def __init__(
        self, guard: Guard, argv: list[str], *,
        stdin: int = subprocess.DEVNULL, stdout: int = subprocess.DEVNULL,
        keep_open: ty.Sequence[int] = (),
    ) -> None:
        """Start it.

        :param keep_open: file descriptors that it has open, too
        :raises Failed: if it can't be started
        """
        self.name = os.path.basename(argv[0])
        self._stderr = _limited_file()
        with contextlib.ExitStack() as if_not:
            if_not.callback(os.close, self._stderr)
            try:
                self._popen = subprocess.Popen(
                    argv, stdin=stdin, stdout=stdout, stderr=self._stderr,
                    process_group=guard.group, pass_fds=keep_open)
                if_not.callback(self._popen.wait)
                if_not.callback(self._popen.kill)
                self._pidfd = os.pidfd_open(self._popen.pid)
            except (OSError, subprocess.SubprocessError) as error:
                raise Failed('%s did not start: %s' % (self.name, error))
            if_not.pop_all()

    def kill(self) -> None:
        if self._popen.poll() is None:
            self._popen.kill()

    def status(self) -> int:
        """Return the exit status of a process that has ended, as Popen."""
        return self._popen.wait()

    def message(self) -> str:
        """Return the end of what it wrote to stderr."""
        # It has moved the position of our file.
        end = os.lseek(self._stderr, 0, os.SEEK_CUR)
        start = max(0, end - STDERR_KEPT)
        text = os.pread(self._stderr, end - start, start)
        return text.decode('utf-8', 'replace').strip()

    def close(self) -> None:
        """End it if it has not ended, and forget it."""
        self.kill()
        self._popen.wait()
        os.close(self._pidfd)
        os.close(self._stderr)


class Fork(Child):
    """A child that runs a function of ours."""

    def __init__(self, guard: Guard, body: abc.Callable[[], None]) -> None:
        """Start it.

        :param body: what it does; its status is 1 if that raises anything
        :raises OSError: if there are too many processes or files
        """
        self._status: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        # A signal that comes at once must neither let the child do what the
        # parent does at its end, nor leave the parent without the child.
        before = signal.pthread_sigmask(
            signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            self.pid = os.fork()
            if not self.pid:
                try:
                    self._run(guard, body, before)
                finally:
                    # Nothing may lead a child to what its parent does next.
                    os._exit(1)
            # The group is killed, whether or not the child has got to that.
            with contextlib.suppress(OSError):
                os.setpgid(self.pid, guard.group)
            try:
                self._pidfd = os.pidfd_open(self.pid)
            except OSError:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @staticmethod
    def _run(guard: Guard, body: abc.Callable[[], None],
             signals: set[int]) -> ty.NoReturn:
        status = 1
        try:
            signal.signal(signal.SIGTERM, terminate)
            signal.pthread_sigmask(signal.SIG_SETMASK, signals)
            guard.let_go()
            body()
            status = 0
        except SystemExit:
            pass
        except BaseException:
            traceback.print_exc()
        finally:
            end(status)

    def end(self) -> None:
        """Ask it to end what it has started, and itself; also if stopped."""
        for number in signal.SIGTERM, signal.SIGCONT:
            self.send(number)

    def send(self, number: int) -> None:
        signal.pidfd_send_signal(self._pidfd, number)

    def status(self) -> int:
        """Wait for its end; return its status, negative for a signal."""
        if self._status is None:
            __, status = os.waitpid(self.pid, 0)
            os.close(self._pidfd)
            self._status = os.waitstatus_to_exitcode(status)
        return self._status


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
        self.fork: Fork | None = None
        self.ended: dict[str, ty.Any] = {}

    def start(self, guard: Guard,
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

    def _start(self, guard: Guard,
               body: ty.Callable[[ty.Callable[..., None]], None],
               told: int, tells: int, stderr: int, words: int) -> None:
        self.told, self.stderr = told, stderr
        self.lines = wire.Lines(functools.partial(os.read, self.told))
        self.words = b''
        self.ended = {}
        self.is_greeted = self.is_ready = False
        self.heard_at = time.monotonic()

        def run() -> None:
            # What ssh says goes there, too. Our stdout is not its own: it
            # would be open for as long as a stream hangs.
            os.dup2(words, 1)
            os.dup2(words, 2)
            os.close(self.told)
            body(functools.partial(_say, tells))

        self.fork = Fork(guard, run)

    def sources(self) -> list[int]:
        return [fd for fd in (self.told, self.stderr) if fd != -1]

    def read(self, fd: int) -> list[dict[str, ty.Any]]:
        """Read what has come; return what we are told.

        What ssh says is no sign of life of the stream.
        """
        if fd == self.stderr:
            data = os.read(fd, 64 * 1024)
            self.words = (self.words + data)[-STDERR_KEPT:]
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
            time.monotonic() > self.heard_at + REST)

    def reap(self, timeout: float = LAST_WORDS) -> int:
        """Return the status of a stream that has ended.

        One that does not end within so many seconds is given up: it hangs in
        the kernel, and another one in its place would, too.
        """
        for fd in self.sources():
            os.close(fd)
        fork, self.fork = self.fork, None
        if fork.wait(timeout):
            return fork.status()
        self.is_over = self.is_lost = True
        return -signal.SIGKILL


def end_all(slots: list[Slot]) -> None:
    """End the streams that are left, with what they have started."""
    left = [slot for slot in slots if slot.fork is not None]
    for slot in left:
        with contextlib.suppress(ProcessLookupError):
            slot.fork.end()
    until = time.monotonic() + LAST_WORDS
    for slot in left:
        if not slot.fork.wait(until - time.monotonic()):
            slot.fork.send(signal.SIGKILL)
    until += LAST_WORDS
    for slot in left:
        slot.reap(until - time.monotonic())


def _say(fd: int, **fields: ty.Any) -> None:
    data = wire.line(**fields)
    while data:
        data = data[os.write(fd, data):]


def can_read(file: ty.IO[bytes], timeout: float) -> bool:
    """Wait so many seconds at most; return whether there is something to read.

    For nova-compute, which may have more files open than select() can tell.
    """
    with selectors.DefaultSelector() as selector:
        selector.register(file, selectors.EVENT_READ)
        return bool(selector.select(timeout))


def die_with_parent() -> None:
    """Be killed when the thread of our parent ends that has started us."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def terminate(_number: int, _frame: ty.Any) -> ty.NoReturn:
    """Handle SIGTERM by ending in order, which another one must not end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(128 + signal.SIGTERM)


def _limited_file() -> int:
    """Return a file in memory that can't grow; more is an error to who writes.
    """
    fd = os.memfd_create('stderr', os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, STDERR_TAKEN)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
    return fd


def how_ended(status: int) -> str:
    """Describe an exit status as Popen gives it."""
    if status >= 0:
        return 'ended with status %d' % status
    try:
        return 'was killed by %s' % signal.Signals(-status).name
    except ValueError:
        return 'was killed by signal %d' % -status


def end(status: int) -> ty.NoReturn:
    """End this process, which has nothing left to close.

    The interpreter would take its objects apart, for as long as it took to
    start, while a peer waits.
    """
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)
