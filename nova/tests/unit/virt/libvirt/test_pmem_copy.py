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

import os
import signal
import subprocess
import threading
from unittest import mock

import ddt
import fixtures
from oslo_concurrency import lockutils
from oslo_utils.fixture import uuidsentinel as uuids

from nova import context
from nova import exception
from nova import objects
from nova import test
from nova.tests import fixtures as nova_fixtures
from nova.virt.libvirt.pmem import pairing
from nova.virt.libvirt.pmem import tickets
from nova.virt.libvirt.pmem import transfer
from nova.virt.libvirt import pmem_copy

SIZE = 4 * 1024 * 1024


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
        self.migration = objects.Migration(
            id=7, uuid=uuids.migration, status='migrating',
            source_compute='host1', dest_compute='host2',
            dest_host='192.0.2.2')
        self.instance = objects.Instance(
            uuid=uuids.instance, host='host1', resources=None,
            migration_context=objects.MigrationContext(
                migration_id=7, new_resources=self._resources(
                    'ns_1', 'ns_2')))
        self.useFixture(fixtures.MockPatch(
            'nova.objects.Migration.get_by_uuid',
            side_effect=self._find_migration))
        self.useFixture(fixtures.MockPatch(
            'nova.objects.Instance.get_by_uuid',
            side_effect=self._find_instance))

    @staticmethod
    def _resources(*names):
        return objects.ResourceList(objects=[
            objects.Resource(provider_uuid=uuids.rp, resource_class='R',
                             identifier=name) for name in names])

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
        pmem_copy.prepare(
            self.instance, self.migration, self.claimed, self.pairs,
            lambda: self.namespaces, lambda: self.used_nodes)

    def _settle(self, host='host2'):
        return {ticket.instance_uuid for ticket in pmem_copy.settle(
            self.context, host, lambda: self.namespaces)
            if ticket.kind == tickets.RECEIVE}

    def _wiped(self):
        return [os.path.basename(call.args[0])
                for call in self.cleanup.mock_calls]


class PrepareTestCase(PmemCopyTestCase):

    def _refused(self, *parts):
        error = self.assertRaises(
            exception.ComputeResourcesUnavailable, self._prepare)
        for part in parts:
            self.assertIn(part, error.format_message())
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
        self.used_nodes = {'/dev/dax9.9', self._path('ns_2')}
        self._refused('guest', self._path('ns_2'))

    def test_namespace_that_is_not_wiped_even_if_nothing_is_copied(self):
        self._prepare()
        self.chown.reset_mock()
        for self.pairs in (self.pairs, []):
            self.migration.uuid = uuids.other
            error = self.assertRaises(
                exception.ComputeResourcesUnavailable, self._prepare)
            self.assertIn('ns_1, ns_2 are not wiped', error.format_message())
            self.chown.assert_not_called()

    def test_node_that_can_not_be_lent(self):
        self.chown.side_effect = [None, OSError('no'), None, None]
        self.assertRaises(OSError, self._prepare)
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


