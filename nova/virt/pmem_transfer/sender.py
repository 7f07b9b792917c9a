# SPDX-License-Identifier: Apache-2.0

"""The command that nova-compute starts on the source: it sends devices.

The job comes as a line of JSON on stdin, and events go as lines of JSON to
stdout. The last one is either ``done`` or ``error``; only after ``done`` the
exit status is 0. The copy begins when stdin has another line, or its end:
until then its streams only connect, and ``ready`` says that they have. Each is
a process of its own; this one shares out the extents, hears which are
acknowledged, and starts anew what has broken.
"""

import functools
import itertools
import json
import mmap
import os
import select
import signal
import sys
import time
import typing as ty

from nova.virt.pmem_transfer import connection
from nova.virt.pmem_transfer import extents
from nova.virt.pmem_transfer import memory
from nova.virt.pmem_transfer import processes
from nova.virt.pmem_transfer import stream
from nova.virt.pmem_transfer import wire

#: Seconds between two events of how far the copy is: signs of life, too.
PROGRESS_INTERVAL = 0.5

#: Connections that are made at once: sshd refuses some from 10 on.
CONNECTING = 4

#: Seconds before a connection is tried again, times the number of failures
#: in a row; and before all are, that were given up.
PAUSE = 1
LONG_PAUSE = 3

#: Seconds that a stream may take to notice by itself that it stands still.
SLACK = 10

#: The longest job in bytes.
LONGEST_JOB = 1024 * 1024


def command(migration_uuid: str) -> list[str]:
    """Return the command that starts a sender.

    :param migration_uuid: so that operators can find its process
    """
    return [sys.executable, '-m', __name__, migration_uuid]


def environment() -> dict[str, str]:
    """Return the environment that this command needs, wherever it starts."""
    root = __file__
    for _ in __name__.split('.'):
        root = os.path.dirname(root)
    paths = filter(None, [root, os.environ.get('PYTHONPATH')])
    return dict(os.environ, PYTHONPATH=os.pathsep.join(paths))


class Failed(Exception):
    """The copy can't be done.

    Its words do not name devices or hosts: those who wanted it know them.

    :ivar device: the name of the device that it failed at, if it did at one
    """

    def __init__(self, reason: str, device: str | None = None) -> None:
        super().__init__(reason)
        self.device = device


