# SPDX-License-Identifier: Apache-2.0

"""A copy as nova-compute sees it: the sender, and how far it is.

The bytes never pass through nova-compute itself. It says what to do, and
listens; see ``nova.virt.pmem_transfer`` for those who do it.
"""

from collections import abc
import contextlib
import dataclasses
import functools
import os
import signal
import subprocess
import tempfile
import typing as ty

from oslo_log import log as logging
from oslo_serialization import jsonutils
from oslo_utils import timeutils
from oslo_utils import units

import nova.conf
from nova.i18n import _
from nova import objects
from nova.virt.libvirt.pmem import pairing
from nova.virt.libvirt.pmem import tickets
from nova.virt.pmem_transfer import processes
from nova.virt.pmem_transfer import sender
from nova.virt.pmem_transfer import wire

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

#: Bytes that are sent, read back and acknowledged as one; see doc/benchmark.
EXTENT = 8 * units.Mi

#: Seconds beyond the stall timeout in which a sender tells something, and
#: in which one that was killed ends, unless it hangs in the kernel.
SILENCE = 30

#: Called with a process that was started, or has ended.
ProcessHook = abc.Callable[[subprocess.Popen], None]

#: Called with the bytes that are done, and the bytes in all.
ProgressHook = abc.Callable[[int, int], None]

#: What belongs to an event of a sender.
FIELDS = {'progress': {'done', 'total'}, 'retry': {'message'},
          'error': {'message'},
          'done': {'bytes', 'wire', 'seconds', 'retries'}}

#: Characters of what a peer says that are logged: of the beginning, where we
#: say what has failed, and of the end, where ssh says why.
BEGINNING, END = 200, 800


class TransferFailed(Exception):
    """Not all of the data is known to have arrived.

    :ivar device: the name of the source, if it is about one
    """

    def __init__(self, message: str, device: str | None = None) -> None:
        super().__init__(printable(message))
        self.device = device


def printable(text: str) -> str:
    """Return a peer's words so that they make no line of their own."""
    if len(text) > BEGINNING + END:
        text = '%s ... %s' % (text[:BEGINNING], text[-END:])
    return ''.join(
        char if char.isprintable() else
        char.encode('unicode_escape').decode() for char in text)


class SenderKilled(TransferFailed):
    """The sender could not even say what went wrong."""


class Totals(ty.NamedTuple):
    """What a copy came to.

    :ivar bytes: in all
    :ivar wire: bytes that were sent
    :ivar retries: parts or connections that were tried again
    :ivar resumed: bytes that the target had before
    """

    bytes: int
    wire: int
    seconds: float
    retries: int
    resumed: int = 0

    @property
    def differed(self) -> int:
        """The bytes of the extents that the target did not have before."""
        return self.bytes - self.resumed


def ssh_argv() -> list[str]:
    """Return the ssh that leads to another host, without its name.

    It gets the options that Nova gives it elsewhere, so that the deployer's
    keys and configuration apply; but a connection that is shared, or
    compressed, would be one core's work for all streams. It asks the peer for
    a sign of life every 5 seconds and gives up after three without: a
    destination that lost power must not keep the guest switched off for long.
    What it has to say of a connection that fails it says at this level.
    """
    ciphers = CONF.libvirt.pmem_copy_ciphers
    return ['ssh', '-o', 'BatchMode=yes', '-o', 'ControlPath=none',
            '-o', 'Compression=no', '-o', 'ServerAliveInterval=5',
            '-o', 'ServerAliveCountMax=3', '-o', 'LogLevel=INFO',
            *(['-o', 'Ciphers=' + ciphers] if ciphers else [])]


def _socket(move: 'objects.MigrationContext') -> str:
    """Return where the receiver listens, on its host."""
    if 'pmem_copy_socket' not in move or not move.pmem_copy_socket:
        raise TransferFailed('the destination does not say where it listens; '
                             'it has another version of this code')
    return move.pmem_copy_socket


