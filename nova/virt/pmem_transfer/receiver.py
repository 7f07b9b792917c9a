# SPDX-License-Identifier: Apache-2.0

"""The command that ssh starts on the destination: it writes what arrives.

It is told the uuid of a migration and nothing else. What it may write it
learns from that migration's ticket. Each extent is written, read back from
the device, compared with what has arrived, and only then acknowledged.
"""

from collections import abc
import os
import select
import sys
import time
import typing as ty

from nova.virt.pmem_transfer import admission
from nova.virt.pmem_transfer import buffers
from nova.virt.pmem_transfer import daxio
from nova.virt.pmem_transfer import extents
from nova.virt.pmem_transfer import inbox
from nova.virt.pmem_transfer import layout
from nova.virt.pmem_transfer import mapping
from nova.virt.pmem_transfer import pipes
from nova.virt.pmem_transfer import processes
from nova.virt.pmem_transfer import proof
from nova.virt.pmem_transfer import settings
from nova.virt.pmem_transfer import ticket as pmem_ticket
from nova.virt.pmem_transfer import unfinished
from nova.virt.pmem_transfer import wire

COMMAND = 'nova-pmem-receive'

#: Seconds to wait for the first line.
HELLO_TIMEOUT = 60

#: Seconds that a sender that comes back waits for its last receiver to end.
LOCK_TIMEOUT = 10

#: Bytes that are read back at a time, before something may be taken in: a page
#: of a device.
SLICE = mapping.PAGE

#: Bytes that could be written in the time that it takes to start daxio.
RUN_COST = 2 * layout.MIB

#: The part of the stall timeout that storing one extent may take. So the
#: sender learns the reason before it runs out of patience.
STORE_SHARE = 0.5


class Hello(ty.NamedTuple):
    """What the sender says first; see :func:`parse_hello`.

    :ivar stream: number of the stream, from 0
    :ivar extent: bytes of the largest extent
    :ivar stall_timeout: seconds without anything arriving before it is over
    :ivar reconnect: whether an earlier receiver of the stream may live
    :ivar careful: whether one may have been killed by damaged memory
    """

    stream: int
    extent: int
    stall_timeout: float
    reconnect: bool
    careful: bool = False


def parse_hello(line: bytes) -> Hello:
    """Read the sender's first line.

    :raises wire.ProtocolError: if it is none that can be served
    """
    fields = wire.parse_hello(line, 'the sender')
    hello = Hello(*(fields.get(name, Hello._field_defaults.get(name))
                    for name in Hello._fields))
    if not (type(hello.stream) is int and 0 <= hello.stream < 1024 and
            type(hello.extent) is int and
            extents.SMALLEST <= hello.extent <= extents.LARGEST and
            type(hello.stall_timeout) in (int, float) and
            0 < hello.stall_timeout <= 86400 and
            type(hello.reconnect) is bool and
            type(hello.careful) is bool):
        raise wire.ProtocolError('the sender asks for %s' % wire.quoted(line))
    return hello


#: Work on a frame: yields a process that is to be waited for, or None when
#: something may be taken in before it goes on.
Work = abc.Generator[daxio.Daxio | None, None, None]


