# SPDX-License-Identifier: Apache-2.0

import contextlib
from unittest import mock

import ddt
from oslo_utils.fixture import uuidsentinel as uuids
import testtools

from nova.compute import pmem_copy
from nova.compute import pmem_moves
from nova.compute import pmem_work
from nova.compute import power_state
from nova import exception
from nova.tests.unit.compute import pmem_base


# Steps of a manager, which does what a test has told it.

@pmem_moves.leaves_in_its_turn
def resize_instance(manager, context, instance, migration):
    manager.during()


@pmem_moves.starts_or_sends_back
def finish_resize(manager, context, instance, migration, request_spec):
    manager.during()


@ddt.ddt
class GoesOnHereTestCase(pmem_base.MoveTestCase):

    def _run(self, error):
        with pmem_moves.goes_on_here_on_failure(
                self.manager, mock.sentinel.context, self.instance,
                self.migration):
            if error:
                raise error

    def test_success(self):
        self._run(None)
        self.revert.assert_not_called()
        self.precopied.assert_called_once_with(
            mock.sentinel.context, self.instance, self.migration, False)

    def test_sender_that_waits_is_ended_before_the_guest_is_back(self):
        ends = self.precopied.return_value.__exit__
        ends.return_value = False
        self.revert.side_effect = lambda *_args, **_kwargs: (
            ends.assert_called_once())
        self.assertRaises(
            exception.InstanceFaultRollback, self._run, ValueError('broken'))
        self.revert.assert_called_once()

    def test_destination_that_knows_nothing_of_the_copy(self):
        """It is a Nova without the patch set, whatever its version says."""
        context = mock.Mock(request_id='req-1')
        self.instance.migration_context.copy_pmem_devices = False
        for wish, is_refused in (('req-0', False), ('req-1', True)):
            self.instance.system_metadata[pmem_copy.WISH] = wish
            with contextlib.ExitStack() as stack:
                if is_refused:
                    stack.enter_context(testtools.ExpectedException(
                        exception.InstanceFaultRollback))
                with pmem_moves.goes_on_here_on_failure(
                        self.manager, context, self.instance,
                        self.migration):
                    self.assertFalse(is_refused)
        self.precopied.assert_not_called()
        self.revert.assert_not_called()

    def test_guest_that_runs(self):
        self.manager.driver.get_info.return_value.state = power_state.RUNNING
        self._run(None)
        self.assertTrue(
            self.precopied.call_args.args[3])

    def _precopy_fails(self, error):
        self.precopied.side_effect = ValueError()
        self.assertRaises(error, self._run, None)
        self.revert.assert_not_called()

    def test_what_fails_early_is_a_refusal(self):
        self.current.task_state = 'resize_prep'
        self._precopy_fails(exception.InstanceFaultRollback)

    def test_server_that_is_not_to_move_any_more(self):
        """It is being deleted, or its state was reset; so it stays."""
        self.current.task_state = 'deleting'
        self._precopy_fails(ValueError)

    def test_server_that_is_gone(self):
        self.find.side_effect = exception.InstanceNotFound(instance_id='x')
        self._precopy_fails(ValueError)

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

    def test_database_that_does_not_tell_whose_it_is(self):
        """What it says later is right; what is stored on a guess is not."""
        self.find.side_effect = OSError('no database')
        self._run(ValueError('no message bus'))
        self.revert.assert_not_called()
        self.save.assert_not_called()
        self.assertEqual('migrating', self.migration.status)
        for text in 'no database', 'no message bus', 'is not known':
            self.assertIn(text, self.stdlog.logger.output)

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

    def test_server_that_was_soft_deleted_comes_back_off_and_stays_so(self):
        self.current.task_state, self.current.vm_state = None, 'soft-delete'
        self.assertRaises(ValueError, self._run, ValueError())
        self.assertFalse(self.revert.call_args.args[5])

    def test_guest_that_does_not_come_back_is_tried_again(self):
        self.revert.side_effect = OSError('second')
        self.manager.during = lambda: self._run(ValueError('first'))
        # As it is before anything has been begun.
        before = self.current.obj_clone()
        before.task_state = 'resize_prep'
        self.find.side_effect = [before, before, self.current, self.current]
        resize_instance(self.manager, mock.sentinel.context, self.instance,
                        self.migration)
        self.run_spawned()
        self.assertEqual(
            ('active', 'resize_migrating', 'migrating'),
            (self.instance.vm_state, self.instance.task_state,
             self.migration.status))
        self.assertIn('second', self.stdlog.logger.output)


