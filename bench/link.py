# SPDX-License-Identifier: Apache-2.0
"""A link of 1 Gb/s: loopback in a network namespace of its own."""

from collections import abc
import contextlib
import ctypes
import os
import subprocess

#: Bytes per second.
GIGABIT = 10 ** 9 // 8

# As Ethernet has it: packets of 1500 bytes. Both directions share the rate,
# but what comes back is little.
_COMMANDS = (
    'ip link set lo mtu 1500 up',
    'tc qdisc add dev lo root tbf rate 1gbit burst 128kb latency 20ms',
)

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def gigabit() -> abc.Iterator[None]:
    """Have a loopback of that rate, for this thread and what it starts.

    :raises OSError: if that is not allowed here
    """
    before = os.open('/proc/thread-self/ns/net', os.O_RDONLY)
    try:
        _check(_libc.unshare(_CLONE_NEWNET))
        try:
            for command in _COMMANDS:
                done = subprocess.run(
                    command.split(), capture_output=True, text=True)
                if done.returncode:
                    raise OSError('%s: %s' % (command, done.stderr.strip()))
            yield
        finally:
            _check(_libc.setns(before, _CLONE_NEWNET))
    finally:
        os.close(before)


def _check(status: int) -> None:
    if status:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
