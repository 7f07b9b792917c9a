# SPDX-License-Identifier: Apache-2.0

"""The receivers of this host: who may write to what has a ticket.

A receiver is a child of nova-compute's, and ends with it. What it has started
has inherited the lock on the notes beside the ticket, as it has: so whoever
has the lock knows that nobody of the copy writes any more, also after he was
killed himself and came back.
"""

from collections import abc
import contextlib
import fcntl
import os
import subprocess
import threading
import time

from oslo_log import log as logging

from nova import exception
from nova.i18n import _
from nova.virt.libvirt.pmem import namespaces as pmem_namespaces
from nova.virt.libvirt.pmem import tickets
from nova.virt import pmem_device
from nova.virt.pmem_transfer import processes
from nova.virt.pmem_transfer import receiver
from nova.virt.pmem_transfer import sender
from nova.virt.pmem_transfer import wire
from nova.virt import pmem_users

LOG = logging.getLogger(__name__)

#: Seconds to wait for a receiver to listen, and for what it has started to
#: end. Both take a moment, unless something is the matter with the host.
TIMEOUT = 30

#: The receivers that this process has started, by the path of the notes.
_running: dict[str, subprocess.Popen] = {}
_lock = threading.Lock()


def start(ticket: tickets.Ticket, namespaces: pmem_namespaces.Namespaces,
          used: abc.Set[pmem_users.Key]) -> None:
    """Have somebody listen for the data of an open ticket.

    :param used: keys of the devices of other servers' guests
    :raises PMEMNamespaceNotFound: if a device is not there
    :raises PMEMDeviceBusy: if a guest has one, or an earlier receiver can't be
        ended
    :raises OSError: if a node is not the device of that name and size, or
        nobody listens
    """
    end(ticket)
    targets = tuple(wire.Target(
        name=each.name, path=pmem_namespaces.resolve(each, namespaces),
        size=each.size, source_size=each.source_size)
        for each in ticket.targets)
    for each in targets:
        found = pmem_device.size(each.path)
        if found != each.size:
            raise OSError('%s has %d bytes and not %d' % (
                each.path, found, each.size))
        # The numbers of nodes change when a host boots, and what a claim says
        # of them may be older.
        if pmem_users.keys([each.path]) & used:
            raise exception.PMEMDeviceBusy(
                name=each.name, user=_('a guest of this host'))
    for each in targets:
        pmem_namespaces.lend(each.path)
    with _notes(ticket) as notes:
        _lock_alone(ticket, notes)
        process = subprocess.Popen(
            receiver.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=sender.environment(), start_new_session=True,
            pass_fds=(notes,))
        with _lock:
            _running[tickets.notes_of(ticket)] = process
        try:
            # One that ends before it has read this says why.
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(wire.Receiving(
                    socket=tickets.socket_of(ticket), targets=targets,
                    notes=notes).to_json().encode() + b'\n')
                process.stdin.flush()
            _wait_until_ready(process)
        except BaseException:
            _end(ticket)
            raise


def _wait_until_ready(process: subprocess.Popen) -> None:
    said = b''
    if processes.can_read(process.stdout, TIMEOUT):
        said = process.stdout.readline()
    if said != receiver.READY.encode():
        raise OSError(_('the receiver does not listen: %s') % (
            said.decode('utf-8', 'replace').strip() or _('no message')))


def is_running(ticket: tickets.Ticket) -> bool:
    with _lock:
        process = _running.get(tickets.notes_of(ticket))
    return process is not None and process.poll() is None


def end(ticket: tickets.Ticket) -> None:
    """See to it that nobody of a copy writes any more.

    :raises PMEMDeviceBusy: if somebody can't be ended
    """
    _end(ticket)
    if os.path.exists(tickets.notes_of(ticket)):
        with _notes(ticket) as notes:
            _lock_alone(ticket, notes)


def _end(ticket: tickets.Ticket) -> None:
    """End a receiver, if there is one; its children end with it.

    :raises PMEMDeviceBusy: if it hangs in the kernel; it is not forgotten
    """
    with _lock:
        process = _running.get(tickets.notes_of(ticket))
    if process is not None:
        process.kill()
        try:
            process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            raise _busy(ticket, _('a receiver that can not be ended'))
        _close(process)
        with _lock:
            _running.pop(tickets.notes_of(ticket), None)


def _close(process: subprocess.Popen) -> None:
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    process.stdout.close()


def _busy(ticket: tickets.Ticket, user: str) -> exception.PMEMDeviceBusy:
    return exception.PMEMDeviceBusy(
        name=', '.join(each.name for each in ticket.targets), user=user)


@contextlib.contextmanager
def _notes(ticket: tickets.Ticket) -> abc.Iterator[int]:
    fd = os.open(tickets.notes_of(ticket), os.O_RDWR | os.O_CREAT |
                 os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def _lock_alone(ticket: tickets.Ticket, notes: int) -> None:
    """Take the lock, when all who have inherited it are gone."""
    until = time.monotonic() + TIMEOUT
    while True:
        try:
            fcntl.flock(notes, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                raise _busy(ticket, _('what a copy has left'))
        # The kernel tells who waits for a lock, and not for how long.
        time.sleep(0.02)
