# SPDX-License-Identifier: Apache-2.0

"""The moments of the fault matrix: points on the way of a server.

They lie before and after whatever may come to nothing by itself: a call to
the other host, a change of what is stored, a guest's start. Between the two
halves of a confirm or a revert each step has its own.
"""

import dataclasses

from nova.tests.functional.libvirt import pmem_world

SOURCE, DESTINATION = pmem_world.HOSTS
OLD, NEW = pmem_world.OLD, pmem_world.NEW
SIZE = pmem_world.SIZE

DRIVER = 'nova.virt.libvirt.driver.LibvirtDriver.'
MANAGER = 'nova.compute.manager.ComputeManager.'
RPC = 'nova.compute.rpcapi.ComputeAPI.'
TRACKER = 'nova.compute.resource_tracker.ResourceTracker.'
INSTANCE = 'nova.objects.instance.Instance.'
MIGRATION = 'nova.objects.migration.Migration.'
LAUNCH = 'nova.tests.fixtures.libvirt.Domain.createWithFlags'


@dataclasses.dataclass(frozen=True)
class Moment:
    """A point on the way of a server.

    :ivar phase: what was asked for: ``move``; or, of a server that was moved,
        ``confirm``, ``revert`` or ``delete``
    :ivar host: who is at work
    :ivar function: at whose call by this host it is, if any; and whether
        ``before`` or ``after``
    :ivar since: a function that this host has called before, if it matters
    :ivar is_step: whether it lies inside of what a host does by itself, right
        after or before a moment at which more is tried
    :ivar device: what daxio is at work on, if it is; which ``side``, and
        ``at`` which byte (see ``PmemHosts.inject``)
    :ivar at_rest: the fault comes first, and what is asked for after it
    :ivar tickets: kinds of tickets that are open, by host
    :ivar guest_on: the host on which the guest runs
    :ivar passes: how often data is copied while it runs
    """

    name: str
    phase: str
    host: str
    function: str = ''
    when: str = 'before'
    since: str = ''
    is_step: bool = False
    device: str = ''
    side: str = ''
    at: int = SIZE // 2
    at_rest: bool = False
    tickets: tuple[tuple[str, str], ...] = ()
    guest_on: str = ''
    passes: int = 0

    @property
    def at_tool(self) -> bool:
        return bool(self.device)

    @property
    def copies(self) -> bool:
        return self.side in ('read', 'write')

    @property
    def waits(self) -> bool:
        """Whether the sender of the last pass has connected, and waits."""
        return self.passes > 0 and not self.copies


RECEIVE = (DESTINATION, 'receive')
HOLD = (SOURCE, 'hold')

