# SPDX-License-Identifier: Apache-2.0

from concurrent import futures
import contextlib
import dataclasses
import functools
import os
import queue
import threading
from unittest import mock

import ddt
import fixtures
from oslo_utils import fixture as utils_fixture
from oslo_utils.fixture import uuidsentinel as uuids
from oslo_utils import timeutils
import testtools

from nova import context
from nova import exception
from nova import objects
from nova import test
from nova.tests import fixtures as nova_fixtures
from nova.virt.libvirt import driver
from nova.virt.libvirt.pmem import namespaces as pmem_namespaces
from nova.virt.libvirt.pmem import owners
from nova.virt.libvirt.pmem import pairing
from nova.virt.libvirt.pmem import reports
from nova.virt.libvirt.pmem import settle
from nova.virt.libvirt.pmem import tickets
from nova.virt.libvirt.pmem import transfer
from nova.virt.libvirt import pmem_copy
from nova.virt import pmem_users

MIB = 1024 * 1024
SIZE = 4 * MIB


class PmemCopyTestCase(test.NoDBTestCase):
    """A destination host2 with the namespaces ns_1 and ns_2."""

    def setUp(self):
        super().setUp()
        self.flags(state_path=self.useFixture(fixtures.TempDir()).path)
        self.useFixture(nova_fixtures.PrivsepFixture())
        self.chown = self.useFixture(fixtures.MockPatch(
            'nova.privsep.path.chown')).mock
        self.cleanup = self.useFixture(fixtures.MockPatch(
            'nova.privsep.libvirt.cleanup_vpmem')).mock
        self.context = context.get_admin_context()
        dev = self.useFixture(fixtures.TempDir()).path
        self.namespaces = {}
        for name in ('ns_1', 'ns_2'):
            path = os.path.join(dev, name)
            with open(path, 'w'):
                pass
            self.namespaces[name] = objects.LibvirtVPMEMDevice(
                label='S', name=name, size=SIZE, devpath=path, align=2)
        self.pairs = [
            pairing.DevicePair(
                objects.LibvirtVPMEMDevice(
                    label='S', name='old_' + name, size=SIZE - 1,
                    devpath='/dev/dax7.%s' % name, align=2), device)
            for name, device in self.namespaces.items()]
        self.used_nodes = set()
        self.claimed = list(self.namespaces.values())
        self.useFixture(fixtures.MockPatch(
            'nova.virt.libvirt.pmem.namespaces.list_namespaces',
            side_effect=lambda: self.namespaces))
        self.useFixture(fixtures.MockPatch(
            'nova.objects.Migration.get_by_id',
            side_effect=lambda *args: self.migration))
        pool = futures.ThreadPoolExecutor(10)
        self.addCleanup(pool.shutdown)
        self.useFixture(fixtures.MockPatch(
            'nova.thread_pool_factory.spawn_on',
            lambda kind, *args: pool.submit(*args)))
        self.useFixture(fixtures.MockPatch(
            'nova.virt.pmem_device.size', return_value=SIZE))
        # It listens, and ends with its stdin.
        self.receiver = self.useFixture(fixtures.MockPatch(
            'nova.virt.pmem_transfer.receiver.command', return_value=[
                'sh', '-c', 'echo ready; exec cat > /dev/null'])).mock
        self.save = self.useFixture(fixtures.MockPatch(
            'nova.objects.Instance.save')).mock
        self.api = self._new_api()
        self.give_back = mock.Mock(return_value=True)
        self.migration = objects.Migration(
            id=7, uuid=uuids.migration, status='migrating',
            source_compute='host1', dest_compute='host2',
            dest_host='192.0.2.2')
        self.instance = objects.Instance(
            uuid=uuids.instance, host='host1', resources=None, progress=0,
            task_state=None, flavor=objects.Flavor(),
            new_flavor=objects.Flavor(),
            migration_context=objects.MigrationContext(
                migration_id=7, copy_pmem_devices=True,
                old_resources=self._resources(
                    'old_ns_1', 'old_ns_2', provider=uuids.source),
                new_resources=self._resources('ns_1', 'ns_2')))
        self.useFixture(fixtures.MockPatch(
            'nova.objects.Migration.get_by_uuid',
            side_effect=self._find_migration))
        self.useFixture(fixtures.MockPatch(
            'nova.objects.Instance.get_by_uuid',
            side_effect=self._find_instance))

    def _new_api(self):
        """Return the API of host2."""
        fake = mock.Mock(_vpmems_by_name=self.namespaces)
        for name in ('_get_resources', '_get_vpmem_resources'):
            setattr(fake, name, functools.partial(
                getattr(driver.LibvirtDriver, name), fake))
        fake._host.get_node_uuid.return_value = uuids.rp
        fake._host.list_guests.return_value = []
        api = pmem_copy.API(fake)
        api.host = 'host2'
        api.pairs = lambda *args: self.pairs
        api.used_devices = lambda besides=None: pmem_users.keys(
            self.used_nodes)
        return api

    def _resources(self, *names, provider=uuids.rp):
        return objects.ResourceList(objects=[
            objects.Resource(
                provider_uuid=provider, resource_class='R', identifier=name,
                metadata=self.namespaces.get(
                    name, objects.LibvirtVPMEMDevice(
                        label='S', name=name, size=SIZE, devpath='/dev/x',
                        align=2))) for name in names])

    def _find_migration(self, context, uuid):
        if self.migration is None:
            raise exception.MigrationNotFound(migration_id=uuid)
        return self.migration

    def _find_instance(self, context, uuid, expected_attrs=None):
        if self.instance is None:
            raise exception.InstanceNotFound(instance_id=uuid)
        return self.instance

    def _path(self, name):
        return self.namespaces[name].devpath

    def _prepare(self):
        self.api.prepare(self.instance, self.migration)

    def has_copied(self):
        """Have the source say that everything has arrived."""
        self.instance.migration_context.pmem_copy_socket = None

    def _settle(self, host='host2'):
        self.api.host = host
        self.closed = []
        wipes = self.api.settle(
            self.context, self.give_back, self.closed.append)
        futures.wait(wipes)
        return {ticket.instance_uuid for ticket in self.closed}

    def _wiped(self):
        return [os.path.basename(call.args[0])
                for call in self.cleanup.mock_calls]


