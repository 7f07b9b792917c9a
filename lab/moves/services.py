# SPDX-License-Identifier: Apache-2.0
"""Nova without computes, for computes elsewhere.

API, conductor, scheduler and placement run here as they are, on RabbitMQ and
SQLite. What else they stand on are the fixtures of Nova's own functional
tests. The other services that a nova-compute asks are a few lines each: an
image of nothing but zeros, and a network without ports.

``python -m lab.moves.services FOLDER`` needs the patched tree on PYTHONPATH.
It writes a line of JSON when all is up, and ends when its input does.
"""

from collections import abc
import json
import logging
import os
import pathlib
import sys
import threading
import typing as ty

# Nova chooses between eventlet and threads when it is imported first.
os.environ['OS_NOVA_DISABLE_EVENTLET_PATCHING'] = 'true'

from nova import monkey_patch  # noqa: E402

monkey_patch.patch()

import fixtures  # noqa: E402
from nova.api import auth  # noqa: E402
import nova.conf  # noqa: E402
from nova import context as nova_context  # noqa: E402
from nova.objects import host_mapping  # noqa: E402
from nova import rpc  # noqa: E402
from nova.tests import fixtures as nova_fixtures  # noqa: E402
from nova.tests.functional import integrated_helpers  # noqa: E402
from oslo_messaging import conffixture  # noqa: E402
from placement import deploy  # noqa: E402
from werkzeug import serving  # noqa: E402

from lab.moves import broker  # noqa: E402

CONF = nova.conf.CONF

#: An image that the stand-in for glance has, and what computes get of it.
IMAGE = '155d900f-4e14-4e4c-a73d-069cbf4541e6'
IMAGE_SIZE = 1 << 20
RECORD = {
    'id': IMAGE, 'name': 'zeros', 'status': 'active', 'size': IMAGE_SIZE,
    'container_format': 'bare', 'disk_format': 'raw', 'min_disk': 0,
    'min_ram': 0, 'visibility': 'public', 'protected': False, 'tags': [],
    'created_at': '2026-01-01T00:00:00Z',
    'updated_at': '2026-01-01T00:00:00Z'}

#: Seconds that a compute under emulation may take for an answer, and may
#: be silent before it counts as down.
PATIENCE = 900

LOG_FORMAT = '%(asctime)s %(levelname)s [%(name)s] %(message)s'

Application = abc.Callable[..., abc.Iterable[bytes]]


class Serializer(rpc.RequestContextSerializer):
    """Serializes requests as Nova does, in place of that of the tests.

    Theirs hands on to which cell's database a request belongs, as an object
    in memory. What comes from outside belongs to the one cell that there is.
    """

    #: The cell's mapping, once it is there.
    cell: ty.Any = None

    def deserialize_context(self, context: dict[str, ty.Any]) -> ty.Any:
        request = super().deserialize_context(context)
        if self.cell is not None:
            nova_context.set_target_cell(request, self.cell)
        return request


class Rpc(fixtures.Fixture):
    """Have all of Nova use one real message bus.

    In place of the fixture of the tests, whose bus is in this process.
    """

    #: Set before the services are.
    url = ''

    def __init__(self, *exmods: str) -> None:
        super().__init__()
        self._exmods = exmods

    def _setUp(self) -> None:
        self.addCleanup(rpc.cleanup)
        rpc.add_extra_exmods(*self._exmods)
        self.addCleanup(rpc.clear_extra_exmods)
        settings = conffixture.ConfFixture(CONF)
        settings.transport_url = self.url
        self.useFixture(settings)
        CONF.set_override('rpc_response_timeout', PATIENCE)
        rpc.init(CONF)
        # Cells have URLs of their own, which lead nowhere here.
        self.useFixture(fixtures.MonkeyPatch(
            'nova.rpc.create_transport', lambda url: rpc.TRANSPORT))


