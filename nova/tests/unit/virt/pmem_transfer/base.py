# SPDX-License-Identifier: Apache-2.0

"""Real copies, in real processes, over a real ssh on loopback."""

import contextlib
import fcntl
import json
import os
import subprocess
import sys

import fixtures
import psutil
from testtools import content

from nova import test
from nova.tests.fixtures import pmem
from nova.virt.pmem_transfer import receiver
from nova.virt.pmem_transfer import sender
from nova.virt.pmem_transfer import wire

KIB = 1024
MIB = pmem.MIB

MIGRATION = '11111111-2222-3333-4444-555555555555'
ADDRESS = '127.0.0.1'


def changed(module, **values):
    """Return a command that starts a module with other constants.

    Each sender and receiver is a process of its own: a mock does not reach it.
    """
    return [sys.executable, '-c', 'import %s as m; %s; m.main()' % (
        module.__name__, '; '.join(
            'm.%s = %r' % item for item in values.items()))]


#: Have a call fail that the kernel refuses as long as something is short.
FAILS_ONCE = """
import os, socket
import {module}
call, left = {owner}.{name}, [1]
def once(*args):
    if left:
        left.pop()
        raise OSError(24, 'there is none left')
    return call(*args)
{owner}.{name} = once
{module}.main()
"""


def fails_once(module, owner, name):
    """Return a command that starts a module in which a call fails once."""
    return [sys.executable, '-c', FAILS_ONCE.format(
        module=module.__name__, owner=owner, name=name)]


class Result:
    """How a sender ended, and what it told."""

    def __init__(self, process, output, errors):
        self.status = process.returncode
        self.events = [json.loads(line) for line in output.splitlines()]  # noqa: N324,E501
        self.last = self.events[-1] if self.events else {}
        self.errors = errors

    def told(self, event):
        return [each for each in self.events if each['event'] == event]