class PrepareTestCase(PmemCopyTestCase):

    def _refused(self, *parts):
        error = self.assertRaises(
            exception.ComputeResourcesUnavailable, self._prepare)
        for part in parts:
            self.assertIn(part, self.stdlog.logger.output)
            # It is not for users.
            self.assertNotIn(part, error.format_message())
        self.chown.assert_not_called()
        self.assertEqual([], list(tickets.open_tickets()))

    def test_namespace_that_went_away(self):
        self.namespaces = {'ns_1': self.namespaces['ns_1']}
        self._refused('ns_2', 'missing')

    def test_namespace_with_another_number(self):
        moved = self.namespaces['ns_2'].obj_clone()
        moved.devpath = '/dev/dax9.0'
        self.namespaces = dict(self.namespaces, ns_2=moved)
        self._refused('ns_2', '/dev/dax9.0', 'restart nova-compute')

    def test_namespace_of_another_size(self):
        moved = self.namespaces['ns_1'].obj_clone()
        moved.size += 1
        self.namespaces = dict(self.namespaces, ns_1=moved)
        self._refused('ns_1', str(SIZE), str(SIZE + 1))

    def test_namespace_of_a_guest(self):
        # As it is if the claim still has the numbers of before a reboot.
        self.used_nodes = {'/dev/null', self._path('ns_2')}
        self.assertRaises(
            exception.ComputeResourcesUnavailable, self._prepare)
        self.assertIn('ns_2 is in use by a guest of this host',
                      self.stdlog.logger.output)
        self.assertEqual([], list(tickets.open_tickets()))

    def test_namespace_that_is_not_wiped_even_if_nothing_is_copied(self):
        self._prepare()
        self.chown.reset_mock()
        for self.pairs in (self.pairs, []):
            self.migration.uuid = uuids.other
            error = self.assertRaises(
                exception.ComputeResourcesUnavailable, self._prepare)
            self.assertIn('not ready', error.format_message())
            self.assertIn('ns_1, ns_2: not wiped yet',
                          self.stdlog.logger.output)
            self.chown.assert_not_called()

    def test_node_that_can_not_be_lent(self):
        self.chown.side_effect = [None, OSError('no'), None, None]
        # The next host may do better.
        self.assertRaises(
            exception.ComputeResourcesUnavailable, self._prepare)
        self.assertIn('no', self.stdlog.logger.output)
        self.assertEqual([], list(tickets.open_tickets()))
        # Both are given back; nothing was written, so nothing is wiped.
        self.assertEqual(4, self.chown.call_count)
        self.cleanup.assert_not_called()

    def test_ticket_is_there_before_anything_can_be_written(self):
        self.chown.side_effect = lambda *args, **kwargs: self.assertEqual(
            1, len(list(tickets.open_tickets('host2'))))
        self._prepare()
        self.assertEqual(2, self.chown.call_count)
        ticket = tickets.read(uuids.migration)
        self.assertEqual(
            [('ns_1', SIZE, SIZE - 1), ('ns_2', SIZE, SIZE - 1)],
            [(each.name, each.size, each.source_size)
             for each in ticket.targets])

    def test_nothing_to_copy(self):
        self.pairs = []
        self._prepare()
        self.assertEqual([], list(tickets.open_tickets()))

    def test_receiver_that_does_not_listen(self):
        self.receiver.return_value = ['echo', 'can not be opened']
        self.assertRaises(
            exception.ComputeResourcesUnavailable, self._prepare)
        self.assertIn('can not be opened', self.stdlog.logger.output)
        # What was lent is back.
        self.assertEqual(4, self.chown.call_count)
        self.assertEqual([], list(tickets.open_tickets()))

    def test_source_learns_where_it_is_listened(self):
        self._prepare()
        self.save.assert_called_once_with()
        self.assertEqual(
            tickets.socket_of(next(tickets.open_tickets())),
            self.instance.migration_context.pmem_copy_socket)


class FinishTestCase(PmemCopyTestCase):

    def _prepare(self):
        super()._prepare()
        self.has_copied()

    def test_nothing_to_copy(self):
        self.instance.migration_context.old_resources = None
        self.api.finish(self.instance, self.migration)

    def test_what_was_received_is_wiped_keeps_the_guest_from_starting(self):
        self.assertRaises(exception.PMEMTicketNotFound, self.api.finish,
                          self.instance, self.migration)

    def test_what_was_received_is_to_be_wiped(self):
        self._prepare()
        over = dataclasses.replace(
            tickets.read(uuids.migration), state=tickets.OVER)
        tickets.write(over)
        self.assertRaises(exception.PMEMTicketNotFound, self.api.finish,
                          self.instance, self.migration)
        self.assertEqual([over], list(tickets.open_tickets()))

    def test_source_that_has_not_copied(self):
        """It does not know how to, or was told to by nobody."""
        super()._prepare()
        self.chown.reset_mock()
        error = self.assertRaises(
            exception.PMEMCopyFailed, self.api.finish, self.instance,
            self.migration)
        self.assertIn('does not know how', error.format_message())
        self.chown.assert_not_called()
        self.assertEqual('open', tickets.read(uuids.migration).state)

    def test_nodes_are_taken_back_and_the_data_stays(self):
        self._prepare()
        self.chown.reset_mock()
        self.api.finish(self.instance, self.migration)
        self.assertEqual(
            [mock.call(self._path(name), uid=os.getuid(), gid=os.getgid())
             for name in ('ns_1', 'ns_2')], self.chown.mock_calls)
        self.cleanup.assert_not_called()

    def test_no_receiver_is_let_in_and_nobody_else_is_given_them(self):
        self._prepare()
        self.api.finish(self.instance, self.migration)
        self.assertEqual(
            'arrived', tickets.read(uuids.migration).state)
        self.assertEqual({'ns_1', 'ns_2'}, self.api.dirty_names())
        self.api.to_start_on(self.instance, self._resources('ns_1'))

    def test_missing_namespace_keeps_the_guest_from_starting(self):
        self._prepare()
        self.chown.reset_mock()
        del self.namespaces['ns_1']
        self.assertRaises(exception.PMEMNamespaceNotFound, self.api.finish,
                          self.instance, self.migration)
        self.assertEqual([os.path.basename(call.args[0])
                          for call in self.chown.mock_calls], ['ns_2'])
        self.assertEqual(1, len(list(tickets.open_tickets())))

    def test_damaged_ticket_keeps_the_guest_from_starting(self):
        self._prepare()
        tickets._written.clear()
        with open(tickets._path(uuids.migration), 'w'):
            pass
        self.assertRaises(exception.PMEMTicketInvalid, self.api.finish,
                          self.instance, self.migration)

    def test_node_that_was_replaced_keeps_the_guest_from_starting(self):
        self._prepare()
        self._replace('ns_2')
        error = self.assertRaises(
            exception.PMEMNamespaceNotFound, self.api.finish, self.instance,
            self.migration)
        self.assertIn('another device', error.format_message())

    def test_node_that_is_replaced_right_before_the_start(self):
        self._prepare()
        self.api.finish(self.instance, self.migration)
        self._replace('ns_1')
        self.assertRaises(
            exception.PMEMNamespaceNotFound, self.api.to_start_on,
            self.instance, self._resources('ns_1', 'ns_2'))

    def _replace(self, name):
        # So that it does not get the number of the old one.
        with open(self._path(name) + '.new', 'w'):
            os.rename(self._path(name) + '.new', self._path(name))


