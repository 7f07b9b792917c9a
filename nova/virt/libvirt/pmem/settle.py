# SPDX-License-Identifier: Apache-2.0

"""Bringing the tickets of this host to an end.

A migration's status decides, and not who fails to answer. What a ticket says
is wiped first, and then the ticket is closed; what can't be wiped now keeps
its ticket, is logged, and is tried again by the next call.
"""

from collections import abc
from concurrent import futures
import contextlib
import dataclasses
import functools

from oslo_concurrency import lockutils
from oslo_log import log as logging
from oslo_utils import excutils

from nova.compute import pmem_copy as compute_pmem_copy
from nova import exception
from nova import objects
from nova.virt.libvirt.pmem import namespaces as pmem_namespaces
from nova.virt.libvirt.pmem import owners
from nova.virt.libvirt.pmem import receivers
from nova.virt.libvirt.pmem import tickets

LOG = logging.getLogger(__name__)

#: A move in one of these states has given the server to the destination.
FINISHED = frozenset(('finished', 'confirming', 'confirmed'))


def alone(migration_uuid: str, kind: str = tickets.RECEIVE):
    """One at a time: who lends, wipes or closes must not meet another.

    The claims see to it that no two moves have the same namespace.
    """
    return lockutils.lock('pmem-copy-%s-%s' % (migration_uuid, kind),
                          lock_file_prefix='nova-')


def settle(
    context, here: owners.Owners,
    give_back: abc.Callable[[tickets.Ticket, 'objects.Instance'], bool],
    closed: abc.Callable[[tickets.Ticket], None],
) -> list[futures.Future]:
    """Wipe and close the tickets whose servers are not on this host.

    :param give_back: called with a ticket whose server is back, and the
        server; says whether this has what its move had allocated for it
    :param closed: called with each ticket that was closed; after a wipe, by
        whoever has wiped
    :returns: the wipes that are under way now, which nobody has to wait for
    """
    _mend(context, here)
    for ticket in tickets.open_tickets(here.host):
        try:
            _settle(context, ticket, here, give_back, closed)
        except Exception:
            LOG.exception('What is to become of the namespaces %(names)s of '
                          'migration %(migration)s could not be found out or '
                          'begun now; they stay out of use, and this host '
                          'tries again each minute.',
                          {'migration': ticket.migration_uuid,
                           'names': _names(ticket.targets)})
    return here.wipes.under_way()


def _settle(context, ticket: tickets.Ticket, here: owners.Owners,
            give_back: abc.Callable[[tickets.Ticket, 'objects.Instance'],
                                    bool],
            closed: abc.Callable[[tickets.Ticket], None]) -> None:
    instance = _find(objects.Instance, context, ticket.instance_uuid)
    left = leftovers(
        ticket, _find(objects.Migration, context, ticket.migration_uuid),
        instance, here.provider)
    if left is None:
        _go_on(ticket, here)
    elif left:
        wipe_soon(ticket, left, here, closed)
    elif ticket.kind != tickets.HOLD or give_back(ticket, instance):
        if close(ticket, left, here):
            closed(ticket)


def wipe_soon(ticket: tickets.Ticket, left: abc.Sequence[tickets.Target],
              here: owners.Owners,
              closed: abc.Callable[[tickets.Ticket], None] | None = None,
              ) -> futures.Future:
    """Have :func:`close` called in the background."""
    return here.wipes.start(
        ticket, functools.partial(close, ticket, left, here), closed)


def _go_on(ticket: tickets.Ticket, here: owners.Owners) -> None:
    """Have somebody receive again what is still being copied.

    Its receiver has ended with the nova-compute that started it; meanwhile
    the source goes on trying.
    """
    if (ticket.kind, ticket.state) != (tickets.RECEIVE, tickets.OPEN) or (
            receivers.is_running(ticket)):
        return
    try:
        with alone(ticket.migration_uuid):
            ticket = tickets.read(ticket.migration_uuid)
            if ticket.state == tickets.OPEN and (
                    not receivers.is_running(ticket)):
                namespaces = pmem_namespaces.list_namespaces()
                pmem_namespaces.check_same(ticket.targets, namespaces)
                # After a boot the same one may have another number.
                ticket = dataclasses.replace(ticket, targets=tuple(
                    dataclasses.replace(each, device=pmem_namespaces.identity(
                        pmem_namespaces.resolve(each, namespaces)))
                    for each in ticket.targets))
                tickets.write(ticket)
                receivers.start(ticket, namespaces, here.used_devices(
                    besides=ticket.instance_uuid))
    except exception.PMEMTicketNotFound:
        pass
    except Exception:
        LOG.exception('The copy of vPMEM data to %(names)s (migration '
                      '%(migration)s) can not go on here now; this host tries '
                      'again each minute.',
                      {'names': _names(ticket.targets),
                       'migration': ticket.migration_uuid})


