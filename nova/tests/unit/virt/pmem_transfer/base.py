# SPDX-License-Identifier: Apache-2.0

"""Real copies, in real processes, over a real ssh on loopback."""

import contextlib
import json
import os
import subprocess
import sys

import fixtures
import psutil

from nova import test
from nova.tests.fixtures import pmem
from nova.virt.pmem_transfer import job as pmem_job
from nova.virt.pmem_transfer import receiver
from nova.virt.pmem_transfer import sender
from nova.virt.pmem_transfer import ticket as pmem_ticket

KIB = 1024
MIB = pmem.MIB

MIGRATION = '11111111-2222-3333-4444-555555555555'
INSTANCE = '99999999-8888-7777-6666-555555555555'
ADDRESS = '127.0.0.1'


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

    def setUp(self):
        super().setUp()
        self.state = self.useFixture(fixtures.TempDir()).path
        environment = {'OS_DEFAULT__STATE_PATH': self.state,
                       'OS_DEFAULT__HOST': 'host2'}
        self.pmem = self.useFixture(pmem.PmemHosts(
            dict.fromkeys(self.ADDRESSES, environment)))
        self.pairs = []

    def add_pair(self, size, target_size=None, fill=True):
        """Make a namespace with data, and one that takes it."""
        number = len(self.pairs)
        self.pairs.append(('old%d' % number, 'new%d' % number))
        for name, bytes_ in zip(self.pairs[-1], (size, target_size or size)):
            self.pmem.add_namespace(name, bytes_)
        if fill:
            self.pmem.fill('old%d' % number, seed=number)

    def ticket(self, **changes):
        fields = dict(host='host2', migration_uuid=MIGRATION,
                      instance_uuid=INSTANCE, targets=tuple(
                          pmem_ticket.Target(
                              new, self.pmem.size(new), self.pmem.size(old),
                              0, 0) for old, new in self.pairs))
        return pmem_ticket.Ticket(**dict(fields, **changes))

    @property
    def ticket_path(self):
        return os.path.join(self.state, pmem_ticket.FOLDER,
                            MIGRATION + '.receive')

    def open_ticket(self, text=None, **changes):
        os.makedirs(os.path.dirname(self.ticket_path), exist_ok=True)
        with open(self.ticket_path, 'w') as stored:
            stored.write(text if text is not None
                         else self.ticket(**changes).to_json())

    def job(self, **changes):
        fields = dict(
            receiver=('ssh', '-o', 'BatchMode=yes', ADDRESS,
                      '%s %s' % (receiver.COMMAND, MIGRATION)),
            streams=1, extent=MIB, stall_timeout=20,
            devices=tuple(pmem_job.Device(
                old, self.pmem.path(old), self.pmem.size(old), new,
                self.pmem.size(new)) for old, new in self.pairs))
        return pmem_job.Job(**dict(fields, **changes))

    def start(self, **changes):
        return self.start_text(self.job(**changes).to_json())

    def start_text(self, text, command=None):
        process = subprocess.Popen(
            command or sender.command(), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=sender.environment(), text=True)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        process.stdin.write(text)
        process.stdin.close()
        process.stdin = None
        return process

    def start_by_another(self, **changes):
        """Start a sender as the child of a process that can be killed."""
        return psutil.Process(self.start_text(
            self.job(**changes).to_json(),
            [sys.executable, '-c', 'import subprocess, sys;'
             'subprocess.run(sys.argv[1:])', *sender.command()]).pid)

    @staticmethod
    def result(process):
        return Result(process, *process.communicate(timeout=100))

    def copy(self, **changes):
        return self.result(self.start(**changes))

    def succeed(self, **changes):
        result = self.copy(**changes)
        self.assertEqual('done', result.last.get('event'),
                         (result.events, result.errors))
        self.assertEqual(0, result.status)
        self.assert_copied()
        return result

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
