# SPDX-License-Identifier: Apache-2.0

"""A guest that runs is never taken for one that did not start."""

import fixtures
from oslo_utils import importutils

from nova import exception
from nova import objects
from nova.tests.fixtures import pmem_process
from nova.tests.functional.libvirt import pmem_kinds
from nova.tests.functional.libvirt import pmem_world

SOURCE, DESTINATION = pmem_kinds.HOSTS
OLD, NEW = pmem_kinds.OLD, pmem_kinds.NEW
DRIVER, MANAGER = pmem_kinds.DRIVER, pmem_kinds.MANAGER


class PmemStartedOnDestinationTests(pmem_kinds.KindTestBase):
    """What has started on the destination is finished there.

    Between the guest's start and the state that says so its users write; who
    sends it back then gives that up.
    """

    def setUp(self):
        super().setUp()
        self.take_server()

    def _move_until_guest_starts(self, action):
        started = self.when_guest_starts(DESTINATION, self.server, action)
        self.ask_to_migrate()
        pmem_world.wait_until(started.is_set, 'the start of the guest')
        self.wait_until_quiet()
        self.diary.go_on()

    def test_destination_dies_right_after_the_start(self):
        self._move_until_guest_starts(lambda: self.kill(DESTINATION))
        self.restart(DESTINATION)
        self.assert_in_order('VERIFY_RESIZE', DESTINATION)

    def test_database_is_away_for_one_save(self):
        self._move_until_guest_starts(
            lambda: self.lose_database(DESTINATION, times=1))
        self.assert_in_order('VERIFY_RESIZE', DESTINATION)

    def test_database_is_away_for_long(self):
        outages = []
        self._move_until_guest_starts(
            lambda: outages.append(self.lose_database(DESTINATION)))
        self.run_periodic_tasks()
        self.wait_until_quiet()
        self.diary.go_on()
        outages[0].end()
        self.assert_in_order('VERIFY_RESIZE', DESTINATION)

    def test_volumes_can_not_be_completed(self):
        self.fail_next(MANAGER + '_complete_volume_attachments')
        self.ask_to_migrate()
        self.wait_until_quiet()
        self.assert_in_order('VERIFY_RESIZE', DESTINATION)

    def test_its_host_loses_power_and_can_not_start_it_again_at_once(self):
        """Starting it anew forgets the guest first, and then fails."""
        self._move_until_guest_starts(lambda: self.reboot(DESTINATION))
        self.hook(DRIVER + 'power_on', 'before', 'the start')
        self.at('the start', lambda: self.fail_next(
            DRIVER + '_create_guest_with_network'))
        self.fail_next(MANAGER + '_complete_volume_attachments')
        self.restart(DESTINATION)
        self.assert_in_order('VERIFY_RESIZE', DESTINATION)

    def test_it_can_be_reverted_and_confirmed_as_any_other(self):
        self._move_until_guest_starts(lambda: self.kill(DESTINATION))
        self.restart(DESTINATION)
        self.settle()
        self.ask_to_revert()
        self.assert_in_order('ACTIVE', SOURCE)
        self.move()
        self.ask_to_confirm()
        self.assert_in_order('ACTIVE', DESTINATION)


