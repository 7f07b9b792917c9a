# SPDX-License-Identifier: Apache-2.0
"""Shared memory whose pages are as large as those of a device DAX."""

import ctypes
import os
import pathlib
import subprocess
import tempfile

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
    before = _large()
    with tempfile.TemporaryFile(dir=FOLDER) as file:
        file.write(bytes(4 * 1024 ** 2))
        file.flush()
        if _large() <= before:
            raise OSError('the kernel gives none')


def _large() -> int:
    """Return the KiB of large pages in shared memory."""
    for line in pathlib.Path('/proc/meminfo').read_text().splitlines():
        if line.startswith('ShmemHugePages:'):
            return int(line.split()[1])
    return 0
