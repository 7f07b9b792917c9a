# SPDX-License-Identifier: Apache-2.0

"""The command that joins its input and output to a receiver's socket.

For hosts whose sshd forbids forwarding: ssh starts it there. It needs nothing
but Python, and knows nothing of what it carries.
"""

import contextlib
import os
import resource
import select
import socket
import sys

#: Bytes that are carried at a time.
CHUNK = 256 * 1024

#: The exit status when the socket can't be reached, as of ssh when the host
#: can't: it may be tried again.
FAILED = 255


def join(path: str, source: int, sink: int) -> None:
    """Carry bytes both ways, until both are at their end.

    :raises OSError: if that can't be done
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        # The answers are few: who asks takes them, or goes away.
        ways = {source: _to(connection),
                connection.fileno(): (_writer(sink), lambda: os.close(sink))}
        while connection.fileno() in ways:
            for fd in select.select(list(ways), [], [])[0]:
                write, close = ways[fd]
                data = os.read(fd, CHUNK)
                if data:
                    write(data)
                else:
                    close()
                    del ways[fd]


def _to(connection: socket.socket):
    # Why nobody reads any more is among the answers that are left.
    def send(data: bytes) -> None:
        with contextlib.suppress(OSError):
            connection.sendall(data)

    def close() -> None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
    return send, close


def _writer(fd: int):
    def write(data: bytes) -> None:
        while data:
            data = data[os.write(fd, data):]
    return write


def main() -> int:
    if len(sys.argv) != 2:
        sys.stderr.write('usage: nova-pmem-join SOCKET\n')
        return 2
    # A core dump would have bytes of a tenant's.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        join(sys.argv[1], 0, 1)
        return 0
    except OSError as error:
        sys.stderr.write('nova-pmem-join: %s: %s\n' % (sys.argv[1], error))
        return FAILED


if __name__ == '__main__':
    sys.exit(main())
