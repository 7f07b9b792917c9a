# SPDX-License-Identifier: Apache-2.0

"""The way home does not wait, does not lie, and leaves nothing behind."""

import itertools
import os
import threading
from unittest import mock

import fixtures

from nova.db.main import api as db_api
from nova.tests.functional.libvirt import pmem_kinds
from nova.tests.functional.libvirt import pmem_world

SOURCE, DESTINATION = pmem_kinds.HOSTS
OLD, NEW, SIZE = pmem_kinds.OLD, pmem_kinds.NEW, pmem_kinds.SIZE
MOVED = pmem_kinds.MOVED
DRIVER, MANAGER = pmem_kinds.DRIVER, pmem_kinds.MANAGER
RPC = 'nova.compute.rpcapi.ComputeAPI.'


class PmemNoWaitingTests(pmem_kinds.KindTestBase):
    """Nobody waits for a wipe, and the next server not for the clock."""

    def setUp(self):
        super().setUp()
        self.take_server()

    def _wait_until_offered(self, host):
        """Wait for it, without any periodic task."""
        pmem_world.wait_until(
            lambda: not self.reserved(host), 'an offer of %s' % host, 10)

    def test_wipe_in_the_background_is_followed_by_the_inventory(self):
        self.move()
        wiping = self.pmem.inject('hang', OLD, side='zero', at=SIZE // 2)
        self.ask_to_confirm()
        wiping.wait(pmem_world.PATIENCE)
        # What waits for it gives up, and the update that comes then says so.
        pmem_world.wait_until(
            lambda: self.status(self.server) == 'ACTIVE', 'the confirm')
        with self.in_service(SOURCE):
            self.computes[SOURCE].manager.update_available_resource(
                pmem_kinds.admin())
        self.assertEqual(1, self.reserved(SOURCE))
        wiping.release()
        self._wait_until_offered(SOURCE)
        self.boot(MOVED, host=SOURCE)
        self.assertEqual([], self.dirty_starts)

    def test_server_that_comes_and_goes_between_two_updates(self):
        self.move()
        self.ask_to_confirm()
        self.wait_until_quiet()
        self.api.delete_server(self.server['id'])
        self.wait_until_quiet()
        self.assertIsNone(self.show(self.server))
        # No update of the destination has come in between.
        self.server = self.boot(MOVED, host=SOURCE)
        self.fill(self.server)
        self.ask_to_migrate()
        self.wait_until_quiet()
        self.assertEqual('VERIFY_RESIZE', self.status(self.server))

    def test_revert_does_not_wait_for_a_wipe(self):
        self.move()
        wiping = self.pmem.inject('hang', NEW, side='zero', at=SIZE // 2)
        self.addCleanup(wiping.release)
        self.ask_to_revert()
        pmem_world.wait_until(
            lambda: self.guest_runs(SOURCE, self.server) and
            self.status(self.server) == 'ACTIVE', 'the guest on the source')
        self.diary.go_on()
        # Half wiped or not, it is nobody's.
        self.assertFalse(self.pmem.is_zero(NEW))
        other = self.ask_to_boot(MOVED, host=DESTINATION)
        pmem_world.wait_until(
            lambda: self.status(other) != 'BUILD', 'the other server')
        self.assertEqual('ERROR', self.status(other))
        self.api.delete_server(other['id'])
        wiping.release()
        self.assert_in_order('ACTIVE', SOURCE)

    @mock.patch('nova.compute.pmem_leftovers.PATIENCE', 1)
    def test_long_wipe_keeps_no_other_namespace_waiting(self):
        other = self.boot(pmem_kinds.FREE, host=SOURCE)
        data = self.fill(other)
        self.move()
        wiping = self.pmem.inject('hang', NEW, side='zero', at=SIZE // 2)
        self.addCleanup(wiping.release)
        self.ask_to_revert()
        wiping.wait(pmem_world.PATIENCE)
        pmem_world.wait_until(
            lambda: self.status(self.server) == 'ACTIVE', 'the way home')
        self.diary.go_on()
        # Meanwhile another move comes to nothing.
        name = '%s_free_0' % DESTINATION
        fault = self.pmem.inject('exit', name, at=SIZE // 2, repeat=True)
        self.ask_to_migrate(other)
        pmem_world.wait_until(lambda: [
            each['status'] for each in self.migrations(other)] == ['error'],
            'an end of the other move')
        fault.cancel()
        self.assertFalse(self.pmem.is_zero(name))
        self.start_round(DESTINATION)
        pmem_world.wait_until(
            lambda: len(self.open_tickets(DESTINATION)) == 1,
            'the end of its ticket')
        self.assertTrue(self.pmem.is_zero(name))
        self.ask_to_migrate(other)
        pmem_world.wait_until(
            lambda: self.status(other) == 'VERIFY_RESIZE', 'the next move')
        self.assert_data(data, other)
        self.assertFalse(self.pmem.is_zero(NEW))
        wiping.release()
        self.wait_until_quiet()
        self.api.delete_server(other['id'])
        self.assert_in_order('ACTIVE', SOURCE)

    def test_database_that_is_away_as_a_revert_begins(self):
        """Before anything is known of it, and so of whether to try again."""
        self.move()
        calls = self.fail_next('nova.compute.pmem_work.is_still')
        self.ask_to_revert()
        self.settle()
        self.assertGreater(len(calls), 1)
        self.assert_in_order('ACTIVE', SOURCE)

    def test_revert_does_not_wait_for_a_repair(self):
        self.move()
        fault = self.pmem.inject(
            'exit', NEW, side='zero', status=1, message='bad block\n',
            repeat=True)
        self.ask_to_revert()
        self.settle()
        found = self.show(self.server)
        self.assertEqual(('ACTIVE', SOURCE), (
            found['status'], found['OS-EXT-SRV-ATTR:host']))
        self.assertEqual([], self.diary.surprises)
        self.assertEqual(1, self.reserved(DESTINATION))
        fault.cancel()
        self.assert_in_order('ACTIVE', SOURCE)

    def test_server_that_can_not_start_does_not_wait_for_a_repair(self):
        fault = self.pmem.inject(
            'exit', NEW, side='zero', status=1, repeat=True)
        self.fail_next(DRIVER + '_get_guest_xml')
        self.ask_to_migrate()
        self.settle()
        found = self.show(self.server)
        self.assertEqual(('ACTIVE', SOURCE), (
            found['status'], found['OS-EXT-SRV-ATTR:host']))
        self.assertEqual(1, self.reserved(DESTINATION))
        fault.cancel()
        self.assert_in_order('ACTIVE', SOURCE)


class PmemVolumesTests(pmem_kinds.KindTestBase):
    """A server that stays has its volumes."""

    def test_source_that_dies_after_it_has_given_them_up(self):
        self.take_server(has_volume=True)
        self.hook(MANAGER + '_terminate_volume_connections', 'after',
                  'given up')
        given_up = self.at('given up', lambda: self.kill(SOURCE))
        self.ask_to_migrate()
        given_up.wait()
        self.wait_until_quiet()
        self.restart(SOURCE)
        self.assert_in_order('ACTIVE', SOURCE)


class PmemStatesTests(pmem_kinds.KindTestBase):
    """No state that a poller can see lies."""

    def setUp(self):
        super().setUp()
        self.take_server()
        self.states = []
        original = db_api.instance_update_and_get_original

        def update(ctxt, uuid, values, *args, **kwargs):
            found = original(ctxt, uuid, values, *args, **kwargs)
            if uuid == self.server['id']:
                self.states.append((found[1].vm_state, found[1].task_state))
            return found

        self.useFixture(fixtures.MockPatchObject(
            db_api, 'instance_update_and_get_original', update))

    def assert_no_error(self):
        """No poller saw ERROR, nor an end that was none."""
        states = [state for state, __ in itertools.groupby(self.states)]
        self.assertNotIn('error', [vm_state for vm_state, __ in states])
        self.assertNotIn(('active', None), states[:-1])

    def _fails_in(self, path):
        calls = self.fail_next(path)
        self.ask_to_migrate()
        self.wait_until_quiet()
        self.assertTrue(calls)
        self.assert_no_error()
        self.assert_in_order('ACTIVE', SOURCE)
        self.assert_no_error()

    def test_guest_can_not_be_defined(self):
        self._fails_in(DRIVER + '_get_guest_xml')

    def test_guest_can_not_be_started(self):
        self._fails_in(DRIVER + '_create_guest_with_network')

    def test_network_can_not_be_set_up(self):
        self._fails_in('nova.network.neutron.API.setup_networks_on_host')

    def test_copy_fails(self):
        fault = self.pmem.inject('exit', NEW, at=SIZE // 2, repeat=True)
        self.ask_to_migrate()
        self.wait_until_quiet()
        fault.cancel()
        self.assert_no_error()

    def test_revert_fails_once(self):
        self.move()
        self.states.clear()
        self.fail_next(DRIVER + 'finish_revert_migration')
        self.ask_to_revert()
        self.wait_until_quiet()
        self.assert_in_order('ACTIVE', SOURCE)
        self.assert_no_error()

    def test_confirm_fails_once(self):
        self.move()
        self.states.clear()
        self.fail_next(DRIVER + 'confirm_migration')
        self.ask_to_confirm()
        self.wait_until_quiet()
        self.assert_in_order('ACTIVE', DESTINATION)
        self.assert_no_error()


class PmemDeletedOnTheWayBackTests(pmem_kinds.KindTestBase):
    """A server that is deleted on its way back leaves nothing anywhere."""

    def setUp(self):
        super().setUp()
        self.take_server()

    def _delete(self):
        """Delete the server, as a user does who can't wait.

        The answer comes from the thread that this may run in.
        """
        thread = threading.Thread(
            target=lambda: self.api.delete_server(self.server['id']))
        thread.start()
        thread.join(5)

    def _fail_and_delete_at(self, function, when='before'):
        self.hook(function, when, 'the way back')
        hook = self.at('the way back', self._delete)
        self.fail_next(DRIVER + '_get_guest_xml')
        self.ask_to_migrate()
        hook.wait()
        self._assert_nothing_left()

    def _assert_nothing_left(self):
        self.settle()
        if self.show(self.server):
            # It was not heard; so the user says it again.
            self.api.delete_server(self.server['id'])
            self.settle()
        self.assertIsNone(self.show(self.server))
        self.snapshot.is_deleted = True
        self.assert_zero(OLD, NEW)
        for host in pmem_kinds.HOSTS:
            self.assertEqual([], self.domains(host, self.server))
            self.assertEqual([], self.open_tickets(host))
        self.assertEqual([], [
            name for name in os.listdir(pmem_world.CONF.instances_path)
            if name.startswith(self.server['id'])])

    def test_before_it_goes_back(self):
        self._fail_and_delete_at(MANAGER + 'revert_resize')

    def test_before_the_destination_lets_go(self):
        self._fail_and_delete_at(DRIVER + 'destroy')

    def test_before_the_source_takes_it(self):
        self._fail_and_delete_at(RPC + 'finish_revert_resize')

    def test_in_the_second_that_showed_an_error(self):
        deleted = []
        original = db_api.instance_update_and_get_original

        def update(ctxt, uuid, values, *args, **kwargs):
            found = original(ctxt, uuid, values, *args, **kwargs)
            if not deleted and found[1].host == DESTINATION and (
                    found[1].vm_state == 'error'):
                deleted.append(True)
                with mock.patch.object(
                        db_api, 'instance_update_and_get_original', original):
                    self._delete()
            return found

        self.useFixture(fixtures.MockPatchObject(
            db_api, 'instance_update_and_get_original', update))
        self.fail_next(DRIVER + '_get_guest_xml')
        self.ask_to_migrate()
        self.wait_until_quiet()
        if deleted:
            self._assert_nothing_left()
        else:
            self.assert_in_order('ACTIVE', SOURCE)


class PmemNextServerTests(pmem_kinds.KindTestBase):
    """A confirm that is repeated is not repeated on the next server's back."""

    def setUp(self):
        super().setUp()
        self.take_server()
        self.move()

    def _assert_harmless(self, calls):
        self.ask_to_confirm()
        self.wait_until_quiet()
        self.assertTrue(calls)
        # It has what was wiped and let go, if it can be had already.
        server = self.ask_to_boot(MOVED, host=SOURCE)
        self.wait_until_quiet()
        is_given = self.status(server) == 'ACTIVE'
        data = is_given and self.pmem.fill(OLD)
        self.settle()
        if is_given:
            self.assertEqual(data, self.pmem.digest(OLD),
                             'wiped under the next server')
        self.api.delete_server(server['id'])
        self.wait_until_quiet()
        self.assert_in_order('ACTIVE', DESTINATION)

    def test_confirm_that_fails_after_its_claim_is_gone(self):
        self._assert_harmless(self.fail_next(
            'nova.objects.instance.Instance.drop_migration_context'))

    def test_confirm_that_fails_at_its_end(self):
        self._assert_harmless(self.fail_next(
            MANAGER + '_delete_scheduler_instance_info'))
