#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.

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

from nova.virt.pmem import admission
from nova.virt.pmem import buffers
from nova.virt.pmem import daxio
from nova.virt.pmem import extents
from nova.virt.pmem import inbox
from nova.virt.pmem import layout
from nova.virt.pmem import processes
from nova.virt.pmem import proof
from nova.virt.pmem import settings
from nova.virt.pmem import ticket as pmem_ticket
from nova.virt.pmem import wire

COMMAND = 'nova-pmem-receive'

#: Seconds to wait for the first line.
HELLO_TIMEOUT = 60

#: Seconds that a sender that comes back waits for its last receiver to end.
LOCK_TIMEOUT = 10

#: The part of the stall timeout that storing one extent may take. So the
#: sender learns the reason before it runs out of patience.
STORE_SHARE = 0.5


class Hello(ty.NamedTuple):
    """What the sender says first; see :func:`parse_hello`.

    :ivar stream: number of the stream, from 0
    :ivar extent: bytes of the largest extent
    :ivar stall_timeout: seconds without anything arriving before it is over
    :ivar reconnect: whether an earlier receiver of the stream may live
    """

    stream: int
    extent: int
    stall_timeout: float
    reconnect: bool


def parse_hello(line: bytes) -> Hello:
    """Read the sender's first line.

    :raises wire.ProtocolError: if it is none that can be served
    """
    fields = wire.parse_hello(line, 'the sender')
    hello = Hello(*(fields.get(name) for name in Hello._fields))
    if not (type(hello.stream) is int and 0 <= hello.stream < 1024 and
            type(hello.extent) is int and
            extents.SMALLEST <= hello.extent <= extents.LARGEST and
            type(hello.stall_timeout) in (int, float) and
            0 < hello.stall_timeout <= 86400 and
            type(hello.reconnect) is bool):
        raise wire.ProtocolError('the sender asks for %s' % wire.quoted(line))
    return hello


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
        self._devices = devices
        self._sections = [layout.sections(each.source_size, each.size)
                          for each in devices]
        self._hello = hello
        self._guard = guard
        self._sink = sink
        self._free = [buffers.Buffer(hello.extent) for _ in range(2)]
        self._read_back = buffers.Buffer(hello.extent)
        self._inbox = inbox.Inbox(source, self._free, self._check)
        self._waiting: list[inbox.Frame] = []
        self._stored = [0, 0]

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
        work: abc.Iterator[daxio.Daxio] | None = None
        process: daxio.Daxio | None = None
        deadline = quiet = self._deadline(1)
        while True:
            if work is None and self._waiting:
                frame = self._waiting.pop(0)
                if frame.header.kind == wire.END:
                    self._say(end=self._stored)
                    return
                self._ticket.check_open()
                work, deadline = self._serve(frame), self._deadline(
                    STORE_SHARE)
                process = next(work, None)
            elif work is not None and process is None:
                work = None
                # Nobody could send while there was no room.
                quiet = self._deadline(1)
            else:
                takes = self._inbox.is_ready() and not self._waiting
                ready = self._wait(
                    [self._inbox] * takes + [process] * (process is not None),
                    deadline if process else quiet)
                if process in ready:
                    process = next(work, None)
                elif process is not None and time.monotonic() > deadline:
                    process.give_up(self._hello.stall_timeout * STORE_SHARE)
                if self._inbox in ready:
                    frame = self._inbox.read()
                    quiet = self._deadline(1)
                    if frame is not None:
                        self._waiting.append(frame)
                elif process is None and time.monotonic() > quiet:
                    raise TimeoutError('nothing has come for %g seconds' %
                                       self._hello.stall_timeout)

    def _deadline(self, share: float) -> float:
        return time.monotonic() + self._hello.stall_timeout * share

    @staticmethod
    def _wait(files: list[ty.Any], deadline: float) -> list[ty.Any]:
        poll = select.poll()
        for file in files:
            poll.register(file, select.POLLIN)
        left = max(0, deadline - time.monotonic())
        ready = {fd for fd, _ in poll.poll(left * 1000 + 1)}
        return [file for file in files if file.fileno() in ready]

    def _serve(self, frame: inbox.Frame) -> abc.Iterator[daxio.Daxio]:
        """Do what a frame asks for, and answer.

        Yields each process that is to be waited for.
        """
        place = frame.header.place
        try:
            if frame.header.kind == wire.COMPARE:
                yield from self._compare(frame)
            else:
                yield from self._store(frame)
                self._stored[0] += 1
                self._stored[1] += frame.header.length
                self._say(stored=place)
        except processes.Failed as error:
            self._say(failed=place, error=str(error))
        finally:
            if frame.buffer is not None:
                self._free.append(frame.buffer)

    def _compare(self, frame: inbox.Frame) -> abc.Iterator[daxio.Daxio]:
        yield from self._read(frame.header)
        same = proof.tag(
            frame.proof[:wire.KEY], self._read_back, frame.header.length,
        ) == frame.proof[wire.KEY:]
        if same:
            self._stored[0] += 1
            self._stored[1] += frame.header.length
            self._say(same=frame.header.place)
        else:
            self._say(differs=frame.header.place)

    def _store(self, frame: inbox.Frame) -> abc.Iterator[daxio.Daxio]:
        """Write an extent unless it is there, and show that it is there."""
        length = frame.header.length
        if frame.buffer is None:
            yield from self._read(frame.header)
            if self._read_back.is_zero(0, length):
                return
            yield from self._write(frame)
            yield from self._read(frame.header)
            same = self._read_back.is_zero(0, length)
        else:
            _clear_between(frame.runs, frame.buffer, length)
            yield from self._write(frame)
            yield from self._read(frame.header)
            same = self._read_back.equals(frame.buffer, length)
        if not same:
            raise processes.Failed('it reads back different from what was '
                                   'written')

    def _write(self, frame: inbox.Frame) -> abc.Iterator[daxio.Daxio]:
        node = self._devices[frame.header.device].node
        place = frame.header.offset, frame.header.length
        if frame.buffer is None:
            process = daxio.zero(self._guard, node, *place,
                                 keep_open=[self._ticket.fd])
        else:
            process = daxio.write(self._guard, node, *place, frame.buffer,
                                  keep_open=[self._ticket.fd])
        yield process
        process.finish()

    def _read(self, header: wire.Header) -> abc.Iterator[daxio.Daxio]:
        process = daxio.read(
            self._guard, self._devices[header.device].node, header.offset,
            header.length, self._read_back, keep_open=[self._ticket.fd])
        yield process
        process.finish()

    def _say(self, **fields: ty.Any) -> None:
        _write(self._sink, wire.line(**fields), self._hello.stall_timeout)


def _clear_between(runs: list[extents.Run], buffer: buffers.Buffer,
                   length: int) -> None:
    """Make zero what was not sent of an extent."""
    end = 0
    for run in [*runs, extents.Run(length, 0)]:
        buffer.clear(end, run.offset - end)
        end = run.offset + run.length


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
    hello = parse_hello(_read_hello(source))
    known = settings.load()
    ticket = admission.OpenTicket(
        os.path.join(known.state_path, pmem_ticket.FOLDER), migration_uuid)
    ticket.lock(hello.stream, LOCK_TIMEOUT if hello.reconnect else 0)
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


def main() -> int:
    return run(sys.argv[1:], 0, 1)


if __name__ == '__main__':
    sys.exit(main())
