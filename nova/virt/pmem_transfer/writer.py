# SPDX-License-Identifier: Apache-2.0

"""One stream of a copy, where it is written: a process of the receiver's.

Each extent is written, read back from the device, compared with what has
arrived, and only then acknowledged. While ``daxio`` writes one, the next one
is taken in, if there is one.
"""

from collections import abc
import dataclasses
import functools
import select
import socket
import time
import typing as ty

from nova.virt.pmem_transfer import daxio
from nova.virt.pmem_transfer import extents
from nova.virt.pmem_transfer import memory as pmem_memory
from nova.virt.pmem_transfer import processes
from nova.virt.pmem_transfer import stream
from nova.virt.pmem_transfer import wire

if ty.TYPE_CHECKING:
    from nova.virt.pmem_transfer import receiver

#: Bytes between two runs that are written rather than starting another daxio.
#: That costs as much as 8 MiB; but zeros need often not be written at all.
GAPS = {wire.DATA: 2 * extents.MIB, wire.PATCH: 8 * extents.MIB}

#: The part of the stall timeout that storing one extent may take. So the
#: sender learns the reason before it runs out of patience.
STORE_SHARE = 0.5

#: Answers that are kept back at most, so that the sender can always go on.
MOST_UNSAID = stream.WINDOW // 2

#: Bytes that are taken in while a process writes, before anybody looks at
#: them: more than the 2 MiB that OpenSSH sends of a channel unasked.
AHEAD = 4 * extents.MIB


class Target:
    """A device that may be written, open to be read."""

    def __init__(self, job: wire.Target,
                 memory: pmem_memory.Mapping) -> None:
        self.name = job.name
        self.path = job.path
        self.memory = memory
        self.sections = extents.sections(job.source_size, job.size)


@dataclasses.dataclass
class Frame:
    """A frame that has arrived as a whole.

    :ivar runs: where in the buffer data has come; the rest of the extent is
        not cleared yet
    :ivar is_doubtful: whether what is there already may not last
    :ivar proof: the key and the tags of a frame that compares
    :ivar spans: what is written of it, each at once
    :ivar process: the daxio that writes the first span
    :ivar until: when that has to be done
    """

    header: wire.Header
    runs: list[extents.Run] = dataclasses.field(default_factory=list)
    is_doubtful: bool = False
    buffer: pmem_memory.Buffer | None = None
    proof: bytes = b''
    spans: list[extents.Run] = dataclasses.field(default_factory=list)
    process: daxio.Daxio | None = None
    until: float = 0


