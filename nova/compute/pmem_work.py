# SPDX-License-Identifier: Apache-2.0

"""Who works on which move that copies vPMEM data, and what keeps its state."""

import collections
import contextlib
import functools
import inspect
import threading
import weakref

from oslo_log import log as logging
from oslo_utils import excutils

from nova.compute import pmem_copy
from nova.compute import pmem_leftovers
from nova.compute import power_state
from nova.compute import task_states
from nova.compute import vm_states
import nova.conf
from nova import exception
from nova import objects
from nova import safe_utils

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)


class _Work:
    """The servers that a nova-compute works on, and those that wait.

    ``Manager._in_progress_tasks`` knows neither what waits for its turn nor
    the steps of ``pmem_recovery``, which are no RPC.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._working = []
        self._free = CONF.libvirt.pmem_copy_max_concurrent
        self._waiting = collections.deque()

    @contextlib.contextmanager
    def on(self, instance_uuid, task=None):
        """Note that a server is being worked on.

        :param task: the name of the manager's method, if it is one that
            messages and ``pmem_recovery`` may begin at the same time
        :returns: whether no other thread does this very task for it
        """
        note = instance_uuid, task, threading.get_ident()
        with self._lock:
            alone = not any(other[:2] == note[:2] and other != note
                            for other in self._working)
            self._working.append(note)
        try:
            yield alone
        finally:
            with self._lock:
                self._working.remove(note)

    def has(self, instance_uuid):
        with self._lock:
            return any(uuid == instance_uuid for uuid, *__ in
                       [*self._working, *self._waiting])

    def take_turn(self, instance_uuid, job):
        """Take a turn to copy, or have a job wait for one."""
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            self._waiting.append((instance_uuid, job))
            return False

    def give_turn(self):
        """Give a turn to whoever waits longest; return which, and the job.

        None if nobody waits.
        """
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._free += 1
            return None


_WORK = weakref.WeakKeyDictionary()


def work_of(manager):
    return _WORK.setdefault(manager, _Work())


#: The servers whose state this thread takes care of.
_kept = threading.local()


@contextlib.contextmanager
def keeping_state(instance):
    """Leave the state of a server to us, whatever fails in the body."""
    before = getattr(_kept, 'uuid', None)
    _kept.uuid = instance.uuid
    try:
        yield
    finally:
        _kept.uuid = before


def keeps_its_state(instance):
    """Whether a server is not to be set to ERROR: a move takes it up."""
    return getattr(_kept, 'uuid', None) == instance.uuid


def is_taken_back_at_once(instance):
    """Whether a server that its host was sending away as it died goes on here.

    ``pmem_recovery`` takes back one that copies, and does not give up.
    """
    return (instance.task_state == task_states.RESIZE_MIGRATING and
            not pmem_copy.is_wanted(instance))


def may_resume(instance):
    """Whether a guest that ran when its host went down is started at once.

    One that is on its way is for ``pmem_recovery``: if it can't be started
    here, it must not look as if it never was.
    """
    return CONF.resume_guests_state_on_host_boot and not (
        (instance.task_state or '').startswith('resize_') and
        pmem_copy.is_wanted(instance))


def only_for_copies(handle):
    """Make a decorator of ``handle(call, manager, context, arguments)``.

    Moves that copy nothing are left alone. (What Nova takes for the decorated
    function is the first of what is used in here by its name.)
    """
    def decorator(function):
        @functools.wraps(function)
        def decorated(manager, context, *args, **kwargs):
            arguments = inspect.getcallargs(
                safe_utils.get_wrapped_function(function),
                manager, context, *args, **kwargs)
            call = functools.partial(
                function, manager, context, *args, **kwargs)
            pmem_copy.recall(context, arguments['instance'])
            if pmem_copy.is_wanted(arguments['instance']):
                return handle(call, manager, context, arguments)
            result = call()
            pmem_leftovers.settle_soon(manager)
            return result

        return decorated
    return decorator


def explained(error):
    """Return an error as operators are to read it."""
    if isinstance(error, (exception.ImageNotAuthorized,
                          exception.Unauthorized)):
        return ('%s (The copy may have outlasted the token of the request; '
                'see [service_user].)' % error)
    return error


def is_on(manager, instance):
    """Whether a guest runs: it could not even be stopped, say."""
    return _power_state(manager, instance) in (
        power_state.RUNNING, power_state.PAUSED)


def goes_on(manager, instance):
    """Have a guest go on that is on; say whether it is.

    Who has died may have launched it, and was waiting for its network.
    """
    state = _power_state(manager, instance)
    if state == power_state.PAUSED:
        manager.driver.unpause(instance)
    return state in (power_state.RUNNING, power_state.PAUSED)


def _power_state(manager, instance):
    try:
        return manager.driver.get_info(instance).state
    except exception.InstanceNotFound:
        # The hypervisor has forgotten it; it will be defined anew.
        return power_state.NOSTATE


def volumes(manager, context, bdms, connected):
    """Return the volumes that are connected to a host, or those that are not.
    """
    return [bdm for bdm in bdms if bdm.is_volume and bdm.attachment_id and
            connected == bool(manager.volume_api.attachment_get(
                context, bdm.attachment_id).get('connection_info'))]


def disconnect_volume(volume_api, context, instance, bdm):
    """Exchange the attachment of a volume for one without a connection.

    What the database names has to exist at Cinder: the server may have to go
    on with it.
    """
    old = bdm.attachment_id
    new = volume_api.attachment_create(
        context, bdm.volume_id, instance.uuid)['id']
    try:
        bdm.attachment_id = new
        bdm.save()
        volume_api.attachment_delete(context, old)
    except Exception:
        with excutils.save_and_reraise_exception():
            try:
                bdm.attachment_id = old
                bdm.save()
            finally:
                volume_api.attachment_delete(context, new)


def old_vm_state(instance):
    return instance.system_metadata.get('old_vm_state', vm_states.ACTIVE)


def is_still(context, instance, migration, task_state):
    """Whether a server is in a task state, and by this very move.

    A message may be so late that the server moves anew by then.

    :raises InstanceNotFound: if it was deleted
    """
    current = objects.Instance.get_by_uuid(
        context, instance.uuid, expected_attrs=['migration_context'])
    return (current.task_state == task_state and
            pmem_copy.is_move_of(current, migration))


#: The status of a move while it is being ended, and when it has ended so.
ENDS = {'reverting': 'reverted', 'confirming': 'confirmed'}


def keep(context, instance, migration, status, task_state,
         old_vm_state=None, **fields):
    """Set a failed move to what ``pmem_recovery`` looks for."""
    try:
        instance.refresh()
        if _is_over(instance, migration):
            end(migration, status)
            return
        if old_vm_state is not None:
            instance.system_metadata['old_vm_state'] = old_vm_state
        for name, value in fields.items():
            setattr(instance, name, value)
        instance.task_state = task_state
        instance.save(expected_task_state=[None, task_state])
        migration.status = status
        migration.save()
        instance.refresh()
        if _is_over(instance, migration):
            end(migration, status)
    except (exception.InstanceNotFound,
            exception.UnexpectedTaskStateError) as error:
        LOG.info('The move is not taken up again: %s', error,
                 instance=instance)
    except Exception:
        LOG.exception('The state of migration %(migration)s could not be '
                      'stored; it is found again by what the database says '
                      'now. Do not reset the state of the server.',
                      {'migration': migration.uuid}, instance=instance)


def _is_over(instance, migration):
    """Whether the other host has brought a move to its end meanwhile.

    What has failed here may have come after the message to it.
    """
    return not pmem_copy.is_move_of(instance, migration)


def end(migration, ending):
    """Store that a move is over, if it was being ended.

    :param ending: the status while that was so
    """
    if ending in ENDS:
        migration.status = ENDS[ending]
        migration.save()
