# SPDX-License-Identifier: Apache-2.0
"""Running one copy, and what it took."""

from collections import abc
import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import threading
import time
import typing as ty

import psutil

from bench import acknowledge
from bench import place
from nova.virt.libvirt.pmem import passes
from nova.virt.libvirt.pmem import transfer
from nova.virt.pmem_transfer import sender
from nova.virt.pmem_transfer import wire

SSH = 'ssh -o BatchMode=yes %s' % place.ADDRESS
SSH_WITH_OUR_CIPHER = "%s -o 'Ciphers=%s'" % (
    SSH, transfer.CONF.libvirt.pmem_copy_ciphers)

#: Devices of a copy whose receivers only acknowledge; all are the same one.
DEVICES = 4


@dataclasses.dataclass
class Taken:
    """What a copy took.

    :ivar seconds: from start to end
    :ivar wire: bytes that went into ssh
    :ivar resumed: bytes that were there already
    :ivar cpu: seconds of CPU, of all processes
    """

    seconds: float
    wire: int = 0
    resumed: int = 0
    cpu: float = 0


def _shell(script: str) -> Taken:
    start = time.monotonic()
    subprocess.run(['bash', '-c', script], check=True,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    return Taken(time.monotonic() - start)


def naive(where: place.Place, ssh: str = SSH) -> Taken:
    """The pipe of the specification: nothing is checked."""
    return _shell('set -o pipefail; daxio -i %s | %s daxio -o %s -b no' % (
        where.source, ssh, where.target))


def digest_pipe(where: place.Place) -> Taken:
    """The same, with a digest on the way and one of what is read back."""
    return _shell('''
        set -e -o pipefail
        daxio -i %(source)s | tee >(sha256sum) |
            %(ssh)s daxio -o %(target)s -b no
        %(ssh)s "daxio -i %(target)s | sha256sum"
        ''' % {'source': where.source, 'target': where.target, 'ssh': SSH})


def gzip_pipe(where: place.Place) -> Taken:
    """The naive pipe, compressed by zlib's fastest level."""
    return _shell("""
        set -o pipefail
        daxio -i %(source)s | gzip -1 |
            %(ssh)s "gzip -d | daxio -o %(target)s -b no"
        """ % {'source': where.source, 'target': where.target, 'ssh': SSH})


def _send(job: wire.Sending,
          watch: abc.Callable[[int], None] = lambda pid: None,
          ) -> dict[str, ty.Any]:
    """Run a sender; return its last event.

    :param watch: called with its process
    """
    with subprocess.Popen(
            sender.command('bench'), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, env=sender.environment(),
            text=True) as process:
        process.stdin.write(job.to_json())
        process.stdin.close()
        watch(process.pid)
        *_, last = process.stdout
    event = json.loads(last)
    if process.returncode or event['event'] != 'done':
        raise RuntimeError('the copy failed: %s' % event)
    return event


def mover(where: place.Place, **options: object) -> Taken:
    """Ours; its receiver is started while the guest still runs."""
    where.receive()
    return _copy(where.job(**options))


def _copy(job: wire.Sending) -> Taken:
    start = time.monotonic()
    event = _send(job)
    return Taken(time.monotonic() - start, event['wire'], event['resumed'])


def again(where: place.Place, **options: object) -> Taken:
    """Another sender of what is there, as when one was killed at the end."""
    taken = _copy(where.job(attempt=1, **options))
    if taken.resumed != where.size:
        raise RuntimeError('only %d bytes were there' % taken.resumed)
    return taken


def last_pass(where: place.Place, piece: int, **options: object) -> Taken:
    """What is done with the guest off, that has written to 1 % before.

    :param piece: bytes that it has written together
    """
    with _waiting(where.job(attempt=1, **options)) as waiting:
        where.write_here_and_there(piece)
        return _finish(waiting)


@contextlib.contextmanager
def _waiting(job: wire.Sending) -> abc.Iterator[transfer.Sender]:
    """Have a sender that has connected, as nova-compute has."""
    def ignore(_process: subprocess.Popen) -> None:
        """Nobody but us is to know of it."""
    with transfer.Sender('bench', job, ignore, ignore) as waiting:
        waiting.wait_until_ready()
        yield waiting


def _finish(waiting: transfer.Sender) -> Taken:
    start = time.monotonic()
    totals = waiting.finish(lambda _done, _total: None)
    return Taken(time.monotonic() - start, totals.wire, totals.resumed)


def fast_guest(where: place.Place, rate: int, **options: object) -> tuple[
        int, Taken]:
    """Ours, while a guest writes faster than the link carries.

    :returns: the number of passes while it ran, and what the last one took
    """
    where.receive()

    def run_pass(number: int) -> transfer.Totals:
        event = _send(where.job(attempt=number, **options))
        return transfer.Totals(event['bytes'], event['wire'],
                               event['seconds'], event['retries'],
                               event['resumed'])

    with contextlib.ExitStack() as stack:
        with where.guest_that_writes(rate):
            done = passes.repeat(
                run_pass, transfer.CONF.libvirt.pmem_copy_running_passes)
            waiting = stack.enter_context(_waiting(
                where.job(attempt=len(done), **options)))
        return len(done), _finish(waiting)


def ceiling(where: place.Place, streams: int, **options: object) -> Taken:
    """Ours without ssh, and without anybody who stores it."""
    job = where.job(streams=streams, address='', **options)
    job = dataclasses.replace(
        job, devices=job.devices * DEVICES, socket=job.socket + '.none')
    with acknowledge.receivers(job, streams):
        return Taken(_send(job)['seconds'])


# Each process

class Process(ty.NamedTuple):
    """What a process took; of several of a kind, all seconds and one peak.

    :ivar cpu: seconds
    :ivar peak: KiB of memory
    """

    cpu: float
    peak: int


def watched(where: place.Place, **options: object) -> dict[str, Process]:
    """Ours, by kind of process.

    To look at processes costs, so the time is worth nothing.
    """
    where.receive()
    watcher = _Watcher(where.receiver.pid)
    _send(where.job(**options), watcher.begin)
    return watcher.end()


class _Watcher(threading.Thread):
    """Looks at processes of a copy every now and then."""

    INTERVAL = 0.05

    def __init__(self, receiver: int) -> None:
        super().__init__()
        self._mains = {receiver: 'receiver'}
        self._end = threading.Event()
        self._seen: dict[int, tuple[str, Process]] = {}

    def begin(self, sender: int) -> None:
        self._mains[sender] = 'sender'
        self.start()

    def run(self) -> None:
        while not self._end.wait(self.INTERVAL):
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(OSError, psutil.Error):
                    kind = self._kind(process)
                    if kind is not None:
                        self._seen[process.pid] = kind, Process(
                            _cpu(process, kind), _peak(process.pid))

    def _kind(self, process: psutil.Process) -> str | None:
        name, parent = process.name(), process.ppid()
        if parent == os.getpid():
            return self._mains.get(process.pid)
        if name.startswith('python') and parent in self._mains:
            return 'stream of the ' + self._mains[parent]
        return name if name in ('ssh', 'sshd', 'dd') else None

    def end(self) -> dict[str, Process]:
        self._end.set()
        self.join()
        found: dict[str, Process] = {}
        for kind, each in self._seen.values():
            known = found.get(kind, Process(0, 0))
            found[kind] = Process(
                known.cpu + each.cpu, max(known.peak, each.peak))
        # What was seen of it is not all, and its parents have counted it.
        found['dd'] = found['dd']._replace(cpu=0)
        return found


def _peak(pid: int) -> int:
    for line in pathlib.Path('/proc/%d/status' % pid).read_text().splitlines():
        if line.startswith('VmHWM:'):
            return int(line.split()[1])
    return 0


def _cpu(process: psutil.Process, kind: str) -> float:
    """Return seconds of a process, and of its daxio, which have ended."""
    times = process.cpu_times()
    return times.user + times.system + (
        times.children_user + times.children_system
        if kind == 'stream of the receiver' else 0)


Copy = abc.Callable[[place.Place], Taken]
