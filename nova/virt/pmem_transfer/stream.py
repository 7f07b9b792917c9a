# SPDX-License-Identifier: Apache-2.0

"""One stream of a copy: a process that sends its share over one connection.

It reads an extent, sends it, and takes an answer when enough are on their way.
What comes of it, it tells the sender, whose child it is: which extents are
acknowledged, and how the connection broke. Then it ends.
"""

import collections
from collections import abc
import contextlib
import errno
import itertools
import os
import secrets
import select
import shlex
import socket
import subprocess
import time
import typing as ty

from nova.virt.pmem_transfer import extents
from nova.virt.pmem_transfer import job as pmem_job
from nova.virt.pmem_transfer import memory
from nova.virt.pmem_transfer import processes
from nova.virt.pmem_transfer import wire

#: Frames that are sent ahead of their answers: one is stored while the next
#: ones arrive. They lie in no buffer here, so this costs no memory.
WINDOW = 8

#: Seconds to wait for the last words of a connection.
LAST_WORDS = 5

#: Seconds between two times that the sender hears how much was sent.
INTERVAL = 0.5


#: Bytes that are given to the kernel at a time; at least, and at most.
LEAST, MOST = 4096, 256 * 1024


class Broken(Exception):
    """The connection has ended before its time; another one may help."""


class Refused(Exception):
    """The copy can't be done.

    :ivar number: of the extent that it failed at, if it did at one
    """

    def __init__(self, reason: str, number: int | None = None) -> None:
        super().__init__(reason)
        self.number = number


