# SPDX-License-Identifier: Apache-2.0
"""Servers with known data in their vPMEM, and hosts that fail on demand."""

from collections.abc import Callable, Mapping, Sequence
import functools
import time
from typing import Any

from tempest import config
from tempest.scenario import manager

from pmem_copy_tempest_plugin import faults
from pmem_copy_tempest_plugin import marks
from pmem_copy_tempest_plugin import probe
from pmem_copy_tempest_plugin import shell
from pmem_copy_tempest_plugin.tests import base
from pmem_copy_tempest_plugin import watch

CONF = config.CONF


class PmemScenario(base.PmemMixin, manager.ScenarioTest):
    """A server, marked data in its vPMEM, and where the data is.

    Moves are asked for by an administrator, who alone may choose the host.
    """

    credentials = ['primary', 'admin']
    compute_min_microversion = base.MICROVERSION

    @classmethod
    def setup_credentials(cls) -> None:
        if CONF.pmem_copy.probe == 'host':
            # Guests that are not logged in to need no network.
            cls.set_network_resources()
        super().setup_credentials()

    @classmethod
    def skip_checks(cls) -> None:
        super().skip_checks()
        if (CONF.pmem_copy.probe == 'guest' and
                not CONF.validation.run_validation):
            raise cls.skipException(
                '[pmem_copy]probe is guest, and [validation]run_validation '
                'is off')

    def setUp(self) -> None:
        super().setUp()
        self.hosts = shell.HostShell(
            CONF.pmem_copy.host_command, CONF.pmem_copy.host_addresses,
            CONF.pmem_copy.host_timeout)
        self._keypair: dict[str, Any] = {}
        if CONF.pmem_copy.probe == 'host':
            self.probe: probe.Probe = probe.HostProbe(
                self.hosts, CONF.pmem_copy.describe_command,
                CONF.pmem_copy.devices_command, CONF.pmem_copy.read_command,
                CONF.pmem_copy.write_command)
        else:
            self.probe = probe.GuestProbe(
                self._connect, CONF.pmem_copy.guest_device)

    # Servers

    def boot_marked(self) -> tuple[dict[str, Any], marks.Mark]:
        """Boot a server, and write known data to all of its vPMEM.

        Its devices must have been zero before: what another server has left
        must not be seen.

        :returns: what the API tells administrators of it, and the data
        """
        if self.probe.sees_hosts:
            server = self.create_server(flavor=self.flavor, networks='none')
        else:
            self._keypair = self.create_keypair()
            server = self.create_server(
                flavor=self.flavor, keypair=self._keypair,
                wait_until='SSHABLE')
        server = self.show(server['id'])
        devices = self.devices(server)
        self.assertEqual(
            len(CONF.pmem_copy.labels.split(',')), len(devices), devices)
        self.assertEqual([], marks.not_zero(self.probe, devices))
        return server, marks.Mark(self.probe, devices)

    def _connect(self, server: Mapping[str, Any]) -> Callable[[str], str]:
        return self.get_remote_client(
            self.get_server_ip(server),
            private_key=self._keypair['private_key'],
            server=server).exec_command

    def devices(self, server: Mapping[str, Any]) -> list[probe.Device]:
        """Return the vPMEM devices of a server, where it is now."""
        return self.probe.devices(server)

    def assert_intact(self, server_id: str, mark: marks.Mark) -> None:
        """Check that a server has all its data, wherever it is."""
        self.assertEqual(
            [], mark.missing(self.devices(self.show(server_id))))

    # Moves

    def resize(self, server: Mapping[str, Any], **fields: Any) -> str:
        """Ask for a resize.

        :returns: the id of the request, for ``failed_events``
        """
        return self._request_id(self.admin_servers.resize_server(
            server['id'], self.new_flavor, **fields))

    def migrate(self, server: Mapping[str, Any], **fields: Any) -> str:
        """Ask for a migration.

        :returns: the id of the request, for ``failed_events``
        """
        return self._request_id(self.admin_servers.migrate_server(
            server['id'], **fields))

    @staticmethod
    def _request_id(answer: Any) -> str:
        return answer.response['x-compute-request-id']

    def moved(self, server: Mapping[str, Any]) -> dict[str, Any]:
        """Wait until a move waits to be confirmed.

        :returns: what the API tells administrators of the server then
        """
        with self.watched(server['id']) as watcher:
            watcher.settled({'VERIFY_RESIZE'}, CONF.compute.build_timeout)
        return self.show(server['id'])

    def come_back(self, server: Mapping[str, Any], watcher: watch.Watch,
                  status: str = 'ACTIVE') -> None:
        """Wait until a move that fails has ended, where it began.

        :param server: as it was before
        :param watcher: watches it
        :param status: that it shall have
        """
        state = watcher.settled(base.QUIET, CONF.pmem_copy.settle_timeout)
        self.assertEqual(
            (status, server[probe.HOST]), (state.status, state.host),
            watcher.story())

    def failed_events(self, server_id: str, request_id: str) -> dict[
            str, str]:
        """Wait until an action has an event that failed.

        :returns: the names of those that did, and the reasons
        """
        def failed() -> dict[str, str]:
            return {event['event']: event.get('details') or ''
                    for event in self._events(server_id, request_id)
                    if event['result'] == 'Error'}
        return self.eventually(failed, bool, 'an event that failed')

    def until_under_way(self, server_id: str, request_id: str,
                        *names: str) -> None:
        """Wait until one of some events of an action has begun."""
        self.eventually(
            lambda: [event['event']
                     for event in self._events(server_id, request_id)
                     if not event['result']],
            lambda under_way: bool(set(names) & set(under_way)),
            ' or '.join(names))

    def _events(self, server_id: str, request_id: str) -> list[
            dict[str, Any]]:
        return self.admin_servers.show_instance_action(
            server_id, request_id)['instanceAction']['events']

    # What is left where

    def assert_wiped(self, mark: marks.Mark,
                     except_on: Sequence[probe.Device] = ()) -> None:
        """Wait until no namespace of any host has the data any more.

        From the guest this can't be seen, and is not looked at.

        :param except_on: where it is to stay
        """
        if not isinstance(self.probe, probe.HostProbe):
            return
        self.eventually(
            lambda: self._left(mark, except_on), lambda left: not left,
            'no data of the server left')

    def _left(self, mark: marks.Mark,
              except_on: Sequence[probe.Device]) -> list[str]:
        kept = {(device.host, device.path) for device in except_on}
        # Nobody knows which namespace a move that failed had claimed.
        return mark.left_on(
            device for host in self.other_hosts('')
            for device in self.probe.all_devices(host)
            if (host, device.path) not in kept)

    def eventually(self, look: Callable[[], Any],
                   is_right: Callable[[Any], bool], what: str) -> Any:
        """Look until something is right, for ``settle_timeout`` seconds.

        :returns: what was found
        """
        deadline = time.monotonic() + CONF.pmem_copy.settle_timeout
        while True:
            found = look()
            if is_right(found):
                return found
            if time.monotonic() > deadline:
                self.fail(f'not {what} after '
                          f'{CONF.pmem_copy.settle_timeout} s: {found}')
            time.sleep(1)

    # Faults

    def cause(self, fault: faults.Fault, server: Mapping[str, Any],
              host: str) -> faults.CausedFault:
        """Cause a fault, until it is undone or the test ends.

        :param host: where a server is to move to
        """
        caused = faults.CausedFault(
            self.hosts, host,
            CONF.pmem_copy[f'{fault.value.option}_command'],
            CONF.pmem_copy[f'{fault.value.option}_undo_command'],
            server['id'])
        self.useFixture(caused)
        return caused


def needs_fault(fault: faults.Fault) -> Callable[[Any], Any]:
    """Skip a test where nobody has said how to cause its fault."""
    option = f'{fault.value.option}_command'

    def decorate(method: Any) -> Any:
        @functools.wraps(method)
        def test(self: PmemScenario) -> None:
            if not CONF.pmem_copy[option]:
                self.skipTest(f'[pmem_copy]{option} is not set')
            method(self)
        return test
    return decorate
