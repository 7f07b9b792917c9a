# SPDX-License-Identifier: Apache-2.0

"""What root does with vPMEM: see its damage, and wipe it.

:mod:`nova.privsep.libvirt` calls :func:`zero` as root.
"""

import contextlib
import fcntl
import os
import subprocess
import sys

from oslo_concurrency import processutils

from nova import exception
from nova.i18n import _
import nova.privsep
from nova.virt import pmem_device
from nova.virt.pmem_transfer import daxio
from nova.virt.pmem_transfer import sender
from nova.virt import pmem_users


@nova.privsep.sys_admin_pctxt.entrypoint
def get_damage() -> str:
    """Return what ndctl tells of namespaces, with where bad blocks are."""
    return processutils.execute('ndctl', 'list', '-X', '-M')[0]


@nova.privsep.sys_admin_pctxt.entrypoint
def check_daxio() -> None:
    """See that root finds daxio, which is to wipe.

    :raises Exception: if not
    """
    processutils.execute('daxio', '--version')


def zero(devpath: str) -> None:
    """Zero a device, and read it back.

    An exit status proves nothing: it is 0 for what was cut short, too. A
    ``daxio`` that goes on although whoever wanted it is dead still has the
    lock, so nobody takes its device for wiped, or wipes it at the same time.

    :raises VPMEMCleanupFailed: if not all of it is known to be zero
    """
    size = _size(devpath)
    _check_unused(devpath)
    with _alone(devpath) as lock:
        result = _daxio(devpath, lock)
        if result.returncode:
            # Not every kernel can clear bad blocks of device DAX.
            result = _daxio(devpath, lock, '-b', 'no')
        if result.returncode:
            raise _failed(devpath, result)
        check_zeroed(devpath, size, result.stderr)
        result = _run(lock, sys.executable, '-m',
                      'nova.virt.pmem_transfer.memory', devpath, str(size))
        if result.returncode:
            raise _failed(devpath, result)


def _size(devpath: str) -> int:
    try:
        return pmem_device.size(devpath)
    except (OSError, ValueError) as error:
        raise exception.VPMEMCleanupFailed(dev=devpath, error=str(error))


def _check_unused(devpath: str) -> None:
    # Root without CAP_SYS_PTRACE sees what has no more rights than itself,
    # as what an earlier wipe has left; nova-compute has looked at its own.
    pid = pmem_users.writer(devpath)
    if pid is not None:
        raise exception.VPMEMCleanupFailed(
            dev=devpath, error=_('process %d may write to it') % pid)


@contextlib.contextmanager
def _alone(devpath: str):
    fd = os.open(devpath, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield fd
    except BlockingIOError:
        raise exception.VPMEMCleanupFailed(
            dev=devpath, error=_('somebody else wipes it'))
    finally:
        # The lock goes with the last process that has inherited it.
        os.close(fd)


def _daxio(devpath: str, lock: int, *options: str):
    return _run(lock, 'daxio', '-z', *options, '-o', devpath)


def _run(lock: int, *command: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, errors='replace',
        pass_fds=(lock,), env=sender.environment())


def _failed(devpath: str, result: subprocess.CompletedProcess) -> Exception:
    return exception.VPMEMCleanupFailed(
        dev=devpath, error=_('%(tool)s ended with status %(status)d: '
                             '%(said)s') %
        {'tool': os.path.basename(result.args[0]),
         'status': result.returncode,
         'said': result.stderr.strip() or _('nothing')})


def check_zeroed(devpath: str, size: int, stderr: str) -> None:
    """Check that daxio says that it has zeroed the whole device.

    :param size: bytes of the device
    :param stderr: where it says how many bytes it has written
    :raises VPMEMCleanupFailed: if it does not
    """
    counts = [int(count) for count in daxio.COPIED.findall(stderr)]
    if counts != [size]:
        raise exception.VPMEMCleanupFailed(
            dev=devpath, error=_(
                'daxio was to zero %(size)d bytes and said: %(said)s') %
            {'size': size, 'said': stderr.strip() or _('nothing')})