class Session:
    """A stream: frames in, answers out.

    There is one thread. While ``daxio`` works on one extent, the next one is
    taken in.
    """

    def __init__(
        self, ticket: admission.OpenTicket, devices: list[admission.Device],
        hello: Hello, guard: processes.Guard, source: int, sink: int,
    ) -> None:
        """Prepare it.

        :param source: file descriptor where frames come from
        :param sink: file descriptor where answers go
        """
        self._ticket = ticket
        self._unfinished = unfinished.Unfinished(ticket.path)
        self._devices = devices
        self._sections = [layout.sections(each.source_size, each.size)
                          for each in devices]
        self._hello = hello
        self._guard = guard
        self._sink = sink
        self._maps = [mapping.Mapping(each.node, each.size, hello.careful)
                      for each in devices]
        self._free = [buffers.Buffer(hello.extent) for _ in range(2)]
        self._inbox = inbox.Inbox(source, self._free, self._check)
        self._pause = pipes.Pause(source)
        self._waiting: list[inbox.Frame] = []
        self._work: Work | None = None
        self._process: daxio.Daxio | None = None
        self._over = False
        self._stored = [0, 0]
        self._quiet_until = self._work_until = self._deadline(1)

    def _check(self, header: wire.Header, runs: list[extents.Run]) -> None:
        if header.device >= len(self._devices):
            raise wire.ProtocolError('there is no device %d' % header.device)
        try:
            extents.check((header.offset, header.length), runs,
                          self._sections[header.device], self._hello.extent)
        except extents.NotAllowed as error:
            raise wire.ProtocolError('device %s: %s' % (
                self._devices[header.device].name, error))

    def run(self) -> None:
        """Serve until the sender says that this is all.

        :raises EOFError: if it goes away before
        :raises TimeoutError: if nothing comes any more
        :raises admission.Refused: if the ticket was closed
        :raises wire.ProtocolError: if it sends what it must not
        """
        while not self._over:
            if self._work is None and self._waiting:
                self._begin(self._waiting.pop(0))
                continue
            ready = self._wait()
            if self._inbox in ready:
                self._take_in()
            if self._work is not None:
                self._work_on(ready)
            elif time.monotonic() > self._quiet_until:
                raise TimeoutError('nothing has come for %g seconds' %
                                   self._hello.stall_timeout)

    def _deadline(self, share: float) -> float:
        return time.monotonic() + self._hello.stall_timeout * share

    def _wait(self) -> list[ty.Any]:
        """Wait until something can be done; return what is ready."""
        files: list[ty.Any] = []
        until = self._quiet_until if self._work is None else self._work_until
        if self._inbox.is_ready() and not self._waiting:
            if self._pause.is_on():
                until = min(until, self._pause.until)
            else:
                files.append(self._inbox)
        if self._process is not None:
            files.append(self._process)
        elif self._work is not None:
            until = 0
        # Not poll(), which counts in milliseconds.
        return select.select(
            files, [], [], max(0, until - time.monotonic()))[0]

    def _take_in(self) -> None:
        frame = self._inbox.read()
        if self._inbox.is_empty:
            self._pause.begin()
        self._quiet_until = self._deadline(1)
        if frame is not None:
            self._waiting.append(frame)

    def _begin(self, frame: inbox.Frame) -> None:
        if frame.header.kind == wire.END:
            self._say(end=self._stored)
            self._over = True
            return
        self._ticket.check_open()
        self._work = self._serve(frame)
        self._work_until = self._deadline(STORE_SHARE)
        self._step()

    def _work_on(self, ready: list[ty.Any]) -> None:
        if self._process is None or self._process in ready:
            self._step()
        elif time.monotonic() > self._work_until:
            self._process.give_up(self._hello.stall_timeout * STORE_SHARE)
            self._work_until = self._deadline(STORE_SHARE)

    def _step(self) -> None:
        try:
            self._process = next(self._work)
        except StopIteration:
            self._work = self._process = None
            # Nobody could send while there was no room.
            self._quiet_until = self._deadline(1)

    def _serve(self, frame: inbox.Frame) -> Work:
        """Do what a frame asks for, and answer."""
        place = frame.header.place
        try:
            if frame.header.kind == wire.COMPARE:
                yield from self._compare(frame)
            else:
                self._unfinished.begin(*place)
                yield from self._store(frame)
                self._unfinished.end(*place)
                self._count(frame.header)
                self._say(stored=place)
        except processes.Failed as error:
            self._say(failed=place, error=str(error))
        finally:
            if frame.buffer is not None:
                self._free.append(frame.buffer)

    def _count(self, header: wire.Header) -> None:
        self._stored[0] += 1
        self._stored[1] += header.length

    def _compare(self, frame: inbox.Frame) -> Work:
        if self._unfinished.has(*frame.header.place):
            self._say(differs=frame.header.place)
            return
        proved = proof.Proof(frame.proof[:wire.KEY])
        whole = extents.Run(0, frame.header.length)
        for _slice, data in self._slices(frame.header, whole):
            proved.update(data)
            yield None
        if proved.tag() == frame.proof[wire.KEY:]:
            self._count(frame.header)
            self._say(same=frame.header.place)
        else:
            self._say(differs=frame.header.place)

    def _store(self, frame: inbox.Frame) -> Work:
        """Write an extent as far as it is not there; show that it is."""
        spans = _spans(frame)
        gaps = list(_between(spans, frame.header.length))
        for span in spans:
            yield from self._write(frame, span)
        # A target that was wiped has the zeros between already.
        dirty = []
        for gap in gaps:
            if not (yield from self._is_there(frame, gap, zero=True)):
                dirty.append(gap)
        for gap in dirty:
            yield from self._write(frame, gap, zero=True)
        # All of it was read after the last write.
        for zero, parts in (False, spans), (True, gaps if dirty else ()):
            for part in parts:
                if not (yield from self._is_there(frame, part, zero)):
                    raise processes.Failed(
                        'it reads back different from what was written')

    def _write(self, frame: inbox.Frame, run: extents.Run,
               zero: bool = False) -> Work:
        where = (self._devices[frame.header.device].node,
                 frame.header.offset + run.offset, run.length)
        # While daxio has the ticket open, too, the stream stays locked.
        if zero:
            process = daxio.zero(self._guard, *where,
                                 keep_open=[self._ticket.fd])
        else:
            process = daxio.write(self._guard, *where, frame.buffer,
                                  run.offset, keep_open=[self._ticket.fd])
        yield process
        process.finish()

    def _is_there(self, frame: inbox.Frame, run: extents.Run,
                  zero: bool = False) -> abc.Generator[None, None, bool]:
        """Compare what is on the device with what should be there."""
        offset = frame.header.offset
        target = self._maps[frame.header.device]
        for part, _data in self._slices(frame.header, run):
            if zero:
                same = target.is_zero(offset + part.offset, part.length)
            else:
                same = target.equals(offset + part.offset, frame.buffer,
                                     part.offset, part.length)
            if not same:
                return False
            yield None
        return True

    def _slices(self, header: wire.Header, run: extents.Run) -> abc.Iterator[
            tuple[extents.Run, memoryview]]:
        """Yield the slices of a part of an extent, with their bytes.

        The bytes are those of the device, while they are at hand.

        :raises processes.Failed: if they can't be read
        """
        target = self._maps[header.device]
        start = run.offset
        while start < run.end:
            length = SLICE - (header.offset + start) % SLICE
            part = extents.Run(start, min(length, run.end - start))
            start = part.end
            try:
                with target.at_hand(header.offset + part.offset,
                                    part.length) as data:
                    yield part, data
            except OSError as error:
                raise processes.Failed('it can not be read back: %s' % error)

    def _say(self, **fields: ty.Any) -> None:
        _write(self._sink, wire.line(**fields), self._hello.stall_timeout)


