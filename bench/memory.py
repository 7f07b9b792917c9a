# SPDX-License-Identifier: Apache-2.0
"""Shared memory whose pages are as large as those of a device DAX."""

import ctypes
import os
import subprocess

FOLDER = '/dev/shm'

_CLONE_NEWNS = 0x20000
# Nobody else sees what is mounted, and it is gone with us.
_COMMANDS = (
    'mount --make-rprivate /',
    'mount -t tmpfs -o huge=always tmpfs ' + FOLDER,
)

_libc = ctypes.CDLL(None, use_errno=True)


def enlarge_pages() -> None:
    """Have pages of 2 MiB in FOLDER, for this process and its children.

    Before it has threads.

    :raises OSError: if that is not allowed here
    """
    if _libc.unshare(_CLONE_NEWNS):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    for command in _COMMANDS:
        done = subprocess.run(command.split(), capture_output=True, text=True)
        if done.returncode:
            raise OSError('%s: %s' % (command, done.stderr.strip()))
