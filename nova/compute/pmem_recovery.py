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

"""Bringing moves that copy vPMEM data to an end, whatever happens to them.

What fails in a call is set right there: by the source as long as it has the
server, by the destination from then on. What can't be set right at once, or
has died in between (nova-compute, a host, a message, the database for a
while), is taken up by the periodic task of the host whose turn it is:
:func:`next_step` says which that is, and all that it looks at is stored in the
database. Moves that copy nothing behave as they always did.
"""

import collections
import contextlib
import functools
import inspect
import threading
import time
import weakref

from oslo_concurrency import lockutils
from oslo_log import log as logging
from oslo_utils import excutils

from nova.compute import pmem_copy
from nova.compute import power_state
from nova.compute import task_states
from nova.compute import utils as compute_utils
from nova.compute import vm_states
import nova.conf
from nova import exception
from nova import objects
from nova import safe_utils

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

#: Seconds without a change after which a message counts as lost. Brokers
#: deliver within milliseconds; that long a manager may be busy elsewhere.
LOST_AFTER = 60

LEAVING = ('accepted', 'pre-migrating', 'migrating', 'post-migrating')

RESIZING = (task_states.RESIZE_PREP, task_states.RESIZE_MIGRATING,
            task_states.RESIZE_MIGRATED, task_states.RESIZE_FINISH,
            task_states.RESIZE_REVERTING)


class _Moves:
    """What a nova-compute works on, and what it has seen others work on."""

    def __init__(self):
        self._lock = threading.Lock()
        self._working = collections.Counter()
        self._seen = {}
        self.turns = threading.BoundedSemaphore(
            CONF.libvirt.pmem_copy_max_concurrent)

    @contextlib.contextmanager
    def working_on(self, instance_uuid, task=None):
        """Note that a server is being worked on.

        :returns: whether nobody else does this very task for it
        """
        key = instance_uuid, task
        with self._lock:
            self._working[key] += 1
            first = self._working[key] == 1
        try:
            yield first
        finally:
            with self._lock:
                self._working[key] -= 1
                if not self._working[key]:
                    del self._working[key]

    def is_working_on(self, instance_uuid):
        with self._lock:
            return any(uuid == instance_uuid for uuid, __ in self._working)

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


_MOVES = weakref.WeakKeyDictionary()


def _moves_of(manager):
    return _MOVES.setdefault(manager, _Moves())


def _arguments(function, *args, **kwargs):
    return inspect.getcallargs(
        safe_utils.get_wrapped_function(function), *args, **kwargs)


def is_under_way(function):
    """Note which server a manager's method works on.

    What dies takes this note with it; so what looks busy in the database, and
    has no note on the host whose turn it is, is nobody's work any more.
    """
    @functools.wraps(function)
    def decorated(manager, context, *args, **kwargs):
        instance = _arguments(
            function, manager, context, *args, **kwargs)['instance']
        with _moves_of(manager).working_on(instance.uuid):
            return function(manager, context, *args, **kwargs)

    return decorated


# What fails in a call

@contextlib.contextmanager
def stays_as_it_is_on_failure(instance):
    """Leave a server as it is if its host can't be asked for it.

    :raises InstanceFaultRollback: with the failure
    """
    try:
        yield
    except exception.InstanceFaultRollback:
        raise
    except Exception as error:
        if not pmem_copy.is_wanted(instance):
            raise
        raise exception.InstanceFaultRollback(inner_exception=error)


@contextlib.contextmanager
def goes_on_here_on_failure(manager, context, instance, migration):
    """Let the guest go on if its host can't send it away.

    Wraps what ``resize_instance`` does on the source. Until the server is the
    destination's, its disks can be put back in place and its vPMEM data was
    only read, so it can go on as if nothing had been asked.

    :raises InstanceFaultRollback: with the failure, when the guest is back
    """
    try:
        with _its_turn(manager, instance, migration):
            yield
    except exception.InstanceFaultRollback:
        # Refused before the guest was touched.
        raise
    except Exception as error:
        if not pmem_copy.is_wanted(instance):
            raise
        LOG.warning('Moving the server away failed: %s', error,
                    instance=instance)
        try:
            if _was_handed_over(context, instance):
                LOG.warning('The server is for %(host)s to start by now, or '
                            'to send back.', {'host': migration.dest_compute},
                            instance=instance)
                return
            # Not all that is set here was saved.
            instance.refresh()
            _bring_back(manager, context, instance, migration)
        except (exception.InstanceNotFound,
                exception.UnexpectedDeletingTaskStateError):
            LOG.info('The server was deleted while it was to move.',
                     instance=instance)
            raise error
        except Exception as reason:
            LOG.exception('The guest could not be brought back.',
                          instance=instance)
            raise exception.PMEMGuestNotBack(
                host=migration.dest_compute, error=error, reason=reason)
        raise exception.InstanceFaultRollback(inner_exception=error)


