# SPDX-License-Identifier: Apache-2.0

"""The checker of the fault matrix sees each kind of violation.

Each test breaks one thing by hand, sees that exactly this is reported, mends
it, and sees that nothing is.
"""

import contextlib
import os
import signal
import subprocess
import threading
import unittest
from unittest import mock

import fixtures
from oslo_utils import uuidutils
import testtools

from nova.compute import vm_states
from nova import context
from nova import objects
from nova.tests.fixtures import libvirt as fakelibvirt
from nova.tests.functional.libvirt import pmem_base
from nova.tests.functional.libvirt import pmem_faults
from nova.tests.functional.libvirt import pmem_invariant
from nova.tests.functional.libvirt import pmem_world
from nova import thread_pool_factory

SOURCE, DESTINATION = pmem_world.HOSTS
OLD, NEW = pmem_world.OLD, pmem_world.NEW
RESOURCE = pmem_base.PREFIX + 'MOVED'


class _WithWorld(testtools.TestCase):
    """One world for the tests of a class."""

    world = None

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        pmem_world.needs_threads()
        cls.world = pmem_world.WorldByHand()
        cls.world.setUp()
        cls.server = cls.world.take_server()
        cls.snapshot = pmem_invariant.take(cls.world, cls.server)

    @classmethod
    def tearDownClass(cls):
        cls.world.doCleanups()
        cls.world = None
        super().tearDownClass()

    def setUp(self):
        super().setUp()
        # Nova stops a server whose guest has ended, some seconds later.
        self.useFixture(fixtures.MockPatchObject(
            fakelibvirt.Connection, '_emit_lifecycle'))
        self.assert_clean()

    def found(self):
        return pmem_invariant.check(self.world, self.snapshot)

    def assert_clean(self):
        self.assertEqual([], self.found())

    @contextlib.contextmanager
    def reported(self, *texts):
        """Each of the texts begins one violation; there are no others."""
        yield
        found = self.found()
        self.assertEqual(len(texts), len(found), found)
        for text, actual in zip(texts, found):
            self.assertThat(actual, testtools.matchers.StartsWith(text))

    def unnoticed(self):
        """Let guests start and not write."""
        return mock.patch.object(self.world.diary, '_server', None)

    def instance(self):
        return objects.Instance.get_by_uuid(
            context.get_admin_context(), self.server['id'])

    @contextlib.contextmanager
    def saved(self, thing, **fields):
        """Change a record of the database for the body's time."""
        before = {name: getattr(thing, name) for name in fields}
        for change in (fields, before):
            for name, value in change.items():
                setattr(thing, name, value)
            thing.save()
            if change is fields:
                yield

    @contextlib.contextmanager
    def written(self, name):
        before = self.world.pmem.read(name, 0, 1)
        # What is there is random.
        self.world.pmem.write(name, 0, bytes([before[0] ^ 0xff]))
        yield
        self.world.pmem.write(name, 0, before)

    @contextlib.contextmanager
    def ticket(self, text, name='.receive'):
        folder = pmem_invariant.ticket_folder(self.world, DESTINATION)
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, uuidutils.generate_uuid() + name)
        with open(path, 'w') as file:
            file.write(text)
        yield
        os.unlink(path)


