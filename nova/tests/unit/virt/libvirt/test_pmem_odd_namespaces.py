# SPDX-License-Identifier: Apache-2.0

"""One odd namespace does not poison its host, as read by the driver."""

import json
from unittest import mock

import ddt
import fixtures

from nova import test
from nova.tests.fixtures import libvirt as fakelibvirt
from nova.tests.fixtures import pmem_ndctl
from nova.virt import fake
from nova.virt.libvirt import driver

GET = 'nova.privsep.libvirt.get_pmem_namespaces'


@ddt.ddt
class PmemOddNamespacesTestCase(test.NoDBTestCase):
    """What a nova-compute that starts makes of ndctl's output."""

    def setUp(self):
        super().setUp()
        self.useFixture(fakelibvirt.LibvirtFixture())
        self.useFixture(fixtures.MockPatch(
            'nova.virt.libvirt.pmem.namespaces._said', set()))

    def _discover(self, records, *configured):
        # oslo.serialization would refuse what is no text.
        output = (records if isinstance(records, str)
                  else json.dumps(records))  # noqa: N324
        self.flags(pmem_namespaces=list(configured), group='libvirt')
        with mock.patch(GET, return_value=output):
            return driver.LibvirtDriver(
                fake.FakeVirtAPI(), False)._vpmems_by_name

    def _warnings(self, name):
        return [line for line in self.stdlog.logger.output.splitlines()
                if 'WARNING' in line and name in line]

    @ddt.data(*sorted(pmem_ndctl.odd_ones()))
    def test_odd_one_that_nobody_wants(self, kind):
        found = self._discover(
            [pmem_ndctl.record(0, 'ns_0'), pmem_ndctl.odd_ones()[kind]],
            'SMALL:ns_0')
        self.assertEqual(['ns_0'], list(found))
        self.assertEqual('/dev/dax0.0', found['ns_0'].devpath)

    @ddt.data(*sorted(set(pmem_ndctl.odd_ones()) - {'that_is_no_object'}))
    def test_odd_one_that_is_configured(self, kind):
        found = self._discover(
            [pmem_ndctl.record(0, 'ns_0'), pmem_ndctl.odd_ones()[kind]],
            'SMALL:ns_0', 'ODD:ns_x')
        self.assertEqual(['ns_0', 'ns_x'], list(found))
        # A server may have it; nobody can use it.
        self.assertEqual('', found['ns_x'].devpath)
        self.assertEqual(1, len(self._warnings('ns_x')))

    def test_name_that_two_have(self):
        found = self._discover(
            [pmem_ndctl.record(0, 'ns_0'), pmem_ndctl.record(1, 'ns_0'),
             pmem_ndctl.record(2, 'ns_2')], 'SMALL:ns_0', 'BIG:ns_2')
        self.assertEqual({'ns_0': '', 'ns_2': '/dev/dax2.0'}, {
            name: device.devpath for name, device in found.items()})
        self.assertEqual(1, len(self._warnings('ns_0')))

    def test_bad_blocks_are_no_reason_to_leave_it_out(self):
        found = self._discover(
            [pmem_ndctl.record(0, 'ns_0', badblock_count=3, badblocks=[
                {'offset': 65536, 'length': 8, 'dimms': ['nmem1']}])],
            'SMALL:ns_0')
        self.assertEqual(['ns_0'], list(found))

    def test_none_at_all(self):
        self.assertEqual({}, self._discover(''))
