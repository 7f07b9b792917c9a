# SPDX-License-Identifier: Apache-2.0

"""How a move that copies vPMEM data ends.

It is reverted, or confirmed, until that is done; or it came to nothing, and
its guest goes on where it was.
"""

import contextlib

from oslo_concurrency import lockutils
from oslo_log import log as logging
from oslo_utils import excutils

from nova.compute import pmem_copy
from nova.compute import pmem_leftovers
from nova.compute import pmem_work
from nova.compute import task_states
from nova.compute import vm_states
from nova import exception
from nova import objects

LOG = logging.getLogger(__name__)


@pmem_work.only_for_copies
def reverts_until_done(call, manager, context, arguments):
    """Go back to the source until it is done.

    Decorates the two halves of reverting a move. A half that fails leaves the
    server as it was before, so that it can be taken up again; one that comes
    twice, because a message was only late, is ignored.
    """
    instance, migration = arguments['instance'], arguments['migration']
    kept, status = None, migration.status
    with pmem_work.work_of(manager).on(
            instance.uuid, call.func.__name__) as alone, \
            pmem_work.keeping_state(instance):
        try:
            if not alone or not pmem_work.is_still(
                    context, instance, migration,
                    task_states.RESIZE_REVERTING) or (
                        call.func.__name__ == 'revert_resize' and
                        pmem_copy.has_left(_as_stored(context, instance))):
                LOG.info('Somebody else has reverted the move, or does so.',
                         instance=instance)
                return
            kept = _what_goes_at_the_end(instance)
            call()
        except Exception as error:
            if kept is None and isinstance(error, exception.InstanceNotFound):
                raise
            LOG.exception('Reverting migration %(migration)s to %(source)s '
                          'failed; it is tried again each minute. The data '
                          'is intact there. Do not reset the state of the '
                          'server.',
                          {'migration': migration.uuid,
                           'source': migration.source_compute},
                          instance=instance)
            if kept is not None:
                pmem_work.keep(context, instance, migration, status,
                               vm_state=vm_states.RESIZED,
                               task_state=task_states.RESIZE_REVERTING, **kept)
            return
        if instance.host == manager.host == migration.source_compute and (
                instance.task_state != task_states.RESIZE_REVERTING):
            # The first half may have come to nothing after it had let go.
            _forget(instance, migration, 'reverting')
    # What the server had on the destination has been noted down.
    pmem_leftovers.settle_soon(manager)


def _as_stored(context, instance):
    """Return a server with the resources that it has by now."""
    return objects.Instance.get_by_uuid(
        context, instance.uuid,
        expected_attrs=['migration_context', 'resources'])


def _what_goes_at_the_end(instance):
    """Return what Nova removes even if it has failed."""
    return dict(old_flavor=instance.old_flavor,
                new_flavor=instance.new_flavor,
                old_vm_state=pmem_work.old_vm_state(instance))


def drop_context(instance):
    """Forget the move of a server; one that copies, only at its end.

    As long as there is something to be tried again, it tells what.
    """
    if not pmem_copy.is_wanted(instance):
        instance.drop_migration_context()


def note_confirmed(instance, migration):
    """Store that a move is confirmed; of one that copies, only at its end.

    If this host dies before, it has to know that there is something to do.
    """
    if not pmem_copy.is_wanted(instance):
        pmem_work.end(migration, 'confirming')


def _forget(instance, migration, ending):
    """Forget a move that is over, unless the server moves anew by now."""
    with contextlib.suppress(exception.InstanceNotFound):
        instance.refresh()
        _end_if(migration, ending)
        if pmem_copy.is_move_of(instance, migration):
            instance.drop_migration_context()
            # What has failed on the other host since may have set it back,
            # and sees from now on that it is over.
            _end_if(migration, ending)


def _end_if(migration, ending):
    current = objects.Migration.get_by_id(migration._context, migration.id)
    if current.status == ending:
        pmem_work.end(migration, ending)


