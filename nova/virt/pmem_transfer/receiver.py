# SPDX-License-Identifier: Apache-2.0

"""The command that nova-compute starts on the destination: it is written to.

The job comes as a line of JSON on stdin. It listens on a socket, says so on
stdout, and has a process for each stream (:mod:`writer`). It ends with its
stdin, whoever closed that, and ends what it has started. All of them, down to
the last ``daxio``, have inherited the notes, which are locked: who gets that
lock knows that nobody writes any more.
"""

import contextlib
import functools
import os
import select
import signal
import socket
import sys
import time
import typing as ty

from nova.virt.pmem_transfer import daxio
from nova.virt.pmem_transfer import extents
from nova.virt.pmem_transfer import memory as pmem_memory
from nova.virt.pmem_transfer import processes
from nova.virt.pmem_transfer import wire
from nova.virt.pmem_transfer import writer

#: What it says when it listens.
READY = 'ready\n'

#: Seconds to wait for the first line of a connection.
HELLO_TIMEOUT = 60

#: Connections without such a line at a time: select() knows 1024 files, and a
#: sender makes few at once.
CALLERS = 128

#: What the options of nova-compute allow a sender at most: streams, and
#: seconds that one may stand still.
MOST_STREAMS, LONGEST_STALL = 64, 3600

#: Seconds that a stream waits for those before it to end.
FENCE_TIMEOUT = 10

#: Seconds before another connection is taken, if that failed.
PAUSE = 0.2

#: Bytes of answers that may be on their way to a sender which reads them. Of
#: an extent of 16 MiB it may be 256 parts that differ, or 5 KiB.
ANSWERS = 256 * 1024

#: Bytes of the longest path of a socket.
LONGEST_PATH = 107


def command() -> list[str]:
    """Return the command that starts a receiver."""
    return [sys.executable, '-m', __name__]


class Hello(ty.NamedTuple):
    """What a stream says first; see :func:`parse_hello`.

    :ivar stream: its number, from 0
    :ivar extent: bytes of the largest extent
    :ivar stall_timeout: seconds without anything arriving before it is over
    :ivar generation: numbers; streams of an earlier one are over
    """

    stream: int
    extent: int
    stall_timeout: float
    generation: list[int]


def parse_hello(line: bytes) -> Hello:
    """Read a stream's first line.

    :raises wire.ProtocolError: if it is none that can be served
    """
    fields = wire.parse_hello(line, 'the sender')
    hello = Hello(*(fields.get(name) for name in Hello._fields))
    if not (_is_number(hello.stream, MOST_STREAMS) and
            _is_number(hello.extent, extents.LARGEST + 1) and
            hello.extent >= extents.SMALLEST and
            type(hello.stall_timeout) in (int, float) and
            0 < hello.stall_timeout <= LONGEST_STALL and
            type(hello.generation) is list and
            len(hello.generation) <= 8 and
            all(_is_number(each, 2 ** 63) for each in hello.generation)):
        raise wire.ProtocolError('the sender asks for %s' % wire.quoted(line))
    return hello


def _is_number(value: ty.Any, end: int) -> bool:
    return type(value) is int and 0 <= value < end


