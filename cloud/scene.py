# SPDX-License-Identifier: Apache-2.0
"""What a test does with the cloud: servers, moves, and what has to hold."""

from collections import abc
import contextlib
import signal
import threading
import time

from cloud.cloud import Cloud
from cloud.compute import Compute
from cloud.host import Failed
from cloud.host import until
from cloud.pmem import Fault
from cloud.pmem import MIB
from cloud.pmem import Namespace

#: The microversion that knows ``copy_pmem_devices``.
COPIES = '2.105'

#: Seconds: more than a move takes on a loaded machine, with the minute that
#: a lost message is waited for.
PATIENCE = 240

TICKETS = '/var/lib/nova/pmem-copy'


class Refused(Exception):
    """The API said no.

    :ivar status: the HTTP status
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__('%d: %s' % (status, text))
        self.status = status


class Server:
    """A server, and what it keeps in its persistent memory."""

    def __init__(self, scene: 'Scene', uuid: str, name: str) -> None:
        self.scene = scene
        self.uuid = uuid
        self.name = name
        self.seen: list[tuple[str, str | None]] = []
        self.digests: list[str] = []
        self._sizes: list[int] = []
        self._moved: set[int] = set()

    # How it is

    def show(self) -> dict:
        """Return what the API says of it.

        :raises Refused: if it is gone
        """
        return self.scene.call('GET', '/servers/' + self.uuid)['server']

    @property
    def host(self) -> Compute:
        """Where it is, by Nova's word."""
        return self.scene.host(self.show()['OS-EXT-SRV-ATTR:host'])

    def is_gone(self) -> bool:
        try:
            self.show()
        except Refused as error:
            return error.status == 404
        return False

    def becomes(self, *statuses: str, timeout: float = PATIENCE) -> str:
        """Wait until it is at rest in one of some states, and return which.

        :raises Failed: if it gets into another one and stays there
        """
        seen: list[tuple] = []

        def at_rest() -> str | None:
            now = self.show()
            task = now['OS-EXT-STS:task_state']
            if not seen or seen[-1] != (now['status'], task):
                seen.append((now['status'], task))
            if task is None and now['status'] in statuses:
                return now['status']
            return None

        try:
            return until(at_rest, '', timeout, interval=0.4)
        except Failed:
            raise Failed('%s is not %s after %d seconds, but was %s' % (
                self.name, ' or '.join(statuses), timeout, seen[-8:]))

    def gets_to(self, task: str, timeout: float = 60) -> None:
        """Wait until it has a task state."""
        until(lambda: self.show()['OS-EXT-STS:task_state'] == task,
              '%s does not get to %s' % (self.name, task), timeout)

    def namespaces(self) -> list[Namespace]:
        """Return what its guest is defined with, in the guest's order."""
        host = self.host
        return [host.memory.at(path) for path in host.devices_of(self.uuid)]

    # Its data

    def fill(self) -> 'Server':
        """Have its guest write all of its persistent memory."""
        self.digests = []
        namespaces = self.namespaces()
        assert namespaces, '%s has no vPMEM' % self.name
        for index, namespace in enumerate(namespaces):
            self.digests.append(namespace.fill((self.uuid, index)))
        self._sizes = [each.size for each in namespaces]
        return self

    def remember(self) -> None:
        """Take what its memory holds now for what it has to hold."""
        self.digests = [each.digest(size) for each, size in zip(
            self.namespaces(), self._sizes)]

    def has_its_data(self) -> None:
        """Check that its guest finds what it has written."""
        found = self.namespaces()
        assert len(found) >= len(self.digests), (
            '%s has only %s' % (self.name, found))
        for namespace, size, digest in zip(
                found, self._sizes, self.digests):
            assert namespace.digest(size) == digest, (
                '%s of %s does not hold the data' % (namespace, self.name))

    def runs_on(self, host: Compute) -> None:
        """Check that it runs on one host, by everybody's word."""
        assert self.host is host, '%s is on %s' % (self.name, self.host.name)
        for each in self.scene.computes:
            assert each.runs_guest(self.uuid) == (each is host), (
                '%s %s on %s' % (
                    self.name, 'runs' if each is not host else 'does not run',
                    each.name))

    # What is done to it

    def act(self, action: dict, microversion: str = COPIES) -> None:
        self.scene.call('POST', '/servers/%s/action' % self.uuid, action,
                        microversion=microversion)

    def _moves(self, action: dict) -> None:
        self._moved = {each['id'] for each in self.migrations()}
        self.act(action)

    def migrate(self, host: Compute | None = None, copy: bool = True) -> None:
        wish: dict = {'host': host.name} if host else {}
        if copy:
            wish['copy_pmem_devices'] = True
        self._moves({'migrate': wish or None})

    def resize(self, flavor: str, copy: bool = True) -> None:
        wish: dict = {'flavorRef': self.scene.flavors[flavor]}
        if copy:
            wish['copy_pmem_devices'] = True
        self._moves({'resize': wish})

    def confirm(self) -> None:
        """Confirm its move, and wait until that is done."""
        self.act({'confirmResize': None})
        self.becomes('ACTIVE', 'SHUTOFF')
        self.migration_is('confirmed')

    def revert(self) -> None:
        """Revert its move, and wait until that is done."""
        self.act({'revertResize': None})
        self.becomes('ACTIVE', 'SHUTOFF')

    def stop(self) -> None:
        self.act({'os-stop': None})
        self.becomes('SHUTOFF')

    def start(self) -> None:
        self.act({'os-start': None})
        self.becomes('ACTIVE')

    def delete(self, wait: bool = True) -> None:
        with contextlib.suppress(Refused):
            self.scene.call('DELETE', '/servers/' + self.uuid)
        if wait:
            until(self.is_gone, '%s is not deleted' % self.name, PATIENCE,
                  interval=0.4)

    # What is noted of it

    def migrations(self) -> list[dict]:
        """Return its migrations, the newest first."""
        return self.scene.call(
            'GET', '/os-migrations?instance_uuid=' + self.uuid)['migrations']

    def migration_is(self, status: str, timeout: float = PATIENCE) -> None:
        until(lambda: [each['status'] for each in self.migrations()[:1]] ==
              [status], 'the migration of %s is not %s' % (self.name, status),
              timeout, interval=0.4)

    def ends_move(self, *statuses: str, timeout: float = PATIENCE) -> None:
        """Wait until its migration has ended, and check how.

        :param statuses: ``finished`` or ``error``, or both
        """
        ended = until(lambda: next((
            each['status'] for each in self.migrations()
            if each['id'] not in self._moved and
            each['status'] in ('finished', 'error', 'failed')), None),
            'the move of %s does not end' % self.name, timeout, interval=0.4)
        self.becomes('VERIFY_RESIZE', 'ACTIVE', 'SHUTOFF', 'ERROR',
                     'SOFT_DELETED')
        assert ended in statuses, 'the move is %s: %s' % (ended, self.reason())

    def arrives(self) -> None:
        """Wait for the end of its move, and check that all went well."""
        self.ends_move('finished')
        self.runs_on(self.host)
        self.has_its_data()

    def events(self) -> list[dict]:
        """Return the events of its last action."""
        actions = self.scene.call(
            'GET', '/servers/%s/os-instance-actions' % self.uuid)
        request = actions['instanceActions'][0]['request_id']
        return self.scene.call(
            'GET', '/servers/%s/os-instance-actions/%s' % (
                self.uuid, request))['instanceAction']['events']

    def reason(self) -> str:
        """Return what its last failed copy says of itself."""
        for event in self.events():
            if event['result'] == 'Error' and event.get('details'):
                return event['details']
        return ''


