# SPDX-License-Identifier: Apache-2.0
"""Guests as compute hosts, with what this project adds to nova-compute.

``nova_compute.py`` runs in each and does there whatever is done around a copy:
the tests have the database, and ask for it. A sender can be started without
it, too, to say how it shall send, and to see what it tells.
"""

from collections import abc
import json
import pathlib
import shutil
import subprocess
import typing as ty

from lab import distributions
from lab import guest as guests
from lab import image as images
from nova.virt.pmem_transfer import wire

ROOT = pathlib.Path(__file__).resolve().parents[2]
MIB = 1024 * 1024

#: Nova with the patch set; what of it is not there is stood in for.
NOVA = ROOT / 'work' / 'nova'
FILES_OF_NOVA = (
    'nova/cmd/pmem_join.py', 'nova/compute/pmem_copy.py',
    'nova/conf/pmem_copy.py', 'nova/exception.py', 'nova/i18n.py',
    'nova/privsep/*.py', 'nova/virt/pmem_*.py', 'nova/virt/pmem_transfer/*.py',
    'nova/virt/libvirt/pmem_*.py', 'nova/virt/libvirt/pmem/*.py')

#: What that imports besides the standard library.
NEEDS = (
    'cryptography', 'futurist', 'oslo.concurrency', 'oslo.config', 'oslo.log',
    'oslo.privsep', 'oslo.serialization', 'oslo.utils', 'WebOb')

#: What they require and nothing of it imports.
NOT_NEEDED = ('pbr', 'setuptools')

MIGRATION = '11111111-2222-3333-4444-555555555555'

CODE = '/opt/nova'
COMPUTE = 'nova_compute.py'
SOCKET = '/run/nova-compute.sock'
LOG = '/run/nova-compute.log'

#: On the disk: what is there is there after a loss of power.
STATE = images.DISK + '/nova'
TICKETS = STATE + '/pmem-copy'

CONFIGURATION = """\
[DEFAULT]
state_path = {state}
[libvirt]
pmem_copy_streams = 2
[nova_sys_admin]
# As many as processors, of which a host has more than a guest of the lab.
thread_pool_size = 2
"""


# The image