def leftovers(
    ticket: tickets.Ticket, migration: 'objects.Migration | None',
    instance: 'objects.Instance | None', provider: str,
) -> list[tickets.Target] | None:
    """Return what to wipe before a ticket is closed; None if it stays."""
    if migration is None or instance is None:
        # The record of a migration outlives its server.
        return list(ticket.targets)
    status = migration.status
    has_moved_on = compute_pmem_copy.has_moved_on(instance, migration)
    if ticket.state == tickets.OVER:
        # Confirming it is taken up again, and that wipes them. If they were
        # released before, it would wipe what is another server's by then.
        return (None if status == 'confirming' and not has_moved_on
                else list(ticket.targets))
    if status in compute_pmem_copy.LEAVING and not has_moved_on:
        return None
    foreign = [target for target in ticket.targets if not _belongs(
        target, ticket.host, migration, instance, provider)]
    if ticket.kind == tickets.HOLD:
        return _end_of_hold(ticket, foreign, status)
    if status in FINISHED:
        return []
    if (ticket.state == tickets.ARRIVED and not has_moved_on and not (
            foreign and instance.host == migration.source_compute)):
        # It has not started yet, nor gone back.
        return None
    return foreign


def _end_of_hold(ticket: tickets.Ticket, foreign: list[tickets.Target],
                 status: str) -> list[tickets.Target] | None:
    if not foreign:
        return []
    # This may be the only good copy. Confirming and the next move end this
    # ticket; so does reverting, which gives the namespaces back.
    if status in ('error', 'failed'):
        LOG.warning('Migration %(migration)s failed after server %(instance)s '
                    'had left. Its namespaces %(names)s may hold the only '
                    'good copy: they stay as they are, and out of use, until '
                    'the server has them again, or is deleted.',
                    {'migration': ticket.migration_uuid,
                     'instance': ticket.instance_uuid,
                     'names': _names(foreign)})
    return None


def _belongs(target: tickets.Target, host: str,
             migration: 'objects.Migration', instance: 'objects.Instance',
             provider: str) -> bool:
    """Whether a namespace is its server's own.

    A move can fail after the server was handed over to the destination, and
    before it took possession of what was claimed for it. Then its data is
    here, and the source may already serve others.
    """
    if instance.host != host:
        return False
    resources = list(instance.resources or [])
    if (migration.source_compute != host and
            compute_pmem_copy.is_move_of(instance, migration)):
        resources.extend(instance.migration_context.new_resources or [])
    return (provider, target.name) in {
        (resource.provider_uuid, resource.identifier)
        for resource in resources}


def close(ticket: tickets.Ticket, left: abc.Sequence[tickets.Target],
          here: owners.Owners) -> bool:
    """Wipe what is left of a move, then close its ticket.

    First nobody new can open a node, then who has it open ends, then it is
    wiped. A namespace that is the server's own may have a guest on it.

    :returns: whether it is closed; why not is logged
    """
    try:
        with alone(ticket.migration_uuid, ticket.kind):
            if tickets.read(ticket.migration_uuid, ticket.kind) != ticket:
                # It says something else since it was decided what is left.
                return False
            if ticket.kind == tickets.RECEIVE:
                receivers.end(ticket)
            nodes = pmem_namespaces.list_namespaces()
            try:
                pmem_namespaces.take_back(ticket.targets, nodes)
            finally:
                # One that is missing does not save the others.
                if left:
                    ticket = _over(ticket, left)
                    LOG.info('Wiping %(names)s of server %(instance)s.', {
                        'names': _names(left),
                        'instance': ticket.instance_uuid})
                    pmem_namespaces.wipe(left, nodes, here.used_devices(
                        besides=ticket.instance_uuid))
            tickets.close(ticket)
        return True
    except exception.PMEMTicketNotFound:
        # Another thread was faster; its wipe is to be followed up as well.
        return True
    except Exception:
        _say_not_closed(ticket, left)
        return False


def _say_not_closed(ticket: tickets.Ticket,
                    left: abc.Sequence[tickets.Target]) -> None:
    """Log what has just failed."""
    about = {'names': _names(left or ticket.targets),
             'instance': ticket.instance_uuid,
             'migration': ticket.migration_uuid}
    if left:
        LOG.exception('The namespaces %(names)s hold data of server '
                      '%(instance)s (migration %(migration)s) and could not '
                      'be wiped. No server gets them, and this host tries '
                      'again each minute. Check that they exist ("ndctl list '
                      '-X") and are healthy; do not remove the ticket.', about)
    else:
        LOG.exception('Migration %(migration)s is over, and server '
                      '%(instance)s has its namespaces %(names)s here, which '
                      'are not to be wiped. The ticket could not be closed; '
                      'this host tries again each minute.', about)


