# SPDX-License-Identifier: Apache-2.0

from unittest import mock

import ddt
from oslo_utils.fixture import uuidsentinel as uuids

from nova.compute import pmem_work
from nova import test
from nova.tests.unit.compute import pmem_base


@ddt.ddt
class ResumeTestCase(pmem_base.MoveTestCase):
    """Guests that ran when their host went down."""

    def setUp(self):
        super().setUp()
        self.flags(resume_guests_state_on_host_boot=True)

    def test_operator_who_does_not_want_it(self):
        self.flags(resume_guests_state_on_host_boot=False)
        self.instance.task_state = None
        self.assertFalse(pmem_work.may_resume(self.instance))

    @ddt.data('resize_finish', 'resize_reverting')
    def test_one_on_its_way_is_for_who_takes_it_up(self, task_state):
        self.instance.task_state = task_state
        self.assertFalse(pmem_work.may_resume(self.instance))
        self.instance.migration_context.copy_pmem_devices = False
        self.assertTrue(pmem_work.may_resume(self.instance))

    @ddt.data(None, 'rebooting')
    def test_others_are_started(self, task_state):
        self.instance.task_state = task_state
        self.assertTrue(pmem_work.may_resume(self.instance))


class DisconnectVolumeTestCase(test.NoDBTestCase):

    def setUp(self):
        super().setUp()
        self.calls = mock.Mock()
        self.calls.attachment_create.return_value = {'id': 'new'}
        self.calls.bdm.attachment_id = 'old'

    def _disconnect(self):
        pmem_work.disconnect_volume(
            self.calls, mock.sentinel.context, mock.Mock(uuid=uuids.instance),
            self.calls.bdm)

    def _deleted(self):
        return [call.args[1] for call in
                self.calls.attachment_delete.call_args_list]

    def test_new_one_is_stored_before_the_old_one_is_deleted(self):
        self._disconnect()
        self.assertEqual(
            ['attachment_create', 'bdm.save', 'attachment_delete'],
            [name for name, *__ in self.calls.mock_calls])
        self.assertEqual('new', self.calls.bdm.attachment_id)
        self.assertEqual(['old'], self._deleted())

    def test_one_that_can_not_be_stored_is_not_left_at_cinder(self):
        self.calls.bdm.save.side_effect = OSError('away')
        self.assertRaises(OSError, self._disconnect)
        self.assertEqual(['new'], self._deleted())

    def test_old_one_that_can_not_be_deleted_stays(self):
        self.calls.attachment_delete.side_effect = [OSError('away'), None]
        self.assertRaises(OSError, self._disconnect)
        self.assertEqual('old', self.calls.bdm.attachment_id)
        self.assertEqual(2, self.calls.bdm.save.call_count)
        self.assertEqual(['old', 'new'], self._deleted())
