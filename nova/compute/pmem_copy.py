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

"""What the API and the compute manager decide about copying vPMEM data."""

import contextlib
import functools
import inspect

from oslo_concurrency import lockutils
from oslo_log import log as logging
from oslo_utils import excutils

from nova.compute import power_state
from nova.compute import task_states
from nova.compute import vm_states
from nova import context as nova_context
from nova import exception
from nova import objects
from nova import safe_utils
from nova.virt import hardware

LOG = logging.getLogger(__name__)


def check_request(context, instance, host_name, oldest, required):
    """Refuse a request that this deployment can't carry out.

    :param host_name: the host that was asked for, or None
    :param oldest: the lowest service version of all nova-compute
    :param required: the service version that knows how to copy
    :raises PMEMCopyOldCompute: if a nova-compute is too old; it would move the
        server and leave the data behind
    :raises PMEMCopyAcrossCells: if the host is in another cell
    """
    if oldest < required:
        raise exception.PMEMCopyOldCompute(found=oldest, required=required)
    if host_name is None:
        return
    try:
        host = objects.HostMapping.get_by_host(
            nova_context.get_admin_context(), host_name)
    except exception.HostMappingNotFound:
        raise exception.ComputeHostNotFound(host=host_name)
    server = objects.InstanceMapping.get_by_instance_uuid(
        context, instance.uuid)
    if host.cell_mapping.uuid != server.cell_mapping.uuid:
        raise exception.PMEMCopyAcrossCells(
            instance_uuid=instance.uuid, host=host_name)


def check_flavors(current_flavor, new_flavor):
    """Refuse a flavor that has no room for every vPMEM device.

    Their sizes are not known here: labels say nothing of sizes. The
    destination checks those.

    :raises PMEMCopyFewerDevices: if there are too few
    """
    current = len(hardware.get_vpmems(current_flavor))
    new = len(hardware.get_vpmems(new_flavor))
    if new < current:
        raise exception.PMEMCopyFewerDevices(
            flavor=new_flavor.name, new=new, current=current)


def is_wanted(instance):
    """Whether the move under way is to copy the server's vPMEM data."""
    move = instance.migration_context
    return (move is not None and 'copy_pmem_devices' in move and
            move.copy_pmem_devices)


@contextlib.contextmanager
def guest_back_on_failure(manager, context, instance, migration, network_info,
                          block_device_info):
    """Bring the guest back if its host can't send it away.

    Wraps the driver's ``migrate_disk_and_power_off`` on the source. Whatever
    fails there, the disks are back in place (the driver sees to that) and the
    vPMEM data was only read, so the guest can go on as if nothing had been
    asked. Moves that copy no vPMEM data behave as they always did.

    :raises InstanceFaultRollback: with the failure, when the guest is back
    """
    try:
        yield
    except exception.InstanceFaultRollback:
        # Refused before the guest was touched.
        raise
    except Exception as error:
        if not is_wanted(instance):
            raise
        LOG.warning('Moving the server away failed, bringing it back: %s',
                    error, instance=instance)
        try:
            with lockutils.lock(instance.uuid, lock_file_prefix='nova-'):
                _bring_back(manager, context, instance, migration,
                            network_info, block_device_info)
        except (exception.InstanceNotFound,
                exception.UnexpectedDeletingTaskStateError):
            LOG.info('The server was deleted while it was to move.',
                     instance=instance)
            raise error
        except Exception:
            LOG.exception('The server could not be brought back. Its disks '
                          'and vPMEM data are intact on this host; hard '
                          'reboot it when the cause is gone.',
                          instance=instance)
            raise error
        raise exception.InstanceFaultRollback(inner_exception=error)


