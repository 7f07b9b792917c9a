# SPDX-License-Identifier: Apache-2.0

"""Two computes with persistent memory, for functional tests.

What is real: API, scheduler, placement, both nova-computes with the libvirt
driver, ``ssh`` to an sshd on loopback, and the bytes, which stand-ins for
``ndctl`` and ``daxio`` read and write in files.

The computes are processes of their own as far as ``pmem_process`` goes: each
has its own name, state path and namespaces. Their namespaces have the same
names on all hosts; a test calls one by host and name.
"""

from concurrent import futures
import contextlib
import functools
import logging
import os
import threading

import fixtures
from oslo_utils import fileutils
from oslo_utils import importutils
from oslo_utils import units
from sqlalchemy import pool

from nova.compute import manager as compute_manager
import nova.conf
from nova import context
from nova import exception
from nova import objects
from nova.tests import fixtures as nova_fixtures
from nova.tests.fixtures import pmem
from nova.tests.fixtures import pmem_guests
from nova.tests.fixtures import pmem_process
from nova.tests.functional.api import client as api_client
from nova.tests.functional.libvirt import base
from nova.virt.libvirt import utils as libvirt_utils

CONF = nova.conf.CONF

# Some of these tests run on a Nova without the patch set, too.
namespaces = importutils.try_import('nova.virt.libvirt.pmem.namespaces')
pmem_leftovers = importutils.try_import('nova.compute.pmem_leftovers')
pmem_moves = importutils.try_import('nova.compute.pmem_moves')
pmem_recovery = importutils.try_import('nova.compute.pmem_recovery')
receiver = importutils.try_import('nova.virt.pmem_transfer.receiver')
receivers = importutils.try_import('nova.virt.libvirt.pmem.receivers')

MIB = units.Mi

#: The size of a namespace, in bytes, where a test does not say otherwise.
SIZE = 4 * MIB

PREFIX = 'CUSTOM_PMEM_NAMESPACE_'

#: Where the hosts are reached.
ADDRESSES = {'host%d' % number: '127.0.0.%d' % number for number in (1, 2, 3)}

#: How often a state is looked for, twice a second. A slow machine shared by
#: several tests needs most of it.
RETRIES = 240


class _InFlight:
    """Counts the calls of functions that are under way."""

    def __init__(self):
        self._changed = threading.Condition()
        self._calls = 0

    def __call__(self, function):
        @functools.wraps(function)
        def counted(*args, **kwargs):
            self._add(1)
            try:
                return function(*args, **kwargs)
            finally:
                self._add(-1)
        return counted

    def spawned(self, spawn, run):
        """Count what one function spawns and the other runs."""
        def counted_spawn(*args):
            self._add(1)
            spawn(*args)

        def counted_run(*args):
            try:
                run(*args)
            finally:
                self._add(-1)
        return counted_spawn, counted_run

    def _add(self, number):
        with self._changed:
            self._calls += number
            self._changed.notify_all()

    def wait(self, timeout=60):
        """Wait until none is.

        :param timeout: in seconds
        """
        with self._changed:
            if not self._changed.wait_for(lambda: not self._calls, timeout):
                raise TimeoutError('%d calls have not ended' % self._calls)


class Connections(pool.QueuePool):
    """Connections to a database in a file, which are used again.

    To connect for each query, as oslo.db does to a file, takes a fifth of the
    time of a test, and to ask a connection whether it is there some more.
    """

    def __init__(self, creator, **details):
        super().__init__(creator, **dict(details, pre_ping=False))


