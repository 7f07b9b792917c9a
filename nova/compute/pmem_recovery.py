# SPDX-License-Identifier: Apache-2.0

"""Taking up moves that copy vPMEM data and on which nobody works any more.

What has died in between (nova-compute, a host, a message, the database for a
while), or could not be set right at once, is taken up by the host whose turn
it is: :func:`next_step` says which that is, and all that it looks at is stored
in the database. A round when nova-compute starts, and one a minute, in Nova's
pool for long tasks.
"""

import collections
import time
import weakref

from oslo_log import log as logging

from nova.compute import pmem_copy
from nova.compute import pmem_ends
from nova.compute import pmem_leftovers
from nova.compute import pmem_moves
from nova.compute import pmem_work
from nova.compute import task_states
from nova.compute import utils as compute_utils
from nova.compute import vm_states
from nova import context as nova_context
from nova import exception
from nova import objects
from nova import thread_pool_factory
from nova.virt import hardware

LOG = logging.getLogger(__name__)

#: Seconds without a change after which a message counts as lost. Brokers
#: deliver within milliseconds; that long a manager may be busy elsewhere.
LOST_AFTER = 60

LEAVING = pmem_copy.LEAVING

RESIZING = (task_states.RESIZE_PREP, task_states.RESIZE_MIGRATING,
            task_states.RESIZE_MIGRATED, task_states.RESIZE_FINISH,
            task_states.RESIZE_REVERTING)


#: A server was deleted, or its move is no more.
GONE = (exception.InstanceNotFound, exception.MigrationNotFound,
        exception.MigrationNotFoundForInstance)


class _Watch:
    """What a nova-compute has seen others do, and its round under way."""

    def __init__(self):
        self.round = None
        self._seen = {}

    def unchanged(self, migration_uuid, state):
        """Return how many seconds something has been as it is now."""
        now = time.monotonic()
        known, since = self._seen.get(migration_uuid, (None, now))
        if known != state:
            since = now
        self._seen[migration_uuid] = state, since
        return now - since

    def forget(self, migration_uuid):
        self._seen.pop(migration_uuid, None)

    def forget_all_but(self, migration_uuids):
        for uuid in set(self._seen).difference(migration_uuids):
            self.forget(uuid)


_WATCHES = weakref.WeakKeyDictionary()


def run(manager):
    """Start a round, unless one is under way, on a host that has vPMEM."""
    watch = _WATCHES.setdefault(manager, _Watch())
    if not manager.driver.has_pmem() or (
            watch.round is not None and not watch.round.done()):
        return
    watch.round = thread_pool_factory.spawn_on(
        thread_pool_factory.ExecutorType.LONG_TASK, _round, manager, watch)


def _round(manager, watch):
    pmem_leftovers.settle_soon(manager, is_asked=False)
    if take_up(manager, nova_context.get_admin_context(), watch):
        pmem_leftovers.settle_soon(manager, is_asked=False)


def take_up(manager, context, watch):
    """Take one step with each move that waits for this host and nobody else.

    What fails is logged and tried again later.

    :returns: whether there was one
    """
    try:
        found = list(_moves_here(context, manager.host))
    except Exception:
        LOG.exception('Moves that nobody works on could not be looked for; '
                      'this host looks again in a minute.')
        # What nobody could see may have changed and changed back.
        watch.forget_all_but(())
        return False
    watch.forget_all_but({migration.uuid for migration, __ in found})
    return any([_take_up(manager, context, watch, migration, instance)
                for migration, instance in found])


def _take_up(manager, context, watch, migration, instance):
    work = pmem_work.work_of(manager)
    step, is_certain = next_step(manager.host, migration, instance)
    if step is None or work.has(instance.uuid):
        watch.forget(migration.uuid)
        return False
    state = _state(migration, instance)
    waited = watch.unchanged(migration.uuid, state)
    if not is_certain and waited < LOST_AFTER:
        return False
    watch.forget(migration.uuid)
    try:
        with work.on(instance.uuid), pmem_work.keeping_state(instance):
            # The steps of this round that came before took their time, and
            # somebody's work may have ended before it was asked for above.
            instance = _find(context, instance.uuid)
            migration = objects.Migration.get_by_id_and_instance(
                context, migration.id, instance.uuid)
            if _state(migration, instance) != state:
                return False
            LOG.warning('Nobody works on migration %(migration)s (%(status)s, '
                        '%(task)s) any more; taking it up.',
                        {'migration': migration.uuid,
                         'status': migration.status,
                         'task': instance.task_state}, instance=instance)
            step(manager, context, instance, migration)
    except GONE:
        LOG.info('Migration %(migration)s has ended meanwhile, or its server '
                 'was deleted.', {'migration': migration.uuid}, exc_info=True)
    except Exception:
        LOG.exception('Migration %(migration)s could not be taken up now; '
                      'this host tries again each minute. Do not reset the '
                      'state of the server.',
                      {'migration': migration.uuid}, instance=instance)
    return True


