# SPDX-License-Identifier: Apache-2.0
"""Where the data of a server is, before, in and after a move."""

from tempest.common import waiters
from tempest.lib import decorators

from pmem_copy_tempest_plugin import marks
from pmem_copy_tempest_plugin import probe
from pmem_copy_tempest_plugin.tests.scenario import base


class CopyTest(base.PmemScenario):
    """Moves that copy."""

    @decorators.attr(type=['multinode', 'slow', 'smoke'])
    @decorators.idempotent_id('28b7c806-6a07-4269-a59f-4bc1c18cfd74')
    def test_migrate_and_confirm(self) -> None:
        server, mark = self.boot_marked()
        self.migrate(server, copy_pmem_devices=True)
        after = self.moved(server)

        self.assert_moved(server, after)
        there = self.devices(after)
        self.assertEqual([], mark.missing(there))
        if self.probe.sees_hosts:
            # Until the move is confirmed, nothing is lost.
            self.assertEqual([], mark.missing(mark.devices))
        self.confirm(server['id'])
        self.assert_wiped(mark, except_on=there)
        self.assert_intact(server['id'], mark)

    @decorators.attr(type=['multinode', 'slow'])
    @decorators.idempotent_id('1ba80815-3be2-4955-8670-e2fd527eaab8')
    def test_resize_and_confirm(self) -> None:
        server, mark = self.boot_marked()
        self.resize(server, copy_pmem_devices=True)
        there = self.devices(self.moved(server))

        self.assertEqual([], mark.missing(there))
        self.confirm(server['id'])
        self.assert_wiped(mark, except_on=there)
        self.assert_intact(server['id'], mark)

    @decorators.attr(type=['multinode', 'slow'])
    @decorators.idempotent_id('bc21e372-954a-4f01-8791-cf241803a831')
    def test_migrate_and_revert(self) -> None:
        server, mark = self.boot_marked()
        self.migrate(server, copy_pmem_devices='yes')
        after = self.moved(server)
        # What the guest writes after the move is gone when it is reverted.
        later = marks.Mark(self.probe, self.devices(after))
        self.revert(server['id'])

        self.assertEqual(
            server[probe.HOST], self.show(server['id'])[probe.HOST])
        self.assert_intact(server['id'], mark)
        self.assert_wiped(mark, except_on=mark.devices)
        self.assert_wiped(later)

    @decorators.attr(type=['multinode', 'slow', 'smoke'])
    @decorators.idempotent_id('2dc571af-c064-4f40-963b-03a5c50b9f1c')
    def test_resize_and_revert(self) -> None:
        server, mark = self.boot_marked()
        self.resize(server, copy_pmem_devices=True)
        self.assert_intact(self.moved(server)['id'], mark)
        self.revert(server['id'])

        self.assert_intact(server['id'], mark)
        self.assert_wiped(mark, except_on=mark.devices)

    @decorators.attr(type=['multinode', 'slow'])
    @decorators.idempotent_id('f2a68c05-155f-4e4a-8a5e-d2cc7e7e9965')
    def test_there_and_back(self) -> None:
        """A second move takes the data to where it came from."""
        server, mark = self.boot_marked()
        self.migrate(server, copy_pmem_devices=True)
        self.moved(server)
        self.confirm(server['id'])
        self.assert_wiped(mark, except_on=self.devices(
            self.show(server['id'])))
        self.migrate(
            server, copy_pmem_devices=True, host=server[probe.HOST])
        self.moved(server)
        self.confirm(server['id'])

        after = self.show(server['id'])
        self.assertEqual(server[probe.HOST], after[probe.HOST])
        self.assert_intact(server['id'], mark)
        self.assert_wiped(mark, except_on=self.devices(after))