class Caller:
    """A connection that has not said yet what it wants."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.connection = connection
        self.until = time.monotonic() + HELLO_TIMEOUT
        self._line = b''

    def fileno(self) -> int:
        return self.connection.fileno()

    def hello(self) -> Hello | None:
        """Return what it says, None if that has not come as a whole.

        :raises wire.ProtocolError: if it is not what has to come
        :raises EOFError: if it goes away
        """
        while not self._line.endswith(b'\n'):
            try:
                # What comes after it is for somebody else.
                byte = self.connection.recv(1)
            except BlockingIOError:
                return None
            if not byte:
                raise EOFError('before the handshake')
            self._line += byte
            if len(self._line) > wire.QUOTED * 2:
                raise wire.ProtocolError(
                    'the sender should begin with the handshake of a copy, '
                    'and sent %s' % wire.quoted(self._line))
        return parse_hello(self._line)

    def refuse(self, error: Exception) -> None:
        refuse(self.connection, error)
        self.connection.close()


def refuse(connection: socket.socket, error: Exception) -> None:
    """Say why a stream ends; whoever is to read it may be gone."""
    again = isinstance(error, (EOFError, OSError))
    if isinstance(error, wire.ProtocolError):
        reason = str(error)
    elif again:
        reason = 'the connection ended: %s' % error
    else:
        # Whoever looks for the cause sits at the other end of the wire.
        reason = '%s: %s' % (type(error).__name__, error)
    with contextlib.suppress(OSError):
        # It has the form of a handshake, as it may be the first line.
        connection.settimeout(1)
        connection.sendall(wire.hello(error=reason, again=again))
    with contextlib.suppress(OSError):
        # sys.stderr would keep what can't be written, and fail ever after.
        os.write(2, ('%s\n' % reason).encode('utf-8', 'replace'))


class Stream:
    """A stream that was let in.

    :ivar fence: has its end when the stream is gone, and its daxio, too
    """

    def __init__(self, fork: processes.Fork, fence: int,
                 connection: socket.socket,
                 unsaid: pmem_memory.Unsaid) -> None:
        self._fork = fork
        self._unsaid = unsaid
        self.fence = fence
        self.connection = connection

    def fileno(self) -> int:
        return self._fork.fileno()

    def end(self) -> None:
        """End it, as another one takes its place."""
        self._fork.end()
        self.connection.close()

    def has_ended(self) -> None:
        """Say what it could not say any more."""
        if self._fork.status() == -signal.SIGBUS:
            with contextlib.suppress(OSError):
                self._unsaid.send(self.connection.fileno())
            refuse(self.connection, wire.ProtocolError(
                'memory of the target is damaged'))
        self.connection.close()

    def is_gone(self, timeout: float = 0) -> bool:
        """Wait so many seconds at most for its last process to end."""
        return bool(select.select([self.fence], [], [], max(0, timeout))[0])

    def close(self) -> None:
        self._fork.status()
        self._unsaid.close()
        os.close(self.fence)


class Receiver:
    """Lets streams in, one for each number, and ends them."""

    def __init__(self, job: wire.Receiving, guard: processes.Guard,
                 lifeline: int) -> None:
        """Listen.

        :param lifeline: a file descriptor; at its end all is over
        :raises OSError: if it can't be done
        """
        self._job = job
        self._guard = guard
        self._lifeline = lifeline
        self._targets = [writer.Target(
            each, pmem_memory.Mapping(each.path, each.size))
            for each in job.targets]
        self._listener = _listen(job.socket)
        self._callers: list[Caller] = []
        self._streams: dict[int, Stream] = {}
        self._ended: list[Stream] = []
        self._generation: list[int] = []

    def run(self) -> None:
        while True:
            sources: list[ty.Any] = [
                self._lifeline, self._listener, *self._callers,
                *self._streams.values(), *(each.fence for each in self._ended)]
            ready = select.select(sources, [], [], self._timeout())[0]
            if self._lifeline in ready:
                return
            self._reap(ready)
            for caller in self._callers[:]:
                if caller in ready or time.monotonic() > caller.until:
                    self._hear(caller)
            # Those who have gone by now have made room.
            if self._listener in ready:
                self._accept()

    def _accept(self) -> None:
        try:
            caller = Caller(self._listener.accept()[0])
        except OSError:
            # Too many files, as a rule; the sender waits meanwhile.
            time.sleep(PAUSE)
            return
        if len(self._callers) < CALLERS:
            self._callers.append(caller)
        else:
            caller.refuse(OSError(
                '%d others have not said yet what they want' % CALLERS))

    def _reap(self, ready: list[ty.Any]) -> None:
        for number, each in list(self._streams.items()):
            if each in ready:
                each.has_ended()
                self._ended.append(self._streams.pop(number))
        for each in self._ended[:]:
            if each.is_gone():
                each.close()
                self._ended.remove(each)

    def _timeout(self) -> float | None:
        if not self._callers:
            return None
        return max(0, min(caller.until for caller in self._callers) -
                   time.monotonic())

    def _hear(self, caller: Caller) -> None:
        try:
            hello = caller.hello()
            if hello is not None:
                # Who is let in does not close its own connection.
                self._callers.remove(caller)
                self._let_in(caller.connection, hello)
            elif time.monotonic() > caller.until:
                raise TimeoutError(
                    'no handshake in %d seconds' % HELLO_TIMEOUT)
        except Exception as error:
            if caller in self._callers:
                self._callers.remove(caller)
            caller.refuse(error)

    def _let_in(self, connection: socket.socket, hello: Hello) -> None:
        """Start a stream; what was before it is ended first.

        :raises wire.ProtocolError: if it is of a sender that is over
        :raises OSError: if there are too many processes or files
        """
        if hello.generation < self._generation:
            raise wire.ProtocolError('a later sender has taken over')
        older = (list(self._streams) if hello.generation > self._generation
                 else [hello.stream])
        self._generation = hello.generation
        for number in older:
            if number in self._streams:
                self._streams[number].end()
                self._ended.append(self._streams.pop(number))
        with contextlib.ExitStack() as if_not:
            unsaid = pmem_memory.Unsaid()
            if_not.callback(unsaid.close)
            fence, held = os.pipe()
            if_not.callback(os.close, fence)
            try:
                fork = processes.Fork(self._guard, functools.partial(
                    self._be_stream, connection, hello, unsaid, held))
            finally:
                os.close(held)
            if_not.pop_all()
        self._streams[hello.stream] = Stream(fork, fence, connection, unsaid)

    def _be_stream(self, connection: socket.socket, hello: Hello,
                   unsaid: pmem_memory.Unsaid, held: int) -> None:
        """Serve a stream: in a process of its own."""
        self._listener.close()
        others: list[Caller | Stream] = [
            *self._callers, *self._streams.values()]
        for each in others:
            each.connection.close()
        connection.settimeout(hello.stall_timeout)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ANSWERS)
        try:
            self._wait_for_earlier(hello)
            notes = daxio.Unfinished(self._job.notes)
            connection.sendall(wire.hello(devices=[
                each.described() for each in self._job.targets]))
            writer.Writer(
                connection, hello, self._targets, notes, self._guard, unsaid,
                (self._job.notes, held)).run()
        except Exception as error:
            refuse(connection, error)

    def _wait_for_earlier(self, hello: Hello) -> None:
        until = time.monotonic() + min(
            FENCE_TIMEOUT, hello.stall_timeout * writer.STORE_SHARE)
        for each in self._ended:
            # The sender must not run out of patience first.
            if not each.is_gone(until - time.monotonic()):
                raise TimeoutError('an earlier stream still writes')

    def close(self) -> None:
        self._listener.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._job.socket)


def _listen(path: str) -> socket.socket:
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise OSError('the path of the socket, %s, has more than %d bytes: '
                      'use a shorter state_path' % (path, LONGEST_PATH))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        listener.bind(path)
    finally:
        os.umask(before)
    listener.listen()
    return listener


def run(lifeline: int) -> int:
    """Do a job.

    :returns: the exit status
    """
    try:
        line = wire.Lines(functools.partial(os.read, lifeline))
        lines: list[bytes] = []
        while not lines and not line.ended:
            lines = line.read()
        if not lines:
            raise ValueError('there is none')
        job = wire.Receiving.from_json(lines[0].decode())
        with processes.Guard() as guard:
            receiver = Receiver(job, guard, lifeline)
            try:
                sys.stdout.write(READY)
                sys.stdout.flush()
                # Nobody waits for that now.
                wire.prepare_tags()
                receiver.run()
            finally:
                receiver.close()
        return 0
    except (ValueError, extents.DevicesDoNotFit,
            wire.ProtocolError) as error:
        reason = 'no job that can be done: %s' % error
    except OSError as error:
        reason = str(error)
    sys.stdout.write(reason + '\n')
    return 1


def main() -> ty.NoReturn:
    # systemd sends it to all that nova-compute has started, which itself waits
    # for moves to end. The shell of the guard inherits this; streams do not.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    processes.end(run(0))


if __name__ == '__main__':
    main()
