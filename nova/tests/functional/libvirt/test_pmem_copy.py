# SPDX-License-Identifier: Apache-2.0

import itertools
import os
import random
import signal
import subprocess
import threading
from unittest import mock

import ddt
import fixtures
from oslo_utils.fixture import uuidsentinel as uuids
from oslo_utils import importutils
import psutil

from nova import context
from nova import objects
from nova.tests.functional.libvirt import pmem_base

# Some of these tests run on an unpatched Nova, too.
compute_pmem_copy = importutils.try_import('nova.compute.pmem_copy')

MIB = pmem_base.MIB
SIZE = pmem_base.SIZE


class PmemCopyTests(pmem_base.PmemServersTestBase):
    """The data of a server's vPMEM devices goes where the server goes."""

    def test_resize_copies_and_confirm_wipes_the_source(self):
        self.start_two_computes()
        server = self.boot('SMALL')
        old, = self.namespaces_of(server)
        data = self.fill(server)

        server = self.resize(server, self.create_pmem_flavor('SMALL', vcpu=2))

        self.assertEqual('host2', server['OS-EXT-SRV-ATTR:host'])
        self.assertEqual(data, self.digests(server))
        self.assertEqual(data, [self.pmem.digest(old)])
        # Nobody can get the source's namespace, whatever becomes of the move.
        self.assertEqual(['host1'], self.open_tickets())

        server = self.confirm(server)
        self.assertEqual(data, self.digests(server))
        self.assert_zero(old)
        self.assertEqual([], self.open_tickets())

    def test_migrate_without_and_with_host(self):
        self.start_two_computes()
        server = self.boot('SMALL')
        data = self.fill(server)

        server = self.confirm(self.migrate(server))
        self.assertEqual('host2', server['OS-EXT-SRV-ATTR:host'])
        self.assertEqual(data, self.digests(server))

        server = self.confirm(self.migrate(server, host='host1'))
        self.assertEqual('host1', server['OS-EXT-SRV-ATTR:host'])
        self.assertEqual(data, self.digests(server))

    def test_the_bytes_go_over_ssh_as_another_user_than_root(self):
        self.start_two_computes()
        server = self.boot('SMALL')
        self.fill(server)
        old, = self.namespaces_of(server)
        self.migrate(server)
        new, = self.namespaces_of(server)

        # What goes over the wire names the move, and no device.
        link, = self.links()
        self.assertEqual(pmem_base.ADDRESSES['host2'], link[-1])
        migration = self._wait_for_migration_status(server, ['finished'])
        self.assertEqual(
            os.path.join(self.state_path_of('host2'), 'pmem-copy',
                         '%s.socket' % migration['uuid']),
            link[link.index('-L') + 1].partition(':')[2])
        writers = [call for call in self.pmem.calls('daxio')
                   if '-o' in call['args'] and '-z' not in call['args']]
        self.assertEqual(1, len(writers))
        self.assertEqual(0, [call['uid'] for call in writers].count(0))

    def test_without_the_flag_the_target_is_empty(self):
        self.start_two_computes()
        server = self.boot('SMALL')
        self.fill(server)
        for copy in (False, None):
            server = self.confirm(self.migrate(server, copy=copy))
            self.assert_zero(*self.namespaces_of(server))
            self.fill(server)
        self.assertEqual([], self.links())

    def test_resize_on_the_same_host_needs_no_ssh(self):
        self.flags(allow_resize_to_same_host=True)
        self.start_pmem_compute('host1', SMALL=[SIZE] * 2, BIG=8 * MIB)
        server = self.boot('SMALL')
        old, = self.namespaces_of(server)
        data = self.fill(server)

        server = self.resize(server, self.create_pmem_flavor('SMALL', vcpu=2))
        new, = self.namespaces_of(server)
        self.assertNotEqual(old, new)
        self.assertEqual(data, self.digests(server))
        self.assertEqual([], self.links())

        server = self.revert(server)
        self.assertEqual([old], self.namespaces_of(server))
        self.assertEqual(data, self.digests(server))
        self.wait_until_zero(new)

        server = self.confirm(self.resize(
            server, self.create_pmem_flavor('SMALL', vcpu=2)))
        self.assertEqual(data, self.digests(server))
        self.assert_zero(old)

    def test_two_devices_pair_by_label(self):
        for host in ('host1', 'host2'):
            self.start_pmem_compute(host, SMALL=SIZE, BIG=8 * MIB)
        server = self.boot('SMALL', 'BIG')
        small, big = self.fill(server)

        server = self.resize(server, self.create_pmem_flavor('BIG', 'SMALL'))
        self.assertEqual([big, small], self.digests(server))

    def test_new_device_beside_the_copied_one_is_empty(self):
        self.start_two_computes()
        server = self.boot('SMALL')
        data, = self.fill(server)
        server = self.resize(server, self.create_pmem_flavor('SMALL', 'SMALL'))
        first, second = self.namespaces_of(server)
        self.assertEqual(data, self.pmem.digest(first))
        self.assert_zero(second)

    def test_larger_target_has_the_labels_at_its_end(self):
        self.start_pmem_compute('host1', SMALL=SIZE)
        self.start_pmem_compute('host2', BIG=16 * MIB)
        server = self.boot('SMALL')
        self.fill(server)
        old, = self.namespaces_of(server)
        # Dirt that should not be there must not survive, either.
        self.pmem.fill('host2_big_0', seed='dirt')

        server = self.resize(server, self.create_pmem_flavor('BIG'))
        new, = self.namespaces_of(server)
        self.assertEqual('host2_big_0', new)
        self.assertEqual(self.pmem.digest(old, 0, 2 * MIB),
                         self.pmem.digest(new, 0, 2 * MIB))
        self.assertEqual(self.pmem.digest(old, 2 * MIB),
                         self.pmem.digest(new, 14 * MIB))
        self.assertTrue(self.pmem.is_zero(new, 2 * MIB, 12 * MIB))

    def test_server_without_vpmem_has_nothing_to_copy(self):
        self.start_two_computes()
        server = self.boot()
        self.migrate(server)
        self.assertEqual([], self.links())
        # If it fails, too, it is moved as without the option.
        self.assertFalse(compute_pmem_copy.is_wanted(self._instance(server)))
        self.confirm(server)
        # It may gain a device, too.
        server = self.resize(server, self.create_pmem_flavor('SMALL'))
        self.assert_zero(*self.namespaces_of(server))

    def test_revert_wipes_the_destination(self):
        self.start_two_computes()
        server = self.boot('SMALL')
        old, = self.namespaces_of(server)
        data = self.fill(server)
        server = self.migrate(server)
        new, = self.namespaces_of(server)
        # What the guest writes on the destination is given up by a revert.
        self.pmem.write(new, 0, b'later')

        server = self.revert(server)
        self.assertEqual('host1', server['OS-EXT-SRV-ATTR:host'])
        self.assertEqual([old], self.namespaces_of(server))
        self.assertEqual(data, self.digests(server))
        self.assert_zero(new)

    def test_delete_in_verify_resize_wipes_both_sides(self):
        self.start_two_computes()
        server = self.boot('SMALL')
        old, = self.namespaces_of(server)
        self.fill(server)
        server = self.migrate(server)
        new, = self.namespaces_of(server)
        self._delete_server(server)
        self.assert_zero(old, new)

    def test_delete_in_verify_resize_does_not_wait_for_a_long_wipe(self):
        self.start_two_computes()
        server = self.boot('SMALL')
        name, = self.namespaces_of(server)
        self.fill(server)
        self.migrate(server)
        fault = self.pmem.inject('hang', name, side='zero', at=MIB)
        with mock.patch('nova.virt.libvirt.pmem_copy.WIPE_PATIENCE', 0.1):
            self._delete_server(server)
        fault.wait()
        # Half wiped, it is nobody's.
        self._create_server(
            flavor_id=self.create_pmem_flavor('SMALL', 'SMALL'), host='host1',
            networks='none', expected_state='ERROR')
        fault.release()
        self.wait_until_zero(name)

    def test_too_small_target_goes_to_the_next_host(self):
        self.start_pmem_compute('host1', SMALL=8 * MIB)
        self.start_pmem_compute('host2', SMALL=SIZE)
        server = self.boot('SMALL')
        self.fill(server)
        # Alone, host2 is not enough, and nothing happens to the guest.
        with mock.patch('nova.virt.libvirt.driver.LibvirtDriver.power_off',
                        side_effect=AssertionError):
            server = self.migrate(server, status='ACTIVE')
        self.assertEqual('host1', server['OS-EXT-SRV-ATTR:host'])
        self.assert_zero('host2_small_0')
        self.run_periodic_tasks()

        self.start_pmem_compute('host3', SMALL=8 * MIB)
        data = self.digests(server)
        # So that host2 is tried first.
        self._weigh('host2')
        server = self.migrate(server)
        self.assertEqual('host3', server['OS-EXT-SRV-ATTR:host'])
        self.assertEqual(data, self.digests(server))
        self.assertIn('%d bytes and is to take %d bytes of small_0' % (
            SIZE, 8 * MIB), self.stdlog.logger.output)

    def _weigh(self, first):
        """Let the scheduler prefer a host."""
        def sort(_scheduler, spec_obj, hosts, *args, **kwargs):
            return sorted(hosts, key=lambda state: state.host != first)

        patch = mock.patch(
            'nova.scheduler.manager.SchedulerManager._get_sorted_hosts', sort)
        patch.start()
        self.addCleanup(patch.stop)

    def test_stopped_server_moves_and_starts_with_its_data(self):
        self.start_two_computes()
        server = self.boot('SMALL')
        data = self.fill(server)
        self._stop_server(server)
        server = self.confirm(self.migrate(server), status='SHUTOFF')
        self.assertEqual('host2', server['OS-EXT-SRV-ATTR:host'])
        self.assertEqual(data, self.digests(server))
        self._start_server(server)
        self.assertEqual(data, self.digests(server))

    def test_wish_does_not_outlive_its_request(self):
        self.start_two_computes()
        server = self.boot('SMALL')
        self.fill(server)
        self.confirm(self.migrate(server))
        spec = objects.RequestSpec.get_by_instance_uuid(
            context.get_admin_context(), server['id'])
        self.assertFalse(spec.copy_pmem_devices)
        server = self.migrate(server, copy=False)
        self.assert_zero(*self.namespaces_of(server))


