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

"""A whole Nova in one process.

API, conductor, scheduler, placement and two nova-computes with the libvirt
driver run here as they are. What they stand on are the fixtures of Nova's own
functional tests: SQLite, messages within the process, a libvirt whose guests
are only on paper, stand-ins for the other services. Namespaces are files, and
the ssh between the hosts is real; see nova/tests/fixtures/pmem.py.

Import this when the tree of Nova to use is on sys.path.
"""

import contextlib
import os
import threading
from typing import Any

# Nova chooses between eventlet and threads when it is imported first.
os.environ['OS_NOVA_DISABLE_EVENTLET_PATCHING'] = 'true'

from nova import monkey_patch  # noqa: E402

monkey_patch.patch()

import fixtures  # noqa: E402
import nova  # noqa: E402
from nova.api import auth  # noqa: E402
import nova.conf  # noqa: E402
from nova.tests import fixtures as nova_fixtures  # noqa: E402
from nova.tests.fixtures import pmem  # noqa: E402
from nova.tests.fixtures import pmem_guests  # noqa: E402
from nova.tests.functional.libvirt import base  # noqa: E402
from nova import utils  # noqa: E402
from nova.virt.libvirt import driver  # noqa: E402
from nova.virt.libvirt.pmem import namespaces as pmem_namespaces  # noqa: E402
from oslo_middleware import request_id  # noqa: E402
import psutil  # noqa: E402
from werkzeug import serving  # noqa: E402

from demo import hosts  # noqa: E402

CONF = nova.conf.CONF

ADDRESSES = {'host1': '127.0.0.2', 'host2': '127.0.0.3'}
# What each host calls its namespace: the name is one of that host only.
LISTED = 'ns_0'
# An image that the stand-in for glance has.
IMAGE = '155d900f-4e14-4e4c-a73d-069cbf4541e6'

# Nova's base class replaces it; here it makes the instance's directory.
_create_image = driver.LibvirtDriver._create_image


class _Quiet(serving.WSGIRequestHandler):
    """Serve without a line on the terminal for each request."""

    def log(self, *args: Any, **kwargs: Any) -> None:
        pass


