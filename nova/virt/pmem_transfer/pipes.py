# SPDX-License-Identifier: Apache-2.0

"""Pipes that are looked at now and then, and not at every change.

ssh reads and writes packets of 16 KiB or so. To be woken for each one costs
more than to move it. A pipe of 1 MiB takes a millisecond to fill or to empty
at 1 GB/s; so whoever has just found it full, or has emptied it, need not look
again for a part of that. (With the whole of it short runs of data waited for
each other.)
"""

import contextlib
import fcntl
import time

#: Bytes that a pipe takes, if the user's limit lets it.
SIZE = 1024 * 1024

#: Seconds in which a pipe of that size does not run full or empty.
PAUSE = 0.0003


def enlarge(fd: int) -> bool:
    """Enlarge a pipe; return whether it is large enough for a pause."""
    with contextlib.suppress(OSError):
        return fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, SIZE) >= SIZE
    return False


class Pause:
    """When to look at a pipe again."""

    def __init__(self, fd: int) -> None:
        self._is_large = enlarge(fd)
        self.until = 0.0

    def begin(self) -> None:
        """Note that something was moved, and that is all for now."""
        if self._is_large:
            self.until = time.monotonic() + PAUSE

    def end(self) -> None:
        """Note that nothing could be moved: now an event has to tell."""
        self.until = 0.0

    def is_on(self) -> bool:
        return time.monotonic() < self.until