class LateTestCase(pmem_base.MoveTestCase):
    """The server moves anew, by another move, when one's time comes."""

    def setUp(self):
        super().setUp()
        self.current.task_state = 'resize_prep'

    def _send(self):
        resize_instance(self.manager, mock.sentinel.context, self.instance,
                        self.migration)
        self.run_spawned()

    def _assert_not_sent(self, status):
        self.manager.during.assert_not_called()
        self.assertEqual(status, self.stored.status)

    def test_in_time(self):
        self._send()
        self.manager.during.assert_called_once_with()

    def test_message(self):
        self.stored.status = 'error'
        self.current.migration_context.migration_id = 8
        self._send()
        self._assert_not_sent('error')

    def test_message_when_the_next_one_has_no_context_yet(self):
        self.stored.status = 'error'
        self._send()
        self._assert_not_sent('error')

    def test_record_that_was_taken_for_another_destination(self):
        self.stored.dest_compute = 'host3'
        self._send()
        self._assert_not_sent('migrating')

    def test_turn(self):
        self.flags(group='libvirt', pmem_copy_max_concurrent=1)
        work = pmem_work.work_of(self.manager)
        self.assertTrue(work.take_turn(uuids.another, None))
        self._send()
        self.current.migration_context.migration_id = 8
        work.give_turn()[1]()
        self._assert_not_sent('migrating')

    def test_message_for_the_destination(self):
        self.current.task_state = 'resize_migrated'
        self.current.migration_context.migration_id = 8
        finish_resize(self.manager, mock.sentinel.context, self.instance,
                      self.migration, None)
        self._assert_not_sent('migrating')


@ddt.ddt
class FinishTwiceTestCase(pmem_base.MoveTestCase):

    def _finish(self):
        finish_resize(self.manager, mock.sentinel.context, self.instance,
                      self.migration, None)

    def test_message_that_comes_twice(self):
        self.current.task_state = 'resize_migrated'
        self.manager.during.side_effect = lambda: self.in_another_thread(
            self._finish)
        self._finish()
        self.assertEqual(1, self.manager.during.call_count)

    @ddt.data(None, 'resize_finish', 'resize_reverting', 'rebooting')
    def test_message_that_comes_too_late(self, task):
        self.current.task_state = task
        self.manager.during.side_effect = ValueError()
        self._finish()
        self.manager.revert_resize.assert_not_called()
        self.assertIn('too late', self.stdlog.logger.output)

    def _fail(self):
        self.current.task_state = 'resize_migrated'
        self.manager.during.side_effect = ValueError()
        self._finish()

    def test_failure_sends_it_back(self):
        self._fail()
        self.assertEqual(1, self.manager.revert_resize.call_count)
        self.assertEqual(
            ('resized', 'resize_reverting'),
            (self.instance.vm_state, self.instance.task_state))

    def test_guest_that_may_have_run_is_not_sent_back(self):
        self.manager.driver.has_started_on_pmem.return_value = True
        self._fail()
        self.manager.revert_resize.assert_not_called()
        self.assertEqual(
            ('resized', None, 'finished'),
            (self.instance.vm_state, self.instance.task_state,
             self.migration.status))
        # It is off, and was not before.
        self.assertEqual(1, self.manager.driver.power_on.call_count)

    def test_guest_that_has_run_and_is_lost_as_it_is_started_again(self):
        """A hard reboot forgets a guest before it defines it anew."""
        def lose(*_arguments):
            self.manager.driver.has_started_on_pmem.return_value = False
            raise ValueError('no storage')

        self.manager.driver.has_started_on_pmem.return_value = True
        self.manager.driver.power_on.side_effect = lose
        self.manager._complete_volume_attachments.side_effect = [
            OSError('no Cinder'), None]
        self._fail()
        self.assertEqual(('resized', 'resize_finish'), (
            self.instance.vm_state, self.instance.task_state))
        pmem_moves.go_on_or_send_back(self.manager, mock.sentinel.context,
                                      self.instance, self.migration, None)
        self.manager.revert_resize.assert_not_called()
        self.assertEqual(
            ('resized', None, 'finished'),
            (self.instance.vm_state, self.instance.task_state,
             self.migration.status))

    def test_guest_that_waits_for_its_network_is_resumed(self):
        self.manager.driver.has_started_on_pmem.return_value = True
        self.manager.driver.get_info.return_value.state = power_state.PAUSED
        self._fail()
        self.manager.driver.unpause.assert_called_once_with(self.instance)
        self.manager.driver.power_on.assert_not_called()
        self.assertEqual('resized', self.instance.vm_state)

    def test_guest_that_may_have_run_and_nobody_can_note_that(self):
        self.manager.driver.has_started_on_pmem.return_value = True
        self.save.side_effect = OSError('no database')
        self._fail()
        self.manager.revert_resize.assert_not_called()
        self.assertIn('no database', self.stdlog.logger.output)

    def test_it_is_not_in_error_meanwhile(self):
        self.manager.during.side_effect = lambda: self.assertTrue(
            pmem_work.keeps_its_state(self.instance))
        self.current.task_state = 'resize_migrated'
        self._finish()
        self.assertEqual(1, self.manager.during.call_count)
        self.assertFalse(pmem_work.keeps_its_state(self.instance))

    def test_other_moves_are_not_looked_at(self):
        self.instance.migration_context.copy_pmem_devices = False
        self._finish()
        self.assertEqual(1, self.manager.during.call_count)


