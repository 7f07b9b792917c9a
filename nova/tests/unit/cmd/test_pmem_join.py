# SPDX-License-Identifier: Apache-2.0

"""The command that joins its input and output to a socket."""

import os
import socket
import subprocess
import sys
import threading

import fixtures
import psutil

from nova.cmd import pmem_join
from nova import test
from nova.virt.pmem_transfer import sender


class JoinTestCase(test.NoDBTestCase):

    def setUp(self):
        super().setUp()
        self.path = os.path.join(
            self.useFixture(fixtures.TempDir()).path, 'socket')
        self.listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(self.listener.close)
        self.listener.bind(self.path)
        self.listener.listen()

    def start(self, *arguments):
        process = subprocess.Popen(
            [sys.executable, '-m', pmem_join.__name__, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env=sender.environment())
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def accept(self):
        connection, _address = self.listener.accept()
        self.addCleanup(connection.close)
        return connection

    def test_arguments(self):
        process = self.start()
        _output, errors = process.communicate()
        self.assertEqual(2, process.returncode)
        self.assertIn(b'usage: nova-pmem-join SOCKET', errors)

    def test_nobody_listens(self):
        """As ssh fails for a host that is away: it may be tried again."""
        for path in self.path + 'x', self.path:
            self.listener.close()
            process = self.start(path)
            _output, errors = process.communicate()
            self.assertEqual(255, process.returncode)
            self.assertIn(path.encode(), errors)

    def test_no_core_dump(self):
        """It would have bytes of a tenant's."""
        process = self.start(self.path)
        self.accept()
        self.assertEqual((0, 0), psutil.Process(process.pid).rlimit(
            psutil.RLIMIT_CORE))

    def test_both_ways(self):
        process = self.start(self.path)
        connection = self.accept()
        data = os.urandom(3 * pmem_join.CHUNK + 5)
        feeder = threading.Thread(target=process.stdin.write, args=(data,))
        feeder.start()
        self.addCleanup(feeder.join)
        with connection.makefile('rb') as file:
            self.assertTrue(data == file.read(len(data)))
            feeder.join()
            process.stdin.close()
            self.assertEqual(b'', file.read())
        connection.sendall(b'answer')
        connection.shutdown(socket.SHUT_WR)
        self.assertEqual(b'answer', process.stdout.read())
        self.assertEqual(0, process.wait())

    def test_answer_while_more_could_come(self):
        process = self.start(self.path)
        connection = self.accept()
        connection.sendall(b'x')
        self.assertEqual(b'x', process.stdout.read(1))
        connection.close()
        self.assertEqual(b'', process.stdout.read())
        self.assertEqual(0, process.wait())

    def test_last_words_of_one_who_reads_no_more(self):
        process = self.start(self.path)
        connection = self.accept()
        connection.shutdown(socket.SHUT_RD)
        # It fails to pass this on.
        process.stdin.write(b'x' * pmem_join.CHUNK)
        process.stdin.close()
        connection.sendall(b'because')
        connection.close()
        self.assertEqual(b'because', process.stdout.read())
        self.assertEqual(0, process.wait())
