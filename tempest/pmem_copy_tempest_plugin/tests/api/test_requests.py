# SPDX-License-Identifier: Apache-2.0
"""What the API makes of the field in requests, whoever may send them."""

from typing import Any
import uuid

from tempest.lib.common import api_version_utils
from tempest.lib import decorators
from tempest.lib import exceptions
from tempest import test

from pmem_copy_tempest_plugin.tests import base

# As an administrator, an owner, and a client would write it.
TRUE = [True, 'true', 'True', 'TRUE', 'on', 'ON', 'yes', 'YES', '1']
FALSE = [False, 'false', 'False', 'FALSE', 'off', 'OFF', 'no', 'NO', '0']
NO_BOOLEAN = ['', 'maybe', 'truee', ' ', 2, -1, 0.5, None, [], [True], {},
              {'true': True}]

CONF = base.CONF


class RequestTest(base.PmemMixin, api_version_utils.BaseMicroversionTest,
                  test.BaseTestCase):
    """A cloud with the field, and requests of an administrator."""

    credentials = ['primary', 'admin']
    min_microversion = base.MICROVERSION
    max_microversion = 'latest'

    @classmethod
    def skip_checks(cls) -> None:
        super().skip_checks()
        api_version_utils.check_skip_with_microversion(
            cls.min_microversion, cls.max_microversion,
            CONF.compute.min_microversion, CONF.compute.max_microversion)

    @classmethod
    def setup_credentials(cls) -> None:
        cls.set_network_resources()
        super().setup_credentials()

    @classmethod
    def resource_setup(cls) -> None:
        cls.setup_api_microversion_fixture(
            compute_microversion=api_version_utils
            .select_request_microversion(
                cls.min_microversion, CONF.compute.min_microversion))
        super().resource_setup()

    def resize(self, server_id: str, **fields: Any) -> None:
        self.admin_servers.resize_server(server_id, self.new_flavor, **fields)

    def migrate(self, server_id: str, **fields: Any) -> None:
        self.admin_servers.migrate_server(server_id, **fields)


class AcceptedTest(RequestTest):
    """Requests that start a move.

    Where the data goes is the scenarios' to see.
    """

    @classmethod
    def resource_setup(cls) -> None:
        super().resource_setup()
        cls.server = cls.boot(cls.os_primary.servers_client, cls.flavor)

    def tearDown(self) -> None:
        # Each test leaves the server as it was, for the next one.
        server = self.show(self.server['id'])
        if server['status'] == 'VERIFY_RESIZE':
            self.revert(server['id'])
        super().tearDown()

    @decorators.idempotent_id('e207f1b1-93d4-49ae-bc26-5feb705491e8')
    def test_resize(self) -> None:
        self.resize(self.server['id'], copy_pmem_devices=True)
        after = self.wait_verify_resize(self.server['id'])
        flavor = self.admin_flavors.show_flavor(self.new_flavor)['flavor']
        self.assertEqual(flavor['name'], after['flavor']['original_name'])

    @decorators.attr(type='smoke')
    @decorators.idempotent_id('cc580ca3-68a9-4669-aa36-6a00467cfa21')
    def test_resize_without_copy(self) -> None:
        self.resize(self.server['id'], copy_pmem_devices=False)
        self.wait_verify_resize(self.server['id'])

    @decorators.idempotent_id('1b94c067-10b4-4958-a538-a9f68dfa1bce')
    def test_migrate_with_true_as_a_string(self) -> None:
        self.migrate(self.server['id'], copy_pmem_devices='True')
        self.assert_moved(
            self.server, self.wait_verify_resize(self.server['id']))

    @decorators.attr(type='smoke')
    @decorators.idempotent_id('88355ca8-734d-4d77-9877-208ad877fd27')
    def test_migrate_to_a_host(self) -> None:
        host = self.other_hosts(self.server[base.probe.HOST])[0]
        self.migrate(self.server['id'], host=host, copy_pmem_devices=True)
        after = self.wait_verify_resize(self.server['id'])
        self.assertEqual(host, after[base.probe.HOST])

    @decorators.idempotent_id('de82bfc7-9fa7-4e42-82e9-651ee9486e01')
    def test_migrate_with_null(self) -> None:
        self.admin_servers.action(
            self.server['id'], 'migrate', body={'migrate': None})
        self.assert_moved(
            self.server, self.wait_verify_resize(self.server['id']))

    @decorators.idempotent_id('fdf4d5e0-63cf-4770-9b59-d4dad5d1b1c9')
    def test_migrate_server_without_pmem(self) -> None:
        """There is nothing to copy, which is no reason to refuse."""
        server = self.boot(
            self.os_primary.servers_client,
            self.make_flavor(CONF.compute.flavor_ref, None))
        self.migrate(server['id'], copy_pmem_devices=True)
        self.assert_moved(server, self.wait_verify_resize(server['id']))
        self.confirm(server['id'])