@ddt.ddt
class SettleTestCase(PmemCopyTestCase):

    def setUp(self):
        super().setUp()
        self._prepare()
        self.chown.reset_mock()

    def _open(self):
        return len(list(tickets.open_tickets()))

    @ddt.data('accepted', 'pre-migrating', 'migrating', 'post-migrating')
    def test_move_under_way_is_left_alone(self, status):
        self.migration.status = status
        self.assertEqual(set(), self._settle())
        self.assertEqual([], self._wiped())
        self.assertEqual(1, self._open())

    def test_move_that_another_one_has_taken_the_place_of(self):
        """As if the server had been evacuated to this very host."""
        self.migration.status = 'migrating'
        self.instance.host = 'host2'
        self.instance.migration_context = None
        self.assertEqual({uuids.instance}, self._settle())
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())

    def _write_over(self, *migrations):
        """Have a ticket for each of some moves that left what is to be wiped.
        """
        for migration in migrations:
            tickets.write(tickets.Ticket(
                host='host2', migration_uuid=migration,
                instance_uuid=uuids.other, kind=tickets.HOLD,
                state=tickets.OVER, targets=(pmem_namespaces.target(
                    self.namespaces['ns_1'], self._path('ns_1'), SIZE),)))

    def _hang(self):
        """Let wipes hang; return what ends that, and begins."""
        go_on, begun = threading.Event(), threading.Semaphore(0)
        self.addCleanup(go_on.set)

        def wipe(path):
            begun.release()
            go_on.wait(60)

        self.cleanup.side_effect = wipe
        return go_on, begun

    def _settle_now(self):
        return self.api.settle(
            self.context, self.give_back, lambda ticket: None)

    def test_nobody_waits_for_a_wipe(self):
        """Not who receives, nor who needs no wipe, nor the next one's."""
        go_on, begun = self._hang()
        self._write_over('0' + uuids.another[1:])
        self.migration.status = 'migrating'
        with mock.patch('nova.virt.libvirt.pmem.settle._go_on') as go_on_with:
            wipe, = self._settle_now()
        go_on_with.assert_called_once()
        self.assertFalse(wipe.done())

        self.migration.status = 'finished'
        self.assertEqual([wipe], self._settle_now())
        self.assertEqual(1, self._open())

        self.assertTrue(begun.acquire(timeout=60))
        self.cleanup.side_effect = None
        self._write_over(uuids.third)
        closed = queue.Queue()
        self.api.settle(self.context, self.give_back, closed.put)
        self.assertEqual(uuids.third, closed.get(timeout=60).migration_uuid)
        self.assertFalse(wipe.done())
        go_on.set()
        wipe.result(60)
        self.assertEqual(0, self._open())

    def test_what_waits_for_its_turn_is_not_offered(self):
        """Four wipes are under way, and it would be the fifth."""
        go_on, begun = self._hang()
        self._write_over(*('%d%s' % (number, uuids.another[1:])
                           for number in range(4)))
        self.migration.status = 'migrating'
        with mock.patch('nova.virt.libvirt.pmem.settle._go_on'):
            self._settle_now()
        for _ in range(4):
            self.assertTrue(begun.acquire(timeout=60))
        self.assertEqual(1, self.api.count_unused(self.claimed))
        self.migration.status = 'error'
        found = self._settle_now()
        # Nor does who asks twice get more of them.
        self.assertEqual(found, self._settle_now())
        self.assertEqual(5, len(found))
        self.assertEqual(2, self.api.count_unused(self.claimed))
        self.assertFalse(begun.acquire(blocking=False))
        go_on.set()
        self.assertEqual(set(), futures.wait(found, 60).not_done)
        self.assertEqual(0, self._open())

    def test_wipe_that_can_not_be_started_keeps_no_other_ticket_waiting(self):
        self._write_over('0' + uuids.another[1:])
        self.migration.status = 'finished'
        with mock.patch('nova.thread_pool_factory.spawn_on',
                        side_effect=RuntimeError('no thread')):
            self._settle_now()
        self.assertIn('no thread', self.stdlog.logger.output)
        self.assertEqual(1, self._open())

    def test_receiver_that_somebody_starts_meanwhile_is_not_ended(self):
        self.migration.status = 'migrating'
        with mock.patch('nova.virt.libvirt.pmem.receivers.is_running',
                        side_effect=[False, True]), \
                mock.patch('nova.virt.libvirt.pmem.receivers.start') as start:
            self._settle()
        start.assert_not_called()

    @ddt.data('finished', 'confirming', 'confirmed')
    def test_move_that_arrived_is_closed_and_not_wiped(self, status):
        self.migration.status = status
        self.assertEqual({uuids.instance}, self._settle())
        self.assertEqual([], self._wiped())
        self.assertEqual(0, self._open())

    @ddt.data('error', 'failed', 'reverting', 'reverted', 'cancelled', 'new')
    def test_move_that_ended_otherwise_is_wiped_and_closed(self, status):
        self.migration.status = status
        self.assertEqual({uuids.instance}, self._settle())
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())
        self.assertEqual(2, self.chown.call_count)
        self.assertEqual(0, self._open())

    def test_server_that_was_deleted(self):
        # The record of its migration is still found, as it was left.
        self.instance = None
        self._settle()
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())
        self.assertEqual(0, self._open())

    def test_server_and_migration_that_were_deleted(self):
        self.migration = self.instance = None
        self._settle()
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())

    def test_server_that_was_handed_over_keeps_its_data(self):
        # The move failed in its last step: the server is here, in ERROR.
        self.migration.status = 'error'
        self.instance.host = 'host2'
        self._settle()
        self.assertEqual([], self._wiped())
        self.assertEqual(0, self._open())

    def test_server_that_came_here_by_a_later_move(self):
        # It has ns_2 by now; ns_1 is left from the move that failed.
        self.migration.status = 'error'
        self.instance.host = 'host2'
        self.instance.resources = self._resources('ns_2', 'ns_3')
        self.instance.migration_context.migration_id = 8
        self._settle()
        self.assertEqual(['ns_1'], self._wiped())

    def test_node_that_libvirt_has_given_to_a_guest_is_left_to_it(self):
        self.migration.status = 'finished'
        with mock.patch('os.getuid', return_value=os.getuid() + 1):
            self._settle()
        self.chown.assert_not_called()

    def test_ticket_that_another_thread_has_closed(self):
        self.migration.status = 'error'
        known = list(tickets.open_tickets())
        self._settle()
        self.cleanup.reset_mock()
        with mock.patch('nova.virt.libvirt.pmem.tickets.open_tickets',
                        return_value=known):
            # What follows a wipe is to follow it in any case.
            self.assertEqual({uuids.instance}, self._settle())
        self.assertEqual([], self._wiped())

    def test_failed_move_on_the_same_host_wipes_what_is_not_the_servers(self):
        self.migration.status = 'error'
        self.migration.source_compute = self.instance.host = 'host2'
        self.instance.resources = self._resources('ns_2')
        self._settle()
        self.assertEqual(['ns_1'], self._wiped())

    def test_ticket_of_another_host(self):
        self.migration.status = 'error'
        self.assertEqual(set(), self._settle('host3'))
        self.assertEqual([], self._wiped())

    def test_wipe_comes_before_the_ticket_is_closed(self):
        self.migration.status = 'error'
        self.cleanup.side_effect = lambda path: self.assertEqual(
            1, self._open())
        self._settle()
        self.assertEqual(0, self._open())

    def test_wipe_that_fails_goes_on_and_is_tried_again(self):
        self.migration.status = 'error'
        self.cleanup.side_effect = [OSError('bad block'), None]
        self.assertEqual(0, self.api.count_unused(self.claimed))
        self.assertEqual(set(), self._settle())
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())
        self.assertEqual(1, self._open())
        self.assertEqual(2, self.api.count_unused(self.claimed))
        output = self.stdlog.logger.output
        for part in ('bad block', 'ns_1', uuids.instance, uuids.migration):
            self.assertIn(part, output)

        self.cleanup.side_effect = None
        self.assertEqual({uuids.instance}, self._settle())
        self.assertEqual(0, self._open())
        self.assertEqual(0, self.api.count_unused(self.claimed))

    def test_what_can_not_be_stored_is_wiped_all_the_same(self):
        """As on a disk that is full."""
        self.migration.status = 'error'
        with mock.patch('nova.virt.libvirt.pmem.tickets._store',
                        side_effect=OSError('no space')):
            self._settle()
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())
        self.assertEqual(0, self._open())

    def test_what_is_to_be_wiped_is_stored_before(self):
        self.migration.status = 'error'
        self.cleanup.side_effect = lambda path: self.assertEqual(
            ['over'], [each.state for each in tickets.open_tickets()])
        self._settle()
        self.assertEqual(0, self._open())

    def test_ticket_that_has_changed_since_it_was_looked_at(self):
        """The wipes before this one may have taken hours."""
        self.migration.status = 'finished'
        known = list(tickets.open_tickets())
        tickets.write(dataclasses.replace(known[0], state=tickets.OVER))
        with mock.patch('nova.virt.libvirt.pmem.tickets.open_tickets',
                        return_value=known):
            self.assertEqual(set(), self._settle())
        self.assertEqual(1, self._open())
        self._settle()
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())

    def test_guest_of_another_server_keeps_it_from_being_wiped(self):
        self.migration.status = 'error'
        self.used_nodes = {self._path('ns_1')}
        self._settle()
        self.assertEqual(['ns_2'], self._wiped())
        self.assertEqual(1, self._open())

    @ddt.data('migrating', 'post-migrating')
    def test_server_that_was_evacuated_meanwhile(self, status):
        self.migration.status = status
        self.instance.host = 'host3'
        self.instance.migration_context = None
        self._settle()
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())
        self.assertEqual(0, self._open())

    def test_namespace_that_is_not_there_now_waits(self):
        self.migration.status = 'error'
        namespaces, self.namespaces = self.namespaces, {}
        self.assertEqual(set(), self._settle())
        self.assertEqual(1, self._open())
        self.assertIn('ns_1', self.stdlog.logger.output)
        self.namespaces = namespaces
        self._settle()
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())

    def test_namespace_that_only_got_the_name_is_not_wiped(self):
        self.migration.status = 'error'
        self.namespaces['ns_1'].size += 1
        self._settle()
        self.assertEqual(['ns_2'], self._wiped())
        self.assertEqual(1, self._open())

    def test_one_ticket_that_fails_does_not_hold_up_the_next(self):
        self.migration.status = 'error'
        tickets.write(tickets.Ticket(
            'host2', '0' * 8 + uuids.other[8:], uuids.instance,
            (tickets.Target('gone', 1, 1, 0, 0),)))
        self._settle()
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())


