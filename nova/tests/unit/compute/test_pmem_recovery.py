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

import threading
from unittest import mock

import ddt
import fixtures
from oslo_utils.fixture import uuidsentinel as uuids

from nova.compute import pmem_recovery
from nova.compute import power_state
from nova import context
from nova import exception
from nova import objects
from nova import test


# Steps of a manager, which does what a test has told it.

@pmem_recovery.is_under_way
def a_step(manager, context, instance):
    manager.during()


@pmem_recovery.is_taken_back_later
def resize_instance(manager, context, instance, migration):
    try:
        manager.during()
    finally:
        # As Nova does.
        instance.vm_state, instance.task_state = 'error', None
        migration.status = 'error'


@pmem_recovery.is_confirmed_later
def confirm_resize(manager, context, instance, migration):
    try:
        manager.during()
    except Exception:
        instance.vm_state = migration.status = 'error'
        raise


@pmem_recovery.sends_back_on_failure
def finish_resize(manager, context, instance, migration, request_spec):
    manager.during()


@pmem_recovery.is_tried_again
def finish_revert_resize(manager, context, instance, migration):
    manager.during()


@pmem_recovery.is_tried_again
def revert_resize(manager, context, instance, migration):
    try:
        manager.during()
    except Exception:
        instance.vm_state, instance.task_state = 'error', None
        migration.status = 'error'
        raise


class RecoveryTestCase(test.NoDBTestCase):
    """A server that is to move from host1 to host2."""

    def setUp(self):
        super().setUp()
        self.manager = mock.Mock(host='host1')
        self.manager.driver.get_info.return_value.state = power_state.SHUTDOWN
        self.manager.driver.settle_pmem_copies.return_value = []
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
        for name in ('save', 'refresh'):
            setattr(self, name, self.useFixture(fixtures.MockPatch(
                'nova.objects.Instance.' + name)).mock)
        self.bdms = self.useFixture(fixtures.MockPatch(
            'nova.objects.Instance.get_bdms', return_value=[])).mock
        self.useFixture(fixtures.MockPatch('nova.objects.Migration.save'))
        self.current = objects.Instance(
            vm_state='active', task_state='resize_migrating')
        self.find = self.useFixture(fixtures.MockPatch(
            'nova.objects.Instance.get_by_uuid',
            return_value=self.current)).mock
        self.revert = self.manager.driver.finish_revert_migration


