# SPDX-License-Identifier: Apache-2.0
"""The persistent memory of a host: files that stand in for namespaces.

The stand-ins for ``ndctl`` and ``daxio`` are those of the tests in Nova's
tree. All hosts have the same names and the same device nodes, for different
namespaces, as hosts in the field do.
"""

from collections import abc
import contextlib
import hashlib
import json
import os
import pathlib
import random
import shutil
import uuid

from cloud.host import Host
from cloud.host import until
from cloud import TOP

MIB = 1024 * 1024
ALIGN = 2 * MIB
LABEL_AREA = 2 * MIB
TOOLS = TOP / 'nova' / 'tests' / 'fixtures' / 'pmem_tools'
REGISTRY = '/var/lib/pmem-stand-ins'

#: Namespaces by label: how many a host has, and their size in bytes.
LABELS = {'SMALL': (6, 16 * MIB), 'LARGE': (2, 32 * MIB)}

_WRAPPER = """\
#!/bin/sh
while read -r name value; do
    case $name$value in
        SigIgn:*[13579bdf]???) export PMEM_STAND_IN_SIGPIPE=ignored ;;
    esac
done < /proc/self/status
export PMEM_STAND_IN_DIR={registry}
exec /usr/bin/python3 -B -E -S {tool} "$@"
"""

#: What ``ndctl`` prints, with the entries that a test adds.
_NDCTL = """\
#!/bin/sh
odd={registry}/odd.json
[ -e $odd ] || exec {registry}/ndctl "$@"
{registry}/ndctl "$@" | /usr/bin/python3 -c '
import json, sys
print(json.dumps(json.load(sys.stdin) + json.load(open(sys.argv[1]))))' $odd
"""


def standard() -> list[tuple[str, str, int]]:
    """Return the namespaces that each host has: name, label, size."""
    sizes = [(label, size) for label, (count, size) in LABELS.items()
             for _ in range(count)]
    return [('ns_%d' % number, label, size)
            for number, (label, size) in enumerate(sizes)]


class Namespace:
    """A namespace of a host.

    :ivar path: its device node there
    """

    def __init__(self, host: Host, name: str, label: str, size: int,
                 path: str) -> None:
        self.host = host
        self.name = name
        self.label = label
        self.size = size
        self.path = path

    @property
    def file(self) -> pathlib.Path:
        """Its device node, as seen from here."""
        return self.host.path(self.path)

    def fill(self, seed: object) -> str:
        """Write all of it, as its guest would; return the digest."""
        data = random.Random(str(seed)).randbytes(self.size)
        with open(self.file, 'r+b') as device:
            device.write(data)
        return hashlib.sha256(data).hexdigest()

    def write(self, offset: int, data: bytes) -> None:
        """Write a part of it, as its guest would."""
        with open(self.file, 'r+b') as device:
            device.seek(offset)
            device.write(data)

    def digest(self, size: int | None = None) -> str:
        """Return the digest of what a guest finds here.

        QEMU keeps the label area of a guest's device at its end, so it is
        elsewhere on a larger one; what is between is zero.

        :param size: in bytes, of the device that this is the copy of
        """
        with open(self.file, 'rb') as device:
            data = device.read()
        size = size or self.size
        between = data[size - LABEL_AREA:-LABEL_AREA]
        if any(between):
            return 'not zero between'
        return hashlib.sha256(data[:size - LABEL_AREA] +
                              data[-LABEL_AREA:]).hexdigest()

    def is_zero(self) -> bool:
        with open(self.file, 'rb') as device:
            return not any(device.read())

    def clear(self) -> None:
        with open(self.file, 'r+b') as device:
            device.truncate(0)
            device.truncate(self.size)

    def __repr__(self) -> str:
        return '%s on %s' % (self.name, self.host.name)