class FolderTestCase(PmemCopyTestCase):

    def test_one_that_can_not_be_read_is_no_reason_not_to_start(self):
        """Whoever looks for what to do there says why it can't be read."""
        self.api._driver._vpmems_by_name = {}
        self.assertFalse(self.api.is_needed())
        with open(tickets.directory(), 'w'):
            pass
        self.assertTrue(self.api.is_needed())
        self.assertRaises(NotADirectoryError, self._settle)


class DatabaseAwayTestCase(PmemCopyTestCase):

    def test_nothing_is_decided_meanwhile(self):
        self._prepare()
        self.migration.status = 'error'
        with mock.patch.object(settle, '_find',
                               side_effect=OSError('no database')):
            self.assertEqual(set(), self._settle())
        self.assertIn('no database', self.stdlog.logger.output)
        self.assertEqual([], self._wiped())
        self.assertEqual({'ns_1', 'ns_2'}, self.api.dirty_names())
        # They may be a server's that is well.
        self.assertEqual(0, self.api.count_unused(self.claimed))
        self._settle()
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())


class CloseTestCase(PmemCopyTestCase):

    def test_what_belongs_to_a_server_is_not_said_to_be_left(self):
        """Somebody might wipe it by hand."""
        self._prepare()
        pmem_namespaces.list_namespaces.side_effect = (
            exception.GetPMEMNamespacesFailed(reason='x'))
        ticket = tickets.read(uuids.migration)
        self.assertFalse(settle.close(ticket, [], self.api))
        self.assertIn('are not to be wiped', self.stdlog.logger.output)
        self.assertNotIn('No server gets them', self.stdlog.logger.output)
        self.assertFalse(settle.close(ticket, ticket.targets, self.api))
        self.assertIn('No server gets them', self.stdlog.logger.output)


@ddt.ddt
class DamagedTicketTestCase(PmemCopyTestCase):
    """Somebody, or a disk, has damaged a ticket since the last start."""

    def setUp(self):
        super().setUp()
        self.migration.instance_uuid = uuids.instance
        self.migration.status = 'error'
        self._prepare()
        tickets._written.clear()
        with open(tickets._path(uuids.migration), 'w') as ticket:
            ticket.write('{"host": ')

    def test_database_says_what_it_guarded(self):
        self._settle()
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())
        self.assertEqual([], tickets.damaged())
        self.assertEqual([], list(tickets.open_tickets()))

    def test_database_says_how_much_is_to_come(self):
        self.migration.status = 'migrating'
        self._settle()
        self.assertEqual(
            [('ns_1', SIZE, SIZE - 1), ('ns_2', SIZE, SIZE - 1)],
            [(target.name, target.size, target.source_size)
             for target in tickets.read(uuids.migration).targets])

    def test_another_host_leaves_it_alone(self):
        self._settle('host1')
        self.assertEqual([], self._wiped())
        self.assertEqual(1, len(tickets.damaged()))

    @ddt.data('instance', 'migration')
    def test_nobody_knows_what_it_guarded(self, unknown):
        setattr(self, unknown, None)
        self._settle()
        self.assertEqual([], self._wiped())
        self.assertEqual(1, len(tickets.damaged()))
        self.assertIn('daxio -z', self.stdlog.logger.output)
        # So it may be any of them.
        self.namespaces['ns_3'] = None
        self.assertEqual({'ns_1', 'ns_2', 'ns_3'}, self.api.dirty_names())

    def test_later_move_says_nothing_about_an_earlier_one(self):
        self.instance.migration_context.migration_id += 1
        self._settle()
        self.assertEqual([], self._wiped())
        self.assertEqual(1, len(tickets.damaged()))


@ddt.ddt
class HoldTestCase(PmemCopyTestCase):
    """host2 is the source here, and the server has left it."""

    def setUp(self):
        super().setUp()
        self.migration.source_compute = 'host2'
        self.migration.dest_compute = self.instance.host = 'host3'
        self.migration.status = 'finished'
        self.instance.migration_context.old_resources = self._resources(
            'ns_1', 'ns_2')
        self._hold(*self.claimed)

    def _hold(self, *devices):
        with settle.held(self.api.host, self.instance, self.migration,
                         devices):
            pass

    def _held(self):
        return [each.state for each in tickets.open_tickets('host2')]

    def _back(self):
        self.instance.host = 'host2'
        self.instance.resources = self._resources('ns_1', 'ns_2')

    @ddt.data('migrating', 'post-migrating', 'finished', 'confirming',
              'reverting', 'reverted', 'error', 'failed')
    def test_nothing_that_happens_to_the_move_touches_it(self, status):
        self.migration.status = status
        self.assertEqual(set(), self._settle())
        self.assertEqual([], self._wiped())
        self.assertEqual(['open'], self._held())
        self.assertEqual({'ns_1', 'ns_2'}, self.api.dirty_names())

    @ddt.data('post-migrating', 'migrating')
    def test_server_that_is_still_here(self, status):
        self._back()
        self.migration.status = status
        self._settle()
        self.assertEqual(['open'], self._held())

    @ddt.data('reverted', 'error')
    def test_server_that_is_back(self, status):
        self._back()
        self.migration.status = status
        self._settle()
        self.assertEqual([], self._wiped())
        self.assertEqual([], self._held())
        (ticket, instance), _ = self.give_back.call_args
        self.assertEqual((uuids.migration, self.instance),
                         (ticket.migration_uuid, instance))

    def test_server_that_is_back_without_what_it_had_allocated(self):
        self._back()
        self.migration.status = 'reverted'
        self.give_back.return_value = False
        self.assertEqual(set(), self._settle())
        self.assertEqual(['open'], self._held())
        self.give_back.return_value = True
        self._settle()
        self.assertEqual([], self._held())

    def test_server_that_was_deleted(self):
        self.instance = None
        self._settle()
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())
        self.assertEqual([], self._held())
        self.give_back.assert_not_called()

    def test_failed_move_is_named_in_the_log(self):
        self.migration.status = 'error'
        self._settle()
        self.assertIn('only good copy', ' '.join(
            self.stdlog.logger.output.split()))

    def test_next_move_takes_over(self):
        self.migration = objects.Migration(
            id=8, uuid=uuids.other, source_compute='host2',
            dest_compute='host3', status='finished')
        self.instance.migration_context.migration_id = 8
        self._hold(self.claimed[0])
        # What it does not have any more is wiped.
        self.assertEqual(['open', 'over'], sorted(self._held()))
        self.instance.host = 'host2'
        self.instance.resources = self._resources('ns_1')
        self.migration.status = 'migrating'
        self._settle()
        self.assertEqual(['ns_2'], self._wiped())
        self.assertEqual({'ns_1'}, self.api.dirty_names())

    @ddt.data(True, False)
    def test_confirming_ends_it_even_if_it_is_damaged(self, is_known):
        """Nor does it come back, whoever remembers it."""
        if not is_known:
            tickets._written.clear()
        with open(tickets._path(uuids.migration, 'hold'), 'w') as file:
            file.write('{"host": ')
        self.api.wipe_left(self.instance)
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())
        self.migration.status = 'confirmed'
        self._settle()
        self.assertEqual([], self._held())
        self.assertEqual([], tickets.damaged())
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())

    def test_confirming_wipes_and_ends_it(self):
        self.cleanup.side_effect = lambda path: self.assertEqual(
            ['over'], self._held())
        self.api.wipe_left(self.instance)
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())
        self.assertEqual([], self._held())


