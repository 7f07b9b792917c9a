# SPDX-License-Identifier: Apache-2.0

"""What is wiped in the background, by Nova's pool for long tasks.

A wipe takes as long as the device wants, and one that hangs takes for ever.
So each ticket has a job of its own, and who waits for one does so for a while.
"""

from collections import abc
from concurrent import futures
import threading

from nova import context as nova_context
from nova import thread_pool_factory
from nova.virt.libvirt.pmem import tickets

#: Wipes at a time. The pool has ten threads unless set, and builds servers.
AT_ONCE = 4


class _Job(futures.Future):

    def __init__(self, ticket: tickets.Ticket) -> None:
        super().__init__()
        self.path = tickets.path_of(ticket)
        self.closed: abc.Callable[[tickets.Ticket], None] | None = None

    def decide(self, ticket: tickets.Ticket,
               close: abc.Callable[[], bool]) -> None:
        self.ticket, self.close = ticket, close


class Wipes:
    """The wipes of this host: one for each ticket, a few at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[str, _Job] = {}
        self._waiting: list[_Job] = []
        self._ending: list[_Job] = []
        self._workers = 0

    def under_way(self) -> list[futures.Future]:
        """Return what is being done, and what waits for its turn."""
        with self._lock:
            return [*self._jobs.values(), *self._ending]

    def has(self, ticket: tickets.Ticket) -> bool:
        return tickets.path_of(ticket) in self._jobs

    def start(self, ticket: tickets.Ticket, close: abc.Callable[[], bool],
              closed: abc.Callable[[tickets.Ticket], None] | None = None,
              ) -> futures.Future:
        """Have a ticket closed, unless somebody is at it already.

        :param close: does so, and says whether it has
        :param closed: called with the ticket after that
        :returns: when that is done
        """
        new = _Job(ticket)
        with self._lock:
            job = self._jobs.setdefault(new.path, new)
            if job is new:
                self._waiting.append(job)
            if job in self._waiting:
                # What was decided last is what holds.
                job.decide(ticket, close)
            job.closed = closed or job.closed
            is_one_more = self._waiting and self._workers < AT_ONCE
            self._workers += bool(is_one_more)
        if is_one_more:
            self._spawn()
        return job

    def _spawn(self) -> None:
        try:
            thread_pool_factory.spawn_on(
                thread_pool_factory.ExecutorType.LONG_TASK, self._work)
        except BaseException:
            # The next one who asks tries it, for all that wait.
            with self._lock:
                self._workers -= 1
            raise

    def _work(self) -> None:
        # What is logged belongs to nobody's request.
        nova_context.get_admin_context()
        while job := self._next():
            try:
                self._run(job)
                job.set_result(None)
            except BaseException as error:
                job.set_exception(error)
            with self._lock:
                self._ending.remove(job)

    def _run(self, job: _Job) -> None:
        is_closed = False
        try:
            is_closed = job.close()
        finally:
            with self._lock:
                # Who asks from now on gets another job.
                self._ending.append(self._jobs.pop(job.path))
        if is_closed and job.closed:
            job.closed(job.ticket)

    def _next(self) -> _Job | None:
        with self._lock:
            if self._waiting:
                return self._waiting.pop(0)
            self._workers -= 1
            return None