def stage(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Put together and compile what hosts need.

    :returns: files and folders by their paths in a guest
    """
    code = folder / 'code'
    for pattern in FILES_OF_NOVA:
        for path in NOVA.glob(pattern):
            _copy(path, code / path.relative_to(NOVA))
    _copy(pathlib.Path(__file__).with_name(COMPUTE), code / COMPUTE)
    for distribution in distributions.closure(NEEDS, NOT_NEEDED):
        for file in distribution.files or ():
            # Some ask what version they are.
            if (file.suffix in ('.py', '.so') or file.name == 'METADATA') and (
                    not {'..', 'tests'} & set(file.parts)):
                _copy(file.locate(), code / file)
    # By the Python that the guests have, where it would take minutes; and so
    # that no time counts.
    subprocess.run(
        [images.PYTHON, '-m', 'compileall', '-q', '-j', '0',
         '--invalidation-mode', 'unchecked-hash', code],
        check=True, stdout=subprocess.DEVNULL)
    settings = folder / 'nova.conf'
    settings.write_text(CONFIGURATION.format(state=STATE))
    return {CODE: code, '/etc/nova/nova.conf': settings}


def _copy(source: ty.Any, target: pathlib.Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


# Hosts

Pairs = abc.Sequence[tuple[guests.Namespace, guests.Namespace]]


class Failed(Exception):
    """nova-compute has raised something: an exception of this name."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__('%s: %s' % (name, message))
        self.name = name


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


class Move:
    """A migration and its server, as the database has them.

    :ivar status: of the migration
    :ivar pairs: what is copied to what, as was known when it was claimed
    :ivar socket: where the target receives, once it is prepared
    """

    def __init__(self, source: 'Host', target: 'Host', pairs: Pairs,
                 uuid: str = MIGRATION) -> None:
        self.source = source
        self.target = target
        self.pairs = pairs
        self.uuid = uuid
        self.instance_uuid = '99999999' + uuid[8:]
        self.status = 'migrating'
        self.socket = ''

    def file(self, kind: str = 'receive') -> str:
        """Return the path of its ticket, or of what is beside that."""
        return '%s/%s.%s' % (TICKETS, self.uuid, kind)

    def row(self) -> dict[str, ty.Any]:
        arrived = self.status == 'finished'
        return {
            'pairs': [[{'name': each.name, 'size': each.size,
                        'devpath': each.node} for each in pair]
                      for pair in self.pairs],
            'host': (self.target if arrived else self.source).name,
            'socket': self.socket,
            'migration': {
                'uuid': self.uuid, 'instance_uuid': self.instance_uuid,
                'status': self.status, 'source_compute': self.source.name,
                'dest_compute': self.target.name,
                'dest_host': self.target.guest.address}}


class Host:
    """A guest on which nova-compute runs."""

    def __init__(self, guest: guests.Guest) -> None:
        self.guest = guest
        self.name = guest.name
        self._boots = 0

    @property
    def is_set_up(self) -> bool:
        """Whether nova-compute runs since the last boot."""
        return self._boots == self.guest.boots

    def start_compute(self) -> guests.Command:
        return self.guest.start('bash', '-ec', (
            'mkdir -p %s; chown nova:nova $_; exec python3 %s/%s %s %s' % (
                STATE, CODE, COMPUTE, SOCKET, LOG)))

    def note_start(self, result: guests.Result) -> None:
        if result.status:
            raise guests.GuestError(result.stderr)
        self._boots = self.guest.boots

    def log(self) -> str:
        """Return what nova-compute has logged since the last boot."""
        return self.guest.read(LOG).decode()

    def tickets(self) -> list[str]:
        """Return the names of the files of open tickets."""
        return self.guest.shell('ls %s 2>&-' % TICKETS).text.split()

    def kill(self, pattern: str) -> None:
        """Kill the process whose command line has a pattern.

        It is the oldest one: its forks, and who looks, have that, too.
        """
        self.guest.check('bash', '-c', (
            "kill -KILL $(grep -l '%s' /proc/[0-9]*/cmdline | cut -d / -f 3 | "
            'sort -n | head -n 1)' % pattern))

    def kill_compute(self) -> None:
        """Kill nova-compute, until :func:`set_up` starts it again."""
        self.kill(COMPUTE)
        self._boots = 0

    def create(self, name: str, size: int,
               align: int = 2 * MIB) -> guests.Namespace:
        return self.guest.create_namespace(name, size, nvdimm=1, align=align)

    def can_open(self, node: str) -> bool:
        """Ask the kernel whether nova's user can open a node.

        :raises lab.guest.GuestError: if that is not why it can't
        """
        said = self.guest.shell(
            ': < {0} && echo read; : > {0} && echo written'.format(node),
            user='nova')
        allowed, denied = said.text.split(), said.stderr.splitlines()
        if len(allowed) == 2 and not denied:
            return True
        if not allowed and all('Permission denied' in line
                               for line in denied):
            return False
        raise guests.GuestError('%s: %s' % (node, said))

    def call(self, name: str, move: Move | None = None,
             *others: Move) -> ty.Any:
        """Have nova-compute do something.

        :param name: one of the calls of ``nova_compute.py``
        :param move: for which; the database has it and others
        :raises Failed: if it can't
        """
        request = {
            'call': name, 'move': move and move.uuid,
            'moves': [each.row() for each in (move, *others) if each]}
        answer = json.loads(
            self.guest.ask(SOCKET, json.dumps(request).encode()))
        if 'error' in answer:
            raise Failed(answer['error'], answer['message'])
        if name == 'prepare':
            move.socket = answer['value']
        return answer['value']

    # A sender that nova-compute has not started

    def lend(self, source: guests.Namespace) -> None:
        """Lend a source, as nova-compute does while it copies."""
        self.guest.check('chown', 'nova', source.node)

    def start(self, move: Move, **changes: ty.Any) -> guests.Command:
        """Start a sender here, as nova's user; its sources are lent to it."""
        job = wire.Sending(
            socket=move.socket, address=move.target.guest.address,
            ssh=('ssh', '-o', 'BatchMode=yes', '-o', 'ConnectTimeout=10'),
            local=STATE + '/ssh-', devices=tuple(wire.Device(
                source.name, source.node, source.size, target.name,
                target.size) for source, target in move.pairs),
            **{'streams': 1, 'extent': 2 * MIB, **changes})
        return self.guest.start(
            'python3', '-m', 'nova.virt.pmem_transfer.sender', user='nova',
            stdin=job.to_json().encode(), environment={'PYTHONPATH': CODE})


def set_up(hosts: abc.Iterable[Host]) -> None:
    """Start nova-compute where it does not run, on all at once."""
    for host, command in [(host, host.start_compute()) for host in hosts
                          if not host.is_set_up]:
        host.note_start(command.wait())