class PmemFailureTestsBase(pmem_base.PmemServersTestBase):
    """A server on host1, whose moves to host2 fail."""

    def setUp(self):
        super().setUp()
        self.start_two_computes(number=1)
        self.old, self.new = 'host1_small_0', 'host2_small_0'
        self.server = self.boot('SMALL')
        self.data = self.fill(self.server)

    def fail_to_copy(self, ends='ACTIVE', action='exit', at=MIB, **details):
        """Ask for a move while copying fails each time."""
        fault = self.pmem.inject(
            action, self.new, at=at, repeat=True, **details)
        self.migrate(self.server, status=ends)
        self.assertTrue(fault.fired)
        fault.cancel()

    def assert_as_before(self, status='ACTIVE'):
        """The server is on host1 with its data, and host2 knows nothing."""
        server = self._settled(self.server, status)
        self.assertEqual('host1', server['OS-EXT-SRV-ATTR:host'])
        self.assertEqual([self.old], self.namespaces_of(server))
        self.assertEqual(self.data, self.digests(server))
        guest = self.computes['host1'].driver._host.get_connection(
            ).lookupByUUIDString(server['id'])
        self.assertEqual(status == 'ACTIVE', bool(guest.isActive()))

        # Nova says ACTIVE before it has given the allocations back.
        self._wait_for_migration_status(server, ['error'])
        self._wait_for_assert(lambda: self.assertEqual(
            [self.compute_rp_uuids['host1']],
            list(self._get_allocations_by_server_uuid(server['id']))))
        self.run_periodic_tasks()
        self.assert_zero(self.new)
        self.assertEqual([], self.open_tickets())

        # And it can be moved after all.
        server = self.migrate(server)
        self.assertEqual('host2', server['OS-EXT-SRV-ATTR:host'])
        self.assertEqual(self.data, self.digests(server))


