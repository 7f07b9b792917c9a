# SPDX-License-Identifier: Apache-2.0

"""What the libvirt driver does with vPMEM contents, in a move and otherwise.

This is the door: one object that the driver holds, whose methods are what the
hooks in the driver call. ``nova.virt.libvirt.pmem`` is behind it. Until a move
is confirmed the source's namespaces are only read.
"""

from collections import abc
from concurrent import futures
import contextlib
import dataclasses

from oslo_log import log as logging
from oslo_utils import timeutils
from oslo_utils import uuidutils

from nova.compute import pmem_copy as compute_pmem_copy
from nova.compute import task_states
import nova.conf
from nova import context as nova_context
from nova import exception
from nova.i18n import _
from nova import objects
from nova.virt.libvirt.pmem import namespaces as pmem_namespaces
from nova.virt.libvirt.pmem import owners
from nova.virt.libvirt.pmem import pairing
from nova.virt.libvirt.pmem import passes
from nova.virt.libvirt.pmem import receivers
from nova.virt.libvirt.pmem import reports
from nova.virt.libvirt.pmem import settle
from nova.virt.libvirt.pmem import tickets
from nova.virt.libvirt.pmem import transfer
from nova.virt.pmem_transfer import extents

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

#: Seconds that confirming a move waits for its wipe. Deleting a server
#: confirms it by a call that gives up after ``[DEFAULT]rpc_response_timeout``,
#: which is 60 seconds unless set.
WIPE_PATIENCE = 20