class CopyTestCase(test.NoDBTestCase):
    """A host, and another one that ssh leads to, on the same machine."""

    #: Where there is an sshd.
    ADDRESSES = (ADDRESS,)

    #: What its configuration has besides.
    SSHD_CONFIG = ''

    def setUp(self):
        super().setUp()
        self.state = self.useFixture(fixtures.TempDir()).path
        self.socket = os.path.join(self.state, 'receiver.socket')
        self.log = os.path.join(self.state, 'receiver.log')
        self.pmem = self.useFixture(pmem.PmemHosts(
            self.ADDRESSES, sshd_config=self.SSHD_CONFIG))
        self.pairs = []

    def add_pair(self, size, target_size=None, fill=True):
        """Make a namespace with data, and one that takes it."""
        number = len(self.pairs)
        self.pairs.append(('old%d' % number, 'new%d' % number))
        for name, bytes_ in zip(self.pairs[-1], (size, target_size or size)):
            self.pmem.add_namespace(name, bytes_)
        if fill:
            self.pmem.fill('old%d' % number, seed=number)

    def receiving(self, **changes):
        fields = dict(socket=self.socket, notes=-1, targets=tuple(
            wire.Target(new, self.pmem.path(new), self.pmem.size(new),
                            self.pmem.size(old)) for old, new in self.pairs))
        return wire.Receiving(**dict(fields, **changes))

    def receive(self, command=None, text=None, **changes):
        """Start a receiver, as nova-compute does; return its process.

        :param command: if it is no ordinary one
        :param text: what it gets instead of a job
        """
        notes = os.open(self.socket + '.writes', os.O_RDWR | os.O_CREAT |
                        os.O_APPEND, 0o600)
        # Whoever has not been ended is not waited for: nobody would end it.
        fcntl.flock(notes, fcntl.LOCK_EX | fcntl.LOCK_NB)
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        process = subprocess.Popen(
            command or receiver.command(), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(sender.environment(),
                     PMEM_STAND_IN_UID=str(pmem.NOVA_UID)),
            stderr=log, pass_fds=[notes], start_new_session=True)
        os.close(notes)
        os.close(log)
        process.notes = self.socket + '.writes'
        self.addCleanup(self.end, process)
        if text is None:
            text = self.receiving(notes=notes, **changes).to_json()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(text.encode() + b'\n')
            process.stdin.flush()
        self.said = process.stdout.readline().decode()
        return process

    def end(self, process):
        """End a receiver, as nova-compute does: wait for all of it."""
        process.kill()
        process.wait()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()
        with open(process.notes) as notes:
            fcntl.flock(notes, fcntl.LOCK_EX)
        self.addDetail('receiver', content.content_from_file(
            self.log, buffer_now=True))

    def job(self, **changes):
        fields = dict(
            address=ADDRESS, socket=self.socket,
            local=os.path.join(self.state, 'ssh-'),
            ssh=('ssh', '-o', 'BatchMode=yes', '-o', 'LogLevel=INFO'),
            streams=1, extent=MIB, stall_timeout=20, patience=0,
            devices=tuple(wire.Device(
                old, self.pmem.path(old), self.pmem.size(old), new,
                self.pmem.size(new)) for old, new in self.pairs))
        return wire.Sending(**dict(fields, **changes))

    def start(self, command=None, waits=False, **changes):
        """Start a sender.

        :param waits: whether it is told later to begin, by its result
        """
        return self.start_text(self.job(**changes).to_json(), command, waits)

    def start_text(self, text, command=None, waits=False):
        process = subprocess.Popen(
            command or sender.command(MIGRATION), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=sender.environment(), text=True)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        process.stdin.write(text + '\n')
        process.stdin.flush()
        if not waits:
            process.stdin.close()
            process.stdin = None
        return process

    def start_waiting(self, **changes):
        """Start a sender, and wait until all of it has connected."""
        process = self.start(waits=True, **changes)
        told = []
        while not told or told[-1]['event'] != 'ready':
            line = process.stdout.readline()
            self.assertTrue(line, told)
            told.append(json.loads(line))  # noqa: N324
        return process

    def start_by_another(self, **changes):
        """Start a sender as the child of a process that can be killed."""
        return psutil.Process(self.start_text(
            self.job(**changes).to_json(),
            [sys.executable, '-c', 'import subprocess, sys;'
             'subprocess.run(sys.argv[1:])', *sender.command(MIGRATION)]).pid)

    @staticmethod
    def result(process):
        return Result(process, *process.communicate(timeout=100))

    def copy(self, **changes):
        return self.result(self.start(**changes))

    def succeed(self, **changes):
        result = self.copy(**changes)
        self.assert_done(result)
        self.assert_copied()
        return result

    def assert_done(self, result):
        self.assertEqual('done', result.last.get('event'),
                         (result.events, result.errors))
        self.assertEqual(0, result.status)

    def fail_to(self, **changes):
        result = self.copy(**changes)
        self.assertEqual('error', result.last.get('event'), result.events)
        self.assertEqual([], result.told('done'))
        self.assertEqual(1, result.status, result.errors)
        return result

    def assert_nothing_runs(self):
        """Assert that all of a copy ends, but for sessions of sshd."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if (process.name() != 'sshd' and
                        self.pmem.root in ' '.join(process.cmdline())):
                    found.append(process)
        _gone, alive = psutil.wait_procs(found, timeout=20)
        self.assertEqual([], alive)

    def expected(self, old, new):
        data = self.pmem.read(old, 0, self.pmem.size(old))
        between = bytes(self.pmem.size(new) - len(data))
        if not between:
            return data
        return data[:-2 * MIB] + between + data[-2 * MIB:]

    def assert_copied(self):
        for old, new in self.pairs:
            # Not assertEqual: it would print them.
            self.assertTrue(
                self.expected(old, new) == self.pmem.read(
                    new, 0, self.pmem.size(new)), new)