def job_of(instance: 'objects.Instance', migration: 'objects.Migration',
           pairs: list[pairing.DevicePair],
           nodes: list[str]) -> wire.Sending:
    """Return what the sender of a move has to know.

    :param nodes: the device nodes of the sources
    :raises TransferFailed: if nobody is known to listen
    """
    same_host = migration.source_compute == migration.dest_compute
    return new_job(
        migration.uuid, _socket(instance.migration_context),
        '' if same_host else migration.dest_host,
        [wire.Device(
            name=source.name, path=node, size=source.size,
            target_name=target.name, target_size=target.size)
         for (source, target), node in zip(pairs, nodes)])


def new_job(migration_uuid: str, socket: str, address: str,
            devices: abc.Iterable[wire.Device]) -> wire.Sending:
    """Return what a sender has to know.

    :param socket: where the receiver listens, on its host
    :param address: of the destination; empty if it is this host
    """
    job = wire.Sending(
        socket=socket, address=address, ssh=tuple(ssh_argv()),
        local=tickets.local_socket_of(migration_uuid),
        join=CONF.libvirt.pmem_copy_join_command,
        devices=tuple(devices), extent=EXTENT,
        streams=CONF.libvirt.pmem_copy_streams,
        bandwidth=CONF.libvirt.pmem_copy_bandwidth * units.Mi,
        stall_timeout=CONF.libvirt.pmem_copy_stall_timeout,
        attempts=CONF.libvirt.pmem_copy_attempts,
        patience=CONF.libvirt.pmem_copy_reconnect_timeout,
        parent=os.getpid())
    return dataclasses.replace(job, time_limit=_time_limit(job))


def _time_limit(job: wire.Sending) -> float:
    """Return the seconds that a copy may take; 0 for no limit."""
    limit = CONF.libvirt.pmem_copy_completion_timeout
    if not limit:
        return 0
    # What a limit of the bandwidth costs is wanted.
    return limit * max(1, job.total / units.Gi) + (
        2 * job.total / job.bandwidth if job.bandwidth else 0)


