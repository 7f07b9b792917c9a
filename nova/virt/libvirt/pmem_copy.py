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

"""Moving the contents of a server's vPMEM devices to another host.

The destination calls :func:`prepare` when it has claimed namespaces, and
:func:`finish` before the guest starts on them; :func:`settle` wipes what a
move that ended otherwise has left. The source calls :func:`copy` in between,
when the guest is off. Until the move is confirmed the source's namespaces are
only read.
"""

from collections import abc
from concurrent import futures
import contextlib
import dataclasses
import functools
import os
import threading
import time
import typing as ty

import futurist
from oslo_concurrency import lockutils
from oslo_log import log as logging
from oslo_utils import excutils
from oslo_utils import timeutils
from oslo_utils import units

from nova.compute import pmem_copy as compute_pmem_copy
from nova.compute import task_states
from nova import context as nova_context
from nova import exception
from nova.i18n import _
from nova import objects
import nova.privsep.path
from nova.virt.libvirt.pmem import namespaces as devices
from nova.virt.libvirt.pmem import pairing
from nova.virt.libvirt.pmem import tickets
from nova.virt.libvirt.pmem import transfer
from nova.virt.pmem_transfer import job as pmem_job

LOG = logging.getLogger(__name__)

is_wanted = compute_pmem_copy.is_wanted

#: A move in one of these states may still write to the destination.
UNDER_WAY = frozenset((
    'accepted', 'pre-migrating', 'migrating', 'post-migrating'))

#: A move in one of these states has given the server to the destination.
ARRIVED = frozenset(('finished', 'confirming', 'confirmed'))

#: Tickets, by migration and kind, that this process could not settle. The
#: first call of :func:`settle`, when the service starts, finds them again.
_unsettled: set[tuple[str, str]] = set()

#: Seconds that confirming a move waits for its wipe. Deleting a server
#: confirms it by a call that gives up after ``[DEFAULT]rpc_response_timeout``,
#: which is 60 seconds unless set.
WIPE_PATIENCE = 20


def _alone(migration_uuid: str):
    """One at a time: who lends, wipes or closes must not meet another.

    The claims see to it that no two moves have the same namespace.
    """
    return lockutils.lock(
        'pmem-copy-%s' % migration_uuid, lock_file_prefix='nova-')


class _Wiper:
    """Wipes in a thread, one device at a time; nobody has to wait for it."""

    def __init__(self) -> None:
        self._executor = futurist.ThreadPoolExecutor(1)
        self._lock = threading.Lock()
        self._jobs: dict[ty.Any, futures.Future] = {}

    def wipe(self, ticket: tickets.Ticket,
             job: abc.Callable[[], bool]) -> futures.Future:
        """Start a job for a ticket, unless one is under way already."""
        key = ticket.migration_uuid, ticket.kind
        with self._lock:
            known = self._jobs.get(key)
            if known is None or known.done():
                known = self._jobs[key] = self._executor.submit(job)
                known.add_done_callback(lambda __: self._forget(key))
            return known

    def _forget(self, key: ty.Any) -> None:
        with self._lock:
            if key in self._jobs and self._jobs[key].done():
                del self._jobs[key]


@functools.cache
def _wiper(host: str) -> _Wiper:
    return _Wiper()


def prepare(
    instance: 'objects.Instance', migration: 'objects.Migration',
    claimed: abc.Iterable['objects.LibvirtVPMEMDevice'],
    pairs: list[pairing.DevicePair],
    namespaces: abc.Callable[[], devices.Namespaces],
    used_nodes: abc.Callable[[], set[str]],
) -> None:
    """Make the claimed namespaces ready to be written by the source.

    Writes the ticket, then lends the device nodes to nova's user, as whom the
    source comes over ssh. A move that copies nothing is only checked.

    :param claimed: all devices that were claimed
    :param pairs: what is copied to what
    :param namespaces: returns the namespaces that this host has now
    :param used_nodes: returns the device nodes of this host's guests
    :raises ComputeResourcesUnavailable: if a claimed namespace is not as it
        was when it was claimed, or has a guest, or is not wiped yet
    """
    with _alone(migration.uuid):
        dirty = dirty_names(besides=migration.uuid).intersection(
            device.name for device in claimed)
        if dirty:
            raise exception.ComputeResourcesUnavailable(
                reason=_('vPMEM namespaces %s are not wiped yet') %
                ', '.join(sorted(dirty)))
        if pairs:
            _open(instance, migration, pairs, namespaces(), used_nodes())


