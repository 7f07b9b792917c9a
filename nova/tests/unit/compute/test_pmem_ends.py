# SPDX-License-Identifier: Apache-2.0

from unittest import mock

import ddt
import oslo_messaging as messaging
from oslo_utils.fixture import uuidsentinel as uuids

from nova.compute import pmem_ends
from nova import exception
from nova import objects
from nova.tests.unit.compute import pmem_base


# Steps of a manager, which does what a test has told it.

@pmem_ends.confirms_until_done
def confirm_resize(manager, context, instance, migration):
    try:
        manager.during()
    except Exception:
        migration.status = 'error'
        raise


@pmem_ends.reverts_until_done
def finish_revert_resize(manager, context, instance, migration):
    manager.during()


@pmem_ends.reverts_until_done
def revert_resize(manager, context, instance, migration):
    try:
        manager.during()
    except Exception:
        instance.vm_state, instance.task_state = 'error', None
        migration.status = 'error'
        raise


class ConfirmTestCase(pmem_base.MoveTestCase):

    def setUp(self):
        super().setUp()
        self.instance.vm_state, self.instance.task_state = 'resized', None
        self.migration.status = 'finished'
        self.stored.status = 'finished'

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
        self.assertEqual('confirmed', self.migration.status)
        self.drop_migration_context.assert_called_once_with()

    def test_server_that_moves_anew(self):
        def move():
            self.instance.migration_context = objects.MigrationContext(
                migration_id=self.migration.id + 1)

        self.refresh.side_effect = move
        self._confirm()
        self.drop_migration_context.assert_not_called()

    def test_server_that_was_deleted_meanwhile_is_cleared_away(self):
        self.refresh.side_effect = exception.InstanceNotFound(instance_id='x')
        self._confirm()
        self.assertEqual('confirming', self.migration.status)

    def test_what_was_confirmed_meanwhile_stays_so(self):
        self.stored.status = 'confirmed'
        self._confirm()
        self.assertEqual('finished', self.migration.status)

    def test_failure_leaves_it_as_it_was(self):
        self.assertEqual(('resized', 'confirming'), self._fails())
        self.assertEqual(
            'active', self.instance.system_metadata['old_vm_state'])

    def test_allocation_that_is_still_there(self):
        self.manager.reportclient.get_allocs_for_consumer.return_value = {
            'allocations': {uuids.provider: {}}}
        self.assertRaises(exception.AllocationDeleteFailed, self._confirm)
        self.assertEqual('confirming', self.migration.status)

    def test_failure_when_all_is_done(self):
        def forget():
            self.instance.migration_context = None

        self.refresh.side_effect = forget
        self.assertEqual(('resized', 'error'), self._fails())

    def test_database_that_is_away(self):
        self.refresh.side_effect = OSError('no database')
        self.assertEqual(('resized', 'error'), self._fails())


@ddt.ddt
class RevertTestCase(pmem_base.MoveTestCase):

    def setUp(self):
        super().setUp()
        self.current.task_state = 'resize_reverting'

    def _revert(self):
        revert_resize(self.manager, mock.sentinel.context, self.instance,
                      self.migration)

    def test_message_that_comes_twice(self):
        self.manager.during.side_effect = lambda: self.in_another_thread(
            self._revert)
        self._revert()
        self.assertEqual(1, self.manager.during.call_count)

    def test_message_that_comes_late(self):
        self.current.task_state = None
        self._revert()
        self.manager.during.assert_not_called()

    def test_message_that_comes_after_the_first_half(self):
        """On one host it would have the only good copy wiped."""
        has = objects.ResourceList(objects=[objects.Resource(
            provider_uuid=uuids.provider, resource_class='CUSTOM_X',
            identifier='old')])
        self.current.resources = has
        self.current.migration_context.old_resources = has
        self._revert()
        self.manager.during.assert_not_called()
        finish_revert_resize(self.manager, mock.sentinel.context,
                             self.instance, self.migration)
        self.assertEqual(1, self.manager.during.call_count)

    def test_database_that_is_away_at_the_beginning(self):
        """Who raises has the task state cleared, and nobody finds it again."""
        self.find.side_effect = messaging.MessagingTimeout()
        self._revert()
        self.manager.during.assert_not_called()
        self.save.assert_not_called()
        self.assertIn('it is tried again each minute',
                      self.stdlog.logger.output)

    def test_server_that_is_gone_at_the_beginning(self):
        self.find.side_effect = exception.InstanceNotFound(instance_id='x')
        self.assertRaises(exception.InstanceNotFound, self._revert)

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
        self.migration.status = self.stored.status = before
        self.manager.during.side_effect = self._is_back
        finish_revert_resize(self.manager, mock.sentinel.context,
                             self.instance, self.migration)
        self.assertEqual(after, self.migration.status)
        self.drop_migration_context.assert_called_once_with()

    def _is_back(self):
        self.instance.task_state = None

    def test_failure_of_the_second_half(self):
        self.migration.status = 'reverted'
        self.manager.during.side_effect = ValueError()
        finish_revert_resize(self.manager, mock.sentinel.context,
                             self.instance, self.migration)
        self.drop_migration_context.assert_not_called()
        self.assertEqual(('resize_reverting', 'reverted'),
                         (self.instance.task_state, self.migration.status))

    def test_failure_leaves_it_as_it_was(self):
        self.migration.status = 'reverting'
        self.manager.during.side_effect = ValueError()
        self._revert()
        self.assertEqual(
            ('resized', 'resize_reverting', 'reverting'),
            (self.instance.vm_state, self.instance.task_state,
             self.migration.status))
        self.assertEqual(
            'active', self.instance.system_metadata['old_vm_state'])

    @ddt.data(0, 1)
    def test_failure_after_the_other_half_was_asked_for(self, number):
        """It is over by now, or ends while that is noted down."""
        refreshed = iter(range(2))

        def forget():
            if next(refreshed) == number:
                self.instance.migration_context = None

        self.refresh.side_effect = forget
        self.migration.status = 'reverting'
        self.manager.during.side_effect = ValueError()
        self._revert()
        self.assertEqual('reverted', self.migration.status)
        self.assertEqual(number, self.save.call_count)

    @ddt.data(exception.InstanceNotFound(instance_id='x'),
              exception.UnexpectedDeletingTaskStateError(
                  instance_uuid='x', expected={}, actual={}),
              OSError('no database'))
    def test_failure_that_can_not_be_noted_down(self, error):
        self.save.side_effect = error
        self.manager.during.side_effect = ValueError()
        self._revert()
        self.assertEqual(1, self.manager.during.call_count)