@ddt.ddt
class GoesOnHereTestCase(RecoveryTestCase):

    def _run(self, error):
        with pmem_recovery.goes_on_here_on_failure(
                self.manager, mock.sentinel.context, self.instance,
                self.migration):
            if error:
                raise error

    def test_success(self):
        self._run(None)
        self.revert.assert_not_called()

    def test_refusal_passes(self):
        self.assertRaises(
            exception.InstanceFaultRollback, self._run,
            exception.InstanceFaultRollback(ValueError()))
        self.revert.assert_not_called()

    def test_other_moves_fail_as_they_always_did(self):
        self.instance.migration_context.copy_pmem_devices = False
        self.assertRaises(ValueError, self._run, ValueError())
        self.revert.assert_not_called()

    @ddt.data(('active', True), ('stopped', False))
    @ddt.unpack
    def test_guest_comes_back_as_it_was(self, vm_state, power_on):
        self.instance.system_metadata['old_vm_state'] = vm_state
        failure = ValueError('broken')
        error = self.assertRaises(
            exception.InstanceFaultRollback, self._run, failure)
        self.assertIs(failure, error.inner_exception)
        manager = self.manager
        self.revert.assert_called_once_with(
            mock.sentinel.context, self.instance,
            manager.network_api.get_instance_nw_info.return_value,
            self.migration,
            manager._get_instance_block_device_info.return_value, power_on,
            share_info=manager.share_manager.get_share_info.return_value)

    def test_what_was_set_and_not_saved_is_forgotten_first(self):
        self.revert.side_effect = (
            lambda *a, **k: self.refresh.assert_called_once_with())
        self.assertRaises(
            exception.InstanceFaultRollback, self._run, ValueError())

    def test_volumes_that_were_let_go_are_connected_again(self):
        kept, let_go = [
            mock.Mock(is_volume=True, attachment_id=uuid)
            for uuid in (uuids.kept, uuids.let_go)]
        image = mock.Mock(is_volume=False)
        self.manager.volume_api.attachment_get.side_effect = (
            lambda context, uuid: {
                'connection_info': {'x': 1} if uuid == uuids.kept else None})
        self.bdms.return_value = [image, kept, let_go]
        self.assertRaises(
            exception.InstanceFaultRollback, self._run, ValueError())
        self.manager._update_volume_attachments.assert_called_once_with(
            mock.sentinel.context, self.instance, [let_go])
        self.manager._complete_volume_attachments.assert_called_once_with(
            mock.sentinel.context, [let_go])

    @ddt.data(('active', 'resize_migrated'), ('active', 'resize_finish'),
              ('resized', None))
    @ddt.unpack
    def test_server_that_is_the_destinations_is_not_touched(self, vm, task):
        self.current.vm_state, self.current.task_state = vm, task
        self._run(ValueError('no message bus'))
        self.revert.assert_not_called()
        self.assertIn('no message bus', self.stdlog.logger.output)

    def test_server_that_is_being_deleted_does_not_come_back(self):
        self.current.task_state = 'deleting'
        self.assertRaises(ValueError, self._run, ValueError())
        self.find.side_effect = exception.InstanceNotFound(instance_id='x')
        self.assertRaises(ValueError, self._run, ValueError())
        self.revert.assert_not_called()

    def test_task_that_was_cleared_meanwhile(self):
        # By the destination, after it had asked for the server.
        self.current.task_state = None
        self.assertRaises(
            exception.InstanceFaultRollback, self._run, ValueError())
        self.revert.assert_called_once()

    def test_guest_that_could_not_be_stopped_goes_on(self):
        self.manager.driver.get_info.return_value.state = power_state.RUNNING
        self.assertRaises(
            exception.InstanceFaultRollback, self._run, ValueError())
        self.revert.assert_not_called()

    def test_guest_that_does_not_come_back_is_tried_again(self):
        self.revert.side_effect = OSError('second')
        self.manager.during = lambda: self._run(ValueError('first'))
        # As it is before anything has been begun.
        self.find.side_effect = [
            objects.Instance(task_state='resize_prep'), self.current,
            self.current]
        error = self.assertRaises(
            exception.PMEMGuestNotBack, resize_instance, self.manager,
            mock.sentinel.context, self.instance, self.migration)
        self.assertIn('first', error.format_message())
        self.assertIn('second', error.format_message())
        self.assertEqual(
            ('active', 'resize_migrating', 'migrating'),
            (self.instance.vm_state, self.instance.task_state,
             self.migration.status))


class SettleTestCase(RecoveryTestCase):

    def _settle(self, kind):
        self.manager.driver.settle_pmem_copies.return_value = [
            mock.Mock(instance_uuid=uuids.instance, kind=kind,
                      migration_uuid=uuids.migration)]
        return pmem_recovery.settle(self.manager, mock.sentinel.context)

    def test_copies_to_here(self):
        for kind in ('receive', 'start'):
            self.assertEqual({uuids.instance}, self._settle(kind))
        (self.manager.reportclient.delete_allocation_for_instance
         .assert_not_called())

    def test_server_that_is_back(self):
        self.assertEqual(set(), self._settle('hold'))
        (self.manager.reportclient.delete_allocation_for_instance
         .assert_not_called())

    def test_server_that_has_left_for_good(self):
        self._settle('wipe')
        (self.manager.reportclient.delete_allocation_for_instance
         .assert_called_once_with(
             mock.sentinel.context, uuids.migration,
             consumer_type='migration', force=True))

    def test_server_that_was_deleted_elsewhere(self):
        self.find.side_effect = exception.InstanceNotFound(instance_id='x')
        delete = self.manager.reportclient.delete_allocation_for_instance
        for kind in ('hold', 'receive', 'start'):
            delete.reset_mock()
            self._settle(kind)
            delete.assert_called_once_with(
                mock.sentinel.context, uuids.migration,
                consumer_type='migration', force=True)
        delete.side_effect = exception.AllocationDeleteFailed(
            consumer_uuid='x', error='no placement')
        self._settle('hold')
        self.assertIn('no placement', self.stdlog.logger.output)


