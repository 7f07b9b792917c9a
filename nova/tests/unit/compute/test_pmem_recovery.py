# SPDX-License-Identifier: Apache-2.0

from unittest import mock

import ddt
import fixtures
from oslo_utils.fixture import uuidsentinel as uuids

from nova.compute import pmem_recovery
from nova.compute import pmem_work
from nova.compute import power_state
from nova import exception
from nova import objects
from nova.tests.unit.compute import pmem_base


#: host, status of the migration, host of the server, its task; what to do,
#: and whether that is certain.
STEPS = (
    ('host1', 'pre-migrating', 'host1', 'resize_prep', '_call_off', False),
    ('host2', 'pre-migrating', 'host1', 'resize_prep', '_call_off', False),
    ('host1', 'migrating', 'host1', 'resize_prep', '_call_off', False),
    ('host2', 'migrating', 'host1', 'resize_prep', None, False),
    ('host1', 'migrating', 'host1', None, '_call_off', True),
    ('host1', 'migrating', 'host1', 'rebooting', '_call_off', False),
    ('host2', 'migrating', 'host1', None, '_call_off', False),
    ('host2', 'migrating', 'host1', 'rebooting', '_call_off', False),
    ('host2', 'migrating', 'host1', 'deleting', None, False),
    ('host1', 'migrating', 'host1', 'resize_migrating', '_take_back', True),
    ('host2', 'migrating', 'host1', 'resize_migrating', None, False),
    ('host1', 'post-migrating', 'host1', 'resize_migrating', '_take_back',
     True),
    ('host1', 'post-migrating', 'host2', 'resize_migrated', None, False),
    ('host2', 'post-migrating', 'host2', 'resize_migrated',
     '_start_or_send_back', False),
    ('host2', 'post-migrating', 'host2', 'resize_finish',
     '_start_or_send_back', True),
    ('host2', 'post-migrating', 'host2', None, '_start_or_send_back',
     False),
    ('host1', 'post-migrating', 'host2', None, None, False),
    ('host2', 'post-migrating', 'host2', 'deleting', None, False),
    ('host2', 'finished', 'host2', 'resize_finish', '_start_or_send_back',
     True),
    ('host2', 'error', 'host2', 'resize_finish', '_start_or_send_back', True),
    ('host1', 'error', 'host1', 'resize_migrating', '_take_back', True),
    ('host1', 'finished', 'host2', 'resize_finish', None, False),
    ('host1', 'finished', 'host2', None, None, False),
    ('host2', 'finished', 'host2', None, None, False),
    ('host1', 'confirming', 'host2', None, '_confirm', False),
    ('host2', 'confirming', 'host2', None, None, False),
    ('host2', 'reverting', 'host2', 'resize_reverting', '_revert', False),
    ('host2', 'error', 'host2', 'resize_reverting', '_revert', False),
    ('host2', 'reverted', 'host2', 'resize_reverting', '_revert', False),
    ('host1', 'reverted', 'host2', 'resize_reverting', None, False),
    ('host1', 'reverted', 'host1', 'resize_reverting', '_finish_reverting',
     True),
    ('host2', 'reverted', 'host1', 'resize_reverting', None, False),
    ('host1', 'error', 'host1', None, None, False),
    ('host1', 'error', 'host1', 'resize_prep', '_call_off', False),
    ('host2', 'error', 'host1', 'resize_prep', None, False),
    ('host2', 'reverting', 'host2', None, None, False),
    ('host2', 'error', 'host1', None, None, False),
    ('host1', 'confirmed', 'host2', None, None, False),
)


@ddt.ddt
class NextStepTestCase(pmem_base.MoveTestCase):

    @ddt.data(*STEPS)
    @ddt.unpack
    def test_step(self, host, status, where, task, name, is_certain):
        self.migration.status = status
        self.instance.host, self.instance.task_state = where, task
        step, certainty = pmem_recovery.next_step(
            host, self.migration, self.instance)
        self.assertEqual(name, step and step.__name__)
        self.assertEqual(is_certain, certainty)

    def test_never_two_hosts_at_once(self):
        # But for what only ends the record, which may be done twice.
        for status in {step[1] for step in STEPS}:
            for where in ('host1', 'host2'):
                for task in {step[3] for step in STEPS}:
                    self.migration.status = status
                    self.instance.host = where
                    self.instance.task_state = task
                    steps = {pmem_recovery.next_step(
                        host, self.migration, self.instance)[0]
                        for host in ('host1', 'host2')} - {
                            None, pmem_recovery._call_off}
                    self.assertLessEqual(len(steps), 1)