class Memory:
    """The namespaces of a host, and what is to go wrong with them."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.registry = host.path(REGISTRY)
        self.namespaces: dict[str, Namespace] = {}
        self._number = 0

    def install(self) -> None:
        """Put the tools on the host's PATH, and make its namespaces."""
        faults = self.registry / 'faults'
        faults.mkdir(parents=True)
        # Root and nova's user both note what they have called.
        faults.chmod(0o777)
        (self.registry / 'calls').touch()
        (self.registry / 'calls').chmod(0o666)
        for tool, path in (('ndctl', REGISTRY), ('daxio', '/usr/local/bin')):
            self.host.write('%s/%s' % (path, tool), _WRAPPER.format(
                registry=REGISTRY, tool=TOOLS / tool), 0o755)
        self.host.write('/usr/local/bin/ndctl', _NDCTL.format(
            registry=REGISTRY), 0o755)
        for name, label, size in standard():
            self.add(name, label, size)

    def find(self) -> None:
        """Find the namespaces that another process has made."""
        for name, label, size in standard():
            self._describe(name, label, size)

    def _describe(self, name: str, label: str, size: int) -> Namespace:
        namespace = Namespace(
            self.host, name, label, size, '/dev/dax0.%d' % self._number)
        self._number += 1
        self.namespaces[name] = namespace
        return namespace

    def add(self, name: str, label: str, size: int) -> Namespace:
        """Make a namespace, all zero, of a size in bytes."""
        namespace = self._describe(name, label, size)
        with open(namespace.file, 'xb') as file:
            file.truncate(size)
        namespace.file.chmod(0o600)
        self.store()
        return namespace

    def store(self) -> None:
        """Write down what ``ndctl`` shall list."""
        records = [{
            'name': each.name, 'listed': each.name, 'path': each.path,
            'size': each.size, 'align': ALIGN, 'enabled': True,
            'label': each.label, 'host': self.host.name,
            'uuid': str(uuid.uuid5(uuid.NAMESPACE_DNS, '%s.%s' % (
                each.name, self.host.name)))}
            for each in self.namespaces.values()]
        self._write('namespaces.json', records)

    @contextlib.contextmanager
    def odd(self, *entries: dict) -> abc.Iterator[None]:
        """Let ``ndctl`` list further entries, as they are."""
        self._write('odd.json', entries)
        try:
            yield
        finally:
            (self.registry / 'odd.json').unlink()

    def _write(self, name: str, content: object) -> None:
        """Write a file so that nobody sees half of it."""
        whole = self.registry / (name + '.new')
        whole.write_text(json.dumps(content))
        whole.rename(self.registry / name)

    def replace_node(self, name: str) -> Namespace:
        """Give a namespace another device node, with the same bytes.

        What has the old one open still has it.
        """
        namespace = self.namespaces[name]
        old = namespace.file
        copy = old.with_name(old.name + '.new')
        shutil.copy2(old, copy)
        os.chown(copy, old.stat().st_uid, old.stat().st_gid)
        copy.rename(old)
        return namespace

    def of_config(self) -> str:
        """Return ``[libvirt]pmem_namespaces``."""
        labels: dict[str, list[str]] = {}
        for each in self.namespaces.values():
            labels.setdefault(each.label, []).append(each.name)
        return ', '.join('%s:%s' % (label, '|'.join(names))
                         for label, names in labels.items())

    def of_label(self, label: str) -> list[Namespace]:
        return [each for each in self.namespaces.values()
                if each.label == label]

    def at(self, path: str) -> Namespace:
        """Return the namespace that has a device node."""
        for each in self.namespaces.values():
            if each.path == path:
                return each
        raise LookupError('no namespace of %s is %s' % (self.host.name, path))

    # What goes wrong

    def plan(self, **fault: object) -> 'Fault':
        """Plan a fault of the stand-ins; their ``stand_in.py`` has them."""
        number = len(os.listdir(self.registry / 'faults'))
        stem = self.registry / 'faults' / ('%03d' % number)
        planned = Fault(stem)
        if fault.get('action') == 'hang':
            planned.make_fifos()
        stem.with_suffix('.new').write_text(json.dumps(fault))
        stem.with_suffix('.new').rename(stem.with_suffix('.json'))
        return planned

    def heal(self) -> None:
        """Forget all that was planned, and let go what hangs."""
        folder = self.registry / 'faults'
        for path in sorted(folder.iterdir(), reverse=True):
            if path.suffix in ('.json', '.fired'):
                path.unlink(missing_ok=True)
        for path in sorted(folder.glob('*.go')):
            Fault(path.with_suffix('')).release()
        # Fifos stay: who hangs there has them open.


class Fault:
    """A planned fault."""

    def __init__(self, stem: pathlib.Path) -> None:
        self._stem = stem

    def make_fifos(self) -> None:
        for suffix in ('.reached', '.go'):
            fifo = self._stem.with_suffix(suffix)
            os.mkfifo(fifo)
            fifo.chmod(0o666)
        self._reached = os.open(self._stem.with_suffix('.reached'),
                                os.O_RDONLY | os.O_NONBLOCK)

    @property
    def fired(self) -> bool:
        return self._stem.with_suffix('.json.fired').exists()

    def wait(self, timeout: float = 120) -> None:
        """Wait until it has happened."""
        until(lambda: self.fired, 'what was planned has not happened',
              timeout)

    def release(self) -> None:
        """Let a tool that hangs go on."""
        go = os.open(self._stem.with_suffix('.go'), os.O_RDWR)
        os.write(go, b'go\n')
        # The word is gone with the last who has the pipe open.
        self._held = go