def _open(
    instance: 'objects.Instance', migration: 'objects.Migration',
    pairs: list[pairing.DevicePair], namespaces: devices.Namespaces,
    used_nodes: set[str],
) -> None:
    nodes = [devices.claimed_node(target, namespaces)
             for __, target in pairs]
    used = used_nodes.intersection(nodes)
    if used:
        # The numbers of nodes change when a host boots, and what a claim
        # says of them may be older.
        raise exception.ComputeResourcesUnavailable(
            reason=_('a guest of this host is defined with %s') %
            ', '.join(sorted(used)))
    ticket = tickets.Ticket(
        host=migration.dest_compute, migration_uuid=migration.uuid,
        instance_uuid=instance.uuid, targets=tuple(
            _target(target, node, source.size)
            for (source, target), node in zip(pairs, nodes)))
    tickets.write(ticket)
    try:
        for node in nodes:
            nova.privsep.path.chown(node, uid=os.getuid(), gid=os.getgid())
    except BaseException:
        # Nothing was written yet, so there is nothing to wipe.
        devices.take_back(ticket.targets, namespaces)
        tickets.close(ticket)
        raise


def _target(device: 'objects.LibvirtVPMEMDevice', node: str,
            source_size: int) -> tickets.Target:
    try:
        owner = os.stat(node)
        uid, gid = owner.st_uid, owner.st_gid
    except FileNotFoundError:
        uid = gid = 0
    return tickets.Target(
        name=device.name, size=device.size, source_size=source_size,
        uid=uid, gid=gid)


def check_sources(pairs: list[pairing.DevicePair],
                  namespaces: devices.Namespaces) -> None:
    """Check that what is to be copied is there, while the guest still runs.

    :raises PMEMNamespaceNotFound: if not
    """
    for source, __ in pairs:
        devices.resolve(source, namespaces)


def copy(
    instance: 'objects.Instance', migration: 'objects.Migration',
    pairs: list[pairing.DevicePair], namespaces: devices.Namespaces,
    on_execute: transfer.ProcessHook,
    on_completion: transfer.ProcessHook,
) -> None:
    """Copy the devices of a guest that is off, and prove that they arrived.

    :param pairs: what is copied to what
    :param namespaces: the namespaces that this host has now
    :param on_execute: called with each process that is started
    :param on_completion: called with each process that has ended
    :raises PMEMCopyFailed: if any device was not copied as a whole
    """
    same_host = migration.source_compute == migration.dest_compute
    with _named_failure(instance, migration, pairs), \
            _Progress(instance) as progress, \
            _held(instance, migration, pairs, namespaces), \
            contextlib.ExitStack() as lent:
        totals = transfer.transfer(
            transfer.new_job(
                migration.uuid, None if same_host else migration.dest_host,
                [_sent(source, target, lent.enter_context(devices.lent(
                    devices.resolve(source, namespaces))))
                 for source, target in pairs]),
            on_execute, on_completion, progress,
            functools.partial(_is_leaving, instance))
    LOG.info('Copied %(mib)d MiB of vPMEM data to %(host)s in %(seconds).1f '
             'seconds and found it equal; %(wire)d MiB were sent, %(retries)d '
             'attempts failed.',
             {'mib': totals.bytes // units.Mi, 'host': migration.dest_compute,
              'seconds': totals.seconds, 'wire': totals.wire // units.Mi,
              'retries': totals.retries}, instance=instance)


def _sent(source: 'objects.LibvirtVPMEMDevice',
          target: 'objects.LibvirtVPMEMDevice', node: str) -> pmem_job.Device:
    return pmem_job.Device(
        name=source.name, path=node, size=source.size,
        target_name=target.name, target_size=target.size)


def _is_leaving(instance: 'objects.Instance') -> bool:
    """Whether a server still moves; deleting it ends what works for it."""
    try:
        current = objects.Instance.get_by_uuid(
            instance._context, instance.uuid)
    except exception.NotFound:
        return False
    return current.task_state == task_states.RESIZE_MIGRATING


