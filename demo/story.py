# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""What the demo tells: a server moves, and its data with it."""

from collections.abc import Mapping
import os
import re
import shlex
import subprocess
import sys
import time

from demo import cloud
from demo import guest

MIB = 1024 * 1024
# One namespace on each host, so a host's name tells which one is meant. The
# hosts themselves call them the same.
NAMESPACES = {'host1': 'ns_host1', 'host2': 'ns_host2'}
# Seconds that Nova may take for what the client doesn't wait for.
PATIENCE = 60
# Seconds for a copy that is to be watched: some of the client's polls.
SLOWLY = 20


class Failure(Exception):
    """Something is not as it should be."""


def client_environment(url: str) -> dict[str, str]:
    """Return the environment in which ``openstack`` finds the cloud."""
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith('OS_')}
    environment.update(
        OS_AUTH_TYPE='none', OS_ENDPOINT=url, OS_IDENTITY_API_VERSION='3',
        NO_PROXY='*', no_proxy='*')
    return environment


class Story:
    """One server's way between two hosts.

    :param nova: the cloud
    :param copy: whether to ask for the copy; without, the story goes wrong
    :param failures: whether to show also what fails
    """

    SERVER = 'vm1'

    def __init__(self, nova: cloud.Cloud, copy: bool = True,
                 failures: bool = True) -> None:
        self.cloud = nova
        self.acts = [self.begin, self.resize, self.confirm,
                     *[self.fail] * failures, self.migrate, self.revert,
                     self.delete]
        self.cuts = failures
        self.steps = 0
        self.started = time.monotonic()
        self.environment = client_environment(nova.url)
        self.option = ['--copy-pmem-devices'] if copy else []
        self.digest = ''

    def tell(self) -> None:
        """Tell it all, and see that every word is true.

        :raises: Failure
        """
        for act in self.acts:
            act()

    def begin(self) -> None:
        self.say('Two flavors with persistent memory; the second has more '
                 'of the rest.')
        for name, ram in (('small', '512'), ('bigger', '1024')):
            self.openstack(
                'flavor', 'create', '--ram', ram, '--disk', '1',
                '--property', 'hw:pmem=DEMO', name,
                '-c', 'name', '-c', 'ram', '-c', 'properties')
        self.say('A server on host1.')
        self.openstack(
            '--os-compute-api-version', '2.74', 'server', 'create',
            '--image', cloud.IMAGE, '--flavor', 'small', '--nic', 'none',
            '--host', 'host1', '--wait', self.SERVER,
            '-c', 'id', '-c', 'name', '-c', 'status')
        self.say('Its guest fills its persistent memory with random data.')
        self.digest = self.cloud.pmem.fill(NAMESPACES['host1'])
        self.look(host1=self.digest, host2=None)

    def resize(self) -> None:
        self.say('Resize the server, and copy its persistent memory; slowly, '
                 'so that there is time to see how far it is. Its guest runs '
                 'meanwhile, and writes, until shortly before the end.')
        size = self.cloud.pmem.size(NAMESPACES['host1'])
        running = guest.Guest(self.cloud, size, 'host1', 'host2')
        running.start()
        self.cloud.limit_bandwidth(max(1, size // MIB // SLOWLY))
        try:
            output = self.openstack(
                'server', 'resize', *self.option, '--flavor', 'bigger',
                '--wait', self.SERVER)
        finally:
            running.end()
        self.cloud.limit_bandwidth(0)
        self.digest = self.cloud.pmem.digest(NAMESPACES['host1'])
        if self.option:
            if not re.search(r'Progress: [1-9]\d* .while the server runs',
                             output):
                raise Failure('no progress was shown')
            print('It wrote %d times before it was off, which took %.1f '
                  'seconds.' % (running.writes, running.seconds_off),
                  flush=True)
        self.show('host2', 'VERIFY_RESIZE')
        self.say('The data is on both hosts: there is a way back.')
        self.look(host1=self.digest, host2=self.digest)

    def confirm(self) -> None:
        self.say('Confirm: the source is wiped, the destination unchanged.')
        self.openstack('server', 'resize', 'confirm', self.SERVER)
        self.show('host2', 'ACTIVE')
        self.look(host1=None, host2=self.digest)

    def fail(self) -> None:
        self.say('A migration that fails: the device on host1 can not be '
                 'written. The server goes on where it was, its data as well, '
                 'and the exit status tells.')
        fault = self.cloud.pmem.inject(
            'exit', NAMESPACES['host1'], status=1, repeat=True,
            message='daxio: failed to perform I/O')
        try:
            self.openstack('server', 'migrate', *self.option, '--wait',
                           self.SERVER, status=1)
        finally:
            fault.cancel()
        self.show('host2', 'ACTIVE')
        self.say('What host1 had received by then is wiped within a minute.')
        deadline = time.monotonic() + 2 * PATIENCE
        while self._content('host1') and time.monotonic() < deadline:
            time.sleep(0.5)
        self.look(host1=None, host2=self.digest)

    def migrate(self) -> None:
        cut = None
        if self.cuts:
            self.say('The same again, and well; but all connections are cut '
                     'on the way. The copy goes on where it was.')
            cut = guest.Cut(self.cloud)
            cut.start()
            self.cloud.limit_bandwidth(max(1, self.cloud.pmem.size(
                NAMESPACES['host1']) // MIB * 2 // SLOWLY))
        else:
            self.say('A cold migration, back to host1.')
        try:
            self.openstack('server', 'migrate', *self.option,
                           '--wait', self.SERVER)
        finally:
            if cut is not None:
                cut.end()
                self.cloud.limit_bandwidth(0)
        if cut is not None and self.option:
            if not cut.connections:
                raise Failure('no connection was cut')
            print('%d connections were cut.' % cut.connections, flush=True)
        self.show('host1', 'VERIFY_RESIZE')
        self.look(host1=self.digest, host2=self.digest)

    def revert(self) -> None:
        self.say('Revert: the server is on host2 again, with its data, and '
                 'host1 is wiped.')
        self.openstack('server', 'migration', 'revert', self.SERVER)
        self.show('host2', 'ACTIVE')
        self.look(host1=None, host2=self.digest)

    def delete(self) -> None:
        self.say('Delete the server: nothing stays behind for the next one.')
        self.openstack('server', 'delete', '--wait', self.SERVER)
        self.look(host1=None, host2=None)

    def say(self, text: str) -> None:
        self.steps += 1
        print('\n# %d. (%.0f s) %s' % (
            self.steps, time.monotonic() - self.started, text), flush=True)

    def openstack(self, *args: str, status: int = 0) -> str:
        """Run the command-line client, and return what it prints.

        :param status: with which it has to end
        :raises: Failure
        """
        print('$ %s' % shlex.join(['openstack', *args]), flush=True)
        command = os.path.join(os.path.dirname(sys.executable), 'openstack')
        try:
            done = subprocess.run(
                [command, *args], env=self.environment, text=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT)
        except FileNotFoundError:
            raise Failure('python-openstackclient is not installed next to '
                          '%s' % sys.executable)
        if done.stdout.strip():
            print(done.stdout.strip(), flush=True)
        if done.returncode:
            print('(exit status %d)' % done.returncode, flush=True)
        if done.returncode != status:
            raise Failure('openstack ended with exit status %d, not %d'
                          % (done.returncode, status))
        return done.stdout

    def show(self, host: str, status: str) -> None:
        """Show where the server is and how, and see that it is so.

        :raises: Failure
        """
        # The client's confirm and revert don't wait; Nova takes a moment.
        deadline = time.monotonic() + PATIENCE
        while self._found() != (host, status, None):
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        self.openstack('server', 'show', self.SERVER, '-c', 'status',
                       '-c', 'OS-EXT-SRV-ATTR:host')
        found = self._found()
        if found != (host, status, None):
            raise Failure('the server is %s on %s (task: %s), not %s on %s'
                          % (found[1], found[0], found[2], status, host))

    def _found(self) -> tuple[str, str, str | None]:
        """Return the server's host, status and task."""
        server, = self.cloud.api.get_servers()
        return (server['OS-EXT-SRV-ATTR:host'], server['status'],
                server['OS-EXT-STS:task_state'])

    def look(self, **expected: str | None) -> None:
        """Show what the hosts' namespaces hold, and compare.

        :param expected: by host, the digest that the namespace must have,
            or None if it must be all zero
        :raises: Failure
        """
        found = {host: self._content(host) for host in expected}
        for host, digest in found.items():
            print('%s  %s  %s' % (host, cloud.LISTED, _text(digest)),
                  flush=True)
        for host, digest in expected.items():
            if found[host] != digest:
                raise Failure('namespace %s on %s holds %s; expected was %s'
                              % (cloud.LISTED, host,
                                 _text(found[host]), _text(digest)))

    def _content(self, host: str) -> str | None:
        """Return the digest of a host's namespace, None if it is all zero."""
        name = NAMESPACES[host]
        if self.cloud.pmem.is_zero(name):
            return None
        return self.cloud.pmem.digest(name)


def _text(digest: str | None) -> str:
    return 'zeros only' if digest is None else 'sha256 %s…' % digest[:12]


def namespaces(size: int) -> Mapping[str, tuple[str, str, int]]:
    """Return the namespaces that the story needs.

    :param size: of each, in MiB
    """
    return {name: (host, 'DEMO', size * MIB)
            for host, name in NAMESPACES.items()}