@ddt.ddt
class StartTestCase(PmemCopyTestCase):
    """What has arrived on host2 until its guest runs."""

    def setUp(self):
        super().setUp()
        self._prepare()
        self.has_copied()
        self.api.finish(self.instance, self.migration)
        self.instance.host = 'host2'
        self.instance.resources = self._resources('ns_1', 'ns_2')

    def _open(self):
        return [ticket.state for ticket in tickets.open_tickets()]

    def test_started(self):
        other = self.instance.obj_clone()
        other.uuid = uuids.other
        self.api.started(other)
        self.assertEqual(['arrived'], self._open())
        self.api.started(self.instance)
        self.assertEqual([], self._open())

    def _start_after(self, seconds):
        """Start it so late; return what the event tells."""
        self.instance._context = self.context
        since = timeutils.utcnow(with_timezone=True)
        now = self.useFixture(utils_fixture.TimeFixture(since))
        self.instance.migration_context.pmem_copy_off_since = since
        now.advance_time_seconds(seconds)
        with mock.patch('nova.objects.InstanceActionEvent') as event:
            self.api.started(self.instance)
        return [call.kwargs['exc_val'] for call in
                event.event_finish_with_failure.call_args_list]

    def test_how_long_it_was_off(self):
        self.assertEqual(
            ['the server starts 4.5 seconds after it was told to end'],
            self._start_after(4.5))
        self.assertIn('4.5 seconds after', self.stdlog.logger.output)

    def test_clocks_that_differ(self):
        self.assertEqual(
            ['the server starts 0.0 seconds after it was told to end'],
            self._start_after(-2))

    def test_one_that_is_taken_back_was_not_off(self):
        self._start_after(1)
        self.assertEqual([], self._start_after(86400))

    def test_it_starts_whether_or_not_that_can_be_noted(self):
        with mock.patch('nova.virt.libvirt.pmem.reports.Event',
                        side_effect=exception.InstanceActionNotFound(
                            request_id='x', instance_uuid='y')):
            self._start_after(1)
        self.assertIn('1.0 seconds after', self.stdlog.logger.output)
        self.assertEqual([], self._open())

    def test_deleted_as_it_was_to_start(self):
        instance, self.instance = self.instance, None
        self.assertRaises(exception.InstanceNotFound,
                          self.api.started, instance)
        self.assertEqual(['arrived'], self._open())

    def test_being_deleted_as_it_is_to_start(self):
        """What it is to start on may be wiped, and its record be there."""
        self.instance.task_state = 'deleting'
        self.assertRaises(exception.UnexpectedDeletingTaskStateError,
                          self.api.started, self.instance)
        self.assertEqual(['arrived'], self._open())

    def test_somebody_else_goes_on_with_it(self):
        """As who found it waiting, and sends it back."""
        before = self.instance.obj_clone()
        before.task_state = 'resize_finish'
        self.instance.task_state = 'resize_reverting'
        self.assertRaises(exception.UnexpectedTaskStateError,
                          self.api.started, before)
        self.assertEqual(['arrived'], self._open())
        self.instance.task_state = 'resize_finish'
        self.api.started(before)
        self.assertEqual([], self._open())

    @ddt.data(True, False)
    def test_data_that_an_earlier_move_has_left(self, starts):
        """It waits to be wiped, and is not what this guest has."""
        earlier = tickets.Ticket(
            'host2', uuids.earlier, self.instance.uuid,
            (tickets.Target('ns_3', 1, 1, 0, 0),), state=tickets.ARRIVED)
        tickets.write(earlier)
        if starts:
            self.api.started(self.instance)
        else:
            self.api.wipe_own(self.instance)
            self.assertEqual(['ns_1', 'ns_2'], self._wiped())
        self.assertEqual([earlier], list(tickets.open_tickets()))

    def test_what_an_earlier_move_has_left(self):
        """It waits to be wiped, and says nothing of this guest."""
        self.api.started(self.instance)
        tickets.write(tickets.Ticket(
            'host2', uuids.earlier, self.instance.uuid,
            (tickets.Target('ns_3', 1, 1, 0, 0),), state=tickets.OVER))
        self.assertTrue(self.api.has_started(self.instance))

    @ddt.data('post-migrating', 'error', 'reverting')
    def test_not_started_yet(self, status):
        self.migration.status = status
        self._settle()
        self.assertEqual([], self._wiped())
        self.assertEqual(['arrived'], self._open())

    def test_finished(self):
        self.migration.status = 'finished'
        self._settle()
        self.assertEqual([], self._wiped())
        self.assertEqual([], self._open())

    def test_deleted_before_it_started(self):
        self.instance = None
        self._settle()
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())
        self.assertEqual([], self._open())

    def test_back_on_its_source(self):
        self.migration.status = 'error'
        self.instance.host = 'host1'
        self.instance.resources = self._resources('ns_0')
        self._settle()
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())
        self.assertEqual([], self._open())

    def test_evacuated_since(self):
        self.migration.status = 'error'
        self.instance.host = 'host3'
        self._settle()
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())
        self.assertEqual([], self._open())

    def test_back_on_its_source_whose_names_are_the_same(self):
        self.migration.status = 'error'
        self.migration.source_compute = self.instance.host = 'host2'
        self.instance.resources = self._resources(
            'ns_1', 'ns_2', provider=uuids.source)
        self._settle()
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())

    def test_wiped_when_it_leaves(self):
        self.api.wipe_own(self.instance)
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())
        self.assertEqual([], self._open())

    def test_resources_of_another_host_are_not_wiped(self):
        self.instance.resources = self._resources(
            'ns_1', 'ns_2', provider=uuids.elsewhere)
        self.api.wipe_own(self.instance)
        self.assertEqual([], self._wiped())

    @mock.patch('nova.objects.InstanceList.get_by_filters')
    def test_evacuated_from_a_host_whose_devices_have_other_numbers(
            self, find):
        """What its guest says is of the time before the boot."""
        self.instance.host, self.instance.resources = 'host3', None
        other = objects.Instance(
            uuid=uuids.other, resources=self._resources('ns_2'))
        find.return_value = [other]
        paths = self._path('ns_1'), self._path('ns_2')
        self.api._guests = lambda: [
            (uuids.instance, {paths[0]}), (uuids.other, {paths[1]})]
        for name, path in zip(('ns_2', 'ns_1'), paths):
            self.namespaces[name].devpath = path
        tickets.close(tickets.read(uuids.migration))
        self.api.wipe_own(self.instance)
        self.assertNotIn(paths[0], [
            call.args[0] for call in self.cleanup.mock_calls])
        self.assertEqual([uuids.other], find.call_args.args[1]['uuid'])

    @ddt.data((True, 'ns_1'), (False, 'ns_2'))
    @ddt.unpack
    @mock.patch('nova.objects.InstanceList.get_by_filters')
    def test_guest_that_is_off_has_what_nova_knows(self, is_on, used, find):
        """Since it was defined, a boot may have swapped the numbers."""
        find.side_effect = lambda context, filters, **_options: [
            objects.Instance(uuid=uuid, resources=self._resources('ns_2'))
            for uuid in filters['uuid']]
        guest = mock.Mock(uuid=uuids.other)
        guest.is_active.return_value = is_on
        guest.get_xml_desc.return_value = (
            "<domain><devices><memory model='nvdimm'><source><path>%s</path>"
            "</source></memory></devices></domain>" % self._path('ns_1'))
        self.api._driver._host.list_guests.return_value = [guest]
        self.assertEqual(
            pmem_users.keys([self._path(used)]),
            owners.Owners.used_devices(self.api, besides=uuids.instance))

    def test_way_home_does_not_wait_for_a_wipe(self):
        self.instance.task_state = 'resize_reverting'
        self.api.wipe_own(self.instance)
        self.assertEqual([], self._wiped())
        self.assertEqual(['over'], self._open())
        self.assertEqual(2, self.api.count_unused(self.claimed))
        self.migration.status = 'reverted'
        self._settle()
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())
        self.assertEqual([], self._open())

    def test_node_that_is_still_lent_goes_back_to_its_owner(self):
        owned = [dataclasses.replace(target, uid=55) for target in
                 tickets.read(uuids.migration).targets]
        tickets.write(dataclasses.replace(
            tickets.read(uuids.migration), targets=tuple(owned)))
        self.instance.task_state = 'resize_reverting'
        self.api.wipe_own(self.instance)
        self.assertEqual(tuple(owned), tickets.read(uuids.migration).targets)

    def test_guest_that_may_have_run(self):
        self.assertFalse(self.api.has_started(self.instance))
        self.api.started(self.instance)
        self.assertTrue(self.api.has_started(self.instance))
        self.api._driver._host.get_guest.side_effect = (
            exception.InstanceNotFound(instance_id='x'))
        self.assertFalse(self.api.has_started(self.instance))

    def test_wipe_that_fails(self):
        self.cleanup.side_effect = OSError('bad block')
        self.assertRaises(exception.VPMEMCleanupFailed, self.api.wipe_own,
                          self.instance)
        self.assertEqual(['arrived'], self._open())