class FinishTestCase(PmemCopyTestCase):

    def test_no_ticket(self):
        pmem_copy.finish(self.migration, self.fail)

    def test_nodes_are_taken_back_and_the_data_stays(self):
        self._prepare()
        self.chown.reset_mock()
        pmem_copy.finish(self.migration, lambda: self.namespaces)
        self.assertEqual(
            [mock.call(self._path(name), uid=os.getuid(), gid=os.getgid())
             for name in ('ns_1', 'ns_2')], self.chown.mock_calls)
        self.cleanup.assert_not_called()

    def test_no_receiver_is_let_in_and_nobody_else_is_given_them(self):
        self._prepare()
        pmem_copy.finish(self.migration, lambda: self.namespaces)
        self.assertRaises(exception.PMEMTicketNotFound, tickets.read,
                          uuids.migration)
        self.assertEqual({'ns_1', 'ns_2'}, pmem_copy.dirty_names())
        pmem_copy.refuse_dirty(uuids.instance, ['ns_1'])

    def test_missing_namespace_keeps_the_guest_from_starting(self):
        self._prepare()
        self.chown.reset_mock()
        del self.namespaces['ns_1']
        self.assertRaises(exception.PMEMNamespaceNotFound, pmem_copy.finish,
                          self.migration, lambda: self.namespaces)
        self.assertEqual([os.path.basename(call.args[0])
                          for call in self.chown.mock_calls], ['ns_2'])
        self.assertEqual(1, len(list(tickets.open_tickets())))

    def test_damaged_ticket_keeps_the_guest_from_starting(self):
        self._prepare()
        tickets._written.clear()
        with open(tickets._path(uuids.migration), 'w'):
            pass
        self.assertRaises(exception.PMEMTicketInvalid, pmem_copy.finish,
                          self.migration, lambda: self.namespaces)


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
            self.assertEqual(set(), self._settle())
        self.assertEqual([], self._wiped())

    def test_one_wipe_at_a_time(self):
        self.migration.status = 'error'
        inside, other = threading.Event(), []

        def cleanup(path):
            if not inside.is_set():
                inside.set()
                thread = threading.Thread(
                    target=lambda: other.append(self._settle()))
                thread.start()
                self.addCleanup(thread.join)
                # It must not get anywhere as long as we are here.
                self.assertRaises(
                    lockutils.AcquireLockFailedException,
                    lockutils.lock('pmem-copy-' + uuids.migration,
                                   lock_file_prefix='nova-',
                                   blocking=False).__enter__)

        self.cleanup.side_effect = cleanup
        self.assertEqual({uuids.instance}, self._settle())
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())

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
        self.assertEqual(set(), pmem_copy.unwiped_names())
        self.assertEqual(set(), self._settle())
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())
        self.assertEqual(1, self._open())
        self.assertEqual({'ns_1', 'ns_2'}, pmem_copy.unwiped_names())
        output = self.stdlog.logger.output
        for part in ('bad block', 'ns_1', uuids.instance, uuids.migration):
            self.assertIn(part, output)

        self.cleanup.side_effect = None
        self.assertEqual({uuids.instance}, self._settle())
        self.assertEqual(0, self._open())
        self.assertEqual(set(), pmem_copy.unwiped_names())

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

    def test_writer_that_ssh_left_is_ended_before_the_wipe(self):
        writer = subprocess.Popen(
            ['sleep', '1000'], stdout=open(self._path('ns_2'), 'r+'))
        self.addCleanup(writer.kill)
        bystander = subprocess.Popen(['sleep', '1000'])
        self.addCleanup(bystander.kill)
        self.cleanup.side_effect = lambda path: self.assertEqual(
            -signal.SIGKILL, writer.wait(0))
        self.migration.status = 'error'
        self._settle()
        self.assertEqual(2, self.cleanup.call_count)
        self.assertEqual(0, self._open())
        self.assertIsNone(bystander.poll())


class NamesOfServerTestCase(PmemCopyTestCase):

    def test_what_it_has_here(self):
        self.instance.node = 'node2'
        self.instance.resources = self._resources('ns_1', 'ns_2')
        self.assertEqual({'ns_1', 'ns_2'}, pmem_copy.names_of_server(
            uuids.instance, 'node2'))
        # Elsewhere these may be others.
        self.assertEqual(set(), pmem_copy.names_of_server(
            uuids.instance, 'node1'))

    def test_server_without_and_no_server(self):
        self.instance.node = 'node2'
        self.assertEqual(set(), pmem_copy.names_of_server(
            uuids.instance, 'node2'))
        self.instance = None
        self.assertEqual(set(), pmem_copy.names_of_server(
            uuids.instance, 'node2'))


class DatabaseAwayTestCase(PmemCopyTestCase):

    def test_nothing_is_decided_meanwhile(self):
        self._prepare()
        self.migration.status = 'error'
        with mock.patch.object(pmem_copy, '_find',
                               side_effect=OSError('no database')):
            self.assertEqual(set(), self._settle())
        self.assertIn('no database', self.stdlog.logger.output)
        self.assertEqual([], self._wiped())
        self.assertEqual({'ns_1', 'ns_2'}, pmem_copy.dirty_names())
        # They may be a server's that is well.
        self.assertEqual(set(), pmem_copy.unwiped_names())
        self._settle()
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())


class LongWipeTestCase(PmemCopyTestCase):

    def setUp(self):
        super().setUp()
        self._prepare()
        self.migration.status = 'error'
        self.go_on = threading.Event()
        self.addCleanup(self.go_on.set)
        self.cleanup.side_effect = lambda path: self.go_on.wait(60)

    def test_periodic_task_goes_on(self):
        with mock.patch('nova.virt.libvirt.pmem_copy.WIPE_PATIENCE', 0.01):
            self.assertEqual(set(), self._settle())
            # Nor is it begun a second time.
            self.assertEqual(set(), self._settle())
        self.assertEqual({'ns_1', 'ns_2'}, pmem_copy.dirty_names())
        self.assertIn('in the background', self.stdlog.logger.output)
        self.go_on.set()
        self._settle()
        self.assertEqual(set(), pmem_copy.dirty_names())
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())