class API(owners.Owners):
    """The vPMEM contents of this host's servers."""

    def __init__(self, driver) -> None:
        super().__init__(driver)
        # What was copied of moves that leave, by their uuids.
        self._precopied: dict[str, passes.Running] = {}

    def namespaces(self) -> pmem_namespaces.Namespaces:
        return pmem_namespaces.usable_and_odd()

    # A move, in the order of its steps

    def prepare(self, instance: 'objects.Instance',
                migration: 'objects.Migration') -> None:
        """Make the claimed namespaces ready to be written by the source.

        Writes the ticket, lends the device nodes to nova's user, and starts
        who receives the data as that user. A move that copies nothing is only
        checked.

        :raises ComputeResourcesUnavailable: if the data does not fit, or a
            claimed namespace is not as it was when it was claimed, or has a
            guest, or is not wiped yet
        """
        claimed = self._vpmems(instance, 'new_')
        try:
            pairs = self.pairs(instance)
        except extents.DevicesDoNotFit as error:
            raise exception.ComputeResourcesUnavailable(reason=error)
        if not claimed:
            return
        with settle.alone(migration.uuid):
            dirty = self.dirty_names(besides=migration.uuid).intersection(
                device.name for device in claimed)
            if dirty:
                raise pmem_namespaces.unready(
                    '%s: not wiped yet' % ', '.join(sorted(dirty)))
            if pairs:
                self._open(instance, migration, pairs)

    def _open(self, instance: 'objects.Instance',
              migration: 'objects.Migration',
              pairs: list[pairing.DevicePair]) -> None:
        namespaces = pmem_namespaces.list_namespaces()
        nodes = [pmem_namespaces.claimed_node(target, namespaces)
                 for __, target in pairs]
        ticket = tickets.Ticket(
            host=self.host, migration_uuid=migration.uuid,
            instance_uuid=instance.uuid, targets=tuple(
                pmem_namespaces.target(target, node, source.size)
                for (source, target), node in zip(pairs, nodes)))
        tickets.write(ticket)
        try:
            receivers.start(ticket, namespaces,
                            self.used_devices(besides=instance.uuid))
            instance.migration_context.pmem_copy_socket = (
                tickets.socket_of(ticket))
            instance.save()
        except BaseException as error:
            # Nothing was written yet, so there is nothing to wipe.
            receivers.end(ticket)
            with contextlib.suppress(exception.PMEMNamespaceNotFound, OSError):
                pmem_namespaces.take_back(ticket.targets, namespaces)
            tickets.close(ticket)
            if isinstance(error, (exception.PMEMDeviceBusy, OSError)):
                raise pmem_namespaces.unready(str(error))
            raise

    @contextlib.contextmanager
    def precopied(self, instance: 'objects.Instance',
                  migration: 'objects.Migration',
                  is_on: bool) -> abc.Iterator[None]:
        """Find out whether a copy will work; copy while the guest runs.

        :meth:`copy` goes on with what was begun, as long as this lasts.

        :param is_on: whether it does
        :raises Exception: whatever would make the copy fail
        """
        pairs = self.pairs(instance)
        try:
            if pairs:
                self._precopy(instance, migration, pairs, is_on)
            yield
        finally:
            if running := self._precopied.pop(migration.uuid, None):
                running.sender.close()

    def _precopy(self, instance: 'objects.Instance',
                 migration: 'objects.Migration',
                 pairs: list[pairing.DevicePair], is_on: bool) -> None:
        pmem_namespaces.check_readable([source for source, __ in pairs])
        same_host = migration.source_compute == migration.dest_compute
        most = (CONF.libvirt.pmem_copy_running_passes
                if is_on and not same_host else 0)
        with self._passes(instance, migration, pairs,
                          'compute_precopy_pmem_devices' if most
                          else 'compute_check_pmem_copy',
                          task_states.RESIZE_PREP) as (copy, event):
            running = copy.run_with_guest(most)
            self._precopied[migration.uuid] = running
            event.details = running.text() if most else None
        if is_on:
            instance.migration_context.pmem_copy_off_since = (
                timeutils.utcnow(with_timezone=True))

    def copy(self, instance: 'objects.Instance') -> None:
        """Copy the devices of a guest that is off; prove that they arrived.

        :raises PMEMCopyFailed: if any device was not copied as a whole
        """
        pairs = self.pairs(instance)
        if not pairs:
            return
        migration = _migration_of(instance)
        with self._passes(instance, migration, pairs,
                          'compute_copy_pmem_devices',
                          task_states.RESIZE_MIGRATING) as (copy, event):
            event.details = copy.run_without_guest(
                self._precopied.get(migration.uuid))
        # So the destination sees that it was copied.
        instance.migration_context.pmem_copy_socket = None

    @contextlib.contextmanager
    def _passes(self, instance: 'objects.Instance',
                migration: 'objects.Migration',
                pairs: list[pairing.DevicePair], event: str,
                task_state: str) -> abc.Iterator[
                    tuple[passes.Passes, reports.Event]]:
        """Have what a copy needs on this host, and tell what comes of it."""
        tracker = self._driver.job_tracker
        with reports.Event(
                instance, event, migration.source_compute) as told, \
                reports.named_failure(instance, migration, pairs), \
                settle.held(self.host, instance, migration,
                            [source for source, __ in pairs]), \
                contextlib.ExitStack() as lent:
            namespaces = pmem_namespaces.list_namespaces()
            nodes = [lent.enter_context(pmem_namespaces.lent(
                pmem_namespaces.resolve(source, namespaces)))
                for source, __ in pairs]
            yield passes.Passes(
                instance, migration,
                transfer.job_of(instance, migration, pairs, nodes),
                lambda process: tracker.add_job(instance, process.pid),
                lambda process: tracker.remove_job(instance, process.pid),
                task_state), told

    def finish(self, instance: 'objects.Instance',
               migration: 'objects.Migration') -> None:
        """Let nobody write any more to what a server is about to start on.

        Until it has started, nothing but a ticket tells that there is data:
        if this host dies now, its server may be deleted before it is back.

        :raises PMEMTicketInvalid: if the ticket can't be read
        :raises PMEMTicketNotFound: if what was received is wiped, or was
        :raises PMEMNamespaceNotFound: if a device is not the one any more
            that was written
        :raises PMEMCopyFailed: if the source has sent the server without its
            data, as one does that does not know how to copy
        """
        if not (owners.is_wanted(instance) and
                self._driver._get_vpmem_resources(
                    self._driver._get_resources(instance, prefix='old_'))):
            return
        move = instance.migration_context
        if 'pmem_copy_socket' in move and move.pmem_copy_socket:
            raise exception.PMEMCopyFailed(
                reason=_('the source does not know how to copy'))
        with settle.alone(migration.uuid):
            tickets.mend()
            ticket = tickets.read(migration.uuid)
            if ticket.state == tickets.OVER:
                raise exception.PMEMTicketNotFound(
                    migration_uuid=migration.uuid)
            nodes = pmem_namespaces.list_namespaces()
            pmem_namespaces.take_back(ticket.targets, nodes)
            receivers.end(ticket)
            pmem_namespaces.check_same(ticket.targets, nodes)
            tickets.write(dataclasses.replace(ticket, state=tickets.ARRIVED))
        instance.progress = 0

    def to_start_on(
        self, instance: 'objects.Instance',
        resources: abc.Iterable['objects.Resource'],
    ) -> list['objects.LibvirtVPMEMDevice']:
        """Return the devices of a guest that is to be defined.

        :raises PMEMNamespaceNotFound: if one is another host's, or gone
        :raises PMEMDeviceBusy: if another server's data is in one
        """
        devices = []
        for resource in resources:
            if resource.provider_uuid != self.provider:
                raise exception.PMEMNamespaceNotFound(
                    name=resource.identifier, size=resource.metadata.size,
                    found=_('what belongs to another host'))
            devices.append(self._known(resource))
        names = {device.name for device in devices}
        for ticket in tickets.open_tickets(self.host) if names else ():
            dirty = names.intersection(each.name for each in ticket.targets)
            if dirty and ticket.instance_uuid != instance.uuid:
                raise exception.PMEMDeviceBusy(
                    name=', '.join(sorted(dirty)),
                    user=_('data that is not wiped yet'))
            if dirty and ticket.state == tickets.ARRIVED:
                pmem_namespaces.check_same(
                    ticket.targets, pmem_namespaces.list_namespaces())
        return pmem_namespaces.as_they_are_now(devices)

    def started(self, instance: 'objects.Instance') -> None:
        """Note that the hypervisor knows of the guest and is to start it.

        From here on it may have written: what is on its devices is its own.

        :raises InstanceNotFound: if the server was deleted meanwhile
        :raises UnexpectedTaskStateError: if it is being deleted, or somebody
            else goes on with it by now
        """
        if owners.is_wanted(instance):
            # A later delete undefines the guest, which then does not start.
            compute_pmem_copy.check_starts(
                nova_context.get_admin_context(), instance)
        if self._close_arrived(instance):
            reports.tell_downtime(instance, self.host)

    def has_started(self, instance: 'objects.Instance') -> bool:
        """Whether a server's guest is known here, and may have run."""
        try:
            self._driver._host.get_guest(instance)
        except exception.InstanceNotFound:
            return False
        # What an earlier move has left may still wait to be wiped.
        return not tickets.is_open(
            _migration_of(instance).uuid, tickets.RECEIVE)

    def _close_arrived(self, instance: 'objects.Instance') -> bool:
        """Close the ticket of data that has arrived; say if there was one."""
        found = [ticket for ticket in tickets.open_tickets(self.host)
                 if ticket.instance_uuid == instance.uuid and
                 ticket.state == tickets.ARRIVED and
                 self.owns(instance, ticket)]
        for ticket in found:
            tickets.close(ticket)
        return bool(found)

    # Wiping

    def wipe_own(self, instance: 'objects.Instance') -> None:
        """Zero what a server has here, which leaves this host, or is deleted.

        One that goes back to its source does not wait for it, and a device
        that can't be wiped may be the reason why it does: that is noted down.
        So is what one has left that was evacuated, for which this host would
        not start.

        :raises VPMEMCleanupFailed: after the last one, for those that failed
        """
        devices = self._own(instance) if self._driver._vpmems_by_name else []
        if not devices:
            return
        if instance.host != self.host:
            # It has left by no move of which we know.
            self._note(instance, uuidutils.generate_uuid(), tickets.HOLD,
                       devices)
            return
        if instance.task_state == task_states.RESIZE_REVERTING:
            self._note(instance, _migration_of(instance).uuid,
                       tickets.RECEIVE, devices)
            return
        pmem_namespaces.wipe(
            devices, pmem_namespaces.namespaces_now(devices),
            self.used_devices(besides=instance.uuid))
        self._close_arrived(instance)

    def wipe_left(self, instance: 'objects.Instance') -> None:
        """Wipe what a server had on a host that it has left for good.

        The server runs elsewhere and has its data. A device that can't be
        wiped now is no reason to fail, nor to keep the caller waiting, who
        may have to answer a user: a ticket keeps it out of use.
        """
        devices = self._vpmems(instance, 'old_')
        if not devices:
            return
        migration_uuid = _migration_of(instance).uuid
        if not tickets.is_open(migration_uuid, tickets.HOLD):
            # An earlier try may have wiped it; then who has it was given it
            # since. What was held is nobody else's.
            if owners.is_wanted(instance):
                return
            taken = self._taken_by_others(instance)
            devices = [device for device in devices
                       if device.name not in taken]
        if not devices:
            return
        ticket = self._note(instance, migration_uuid, tickets.HOLD, devices)
        settle.end_other_holds(ticket)
        wiping = settle.wipe_soon(ticket, ticket.targets, self)
        if futures.wait([wiping], WIPE_PATIENCE).not_done:
            LOG.info('Wiping the vPMEM data that the server had here is left '
                     'to the background.', instance=instance)

    def _note(self, instance: 'objects.Instance', migration_uuid: str,
              kind: str, devices: list['objects.LibvirtVPMEMDevice'],
              ) -> tickets.Ticket:
        namespaces = pmem_namespaces.namespaces_now(devices)
        known = {}
        with contextlib.suppress(exception.PMEMTicketNotFound,
                                 exception.PMEMTicketInvalid):
            # It tells whose a node was before it was lent.
            known = {target.name: target for target in
                     tickets.read(migration_uuid, kind).targets}
        ticket = tickets.Ticket(
            host=self.host, migration_uuid=migration_uuid,
            instance_uuid=instance.uuid, kind=kind, state=tickets.OVER,
            targets=tuple(
                known.get(device.name) or pmem_namespaces.target(
                    device, namespaces.get(device.name, device).devpath,
                    device.size) for device in devices))
        tickets.write(ticket)
        return ticket

    def settle(self, context, give_back, closed) -> list[futures.Future]:
        return settle.settle(context, self, give_back, closed)


def _migration_of(instance: 'objects.Instance') -> 'objects.Migration':
    return objects.Migration.get_by_id(
        nova_context.get_admin_context(read_deleted='yes'),
        instance.migration_context.migration_id)