class PmemInvariantTests(_WithWorld):
    """A server that runs on the source, as before the move."""

    def test_server_in_error(self):
        with self.saved(self.instance(), vm_state=vm_states.ERROR):
            with self.reported('the server is ERROR',
                               'a guest of the server runs on host1'):
                pass

    def test_server_left_in_a_task(self):
        with self.saved(self.instance(), task_state='resize_migrating'):
            with self.reported('the server is RESIZE',
                               'the server is left in task resize_migrating',
                               'a guest of the server runs on host1'):
                pass

    def test_server_on_an_unknown_host(self):
        with self.saved(self.instance(), host='host3'):
            found = self.found()
        self.assertIn('the server is on host host3', found)

    def test_server_that_was_to_be_deleted(self):
        snapshot = self.snapshot
        with mock.patch.object(snapshot, 'is_deleted', True):
            with self.reported('the server was deleted and is ACTIVE'):
                pass

    def test_server_that_is_gone(self):
        with mock.patch.dict(self.snapshot.server,
                             id=uuidutils.generate_uuid()):
            self.assertIn('the server is gone', self.found())

    def test_guest_that_is_off(self):
        domain, = self.world.domains(SOURCE, self.server)
        domain.destroy()
        with self.reported('the guest does not run on host1'):
            pass
        domain.create()

    def test_guest_that_was_stopped_for_nothing(self):
        self.snapshot.guest = self.world.guest_of(SOURCE, self.server)
        self.assert_clean()
        domain, = self.world.domains(SOURCE, self.server)
        domain.destroy()
        domain.create()
        with self.reported('the guest was stopped for nothing'):
            pass
        self.snapshot.guest = None

    def test_guest_that_runs_twice(self):
        first, = self.world.domains(SOURCE, self.server)
        second = self.world.connection(DESTINATION).defineXML(
            first.XMLDesc(0))
        with self.reported('a guest of the server is defined on host2'):
            pass
        with self.unnoticed():
            second.create()
        with self.reported('a guest of the server runs on host2',
                           'a guest of the server is defined on host2'):
            pass
        second.destroy()
        second.undefine()

    def test_guest_that_starts_without_its_data(self):
        domain, = self.world.domains(SOURCE, self.server)
        domain.destroy()
        self.world.pmem.write(OLD, 0, b'x')
        domain.create()
        with self.reported('the guest started on %s without' % OLD):
            pass
        self.world.diary.surprises.clear()

    def test_guest_that_goes_back(self):
        domain, = self.world.domains(SOURCE, self.server)
        domain.destroy()
        diary = self.world.diary
        diary.expected[NEW] = 'what it wrote there'
        domain.create()
        with self.reported('what the guest wrote on host2 is given up'):
            pass
        diary.surprises.clear()

    def test_guest_whose_process_is_gone(self):
        domain, = self.world.domains(SOURCE, self.server)
        os.kill(self.world.guests.guest_of(domain).pid, signal.SIGKILL)
        self.world.diary.go_on()
        with self.reported('the process of the guest on %s is gone' % OLD):
            pass
        domain.destroy()
        domain.create()
        self.world.diary.surprises.clear()

    def test_bystander_whose_process_is_gone(self):
        domain, = self.world.domains(
            DESTINATION, self.world.bystanders[DESTINATION])
        guest = self.world.guests.guest_of(domain)
        os.kill(guest.pid, signal.SIGKILL)
        pmem_world.wait_until(lambda: not guest.lives, 'its end')
        with self.reported('the process of the other guest of host2 is gone'):
            pass
        domain.destroy()
        domain.create()

    def test_volume_that_is_attached_elsewhere(self):
        for hosts in (['host2'], ['host1', 'host2'], [None], []):
            with mock.patch.object(
                    self.world, 'volumes_of', return_value=hosts), \
                    mock.patch.object(self.snapshot, 'volumes', 1):
                with self.reported('volumes are attached to '):
                    pass

    def test_libvirt_refuses_what_the_real_one_does(self):
        domain, = self.world.domains(SOURCE, self.server)
        for call in (domain.create, domain.undefine):
            self.assertRaises(fakelibvirt.libvirtError, call)
        # It runs on when it is defined anew.
        again = self.world.connection(SOURCE).defineXML(domain.XMLDesc(0))
        self.assertIs(domain, again)
        self.assertTrue(domain.isActive())
        stranger = self.world.define_stranger(SOURCE, 'host1_free_0')
        stranger.destroy()
        stranger.undefine()
        self.assertRaises(fakelibvirt.libvirtError, stranger.create)

    def test_guest_with_another_device(self):
        domain, = self.world.domains(SOURCE, self.server)
        device = domain._def['devices']['vpmems'][0]
        with mock.patch.dict(
                device, path=self.world.pmem.path('host1_free_0')):
            with self.reported("the guest on host1 runs with ['host1_free_0"):
                pass

    def test_lost_data(self):
        with self.written(OLD), self.reported('the data is not in ' + OLD):
            pass

    def test_data_left_on_the_other_host(self):
        with self.written(NEW), self.reported(NEW + ' is not wiped'):
            pass

    def test_any_other_namespace_that_changes(self):
        for host in pmem_world.HOSTS:
            for name in ('%s_taken_0' % host, '%s_free_0' % host):
                with self.written(name), self.reported(
                        '%s has changed' % name):
                    pass

    def test_guest_that_starts_on_dirt(self):
        with self.written('host2_free_0'):
            stranger = self.world.define_stranger(
                DESTINATION, 'host2_free_0')
            stranger.destroy()
            self.world._known_guests.discard(stranger.UUIDString())
            stranger.create()
        stranger.destroy()
        stranger.undefine()
        with self.reported('a new guest '):
            pass
        self.world.dirty_starts.clear()

    def test_data_of_an_intruder_that_changes(self):
        with pmem_faults.Intruders(self.world) as intruders:
            # The source's namespace is taken.
            self.assertEqual([NEW], list(intruders._data))
            self.assertEqual([], intruders.violations())
            self.world.pmem.write(NEW, 5, b'x')
            self.assertEqual(1, len(intruders.violations()))
        pmem_invariant.settle(self.world, self.server)

    def test_bystander_in_error(self):
        bystander = objects.Instance.get_by_uuid(
            context.get_admin_context(), self.world.bystanders[SOURCE]['id'])
        with self.saved(bystander, vm_state=vm_states.ERROR):
            with self.reported('the other server of host1 is ERROR'):
                pass

    def test_bystander_that_is_off(self):
        domain, = self.world.domains(
            DESTINATION, self.world.bystanders[DESTINATION])
        domain.destroy()
        with self.reported('the other guest of host2 is with '):
            pass
        domain.create()

    def _allocate(self, consumer, host, amount=1):
        """Let a consumer have namespaces of a host; none, if 0."""
        body = {
            'allocations': {self.world.compute_rp_uuids[host]: {
                'resources': {RESOURCE: amount}}} if amount else {},
            'project_id': 'project', 'user_id': 'user',
            'consumer_generation': None}
        if not amount:
            response = self.world.placement.delete(
                '/allocations/%s' % consumer)
        else:
            response = self.world.placement.put(
                '/allocations/%s' % consumer, body, version='1.28')
        self.assertEqual(204, response.status)

    def test_allocation_that_is_left(self):
        consumer = uuidutils.generate_uuid()
        self._allocate(consumer, DESTINATION)
        with self.reported('%s has allocated' % consumer):
            pass
        self._allocate(consumer, DESTINATION, 0)

    def test_allocation_that_is_missing(self):
        consumer = self.world.bystanders[SOURCE]['id']
        before = self.world.placement.get(
            '/allocations/%s' % consumer, version='1.28').body
        self._allocate(consumer, SOURCE, 0)
        with self.reported('%s has allocated None' % consumer):
            pass
        before['consumer_generation'] = None
        for provider in before['allocations'].values():
            provider.pop('generation')
        self.world.placement.put(
            '/allocations/%s' % consumer, before, version='1.28')

    def _reserve(self, number):
        url = '/resource_providers/%s/inventories' % (
            self.world.compute_rp_uuids[DESTINATION])
        body = self.world.placement.get(url).body
        body['inventories'][RESOURCE]['reserved'] = number
        self.assertEqual(200, self.world.placement.put(
            url, body, version='1.26').status)

    def test_namespace_that_is_not_offered(self):
        self._reserve(1)
        with self.reported('%s of host2: total 1, reserved 1' % RESOURCE):
            pass
        self._reserve(0)

    def test_claim_that_is_left(self):
        tracker = self.world.computes[DESTINATION].manager.rt
        resource = objects.Resource(
            provider_uuid=self.world.compute_rp_uuids[DESTINATION],
            resource_class=RESOURCE,
            identifier=self.world.pmem.known(NEW))
        tracker._add_assigned_resources([resource])
        with self.reported('the resource tracker of host2 has given away'):
            pass
        tracker._release_assigned_resources([resource])

    def test_claim_that_is_missing(self):
        tracker = self.world.computes[SOURCE].manager.rt
        resources = list(objects.Instance.get_by_uuid(
            context.get_admin_context(), self.server['id'],
            expected_attrs=['resources']).resources)
        tracker._release_assigned_resources(resources)
        with self.reported('the resource tracker of host1 has given away'):
            pass
        tracker._add_assigned_resources(resources)

    def test_migration_that_has_not_ended(self):
        migration = objects.Migration(
            context.get_admin_context(), source_compute=SOURCE,
            dest_compute=DESTINATION, instance_uuid=self.server['id'],
            migration_type='migration', status='migrating',
            user_id='user', project_id='project')
        migration.create()
        with self.reported('migration 1 of the server is migrating'):
            pass
        migration.status = 'error'
        migration.save()

    def test_ticket_that_is_open(self):
        for kind in ('receive', 'hold'):
            with self.ticket('{"kind": "%s"}' % kind), self.reported(
                    'ticket '):
                pass

    def test_ticket_that_is_damaged(self):
        with self.ticket('{"kind":'), self.reported('ticket '):
            pass

    @unittest.skipUnless(pmem_world.World.PMEM_OWNER, 'needs root')
    def test_node_that_is_still_lent(self):
        path = self.world.pmem.path(NEW)
        os.chown(path, 0, 0)
        with self.reported('the node of %s is still lent' % NEW):
            pass
        os.chown(path, *[self.world.PMEM_OWNER] * 2)

    def test_process_that_runs_on(self):
        process = subprocess.Popen(
            [os.path.join(self.world.pmem.bin, 'ssh'), '-o', 'BatchMode=yes',
             '127.0.0.1', 'echo; read x'],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        process.stdout.readline()
        found = self.found()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        # The client, the session, and what runs in it.
        self.assertGreaterEqual(len(found), 3)
        self.assertEqual([], [text for text in found
                              if ' still runs: ' not in text])
        pmem_world.wait_until(
            lambda: not pmem_invariant.left_processes(self.world), 'an end')

    def test_work_that_does_not_end(self):
        end = threading.Event()
        self.addCleanup(end.wait)
        with self.world.in_service(SOURCE):
            job = thread_pool_factory.spawn(end.wait)
        with mock.patch.object(
                pmem_world.wait_until, '__defaults__', (0.2, 0.05)):
            found = pmem_invariant.settle(self.world, self.server)
        end.set()
        job.result()
        self.assertThat(found[0], testtools.matchers.StartsWith(
            'an end of what is under way'))


class PmemInvariantOfMovedTests(_WithWorld):
    """A server that waits to be confirmed."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.world.act(cls.server, 'migrate', {'copy_pmem_devices': True})
        cls.world.wait_until_quiet()
        pmem_invariant.settle(cls.world, cls.server)

    def test_data_to_go_back_to(self):
        with self.written(OLD), self.reported('the data to go back to '):
            pass

    def test_data_on_the_destination(self):
        with self.written(NEW), self.reported('the data is not in ' + NEW):
            pass

    def test_nothing_holds_the_source(self):
        folder = pmem_invariant.ticket_folder(self.world, SOURCE)
        name, = os.listdir(folder)
        path = os.path.join(folder, name)
        os.rename(path, path + '.x')
        with mock.patch.object(pmem_invariant, 'tickets',
                               return_value=iter(())):
            with self.reported('nothing holds what the server has on host1'):
                pass
        os.rename(path + '.x', path)

    def test_migration_that_is_in_another_state(self):
        migration = objects.Migration.get_by_uuid(
            context.get_admin_context(),
            self.world.migrations(self.server)[-1]['uuid'])
        with self.saved(migration, status='confirming'):
            with self.reported('migration 1 of the server is confirming'):
                pass

    def test_guest_that_runs_on_the_source_as_well(self):
        domain, = self.world.domains(SOURCE, self.server)
        with self.unnoticed():
            domain.create()
        with self.reported('a guest of the server runs on host1'):
            pass
        domain.destroy()

    def test_claim_on_the_source_that_is_missing(self):
        tracker = self.world.computes[SOURCE].manager.rt
        resource, = [each for classes in tracker.assigned_resources.values()
                     for each in classes[RESOURCE]]
        tracker._release_assigned_resources([resource])
        with self.reported('the resource tracker of host1 has given away'):
            pass
        tracker._add_assigned_resources([resource])