class TooLateTestCase(pmem_base.MoveTestCase):

    def _resize(self):
        self.manager.during = mock.Mock()
        resize_instance(self.manager, mock.sentinel.context, self.instance,
                        self.migration)
        self.run_spawned()
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


class TurnTestCase(pmem_base.MoveTestCase):
    """Few servers are copied at once, and nobody waits with the others."""

    def setUp(self):
        super().setUp()
        self.current.task_state = 'resize_prep'

    def _resize(self):
        resize_instance(self.manager, mock.sentinel.context, self.instance,
                        self.migration)

    def test_second_waits_and_goes_when_the_first_has_gone(self):
        self.manager.during.side_effect = self._first
        self._resize()
        # Nobody waits for it, nor takes it up.
        self.manager.during.assert_not_called()
        self.assertTrue(pmem_work.work_of(self.manager).has(uuids.instance))
        self.run_spawned()
        self.assertEqual(1, self.manager.during.call_count)
        self.run_spawned()
        self.assertEqual(2, self.manager.during.call_count)
        self.assertFalse(pmem_work.work_of(self.manager).has(uuids.instance))

    def _first(self):
        self.manager.during.side_effect = None
        self._resize()
        self.assertIn('waits for others', self.stdlog.logger.output)
        self.assertEqual(1, self.manager.during.call_count)
        self.assertTrue(pmem_work.work_of(self.manager).has(uuids.instance))

    def test_failure_ends_a_turn(self):
        self.manager.during.side_effect = ValueError('no luck')
        self._resize()
        self.run_spawned()
        self.assertIn('no luck', self.stdlog.logger.output)
        self.assertFalse(pmem_work.work_of(self.manager).has(uuids.instance))
        self.assertTrue(pmem_work.work_of(self.manager).take_turn('x', None))

    def test_refusal_is_told_without_a_traceback(self):
        self.manager.during.side_effect = exception.InstanceFaultRollback(
            inner_exception=ValueError('no way'))
        self._resize()
        self.run_spawned()
        self.assertIn('was not moved, and goes on here: no way',
                      self.stdlog.logger.output)
        self.assertNotIn('Traceback', self.stdlog.logger.output)

    def _wait(self):
        work = pmem_work.work_of(self.manager)
        work.take_turn('other', None)
        self._resize()
        __, job = work.give_turn()
        return job

    def test_server_that_is_gone_when_its_turn_comes(self):
        job = self._wait()
        self.find.side_effect = exception.InstanceNotFound(instance_id='x')
        job()
        self.manager.during.assert_not_called()

    def test_server_that_is_not_to_move_any_more(self):
        job = self._wait()
        self.current.task_state = None
        job()
        self.manager.during.assert_not_called()