def go_on_at_source(manager, context, instance, migration):
    """Do what is left of a revert whose guest runs on the source again.

    It must not be started twice: what would clean up after that failed, would
    take its network and volumes away.
    """
    manager._complete_volume_attachments(context, instance.get_bdms())
    instance.vm_state = vm_states.ACTIVE
    instance.task_state = None
    instance.save(expected_task_state=[task_states.RESIZE_REVERTING])
    manager._delete_stashed_flavor_info(instance)
    _forget(instance, migration, 'reverting')


@pmem_work.only_for_copies
def confirms_until_done(call, manager, context, arguments):
    """Confirm a move until it is done.

    Decorates ``ComputeManager.confirm_resize``. The server runs well where it
    is, and what it had on the source has to be wiped.
    """
    instance, migration = arguments['instance'], arguments['migration']
    with pmem_work.work_of(manager).on(instance.uuid), \
            pmem_work.keeping_state(instance):
        kept = _what_goes_at_the_end(instance)
        _begin_to_confirm(context, migration)
        try:
            call()
            _check_released(manager, context, migration)
            _forget(instance, migration, 'confirming')
        except Exception:
            with excutils.save_and_reraise_exception():
                if _is_known_as_moved(instance):
                    LOG.warning(
                        'Confirming migration %(migration)s failed; it is '
                        'retried each minute. The server\'s data is on '
                        '%(host)s.', {'migration': migration.uuid,
                                      'host': migration.dest_compute},
                        instance=instance)
                    # It may be as good as confirmed.
                    pmem_work.keep(context, instance, migration, 'confirming',
                                   task_state=None, **kept)
    pmem_leftovers.settle_soon(manager)


def _check_released(manager, context, migration):
    """Check that the source's allocation is gone.

    Who deletes one says nothing when placement can't be reached.

    :raises AllocationDeleteFailed: if it is still there
    """
    found = manager.reportclient.get_allocs_for_consumer(
        context, migration.uuid)
    if found['allocations']:
        raise exception.AllocationDeleteFailed(
            consumer_uuid=migration.uuid, error=found)


def _begin_to_confirm(context, migration):
    """Note that there is no way back, before anything is wiped.

    Who confirms has done so, but who deletes a server that was moved has not.
    If this host dies now, nobody may revert, and it takes this up again.
    """
    current = objects.Migration.get_by_id(context, migration.id)
    if current.status == 'finished':
        migration.status = 'confirming'
        migration.save()


def _is_known_as_moved(instance):
    """Whether a move that copies has not been forgotten yet."""
    try:
        instance.refresh()
        return pmem_copy.is_wanted(instance)
    except Exception:
        LOG.debug('What became of the move is not known.', exc_info=True,
                  instance=instance)
        return False


# It came to nothing

def bring_back(manager, context, instance, migration):
    """Have the guest where it was, as it was.

    :returns: whether the server is to go on; not, if it was soft deleted
    :raises UnexpectedDeletingTaskStateError: if it is being deleted
    """
    # Deleting a server ends what runs for it, which is why we may be here.
    # It takes the same lock.
    with lockutils.lock(instance.uuid, lock_file_prefix='nova-'):
        current = pmem_copy.check_stays(
            context, instance, pmem_copy.DELETING)
        is_wanted = current.vm_state != vm_states.SOFT_DELETED
        if not pmem_work.goes_on(manager, instance):
            _start_again(manager, context, instance, migration, is_wanted)
        return is_wanted


def _start_again(manager, context, instance, migration, power_on):
    bdms = instance.get_bdms()
    given_up = pmem_work.volumes(manager, context, bdms, connected=False)
    manager._update_volume_attachments(context, instance, given_up)
    manager.driver.finish_revert_migration(
        context, instance,
        manager.network_api.get_instance_nw_info(context, instance), migration,
        manager._get_instance_block_device_info(
            context, instance, refresh_conn_info=True, bdms=bdms),
        power_on and pmem_work.old_vm_state(instance) != vm_states.STOPPED,
        share_info=manager.share_manager.get_share_info(
            context, instance, check_status=False))
    manager._complete_volume_attachments(context, given_up)