class Copy:
    """A copy, from the first stream to the last acknowledgement."""

    def __init__(self, job: wire.Sending, guard: processes.Guard,
                 tell: ty.Callable[..., None], begins: int) -> None:
        """Prepare it.

        :param tell: called with an event, and what belongs to it
        :param begins: a file descriptor that can be read when it is to begin
        :raises Failed: if the sources can't be read
        """
        self._job = job
        self._guard = guard
        self._tell = tell
        self._begins = begins
        try:
            self._plan = extents.Plan(
                [(each.size, each.target_size) for each in job.devices],
                job.extent)
            self._sources = [memory.Mapping(each.path, each.size)
                             for each in job.devices]
        except (OSError, extents.DevicesDoNotFit) as error:
            raise Failed('reading the source: %s' % error)
        # Which extents are acknowledged: this is what proves the copy.
        self._done = bytearray(len(self._plan))
        self._failures: dict[int, int] = {}
        # The extent that each stream reads; memory that is damaged kills it.
        self._looks = memoryview(mmap.mmap(-1, 8 * job.streams)).cast('Q')
        self._bytes = self._resumed = self._wire = self._retries = 0
        self._is_reached, self._reason = False, 'no stream could be started'
        self._is_ready = self._has_begun = False
        self._start = time.monotonic()
        self._lost_at: float | None = None
        self._told_at = self._start - PROGRESS_INTERVAL

    def run(self) -> None:
        """Copy everything.

        What a stream leaves undone that is given up, the others do in a round
        of their own. While none gets through, all are tried for a while.

        :raises Failed: if that can't be done
        """
        streams, pause = self._job.streams, 0
        for number in itertools.count():
            left = self._done.count(0)
            if not left:
                return
            slots = [processes.Slot(each, time.monotonic() + pause)
                     for each in range(min(streams, left))]
            try:
                self._round(number, slots)
            finally:
                processes.end_all(slots)
            streams, pause = sum(not slot.is_lost for slot in slots), 0
            if not streams:
                self._check_patience()
                streams, pause = self._job.streams, LONG_PAUSE

    def _check_patience(self) -> None:
        """Go on trying for a while, if the receiver was ever reached."""
        self._lost_at = self._lost_at or time.monotonic()
        if not self._is_reached or (
                time.monotonic() >= self._lost_at + self._job.patience):
            raise Failed(self._reason)

    def _check_link(self, slots: list[processes.Slot]) -> None:
        """Give up in mid-round, too: it takes longer the more streams try."""
        left = [slot for slot in slots if not slot.is_over]
        if not (self._is_reached and left) or any(
                slot.fork is not None and slot.is_greeted for slot in left):
            return
        self._lost_at = self._lost_at or time.monotonic()
        gone = time.monotonic() - self._lost_at
        # One may have been given up long before the others were cut off.
        if gone >= SLACK and (any(slot.is_lost for slot in slots) or (
                gone >= self._job.patience > 0 and
                any(slot.fruitless for slot in left))):
            self._check_patience()

    # A round

    def _round(self, number: int, slots: list[processes.Slot]) -> None:
        """Have streams do what is left.

        Each of them has a share that stays the same: they and their
        connections are not started at one time.
        """
        before = bytes(self._done)
        while not all(slot.is_over for slot in slots):
            self._start_some(number, slots, before)
            self._wait(slots)
            for slot in slots:
                if slot.fork is not None:
                    self._watch(slot)
            self._check_link(slots)
            self._tell_ready(slots)
            self._tell_progress()
            self._check_time()

    def _start_some(self, number: int, slots: list[processes.Slot],
                    before: bytes) -> None:
        connecting = sum(slot.fork is not None and not slot.is_greeted
                         for slot in slots)
        for slot in slots:
            if (connecting < CONNECTING and slot.fork is None and
                    not slot.is_over and
                    time.monotonic() >= slot.not_before):
                share = extents.share(
                    before, self._done, slot.number, len(slots))
                try:
                    slot.start(self._guard, functools.partial(
                        self._stream, number, slot.number, share,
                        self._job.bandwidth / len(slots)))
                    connecting += 1
                except OSError as error:
                    self._broken(slot, 'no process: %s' % error, None)

    def _stream(self, round_number: int, number: int,
                share: ty.Iterator[int], rate: float,
                tell: ty.Callable[..., None]) -> None:
        """Be a stream: a process of its own."""
        one = stream.Stream(
            self._job, self._plan, self._sources, self._failures, rate, tell,
            functools.partial(self._looks.__setitem__, number),
            self._may_begin)
        try:
            with connection.connected(self._job, self._guard) as link:
                # A sign of life: the handshake may take as long again.
                tell(wire=0)
                one.run(link, wire.hello(
                    stream=number, extent=self._job.extent,
                    stall_timeout=self._job.stall_timeout,
                    generation=[self._job.attempt, round_number]), share)
            tell(over=True)
        except connection.Broken as error:
            tell(broken=str(error), at=one.at_work)
        except connection.Refused as error:
            tell(refused=str(error), at=error.number)

    def _may_begin(self, timeout: float) -> bool:
        return bool(select.select([self._begins], [], [], timeout)[0])

    def _wait(self, slots: list[processes.Slot]) -> None:
        until = self._told_at + PROGRESS_INTERVAL
        by_fd = {fd: slot for slot in slots if slot.fork is not None
                 for fd in slot.sources()}
        waiting = [] if self._has_begun else [self._begins]
        ready = select.select([*by_fd, *waiting], [], [],
                              max(0, until - time.monotonic()))[0]
        if self._begins in ready:
            ready.remove(self._begins)
            self._has_begun, self._start = True, time.monotonic()
        for fd in ready:
            for fields in by_fd[fd].read(fd):
                self._hear(by_fd[fd], fields)

    def _hear(self, slot: processes.Slot, fields: dict[str, ty.Any]) -> None:
        if 'done' in fields:
            number = fields['done']
            length = self._plan[number].length
            self._done[number] = 1
            self._bytes += length
            self._resumed += fields['resumed']
            self._lost_at = None
            slot.fruitless = 0
        elif 'failed' in fields:
            self._count_failure(fields['failed'])
            self._retry(slot, fields['error'], fields['failed'])
        elif 'waits' in fields:
            slot.is_ready, slot.fruitless, self._lost_at = True, 0, None
        elif 'wire' in fields:
            self._wire += fields['wire']
        elif 'greeted' in fields:
            slot.is_greeted = self._is_reached = True
        else:
            slot.ended = fields

    def _watch(self, slot: processes.Slot) -> None:
        """See to a stream that has ended, or does not."""
        limit = self._job.stall_timeout + SLACK
        silence = time.monotonic() - slot.heard_at
        # What hangs in the kernel is not killed by that, and is left alone.
        if slot.has_ended() or slot.ended and silence > limit + SLACK:
            self._ended(slot, slot.reap())
        elif silence > limit:
            slot.ended = slot.ended or {
                'broken': 'nothing was heard of it for %g seconds' % limit,
                'at': None}
            slot.fork.send(signal.SIGKILL)

    def _ended(self, slot: processes.Slot, status: int) -> None:
        said = slot.words.decode('utf-8', 'replace').strip()
        if status == -signal.SIGBUS:
            raise self._failure('memory of the source is damaged',
                                self._looks[slot.number])
        if slot.ended.get('over'):
            slot.is_over = True
            return
        fields = slot.ended or {'broken': 'the process of the stream %s' %
                                processes.how_ended(status), 'at': None}
        if 'refused' in fields:
            reason = fields['refused']
            raise self._failure(
                '%s: %s' % (reason, said) if reason.startswith('ssh ')
                else reason, fields['at'])
        reason = '%s: %s' % (fields['broken'], said or 'no message')
        if not self._is_reached:
            reason += connection.advice(said)
        self._broken(slot, reason, fields['at'])

    def _broken(self, slot: processes.Slot, reason: str,
                at: int | None) -> None:
        slot.fruitless += 1
        self._reason = '%s (tried %d times)' % (reason, slot.fruitless)
        if at is not None and self._count_failure(at) >= self._job.attempts:
            raise self._failure('%s (tried %d times)' % (
                reason, self._failures[at]), at)
        if slot.fruitless >= self._job.attempts:
            slot.is_over = slot.is_lost = True
        slot.not_before = time.monotonic() + PAUSE * (slot.fruitless - 1)
        self._retry(slot, reason, at)

    def _count_failure(self, number: int) -> int:
        self._failures[number] = self._failures.get(number, 0) + 1
        return self._failures[number]

    def _retry(self, slot: processes.Slot, reason: str,
               at: int | None) -> None:
        self._retries += 1
        place = {} if at is None else {
            'device': self._job.devices[self._plan[at].device].name,
            'offset': self._plan[at].offset}
        self._tell('retry', stream=slot.number, message=reason, **place)

    def _failure(self, reason: str, number: int | None) -> Failed:
        if number is None:
            return Failed(reason)
        extent = self._plan[number]
        return Failed('%d bytes at offset %d: %s' % (
            extent.length, extent.offset, reason),
            self._job.devices[extent.device].name)

    def _check_time(self) -> None:
        limit = self._job.time_limit
        if self._is_at_work and 0 < limit < time.monotonic() - self._start:
            raise Failed('it is not %s after %d seconds' % (
                'done' if self._has_begun else 'connected', limit))

    @property
    def _is_at_work(self) -> bool:
        """Whether it does not just wait for the word to begin."""
        return self._has_begun or not self._is_ready

    # What is told

    def _tell_ready(self, slots: list[processes.Slot]) -> None:
        left = [slot.is_ready for slot in slots if not slot.is_over]
        if not self._is_ready and left and all(left):
            self._is_ready = True
            self._tell('ready')

    def _tell_progress(self) -> None:
        now = time.monotonic()
        if now < self._told_at + PROGRESS_INTERVAL:
            return
        self._told_at = now
        # While it waits, nobody reads what is told. Before, many slow logins
        # may take longer than anybody waits for one that says nothing.
        if self._is_at_work:
            self._tell('progress', done=self._bytes, total=self._job.total,
                       wire=self._wire)

    def totals(self) -> dict[str, ty.Any]:
        return dict(
            bytes=self._bytes, wire=self._wire, retries=self._retries,
            seconds=round(time.monotonic() - self._start, 3),
            extents=len(self._plan), resumed=self._resumed)


