# SPDX-License-Identifier: Apache-2.0

"""One stream of a copy: a process that sends its share over one connection.

It reads an extent, sends it, and takes an answer when enough are on their way.
What comes of it, it tells the sender, whose child it is: which extents are
acknowledged, and how the connection broke. Then it ends. One that connects
before the copy is to begin keeps its connection alive.
"""

import collections
from collections import abc
import contextlib
import dataclasses
import errno
import itertools
import select
import socket
import time
import typing as ty

from nova.virt.pmem_transfer import connection as pmem_connection
from nova.virt.pmem_transfer import extents
from nova.virt.pmem_transfer import memory
from nova.virt.pmem_transfer import wire

#: Frames that are sent ahead of their answers: so many that the writer has
#: work while answers lie in sshd (see ``Writer._take_ahead``). The last pass
#: of 4 GiB took 1.06 s with 8, 0.90 with 32, and 0.96 with 128. They lie in no
#: buffer here, so this costs no memory.
WINDOW = 32

#: Seconds to wait at most before an extent that has failed is sent again: one
#: for each failure but the first.
LONGEST_PAUSE = 3

#: Seconds between two times that the sender hears how much was sent.
INTERVAL = 0.5

#: Seconds to wait for an answer before it is hastened, with each byte of
#: ``wire.MAGIC``: most of the 40 ms for which it may be held back.
HASTE = 0.002, 0.004, 0.008, 0.016

#: Bytes that are given to the kernel at a time; at least, and at most.
LEAST, MOST = 4096, 256 * 1024


