#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.


from unittest import mock

import ddt
from oslo_serialization import jsonutils

from nova import exception
from nova import test
from nova.virt.libvirt import pmem_devices

SIZE = 4 * 1024 * 1024


@ddt.ddt
class ListNamespacesTestCase(test.NoDBTestCase):

    def _list(self, output):
        with mock.patch('nova.privsep.libvirt.get_pmem_namespaces',
                        return_value=output):
            return pmem_devices.list_namespaces()

    @staticmethod
    def _namespace(number, **changes):
        return dict({
            'dev': 'namespace0.%d' % number, 'mode': 'devdax', 'size': SIZE,
            'name': 'ns_%d' % number, 'daxregion': {
                'id': 0, 'size': SIZE, 'align': 2097152, 'devices': [
                    {'chardev': 'dax0.%d' % number, 'size': SIZE}]},
        }, **changes)

    @ddt.data('{', 'null', '7', '[7]', '[{"name": "x"}]', 'error: no')
    def test_what_ndctl_does_not_print(self, output):
        self.assertRaises(exception.GetPMEMNamespacesFailed, self._list,
                          output)

    @ddt.data('', '\n', '[]')
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
