# SPDX-License-Identifier: Apache-2.0

"""Reaching a receiver: at its socket, or through ssh."""

from collections import abc
import contextlib
import os
import select
import shlex
import socket
import subprocess
import time
import typing as ty

from nova.virt.pmem_transfer import processes
from nova.virt.pmem_transfer import wire

#: Seconds between a login and the connection through it. sshd says something
#: by itself then. If we ask before that has come, its answer lies behind that
#: until TCP has acknowledged it, which takes 40 ms.
SETTLING = 0.005


class Broken(Exception):
    """The connection has ended before its time; another one may help."""


class Refused(Exception):
    """The copy can't be done.

    :ivar number: of the extent that it failed at, if it did at one
    """

    def __init__(self, reason: str, number: int | None = None) -> None:
        super().__init__(reason)
        self.number = number


@contextlib.contextmanager
def connected(job: wire.Sending, guard: processes.Guard) -> abc.Iterator[
        socket.socket]:
    """Reach the receiver.

    :raises Broken: if that fails
    """
    with contextlib.ExitStack() as stack:
        if not job.address:
            yield stack.enter_context(_unix(job.socket))
        elif job.join:
            ours, theirs = socket.socketpair()
            stack.enter_context(ours)
            with theirs:
                ssh = stack.enter_context(_ssh(
                    guard, [*job.ssh, '--', job.address, '%s %s' % (
                        job.join, shlex.quote(job.socket))],
                    stdin=theirs, stdout=theirs))
            with _explained(ssh):
                yield ours
        else:
            local = local_path(job.local)
            stack.callback(_remove, local)
            ssh = stack.enter_context(_ssh(
                guard, [*job.ssh, '-N', '-L', '%s:%s' % (local, job.socket),
                        '-o', 'ExitOnForwardFailure=yes',
                        '-o', 'PermitLocalCommand=yes',
                        '-o', 'LocalCommand=echo ready', '--', job.address],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE))
            with _explained(ssh):
                if job.attempt:
                    # While ssh logs in.
                    wire.prepare_tags()
                _wait_for_forwarding(ssh, job.stall_timeout)
                time.sleep(SETTLING)
                connection = stack.enter_context(_unix(local))
                _remove(local)
                yield connection


def advice(said: str) -> str:
    """Return what to look at after what ssh has said, if that is known."""
    # sshd does not tell the one from the other.
    return (' (nobody listens there, or sshd on the other host forbids '
            'forwarding, by DisableForwarding or AllowStreamLocalForwarding: '
            'allow it, or set [libvirt] pmem_copy_join_command)'
            if 'open failed' in said else '')


def local_path(beginning: str) -> str:
    """Return a path for a socket of ssh that nothing else has."""
    return beginning + os.urandom(4).hex()


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _unix(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
    except OSError as error:
        connection.close()
        raise Broken('the receiver can not be reached: %s' % error)
    return connection


@contextlib.contextmanager
def _ssh(guard: processes.Guard, argv: list[str],
         **streams: ty.Any) -> abc.Iterator[subprocess.Popen]:
    try:
        process = subprocess.Popen(
            argv, process_group=guard.group,
            # The guard only knows when the sender is gone. A stream has no
            # threads, and starts nothing else.
            preexec_fn=processes.die_with_parent,
            # As which it runs the local command.
            env=dict(os.environ, SHELL='/bin/sh'), **streams)
    except OSError as error:
        raise Broken('ssh did not start: %s' % error)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _wait_for_forwarding(ssh: subprocess.Popen, timeout: float) -> None:
    if not select.select([ssh.stdout], [], [], timeout)[0]:
        raise Broken('ssh was not ready after %g seconds' % timeout)
    if os.read(ssh.stdout.fileno(), 6) != b'ready\n':
        raise Broken('ssh is not ready')


@contextlib.contextmanager
def _explained(ssh: subprocess.Popen) -> abc.Iterator[None]:
    """Have who is told of a broken connection know how ssh has ended."""
    try:
        yield
    except Broken as error:
        with contextlib.suppress(subprocess.TimeoutExpired):
            # One that forwards goes on without a connection.
            status = ssh.wait(processes.LAST_WORDS if ssh.stdin is None and
                              ssh.stdout is None else 0.1)
            how = processes.how_ended(status)
            # 255 is of ssh itself, and more than 128 of a shell whose command
            # was killed; less, of one that is not there, or does not want.
            if 0 < status < 128:
                raise Refused('ssh %s' % how)
            raise Broken('ssh %s: %s' % (how, error))
        raise
