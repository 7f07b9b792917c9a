# SPDX-License-Identifier: Apache-2.0

import os
from unittest import mock

import fixtures

from nova import test
from nova.virt import pmem_device


class DeviceTestCase(test.NoDBTestCase):
    """A kernel whose folder of devices is one of ours."""

    def setUp(self):
        super().setUp()
        self.root = self.useFixture(fixtures.TempDir()).path
        self.add('250:1', 'dax1.0')
        self.useFixture(fixtures.MockPatchObject(
            pmem_device, '_DEVICES', self.path('char')))

    def path(self, *names):
        return os.path.join(self.root, *names)

    def add(self, number, name, subsystem='bus/dax', size='4096\n'):
        for folder in (self.path('devices', name), self.path(subsystem),
                       self.path('char')):
            os.makedirs(folder, exist_ok=True)
        os.symlink(self.path(subsystem),
                   self.path('devices', name, 'subsystem'))
        os.symlink(self.path('devices', name), self.path('char', number))
        with open(self.path('devices', name, 'size'), 'w') as file:
            file.write(size)

    def size(self, node='/dev/dax1.0', minor=1):
        found = mock.Mock(
            st_mode=os.stat('/dev/null').st_mode,
            st_rdev=os.makedev(250, minor))
        with mock.patch('os.stat', return_value=found):
            return pmem_device.size(node)

    def refused(self, words, *arguments):
        error = self.assertRaises(OSError, self.size, *arguments)
        self.assertIn(words, str(error))

    def test_size(self):
        self.assertEqual(4096, self.size())

    def test_older_kernel_calls_it_a_class(self):
        self.add('250:2', 'dax2.0', 'class/dax')
        self.assertEqual(4096, self.size('/dev/dax2.0', 2))

    def test_file(self):
        error = self.assertRaises(OSError, pmem_device.size, __file__)
        self.assertIn('is no character device', str(error))

    def test_other_device(self):
        self.add('250:3', 'null', 'class/mem')
        self.refused('is no device DAX', '/dev/null', 3)

    def test_device_that_is_gone(self):
        self.refused('is no device DAX', '/dev/dax1.0', 4)

    def test_node_of_another_device(self):
        self.refused('is not the device of that name', '/dev/dax2.0')

    def test_size_that_is_none(self):
        self.add('250:5', 'dax5.0', size='much\n')
        self.assertRaises(ValueError, self.size, '/dev/dax5.0', 5)
