# SPDX-License-Identifier: Apache-2.0

"""What happens to a move that copies vPMEM data when one of its calls fails.

It is set right there: by the source as long as it has the server, by the
destination from then on. What can't be is left in a state from which
``pmem_recovery`` takes it up. Other moves behave as they always did.

A server on its way never shows ERROR, which means that all is over. So what
decorates the manager's methods stands below ``reverts_task_state``, and what
it handles goes no further: events and faults are recorded by then.
"""

import contextlib
import functools

from oslo_log import log as logging

from nova.compute import pmem_copy
from nova.compute import pmem_ends
from nova.compute import pmem_leftovers
from nova.compute import pmem_work
from nova.compute import task_states
from nova.compute import vm_states
from nova import exception
from nova.i18n import _
from nova import objects
from nova import thread_pool_factory
from nova.virt import hardware

LOG = logging.getLogger(__name__)


# The destination takes a server

@contextlib.contextmanager
def arrives_or_stays(manager, context, instance, flavor, node, request_spec):
    """Claim resources for a server; if that fails, it stays as it is.

    Wraps the claim. What earlier moves have left here is wiped first.

    :raises InstanceFaultRollback: with the failure, if it copies; or if what
        waits to be wiped can't be claimed, which is no reason to fail it
    """
    if hardware.get_vpmems(flavor) and manager.driver.has_pmem():
        pmem_leftovers.settle_for_a_while(manager, node)
        if (instance.host != manager.host and
                instance.uuid in manager.rt.tracked_migrations):
            manager.rt.drop_move_claim(context, instance, node)
    try:
        yield
    except exception.InstanceFaultRollback:
        raise
    except Exception as error:
        if pmem_copy.is_asked_for(request_spec) or (
                isinstance(error, exception.ComputeResourcesUnavailable) and
                manager.driver.unavailable_pmem_namespaces()):
            raise exception.InstanceFaultRollback(inner_exception=error)
        raise


def prepare(manager, context, instance, migration, request_spec):
    """Check the claimed vPMEM devices, and get them ready for a copy.

    Runs while the guest still runs on the source: what does not fit fails the
    claim, and the next host is tried.

    :raises InstanceFaultRollback: with the failure
    """
    try:
        if pmem_copy.is_asked_for(request_spec):
            instance.migration_context.copy_pmem_devices = True
            instance.save()
        manager.driver.prepare_pmem_copy(context, instance, migration)
    except Exception as error:
        raise exception.InstanceFaultRollback(inner_exception=error)


@pmem_work.only_for_copies
def starts_or_sends_back(call, manager, context, arguments):
    """Send the server back if its new host can't start it.

    Decorates ``ComputeManager.finish_resize``. The source still has the data,
    untouched, so the server goes on there; from the destination this is what
    reverting a finished move is. But a guest that may have run is not taken
    back to what was before it.
    """
    instance, migration = arguments['instance'], arguments['migration']
    with pmem_work.work_of(manager).on(
            instance.uuid, 'finish_resize') as alone, \
            pmem_work.keeping_state(instance):
        if not alone or not pmem_work.is_still(
                context, instance, migration, task_states.RESIZE_MIGRATED):
            LOG.warning('The message to start the server here comes twice, '
                        'or too late; nothing is done.', instance=instance)
            if alone:
                manager._end_pending_dest_resize_task(instance.uuid)
            return
        try:
            return call()
        except Exception as error:
            LOG.exception('Starting the server here, which came from '
                          '%(source)s, failed: %(error)s',
                          {'source': migration.source_compute,
                           'error': pmem_work.explained(error)},
                          instance=instance)
            if instance.vm_state == vm_states.RESIZED:
                # What came after it, like a notification, has failed.
                return
            go_on_or_send_back(manager, context, instance, migration,
                               arguments['request_spec'])


def go_on_or_send_back(manager, context, instance, migration, request_spec):
    try:
        if (instance.vm_state == vm_states.RESIZED or
                manager.driver.has_started_on_pmem(instance)):
            _go_on_here(manager, context, instance, migration)
        else:
            _send_back(manager, context, instance, migration, request_spec)
    except Exception:
        LOG.exception('What became of the server here could not be stored; '
                      'this host tries again each minute. Do not reset its '
                      'state: its data is intact here and on %(source)s.',
                      {'source': migration.source_compute},
                      instance=instance)


