# SPDX-License-Identifier: Apache-2.0
"""Watches what the API shows of a server while it moves."""

from collections.abc import Callable, Collection
import threading
import time
from typing import Any, NamedTuple

from pmem_copy_tempest_plugin import probe


class State(NamedTuple):
    """What the API shows of a server at one moment."""

    status: str
    task: str | None
    host: str | None
    progress: int | None


class Unsettled(Exception):
    """A server is not in the state that it was to come to."""


def state_of(server: dict[str, Any]) -> State:
    """Return the state in what the API tells administrators of a server."""
    return State(server['status'], server.get('OS-EXT-STS:task_state'),
                 server.get(probe.HOST), server.get('progress'))


class Watch:
    """Looks at a server all the time, until it is closed.

    It has a thread of its own, so that a state is seen that is shown while
    the test does something else.
    """

    def __init__(self, show: Callable[[], dict[str, Any]],
                 interval: float) -> None:
        """Start watching.

        :param show: returns what the API tells administrators of the server
        :param interval: seconds between two looks
        """
        self._show = show
        self._interval = interval
        self._changed = threading.Condition()
        self._error: Exception | None = None
        self._is_closed = False
        self._looks = 0
        self.states: list[State] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._is_closed:
            try:
                state = state_of(self._show())
            except Exception as error:
                # The main thread raises it, whatever it is.
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return
            with self._changed:
                self._looks += 1
                if not self.states or self.states[-1] != state:
                    self.states.append(state)
                self._changed.notify_all()
            time.sleep(self._interval)

    def close(self) -> None:
        """Stop watching."""
        self._is_closed = True
        self._thread.join()

    def until(self, wanted: Callable[[State], bool], timeout: float,
              what: str) -> State:
        """Wait until the server is in a state that was not seen before now.

        :param wanted: tells whether a state is the one
        :param timeout: in seconds
        :param what: what is waited for, for the message
        :returns: the state
        :raises Unsettled: if it does not get there
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            # A look that is under way may show what was before.
            first = self._looks + 2
            while True:
                if self._error is not None:
                    raise self._error
                if self._looks >= first and wanted(self.states[-1]):
                    return self.states[-1]
                left = deadline - time.monotonic()
                if left <= 0:
                    raise Unsettled(
                        f'not {what} after {timeout:.0f} seconds; seen: '
                        f'{self.story()}')
                self._changed.wait(left)

    def settled(self, statuses: Collection[str], timeout: float) -> State:
        """Wait until nothing is under way, in one of some statuses.

        :raises Unsettled: if it does not get there
        """
        return self.until(
            lambda state: state.task is None and state.status in statuses,
            timeout, ' or '.join(sorted(statuses)))

    def story(self) -> str:
        """Return all states in the order in which they were seen."""
        return ', '.join(
            f'{state.status}/{state.task} on {state.host}'
            for state in list(self.states))

    def statuses(self) -> list[str]:
        """Return each status that was seen."""
        return [state.status for state in list(self.states)]
