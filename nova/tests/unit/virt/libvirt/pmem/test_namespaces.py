# SPDX-License-Identifier: Apache-2.0


from unittest import mock

import ddt
import fixtures
from oslo_serialization import jsonutils

from nova import exception
from nova import objects
from nova import test
from nova.virt.libvirt.pmem import namespaces

SIZE = 4 * 1024 * 1024


@ddt.ddt
class ListNamespacesTestCase(test.NoDBTestCase):

    def _list(self, output):
        with mock.patch('nova.privsep.libvirt.get_pmem_namespaces',
                        return_value=output):
            return namespaces.list_namespaces()

    @staticmethod
    def _namespace(number, **changes):
        return dict({
            'dev': 'namespace0.%d' % number, 'mode': 'devdax', 'size': SIZE,
            'name': 'ns_%d' % number, 'daxregion': {
                'id': 0, 'size': SIZE, 'align': 2097152, 'devices': [
                    {'chardev': 'dax0.%d' % number, 'size': SIZE}]},
        }, **changes)

    @ddt.data('{', 'null', '7', 'error: no')
    def test_what_ndctl_does_not_print(self, output):
        self.assertRaises(exception.GetPMEMNamespacesFailed, self._list,
                          output)

    @ddt.data('', '\n', '[]', '[7]')
    def test_none(self, output):
        self.assertEqual({}, self._list(output))

    def test_name_that_stands_for_two_is_left_out(self):
        found = self._list(jsonutils.dumps([
            self._namespace(0), self._namespace(1, name='ns_0'),
            self._namespace(2)]))
        self.assertEqual(['ns_2'], list(found))
        self.assertIn('ns_0', self.stdlog.logger.output)

    def test_nameless_and_odd_names(self):
        nameless = self._namespace(0)
        del nameless['name']
        found = self._list(jsonutils.dumps([
            nameless, self._namespace(1, name=''),
            self._namespace(2, name='a b/../c"')]))
        self.assertEqual({'a b/../c"': '/dev/dax0.2'}, {
            name: device.devpath for name, device in found.items()})

    def test_as_a_user_who_is_not_told_the_alignment(self):
        namespace = self._namespace(3)
        del namespace['daxregion']['align']
        found = self._list(jsonutils.dumps([namespace]))
        self.assertEqual(('/dev/dax0.3', SIZE), (
            found['ns_3'].devpath, found['ns_3'].size))


class KnownDevicesTestCase(test.NoDBTestCase):
    """What Nova has read when it started, and what is there now."""

    def setUp(self):
        super().setUp()
        self.known = [
            objects.LibvirtVPMEMDevice(
                label='S', name=name, size=SIZE, devpath='/dev/dax0.%d' % at,
                align=2) for at, name in enumerate(('ns_0', 'ns_1'))]
        self.useFixture(fixtures.MockPatch(
            'nova.virt.pmem_users.key', lambda node: node))
        self.now = {device.name: device.obj_clone() for device in self.known}
        self.list = self.useFixture(fixtures.MockPatch(
            'nova.virt.libvirt.pmem.namespaces.list_namespaces',
            return_value=self.now)).mock
        self.wiped = self.useFixture(fixtures.MockPatch(
            'nova.privsep.libvirt.cleanup_vpmem')).mock

    def _wipe(self):
        namespaces.wipe(self.known, self.now, set())

    def _nodes(self):
        return [device.devpath for device in namespaces.as_they_are_now(
            self.known)]

    def test_no_devices_no_ndctl(self):
        self.assertEqual([], namespaces.as_they_are_now([]))
        self.list.assert_not_called()

    def test_other_numbers(self):
        self.now['ns_0'].devpath = '/dev/dax0.7'
        self.assertEqual(['/dev/dax0.7', '/dev/dax0.1'], self._nodes())
        # Others go on from what they know.
        self.assertEqual('/dev/dax0.0', self.known[0].devpath)
        self.assertIn('/dev/dax0.7', self.stdlog.logger.output)

    def test_missing_or_of_another_size(self):
        self.now['ns_0'].size += 1
        self.assertRaises(exception.PMEMNamespaceNotFound, self._nodes)
        del self.now['ns_0']
        self.assertRaises(exception.PMEMNamespaceNotFound, self._nodes)

    def test_ndctl_that_can_not_tell(self):
        self.list.side_effect = exception.GetPMEMNamespacesFailed(
            reason='not installed')
        self.assertEqual(['/dev/dax0.0', '/dev/dax0.1'], self._nodes())
        self.assertIn('not installed', self.stdlog.logger.output)

    def test_wiped_where_it_is_now(self):
        self.now['ns_1'].devpath = '/dev/dax0.7'
        self._wipe()
        self.assertEqual(
            [mock.call('/dev/dax0.0'), mock.call('/dev/dax0.7')],
            self.wiped.mock_calls)

    def test_what_a_process_may_write_to_is_not_wiped(self):
        with mock.patch('nova.virt.pmem_users.writer',
                        side_effect=[None, 77]):
            error = self.assertRaises(exception.VPMEMCleanupFailed,
                                      self._wipe)
        self.assertNotIn('77', error.format_message())
        self.assertIn('process 77', self.stdlog.logger.output)
        self.wiped.assert_called_once_with('/dev/dax0.0')

    def test_every_device_is_tried(self):
        del self.now['ns_0']
        self.wiped.side_effect = OSError('bad block')
        error = self.assertRaises(exception.VPMEMCleanupFailed,
                                  self._wipe)
        for name in 'ns_0', 'ns_1':
            self.assertIn(name, error.format_message())
        for part in 'missing', 'bad block':
            self.assertNotIn(part, error.format_message())
            self.assertIn(part, self.stdlog.logger.output)