@contextlib.contextmanager
def _its_turn(manager, instance, migration):
    """Wait, with the guest running, until few enough others are copied."""
    if not pmem_copy.is_wanted(instance):
        yield
        return
    # From here on it is clear that the message has come.
    migration.status = 'migrating'
    migration.save()
    turns = _moves_of(manager).turns
    if not turns.acquire(blocking=False):
        LOG.info('The move waits for others from this host.',
                 instance=instance)
        turns.acquire()
    try:
        yield
    finally:
        turns.release()


def _was_handed_over(context, instance):
    current = objects.Instance.get_by_uuid(context, instance.uuid)
    return current.vm_state == vm_states.RESIZED or current.task_state in (
        task_states.RESIZE_MIGRATED, task_states.RESIZE_FINISH)


def is_taken_back_later(function):
    """Leave a server whose guest is not back yet to the periodic task.

    Decorates ``ComputeManager.resize_instance``, outside of what would say
    that all is over.
    """
    @functools.wraps(function)
    def decorated(manager, context, *args, **kwargs):
        call = _arguments(function, manager, context, *args, **kwargs)
        instance, migration = call['instance'], call['migration']
        with _moves_of(manager).working_on(instance.uuid):
            if pmem_copy.is_wanted(instance) and not _is_in(
                    context, instance, task_states.RESIZE_PREP):
                LOG.warning('The message to move the server comes too late.',
                            instance=instance)
                return
            before = _old_vm_state(instance)
            try:
                return function(manager, context, *args, **kwargs)
            except exception.PMEMGuestNotBack:
                with excutils.save_and_reraise_exception():
                    _keep(context, instance, migration, 'migrating',
                          vm_state=before,
                          task_state=task_states.RESIZE_MIGRATING)

    return decorated


def _bring_back(manager, context, instance, migration):
    # Deleting a server ends what runs for it, which is why we may be here.
    # It takes the same lock.
    with lockutils.lock(instance.uuid, lock_file_prefix='nova-'):
        current = objects.Instance.get_by_uuid(context, instance.uuid)
        if current.task_state in (task_states.DELETING,
                                  task_states.SOFT_DELETING):
            raise exception.UnexpectedDeletingTaskStateError(
                instance_uuid=instance.uuid,
                expected={'task_state': [task_states.RESIZE_MIGRATING]},
                actual={'task_state': current.task_state})
        if not _runs(manager, instance):
            _start_again(manager, context, instance, migration)


def _runs(manager, instance):
    """Whether a guest runs: it could not even be stopped, say."""
    try:
        return manager.driver.get_info(instance).state == power_state.RUNNING
    except exception.InstanceNotFound:
        # The hypervisor has forgotten it; it will be defined anew.
        return False


def _start_again(manager, context, instance, migration):
    bdms = instance.get_bdms()
    given_up = [bdm for bdm in bdms
                if bdm.is_volume and bdm.attachment_id and
                not _is_connected(manager, context, bdm)]
    manager._update_volume_attachments(context, instance, given_up)
    manager.driver.finish_revert_migration(
        context, instance,
        manager.network_api.get_instance_nw_info(context, instance), migration,
        manager._get_instance_block_device_info(
            context, instance, refresh_conn_info=True, bdms=bdms),
        _old_vm_state(instance) != vm_states.STOPPED,
        share_info=manager.share_manager.get_share_info(
            context, instance, check_status=False))
    manager._complete_volume_attachments(context, given_up)


def _is_connected(manager, context, bdm):
    return bool(manager.volume_api.attachment_get(
        context, bdm.attachment_id).get('connection_info'))


def _old_vm_state(instance):
    return instance.system_metadata.get('old_vm_state', vm_states.ACTIVE)


