# SPDX-License-Identifier: Apache-2.0

"""One odd namespace does not poison its host, from the start to a wipe."""

import os
from unittest import mock

from nova.tests.fixtures import pmem_ndctl
from nova.tests.functional.libvirt import pmem_base

SIZE = pmem_base.SIZE
POWER_OFF = 'nova.virt.libvirt.driver.LibvirtDriver.power_off'


class PmemOddNamespacesTests(pmem_base.PmemServersTestBase):
    """Hosts that have all odd namespaces there are, and one in order."""

    def setUp(self):
        super().setUp()
        self.old, self.new = 'host1_small_0', 'host2_small_0'

    def _list_odd_ones(self):
        for host in ('host1', 'host2'):
            for number in range(len(pmem_ndctl.odd_ones())):
                name, kind = self._odd(number)
                self.pmem.list_odd(host, pmem_ndctl.odd_ones(
                    name, 70 + number)[kind])

    @staticmethod
    def _odd(number):
        kind = sorted(pmem_ndctl.odd_ones())[number]
        return 'odd_%d' % number, kind

    def _assert_not_moved(self, server, data):
        """A move is refused with the guest running, and all is well."""
        with mock.patch(POWER_OFF, side_effect=AssertionError):
            server = self.migrate(server, status='ACTIVE')
        self.assertEqual('host1', server['OS-EXT-SRV-ATTR:host'])
        self.assertTrue(self.guest_runs('host1', server))
        self.assertEqual(data, self.digests(server))
        self._wait_for_migration_status(server, ['error'])
        self.run_periodic_tasks()
        self.assertEqual([], self.open_tickets())

    def test_hosts_start_and_servers_move(self):
        self._list_odd_ones()
        self.start_two_computes(number=1)
        server = self.boot('SMALL')
        data = self.fill(server)
        server = self.migrate(server)
        self.assertEqual('host2', server['OS-EXT-SRV-ATTR:host'])
        self.assertEqual(data, self.digests(server))
        self.confirm(server)
        self.assert_zero(self.old)
        self._delete_server(server)
        self.assert_zero(self.new)

    def test_one_that_becomes_odd_later(self):
        self.start_two_computes(number=1)
        server = self.boot('SMALL')
        data = self.fill(server)
        self._list_odd_ones()
        server = self.confirm(self.migrate(server))
        self.assertEqual(data, self.digests(server))
        self.assert_zero(self.old)
        self._reboot_server(server, hard=True)
        self.assertEqual(data, self.digests(server))

    def test_one_that_a_server_has_as_its_host_starts(self):
        """Placement lets nobody take a resource away that is allocated."""
        self.start_pmem_compute('host1', SMALL=SIZE, BIG=SIZE)
        server = self.boot('SMALL')
        for name in 'small_0', 'big_0':
            self.pmem.list_odd('host1', pmem_ndctl.record(71, name))
        self.restart_pmem_compute('host1')
        self.run_periodic_tasks()
        inventory = self._get_provider_inventory(
            self.compute_rp_uuids['host1'])
        self.assertEqual([0, 1], [
            inventory['CUSTOM_PMEM_NAMESPACE_' + label]['reserved']
            for label in ('SMALL', 'BIG')])
        self._reboot_server(server, hard=True, expected_state='ERROR')
        self.pmem.list_nothing_odd()
        self._reboot_server(server, hard=True)
        self._delete_server(server)
        self.assert_zero('host1_small_0')

    def test_each_is_warned_of_once(self):
        self._list_odd_ones()
        self.start_two_computes(number=1)
        server = self.boot('SMALL')
        self.confirm(self.migrate(server))
        warnings = [line for line in self.stdlog.logger.output.splitlines()
                    if 'WARNING' in line]
        for number in range(len(pmem_ndctl.odd_ones())):
            name, kind = self._odd(number)
            if kind == 'that_is_no_object':
                continue
            said = [line for line in warnings if name in line]
            self.assertLessEqual(1, len(said), 'of %s: %s' % (kind, said))
            # Each host may say so.
            self.assertGreaterEqual(2, len(said), said)

    def test_target_whose_name_another_one_has(self):
        self.start_two_computes(number=1)
        server = self.boot('SMALL')
        data = self.fill(server)
        self.pmem.list_odd('host2', pmem_ndctl.record(71, 'small_0'))
        self._assert_not_moved(server, data)

    def test_target_that_can_not_be_opened(self):
        self.start_two_computes(number=1)
        server = self.boot('SMALL')
        data = self.fill(server)
        path = self.pmem.path(self.new)
        os.rename(path, path + '.gone')
        self._assert_not_moved(server, data)
        os.rename(path + '.gone', path)
        self.assertEqual(data, self.digests(self.migrate(server)))

    def test_target_that_can_not_be_opened_is_left_for_the_next_host(self):
        self.start_pmem_compute('host1', SMALL=SIZE)
        for host in ('host2', 'host3'):
            self.start_pmem_compute(host, SMALL=SIZE)
        server = self.boot('SMALL')
        data = self.fill(server)
        path = self.pmem.path(self.new)
        os.rename(path, path + '.gone')
        self.addCleanup(os.rename, path + '.gone', path)

        def host2_first(_scheduler, spec_obj, hosts, *args, **kwargs):
            return sorted(hosts, key=lambda state: state.host != 'host2')

        with mock.patch('nova.scheduler.manager.SchedulerManager.'
                        '_get_sorted_hosts', host2_first):
            server = self.migrate(server)
        self.assertEqual('host3', server['OS-EXT-SRV-ATTR:host'])
        self.assertEqual(data, self.digests(server))

    def test_source_with_bad_blocks_stays_where_it_is(self):
        self.start_two_computes(number=1)
        server = self.boot('SMALL')
        data = self.fill(server)
        self.pmem.mark_bad(self.old, 65536, 4096)
        self._assert_not_moved(server, data)
        log = self.stdlog.logger.output
        # The place, as ndctl or as bytes say it.
        self.assertTrue('65536' in log or '0x10000' in log)
        self.pmem.mark_bad(self.old, 0, 0)
        self.assertEqual(data, self.digests(self.migrate(server)))
