# SPDX-License-Identifier: Apache-2.0

import os
import subprocess
import time
from unittest import mock

import fixtures
from oslo_utils.fixture import uuidsentinel as uuids

from nova import exception
from nova import objects
from nova import test
from nova.virt.libvirt.pmem import tickets
from nova.virt.libvirt.pmem import writers

SIZE = 4096


class EndWritersTestCase(test.NoDBTestCase):
    """A namespace, its ticket, and processes of our user."""

    def setUp(self):
        super().setUp()
        self.flags(state_path=self.useFixture(fixtures.TempDir()).path)
        self.folder = self.useFixture(fixtures.TempDir()).path
        self.node = os.path.join(self.folder, 'dax0.0')
        with open(self.node, 'wb') as node:
            node.truncate(SIZE)
        self.namespaces = {'ns_0': objects.LibvirtVPMEMDevice(
            label='S', name='ns_0', size=SIZE, devpath=self.node, align=2)}
        self.ticket = tickets.Ticket(
            'host2', uuids.migration, uuids.instance,
            (tickets.Target('ns_0', SIZE, SIZE, 0, 0),),
            since=int(time.time()))
        tickets.write(self.ticket)
        self.started = []
        self.useFixture(fixtures.MockPatch(
            'nova.virt.pmem_transfer.users.others',
            lambda: [process.pid for process in self.started]))

    def _start(self, path, name='sleep'):
        """Start something that has a file open."""
        program = os.path.join(self.folder, name)
        if not os.path.exists(program):
            os.symlink('/bin/sleep', program)
        with open(path, 'r+') as file:
            process = subprocess.Popen([program, '1000'], stdout=file)
        self.started.append(process)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def _end(self):
        writers.end_writers(
            self.ticket, self.ticket.targets, self.namespaces)

    def _is_busy(self, process):
        error = self.assertRaises(exception.PMEMDeviceBusy, self._end)
        self.assertIn('ns_0', error.format_message())
        self.assertIn(str(process.pid), error.format_message())
        self.assertIsNone(process.poll())

    def test_receiver_that_ssh_has_left(self):
        process = self._start(tickets.path_of(self.ticket))
        self._end()
        self.assertEqual(-9, process.wait(0))

    def test_its_daxio(self):
        process = self._start(self.node, 'daxio')
        self._end()
        self.assertEqual(-9, process.wait(0))

    def test_anybody_else_is_not_killed(self):
        # QEMU, say, which may run as our user.
        self._is_busy(self._start(self.node))

    def test_who_has_something_else(self):
        process = self._start('/dev/null')
        other = os.path.join(self.folder, 'dax0.1')
        with open(other, 'w'):
            pass
        # Of another host, in the same table of processes.
        bystander = self._start(self.node)
        self.namespaces['ns_0'].devpath = other
        self._end()
        self.assertIsNone(process.poll())
        self.assertIsNone(bystander.poll())

    def test_who_may_not_be_looked_into(self):
        process = self._start('/dev/null')
        with mock.patch('os.listdir', side_effect=PermissionError()):
            self._is_busy(process)
            with mock.patch.object(writers, '_name', return_value='sshd'):
                self._end()

    def test_who_was_there_before_the_ticket(self):
        self._start('/dev/null')
        self.ticket = tickets.Ticket(
            'host2', uuids.migration, uuids.instance, self.ticket.targets,
            since=int(time.time()) + 1000)
        with mock.patch('os.listdir', side_effect=PermissionError()):
            self._end()

    def test_who_has_ended(self):
        process = self._start(self.node)
        process.kill()
        process.wait()
        self._end()
