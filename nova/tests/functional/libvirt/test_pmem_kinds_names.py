# SPDX-License-Identifier: Apache-2.0

"""A namespace's name is one of its host only.

The hosts' namespaces have the same names here, and each has two of a label.
A server that moves to where its own name is a stranger's gets the other one.
"""

from nova.tests.functional.api import client as api_client
from nova.tests.functional.libvirt import pmem_invariant
from nova.tests.functional.libvirt import pmem_kinds
from nova.tests.functional.libvirt import pmem_world

SOURCE, DESTINATION = pmem_kinds.HOSTS
MOVED, SIZE = pmem_kinds.MOVED, pmem_kinds.SIZE
MANAGER, RPC = pmem_kinds.MANAGER, 'nova.compute.rpcapi.ComputeAPI.'


class _Base(pmem_kinds.KindTestBase):
    """A server, and strangers on both hosts whose names it meets.

    :ivar old: what the server has on the source
    :ivar new: what it will get on the destination, which has another name
    :ivar theirs: the namespaces of strangers, that of the server's old name
        on the destination first
    """

    NUMBER = 2

    def setUp(self):
        super().setUp()
        stranger = self.boot(MOVED, host=DESTINATION)
        theirs, = self.namespaces_of(stranger)
        servers = [self.boot(MOVED, host=SOURCE) for _ in range(2)]
        by_name = {self._known(server): server for server in servers}
        self.server = by_name.pop(self.pmem.known(theirs))
        self.stranger = stranger
        self.neighbour, = by_name.values()
        self.old, = self.namespaces_of(self.server)
        neighbours, = self.namespaces_of(self.neighbour)
        self.new = self.pmem.name_of(
            DESTINATION, self.pmem.known(neighbours))
        self.theirs = [theirs, neighbours]
        self.data = self.pmem.fill(self.old)
        self.others = [self.pmem.fill(name) for name in self.theirs]

    def _known(self, server):
        return self.pmem.known(self.namespaces_of(server)[0])

    def wait_for(self, server, status, host):
        self.wait_until_quiet()
        self.assertEqual([], pmem_invariant.settle(self, server))
        found = self.show(server)
        self.assertEqual((status, host, None), (
            found['status'], found['OS-EXT-SRV-ATTR:host'],
            found['OS-EXT-STS:task_state']))

    def assert_others_untouched(self):
        self.assertEqual(
            self.others, [self.pmem.digest(name) for name in self.theirs])
        for host, server in ((DESTINATION, self.stranger),
                             (SOURCE, self.neighbour)):
            domain, = self.domains(host, server)
            self.assertEqual(1, domain.isActive())
            self.assertTrue(self.guests.guest_of(domain).lives)
            self.assertIn(self.nodes_of(domain)[0], self.theirs)

    def assert_data_in(self, *names):
        self.assertEqual([self.data] * len(names), [
            self.pmem.digest(name) for name in names])