def sends_back_on_failure(function):
    """Send the server back if its new host can't start it.

    Decorates ``ComputeManager.finish_resize``, outside of what records the
    failure in events, faults and states: those tell what happened. The source
    still has the data, untouched, so the server goes on there; from the
    destination this is what reverting a finished move is.
    """
    @functools.wraps(function)
    def decorated(manager, context, *args, **kwargs):
        call = _arguments(function, manager, context, *args, **kwargs)
        instance, migration = call['instance'], call['migration']
        with _moves_of(manager).working_on(
                instance.uuid, function.__name__) as alone:
            if pmem_copy.is_wanted(instance) and not (alone and _is_in(
                    context, instance, task_states.RESIZE_MIGRATED)):
                LOG.warning('The message to start the server here comes '
                            'twice, or too late.', instance=instance)
                manager._end_pending_dest_resize_task(instance.uuid)
                return
            try:
                return function(manager, context, *args, **kwargs)
            except Exception:
                with excutils.save_and_reraise_exception():
                    # A guest that runs already is not taken away because of
                    # what came after, like a notification.
                    if pmem_copy.is_wanted(instance) and (
                            instance.vm_state != vm_states.RESIZED):
                        _send_back(manager, context, instance, migration,
                                   call['request_spec'])

    return decorated


def let_source_go(manager, context, instance, migration):
    """Delete what the source still has allocated for a failed move.

    Unless the server is going back there: then it needs that.
    """
    if pmem_copy.is_wanted(instance):
        return
    LOG.info('The server stays here, in ERROR, so its allocation on source '
             'node %s is deleted. A hard reboot may start it.',
             migration.source_compute, instance=instance)
    manager._delete_allocation_after_move(context, instance, migration)


def _send_back(manager, context, instance, migration, request_spec):
    try:
        # From here on it is a server in a resize, whose namespaces on the
        # source are taken; and nobody can do anything else with it.
        instance.vm_state = vm_states.RESIZED
        instance.task_state = task_states.RESIZE_REVERTING
        instance.save(expected_task_state=[
            None, task_states.RESIZE_MIGRATED, task_states.RESIZE_FINISH])
    except (exception.InstanceNotFound,
            exception.UnexpectedDeletingTaskStateError):
        LOG.info('The server was deleted while it was to start here.',
                 instance=instance)
        # Its namespaces on the source are wiped there.
        manager._delete_allocation_after_move(context, instance, migration)
        return
    except exception.UnexpectedTaskStateError as error:
        LOG.warning('The server is not sent back to %(source)s, because '
                    'something else goes on with it: %(error)s',
                    {'source': migration.source_compute, 'error': error},
                    instance=instance)
        return
    LOG.warning('The server could not be started here; sending it back to '
                '%(source)s.', {'source': migration.source_compute},
                instance=instance)
    try:
        # The namespaces are the server's own by now: they are wiped together
        # with what else there is of it, and not for a ticket's sake.
        settle(manager, context)
        instance.apply_migration_context()
        instance.save()
        migration.status = 'reverting'
        migration.save()
        manager.revert_resize(context, instance, migration, request_spec)
    except Exception:
        LOG.exception('The server could not be sent back yet. Its data is '
                      'intact on %(source)s. This host will try again.',
                      {'source': migration.source_compute}, instance=instance)
    _fail(migration)


def _fail(migration):
    """End a migration that nobody asked to be reverted."""
    migration.status = 'error'
    migration.save()


def is_tried_again(function):
    """Go back to the source until it is done.

    Decorates the two halves of reverting a move. A half that fails leaves the
    server as it was before, so that it can be taken up again; one that comes
    twice, because a message was only late, is ignored.
    """
    @functools.wraps(function)
    def decorated(manager, context, *args, **kwargs):
        call = _arguments(function, manager, context, *args, **kwargs)
        instance, migration = call['instance'], call['migration']
        with _moves_of(manager).working_on(
                instance.uuid, function.__name__) as alone:
            if not pmem_copy.is_wanted(instance):
                return function(manager, context, *args, **kwargs)
            if not alone or not _is_in(
                    context, instance, task_states.RESIZE_REVERTING):
                LOG.info('Somebody else has reverted the move, or does so.',
                         instance=instance)
                return
            flavors = dict(old_flavor=instance.old_flavor,
                           new_flavor=instance.new_flavor)
            before = _old_vm_state(instance)
            status = migration.status
            try:
                function(manager, context, *args, **kwargs)
            except Exception:
                with excutils.save_and_reraise_exception():
                    _keep(context, instance, migration, status,
                          vm_state=vm_states.RESIZED, old_vm_state=before,
                          task_state=task_states.RESIZE_REVERTING, **flavors)
            if (function.__name__ == 'finish_revert_resize' and
                    migration.status == 'reverting'):
                # The first half came to nothing after it had let go.
                migration.status = 'reverted'
                migration.save()

    return decorated