def _tell(event: str, **fields: ty.Any) -> None:
    line = json.dumps(dict(event=event, **fields))  # noqa: N324
    sys.stdout.write(line + '\n')
    sys.stdout.flush()


def run(text: str) -> int:
    """Do a job; return the exit status."""
    try:
        job = wire.Sending.from_json(text)
        if job.parent not in (0, os.getppid()):
            raise ValueError('whoever wanted it is gone')
        with processes.Guard() as guard:
            copy = Copy(job, guard, _tell, sys.stdin.fileno())
            copy.run()
        _tell('done', **copy.totals())
        return 0
    except ValueError as error:
        _tell('error', message='no job that can be done: %s' % error)
    except Failed as error:
        _tell('error', message=str(error), device=error.device)
    except SystemExit:
        _tell('error', message='it was ended by SIGTERM')
    except Exception as error:
        _tell('error', message='%s: %s' % (type(error).__name__, error))
        raise
    return 1


def main() -> ty.NoReturn:
    processes.die_with_parent()
    signal.signal(signal.SIGTERM, processes.terminate)
    # Nothing is read of what comes after it: its streams wait for that, too.
    with open(0, 'rb', buffering=0, closefd=False) as stdin:
        text = stdin.readline(LONGEST_JOB).decode('utf-8', 'replace')
    processes.end(run(text))


if __name__ == '__main__':
    main()