@ddt.ddt
class DamagedTicketTestCase(PmemCopyTestCase):
    """Somebody, or a disk, has damaged a ticket since the last start."""

    def setUp(self):
        super().setUp()
        for resource in self.instance.migration_context.new_resources:
            resource.metadata = self.namespaces[resource.identifier]
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
        self.assertEqual({'ns_1', 'ns_2', 'ns_3'}, pmem_copy.dirty_names(
            known=['ns_1', 'ns_2', 'ns_3']))

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
        pmem_copy.hold(self.instance, self.migration, [
            pairing.DevicePair(device, device)
            for device in self.claimed], self.namespaces)

    def _held(self):
        return [each.kind for each in tickets.open_tickets('host2')]

    def _back(self):
        self.instance.host = 'host2'
        self.instance.resources = self._resources('ns_1', 'ns_2')

    @ddt.data('migrating', 'post-migrating', 'finished', 'confirming',
              'reverting', 'reverted', 'error', 'failed')
    def test_nothing_that_happens_to_the_move_touches_it(self, status):
        self.migration.status = status
        self.assertEqual(set(), self._settle())
        self.assertEqual([], self._wiped())
        self.assertEqual(['hold'], self._held())
        self.assertEqual({'ns_1', 'ns_2'}, pmem_copy.dirty_names())

    @ddt.data('post-migrating', 'migrating')
    def test_server_that_is_still_here(self, status):
        self._back()
        self.migration.status = status
        self._settle()
        self.assertEqual(['hold'], self._held())

    @ddt.data('reverted', 'error')
    def test_server_that_is_back(self, status):
        self._back()
        self.migration.status = status
        # Nothing was received, so there is no claim to be dropped.
        self.assertEqual(set(), self._settle())
        self.assertEqual([], self._wiped())
        self.assertEqual([], self._held())

    def test_server_that_was_deleted(self):
        self.instance = None
        self._settle()
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())
        self.assertEqual([], self._held())

    def test_failed_move_is_named_in_the_log(self):
        self.migration.status = 'error'
        self._settle()
        self.assertIn('stay as they are', self.stdlog.logger.output)

    def test_next_move_takes_over(self):
        self.migration = objects.Migration(
            id=8, uuid=uuids.other, source_compute='host2',
            dest_compute='host3', status='finished')
        pmem_copy.hold(self.instance, self.migration, [
            pairing.DevicePair(device, device)
            for device in self.claimed[:1]], self.namespaces)
        # What it does not have any more is wiped.
        self.assertEqual(['hold', 'wipe'], sorted(self._held()))
        self.instance.host = 'host2'
        self.instance.resources = self._resources('ns_1')
        self.migration.status = 'migrating'
        self._settle()
        self.assertEqual(['ns_2'], self._wiped())
        self.assertEqual({'ns_1'}, pmem_copy.dirty_names())

    @ddt.data(True, False)
    def test_confirming_ends_it_even_if_it_is_damaged(self, is_known):
        """Nor does it come back, whoever remembers it."""
        if not is_known:
            tickets._written.clear()
        with open(tickets._path(uuids.migration, 'hold'), 'w') as file:
            file.write('{"host": ')
        pmem_copy.wipe_old('host2', self.instance, self.migration,
                           self.claimed, lambda: self.namespaces)
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())
        self.migration.status = 'confirmed'
        self._settle()
        self.assertEqual([], self._held())
        self.assertEqual([], tickets.damaged())
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())

    def test_confirming_wipes_and_ends_it(self):
        self.cleanup.side_effect = lambda path: self.assertEqual(
            ['wipe'], self._held())
        pmem_copy.wipe_old('host2', self.instance, self.migration,
                           self.claimed, lambda: self.namespaces)
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())
        self.assertEqual([], self._held())


