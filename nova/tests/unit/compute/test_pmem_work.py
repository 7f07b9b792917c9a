# SPDX-License-Identifier: Apache-2.0

import ddt

from nova.compute import pmem_work
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
