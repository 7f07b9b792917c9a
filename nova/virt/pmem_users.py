# SPDX-License-Identifier: Apache-2.0

"""Who has a file or a device open, or mapped.

A device is known by its number. Its path says nothing: hosts that share a
table of processes have devices of equal paths.
"""

from collections import abc
import contextlib
import os
import re
import stat

#: What tells a file, a device, or the node of a device from all others.
Key = tuple[int, ...]


def key(path: str) -> Key:
    """Return what a path stands for now.

    :raises OSError: if it is not there
    """
    found = os.stat(path)
    if stat.S_ISCHR(found.st_mode):
        return (found.st_rdev,)
    return found.st_dev, found.st_ino


def keys(paths: abc.Iterable[str]) -> set[Key]:
    """Return what paths stand for, and their nodes; nothing for one gone."""
    found = set()
    for path in paths:
        with contextlib.suppress(OSError):
            status = os.stat(path)
            # /proc/PID/maps has the node of a device, and not its number.
            found |= {key(path), (status.st_dev, status.st_ino)}
    return found


def writer(path: str) -> int | None:
    """Return another process that may write to something, if one is seen.

    Who only reads, as the sender of a copy that is being ended, does no harm.
    Who may not be looked at is not seen. That is what a guest may be, and
    libvirt tells what guests have; nothing of a copy hides.
    """
    wanted = keys([path])
    return next((pid for pid in others()
                 if wanted & written_by(pid)), None)


def others() -> abc.Iterator[int]:
    """Yield all processes besides this one."""
    for name in os.listdir('/proc'):
        if name.isdigit() and int(name) != os.getpid():
            yield int(name)


def written_by(pid: int) -> set[Key]:
    """Return what a process has open or mapped so that it may write to it.

    Nothing, if it may not be looked at, or has ended meanwhile.
    """
    found: set[Key] = set()
    try:
        with open('/proc/%d/maps' % pid) as maps:
            for line in maps:
                _, rights, _, device, inode, *_rest = line.split(maxsplit=5)
                if 'w' in rights:
                    major, minor = (
                        int(part, 16) for part in device.split(':'))
                    found.add((os.makedev(major, minor), int(inode)))
        folder = '/proc/%d/fd/' % pid
        found |= keys(folder + name for name in os.listdir(folder)
                      if _may_write(pid, name))
    except (PermissionError, FileNotFoundError, ProcessLookupError):
        return set()
    return found


def _may_write(pid: int, number: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        with open('/proc/%d/fdinfo/%s' % (pid, number)) as info:
            flags = re.search(r'^flags:\s*(\d+)$', info.read(), re.MULTILINE)
            return int(flags[1], 8) & os.O_ACCMODE != os.O_RDONLY
    return False