@ddt.ddt
class StartTestCase(PmemCopyTestCase):
    """What has arrived on host2 until its guest runs."""

    def setUp(self):
        super().setUp()
        self.useFixture(fixtures.MockPatch(
            'nova.virt.libvirt.pmem.namespaces.list_namespaces',
            return_value=self.namespaces))
        self._prepare()
        pmem_copy.finish(self.migration, lambda: self.namespaces)
        self.instance.host = 'host2'
        self.instance.resources = self._resources('ns_1', 'ns_2')

    def _open(self):
        return [ticket.kind for ticket in tickets.open_tickets()]

    def test_started(self):
        pmem_copy.started(objects.Instance(uuid=uuids.other))
        self.assertEqual(['start'], self._open())
        pmem_copy.started(self.instance)
        self.assertEqual([], self._open())

    @ddt.data('post-migrating', 'error', 'reverting')
    def test_not_started_yet(self, status):
        self.migration.status = status
        self._settle()
        self.assertEqual([], self._wiped())
        self.assertEqual(['start'], self._open())

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

    def test_elsewhere_since_and_still_to_be_reverted(self):
        self.migration.status = 'error'
        self.instance.host = 'host3'
        self._settle()
        self.assertEqual([], self._wiped())
        self.assertEqual(['start'], self._open())

    def test_wiped_when_it_leaves(self):
        pmem_copy.wipe_own(self.claimed[:1])
        self.assertEqual(['start'], self._open())
        pmem_copy.wipe_own(self.claimed)
        self.assertEqual([], self._open())

    def test_wipe_that_fails(self):
        self.cleanup.side_effect = OSError('bad block')
        self.assertRaises(exception.VPMEMCleanupFailed, pmem_copy.wipe_own,
                          self.claimed)
        self.assertEqual(['start'], self._open())


class WipeOldTestCase(PmemCopyTestCase):

    def _wipe(self):
        pmem_copy.wipe_old('host1', self.instance, self.migration,
                           self.claimed, lambda: self.namespaces)

    def test_ticket_is_open_while_it_is_wiped(self):
        self.cleanup.side_effect = lambda path: self.assertEqual(
            {'ns_1', 'ns_2'}, pmem_copy.dirty_names())
        self._wipe()
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())
        self.assertEqual(set(), pmem_copy.dirty_names())

    def test_wipe_that_fails_leaves_the_ticket_for_settle(self):
        self.cleanup.side_effect = [OSError('bad block'), None]
        self._wipe()
        self.assertEqual({'ns_1', 'ns_2'}, pmem_copy.dirty_names())
        self.assertEqual({'ns_1', 'ns_2'}, pmem_copy.unwiped_names())
        self.assertIn('bad block', self.stdlog.logger.output)

        # The move is confirmed, and the server is elsewhere with its data.
        self.cleanup.side_effect = None
        self.cleanup.reset_mock()
        self.migration.status = 'confirmed'
        self.instance.host = 'host2'
        self._settle('host1')
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())
        self.assertEqual(set(), pmem_copy.dirty_names())

    def test_wipe_that_was_broken_off_is_for_the_confirm_to_repeat(self):
        self.cleanup.side_effect = OSError('the host dies')
        self._wipe()
        self.cleanup.reset_mock()
        self.migration.status = 'confirming'
        self._settle('host1')
        self.assertEqual([], self._wiped())
        self.assertEqual({'ns_1', 'ns_2'}, pmem_copy.dirty_names())

    def test_long_wipe_does_not_hold_up_the_caller(self):
        go_on = threading.Event()
        self.addCleanup(go_on.set)
        self.cleanup.side_effect = lambda path: go_on.wait(60)
        with mock.patch('nova.virt.libvirt.pmem_copy.WIPE_PATIENCE', 0.01):
            self._wipe()
        self.assertEqual({'ns_1', 'ns_2'}, pmem_copy.dirty_names())
        go_on.set()
        # Whoever comes next waits for it, and finds nothing left to do.
        self.assertEqual(set(), self._settle('host1'))
        self.assertEqual(set(), pmem_copy.dirty_names())
        self.assertEqual(['ns_1', 'ns_2'], self._wiped())

    def test_namespace_that_is_missing(self):
        del self.namespaces['ns_1']
        self._wipe()
        self.assertEqual(['ns_2'], self._wiped())
        self.assertEqual({'ns_1', 'ns_2'}, pmem_copy.dirty_names())


@mock.patch('nova.objects.Migration.get_by_id')
class IsElsewhereTestCase(test.NoDBTestCase):

    def _ask(self, old, node):
        resources = [objects.ResourceList(objects=[objects.Resource(
            provider_uuid=uuid, resource_class='CUSTOM_X',
            identifier='ns_0')]) for uuid in (uuids.now, old)]
        return pmem_copy.is_elsewhere(objects.Instance(
            resources=resources[0], migration_context=objects.MigrationContext(
                migration_id=7, old_resources=resources[1])), node)

    def test_revert_whose_first_half_is_done(self, get):
        get.return_value.source_node = 'node1'
        self.assertTrue(self._ask(uuids.now, 'node2'))

    def test_source_itself(self, get):
        get.return_value.source_node = 'node1'
        self.assertFalse(self._ask(uuids.now, 'node1'))

    def test_server_that_was_moved(self, get):
        self.assertFalse(self._ask(uuids.before, 'node2'))
        get.assert_not_called()


