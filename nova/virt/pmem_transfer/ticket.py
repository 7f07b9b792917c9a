# SPDX-License-Identifier: Apache-2.0

"""Tickets: what a host notes down about namespaces that hold data.

nova-compute writes them (``nova.virt.libvirt.pmem.tickets``); the receiver of
a copy reads its own, and learns from it what it may write.
"""

import dataclasses
# Not jsonutils, which imports a lot (hence the noqa).
import json
import os
import re

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


class Missing(Exception):
    """There is no such ticket, or not any more."""


class Invalid(Exception):
    """A ticket is damaged, or not the one that its name says."""


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
    """What may be written, or is to be wiped, on ``host``, and why.

    ``since`` is the time of the host when it was written first; 0, if that is
    not known.
    """

    host: str
    migration_uuid: str
    instance_uuid: str
    targets: tuple[Target, ...]
    kind: str = RECEIVE
    state: str = OPEN
    since: int = 0
    version: int = VERSION

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ValueError('version %r' % (self.version,))
        if self.kind not in KINDS:
            raise ValueError('kind %r' % (self.kind,))
        if self.state not in STATES:
            raise ValueError('state %r' % (self.state,))
        if type(self.since) is not int:
            raise ValueError('since %r' % (self.since,))
        if not isinstance(self.host, str) or not self.host:
            raise ValueError('host %r' % (self.host,))
        for uuid in (self.migration_uuid, self.instance_uuid):
            if not isinstance(uuid, str) or not _UUID.fullmatch(uuid):
                raise ValueError('uuid %r' % (uuid,))

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2)  # noqa: N324

    @classmethod
    def from_json(cls, text: str) -> 'Ticket':
        """Read what :meth:`to_json` wrote.

        :raises ValueError: if it is anything else
        """
        try:
            fields = json.loads(text)  # noqa: N324
            targets = tuple(Target(**each) for each in fields.pop('targets'))
            return cls(targets=targets, **fields)
        except (AttributeError, KeyError, RecursionError, TypeError) as error:
            raise ValueError(str(error)) from error


def is_uuid(text: str) -> bool:
    return _UUID.fullmatch(text) is not None


def file_name(migration_uuid: str, kind: str = RECEIVE) -> str:
    """Return the name of the file of a migration's ticket.

    :raises Invalid: if the migration is not named by a uuid
    """
    if not is_uuid(migration_uuid):
        raise Invalid('%r is no uuid' % migration_uuid)
    return '%s.%s' % (migration_uuid, kind)


def parse_file_name(name: str) -> tuple[str, str] | None:
    """Return the migration's uuid and the kind; None for other files."""
    uuid, _dot, kind = name.partition('.')
    return (uuid, kind) if kind in KINDS and is_uuid(uuid) else None


def read(folder: str, migration_uuid: str, kind: str = RECEIVE) -> Ticket:
    """Return the open ticket of a migration.

    :raises Missing: if there is none
    :raises Invalid: if its file is damaged, or another migration's
    """
    path = os.path.join(folder, file_name(migration_uuid, kind))
    try:
        with open(path, encoding='utf-8') as stored:
            ticket = Ticket.from_json(stored.read())
    except FileNotFoundError:
        raise Missing('there is no ticket %s' % path)
    except (OSError, ValueError) as error:
        raise Invalid('ticket %s can not be read: %s' % (path, error))
    if (ticket.migration_uuid, ticket.kind) != (migration_uuid, kind):
        raise Invalid('ticket %s is a "%s" of migration %s' % (
            path, ticket.kind, ticket.migration_uuid))
    return ticket