@ddt.ddt
class FinishTwiceTestCase(RecoveryTestCase):

    def _finish(self):
        finish_resize(self.manager, mock.sentinel.context, self.instance,
                      self.migration, None)

    def test_message_that_comes_twice(self):
        self.current.task_state = 'resize_migrated'
        self.manager.during.side_effect = self._finish
        self._finish()
        self.assertEqual(1, self.manager.during.call_count)

    @ddt.data(None, 'resize_finish', 'resize_reverting', 'rebooting')
    def test_message_that_comes_too_late(self, task):
        self.current.task_state = task
        self.manager.during.side_effect = ValueError()
        self._finish()
        self.manager.revert_resize.assert_not_called()
        self.assertIn('too late', self.stdlog.logger.output)

    def test_failure_sends_it_back(self):
        self.current.task_state = 'resize_migrated'
        self.manager.during.side_effect = ValueError()
        with mock.patch.object(pmem_recovery, '_send_back') as send_back:
            self.assertRaises(ValueError, self._finish)
        self.assertEqual(1, send_back.call_count)

    def test_other_moves_are_not_looked_at(self):
        self.instance.migration_context.copy_pmem_devices = False
        self._finish()
        self.assertEqual(1, self.manager.during.call_count)


class TooLateTestCase(RecoveryTestCase):

    def _resize(self):
        self.manager.during = mock.Mock()
        resize_instance(self.manager, mock.sentinel.context, self.instance,
                        self.migration)
        return self.manager.during.called

    def test_message_that_comes_too_late(self):
        self.current.task_state = None
        self.assertFalse(self._resize())
        self.assertEqual('active', self.instance.vm_state)
        self.assertIn('too late', self.stdlog.logger.output)

    def test_message_that_does_not(self):
        self.current.task_state = 'resize_prep'
        self.assertTrue(self._resize())

    def test_other_moves_are_not_looked_at(self):
        self.instance.migration_context.copy_pmem_devices = False
        self.current.task_state = None
        self.assertTrue(self._resize())


class TurnTestCase(RecoveryTestCase):

    def _turn(self):
        return pmem_recovery._its_turn(
            self.manager, self.instance, self.migration)

    def test_one_after_the_other(self):
        self.flags(pmem_copy_max_concurrent=1, group='libvirt')
        turns = pmem_recovery._moves_of(self.manager).turns
        with self._turn():
            self.assertFalse(turns.acquire(blocking=False))
            self.assertEqual('migrating', self.migration.status)
        self.assertTrue(turns.acquire(blocking=False))

    def test_as_many_as_the_deployer_says(self):
        self.flags(pmem_copy_max_concurrent=2, group='libvirt')
        with self._turn(), self._turn():
            pass

    def test_waiting(self):
        turns = pmem_recovery._moves_of(self.manager).turns
        turns.acquire()
        threading.Timer(0.01, turns.release).start()
        with self._turn():
            self.assertIn('waits for others', self.stdlog.logger.output)

    def test_failure_ends_it(self):
        self.assertRaises(ValueError, self._raise)
        self.assertTrue(pmem_recovery._moves_of(
            self.manager).turns.acquire(blocking=False))

    def _raise(self):
        with self._turn():
            raise ValueError()

    def test_other_moves_do_not_wait(self):
        self.instance.migration_context.copy_pmem_devices = False
        pmem_recovery._moves_of(self.manager).turns.acquire()
        with self._turn():
            pass


