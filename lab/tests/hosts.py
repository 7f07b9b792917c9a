# SPDX-License-Identifier: Apache-2.0
"""Guests as compute hosts: with this project's sender and receiver.

What nova-compute and its privsep daemon do around a copy, root does here:
write the ticket, lend device nodes and take them back, wipe. The copy itself
is the product's own, run by nova's user.
"""

from collections import abc
import importlib.metadata
import json
import pathlib
import shutil
import subprocess
import typing as ty

from packaging import requirements

from lab import guest as guests
from lab import image as images
from nova.virt.pmem import job as pmem_job
from nova.virt.pmem import receiver
from nova.virt.pmem import ticket as pmem_ticket

ROOT = pathlib.Path(__file__).resolve().parents[2]
MIB = 1024 * 1024

MIGRATION = '11111111-2222-3333-4444-555555555555'
INSTANCE = '99999999-8888-7777-6666-555555555555'

#: What the sender and the receiver import besides the standard library.
NEEDS = ('cryptography', 'oslo.config')

CODE = '/opt/nova'
STATE = '/var/lib/nova'
TICKET = '%s/%s/%s.receive' % (STATE, pmem_ticket.FOLDER, MIGRATION)

CONFIGURATION = """\
[DEFAULT]
host = compute-{name}
state_path = {state}
"""

RECEIVER = """\
#!/bin/sh
PYTHONPATH={code} exec python3 -m nova.virt.pmem.receiver "$@"
"""


def stage(folder: pathlib.Path) -> pathlib.Path:
    """Put together and compile what the commands import, and return where.

    That is this project's package, and what it needs with all that requires.
    Compiling it in a guest would take a minute.
    """
    shutil.copytree(ROOT / 'nova' / 'virt' / 'pmem',
                    folder / 'nova' / 'virt' / 'pmem',
                    ignore=shutil.ignore_patterns('__pycache__'))
    found: dict[str, importlib.metadata.Distribution] = {}
    for name in NEEDS:
        _add_closure(name, found)
    for distribution in found.values():
        for file in distribution.files or ():
            if file.suffix in ('.py', '.so') and '..' not in file.parts:
                target = folder / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file.locate(), target)
    # By the Python that the guests have, and so that no time counts.
    subprocess.run(
        [images.PYTHON, '-m', 'compileall', '-q', '-j', '0',
         '--invalidation-mode', 'unchecked-hash', folder],
        check=True, stdout=subprocess.DEVNULL)
    return folder


def _add_closure(
    name: str, found: dict[str, importlib.metadata.Distribution],
) -> None:
    """Add a distribution and all that it requires, by name."""
    if name not in found and name != 'setuptools':  # which no module imports
        found[name] = importlib.metadata.distribution(name)
        for text in found[name].requires or ():
            wanted = requirements.Requirement(text)
            if not wanted.marker or wanted.marker.evaluate({'extra': ''}):
                _add_closure(wanted.name, found)


class Copy:
    """How a sender ended, and what it told."""

    def __init__(self, result: guests.Result) -> None:
        self.status = result.status
        self.errors = result.stderr
        self.events = [
            json.loads(line) for line in result.stdout.splitlines()]
        self.last = self.events[-1] if self.events else {}

    def __repr__(self) -> str:
        return '<status %d, %s, %s>' % (
            self.status, self.events, self.errors)

    def told(self, event: str) -> list[dict[str, ty.Any]]:
        return [each for each in self.events if each['event'] == event]


class Host:
    """A guest that has what a compute host has."""

    def __init__(self, guest: guests.Guest) -> None:
        self.guest = guest
        self.name = 'compute-' + guest.name
        self._boots = 0

    def set_up(self) -> None:
        """Configure it, if it was booted: its files are gone then."""
        if self._boots == self.guest.boots:
            return
        self._boots = self.guest.boots
        self.guest.write('/etc/nova/nova.conf', CONFIGURATION.format(
            name=self.guest.name, state=STATE).encode())
        self.guest.write('/usr/local/bin/' + receiver.COMMAND,
                         RECEIVER.format(code=CODE).encode(), mode=0o755)
        folder = '%s/%s' % (STATE, pmem_ticket.FOLDER)
        self.guest.check('mkdir', '-p', folder)
        self.guest.check('chown', '-R', 'nova', STATE)

    def create(self, name: str, size: int) -> guests.Namespace:
        return self.guest.create_namespace(name, size, nvdimm=1)

    # What nova-compute does as root, or by itself

    def lend(self, *names: str) -> None:
        self._own('nova', names)

    def take_back(self, *names: str) -> None:
        self._own('root', names)

    def _own(self, user: str, names: abc.Iterable[str]) -> None:
        self.guest.check('chown', user, *(
            self.guest.namespace(name).node for name in names))

    def open_ticket(self, pairs: abc.Iterable[
            tuple[guests.Namespace, guests.Namespace]]) -> None:
        ticket = pmem_ticket.Ticket(
            host=self.name, migration_uuid=MIGRATION, instance_uuid=INSTANCE,
            targets=tuple(
                pmem_ticket.Target(target.name, target.size, source.size, 0, 0)
                for source, target in pairs))
        self.guest.write(TICKET, ticket.to_json().encode(), user='nova')

    def close_ticket(self) -> None:
        self.guest.check('rm', TICKET)

    # The copy

    def start(
        self, target: 'Host', pairs: abc.Iterable[
            tuple[guests.Namespace, guests.Namespace]], **changes: ty.Any,
    ) -> guests.Command:
        """Start a sender here, as nova's user."""
        command = '%s %s' % (receiver.COMMAND, MIGRATION)
        if target is not self:
            ssh = ('ssh', '-o', 'BatchMode=yes', '-o', 'ConnectTimeout=10',
                   target.guest.address)
        else:
            ssh = ('sh', '-c')
        job = pmem_job.Job(
            receiver=(*ssh, command),
            devices=tuple(pmem_job.Device(
                source.name, source.node, source.size, target.name,
                target.size) for source, target in pairs),
            **{'streams': 1, 'extent': 2 * MIB, **changes})
        return self.guest.start(
            'python3', '-m', 'nova.virt.pmem.sender', user='nova',
            stdin=job.to_json().encode(), environment={'PYTHONPATH': CODE})

    def copy(self, target: 'Host', pairs: ty.Any, **changes: ty.Any) -> Copy:
        """Copy, and say how that ended."""
        return Copy(self.start(target, pairs, **changes).wait())