class Writer:
    """Frames in, answers out."""

    def __init__(
        self, connection: socket.socket, hello: 'receiver.Hello',
        targets: ty.Sequence[Target], notes: daxio.Unfinished,
        guard: processes.Guard, unsaid: pmem_memory.Unsaid,
        keep_open: ty.Sequence[int],
    ) -> None:
        """Prepare it.

        :param unsaid: where answers wait, for our parent, too
        :param keep_open: what each daxio inherits
        """
        self._connection = connection
        self._hello = hello
        self._targets = targets
        self._notes = notes
        self._guard = guard
        self._unsaid = unsaid
        self._keep_open = keep_open
        self._free = [pmem_memory.Buffer(hello.extent) for _ in range(2)]
        self._sequence = 0
        self._ahead = pmem_memory.Backlog(AHEAD)
        self._stored: Frame | None = None

    def run(self) -> None:
        """Serve until the sender says that this is all.

        :raises EOFError: if it goes away before
        :raises TimeoutError: if nothing comes any more
        :raises wire.ProtocolError: if it sends what it must not
        """
        try:
            while True:
                frame = self._read()
                if self._stored is not None:
                    # As long as that came the sender has not run out of
                    # patience, and time was not spent on storing.
                    self._put_off(self._stored)
                    self._finish_stored()
                if frame.header.kind == wire.END:
                    self._say(end=True)
                    return
                self._begin(frame)
        finally:
            if self._stored is not None and self._stored.process is not None:
                self._stored.process.close()
            self._say_all()

    def _finish_stored(self) -> None:
        self._finish(self._stored)
        self._stored = None

    def _put_off(self, frame: Frame) -> None:
        """Have the time begin in which a frame has to be stored."""
        frame.until = time.monotonic() + (
            self._hello.stall_timeout * STORE_SHARE)

    # What comes

    def _take(self, view: 'memoryview | bytearray') -> None:
        rest = memoryview(view)
        while rest:
            self._answer_meanwhile()
            if not self._ahead and not self._has_come():
                self._say_all()
            rest = rest[self._ahead.take(rest) or self._receive(rest):]

    def _receive(self, view: memoryview) -> int:
        try:
            count = self._connection.recv_into(view)
        except TimeoutError:
            raise TimeoutError('nothing has come for %g seconds' %
                               self._hello.stall_timeout)
        if not count:
            raise EOFError('before the end of the copy')
        return count

    def _answer_meanwhile(self) -> None:
        """Wait until something comes; what is written by then is answered."""
        while self._stored is not None and not self._ahead:
            ready = self._ready(self._stored.process, self._stored.until)
            if self._connection in ready and self._stored.process not in ready:
                return
            self._finish_stored()

    def _bytes(self, size: int) -> bytes:
        data = bytearray(size)
        self._take(data)
        return bytes(data)

    def _read(self) -> Frame:
        """Take in a frame."""
        frame = Frame(wire.Header.unpack(
            self._bytes(wire.HEADER.size), self._sequence))
        self._sequence = (self._sequence + 1) % 2 ** 32
        if frame.header.kind == wire.COMPARE:
            self._check(frame)
            frame.proof = self._bytes(
                wire.KEY + wire.TAG * frame.header.runs)
        elif frame.header.kind in (wire.DATA, wire.PATCH):
            frame.runs = wire.unpack_runs(
                self._bytes(frame.header.runs * wire.RUN.size))
            self._check(frame)
            if frame.runs:
                frame.buffer = self._free.pop()
                for run in frame.runs:
                    self._take(frame.buffer.view[run.offset:run.end])
        return frame

    def _check(self, frame: Frame) -> None:
        header = frame.header
        if header.device >= len(self._targets):
            raise wire.ProtocolError('there is no device %d' % header.device)
        target = self._targets[header.device]
        try:
            extents.check((header.offset, header.length), frame.runs,
                          target.sections, self._hello.extent)
        except extents.NotAllowed as error:
            raise wire.ProtocolError('device %s: %s' % (target.name, error))

    # What is done

    def _begin(self, frame: Frame) -> None:
        """Do what a frame asks for, or begin to."""
        try:
            if frame.header.kind == wire.COMPARE:
                self._compare(frame)
                return
            frame.is_doubtful = self._notes.has(*frame.header.place)
            self._notes.begin(*frame.header.place)
            frame.spans = _spans(frame, functools.partial(
                self._keep if frame.header.kind == wire.PATCH else _clear,
                frame))
            self._put_off(frame)
            if frame.spans:
                frame.process = self._daxio(frame, frame.spans[0])
            self._stored = frame
        except processes.Failed as error:
            self._fail(frame, error)
            return
        if not frame.spans:
            self._finish_stored()

    def _finish(self, frame: Frame) -> None:
        try:
            self._store(frame)
            self._notes.end(*frame.header.place)
        except processes.Failed as error:
            self._fail(frame, error)
            return
        self._release(frame)
        self._say(stored=frame.header.place)

    def _fail(self, frame: Frame, error: Exception) -> None:
        self._release(frame)
        self._say(failed=frame.header.place, error=str(error)[:wire.QUOTED])

    def _release(self, frame: Frame) -> None:
        if frame.buffer is not None:
            self._free.append(frame.buffer)
            frame.buffer = None

    def _compare(self, frame: Frame) -> None:
        place = frame.header.place
        differ = [list(run) for run in self._different(frame)]
        if differ:
            self._say(differs=place, runs=differ)
        else:
            self._say(same=place)

    def _different(self, frame: Frame) -> abc.Iterator[extents.Run]:
        """Yield what of an extent is not there, or may not last."""
        header = frame.header
        key, theirs = frame.proof[:wire.KEY], frame.proof[wire.KEY:]
        with self._read_back(header, extents.Run(0, header.length)) as data:
            ours = wire.tags(key, data)
        if ours == theirs and not self._notes.has(*header.place):
            return
        for number, run in enumerate(wire.parts(header.length)):
            tag = slice(number * wire.TAG, (number + 1) * wire.TAG)
            if ours[tag] != theirs[tag] or self._notes.has(
                    header.device, header.offset + run.offset, run.length):
                yield run

    def _store(self, frame: Frame) -> None:
        """Write an extent as far as it is not there; show that it is.

        :raises processes.Failed: if it is not
        """
        gaps = [] if frame.header.kind == wire.PATCH else list(
            _between(frame.spans, frame.header.length))
        for number, span in enumerate(frame.spans):
            self._wait(frame, frame.process if number == 0 else
                       self._daxio(frame, span))
        # A target that was wiped has the zeros between already.
        dirty = [gap for gap in gaps if frame.is_doubtful or
                 not self._is_there(frame, gap, zero=True)]
        for gap in dirty:
            self._wait(frame, self._daxio(frame, gap, zero=True))
        # All of it is read after the last write.
        for zero, parts in (False, frame.spans), (True, gaps if dirty else ()):
            for part in parts:
                if not self._is_there(frame, part, zero):
                    raise processes.Failed(
                        'it reads back different from what was written')

    def _daxio(self, frame: Frame, run: extents.Run,
               zero: bool = False) -> daxio.Daxio:
        where = (self._targets[frame.header.device].path,
                 frame.header.offset + run.offset, run.length)
        if zero:
            return daxio.zero(self._guard, *where, keep_open=self._keep_open)
        return daxio.write(self._guard, *where, frame.buffer, run.offset,
                           keep_open=self._keep_open)

    def _keep(self, frame: Frame, run: extents.Run) -> None:
        """Have in the buffer what is on the device, and stays."""
        with self._read_back(frame.header, run) as data:
            frame.buffer.view[run.offset:run.end] = data

    def _wait(self, frame: Frame, process: daxio.Daxio) -> None:
        frame.process = process
        if not self._has_ended(process, frame.until):
            process.give_up(self._hello.stall_timeout * STORE_SHARE)
        frame.process = None
        process.finish()

    def _has_ended(self, process: daxio.Daxio, until: float) -> bool:
        """Wait for the end of a process; take in what comes meanwhile."""
        while self._ahead.has_room:
            ready = self._ready(process, until)
            if process in ready or not ready:
                return bool(ready)
            if not self._take_ahead():
                break
        self._say_all()
        return process.wait(until - time.monotonic())

    def _ready(self, process: daxio.Daxio, until: float) -> list[ty.Any]:
        """Wait until something comes, or a process ends; return which."""
        sources: list[ty.Any] = [self._connection, process]
        if not (ready := select.select(sources, [], [], 0)[0]):
            self._say_all()
            ready = select.select(
                sources, [], [], max(0, until - time.monotonic()))[0]
        return ready

    def _has_come(self) -> bool:
        return bool(select.select([self._connection], [], [], 0)[0])

    def _take_ahead(self) -> bool:
        """Take in what has come; return whether more may come.

        When ssh has used up what it may send unasked, it waits for a word from
        sshd, which does not set TCP_NODELAY for what it forwards: that word
        would lie behind our last answer until that is acknowledged. So 40 ms
        went by for every few extents with little data.
        """
        return self._ahead.fill(self._connection.recv_into)

    def _is_there(self, frame: Frame, run: extents.Run, zero: bool) -> bool:
        """Compare what is on the device with what should be there."""
        offset = frame.header.offset + run.offset
        target = self._targets[frame.header.device].memory
        with self._read_back(frame.header, run):
            if zero:
                return target.is_zero(offset, run.length)
            return target.equals(offset, frame.buffer, run.offset, run.length)

    def _read_back(
        self, header: wire.Header, run: extents.Run,
    ) -> ty.ContextManager[memoryview]:
        """Have a part of an extent at hand, as it is on the device."""
        return self._targets[header.device].memory.at_hand(
            header.offset + run.offset, run.length)

    def _say(self, **fields: ty.Any) -> None:
        """Answer, as soon as nothing comes; see :meth:`_take_ahead`."""
        self._unsaid.add(wire.line(**fields))
        if self._unsaid.count >= MOST_UNSAID:
            self._say_all()

    def _say_all(self) -> None:
        while self._ahead.has_room and self._has_come():
            if not self._take_ahead():
                break
        self._unsaid.send(self._connection.fileno())


def _spans(frame: Frame,
           fill: abc.Callable[[extents.Run], None]) -> list[extents.Run]:
    """Return what to write of a frame, each at once.

    Where there is little between two runs it is put into the buffer, as this
    takes less than another process.

    :param fill: puts there what has to be between runs
    """
    spans: list[extents.Run] = []
    for run in frame.runs:
        if spans and (run.offset - spans[-1].end <=
                      GAPS[frame.header.kind]):
            start, end = spans[-1].offset, spans.pop().end
            fill(extents.Run(end, run.offset - end))
            run = extents.Run(start, run.end - start)
        spans.append(run)
    return spans


def _clear(frame: Frame, run: extents.Run) -> None:
    frame.buffer.clear(run.offset, run.length)


def _between(runs: list[extents.Run], length: int) -> abc.Iterator[
        extents.Run]:
    """Yield what runs leave out of an extent."""
    end = 0
    for run in [*runs, extents.Run(length, 0)]:
        if run.offset > end:
            yield extents.Run(end, run.offset - end)
        end = run.end
