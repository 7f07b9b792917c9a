# SPDX-License-Identifier: Apache-2.0
"""Moves that fail, or are given up: nothing is lost and nothing leaks.

What makes them fail is in the options of ``[pmem_copy]``.
"""

from tempest.common import waiters
from tempest.lib import decorators

from pmem_copy_tempest_plugin.faults import Fault
from pmem_copy_tempest_plugin import probe
from pmem_copy_tempest_plugin.tests.scenario import base

#: The events of the copy, while the guest runs and when it is off, and that
#: of the guest's start on the destination.
PRECOPY = 'compute_precopy_pmem_devices'
COPY = 'compute_copy_pmem_devices'
FINISH = 'compute_finish_resize'


# A fault is a whole host's, so nobody else may move a server meanwhile.
@decorators.serial
class FailureTest(base.PmemScenario):
    """A server, and a host that it is to move to."""

    def prepare(self) -> None:
        """Boot the server, and choose its destination.

        This is not in ``setUp``, which comes before a test can be skipped.
        """
        self.server, self.mark = self.boot_marked()
        self.destination = self.other_hosts(self.server[probe.HOST])[0]

    def fail_to_move(self, fault: Fault, *events: str,
                     status: str = 'ACTIVE') -> None:
        """Migrate with a fault, and check that nothing has come of it.

        :param events: one of which is to tell of the failure
        :param status: of the server, before and after
        """
        caused = self.cause(fault, self.server, self.destination)
        with self.watched(self.server['id']) as watcher:
            request = self.migrate(self.server, host=self.destination,
                                   copy_pmem_devices=True)
            self.come_back(self.server, watcher, status)
            failed = self.failed_events(self.server['id'], request)
            reasons = [failed[event] for event in events if event in failed]
            self.assertEqual(1, len(reasons), failed)
            self.assertNotEqual('', reasons[0])
            caused.undo()
            if status == 'ACTIVE':
                self.assert_intact(self.server['id'], self.mark)
            self.assert_wiped(self.mark, except_on=self.mark.devices)

    def move_after_all(self) -> None:
        """Migrate again, now that nothing is wrong."""
        self.migrate(
            self.server, host=self.destination, copy_pmem_devices=True)
        after = self.moved(self.server)
        self.assertEqual(self.destination, after[probe.HOST])
        self.assert_intact(self.server['id'], self.mark)
        self.confirm(self.server['id'])
        self.assert_wiped(self.mark, except_on=self.devices(after))

    def stop(self) -> None:
        self.admin_servers.stop_server(self.server['id'])
        waiters.wait_for_server_status(
            self.admin_servers, self.server['id'], 'SHUTOFF')

    def start(self) -> None:
        self.admin_servers.start_server(self.server['id'])
        waiters.wait_for_server_status(
            self.admin_servers, self.server['id'], 'ACTIVE')

    @decorators.attr(type=['multinode', 'slow', 'smoke'])
    @decorators.idempotent_id('19e60c04-5968-428e-b93c-ddcd68e70b2e')
    @base.needs_fault(Fault.COPY)
    def test_copy_fails(self) -> None:
        self.prepare()
        # Whether the guest runs then, an option of Nova's says.
        self.fail_to_move(Fault.COPY, PRECOPY, COPY)
        self.move_after_all()

    @decorators.attr(type=['multinode', 'slow'])
    @decorators.idempotent_id('c0b79da2-7f00-4492-b503-99c4ea5d83b4')
    @base.needs_fault(Fault.COPY)
    def test_copy_of_stopped_server_fails(self) -> None:
        self.prepare()
        self.stop()
        self.fail_to_move(Fault.COPY, COPY, status='SHUTOFF')
        self.start()
        self.assert_intact(self.server['id'], self.mark)

    @decorators.attr(type=['multinode', 'slow'])
    @decorators.idempotent_id('a4acc5bb-f189-4e6b-8c9d-c0946dfffaa6')
    @base.needs_fault(Fault.START)
    def test_guest_does_not_start_on_the_destination(self) -> None:
        self.prepare()
        self.fail_to_move(Fault.START, FINISH)
        self.move_after_all()

    @decorators.attr(type=['multinode', 'slow', 'smoke'])
    @decorators.idempotent_id('247adb69-4fd6-4fa4-9c57-7de52123c690')
    @base.needs_fault(Fault.HANG)
    def test_delete_while_copying(self) -> None:
        self.prepare()
        caused = self.cause(Fault.HANG, self.server, self.destination)
        request = self.migrate(self.server, host=self.destination,
                               copy_pmem_devices=True)
        self.until_under_way(self.server['id'], request, PRECOPY, COPY)
        self.delete(self.server['id'])
        caused.undo()
        self.assert_wiped(self.mark)
