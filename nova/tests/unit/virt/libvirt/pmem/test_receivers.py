# SPDX-License-Identifier: Apache-2.0

import fcntl
import os
import signal
import subprocess
from unittest import mock

import fixtures
from oslo_utils.fixture import uuidsentinel as uuids

from nova import exception
from nova import objects
from nova import test
from nova.virt.libvirt.pmem import receivers
from nova.virt.libvirt.pmem import tickets
from nova.virt import pmem_users

SIZE = 4 * 1024 * 1024


class ReceiversTestCase(test.NoDBTestCase):

    def setUp(self):
        super().setUp()
        folder = self.useFixture(fixtures.TempDir()).path
        self.flags(state_path=folder)
        self.useFixture(fixtures.MockPatchObject(receivers, '_running', {}))
        self.chown = self.useFixture(fixtures.MockPatch(
            'nova.privsep.path.chown')).mock
        self.useFixture(fixtures.MockPatch(
            'nova.virt.pmem_device.size', os.path.getsize))
        self.node = os.path.join(folder, 'dax0.0')
        with open(self.node, 'w') as node:
            node.truncate(SIZE)
        self.namespaces = {'ns_1': objects.LibvirtVPMEMDevice(
            name='ns_1', size=SIZE, devpath=self.node, align=2, label='S')}
        self.ticket = tickets.Ticket(
            host='host2', migration_uuid=uuids.migration,
            instance_uuid=uuids.instance,
            targets=(tickets.Target('ns_1', SIZE, SIZE, 0, 0),))
        tickets.write(self.ticket)
        self.addCleanup(receivers.end, self.ticket)

    def _start(self, used=()):
        receivers.start(self.ticket, self.namespaces, set(used))
        return receivers._running[tickets.notes_of(self.ticket)]

    def _is_locked(self):
        with open(tickets.notes_of(self.ticket)) as notes:
            try:
                fcntl.flock(notes, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def test_start_and_end(self):
        self.assertFalse(receivers.is_running(self.ticket))
        self._start()
        self.chown.assert_called_once_with(
            self.node, uid=os.getuid(), gid=os.getgid())
        self.assertTrue(receivers.is_running(self.ticket))
        self.assertEqual(
            0o600, os.stat(tickets.socket_of(self.ticket)).st_mode & 0o777)
        self.assertTrue(self._is_locked())

        receivers.end(self.ticket)
        self.assertFalse(receivers.is_running(self.ticket))
        self.assertFalse(self._is_locked())
        receivers.end(self.ticket)

    def test_all_that_is_beside_a_ticket_goes_with_it(self):
        self._start()
        receivers.end(self.ticket)
        tickets.close(self.ticket)
        self.assertEqual([], os.listdir(tickets.directory()))

    def test_one_that_was_killed_is_not_running(self):
        process = self._start()
        process.kill()
        process.wait()
        self.assertFalse(receivers.is_running(self.ticket))
        self.assertIsNot(process, self._start())

    def test_an_earlier_one_is_ended_first(self):
        process = self._start()
        self.assertIsNot(process, self._start())
        self.assertEqual(-signal.SIGKILL, process.poll())

    def test_who_has_inherited_the_lock_is_waited_for(self):
        """As by one who was killed and came back, and finds no child."""
        process = self._start()
        receivers._running.clear()
        lock = fcntl.flock

        def end_it(*args):
            # It ends with its stdin.
            process.stdin.close()
            return lock(*args)

        with mock.patch('fcntl.flock', end_it):
            receivers.end(self.ticket)
        self.assertFalse(self._is_locked())
        self.assertEqual(0, process.wait())
        process.stdout.close()

    def test_who_can_not_be_ended(self):
        with open(tickets.notes_of(self.ticket), 'w') as notes:
            fcntl.flock(notes, fcntl.LOCK_EX)
            with subprocess.Popen(['cat'], stdin=subprocess.PIPE,
                                  pass_fds=[notes.fileno()]) as left:
                notes.close()
                with mock.patch.object(receivers, 'TIMEOUT', 0.1):
                    for call in self._start, lambda: receivers.end(
                            self.ticket):
                        error = self.assertRaises(
                            exception.PMEMDeviceBusy, call)
                        self.assertIn('what a copy has left', str(error))
                left.stdin.close()

    def test_one_that_hangs_in_the_kernel(self):
        process = self._start()
        with mock.patch.object(process, 'kill'), \
                mock.patch.object(receivers, 'TIMEOUT', 0.1):
            # Each time, or its devices would be taken for free.
            for call in (self._start, *[lambda: receivers.end(
                    self.ticket)] * 2):
                error = self.assertRaises(exception.PMEMDeviceBusy, call)
                self.assertIn('a receiver that can not be ended', str(error))
        self.assertTrue(receivers.is_running(self.ticket))

    def test_new_one_that_hangs_in_the_kernel(self):
        with mock.patch.object(subprocess.Popen, 'kill'), \
                mock.patch.object(receivers, 'TIMEOUT', 0.1), \
                mock.patch.object(receivers, '_wait_until_ready',
                                  side_effect=OSError):
            self.assertRaises(exception.PMEMDeviceBusy, self._start)

    def test_device_of_a_guest(self):
        self.assertRaises(exception.PMEMDeviceBusy, self._start,
                          pmem_users.keys([self.node]))
        self.chown.assert_not_called()
        self.assertFalse(receivers.is_running(self.ticket))

    def test_namespace_that_is_missing(self):
        self.namespaces = {}
        self.assertRaises(exception.PMEMNamespaceNotFound, self._start)

    def test_device_of_another_size(self):
        os.truncate(self.node, SIZE - 1)
        error = self.assertRaises(OSError, self._start)
        self.assertIn('%s has %d bytes' % (self.node, SIZE - 1), str(error))
        self.chown.assert_not_called()

    def test_device_that_can_not_be_opened(self):
        os.truncate(self.node, SIZE - 1)
        with mock.patch('nova.virt.pmem_device.size',
                        return_value=SIZE):
            error = self.assertRaises(OSError, self._start)
        self.assertIn('does not listen: %s has' % self.node, str(error))
        self.assertFalse(self._is_locked())

    def test_path_that_is_too_long_for_a_socket(self):
        path = os.path.join(tickets.directory(), 'x' * 107)
        with mock.patch.object(tickets, 'socket_of', return_value=path):
            error = self.assertRaises(OSError, self._start)
        self.assertIn('use a shorter state_path', str(error))

    def test_receiver_that_says_nothing(self):
        with mock.patch('nova.virt.pmem_transfer.receiver.command',
                        return_value=['cat']), \
                mock.patch.object(receivers, 'TIMEOUT', 0.1), \
                mock.patch.object(receivers.processes, 'can_read',
                                  return_value=False):
            self.assertIn('no message', str(
                self.assertRaises(OSError, self._start)))
