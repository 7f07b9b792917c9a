# SPDX-License-Identifier: Apache-2.0
"""Who may ask for a copy: whoever may ask for the move, by default.

A project's member resizes, its manager also migrates, its reader neither.
"""

from tempest.lib import decorators
from tempest.lib import exceptions

from pmem_copy_tempest_plugin.tests.api import test_requests
from pmem_copy_tempest_plugin.tests import base


class RolesTest(test_requests.RequestTest):
    """A server of a project, and users of it with one role each."""

    credentials = ['admin', 'project_manager', 'project_member',
                   'project_reader']

    @classmethod
    def resource_setup(cls) -> None:
        super().resource_setup()
        cls.server = cls.boot(
            cls.os_project_member.servers_client, cls.flavor)

    def tearDown(self) -> None:
        server = self.show(self.server['id'])
        if server['status'] == 'VERIFY_RESIZE':
            self.revert(server['id'])
        super().tearDown()

    @decorators.attr(type='smoke')
    @decorators.idempotent_id('b75bb7e5-0d0e-4a89-aadb-ae42e4abfcf2')
    def test_member_resizes(self) -> None:
        self.os_project_member.servers_client.resize_server(
            self.server['id'], self.new_flavor, copy_pmem_devices=True)
        self.wait_verify_resize(self.server['id'])

    @decorators.attr(type=['negative'])
    @decorators.idempotent_id('a11cd6b0-6d65-424a-9302-120ab5915d9b')
    def test_member_does_not_migrate(self) -> None:
        self.assertRaises(
            exceptions.Forbidden,
            self.os_project_member.servers_client.migrate_server,
            self.server['id'], copy_pmem_devices=True)

    @decorators.attr(type='smoke')
    @decorators.idempotent_id('dbed21a8-2b59-44af-9f5b-88b03c6c25f8')
    def test_manager_migrates(self) -> None:
        self.os_project_manager.servers_client.migrate_server(
            self.server['id'], copy_pmem_devices=True)
        self.assert_moved(
            self.server, self.wait_verify_resize(self.server['id']))

    @decorators.attr(type=['negative'])
    @decorators.idempotent_id('cc9470e5-e30f-4c9f-9931-12fd8bb46fb3')
    def test_manager_does_not_choose_the_host(self) -> None:
        self.assertRaises(
            exceptions.Forbidden,
            self.os_project_manager.servers_client.migrate_server,
            self.server['id'], copy_pmem_devices=True,
            host=self.other_hosts(self.server[base.probe.HOST])[0])

    @decorators.attr(type=['negative'])
    @decorators.idempotent_id('30ebb094-9c05-4d43-ae3e-93827e9e2843')
    def test_reader_neither_resizes_nor_migrates(self) -> None:
        reader = self.os_project_reader.servers_client
        self.assertRaises(
            exceptions.Forbidden, reader.resize_server, self.server['id'],
            self.new_flavor, copy_pmem_devices=True)
        self.assertRaises(
            exceptions.Forbidden, reader.migrate_server, self.server['id'],
            copy_pmem_devices=True)
        self.assertEqual('ACTIVE', self.show(self.server['id'])['status'])