def is_confirmed_later(function):
    """Confirm a move until it is done.

    Decorates ``ComputeManager.confirm_resize``. The server runs well where it
    is, and what it had on the source has to be wiped.
    """
    @functools.wraps(function)
    def decorated(manager, context, *args, **kwargs):
        call = _arguments(function, manager, context, *args, **kwargs)
        instance, migration = call['instance'], call['migration']
        with _moves_of(manager).working_on(instance.uuid):
            if not pmem_copy.is_wanted(instance):
                return function(manager, context, *args, **kwargs)
            kept = dict(old_flavor=instance.old_flavor,
                        new_flavor=instance.new_flavor)
            before = _old_vm_state(instance)
            _begin_to_confirm(context, migration)
            try:
                return function(manager, context, *args, **kwargs)
            except Exception:
                with excutils.save_and_reraise_exception():
                    if _is_held_for(instance):
                        _keep(context, instance, migration, 'confirming',
                              vm_state=vm_states.RESIZED, task_state=None,
                              old_vm_state=before, **kept)

    return decorated


def _begin_to_confirm(context, migration):
    """Note that there is no way back, before anything is wiped.

    Who confirms has done so, but who deletes a server that was moved has not.
    If this host dies now, nobody may revert, and it takes this up again.
    """
    current = objects.Migration.get_by_id(context, migration.id)
    if current.status == 'finished':
        migration.status = 'confirming'
        migration.save()


def _is_held_for(instance):
    """Whether a move that copies has not been forgotten yet."""
    try:
        instance.refresh()
        return pmem_copy.is_wanted(instance)
    except Exception:
        LOG.debug('What became of the move is not known.', exc_info=True,
                  instance=instance)
        return False


def _is_in(context, instance, task_state):
    current = objects.Instance.get_by_uuid(context, instance.uuid)
    return current.task_state == task_state


def _keep(context, instance, migration, status, task_state,
          old_vm_state=None, **fields):
    """Set a failed move to what :func:`take_up` looks for."""
    try:
        instance.refresh()
        if old_vm_state is not None:
            instance.system_metadata['old_vm_state'] = old_vm_state
        for name, value in fields.items():
            setattr(instance, name, value)
        instance.task_state = task_state
        instance.save(expected_task_state=[None, task_state])
        migration.status = status
        migration.save()
    except (exception.InstanceNotFound,
            exception.UnexpectedTaskStateError) as error:
        LOG.info('The move is not taken up again: %s', error,
                 instance=instance)
    except Exception:
        LOG.exception('The state of the move could not be stored. The data '
                      'is intact on %(source)s.',
                      {'source': migration.source_compute}, instance=instance)
    else:
        LOG.warning('What failed is tried again by a periodic task. Until '
                    'then the data is intact on %(source)s.',
                    {'source': migration.source_compute}, instance=instance)


def end_migration(manager, context, instance, migration):
    """End a move whose source host died before it let the server go.

    The server stays, so what the destination holds for it is given back: its
    allocation here, its namespaces by the destination itself, which wipes
    them as soon as it sees that the migration is over.
    """
    if not pmem_copy.is_wanted(instance):
        return
    LOG.warning('Ending migration %(migration)s, on which nobody works any '
                'more; the server stays on %(source)s.',
                {'migration': migration.uuid,
                 'source': migration.source_compute}, instance=instance)
    _fail(migration)
    try:
        manager._revert_allocation(context, instance, migration)
    except Exception:
        LOG.exception('The allocation of migration %(migration)s could not '
                      'be given back to the server. "nova-manage placement '
                      'audit" and "heal_allocations" mend that.',
                      {'migration': migration.uuid}, instance=instance)


# What nobody works on any more

