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

import os
from unittest import mock

import ddt
import fixtures

from nova import exception
import nova.privsep.libvirt
from nova import test
from nova.tests import fixtures as nova_fixtures

SIZE = 4096


@ddt.ddt
class CleanupVPMEMTestCase(test.NoDBTestCase):
    """``daxio -z`` ends well whatever it has done."""

    def setUp(self):
        super().setUp()
        self.useFixture(nova_fixtures.PrivsepFixture())
        self.device = os.path.join(
            self.useFixture(fixtures.TempDir()).path, 'dax0.0')
        with open(self.device, 'wb') as device:
            device.truncate(SIZE)
        self.execute = self.useFixture(fixtures.MockPatch(
            'oslo_concurrency.processutils.execute')).mock

    def _wipe(self, stderr):
        self.execute.return_value = '', stderr
        nova.privsep.libvirt.cleanup_vpmem(self.device)

    def test_all_of_it(self):
        self._wipe('daxio: copied %d bytes to device "x"\n' % SIZE)
        self.execute.assert_called_once_with('daxio', '-z', '-o', self.device)

    @ddt.data('daxio: copied %d bytes to device "x"\n' % (SIZE - 1), '', None,
              'daxio: neither input nor output is device dax\n')
    def test_less_than_that(self, stderr):
        error = self.assertRaises(
            exception.VPMEMCleanupFailed, self._wipe, stderr)
        self.assertIn(self.device, error.format_message())
        self.assertIn(str(SIZE), error.format_message())

    def test_device_dax_has_its_size_elsewhere(self):
        sizes = mock.mock_open(read_data='%d\n' % SIZE)
        with mock.patch('os.stat', return_value=os.stat('/dev/null')), \
                mock.patch('nova.privsep.pmem.open', sizes, create=True):
            self._wipe('daxio: copied %d bytes to device "x"\n' % SIZE)
        sizes.assert_called_once_with('/sys/dev/char/1:3/size')
