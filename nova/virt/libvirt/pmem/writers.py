# SPDX-License-Identifier: Apache-2.0

"""Who may write to a device, and ending those that a copy has left.

When a connection breaks, a receiver may live on, and write what it has got.
It has its ticket open, and its ``daxio`` the device, so taking the node back
does not stop it; and it must not write after a wipe.
"""

from collections import abc
import contextlib
import os
import select
import signal
import time

from oslo_log import log as logging

from nova import exception
from nova.i18n import _
from nova.virt.libvirt.pmem import namespaces as pmem_namespaces
from nova.virt.libvirt.pmem import tickets
from nova.virt.pmem_transfer import users

LOG = logging.getLogger(__name__)

#: Seconds to wait for a process that was killed to let go of a device.
KILL_TIMEOUT = 30

#: What nova's user runs that nobody may look into, and that opens no device.
SESSIONS = frozenset(('sshd', 'sshd-session', 'ssh-agent'))

#: Seconds that clocks may differ by.
SLACK = 5


def end_writers(
    ticket: tickets.Ticket, targets: abc.Iterable[tickets.Target],
    namespaces: pmem_namespaces.Namespaces,
) -> None:
    """End what ssh left running on devices that have no guest.

    What is not known to be of the copy is not killed: QEMU may run as nova's
    user. And who of nova's user may not be looked into counts as one who has
    them, unless he was there before the ticket. Who only reads does no harm.

    :param targets: those of the ticket that are about to be used otherwise

    :raises PMEMDeviceBusy: if such a process is there
    """
    nodes = [namespaces[target.name].devpath for target in targets
             if target.name in namespaces]
    path = tickets.path_of(ticket)
    since = ticket.since or os.stat(path).st_mtime
    opened, wanted = users.keys([path]), users.keys(nodes)
    for pid in users.others():
        is_own = _is_own(pid)
        used = users.used_by(pid, writing=True)
        if used is None:
            if is_own and _name(pid) not in SESSIONS and (
                    _started(pid) > since - SLACK):
                raise _busy(targets, pid)
        elif is_own and (used & opened or used & wanted and _is_tool(pid)):
            LOG.warning('Killing process %(pid)d, which a copy has left: it '
                        'still has one of %(nodes)s open, or the ticket.',
                        {'pid': pid, 'nodes': ', '.join(nodes)})
            _kill(pid, targets)
        elif used & wanted:
            raise _busy(targets, pid)


def _busy(targets: abc.Iterable[tickets.Target], pid: int) -> Exception:
    return exception.PMEMDeviceBusy(
        name=', '.join(target.name for target in targets),
        user=_('process %d') % pid)


def _is_own(pid: int) -> bool:
    try:
        return os.stat('/proc/%d' % pid).st_uid == os.getuid()
    except FileNotFoundError:
        return False


def _words(pid: int, name: str) -> list[str]:
    with contextlib.suppress(OSError):
        with open('/proc/%d/%s' % (pid, name)) as file:
            return file.read().rstrip('\n').split('\0')
    return ['']


def _started(pid: int) -> float:
    """Return when a process has started, in seconds as time.time()."""
    # What stands before the bracket may contain anything.
    ticks = _words(pid, 'stat')[0].rpartition(')')[2].split()
    if len(ticks) < 20:
        return 0  # it is gone
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - (
        int(ticks[19]) / os.sysconf('SC_CLK_TCK'))
    return time.time() - age


def _name(pid: int) -> str:
    return _words(pid, 'comm')[0]


def _is_tool(pid: int) -> bool:
    """Whether it is a daxio; a script is the second word."""
    return 'daxio' in map(os.path.basename, _words(pid, 'cmdline')[:6])


def _kill(pid: int, targets: abc.Iterable[tickets.Target]) -> None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        # A pidfd turns readable when its process has ended.
        if not select.select([handle], [], [], KILL_TIMEOUT)[0]:
            raise _busy(targets, pid)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)
