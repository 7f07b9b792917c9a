# SPDX-License-Identifier: Apache-2.0

"""Two hosts on which things go wrong, for many tests one after the other.

Starting a whole Nova costs most of a functional test. A world is started by
hand and serves many cases, as long as each leaves it as it was.
"""

import contextlib
import os
import threading
import time
import unittest

import fixtures
from futurist import _thread as futurist
from oslo_log import log as logging
from oslo_utils import importutils
from oslo_utils import uuidutils

import nova.conf
from nova import context
from nova.tests.fixtures import libvirt as fakelibvirt
from nova.tests.fixtures import pmem_process
from nova.tests.functional.api import client as api_client
from nova.tests.functional.libvirt import pmem_base
from nova import utils

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

SOURCE, DESTINATION = HOSTS = ('host1', 'host2')

#: What the server has and wants; what another server of each host has; what
#: nobody has.
MOVED, TAKEN, FREE = 'MOVED', 'TAKEN', 'FREE'

#: What tests call them; their hosts call both the same.
OLD, NEW = ('%s_moved_0' % host for host in HOSTS)

SIZE = pmem_base.SIZE

#: Seconds after which something that was to come has not.
PATIENCE = 90

#: A periodic task of Nova's that looks at the images of a hypervisor, of
#: which there is none here.
NOT_RUN = frozenset(('_run_image_cache_manager_pass',))


#: Topics that nobody reads.
UNREAD = frozenset(
    '%s.%s' % (topic, priority)
    for topic in ('notifications', 'versioned_notifications')
    for priority in ('info', 'error'))

STRANGER = """
<domain type="kvm">
  <name>stranger</name>
  <uuid>%(uuid)s</uuid>
  <memory>1024</memory>
  <vcpu>1</vcpu>
  <os><type>hvm</type></os>
  <devices>
    <memory model="nvdimm">
      <source><path>%(path)s</path><alignsize>2048</alignsize></source>
      <target><size>4096</size><node>0</node></target>
    </memory>
  </devices>
</domain>
"""


class NotReached(Exception):
    """What was to happen has not."""


def needs_threads():
    """Skip a class of tests where Nova runs with eventlet.

    What tells one service from another goes along with native threads.
    """
    if not utils.concurrency_mode_threading():
        raise unittest.SkipTest('needs native threads')


