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
import contextlib
import os
import select
import signal

from oslo_log import log as logging
from oslo_utils import timeutils
from oslo_utils import units

from nova.compute import pmem_copy as compute_pmem_copy
from nova import exception
from nova.i18n import _
from nova import objects
import nova.privsep.libvirt
import nova.privsep.path
from nova.virt.libvirt import pmem_layout
from nova.virt.libvirt import pmem_ticket
from nova.virt.libvirt import pmem_transfer

LOG = logging.getLogger(__name__)

is_wanted = compute_pmem_copy.is_wanted

#: Device nodes of this host's namespaces by name, as of now.
Namespaces = abc.Mapping[str, 'objects.LibvirtVPMEMDevice']

#: A move in one of these states may still write to the destination.
UNDER_WAY = frozenset((
    'accepted', 'pre-migrating', 'migrating', 'post-migrating'))

#: A move in one of these states has given the server to the destination.
ARRIVED = frozenset(('finished', 'confirming', 'confirmed'))

#: Seconds to wait for a process that was killed to let go of a device.
KILL_TIMEOUT = 30


def prepare(
    instance: 'objects.Instance', migration: 'objects.Migration',
    pairs: list[pmem_layout.DevicePair], namespaces: Namespaces,
) -> None:
    """Make the claimed namespaces ready to be written by the source.

    Writes the ticket, then lends the device nodes to nova's user, as whom the
    source comes over ssh.

    :param pairs: what is copied to what
    :param namespaces: the namespaces that this host has now
    :raises ComputeResourcesUnavailable: if a claimed namespace is not as it
        was when it was claimed
    """
    if not pairs:
        return
    nodes = [_node(target, namespaces) for __, target in pairs]
    targets = []
    for (source, target), node in zip(pairs, nodes):
        owner = os.stat(node)
        targets.append(pmem_ticket.Target(
            name=target.name, size=target.size, source_size=source.size,
            uid=owner.st_uid, gid=owner.st_gid))
    ticket = pmem_ticket.Ticket(
        host=migration.dest_compute, migration_uuid=migration.uuid,
        instance_uuid=instance.uuid, targets=tuple(targets))
    pmem_ticket.write(ticket)
    try:
        for node in nodes:
            nova.privsep.path.chown(node, uid=os.getuid(), gid=os.getgid())
    except BaseException:
        # Nothing was written yet, so there is nothing to wipe.
        _take_back(ticket, namespaces)
        pmem_ticket.close(ticket)
        raise


def copy(
    instance: 'objects.Instance', migration: 'objects.Migration',
    pairs: list[pmem_layout.DevicePair], namespaces: Namespaces,
    on_execute: pmem_transfer.ProcessHook,
    on_completion: pmem_transfer.ProcessHook,
) -> None:
    """Copy the devices of a guest that is off, and prove that they arrived.

    :param pairs: what is copied to what
    :param namespaces: the namespaces that this host has now
    :param on_execute: called with each process that is started
    :param on_completion: called with each process that has ended
    :raises PMEMCopyFailed: if any device was not copied as a whole
    """
    same_host = migration.source_compute == migration.dest_compute
    shell = pmem_transfer.Shell(None if same_host else migration.dest_host)
    transfer = pmem_transfer.Transfer(shell, on_execute, on_completion)
    for source, target in pairs:
        watch = timeutils.StopWatch()
        try:
            with watch, _lent(_node(source, namespaces)) as node:
                transfer.copy(node, target.devpath, pmem_layout.sections(
                    source.size, target.size))
        except (exception.ComputeResourcesUnavailable, OSError,
                pmem_layout.DevicesDoNotFit,
                pmem_transfer.TransferFailed) as error:
            raise exception.PMEMCopyFailed(
                instance_uuid=instance.uuid, migration_uuid=migration.uuid,
                source=source.name, target=target.name,
                host=migration.dest_compute, reason=error)
        LOG.info('Copied %(mib)d MiB of vPMEM namespace %(source)s to '
                 '%(target)s on %(host)s in %(seconds).1f seconds and found '
                 'them equal.',
                 {'mib': source.size // units.Mi, 'source': source.name,
                  'target': target.name, 'host': migration.dest_compute,
                  'seconds': watch.elapsed()}, instance=instance)


