# SPDX-License-Identifier: Apache-2.0
"""Faults that a deployment knows how to cause.

What makes a copy fail or hang differs with the deployment: a module option of
the kernel, a bad block, a tool that was replaced. So each fault is two
commands in the options of ``[pmem_copy]``, run on a compute host: one that
causes it and one that takes it back.
"""

import enum
from typing import NamedTuple

import fixtures

from pmem_copy_tempest_plugin import shell


class Kind(NamedTuple):
    """A fault as the tests know it.

    :ivar option: what the names of its two options begin with
    :ivar effect: what it causes
    """

    option: str
    effect: str


class Fault(enum.Enum):
    """The faults that the scenarios need, all on the destination of a move."""

    COPY = Kind('copy_failure', 'every copy to that host fails in the end')
    HANG = Kind('copy_hang', (
        'a copy to that host begins, and makes no headway or takes minutes'))
    START = Kind('start_failure', 'no guest can be started on that host')


class CausedFault(fixtures.Fixture):
    """A fault, from ``setUp`` to ``undo`` or the end of the test."""

    def __init__(self, hosts: shell.HostShell, host: str, command: str,
                 undo_command: str, server_id: str) -> None:
        """Describe it.

        :param hosts: runs the commands
        :param host: where
        :param command: what causes the fault
        :param undo_command: what undoes it
        :param server_id: what ``{server}`` stands for in both
        """
        super().__init__()
        self._hosts = hosts
        self._host = host
        self._command = shell.fill_quoted(command, server=server_id)
        self._undo_command = shell.fill_quoted(undo_command, server=server_id)
        self._is_there = False

    def _setUp(self) -> None:
        # A command that failed may have done half of its work.
        self._is_there = True
        self.addCleanup(self.undo)
        self._hosts.run(self._host, self._command)

    def undo(self) -> None:
        """Undo the fault, if that has not been done."""
        if self._is_there:
            self._hosts.run(self._host, self._undo_command)
            self._is_there = False
