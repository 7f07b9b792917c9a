# SPDX-License-Identifier: Apache-2.0

"""Whether this host is set up for moves of vPMEM data.

A check yields lines, and changes nothing. Nothing that it starts can keep it
for long, or ask.
"""

from collections import abc
import contextlib
import multiprocessing
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import typing as ty

from oslo_config import cfg
from oslo_utils import units

import nova.conf
from nova.conf import pmem_copy as options
import nova.privsep.pmem
from nova.virt.libvirt.pmem import namespaces
from nova.virt.libvirt.pmem import tickets
from nova.virt import pmem_device
from nova.virt.pmem_transfer import connection
from nova.virt.pmem_transfer import receiver

CONF = nova.conf.CONF

#: Seconds that each program, and each answer of a peer, may take.
TIMEOUT = 20

#: Bytes that there has to be space for, on the disk of the tickets.
LEAST_SPACE = 64 * units.Ki

#: Lines that are kept of what else is said when something fails.
LAST_WORDS = 3


class Wrong(Exception):
    """Moves can't work; the text says why, and what to do."""


class Line(ty.NamedTuple):
    """What was found.

    :ivar ok: None if it can't be told
    """

    name: str
    ok: bool | None
    text: str


class Seen(ty.NamedTuple):
    """A namespace; sizes are in bytes, and an alignment of 0 is not known."""

    name: str
    size: int
    align: int
    node: str
    bad: str | None


def configured_names(groups: abc.Iterable[str]) -> list[str]:
    """Return the names in ``[libvirt]pmem_namespaces``.

    :raises Wrong: if it is not in the form that nova-compute takes
    """
    names: list[str] = []
    for group in groups:
        label, colon, rest = group.partition(':')
        if not (label and colon and all(rest.split('|'))):
            raise Wrong('[libvirt]pmem_namespaces has %r: write '
                        'LABEL:NAME|NAME,LABEL:NAME' % group)
        names += rest.split('|')
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Wrong('[libvirt]pmem_namespaces names more than once: %s'
                    % ', '.join(twice))
    if not names:
        raise Wrong('[libvirt]pmem_namespaces is empty: this host has no '
                    'vPMEM for servers')
    return names


def judge_namespaces(names: abc.Iterable[str], seen: abc.Iterable[Seen],
                     odd: abc.Container[str]) -> str:
    """Say of what sizes namespaces are.

    :param odd: names of those that can't be used
    :raises Wrong: if one can't be moved, or data to it
    """
    found = {each.name: each for each in seen}
    told, wrong = [], []
    for name in names:
        each = found.get(name)
        if name in odd:
            wrong.append('%s is there twice, or not in mode devdax' % name)
        elif each is None:
            wrong.append('%s is missing' % name)
        elif each.bad:
            wrong.append('%s has %s' % (name, each.bad))
        elif each.align and each.size % each.align:
            wrong.append('%s of %d bytes is not aligned to %d' % (
                name, each.size, each.align))
        else:
            told.append('%s %g MiB%s' % (
                name, each.size / units.Mi,
                each.align and ' by %g' % (each.align / units.Mi) or ''))
    if wrong:
        raise Wrong('%s: see ndctl list -X -M' % '; '.join(wrong))
    return ', '.join(told)


def run(*argv: str) -> tuple[int, str, str]:
    """Run a program that may not ask, and not take long.

    :returns: its status, output and errors
    :raises Wrong: if it can't be run, or takes too long
    """
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True,
            timeout=TIMEOUT, start_new_session=True)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Wrong(str(error))
    return (done.returncode, done.stdout.decode('utf-8', 'replace'),
            done.stderr.decode('utf-8', 'replace'))


def apart(function: abc.Callable[[], ty.Any]) -> ty.Any:
    """Return what a function returns, in a process that can't ask.

    privsep waits for as long as its helper takes, and sudo asks for a
    password at any terminal that it finds.

    :raises Wrong: if it fails, or takes too long
    """
    ours, theirs = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context('fork').Process(
        target=_answer, args=(theirs, function))
    child.start()
    theirs.close()
    try:
        if not ours.poll(TIMEOUT):
            raise Wrong('no answer in %d seconds' % TIMEOUT)
        is_done, answer = ours.recv()
    except EOFError:
        raise Wrong('it ended without an answer')
    finally:
        ours.close()
        with contextlib.suppress(OSError):
            os.killpg(child.pid, signal.SIGKILL)
        child.join(TIMEOUT)
    if not is_done:
        raise Wrong(answer)
    return answer


