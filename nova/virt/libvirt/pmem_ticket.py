#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.

"""Tickets: a host's record of vPMEM devices that hold somebody's data.

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
import os
import re
import tempfile

from oslo_log import log as logging
from oslo_serialization import jsonutils

import nova.conf
from nova import exception
from nova.i18n import _

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

#: What is the matter with the namespaces of a ticket: they receive a copy; or
#: they were copied, and nobody has yet said that they are not needed any more;
#: or nobody needs them.
RECEIVE, HOLD, WIPE = KINDS = ('receive', 'hold', 'wipe')

#: Format of the file. A ticket of another version is refused, not guessed at.
VERSION = 1

_UUID = re.compile('[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}')


@dataclasses.dataclass(frozen=True)
class Target:
    """A namespace that takes data.

    ``size`` and ``source_size`` are bytes. ``uid`` and ``gid`` own the device
    node while no copy is under way.
    """

    name: str
    size: int
    source_size: int
    uid: int
    gid: int

    def __post_init__(self) -> None:
        numbers = (self.size, self.source_size, self.uid, self.gid)
        if not isinstance(self.name, str) or not self.name:
            raise ValueError('name %r' % (self.name,))
        if any(type(number) is not int or number < 0 for number in numbers):
            raise ValueError('numbers %r' % (numbers,))
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
    version: int = VERSION

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ValueError('version %r' % (self.version,))
        if self.kind not in KINDS:
            raise ValueError('kind %r' % (self.kind,))
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
            targets = tuple(Target(**each) for each in fields.pop('targets'))
            return cls(targets=targets, **fields)
        except (AttributeError, KeyError, RecursionError, TypeError) as error:
            raise ValueError(str(error)) from error


def _directory() -> str:
    return os.path.join(CONF.state_path, 'pmem-copy')


def _path(migration_uuid: str, kind: str = RECEIVE) -> str:
    if not _UUID.fullmatch(migration_uuid):
        raise exception.PMEMTicketInvalid(
            ticket=repr(migration_uuid), reason=_('not a uuid'))
    return os.path.join(_directory(), '%s.%s' % (migration_uuid, kind))


def write(ticket: Ticket) -> None:
    """Store a ticket so that it is there after a loss of power.

    :raises OSError: if it can't be stored; then there is no ticket
    """
    os.makedirs(_directory(), mode=0o700, exist_ok=True)
    with tempfile.NamedTemporaryFile(
            'w', dir=_directory(), prefix='.', delete=False) as new:
        try:
            new.write(ticket.to_json())
            new.flush()
            os.fsync(new.fileno())
            os.rename(new.name, _path(ticket.migration_uuid, ticket.kind))
        except BaseException:
            os.unlink(new.name)
            raise
    _sync_directory()


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
        raise exception.PMEMTicketInvalid(ticket=path, reason=error)
    if (ticket.migration_uuid, ticket.kind) != (migration_uuid, kind):
        raise exception.PMEMTicketInvalid(
            ticket=path, reason=_('it is a "%(kind)s" of migration %(uuid)s') %
            {'kind': ticket.kind, 'uuid': ticket.migration_uuid})
    return ticket


def close(ticket: Ticket) -> None:
    """Forget a ticket for good. A ticket that is closed already is fine."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_path(ticket.migration_uuid, ticket.kind))
        _sync_directory()


def open_tickets(host: str | None = None) -> abc.Iterator[Ticket]:
    """Yield the open tickets, or those of one host.

    A damaged one is logged and stays, since nobody knows any more which
    namespaces it guards.
    """
    try:
        names = sorted(os.listdir(_directory()))
    except FileNotFoundError:
        return
    for name in names:
        uuid, dot, kind = name.partition('.')
        if kind not in KINDS or not _UUID.fullmatch(uuid):
            continue
        try:
            ticket = read(uuid, kind)
        except exception.PMEMTicketNotFound:
            continue
        except exception.PMEMTicketInvalid as error:
            LOG.error('%s Find out which namespaces migration %s was to '
                      'write, wipe them if no server uses them, and remove '
                      'the file.', error.format_message(), uuid)
            continue
        if host in (None, ticket.host):
            yield ticket


def _sync_directory() -> None:
    fd = os.open(_directory(), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