class PmemStartedOnSourceTests(pmem_kinds.KindTestBase):
    """A revert that has started the guest goes on from there.

    The real libvirt refuses to start it again; and what belongs to a guest
    that runs is not taken away from it.
    """

    def setUp(self):
        super().setUp()
        self.take_server()
        self.move()
        self.unplugged = []
        for name in ('unplug_vifs', '_disconnect_volume'):
            self._watch(DRIVER + name)

    def _watch(self, path):
        """Note when something is taken from the guest while it runs."""
        def called():
            if self.guest_runs(SOURCE, self.server):
                self.unplugged.append(path)

        *owner, name = path.split('.')
        original = getattr(importutils.import_class(
            '.'.join(owner)), name)

        def function(driver, *args, **kwargs):
            if driver is self.computes[SOURCE].driver:
                called()
            return original(driver, *args, **kwargs)

        self.useFixture(fixtures.MonkeyPatch(path, function))

    def _revert_until_guest_starts(self, action):
        started = self.when_guest_starts(SOURCE, self.server, action)
        self.ask_to_revert()
        pmem_world.wait_until(started.is_set, 'the start of the guest')
        self.wait_until_quiet()
        self.diary.go_on()

    def _assert_reverted(self):
        self.assert_in_order('ACTIVE', SOURCE)
        self.assertEqual([], self.unplugged)
        # It is like any other server again.
        self.move()
        self.assert_in_order('VERIFY_RESIZE', DESTINATION)

    def test_source_dies_right_after_the_start(self):
        self._revert_until_guest_starts(lambda: self.kill(SOURCE))
        self.restart(SOURCE)
        self._assert_reverted()

    def test_database_is_away_for_one_save(self):
        self._revert_until_guest_starts(
            lambda: self.lose_database(SOURCE, times=1))
        self._assert_reverted()

    def test_database_is_away_for_long(self):
        outages = []
        self._revert_until_guest_starts(
            lambda: outages.append(self.lose_database(SOURCE)))
        for _ in range(2):
            self.run_periodic_tasks()
            self.wait_until_quiet()
        outages[0].end()
        self._assert_reverted()

    def test_volumes_can_not_be_completed(self):
        # By then the migration context is gone.
        self.fail_next(MANAGER + '_complete_volume_attachments')
        self.ask_to_revert()
        self.wait_until_quiet()
        self._assert_reverted()

    def test_what_comes_last_fails(self):
        self.useFixture(_FailsOnce(
            MANAGER + '_notify_about_instance_usage', 'resize.revert.end'))
        self.ask_to_revert()
        self.wait_until_quiet()
        self._assert_reverted()


class PmemHandedOverTests(pmem_kinds.KindTestBase):
    """A handover that half happened ends on one of the hosts."""

    def setUp(self):
        super().setUp()
        self.take_server()

    def _lose_answer(self, task_state, for_long):
        """Let a save be done, and its answer not come."""
        outages = []
        original = objects.Instance.save

        def save(instance, *args, **kwargs):
            result = original(instance, *args, **kwargs)
            if (not outages and instance.uuid == self.server['id'] and
                    instance.task_state == task_state):
                outages.append(self.lose_database(
                    SOURCE, None if for_long else 0))
                raise pmem_process.database_is_away()
            return result

        self.useFixture(fixtures.MockPatchObject(
            objects.Instance, 'save', save))
        self.ask_to_migrate()
        pmem_world.wait_until(lambda: outages, 'the save')
        self.wait_until_quiet()
        self.run_periodic_tasks()
        self.wait_until_quiet()
        outages[0].end()
        self.settle()
        found = self.show(self.server)
        self.assertIn((found['status'], found['OS-EXT-SRV-ATTR:host']), (
            ('ACTIVE', SOURCE), ('VERIFY_RESIZE', DESTINATION)))
        self.assert_in_order(found['status'], found['OS-EXT-SRV-ATTR:host'])

    def test_answer_is_lost(self):
        self._lose_answer('resize_migrated', for_long=False)

    def test_answer_is_lost_and_the_database_stays_away(self):
        self._lose_answer('resize_migrated', for_long=True)

    def test_answer_is_lost_before_the_guest_is_stopped(self):
        self._lose_answer('resize_migrating', for_long=True)


class _FailsOnce(fixtures.Fixture):
    """Let a call fail, the first time that it has a certain argument."""

    def __init__(self, path, argument):
        super().__init__()
        self._path = path
        self._argument = argument
        self._failed = False

    def _setUp(self):
        *owner, name = self._path.split('.')
        original = getattr(importutils.import_class(
            '.'.join(owner)), name)

        def function(*args, **kwargs):
            if self._argument in args and not self._failed:
                self._failed = True
                raise exception.NovaException('fails as planned')
            return original(*args, **kwargs)

        self.useFixture(fixtures.MonkeyPatch(self._path, function))
