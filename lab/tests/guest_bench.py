# SPDX-License-Identifier: Apache-2.0
"""The bench of tests/stand_ins, in a guest: the real tools, real devices."""

import itertools
import os
import weakref

import bench
import pytest

from lab import guest as guests

MIB = 1024 * 1024

#: What has to be asked for to get a device; a little less can be used.
SMALL, LARGE = 16 * MIB, 32 * MIB


class Pool:
    """The namespaces of a guest that cases use, one after the other."""

    def __init__(self, guest: guests.Guest) -> None:
        self.guest = guest
        self.namespaces: dict[int, list[guests.Namespace]] = {}
        self._numbers = itertools.count()
        self._boots = guest.boots

    def get(self, size: int, number: int) -> guests.Namespace:
        """Return the nth namespace of a size, created if need be."""
        if self._boots != self.guest.boots:
            self.clear()  # they may have got other nodes
        namespaces = self.namespaces.setdefault(size, [])
        while len(namespaces) <= number:
            namespaces.append(self.guest.create_namespace(
                'bench_%d' % next(self._numbers), size))
        return namespaces[number]

    def clear(self) -> None:
        if self.guest.namespaces():
            self.guest.check('ndctl', 'destroy-namespace', '-f', 'all')
        self.namespaces = {}
        self._boots = self.guest.boots


_pools: weakref.WeakKeyDictionary[guests.Guest, Pool] = (
    weakref.WeakKeyDictionary())
_folders = itertools.count()


class GuestBench:
    """A shared guest; see ``bench.Bench`` for what the cases ask of it."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.guest: guests.Guest = request.getfixturevalue('guest')
        self.folder = '/tmp/bench%d' % next(_folders)
        self.write_file('.bench', b'')  # makes the folder
        self._pool = _pools.setdefault(self.guest, Pool(self.guest))
        self._used = {SMALL: 0, LARGE: 0}
        self._namespaces: dict[str, guests.Namespace] = {}
        self._owners: dict[str, str] = {}

    def device(self, extra: int = 0) -> bench.Device:
        size = LARGE if extra else SMALL
        namespace = self._pool.get(size, self._used[size])
        self._used[size] += 1
        namespace.fill(b'\0')
        return self._device(namespace)

    def only(self, *names: str) -> list[bench.Device]:
        self._pool.clear()
        return [self.add(name) for name in names]

    def add(self, name: str) -> bench.Device:
        return self._device(self.guest.create_namespace(name, SMALL))

    def _device(self, namespace: guests.Namespace) -> bench.Device:
        self._namespaces[namespace.node] = namespace
        return bench.Device(namespace.name, namespace.node, namespace.size)

    def remove(self, device: bench.Device) -> None:
        self._namespaces.pop(device.path).destroy()

    def enable(self, device: bench.Device, enabled: bool = True) -> None:
        self.guest.check(
            'ndctl', 'enable-namespace' if enabled else 'disable-namespace',
            self._namespaces[device.path].dev)

    def run(
        self, tool: str, *args: str, stdin: bytes = b'', user: str = 'root',
    ) -> bench.Result:
        for node in self._namespaces.keys() & set(args):
            self._lend(node, user)
        return self._result(self.guest.run(
            tool, *args, stdin=stdin, user=user, folder=self.folder))

    def _lend(self, node: str, user: str) -> None:
        if self._owners.get(node, 'root') != user:
            self.guest.check('chown', user, node)
            self._owners[node] = user

    def shell(self, script: str) -> bench.Result:
        return self._result(self.guest.shell(script, folder=self.folder))

    @staticmethod
    def _result(result: guests.Result) -> bench.Result:
        return bench.Result(result.status, result.stdout, result.stderr)

    def peek(self, device: bench.Device, offset: int, length: int) -> bytes:
        return self._namespaces[device.path].read(offset, length)

    def poke(self, device: bench.Device, offset: int, data: bytes) -> None:
        self._namespaces[device.path].write(offset, data)

    def read_file(self, name: str) -> bytes:
        return self.guest.read(os.path.join(self.folder, name))

    def write_file(self, name: str, data: bytes) -> None:
        self.guest.write(os.path.join(self.folder, name), data)

    def mode(self, name: str) -> int | None:
        found = self.guest.run(
            'stat', '-c', '%a', os.path.join(self.folder, name))
        return int(found.stdout, 8) if found.status == 0 else None

    def close(self) -> None:
        for node in self._namespaces:
            self._lend(node, 'root')