def _go_on_here(manager, context, instance, migration):
    """Finish a move whose guest has started: users may have it already."""
    # Not all that is set here was saved.
    instance.refresh()
    # It has run here, also when a start that fails has left nothing of it.
    instance.vm_state = vm_states.RESIZED
    instance.task_state = task_states.RESIZE_FINISH
    instance.save(expected_task_state=[
        None, task_states.RESIZE_MIGRATED, task_states.RESIZE_FINISH])
    if not pmem_work.goes_on(manager, instance) and (
            pmem_work.old_vm_state(instance) != vm_states.STOPPED):
        _try_to_start(manager, context, instance)
    manager._complete_volume_attachments(context, instance.get_bdms())
    migration.status = 'finished'
    migration.save()
    instance.task_state = None
    instance.save(expected_task_state=[task_states.RESIZE_FINISH])
    LOG.warning('The guest had started before the move was interrupted, so '
                'the move is finished. Its data is here; what it was when '
                'the move began is on %(source)s until the move is confirmed.',
                {'source': migration.source_compute}, instance=instance)


def _try_to_start(manager, context, instance):
    try:
        manager.driver.power_on(
            context, instance, manager.network_api.get_instance_nw_info(
                context, instance),
            manager._get_instance_block_device_info(context, instance))
    except Exception:
        LOG.exception('The guest may have run here and is off now, and could '
                      'not be started. Its data is here: start it when the '
                      'cause is gone, or revert the move.', instance=instance)


def _send_back(manager, context, instance, migration, request_spec):
    try:
        # From here on it is a server in a resize, whose namespaces on the
        # source are taken; and nobody can do anything else with it.
        instance.vm_state = vm_states.RESIZED
        instance.task_state = task_states.RESIZE_REVERTING
        instance.apply_migration_context()
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
                '%(source)s, where its data is.',
                {'source': migration.source_compute}, instance=instance)
    migration.status = 'reverting'
    migration.save()
    manager.revert_resize(context, instance, migration, request_spec)
    pmem_leftovers.fail(migration)


def let_source_go(manager, context, instance, migration):
    """Delete what the source has allocated for a failed move"""
    if pmem_copy.is_wanted(instance):
        return  # it goes back there, or on here
    LOG.info('The server stays here, in ERROR, so its allocation on source '
             'node %s is deleted. A hard reboot may start it.',
             migration.source_compute, instance=instance)
    manager._delete_allocation_after_move(context, instance, migration)


# The source sends it away

@pmem_work.only_for_copies
def leaves_in_its_turn(call, manager, context, arguments):
    """Send a server away when few enough others are copied from here.

    Decorates ``ComputeManager.resize_instance``. A server that waits has its
    guest running, and nobody waits with it.
    """
    instance, migration = arguments['instance'], arguments['migration']
    if not _is_to_leave(context, instance, migration):
        LOG.warning('The message to move the server comes too late; nothing '
                    'is done.', instance=instance)
        return
    # From here on it is clear that the message has come.
    migration.status = 'migrating'
    migration.save()
    send = functools.partial(
        _send_late, functools.partial(
            _send_away, call, manager, context, instance, migration),
        context, instance, migration)
    if pmem_work.work_of(manager).take_turn(instance.uuid, send):
        _spawn(manager, instance.uuid, send)
    else:
        LOG.info('The move waits for others from this host.',
                 instance=instance)


def _spawn(manager, instance_uuid, job):
    """Have a job done in its turn, and nobody wait for it."""
    with contextlib.ExitStack() as stack:
        # Until the pool has a thread for it, nobody else is to take it up.
        stack.enter_context(pmem_work.work_of(manager).on(instance_uuid))
        thread_pool_factory.spawn_on(
            thread_pool_factory.ExecutorType.LONG_TASK,
            _in_turn, manager, job, stack.pop_all())


def _in_turn(manager, job, noted):
    try:
        with noted:
            job()
    finally:
        following = pmem_work.work_of(manager).give_turn()
        if following is not None:
            _spawn(manager, *following)


def _is_to_leave(context, instance, migration):
    stored = objects.Migration.get_by_id(context, migration.id)
    return (stored.status in pmem_copy.LEAVING and
            stored.dest_compute == migration.dest_compute and
            pmem_work.is_still(context, instance, migration,
                               task_states.RESIZE_PREP))


