# SPDX-License-Identifier: Apache-2.0
"""The machine that the cloud runs on: namespaces of its own.

Everything happens in one process, mount, network and IPC namespace. Its
loopback is its own, so no port can be taken and no two clouds meet; and when
its first process ends, the kernel ends the others and drops every mount. So
there is no teardown that could be forgotten.
"""

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import sys

from cloud import HOSTS
from cloud import Unable
from cloud import WORK

INSIDE = 'PMEM_CLOUD_INSIDE'

_PR_SET_PDEATHSIG = 1


def die_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel signal this process when its parent ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number))


def check() -> None:
    """Find out early what would fail late.

    :raises Unable: if the cloud can't be brought up here
    """
    if os.geteuid() != 0:
        raise Unable('the cloud needs root, for namespaces and mounts')
    with open('/proc/filesystems') as known:
        if '\toverlay\n' not in known.read():
            # It may be a module that nobody has needed yet.
            subprocess.run(['modprobe', 'overlay'], capture_output=True)
    namespaces = ['--mount', '--net', '--pid', '--ipc', '--uts', '--fork']
    done = subprocess.run(['unshare', *namespaces, 'true'],
                          capture_output=True, text=True)
    if done.returncode:
        raise Unable('the cloud needs namespaces of its own: %s' %
                     done.stderr.strip())


def lock() -> int:
    """Keep a second run of this checkout out.

    :returns: a descriptor; the lock goes when all who have it end
    :raises Unable: if there is one
    """
    WORK.mkdir(parents=True, exist_ok=True)
    held = os.open(WORK / 'lock', os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Unable('the cloud of this checkout is up already; "make '
                     'cloud-down" ends it')
    return held


def wait_for_lock() -> int:
    """Wait until a run that was ended is gone, and return the lock."""
    held = os.open(WORK / 'lock', os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    fcntl.flock(held, fcntl.LOCK_EX)
    return held


def start(command: list[str], held: int, stays: bool = False,
          **streams: object) -> subprocess.Popen:
    """Run a command of this package inside.

    :param held: the lock, which goes with the box
    :param stays: whether it outlives this process
    """
    HOSTS.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        ['unshare', '--mount', '--net', '--pid', '--ipc', '--fork',
         '--kill-child=KILL', '--propagation', 'private', '--mount-proc',
         sys.executable, '-m', 'cloud.init', sys.executable, '-m', 'cloud',
         *command],
        env=os.environ | {INSIDE: '1'}, pass_fds=[held],
        start_new_session=stays, preexec_fn=None if stays else die_with_parent,
        **streams)


def run(command: list[str], held: int) -> int:
    """Run a command inside, and end all of it if this process is to end.

    :returns: the command's exit status
    """
    die_with_parent(signal.SIGTERM)
    box = start(command, held)

    def end(number: int, _frame: object) -> None:
        box.kill()
        box.wait()
        forget()
        sys.exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    status = box.wait()
    forget()
    return status


def forget() -> None:
    """Remove what the mounts were on; on them nothing is left."""
    with contextlib.suppress(FileNotFoundError):
        HOSTS.rmdir()


def furnish() -> None:
    """Prepare the inside: loopback, and room for the hosts.

    What the hosts write is in memory, so it goes with them.
    """
    subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True)
    for host in range(2, 5):
        subprocess.run(['ip', 'address', 'add', '127.0.0.%d/8' % host, 'dev',
                        'lo'], check=True)
    subprocess.run(['mount', '-t', 'tmpfs', '-o', 'mode=755,size=90%',
                    'cloud', HOSTS], check=True)


def missing(programs: dict[str, str]) -> None:
    """Check that programs are there.

    :param programs: a package for each
    :raises Unable: naming the packages of those that are not
    """
    path = os.environ.get('PATH', os.defpath) + ':/usr/sbin:/sbin'
    gone = sorted(package for name, package in programs.items()
                  if shutil.which(name, path=path) is None)
    if gone:
        raise Unable('these packages are missing: %s' % ' '.join(gone))
