# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Where the contract of the tools is tested: on stand-ins, or on real devices.

A bench runs tools and looks at devices. ``StandInBench`` does so here, on
files. Another bench, for example one that reaches into a virtual machine
with real /dev/dax nodes, is named by the environment variable PMEM_BENCH
as ``module:Class``; the tests are the same.
"""

import dataclasses
import importlib.util
import os
import pathlib
import subprocess
import sys
import typing as ty

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def load_fixture() -> ty.Any:
    """Import Nova's fixture by its path: Nova itself isn't needed."""
    name = 'pmem_fixture'
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            name, ROOT / 'nova' / 'tests' / 'fixtures' / 'pmem.py')
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@dataclasses.dataclass(frozen=True)
class Result:
    """How a tool ended: a negative status is the signal it died by."""

    status: int
    stdout: bytes
    stderr: str


@dataclasses.dataclass(frozen=True)
class Device:
    """A namespace's device node; the size is in bytes."""

    name: str
    path: str
    size: int


class Bench(ty.Protocol):
    """What the contract asks of a place to run it in."""

    def device(self, extra: int = 0) -> Device:
        """Return a device all zero; one with ``extra`` has more bytes."""

    def only(self, *names: str) -> list[Device]:
        """Have these namespaces and no others, created in this order.

        Names may repeat, or be empty for none.
        """

    def add(self, name: str) -> Device:
        """Create a namespace."""

    def remove(self, device: Device) -> None:
        """Destroy a namespace."""

    def enable(self, device: Device, enabled: bool = True) -> None:
        """Enable a namespace, or disable it."""

    def run(
        self, tool: str, *args: str, stdin: bytes = b'', user: str = 'root',
    ) -> Result:
        """Run a tool in the bench's folder, as root or as nova's user.

        As nova's user, it owns the device nodes.
        """

    def shell(self, script: str) -> Result:
        """Run a bash script in the bench's folder, as root."""

    def peek(self, device: Device, offset: int, length: int) -> bytes:
        """Return bytes of a device."""

    def poke(self, device: Device, offset: int, data: bytes) -> None:
        """Put bytes on a device."""

    def read_file(self, name: str) -> bytes:
        """Return what is in a file of the bench's folder."""

    def write_file(self, name: str, data: bytes) -> None:
        """Make a file in the bench's folder."""

    def mode(self, name: str) -> int | None:
        """Return the permissions of a file there, None if there is none."""

    def close(self) -> None:
        """Leave nothing behind."""


class StandInBench:
    """The stand-ins, as a service on this machine would run them."""

    SIZE = 4 * 1024 * 1024

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.folder: pathlib.Path = request.getfixturevalue('tmp_path')
        self.fixture = load_fixture()
        self.hosts = self.fixture.PmemHosts(addresses=())
        self.hosts.setUp()
        self._count = 0
        self._keys: dict[Device, str] = {}

    def device(self, extra: int = 0) -> Device:
        # A multiple of the alignment, as on every real device.
        size = self.SIZE + -(-extra // self.fixture.ALIGN) * self.fixture.ALIGN
        return self._add('ns_%d' % self._count, size)

    def only(self, *names: str) -> list[Device]:
        for key in self._keys.values():
            self.hosts.remove_namespace(key)
        self._keys = {}
        return [self.add(name) for name in names]

    def add(self, name: str) -> Device:
        return self._add(name, self.SIZE)

    def _add(self, name: str, size: int) -> Device:
        key = 'key_%d' % self._count
        self._count += 1
        self.hosts.add_namespace(key, size, listed=name)
        device = Device(name, self.hosts.path(key), size)
        self._keys[device] = key
        return device

    def remove(self, device: Device) -> None:
        self.hosts.remove_namespace(self._keys.pop(device))

    def enable(self, device: Device, enabled: bool = True) -> None:
        self.hosts.enable_namespace(self._keys[device], enabled)

    def run(
        self, tool: str, *args: str, stdin: bytes = b'', user: str = 'root',
    ) -> Result:
        uid = 0 if user == 'root' else self.fixture.NOVA_UID
        return self._run([tool, *args], stdin, uid)

    def shell(self, script: str) -> Result:
        return self._run(['bash', '-c', script], b'', 0)

    def _run(self, command: list[str], stdin: bytes, uid: int) -> Result:
        done = subprocess.run(
            command, input=stdin, capture_output=True, cwd=self.folder,
            env=dict(os.environ, PMEM_STAND_IN_UID=str(uid)), timeout=60)
        return Result(done.returncode, done.stdout, done.stderr.decode())

    def peek(self, device: Device, offset: int, length: int) -> bytes:
        return self.hosts.read(self._keys[device], offset, length)

    def poke(self, device: Device, offset: int, data: bytes) -> None:
        self.hosts.write(self._keys[device], offset, data)

    def read_file(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def write_file(self, name: str, data: bytes) -> None:
        (self.folder / name).write_bytes(data)

    def mode(self, name: str) -> int | None:
        path = self.folder / name
        return path.stat().st_mode & 0o777 if path.exists() else None

    def close(self) -> None:
        self.hosts.cleanUp()