class NoCopyTest(base.PmemScenario):
    """Moves that don't copy start with empty devices."""

    @decorators.attr(type=['multinode', 'slow'])
    @decorators.idempotent_id('d9db7d18-cf6a-4360-9f62-5ce66dc2e893')
    def test_migrate_and_confirm(self) -> None:
        server, mark = self.boot_marked()
        self.migrate(server)
        after = self.moved(server)

        self.assertEqual(
            [], marks.not_zero(self.probe, self.devices(after)))
        self.confirm(server['id'])
        self.assert_wiped(mark)

    @decorators.attr(type=['multinode', 'slow'])
    @decorators.idempotent_id('465fade9-1a9a-49f1-b3e7-728216211cc6')
    def test_resize_and_revert(self) -> None:
        server, mark = self.boot_marked()
        self.resize(server, copy_pmem_devices=False)
        after = self.moved(server)

        self.assertEqual(
            [], marks.not_zero(self.probe, self.devices(after)))
        self.revert(server['id'])
        self.assert_intact(server['id'], mark)


class KeepTest(base.PmemScenario):
    """What keeps the data of a server, and what does not."""

    def stop(self, server_id: str) -> None:
        self.admin_servers.stop_server(server_id)
        waiters.wait_for_server_status(
            self.admin_servers, server_id, 'SHUTOFF')

    def start(self, server_id: str) -> None:
        self.admin_servers.start_server(server_id)
        waiters.wait_for_server_status(
            self.admin_servers, server_id, 'ACTIVE')

    def reboot(self, server_id: str) -> None:
        self.admin_servers.reboot_server(server_id, type='HARD')
        waiters.wait_for_server_status(
            self.admin_servers, server_id, 'ACTIVE')

    @decorators.attr(type=['slow', 'smoke'])
    @decorators.idempotent_id('95f6a69f-9bf3-42c5-94c1-2bc36f22f291')
    def test_stop_start_and_hard_reboot(self) -> None:
        server, mark = self.boot_marked()
        self.stop(server['id'])
        self.start(server['id'])
        self.assert_intact(server['id'], mark)
        self.reboot(server['id'])
        self.assert_intact(server['id'], mark)

    @decorators.attr(type=['multinode', 'slow'])
    @decorators.idempotent_id('4cbaff83-6372-4945-a4d6-6b2f7d4f6fd2')
    def test_stop_start_and_hard_reboot_after_a_move(self) -> None:
        server, mark = self.boot_marked()
        self.migrate(server, copy_pmem_devices=True)
        self.moved(server)
        self.confirm(server['id'])
        self.stop(server['id'])
        self.start(server['id'])
        self.assert_intact(server['id'], mark)
        self.reboot(server['id'])
        self.assert_intact(server['id'], mark)

    @decorators.attr(type=['multinode', 'slow'])
    @decorators.idempotent_id('eb352ca9-8e6a-4368-a5bf-2aac73012838')
    def test_stopped_server(self) -> None:
        server, mark = self.boot_marked()
        self.stop(server['id'])
        self.resize(server, copy_pmem_devices=True)
        self.moved(server)
        self.confirm(server['id'], status='SHUTOFF')
        self.start(server['id'])
        self.assert_intact(server['id'], mark)

    @decorators.attr(type=['multinode', 'slow'])
    @decorators.idempotent_id('ab032702-6b9e-4c59-9326-c2a31304594c')
    def test_stopped_server_and_revert(self) -> None:
        server, mark = self.boot_marked()
        self.stop(server['id'])
        self.migrate(server, copy_pmem_devices=True)
        self.moved(server)
        self.revert(server['id'], status='SHUTOFF')
        self.start(server['id'])
        self.assert_intact(server['id'], mark)

    @decorators.attr(type='slow')
    @decorators.idempotent_id('7265d034-8754-47c3-9fa8-f2b5894d7a79')
    def test_delete(self) -> None:
        server, mark = self.boot_marked()
        self.delete(server['id'])
        self.assert_wiped(mark)

    @decorators.attr(type=['multinode', 'slow'])
    @decorators.idempotent_id('be23c491-1ab2-4e39-a0b6-732d206a6531')
    def test_delete_before_the_move_is_confirmed(self) -> None:
        server, mark = self.boot_marked()
        self.migrate(server, copy_pmem_devices=True)
        self.moved(server)
        self.delete(server['id'])
        self.assert_wiped(mark)