class _Progress:
    """Shows how far a copy is: users by the server, operators by the log."""

    #: Seconds between two times that it is saved, and logged.
    SAVE, LOG = 3, 30

    def __init__(self, instance: 'objects.Instance') -> None:
        self._instance = instance
        self._watch = timeutils.StopWatch()
        self._saved = self._logged = 0.0

    def __enter__(self) -> '_Progress':
        self._watch.start()
        return self

    def __exit__(self, kind: ty.Any, error: ty.Any, trace: ty.Any) -> None:
        self._save(100 if kind is None else 0)

    def __call__(self, done: int, total: int) -> None:
        elapsed = self._watch.elapsed()
        if elapsed - self._saved >= self.SAVE:
            self._saved = elapsed
            self._save(done * 100 // total)
        if elapsed - self._logged >= self.LOG:
            self._logged = elapsed
            LOG.info('Copied %(done)d of %(total)d MiB of vPMEM data at '
                     '%(rate).1f MiB/s; about %(left)d seconds are left.',
                     {'done': done // units.Mi, 'total': total // units.Mi,
                      'rate': done / units.Mi / elapsed,
                      'left': (total - done) * elapsed / max(1, done)},
                     instance=self._instance)

    def _save(self, percent: int) -> None:
        if self._instance.progress == percent:
            return
        self._instance.progress = percent
        try:
            self._instance.save()
        except Exception:
            # It is for information only.
            LOG.debug('The progress could not be saved.', exc_info=True,
                      instance=self._instance)


@contextlib.contextmanager
def _named_failure(
    instance: 'objects.Instance', migration: 'objects.Migration',
    pairs: list[pairing.DevicePair],
) -> abc.Iterator[None]:
    try:
        yield
    except (exception.PMEMNamespaceNotFound, OSError, ValueError,
            transfer.TransferFailed) as error:
        name = getattr(error, 'device', None)
        source, target = next(
            (pair for pair in pairs if pair.source.name == name), pairs[0])
        raise exception.PMEMCopyFailed(
            instance_uuid=instance.uuid, migration_uuid=migration.uuid,
            source=source.name, target=target.name,
            host=migration.dest_compute, reason=error)


@contextlib.contextmanager
def _held(
    instance: 'objects.Instance', migration: 'objects.Migration',
    pairs: list[pairing.DevicePair], namespaces: devices.Namespaces,
) -> abc.Iterator[None]:
    """Hold the sources; if the copy fails, the server goes on with them."""
    hold(instance, migration, pairs, namespaces)
    try:
        yield
    except Exception:
        with excutils.save_and_reraise_exception():
            tickets.close(tickets.read(
                migration.uuid, tickets.HOLD))


def hold(instance: 'objects.Instance', migration: 'objects.Migration',
         pairs: list[pairing.DevicePair],
         namespaces: devices.Namespaces) -> None:
    """Keep what is copied, until it is clear that it is not needed any more.

    Nova's own claim on it ends as soon as the server is in ERROR, which is
    when this may be the only good copy. The ticket also tells whose the nodes
    were before they were lent to who reads them.

    :raises PMEMNamespaceNotFound: if one is not there
    :raises OSError: if that can't be noted down
    """
    targets = tuple(
        _target(source, devices.resolve(source, namespaces), source.size)
        for source, __ in pairs)
    ticket = tickets.Ticket(
        host=migration.source_compute, migration_uuid=migration.uuid,
        instance_uuid=instance.uuid, kind=tickets.HOLD, targets=targets)
    tickets.write(ticket)
    _end_other_holds(ticket)


def _end_other_holds(ticket: tickets.Ticket) -> None:
    """End what was held for a server that was here until a moment ago.

    The new ticket takes care of its own namespaces. What an earlier move that
    failed has left in others is older than what the server came back with.
    """
    names = {target.name for target in ticket.targets}
    for held in tickets.open_tickets(ticket.host):
        if (held.kind != tickets.HOLD or held == ticket or
                held.instance_uuid != ticket.instance_uuid):
            continue
        older = tuple(target for target in held.targets
                      if target.name not in names)
        if older:
            tickets.write(dataclasses.replace(
                held, kind=tickets.WIPE, targets=older))
        tickets.close(held)


def finish(migration: 'objects.Migration', namespaces: abc.Callable[
        [], devices.Namespaces]) -> None:
    """Let nobody write any more to what a server is about to start on.

    Until it has started, nothing but a ticket tells that there is data: if
    this host dies now, its server may be deleted before it is back.

    :param namespaces: returns the namespaces that this host has now
    :raises PMEMTicketInvalid: if the ticket can't be read
    """
    with _alone(migration.uuid):
        tickets.mend()
        try:
            ticket = tickets.read(migration.uuid)
        except exception.PMEMTicketNotFound:
            return
        nodes = namespaces()
        devices.take_back(ticket.targets, nodes)
        devices.end_writers(
            ticket.targets, nodes, tickets.path_of(ticket))
        tickets.write(dataclasses.replace(
            ticket, kind=tickets.START))
        tickets.close(ticket)


def started(instance: 'objects.Instance') -> None:
    """Note that the hypervisor knows of the guest, and so of its devices."""
    for ticket in tickets.open_tickets():
        if (ticket.kind == tickets.START and
                ticket.instance_uuid == instance.uuid):
            tickets.close(ticket)


def wipe_own(vpmems: abc.Sequence['objects.LibvirtVPMEMDevice']) -> None:
    """Zero what a server has here, which leaves this host, or is deleted.

    :raises VPMEMCleanupFailed: after the last one, for those that failed
    """
    devices.wipe_known(vpmems)
    names = {device.name for device in vpmems}
    for ticket in tickets.open_tickets():
        if (ticket.kind == tickets.START and
                names.issuperset(target.name for target in ticket.targets)):
            tickets.close(ticket)


def settle(context, host: str,
           namespaces: abc.Callable[[], devices.Namespaces],
           ) -> list[tickets.Ticket]:
    """Wipe and close the tickets whose servers are not on this host.

    What can't be wiped now keeps its ticket, is logged, and is tried again by
    the next call. Nothing is raised for it: this runs from a periodic task
    that has other work to do. Nor does it wait for long: what takes longer
    than :data:`WIPE_PATIENCE` goes on by itself.

    :param host: the name of this compute host
    :param namespaces: returns the namespaces that this host has now
    :returns: the tickets that were closed
    """
    _mend(context, host)
    settled = []
    deadline = time.monotonic() + WIPE_PATIENCE
    for ticket in tickets.open_tickets(host):
        try:
            leftovers = _leftovers(context, ticket)
        except Exception:
            LOG.exception('What became of migration %(migration)s is not '
                          'known now; its namespaces %(names)s stay as they '
                          'are.', {'migration': ticket.migration_uuid,
                                   'names': _names(ticket.targets)})
            continue
        if leftovers is None:
            continue
        job = functools.partial(_close, ticket, leftovers, namespaces)
        closing = _wiper(host).wipe(ticket, job)
        try:
            closed = closing.result(max(0, deadline - time.monotonic()))
        except futures.TimeoutError:
            LOG.info('Wiping %(names)s goes on in the background.',
                     {'names': _names(leftovers)})
            continue
        if closed:
            settled.append(ticket)
    return settled


def _mend(context, host: str) -> None:
    tickets.mend()
    for migration_uuid, kind in tickets.damaged():
        ticket = _from_database(context, host, migration_uuid, kind)
        if ticket is None:
            LOG.error('The vPMEM ticket of migration %(migration)s (%(kind)s) '
                      'is damaged, and the database does not tell which '
                      'namespaces it guards. None of this host is given to '
                      'a server before you have found out, wiped those that '
                      'no server uses ("daxio -z"), and removed the file.',
                      {'migration': migration_uuid, 'kind': kind})
        elif ticket.host == host:
            LOG.warning('Writing the damaged vPMEM ticket of migration '
                        '%(migration)s (%(kind)s) again.',
                        {'migration': migration_uuid, 'kind': kind})
            tickets.write(ticket)


def _from_database(context, host: str, migration_uuid: str,
                   kind: str) -> tickets.Ticket | None:
    """Return what a ticket must have said, as far as that is known."""
    migration = _find(objects.Migration, context, migration_uuid)
    if migration is None:
        return None
    instance = _find(objects.Instance, context.elevated(read_deleted='yes'),
                     migration.instance_uuid)
    move = instance and instance.migration_context
    if move is None or move.migration_id != migration.id:
        return None
    receives = kind in (tickets.RECEIVE, tickets.START)
    devices = [resource.metadata for resource in (
        move.new_resources if receives else move.old_resources) or []
        if 'metadata' in resource and
        isinstance(resource.metadata, objects.LibvirtVPMEMDevice)]
    # Whose the nodes were is not known; they are root's where no guest is.
    return tickets.Ticket(
        host=migration.dest_compute if receives else migration.source_compute,
        migration_uuid=migration_uuid, instance_uuid=instance.uuid, kind=kind,
        targets=tuple(tickets.Target(
            name=device.name, size=device.size, source_size=device.size,
            uid=0, gid=0) for device in devices))


def _leftovers(
    context, ticket: tickets.Ticket,
) -> list[tickets.Target] | None:
    """Return what to wipe before a ticket is closed; None if it stays."""
    migration = _find(objects.Migration, context, ticket.migration_uuid)
    instance = _find(objects.Instance, context, ticket.instance_uuid)
    status = _status(ticket, migration, instance)
    if status in UNDER_WAY:
        return None
    if (ticket.kind == tickets.WIPE and instance is not None and
            migration is not None and migration.status == 'confirming'):
        # Confirming it is taken up again, and that wipes them. If they were
        # released before, it would wipe what is another server's by then.
        return None
    foreign = [target for target in ticket.targets
               if not _belongs(target, ticket.host, migration, instance)]
    if ticket.kind == tickets.START and not (
            status in ARRIVED or status == 'deleted' or
            foreign and instance.host == migration.source_compute):
        # It has not started yet, nor gone back.
        return None
    if ticket.kind == tickets.HOLD and foreign and status != 'deleted':
        # This may be the only good copy. Confirming and the next move end
        # this ticket; so does reverting, which gives the namespaces back.
        if status in ('error', 'failed'):
            LOG.warning('Migration %(migration)s failed after server '
                        '%(instance)s had left. Its namespaces %(names)s '
                        'stay as they are, and out of use, until it has '
                        'them again, or is deleted.',
                        {'migration': ticket.migration_uuid,
                         'instance': ticket.instance_uuid,
                         'names': _names(foreign)})
        return None
    leftovers = [] if status in ARRIVED else foreign
    if leftovers:
        LOG.info('Migration %(migration)s of server %(instance)s: %(status)s. '
                 'Wiping the namespaces %(names)s.',
                 {'migration': ticket.migration_uuid, 'status': status,
                  'instance': ticket.instance_uuid,
                  'names': _names(leftovers)})
    return leftovers


def _close(ticket: tickets.Ticket, leftovers: list[tickets.Target],
           namespaces: abc.Callable[[], devices.Namespaces]) -> bool:
    """Wipe what is left of a move, then close its ticket.

    :returns: whether it is closed; why not is logged
    """
    try:
        with _alone(ticket.migration_uuid):
            tickets.read(ticket.migration_uuid, ticket.kind)
            nodes = namespaces()
            # First nobody new can open a node, then who has it open ends,
            # then it is wiped. A namespace that is the server's own may have
            # a guest on it.
            try:
                devices.take_back(ticket.targets, nodes)
            finally:
                # One that is missing does not save the others.
                devices.end_writers(
                    leftovers, nodes, tickets.path_of(ticket))
                devices.wipe_targets(leftovers, nodes)
            tickets.close(ticket)
    except exception.PMEMTicketNotFound:
        # Another thread was faster.
        return False
    except Exception:
        _report(ticket)
        return False
    _unsettled.discard((ticket.migration_uuid, ticket.kind))
    return True


def _report(ticket: tickets.Ticket) -> None:
    _unsettled.add((ticket.migration_uuid, ticket.kind))
    LOG.exception('The namespaces %(names)s hold data of server %(instance)s '
                  '(migration %(migration)s) and could not be wiped. They '
                  'stay out of use and are tried again; check that they '
                  'exist ("ndctl list -X") and are healthy.',
                  {'names': _names(ticket.targets),
                   'instance': ticket.instance_uuid,
                   'migration': ticket.migration_uuid})


def _names(targets: abc.Iterable[tickets.Target]) -> str:
    return ', '.join(target.name for target in targets)


def _status(ticket: tickets.Ticket,
            migration: 'objects.Migration | None',
            instance: 'objects.Instance | None') -> str:
    if ticket.kind == tickets.WIPE:
        return 'left'
    # The record of a migration outlives its server.
    if migration is None or instance is None:
        return 'deleted'
    return migration.status


def _find(kind, context, uuid: str):
    try:
        return kind.get_by_uuid(context.elevated(), uuid)
    except exception.NotFound:
        return None


def _belongs(target: tickets.Target, host: str,
             migration: 'objects.Migration | None',
             instance: 'objects.Instance | None') -> bool:
    """Whether a namespace is its server's own.

    A move can fail after the server was handed over to the destination, and
    before it took possession of what was claimed for it. Then its data is
    here, and the source may already serve others.
    """
    if instance is None or instance.host != host:
        return False
    resources = list(instance.resources or [])
    move = instance.migration_context
    if (migration is not None and migration.source_compute != host and
            move is not None and move.migration_id == migration.id):
        resources.extend(move.new_resources or [])
    return target.name in {resource.identifier for resource in resources}


def wipe_old(host: str, instance: 'objects.Instance',
             migration: 'objects.Migration',
             vpmems: abc.Sequence['objects.LibvirtVPMEMDevice'],
             namespaces: abc.Callable[[], devices.Namespaces]) -> None:
    """Wipe what a server had on a host that it has left for good.

    The server runs elsewhere and has its data. So if a device can't be wiped
    now, that is no reason to fail: a ticket keeps it out of use, and
    :func:`settle` tries again. Nor is it one to keep the caller waiting, who
    may have to answer a user: what takes longer goes on by itself.
    """
    ticket = tickets.Ticket(
        host=host, migration_uuid=migration.uuid, instance_uuid=instance.uuid,
        kind=tickets.WIPE, targets=tuple(
            _target(device, device.devpath, device.size)
            for device in vpmems))
    tickets.write(ticket)
    # The new one has all of its namespaces, so it goes even if it is damaged.
    tickets.close(dataclasses.replace(ticket, kind=tickets.HOLD))
    _end_other_holds(ticket)
    wiping = _wiper(host).wipe(ticket, functools.partial(
        _close, ticket, list(ticket.targets), namespaces))
    try:
        wiping.result(WIPE_PATIENCE)
    except futures.TimeoutError:
        LOG.info('Wiping the vPMEM data that the server had here goes on in '
                 'the background.', instance=instance)


def dirty_names(besides: str | None = None,
                known: abc.Iterable[str] = ()) -> set[str]:
    """Return the names of all namespaces that have an open ticket.

    :param besides: the uuid of a migration whose ticket does not count
    :param known: the names of all namespaces of this host: as long as a
        ticket can't be read, any of them may be meant
    """
    dirty = {target.name for ticket in tickets.open_tickets()
             if ticket.migration_uuid != besides for target in ticket.targets}
    if tickets.damaged():
        dirty.update(known)
    return dirty


def names_of_server(instance_uuid: str, node: str) -> set[str]:
    """Return the names of the namespaces of a server, even a deleted one.

    :param node: none, if the server is not on this node
    """
    try:
        instance = objects.Instance.get_by_uuid(
            nova_context.get_admin_context(read_deleted='yes'),
            instance_uuid, expected_attrs=['resources'])
    except exception.NotFound:
        return set()
    if instance.node != node:
        return set()
    return {resource.identifier for resource in instance.resources or []}


def is_elsewhere(instance: 'objects.Instance', node: str) -> bool:
    """Whether the namespaces of a server of this node are another node's.

    So it is when this node has let go of a server that goes back to its
    source, and the source is not there yet to take it. The names of both may
    be the same.
    """
    if not compute_pmem_copy.has_left(instance):
        return False
    migration = objects.Migration.get_by_id(
        nova_context.get_admin_context(read_deleted='yes'),
        instance.migration_context.migration_id)
    return migration.source_node != node


def unwiped_names() -> set[str]:
    """Return the names of namespaces that nobody has and nobody can get.

    Not those that receive a copy: they are allocated to the server that is to
    have them.
    """
    return {target.name for ticket in tickets.open_tickets()
            if ticket.kind == tickets.WIPE or
            (ticket.migration_uuid, ticket.kind) in _unsettled
            for target in ticket.targets}


def refuse_dirty(instance_uuid: str, names: abc.Iterable[str]) -> None:
    """Keep a guest off namespaces that hold another server's data.

    :raises PMEMNamespaceDirty: if a ticket is open for one of them
    """
    names = set(names)
    if not names:
        return
    for ticket in tickets.open_tickets():
        dirty = names.intersection(each.name for each in ticket.targets)
        if dirty and ticket.instance_uuid != instance_uuid:
            raise exception.PMEMNamespaceDirty(
                names=', '.join(sorted(dirty)),
                migration_uuid=ticket.migration_uuid)