@ddt.ddt
class TakeUpTestCase(pmem_base.MoveTestCase):

    def setUp(self):
        super().setUp()
        self.listed = self.useFixture(fixtures.MockPatch(
            'nova.objects.MigrationList.get_by_filters',
            return_value=[self.migration])).mock
        self.useFixture(fixtures.MockPatch(
            'nova.objects.InstanceList.get_by_filters', return_value=[]))
        self.useFixture(fixtures.MockPatch(
            'nova.objects.Migration.get_by_id_and_instance',
            return_value=self.migration))
        self.useFixture(fixtures.MockPatch(
            'nova.compute.utils.add_instance_fault_from_exc'))
        self.find.return_value = self.instance
        self.watch = pmem_recovery._Watch()
        self.now = 0
        self.useFixture(fixtures.MockPatch(
            'time.monotonic', lambda: self.now))

    def _take_up(self):
        pmem_recovery.take_up(
            self.manager, mock.sentinel.context, self.watch)

    def _stop_waiting(self):
        self.now += pmem_recovery.LOST_AFTER

    def _prepared(self):
        self.instance.task_state = 'resize_prep'
        self.migration.status = 'pre-migrating'

    def test_what_died_here_is_taken_back_at_once(self):
        self._take_up()
        self.assertEqual(1, self.revert.call_count)
        self.assertEqual(
            ('active', None, 'error'),
            (self.instance.vm_state, self.instance.task_state,
             self.migration.status))
        self.manager._revert_allocation.assert_called_once_with(
            mock.sentinel.context, self.instance, self.migration)

    def test_what_is_under_way_here_is_left_alone(self):
        with pmem_work.work_of(self.manager).on(self.instance.uuid):
            self._take_up()
        self.revert.assert_not_called()
        self._take_up()
        self.assertEqual(1, self.revert.call_count)

    def test_what_has_changed_since_it_was_read_is_left_alone(self):
        """What came before in the same round may have taken minutes."""
        later = self.instance.obj_clone()
        later.host, later.task_state = 'host2', 'resize_finish'
        self.find.side_effect = [self.instance, later]
        self._take_up()
        self.revert.assert_not_called()
        self.assertNotIn('taking it up', self.stdlog.logger.output)

    def test_server_that_is_gone_since_it_was_read(self):
        self.find.side_effect = [
            self.instance, exception.InstanceNotFound(instance_id='x')]
        self._take_up()
        self.revert.assert_not_called()

    def _arrived(self):
        self.manager.host = self.instance.host = 'host2'
        self.migration.status = 'post-migrating'
        self.instance.task_state = 'resize_migrated'
        self.useFixture(fixtures.MockPatch(
            'nova.objects.RequestSpec.get_by_instance_uuid'))

    def test_message_that_comes_as_it_is_taken_up(self):
        self._arrived()
        self._take_up()
        self._stop_waiting()

        def tell(*args):
            with pmem_work.work_of(self.manager).on(
                    self.instance.uuid, 'finish_resize'):
                self.in_another_thread(self._take_up_now)

        with mock.patch.object(pmem_recovery, '_tell', tell):
            self._take_up_now()
        self.assertEqual(1, self.manager.revert_resize.call_count)

    def _take_up_now(self):
        pmem_recovery._start_or_send_back(
            self.manager, mock.sentinel.context, self.instance,
            self.migration)

    @ddt.data((True, 0), (False, 1))
    @ddt.unpack
    def test_who_is_sent_back_is_told_and_nobody_else(self, started, told):
        self._arrived()
        self.manager.driver.has_started_on_pmem.return_value = started
        with mock.patch.object(pmem_recovery, '_tell') as tell:
            self._take_up_now()
        self.assertEqual(told, tell.call_count)

    def test_second_half_of_a_revert_that_comes_as_it_is_taken_up(self):
        """It connects volumes, which must not be disconnected then."""
        def finish(*args):
            self.in_another_thread(lambda: pmem_recovery._finish_reverting(
                self.manager, mock.sentinel.context, self.instance,
                self.migration))

        self.manager.finish_revert_resize.side_effect = finish
        pmem_recovery._finish_reverting(
            self.manager, mock.sentinel.context, self.instance,
            self.migration)
        self.assertEqual(1, self.manager.finish_revert_resize.call_count)
        self.assertEqual(
            1, self.manager._terminate_volume_connections.call_count)

    def test_time_counts_from_when_it_was_last_seen(self):
        """Who could see nothing for an hour has not seen it unchanged."""
        self._prepared()
        self._take_up()
        self.listed.side_effect = OSError('no database')
        self._take_up()
        self.listed.side_effect = None
        self._stop_waiting()
        self._take_up()
        self.assertEqual('pre-migrating', self.migration.status)

    def _moves_anew(self, labels='SMALL'):
        """Its confirm lacked its end, and it was asked to move again."""
        self.migration.status = 'confirming'
        self.instance.host, self.instance.task_state = 'host2', None
        self.instance.flavor = objects.Flavor(
            extra_specs={'hw:pmem': labels} if labels else {})
        self.instance.migration_context.migration_id = 8
        for __ in range(2):
            self._take_up()
            self._stop_waiting()

    def test_confirm_that_lacked_its_end_as_the_server_moved_anew(self):
        self._moves_anew()
        (self.manager.reportclient.delete_allocation_for_instance
         .assert_called_once_with(
             mock.ANY, uuids.migration, consumer_type='migration',
             force=True))
        self.assertEqual('confirmed', self.migration.status)
        self.manager.confirm_resize.assert_not_called()

    def test_placement_that_is_away_then(self):
        delete = self.manager.reportclient.delete_allocation_for_instance
        delete.side_effect = exception.AllocationDeleteFailed(
            consumer_uuid='x', error='y')
        self._moves_anew()
        self.assertEqual('confirming', self.migration.status)

    def test_server_without_vpmem_is_left_to_nova(self):
        self.instance.migration_context.copy_pmem_devices = False
        self._moves_anew(labels=None)
        self.assertEqual('confirming', self.migration.status)

    def test_confirm_of_another_kind_of_move_is_left_to_nova(self):
        self._moves_anew()
        self.migration.status = 'confirming'
        self.instance.migration_context.migration_id = 7
        self.instance.migration_context.copy_pmem_devices = False
        self._take_up()
        self._stop_waiting()
        self._take_up()
        self.manager.confirm_resize.assert_not_called()
        self.assertEqual('confirming', self.migration.status)

    def test_another_nova_compute_knows_nothing_of_it(self):
        after_restart = mock.Mock(host='host1')
        after_restart.driver.get_info.return_value.state = (
            power_state.SHUTDOWN)
        with pmem_work.work_of(self.manager).on(self.instance.uuid):
            pmem_recovery.take_up(
                after_restart, mock.sentinel.context, self.watch)
        self.assertEqual(
            1, after_restart.driver.finish_revert_migration.call_count)

    def test_message_may_be_on_its_way(self):
        self._prepared()
        self._take_up()
        self.now += pmem_recovery.LOST_AFTER - 1
        self._take_up()
        self.assertEqual('pre-migrating', self.migration.status)
        self.now += 1
        self._take_up()
        self.assertEqual('error', self.migration.status)
        self.assertIsNone(self.instance.task_state)

    def test_change_starts_the_wait_anew(self):
        self._prepared()
        self._take_up()
        self._stop_waiting()
        self.migration.status = 'accepted'
        self._take_up()
        self.assertEqual('accepted', self.migration.status)

    def test_other_moves_are_not_taken_up(self):
        self.instance.migration_context.copy_pmem_devices = False
        self._take_up()
        self.revert.assert_not_called()

    def test_failure_is_logged_and_tried_again(self):
        self.revert.side_effect = OSError('no hypervisor')
        self._take_up()
        self.assertIn('no hypervisor', self.stdlog.logger.output)
        self.revert.side_effect = None
        self._take_up()
        self.assertEqual('error', self.migration.status)

    def test_database_that_is_away(self):
        self.find.side_effect = OSError('no database')
        self._take_up()
        self.assertIn('no database', self.stdlog.logger.output)
        self.revert.assert_not_called()

    def test_server_that_is_gone(self):
        self.find.side_effect = exception.InstanceNotFound(instance_id='x')
        self.assertFalse(self._take_up())
        self.revert.assert_not_called()

    def test_one_that_can_not_be_looked_at_does_not_stop_the_others(self):
        # They are looked at in the order of their uuids.
        self.listed.return_value = [
            objects.Migration(instance_uuid=uuid, migration_type='resize',
                              status='migrating')
            for uuid in (uuids.instance, uuids.another)]
        self.find.side_effect = [
            ValueError('odd'), self.instance, self.instance]
        self.assertTrue(pmem_recovery.take_up(
            self.manager, mock.sentinel.context, self.watch))
        self.assertIn('odd', self.stdlog.logger.output)
        self.assertEqual('active', self.instance.vm_state)

    def test_revert_that_nova_has_forgotten_is_begun_anew(self):
        self.instance.vm_state = 'resized'
        self._reverting(task_state=None)
        self.assertEqual('resize_reverting', self.instance.task_state)
        self.assertEqual(1, self.manager.revert_resize.call_count)

    def _reverting(self, task_state='resize_reverting'):
        self.manager.host = self.instance.host = 'host2'
        self.instance.task_state = task_state
        self.migration.status = 'reverting'
        self.useFixture(fixtures.MockPatch(
            'nova.objects.RequestSpec.get_by_instance_uuid',
            side_effect=exception.RequestSpecNotFound(instance_uuid='x')))
        self._take_up()
        self._stop_waiting()
        self._take_up()

    def _has(self, name):
        return objects.ResourceList(objects=[objects.Resource(
            provider_uuid=uuids.provider, resource_class='CUSTOM_X',
            identifier=name)])

    def test_lost_revert_is_begun_anew(self):
        self.instance.resources = self._has('new')
        self.instance.migration_context.old_resources = self._has('old')
        self._reverting()
        self.manager.revert_resize.assert_called_once_with(
            mock.sentinel.context, self.instance, self.migration, None)

    def test_lost_second_half_does_not_repeat_the_first(self):
        # Its namespaces are those with the only good copy by now.
        self.instance.resources = self._has('old')
        self.instance.migration_context.old_resources = self._has('old')
        self._reverting()
        self.manager.revert_resize.assert_not_called()
        (self.manager.compute_rpcapi.finish_revert_resize
         .assert_called_once_with(
             mock.sentinel.context, self.instance, self.migration, 'host1',
             None))

    def test_guest_that_runs_again_on_the_source_is_not_started_twice(self):
        self.instance.task_state = 'resize_reverting'
        self.migration.status = 'reverted'
        self.manager.driver.get_info.return_value.state = power_state.RUNNING
        self._take_up()
        self.manager.finish_revert_resize.assert_not_called()
        self.assertEqual(('active', None), (
            self.instance.vm_state, self.instance.task_state))
        self.drop_migration_context.assert_called_once_with()

    def test_round_does_not_wait_for_a_wipe(self):
        """That is another job of the pool."""
        self.manager.driver.has_pmem.return_value = True
        pmem_recovery._round(self.manager, self.watch)
        self.manager.driver.settle_pmem_copies.assert_not_called()
        self.assertEqual('active', self.instance.vm_state)
        self.assertTrue(self.spawned)

    def test_one_round_at_a_time_and_none_without_vpmem(self):
        pmem_recovery.run(self.manager)
        self.assertEqual([], self.spawned)
        self.manager.driver.has_pmem.return_value = True
        with mock.patch('nova.thread_pool_factory.spawn_on') as spawn:
            spawn.return_value.done.return_value = False
            pmem_recovery.run(self.manager)
            pmem_recovery.run(self.manager)
        self.assertEqual(1, spawn.call_count)