def _over(ticket: tickets.Ticket,
          left: abc.Sequence[tickets.Target]) -> tickets.Ticket:
    """Store that it is no question any more whose namespaces these are."""
    over = dataclasses.replace(
        ticket, state=tickets.OVER, targets=tuple(left))
    if over != ticket:
        try:
            tickets.write(over)
        except OSError:
            LOG.warning('A ticket that is over could not be stored as such; '
                        'its namespaces are wiped all the same.',
                        exc_info=True)
            return ticket
    return over


def _names(targets: abc.Iterable[tickets.Target]) -> str:
    return ', '.join(target.name for target in targets)


def _find(kind, context, uuid: str):
    try:
        return kind.get_by_uuid(context.elevated(), uuid)
    except exception.NotFound:
        return None


# What a server leaves behind

@contextlib.contextmanager
def held(
    host: str, instance: 'objects.Instance', migration: 'objects.Migration',
    sources: abc.Sequence['objects.LibvirtVPMEMDevice'],
) -> abc.Iterator[None]:
    """Keep what is copied, until it is clear that it is not needed.

    Nova's own claim on it ends as soon as the server is in ERROR, which is
    when this may be the only good copy. The ticket also tells whose the nodes
    were before they were lent to who reads them.
    """
    namespaces = pmem_namespaces.list_namespaces()
    ticket = tickets.Ticket(
        host=host, migration_uuid=migration.uuid,
        instance_uuid=instance.uuid, kind=tickets.HOLD, targets=tuple(
            pmem_namespaces.target(
                source, pmem_namespaces.resolve(source, namespaces),
                source.size) for source in sources))
    tickets.write(ticket)
    end_other_holds(ticket)
    try:
        yield
    except Exception:
        with excutils.save_and_reraise_exception():
            tickets.close(ticket)


def end_other_holds(ticket: tickets.Ticket) -> None:
    """End what was held for a server that was here until a moment ago.

    What an earlier move that failed has left in other namespaces is older than
    what the server came back with.
    """
    names = {target.name for target in ticket.targets}
    for other in tickets.open_tickets(ticket.host):
        if (other.kind != tickets.HOLD or
                other.migration_uuid == ticket.migration_uuid or
                other.instance_uuid != ticket.instance_uuid):
            continue
        older = tuple(target for target in other.targets
                      if target.name not in names)
        if older:
            tickets.write(dataclasses.replace(
                other, state=tickets.OVER, targets=older))
        else:
            tickets.close(other)


# Damaged tickets

def _mend(context, here: owners.Owners) -> None:
    tickets.mend()
    for migration_uuid, kind in tickets.damaged():
        ticket = _from_database(context, here, migration_uuid, kind)
        if ticket is None:
            LOG.error('The vPMEM ticket of migration %(migration)s (%(kind)s) '
                      'is damaged, and the database does not tell which '
                      'namespaces it guards. None of this host is given to '
                      'a server before you have found out, wiped those that '
                      'no server uses ("daxio -z"), and removed the file.',
                      {'migration': migration_uuid, 'kind': kind})
        elif ticket.host == here.host:
            LOG.warning('Writing the damaged vPMEM ticket of migration '
                        '%(migration)s (%(kind)s) again.',
                        {'migration': migration_uuid, 'kind': kind})
            tickets.write(ticket)


def _from_database(context, here: owners.Owners, migration_uuid: str,
                   kind: str) -> tickets.Ticket | None:
    """Return what a ticket must have said, as far as that is known."""
    migration = _find(objects.Migration, context, migration_uuid)
    if migration is None:
        return None
    instance = _find(objects.Instance, context.elevated(read_deleted='yes'),
                     migration.instance_uuid)
    if instance is None or (
            not compute_pmem_copy.is_move_of(instance, migration)):
        return None
    receives = kind == tickets.RECEIVE
    # In the order of a copy that goes on.
    sizes = {target.name: source.size for source, target in (
        here.pairs(instance) if receives and
        migration.status in compute_pmem_copy.LEAVING else ())}
    move = instance.migration_context
    devices = {resource.identifier: resource.metadata for resource in (
        move.new_resources if receives else move.old_resources) or []
        if 'metadata' in resource and
        isinstance(resource.metadata, objects.LibvirtVPMEMDevice)}
    # Whose the nodes were is not known; they are root's where no guest is.
    return tickets.Ticket(
        host=migration.dest_compute if receives else migration.source_compute,
        migration_uuid=migration_uuid, instance_uuid=instance.uuid, kind=kind,
        targets=tuple(tickets.Target(
            name=name, size=devices[name].size,
            source_size=sizes.get(name, devices[name].size), uid=0, gid=0)
            for name in dict.fromkeys([*sizes, *devices])))