def _spans(frame: inbox.Frame) -> list[extents.Run]:
    """Return what to write of a frame, each at once.

    Where there are few zeros between two runs they are put into the buffer, as
    this takes less than another process.
    """
    spans: list[extents.Run] = []
    for run in frame.runs:
        if spans and run.offset - spans[-1].end <= RUN_COST:
            start, end = spans[-1].offset, spans.pop().end
            frame.buffer.clear(end, run.offset - end)
            run = extents.Run(start, run.end - start)
        spans.append(run)
    return spans


def _between(runs: list[extents.Run], length: int) -> abc.Iterator[
        extents.Run]:
    """Yield what runs leave out of an extent."""
    end = 0
    for run in [*runs, extents.Run(length, 0)]:
        if run.offset > end:
            yield extents.Run(end, run.offset - end)
        end = run.end


def _write(fd: int, line: bytes, timeout: float) -> None:
    """Write a line; a peer that does not read it must not hold us up."""
    if not select.select([], [fd], [], timeout)[1]:
        raise TimeoutError('nobody reads the answers')
    os.write(fd, line)


def _read_hello(fd: int) -> bytes:
    """Return the first line, and read nothing that comes after it."""
    line = b''
    deadline = time.monotonic() + HELLO_TIMEOUT
    while not line.endswith(b'\n'):
        if not select.select([fd], [], [], deadline - time.monotonic())[0]:
            raise TimeoutError('no handshake in %d seconds' % HELLO_TIMEOUT)
        byte = os.read(fd, 1)
        if not byte:
            raise EOFError('before the handshake')
        line += byte
        if len(line) > wire.QUOTED * 2:
            raise wire.ProtocolError('the sender should begin with the '
                                     'handshake of a copy, and sent %s' %
                                     wire.quoted(line))
    return line


def serve(migration_uuid: str, source: int, sink: int) -> None:
    """Receive one stream of a migration's copy.

    :raises Exception: see :meth:`Session.run`
    """
    # This takes a while, and the sender may not be ready to say a word.
    known = settings.load()
    hello = parse_hello(_read_hello(source))
    ticket = admission.OpenTicket(
        os.path.join(known.state_path, pmem_ticket.FOLDER), migration_uuid)
    # The sender must not run out of patience first.
    ticket.lock(hello.stream, min(
        LOCK_TIMEOUT, hello.stall_timeout * STORE_SHARE)
        if hello.reconnect else 0)
    devices = admission.admit(ticket, known.host)
    with processes.Guard() as guard:
        session = Session(ticket, devices, hello, guard, source, sink)
        _write(sink, wire.hello(devices=[
            {'name': each.name, 'size': each.size,
             'source_size': each.source_size} for each in devices]),
            hello.stall_timeout)
        session.run()


def run(arguments: list[str], source: int, sink: int) -> int:
    """Serve one stream, and put into words what goes wrong.

    :returns: the exit status
    """
    again = False
    try:
        if len(arguments) != 1:
            raise admission.Refused('usage: %s MIGRATION_UUID' % COMMAND)
        serve(arguments[0], source, sink)
        return 0
    except admission.Refused as error:
        reason, again = str(error), error.again
    except wire.ProtocolError as error:
        reason = str(error)
    except (EOFError, OSError) as error:
        reason, again = 'the connection ended: %s' % error, True
    except Exception as error:
        # Whoever looks for the cause sits at the other end of the wire.
        reason = '%s: %s' % (type(error).__name__, error)
    try:
        # It has the form of a handshake, as it may be the first line.
        _write(sink, wire.hello(error=reason, again=again), 1)
    except OSError:
        pass
    sys.stderr.write('%s: %s\n' % (COMMAND, reason))
    return 1


def main() -> ty.NoReturn:
    processes.end(run(sys.argv[1:], 0, 1))


if __name__ == '__main__':
    main()