#: host, status of the migration, host of the server, its task; what to do,
#: and whether that is certain.
STEPS = (
    ('host1', 'pre-migrating', 'host1', 'resize_prep', '_call_off', False),
    ('host2', 'pre-migrating', 'host1', 'resize_prep', '_call_off', False),
    ('host1', 'migrating', 'host1', 'resize_prep', '_call_off', False),
    ('host2', 'migrating', 'host1', 'resize_prep', None, False),
    ('host2', 'migrating', 'host1', None, '_call_off', False),
    ('host2', 'migrating', 'host1', 'rebooting', '_call_off', False),
    ('host2', 'migrating', 'host1', 'deleting', None, False),
    ('host1', 'migrating', 'host1', 'resize_migrating', '_take_back', True),
    ('host2', 'migrating', 'host1', 'resize_migrating', None, False),
    ('host1', 'post-migrating', 'host1', 'resize_migrating', '_take_back',
     True),
    ('host1', 'post-migrating', 'host2', 'resize_migrated', None, False),
    ('host2', 'post-migrating', 'host2', 'resize_migrated',
     '_send_back_alone', False),
    ('host2', 'post-migrating', 'host2', 'resize_finish', '_send_back_alone',
     True),
    ('host2', 'post-migrating', 'host2', None, '_send_back_alone', False),
    ('host1', 'post-migrating', 'host2', None, None, False),
    ('host2', 'post-migrating', 'host2', 'deleting', None, False),
    ('host2', 'finished', 'host2', 'resize_finish', '_send_back_alone', True),
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
    ('host2', 'error', 'host1', None, None, False),
    ('host1', 'confirmed', 'host2', None, None, False),
)


@ddt.ddt
class NextStepTestCase(RecoveryTestCase):

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


class IsConfirmedLaterTestCase(RecoveryTestCase):

    def setUp(self):
        super().setUp()
        self.instance.vm_state, self.instance.task_state = 'resized', None
        self.migration.status = 'finished'
        self.stored = objects.Migration(status='finished')
        self.useFixture(fixtures.MockPatch(
            'nova.objects.Migration.get_by_id', return_value=self.stored))

    def _confirm(self):
        confirm_resize(self.manager, mock.sentinel.context, self.instance,
                       self.migration)

    def _fails(self):
        self.manager.during.side_effect = ValueError()
        self.assertRaises(ValueError, self._confirm)
        return self.instance.vm_state, self.migration.status

    def test_there_is_no_way_back_once_it_has_begun(self):
        self.manager.during.side_effect = lambda: self.assertEqual(
            'confirming', self.migration.status)
        self._confirm()
        self.manager.during.assert_called_once_with()

    def test_what_was_confirmed_meanwhile_stays_so(self):
        self.stored.status = 'confirmed'
        self._confirm()
        self.assertEqual('finished', self.migration.status)

    def test_failure_leaves_it_as_it_was(self):
        self.assertEqual(('resized', 'confirming'), self._fails())
        self.assertEqual(
            'active', self.instance.system_metadata['old_vm_state'])

    def test_failure_when_all_is_done(self):
        def forget():
            self.instance.migration_context = None

        self.refresh.side_effect = forget
        self.assertEqual(('error', 'error'), self._fails())

    def test_database_that_is_away(self):
        self.refresh.side_effect = OSError('no database')
        self.assertEqual(('error', 'error'), self._fails())


