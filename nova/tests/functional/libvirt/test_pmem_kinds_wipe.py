# SPDX-License-Identifier: Apache-2.0

"""Nothing is wiped that somebody uses, and wiped means read back as zero."""

import os
import subprocess
import unittest

import psutil

from nova.tests.fixtures import pmem_guests
from nova.tests.functional.libvirt import pmem_kinds
from nova.tests.functional.libvirt import pmem_world

SOURCE, DESTINATION = pmem_kinds.HOSTS
OLD, NEW, SIZE = pmem_kinds.OLD, pmem_kinds.NEW, pmem_kinds.SIZE
MOVED = pmem_kinds.MOVED
RPC = 'nova.compute.rpcapi.ComputeAPI.'

#: What the real daxio says where the kernel can't clear bad blocks.
NO_CLEARING = """\
daxio: failed to clear bad blocks on "/dev/dax0.0"
       Probably you have not enough permissions to do that.
"""


class PmemWipeTests(pmem_kinds.KindTestBase):
    """A move is confirmed, and its source is to be wiped."""

    def setUp(self):
        super().setUp()
        self.take_server()

    def confirm_move(self):
        self.ask_to_confirm()
        self.settle()
        self.assertEqual('ACTIVE', self.status(self.server))

    def boot_next(self):
        """Boot the next server on the source; return what it finds there."""
        server = self.ask_to_boot(MOVED, host=SOURCE)
        self.wait_until_quiet()
        return server if self.status(server) == 'ACTIVE' else None

    def assert_out_of_use(self):
        self.assertEqual(1, self.reserved(SOURCE), 'it is offered')
        self.assert_not_given()

    def assert_not_given(self):
        server = self.boot_next()
        self.assertEqual([], self.dirty_starts)
        self.assertIsNone(server and server['id'], 'it was given')

    def test_guest_that_is_defined_with_it(self):
        self.move()
        stranger = self.define_stranger(SOURCE, OLD)
        self.guests.guest_of(stranger).write(0, b'of a guest')
        self.confirm_move()
        self.assertEqual(b'of a guest', self.pmem.read(OLD, 0, 10))
        self.assert_out_of_use()
        stranger.destroy()
        stranger.undefine()
        self.assert_in_order('ACTIVE', DESTINATION)

    def test_guest_that_is_defined_and_does_not_run(self):
        self.move()
        stranger = self.define_stranger(SOURCE, OLD)
        stranger.destroy()
        self.pmem.write(OLD, 0, b'of a guest')
        self.confirm_move()
        self.assertEqual(b'of a guest', self.pmem.read(OLD, 0, 10))
        self.assert_out_of_use()
        stranger.undefine()
        self.assert_in_order('ACTIVE', DESTINATION)

    def test_process_that_has_it_mapped(self):
        self.move()
        process = pmem_guests.Guest([self.pmem.path(OLD)], self.PMEM_OWNER)
        self.addCleanup(process.end)
        process.write(0, b'of a process')
        self.confirm_move()
        self.assertTrue(process.lives)
        self.assertEqual(b'of a process', self.pmem.read(OLD, 0, 12))
        self.assert_out_of_use()
        process.end()
        self.assert_in_order('ACTIVE', DESTINATION)

    def test_wipe_that_leaves_a_byte_and_claims_success(self):
        self.move()
        fault = self.pmem.inject(
            'flip', OLD, side='zero', at=SIZE // 2, repeat=True)
        self.confirm_move()
        self.assertTrue(fault.fired)
        self.assert_out_of_use()
        fault.cancel()
        self.assert_in_order('ACTIVE', DESTINATION)

    def test_delete_that_leaves_a_byte_and_claims_success(self):
        fault = self.pmem.inject(
            'flip', OLD, side='zero', at=SIZE // 2, repeat=True)
        self.api.delete_server(self.server['id'])
        self.settle()
        self.assertTrue(fault.fired)
        self.assert_not_given()

    def test_kernel_that_can_not_clear_bad_blocks(self):
        self.move()
        fault = self.pmem.inject(
            'exit', OLD, side='zero', status=1, message=NO_CLEARING,
            repeat=True, clears=True)
        self.confirm_move()
        self.assertTrue(fault.fired)
        self.assert_in_order('ACTIVE', DESTINATION)

    def test_wiper_that_outlives_its_service(self):
        """It must not go on when the namespace is the next server's."""
        self.move()
        # It is not nova's user that wipes.
        wiping = self.pmem.inject('hang', OLD, side='zero', at=SIZE // 2,
                                  user=self.PMEM_OWNER)
        self.ask_to_confirm()
        pid = wiping.wait(pmem_world.PATIENCE)
        self.kill(SOURCE, children=False)
        self.restart(SOURCE)
        self.wait_until_quiet()
        for _ in range(3):
            self.run_periodic_tasks()
            self.wait_until_quiet()
        server = self.boot_next()
        data = server and self.pmem.fill(OLD)
        wiping.release()
        pmem_world.wait_until(
            lambda: self._has_ended(pid), 'the end of the wiper')
        if server is not None:
            self.assertEqual(data, self.pmem.digest(OLD))
        else:
            self.assert_in_order('ACTIVE', DESTINATION)

    @staticmethod
    def _has_ended(pid):
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True


class PmemReplacedNodeTests(pmem_kinds.KindTestBase):
    """A node that is another device by now is noticed."""

    def setUp(self):
        super().setUp()
        self.take_server()
        # So that there is one daxio that is the last.
        self.flags(pmem_copy_streams=1, group='libvirt')

    def _replace(self):
        self.pmem.replace_node(NEW)
        self.pmem.write(NEW, 0, bytes(SIZE))

    def _assert_data_is_somewhere(self):
        self.settle()
        # The diary has seen each start.
        self.assertEqual([], self.diary.surprises)
        found = self.show(self.server)
        self.assertIn((found['status'], found['OS-EXT-SRV-ATTR:host']), (
            ('ACTIVE', SOURCE), ('VERIFY_RESIZE', DESTINATION)))

    def test_target_under_the_last_write(self):
        hanging = self.pmem.inject('hang', NEW, at=SIZE)
        self.ask_to_migrate()
        hanging.wait(pmem_world.PATIENCE)
        self._replace()
        hanging.release()
        self._assert_data_is_somewhere()

    def test_target_before_the_guest_starts(self):
        self.hook(RPC + 'finish_resize', 'before', 'handing-over')
        hook = self.at('handing-over', self._replace)
        self.ask_to_migrate()
        hook.wait()
        self._assert_data_is_somewhere()


class PmemProcessesTests(pmem_kinds.KindTestBase):
    """No process is killed that is not known to be of this copy."""

    def setUp(self):
        super().setUp()
        self.take_server()

    def _start_elsewhere(self, path):
        """Start a process that has another file of this path open.

        As on a machine whose hosts have a /dev each, and one process table.
        """
        other = os.path.join(self.pmem.root, 'other')
        with open(other, 'wb') as file:
            file.truncate(SIZE)
        process = subprocess.Popen(
            ['unshare', '--mount', '--propagation', 'private', 'sh', '-c',
             'mount --bind "$1" "$2" && exec 9<>"$2" && echo on && read x',
             'sh', other, path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={
                'PATH': os.defpath + ':/usr/sbin:/sbin'})
        self.addCleanup(process.communicate)
        self.assertEqual(b'on\n', process.stdout.readline())
        return process

    @unittest.skipUnless(os.geteuid() == 0, 'mounting needs root')
    def test_guest_of_another_host_with_the_same_path(self):
        other = self._start_elsewhere(self.pmem.path(NEW))
        self.move()
        self.assertIsNone(other.poll())

    @unittest.skipUnless(os.geteuid() == 0, 'mounting needs root')
    def test_guest_of_another_host_when_a_copy_has_failed(self):
        other = self._start_elsewhere(self.pmem.path(NEW))
        fault = self.pmem.inject('exit', NEW, at=SIZE // 2, repeat=True)
        self.ask_to_migrate()
        self.wait_until_quiet()
        fault.cancel()
        self.assert_in_order('ACTIVE', SOURCE)
        self.assertIsNone(other.poll())

    def test_guest_that_runs_as_novas_own_user(self):
        # As in containers where QEMU does.
        self.guests.user = None
        strangers = []
        self.hook(RPC + 'finish_resize', 'before', 'handing-over')
        hook = self.at('handing-over', lambda: strangers.append(
            self.define_stranger(DESTINATION, NEW)))
        self.ask_to_migrate()
        hook.wait()
        self.wait_until_quiet()
        self.run_periodic_tasks()
        self.wait_until_quiet()
        self.assertTrue(self.guests.guest_of(strangers[0]).lives)

    def test_process_of_novas_user_that_is_not_of_the_copy(self):
        processes = []
        self.hook(RPC + 'finish_resize', 'before', 'handing-over')
        hook = self.at('handing-over', lambda: processes.append(
            pmem_guests.Guest([self.pmem.path(NEW)], None)))
        self.ask_to_migrate()
        hook.wait()
        self.addCleanup(processes[0].end)
        self.wait_until_quiet()
        self.run_periodic_tasks()
        self.wait_until_quiet()
        self.assertTrue(processes[0].lives)
        # Nor does the server start where somebody else may write.
        self.assertEqual([], self.diary.surprises)