class WipeLeftTestCase(PmemCopyTestCase):
    """host1 has the namespaces here, and the server has left it."""

    def setUp(self):
        super().setUp()
        self.instance.migration_context.copy_pmem_devices = False

    def _wipe(self):
        self.api.host = 'host1'
        self.instance.migration_context.old_resources = self._resources(
            'ns_1', 'ns_2')
        self.api.wipe_left(self.instance)

    def test_confirm_of_a_copy_that_comes_twice(self):
        """Whoever has got them meanwhile may have no guest yet."""
        self.instance.migration_context.copy_pmem_devices = True
        with settle.held('host1', self.instance, self.migration,
                         self.claimed):
            pass
        self._wipe()
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())
        self.assertEqual(set(), self.api.dirty_names())
        self._wipe()
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())

    def test_what_another_server_receives_by_now_is_left_to_it(self):
        tickets.write(tickets.Ticket(
            host='host1', migration_uuid=uuids.another,
            instance_uuid=uuids.other, kind=tickets.RECEIVE,
            targets=(pmem_namespaces.target(
                self.namespaces['ns_1'], self._path('ns_1'), SIZE),)))
        self._wipe()
        self.assertEqual(['ns_2'], self._wiped())

    def test_what_another_server_has_by_now_is_left_to_it(self):
        self.used_nodes = {self._path('ns_1')}
        self._wipe()
        self.assertEqual(['ns_2'], self._wiped())
        self.assertEqual(set(), self.api.dirty_names())

    def test_ticket_is_open_while_it_is_wiped(self):
        self.cleanup.side_effect = lambda path: self.assertEqual(
            {'ns_1', 'ns_2'}, self.api.dirty_names())
        self._wipe()
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())
        self.assertEqual(set(), self.api.dirty_names())

    def test_wipe_that_fails_leaves_the_ticket_for_settle(self):
        self.cleanup.side_effect = [OSError('bad block'), None]
        self._wipe()
        self.assertEqual({'ns_1', 'ns_2'}, self.api.dirty_names())
        self.assertEqual(2, self.api.count_unused(self.claimed))
        self.assertIn('bad block', self.stdlog.logger.output)

        # The move is confirmed, and the server is elsewhere with its data.
        self.cleanup.side_effect = None
        self.cleanup.reset_mock()
        self.migration.status = 'confirmed'
        self.instance.host = 'host2'
        self._settle('host1')
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())
        self.assertEqual(set(), self.api.dirty_names())

    def test_wipe_that_was_broken_off_is_for_the_confirm_to_repeat(self):
        self.cleanup.side_effect = OSError('the host dies')
        self._wipe()
        self.cleanup.reset_mock()
        self.migration.status = 'confirming'
        self._settle('host1')
        self.assertEqual([], self._wiped())
        self.assertEqual({'ns_1', 'ns_2'}, self.api.dirty_names())
        # Nobody repeats it when the server moves anew.
        self.cleanup.side_effect = None
        self.instance.migration_context.migration_id += 1
        self._settle('host1')
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())
        self.assertEqual(set(), self.api.dirty_names())

    def test_long_wipe_does_not_hold_up_the_caller(self):
        go_on = threading.Event()
        self.addCleanup(go_on.set)
        self.cleanup.side_effect = lambda path: go_on.wait(60)
        with mock.patch('nova.virt.libvirt.pmem_copy.WIPE_PATIENCE', 0.01):
            self._wipe()
        self.assertEqual({'ns_1', 'ns_2'}, self.api.dirty_names())
        self.assertEqual(2, self.api.count_unused(self.claimed))
        # Who asks meanwhile is told of it as well, by who wipes.
        self.migration.status = 'confirmed'
        self.api.host, closed = 'host1', []
        wipe, = self.api.settle(self.context, self.give_back, closed.append)
        self.assertEqual([], closed)
        go_on.set()
        wipe.result(60)
        self.assertEqual([uuids.instance],
                         [ticket.instance_uuid for ticket in closed])
        self.assertEqual(set(), self.api.dirty_names())
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())

    def test_namespace_that_is_missing(self):
        del self.namespaces['ns_1']
        self._wipe()
        self.assertEqual(['ns_2'], self._wiped())
        self.assertEqual({'ns_1', 'ns_2'}, self.api.dirty_names())


class ToStartOnTestCase(PmemCopyTestCase):

    def setUp(self):
        super().setUp()
        self._prepare()
        self.other = objects.Instance(uuid=uuids.other)

    def test_other_server(self):
        error = self.assertRaises(
            exception.PMEMDeviceBusy, self.api.to_start_on, self.other,
            self._resources('ns_1'))
        self.assertIn('ns_1', error.format_message())
        # It may be another tenant's.
        self.assertNotIn(uuids.migration, error.format_message())

    def test_own_server_and_other_namespaces(self):
        self.api.to_start_on(self.instance, self._resources('ns_1'))
        self.assertEqual([], self.api.to_start_on(self.other, []))

    def test_ticket_of_another_host_with_the_same_names(self):
        self.api.host = 'host1'
        self.api.to_start_on(self.other, self._resources('ns_1'))
        self.assertEqual(set(), self.api.dirty_names())

    def test_namespace_of_another_host_with_the_same_name(self):
        self.assertRaises(
            exception.PMEMNamespaceNotFound, self.api.to_start_on,
            self.instance, self._resources('ns_1', provider=uuids.elsewhere))


