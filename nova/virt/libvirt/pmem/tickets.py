# SPDX-License-Identifier: Apache-2.0

"""The tickets of this host: a record of namespaces that hold somebody's data.

nova-compute writes a ticket before anything may write to its namespaces; for
those that a server leaves behind when it is moved, since the move may yet turn
out badly; and before it wipes them. It closes a ticket when the contents are
settled: they belong to a server of this host, or they are wiped. As long as a
ticket exists, its namespaces count as dirty. It names namespaces, not device
nodes: names survive a reboot, the numbers of the nodes do not.
"""

from collections import abc
import contextlib
import dataclasses
import glob
import os
import re
import tempfile
import threading

from oslo_log import log as logging
from oslo_serialization import jsonutils

import nova.conf
from nova import exception
from nova.i18n import _

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

#: What is the matter with the namespaces of a ticket: the destination's
#: receive a copy, the source's are held for the server to go back to.
RECEIVE, HOLD = KINDS = ('receive', 'hold')

#: How far that is: as it begins; a copy that is closed to writers, and whose
#: guest is to start; or nobody needs them any more, and they are to be wiped.
OPEN, ARRIVED, OVER = STATES = ('open', 'arrived', 'over')

#: Format of the file. A ticket of another version is refused, not guessed at.
VERSION = 1

#: Where tickets are, below ``[DEFAULT]state_path``.
FOLDER = 'pmem-copy'

_UUID = re.compile('[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}')

#: What this process has written and not closed, by path. What happens to a
#: file while nova-compute runs is mended from here.
_written: 'dict[str, Ticket]' = {}

#: Held while a file and what is known of it change together.
_changing = threading.RLock()


@dataclasses.dataclass(frozen=True)
class Target:
    """A namespace that takes data.

    ``size`` and ``source_size`` are bytes. ``uid`` and ``gid`` own the device
    node while no copy is under way. ``device`` is which one it was when it
    was lent; none, if that is not known.
    """

    name: str
    size: int
    source_size: int
    uid: int
    gid: int
    device: str = ''

    def __post_init__(self) -> None:
        numbers = (self.size, self.source_size, self.uid, self.gid)
        if not isinstance(self.name, str) or not self.name:
            raise ValueError('name %r' % (self.name,))
        if any(type(number) is not int or number < 0 for number in numbers):
            raise ValueError('numbers %r' % (numbers,))
        if not isinstance(self.device, str):
            raise ValueError('device %r' % (self.device,))
        if not 0 < self.source_size <= self.size:
            raise ValueError('sizes %r' % (numbers[:2],))


@dataclasses.dataclass(frozen=True)
class Ticket:
    """What may be written, or is to be wiped, on ``host``, and why."""

    host: str
    migration_uuid: str
    instance_uuid: str
    targets: tuple[Target, ...]
    kind: str = RECEIVE
    state: str = OPEN
    version: int = VERSION

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ValueError('version %r' % (self.version,))
        if self.kind not in KINDS:
            raise ValueError('kind %r' % (self.kind,))
        if self.state not in STATES:
            raise ValueError('state %r' % (self.state,))
        if not isinstance(self.host, str) or not self.host:
            raise ValueError('host %r' % (self.host,))
        for uuid in (self.migration_uuid, self.instance_uuid):
            if not isinstance(uuid, str) or not _UUID.fullmatch(uuid):
                raise ValueError('uuid %r' % (uuid,))

    def to_json(self) -> str:
        return jsonutils.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> 'Ticket':
        """Read what :meth:`to_json` wrote.

        :raises ValueError: if it is anything else
        """
        try:
            fields = jsonutils.loads(text)
            # In those of the first releases.
            fields.pop('since', None)
            targets = tuple(Target(**each) for each in fields.pop('targets'))
            return cls(targets=targets, **fields)
        except (AttributeError, KeyError, RecursionError, TypeError) as error:
            raise ValueError(str(error)) from error


def directory() -> str:
    """Return where tickets are, and the sockets of receivers."""
    return os.path.join(CONF.state_path, FOLDER)


def _path(migration_uuid: str, kind: str = RECEIVE) -> str:
    if not _UUID.fullmatch(migration_uuid):
        raise exception.PMEMTicketInvalid(
            reason=_('%r is no uuid') % migration_uuid)
    return os.path.join(directory(), '%s.%s' % (migration_uuid, kind))


def path_of(ticket: Ticket) -> str:
    return _path(ticket.migration_uuid, ticket.kind)


def socket_of(ticket: Ticket) -> str:
    """Return where the receiver of a ticket listens."""
    return os.path.join(directory(), ticket.migration_uuid + '.socket')