def take_up(manager, context):
    """Take one step with each move that waits for this host and nobody else.

    Runs from a periodic task. What fails is logged and tried again later.
    """
    moves = _moves_of(manager)
    try:
        found = list(_moves_here(context, manager.host))
    except Exception:
        LOG.exception('Moves that nobody works on could not be looked for.')
        return
    moves.forget_all_but({migration.uuid for migration, __ in found})
    taken = False
    for migration, instance in found:
        step, is_certain = next_step(manager.host, migration, instance)
        if step is None or moves.is_working_on(instance.uuid):
            moves.forget(migration.uuid)
            continue
        waited = moves.unchanged(migration.uuid, _state(migration, instance))
        if not is_certain and waited < LOST_AFTER:
            continue
        moves.forget(migration.uuid)
        taken = True
        LOG.warning('Nobody works on migration %(migration)s (%(status)s, '
                    '%(task)s) any more; taking it up.',
                    {'migration': migration.uuid, 'status': migration.status,
                     'task': instance.task_state}, instance=instance)
        try:
            with moves.working_on(instance.uuid):
                step(manager, context, instance, migration)
        except Exception:
            LOG.exception('Migration %(migration)s could not be taken up '
                          'now; this host will try again.',
                          {'migration': migration.uuid}, instance=instance)
    if taken:
        settle(manager, context)


def settle(manager, context):
    """Wipe and give back what moves that came to nothing have left here.

    :returns: the uuids of the servers whose data had come to this host
    """
    settled = manager.driver.settle_pmem_copies(context, manager.host)
    for each in settled:
        _release(manager, context, each)
    return {each.instance_uuid for each in settled
            if each.kind in ('receive', 'start')}


def _release(manager, context, ticket):
    """Give back what a move had allocated whose server has left for good.

    Nova does so at the end of confirming it, which may not have come. When a
    host was down, deleting the server gave back the server's own allocation
    only.
    """
    if ticket.kind != 'wipe' and _exists(context, ticket.instance_uuid):
        return
    try:
        manager.reportclient.delete_allocation_for_instance(
            context, ticket.migration_uuid, consumer_type='migration',
            force=True)
    except Exception:
        LOG.exception('The allocation of migration %(migration)s, whose '
                      'server is gone, could not be deleted. '
                      '"nova-manage placement audit" does so.',
                      {'migration': ticket.migration_uuid})


def _exists(context, instance_uuid):
    try:
        objects.Instance.get_by_uuid(context, instance_uuid)
    except exception.InstanceNotFound:
        return False
    return True


def _moves_here(context, host):
    """Yield migrations, with their servers, that a host has a part in."""
    uuids = set()
    for migration in objects.MigrationList.get_by_filters(context, {
            'host': host, 'status': [*LEAVING, 'confirming', 'reverting']}):
        if migration.migration_type in ('migration', 'resize'):
            uuids.add(migration.instance_uuid)
    for instance in objects.InstanceList.get_by_filters(
            context, {'host': host, 'task_state': list(RESIZING),
                      'deleted': False}, expected_attrs=[]):
        uuids.add(instance.uuid)
    for uuid in sorted(uuids):
        with contextlib.suppress(exception.InstanceNotFound,
                                 exception.MigrationNotFoundForInstance,
                                 exception.MigrationNotFound):
            instance = _find(context, uuid)
            if pmem_copy.is_wanted(instance):
                yield objects.Migration.get_by_id_and_instance(
                    context, instance.migration_context.migration_id,
                    uuid), instance


def _find(context, uuid):
    """Return an instance with all that a step needs; also a deleted one."""
    try:
        return objects.Instance.get_by_uuid(context, uuid, expected_attrs=[
            'flavor', 'info_cache', 'metadata', 'migration_context',
            'numa_topology', 'pci_devices', 'pci_requests', 'resources',
            'security_groups', 'system_metadata'])
    except exception.InstanceNotFound:
        return objects.Instance.get_by_uuid(
            context.elevated(read_deleted='yes'), uuid,
            expected_attrs=['migration_context'])


def _state(migration, instance):
    return (migration.status, migration.updated_at, instance.host,
            instance.vm_state, instance.task_state)


