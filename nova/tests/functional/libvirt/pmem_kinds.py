# SPDX-License-Identifier: Apache-2.0

"""A world for single tests of what once went wrong.

Each of these tests tells one story that was seen on real services, or read
from the code, and ends with what has to hold after any story.
"""

from nova.compute import pmem_recovery
from nova import context
from nova.tests.fixtures import pmem_process
from nova.tests.functional.libvirt import pmem_invariant
from nova.tests.functional.libvirt import pmem_world

SOURCE, DESTINATION = HOSTS = pmem_world.HOSTS
MOVED, TAKEN, FREE = pmem_world.MOVED, pmem_world.TAKEN, pmem_world.FREE
OLD, NEW = pmem_world.OLD, pmem_world.NEW
SIZE = pmem_world.SIZE

DRIVER = 'nova.virt.libvirt.driver.LibvirtDriver.'
MANAGER = 'nova.compute.manager.ComputeManager.'


class KindTestBase(pmem_world.World):
    """A test that has a world of its own, in which hosts can be killed."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        pmem_world.needs_threads()

    def take_server(self, has_volume=False):
        self.server = super().take_server(has_volume)
        self.snapshot = pmem_invariant.take(self, self.server)
        return self.server

    # What is asked for

    def ask_to_migrate(self, server=None, copy=True):
        self.act(server or self.server, 'migrate',
                 {'copy_pmem_devices': True} if copy else {})

    def move(self):
        """Move the server to the destination, where it is to be confirmed."""
        self.ask_to_migrate()
        self.wait_until_quiet()
        self.assertEqual('VERIFY_RESIZE', self.status(self.server))
        self.diary.go_on()

    def ask_to_revert(self):
        self.diary.may_go_back = True
        self.act(self.server, 'revertResize')

    def ask_to_confirm(self):
        self.act(self.server, 'confirmResize')

    def start_round(self, host):
        """Have a host look for what nobody works on, now."""
        with self.in_service(host):
            pmem_recovery.run(self.computes[host].manager)

    # What goes wrong

    def lose_database(self, host, times=None):
        """Let a host not reach the database until the outage is ended."""
        outage = pmem_process.Outage(
            ('database',), pmem_process.database_is_away, times)
        self.process[host].outages.append(outage)
        return outage

    def force_down(self, host, down=True):
        service, = self.api.get_services(binary='nova-compute', host=host)
        self.api.put_service(service['id'], {'forced_down': down})

    def evacuate(self, server, **body):
        """Evacuate a server; it runs again afterwards."""
        # Since then it would be left off.
        self.api.microversion = '2.94'
        try:
            self.act(server, 'evacuate', body)
        finally:
            self.api.microversion = self.microversion

    # What has to hold

    def settle(self):
        self.diary.go_on()
        self.assertEqual([], pmem_invariant.settle(self, self.server))

    def assert_in_order(self, status, host):
        """All is well, and the server is in this state on this host."""
        self.settle()
        self.assertEqual([], pmem_invariant.check(self, self.snapshot))
        server = self.show(self.server)
        self.assertEqual((status, host), (
            server['status'], server['OS-EXT-SRV-ATTR:host']))

    def reserved(self, host, label=MOVED):
        """Return how many namespaces of a label are not offered."""
        return self._get_provider_inventory(self.compute_rp_uuids[host])[
            'CUSTOM_PMEM_NAMESPACE_' + label]['reserved']


def admin():
    return context.get_admin_context()
