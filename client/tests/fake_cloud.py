# SPDX-License-Identifier: Apache-2.0

"""A compute API with one server, as much of it as these commands use.

It answers in the shapes of the real API, to the real command, on a loopback
port. It does not move anything: a test says what the server is to look like
each time that the command looks.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import http.server
import json
import threading
from typing import Any
import urllib.parse

SERVER_ID = '5c5f3a0e-5d0e-4d5f-9f0e-000000000001'
SERVER_NAME = 'vm1'
FLAVOR_ID = '42'
FLAVOR_NAME = 'bigger'
REQUEST_ID = 'req-5c5f3a0e-5d0e-4d5f-9f0e-0000000000aa'

#: The server between the request and its end.
MOVING = {'status': 'RESIZE', 'OS-EXT-STS:task_state': 'resize_migrating'}
MOVED = {'status': 'VERIFY_RESIZE', 'hostId': 'b'}


def event(name: str, result: str | None, details: str = '') -> dict[str, Any]:
    """Return one event of an action, as shown to an ordinary user."""
    shown = {
        'event': name,
        'start_time': '2026-01-01T00:00:00.000000',
        'finish_time': result and '2026-01-01T00:00:01.000000',
        'result': result,
        'hostId': 'a',
    }
    if details:
        shown['details'] = details
    return shown


@dataclasses.dataclass(frozen=True)
class Request:
    """A request that the cloud got."""

    method: str
    path: str
    microversion: str | None
    body: Any


@dataclasses.dataclass
class FakeCloud:
    """The cloud's state, and what a test wants it to do."""

    port: int = 0
    max_microversion: str = '2.105'
    #: The server before the request.
    server: dict[str, Any] = dataclasses.field(
        default_factory=lambda: {
            'id': SERVER_ID,
            'name': SERVER_NAME,
            'status': 'ACTIVE',
            'OS-EXT-STS:task_state': None,
            'hostId': 'a',
            'image': {'id': 'an-image'},
            'flavor': {'original_name': 'small', 'extra_specs': {}},
        }
    )
    #: What differs each time that the server is looked at after the request;
    #: None for a server that is gone, or the status of an answer that fails.
    #: The last one stays.
    then: list[dict[str, Any] | int | None] = dataclasses.field(
        default_factory=list
    )
    #: The events, each time that they are looked at; None where there is no
    #: record of the request. The last one stays.
    events: list[list[dict[str, Any]] | None] = dataclasses.field(
        default_factory=lambda: [None]
    )
    #: The answer's status to an action.
    action_status: int = 202
    #: What its answers are filed under; '' to keep it secret.
    request_id: str = REQUEST_ID
    #: The answer's status to the question for an action's events.
    events_status: int = 200
    requests: list[Request] = dataclasses.field(default_factory=list)

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self.port}/v2.1'

    @property
    def actions(self) -> list[Request]:
        """The requests that would have changed something."""
        return [r for r in self.requests if r.method != 'GET']

    def answer(self, request: Request) -> tuple[int, Any]:
        """Return the status and the body of the answer to a request."""
        parts = urllib.parse.urlsplit(request.path)
        path = parts.path.removeprefix('/v2.1').rstrip('/')
        if path == '':
            return 200, {'version': self._version()}
        if path == f'/servers/{SERVER_ID}/action':
            if self.action_status != 202:
                return self.action_status, {
                    'conflictingRequest': {'message': 'not in this state'}
                }
            return 202, None
        if path == f'/servers/{SERVER_ID}/os-instance-actions/{REQUEST_ID}':
            return self._answer_events()
        if path == f'/servers/{SERVER_ID}':
            changes = self._next(self.then) if self.actions else {}
            if isinstance(changes, int):
                return changes, {'fault': {'message': 'out of order'}}
            if changes is not None:
                return 200, {'server': {**self.server, **changes}}
        if path in ('/servers', '/servers/detail'):
            return 200, {'servers': [self.server]}
        if path == f'/flavors/{FLAVOR_ID}':
            return 200, {'flavor': self._flavor()}
        if path in ('/flavors', '/flavors/detail'):
            return 200, {'flavors': [self._flavor()]}
        return 404, {'itemNotFound': {'message': f'no {path}'}}

    def _answer_events(self) -> tuple[int, Any]:
        if self.events_status != 200:
            return self.events_status, {'forbidden': {'message': 'no'}}
        events = self._next(self.events)
        if events is None:
            return 404, {'itemNotFound': {'message': 'no such action'}}
        return 200, {
            'instanceAction': {
                'action': 'resize',
                'request_id': REQUEST_ID,
                'events': events,
            }
        }

    @staticmethod
    def _next(answers: list[Any]) -> Any:
        return answers.pop(0) if len(answers) > 1 else answers[0]

    @staticmethod
    def _flavor() -> dict[str, Any]:
        return {'id': FLAVOR_ID, 'name': FLAVOR_NAME, 'extra_specs': {}}

    def _version(self) -> dict[str, Any]:
        return {
            'id': 'v2.1',
            'status': 'CURRENT',
            'version': self.max_microversion,
            'min_version': '2.1',
            'links': [{'rel': 'self', 'href': f'{self.url}/'}],
        }


@contextlib.contextmanager
def serving() -> Iterator[FakeCloud]:
    """Serve a cloud on a free loopback port for as long as the context."""
    cloud = FakeCloud()

    class Handler(http.server.BaseHTTPRequestHandler):
        # The command keeps its connection open.
        protocol_version = 'HTTP/1.1'
        # Sent in two parts, every answer waits for an acknowledgement.
        wbufsize = -1

        def _handle(self) -> None:
            length = int(self.headers.get('Content-Length') or 0)
            request = Request(
                self.command,
                self.path,
                self.headers.get('OpenStack-API-Version'),
                json.loads(self.rfile.read(length)) if length else None,
            )
            status, body = cloud.answer(request)
            cloud.requests.append(request)
            content = b'' if body is None else json.dumps(body).encode()
            self.send_response(status)
            self.send_header('Content-Type', 'application/json')
            self.send_header('Content-Length', str(len(content)))
            if cloud.request_id:
                self.send_header('x-openstack-request-id', cloud.request_id)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _handle

        def log_message(self, format: str, *args: Any) -> None:
            pass

    httpd = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    httpd.daemon_threads = True
    cloud.port = httpd.server_address[1]
    # The default interval is half a second of waiting for every test's end.
    thread = threading.Thread(
        target=httpd.serve_forever, kwargs={'poll_interval': 0.01}
    )
    thread.start()
    try:
        yield cloud
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()
