# SPDX-License-Identifier: Apache-2.0

"""The command that nova-compute starts on the source: it sends devices.

The job comes as JSON on stdin, and events go as lines of JSON to stdout. The
last one is either ``done`` or ``error``; only after ``done`` the exit status
is 0.
"""

import collections
import ctypes
import json
import os
import select
import signal
import sys
import time
import typing as ty

from nova.virt.pmem_transfer import job as pmem_job
from nova.virt.pmem_transfer import processes
from nova.virt.pmem_transfer import stream

#: Seconds between two events that say how far the copy is.
PROGRESS_INTERVAL = 0.5

#: The longest job in bytes.
LONGEST_JOB = 1024 * 1024

_PR_SET_PDEATHSIG = 1


def command() -> list[str]:
    """Return the command that starts a sender."""
    return [sys.executable, '-m', __name__]


def environment() -> dict[str, str]:
    """Return the environment that this command needs, wherever it starts."""
    root = __file__
    for _ in __name__.split('.'):
        root = os.path.dirname(root)
    paths = [root, os.environ.get('PYTHONPATH')]
    return dict(os.environ,
                PYTHONPATH=os.pathsep.join(filter(None, paths)))


class Copy:
    """A copy, from the first stream to the last acknowledgement."""

    def __init__(self, job: pmem_job.Job, guard: processes.Guard,
                 tell: ty.Callable[..., None]) -> None:
        self._job = job
        self._shared = stream.Shared(job, guard, tell)
        self._streams = collections.deque(
            stream.Stream(self._shared, number) for number in
            range(min(job.streams, self._shared.work.extents)))
        self._told_at = -PROGRESS_INTERVAL
        self._start = time.monotonic()

    def run(self) -> None:
        """Copy everything.

        :raises stream.Failed: if that can't be done
        """
        try:
            while True:
                for each in self._streams:
                    each.advance()
                if all(each.is_done for each in self._streams):
                    break
                # Or the first ones would use up a limited bandwidth, and the
                # others starve until their receivers give up.
                self._streams.rotate(1)
                self._tell_progress()
                self._wait()
        finally:
            for each in self._streams:
                each.close()
        self._check()

    def _wait(self) -> None:
        until = min(self._told_at + PROGRESS_INTERVAL,
                    *[each.deadline() for each in self._streams])
        work = self._shared.work
        is_idle = work.can_look_ahead() and not any(
            each.is_greeted for each in self._streams)
        # Not poll(), which counts in milliseconds.
        ready = select.select(
            [fd for each in self._streams for fd in each.sources()],
            [fd for each in self._streams for fd in each.sinks()],
            [], 0 if is_idle else max(0, until - time.monotonic()))
        if is_idle and not any(ready):
            work.look_ahead()

    def _tell_progress(self) -> None:
        now = time.monotonic()
        if now >= self._told_at + PROGRESS_INTERVAL:
            self._told_at = now
            self._shared.tell(
                'progress', done=sum(self._shared.done),
                total=self._job.total, wire=self._wire(),
                retries=self._shared.retries)

    def _wire(self) -> int:
        return self._shared.wire + sum(each.wire for each in self._streams)

    def _check(self) -> None:
        """Check that the sum of what was acknowledged is the whole."""
        for done, device in zip(self._shared.done, self._job.devices):
            if done != device.target_size:
                raise stream.Failed(
                    '%d of %d bytes were acknowledged' % (
                        done, device.target_size), device.name)

    def totals(self) -> dict[str, ty.Any]:
        return {
            'bytes': sum(self._shared.done), 'wire': self._wire(),
            'seconds': round(time.monotonic() - self._start, 3),
            'retries': self._shared.retries,
            'extents': self._shared.work.extents,
            'resumed': self._shared.resumed}


def _tell(event: str, **fields: ty.Any) -> None:
    line = json.dumps(dict(event=event, **fields))  # noqa: N324
    sys.stdout.write(line + '\n')
    sys.stdout.flush()


def _die_with_parent() -> None:
    """Be killed when our parent ends, however it does.

    To be exact, when that thread of it ends that has started us.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _terminate(_number: int, _frame: ty.Any) -> ty.NoReturn:
    sys.exit(128 + signal.SIGTERM)


def run(text: str) -> int:
    """Do a job.

    :returns: the exit status
    """
    try:
        job = pmem_job.Job.from_json(text)
        if job.parent not in (0, os.getppid()):
            raise ValueError('whoever wanted it is gone')
        with processes.Guard() as guard:
            copy = Copy(job, guard, _tell)
            copy.run()
        _tell('done', **copy.totals())
        return 0
    except ValueError as error:
        _tell('error', message='no job that can be done: %s' % error)
    except stream.Failed as error:
        _tell('error', message=str(error), device=error.device)
    except Exception as error:
        _tell('error', message='%s: %s' % (type(error).__name__, error))
        raise
    return 1


def main() -> ty.NoReturn:
    _die_with_parent()
    signal.signal(signal.SIGTERM, _terminate)
    processes.end(run(sys.stdin.read(LONGEST_JOB)))


if __name__ == '__main__':
    main()