def _moves_here(context, host):
    """Yield migrations, with their servers, that a host has a part in.

    That is the one under way, if it copies, and those of before it that were
    confirmed but for their end.
    """
    confirming = collections.defaultdict(set)
    for migration in objects.MigrationList.get_by_filters(context, {
            'host': host, 'status': [*LEAVING, 'confirming', 'reverting']}):
        if migration.migration_type in ('migration', 'resize'):
            confirming[migration.instance_uuid].update(
                [migration.id] if migration.status == 'confirming' else [])
    for instance in objects.InstanceList.get_by_filters(
            context, {'host': host, 'task_state': list(RESIZING),
                      'deleted': False}, expected_attrs=[]):
        confirming[instance.uuid].update()
    for uuid in sorted(confirming):
        try:
            instance = _find(context, uuid)
            for number in _moves_of(instance, confirming[uuid]):
                yield objects.Migration.get_by_id_and_instance(
                    context, number, uuid), instance
        except GONE:
            continue
        except Exception:
            LOG.exception('Whether somebody works on a move of server '
                          '%(instance)s could not be found out; this host '
                          'looks again in a minute.', {'instance': uuid})


def _moves_of(instance, confirming):
    """Return the ids of a server's migrations that copy, or may have."""
    move = instance.migration_context
    current = {move.migration_id} if move is not None else set()
    # Whether an earlier one copied is not known any more.
    earlier = confirming - current if hardware.get_vpmems(
        instance.flavor) else set()
    return earlier | (current if pmem_copy.is_wanted(instance) else set())


def _find(context, uuid):
    """Return an instance with all that a step needs."""
    return objects.Instance.get_by_uuid(context, uuid, expected_attrs=[
        'flavor', 'info_cache', 'metadata', 'migration_context',
        'numa_topology', 'pci_devices', 'pci_requests', 'resources',
        'security_groups', 'system_metadata'])


def _state(migration, instance):
    return (migration.status, migration.updated_at, instance.host,
            instance.vm_state, instance.task_state)


def next_step(host, migration, instance):
    """Say what a host has to do with a move that nobody works on.

    :returns: a function of manager, context, instance and migration, or None;
        and whether it is certain that there is no message on its way that
        somebody would begin to work on
    """
    if not pmem_copy.is_move_of(instance, migration):
        is_mine = host == migration.source_compute
        return (_end_confirming if migration.status == 'confirming' and is_mine
                else None), False
    task = instance.task_state
    at_source = instance.host == migration.source_compute
    at_destination = instance.host == migration.dest_compute
    is_here = instance.host == host
    if task == task_states.RESIZE_REVERTING:
        if at_destination and is_here and not (
                at_source and pmem_copy.has_left(instance)):
            return _revert, False
        if at_source and is_here:
            return _finish_reverting, True
    elif task in (task_states.RESIZE_MIGRATED, task_states.RESIZE_FINISH):
        if at_destination and is_here:
            return _start_or_send_back, task == task_states.RESIZE_FINISH
    elif task == task_states.RESIZE_MIGRATING:
        if at_source and is_here:
            return _take_back, True
    elif task == task_states.RESIZE_PREP and migration.status == 'error':
        # It was refused, and that could not be stored as a whole.
        if at_source and is_here:
            return _call_off, False
    elif migration.status == 'reverting':
        if at_destination and is_here and task is None and (
                instance.vm_state == vm_states.RESIZED):
            return _revert, False
    elif migration.status == 'confirming':
        if migration.source_compute == host:
            return _confirm, False
    elif migration.status in LEAVING:
        if _has_lost_its_task(migration, instance):
            return (_start_or_send_back if is_here else None), False
        if (at_source and task not in pmem_copy.DELETING and not (
                # It waits for its turn there.
                task == task_states.RESIZE_PREP and not is_here and
                migration.status == 'migrating')):
            # A message to begin finds out first that it comes too late.
            return _call_off, is_here and task is None
    return None, False