def finish(migration: 'objects.Migration', namespaces: abc.Callable[
        [], Namespaces]) -> None:
    """Close the ticket of a move whose server is about to start here.

    :param namespaces: returns the namespaces that this host has now
    :raises PMEMTicketInvalid: if the ticket can't be read
    """
    try:
        ticket = pmem_ticket.read(migration.uuid)
    except exception.PMEMTicketNotFound:
        return
    nodes = namespaces()
    _end_writers(ticket, nodes)
    _take_back(ticket, nodes)
    pmem_ticket.close(ticket)


def settle(context, host: str,
           namespaces: abc.Callable[[], Namespaces]) -> set[str]:
    """Wipe and close the tickets of moves that did not end on this host.

    What can't be wiped now keeps its ticket, is logged, and is tried again by
    the next call. Nothing is raised for it: this runs from a periodic task
    that has other work to do.

    :param host: the name of this compute host
    :param namespaces: returns the namespaces that this host has now
    :returns: the uuids of the servers whose tickets were closed
    """
    settled = set()
    for ticket in pmem_ticket.open_tickets(host):
        try:
            if _settle(context, ticket, namespaces):
                settled.add(ticket.instance_uuid)
        except Exception:
            LOG.exception(
                'The namespaces %(names)s received data of server '
                '%(instance)s (migration %(migration)s) and could not be '
                'wiped. They stay out of use and are tried again; check '
                'that they exist ("ndctl list -X") and are healthy.',
                {'names': ', '.join(each.name for each in ticket.targets),
                 'instance': ticket.instance_uuid,
                 'migration': ticket.migration_uuid})
    return settled


def _settle(context, ticket: pmem_ticket.Ticket,
            namespaces: abc.Callable[[], Namespaces]) -> bool:
    migration = _find(objects.Migration, context, ticket.migration_uuid)
    status = migration.status if migration else 'deleted'
    if status in UNDER_WAY:
        return False
    nodes = namespaces()
    _end_writers(ticket, nodes)
    if status not in ARRIVED:
        instance = _find(objects.Instance, context, ticket.instance_uuid)
        leftovers = [target for target in ticket.targets
                     if not _belongs(target, ticket.host, migration, instance)]
        LOG.info('Migration %(migration)s of server %(instance)s ended as '
                 '"%(status)s"; wiping the namespaces that it wrote to: '
                 '%(names)s.',
                 {'migration': ticket.migration_uuid, 'status': status,
                  'instance': ticket.instance_uuid,
                  'names': ', '.join(each.name for each in leftovers)})
        wipe([_resolve(target, nodes) for target in leftovers])
    _take_back(ticket, nodes)
    pmem_ticket.close(ticket)
    return True


def _find(kind, context, uuid: str):
    try:
        return kind.get_by_uuid(context.elevated(), uuid)
    except exception.NotFound:
        return None


def _belongs(target: pmem_ticket.Target, host: str,
             migration: 'objects.Migration | None',
             instance: 'objects.Instance | None') -> bool:
    """Whether a namespace has become its server's own.

    A move can fail after the server was handed over to the destination. Then
    its data is here, and the source may already serve others.
    """
    if instance is None or instance.host != host:
        return False
    if migration is not None and migration.source_compute != host:
        return True
    return target.name in {
        resource.identifier for resource in instance.resources or []}


def wipe(nodes: abc.Iterable[str]) -> None:
    """Zero devices; all of them, even if some fail.

    :raises VPMEMCleanupFailed: after the last one, for those that failed
    """
    failed = {}
    for node in nodes:
        try:
            nova.privsep.libvirt.cleanup_vpmem(node)
        except Exception as error:
            failed[node] = error
    if failed:
        raise exception.VPMEMCleanupFailed(
            dev=', '.join(failed),
            error='; '.join(str(error) for error in failed.values()))