class PmemNamesTests(_Base):
    """Whoever has the same name elsewhere is a stranger."""

    def test_move_and_confirm(self):
        self.ask_to_migrate()
        self.wait_for(self.server, 'VERIFY_RESIZE', DESTINATION)
        self.assert_data_in(self.old, self.new)
        self.ask_to_confirm()
        self.wait_for(self.server, 'ACTIVE', DESTINATION)
        self.assert_data_in(self.new)
        self.assert_zero(self.old)
        self.assert_others_untouched()

    def test_host_that_returns_after_an_evacuation(self):
        """It destroys what it still has of the server, and nothing else."""
        self.kill(SOURCE)
        self.force_down(SOURCE)
        self.evacuate(self.server, host=DESTINATION)
        self.wait_until_quiet()
        self.assertEqual('ACTIVE', self.status(self.server))
        self.pmem.fill(self.new, seed='written since')
        self.data = self.pmem.digest(self.new)

        self.restart(SOURCE)
        self.force_down(SOURCE, False)
        self.wait_for(self.server, 'ACTIVE', DESTINATION)
        self.assert_others_untouched()
        self.assert_data_in(self.new)
        self.assertEqual([], self.domains(SOURCE, self.server))

    def test_nobody_gets_what_an_evacuated_server_has_left(self):
        self.kill(SOURCE)
        self.force_down(SOURCE)
        self.evacuate(self.server, host=DESTINATION)
        self.wait_until_quiet()
        self.restart(SOURCE)
        self.force_down(SOURCE, False)
        self.wait_for(self.server, 'ACTIVE', DESTINATION)
        # It is wiped, or it is kept from the next server.
        self.ask_to_boot(MOVED, host=SOURCE)
        self.wait_until_quiet()
        self.assertEqual([], self.dirty_starts)

    def test_what_an_evacuated_server_has_left_can_not_be_wiped(self):
        """Its host starts, keeps it out of use, and tries again."""
        self.kill(SOURCE)
        self.force_down(SOURCE)
        self.evacuate(self.server, host=DESTINATION)
        self.wait_until_quiet()
        fault = self.pmem.inject('exit', self.old, side='zero', at=SIZE // 2,
                                 repeat=True, status=1)
        self.restart(SOURCE)
        self.force_down(SOURCE, False)
        self.run_periodic_tasks()
        self.wait_until_quiet()
        self.assertEqual([], self.domains(SOURCE, self.server))
        self.assertFalse(self.pmem.is_zero(self.old))
        self.ask_to_boot(MOVED, host=SOURCE)
        self.wait_until_quiet()
        self.assertEqual([], self.dirty_starts)
        fault.cancel()
        self.run_periodic_tasks()
        self.wait_until_quiet()
        self.assert_zero(self.old)
        self.assertEqual([], self.open_tickets())
        self.wait_for(self.server, 'ACTIVE', DESTINATION)

    def test_evacuation_in_mid_copy(self):
        """The only good copy is not wiped when its host returns."""
        hanging = self.pmem.inject('hang', self.new, at=SIZE // 2)
        self.ask_to_migrate()
        hanging.wait(pmem_world.PATIENCE)
        self.kill(SOURCE)
        self.force_down(SOURCE)
        try:
            self.evacuate(self.server, host=DESTINATION)
        except api_client.OpenStackApiException as error:
            # To refuse it is as good.
            self.assertIn(error.response.status_code, (400, 409))
        hanging.release()
        self.wait_until_quiet()
        self.restart(SOURCE)
        self.force_down(SOURCE, False)
        self.wait_until_quiet()
        self.assertEqual([], pmem_invariant.settle(self, self.server))
        self.assert_others_untouched()
        copies = [name for name in (self.old, self.new)
                  if self.pmem.digest(name) == self.data]
        self.assertNotEqual([], copies, 'no copy of the data is left')

    def test_destination_that_boots_in_mid_revert(self):
        """It has let go of the server; its name there is a stranger's."""
        self.ask_to_migrate()
        self.wait_for(self.server, 'VERIFY_RESIZE', DESTINATION)
        self.hook(RPC + 'finish_revert_resize', 'before', 'giving-back')
        hook = self.at('giving-back', lambda: self.reboot(DESTINATION))
        self.ask_to_revert()
        hook.wait()
        self.wait_until_quiet()
        started = []
        self.guests.on_start.append(lambda domain: started.append((
            domain.UUIDString(), self.nodes_of(domain))))
        self.restart(DESTINATION)
        self.wait_for(self.server, 'ACTIVE', SOURCE)
        self.assertNotIn((self.server['id'], [self.theirs[0]]), started)
        self.assert_others_untouched()
        self.assert_data_in(self.old)

    def test_hard_reboot_on_a_destination_that_came_up_late(self):
        self.ask_to_migrate()
        self.wait_for(self.server, 'VERIFY_RESIZE', DESTINATION)
        self.hook(RPC + 'finish_revert_resize', 'before', 'giving-back')
        hook = self.at('giving-back', lambda: self.kill(DESTINATION))
        self.ask_to_revert()
        hook.wait()
        self.wait_until_quiet()
        self.restart(DESTINATION)
        # An administrator who does not wait.
        self.act(self.server, 'os-resetState', {'state': 'active'})
        self.act(self.server, 'reboot', {'type': 'HARD'})
        self.wait_until_quiet()
        for domain in self.domains(DESTINATION, self.server):
            self.assertNotIn(self.theirs[0], self.nodes_of(domain))
        self.assert_others_untouched()
        self.assert_data_in(self.old)


class PmemSharedFolderTests(_Base):
    """The hosts' state path is shared: each leaves the other's tickets."""

    def state_path_of(self, host):
        return super().state_path_of('all hosts')

    def test_stranger_is_rebooted(self):
        self.ask_to_migrate()
        self.wait_for(self.server, 'VERIFY_RESIZE', DESTINATION)
        # The source holds what has the name of the stranger's.
        self.act(self.stranger, 'reboot', {'type': 'HARD'})
        self.wait_for(self.stranger, 'ACTIVE', DESTINATION)
        self.assert_others_untouched()

    def test_name_that_is_held_elsewhere_is_given(self):
        self.ask_to_migrate()
        self.wait_for(self.server, 'VERIFY_RESIZE', DESTINATION)
        self.api.delete_server(self.stranger['id'])
        self.wait_until_quiet()
        self.run_periodic_tasks()
        self.wait_until_quiet()
        server = self.boot(MOVED, host=DESTINATION)
        self.assertEqual(self.theirs[:1], self.namespaces_of(server))
        pmem_world.wait_until(self.is_quiet, 'quiet')