class Cloud(base.ServersTestBase):
    """The services, driven by hand instead of by a test runner.

    :ivar pmem: the namespaces of all hosts
    :ivar url: where the API is
    """

    ADMIN_API = True
    CAST_AS_CALL = False

    def __init__(self, namespaces: dict[str, tuple[str, str, int]]) -> None:
        """Describe the cloud; ``with`` brings it up and takes it down.

        :param namespaces: host, label and size in bytes of each namespace
        """
        super().__init__('run_by_hand')
        self._namespaces = namespaces

    def run_by_hand(self) -> None:
        """Do nothing: a TestCase has to name a method."""

    def __enter__(self) -> 'Cloud':
        try:
            self.setUp()
        except BaseException:
            self.doCleanups()
            raise
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.doCleanups()

    def setUp(self) -> None:
        # For what is logged before and after the tests' own logger is there.
        self.useFixture(fixtures.FakeLogger(level=None))
        self._make_hosts()
        super().setUp()
        # Not earlier: one of the tests' fixtures, too, replaces what this
        # one wraps.
        self.useFixture(hosts.HostsFixture({
            host: self._options(host) for host in ADDRESSES}))
        self._make_real()
        self._guests = self.useFixture(pmem_guests.Guests())
        for host in ADDRESSES:
            with hosts.on(host):
                self.start_compute(host)
        # The last compute's name must not be that of the API, too.
        self.flags(host='controller')
        self._serve()
        # The first to go are copies that would run on: all else waits.
        self.addCleanup(self.pmem.kill_tools)

    def _make_hosts(self) -> None:
        """Make namespaces, sshds, and what each host has of its own."""
        self.folders = {host: self.useFixture(fixtures.TempDir()).path
                        for host in ADDRESSES}
        self.pmem = self.useFixture(
            pmem.PmemHosts(list(ADDRESSES.values())))
        # Their nodes are files, and not in /dev.
        self.useFixture(fixtures.MockPatchObject(
            pmem_namespaces, 'node_path',
            lambda name: os.path.normpath(os.path.join('/dev', name))))
        for name, (host, label, size) in self._namespaces.items():
            self.pmem.add_namespace(
                name, size, host=host, label=label, listed=LISTED)
        for folder in self.folders.values():
            os.mkdir(os.path.join(folder, 'instances'))

    def _options(self, host: str) -> hosts.Options:
        """Return the options that differ between hosts."""
        return {
            (None, 'host'): host,
            (None, 'my_ip'): ADDRESSES[host],
            (None, 'state_path'): self.folders[host],
            (None, 'instances_path'): os.path.join(
                self.folders[host], 'instances'),
            ('libvirt', 'migration_inbound_addr'): ADDRESSES[host],
            ('libvirt', 'pmem_namespaces'): self.pmem.pmem_namespaces(host),
        }

    def limit_bandwidth(self, mib_per_second: int) -> None:
        """Let copies take their time; 0 lets them be as fast as they can."""
        self.flags(pmem_copy_bandwidth=mib_per_second, group='libvirt')

    def cut_connections(self) -> int:
        """Kill each ssh of a copy; return how many there were."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if (process.name() == 'ssh' and
                        self.pmem.root in ' '.join(process.cmdline())):
                    process.kill()
                    found.append(process)
        return len(found)

    def guest_on(self, host: str) -> pmem_guests.Guest | None:
        """Return the guest that runs on a host, if one does."""
        connection = self.computes[host].driver._host.get_connection()
        for domain in list(connection._vms.values()):
            if domain.isActive():
                return self._guests.guest_of(domain)
        return None

    def _make_real(self) -> None:
        """Undo what the tests' base class does not need to be real."""
        # Run privileged functions, without a daemon to run them.
        self.useFixture(nova_fixtures.PrivsepFixture())
        self.useFixture(fixtures.MockPatchObject(
            driver.LibvirtDriver, '_create_image', _create_image))
        # The guests have no disks.
        self.useFixture(fixtures.MockPatchObject(
            driver.LibvirtDriver, '_get_instance_disk_info',
            lambda *args, **kwargs: []))
        self.useFixture(fixtures.MockPatchObject(
            utils, 'ssh_execute', self._ssh_execute(utils.ssh_execute)))
        self.useFixture(fixtures.MockPatchObject(
            auth.NovaKeystoneContext, '_create_context',
            staticmethod(self._create_context(
                auth.NovaKeystoneContext._create_context))))
        self.flags(allow_resize_to_same_host=False, periodic_enable=True)
        # With more, of so little data, all would arrive at once.
        self.flags(pmem_copy_streams=2, group='libvirt')

    @staticmethod
    def _create_context(create: Any) -> Any:
        """Have an action be recorded under the id in the API's answer."""
        def create_context(env: dict[str, Any], **kwargs: Any) -> Any:
            return create(
                env, request_id=env[request_id.ENV_REQUEST_ID], **kwargs)
        return create_context

    def _ssh_execute(self, execute: Any) -> Any:
        """Have paths that one host names to another mean the other's disk.

        The hosts share one file system, but not their instances' directories.
        """
        by_address = {address: self.folders[host]
                      for host, address in ADDRESSES.items()}

        def ssh_execute(dest: str, *cmd: str, **kwargs: Any) -> Any:
            here, there = self.folders[hosts.current()], by_address[dest]
            return execute(
                dest, *(word.replace(here, there) for word in cmd), **kwargs)
        return ssh_execute

    def _serve(self) -> None:
        """Serve the API on a port of loopback."""
        app = self.api_fixture.app()

        def with_user(environ: dict[str, Any], start_response: Any) -> Any:
            # This is what keystone's middleware would add.
            environ.update(
                HTTP_X_AUTH_USER='admin',
                HTTP_X_AUTH_PROJECT_ID=self.api.project_id,
                HTTP_X_ROLES='admin,member,reader')
            return app(environ, start_response)

        server = serving.make_server(
            '127.0.0.1', 0, with_user, threaded=True, request_handler=_Quiet)
        self.url = 'http://127.0.0.1:%d/v2.1' % server.server_port
        thread = threading.Thread(target=server.serve_forever, name='api')
        thread.start()
        self.addCleanup(server.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(server.shutdown)

    @property
    def log(self) -> str:
        """What the services have logged."""
        return self.stdlog.logger.output