def _has_lost_its_task(migration, instance):
    """Whether the source failed right after it had handed the server over.

    Then Nova clears the task state, and the destination does not begin.
    """
    return (migration.status == 'post-migrating' and
            instance.host == migration.dest_compute and
            instance.task_state is None and
            instance.vm_state != vm_states.RESIZED)


def _take_back(manager, context, instance, migration):
    """The source died, or could not bring the guest back then."""
    is_back = pmem_ends.bring_back(manager, context, instance, migration)
    _end_migration(manager, context, instance, migration)
    if is_back:
        instance.vm_state = pmem_work.old_vm_state(instance)
    instance.task_state = None
    instance.progress = 0
    instance.save(expected_task_state=[task_states.RESIZE_MIGRATING])
    _tell(context, instance)


def _end_migration(manager, context, instance, migration):
    """End a move of which a host died before the source let the server go.

    The server stays, so what the destination holds for it is given back: its
    allocation here, its namespaces by the destination itself, which wipes
    them as soon as it sees that the migration is over.
    """
    LOG.warning('Ending migration %(migration)s, on which nobody works any '
                'more; the server stays on %(source)s, where its data is.',
                {'migration': migration.uuid,
                 'source': migration.source_compute}, instance=instance)
    pmem_leftovers.fail(migration)
    try:
        manager._revert_allocation(context, instance, migration)
    except Exception:
        LOG.exception('The allocation of migration %(migration)s could not '
                      'be given back to the server. "nova-manage placement '
                      'audit" and "heal_allocations" mend that.',
                      {'migration': migration.uuid}, instance=instance)


def _call_off(manager, context, instance, migration):
    """The destination died before it could ask for the server."""
    _end_migration(manager, context, instance, migration)
    if instance.task_state == task_states.RESIZE_PREP:
        instance.task_state = None
        instance.save(expected_task_state=[task_states.RESIZE_PREP])
    _tell(context, instance)


def _start_or_send_back(manager, context, instance, migration):
    """The destination died before all was done there."""
    with pmem_work.work_of(manager).on(
            instance.uuid, 'finish_resize') as alone:
        if alone:
            pmem_moves.go_on_or_send_back(
                manager, context, instance, migration,
                _request_spec(context, instance))
            if migration.status == 'error':
                _tell(context, instance)


def _revert(manager, context, instance, migration):
    """The destination died, or failed, or the message did not come."""
    if instance.task_state is None:
        # Nova clears it if it can't find out what to do.
        instance.task_state = task_states.RESIZE_REVERTING
        instance.save(expected_task_state=[None])
    was_asked_for = migration.status != 'error'
    request_spec = _request_spec(context, instance)
    if pmem_copy.has_left(instance):
        # All is done here, and noted down. It must not be done again.
        manager.compute_rpcapi.finish_revert_resize(
            context, instance, migration, migration.source_compute,
            request_spec)
    else:
        manager.revert_resize(context, instance, migration, request_spec)
    if not was_asked_for:
        pmem_leftovers.fail(migration)


def _finish_reverting(manager, context, instance, migration):
    with pmem_work.work_of(manager).on(
            instance.uuid, 'finish_revert_resize') as alone:
        if not alone:
            return
        if pmem_work.goes_on(manager, instance):
            pmem_ends.go_on_at_source(manager, context, instance, migration)
            return
        if instance.old_flavor is None:
            # It has its old flavor already.
            instance.old_flavor = instance.flavor
        # Cinder refuses what was connected by an earlier try.
        manager._terminate_volume_connections(
            context, instance, pmem_work.volumes(
                manager, context, instance.get_bdms(), connected=True))
        manager.finish_revert_resize(context, instance, migration,
                                     _request_spec(context, instance))


def _confirm(manager, context, instance, migration):
    manager.confirm_resize(context, instance, migration)


def _end_confirming(manager, context, instance, migration):
    """All that was missing when the server moved anew was the end of it."""
    manager.reportclient.delete_allocation_for_instance(
        context, migration.uuid, consumer_type='migration', force=True)
    pmem_work.end(migration, 'confirming')


def _request_spec(context, instance):
    """Return what was asked for; None where a compute can't look that up."""
    try:
        return objects.RequestSpec.get_by_instance_uuid(
            context, instance.uuid)
    except Exception:
        LOG.debug('Going on without the request spec.', exc_info=True,
                  instance=instance)
        return None


def _tell(context, instance):
    """Let users see why the server is where it was."""
    compute_utils.add_instance_fault_from_exc(
        context, instance, exception.PMEMMoveInterrupted())