def wait_until(condition, what, timeout=PATIENCE, interval=0.05):
    """Wait until something that nobody announces is true.

    :param timeout: in seconds
    :param interval: in seconds
    :raises NotReached: if it is not
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise NotReached('%s: not within %d s' % (what, timeout))
        time.sleep(interval)


class Hook:
    """Something to do when a function is called, once."""

    def __init__(self, name, action, host=None, waits=False):
        """Describe it.

        :param host: by whom; by anybody, if None
        :param waits: whether what announces ``name.since`` comes first
        """
        self.name = name
        self.happened = threading.Event()
        self._action = action
        self._host = host
        self._waits = waits
        self._is_over = False
        # What it does may call what announces something else.
        self._lock = threading.RLock()

    def reach(self, name):
        with self._lock:
            if self._host and not pmem_process.current().name.startswith(
                    self._host + '.'):
                return
            if name == self.name + '.since':
                self._waits = False
            if name != self.name or self._waits or self._is_over:
                return
            self._is_over = True
            try:
                # It is the world that acts here, and not the service.
                with pmem_process.outside():
                    self._action()
            finally:
                self.happened.set()

    def wait(self):
        if not self.happened.wait(PATIENCE):
            raise NotReached('%s was not reached' % self.name)


class Diary:
    """What the guest of one server has written, and what became of it.

    The guest looks at its data when it starts, as it is then, and goes on
    writing as long as it runs. So what it has on a host is the last that it
    wrote there; or, before it ran there, what it wrote on the host before.

    :ivar expected: the digest of what it has to find, by namespace
    :ivar surprises: what was otherwise
    :ivar may_go_back: whether the user has asked for what was written on the
        destination to be given up
    """

    OFFSET = 4096

    def __init__(self, world):
        self._world = world
        self._server = None
        self._number = 0
        world.guests.on_start.append(self._starts)
        world.guests.on_started.append(self._started)

    def watch(self, server):
        """Begin with a server that runs on the source."""
        self._server = server
        self.may_go_back = False
        self.surprises = []
        self.expected = {OLD: self._world.pmem.digest(OLD)}

    def ran_on(self, host):
        """Whether it ran there, and nobody has given that up."""
        return {SOURCE: OLD, DESTINATION: NEW}[host] in self.expected

    def on(self, name):
        """Return what the server has to have in a namespace."""
        return self.expected.get(name, self.expected[OLD])

    def _is_watched(self, domain):
        return self._server and domain.UUIDString() == self._server['id']

    def _starts(self, domain):
        if not self._is_watched(domain):
            return
        name, = self._world.nodes_of(domain)
        for host in HOSTS:
            if self._world.guest_runs(host, self._server):
                self.surprises.append(
                    'the guest started on %s and ran on %s' % (name, host))
        if name not in (OLD, NEW):
            self.surprises.append('the guest started on %s' % name)
        elif self._world.pmem.digest(name) != self.on(name):
            self.surprises.append(
                'the guest started on %s without its data' % name)
        if name == OLD and self.ran_on(DESTINATION) and not self.may_go_back:
            self.surprises.append(
                'what the guest wrote on %s is given up' % DESTINATION)

    def _started(self, domain):
        if not self._is_watched(domain):
            return
        name, = self._world.nodes_of(domain)
        if name == OLD:
            self.expected.pop(NEW, None)
        self._write(domain, name)

    def go_on(self):
        """Let the guest write something new, if it runs."""
        if self._server is None:
            return
        for host in HOSTS:
            for domain in self._world.domains(host, self._server):
                if domain.isActive():
                    name, = self._world.nodes_of(domain)
                    self._write(domain, name)

    def _write(self, domain, name):
        self._number += 1
        guest = self._world.guests.guest_of(domain)
        try:
            guest.write(self.OFFSET, b'%8d' % self._number)
        except (AttributeError, EOFError, ValueError):
            # It may have been stopped a moment ago.
            if domain.isActive():
                self.surprises.append(
                    'the process of the guest on %s is gone' % name)
            return
        if name in (OLD, NEW):
            self.expected[name] = self._world.pmem.digest(name)


class World(pmem_base.PmemServersTestBase):
    """A source and a destination, each of which can be killed."""

    # It serves many cases, which see to their time themselves.
    TIMEOUT_SCALING_FACTOR = 100

    PMEM_OWNER = 64055 if os.geteuid() == 0 else None

    #: How many namespaces of label MOVED each host has.
    NUMBER = 1

    def setUp(self):
        super().setUp()
        # Nova's tests let idle threads wake up a hundred times a second, to
        # end soon. A world has dozens of them, and lives for long.
        self.useFixture(fixtures.MockPatchObject(
            futurist.ThreadWorker, 'MAX_IDLE_FOR', 0.3))
        self.configure()
        # As operators want it: a host that boots starts its guests.
        self.flags(resume_guests_state_on_host_boot=True)
        # Shorter than usual, and in the same order.
        self.flags(rpc_response_timeout=10)
        self.useFixture(fixtures.MockPatch(
            'nova.virt.libvirt.pmem_copy.WIPE_PATIENCE', 3))
        # Periodic tasks run only when nobody has anything to do, and no
        # message is on its way.
        self.messages_are_lost_at_once()
        self._give_each_service_its_database()
        self.bystanders = {}
        self._connections = {}
        self._flavors = {}
        self._kept = None
        self._hook = None
        self._hooked = set()
        self._log_mark = 0
        self.dirty_starts = []
        self._watch_guests()
        self.diary = Diary(self)
        for host in HOSTS:
            for label in (MOVED, TAKEN, FREE):
                for number in range(self.NUMBER if label == MOVED else 1):
                    self.add_namespace(host, label, number=number)
            self._start(host)
            self.addCleanup(self.pmem.cancel_faults)
        for host in HOSTS:
            self.bystanders[host] = self.boot(TAKEN, host=host)
            self.fill(self.bystanders[host])

    def _give_each_service_its_database(self):
        """Let no service look into the database that another one targets.

        Nova's tests have code that targets no cell read what somebody else has
        targeted last. Here that would be cell0 at times, where a failed boot
        goes: a nova-compute would not find its servers, or two threads wait
        for each other.
        """
        cells = context.target_cell.__self__
        default = cells._default_ctxt_mgr
        self.useFixture(fixtures.MonkeyPatch(
            'nova.context.target_cell', cells._real_target_cell))
        self.useFixture(fixtures.MonkeyPatch(
            'nova.db.main.api.get_context_manager',
            lambda context: getattr(context, 'db_connection', None) or
            default))

    def configure(self):
        """Set options before any nova-compute starts."""

    # Servers

    def flavor(self, *labels):
        if labels not in self._flavors:
            self._flavors[labels] = self.create_pmem_flavor(*labels)
        return self._flavors[labels]

    def ask_to_boot(self, *labels, host=SOURCE):
        body = self._build_server(
            flavor_id=self.flavor(*labels), networks='none', host=host)
        return self.api.post_server({'server': body})

    def boot(self, *labels, host=SOURCE):
        server = self.ask_to_boot(*labels, host=host)
        self.wait_until_quiet()
        if self.status(server) != 'ACTIVE':
            raise NotReached('a server to start with: %s' % self.show(server))
        return self.show(server)

    def take_server(self, has_volume=False):
        """Return a server on the source, with data.

        It may have been moved before and have come back.
        """
        server, self._kept = self._kept, None
        if server is None:
            server = self.boot(MOVED)
        if has_volume and not self.volumes_of(server):
            self.attach_volume(server)
        self.fill(server)
        self.diary.watch(server)
        return server

    def attach_volume(self, server):
        self.api.post_server_volume(server['id'], {
            'volumeAttachment': {'volumeId': uuidutils.generate_uuid()}})
        self.wait_until_quiet()
        if not self.volumes_of(server):
            raise NotReached('a volume that is attached')

    def volumes_of(self, server):
        """Return the hosts to which Cinder has attached volumes of a server.

        None stands for an attachment to no host.
        """
        return [(attachment.get('connector') or {}).get('host')
                for attachments in self.cinder.volume_to_attachment.values()
                for attachment in attachments.values()
                if attachment['instance_uuid'] == server['id']]

    def keep(self, server):
        """Keep a server for the next to take, if it is as it was at first."""
        found = self.show(server)
        if (found['status'], found['OS-EXT-SRV-ATTR:host']) != (
                'ACTIVE', SOURCE):
            return False
        self._kept = found
        return True

    def show(self, server):
        """Return what the API says of a server; None if it is gone."""
        try:
            return self.api.get_server(server['id'])
        except api_client.OpenStackApiNotFoundException:
            return None

    def status(self, server):
        found = self.show(server)
        return found and found['status']

    def is_at_rest(self, server):
        found = self.show(server)
        return found is None or found['OS-EXT-STS:task_state'] is None

    def migrations(self, server):
        """Return the migrations of a server, the oldest first."""
        found = self.api.api_get('/os-migrations').body['migrations']
        return sorted((each for each in found
                       if each['instance_uuid'] == server['id']),
                      key=lambda each: each['id'])

    def _watch_guests(self):
        """See each guest that starts on a namespace that is not clean.

        Namespaces are the server's own if it had them when it was off.
        """
        self.guests.on_start.append(self._look_at)
        self._known_guests = set()

    def _look_at(self, domain):
        if domain.UUIDString() in self._known_guests:
            return
        self._known_guests.add(domain.UUIDString())
        for name in self.nodes_of(domain):
            if name in self.pmem.names() and not self.pmem.is_zero(name):
                self.dirty_starts.append(
                    'a new guest %s started on %s, which is not zero' % (
                        domain.UUIDString(), name))

    def nodes_of(self, domain):
        """Return the names of the namespaces that a guest is defined with.

        What is no namespace (any more) is given as it is.
        """
        names = {os.path.realpath(self.pmem.path(name)): name
                 for name in self.pmem.names()}
        paths = [os.path.realpath(device['path'])
                 for device in domain._def['devices']['vpmems']]
        return [names.get(path, path) for path in paths]

    def define_stranger(self, host, name):
        """Let a guest that Nova does not know run on a namespace."""
        xml = STRANGER % {
            'uuid': uuidutils.generate_uuid(), 'path': self.pmem.path(name)}
        domain = self.connection(host).defineXML(xml)
        self._known_guests.add(domain.UUIDString())
        domain.create()
        return domain

    # Processes

    def connection(self, host):
        # libvirt is there before its nova-compute is.
        if host in self.computes:
            self._connections[host] = super().connection(host)
        return self._connections[host]

    def _start(self, host, connection=None):
        with self._new_process(host).running():
            self.start_compute(host, connection=connection)
        self._set_address(host)

    def kill(self, host, children=True):
        """Kill a nova-compute.

        :param children: whether with its children; those that privsep's
            daemon has started live on with some service managers
        """
        LOG.info('World: nova-compute of %s is killed', host)
        self.process[host].kill(children)

    def restart(self, host):
        """Start a nova-compute that was killed."""
        LOG.info('World: nova-compute of %s is started', host)
        connection = self.connection(host)
        self.computes.pop(host)
        self.compute_rp_uuids.pop(host)
        self._start(host, connection)

    def is_down(self, host):
        return not self.process[host].alive

    def reboot(self, host):
        """Let a host lose power; ``restart`` boots it.

        Its guests are off, its processes gone, its nodes have other numbers.
        """
        LOG.info('World: %s loses power', host)
        self.kill(host)
        if host == DESTINATION:
            self.cut_links(everything=True)
        connection = self.connection(host)
        connection._running_vms.clear()
        for domain in list(connection._vms.values()):
            self.guests.end(domain)
            domain._state = fakelibvirt.VIR_DOMAIN_SHUTOFF
            domain._id = -1
        self.pmem.renumber(*self.pmem.names(host))

    def cut_links(self, everything=False):
        """Kill the sessions that sshd serves.

        :param everything: also what runs in them
        """
        for session in self.pmem.sessions():
            for process in [session] + (
                    session.children(recursive=True) if everything else []):
                with contextlib.suppress(Exception):
                    process.kill()

    # Moments

    def hook(self, path, when, name):
        """Make a function announce that it is called.

        :param path: with module and class
        :param when: ``before`` or ``after``
        :param name: what it announces
        """
        if (path, when, name) in self._hooked:
            return
        self._hooked.add((path, when, name))
        *owner, attribute = path.split('.')
        owner = importutils.import_class('.'.join(owner))
        original = getattr(owner, attribute)

        def function(*args, **kwargs):
            if when == 'before':
                self._reach(name)
            result = original(*args, **kwargs)
            if when == 'after':
                self._reach(name)
            return result

        function.__name__ = attribute
        function.__wrapped__ = original
        self.useFixture(fixtures.MockPatchObject(owner, attribute, function))

    def at(self, name, action, host=None, waits=False):
        """Do something when a function is called next; see ``Hook``."""
        self._hook = Hook(name, action, host, waits)
        return self._hook

    def _reach(self, name):
        if self._hook is not None:
            self._hook.reach(name)
        # Who has just been killed comes to an end here.
        pmem_process.current().act('moment')

    def when_guest_starts(self, host, server, action):
        """Do something when the guest of a server has started on a host.

        It happens once, before whoever has started it goes on.
        """
        begun, done = [], threading.Event()

        def started(domain):
            if not begun and domain in self.domains(host, server):
                begun.append(domain)
                try:
                    action()
                finally:
                    done.set()
                # Who has just been killed comes to an end here.
                asked_by.act('guest')

        asked_by = self.process[host]
        self.guests.on_started.append(started)
        return done

    # Coming to rest

    def is_quiet(self):
        """Say whether nobody has anything to do."""
        # What is for a host that is down waits there.
        waiting = {server for server in self.processes.messages()
                   if server not in UNREAD and not (
                       server in self.process and self.is_down(server))}
        return not waiting and not self.processes.busy

    def wait_until_quiet(self):
        """Wait until nobody has anything to do.

        :raises NotReached: if that takes too long
        """
        try:
            wait_until(self.is_quiet, 'quiet')
        except NotReached:
            raise NotReached('an end of what is under way: %s, %s' % (
                self.processes.busy, self.processes.messages()))

    def run_periodic_tasks(self):
        """Run all periodic tasks of the services that run, once."""
        for host in HOSTS:
            if self.is_down(host):
                continue
            manager = self.computes[host].manager
            with self.process[host].running(is_job=True):
                for name, task in manager._periodic_tasks:
                    if name.rpartition('.')[2] not in NOT_RUN:
                        self._run(task, manager)

    @staticmethod
    def _run(task, manager):
        try:
            task(manager, context.get_admin_context())
        except Exception:
            # As oslo.service does.
            LOG.exception('World: a periodic task failed')

    # What is said

    def mark_log(self):
        self._log_mark = len(self.stdlog.logger.output)

    def log(self):
        """Return what was logged since the mark."""
        return self.stdlog.logger.output[self._log_mark:]


class WorldByHand(World):
    """A world that is no test, and serves many."""

    def runTest(self):
        """It is none; this is what makes it one by hand."""
