# SPDX-License-Identifier: Apache-2.0
"""Running one copy, and what it took."""

from collections import abc
import dataclasses
import json
import pathlib
import subprocess
import threading
import time

import psutil

from bench import place
from nova.virt.pmem import receiver
from nova.virt.pmem import sender

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


def mover(where: place.Place, watch: bool = False,
          stop_at: float | None = None, **options: object) -> Taken:
    """Ours.

    :param watch: whether to look at its processes meanwhile, which costs
    :param stop_at: the part of the whole after which to kill it
    """
    start = time.monotonic()
    process = subprocess.Popen(
        sender.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, env=sender.environment())
    process.stdin.write(where.job(**options).to_json())
    process.stdin.close()
    watcher = _Watcher(process.pid)
    if watch:
        watcher.start()
    for line in process.stdout:
        event = json.loads(line)
        if stop_at and event.get('done', 0) >= stop_at * where.size:
            process.kill()
            break
    status = process.wait()
    taken = Taken(time.monotonic() - start)
    watcher.stop(taken)
    if stop_at is None:
        if status or event['event'] != 'done':
            raise RuntimeError('the copy failed: %s' % event)
        taken.wire = event['wire']
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
            for process in psutil.process_iter():
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
        if not self.is_alive():
            return
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
