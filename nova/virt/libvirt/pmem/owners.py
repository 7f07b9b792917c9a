# SPDX-License-Identifier: Apache-2.0

"""Whose the namespaces of this host are, and which must not be used.

A name means something on its own host only: hosts have equal names for
different namespaces. So whose a resource is, its provider, is asked first.
"""

from collections import abc

from lxml import etree
from oslo_log import log as logging

from nova.compute import pmem_copy as compute_pmem_copy
import nova.conf
from nova import context as nova_context
from nova import objects
from nova.virt.libvirt.pmem import pairing
from nova.virt.libvirt.pmem import tickets
from nova.virt.libvirt.pmem import wipes
from nova.virt import pmem_users

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)


class Owners:
    """What the servers of this host have, its guests use, and tickets hold.

    :ivar host: the name of this compute host
    :ivar wipes: what is wiped in the background
    """

    def __init__(self, driver) -> None:
        self._driver = driver
        self.wipes = wipes.Wipes()
        self.host = CONF.host

    @property
    def provider(self) -> str:
        """The uuid of the provider of this host's resources.

        A name means something on its own host only: hosts have equal ones.
        """
        return self._driver._host.get_node_uuid()

    # What must not be used

    def dirty_names(self, besides: str | None = None) -> set[str]:
        """Return the names of all namespaces that have an open ticket.

        As long as a ticket can't be read, any of this host may be meant.

        :param besides: the uuid of a migration whose ticket does not count
        """
        dirty = {target.name for ticket in tickets.open_tickets(self.host)
                 if ticket.migration_uuid != besides
                 for target in ticket.targets}
        if tickets.damaged():
            dirty.update(self._driver._vpmems_by_name)
        return dirty

    def count_unused(
            self, vpmems: list['objects.LibvirtVPMEMDevice']) -> int:
        """Count the namespaces that nobody has and nobody can get.

        Not those that receive a copy: they are allocated to the server that
        is to have them. Nor odd ones that a server has.
        """
        unwiped = {target.name for ticket in tickets.open_tickets(self.host)
                   if ticket.state == tickets.OVER or self.wipes.has(ticket)
                   for target in ticket.targets}
        odd = _odd(vpmems)
        if odd:
            odd = odd.difference(*self._known_of(
                {'host': self.host, 'deleted': False}).values())
        return len(odd | unwiped.intersection(
            vpmem.name for vpmem in vpmems))

    def is_needed(self) -> bool:
        """Whether this host has vPMEM at all, or tickets of it."""
        try:
            return bool(self._driver._vpmems_by_name or
                        any(tickets.open_tickets(self.host)) or
                        tickets.damaged())
        except OSError:
            # Who looks at them next says why they can't be looked at.
            return True

    def unavailable_names(self) -> set[str]:
        """Return what must not be claimed, whatever Nova knows of it.

        That is what is dirty, and what a guest here has: one whose server was
        deleted while this host was down, say.
        """
        known = self._driver._vpmems_by_name
        if not known:
            return set()
        names = self.dirty_names() | _odd(known.values())
        guests = dict(self._guests())
        for nodes in guests.values():
            names.update(name for name, vpmem in known.items()
                         if vpmem.devpath in nodes)
        return names.union(*self._known_of({'uuid': list(guests)}).values())

    def _known_of(self, filters: dict[str, object]) -> dict[str, set[str]]:
        """Return by uuid the names that servers have here, as Nova knows."""
        return {instance.uuid: {resource.identifier for resource in
                                self._resources(instance)}
                for instance in (objects.InstanceList.get_by_filters(
                    nova_context.get_admin_context(read_deleted='yes'),
                    filters, expected_attrs=['resources'])
                    if filters != {'uuid': []} else ())}

    def used_devices(self, besides: str | None = None) -> set:
        """Return keys of the devices of guests, besides one server's."""
        return pmem_users.keys(
            node for uuid, nodes in self._guests() if uuid != besides
            for node in nodes)

    def _guests(self) -> abc.Iterator[tuple[str, set[str]]]:
        """Yield the uuids of guests of this host, and their vPMEM nodes.

        The nodes that one was defined with that does not run may be others'
        since this host has booted: it has what Nova knows, if Nova does.
        """
        defined = list(self._defined())
        known = self._known_of({
            'uuid': [uuid for uuid, _nodes, is_on in defined if not is_on]})
        vpmems = self._driver._vpmems_by_name
        for uuid, nodes, _is_on in defined:
            now = {vpmems[name].devpath for name in known.get(uuid, ())
                   if name in vpmems} - {''}
            yield uuid, now or nodes

    def _defined(self) -> abc.Iterator[tuple[str, set[str], bool]]:
        for guest in self._driver._host.list_guests(only_running=False):
            try:
                domain = etree.fromstring(guest.get_xml_desc())
                is_on = guest.is_active()
            except Exception:
                LOG.debug('A guest is gone.', exc_info=True)
                continue
            nodes = {path.text for path in domain.findall(
                "./devices/memory[@model='nvdimm']/source/path")}
            if nodes:
                yield guest.uuid, nodes, is_on

    # What a server has

    def _resources(self, instance: 'objects.Instance',
                   prefix: str | None = None) -> list['objects.Resource']:
        """Return the vPMEM resources of a server that are of this host."""
        found = self._driver._get_vpmem_resources(
            self._driver._get_resources(instance, prefix=prefix))
        return [resource for resource in found
                if resource.provider_uuid == self.provider]

    def _vpmems(self, instance: 'objects.Instance', prefix: str | None = None,
                ) -> list['objects.LibvirtVPMEMDevice']:
        return [self._known(resource)
                for resource in self._resources(instance, prefix)]

    def owns(self, instance: 'objects.Instance',
             ticket: tickets.Ticket) -> bool:
        """Whether all that a ticket is about is what a server has here.

        What an earlier move has left here may wait to be wiped.
        """
        return {resource.identifier for resource in self._resources(
            instance)}.issuperset(each.name for each in ticket.targets)

    def pairs(self,
              instance: 'objects.Instance') -> list[pairing.DevicePair]:
        """Pair the devices of a move that copies; none for others."""
        if not is_wanted(instance):
            return []
        move = instance.migration_context
        ordered = self._driver._get_ordered_vpmem_resources
        return pairing.pair_devices(
            [resource.metadata for resource in ordered(
                move.old_resources or [], instance.flavor)],
            [resource.metadata for resource in ordered(
                move.new_resources or [], instance.new_flavor)])

    def _known(self, resource) -> 'objects.LibvirtVPMEMDevice':
        known = self._driver._vpmems_by_name.get(resource.identifier)
        # One that was odd when the service started has no node.
        return known if known and known.devpath else resource.metadata

    def _own(self, instance: 'objects.Instance',
             ) -> list['objects.LibvirtVPMEMDevice']:
        """Return what a server has here, or what it has left here.

        One that was evacuated has resources of its new host. What it left
        says its guest; what is held, nobody wipes.
        """
        devices = self._vpmems(instance)
        if devices or instance.host == self.host:
            return devices
        nodes = dict(self._guests()).get(instance.uuid, set())
        taken = self._taken_by_others(instance)
        return [vpmem for vpmem in self._driver._vpmems_by_name.values()
                if vpmem.devpath in nodes and vpmem.name not in taken]

    def _taken_by_others(self, instance) -> set[str]:
        used = self.used_devices(besides=instance.uuid)
        others = {uuid for uuid, _nodes in self._guests()} - {instance.uuid}
        return self.dirty_names().union(*self._known_of(
            {'uuid': list(others)}).values()) | {
            name for name, vpmem in self._driver._vpmems_by_name.items()
            if pmem_users.keys([vpmem.devpath]) & used}


def _odd(
        vpmems: abc.Iterable['objects.LibvirtVPMEMDevice']) -> set[str]:
    return {vpmem.name for vpmem in vpmems if not vpmem.devpath}


def is_wanted(instance: 'objects.Instance') -> bool:
    return ('migration_context' in instance and
            compute_pmem_copy.is_wanted(instance))