class Services(integrated_helpers._IntegratedTestBase):
    """The services, driven by hand instead of by a test runner."""

    ADMIN_API = True
    CAST_AS_CALL = False

    def __init__(self, log: pathlib.Path) -> None:
        """Describe them; ``with`` brings them up and takes them down.

        :param log: where they log to
        """
        super().__init__('run_by_hand')
        self._log = log

    def run_by_hand(self) -> None:
        """Do nothing: a TestCase has to name a method."""

    def __enter__(self) -> 'Services':
        try:
            self.setUp()
        except BaseException:
            self.doCleanups()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.doCleanups()

    def setUp(self) -> None:
        self.useFixture(fixtures.FakeLogger(level=None))
        self.useFixture(fixtures.MockPatchObject(
            nova_fixtures, 'RPCFixture', Rpc))
        # Their module can't be had by its name: it is hidden by Nova's own.
        self.useFixture(fixtures.MockPatchObject(
            sys.modules[nova_fixtures.CellDatabases.__module__],
            'CheatingSerializer', Serializer))
        self.flags(host='controller', long_rpc_timeout=PATIENCE,
                   service_down_time=PATIENCE)
        super().setUp()
        handler = logging.FileHandler(self._log)
        handler.setFormatter(logging.Formatter(LOG_FORMAT))
        handler.setLevel(logging.INFO)
        logging.getLogger().addHandler(handler)
        self.flags(allow_resize_to_same_host=False)
        # Computes hand on the token of the user to other services.
        create = auth.NovaKeystoneContext._create_context
        self.useFixture(fixtures.MonkeyPatch(
            'nova.api.auth.NovaKeystoneContext._create_context',
            lambda environ, **more: _with_token(create(environ, **more))))
        self.ports = {
            'api': self._serve(self._nova()),
            'placement': self._serve(self._placement()),
            'image': self._serve(image),
            'network': self._serve(network)}

    def _setup_services(self) -> None:
        Serializer.cell = self.cell_mappings['cell1']
        super()._setup_services()

    def _setup_compute_service(self) -> None:
        """Start none."""

    def _nova(self) -> Application:
        """Return the API, for one user who may do everything."""
        app = self.api_fixture.app()

        def api(environ: dict[str, ty.Any], start_response: ty.Any,
                ) -> abc.Iterable[bytes]:
            if environ['PATH_INFO'] == '/discover':
                return self._discover(start_response)
            # This is what keystone's middleware would add.
            environ.update(
                HTTP_X_AUTH_TOKEN='token', HTTP_X_AUTH_USER='admin',
                HTTP_X_AUTH_PROJECT_ID=self.api.project_id,
                HTTP_X_ROLES='admin,member,reader')
            return app(environ, start_response)
        return api

    def _discover(self, start_response: ty.Any) -> abc.Iterable[bytes]:
        """Do what ``nova-manage cell_v2 discover_hosts`` does."""
        found = host_mapping.discover_hosts(
            nova_context.get_admin_context(),
            cell_uuid=self.cell_mappings['cell1'].uuid)
        return answer(start_response, [each.host for each in found])

    def _placement(self) -> Application:
        app = deploy.loadapp(self.placement_fixture.conf_fixture.conf)

        def placement(environ: dict[str, ty.Any], start_response: ty.Any,
                      ) -> abc.Iterable[bytes]:
            environ['HTTP_X_AUTH_TOKEN'] = self.placement_fixture.token
            return app(environ, start_response)
        return placement

    def _serve(self, app: Application) -> int:
        """Serve an application, and return its port of loopback."""
        server = serving.make_server(
            broker.LOOPBACK, 0, app, threaded=True, request_handler=_Quiet)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        self.addCleanup(server.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(server.shutdown)
        return server.server_port


def _with_token(context: nova_context.RequestContext,
                ) -> nova_context.RequestContext:
    context.auth_token = 'token'
    return context


class _Quiet(serving.WSGIRequestHandler):
    """Serve without a line on the terminal for each request."""

    def log(self, *args: ty.Any, **kwargs: ty.Any) -> None:
        pass


def answer(start_response: ty.Any, value: ty.Any) -> abc.Iterable[bytes]:
    body = json.dumps(value).encode()
    start_response('200 OK', [('Content-Type', 'application/json'),
                              ('Content-Length', str(len(body)))])
    return [body]


def image(environ: dict[str, ty.Any], start_response: ty.Any,
          ) -> abc.Iterable[bytes]:
    """Stand for glance, with one image."""
    if environ['PATH_INFO'].endswith('/file'):
        start_response('200 OK', [
            ('Content-Type', 'application/octet-stream'),
            ('Content-Length', str(IMAGE_SIZE))])
        return [bytes(IMAGE_SIZE)]
    if '/schemas/' in environ['PATH_INFO']:
        return answer(start_response, {
            'name': 'image', 'properties': {name: {} for name in RECORD}})
    return answer(start_response, RECORD)


def network(environ: dict[str, ty.Any], start_response: ty.Any,
            ) -> abc.Iterable[bytes]:
    """Stand for neutron, which has nothing of whatever it is asked for."""
    kind = environ['PATH_INFO'].rpartition('/')[2].removesuffix('.json')
    return answer(start_response, {kind.replace('-', '_'): []})


def main(folder: str) -> None:
    path = pathlib.Path(folder)
    with broker.Broker(path / 'rabbitmq') as bus:
        Rpc.url = broker.url(broker.LOOPBACK, bus.port)
        with Services(path / 'services.log') as services:
            print(json.dumps({**services.ports, 'bus': bus.port}), flush=True)
            sys.stdin.read()


if __name__ == '__main__':
    main(*sys.argv[1:])
