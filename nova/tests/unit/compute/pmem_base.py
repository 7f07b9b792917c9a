# SPDX-License-Identifier: Apache-2.0

from concurrent import futures
from unittest import mock

import fixtures
from oslo_utils.fixture import uuidsentinel as uuids

from nova.compute import power_state
from nova import objects
from nova import test


class MoveTestCase(test.NoDBTestCase):
    """A server that is to move from host1 to host2."""

    def setUp(self):
        super().setUp()
        self.manager = mock.Mock(host='host1')
        self.precopied = self.manager.driver.precopied_pmem_devices = (
            mock.MagicMock())
        self.manager.driver.get_info.return_value.state = power_state.SHUTDOWN
        self.manager.driver.settle_pmem_copies.return_value = []
        self.manager.driver.has_pmem.return_value = False
        self.manager.driver.has_started_on_pmem.return_value = False
        self.manager.reportclient.get_allocs_for_consumer.return_value = {
            'allocations': {}}
        self.instance = objects.Instance(
            uuid=uuids.instance, host='host1', vm_state='active',
            task_state='resize_migrating',
            system_metadata={'old_vm_state': 'active'}, resources=None,
            flavor=objects.Flavor(), old_flavor=None, new_flavor=None,
            migration_context=objects.MigrationContext(
                migration_id=7, copy_pmem_devices=True, old_resources=None))
        self.migration = objects.Migration(
            id=7, uuid=uuids.migration, source_compute='host1',
            dest_compute='host2', status='migrating', updated_at=None,
            migration_type='migration', instance_uuid=uuids.instance)
        self.spawned = []
        self.useFixture(fixtures.MockPatch(
            'nova.thread_pool_factory.spawn_on',
            lambda kind, *args: self.spawned.append(args)))
        for name in ('save', 'refresh', 'drop_migration_context',
                     'apply_migration_context'):
            setattr(self, name, self.useFixture(fixtures.MockPatch(
                'nova.objects.Instance.' + name)).mock)
        self.bdms = self.useFixture(fixtures.MockPatch(
            'nova.objects.Instance.get_bdms', return_value=[])).mock
        # What the database has of the migration.
        self.stored = objects.Migration(
            status='migrating', dest_compute='host2')
        self.useFixture(fixtures.MockPatch(
            'nova.objects.Migration.save', side_effect=self._store))
        self.useFixture(fixtures.MockPatch(
            'nova.objects.Migration.get_by_id', return_value=self.stored))
        self.current = objects.Instance(
            host='host1', vm_state='active', task_state='resize_migrating',
            resources=None,
            migration_context=self.instance.migration_context.obj_clone())
        self.find = self.useFixture(fixtures.MockPatch(
            'nova.objects.Instance.get_by_uuid',
            return_value=self.current)).mock
        self.revert = self.manager.driver.finish_revert_migration

    def run_spawned(self):
        """Do what was left to Nova's pool so far."""
        jobs, self.spawned[:] = self.spawned[:], []
        for run, *arguments in jobs:
            run(*arguments)

    @staticmethod
    def in_another_thread(function):
        """Do something where a message is handled that comes meanwhile."""
        with futures.ThreadPoolExecutor(1) as pool:
            pool.submit(function).result()

    def _store(self):
        self.stored.status = self.migration.status
