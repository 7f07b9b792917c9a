# SPDX-License-Identifier: Apache-2.0
"""Where the benchmark takes place: devices in memory, a sshd on loopback."""

from collections import abc
import compileall
import contextlib
import dataclasses
import importlib.util
import os
import pathlib
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import typing as ty

import fixtures
import psutil

from bench import memory
from nova.virt.libvirt.pmem import tickets
from nova.virt.libvirt.pmem import transfer
from nova.virt.pmem_transfer import receiver
from nova.virt.pmem_transfer import sender
from nova.virt.pmem_transfer import wire

MIB = 1024 * 1024
ADDRESS = '127.0.0.1'
SOURCE, TARGET = 'source', 'target'
TOOLS = pathlib.Path(__file__).parent / 'tools'

#: Data that is neither zero nor random comes in pieces of so many bytes.
PIECE = MIB

#: Write a device piece by piece, from its beginning on and again; say when the
#: first piece is written.
GUEST = """
import itertools, os, sys, time
with open(sys.argv[1], 'r+b', buffering=0) as device:
    piece, pause = int(sys.argv[2]), float(sys.argv[3])
    for number in itertools.count():
        if not number % (os.path.getsize(sys.argv[1]) // piece):
            device.seek(0)
        device.write(os.urandom(piece))
        if not number:
            print(flush=True)
        time.sleep(pause)
"""


def _load_fixture() -> ty.Any:
    """Import Nova's fixture by its path: its package is all of the tests."""
    path = pathlib.Path(receiver.__file__).parents[2].joinpath(
        'tests', 'fixtures', 'pmem.py')
    spec = importlib.util.spec_from_file_location('pmem_fixture', path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


pmem = _load_fixture()


class Place(contextlib.ExitStack):
    """Two devices of the same size, and the tools to copy between them.

    :ivar receiver: the process of the receiver
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.enter_context(
            fixtures.EnvironmentVariable('TMPDIR', memory.FOLDER))
        self.state = self.enter_context(fixtures.TempDir()).path
        transfer.CONF.set_override('state_path', self.state)
        os.mkdir(tickets.directory())
        self.socket = os.path.join(tickets.directory(), 'bench.socket')
        self.hosts = self.enter_context(pmem.PmemHosts([ADDRESS]))
        for name in (SOURCE, TARGET):
            self.hosts.add_namespace(name, size)
        self.source = self.hosts.path(SOURCE)
        self.target = self.hosts.path(TARGET)
        self._replace_tools()
        # As where it is installed; the tools of the tests leave no traces.
        compileall.compile_dir(
            pathlib.Path(receiver.__file__).parent, quiet=1)
        self.receiver: subprocess.Popen | None = None
        self.callback(self._end_receiver)

    def _replace_tools(self) -> None:
        """Put tools in place that are as quick as the real ones."""
        folder = pathlib.Path(self.hosts.bin)
        (folder / 'daxio').unlink()
        shutil.copy(TOOLS / 'daxio', folder / 'daxio')
        config = os.path.join(self.hosts.root, 'ssh', 'config')
        ssh = shutil.which('ssh', path=os.environ['PATH'].replace(
            self.hosts.bin, ''))
        (folder / 'ssh').write_text('#!/bin/sh\nexec %s -F %s "$@"\n' % (
            ssh, shlex.quote(config)))

    def prepare(self) -> None:
        """Make the target as a wiped one is: zero, with its memory there."""
        self._end_receiver()
        self._clear(self.target)

    def receive(self) -> None:
        """Have a receiver listen, as nova-compute does before the copy."""
        with tempfile.TemporaryFile('a+') as notes:
            self.receiver = subprocess.Popen(
                receiver.command(), stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, env=sender.environment(), text=True,
                pass_fds=[notes.fileno()])
            self.receiver.stdin.write(wire.Receiving(
                socket=self.socket, notes=notes.fileno(),
                targets=(wire.Target(
                    TARGET, self.target, self.size, self.size),)).to_json())
            self.receiver.stdin.write('\n')
            self.receiver.stdin.flush()
        said = self.receiver.stdout.readline()
        if said != receiver.READY:
            raise RuntimeError('the receiver does not listen: %s' % said)

    def _end_receiver(self) -> None:
        if self.receiver is not None:
            self.receiver.communicate()
            self.receiver = None

    def cpu(self) -> float:
        """Return the CPU seconds of all that was started, when it is idle."""
        here = psutil.Process()
        # What is left then is the listener of sshd, and a receiver.
        while any(each.name() != 'sh' for child in here.children()
                  for each in child.children()):
            time.sleep(0.01)
        ended = here.cpu_times()
        return ended.children_user + ended.children_system + sum(
            sum(each.cpu_times()[:4]) for each in here.children())

    def job(self, **options: object) -> wire.Sending:
        """Return the job of copying the source to the target."""
        return dataclasses.replace(transfer.new_job(
            'bench', self.socket, ADDRESS, [wire.Device(
                SOURCE, self.source, self.size, TARGET, self.size)]),
            **options)

    # What is on the source. The same seed for each round.

    def fill_random(self) -> int:
        """Fill it; return the bytes that are not zero."""
        self.hosts.fill(SOURCE, seed=1)
        return self.size

    def fill_zero(self) -> int:
        # Not holes: to read one through a mapping allocates memory.
        self._clear(self.source)
        return 0

    def fill_sparse(self, share: float = 0.1) -> int:
        """Scatter pieces of random data over zeros."""
        self.fill_zero()
        chance = random.Random(1)
        pieces = self.size // PIECE
        chosen = chance.sample(range(pieces), round(pieces * share))
        with open(self.source, 'r+b') as device:
            for piece in chosen:
                device.seek(piece * PIECE)
                device.write(chance.randbytes(PIECE))
        return len(chosen) * PIECE

    def write_here_and_there(self, piece: int, share: float = 0.01) -> None:
        """Change a part of it, as a guest does.

        :param piece: bytes that are written together, at a random place
        """
        chance = random.Random(self.size)
        with open(self.source, 'r+b') as device:
            for place in chance.sample(range(self.size // piece),
                                       round(self.size / piece * share)):
                device.seek(place * piece)
                # Other bytes in each round.
                device.write(os.urandom(piece))

    @contextlib.contextmanager
    def guest_that_writes(self, rate: int) -> abc.Iterator[None]:
        """Have somebody write all over it, again and again.

        :param rate: bytes per second, about
        """
        with subprocess.Popen(
                [sys.executable, '-c', GUEST, self.source, str(PIECE),
                 str(PIECE / rate)], stdout=subprocess.PIPE) as guest:
            try:
                guest.stdout.read(1)
                yield
            finally:
                guest.kill()

    def fill_text(self) -> int:
        """Fill it with what compresses well, and has no zeros."""
        chance = random.Random(1)
        words = [bytes(chance.choices(range(97, 123), k=chance.randint(2, 9)))
                 for _ in range(5000)]
        piece = b' '.join(chance.choices(words, k=PIECE // 4))[:PIECE]
        with open(self.source, 'r+b') as device:
            for _ in range(self.size // PIECE):
                device.write(piece)
        return self.size

    def _clear(self, path: str) -> None:
        with open(path, 'r+b') as device:
            piece = bytes(PIECE)
            for _ in range(self.size // PIECE):
                device.write(piece)

    def is_copied(self) -> bool:
        with open(self.source, 'rb') as one, open(self.target, 'rb') as two:
            return all(one.read(PIECE) == two.read(PIECE)
                       for _ in range(self.size // PIECE))
