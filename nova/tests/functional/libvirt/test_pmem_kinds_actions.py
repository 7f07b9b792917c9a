# SPDX-License-Identifier: Apache-2.0

"""What else is done with a server while it moves.

Each has a result in which the good copy of its data survives.
"""

import ddt
import fixtures

from nova import exception
from nova.network import neutron
from nova.tests.fixtures import pmem_process
from nova.tests.functional.api import client as api_client
from nova.tests.functional.libvirt import pmem_invariant
from nova.tests.functional.libvirt import pmem_kinds
from nova.tests.functional.libvirt import pmem_world

SOURCE, DESTINATION = pmem_kinds.HOSTS
OLD, NEW, SIZE = pmem_kinds.OLD, pmem_kinds.NEW, pmem_kinds.SIZE
DRIVER, MANAGER = pmem_kinds.DRIVER, pmem_kinds.MANAGER


class _Base(pmem_kinds.KindTestBase):

    def setUp(self):
        super().setUp()
        self.take_server()

    def hang(self):
        """Begin a move, and stop in mid-copy."""
        self.hanging = self.pmem.inject('hang', NEW, at=SIZE // 2)
        self.addCleanup(self.hanging.release)
        self.ask_to_migrate()
        self.hanging.wait(pmem_world.PATIENCE)

    def go_on(self):
        self.hanging.release()
        self.wait_until_quiet()

    def accepted(self, action, *args):
        """Ask for something; say whether the API takes it."""
        try:
            action(*args)
        except api_client.OpenStackApiException as error:
            self.assertIn(error.response.status_code, (400, 409))
            return False
        return True

    def assert_data_survives(self):
        self.assertEqual([], pmem_invariant.settle(self, self.server))
        self.assertIn(self.diary.on(OLD), [
            self.pmem.digest(name) for name in (OLD, NEW)])


class PmemSoftDeleteTests(_Base):
    """A server that is deleted softly can be restored with its data."""

    def configure(self):
        self.flags(reclaim_instance_interval=600)

    def _restore(self, host):
        self.settle()
        self.assertEqual('SOFT_DELETED', self.status(self.server))
        self.act(self.server, 'restore')
        self.wait_until_quiet()
        found = self.show(self.server)
        self.assertEqual(('ACTIVE', host), (
            found['status'], found['OS-EXT-SRV-ATTR:host']))
        self.assert_in_order('ACTIVE', host)

    def test_in_mid_copy(self):
        self.hang()
        deleted = self.accepted(self.api.delete_server, self.server['id'])
        self.go_on()
        if deleted:
            self._restore(SOURCE)
        else:
            self.assert_in_order('VERIFY_RESIZE', DESTINATION)

    def test_while_it_is_to_be_confirmed(self):
        self.move()
        self.api.delete_server(self.server['id'])
        self.wait_until_quiet()
        self._restore(DESTINATION)


class PmemResetStateTests(_Base):
    """An administrator resets the state."""

    def test_in_mid_copy_with_the_source_dead(self):
        self.hang()
        self.kill(SOURCE)
        self.act(self.server, 'os-resetState', {'state': 'error'})
        self.go_on()
        self.restart(SOURCE)
        self.wait_until_quiet()
        self.assert_data_survives()

    def test_in_mid_copy(self):
        self.hang()
        self.act(self.server, 'os-resetState', {'state': 'active'})
        self.go_on()
        self.assert_data_survives()
        self.assertEqual([], self.diary.surprises)

    def test_while_it_is_to_be_confirmed(self):
        self.move()
        self.act(self.server, 'os-resetState', {'state': 'active'})
        self.settle()
        found = self.show(self.server)
        self.assertEqual(('ACTIVE', DESTINATION), (
            found['status'], found['OS-EXT-SRV-ATTR:host']))
        self.assertEqual(self.diary.on(NEW), self.pmem.digest(NEW))
        # It is hard rebooted, as is usual then, and deleted in the end.
        self.act(self.server, 'reboot', {'type': 'HARD'})
        self.settle()
        self.assertEqual([], self.diary.surprises)
        self.assertEqual(self.diary.on(NEW), self.pmem.digest(NEW))
        self.api.delete_server(self.server['id'])
        self.settle()
        self.assert_zero(OLD, NEW)


class PmemOtherActionsTests(_Base):

    def test_confirm_by_the_clock_while_the_source_is_down(self):
        self.flags(resize_confirm_window=1)
        self.move()
        self.kill(SOURCE)
        for _ in range(2):
            self.run_periodic_tasks()
            self.wait_until_quiet()
        self.restart(SOURCE)

        def confirmed():
            self.run_periodic_tasks()
            self.wait_until_quiet()
            return self.status(self.server) == 'ACTIVE'

        pmem_world.wait_until(confirmed, 'a confirm by the clock')
        self.assert_in_order('ACTIVE', DESTINATION)
        wipes = [call for call in self.pmem.calls('daxio')
                 if '-z' in call['args'] and self.pmem.path(OLD) in
                 call['args']]
        self.assertEqual(1, len(wipes))

    def test_shelve_is_refused_while_it_moves(self):
        self.hang()
        self.assertFalse(self.accepted(self.act, self.server, 'shelve'))
        self.go_on()
        self.assertFalse(self.accepted(self.act, self.server, 'shelve'))
        self.assert_in_order('VERIFY_RESIZE', DESTINATION)

    def test_evacuate_in_mid_copy_leaves_nothing_stuck(self):
        self.hang()
        self.kill(SOURCE)
        self.force_down(SOURCE)
        self.accepted(self.evacuate, self.server)
        self.go_on()
        self.restart(SOURCE)
        self.force_down(SOURCE, False)
        self.wait_until_quiet()
        self.assert_data_survives()
        self.assertEqual([], [
            each for each in self.migrations(self.server)
            if each['status'] not in pmem_invariant.ENDED])
        found = self.show(self.server)
        self.assertIsNone(found['OS-EXT-STS:task_state'])
        self.api.delete_server(self.server['id'])
        self.settle()
        self.assert_zero(OLD, NEW)
        self.assertEqual([], self.open_tickets())

    def _assert_nothing_to_wait_for(self):
        for host in pmem_kinds.HOSTS:
            manager = self.computes[host].manager
            self.assertEqual({}, manager._in_progress_tasks)
            self.assertEqual({}, manager._pending_dest_resizes)

    def test_service_that_stops_does_not_wait_for_a_failed_copy(self):
        fault = self.pmem.inject('exit', NEW, at=SIZE // 2, repeat=True)
        self.ask_to_migrate()
        self.wait_until_quiet()
        fault.cancel()
        self.assert_in_order('ACTIVE', SOURCE)
        self._assert_nothing_to_wait_for()

    def test_service_that_stops_does_not_wait_for_a_refused_copy(self):
        self.fail_next(DRIVER + 'migrate_disk_and_power_off')
        self.ask_to_migrate()
        self.wait_until_quiet()
        self.assert_in_order('ACTIVE', SOURCE)
        self._assert_nothing_to_wait_for()


@ddt.ddt
class PmemEvacuateTests(pmem_kinds.KindTestBase):
    """The host that has the server dies, and it is evacuated to the other.

    Whatever comes of that, the data stays on the source, where nobody gets it,
    until the server is deleted.
    """

    NUMBER = 2

    def setUp(self):
        super().setUp()
        self.server = self.boot(pmem_kinds.MOVED, host=SOURCE)
        self.old, = self.namespaces_of(self.server)
        self.data = self.fill(self.server)

    def _evacuate_from(self, host, point, ask):
        """Kill a host at a point, and evacuate its server.

        :returns: whether the API takes that
        """
        self.hook(point, 'before', 'the end')
        end = self.at('the end', lambda: self.kill(host))
        ask()
        end.wait()
        self.wait_until_quiet()
        self.force_down(host)
        try:
            self.evacuate(self.server)
            return True
        except api_client.OpenStackApiException as error:
            self.assertEqual(409, error.response.status_code)
            return False
        finally:
            self.wait_until_quiet()
            self.restart(host)
            self.force_down(host, False)
            self.wait_until_quiet()

    def _moved(self):
        return {name for name in self.pmem.names() if '_moved_' in name}

    def _assert_data_is_held(self):
        self.settle()
        self.assertIsNone(self.show(self.server)['OS-EXT-STS:task_state'])
        self.assertEqual(self.data, [self.pmem.digest(self.old)])
        self.assertEqual([], [
            each for each in self.migrations(self.server)
            if each['status'] not in pmem_invariant.ENDED])
        self.assertIn(SOURCE, self.open_tickets())
        self.api.delete_server(self.server['id'])
        self.settle()
        self.assertEqual([], self.open_tickets())
        self.assert_zero(*self._moved())

    def test_before_the_destination_begins(self):
        self.assertTrue(self._evacuate_from(
            DESTINATION, MANAGER + 'finish_resize', self.ask_to_migrate))
        self._assert_data_is_held()

    def test_before_the_guest_starts(self):
        self.assertTrue(self._evacuate_from(
            DESTINATION, DRIVER + 'finish_migration', self.ask_to_migrate))
        self._assert_data_is_held()

    def _move(self):
        self.ask_to_migrate()
        self.wait_until_quiet()
        self.assertEqual('VERIFY_RESIZE', self.status(self.server))

    @ddt.data((DESTINATION, 'revert_resize'), (SOURCE, 'finish_revert_resize'))
    @ddt.unpack
    def test_on_its_way_back(self, host, method):
        """It is refused, and the way back goes on."""
        self._move()
        self.assertFalse(self._evacuate_from(
            host, MANAGER + method, self.ask_to_revert))
        self.settle()
        found = self.show(self.server)
        self.assertEqual(('ACTIVE', SOURCE, None), (
            found['status'], found['OS-EXT-SRV-ATTR:host'],
            found['OS-EXT-STS:task_state']))
        self.assert_data(self.data, self.server)
        self.assert_zero(*self._moved() - {self.old})
        self.assertEqual([], self.open_tickets())


class PmemExpiredTokenTests(_Base):
    """The token of the request is too old when the copy has ended."""

    def setUp(self):
        super().setUp()
        self.is_expired = False
        self.hook(DRIVER + 'migrate_disk_and_power_off', 'after', 'copied')
        self.at('copied', self._expire)
        original = neutron.get_client

        def get_client(ctxt, admin=False):
            # What a service does by itself is in no user's name, and who asks
            # the API has a new token.
            if (self.is_expired and not admin and ctxt.user_id and
                    pmem_process.current() is not self.processes.others and
                    not pmem_world.CONF.service_user.send_service_user_token):
                raise exception.Unauthorized()
            return original(ctxt, admin)

        self.useFixture(fixtures.MockPatchObject(
            neutron, 'get_client', get_client))

    def _expire(self):
        self.is_expired = True

    def test_with_a_service_user(self):
        self.flags(send_service_user_token=True, group='service_user')
        self.ask_to_migrate()
        self.wait_until_quiet()
        self.assert_in_order('VERIFY_RESIZE', DESTINATION)

    def test_without_one(self):
        """The server is well on one host, and its owner can read why."""
        self.ask_to_migrate()
        self.wait_until_quiet()
        self.settle()
        found = self.show(self.server)
        self.assertIn((found['status'], found['OS-EXT-SRV-ATTR:host']), (
            ('ACTIVE', SOURCE), ('VERIFY_RESIZE', DESTINATION)))
        self.assert_in_order(found['status'], found['OS-EXT-SRV-ATTR:host'])
        if found['status'] == 'ACTIVE':
            self.assertIn('service_user', self.log())
