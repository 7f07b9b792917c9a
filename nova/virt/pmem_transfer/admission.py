# SPDX-License-Identifier: Apache-2.0

"""Whether a receiver may write, and what.

The ticket says so, and nothing that comes over the wire. Namespaces are looked
up by name when they are needed: the numbers of device nodes change when a
host boots.
"""

from collections import abc
import contextlib
import dataclasses
import fcntl
import json
import os
import signal
import struct
import subprocess
import typing as ty

from nova.virt.pmem_transfer import device
from nova.virt.pmem_transfer import ticket as pmem_ticket
from nova.virt.pmem_transfer import users

#: Seconds that ndctl may take.
NDCTL_TIMEOUT = 60

# struct flock: type, whence, start, length, pid; the kernel wants pid 0.
_FLOCK = struct.Struct('@hhqqi0q')


class Refused(Exception):
    """The copy may not begin, or not go on.

    :ivar again: whether it may help to try again
    """

    def __init__(self, reason: str, again: bool = False) -> None:
        super().__init__(reason)
        self.again = again


@dataclasses.dataclass(frozen=True)
class Device:
    """A device that may be written; sizes are in bytes."""

    name: str
    node: str
    size: int
    source_size: int


class OpenTicket:
    """A ticket whose file is held open.

    The file is the place of the locks, one byte for each stream. The locks
    are of the kind that belongs to the open file and not to the process, so
    a ``daxio`` that has it open, too, keeps its stream locked until it is
    gone, even if its receiver was killed.
    """

    def __init__(self, folder: str, migration_uuid: str) -> None:
        """Open it.

        :raises Refused: if there is none, or none that can be read
        """
        try:
            self.path = os.path.join(
                folder, pmem_ticket.file_name(migration_uuid))
            # To be locked it has to be open for writing.
            self.fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        except pmem_ticket.Invalid as error:
            raise Refused(str(error))
        except FileNotFoundError:
            raise Refused('there is no open ticket %s' % self.path)
        except OSError as error:
            raise Refused('ticket %s can not be read: %s' % (
                self.path, error))
        try:
            self.ticket = pmem_ticket.read(folder, migration_uuid)
        except pmem_ticket.Missing:
            raise Refused('ticket %s was closed' % self.path)
        except pmem_ticket.Invalid as error:
            raise Refused(str(error))
        if self.ticket.state != pmem_ticket.OPEN:
            raise Refused('ticket %s is closed to writers' % self.path)
        # What was read may be the file's successor; then this one is not
        # where it was.
        self.check_open()

    def check_open(self) -> None:
        """Check that the ticket has not been closed or replaced.

        :raises Refused: if it has
        """
        try:
            is_open = os.path.samestat(
                os.stat(self.path), os.fstat(self.fd))
        except FileNotFoundError:
            is_open = False
        if not is_open:
            raise Refused('ticket %s was closed' % self.path)

    def lock(self, stream: int, timeout: float) -> None:
        """Take the lock of a stream.

        :param timeout: seconds to wait for it; 0 if nobody should have it,
            for then it does not help to try again
        :raises Refused: if somebody else has it
        """
        wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, stream, 1, 0)
        try:
            if timeout > 0:
                with _alarm(timeout):
                    fcntl.fcntl(self.fd, fcntl.F_OFD_SETLKW, wanted)
            else:
                fcntl.fcntl(self.fd, fcntl.F_OFD_SETLK, wanted)
        except (BlockingIOError, PermissionError, TimeoutError):
            raise Refused('another receiver has stream %d of migration %s' % (
                stream, self.ticket.migration_uuid), again=timeout > 0)
        self.check_open()