class Sender:
    """A process that copies, once it is told to begin.

    It ends with this object, whatever happens; and with the thread that has
    made it.
    """

    def __init__(self, migration_uuid: str, job: wire.Sending,
                 on_execute: ProcessHook, on_completion: ProcessHook) -> None:
        """Start it: it connects.

        :param on_execute: called with the process that is started
        :param on_completion: called with it when it has ended
        :raises TransferFailed: if it can't be started
        """
        self._timeout = job.stall_timeout + SILENCE
        self._on_completion = on_completion
        self._stderr = tempfile.TemporaryFile()
        try:
            self._process = subprocess.Popen(
                sender.command(migration_uuid), stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=self._stderr,
                env=sender.environment(), start_new_session=True)
        except OSError as error:
            self._stderr.close()
            raise TransferFailed(_('the sender did not start: %s') % error)
        self._events = self._read_events()
        try:
            on_execute(self._process)
            # One that ends before it has read this says why, or is found
            # killed.
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(job.to_json().encode() + b'\n')
                self._process.stdin.flush()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> ty.Self:
        return self

    def __exit__(self, *_exception: ty.Any) -> None:
        self.close()

    def wait_until_ready(self) -> None:
        """Wait until all of its connections stand.

        :raises TransferFailed: if they do not come to that
        """
        last: dict[str, ty.Any] = {}
        for last in self._events:
            if last['event'] == 'ready':
                return
        raise self._failure(last)

    def finish(self, on_progress: ProgressHook) -> Totals:
        """Let it copy, and wait for its end.

        :raises TransferFailed: if not all is known to have arrived
        """
        with contextlib.suppress(BrokenPipeError):
            # Its end alone may not come: what was forked by now has it open.
            self._process.stdin.write(b'\n')
            self._process.stdin.close()
        last: dict[str, ty.Any] = {}
        for last in self._events:
            if last['event'] == 'progress':
                on_progress(last['done'], last['total'])
        if last.get('event') == 'done' and self._status() == 0:
            return Totals(last['bytes'], last['wire'], last['seconds'],
                          last['retries'], last.get('resumed', 0))
        raise self._failure(last)

    def close(self) -> None:
        """End it, if it has not ended."""
        if self._process.stdout.closed:
            return
        if self._process.poll() is None:
            # Its children end with it.
            self._process.send_signal(signal.SIGKILL)
        try:
            self._process.wait(SILENCE)
        except subprocess.TimeoutExpired:
            LOG.error('Process %d, a sender of vPMEM data, can not be killed: '
                      'it hangs in the kernel.', self._process.pid)
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._stderr.close()
        self._on_completion(self._process)

    def _status(self) -> int:
        try:
            return self._process.wait(SILENCE)
        except subprocess.TimeoutExpired:
            raise SenderKilled(_('the sender does not end'))

    def _failure(self, last: dict[str, ty.Any]) -> TransferFailed:
        """Say why one whose last event this is has come to nothing."""
        status = self._status()
        if last.get('event') == 'error':
            return TransferFailed(last['message'], last.get('device'))
        if status == -signal.SIGTERM:
            # It came so early that it could not say so.
            return TransferFailed(_('the sender was ended by SIGTERM'))
        return SenderKilled(
            _('the sender %(how)s: %(stderr)s') %
            {'how': processes.how_ended(status),
             'stderr': _tail(self._stderr) or _('no message')})

    def _read_events(self) -> abc.Iterator[dict[str, ty.Any]]:
        """Read what it tells, up to its end.

        :raises SenderKilled: if it gives no sign of life for long
        """
        stdout = self._process.stdout
        lines = wire.Lines(functools.partial(os.read, stdout.fileno()))
        while not lines.ended:
            if not processes.can_read(stdout, self._timeout):
                raise SenderKilled(_('the sender gave no sign of life for '
                                     '%d seconds') % self._timeout)
            for line in lines.read():
                yield _event(line)


def _event(line: bytes) -> dict[str, ty.Any]:
    """Read what a sender tells; what it tries again is logged."""
    try:
        event = jsonutils.loads(line)
        if not FIELDS.get(event['event'], set()) <= event.keys():
            raise ValueError()
        if event['event'] == 'retry':
            LOG.warning('Copying vPMEM data, trying again: %s',
                        printable(event['message']))
        return event
    except (AttributeError, KeyError, TypeError, ValueError):
        raise TransferFailed(
            _('the sender said %r') % line[:processes.STDERR_KEPT])


def transfer(migration_uuid: str, job: wire.Sending,
             on_execute: ProcessHook, on_completion: ProcessHook,
             on_progress: ProgressHook, is_wanted: abc.Callable[[], bool],
             waiting: Sender | None = None) -> Totals:
    """Copy devices, and prove that all of it arrived.

    A sender that was killed is started again, and looks first what the target
    has already.

    :param is_wanted: says whether to start it again
    :param waiting: a sender of this job that has connected already
    :raises TransferFailed: if it can't be done
    """
    watch = timeutils.StopWatch()
    watch.start()
    for attempt in range(job.attempts):
        limit = job.time_limit and max(1, job.time_limit - watch.elapsed())
        process = waiting if waiting and not attempt else Sender(
            migration_uuid, dataclasses.replace(
                job, attempt=job.attempt + attempt, time_limit=limit),
            on_execute, on_completion)
        try:
            with process:
                return process.finish(on_progress)
        except SenderKilled as error:
            if attempt + 1 == job.attempts or not is_wanted():
                raise
            LOG.warning('Starting the sender of vPMEM data again: %s', error)
    raise AssertionError('a job has at least one attempt')


def _tail(stream: ty.IO[bytes]) -> str:
    stream.seek(0, os.SEEK_END)
    stream.seek(max(0, stream.tell() - processes.STDERR_KEPT))
    return stream.read().decode('utf-8', 'replace').strip()
