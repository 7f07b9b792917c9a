# SPDX-License-Identifier: Apache-2.0

"""What runs in the demo's server: it writes until it is switched off."""

import random
import threading
import time

from demo import cloud

# Seconds between two writes, and between two looks whether it is on again.
WRITE, LOOK = 0.2, 0.05
# Bytes of a write.
PAGE = 4096


class Cut(threading.Thread):
    """Cuts the connections of a copy, once something has arrived.

    :ivar connections: how many it has cut
    """

    def __init__(self, nova: cloud.Cloud) -> None:
        super().__init__(daemon=True)
        self._cloud = nova
        self._over = threading.Event()
        self.connections = 0

    def run(self) -> None:
        while not self._over.wait(LOOK):
            server, = self._cloud.api.get_servers()
            if server['progress'] > 0:
                self.connections = self._cloud.cut_connections()
                return

    def end(self) -> None:
        self._over.set()
        self.join()


class Guest(threading.Thread):
    """Writes to the server's persistent memory on a host.

    :ivar writes: how often it has written
    :ivar seconds_off: how long it was off; None if it is not on yet
    """

    def __init__(self, nova: cloud.Cloud, size: int, host: str,
                 then: str) -> None:
        """Describe it.

        :param size: of the memory in bytes
        :param host: where it runs
        :param then: where it is to run
        """
        super().__init__(daemon=True)
        self._cloud = nova
        self._pages = size // PAGE
        self._host = host
        self._then = then
        self._over = threading.Event()
        self.writes = 0
        self.seconds_off: float | None = None

    def run(self) -> None:
        process = self._cloud.guest_on(self._host)
        numbers = random.Random(0)
        try:
            while not self._over.wait(WRITE):
                process.write(numbers.randrange(self._pages) * PAGE,
                              numbers.randbytes(PAGE))
                self.writes += 1
        except (EOFError, ValueError):
            off = time.monotonic()
            while not self._over.wait(LOOK):
                if self._cloud.guest_on(self._then):
                    self.seconds_off = time.monotonic() - off
                    return

    def end(self) -> None:
        self._over.set()
        self.join()
