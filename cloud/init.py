# SPDX-License-Identifier: Apache-2.0
"""The first process of a process namespace: run a command, bury the dead.

Run as a file, in a host whose Python may have nothing installed. When this
process ends, the kernel ends all others of its namespace.
"""

import os
import signal
import sys


def main(command: list[str]) -> int:
    """Run a command, or wait until killed, and reap whatever ends."""
    # As pid 1 this process gets those signals only that it asks for.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    child = None
    if command:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.execvp(command[0], command)
    else:
        # Waits for children fail while there is none; this one never ends.
        signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        try:
            pid, status = os.wait()
        except ChildProcessError:
            signal.pause()
            continue
        if pid == child:
            return os.waitstatus_to_exitcode(status) & 0xff


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