MOMENTS = (
    Moment('claimed', 'move', DESTINATION, 'nova.compute.pmem_moves.prepare',
           'after', tickets=(RECEIVE,), guest_on=SOURCE),
    Moment('precopying', 'move', SOURCE, device=NEW, side='write',
           tickets=(RECEIVE, HOLD), guest_on=SOURCE, passes=2),
    Moment('precopied', 'move', SOURCE,
           'nova.virt.libvirt.pmem_copy.API._precopy', 'after',
           tickets=(RECEIVE, HOLD), guest_on=SOURCE, passes=2),
    Moment('before-the-copy', 'move', SOURCE,
           DRIVER + 'migrate_disk_and_power_off', tickets=(RECEIVE,),
           guest_on=SOURCE),
    Moment('switched-off', 'move', SOURCE,
           'nova.virt.libvirt.pmem_copy.API.copy',
           tickets=(RECEIVE, HOLD), passes=2),
    Moment('writing', 'move', SOURCE, device=NEW, side='write',
           tickets=(RECEIVE,)),
    Moment('comparing', 'move', SOURCE, device=NEW, side='write', at=SIZE,
           tickets=(RECEIVE,)),
    Moment('after-the-copy', 'move', SOURCE,
           'nova.virt.libvirt.pmem_copy.API.copy', 'after',
           tickets=(RECEIVE, HOLD)),
    Moment('disconnected', 'move', SOURCE,
           MANAGER + '_terminate_volume_connections', 'after',
           tickets=(RECEIVE, HOLD)),
    Moment('handing-over', 'move', SOURCE, RPC + 'finish_resize',
           tickets=(RECEIVE, HOLD)),
    Moment('finishing', 'move', DESTINATION, DRIVER + 'finish_migration',
           tickets=(RECEIVE, HOLD)),
    Moment('starting', 'move', DESTINATION,
           DRIVER + '_create_guest_with_network', tickets=(HOLD,)),
    Moment('started', 'move', DESTINATION, DRIVER + 'finish_migration',
           'after', tickets=(HOLD,), guest_on=DESTINATION),
    Moment('moved-then-confirm', 'confirm', DESTINATION, at_rest=True,
           tickets=(HOLD,), guest_on=DESTINATION),
    Moment('moved-then-revert', 'revert', DESTINATION, at_rest=True,
           tickets=(HOLD,), guest_on=DESTINATION),
    Moment('confirming', 'confirm', SOURCE, DRIVER + 'confirm_migration',
           tickets=(HOLD,), guest_on=DESTINATION),
    Moment('wiping-old', 'confirm', SOURCE, device=OLD, side='zero',
           guest_on=DESTINATION),
    Moment('confirmed', 'confirm', SOURCE, DRIVER + 'confirm_migration',
           'after', guest_on=DESTINATION),
    Moment('reverting', 'revert', DESTINATION, DRIVER + 'destroy',
           tickets=(HOLD,), guest_on=DESTINATION),
    Moment('wiping-new', 'revert', DESTINATION, device=NEW, side='zero',
           tickets=(HOLD,)),
    Moment('giving-back', 'revert', DESTINATION,
           RPC + 'finish_revert_resize', tickets=(HOLD,)),
    Moment('returning', 'revert', SOURCE,
           DRIVER + 'finish_revert_migration', tickets=(HOLD,)),
    # What a host does by itself, step by step.
    *(Moment(name, phase, host, function, when, since=since, is_step=True,
             guest_on=guest_on)
      for name, phase, host, guest_on, function, when, since in (
          # The guest runs, and nothing says so yet.
          ('launched', 'move', DESTINATION, DESTINATION, LAUNCH, 'after', ''),
          ('completing-volumes', 'move', DESTINATION, DESTINATION,
           MANAGER + '_complete_volume_attachments', 'before', LAUNCH),
          ('saving-finished', 'move', DESTINATION, DESTINATION,
           MIGRATION + 'save', 'before', LAUNCH),
          ('saving-resized', 'move', DESTINATION, DESTINATION,
           INSTANCE + 'save', 'before',
           MANAGER + '_complete_volume_attachments'),
          ('letting-old-go', 'confirm', SOURCE, DESTINATION,
           TRACKER + 'drop_move_claim_at_source', 'before', ''),
          ('let-old-go', 'confirm', SOURCE, DESTINATION,
           TRACKER + 'drop_move_claim_at_source', 'after', ''),
          ('saving-confirmed', 'confirm', SOURCE, DESTINATION,
           INSTANCE + 'save', 'before',
           TRACKER + 'drop_move_claim_at_source'),
          ('deallocating', 'confirm', SOURCE, DESTINATION,
           MANAGER + '_delete_allocation_after_move', 'before', ''),
          ('deallocated', 'confirm', SOURCE, DESTINATION,
           MANAGER + '_delete_allocation_after_move', 'after', ''),
          ('destroyed', 'revert', DESTINATION, '',
           DRIVER + 'destroy', 'after', ''),
          ('letting-new-go', 'revert', DESTINATION, '',
           TRACKER + 'drop_move_claim_at_dest', 'before', ''),
          ('let-new-go', 'revert', DESTINATION, '',
           TRACKER + 'drop_move_claim_at_dest', 'after', ''),
          ('given-back', 'revert', DESTINATION, '',
           RPC + 'finish_revert_resize', 'after', ''),
          ('taking-over', 'revert', SOURCE, '',
           MANAGER + '_revert_instance_flavor_host_node', 'before', ''),
          ('taken-over', 'revert', SOURCE, '',
           MANAGER + '_revert_instance_flavor_host_node', 'after', ''),
          ('allocation-back', 'revert', SOURCE, '',
           MANAGER + '_revert_allocation', 'after', ''),
          ('relaunched', 'revert', SOURCE, SOURCE, LAUNCH, 'after', ''),
          ('dropping-context', 'revert', SOURCE, SOURCE,
           INSTANCE + 'drop_migration_context', 'before', LAUNCH),
          ('dropped-context', 'revert', SOURCE, SOURCE,
           INSTANCE + 'drop_migration_context', 'after', LAUNCH),
          ('completing-again', 'revert', SOURCE, SOURCE,
           MANAGER + '_complete_volume_attachments', 'before', LAUNCH),
          ('saving-active', 'revert', SOURCE, SOURCE,
           INSTANCE + 'save', 'before',
           MANAGER + '_complete_volume_attachments'))),
    Moment('deleting-old', 'delete', SOURCE, device=OLD, side='zero',
           guest_on=DESTINATION),
    Moment('deleting-new', 'delete', DESTINATION, device=NEW, side='zero'),
)

#: The calls of finish_resize before the start, each of which may fail.
FINISHING = tuple(
    Moment('finishing-%s' % function.rpartition('.')[2].strip('_').replace(
        '_', '-'), 'move', DESTINATION, function)
    for function in (
        MANAGER + '_update_bdm_for_swap_to_finish_resize',
        'nova.network.neutron.API.setup_networks_on_host',
        'nova.network.neutron.API.migrate_instance_finish',
        MANAGER + '_update_volume_attachments',
        DRIVER + '_get_guest_xml',
    ))