def refuse_dirty(instance_uuid: str, names: abc.Iterable[str]) -> None:
    """Keep a guest off namespaces that hold another server's data.

    :raises PMEMNamespaceDirty: if a ticket is open for one of them
    """
    names = set(names)
    if not names:
        return
    for ticket in pmem_ticket.open_tickets():
        dirty = names.intersection(each.name for each in ticket.targets)
        if dirty and ticket.instance_uuid != instance_uuid:
            raise exception.PMEMNamespaceDirty(
                names=', '.join(sorted(dirty)),
                migration_uuid=ticket.migration_uuid)


def _node(device: 'objects.LibvirtVPMEMDevice',
          namespaces: Namespaces) -> str:
    """Return the path of a device, if it still is what Nova knows it as.

    :raises ComputeResourcesUnavailable: if not
    """
    found = namespaces.get(device.name)
    known = (device.devpath, device.size)
    if found is None or (found.devpath, found.size) != known:
        raise exception.ComputeResourcesUnavailable(
            reason=_('vPMEM namespace %(name)s was %(known)s and is '
                     '%(found)s; restart nova-compute on its host') %
            {'name': device.name, 'known': _describe(device),
             'found': _describe(found)})
    return found.devpath


def _describe(device: 'objects.LibvirtVPMEMDevice | None') -> str:
    if device is None:
        return _('missing')
    return _('%(path)s of %(size)d bytes') % {
        'path': device.devpath, 'size': device.size}


def _resolve(target: pmem_ticket.Target, namespaces: Namespaces) -> str:
    """Return the path of a ticket's namespace.

    :raises PMEMNamespaceNotFound: if there is no such namespace, or it is of
        another size and so another one that got its name
    """
    found = namespaces.get(target.name)
    if found is None or found.size != target.size:
        raise exception.PMEMNamespaceNotFound(
            name=target.name, size=target.size, found=_describe(found))
    return found.devpath


@contextlib.contextmanager
def _lent(node: str) -> abc.Iterator[str]:
    """Lend a device node to nova's user, and take it back."""
    owner = os.stat(node)
    nova.privsep.path.chown(node, uid=os.getuid(), gid=os.getgid())
    try:
        yield node
    finally:
        nova.privsep.path.chown(node, uid=owner.st_uid, gid=owner.st_gid)


def _take_back(ticket: pmem_ticket.Ticket, namespaces: Namespaces) -> None:
    for target in ticket.targets:
        if target.name in namespaces:
            nova.privsep.path.chown(
                namespaces[target.name].devpath,
                uid=target.uid, gid=target.gid)


def _end_writers(ticket: pmem_ticket.Ticket, namespaces: Namespaces) -> None:
    """End what ssh left running on a ticket's devices.

    When a connection breaks, a ``daxio`` started through it may live on and
    write what is in its pipe. It has the device open, so taking the node back
    does not stop it; and it must not write after a wipe.
    """
    nodes = {os.path.realpath(namespaces[target.name].devpath)
             for target in ticket.targets if target.name in namespaces}
    for pid in _own_processes():
        if _uses(pid, nodes):
            LOG.warning('Killing process %(pid)d, left from migration '
                        '%(migration)s: it still has one of %(nodes)s open.',
                        {'pid': pid, 'nodes': ', '.join(sorted(nodes)),
                         'migration': ticket.migration_uuid})
            _kill(pid)


def _own_processes() -> abc.Iterator[int]:
    me = os.getuid()
    for name in os.listdir('/proc'):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError):
                if os.stat('/proc/' + name).st_uid == me:
                    yield int(name)


def _uses(pid: int, nodes: set[str]) -> bool:
    try:
        with open('/proc/%d/maps' % pid) as maps:
            mapped = {line.split(maxsplit=5)[-1].rstrip('\n')
                      for line in maps}
        opened = {os.readlink('/proc/%d/fd/%s' % (pid, fd))
                  for fd in os.listdir('/proc/%d/fd' % pid)}
    except OSError:
        # It has ended in the meantime, which is as good.
        return False
    return bool(nodes & (mapped | opened))


def _kill(pid: int) -> None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        # A pidfd turns readable when its process has ended.
        if not select.select([handle], [], [], KILL_TIMEOUT)[0]:
            raise exception.PMEMDeviceBusy(pid=pid, seconds=KILL_TIMEOUT)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)