class RefuseDirtyTestCase(PmemCopyTestCase):

    def test_other_server(self):
        self._prepare()
        error = self.assertRaises(
            exception.PMEMNamespaceDirty, pmem_copy.refuse_dirty,
            uuids.other, ['ns_0', 'ns_1'])
        self.assertIn('ns_1', error.format_message())
        self.assertIn(uuids.migration, error.format_message())

    def test_own_server_and_other_namespaces(self):
        self._prepare()
        pmem_copy.refuse_dirty(uuids.instance, ['ns_1'])
        pmem_copy.refuse_dirty(uuids.other, ['ns_0'])
        pmem_copy.refuse_dirty(uuids.other, [])


class CopyTestCase(PmemCopyTestCase):

    def setUp(self):
        super().setUp()
        self.totals = transfer.Totals(2 * SIZE, SIZE, 1.5, 0)
        self.transfer = self.useFixture(fixtures.MockPatch(
            'nova.virt.libvirt.pmem.transfer.transfer',
            return_value=self.totals)).mock
        self.save = self.useFixture(fixtures.MockPatch(
            'nova.objects.Instance.save')).mock
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

    def _copy(self):
        pmem_copy.copy(self.instance, self.migration, self.pairs,
                       self.namespaces, mock.sentinel.begin,
                       mock.sentinel.end)

    def _job(self):
        return self.transfer.call_args.args[0]

    def _fails(self, *parts):
        error = self.assertRaises(exception.PMEMCopyFailed, self._copy)
        for part in parts + (uuids.instance, uuids.migration, 'host2'):
            self.assertIn(part, error.format_message())
        # What was lent is back, and the server goes on.
        self.assertEqual(0, self.chown.call_count % 2)
        self.assertEqual([], list(tickets.open_tickets()))
        self.assertEqual(0, self.instance.progress)

    def test_transfer_that_fails(self):
        self.transfer.side_effect = transfer.TransferFailed(
            'link cut', 'old_ns_2')
        self._fails('old_ns_2', 'link cut')
        self.assertEqual(4, self.chown.call_count)

    def test_reason_survives_the_cut_of_an_event(self):
        self.transfer.side_effect = transfer.TransferFailed('link cut')
        error = self.assertRaises(exception.PMEMCopyFailed, self._copy)
        self.assertRegex(
            error.format_message(), '^vPMEM namespace old_ns_1 was not copied '
            r'to ns_1 on host2: link cut \(instance ')

    def test_source_namespace_that_is_missing(self):
        del self.namespaces['old_ns_1']
        self._fails('old_ns_1', 'missing')
        self.transfer.assert_not_called()

    def test_node_that_can_not_be_lent(self):
        self.chown.side_effect = OSError('not permitted')
        error = self.assertRaises(exception.PMEMCopyFailed, self._copy)
        self.assertIn('not permitted', error.format_message())
        self.transfer.assert_not_called()

    def test_source_whose_node_has_another_number_by_now(self):
        self.pairs[0].source.devpath = '/dev/dax9.9'
        moved = self.namespaces['old_ns_1'].obj_clone()
        moved.devpath = self.owned['ns_1'].devpath
        self.namespaces['old_ns_1'] = moved
        self._copy()
        self.assertEqual(moved.devpath, self._job().devices[0].path)

    def test_sources_are_checked_before_anything_happens(self):
        pmem_copy.check_sources(self.pairs, self.namespaces)
        del self.namespaces['old_ns_2']
        self.assertRaises(
            exception.PMEMNamespaceNotFound, pmem_copy.check_sources,
            self.pairs, self.namespaces)

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

    def test_every_pair_over_ssh(self):
        self._copy()
        job = self._job()
        self.assertEqual('ssh', job.receiver[0])
        self.assertEqual(
            [(source.name, source.devpath, SIZE, target.name, SIZE)
             for source, target in self.pairs],
            [(device.name, device.path, device.size, device.target_name,
              device.target_size) for device in job.devices])
        self.assertEqual((mock.sentinel.begin, mock.sentinel.end),
                         self.transfer.call_args.args[1:3])
        self.assertEqual(100, self.instance.progress)

    def test_same_host_without_ssh(self):
        self.migration.source_compute = 'host2'
        self._copy()
        self.assertNotIn('ssh', self._job().receiver)

    def test_sender_is_started_again_as_long_as_the_server_moves(self):
        self._copy()
        is_wanted = self.transfer.call_args.args[4]
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
        self.progress = pmem_copy._Progress(self.instance)

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