@contextlib.contextmanager
def _alarm(seconds: float) -> abc.Iterator[None]:
    """Raise TimeoutError after so many seconds."""
    def ring(*_arguments: ty.Any) -> None:
        raise TimeoutError()

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def admit(ticket: OpenTicket, host: str) -> list[Device]:
    """Return the devices of a ticket, in its order, if they may be written.

    :param host: the name of this compute host
    :raises Refused: if any may not
    """
    found = ticket.ticket
    if found.host != host:
        raise Refused('the ticket of migration %s is for host %s, and this is '
                      '%s' % (found.migration_uuid, found.host, host))
    if not found.targets:
        raise Refused('the ticket of migration %s names no namespace' %
                      found.migration_uuid)
    namespaces = _namespaces()
    devices = [_device(target, namespaces) for target in found.targets]
    used = _used([each.node for each in devices], ticket.fd)
    if used:
        raise Refused(used)
    return devices


def _namespaces() -> list[dict[str, ty.Any]]:
    try:
        done = subprocess.run(
            ['ndctl', 'list', '-X'], stdin=subprocess.DEVNULL,
            capture_output=True, timeout=NDCTL_TIMEOUT)
        if done.returncode != 0:
            raise ValueError('status %d: %s' % (
                done.returncode, done.stderr.decode('utf-8', 'replace')))
        # It prints nothing at all if there is none.
        output = done.stdout.strip()
        found = json.loads(output) if output else []  # noqa: N324
        if not isinstance(found, list):
            raise ValueError('no list of namespaces')
        # An odd one is none of ours, and no reason to refuse others.
        return [each for each in found if isinstance(each, dict)]
    except (OSError, TypeError, ValueError, RecursionError,
            subprocess.SubprocessError) as error:
        raise Refused('ndctl does not tell the namespaces: %s' % error)


def _device(target: pmem_ticket.Target,
            namespaces: list[dict[str, ty.Any]]) -> Device:
    found = [each for each in namespaces if each.get('name') == target.name]
    if len(found) != 1:
        raise Refused('there are %d namespaces %s' % (
            len(found), target.name) if found else
            'there is no namespace %s' % target.name)
    try:
        nodes = ['/dev/' + node['chardev']
                 for node in found[0]['daxregion']['devices']]
        size = found[0]['size']
    except (KeyError, TypeError) as error:
        raise Refused('ndctl describes namespace %s without %s' % (
            target.name, error))
    if len(nodes) != 1:
        raise Refused('namespace %s has %d devices' % (
            target.name, len(nodes)))
    _check_size(target, size)
    node = os.path.realpath(nodes[0])
    _check_node(target, node)
    return Device(target.name, node, target.size, target.source_size)


def _check_size(target: pmem_ticket.Target, size: int) -> None:
    if size != target.size:
        raise Refused('namespace %s has %s bytes, and its ticket says %d' % (
            target.name, size, target.size))


def _check_node(target: pmem_ticket.Target, node: str) -> None:
    try:
        size = device.size(node)
        owner = os.stat(node).st_uid
    except (OSError, ValueError) as error:
        raise Refused('namespace %s: %s' % (target.name, error))
    _check_size(target, size)
    if owner != os.geteuid():
        raise Refused(
            '%s of namespace %s belongs to user %d and is not lent to %d: the '
            'copy is over, or has not begun' %
            (node, target.name, owner, os.geteuid()))


def _used(nodes: abc.Iterable[str], ticket_fd: int) -> str | None:
    """Say which process has a node open, if not one of the same copy.

    ``daxio`` and the kernel let anyone share a device, a guest as well. The
    receivers of the same copy, and their ``daxio``, have its ticket open.
    """
    wanted = users.keys(nodes)
    ticket = users.key('/proc/self/fd/%d' % ticket_fd)
    for pid in users.others():
        used = users.used_by(pid) or set()
        if used & wanted and ticket not in used:
            return '%s is used by process %d (%s)' % (
                ', '.join(nodes), pid, _name(pid))
    return None


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        with open('/proc/%d/comm' % pid) as comm:
            return comm.read().strip()
    return 'gone'