class Scene:
    """One test's use of the cloud.

    :ivar computes: the compute hosts; tests call them source and target
    """

    def __init__(self, cloud: Cloud) -> None:
        # Only in the environment of the cloud.
        import openstack

        self.cloud = cloud
        self.controller = cloud.controller
        self.computes = cloud.computes
        self._connection = openstack.connect(cloud='admin')
        self._token_lock = threading.Lock()
        self.servers: list[Server] = []
        self._watching = True
        self.flavors = {
            each['name']: each['id']
            for each in self.call('GET', '/flavors')['flavors']}
        self.image = next(self._connection.image.images()).id

    def call(self, method: str, path: str, body: dict | None = None,
             microversion: str = COPIES, token: str | None = None) -> dict:
        """Ask Nova's API.

        :param token: another one than the administrator's
        :raises Refused: unless it says yes
        """
        for attempt in range(60):
            answer = self._connection.compute.request(
                path, method, json=body, microversion=microversion,
                raise_exc=False, connect_retries=3, **(
                    {'authenticated': False,
                     'headers': {'X-Auth-Token': token}} if token else {}))
            # While the database or the broker is away, a client asks again.
            if answer.status_code < 500 or method != 'GET':
                break
            time.sleep(1)
        if answer.status_code >= 400:
            raise Refused(answer.status_code, answer.text)
        return answer.json() if answer.content else {}

    def host(self, name: str) -> Compute:
        return next(each for each in self.computes if each.name == name)

    # Servers

    def boot(self, flavor: str = 'small', on: Compute | None = None,
             fill: bool = True) -> Server:
        """Boot a server, fill its persistent memory, and return it."""
        server = self.new(flavor, on)
        server.becomes('ACTIVE')
        if fill and flavor != 'plain':
            server.fill()
        return server

    def new(self, flavor: str = 'small', on: Compute | None = None) -> Server:
        """Have a server booted, and return it before it is."""
        name = 'server-%d' % len(self.servers)
        body = {'name': name, 'imageRef': self.image, 'networks': 'none',
                'flavorRef': self.flavors[flavor]}
        if on is not None:
            body['host'] = on.name
        made = self.call('POST', '/servers', {'server': body})['server']
        server = Server(self, made['id'], name)
        self.servers.append(server)
        return server

    @contextlib.contextmanager
    def never_error(self, *servers: Server) -> abc.Iterator[None]:
        """Check that nobody who polls is told of ERROR meanwhile."""
        stop = threading.Event()
        seen: dict[str, list] = {server.name: [] for server in servers}

        def poll() -> None:
            ended = False
            while not ended:
                # One more look when all is over, or the end goes unseen.
                ended = stop.wait(0.3)
                for server in servers:
                    with contextlib.suppress(Exception):
                        now = server.show()
                        state = now['status'], now['OS-EXT-STS:task_state']
                        if state not in seen[server.name][-1:]:
                            seen[server.name].append(state)

        poller = threading.Thread(target=poll, daemon=True)
        poller.start()
        try:
            yield
        finally:
            stop.set()
            poller.join(60)
        for name, states in seen.items():
            assert not any(state[0] == 'ERROR' for state in states), (
                '%s was shown as ERROR: %s' % (name, states))

    @staticmethod
    def where(host: Compute, server: Server) -> Namespace:
        """Return what a server has, or has left, on a host."""
        for namespace in host.memory.namespaces.values():
            if namespace.digest() in server.digests:
                return namespace
        raise LookupError('%s has nothing on %s' % (server.name, host.name))

    def reserved(self, host: Compute, label: str) -> int:
        """Return how many namespaces placement does not offer."""
        placement = self._connection.placement
        [provider] = placement.resource_providers(name=host.name)
        inventory = placement.get(
            '/resource_providers/%s/inventories' % provider.id).json()
        return inventory['inventories'][
            'CUSTOM_PMEM_NAMESPACE_' + label]['reserved']

    # What goes wrong with hosts

    @contextlib.contextmanager
    def full_disk(self, host: Compute, folder: str) -> abc.Iterator[None]:
        """Let a folder of a host have no room."""
        host.run('install', '-d', '-o', 'nova', '-m', '700', folder)
        host.run('mount', '-t', 'tmpfs', '-o', 'size=4k', 'full', folder)
        try:
            host.run('chown', 'nova', folder)
            host.run('sh', '-c', 'head -c 4096 /dev/zero > %s/.full' % folder)
            yield
        finally:
            host.run('umount', folder)

    @contextlib.contextmanager
    def forced_down(self, host: Compute) -> abc.Iterator[None]:
        """Let a host count as fenced, as an operator does."""
        [service] = self.call(
            'GET', '/os-services?binary=nova-compute&host=' + host.name)[
                'services']
        path = '/os-services/' + service['id']
        self.call('PUT', path, {'forced_down': True})
        try:
            yield
        finally:
            # Nova does not take a host back that has not cleared away what
            # was evacuated from it.
            if not host.nova.runs:
                host.start_nova()
            until(lambda: self._is_taken_back(path),
                  '%s can not be taken back' % host.name, 60, interval=0.5)

    def _is_taken_back(self, path: str) -> bool:
        try:
            self.call('PUT', path, {'forced_down': False})
            return True
        except Refused as error:
            if error.status != 400:
                raise
            return False

    # What has to hold

    def check_clean(self, timeout: float = 60) -> None:
        """Check that servers that are gone have left nothing.

        Wipes may take until the next periodic task; so this waits.

        :raises Failed: with what is left
        """
        left: list[str] = []

        def clean() -> bool:
            left[:] = self.leftovers()
            return not left

        try:
            until(clean, '', timeout, interval=0.5)
        except Failed:
            raise Failed('left behind: ' + '; '.join(left))

    def leftovers(self) -> list[str]:
        """Return what is left of servers that are gone, in words."""
        left = []
        for host in self.computes:
            used = {path for server in self.servers if not server.is_gone()
                    for path in host.devices_of(server.uuid)}
            left += ['%s is not zero' % namespace
                     for namespace in host.memory.namespaces.values()
                     if namespace.path not in used and
                     not namespace.is_zero()]
            folder = host.path(TICKETS)
            if folder.is_dir():
                left += ['ticket %s on %s' % (each.name, host.name)
                         for each in folder.iterdir()
                         if not each.name.startswith('.')]
        return left

    def begin(self) -> None:
        """Take over a cloud in which a run was cut off."""
        listed = self.call('GET', '/servers?all_tenants=1')['servers']
        self.servers = [Server(self, each['id'], each['name'])
                        for each in listed]
        if self.servers:
            self.end()
            self.servers = []

    def end(self) -> None:
        """Set the cloud right for the next test.

        :raises Failed: if something is left that should not be
        """
        self.repair()
        for server in self.servers:
            server.delete(wait=False)
        for server in self.servers:
            until(server.is_gone, '%s is not deleted' % server.name,
                  PATIENCE, interval=0.4)
        try:
            self.check_clean()
        finally:
            for host in self.computes:
                self._scrub(host)

    def _scrub(self, host: Compute) -> None:
        """Let the next test not suffer from what this one left."""
        for namespace in host.memory.namespaces.values():
            if not namespace.is_zero():
                namespace.clear()
        for folder in (TICKETS,):
            for ticket in host.path(folder).glob('*.*'):
                ticket.unlink()

    def repair(self) -> None:
        """Let everything run again, and forget what was planned."""
        for host in self.computes:
            host.memory.heal()
            if host.nova.runs:
                host.nova.signal(signal.SIGCONT, host.nova.tree())
            if not host.libvirtd.runs:
                host.libvirtd.start()
                host.await_libvirtd()
            if not host.sshd.runs:
                host.sshd.start()
            if not host.nova.runs:
                host.start_nova()
        self.controller.repair()

    # Copies that are held

    def hold_copy(self, target: Compute, at: int = 8 * MIB) -> 'Held':
        """Have the next copy to a host wait in its midst.

        :param at: the byte of the device that is reached first
        """
        return Held(target, [target.memory.plan(
            tool='daxio', device=name, side='write', at=at, action='hang')
            for name in target.memory.namespaces])

    def fail_copies(self, target: Compute, **fault: object) -> None:
        """Have each copy to a host fail, as the stand-ins can."""
        for name in target.memory.namespaces:
            target.memory.plan(**{
                'tool': 'daxio', 'device': name, 'side': 'write',
                'at': 4 * MIB, 'repeat': True} | fault)


class Held:
    """A copy that waits, or will."""

    def __init__(self, host: Compute, faults: list[Fault]) -> None:
        self.host = host
        self._faults = faults

    def wait(self) -> None:
        """Wait until it is held."""
        until(lambda: any(each.fired for each in self._faults),
              'no copy to %s has begun' % self.host.name, 120)

    def wait_later(self) -> None:
        """Nothing: the copy is left to hang."""

    def release(self) -> None:
        """Let it go on, and no other be held."""
        self.host.memory.heal()