class PmemStrangerTests(PmemFailureTestsBase):
    """One of the two hosts has a Nova that does not know how to copy.

    Its service version does not tell: upstream may use the number for
    something else.
    """

    def test_destination(self):
        guest = self.guest_of('host1', self.server)
        with mock.patch('nova.compute.pmem_moves.prepare'):
            self.migrate(self.server, status='ACTIVE')
        self.assertIs(guest, self.guest_of('host1', self.server))
        self.assertTrue(guest.lives)
        self.assertIn('the destination does not know how to copy',
                      self.stdlog.logger.output)
        self.assert_as_before()

    @staticmethod
    def _forget(_api, instance):
        """Know a migration context only as Nova has it."""
        move = instance.migration_context
        instance.migration_context = objects.MigrationContext(**{
            name: getattr(move, name) for name in move.fields
            if name in move and 'pmem_copy' not in name and
            'copy_pmem' not in name})

    def test_source(self):
        with mock.patch.multiple('nova.virt.libvirt.pmem_copy.API',
                                 _precopy=mock.DEFAULT, copy=self._forget):
            self.migrate(self.server, status='ACTIVE')
        self.assertIn('the source does not know how to copy',
                      self.stdlog.logger.output)
        self.assert_as_before()

    def test_wish_of_an_earlier_request(self):
        """Without the option a move copies nothing, as ever."""
        self.fail_to_copy()
        self.run_periodic_tasks()
        server = self.migrate(self.server, copy=False)
        self.assert_zero(self.new)
        self.assertEqual('host2', server['OS-EXT-SRV-ATTR:host'])


