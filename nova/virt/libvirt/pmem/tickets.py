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
import os
import tempfile
import threading
import time

from oslo_log import log as logging

import nova.conf
from nova import exception
from nova.virt.pmem_transfer import ticket as pmem_ticket
from nova.virt.pmem_transfer import unfinished

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

RECEIVE, HOLD = KINDS = pmem_ticket.KINDS
OPEN, ARRIVED, OVER = pmem_ticket.STATES
Target = pmem_ticket.Target
Ticket = pmem_ticket.Ticket

#: What this process has written and not closed, by path. What happens to a
#: file while nova-compute runs is mended from here.
_written: dict[str, Ticket] = {}

#: Held while a file and what is known of it change together.
_changing = threading.RLock()


def _directory() -> str:
    return os.path.join(CONF.state_path, pmem_ticket.FOLDER)


def _path(migration_uuid: str, kind: str = RECEIVE) -> str:
    try:
        return os.path.join(
            _directory(), pmem_ticket.file_name(migration_uuid, kind))
    except pmem_ticket.Invalid as error:
        raise exception.PMEMTicketInvalid(reason=error)


def path_of(ticket: Ticket) -> str:
    return _path(ticket.migration_uuid, ticket.kind)


def write(ticket: Ticket) -> None:
    """Store a ticket so that it is there after a loss of power.

    :raises OSError: if it can't be stored; then there is no ticket
    """
    if not ticket.since:
        ticket = dataclasses.replace(ticket, since=int(time.time()))
    with _changing:
        _store(ticket)
        _written[path_of(ticket)] = ticket


def _store(ticket: Ticket) -> None:
    os.makedirs(_directory(), mode=0o700, exist_ok=True)
    with tempfile.NamedTemporaryFile(
            'w', dir=_directory(), prefix='.', delete=False) as new:
        try:
            new.write(ticket.to_json())
            new.flush()
            os.fsync(new.fileno())
            os.rename(new.name, path_of(ticket))
        except BaseException:
            os.unlink(new.name)
            raise
    _sync_directory()


def read(migration_uuid: str, kind: str = RECEIVE) -> Ticket:
    """Return the open ticket of a migration.

    :raises PMEMTicketNotFound: if there is none
    :raises PMEMTicketInvalid: if its file is damaged, or another migration's
    """
    try:
        return pmem_ticket.read(_directory(), migration_uuid, kind)
    except pmem_ticket.Missing:
        raise exception.PMEMTicketNotFound(migration_uuid=migration_uuid)
    except pmem_ticket.Invalid as error:
        raise exception.PMEMTicketInvalid(reason=error)


def is_open(migration_uuid: str, kind: str) -> bool:
    return os.path.exists(_path(migration_uuid, kind))


def close(ticket: Ticket) -> None:
    """Forget a ticket for good. A ticket that is closed already is fine."""
    with _changing:
        _written.pop(path_of(ticket), None)
        for path in path_of(ticket) + unfinished.SUFFIX, path_of(ticket):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
                _sync_directory()


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
            if os.path.dirname(path) == _directory() and not (
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
        names = sorted(os.listdir(_directory()))
    except FileNotFoundError:
        return []
    parsed = [pmem_ticket.parse_file_name(name) for name in names]
    return [name for name in parsed if name is not None]


def _sync_directory() -> None:
    fd = os.open(_directory(), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
