# SPDX-License-Identifier: Apache-2.0

"""Nobody else waits for a copy, and nobody pays for nothing."""

import sys
import threading

import fixtures

from nova import context
from nova.db.main import api as db_api
from nova.tests.functional.libvirt import pmem_kinds
from nova.tests.functional.libvirt import pmem_world

SOURCE, DESTINATION = pmem_kinds.HOSTS
OLD, NEW, SIZE = pmem_kinds.OLD, pmem_kinds.NEW, pmem_kinds.SIZE
MOVED, FREE = pmem_kinds.MOVED, pmem_kinds.FREE

#: What a service asks the database for, by way of the conductor.
QUERIES = (
    'instance_get_by_uuid', 'instance_get_all_by_filters_sort',
    'instance_get_all_by_filters', 'migration_get', 'migration_get_by_uuid',
    'migration_get_by_id_and_instance', 'migration_get_all_by_filters',
    'instance_extra_get_by_instance_uuid')


class Queries(fixtures.Fixture):
    """Notes what code about vPMEM asks the database for.

    :ivar asked: name of the function, context, and thread of each query
    """

    def _setUp(self):
        self.asked = []
        for name in QUERIES:
            self._wrap(name)

    def _wrap(self, name):
        original = getattr(db_api, name)

        def query(ctxt, *args, **kwargs):
            if self._is_ours(sys._getframe(1)):
                self.asked.append((name, ctxt, threading.get_ident()))
            return original(ctxt, *args, **kwargs)

        self.useFixture(fixtures.MockPatchObject(db_api, name, query))

    @staticmethod
    def _is_ours(frame):
        while frame is not None:
            path = frame.f_code.co_filename
            if 'pmem' in path and '/tests/' not in path:
                return True
            frame = frame.f_back
        return False


class PmemQueriesTests(pmem_kinds.KindTestBase):
    """Who asks the conductor, how often, and as whom."""

    def setUp(self):
        super().setUp()
        self.queries = self.useFixture(Queries())

    def test_host_without_namespaces_asks_for_nothing(self):
        with self._new_process('host3').running():
            self.start_compute('host3')
        manager = self.computes['host3'].manager
        self.queries.asked.clear()
        with self.in_service('host3'):
            for name, task in manager._periodic_tasks:
                if name.rpartition('.')[2] not in pmem_world.NOT_RUN:
                    self._run(task, manager)
        self.wait_until_quiet()
        self.assertEqual([], [name for name, __, __ in self.queries.asked])

    def test_end_of_a_live_migration_does_not_settle(self):
        self.take_server()
        self.move()
        user = context.RequestContext('user', 'another project')
        self.queries.asked.clear()
        for host in pmem_kinds.HOSTS:
            with self.in_service(host):
                self.computes[host].manager.update_available_resource(user)
        here = threading.get_ident()
        self.assertEqual([], [
            name for name, __, thread in self.queries.asked if thread == here])

    def test_strangers_are_looked_at_as_an_administrator(self):
        self.take_server()
        self.move()
        user = context.RequestContext('user', 'another project')
        with self.in_service(SOURCE):
            self.computes[SOURCE].manager.update_available_resource(user)
        self.run_periodic_tasks()
        self.wait_until_quiet()
        self.assertEqual([], [
            name for name, ctxt, __ in self.queries.asked
            if not ctxt.is_admin])

    def test_claim_does_not_ask_for_each_guest(self):
        """It has the claims' lock, for which others wait."""
        for host in pmem_kinds.HOSTS:
            self._count_of_a_boot(MOVED, host)
        one = self._count_of_a_boot(FREE, DESTINATION)
        # The first has met one guest less.
        self.assertLessEqual(one, self.first)

    def _count_of_a_boot(self, label, host):
        self.queries.asked.clear()
        self.boot(label, host=host)
        count = len(self.queries.asked)
        self.first = getattr(self, 'first', count)
        return count


class PmemWaitingTests(pmem_kinds.KindTestBase):
    """One server is copied, and others wait for their turn."""

    NUMBER = 4
    WORKERS = 2

    def configure(self):
        self.flags(executor_thread_pool_size=self.WORKERS)
        self.flags(pmem_copy_max_concurrent=1, group='libvirt')

    def setUp(self):
        super().setUp()
        self.servers = [self.boot(MOVED) for _ in range(self.NUMBER)]
        for server in self.servers:
            self.fill(server)
        self.hanging = [
            self.pmem.inject('hang', name, at=SIZE // 2)
            for name in self.pmem.names(DESTINATION) if '_moved_' in name]
        # Nobody is to move when there is no world any more.
        self.addCleanup(self.wait_until_quiet)
        self.addCleanup(self._release)

    def _release(self):
        for hanging in self.hanging:
            hanging.release()

    def _is_copying(self):
        return [call for call in self.pmem.calls('daxio')
                if '-o' in call['args'] and '-z' not in call['args']]

    def _busy(self):
        """Return how much the source has to do."""
        return len(self.process[SOURCE].busy)

    def _heard_of(self):
        """Return how many moves the source has heard of."""
        return len([each for server in self.servers
                    for each in self.migrations(server)
                    if each['status'] not in ('accepted', 'pre-migrating')])

    def test_others_are_moved_meanwhile(self):
        other = self.boot()
        for server in self.servers:
            self.ask_to_migrate(server)
        pmem_world.wait_until(self._is_copying, 'a copy')
        pmem_world.wait_until(
            lambda: self._heard_of() >= self.WORKERS, 'moves that wait')
        self.ask_to_migrate(other, copy=False)
        pmem_world.wait_until(
            lambda: self.status(other) == 'VERIFY_RESIZE', 'another move')
        self._release()
        for server in self.servers:
            pmem_world.wait_until(
                lambda: self.status(server) == 'VERIFY_RESIZE', 'its turn')

    def test_server_that_is_deleted_does_not_wait_on(self):
        first, second = self.servers[:2]
        self.ask_to_migrate(first)
        pmem_world.wait_until(self._is_copying, 'a copy')
        before = self._busy()
        names = self.namespaces_of(second)
        self.ask_to_migrate(second)
        pmem_world.wait_until(lambda: self._heard_of() == 2, 'one that waits')
        self.api.delete_server(second['id'])
        pmem_world.wait_until(
            lambda: self.show(second) is None, 'the end of a server')
        pmem_world.wait_until(
            lambda: self._busy() <= before, 'the end of a move that waits')
        self.assert_zero(*names)
