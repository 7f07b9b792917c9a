# SPDX-License-Identifier: Apache-2.0

from concurrent import futures
from unittest import mock

import ddt
import fixtures
from oslo_utils.fixture import uuidsentinel as uuids

from nova.compute import pmem_leftovers
from nova import exception
from nova.tests.unit.compute import pmem_base


@ddt.ddt
class SettleTestCase(pmem_base.MoveTestCase):

    def setUp(self):
        super().setUp()
        self.useFixture(fixtures.MockPatch(
            'nova.objects.Migration.get_by_uuid',
            return_value=self.migration))
        self.migration.status = 'error'
        self.manager.rt.compute_nodes = {'node1': None}
        self.delete = (
            self.manager.reportclient.delete_allocation_for_instance)

    def _settle(self, kind, state='open'):
        pmem_leftovers.settle(self.manager)
        closed = self.manager.driver.settle_pmem_copies.call_args.args[2]
        self.manager.rt.update_available_resource.assert_not_called()
        # By who has wiped, and as soon as he has.
        closed(mock.Mock(instance_uuid=uuids.instance, kind=kind, state=state,
                         migration_uuid=uuids.migration))

    def _assert_deleted(self):
        self.delete.assert_called_once_with(
            mock.ANY, uuids.migration, consumer_type='migration', force=True)

    def test_what_was_wiped_is_offered_at_once(self):
        self._settle('receive')
        self.manager.rt.update_available_resource.assert_called_once_with(
            mock.ANY, 'node1')
        # So a stop does not wait for it.
        self.manager._end_pending_dest_resize_task.assert_called_once_with(
            uuids.instance)
        self.delete.assert_not_called()

    def test_server_that_comes_here_by_another_move(self):
        """A stop has to wait for that one."""
        self.current.migration_context.migration_id = 8
        self._settle('receive')
        self.manager._end_pending_dest_resize_task.assert_not_called()

    def test_nothing_to_settle(self):
        pmem_leftovers.settle(self.manager)
        self.manager.rt.update_available_resource.assert_not_called()

    def test_records_of_all_tenants_are_looked_at(self):
        self._settle('receive')
        self.assertTrue(self.find.call_args.args[0].is_admin)

    def test_server_that_is_back(self):
        self._settle('hold')
        self.delete.assert_not_called()

    def test_server_that_has_left_for_good(self):
        self._settle('hold', 'over')
        self._assert_deleted()

    @ddt.data('hold', 'receive')
    def test_server_that_was_deleted_elsewhere(self, kind):
        self.find.side_effect = exception.InstanceNotFound(instance_id='x')
        self._settle(kind)
        self._assert_deleted()

    def test_move_that_is_taken_up_anew(self):
        """It had failed when its data was wiped."""
        self.migration.status = 'migrating'
        self._settle('receive')
        self.delete.assert_not_called()
        self.assertEqual('migrating', self.migration.status)

    def test_server_that_was_evacuated_in_mid_move(self):
        self.migration.status = 'migrating'
        self.current.host = 'host3'
        self._settle('receive')
        self._assert_deleted()
        self.assertEqual('error', self.migration.status)

    def test_placement_that_is_away(self):
        self.delete.side_effect = exception.AllocationDeleteFailed(
            consumer_uuid='x', error='no placement')
        self._settle('hold', 'over')
        self.assertIn('no placement', self.stdlog.logger.output)

    def _give_back(self, task_state=None, vm_state='active', held=True):
        """Return whether a server that is back has what it had allocated."""
        client = self.manager.reportclient
        client.get_allocs_for_consumer.return_value = {
            'allocations': {'source': {}} if held else {}}
        self.instance.task_state = task_state
        self.instance.vm_state = vm_state
        pmem_leftovers.settle(self.manager)
        give_back = self.manager.driver.settle_pmem_copies.call_args.args[1]
        return give_back(mock.Mock(migration_uuid=uuids.migration),
                         self.instance)

    def test_what_is_still_held_is_given_back(self):
        self.assertTrue(self._give_back())
        self.manager.reportclient.move_allocations.assert_called_once_with(
            mock.ANY, uuids.migration, uuids.instance)

    def test_what_was_given_back_already(self):
        self.assertTrue(self._give_back(held=False))
        self.manager.reportclient.move_allocations.assert_not_called()

    @ddt.data(('resize_reverting', 'resized'), ('resize_prep', 'active'),
              (None, 'resized'))
    @ddt.unpack
    def test_server_that_is_still_on_its_way(self, task_state, vm_state):
        self.assertFalse(self._give_back(task_state, vm_state))
        self.manager.reportclient.move_allocations.assert_not_called()

    @ddt.data('get_allocs_for_consumer', 'move_allocations')
    def test_placement_that_is_away_as_a_server_is_back(self, call):
        getattr(self.manager.reportclient, call).side_effect = (
            exception.AllocationMoveFailed(
                source_consumer='x', target_consumer='y', error='away'))
        self.assertFalse(self._give_back())
        self.assertIn('this host tries again each minute',
                      self.stdlog.logger.output)

    def test_one_round_and_then_another_one(self):
        self.manager.driver.has_pmem.return_value = True
        with mock.patch('nova.thread_pool_factory.spawn_on') as spawn:
            spawn.return_value.done.return_value = False
            first = pmem_leftovers.settle_soon(self.manager)
            self.assertIs(first, pmem_leftovers.settle_soon(self.manager))
            run, manager = spawn.call_args.args[1:]
        run(manager)
        self.assertEqual(
            2, self.manager.driver.settle_pmem_copies.call_count)

    def _settle_soon(self):
        """Have somebody ask for a round, in which nothing is found."""
        self.manager.driver.has_pmem.return_value = True
        with mock.patch('nova.thread_pool_factory.spawn_on') as spawn:
            pmem_leftovers.settle_soon(self.manager)
        __, run, manager = spawn.call_args.args
        run(manager)
        self.manager.rt.update_available_resource.assert_called_once_with(
            mock.ANY, 'node1')

    def test_what_the_background_has_wiped_meanwhile_is_offered(self):
        self._settle_soon()

    def test_claim_knows_what_is_free_though_tickets_do_not_tell(self):
        self.manager.driver.settle_pmem_copies.side_effect = OSError('no disk')
        self._settle_soon()

    @ddt.data('done', 'failed', 'running', 'none')
    def test_move_waits_for_a_while(self, state):
        """Then it knows what is free, however that has ended."""
        self.manager.driver.has_pmem.return_value = state != 'none'
        update = self.manager.rt.update_available_resource

        def wait(wipes, timeout):
            self.assertEqual([mock.sentinel.wipe], wipes)
            self.assertLessEqual(timeout, pmem_leftovers.PATIENCE)
            update.assert_not_called()

        with mock.patch('nova.thread_pool_factory.spawn_on',
                        return_value=futures.Future()) as spawn, \
                mock.patch.object(pmem_leftovers, 'PATIENCE', 0.1), \
                mock.patch('concurrent.futures.wait',
                           side_effect=wait) as waits:
            if state == 'done':
                spawn.return_value.set_result([mock.sentinel.wipe])
            elif state == 'failed':
                spawn.return_value.set_exception(OSError())
            pmem_leftovers.settle_for_a_while(self.manager, 'node2')
        self.assertEqual(state == 'done', waits.called)
        update.assert_called_once_with(mock.ANY, 'node2')

    def test_who_asks_as_a_round_ends_gets_another_one(self):
        """Though the future of that one is not done yet."""
        self.manager.driver.has_pmem.return_value = True
        with mock.patch('nova.thread_pool_factory.spawn_on') as spawn:
            spawn.side_effect = lambda *_: mock.Mock(
                done=mock.Mock(return_value=False))
            first = pmem_leftovers.settle_soon(self.manager)
            __, run, manager = spawn.call_args.args
            self.assertEqual(
                self.manager.driver.settle_pmem_copies.return_value,
                run(manager))
            self.assertIsNot(first, pmem_leftovers.settle_soon(self.manager))

    def test_host_without_vpmem(self):
        self.assertIsNone(pmem_leftovers.settle_soon(self.manager))
        self.assertEqual([], self.spawned)
