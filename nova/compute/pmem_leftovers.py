# SPDX-License-Identifier: Apache-2.0

"""What moves have left on this host: wiped, given back, and offered again.

It is done by Nova's pool for long tasks, so nobody waits for it: one round at
a time looks at the tickets, and each wipe is by itself. Both are the driver's.
"""

from concurrent import futures
import contextlib
import functools
import threading
import time
import weakref

from oslo_log import log as logging

from nova.compute import pmem_copy
from nova.compute import vm_states
from nova import context as nova_context
from nova import exception
from nova import objects
from nova import thread_pool_factory

LOG = logging.getLogger(__name__)

#: Seconds that a move waits for what earlier ones have left here.
PATIENCE = 20


class _Rounds:
    """One round at a time, and another one if somebody asks meanwhile."""

    def __init__(self):
        self._lock = threading.Lock()
        self._running = None
        self._again = self._is_asked = False

    def ask(self, manager, is_asked):
        """Return the future of a round that begins from now on.

        Its result are the wipes that are under way by then.
        """
        with self._lock:
            self._is_asked |= is_asked
            if self._running is None or self._running.done():
                self._running = thread_pool_factory.spawn_on(
                    thread_pool_factory.ExecutorType.LONG_TASK,
                    self._run, manager)
            else:
                self._again = True
            return self._running

    def _run(self, manager):
        while True:
            with self._lock:
                is_asked, self._is_asked = self._is_asked, False
            wipes = settle(manager, is_asked)
            with self._lock:
                if not self._again:
                    # Who asks from now on gets another one, though the pool
                    # has not noticed yet that this one is done.
                    self._running = None
                    return wipes
                self._again = False


_ROUNDS = weakref.WeakKeyDictionary()


def settle_soon(manager, is_asked=True):
    """Have what moves have left here wiped and given back.

    :param is_asked: whether a move has just ended, see settle()
    :returns: a future; nothing on a host without vPMEM
    """
    if manager.driver.has_pmem():
        return _ROUNDS.setdefault(manager, _Rounds()).ask(manager, is_asked)


def settle_for_a_while(manager, node):
    """Give what an earlier move has left here the time of a usual wipe.

    In any case the resource tracker knows what is free on the node: a server
    that came and was deleted, or failed to come, between two updates still
    has what it was given, for it.
    """
    until = time.monotonic() + PATIENCE
    if asked := settle_soon(manager, is_asked=False):
        with contextlib.suppress(Exception):
            futures.wait(asked.result(PATIENCE), until - time.monotonic())
    refresh(manager, node)


def settle(manager, is_asked=False):
    """Wipe and give back what moves that came to nothing have left here.

    What was wiped is offered to the scheduler at once.

    :param is_asked: whether a move has just ended. What that has had wiped in
        the background may be done by now, and leaves no ticket.
    :returns: the futures of the wipes that are under way
    """
    # Records of all tenants are looked at.
    context = nova_context.get_admin_context()
    wipes = []
    try:
        wipes = manager.driver.settle_pmem_copies(
            context, functools.partial(_give_back, manager, context),
            functools.partial(_offer, manager, context))
    except Exception:
        LOG.exception('The tickets of vPMEM could not be looked at now; this '
                      'host tries again each minute.')
    if is_asked:
        _refresh_all(manager)
    return wipes


def _offer(manager, context, ticket):
    """Let others have what a ticket was about that is closed."""
    _release(manager, context, ticket)
    _refresh_all(manager)


def _give_back(manager, context, ticket, instance):
    """Have a server that is back hold what its move had allocated for it.

    Nova sees to that before, and goes on if placement can't be reached.

    :returns: whether that is so
    """
    if (instance.task_state is not None or
            instance.vm_state == vm_states.RESIZED):
        # What it has allocated while it moves is not for us to change.
        return False
    try:
        held = manager.reportclient.get_allocs_for_consumer(
            context, ticket.migration_uuid)
        if held['allocations']:
            manager.reportclient.move_allocations(
                context, ticket.migration_uuid, instance.uuid)
    except Exception:
        LOG.exception('What migration %(migration)s has allocated could not '
                      'be given back to the server now; this host tries again '
                      'each minute.', {'migration': ticket.migration_uuid},
                      instance=instance)
        return False
    return True


def _refresh_all(manager):
    for node in list(manager.rt.compute_nodes):
        refresh(manager, node)


def refresh(manager, node):
    """Have the resource tracker and the scheduler know what is free here."""
    try:
        manager.rt.update_available_resource(
            nova_context.get_admin_context(), node)
    except Exception:
        LOG.exception('The resources of %s could not be updated now; the '
                      'periodic task does so.', node)


def _release(manager, context, ticket):
    """Delete what a move had allocated that is over.

    Nova does so at the end of confirming it, which may not have come. When a
    host was down, deleting the server gave back the server's own allocation
    only; and who evacuates one does not look at its moves.
    """
    try:
        instance = _find(objects.Instance, context, ticket.instance_uuid,
                         expected_attrs=['migration_context'])
        migration = instance and _find(
            objects.Migration, context, ticket.migration_uuid)
        if instance is not None and migration is None:
            # It was evacuated.
            return
        if (migration is None or instance.migration_context is None or
                pmem_copy.is_move_of(instance, migration)):
            # It does not come here by another move.
            manager._end_pending_dest_resize_task(ticket.instance_uuid)
        if migration is not None:
            if migration.status in pmem_copy.LEAVING:
                if not pmem_copy.has_moved_on(instance, migration):
                    # It came to nothing, and is taken up anew by now.
                    return
                fail(migration)
            elif ticket.kind == 'receive' or ticket.state != 'over':
                return
        manager.reportclient.delete_allocation_for_instance(
            context, ticket.migration_uuid, consumer_type='migration',
            force=True)
    except Exception:
        LOG.exception('The allocation of migration %(migration)s, which is '
                      'over, could not be deleted. "nova-manage placement '
                      'audit" does so.',
                      {'migration': ticket.migration_uuid})


def fail(migration):
    """End a migration that nobody asked to be reverted."""
    migration.status = 'error'
    migration.save()


def _find(kind, context, uuid, **options):
    try:
        return kind.get_by_uuid(context, uuid, **options)
    except exception.NotFound:
        return None
