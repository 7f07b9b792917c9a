#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.

"""The processes that move and check the bytes of vPMEM devices.

A device DAX node can only be mapped, so ``daxio`` reads and writes it. Its
exit status says little: it is 0 for a copy that was cut short (by the end of
its input, or of the device). So a copy counts only when every process ended
well, both ``daxio`` reported the expected number of bytes, and the target,
read back, has the digest of the source.
"""

from collections import abc
import contextlib
import os
import re
import shlex
import signal
import subprocess
import tempfile
import typing as ty

from oslo_log import log as logging

from nova.i18n import _
from nova.virt.pmem import layout

LOG = logging.getLogger(__name__)

#: What daxio 1.12 writes to stderr after a transfer, however short it was.
COPIED = re.compile(r'^daxio: copied (\d+) bytes to device ', re.MULTILINE)

#: Bytes of a process's stderr that are kept for an error message.
STDERR_KEPT = 2048

#: Called with a process that was started, or has ended.
ProcessHook = abc.Callable[[subprocess.Popen], None]


class TransferFailed(Exception):
    """A transfer did not do what was asked, or can't be shown to have."""


class Shell(ty.NamedTuple):
    """Where commands run: this host, or the host at ``address``.

    ssh gets the options that Nova gives it elsewhere, so that the deployer's
    keys and configuration apply. It asks the peer for a sign of life every 15
    seconds and gives up after three without: a destination that lost power
    must not keep the guest switched off for hours.
    """

    address: str | None = None

    def argv(self, command: str) -> list[str]:
        if self.address is None:
            return ['sh', '-c', command]
        return ['ssh', '-o', 'BatchMode=yes', '-o', 'ServerAliveInterval=15',
                '-o', 'ServerAliveCountMax=3', self.address, command]

    def __str__(self) -> str:
        return self.address or 'localhost'


class _Process:
    """A child process with its stderr in a file.

    It inherits none of our own streams: ssh makes those that it is given
    non-blocking, and they would be so for us as well.
    """

    def __init__(
        self, argv: list[str], stdin: ty.Any = subprocess.DEVNULL,
        stdout: ty.Any = subprocess.DEVNULL,
    ) -> None:
        self.name = os.path.basename(argv[0])
        self._stderr = tempfile.TemporaryFile()
        try:
            # A session of its own, so that what a shell has started in turn
            # ends with it.
            self.popen = subprocess.Popen(
                argv, stdin=stdin, stdout=stdout, stderr=self._stderr,
                start_new_session=True)
        except OSError as error:
            self._stderr.close()
            raise TransferFailed(
                _('%(name)s did not start: %(error)s') %
                {'name': self.name, 'error': error})

    @property
    def stderr(self) -> str:
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - STDERR_KEPT))
        return self._stderr.read().decode('utf-8', 'replace').strip()

    def check(self, where: 'Shell') -> None:
        if self.popen.wait() != 0:
            raise TransferFailed(
                _('%(name)s (%(where)s) ended with status %(status)d: '
                  '%(stderr)s') %
                {'name': self.name, 'where': where,
                 'status': self.popen.returncode,
                 'stderr': self.stderr or _('no message')})

    def end(self) -> None:
        if self.popen.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()
        if self.popen.stdout:
            self.popen.stdout.close()
        self._stderr.close()


