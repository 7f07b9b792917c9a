# SPDX-License-Identifier: Apache-2.0

"""What the API and the compute manager decide about copying vPMEM data."""

import contextlib

from oslo_utils import excutils

from nova.compute import task_states
from nova import context as nova_context
from nova import exception
from nova import objects
from nova.virt import hardware

#: A migration in one of these states is on its way to the destination, and
#: may still write there.
LEAVING = ('accepted', 'pre-migrating', 'migrating', 'post-migrating')

#: The task states of a server that is being deleted.
DELETING = (task_states.DELETING, task_states.SOFT_DELETING)

#: The key in a server's system metadata for the request that asks for a copy.
WISH = 'pmem_copy_request'


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


def note_wish(context, instance):
    """Note what is asked for where the source finds it.

    A destination that can copy notes it for the move, too. One that can't,
    whatever its service version says, does not: see ``is_overlooked``.
    """
    instance.system_metadata[WISH] = context.request_id


def is_overlooked(context, instance):
    """Whether a copy was asked for, and one of the hosts knows nothing of it.

    What an earlier request has noted does not count.
    """
    noted = instance.system_metadata.get(WISH)
    return (noted is not None and noted == context.request_id and
            instance.migration_context is not None and
            not is_wanted(instance))


def recall(context, instance):
    """Note again what a source has lost that does not know of it.

    Such a one has not copied anything, either: so somebody seems to listen
    still, for the destination.
    """
    if instance.task_state == task_states.RESIZE_MIGRATED and (
            is_overlooked(context, instance)):
        instance.migration_context.copy_pmem_devices = True
        instance.migration_context.pmem_copy_socket = 'lost'
        instance.save()


def check_flavors(current_flavor, new_flavor):
    """Refuse a flavor that has no room for every vPMEM device.

    Their sizes are not known here: labels say nothing of sizes. The
    destination checks those.

    :returns: whether there is anything to copy; a server that has no vPMEM
        moves like any other
    :raises PMEMCopyFewerDevices: if there are too few
    """
    current = len(hardware.get_vpmems(current_flavor))
    new = len(hardware.get_vpmems(new_flavor))
    if new < current:
        raise exception.PMEMCopyFewerDevices(
            flavor=new_flavor.name, new=new, current=current)
    return current > 0


def is_asked_for(request_spec):
    """Whether the request that is under way asks for a copy."""
    return ('copy_pmem_devices' in request_spec and
            request_spec.copy_pmem_devices)


def is_wanted(instance):
    """Whether the move under way is to copy the server's vPMEM data."""
    move = instance.migration_context
    return (move is not None and 'copy_pmem_devices' in move and
            move.copy_pmem_devices)


def is_move_of(instance, migration):
    """Whether a migration is the one whose context a server has.

    It has none when that is over, and another one when it moves anew.
    """
    move = instance.migration_context
    return move is not None and move.migration_id == migration.id


def has_moved_on(instance, migration):
    """Whether a server was evacuated since a migration began, or moves anew.

    Until it moves anew an evacuated one has this migration's context.
    """
    return instance.host not in (
        migration.source_compute, migration.dest_compute) or (
            not is_move_of(instance, migration))


def has_left(instance):
    """Whether a server has nothing on the destination of its move any more.

    That is when the first half of reverting it is done, and the second is not.
    Until then the server counts as one of the destination.
    """
    if not instance.resources:
        return False
    move = instance.migration_context
    return move is not None and _identifiers(
        instance.resources) == _identifiers(move.old_resources)


def _identifiers(resources):
    return {(resource.provider_uuid, resource.identifier)
            for resource in resources or []}


def check_stays(context, instance, deleting=(task_states.DELETING,)):
    """Check that a server is not being deleted, or was already.

    :param deleting: the task states in which that counts as being deleted
    :returns: the server as it is stored now
    :raises InstanceNotFound: if it was
    :raises UnexpectedDeletingTaskStateError: if it is being deleted
    """
    current = objects.Instance.get_by_uuid(context, instance.uuid)
    if current.task_state in deleting:
        raise exception.UnexpectedDeletingTaskStateError(
            instance_uuid=instance.uuid,
            expected={'task_state': [instance.task_state]},
            actual={'task_state': current.task_state})
    return current


def check_starts(context, instance):
    """Check that a server is still to start here.

    :raises InstanceNotFound: if it was deleted
    :raises UnexpectedTaskStateError: if it is being deleted, or somebody else
        goes on with it by now
    """
    current = check_stays(context, instance)
    if instance.task_state == task_states.RESIZE_FINISH != current.task_state:
        raise exception.UnexpectedTaskStateError(
            instance_uuid=instance.uuid,
            expected={'task_state': [instance.task_state]},
            actual={'task_state': current.task_state})


def confirm_on_deleting(api, context, instance, task_state):
    """Confirm the move of a server that is being deleted.

    Nova forgets then that it is being deleted. Should its host die meanwhile,
    it would start the guest again, on what is wiped by then.

    If its source can't, the server can be deleted again: Nova ignores a
    second request, since it takes the first one for being under way.

    :param task_state: what the server was in before
    """
    # It is forgotten when it is confirmed. Who has no vPMEM is not asked: that
    # may take another look into the database.
    copies = bool(hardware.get_vpmems(instance.flavor)) and is_wanted(instance)
    try:
        api._confirm_resize_on_deleting(context, instance)
    except Exception:
        with excutils.save_and_reraise_exception():
            if copies:
                _end_deleting(instance, task_state)
    if copies:
        # It is another one in the database by now.
        instance.task_state = instance.task_state
        instance.save()


def _end_deleting(instance, task_state):
    # The source may only have been late, and the server be gone by now.
    with contextlib.suppress(exception.InstanceNotFound,
                             exception.UnexpectedTaskStateError):
        current = objects.Instance.get_by_uuid(
            instance._context, instance.uuid)
        current.task_state = task_state
        current.save(expected_task_state=list(DELETING))
