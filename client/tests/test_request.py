# SPDX-License-Identifier: Apache-2.0

"""What is sent, and that nothing of it stays behind."""

from collections.abc import Iterator
import os
import subprocess
import sys
from typing import Any

from cliff import command
from conftest import Run
import fake_cloud
from fake_cloud import FakeCloud
from fake_cloud import Request
from osc_lib import exceptions
import pytest

from osc_pmem_copy import request

ACTION_PATH = f'/v2.1/servers/{fake_cloud.SERVER_ID}/action'


class Client:
    """The part of a compute client that is tampered with."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def request(self, url: str, method: str, **kwargs: Any) -> Any:
        self.sent.append(url)
        raise ConnectionError


@pytest.mark.parametrize(
    ('url', 'kwargs'),
    [
        ('/servers/1/action', {'json': {'resize': {}, 'other': None}}),
        ('/servers/1/action', {'json': {'migrate': None}}),
        ('/servers/1/action', {'json': None}),
        ('/servers/1/action', {'data': '{"resize": {}}'}),
        ('/servers/1/resize', {'json': {'resize': {}}}),
        ('/servers/1/action/2', {'json': {'resize': {}}}),
    ],
)
def test_unknown_way_of_asking_is_not_sent(
    url: str, kwargs: dict[str, Any]
) -> None:
    client: Any = Client()
    with pytest.raises(exceptions.CommandError, match='Nothing was sent'):
        with request.asking_for_copy(client, 'resize', '2.105', False):
            client.request(url, 'POST', **kwargs)
    assert client.sent == []
    assert 'request' not in vars(client)


def test_client_is_as_before_after_an_error() -> None:
    client: Any = Client()
    with pytest.raises(ConnectionError):
        with request.asking_for_copy(client, 'resize', '2.105', False):
            client.request('/servers/1/action', 'POST', json={'resize': {}})
    assert client.sent == ['/servers/1/action']
    assert 'request' not in vars(client)


def test_client_keeps_what_another_plugin_did_to_it() -> None:
    client: Any = Client()
    client.request = theirs = lambda *args, **kwargs: None
    with request.asking_for_copy(client, 'resize', '2.105', False):
        assert client.request is not theirs
    assert client.request is theirs


def test_command_that_sends_nothing_fails(
    run: Run, cloud: FakeCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    from openstackclient.compute.v2 import server

    monkeypatch.setattr(
        server.MigrateServer, 'take_action', lambda self, args: None
    )
    result = run('server', 'migrate', '--copy-pmem-devices', 'vm1')
    assert result.status == 1
    assert 'No migrate with --copy-pmem-devices was sent' in result.errors[0]


def test_refusal_of_the_cloud(run: Run, cloud: FakeCloud) -> None:
    cloud.action_status = 409
    result = run('server', 'migrate', '--copy-pmem-devices', '--wait', 'vm1')
    assert result.status == 1
    assert 'not in this state' in result.errors[0]
    # Nothing was begun, so there is nothing to wait for.
    assert cloud.requests[-1].method == 'POST'


@pytest.mark.parametrize('name', ['vm1', fake_cloud.SERVER_ID])
def test_resize(run: Run, cloud: FakeCloud, name: str) -> None:
    result = run(
        'server',
        'resize',
        '--copy-pmem-devices',
        '--flavor',
        fake_cloud.FLAVOR_NAME,
        name,
    )
    assert (result.status, result.out, result.errors) == (0, '', [])
    assert cloud.actions == [
        Request(
            'POST',
            ACTION_PATH,
            'compute 2.105',
            {
                'resize': {
                    'flavorRef': fake_cloud.FLAVOR_ID,
                    'copy_pmem_devices': True,
                }
            },
        )
    ]


def test_migrate(run: Run, cloud: FakeCloud) -> None:
    result = run('server', 'migrate', '--copy-pmem-devices', 'vm1')
    assert (result.status, result.out, result.errors) == (0, '', [])
    assert cloud.actions == [
        Request(
            'POST',
            ACTION_PATH,
            'compute 2.105',
            {'migrate': {'copy_pmem_devices': True}},
        )
    ]


def test_migrate_to_a_host(run: Run, cloud: FakeCloud) -> None:
    result = run(
        'server', 'migrate', '--copy-pmem-devices', '--host', 'host2', 'vm1'
    )
    assert (result.status, result.out, result.errors) == (0, '', [])
    assert [action.body for action in cloud.actions] == [
        {'migrate': {'host': 'host2', 'copy_pmem_devices': True}}
    ]


@pytest.mark.parametrize(
    ('asked', 'sent'),
    [
        ('2', '2.105'),
        ('2.latest', '2.105'),
        ('2.105', '2.105'),
        ('2.107', '2.107'),
    ],
)
def test_microversion_on_a_newer_cloud(
    run: Run, cloud: FakeCloud, asked: str, sent: str
) -> None:
    cloud.max_microversion = '2.110'
    result = run(
        '--os-compute-api-version',
        asked,
        'server',
        'migrate',
        '--copy-pmem-devices',
        'vm1',
    )
    assert result.status == 0
    assert [r.microversion for r in cloud.actions] == [f'compute {sent}']


@pytest.mark.parametrize('version', [(), ('--os-compute-api-version=2.79',)])
@pytest.mark.parametrize(
    'argv',
    [
        ('resize', '--flavor', 'bigger', 'vm1'),
        ('resize', '--flavor', 'bigger', '--wait', 'vm1'),
        ('resize', '--confirm', 'vm1'),
        ('resize', '--revert', 'vm1'),
        ('migrate', 'vm1'),
        ('migrate', '--wait', 'vm1'),
        ('migrate', '--host', 'host2', 'vm1'),
        ('migrate', '--live-migration', 'vm1'),
    ],
)
def test_nothing_changes_without_the_option(
    run: Run,
    cloud: FakeCloud,
    monkeypatch: pytest.MonkeyPatch,
    argv: tuple[str, ...],
    version: tuple[str, ...],
) -> None:
    cloud.then = [{}]
    with_plugin = run(*version, 'server', *argv)
    requests = list(cloud.requests)
    assert cloud.actions
    cloud.requests.clear()

    monkeypatch.setattr(
        command.Command,
        '_load_hooks',
        lambda self: setattr(self, '_hooks', []),
    )
    assert run(*version, 'server', *argv) == with_plugin
    assert cloud.requests == requests


@pytest.fixture
def interactive(
    arguments: list[str],
    cloud: FakeCloud,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Any]:
    """Return a function that types lines into one running client."""
    # The interactive client takes its own arguments for commands.
    monkeypatch.setenv('OS_AUTH_TYPE', 'none')
    monkeypatch.setenv('OS_ENDPOINT', cloud.url)
    monkeypatch.setenv('OS_IDENTITY_API_VERSION', '3')

    def type_in(*lines: str) -> None:
        subprocess.run(
            [sys.executable, '-m', 'openstackclient.shell'],
            input=''.join(f'{line}\n' for line in lines),
            env=os.environ,
            text=True,
            check=False,
            capture_output=True,
        )

    yield type_in


@pytest.mark.parametrize('action_status', [202, 409])
def test_option_does_not_leak_into_the_next_command(
    interactive: Any, cloud: FakeCloud, action_status: int
) -> None:
    cloud.action_status = action_status
    interactive(
        'server migrate --copy-pmem-devices vm1',
        'server migrate vm1',
        'server resize --flavor bigger vm1',
        'server stop vm1',
    )
    assert [(r.microversion, r.body) for r in cloud.actions] == [
        ('compute 2.105', {'migrate': {'copy_pmem_devices': True}}),
        ('compute 2.100', {'migrate': None}),
        ('compute 2.100', {'resize': {'flavorRef': fake_cloud.FLAVOR_ID}}),
        ('compute 2.100', {'os-stop': None}),
    ]


@pytest.mark.parametrize('name', ['resize', 'migrate'])
def test_help_shows_the_option(run: Run, name: str) -> None:
    result = run('server', name, '--help')
    assert result.status == 0
    assert '--copy-pmem-devices' in result.out
