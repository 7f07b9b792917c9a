# SPDX-License-Identifier: Apache-2.0

"""Keeping to a bandwidth."""

import time

#: Bytes that are given to the kernel at a time; at least, and at most.
LEAST, MOST = 4096, 256 * 1024


class Pace:
    """Keeps to a bandwidth."""

    #: The part of a second for which the limit may be exceeded by what was
    #: not used before.
    BURST = 0.1

    def __init__(self, rate: float) -> None:
        """Begin now.

        :param rate: bytes per second; 0 stands for no limit
        """
        self._rate = rate
        self._due = time.monotonic()
        self.chunk = int(min(max(rate * self.BURST, LEAST), MOST)
                         if rate else MOST)

    def wait(self, count: int) -> None:
        """Wait for as long as bytes take that were just sent."""
        if self._rate:
            now = time.monotonic()
            self._due = max(self._due, now - self.BURST) + count / self._rate
            time.sleep(max(0, self._due - now))