@ddt.ddt
class CopyTestCase(PmemCopyTestCase):

    def setUp(self):
        super().setUp()
        self.totals = transfer.Totals(2 * SIZE, SIZE, 1.5, 0)
        self.transfer = self.useFixture(fixtures.MockPatch(
            'nova.virt.libvirt.pmem.transfer.transfer',
            return_value=self.totals)).mock
        self.sender = self.useFixture(fixtures.MockPatch(
            'nova.virt.libvirt.pmem.transfer.Sender')).mock
        self.waiting = self.sender.return_value
        self.instance.migration_context.pmem_copy_socket = '/there'
        self.instance.progress = 0
        self.instance.task_state = 'resize_migrating'
        self.owned = self.namespaces
        # Here the source's own namespaces are what is looked up.
        self.namespaces = {'old_' + name: objects.LibvirtVPMEMDevice(
            label='S', name='old_' + name, size=SIZE,
            devpath=device.devpath, align=2)
            for name, device in self.owned.items()}
        self.pairs = [
            pairing.DevicePair(self.namespaces['old_' + name],
                               self.owned[name])
            for name in ('ns_1', 'ns_2')]
        self.event = self.useFixture(fixtures.MockPatch(
            'nova.objects.InstanceActionEvent')).mock
        self.bad_blocks = self.useFixture(fixtures.MockPatch(
            'nova.virt.libvirt.pmem.namespaces.bad_blocks',
            return_value={})).mock
        self.api.host = 'host1'
        self.instance._context = self.context

    def _copy(self):
        self.instance.task_state = 'resize_migrating'
        self.api.copy(self.instance)

    def _precopy(self, is_on=True):
        self.instance.task_state = 'resize_prep'
        self.instance.new_flavor = None
        copying = contextlib.ExitStack()
        copying.enter_context(self.api.precopied(
            self.instance, self.migration, is_on))
        self.addCleanup(copying.close)
        return copying

    def _job(self):
        migration_uuid, job, *__ = self.transfer.call_args.args
        self.assertEqual(uuids.migration, migration_uuid)
        return job

    def _fails(self, *parts):
        error = self.assertRaises(exception.PMEMCopyFailed, self._copy)
        for part in parts + (uuids.migration, 'host2'):
            self.assertIn(part, self.stdlog.logger.output)
            self.assertNotIn(part, error.format_message())
        # What was lent is back, and the server goes on.
        self.assertEqual(0, self.chown.call_count % 2)
        self.assertEqual([], list(tickets.open_tickets()))
        self.assertEqual(0, self.instance.progress)

    def test_transfer_that_fails(self):
        self.transfer.side_effect = transfer.TransferFailed(
            'link cut', 'old_ns_2')
        self._fails('old_ns_2', 'link cut')
        self.assertEqual(4, self.chown.call_count)

    @ddt.data(
        ('Welcome!\nnova@192.0.2.2: Permission denied (publickey).',
         'ssh to the destination: Permission denied'),
        ('ssh ended with status 255: nova-pmem-join: /a: [Errno 13] '
         'Permission denied',
         'the receiver on the destination can not be reached'),
        ('ssh ended with status 127: sh: 1: nova-pmem-join: not found',
         'the log of nova-compute on the source has the reason'),
        ('the receiver can not be reached: [Errno 111] Connection refused',
         'the receiver on the destination can not be reached'),
        ('kex_exchange_identification: read: Connection reset by peer\n'
         'Connection reset by 192.0.2.2 port 22',
         'ssh does not reach the destination'),
        ('[Errno 104] Connection reset by peer: no message',
         'the log of nova-compute on the source has the reason'))
    @ddt.unpack
    def test_users_read_the_reason_and_nothing_of_a_peer(self, said, reason):
        self.transfer.side_effect = transfer.TransferFailed(said)
        error = self.assertRaises(exception.PMEMCopyFailed, self._copy)
        self.assertEqual('The vPMEM data was not copied: %s.' % reason,
                         error.format_message())

    def test_source_namespace_that_is_missing(self):
        del self.namespaces['old_ns_1']
        self._fails('old_ns_1', 'missing')
        self.transfer.assert_not_called()

    def test_node_that_can_not_be_lent(self):
        self.chown.side_effect = OSError('not permitted')
        self.assertRaises(exception.PMEMCopyFailed, self._copy)
        self.assertIn('not permitted', self.stdlog.logger.output)
        self.transfer.assert_not_called()

    def test_source_whose_node_has_another_number_by_now(self):
        self.pairs[0].source.devpath = '/dev/dax9.9'
        moved = self.namespaces['old_ns_1'].obj_clone()
        moved.devpath = self.owned['ns_1'].devpath
        self.namespaces['old_ns_1'] = moved
        self._copy()
        self.assertEqual(moved.devpath, self._job().devices[0].path)

    def test_sources_are_checked_before_anything_happens(self):
        del self.namespaces['old_ns_2']
        self.assertRaises(exception.PMEMNamespaceNotFound, self._precopy)
        self.transfer.assert_not_called()

    def test_source_with_bad_blocks_is_refused_before_it_is_stopped(self):
        self.bad_blocks.return_value = {'old_ns_2': '3 bad blocks'}
        error = self.assertRaises(exception.PMEMCopyFailed, self._precopy)
        self.assertIn('3 bad blocks', error.format_message())
        self.transfer.assert_not_called()

    def _passes(self):
        """Return the first sender of each pass."""
        return [call.args[1].attempt for call in self.transfer.call_args_list]

    def test_guest_that_runs(self):
        """Copied as long as each pass sends clearly less."""
        self.transfer.side_effect = [
            transfer.Totals(100, 0, 1, 0, 100 - differed)
            for differed in (100, 60, 50, 5)]
        copying = self._precopy()
        self.assertEqual([0, 1000, 2000], self._passes())
        self.assertIsNone(self.transfer.call_args.args[6])
        self.waiting.wait_until_ready.assert_called_once_with()
        self._copy()
        self.assertEqual([0, 1000, 2000, 3000], self._passes())
        self.assertIs(self.waiting, self.transfer.call_args.args[6])
        self.assertEqual(3000, self.sender.call_args.args[1].attempt)
        self.waiting.close.assert_not_called()
        copying.close()
        self.waiting.close.assert_called_once_with()
        # The next move is another one.
        self.transfer.side_effect = None
        self.instance.migration_context.pmem_copy_socket = '/there'
        self._copy()
        self.assertEqual(0, self._passes()[-1])

    def test_guest_that_writes_next_to_nothing(self):
        self.transfer.side_effect = [
            transfer.Totals(100, 0, 1, 0), transfer.Totals(100, 0, 1, 0, 98)]
        self._precopy()
        self.assertEqual([0, 1000], self._passes())

    def test_number_of_passes_is_limited(self):
        self.flags(pmem_copy_running_passes=1, group='libvirt')
        self._precopy()
        self._copy()
        self.assertEqual([0, 1000], self._passes())

    @ddt.data((0, 99, 3), (0, 100, 2), (100, 0, 1))
    @ddt.unpack
    def test_goal_at_both_ends(self, goal, equal, passes):
        """The guest writes ever less; or nothing; or all the time."""
        self.flags(pmem_copy_running_goal=goal, pmem_copy_running_passes=3,
                   group='libvirt')
        self.transfer.side_effect = [
            transfer.Totals(100, 0, 1, 0),
            transfer.Totals(100, 0, 1, 0, equal),
            transfer.Totals(100, 0, 1, 0, 100)]
        self._precopy()
        self.assertEqual([0, 1000, 2000][:passes], self._passes())

    def test_most_passes_that_may_be(self):
        self.flags(pmem_copy_running_passes=20, pmem_copy_running_goal=0,
                   group='libvirt')
        self.transfer.side_effect = [
            transfer.Totals(2 ** 40, 0, 1, 0, 2 ** 40 - 2 ** (40 - each))
            for each in range(30)]
        self._precopy()
        self.assertEqual(20 * 1000 - 1000, self._passes()[-1])

    def test_no_passes(self):
        self.flags(pmem_copy_running_passes=0, group='libvirt')
        self._precopy()
        self._copy()
        self.assertEqual([0], self._passes())

    def test_guest_that_is_off(self):
        self._precopy(is_on=False)
        self._copy()
        self.assertEqual([0], self._passes())

    def test_same_host_while_the_guest_runs(self):
        self.migration.source_compute = 'host2'
        self._precopy()
        self.transfer.assert_not_called()
        self.waiting.wait_until_ready.assert_called_once_with()

    def test_precopy_that_fails(self):
        for good in range(2):
            self.transfer.side_effect = [
                *[self.totals] * good, transfer.TransferFailed('link cut')]
            self.chown.reset_mock()
            self.assertRaises(exception.PMEMCopyFailed, self._precopy)
            self.assertEqual(4, self.chown.call_count)
            self.assertEqual([], list(tickets.open_tickets()))
            self.assertNotIn('pmem_copy_off_since',
                             self.instance.migration_context)

    def test_sender_of_the_last_pass_that_does_not_connect(self):
        self.waiting.wait_until_ready.side_effect = transfer.TransferFailed(
            'link cut')
        self.assertRaises(exception.PMEMCopyFailed, self._precopy)
        self.waiting.close.assert_called_once_with()
        self.assertNotIn('pmem_copy_off_since',
                         self.instance.migration_context)

    def test_move_that_fails_after_the_precopy(self):
        with testtools.ExpectedException(ValueError):
            with self._precopy():
                raise ValueError()
        self.waiting.close.assert_called_once_with()
        self.assertEqual({}, self.api._precopied)

    def _told(self):
        """Return the events, with their details, in their order."""
        return [(call.args[2], call.kwargs['exc_val']) for call in
                self.event.event_finish_with_failure.call_args_list]

    def test_what_events_tell(self):
        self.transfer.side_effect = [
            transfer.Totals(64 * MIB, 60 * MIB, 1, 0),
            transfer.Totals(64 * MIB, 3 * MIB, 1, 0, 64 * MIB),
            transfer.Totals(64 * MIB, 2 * MIB, 0.51, 0, 62 * MIB)]
        self._precopy()
        self._copy()
        self.assertEqual([
            ('compute_precopy_pmem_devices',
             '2 pass(es) while the server ran sent 63 MiB'),
            ('compute_copy_pmem_devices',
             '2 pass(es) while the server ran sent 63 MiB; with the server '
             'off 2 MiB were sent in 0.5 seconds')], self._told())

    def test_what_events_tell_of_a_guest_that_is_off(self):
        self._precopy(is_on=False)
        self._copy()
        self.assertEqual([
            ('compute_check_pmem_copy', None),
            ('compute_copy_pmem_devices', 'with the server off %d MiB were '
             'sent in 1.5 seconds' % (SIZE // MIB))], self._told())
        self.assertNotIn('pmem_copy_off_since',
                         self.instance.migration_context)

    def test_sources_are_held_from_the_precopy_on(self):
        self._precopy()
        self.assertEqual(4, self.chown.call_count)
        self.assertEqual(['hold'],
                         [each.kind for each in tickets.open_tickets()])

    def test_precopy_ends_with_the_wish(self):
        self.flags(pmem_copy_running_passes=1, group='libvirt')
        self._precopy()
        self.assertTrue(self.transfer.call_args.args[5]())
        self.instance.task_state = 'deleting'
        self.assertFalse(self.transfer.call_args.args[5]())

    def test_copy_that_can_not_be_held(self):
        with mock.patch('nova.virt.libvirt.pmem.tickets.write',
                        side_effect=OSError('disk full')):
            self._fails('disk full')
        self.transfer.assert_not_called()

    def test_sources_are_held_before_they_are_lent(self):
        self.chown.side_effect = lambda *args, **kwargs: self.assertEqual(
            ['hold'], [each.kind for each in tickets.open_tickets()])
        self._copy()
        held, = tickets.open_tickets('host1')
        self.assertEqual(['old_ns_1', 'old_ns_2'],
                         [target.name for target in held.targets])

    def test_destination_is_told_when_all_was_copied(self):
        self._precopy()
        self.assertEqual(
            '/there', self.instance.migration_context.pmem_copy_socket)
        self._copy()
        self.assertIsNone(self.instance.migration_context.pmem_copy_socket)

    def test_destination_is_told_nothing_by_a_copy_that_fails(self):
        self.transfer.side_effect = transfer.TransferFailed('link cut')
        self._fails('link cut')
        self.assertEqual(
            '/there', self.instance.migration_context.pmem_copy_socket)

    def test_every_pair_over_ssh(self):
        self._copy()
        job = self._job()
        self.assertEqual(('192.0.2.2', '/there'), (job.address, job.socket))
        self.assertEqual(
            [(source.name, source.devpath, SIZE, target.name, SIZE)
             for source, target in self.pairs],
            [(device.name, device.path, device.size, device.target_name,
              device.target_size) for device in job.devices])
        tracker = self.api._driver.job_tracker
        for hook, noted in zip(self.transfer.call_args.args[2:4],
                               (tracker.add_job, tracker.remove_job)):
            hook(mock.Mock(pid=5))
            noted.assert_called_once_with(self.instance, 5)
        self.assertEqual(100, self.instance.progress)

    def test_same_host_without_ssh(self):
        self.migration.source_compute = 'host2'
        self._copy()
        self.assertEqual('', self._job().address)

    def test_sender_is_started_again_as_long_as_the_server_moves(self):
        self._copy()
        is_wanted = self.transfer.call_args.args[5]
        self.assertTrue(is_wanted())
        self.instance.task_state = 'deleting'
        self.assertFalse(is_wanted())
        self.instance = None
        self.assertFalse(is_wanted())


class ProgressTestCase(test.NoDBTestCase):

    def setUp(self):
        super().setUp()
        self.now = 0
        self.useFixture(fixtures.MockPatch(
            'oslo_utils.timeutils.now', lambda: self.now))
        self.save = self.useFixture(fixtures.MockPatch(
            'nova.objects.Instance.save')).mock
        self.instance = objects.Instance(uuid=uuids.instance, progress=0)
        self.is_wanted = True
        self.progress = reports.Progress(
            self.instance, lambda: self.is_wanted)

    def _at(self, seconds, done):
        self.now = seconds
        self.progress(done, 200)

    def test_saved_every_few_seconds(self):
        with self.progress:
            self._at(2.9, 50)
            self.assertEqual(0, self.instance.progress)
            self._at(3, 51)
            self.assertEqual(25, self.instance.progress)
            self._at(5.9, 199)
            self.assertEqual(25, self.instance.progress)
            self._at(6, 199)
            self.assertEqual(99, self.instance.progress)
        self.assertEqual(100, self.instance.progress)
        self.assertEqual(3, self.save.call_count)

    def test_what_nobody_wants_ends(self):
        with self.progress:
            self.is_wanted = False
            self._at(2, 1)
            self.assertRaises(transfer.TransferFailed, self._at, 3, 1)
            self.is_wanted = True

    def test_what_nobody_wants_any_more_when_it_is_done(self):
        """However short it was: a move that goes on could not be undone."""
        with testtools.ExpectedException(transfer.TransferFailed):
            with self.progress:
                self.is_wanted = False

    def test_database_that_is_away(self):
        def is_wanted():
            raise OSError('away')

        progress = reports.Progress(self.instance, is_wanted)
        with progress:
            self.now = 3
            progress(100, 200)
            self.assertEqual(50, self.instance.progress)

    def test_logged_every_half_minute(self):
        with self.progress:
            self._at(29, 100)
            self.assertNotIn('Copied', self.stdlog.logger.output)
            self._at(30, 100)
        self.assertIn('about 30 seconds', self.stdlog.logger.output)

    def test_nothing_done_yet(self):
        with self.progress:
            self._at(31, 0)
        self.assertIn('Copied 0 of', self.stdlog.logger.output)

    def test_failure(self):
        with self.assertRaisesRegex(ValueError, 'x'), self.progress:
            self._at(5, 100)
            raise ValueError('x')
        self.assertEqual(0, self.instance.progress)

    def test_it_is_not_worth_failing_for(self):
        self.save.side_effect = exception.InstanceNotFound(instance_id='x')
        with self.progress:
            self._at(5, 100)
