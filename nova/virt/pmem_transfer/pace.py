# SPDX-License-Identifier: Apache-2.0

"""A limit of the bandwidth, over all streams of a copy."""

from collections import abc
import time

#: The part of a second for which the limit may be exceeded by what was not
#: used before.
BURST = 0.1

#: The least number of bytes worth a system call of their own.
LEAST = 4096


class Pace:
    """Says how many bytes may be sent now.

    :ivar rate: bytes per second; 0 stands for no limit
    """

    def __init__(
        self, rate: int, clock: abc.Callable[[], float] = time.monotonic,
    ) -> None:
        self.rate = rate
        self._clock = clock
        self._most = max(rate * BURST, LEAST)
        self._left = self._most
        self._filled = clock()

    def _fill(self) -> None:
        now = self._clock()
        self._left = min(
            self._most, self._left + (now - self._filled) * self.rate)
        self._filled = now

    def allowed(self, wanted: int) -> int:
        """Return how many of the bytes may be sent now."""
        if not self.rate:
            return wanted
        self._fill()
        if self._left < min(wanted, LEAST):
            return 0
        return min(wanted, int(self._left))

    def used(self, sent: int) -> None:
        """Note that bytes were sent."""
        if self.rate:
            self._left -= sent

    def delay(self) -> float:
        """Return after how many seconds something may be sent."""
        if not self.rate:
            return 0
        self._fill()
        missing = LEAST - self._left
        # Rounding must not leave a part of a byte to be waited for.
        return missing / self.rate + 1e-6 if missing > 0 else 0