class PmemServersTestBase(base.ServersTestBase):
    """Starts no compute by itself: tests say which namespaces they have."""

    ADMIN_API = True
    # A cast that is a call would hand the failure of a later step to an
    # earlier one.
    CAST_AS_CALL = False
    api_major_version = 'v2.1'
    microversion = '2.105'
    # How often data is copied while a guest runs.
    RUNNING_PASSES = 0
    # Who has the device nodes; whoever runs the tests, if None.
    PMEM_OWNER = None

    def setUp(self):
        self._state_paths = {}
        self.process = {}
        self.useFixture(fixtures.MockPatchObject(
            pool, 'NullPool', Connections))
        super().setUp()
        # What nobody reads takes a tenth of the time of a test.
        logging.getLogger().setLevel(logging.INFO)
        self.flags(state_path=self.useFixture(fixtures.TempDir()).path)
        self.flags(allow_resize_to_same_host=False)
        self.pmem = self.useFixture(pmem.PmemHosts(
            list(ADDRESSES.values()), owner=self.PMEM_OWNER))
        if namespaces:
            self.flags(pmem_copy_reconnect_timeout=5,
                       pmem_copy_running_passes=self.RUNNING_PASSES,
                       group='libvirt')
            self.useFixture(fixtures.MockPatch(
                'nova.virt.pmem_transfer.receiver.command',
                self._as_nova(receiver.command)))
            self.useFixture(fixtures.MockPatchObject(
                namespaces, '_said', set()))
            self._running = {}
            self.useFixture(fixtures.MockPatchObject(
                receivers, '_running', self._running))
            self.addCleanup(self._end_receivers)
        self.useFixture(nova_fixtures.PrivsepFixture())
        self.useFixture(fixtures.MonkeyPatch(
            'nova.virt.libvirt.LibvirtDriver._create_image',
            self._create_instance_directory))
        self.useFixture(fixtures.MockPatch(
            'nova.virt.libvirt.LibvirtDriver._get_instance_disk_info',
            return_value=[]))
        self.cinder = self.useFixture(nova_fixtures.CinderFixture(self))
        self.useFixture(fixtures.MockPatch(
            'nova.volume.cinder.API.attachment_get', self._attachment_get))
        self.guests = self.useFixture(pmem_guests.Guests(self.PMEM_OWNER))
        # Last, so that it is asked first.
        self.processes = self.useFixture(pmem_process.Processes())
        self._moving = _InFlight()
        for name in ('prep_resize', 'resize_instance', 'finish_resize'):
            self.useFixture(fixtures.MockPatchObject(
                compute_manager.ComputeManager, name,
                self._moving(getattr(compute_manager.ComputeManager, name))))
        if pmem_moves:
            for name, counted in zip(
                    ('_spawn', '_in_turn'), self._moving.spawned(
                        pmem_moves._spawn, pmem_moves._in_turn)):
                self.useFixture(fixtures.MockPatchObject(
                    pmem_moves, name, counted))

    @staticmethod
    def _as_nova(command):
        """Have what a command starts pass for nova's user.

        What nova-compute itself starts passes for root's, for the most of it
        is: what privsep would start.
        """
        return lambda: ['env', 'PMEM_STAND_IN_UID=%d' % pmem.NOVA_UID,
                        *command()]

    def _attachment_get(self, context, attachment_id):
        """Tell no connection of an attachment that has none, as Cinder does.

        Nova's fixture always tells one.
        """
        found = self.cinder.fake_attachment_get(context, attachment_id)
        __, attachment, __ = self.cinder._find_attachment(attachment_id)
        if attachment['connector'] is None:
            found['connection_info'] = {}
        return found

    def state_path_of(self, host):
        """Return where a host keeps its tickets."""
        if host not in self._state_paths:
            # That of a test is too deep for the path of a socket.
            self._state_paths[host] = self.useFixture(
                fixtures.TempDir('/tmp')).path
        return self._state_paths[host]

    def in_service(self, host):
        """Run the body as the nova-compute of a host does."""
        return self.process[host].running()

    def _new_process(self, host):
        process = self.process[host] = self.processes.new(host, {
            (None, 'host'): host,
            (None, 'state_path'): self.state_path_of(host),
            ('libvirt', 'pmem_namespaces'): self.pmem.pmem_namespaces(host),
        }, {'PMEM_STAND_IN_HOST': host})
        return process

    @staticmethod
    def _create_instance_directory(driver, context, instance, *args, **kwargs):
        fileutils.ensure_tree(libvirt_utils.get_instance_path(instance))
        return False, False

    # Hosts and flavors

    def start_pmem_compute(self, host, **namespaces):
        """Start a compute with namespaces.

        :param namespaces: size in bytes by label, or a list of sizes
        """
        for label, sizes in namespaces.items():
            if isinstance(sizes, int):
                sizes = [sizes]
            for number, size in enumerate(sizes):
                self.add_namespace(host, label, size, number)
        with self._new_process(host).running():
            self.start_compute(host)
        self._set_address(host)
        # A service does not stop while it waits for a tool that hangs.
        self.addCleanup(self.pmem.cancel_faults)
        return self.computes[host]

    def _end_receivers(self):
        """End what a nova-compute's end would: other tests look for theirs."""
        for process in list(self._running.values()):
            process.kill()
            process.wait()
            receivers._close(process)

    def add_namespace(self, host, label, size=SIZE, number=0):
        """Give a host a namespace whose name others have as well."""
        listed = '%s_%d' % (label.lower(), number)
        self.pmem.add_namespace(
            '%s_%s' % (host, listed), size, host=host, label=label,
            listed=listed)

    def restart_pmem_compute(self, host):
        with self._new_process(host).running():
            compute = self.restart_compute_service(host)
        self._set_address(host)
        return compute

    def _set_address(self, host):
        """Let a host be reached where its sshd listens."""
        self.useFixture(fixtures.MockPatchObject(
            self.computes[host].driver, 'get_host_ip_addr',
            return_value=ADDRESSES[host]))

    def start_two_computes(self, number=2):
        """Start host1 and host2 with so many namespaces of label SMALL."""
        for host in ('host1', 'host2'):
            self.start_pmem_compute(host, SMALL=[SIZE] * number)

    def create_pmem_flavor(self, *labels, vcpu=1):
        extra_spec = {'hw:pmem': ','.join(labels)} if labels else {}
        return self._create_flavor(
            vcpu=vcpu, memory_mb=512, disk=1, ephemeral=0,
            extra_spec=extra_spec)

    def links(self):
        """Return how ssh was called to move bytes, by arguments."""
        return [call['args'] for call in self.pmem.calls('ssh')
                if '-L' in call['args']]

    # Servers

    def boot(self, *labels, host='host1'):
        """Boot a server with vPMEM on a host."""
        return self._create_server(
            flavor_id=self.create_pmem_flavor(*labels), host=host,
            networks='none')

    def namespaces_of(self, server):
        """Return the names of a server's namespaces, in the guest's order."""
        instance = self._instance(server)
        labels = instance.flavor.extra_specs.get('hw:pmem')
        left = list(instance.resources or [])
        names = []
        for label in labels.split(',') if labels else []:
            found = next(each for each in left
                         if each.resource_class == PREFIX + label)
            left.remove(found)
            names.append(self._name_of(found))
        return names

    def _name_of(self, resource):
        host, = [name for name, uuid in self.compute_rp_uuids.items()
                 if uuid == resource.provider_uuid]
        return self.pmem.name_of(host, resource.identifier)

    def fill(self, server):
        """Fill a server's namespaces with data; return their digests."""
        return [self.pmem.fill(name, seed=name)
                for name in self.namespaces_of(server)]

    def digests(self, server):
        return [self.pmem.digest(name) for name in self.namespaces_of(server)]

    def domains(self, host, server):
        """Return the guests of a server that are defined on a host."""
        return [domain for domain in list(self.connection(host)._vms.values())
                if domain.UUIDString() == server['id']]

    def connection(self, host):
        return self.computes[host].driver._host.get_connection()

    def guest_runs(self, host, server):
        return any(domain.isActive() for domain in self.domains(host, server))

    def guest_of(self, host, server):
        """Return the process of a server's guest on a host, if it runs."""
        for domain in self.domains(host, server):
            if domain.isActive():
                return self.guests.guest_of(domain)
        return None

    def write_as_guest(self, host, server, data, offset=0):
        """Let the guest of a server write to its first vPMEM device."""
        domain, = [each for each in self.domains(host, server)
                   if each.isActive()]
        self.guests.guest_of(domain).write(offset, data)

    def _instance(self, server):
        return objects.Instance.get_by_uuid(
            context.get_admin_context(), server['id'],
            expected_attrs=['resources', 'flavor', 'migration_context'])

    def act(self, server, action, body=None):
        return self.api.post_server_action(server['id'], {action: body})

    def resize(self, server, flavor, copy=True, status='VERIFY_RESIZE'):
        """Resize a server; ``copy`` None leaves the field out."""
        self.act(server, 'resize', self._body(copy, flavorRef=flavor))
        return self._settled(server, status)

    def migrate(self, server, copy=True, status='VERIFY_RESIZE', **body):
        """Migrate a server; ``copy`` None leaves the field out."""
        self.act(server, 'migrate', self._body(copy, **body))
        return self._settled(server, status)

    @staticmethod
    def _body(copy, **fields):
        return fields if copy is None else dict(
            fields, copy_pmem_devices=copy)

    def confirm(self, server, status='ACTIVE'):
        self.act(server, 'confirmResize')
        return self._settled(server, status)

    def revert(self, server, status='ACTIVE'):
        self.act(server, 'revertResize')
        return self._settled(server, status)

    def _settled(self, server, status):
        """Wait until nothing goes on with a server any more."""
        self._wait_for_server_parameter(
            server, {'status': status, 'OS-EXT-STS:task_state': None},
            max_retries=RETRIES)
        # What has failed clears the task state once more at its very end, be
        # it that of the next action by then.
        self._moving.wait()
        return self._wait_for_server_parameter(
            server, {'status': status, 'OS-EXT-STS:task_state': None},
            max_retries=RETRIES)

    def refused(self, status, server, action, body, version=None):
        """Assert that an action is refused; return what the API says."""
        api = self.api
        if version is not None:
            api = self.api_fixture.admin_api
            api.microversion = version
        try:
            error = self.assertRaises(
                api_client.OpenStackApiException,
                api.post_server_action, server['id'], {action: body})
        finally:
            api.microversion = self.microversion
        self.assertEqual(status, error.response.status_code)
        return error.response.text

    def open_tickets(self, *hosts):
        """Return what is open: the hosts, as often as they have a ticket.

        :param hosts: all, if none is given
        """
        found = []
        for host in sorted(hosts or self._state_paths):
            with contextlib.suppress(FileNotFoundError):
                found += [host for name in os.listdir(os.path.join(
                    self.state_path_of(host), 'pmem-copy'))
                    if not name.startswith('.') and not os.path.isdir(
                        os.path.join(self.state_path_of(host), 'pmem-copy',
                                     name))]
        return found

    def wait_for_log(self, text):
        self._wait_for_assert(
            lambda: self.assertIn(text, self.stdlog.logger.output),
            max_retries=RETRIES)

    def fail_next(self, name, times=1):
        """Let a function of Nova's fail when it is called next.

        :param name: with module and class
        :returns: the list of its calls, which grows
        """
        *path, attribute = name.split('.')
        owner = importutils.import_class('.'.join(path))
        original = getattr(owner, attribute)
        calls = []

        @functools.wraps(original)
        def function(*args, **kwargs):
            calls.append(args)
            if len(calls) <= times:
                raise exception.NovaException('%s fails' % attribute)
            return original(*args, **kwargs)

        self.useFixture(fixtures.MockPatchObject(
            owner, attribute, function))
        return calls

    def messages_are_lost_at_once(self):
        """Let the next periodic task take up what nobody works on."""
        self.useFixture(fixtures.MockPatch(
            'nova.compute.pmem_recovery.LOST_AFTER', 0))

    # What has to hold

    def assert_zero(self, *names):
        self.assertEqual([], [
            name for name in names if not self.pmem.is_zero(name)],
            'not wiped')

    def wait_until_zero(self, *names):
        """Wait for a wipe that keeps nobody waiting, without the clock.

        And for what comes after it: its ticket is closed, the scheduler knows.
        """
        self._wait_for_assert(lambda: self.assert_zero(*names))
        if pmem_leftovers:
            self._wait_for_rounds()

    def _wait_for_rounds(self):
        for rounds in list(pmem_leftovers._ROUNDS.values()):
            if running := rounds._running:
                running.result()
        for compute in list(self.computes.values()):
            futures.wait(compute.driver.pmem_api.wipes.under_way())

    def assert_data(self, data, server):
        """A server has its data, as ``fill`` gave it."""
        names = self.namespaces_of(server)
        lost = ['%s is %s' % (name, 'zero' if self.pmem.is_zero(name)
                              else 'changed')
                for name, digest in zip(names, data, strict=True)
                if self.pmem.digest(name) != digest]
        self.assertEqual([], lost, 'lost')

    def run_periodic_tasks(self, *hosts):
        for host in hosts or list(self.computes):
            with self.in_service(host):
                manager = self.computes[host].manager
                if pmem_recovery:
                    pmem_recovery.run(manager)
                    round_of_it = pmem_recovery._WATCHES[manager].round
                    if round_of_it is not None:
                        round_of_it.result()
                    self._wait_for_rounds()
                manager.update_available_resource(
                    context.get_admin_context())