def _send_late(send, context, instance, migration):
    """Send a server away in its turn, if it is still to go then."""
    try:
        if _is_to_leave(context, instance, migration):
            send()
        else:
            LOG.info('The server is not to move any more.', instance=instance)
    except exception.InstanceNotFound:
        LOG.info('The server was deleted while it waited.', instance=instance)
    except exception.InstanceFaultRollback as error:
        LOG.warning('The server was not moved, and goes on here: %s',
                    pmem_work.explained(error.inner_exception),
                    instance=instance)
    except Exception:
        LOG.exception('Moving the server failed.', instance=instance)


def _send_away(call, manager, context, instance, migration):
    before = pmem_work.old_vm_state(instance)
    with pmem_work.work_of(manager).on(instance.uuid), \
            pmem_work.keeping_state(instance):
        try:
            call()
        except exception.PMEMGuestNotBack:
            pmem_work.keep(context, instance, migration, 'migrating',
                           vm_state=before,
                           task_state=task_states.RESIZE_MIGRATING)


@contextlib.contextmanager
def goes_on_here_on_failure(manager, context, instance, migration):
    """Let the guest go on if its host can't send it away.

    Wraps what ``resize_instance`` does on the source. Until the server is the
    destination's, its disks can be put back in place and its vPMEM data was
    only read, so it can go on as if nothing had been asked.

    :raises InstanceFaultRollback: with the failure, when the guest is back
    """
    if pmem_copy.is_overlooked(context, instance):
        raise exception.InstanceFaultRollback(
            inner_exception=exception.PMEMCopyFailed(
                reason=_('the destination does not know how to copy')))
    copying = (_precopy(manager, context, instance, migration)
               if pmem_copy.is_wanted(instance) else contextlib.nullcontext())
    try:
        with copying:
            yield
    except exception.InstanceFaultRollback:
        # Refused before the guest was touched.
        raise
    except Exception as error:
        if not pmem_copy.is_wanted(instance):
            raise
        LOG.warning('Moving the server to %(host)s failed: %(error)s',
                    {'host': migration.dest_compute,
                     'error': pmem_work.explained(error)}, instance=instance)
        if _may_be_elsewhere(context, instance, migration):
            return
        try:
            # Not all that is set here was saved.
            instance.refresh()
            is_back = pmem_ends.bring_back(
                manager, context, instance, migration)
        except (exception.InstanceNotFound,
                exception.UnexpectedDeletingTaskStateError):
            LOG.info('The server was deleted while it was to move.',
                     instance=instance)
            raise error
        except Exception as reason:
            LOG.exception('Restarting the guest here after migration '
                          '%(migration)s to %(host)s failed; disks and vPMEM '
                          'are intact; retrying each minute. Do not reset its '
                          'state.', {'migration': migration.uuid,
                                     'host': migration.dest_compute},
                          instance=instance)
            raise exception.PMEMGuestNotBack(error=error, reason=reason)
        if not is_back:
            # A soft delete has ended it, and it stays so.
            raise error
        raise exception.InstanceFaultRollback(inner_exception=error)


def _precopy(manager, context, instance, migration):
    """Do what can be done while the guest runs.

    :returns: a context in which the copy can go on
    :raises InstanceFaultRollback: with the failure: the guest was not touched
    """
    copying = contextlib.ExitStack()
    try:
        copying.enter_context(manager.driver.precopied_pmem_devices(
            context, instance, migration,
            pmem_work.is_on(manager, instance)))
        return copying
    except Exception as error:
        with contextlib.suppress(exception.InstanceNotFound):
            if pmem_work.is_still(context, instance, migration,
                                  task_states.RESIZE_PREP):
                raise exception.InstanceFaultRollback(inner_exception=error)
        LOG.info('The server is not to move any more.', instance=instance)
        raise


def _may_be_elsewhere(context, instance, migration):
    """Whether a server may have been handed over, before its move failed."""
    try:
        current = objects.Instance.get_by_uuid(context, instance.uuid)
    except exception.InstanceNotFound:
        return False
    except Exception:
        # To store anything on a guess could undo what the other host does.
        LOG.exception('Whether %(host)s has the server by now is not known; '
                      'this host looks again each minute. Do not reset its '
                      'state.', {'host': migration.dest_compute},
                      instance=instance)
        return True
    if current.vm_state == vm_states.RESIZED or current.task_state in (
            task_states.RESIZE_MIGRATED, task_states.RESIZE_FINISH):
        LOG.warning('%(host)s owns the server now and will start it or revert '
                    'the move; not restarting it here.',
                    {'host': migration.dest_compute}, instance=instance)
        return True
    return False
