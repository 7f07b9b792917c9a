# SPDX-License-Identifier: Apache-2.0
"""Where the benchmark takes place: devices in memory, a sshd on loopback."""

import compileall
import contextlib
import importlib.util
import json
import os
import pathlib
import random
import shlex
import shutil
import sys
import typing as ty

import fixtures

from bench import memory
from nova.virt.pmem_transfer import extents
from nova.virt.pmem_transfer import job as pmem_job
from nova.virt.pmem_transfer import receiver
from nova.virt.pmem_transfer import ticket as pmem_ticket

MIB = 1024 * 1024
ADDRESS = '127.0.0.1'
HOST = 'bench'
MIGRATION = '11111111-2222-3333-4444-555555555555'
SOURCE, TARGET = 'source', 'target'
TOOLS = pathlib.Path(__file__).parent / 'tools'

#: Data that is neither zero nor random comes in pieces of so many bytes.
PIECE = MIB


def _load_fixture() -> ty.Any:
    """Import Nova's fixture by its path: its package is all of Nova."""
    path = pathlib.Path(receiver.__file__).parents[2].joinpath(
        'tests', 'fixtures', 'pmem.py')
    spec = importlib.util.spec_from_file_location('pmem_fixture', path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


pmem = _load_fixture()


class Place(contextlib.ExitStack):
    """Two devices of the same size, and the tools to copy between them."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.enter_context(
            fixtures.EnvironmentVariable('TMPDIR', memory.FOLDER))
        self.state = self.enter_context(fixtures.TempDir()).path
        self.hosts = self.enter_context(pmem.PmemHosts({ADDRESS: {
            'OS_DEFAULT__STATE_PATH': self.state,
            'OS_DEFAULT__HOST': HOST}}))
        for name in (SOURCE, TARGET):
            self.hosts.add_namespace(name, size)
        self.source = self.hosts.path(SOURCE)
        self.target = self.hosts.path(TARGET)
        self._replace_tools()
        # As where it is installed; the tools of the tests leave no traces.
        compileall.compile_dir(
            pathlib.Path(receiver.__file__).parent, quiet=1)
        self._open_ticket()

    def _replace_tools(self) -> None:
        """Put tools in place that are as quick as the real ones."""
        folder = pathlib.Path(self.hosts.bin)
        (folder / 'daxio').unlink()
        shutil.copy(TOOLS / 'daxio', folder / 'daxio')
        nodes = json.dumps([{
            'name': name, 'size': self.size, 'daxregion': {'devices': [{
                'chardev': os.path.relpath(self.hosts.path(name), '/dev'),
                'size': self.size}]}} for name in (SOURCE, TARGET)])
        config = os.path.join(self.hosts.root, 'ssh', 'config')
        ssh = shutil.which('ssh', path=os.environ['PATH'].replace(
            self.hosts.bin, ''))
        for name, line in (
                ('ndctl', 'echo %s' % shlex.quote(nodes)),
                ('ssh', 'exec %s -F %s "$@"' % (ssh, shlex.quote(config)))):
            (folder / name).write_text('#!/bin/sh\n%s\n' % line)

    def _open_ticket(self) -> None:
        folder = pathlib.Path(self.state, pmem_ticket.FOLDER)
        folder.mkdir()
        ticket = pmem_ticket.Ticket(
            HOST, MIGRATION, MIGRATION, (pmem_ticket.Target(
                TARGET, self.size, self.size, os.getuid(), os.getgid()),))
        (folder / pmem_ticket.file_name(MIGRATION)).write_text(
            ticket.to_json())

    def job(self, **options: object) -> pmem_job.Job:
        """Return the job of copying the source to the target."""
        options = dict({'extent': extents.LARGEST, 'parent': os.getpid()},
                       **options)
        return pmem_job.Job(
            receiver=('ssh', '-o', 'BatchMode=yes', ADDRESS,
                      '%s %s' % (receiver.COMMAND, MIGRATION)),
            devices=(pmem_job.Device(
                SOURCE, self.source, self.size, TARGET, self.size),),
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

    def clear_target(self) -> None:
        """Make the target as a wiped one is: zero, with its memory there."""
        self._clear(self.target)

    def _clear(self, path: str) -> None:
        with open(path, 'r+b') as device:
            piece = bytes(PIECE)
            for _ in range(self.size // PIECE):
                device.write(piece)

    def is_copied(self) -> bool:
        with open(self.source, 'rb') as one, open(self.target, 'rb') as two:
            return all(one.read(PIECE) == two.read(PIECE)
                       for _ in range(self.size // PIECE))
