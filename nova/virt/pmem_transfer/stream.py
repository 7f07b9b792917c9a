# SPDX-License-Identifier: Apache-2.0

"""One stream of a copy: extents go out, answers come in.

Nothing here waits. :meth:`Stream.advance` does what can be done now, and
:meth:`Stream.sources`, :meth:`Stream.sinks` and :meth:`Stream.deadline`
say for what to wait.
"""

import collections
from collections import abc
import time
import typing as ty

from nova.virt.pmem_transfer import buffers
from nova.virt.pmem_transfer import connection
from nova.virt.pmem_transfer import job as pmem_job
from nova.virt.pmem_transfer import pace
from nova.virt.pmem_transfer import processes
from nova.virt.pmem_transfer import wire
from nova.virt.pmem_transfer import work as pmem_work

#: Frames that are sent ahead of their answers, and how many of them may carry
#: data: one is stored while the next one arrives. Those without are short, and
#: to look at a target for one takes no longer than to wait for the next.
WINDOW = 8
BUFFERS = 2

#: Seconds before a connection is tried again, times the number of failures
#: in a row.
PAUSE = 1


class Failed(Exception):
    """The copy can't be done.

    Its words do not name devices or hosts: those who wanted it know them.

    :ivar device: the name of the device that it failed at, if it did at one
    """

    def __init__(self, reason: str, device: str | None = None) -> None:
        super().__init__(reason)
        self.device = device


class Shared:
    """What the streams of a copy have in common.

    :ivar done: bytes that are acknowledged, for each device
    :ivar resumed: bytes that were there already
    :ivar wire: bytes written to connections
    :ivar is_let_in: whether the receiver of the first stream has let us in
    """

    def __init__(
        self, job: pmem_job.Job, guard: processes.Guard,
        tell: abc.Callable[..., None],
    ) -> None:
        """Prepare the work.

        :param tell: called with an event, and what belongs to it
        """
        self.job = job
        self.guard = guard
        self.tell = tell
        self.pace = pace.Pace(job.bandwidth)
        self.work = pmem_work.Work(job)
        self.done = [0] * len(job.devices)
        self.resumed = 0
        self.wire = 0
        self.retries = 0
        self.is_let_in = False

    def device_name(self, piece: pmem_work.Piece) -> str:
        return self.job.devices[piece.extent.device].name


