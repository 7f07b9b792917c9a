# SPDX-License-Identifier: Apache-2.0

"""Whether vPMEM data gets from this host to another one.

A copy's own ssh leads there, and what it says is data: whoever shows a line
takes care of that.
"""

from collections import abc
import contextlib
import json
import os
import re
import secrets
import select
import shlex
import socket
import subprocess
import tempfile
import time
import typing as ty

from oslo_utils import units

import nova.conf
from nova.virt.libvirt.pmem import check_host
from nova.virt.libvirt.pmem import transfer
from nova.virt.pmem_transfer import wire

CONF = nova.conf.CONF

Line = check_host.Line
TIMEOUT = check_host.TIMEOUT
Wrong = check_host.Wrong

#: Seconds that the clocks of two hosts may differ. What a lost message has
#: left is told by its age; a minute counts, so this is on the safe side.
CLOCKS = 5

#: The speed is measured over so many bytes, or so many seconds.
MOST, LONGEST = 64 * units.Mi, 3

#: Seconds after which a connection that nobody has ended was let in.
OPEN = 2

#: Bytes that are kept of what ssh says.
WORDS = 256 * units.Ki

#: What the peer does to tell its clock, and how fast it is reached.
ANSWER = 'date +%s.%N; cat > /dev/null; echo end'

#: How a peer is asked for what it finds itself.
OWN = 'nova-pmem-copy check --json'

#: Where something listens on many hosts, for any user.
LISTENERS = ('/run/dbus/system_bus_socket', '/run/systemd/journal/stdout')

#: What is done about what ssh says.
REMEDIES = {
    'Host key verification failed': "put the peer's host key into the "
                                    'known_hosts of this user',
    'Permission denied': "put this user's public key into authorized_keys "
                         'of that user there',
    'Could not resolve': 'give its [libvirt]migration_inbound_addr',
    'Connection refused': 'start sshd there, or tell ssh its port',
    'timed out': 'look at the network and at firewalls between the hosts',
    'No route to host': 'look at the network between the hosts',
    'no matching cipher': 'see [libvirt]pmem_copy_ciphers',
    'Bad SSH2 cipher': 'see [libvirt]pmem_copy_ciphers',
}


def explain(words: str) -> str:
    """Return what ssh said of its failure, and what to do about it."""
    lines = [line.strip() for line in words.splitlines()
             if line.strip() and not line.startswith(
                 ('debug', 'OpenSSH_', 'Authenticated to '))]
    said = ' '.join(lines[-3:])
    if not said:
        return 'no answer in %d seconds: look at the network' % TIMEOUT
    for text, remedy in REMEDIES.items():
        if text in said:
            return '%s: %s' % (said, remedy)
    return said


def cipher_of(words: str) -> Line:
    """Return the cipher that ``ssh -v`` tells; what a peer says comes later.
    """
    found = re.search(r'^debug1: kex: client->server cipher: (\S+)', words,
                      re.MULTILINE)
    return (Line('cipher', True, found[1]) if found else
            Line('cipher', None, 'ssh does not tell'))


def clock_of(answer: bytes, asked: float, told: float) -> Line:
    """Compare a peer's clock.

    :param answer: seconds since the epoch, by the peer's clock
    :param asked: the same by ours, before it was asked
    :param told: the same, when it had answered
    """
    try:
        ahead = float(answer)
    except ValueError:
        ahead = float('nan')
    if not 0 < ahead < 1e11:
        return Line('clock', None, 'the login there runs no command: '
                    'compare the clocks by hand')
    # By as little as it can be.
    apart = max(asked - ahead, ahead - told, 0)
    text = '%.1f seconds apart' % apart
    if apart > CLOCKS:
        return Line('clock', False, text + ': set both clocks, by NTP say')
    return Line('clock', True, text)


def judge_join(path: str, status: int, output: str, words: str) -> str:
    """Say whether the join command was run for a socket that is not there.

    :raises Wrong: if it was not, or something else speaks
    """
    if output.strip():
        raise Wrong('something prints %r where the join command is to: look '
                    "at the shell's start-up files" % output[:200])
    if status in (126, 127) or not (
            path in words and 'No such file' in words):
        raise Wrong('%s (status %d): see [libvirt]pmem_copy_join_command' % (
            explain(words), status))
    return CONF.libvirt.pmem_copy_join_command