def _bring_back(manager, context, instance, migration, network_info,
                block_device_info):
    # Deleting a server ends what runs for it, which is why we may be here.
    # It takes the same lock.
    current = objects.Instance.get_by_uuid(context, instance.uuid)
    if current.task_state != task_states.RESIZE_MIGRATING:
        raise exception.UnexpectedDeletingTaskStateError(
            instance_uuid=instance.uuid,
            expected={'task_state': [task_states.RESIZE_MIGRATING]},
            actual={'task_state': current.task_state})
    try:
        if manager.driver.get_info(instance).state == power_state.RUNNING:
            # It could not even be stopped.
            return
    except exception.InstanceNotFound:
        # The hypervisor has forgotten it; it will be defined anew.
        pass
    power_on = instance.system_metadata.get(
        'old_vm_state', vm_states.ACTIVE) != vm_states.STOPPED
    share_info = manager.share_manager.get_share_info(
        context, instance, check_status=False)
    manager.driver.finish_revert_migration(
        context, instance, network_info, migration, block_device_info,
        power_on, share_info=share_info)


def sends_back_on_failure(function):
    """Send the server back if its new host can't start it.

    Decorates ``ComputeManager.finish_resize``, outside of what records the
    failure in events, faults and states: those tell what happened. The source
    still has the data, untouched, so the server goes on there; from the
    destination this is what reverting a finished move is.
    """
    @functools.wraps(function)
    def decorated(manager, context, *args, **kwargs):
        try:
            return function(manager, context, *args, **kwargs)
        except Exception:
            with excutils.save_and_reraise_exception():
                call = inspect.getcallargs(
                    safe_utils.get_wrapped_function(function),
                    manager, context, *args, **kwargs)
                instance, migration = call['instance'], call['migration']
                # A guest that runs already is not taken away because of what
                # came after, like a notification.
                if is_wanted(instance) and (
                        instance.vm_state != vm_states.RESIZED):
                    _send_back(manager, context, instance, migration,
                               call['request_spec'])

    return decorated


def let_source_go(manager, context, instance, migration):
    """Delete what the source still has allocated for a failed move.

    Unless the server is going back there: then it needs that.
    """
    if is_wanted(instance):
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
        manager.driver.settle_pmem_copies(context, manager.host)
        instance.apply_migration_context()
        instance.save()
        migration.status = 'reverting'
        migration.save()
        manager.revert_resize(context, instance, migration, request_spec)
    except Exception:
        LOG.exception('The server could not be sent back. Its data is intact '
                      'on %(source)s; what is here may be wiped already. '
                      'Give its namespaces on %(source)s to nobody before '
                      'the server runs again with its data.',
                      {'source': migration.source_compute}, instance=instance)
    else:
        # Nobody asked for it to be reverted: the move has failed.
        migration.status = 'error'
        migration.save()


def end_migration(manager, context, instance, migration):
    """End a move whose source host died before it let the server go.

    The server stays, so what the destination holds for it is given back: its
    allocation here, its namespaces by the destination itself, which wipes
    them as soon as it sees that the migration is over.
    """
    if not is_wanted(instance):
        return
    LOG.warning('Ending migration %(migration)s, which this host had begun '
                'when it went down; the server stays here.',
                {'migration': migration.uuid}, instance=instance)
    migration.status = 'error'
    migration.save()
    try:
        manager._revert_allocation(context, instance, migration)
    except Exception:
        LOG.exception('The allocation of migration %(migration)s could not '
                      'be given back to the server. "nova-manage placement '
                      'audit" and "heal_allocations" mend that.',
                      {'migration': migration.uuid}, instance=instance)


@contextlib.contextmanager
def unharmed_by_dirt(driver):
    """Leave a server as it is if the last host can't take it yet.

    Wraps a claim. Namespaces that wait to be wiped can't be claimed, which
    comes from a move that failed, and is no reason to fail this server.

    :raises InstanceFaultRollback: with the failure of the claim
    """
    try:
        yield
    except exception.ComputeResourcesUnavailable as error:
        if driver.dirty_pmem_namespaces():
            raise exception.InstanceFaultRollback(inner_exception=error)
        raise