def next_step(host, migration, instance):
    """Say what a host has to do with a move that nobody works on.

    :returns: a function of manager, context, instance and migration, or None;
        and whether it is certain that there is no message on its way that
        somebody would begin to work on
    """
    if 'deleted' in instance and instance.deleted:
        return (_forget if migration.source_compute == host else None), True
    task = instance.task_state
    at_source = instance.host == migration.source_compute
    at_destination = instance.host == migration.dest_compute
    is_here = instance.host == host
    if task == task_states.RESIZE_REVERTING:
        if at_destination and is_here:
            return _revert, False
        if at_source and is_here:
            return _finish_reverting, True
    elif migration.status in LEAVING or migration.status == 'finished':
        if task in (task_states.RESIZE_MIGRATED, task_states.RESIZE_FINISH
                    ) or _has_lost_its_task(migration, instance):
            if at_destination and is_here:
                return (_send_back_alone,
                        task == task_states.RESIZE_FINISH)
        elif migration.status != 'finished' and at_source:
            if task == task_states.RESIZE_MIGRATING:
                if is_here:
                    return _take_back, True
            elif (task == task_states.RESIZE_PREP and not is_here and
                  migration.status == 'migrating'):
                # It waits for its turn there.
                return None, False
            elif task not in (task_states.DELETING, task_states.SOFT_DELETING):
                return _call_off, False
    elif migration.status == 'confirming':
        if migration.source_compute == host:
            return _confirm, False
    return None, False


def _has_lost_its_task(migration, instance):
    """Whether the source failed right after it had handed the server over.

    Then Nova clears the task state, and the destination does not begin.
    """
    return (migration.status == 'post-migrating' and
            instance.host == migration.dest_compute and
            instance.task_state is None and
            instance.vm_state != vm_states.RESIZED)


def _forget(manager, context, instance, migration):
    """The server was deleted while its host was down.

    Whoever deleted it gave back its own allocation only.
    """
    manager.reportclient.delete_allocation_for_instance(
        context, migration.uuid, consumer_type='migration', force=True)
    _fail(migration)


def _take_back(manager, context, instance, migration):
    """The source died, or could not bring the guest back then."""
    _bring_back(manager, context, instance, migration)
    end_migration(manager, context, instance, migration)
    instance.vm_state = _old_vm_state(instance)
    instance.task_state = None
    instance.progress = 0
    instance.save(expected_task_state=[task_states.RESIZE_MIGRATING])
    _tell(context, instance, migration)


def _call_off(manager, context, instance, migration):
    """The destination died before it could ask for the server."""
    end_migration(manager, context, instance, migration)
    if instance.task_state == task_states.RESIZE_PREP:
        instance.task_state = None
        instance.save(expected_task_state=[task_states.RESIZE_PREP])
    _tell(context, instance, migration)


def _send_back_alone(manager, context, instance, migration):
    """The destination died before the guest ran there."""
    _tell(context, instance, migration)
    _send_back(manager, context, instance, migration,
               _request_spec(context, instance))


def _revert(manager, context, instance, migration):
    """The destination died, or failed, or the message did not come."""
    was_asked_for = migration.status != 'error'
    request_spec = _request_spec(context, instance)
    if pmem_copy.has_left(instance):
        # All is done here, and wiped. It must not be done again: when the
        # move was within this host, the namespaces are those with the data
        # by now.
        manager.compute_rpcapi.finish_revert_resize(
            context, instance, migration, migration.source_compute,
            request_spec)
    else:
        manager.revert_resize(context, instance, migration, request_spec)
    if not was_asked_for:
        _fail(migration)


def _finish_reverting(manager, context, instance, migration):
    if instance.old_flavor is None:
        # It has its old flavor already.
        instance.old_flavor = instance.flavor
    manager.finish_revert_resize(context, instance, migration,
                                 _request_spec(context, instance))


def _confirm(manager, context, instance, migration):
    manager.confirm_resize(context, instance, migration)


def _request_spec(context, instance):
    """Return what was asked for; None where a compute can't look that up."""
    try:
        return objects.RequestSpec.get_by_instance_uuid(
            context, instance.uuid)
    except Exception:
        LOG.debug('Going on without the request spec.', exc_info=True,
                  instance=instance)
        return None


def _tell(context, instance, migration):
    """Let users see why the server is where it was."""
    error = exception.PMEMMoveInterrupted(
        migration_uuid=migration.uuid, host=migration.dest_compute)
    compute_utils.add_instance_fault_from_exc(context, instance, error)