@contextlib.contextmanager
def _ssh(peer: str, options: list[str], *command: str) -> abc.Iterator[
        tuple[subprocess.Popen, abc.Callable[[], str]]]:
    """Start the ssh of a copy; give it, and a function for its words.

    :raises Wrong: if it does not start
    """
    with tempfile.TemporaryFile() as file:
        def words() -> str:
            file.seek(0)
            return file.read(WORDS).decode('utf-8', 'replace')
        try:
            ssh = subprocess.Popen(
                _argv(peer, options, *command), stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=file, bufsize=0,
                env=dict(os.environ, SHELL='/bin/sh'), start_new_session=True)
        except OSError as error:
            raise Wrong('ssh did not start: %s' % error)
        with ssh:
            try:
                yield ssh, words
            finally:
                ssh.kill()


def _argv(peer: str, options: list[str], *command: str) -> list[str]:
    return [*transfer.ssh_argv(), '-o', 'ConnectTimeout=%d' % (TIMEOUT // 2),
            *options, '--', peer, *command]


def _line(stream: ty.IO[bytes]) -> bytes:
    """Return a line, or what has come of it when there is no more."""
    line, until = b'', time.monotonic() + TIMEOUT
    while not line.endswith(b'\n') and len(line) < 1000:
        if not select.select([stream], [], [],
                             max(0, until - time.monotonic()))[0]:
            break
        byte = stream.read(1)
        if not byte:
            break
        line += byte
    return line


def check_login(peer: str) -> abc.Iterator[Line]:
    asked = time.time()
    with _ssh(peer, ['-v'], ANSWER) as (ssh, words):
        clock = clock_of(_line(ssh.stdout), asked, time.time())
        speed = clock.ok is not None and _speed(ssh)
        said = words()
    if 'Authenticated to ' not in said:
        raise Wrong(explain(said))
    yield Line('ssh', True, 'logs in')
    yield cipher_of(said)
    yield clock
    yield (Line('speed', True, '%.0f MiB/s over one of %d connections' % (
        speed / units.Mi, CONF.libvirt.pmem_copy_streams)) if speed else
           Line('speed', None, 'not measured'))


def _speed(ssh: subprocess.Popen) -> float | None:
    """Return the bytes a second that get there, None if that is not known."""
    os.set_blocking(ssh.stdin.fileno(), False)
    sent, began = 0, time.monotonic()
    with contextlib.suppress(OSError):
        while sent < MOST and time.monotonic() < began + LONGEST:
            if not select.select([], [ssh.stdin], [], LONGEST)[1]:
                return None
            sent += ssh.stdin.write(bytes(units.Mi)) or 0
        ssh.stdin.close()
        if _line(ssh.stdout) == b'end\n':
            return sent / (time.monotonic() - began)
    return None


def check_way(peer: str) -> abc.Iterator[Line]:
    """Whether data gets to a socket there, whoever carries it."""
    path = os.path.join(CONF.state_path, 'pmem-copy-check-%s.socket' %
                        secrets.token_hex(4))
    join = CONF.libvirt.pmem_copy_join_command
    if join:
        argv = _argv(peer, [], '%s %s' % (join, shlex.quote(path)))
        yield Line('join command', True,
                   judge_join(path, *check_host.run(*argv)))
    else:
        yield Line('forwarding', True, _forwarding(peer, path))


def _forwarding(peer: str, there: str) -> str:
    """Find a socket on a peer to which its sshd forwards.

    sshd tells the socket on which nobody listens from forwarding that is
    forbidden in no way. So there has to be a listener: one that sshd makes
    itself, from which it comes back to us, or, where it makes none, one of
    those that many hosts have.

    :raises Wrong: if there is none
    """
    # Not where TMPDIR says: the path of a socket is short.
    with (tempfile.TemporaryDirectory(dir='/tmp') as folder,
          socket.socket(socket.AF_UNIX) as listener):
        here = os.path.join(folder, 'here')
        ways = {os.path.join(folder, str(number)): path
                for number, path in enumerate((there, *LISTENERS))}
        listener.bind(here)
        listener.listen()
        options = ['-N', '-R', '%s:%s' % (there, here),
                   '-o', 'ExitOnForwardFailure=no',
                   '-o', 'PermitLocalCommand=yes',
                   '-o', 'LocalCommand=echo ready']
        for pair in ways.items():
            options += ['-L', '%s:%s' % pair]
        try:
            with _ssh(peer, options) as (ssh, words):
                if _line(ssh.stdout) != b'ready\n':
                    raise Wrong(explain(words()))
                first, *others = ways
                is_found = (_comes_back(first, listener) or
                            any(_is_open(way) for way in others))
                is_made = 'remote port forwarding failed' not in words()
        finally:
            # sshd leaves it there, and may have made it just now.
            with contextlib.suppress(Wrong):
                check_host.run(*_argv(
                    peer, [], 'rm -f -- %s' % shlex.quote(there)))
    if is_found:
        return 'sshd there forwards to sockets'
    raise Wrong('%s: see sshd -T there for AllowStreamLocalForwarding and '
                "DisableForwarding, and the key's options; or set "
                '[libvirt]pmem_copy_join_command' % (
                    'sshd there forwards to no socket' if is_made else
                    'not known, since sshd there makes no socket in %s, '
                    'because forwarding is forbidden or the folder is not '
                    "nova's there" % CONF.state_path))


def _comes_back(path: str, listener: socket.socket) -> bool:
    """Whether what goes to a socket comes out at a listener."""
    with socket.socket(socket.AF_UNIX) as ours:
        ours.connect(path)
        ready = select.select([listener, ours], [], [], TIMEOUT)[0]
        if listener not in ready:
            return False
        token = secrets.token_bytes(16)
        ours.sendall(token)
        with listener.accept()[0] as theirs:
            theirs.settimeout(TIMEOUT)
            with contextlib.suppress(OSError):
                return theirs.recv(16, socket.MSG_WAITALL) == token
    return False


def _is_open(path: str) -> bool:
    """Whether a socket is let in, and not ended at once."""
    with socket.socket(socket.AF_UNIX) as ours:
        ours.connect(path)
        return not select.select([ours], [], [], OPEN)[0] or bool(ours.recv(1))


def check_own(peer: str) -> abc.Iterator[Line]:
    """What a peer finds when it looks at itself."""
    try:
        answer = check_host.run(*_argv(peer, [], OWN))[1]
    except Wrong as error:
        yield Line('peer', None, '%s: run "%s" there by hand' % (error, OWN))
        return
    yield judge_own(answer)


def judge_own(answer: str) -> Line:
    """Say what a peer finds.

    The login may lead beside its nova-compute, to another container say. Then
    it finds nothing, or no configuration, which is not its own fault.

    :param answer: to ``OWN``
    """
    try:
        told = json.loads(answer)  # noqa: N324
        wrong = {str(check['name']): str(check['text'])
                 for check in told['checks']
                 if not check['ok'] and check['ok'] is not None}
        version = told['protocol']
    except (ValueError, KeyError, TypeError):
        return Line('peer', None, 'its login does not run "%s", or it is one '
                    'of another version: run that there by hand' % OWN)
    if 'configuration' in wrong:
        return Line('peer', None, 'its login has not the configuration of '
                    'nova-compute: run "%s" there by hand' % OWN)
    if version != wire.VERSION:
        return Line('peer', False, 'it speaks version %s of the protocol, and '
                    'this host version %d: finish the upgrade of both' % (
                        version, wire.VERSION))
    if wrong:
        return Line('peer', False, 'it finds there: ' + '; '.join(
            '%s: %s' % item for item in wrong.items()))
    return Line('peer', True, 'it finds nothing wrong there')


#: What is looked at, in this order; the first that is wrong is the last.
CHECKS = {'ssh': check_login, 'forwarding': check_way, 'peer': check_own}