@dataclasses.dataclass(frozen=True)
class Item:
    """What is sent in a frame.

    :ivar number: of the extent
    :ivar is_asked: whether it is asked what of it is there; data is sent else
    :ivar runs: which of its bytes are sent, if the rest is there already
    """

    number: int
    is_asked: bool = False
    runs: tuple[extents.Run, ...] = ()


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
        self, job: wire.Sending, plan: extents.Plan,
        sources: ty.Sequence[memory.Mapping], failures: dict[int, int],
        rate: float, tell: abc.Callable[..., None],
        look: abc.Callable[[int], None],
        may_begin: abc.Callable[[float], bool],
    ) -> None:
        """Describe it.

        :param failures: how often extents have failed before
        :param rate: bytes per second; 0 for no limit
        :param tell: called with what the sender is to know
        :param look: called with the number of an extent that is to be read
        :param may_begin: says whether to begin, after so many seconds at most
        """
        self._job = job
        self._plan = plan
        self._sources = sources
        self._failures = failures
        self._pace = Pace(rate)
        self._tell = tell
        self._look = look
        self._may_begin = may_begin
        self._sequence = itertools.count()
        self._sent: collections.deque[Item] = collections.deque()
        self._again: collections.deque[Item] = collections.deque()
        self._answers: collections.deque[bytes] = collections.deque()
        self._count = self._begun = 0
        self._told_at = 0.0

    def run(self, connection: socket.socket, hello: bytes,
            numbers: abc.Iterable[int]) -> None:
        """Send extents, until all of them are acknowledged.

        :raises connection.Broken: if the connection does not last as long
        :raises connection.Refused: if it does not help to try again
        """
        connection.settimeout(self._job.stall_timeout)
        self._connection = connection
        self._lines = wire.Lines(connection.recv)
        try:
            self._transmit(hello)
            self._greet(self._line())
            self._wait()
            self._send_all(numbers)
            self._frame(wire.END)
            if self._fields() != {'end': True}:
                raise pmem_connection.Refused('it has not ended as it was to')
        except TimeoutError:
            raise pmem_connection.Broken('nothing has moved for %g seconds' %
                         self._job.stall_timeout)
        except wire.ProtocolError as error:
            raise pmem_connection.Refused(str(error))
        finally:
            self._tell(wire=self._count)

    @property
    def at_work(self) -> int | None:
        """The number of the first extent without an answer."""
        return self._sent[0].number if self._sent else None

    def _wait(self) -> None:
        """Wait for the copy to begin; show both ends that all is well.

        What an extent is now proves nothing, and nothing is made of it: not
        of what is answered, and not of where a connection breaks.
        """
        while not self._may_begin(0):
            try:
                self._send(Item(0, is_asked=True))
                self._kind(self._fields())
            finally:
                self._sent.clear()
            self._tell(waits=True)
            self._may_begin(self._job.stall_timeout / 4)

    def _send_all(self, numbers: abc.Iterable[int]) -> None:
        waiting = (Item(number, is_asked=self._job.attempt > 0)
                   for number in numbers)
        while True:
            following = (self._again.popleft() if self._again else
                         next(waiting, None))
            if following is not None:
                self._send(following)
            elif not self._sent:
                return
            if following is None or len(self._sent) >= WINDOW:
                self._take_answer()
            # They tell how far it is.
            while self._sent and self._has_answer():
                self._take_answer()

    def _has_answer(self, timeout: float = 0) -> bool:
        return bool(self._answers or
                    select.select([self._connection], [], [], timeout)[0])

    # Sending

    def _send(self, item: Item) -> None:
        extent = self._plan[item.number]
        self._look(item.number)
        try:
            with self._at_hand(extent) as data:
                self._sent.append(item)
                if item.is_asked:
                    self._frame(
                        wire.COMPARE, extent, wire.count_tags(extent.length),
                        wire.proof(data))
                elif item.runs:
                    self._send_data(wire.PATCH, extent, data, item.runs)
                else:
                    self._send_data(
                        wire.DATA, extent, data, self._runs(extent))
        except memory.Unreadable as error:
            raise pmem_connection.Refused(
                'reading the source: %s' % error, item.number)

    def _runs(self, extent: extents.Extent) -> list[extents.Run]:
        return [] if extent.source_offset is None else extents.data_runs(
            self._sources[extent.device], extent.source_offset, extent.length)

    def _send_data(self, kind: bytes, extent: extents.Extent,
                   data: memoryview, runs: ty.Sequence[extents.Run]) -> None:
        self._frame(kind, extent, len(runs), wire.pack_runs(runs))
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
               count: int = 0, text: bytes = b'') -> None:
        place = () if extent is None else (*extent.place, count)
        header = wire.Header(kind, next(self._sequence) % 2 ** 32, *place)
        begun, self._begun = self._begun, 0
        self._transmit((header.pack() + text)[begun:])

    def _transmit(self, data: 'bytes | memoryview') -> None:
        rest = memoryview(data)
        while rest:
            try:
                count = self._connection.send(rest[:self._pace.chunk])
            except ConnectionError:
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

    def _hasten(self) -> None:
        """Begin the next frame byte by byte, until an answer comes.

        sshd does not set TCP_NODELAY for what it forwards. So an answer lies
        behind what it has said before until that is acknowledged: after 40 ms,
        or with whatever we send.
        """
        while self._begun < len(HASTE) and not self._has_answer(
                HASTE[self._begun]):
            try:
                self._connection.send(wire.MAGIC[self._begun:][:1])
            except ConnectionError:
                # It may have been said before that; who reads it will see.
                return
            self._begun += 1

    def _line(self) -> bytes:
        while not self._answers:
            self._hasten()
            try:
                self._answers.extend(self._lines.read())
            except ConnectionError as error:
                raise pmem_connection.Broken(str(error))
            if self._lines.ended and not self._answers:
                raise pmem_connection.Broken('the connection ended' + (
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
            raise pmem_connection.Broken(reason)
        raise pmem_connection.Refused('refused: %s' % reason, self.at_work)

    def _take_answer(self) -> None:
        fields = self._fields()
        kind = self._kind(fields)
        item = self._sent.popleft()
        length = self._plan[item.number].length
        if kind == 'failed':
            self._failed(item, str(fields.get('error'))[:wire.QUOTED * 2])
        elif kind == 'differs':
            self._again.append(self._rest(item, fields, length))
        else:
            sent = 0 if kind == 'same' else sum(
                run.length for run in item.runs) or length
            self._tell(done=item.number, resumed=length - sent)

    def _rest(self, item: Item, fields: dict[str, ty.Any],
              length: int) -> Item:
        """Return what to send of an extent that differs."""
        runs = wire.parse_runs(fields.get('runs'), length)
        if self._plan[item.number].source_offset is None or (
                sum(run.length for run in runs) == length):
            return Item(item.number)
        return Item(item.number, runs=tuple(runs))

    def _kind(self, fields: dict[str, ty.Any]) -> str:
        """Return what is answered to what was sent first.

        :raises wire.ProtocolError: if it is no answer to that
        """
        if self._sent:
            item = self._sent[0]
            for kind in ('failed', *(
                    ('same', 'differs') if item.is_asked else ('stored',))):
                if fields.get(kind) == self._plan[item.number].place:
                    return kind
        raise wire.ProtocolError('it answers %s to %s' % (
            wire.quoted(wire.line(**fields)),
            self._plan[item.number].place if self._sent else 'nothing'))

    def _failed(self, item: Item, reason: str) -> None:
        number = item.number
        self._failures[number] = self._failures.get(number, 0) + 1
        self._tell(failed=number, error=reason)
        if self._failures[number] >= self._job.attempts:
            raise pmem_connection.Refused('%s (tried %d times)' % (
                reason, self._failures[number]), number)
        # What it would only patch is not what it was any more. And what is
        # short at the moment, such as processes, may not be so a moment later.
        self._again.append(dataclasses.replace(item, runs=()))
        time.sleep(min(self._failures[number] - 1, LONGEST_PAUSE))
