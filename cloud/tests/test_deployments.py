# SPDX-License-Identifier: Apache-2.0
"""The ways that deployments differ, each with the result that is right."""

from collections import abc
import contextlib
import functools

from cloud import compute
from cloud.compute import Compute
from cloud.compute import SSH_CONFIG
from cloud.scene import Server
from cloud.tests import conftest
import pytest

#: That something can't be set up, or does not end, is a failure all the same.
is_open = functools.partial(conftest.is_open, raises=AssertionError)

#: The option that names what joins its input and output to the receiver.
COMMAND = 'pmem_copy_receiver'

_HOME = '/var/lib/nova'
_KEYS = _HOME + '/.ssh/authorized_keys'

#: As where somebody wants to see who may do what by ssh. Disks need these.
_WHITELIST = """\
#!/bin/sh
set -- $SSH_ORIGINAL_COMMAND
case ${1##*/} in
    mkdir|rm|touch|scp|sftp-server|rsync) exec "$@" ;;
esac
echo "not allowed here: $1" >&2
exit 1
"""


@contextlib.contextmanager
def _untouched(server: Server) -> abc.Iterator[None]:
    """Check that a guest runs on, from before to after."""
    host = server.host
    guest = host.guest(server.uuid)
    yield
    assert host.guest(server.uuid) == guest, 'its guest was stopped'


def _moves(server: Server) -> Server:
    server.migrate()
    server.arrives()
    return server


def _is_refused(server: Server) -> str:
    """Check that a move is refused with the guest running; return why."""
    with _untouched(server):
        server.migrate()
        server.ends_move('error')
        server.has_its_data()
    return server.reason()


def _key_with(target: Compute, options: str):
    """Have the key of nova's user be accepted with options only."""
    return target.replaced(_KEYS, '%s %s' % (
        options, target.path(_KEYS).read_text()))


# How ssh lands

@is_open('I', 'the receiver is a command behind the shell')
def test_login_shell_that_prints(scene, source, target):
    server = scene.boot(on=source)
    # Nova's own scp of the disks does not stand it, but in sshd itself.
    with target.serving_ssh('Subsystem sftp internal-sftp'), \
            target.replaced(_HOME + '/.bashrc', 'echo Welcome!\n', like=_KEYS):
        _moves(server)


def _talkative(source: Compute, target: Compute):
    """Have ssh print more than fits into any event."""
    stack = contextlib.ExitStack()
    # Then it tells of the banner, and of each key that it does not know.
    stack.enter_context(source.replaced(
        _HOME + '/.ssh/config', SSH_CONFIG.replace('LogLevel ERROR', '')))
    stack.enter_context(target.replaced(
        '/etc/ssh/banner', 'Only for those who may be here.\n' * 96,
        like='/etc/ssh/sshd_config'))
    stack.enter_context(target.serving_ssh('Banner /etc/ssh/banner'))
    return stack


def test_banner_and_unknown_keys(scene, source, target):
    server = scene.boot(on=source)
    with _talkative(source, target):
        _moves(server)


@is_open('J', 'Nova asks first, and its words begin with the banner')
def test_refused_key_behind_a_banner(scene, source, target):
    server = scene.boot(on=source)
    with _talkative(source, target), target.replaced(_KEYS, ''):
        assert 'Permission denied' in _is_refused(server)


@is_open('I', 'the receiver is a command')
def test_forced_command_with_a_whitelist(scene, source, target):
    server = scene.boot(on=source)
    with target.replaced('/usr/local/bin/only-disks', _WHITELIST,
                         like='/usr/local/bin/daxio'), \
            _key_with(target, 'command="/usr/local/bin/only-disks"'):
        _moves(server)


@pytest.mark.parametrize('hardened', [
    'DisableForwarding yes', 'restrict'])
def test_no_forwarding_but_the_command(scene, source, target, hardened):
    server = scene.boot(on=source)
    with _without_forwarding(target, hardened), compute.configured(
            source, libvirt={COMMAND: 'nova-pmem-receive'}):
        _moves(server)


@is_open('I', 'no copy goes by forwarding yet, so none misses it')
def test_no_forwarding_and_no_command(scene, source, target):
    server = scene.boot(on=source)
    with _without_forwarding(target, 'DisableForwarding yes'):
        reason = _is_refused(server)
    assert 'DisableForwarding' in reason and COMMAND in reason, reason


def _without_forwarding(target: Compute, hardened: str):
    if hardened == 'restrict':
        return _key_with(target, hardened)
    return target.serving_ssh(hardened)


def test_nologin(scene, source, target):
    """Nova makes the folder for the disks with a shell.

    So the move can't work, but nothing happens to the guest.
    """
    server = scene.boot(on=source)
    users = target.path('/etc/passwd').read_text()
    with target.replaced('/etc/passwd', users.replace(
            '/var/lib/nova:/bin/bash', '/var/lib/nova:/usr/sbin/nologin')):
        assert 'mkdir' in _is_refused(server)


_SHARED = """
    ControlMaster auto
    ControlPersist 120
    ControlPath %s/%%C
"""


@is_open('I', 'the streams go over the connection of Nova')
def test_shared_connections(scene, source, target):
    server = scene.boot(on=source)
    since = target.sshd.size()
    with source.replaced(_HOME + '/.ssh/config',
                         SSH_CONFIG + _SHARED % (_HOME + '/.ssh')):
        try:
            _moves(server)
        finally:
            source.run('ssh', '-O', 'exit', target.address, user='nova',
                       check=False)
    logins = target.sshd.text(since).count('Accepted publickey')
    assert logins > 1, 'the copy has no connection of its own'


def test_shared_connections_that_cannot_be(scene, source, target):
    """Nova's own ssh ends where it can't make its socket."""
    server = scene.boot(on=source)
    with source.replaced(_HOME + '/.ssh/config',
                         SSH_CONFIG + _SHARED % '/proc'):
        assert 'mkdir' in _is_refused(server)


# Where sshd is

def test_another_port(scene, source, target):
    server = scene.boot(on=source)
    with target.serving_ssh(port=2222), source.replaced(
            _HOME + '/.ssh/config', SSH_CONFIG + '    Port 2222\n'):
        _moves(server)


@pytest.mark.parametrize('address', ['127.0.0.14', 'migration-%s'])
def test_another_address(scene, source, target, address):
    hosts = source.path('/etc/hosts').read_text()
    with target.serving_ssh(address='127.0.0.14'), source.replaced(
            '/etc/hosts', hosts + '127.0.0.14 migration-cmp2\n'), \
            compute.configured(
                target, libvirt={'migration_inbound_addr': address}):
        _moves(scene.boot(on=source))


def test_ipv6(scene, source, target):
    with target.serving_ssh(address='::1'), compute.configured(
            target, DEFAULT={'my_ip': '::1'}):
        _moves(scene.boot(on=source))