@contextlib.contextmanager
def connected(job: pmem_job.Sending, guard: processes.Guard) -> abc.Iterator[
        socket.socket]:
    """Reach the receiver.

    :raises Broken: if that fails
    """
    with contextlib.ExitStack() as stack:
        if not job.address:
            yield stack.enter_context(_unix(job.socket))
        elif job.join:
            ours, theirs = socket.socketpair()
            stack.enter_context(ours)
            with theirs:
                ssh = stack.enter_context(_ssh(
                    guard, [*job.ssh, '--', job.address, '%s %s' % (
                        job.join, shlex.quote(job.socket))],
                    stdin=theirs, stdout=theirs))
            with _explained(ssh):
                yield ours
        else:
            local = job.local + secrets.token_hex(4)
            stack.callback(_remove, local)
            ssh = stack.enter_context(_ssh(
                guard, [*job.ssh, '-N', '-L', '%s:%s' % (local, job.socket),
                        '-o', 'ExitOnForwardFailure=yes',
                        '-o', 'PermitLocalCommand=yes',
                        '-o', 'LocalCommand=echo ready', '--', job.address],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE))
            with _explained(ssh):
                _wait_for_forwarding(ssh, job.stall_timeout)
                connection = stack.enter_context(_unix(local))
                _remove(local)
                yield connection


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _unix(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
    except OSError as error:
        connection.close()
        raise Broken('the receiver can not be reached: %s' % error)
    return connection


@contextlib.contextmanager
def _ssh(guard: processes.Guard, argv: list[str],
         **streams: ty.Any) -> abc.Iterator[subprocess.Popen]:
    try:
        process = subprocess.Popen(
            argv, process_group=guard.group,
            # As which it runs the local command.
            env=dict(os.environ, SHELL='/bin/sh'), **streams)
    except OSError as error:
        raise Broken('ssh did not start: %s' % error)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _wait_for_forwarding(ssh: subprocess.Popen, timeout: float) -> None:
    if not select.select([ssh.stdout], [], [], timeout)[0]:
        raise Broken('ssh was not ready after %g seconds' % timeout)
    if os.read(ssh.stdout.fileno(), 6) != b'ready\n':
        raise Broken('ssh is not ready')


@contextlib.contextmanager
def _explained(ssh: subprocess.Popen) -> abc.Iterator[None]:
    """Have who is told of a broken connection know how ssh has ended."""
    try:
        yield
    except Broken as error:
        with contextlib.suppress(subprocess.TimeoutExpired):
            # One that forwards goes on without a connection.
            status = ssh.wait(LAST_WORDS if ssh.stdin is None and
                              ssh.stdout is None else 0.1)
            how = processes.how_ended(status)
            # 255 is of ssh itself; any other status is that of a command that
            # is not there, or does not want.
            if 0 < status < 255:
                raise Refused('ssh %s' % how)
            raise Broken('ssh %s: %s' % (how, error))
        raise


class Pace:
    """Keeps to a bandwidth."""

    #: The part of a second for which the limit may be exceeded by what was
    #: not used before.
    BURST = 0.1

    def __init__(self, rate: float) -> None:
        """Begin now.

        :param rate: bytes per second; 0 stands for no limit
        """
        self._rate = rate
        self._due = time.monotonic()
        self.chunk = int(min(max(rate * self.BURST, LEAST), MOST)
                         if rate else MOST)

    def wait(self, count: int) -> None:
        """Wait for as long as bytes take that were just sent."""
        if self._rate:
            now = time.monotonic()
            self._due = max(self._due, now - self.BURST) + count / self._rate
            time.sleep(max(0, self._due - now))


class Stream:
    """A connection, and what is sent over it."""

    def __init__(
        self, job: pmem_job.Sending, plan: extents.Plan,
        sources: ty.Sequence[memory.Mapping], failures: dict[int, int],
        rate: float, tell: abc.Callable[..., None],
        look: abc.Callable[[int], None],
    ) -> None:
        """Describe it.

        :param failures: how often extents have failed before
        :param rate: bytes per second; 0 for no limit
        :param tell: called with what the sender is to know
        :param look: called with the number of an extent that is to be read
        """
        self._job = job
        self._plan = plan
        self._sources = sources
        self._failures = failures
        self._pace = Pace(rate)
        self._tell = tell
        self._look = look
        self._sequence = itertools.count()
        self._sent: collections.deque[tuple[int, bool]] = collections.deque()
        self._again: collections.deque[tuple[int, bool]] = collections.deque()
        self._answers: collections.deque[bytes] = collections.deque()
        self._count = 0
        self._told_at = 0.0

    def run(self, connection: socket.socket, hello: bytes,
            numbers: abc.Iterable[int]) -> None:
        """Send extents, until all of them are acknowledged.

        :raises Broken: if the connection does not last as long
        :raises Refused: if it does not help to try again
        """
        connection.settimeout(self._job.stall_timeout)
        self._connection = connection
        self._lines = wire.Lines(connection.recv)
        try:
            self._transmit(hello)
            self._greet(self._line())
            self._send_all(numbers)
            self._frame(wire.END)
            if self._fields() != {'end': True}:
                raise Refused('it has not ended as it was to')
        except TimeoutError:
            raise Broken('nothing has moved for %g seconds' %
                         self._job.stall_timeout)
        except wire.ProtocolError as error:
            raise Refused(str(error))
        finally:
            self._tell(wire=self._count)

    @property
    def at_work(self) -> int | None:
        """The number of the first extent without an answer."""
        return self._sent[0][0] if self._sent else None

    def _send_all(self, numbers: abc.Iterable[int]) -> None:
        compare = self._job.attempt > 0
        waiting = iter(numbers)
        while True:
            following = (self._again.popleft() if self._again else
                         next(((number, compare) for number in waiting),
                              None))
            if following is not None:
                self._send(*following)
            elif not self._sent:
                return
            if following is None or len(self._sent) >= WINDOW:
                self._take_answer()
            # They tell how far it is.
            while self._sent and self._has_answer():
                self._take_answer()

    def _has_answer(self) -> bool:
        return bool(self._answers or
                    select.select([self._connection], [], [], 0)[0])

    # Sending

    def _send(self, number: int, compare: bool) -> None:
        extent = self._plan[number]
        self._look(number)
        try:
            with self._at_hand(extent) as data:
                self._sent.append((number, compare))
                if compare:
                    self._frame(wire.COMPARE, extent, text=wire.proof(data))
                else:
                    self._send_data(extent, data)
        except memory.Unreadable as error:
            raise Refused('reading the source: %s' % error, number)

    def _send_data(self, extent: extents.Extent, data: memoryview) -> None:
        runs = [] if extent.source_offset is None else extents.data_runs(
            self._sources[extent.device], extent.source_offset, extent.length)
        self._frame(wire.DATA, extent, runs)
        for run in runs:
            self._transmit(data[run.offset:run.end])

    def _at_hand(self, extent: extents.Extent,
                 ) -> ty.ContextManager[memoryview]:
        """Have the bytes of an extent in memory, those of the source."""
        if extent.source_offset is None:
            return contextlib.nullcontext(memoryview(bytes(extent.length)))
        return self._sources[extent.device].at_hand(
            extent.source_offset, extent.length)

    def _frame(self, kind: bytes, extent: extents.Extent | None = None,
               runs: ty.Sequence[extents.Run] = (), text: bytes = b'') -> None:
        place = () if extent is None else (
            extent.device, extent.offset, extent.length, len(runs))
        header = wire.Header(kind, next(self._sequence) % 2 ** 32, *place)
        self._transmit(header.pack() + wire.pack_runs(runs) + text)

    def _transmit(self, data: 'bytes | memoryview') -> None:
        rest = memoryview(data)
        while rest:
            try:
                count = self._connection.send(rest[:self._pace.chunk])
            except (BrokenPipeError, ConnectionError):
                self._last_words()
            except OSError as error:
                if error.errno == errno.EFAULT:
                    raise memory.Unreadable(str(error))
                raise
            rest = rest[count:]
            self._count += count
            self._report()
            self._pace.wait(count)

    def _report(self) -> None:
        now = time.monotonic()
        if now >= self._told_at + INTERVAL:
            self._told_at = now
            self._tell(wire=self._count)
            self._count = 0

    def _last_words(self) -> ty.NoReturn:
        """Take in what was said before it broke, and may say why."""
        while True:
            self._take_answer()

    # Answers

    def _line(self) -> bytes:
        while not self._answers:
            try:
                self._answers.extend(self._lines.read())
            except ConnectionError as error:
                raise Broken(str(error))
            if self._lines.ended and not self._answers:
                raise Broken('the connection ended' + (
                    '; it printed %s' % wire.quoted(self._lines.rest)
                    if self._lines.rest else ''))
        return self._answers.popleft()

    def _fields(self) -> dict[str, ty.Any]:
        fields = wire.parse_line(self._line())
        if wire.NAME in fields and 'error' in fields:
            self._error(fields)
        return fields

    def _greet(self, line: bytes) -> None:
        fields = wire.parse_hello(line, 'it')
        if 'error' in fields:
            self._error(fields)
        expected = [{'name': device.target_name, 'size': device.target_size,
                     'source_size': device.size}
                    for device in self._job.devices]
        if fields.get('devices') != expected:
            raise wire.ProtocolError(
                'its ticket is for %s, and this copy for %s' % (
                    wire.quoted(wire.line(devices=fields.get('devices'))),
                    wire.quoted(wire.line(devices=expected))))
        self._tell(greeted=True)

    def _error(self, fields: dict[str, ty.Any]) -> ty.NoReturn:
        reason = str(fields['error'])[:wire.QUOTED * 2]
        if fields.get('again') is True:
            raise Broken(reason)
        raise Refused('refused: %s' % reason, self.at_work)

    def _take_answer(self) -> None:
        fields = self._fields()
        kind = self._kind(fields)
        number, compare = self._sent.popleft()
        if kind == 'failed':
            self._failed(number, compare,
                         str(fields.get('error'))[:wire.QUOTED * 2])
        elif kind == 'differs':
            self._again.append((number, False))
        else:
            self._tell(done=number, resumed=compare)

    def _kind(self, fields: dict[str, ty.Any]) -> str:
        """Return what is answered to what was sent first.

        :raises wire.ProtocolError: if it is no answer to that
        """
        if self._sent:
            number, compare = self._sent[0]
            for kind in ('failed', *(
                    ('same', 'differs') if compare else ('stored',))):
                if fields.get(kind) == self._plan[number].place:
                    return kind
        raise wire.ProtocolError('it answers %s to %s' % (
            wire.quoted(wire.line(**fields)),
            self._plan[number].place if self._sent else 'nothing'))

    def _failed(self, number: int, compare: bool, reason: str) -> None:
        self._failures[number] = self._failures.get(number, 0) + 1
        self._tell(failed=number, error=reason)
        if self._failures[number] >= self._job.attempts:
            raise Refused('%s (tried %d times)' % (
                reason, self._failures[number]), number)
        self._again.append((number, compare))