class SchemaTest(RequestTest):
    """What a request may say, without a server.

    The body is looked at first, so what is in order ends with 404.
    """

    def assert_in_order(self, action: str, **fields: Any) -> None:
        self.assertRaises(
            exceptions.NotFound, self.admin_servers.action,
            str(uuid.uuid4()), action, **fields)

    def assert_refused(self, action: str, **fields: Any) -> None:
        error = self.assertRaises(
            exceptions.BadRequest, self.admin_servers.action,
            str(uuid.uuid4()), action, **fields)
        self.assertIn(base.FIELD, str(error))

    @decorators.attr(type='smoke')
    @decorators.idempotent_id('15f5572f-b5f6-4dd6-8272-31836ade9bdb')
    def test_ways_to_write_a_boolean(self) -> None:
        for value in TRUE + FALSE:
            self.assert_in_order('resize', flavorRef=self.new_flavor,
                                 copy_pmem_devices=value)
            self.assert_in_order('migrate', copy_pmem_devices=value)

    @decorators.attr(type='smoke')
    @decorators.idempotent_id('f19cf64a-9a4a-40b2-b674-211841c11ce3')
    def test_without_the_field(self) -> None:
        self.assert_in_order('resize', flavorRef=self.new_flavor)
        self.assert_in_order('migrate')
        self.assert_in_order('migrate', body={'migrate': None})
        self.assert_in_order('migrate', host=None)

    @decorators.attr(type=['negative'])
    @decorators.idempotent_id('7a4118b3-f1b2-4553-bcd3-91121eb690c5')
    def test_no_boolean(self) -> None:
        for value in NO_BOOLEAN:
            self.assert_refused('resize', flavorRef=self.new_flavor,
                                copy_pmem_devices=value)
            self.assert_refused('migrate', copy_pmem_devices=value)

    @decorators.attr(type=['negative'])
    @decorators.idempotent_id('46260c87-ebe5-4e12-94c2-6e0276d8d1af')
    def test_misspelt(self) -> None:
        """A copy that was asked for must not be forgotten in silence."""
        for name in ('copy_pmem_device', 'copy-pmem-devices',
                     'copyPmemDevices'):
            for action, fields in (('migrate', {}), (
                    'resize', {'flavorRef': self.new_flavor})):
                error = self.assertRaises(
                    exceptions.BadRequest, self.admin_servers.action,
                    str(uuid.uuid4()), action, **fields, **{name: True})
                self.assertIn(name, str(error))

    @decorators.attr(type=['negative'])
    @decorators.idempotent_id('bec7f3d1-1890-4fa7-8709-4dc11d8101fe')
    def test_older_microversions(self) -> None:
        """An older one never copied, so it must not seem to."""
        for version in ('2.1', '2.55', '2.56', '2.104'):
            with base.at_microversion(version):
                for value in (True, False, 'true'):
                    self.assert_refused('resize', flavorRef=self.new_flavor,
                                        copy_pmem_devices=value)
                    self.assert_refused('migrate', copy_pmem_devices=value)

    @decorators.attr(type='smoke')
    @decorators.idempotent_id('cd97ef6d-e295-4983-a35f-e54b6f0260ca')
    def test_older_microversions_without_the_field(self) -> None:
        for version in ('2.1', '2.55', '2.56', '2.104'):
            with base.at_microversion(version):
                self.assert_in_order('resize', flavorRef=self.new_flavor)
                self.assert_in_order('migrate', body={'migrate': None})


class RefusedTest(RequestTest):
    """Requests that are in order, and can't be carried out."""

    @classmethod
    def resource_setup(cls) -> None:
        super().resource_setup()
        cls.server = cls.boot(cls.os_primary.servers_client, cls.flavor)

    def tearDown(self) -> None:
        after = base.watch.state_of(self.show(self.server['id']))
        self.assertEqual(base.watch.state_of(self.server), after)
        super().tearDown()

    @decorators.attr(type=['negative'])
    @decorators.idempotent_id('55feda6b-b3e1-4809-8ca2-37ae57f506a3')
    def test_flavor_with_fewer_devices(self) -> None:
        flavor = self.make_flavor(CONF.compute.flavor_ref_alt, None)
        error = self.assertRaises(
            exceptions.BadRequest, self.admin_servers.resize_server,
            self.server['id'], flavor, copy_pmem_devices=True)
        self.assertIn('vPMEM', str(error))

    @decorators.attr(type=['negative'])
    @decorators.idempotent_id('716c5633-ba31-45d7-b41c-d0052c8bcb93')
    def test_unknown_host(self) -> None:
        self.assertRaises(
            exceptions.BadRequest, self.migrate, self.server['id'],
            host='no-such-host', copy_pmem_devices=True)

    @decorators.attr(type=['negative'])
    @decorators.idempotent_id('7e8a9ea3-c739-491b-9331-7d17b937b076')
    def test_own_host(self) -> None:
        self.assertRaises(
            exceptions.BadRequest, self.migrate, self.server['id'],
            host=self.server[base.probe.HOST], copy_pmem_devices=True)