class TakeUpTestCase(RecoveryTestCase):

    def setUp(self):
        super().setUp()
        self.useFixture(fixtures.MockPatch(
            'nova.objects.MigrationList.get_by_filters',
            return_value=[self.migration]))
        self.useFixture(fixtures.MockPatch(
            'nova.objects.InstanceList.get_by_filters', return_value=[]))
        self.useFixture(fixtures.MockPatch(
            'nova.objects.Migration.get_by_id_and_instance',
            return_value=self.migration))
        self.useFixture(fixtures.MockPatch(
            'nova.compute.utils.add_instance_fault_from_exc'))
        self.find.return_value = self.instance
        self.now = 0
        self.useFixture(fixtures.MockPatch(
            'time.monotonic', lambda: self.now))

    def _take_up(self):
        pmem_recovery.take_up(self.manager, mock.sentinel.context)

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
        self.manager.driver.settle_pmem_copies.assert_called_once_with(
            mock.sentinel.context, 'host1')

    def test_what_is_under_way_here_is_left_alone(self):
        self.manager.during = self._take_up
        a_step(self.manager, mock.sentinel.context, self.instance)
        self.revert.assert_not_called()
        self._take_up()
        self.assertEqual(1, self.revert.call_count)

    def test_another_nova_compute_knows_nothing_of_it(self):
        after_restart = mock.Mock(host='host1')
        after_restart.driver.get_info.return_value.state = (
            power_state.SHUTDOWN)
        after_restart.driver.settle_pmem_copies.return_value = []
        self.manager.during = lambda: pmem_recovery.take_up(
            after_restart, mock.sentinel.context)
        a_step(self.manager, mock.sentinel.context, self.instance)
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

    def _delete(self, *found):
        self.find.side_effect = [
            exception.InstanceNotFound(instance_id='x'), *found]
        self.instance.deleted = True
        pmem_recovery.take_up(self.manager, context.get_admin_context())

    def test_server_that_is_gone_and_nobody_knows_what_it_was(self):
        self._delete(exception.InstanceNotFound(instance_id='x'))
        self.manager.driver.settle_pmem_copies.assert_not_called()

    def test_server_that_was_deleted_while_its_host_was_down(self):
        self._delete(self.instance)
        delete = self.manager.reportclient.delete_allocation_for_instance
        delete.assert_called_once_with(
            mock.ANY, uuids.migration, consumer_type='migration', force=True)
        self.assertEqual('error', self.migration.status)
        self.revert.assert_not_called()

    def test_server_that_was_deleted_is_for_its_source_to_forget(self):
        self.manager.host = 'host2'
        self._delete(self.instance)
        self.assertEqual('migrating', self.migration.status)

    def _reverting(self):
        self.manager.host = self.instance.host = 'host2'
        self.instance.task_state = 'resize_reverting'
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


@ddt.ddt
class IsTriedAgainTestCase(RecoveryTestCase):

    def setUp(self):
        super().setUp()
        self.current.task_state = 'resize_reverting'

    def _revert(self):
        revert_resize(self.manager, mock.sentinel.context, self.instance,
                      self.migration)

    def test_message_that_comes_twice(self):
        self.manager.during.side_effect = self._revert
        self._revert()
        self.assertEqual(1, self.manager.during.call_count)

    def test_message_that_comes_late(self):
        self.current.task_state = None
        self._revert()
        self.manager.during.assert_not_called()

    def test_other_moves_are_as_they_always_were(self):
        self.instance.migration_context.copy_pmem_devices = False
        self.current.task_state = None
        self.manager.during.side_effect = ValueError()
        self.assertRaises(ValueError, self._revert)
        self.assertEqual('error', self.instance.vm_state)

    @ddt.data(('reverting', 'reverted'), ('reverted', 'reverted'),
              ('error', 'error'))
    @ddt.unpack
    def test_second_half_ends_it(self, before, after):
        self.migration.status = before
        finish_revert_resize(self.manager, mock.sentinel.context,
                             self.instance, self.migration)
        self.assertEqual(after, self.migration.status)

    def test_failure_of_the_second_half(self):
        self.migration.status = 'reverted'
        self.manager.during.side_effect = ValueError()
        self.assertRaises(
            ValueError, finish_revert_resize, self.manager,
            mock.sentinel.context, self.instance, self.migration)
        self.assertEqual(('resize_reverting', 'reverted'),
                         (self.instance.task_state, self.migration.status))

    def test_failure_leaves_it_as_it_was(self):
        self.migration.status = 'reverting'
        self.manager.during.side_effect = ValueError()
        self.assertRaises(ValueError, self._revert)
        self.assertEqual(
            ('resized', 'resize_reverting', 'reverting'),
            (self.instance.vm_state, self.instance.task_state,
             self.migration.status))
        self.assertEqual(
            'active', self.instance.system_metadata['old_vm_state'])

    @ddt.data(exception.InstanceNotFound(instance_id='x'),
              exception.UnexpectedDeletingTaskStateError(
                  instance_uuid='x', expected={}, actual={}),
              OSError('no database'))
    def test_failure_that_can_not_be_noted_down(self, error):
        self.save.side_effect = error
        self.manager.during.side_effect = ValueError()
        self.assertRaises(ValueError, self._revert)
