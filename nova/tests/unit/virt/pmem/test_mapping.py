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

from nova import test
from nova.virt.pmem import buffers
from nova.virt.pmem import layout
from nova.virt.pmem import mapping

MIB = layout.MIB


@ddt.ddt
class MappingTestCase(test.NoDBTestCase):

    def setUp(self):
        super().setUp()
        path = os.path.join(self.useFixture(fixtures.TempDir()).path, 'dev')
        self.data = os.urandom(6 * MIB)
        with open(path, 'wb') as device:
            device.write(self.data)
        self.mapping = mapping.Mapping(path, len(self.data))
        self.addCleanup(self.mapping.close)
        self.buffer = buffers.Buffer(4 * MIB)
        self.addCleanup(self.buffer.close)

    @ddt.data((0, 4 * MIB, 0), (1, 3, 5), (5 * MIB + 7, MIB - 7, MIB))
    @ddt.unpack
    def test_copy(self, offset, length, at):
        self.mapping.copy(offset, length, self.buffer, at)
        self.assertTrue(self.data[offset:offset + length] ==
                        self.buffer.view[at:at + length])

    @ddt.data((0, MIB, 0, 2), (MIB, MIB, 0, 2), (MIB, 2 * MIB, 0, 4),
              (4 * MIB, 2 * MIB, 4, 2), (4 * MIB - 1, 2, 2, 4))
    @ddt.unpack
    def test_only_the_pages_that_were_copied_are_let_go(
            self, offset, length, first, count):
        # Or each slice of a device would cost as much as the device is large.
        real = self.mapping._map
        with mock.patch.object(self.mapping, '_map') as mapped:
            self.mapping.copy(offset, length, self.buffer)
        advice, *pages = mapped.madvise.call_args.args
        self.assertEqual([first * MIB, count * MIB], pages)
        real.madvise(advice, *pages)

    def test_end_of_a_device_that_is_no_whole_page(self):
        self.mapping._map.madvise(mapping.mmap.MADV_DONTNEED, 4 * MIB, 8 * MIB)
