# SPDX-License-Identifier: Apache-2.0
"""Running one copy, and what it took."""

from collections import abc
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

import psutil

from bench import place
from nova.virt.pmem_transfer import receiver
from nova.virt.pmem_transfer import sender

SSH = 'ssh -o BatchMode=yes %s' % place.ADDRESS


@dataclasses.dataclass
class Taken:
    """What a copy took.

    :ivar seconds: from start to end
    :ivar wire: bytes of frames that went into ssh
    :ivar peak: KiB of memory at the peak, by kind of process
    :ivar cpu: seconds of CPU, by kind of process
    """

    seconds: float
    wire: int = 0
    peak: dict[str, int] = dataclasses.field(default_factory=dict)
    cpu: dict[str, float] = dataclasses.field(default_factory=dict)


def _shell(script: str) -> Taken:
    start = time.monotonic()
    subprocess.run(['bash', '-c', script], check=True,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    return Taken(time.monotonic() - start)


def naive(where: place.Place) -> Taken:
    """The pipe of the specification: nothing is checked."""
    return _shell('set -o pipefail; daxio -i %s | %s daxio -o %s -b no' % (
        where.source, SSH, where.target))


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


def _start(where: place.Place, command: list[str],
           **options: object) -> subprocess.Popen:
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=sender.environment())
    process.stdin.write(where.job(**options).to_json())
    process.stdin.close()
    return process


def mover(where: place.Place, **options: object) -> Taken:
    """Ours."""
    start = time.monotonic()
    with _start(where, sender.command(), **options) as process:
        *_, last = process.stdout
    event = json.loads(last)
    if process.returncode or event['event'] != 'done':
        raise RuntimeError('the copy failed: %s' % event)
    return Taken(time.monotonic() - start, event['wire'])


def cut(where: place.Place, share: float, **options: object) -> None:
    """Begin ours, and kill it when a part of the whole is acknowledged."""
    # It tells how far it is so often that this is about the part.
    command = [sys.executable, '-c',
               'from nova.virt.pmem_transfer import sender; '
               'sender.PROGRESS_INTERVAL = 0.01; sender.main()']
    with _start(where, command, **options) as process:
        for line in process.stdout:
            if json.loads(line).get('done', 0) >= share * where.size:
                process.kill()
                return
    raise RuntimeError('the copy ended by itself')


def by_compute(where: place.Place, **options: object) -> Taken:
    """Ours, started by what nova-compute runs for it, and watched.

    To look at processes costs, so the time is worth little.
    """
    # This is all of Nova.
    from nova.virt.libvirt.pmem import transfer

    watchers = []

    def watch(process: subprocess.Popen) -> None:
        watchers.append(_Watcher(process.pid))
        watchers[0].start()

    peak = _peak(os.getpid())
    cpu = time.thread_time()
    totals = transfer.transfer(
        where.job(**options), watch, lambda process: None,
        lambda done, total: None, lambda: True)
    taken = Taken(totals.seconds, totals.wire)
    # What the thread took that would be one of nova-compute's.
    taken.cpu['nova-compute'] = time.thread_time() - cpu
    taken.peak['nova-compute'] = _peak(os.getpid()) - peak
    watchers[0].stop(taken)
    return taken


class _Watcher(threading.Thread):
    """Looks at processes of a copy every now and then."""

    INTERVAL = 0.05

    def __init__(self, pid: int) -> None:
        super().__init__()
        self._pid = pid
        self._end = threading.Event()
        self._seen: dict[int, tuple[str, int, float]] = {}

    def run(self) -> None:
        while not self._end.wait(self.INTERVAL):
            for process in psutil.Process().children(recursive=True):
                try:
                    kind = self._kind(process)
                    if kind is not None:
                        self._seen[process.pid] = (
                            kind, _peak(process.pid), _cpu(process))
                except (OSError, psutil.Error):
                    continue

    def _kind(self, process: psutil.Process) -> str | None:
        if process.pid == self._pid:
            return 'sender'
        if process.name() in ('ssh', 'sshd'):
            return process.name()
        if process.name().startswith('python') and (
                receiver.__name__ in process.cmdline()):
            return 'receiver'
        return None

    def stop(self, taken: Taken) -> None:
        self._end.set()
        self.join()
        for kind, peak, cpu in self._seen.values():
            taken.peak[kind] = max(peak, taken.peak.get(kind, 0))
            taken.cpu[kind] = taken.cpu.get(kind, 0) + cpu


def _peak(pid: int) -> int:
    for line in pathlib.Path('/proc/%d/status' % pid).read_text().splitlines():
        if line.startswith('VmHWM:'):
            return int(line.split()[1])
    return 0


def _cpu(process: psutil.Process) -> float:
    """Return seconds of a process, and of its daxio, which have ended."""
    times = process.cpu_times()
    own = times.user + times.system
    # What ssh and the sender have started is counted on its own.
    if not process.name().startswith('python') or (
            receiver.__name__ not in process.cmdline()):
        return own
    return own + times.children_user + times.children_system


Copy = abc.Callable[[place.Place], Taken]