class Transfer:
    """Copies between devices; every process goes through the two hooks."""

    def __init__(
        self, destination: Shell, on_execute: ProcessHook,
        on_completion: ProcessHook,
    ) -> None:
        self._here = Shell()
        self._there = destination
        self._on_execute = on_execute
        self._on_completion = on_completion

    def copy(self, source: str, target: str,
             sections: abc.Iterable[layout.Section]) -> None:
        """Write the sections of a target device and read them back.

        :param source: path of the source device on this host
        :param target: path of the target device on the destination
        :param sections: see :func:`layout.sections`
        :raises TransferFailed: if anything but the whole is proven copied
        """
        sections = list(sections)
        for section in sections:
            if section.source_offset is None:
                self._zero(target, section)
            else:
                self._send(source, target, section)
        for section in sections:
            self._compare(source, target, section)

    def _send(self, source: str, target: str,
              section: layout.Section) -> None:
        with self._running() as start:
            reader, writer = self._pipe(
                start, _read(source, section.source_offset, section.length),
                self._there.argv(_write(target, section) + ' -b no'))
            # If one end stops, the other one fails as well; so it is the
            # first in this order whose message tells why.
            writer.check(self._there)
            if reader.popen.wait() != -signal.SIGPIPE:
                reader.check(self._here)
                _check_count(reader, section.length, self._here)
            _check_count(writer, section.length, self._there)
            reader.check(self._here)

    def _zero(self, target: str, section: layout.Section) -> None:
        with self._running() as start:
            process = start(self._there.argv(
                _write(target, section) + ' -z -b no'))
            process.check(self._there)
            _check_count(process, section.length, self._there)

    def _compare(self, source: str, target: str,
                 section: layout.Section) -> None:
        if section.source_offset is None:
            wanted = ['head', '-c', str(section.length), '/dev/zero']
        else:
            wanted = _read(source, section.source_offset, section.length)
        found = shlex.join(
            _read(target, section.target_offset, section.length))
        with self._running() as start:
            theirs = start(self._there.argv(found + ' | sha256sum'),
                           stdout=subprocess.PIPE)
            reader, mine = self._pipe(
                start, wanted, ['sha256sum'], stdout=subprocess.PIPE)
            expected = _digest(mine, self._here)
            reader.check(self._here)
            actual = _digest(theirs, self._there)
            # A digest of nothing equals a digest of nothing, so the lengths
            # are part of the comparison.
            if section.source_offset is not None:
                _check_count(reader, section.length, self._here)
            _check_count(theirs, section.length, self._there)
        if actual != expected:
            raise TransferFailed(
                _('%(target)s (%(where)s) reads back different from what was '
                  'sent, in %(length)d bytes from offset %(offset)d') %
                {'target': target, 'where': self._there,
                 'length': section.length, 'offset': section.target_offset})

    @staticmethod
    def _pipe(
        start: abc.Callable[..., _Process], first: list[str],
        second: list[str], **kwargs: ty.Any,
    ) -> tuple[_Process, _Process]:
        """Start two processes, the output of one being the other's input.

        The pipe is ours and not Popen's: under eventlet that one does not
        block, and the processes inherit that. It is closed here, so that
        each process sees it when the other one goes away.
        """
        output, inlet = os.pipe()
        try:
            return (start(first, stdout=inlet),
                    start(second, stdin=output, **kwargs))
        finally:
            os.close(output)
            os.close(inlet)

    @contextlib.contextmanager
    def _running(self) -> abc.Iterator[abc.Callable[..., _Process]]:
        """Start processes; on the way out none is left."""
        processes: list[_Process] = []

        def start(argv: list[str], **kwargs: ty.Any) -> _Process:
            process = _Process(argv, **kwargs)
            processes.append(process)
            self._on_execute(process.popen)
            return process

        try:
            yield start
        finally:
            for process in processes:
                process.end()
                self._on_completion(process.popen)


def _read(device: str, offset: int, length: int) -> list[str]:
    return ['daxio', '-i', device, '-k', str(offset), '-l', str(length)]


def _write(device: str, section: layout.Section) -> str:
    return shlex.join(['daxio', '-o', device, '-s',
                       str(section.target_offset), '-l', str(section.length)])


def _digest(process: _Process, where: Shell) -> str:
    output = process.popen.stdout.read().decode('ascii', 'replace')
    process.check(where)
    words = output.split()
    if not words or not re.fullmatch('[0-9a-f]{64}', words[0]):
        raise TransferFailed(
            _('sha256sum (%(where)s) printed no digest but %(output)r') %
            {'where': where, 'output': output[:STDERR_KEPT]})
    return words[0]


def _check_count(process: _Process, length: int, where: Shell) -> None:
    stderr = process.stderr
    counts = [int(count) for count in COPIED.findall(stderr)]
    if counts != [length]:
        raise TransferFailed(
            _('daxio (%(where)s) was to move %(length)d bytes and said: '
              '%(stderr)s') %
            {'where': where, 'length': length,
             'stderr': stderr or _('nothing')})