def _answer(pipe: ty.Any, function: abc.Callable[[], ty.Any]) -> None:
    os.setsid()
    # What else speaks, as privsep's helper and sudo do, is of use only if
    # that fails.
    with tempfile.TemporaryFile() as said:
        for stream in (1, 2):
            os.dup2(said.fileno(), stream)
        try:
            answer = True, function()
        except Exception as error:
            said.seek(0)
            words = said.read().decode('utf-8', 'replace').splitlines()
            answer = False, ' / '.join([str(error), *words[-LAST_WORDS:]])
    pipe.send(answer)


def _look() -> tuple[list[Seen], set[str]]:
    bad = namespaces.bad_blocks()
    return [Seen(each.name, each.size, each.align, each.devpath,
                 bad.get(each.name))
            for each in namespaces.list_namespaces().values()
            ], namespaces.odd_names()


def check_configuration() -> abc.Iterator[Line]:
    files = [*(CONF.config_file or ()), *(CONF.config_dir or ())]
    if not files:
        raise Wrong('none found: name it, with --config-file before check')
    for option in options.OPTS:
        try:
            getattr(CONF.libvirt, option.dest)
        except cfg.Error as error:
            raise Wrong(str(error))
    yield Line('configuration', True, ', '.join(files))


def check_tokens() -> abc.Iterator[Line]:
    if not CONF.service_user.send_service_user_token:
        raise Wrong('set [service_user]send_service_user_token: else a copy '
                    "that takes longer than its user's token is valid is "
                    'taken back at its end')
    yield Line('tokens', True, 'nova-compute sends one of its own, too')


def check_state_path() -> abc.Iterator[Line]:
    folder = tickets.directory()
    try:
        owner = os.stat(CONF.state_path).st_uid
        if owner != os.geteuid():
            raise Wrong('%s is of user %s: run this as nova-compute does' % (
                CONF.state_path, _name(owner)))
        there = folder if os.path.isdir(folder) else CONF.state_path
        with tempfile.TemporaryFile(dir=there) as file:
            # A disk that is full takes a file, and nothing in it.
            file.write(bytes(LEAST_SPACE))
            file.flush()
    except OSError as error:
        raise Wrong('%s: nova-compute writes tickets to %s' % (error, folder))
    yield Line('state path', True, folder if there == folder else
               '%s, which will be made' % folder)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def check_sockets() -> abc.Iterator[Line]:
    """The paths of receivers' sockets, and of ssh's own, are limited."""
    longest = connection.local_path(tickets.local_socket_of('0' * 36))
    beyond = len(os.fsencode(longest)) - receiver.LONGEST_PATH
    if beyond > 0:
        raise Wrong('paths of sockets get too long: make [DEFAULT]state_path '
                    'shorter by %d bytes' % beyond)
    yield Line('sockets', True, 'their paths are short enough')


def check_devices() -> abc.Iterator[Line]:
    try:
        seen, odd = apart(_look)
    except Wrong as error:
        raise Wrong('%s: %s' % (str(error).rstrip('.'), (
            'run this as nova-compute does, with its configuration, and look '
            'at sudo and rootwrap' if 'privsep' in str(error) else
            'see that ndctl is installed, and works as root')))
    yield Line('ndctl', True, 'lists %d namespaces' % len(seen))
    names: list[str] = []
    try:
        names = configured_names(CONF.libvirt.pmem_namespaces)
        yield Line('namespaces', True, judge_namespaces(names, seen, odd))
    except Wrong as error:
        yield Line('namespaces', False, str(error))
    used = [each for each in seen if each.name in names]
    if used:
        yield _nodes(used)


def _nodes(seen: abc.Iterable[Seen]) -> Line:
    wrong = []
    for each in seen:
        try:
            size = pmem_device.size(each.node)
            if size != each.size:
                wrong.append('%s has %d bytes and not %d' % (
                    each.node, size, each.size))
        except (OSError, ValueError) as error:
            wrong.append(str(error))
    if wrong:
        return Line('device nodes', False, '%s: is /dev that of the host?' %
                    '; '.join(wrong))
    return Line('device nodes', True, ' '.join(each.node for each in seen))


def check_daxio() -> abc.Iterator[Line]:
    path = shutil.which('daxio')
    if path is None:
        raise Wrong('not found: install it, on the PATH of nova-compute')
    status, output, words = run(path, '--version')
    if status != 0:
        raise Wrong('%s ended with status %d: %s' % (path, status, words))
    try:
        apart(nova.privsep.pmem.check_daxio)
    except Wrong as error:
        raise Wrong('%s is not found by root, who wipes with it: %s' % (
            path, error))
    yield Line('daxio', True, '%s, version %s' % (
        path, (output or words).strip()))


#: What is looked at, in this order; some have more than one line.
CHECKS = {
    'configuration': check_configuration, 'tokens': check_tokens,
    'state path': check_state_path, 'sockets': check_sockets,
    'ndctl': check_devices, 'daxio': check_daxio}