def local_socket_of(migration_uuid: str) -> str:
    """Return how the paths of sockets begin that ssh makes for a copy."""
    return os.path.join(directory(), migration_uuid + '.ssh-')


def notes_of(ticket: Ticket) -> str:
    """Return where is noted what a copy has begun to write.

    The file is the place of its lock, too.
    """
    return os.path.join(directory(), ticket.migration_uuid + '.writes')


def write(ticket: Ticket) -> None:
    """Store a ticket so that it is there after a loss of power.

    :raises OSError: if it can't be stored; then there is no ticket
    """
    with _changing:
        _store(ticket)
        _written[path_of(ticket)] = ticket


def _store(ticket: Ticket) -> None:
    os.makedirs(directory(), mode=0o700, exist_ok=True)
    with tempfile.NamedTemporaryFile(
            'w', dir=directory(), prefix='.', delete=False) as new:
        try:
            new.write(ticket.to_json())
            new.flush()
            os.fsync(new.fileno())
            os.rename(new.name, path_of(ticket))
        except BaseException:
            os.unlink(new.name)
            raise
    _sync()


def read(migration_uuid: str, kind: str = RECEIVE) -> Ticket:
    """Return the open ticket of a migration.

    :raises PMEMTicketNotFound: if there is none
    :raises PMEMTicketInvalid: if its file is damaged, or another migration's
    """
    path = _path(migration_uuid, kind)
    try:
        with open(path, encoding='utf-8') as stored:
            ticket = Ticket.from_json(stored.read())
    except FileNotFoundError:
        raise exception.PMEMTicketNotFound(migration_uuid=migration_uuid)
    except (OSError, ValueError) as error:
        raise exception.PMEMTicketInvalid(
            reason='%s: %s' % (path, error))
    if (ticket.migration_uuid, ticket.kind) != (migration_uuid, kind):
        raise exception.PMEMTicketInvalid(
            reason=_('%(path)s is a "%(kind)s" of migration %(uuid)s') % {
                'path': path, 'kind': ticket.kind,
                'uuid': ticket.migration_uuid})
    return ticket


def is_open(migration_uuid: str, kind: str) -> bool:
    return os.path.exists(_path(migration_uuid, kind))


def close(ticket: Ticket) -> None:
    """Forget a ticket for good, unless it says something else by now.

    A ticket that is closed already is fine.
    """
    with _changing:
        with contextlib.suppress(exception.PMEMTicketNotFound,
                                 exception.PMEMTicketInvalid):
            if read(ticket.migration_uuid, ticket.kind) != ticket:
                return
        _written.pop(path_of(ticket), None)
        for path in _paths(ticket):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
                _sync()


def _paths(ticket: Ticket) -> abc.Iterator[str]:
    """Yield what is removed with a ticket, which comes last."""
    if ticket.kind == RECEIVE:
        yield socket_of(ticket)
        yield notes_of(ticket)
    else:
        yield from glob.glob(
            glob.escape(local_socket_of(ticket.migration_uuid)) + '*')
    yield path_of(ticket)


def open_tickets(host: str | None = None) -> abc.Iterator[Ticket]:
    """Yield the open tickets that can be read, or those of one host."""
    for uuid, kind in _names():
        with contextlib.suppress(exception.PMEMTicketNotFound,
                                 exception.PMEMTicketInvalid):
            ticket = read(uuid, kind)
            if host in (None, ticket.host):
                yield ticket


def mend() -> None:
    """Write again what was changed or removed since this process wrote it."""
    with _changing:
        for path, ticket in list(_written.items()):
            if os.path.dirname(path) == directory() and not (
                    _is_as_written(ticket)):
                LOG.error('Writing the vPMEM ticket %s again, which only '
                          'nova-compute may change.', path)
                write(ticket)


def _is_as_written(ticket: Ticket) -> bool:
    with contextlib.suppress(exception.PMEMTicketNotFound,
                             exception.PMEMTicketInvalid):
        return read(ticket.migration_uuid, ticket.kind) == ticket
    return False


def damaged() -> list[tuple[str, str]]:
    """Return uuid of the migration, and kind, of tickets that can't be read.

    Nothing but the database tells which namespaces they guard.
    """
    found = []
    for uuid, kind in _names():
        try:
            read(uuid, kind)
        except exception.PMEMTicketNotFound:
            continue
        except exception.PMEMTicketInvalid:
            found.append((uuid, kind))
    return found


def _names() -> list[tuple[str, str]]:
    try:
        names = sorted(os.listdir(directory()))
    except FileNotFoundError:
        return []
    parsed = [name.partition('.') for name in names]
    return [(uuid, kind) for uuid, __, kind in parsed
            if kind in KINDS and _UUID.fullmatch(uuid)]


def _sync() -> None:
    fd = os.open(directory(), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