class Stream:
    """A stream; see the module."""

    def __init__(self, shared: Shared, number: int) -> None:
        self._shared = shared
        self._job = shared.job
        self._number = number
        self._connection: connection.Connection | None = None
        self._pending: collections.deque[pmem_work.Piece] = collections.deque()
        self._sent: collections.deque[pmem_work.Piece] = collections.deque()
        self._read: pmem_work.Piece | None = None
        self._buffers = [buffers.Buffer(self._job.extent)
                         for _ in range(BUFFERS)]
        self._free = list(self._buffers)
        self._confirmed = [0, 0]
        self._connections = 0
        self._fruitless = 0
        self._introduced = self.is_greeted = False
        self._ending = self._over = False
        self._not_before = 0.0
        self._stalls_at = 0.0
        self.is_done = False

    # What the loop asks

    def sources(self) -> abc.Iterator[int]:
        """Yield what to wait for until it can be read."""
        if self._introduced:
            yield self._connection.source

    def sinks(self) -> abc.Iterator[int]:
        """Yield what to wait for until it can be written to."""
        if (self._connection is not None and
                self._connection.is_sending() and
                not self._connection.pause.until and
                not self._shared.pace.delay()):
            yield self._connection.sink

    def deadline(self) -> float:
        """Return when to call :meth:`advance` even if nothing happens."""
        if self.is_done:
            return float('inf')
        times = [self._stalls_at if self._connection is not None
                 else self._not_before]
        if self._connection is not None and self._connection.is_sending():
            times.append(max(self._connection.pause.until,
                             time.monotonic() + self._shared.pace.delay())
                         if not list(self.sinks()) else float('inf'))
        return min(times)

    def advance(self) -> None:
        """Do what can be done without waiting.

        :raises Failed: if it is to be given up
        """
        if self.is_done:
            return
        try:
            self._advance()
        except connection.Broken as error:
            self._broken(str(error))
        except wire.ProtocolError as error:
            raise Failed(str(error))

    def close(self) -> None:
        """End the processes, and free the memory."""
        self._disconnect()
        for buffer in self._buffers:
            buffer.close()
        self._buffers = []

    # What happens

    def _advance(self) -> None:
        if self._connection is None:
            if not self._has_work():
                self._finish()
                return
            if time.monotonic() < self._not_before:
                return
            self._connect()
        if not self._introduced and not self._introduce():
            return
        self._receive()
        if self.is_done:
            return
        while True:
            self._load()
            self._queue()
            if self._connection.pause.is_on() or not self._send_some():
                break
            self._progress()
        # Have the next one ready while this one is on its way.
        self._load()
        self._check_stall()

    def _send_some(self) -> bool:
        """Send what can be sent now; return whether that is any.

        :raises connection.Broken: if nobody reads it
        """
        try:
            return self._connection.send(self._shared.pace)
        except connection.Broken:
            # What was said before counts, and may say why.
            while self._receive():
                pass
            raise

    def _has_work(self) -> bool:
        return bool(self._pending or self._sent or self._read or
                    self._shared.work)

    def _finish(self) -> None:
        self.is_done = True
        self.close()

    def _progress(self) -> None:
        self._stalls_at = time.monotonic() + self._job.stall_timeout

    def _check_stall(self) -> None:
        if self._connection.is_sending() and self._shared.pace.delay():
            # It is us who hold it up.
            self._progress()
        elif time.monotonic() >= self._stalls_at:
            raise connection.Broken(
                'nothing has moved for %g seconds' % self._job.stall_timeout)

    # The connection

    def _connect(self) -> None:
        self._confirmed = [0, 0]
        self._connection = connection.Connection(
            self._shared.guard, list(self._job.receiver))
        self._connections += 1
        self._progress()

    def _introduce(self) -> bool:
        """Say the first line, if it is time for it.

        Connecting takes long, so all streams do it at once. But the first
        one has to be let in before the others say a word: so a second copy
        meets the lock of the first stream, and never gets as far as to hold
        up a part of the other.

        :returns: whether it was said
        """
        self._introduced = self._number == 0 or self._shared.is_let_in
        if self._introduced:
            self._connection.say(wire.hello(
                stream=self._number, extent=self._job.extent,
                stall_timeout=self._job.stall_timeout,
                # Then an earlier receiver of this stream may live.
                reconnect=self._connections > 1 or self._job.resume,
                careful=self._connections > 1))
        self._progress()
        return self._introduced

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._shared.wire += self._connection.sent
            self._connection.close()
            self._connection = None
        self._introduced = self.is_greeted = False
        self._ending = self._over = False

    @property
    def wire(self) -> int:
        """Bytes sent that are not in the shared count yet."""
        return self._connection.sent if self._connection is not None else 0

    def _broken(self, reason: str) -> None:
        """Go back to where everything that was sent was not."""
        pieces = list(self._sent)
        self._sent.clear()
        if self._read is not None:
            self._give_back(self._read)
            self._read = None
        self._disconnect()
        self._fruitless += 1
        for piece in reversed(pieces):
            self._give_back(piece)
        if self._fruitless >= self._job.attempts:
            self._give_up(pieces[0] if pieces else None, reason,
                          self._fruitless)
        self._not_before = time.monotonic() + PAUSE * (self._fruitless - 1)
        if pieces:
            # It is the first without an answer that was at work.
            pieces[0].failures += 1
        self._retry(pieces[0] if pieces else None, reason)

    def _give_back(self, piece: pmem_work.Piece) -> None:
        self._release(piece)
        self._pending.appendleft(piece)

    def _release(self, piece: pmem_work.Piece) -> None:
        if piece.buffer is not None:
            self._free.append(piece.buffer)
            piece.buffer = None

    def _retry(self, piece: pmem_work.Piece | None, reason: str) -> None:
        if piece is not None and piece.failures >= self._job.attempts:
            self._give_up(piece, reason, piece.failures)
        self._shared.retries += 1
        place = {} if piece is None else {
            'device': self._shared.device_name(piece),
            'offset': piece.extent.offset}
        self._shared.tell('retry', stream=self._number, message=reason,
                          **place)

    def _give_up(self, piece: pmem_work.Piece | None, reason: str,
                 tries: int) -> None:
        if piece is None:
            raise Failed('%s (tried %d times)' % (reason, tries))
        raise Failed('%d bytes at offset %d: %s (tried %d times)' % (
            piece.extent.length, piece.extent.offset, reason, tries),
            self._shared.device_name(piece))

    # Answers

    def _receive(self) -> bool:
        """Take in answers; return whether there were any."""
        lines = self._connection.lines.read()
        for line in lines:
            self._progress()
            if self.is_greeted:
                self._answer(wire.parse_line(line))
            else:
                self._greet(line)
        if self._connection.lines.ended:
            if not self._over:
                self._hung_up()
            self._disconnect()
            self._finish()
        return bool(lines)

    def _hung_up(self) -> None:
        status = self._connection.exit_status(connection.LAST_WORDS)
        why = self._connection.why(0)
        if not self.is_greeted and self._connection.lines.rest:
            why = 'it printed %s; %s' % (
                wire.quoted(self._connection.lines.rest), why)
        # ssh says 255 of itself; any other status is that of a command that
        # is not there or does not want.
        if not self.is_greeted and status is not None and 0 < status < 255:
            raise Failed(why)
        raise connection.Broken(why)

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
        self.is_greeted = self._shared.is_let_in = True

    def _error(self, fields: dict[str, ty.Any]) -> ty.NoReturn:
        reason = str(fields['error'])[:wire.QUOTED * 2]
        if fields.get('again') is True:
            raise connection.Broken(reason)
        raise Failed('refused: %s' % reason,
                     self._shared.device_name(self._sent[0])
                     if self._sent else None)

    def _answer(self, fields: dict[str, ty.Any]) -> None:
        if wire.NAME in fields and 'error' in fields:
            self._error(fields)
        if 'end' in fields:
            self._ended(fields['end'])
            return
        kind, piece = self._match(fields)
        self._sent.popleft()
        self._release(piece)
        self._fruitless = 0
        if kind == 'failed':
            piece.failures += 1
            self._pending.appendleft(piece)
            self._retry(piece, str(fields.get('error'))[:wire.QUOTED * 2])
        elif kind == 'differs':
            piece.compare = False
            self._pending.appendleft(piece)
        else:
            self._count(piece)

    def _match(self, fields: dict[str, ty.Any]) -> tuple[str, pmem_work.Piece]:
        """Return the kind of an answer, and to what it is one.

        :raises wire.ProtocolError: if it is none to what was sent first
        """
        piece = self._sent[0] if self._sent else None
        # What is still being written can't have been dealt with.
        if len(self._sent) == 1 and self._connection.is_sending():
            piece = None
        if piece is not None:
            kinds = ('same', 'differs') if piece.compare else ('stored',)
            for kind in (*kinds, 'failed'):
                if fields.get(kind) == piece.extent.place:
                    return kind, piece
        raise wire.ProtocolError('it answers %s to %s' % (
            wire.quoted(wire.line(**fields)),
            'nothing' if piece is None else piece.extent.place))

    def _count(self, piece: pmem_work.Piece) -> None:
        length = piece.extent.length
        self._confirmed[0] += 1
        self._confirmed[1] += length
        self._shared.done[piece.extent.device] += length
        if piece.compare:
            self._shared.resumed += length

    def _ended(self, totals: ty.Any) -> None:
        if not self._ending or totals != self._confirmed:
            raise wire.ProtocolError(
                'it has stored %s (extents, bytes), and acknowledged %s' % (
                    wire.quoted(wire.line(end=totals)), self._confirmed))
        # Until it is gone the other host can't be sure that nobody writes.
        self._connection.end_input()
        self._over = True

    # Extents

    def _load(self) -> None:
        """Read the next extent from the source, if there is room."""
        while (self._read is None and self._free and
                (self._pending or self._shared.work)):
            piece = (self._pending.popleft() if self._pending
                     else self._shared.work.take())
            piece.buffer = self._free.pop()
            try:
                self._shared.work.load(piece)
            except OSError as error:
                piece.failures += 1
                self._give_back(piece)
                self._retry(piece, 'reading the source: %s' % error)
                continue
            if not piece.runs:
                self._release(piece)
            self._read = piece

    def _queue(self) -> None:
        """Queue a frame for what was read, or the end if that was all."""
        if (not self.is_greeted or self._ending or
                self._connection.is_sending()):
            return
        if self._read is None:
            if not self._has_work():
                self._ending = True
                self._connection.frame(wire.END)
        elif len(self._sent) < WINDOW:
            piece, self._read = self._read, None
            self._sent.append(piece)
            self._send(piece)

    def _send(self, piece: pmem_work.Piece) -> None:
        if piece.compare:
            self._connection.frame(
                wire.COMPARE, piece.extent, text=piece.proof)
        else:
            self._connection.frame(
                wire.DATA, piece.extent, piece.runs, buffer=piece.buffer)
