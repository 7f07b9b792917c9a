# SPDX-License-Identifier: Apache-2.0
"""Nova's services in a process of their own, and what is asked of its API."""

from collections import abc
import json
import os
import pathlib
import select
import subprocess
import sys
import typing as ty
from urllib import error as url_error
from urllib import request as url_request

from lab import guest
from lab.moves import broker
from lab.moves import computes

MICROVERSION = '2.105'

#: An image that Nova's stand-in for glance has; see ``services.py``.
IMAGE = '155d900f-4e14-4e4c-a73d-069cbf4541e6'

#: Seconds for one answer, and for the start and the end of all.
TIMEOUT = 300


class CloudError(Exception):
    """Nova does not do what it should."""


class Cloud:
    """API, conductor, scheduler and placement.

    :ivar ports: where they listen, by name
    """

    def __init__(self, folder: pathlib.Path) -> None:
        """Start them; ``close`` ends them.

        :param folder: for their logs
        """
        self._folder = folder
        folder.mkdir()
        with open(folder / 'output.log', 'wb') as log:
            self._process = subprocess.Popen(
                guest.with_us(sys.executable, '-m', 'lab.moves.services',
                              str(folder)),
                cwd=computes.ROOT, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=log, start_new_session=True,
                env=dict(os.environ, PYTHONPATH='%s:%s' % (
                    computes.NOVA, computes.ROOT)))
        self._ports: dict[str, int] | None = None
        self._hosts: abc.Sequence[computes.Compute] = ()
        # Past any proxy of the environment.
        self._open = url_request.build_opener(
            url_request.ProxyHandler({})).open

    @property
    def ports(self) -> dict[str, int]:
        """Wait until they are up.

        :raises CloudError: if they don't come up
        """
        if self._ports is None:
            stdout = self._process.stdout
            assert stdout
            if not select.select([stdout], [], [], TIMEOUT)[0] or not (
                    line := stdout.readline()):
                raise CloudError('Nova does not start\n' + (
                    self._folder / 'output.log').read_text())
            self._ports = json.loads(line)
        return self._ports

    def close(self) -> None:
        """End them in good order, or else at once."""
        try:
            self._process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    # The API

    def call(self, method: str, path: str, body: ty.Any = None) -> ty.Any:
        """Ask the API.

        :raises CloudError: with what it said, if it refuses
        """
        return self._ask('api', '/v2.1' + path, body, method, {
            'OpenStack-API-Version': 'compute ' + MICROVERSION})

    def _ask(self, service: str, path: str, body: ty.Any = None,
             method: str = 'GET', headers: abc.Mapping[str, str] = {},
             ) -> ty.Any:
        request = url_request.Request(
            'http://%s:%d%s' % (
                broker.LOOPBACK, self.ports[service], path),
            method=method, data=body and json.dumps(body).encode(),
            headers={'Content-Type': 'application/json', **headers})
        try:
            with self._open(request, timeout=TIMEOUT) as answer:
                return json.loads(answer.read() or 'null')
        except url_error.HTTPError as error:
            raise CloudError('%s %s: %d %s' % (
                method, path, error.code, error.read().decode())) from error

    def wait_for_hosts(self, hosts: abc.Sequence[computes.Compute]) -> None:
        """Wait until servers can be put on hosts, and have moves ask them."""
        self._hosts = hosts
        names = {host.name for host in hosts}
        found: set[str] = set()

        def are_found() -> bool:
            found.update(self._ask('api', '/discover'))
            return found >= names
        computes.wait_for(are_found, hosts)
        computes.wait_for(lambda: self._offers('SMALL') >= names, hosts)

    def _offers(self, label: str) -> set[str]:
        """Return the names of hosts that have a namespace to give out."""
        resource = 'CUSTOM_PMEM_NAMESPACE_' + label
        headers = {'OpenStack-API-Version': 'placement 1.30'}
        # Nobody may ask for what no host has had yet.
        known = self._ask('placement', '/resource_classes', headers=headers)
        if resource not in [each['name']
                            for each in known['resource_classes']]:
            return set()
        offers = self._ask(
            'placement', '/resource_providers?resources=%s:1' % resource,
            headers=headers)
        return {each['name'] for each in offers['resource_providers']}

    def create_flavor(self, label: str) -> str:
        """Create a flavor with a namespace, and return its id."""
        flavor = self.call('POST', '/flavors', {'flavor': {
            'name': label, 'ram': 64, 'vcpus': 1, 'disk': 0}})['flavor']
        self.call('POST', '/flavors/%s/os-extra_specs' % flavor['id'], {
            'extra_specs': {'hw:pmem': label}})
        return flavor['id']

    def create_server(self, flavor: str, host: str) -> str:
        """Have a server created, and return its id."""
        return self.call('POST', '/servers', {'server': {
            'name': 'server', 'imageRef': IMAGE, 'flavorRef': flavor,
            'networks': 'none', 'host': host}})['server']['id']

    def act(self, server: str, action: str, **details: ty.Any) -> None:
        self.call('POST', '/servers/%s/action' % server, {
            action: details or None})

    def wait_until(self, server: str, status: str, host: str) -> None:
        """Wait until a server is somewhere, and nothing is done to it.

        :raises CloudError: if it fails
        """
        def arrived() -> bool:
            shown = self.call('GET', '/servers/' + server)['server']
            if shown['status'] == 'ERROR':
                raise CloudError('%s' % shown)
            return (shown['status'], shown['OS-EXT-SRV-ATTR:host'],
                    shown['OS-EXT-STS:task_state']) == (status, host, None)
        computes.wait_for(arrived, self._hosts)

    def delete_server(self, server: str) -> None:
        """Delete a server, and wait until it is gone."""
        self.call('DELETE', '/servers/' + server)

        def is_gone() -> bool:
            return not self.call('GET', '/servers')['servers']
        computes.wait_for(is_gone, self._hosts)