class PmemPrecopyTests(PmemFailureTestsBase):
    """Nearly everything is copied while the guest runs."""

    RUNNING_PASSES = 3

    def setUp(self):
        super().setUp()
        self.useFixture(fixtures.MockPatch(
            'nova.virt.libvirt.pmem.transfer.EXTENT', MIB))
        self.guest = self.guest_of('host1', self.server)

    def assert_untouched(self):
        """The guest has not been off, and runs where it was."""
        self.assertIs(self.guest, self.guest_of('host1', self.server))
        self.assertTrue(self.guest.lives)

    def _write_until_off(self):
        numbers = random.Random(0)
        pause = threading.Event()
        try:
            for self.written in itertools.count():
                # Some hundred times a pass; Nova needs the interpreter, too.
                pause.wait(0.002)
                self.guest.write(numbers.randrange(SIZE - 1000),
                                 numbers.randbytes(1000))
        except (EOFError, ValueError):
            pass  # it is off

    def test_guest_that_writes_all_the_time(self):
        writing = threading.Thread(target=self._write_until_off)
        writing.start()
        server = self.migrate(self.server)
        writing.join()
        self.assertGreater(self.written, 0)
        self.wait_for_log('pass 2')
        # It wrote more than could be sent before it was off.
        data = [self.pmem.digest(self.old)]
        self.assertNotEqual(self.data, data)
        self.assertEqual(data, self.digests(server))
        self.assertEqual(['host1'], self.open_tickets())
        self.confirm(server)
        self.assert_zero(self.old)

    def test_guest_that_writes_a_little(self):
        hang = self.pmem.inject('hang', self.new, at=SIZE // 2)
        self.act(self.server, 'migrate', {'copy_pmem_devices': True})
        hang.wait()
        self.assert_untouched()
        self.assertEqual(
            'resize_prep', self._instance(self.server).task_state)
        # What was sent already, and what was not.
        for offset in 0, SIZE - 5:
            self.write_as_guest('host1', self.server, b'hello', offset)
        hang.release()
        server = self._settled(self.server, 'VERIFY_RESIZE')
        new, = self.namespaces_of(server)
        self.assertEqual(b'hello', self.pmem.read(new, SIZE - 5, 5))
        self.assertEqual([self.pmem.digest(self.old)], self.digests(server))
        # The node of a guest that runs was lent, and is not ours any more.
        self.assertFalse(self.pmem.is_lent(self.old))
        for event, details in (
                ('compute_precopy_pmem_devices',
                 r'^\d pass\(es\) while the server ran sent \d MiB$'),
                ('compute_copy_pmem_devices',
                 r'with the server off 0 MiB were sent in \S+ seconds$'),
                ('compute_start_with_pmem',
                 r'^the server starts \S+ seconds after it was told to end')):
            found = self._wait_for_instance_action_event(
                server, 'migrate', event, 'success')
            self.assertRegex(str(found['details']), details)
        self.assertRegex(
            self.stdlog.logger.output, r'Copied 4 MiB of vPMEM data to host2 '
            r'in \S+ seconds and found it equal; 0 MiB differed')
        self.assertRegex(
            self.stdlog.logger.output, r'the server starts \S+ seconds after')

    def test_what_can_not_work_costs_nothing(self):
        """Nobody listens where it is to go."""
        self.flags(pmem_copy_join_command='no-such-command', group='libvirt')
        self.migrate(self.server, status='ACTIVE')
        self.assert_untouched()
        self.assertIn('127', self.stdlog.logger.output)
        self.flags(pmem_copy_join_command='', group='libvirt')
        self.assert_as_before()

    def test_pass_that_fails(self):
        self.fail_to_copy()
        self.assert_untouched()
        self.assert_as_before()

    def test_guest_that_is_off(self):
        self.act(self.server, 'os-stop')
        self._settled(self.server, 'SHUTOFF')
        server = self.migrate(self.server)
        self.assertEqual(self.data, self.digests(server))
        self.assertNotIn('while the guest runs', self.stdlog.logger.output)

    def _hang(self):
        fault = self.pmem.inject('hang', self.new, at=SIZE // 2)
        self.act(self.server, 'migrate', {'copy_pmem_devices': True})
        fault.wait()

    def test_server_that_is_deleted(self):
        self._hang()
        self.api.delete_server(self.server['id'])
        self._wait_until_deleted(self.server)
        self._moving.wait()
        self.pmem.cancel_faults()
        self.run_periodic_tasks()
        self.wait_until_zero(self.old, self.new)
        self.assertEqual([], self.open_tickets())
        for host in ('host1', 'host2'):
            self.assertEqual([], self.domains(host, self.server))

    def test_server_whose_state_is_reset(self):
        self.useFixture(fixtures.MockPatch(
            'nova.virt.libvirt.pmem.reports.Progress.SAVE', 0))
        self._hang()
        self.act(self.server, 'os-resetState', {'state': 'active'})
        self._moving.wait()
        self.pmem.cancel_faults()
        self.assert_untouched()
        self.assert_as_before()

    def test_source_that_dies(self):
        self._hang()
        self.process['host1'].kill()
        self.pmem.cancel_faults()
        self.messages_are_lost_at_once()
        self.restart_pmem_compute('host1')
        self.run_periodic_tasks()
        self.assert_untouched()
        self.assert_as_before()

    def test_destination_that_dies(self):
        self.flags(pmem_copy_attempts=1, pmem_copy_reconnect_timeout=0,
                   group='libvirt')
        self._hang()
        self.process['host2'].kill()
        self.pmem.cancel_faults()
        self._settled(self.server, 'ACTIVE')
        self.assert_untouched()
        self.restart_pmem_compute('host2')
        self.assert_as_before()


@ddt.ddt
class PmemCopyFailureTests(PmemFailureTestsBase):
    """Whatever fails, the server has its data on exactly one host."""

    def test_copy_killed_half_way_goes_on(self):
        fault = self.pmem.inject('hang', self.new, at=SIZE // 2)
        self.act(self.server, 'migrate', {'copy_pmem_devices': True})
        pid = fault.wait()
        os.kill(pid, signal.SIGKILL)
        server = self._settled(self.server, 'VERIFY_RESIZE')
        self.assertEqual('host2', server['OS-EXT-SRV-ATTR:host'])
        self.assertEqual(self.data, self.digests(server))

    @ddt.data(('short', {}), ('exit', {'status': 1}), ('kill', {'signal': 9}),
              ('flip', {}))
    @ddt.unpack
    def test_copy_that_goes_wrong(self, action, details):
        self.fail_to_copy(action=action, at=SIZE // 2 + 1, **details)
        self.assert_as_before()

    def test_copy_that_goes_wrong_once(self):
        fault = self.pmem.inject('flip', self.new, at=SIZE // 2)
        server = self.migrate(self.server)
        self.assertTrue(fault.fired)
        self.assertEqual(self.data, self.digests(server))

    def test_stopped_server_stays_stopped(self):
        self._stop_server(self.server)
        self.fail_to_copy(ends='SHUTOFF')
        server = self._settled(self.server, 'SHUTOFF')
        self.assertEqual(self.data, self.digests(server))
        self._start_server(server)
        self.assertEqual(self.data, self.digests(server))

    def test_failure_says_what_went_wrong(self):
        self.fail_to_copy(action='short')
        log = self.stdlog.logger.output
        for part in ('small_0', 'host2', self.server['id'],
                     'copied %d bytes' % MIB):
            self.assertIn(part, log)

    def test_dirty_namespace_is_not_given_to_anyone_else(self):
        self.fail_to_copy()
        self.assertFalse(self.pmem.is_zero(self.new))
        wiping_fails = self.pmem.inject(
            'exit', self.new, side='zero', status=1, message='bad block\n',
            repeat=True)
        self.run_periodic_tasks()
        self.assertIn('could not be wiped', self.stdlog.logger.output)
        self.assertEqual(1, self._reserved('host2'))

        self._create_server(
            flavor_id=self.create_pmem_flavor('SMALL'), host='host2',
            networks='none', expected_state='ERROR')

        wiping_fails.cancel()
        self.run_periodic_tasks()
        self.assert_zero(self.new)
        self.assertEqual(0, self._reserved('host2'))
        server = self._create_server(
            flavor_id=self.create_pmem_flavor('SMALL'), host='host2',
            networks='none')
        self.assertEqual([self.new], self.namespaces_of(server))

    def _reserved(self, host):
        return self._get_provider_inventory(self.compute_rp_uuids[host])[
            pmem_base.PREFIX + 'SMALL']['reserved']

    def test_last_host_with_dirt_leaves_the_next_server_alone(self):
        self.fail_to_copy()
        self.pmem.inject('exit', self.new, side='zero', repeat=True)
        self.run_periodic_tasks()
        # The scheduler does not offer it any more; had it been faster:
        with mock.patch('nova.virt.libvirt.pmem_copy.API.count_unused',
                        return_value=0):
            self.run_periodic_tasks()
            for copy in (True, None):
                self.migrate(self.server, copy=copy, status='ACTIVE')
        self.assertEqual(self.data, self.digests(self.server))

    def test_moved_again_at_once(self):
        # Without waiting for host2's periodic task to let the claim go.
        self.fail_to_copy()
        self._wait_for_action_fail_completion(
            self.server, 'migrate', 'compute_resize_instance')
        server = self.migrate(self.server)
        self.assertEqual('host2', server['OS-EXT-SRV-ATTR:host'])
        self.assertEqual(self.data, self.digests(server))

    def test_destination_that_restarts_settles_what_is_open(self):
        self.fail_to_copy()
        self.restart_pmem_compute('host2')
        self.wait_until_zero(self.new)
        self.assertEqual([], self.open_tickets())

    def _hang(self):
        """Let the copy hang half way; return the server's record."""
        fault = self.pmem.inject('hang', self.new, at=SIZE // 2)
        self.act(self.server, 'migrate', {'copy_pmem_devices': True})
        fault.wait()
        return self._instance(self.server)

    def test_sender_is_known_to_the_job_tracker(self):
        instance = self._hang()
        driver = self.computes['host1'].driver
        driver.job_tracker.terminate_jobs(instance)
        # Nobody has deleted the server, so it is started again.
        server = self._settled(self.server, 'VERIFY_RESIZE')
        self.assertEqual(self.data, self.digests(server))

    def test_progress_is_shown(self):
        self.useFixture(fixtures.MockPatch(
            'nova.virt.libvirt.pmem.reports.Progress.SAVE', 0))
        self.flags(pmem_copy_streams=1, group='libvirt')
        self.useFixture(fixtures.MockPatch(
            'nova.virt.libvirt.pmem.transfer.EXTENT', MIB))
        self._hang()
        self._wait_for_assert(lambda: self.assertEqual(
            50, self.api.get_server(self.server['id'])['progress']))
        self.pmem.cancel_faults()
        server = self._settled(self.server, 'VERIFY_RESIZE')
        self.assertEqual(0, server['progress'])
        self._wait_for_instance_action_event(
            server, 'migrate', 'compute_copy_pmem_devices', 'success')

    def test_source_that_dies_while_copying(self):
        # Nobody starts its sender again.
        with mock.patch('nova.virt.libvirt.pmem.passes._is_in',
                        return_value=False):
            self._hang()
        # Its threads and children die with it; what the database says at
        # this point is what the next nova-compute finds.
        with mock.patch('nova.compute.pmem_ends.bring_back',
                        side_effect=SystemExit), mock.patch(
                'nova.compute.manager.ComputeManager._revert_allocation'), \
                mock.patch('nova.objects.Migration.save'), \
                mock.patch('nova.objects.Instance.save'):
            self.computes['host1'].driver.job_tracker.terminate_jobs(
                self._instance(self.server))
            self.wait_for_log('Moving the server to host2 failed')
        self.restart_pmem_compute('host1')
        self.run_periodic_tasks('host1')
        self.assert_as_before()

    def test_destination_that_restarts_goes_on_with_the_copy(self):
        self.flags(pmem_copy_reconnect_timeout=600, group='libvirt')
        self._hang()
        self.process['host2'].kill()
        self.pmem.cancel_faults()
        self.restart_pmem_compute('host2')
        server = self._settled(self.server, 'VERIFY_RESIZE')
        self.assertEqual('host2', server['OS-EXT-SRV-ATTR:host'])
        self.assertEqual(self.data, self.digests(server))
        self.assertEqual(['host1'], self.open_tickets())

    def test_receiver_that_was_killed_is_started_again(self):
        self.flags(pmem_copy_reconnect_timeout=600, group='libvirt')
        self._hang()
        receiver, = [
            process for process in psutil.Process().children()
            if 'nova.virt.pmem_transfer.receiver' in process.cmdline()]
        receiver.kill()
        self.pmem.cancel_faults()
        # Before that it counts as running.
        psutil.wait_procs([receiver])
        self.run_periodic_tasks('host2')
        server = self._settled(self.server, 'VERIFY_RESIZE')
        self.assertEqual(self.data, self.digests(server))

    def test_operator_ends_a_copy(self):
        """As doc/operators.rst says."""
        instance = self._hang()
        migration_uuid = objects.Migration.get_by_id(
            context.get_admin_context(),
            instance.migration_context.migration_id).uuid
        subprocess.run(['pkill', '-TERM', '-f',
                        'pmem_transfer.sender %s' % migration_uuid],
                       check=True)
        self._wait_for_action_fail_completion(
            self.server, 'migrate', 'compute_resize_instance')
        self.assert_as_before()

    def test_delete_while_copying(self):
        self._hang()
        # Where the directory is shared, or there is none, deleting the files
        # does not end what runs.
        with mock.patch.object(self.computes['host1'].driver.job_tracker,
                               'terminate_jobs'):
            self.api.delete_server(self.server['id'])
            self._wait_until_deleted(self.server)
        self.run_periodic_tasks()
        self.wait_until_zero(self.old, self.new)
        self.assertEqual([], self.open_tickets())
        self.wait_for_log('was deleted while it was to move')
        for host in ('host1', 'host2'):
            connection = self.computes[host].driver._host.get_connection()
            self.assertEqual([], list(connection._vms))
        # Nova gives the move's allocation back to the server, deleted or not,
        # and finds it when it looks for such.
        self._wait_for_assert(self._assert_no_allocations)

    def _assert_no_allocations(self):
        self.run_periodic_tasks()
        for provider in self.compute_rp_uuids.values():
            self.assertEqual(
                {}, self._get_allocations_by_provider_uuid(provider))

    def test_guest_that_does_not_come_back_keeps_its_data(self):
        self.pmem.inject('exit', self.new, at=MIB, repeat=True)
        self.fail_next(
            'nova.virt.libvirt.driver.LibvirtDriver._create_guest')
        self.act(self.server, 'migrate', {'copy_pmem_devices': True})
        self.wait_for_log('retrying each minute')
        self._moving.wait()
        self.assertEqual(self.data, [self.pmem.digest(self.old)])
        self.run_periodic_tasks()
        server = self._settled(self.server, 'ACTIVE')
        self.assertEqual('host1', server['OS-EXT-SRV-ATTR:host'])
        self.assertEqual(self.data, self.digests(server))
        self.assert_zero(self.new)

    def test_source_with_other_device_numbers_since_a_reboot(self):
        # A claim remembers the node of that time; the name is what counts.
        self.pmem.renumber(self.old)
        server = self.migrate(self.server)
        self.assertEqual(self.data, self.digests(server))

    def test_source_that_is_missing_is_noticed_while_the_guest_runs(self):
        self.pmem.hide(self.old)
        with mock.patch('nova.virt.libvirt.driver.LibvirtDriver.power_off',
                        side_effect=AssertionError):
            self.migrate(self.server, status='ACTIVE')
        self.pmem.show(self.old)
        self.assert_as_before()


@ddt.ddt
class PmemFinishFailureTests(PmemFailureTestsBase):
    """A guest that can't start on the destination continues on the source."""

    def _assert_back(self, status):
        self._settled(self.server, status)
        self._wait_for_action_fail_completion(
            self.server, 'migrate', 'compute_finish_resize')
        # Its destination is wiped as it leaves, and the clock need not come,
        # but nobody waits for it.
        self.wait_until_zero(self.new)
        self.assert_as_before(status)

    # The fault matrix has the steps before these.
    @ddt.data(
        'nova.virt.libvirt.driver.LibvirtDriver.finish_migration',
        'nova.virt.libvirt.driver.LibvirtDriver._create_guest_with_network',
    )
    def test_finish_fails_in(self, name):
        calls = self.fail_next(name)
        self.act(self.server, 'migrate', {'copy_pmem_devices': True})
        self._assert_back('ACTIVE')
        self.assertTrue(calls)

    def test_source_stays_taken_while_the_server_comes_back(self):
        # As long as the destination lets go, periodic tasks of the source run.
        began, may_end = threading.Event(), threading.Event()
        destroy = self.computes['host2'].driver.destroy

        def slowly(*args, **kwargs):
            began.set()
            may_end.wait(60)
            return destroy(*args, **kwargs)

        self.useFixture(fixtures.MockPatchObject(
            self.computes['host2'].driver, 'destroy', slowly))
        self.fail_next(
            'nova.virt.libvirt.driver.LibvirtDriver._get_guest_xml')
        self.act(self.server, 'migrate', {'copy_pmem_devices': True})
        self.assertTrue(began.wait(60))
        self.computes['host1'].manager.update_available_resource(
            context.get_admin_context())
        self._create_server(
            flavor_id=self.create_pmem_flavor('SMALL'), host='host1',
            networks='none', expected_state='ERROR')
        # Nor can anything else be done with the server.
        self.refused(409, self.server, 'reboot', {'type': 'HARD'})
        may_end.set()
        self._assert_back('ACTIVE')

    def test_delete_while_finishing(self):
        self._delete_as_it_starts('host2')
        self.act(self.server, 'migrate', {'copy_pmem_devices': True})
        self.wait_for_log('was deleted while it was to start here')
        self._assert_nothing_started('host2')

    def test_delete_while_going_back(self):
        self.migrate(self.server)
        self._delete_as_it_starts('host1')
        self.act(self.server, 'revertResize')
        self.wait_for_log('is not taken up again')
        self._assert_nothing_started('host1')

    def _delete_as_it_starts(self, host):
        driver = self.computes[host].driver
        get_xml = driver._get_guest_xml

        def delete(*args, **kwargs):
            found = get_xml(*args, **kwargs)
            self.api.delete_server(self.server['id'])
            self._wait_until_deleted(self.server)
            return found

        self.useFixture(fixtures.MockPatchObject(
            driver, '_get_guest_xml', delete))

    def _assert_nothing_started(self, host):
        self._wait_for_assert(self._assert_nothing_left)
        self.assertEqual([], self.computes[
            host].driver._host.get_connection().listAllDomains(0))

    def _assert_nothing_left(self):
        self.run_periodic_tasks()
        self.assert_zero(self.old, self.new)
        self.assertEqual([], self.open_tickets())
        for provider in self.compute_rp_uuids.values():
            self.assertEqual(
                {}, self._get_allocations_by_provider_uuid(provider))

    def test_server_that_can_not_be_sent_back_at_once(self):
        self.fail_next(
            'nova.virt.libvirt.driver.LibvirtDriver._get_guest_xml')
        self.fail_next(
            'nova.compute.manager.ComputeManager._is_instance_storage_shared')
        self.act(self.server, 'migrate', {'copy_pmem_devices': True})
        self.wait_for_log('it is tried again each minute')
        self._moving.wait()
        self.run_periodic_tasks()
        # Nova counts the server's namespaces on host1 as taken.
        self._create_server(
            flavor_id=self.create_pmem_flavor('SMALL'), host='host1',
            networks='none', expected_state='ERROR')
        self.assertEqual(self.data, [self.pmem.digest(self.old)])
        self.assertEqual(self.data, [self.pmem.digest(self.new)])

        self.messages_are_lost_at_once()
        self.run_periodic_tasks()
        self._settled(self.server, 'ACTIVE')
        self.assert_as_before()

    def test_stopped_server(self):
        self._stop_server(self.server)
        self.fail_next(
            'nova.virt.libvirt.driver.LibvirtDriver._get_guest_xml')
        self.act(self.server, 'migrate', {'copy_pmem_devices': True})
        self._assert_back('SHUTOFF')

    def test_without_a_copy_it_is_as_in_any_nova(self):
        self.fail_next(
            'nova.virt.libvirt.driver.LibvirtDriver._get_guest_xml')
        self.act(self.server, 'migrate')
        server = self._settled(self.server, 'ERROR')
        self.assertEqual('host2', server['OS-EXT-SRV-ATTR:host'])


class PmemKeepTests(pmem_base.PmemServersTestBase):
    """Only those operations wipe vPMEM that take the disks as well.

    Nothing here asks for a copy, so that the class runs on any Nova: without
    our fixes the tests of start, hard reboot and confirm fail.
    """

    microversion = '2.100'

    def setUp(self):
        super().setUp()
        # One of a host, so that a failure names it.
        self.start_two_computes(number=1)
        self.server = self.boot('SMALL')
        self.data = self.fill(self.server)

    def test_stop_and_start_keep_the_data(self):
        self._stop_server(self.server)
        self.assert_data(self.data, self.server)
        self._start_server(self.server)
        self.assert_data(self.data, self.server)

    def test_hard_reboot_keeps_the_data(self):
        self._reboot_server(self.server, hard=True)
        self.assert_data(self.data, self.server)

    def test_start_after_a_move_of_a_stopped_server_keeps_the_data(self):
        self._stop_server(self.server)
        server = self.migrate(self.server, copy=None)
        self.assertEqual('host2', server['OS-EXT-SRV-ATTR:host'])
        self.confirm(server, status='SHUTOFF')
        data = self.fill(server)
        self._start_server(server)
        self.assert_data(data, server)

    def test_confirm_wipes_the_source(self):
        name, = self.namespaces_of(self.server)
        self.confirm(self.migrate(self.server, copy=None))
        self.assert_zero(name)

    def test_revert_wipes_the_destination_and_keeps_the_source(self):
        server = self.migrate(self.server, copy=None)
        name, = self.namespaces_of(server)
        self.fill(server)
        server = self.revert(server)
        self.wait_until_zero(name)
        self.assert_data(self.data, server)

    def test_start_that_fails_keeps_the_data(self):
        self.fail_next(
            'nova.virt.libvirt.driver.LibvirtDriver._create_guest', times=2)
        self._stop_server(self.server)
        self.act(self.server, 'os-start')
        self._wait_for_action_fail_completion(
            self.server, 'start', 'compute_start_instance')
        self.assert_data(self.data, self.server)
        self.act(self.server, 'reboot', {'type': 'HARD'})
        self._settled(self.server, 'ERROR')
        self.assert_data(self.data, self.server)
        self.act(self.server, 'reboot', {'type': 'HARD'})
        self._settled(self.server, 'ACTIVE')
        self.assert_data(self.data, self.server)

    def test_revert_that_fails_keeps_the_data_of_the_source(self):
        server = self.migrate(self.server, copy=None)
        self.fail_next('nova.virt.libvirt.driver.LibvirtDriver._create_guest')
        server = self.revert(server, status='ERROR')
        self.assert_data(self.data, server)

    def test_delete_wipes(self):
        name, = self.namespaces_of(self.server)
        self._delete_server(self.server)
        self.assert_zero(name)

    def test_rebuild_wipes(self):
        self.act(self.server, 'rebuild', {
            'imageRef': '155d900f-4e14-4e4c-a73d-069cbf4541e6'})
        server = self._settled(self.server, 'ACTIVE')
        self.assert_zero(*self.namespaces_of(server))

    def test_shelve_offload_wipes(self):
        self.flags(shelved_offload_time=-1)
        name, = self.namespaces_of(self.server)
        self.act(self.server, 'shelve')
        self._settled(self.server, 'SHELVED')
        self.act(self.server, 'shelveOffload')
        self._settled(self.server, 'SHELVED_OFFLOADED')
        self.assert_zero(name)


class PmemCopyRequestTests(pmem_base.PmemServersTestBase):
    """What the API takes and refuses."""

    def setUp(self):
        super().setUp()
        self.start_two_computes()
        self.server = self.boot('SMALL')
        self.flavor = self.create_pmem_flavor('SMALL', vcpu=2)

    def _bodies(self, **fields):
        return (('migrate', fields),
                ('resize', dict(fields, flavorRef=self.flavor)))

    def _assert_untouched(self):
        server = self.api.get_server(self.server['id'])
        self.assertEqual('ACTIVE', server['status'])
        self.assertIsNone(server['OS-EXT-STS:task_state'])
        self.assertEqual([], self.api.get_migrations())

    def test_older_microversion_refuses_the_field(self):
        for version in ('2.1', '2.55', '2.56', '2.104'):
            for value in (True, False, 'yes', None, {}):
                for action, body in self._bodies(copy_pmem_devices=value):
                    text = self.refused(
                        400, self.server, action, body, version=version)
                    self.assertIn('copy_pmem_devices', text)
        self._assert_untouched()

    def test_what_is_no_boolean_is_refused(self):
        for value in ('maybe', '', ' true', None, 1, 0, 0.5, [], {}, [True],
                      {'a': 1}, 'x' * 5000, '\u0000'):
            for action, body in self._bodies(copy_pmem_devices=value):
                self.refused(400, self.server, action, body)
        self._assert_untouched()

    def _asked_for(self, action, body, version=None):
        """Return what the compute API is asked for."""
        if version is not None:
            self.api.microversion = version
        with mock.patch('nova.compute.api.API.resize') as resize:
            self.act(self.server, action, body)
        self.api.microversion = self.microversion
        return resize.call_args.kwargs

    def test_forms_of_true(self):
        for value in (True, 'true', 'True', 'TRUE', 'on', 'yes', '1'):
            for action, body in self._bodies(copy_pmem_devices=value):
                self.assertIs(True, self._asked_for(action, body)[
                    'copy_pmem_devices'])

    def test_forms_of_no_wish(self):
        for value in (False, 'false', 'no', 'OFF', '0'):
            for action, body in self._bodies(copy_pmem_devices=value):
                self.assertNotIn('copy_pmem_devices', self._asked_for(
                    action, body))
        for body in (None, {}, {'host': None}, {'host': 'host2'}):
            self.assertNotIn('copy_pmem_devices', self._asked_for(
                'migrate', body))
        # Whatever else was taken from old clients still is.
        for body in (None, {}, 'x', 7, {'hosts': 'x'}, []):
            self.assertNotIn('copy_pmem_devices', self._asked_for(
                'migrate', body, version='2.55'))

    def test_fewer_devices_are_refused(self):
        text = self.refused(400, self.server, 'resize', {
            'flavorRef': self.create_pmem_flavor(),
            'copy_pmem_devices': True})
        self.assertIn('0 vPMEM devices and the server has 1', text)
        self._assert_untouched()

    def test_old_compute_is_refused(self):
        with mock.patch('nova.objects.service.get_minimum_version_all_cells',
                        return_value=74):
            for action, body in self._bodies(copy_pmem_devices=True):
                text = self.refused(409, self.server, action, body)
                self.assertIn('service version 75', text)
        self._assert_untouched()

    def test_unknown_host_is_refused(self):
        text = self.refused(400, self.server, 'migrate', {
            'host': 'host9', 'copy_pmem_devices': True})
        self.assertIn('host9', text)
        self._assert_untouched()

    def test_host_in_another_cell_is_refused(self):
        other = objects.CellMapping(uuid=uuids.other_cell, name='other')
        mapping = objects.HostMapping(host='host2', cell_mapping=other)
        with mock.patch('nova.objects.HostMapping.get_by_host',
                        return_value=mapping):
            text = self.refused(400, self.server, 'migrate', {
                'host': 'host2', 'copy_pmem_devices': True})
        self.assertIn('another cell', text)
        self._assert_untouched()

    def test_move_is_held_to_the_cell_of_the_server(self):
        with mock.patch('nova.compute.api.API._allow_cross_cell_resize',
                        return_value=True), mock.patch(
                'nova.conductor.api.ComputeTaskAPI.resize_instance') as resize:
            self.act(self.server, 'migrate', {'copy_pmem_devices': True})
        spec = resize.call_args.kwargs['request_spec']
        self.assertFalse(spec.requested_destination.allow_cross_cell_move)
        self.assertTrue(spec.copy_pmem_devices)
