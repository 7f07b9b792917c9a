# SPDX-License-Identifier: Apache-2.0
"""The ways that deployments differ, each with the result that is right."""

import collections
from collections import abc
import contextlib
import functools
import signal
import time

from cloud import compute
from cloud.compute import Compute
from cloud.compute import SSH_CONFIG
from cloud.host import Failed
from cloud.host import parent_of
from cloud.host import until
from cloud.pmem import MIB
from cloud.pmem import Namespace
from cloud.scene import Scene
from cloud.scene import Server
from cloud.scene import TICKETS
from cloud.tests import conftest
import pytest

#: That something can't be set up, or does not end, is a failure all the same.
is_open = functools.partial(conftest.is_open, raises=AssertionError)

#: The option that names what joins its input and output to the receiver.
COMMAND = 'pmem_copy_join_command'

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


def _tickets(host: Compute) -> list[str]:
    """Return the names of the open tickets that a host sees."""
    return [path.name for path in host.path(TICKETS).glob('[!.]*')]


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
            source, libvirt={COMMAND: 'nova-pmem-join'}):
        _moves(server)


def test_no_forwarding_and_no_command(scene, source, target):
    server = scene.boot(on=source)
    since = source.nova.size()
    with _without_forwarding(target, 'DisableForwarding yes'):
        server.migrate()
        server.ends_move('error')
        server.runs_on(source)
        server.has_its_data()
    assert 'forbids forwarding' in server.reason()
    said = source.nova.text(since)
    assert 'DisableForwarding' in said and COMMAND in said


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


#: How a container of its own is for sshd: no devices, no configuration, no
#: tools, and processes that nobody else sees.
_CONTAINER = """
set -eu
for folder in /etc/nova $HIDDEN; do mount -t tmpfs none $folder; done
for tool in ndctl daxio; do mount --bind /dev/null /usr/local/bin/$tool; done
mount -t tmpfs none /mnt
for node in null zero random urandom tty; do
    mknod -m 666 /mnt/$node c $(stat -c '0x%t 0x%T' /dev/$node)
done
mount --move /mnt /dev
exec /usr/sbin/sshd -D -e
"""


@contextlib.contextmanager
def _sshd_in_a_container(target: Compute,
                         hidden: str = '') -> abc.Iterator[None]:
    """Have sshd run where nova-compute does not.

    :param hidden: a folder that it has not in common with nova-compute
    """
    elsewhere = target.service(
        'sshd-elsewhere', 'unshare', '--mount', '--pid', '--fork',
        '--mount-proc', '--kill-child=KILL', '/bin/sh', '-c', _CONTAINER,
        HIDDEN=hidden)
    target.sshd.stop()
    elsewhere.start()
    try:
        target.await_sshd()
        yield
    finally:
        elsewhere.kill()
        target.sshd.start()
        target.await_sshd()


def test_sshd_in_a_container(scene, source, target):
    server = scene.boot(on=source)
    with _sshd_in_a_container(target):
        _moves(server)


@is_open('J', 'what is refused is so when the guest is off')
def test_sshd_in_a_container_without_the_state(scene, source, target):
    server = scene.boot(on=source)
    target.run('mkdir', '-p', TICKETS, user='nova')
    with _sshd_in_a_container(target, hidden=TICKETS):
        reason = _is_refused(server)
    assert 'socket' in reason and target.name in reason, reason


# Whose processes they are

@contextlib.contextmanager
def _qemu_as_nova(*hosts: Compute) -> abc.Iterator[None]:
    def restart(user: str) -> None:
        for host in hosts:
            host.qemu_user = user
            # It would disable its host while it misses libvirtd.
            host.nova.kill()
            host.write_qemu_conf()
            host.restart_libvirtd()
            host.start_nova()

    usual = hosts[0].qemu_user
    restart('nova')
    try:
        yield
    finally:
        restart(usual)


def test_qemu_as_nova(scene, source, target):
    with _qemu_as_nova(source, target):
        server, *others = [scene.boot(on=host)
                           for host in (source, source, target)]
        with contextlib.ExitStack() as guests:
            for each in others:
                guests.enter_context(_untouched(each))
            scene.fail_copies(target, action='exit', status=1)
            server.migrate()
            server.ends_move('error')
            target.memory.heal()
            server.runs_on(source)
            _moves(server)
            server.revert()
            server.runs_on(source)
        for each in scene.servers:
            each.has_its_data()
            each.delete(wait=False)
        for each in scene.servers:
            each.delete()


@pytest.fixture
def other_group(target: Compute) -> abc.Iterator[None]:
    """nova-compute with libvirt's group as its primary one, ssh without."""
    target.nova.group = 'libvirt'
    target.restart_nova()
    yield
    target.nova.group = None
    target.restart_nova()


def test_other_primary_group(scene, source, target, other_group):
    _moves(scene.boot(on=source))


def test_leftover_of_another_primary_group(
        scene, source, target, other_group):
    server = scene.boot(on=source)
    held = scene.hold_copy(target)
    server.migrate()
    held.wait()
    # The writer hangs, and who has started it does not see that all is over.
    target.nova.signal(signal.SIGSTOP, [
        parent_of(pid) for pid in target.processes('daxio')])
    server.delete()
    held.release()
    until(lambda: not target.processes('daxio'), 'a writer does not end')
    until(lambda: not _tickets(target), 'a ticket stays')


# What hosts share

@contextlib.contextmanager
def _shared_folder(source: Compute, target: Compute,
                   folder: str) -> abc.Iterator[None]:
    target.share(source, folder)
    try:
        yield
    finally:
        # Guests may have files open there.
        target.run('umount', '--lazy', folder)


def test_shared_instances(scene, source, target):
    """The disks don't cross; the data does."""
    with _shared_folder(source, target, _HOME + '/instances'):
        server = scene.boot(on=source)
        had = server.namespaces()
        _moves(server)
        server.confirm()
        assert had[0].is_zero()
        server.has_its_data()
        server.delete()


@pytest.fixture
def shared_state(source: Compute, target: Compute) -> abc.Iterator[None]:
    """All of the state path on one disk, but for whose it is."""
    ids = {host: host.path(_HOME + '/compute_id').read_text()
           for host in (source, target)}
    for host, text in ids.items():
        host.nova.kill()
        host.write('/etc/nova/compute_id', text)
        host.path(_HOME + '/compute_id').unlink()
    try:
        with _shared_folder(source, target, _HOME):
            for host in ids:
                host.start_nova()
            yield
            for host in ids:
                host.nova.kill()
    finally:
        for host, text in ids.items():
            host.path('/etc/nova/compute_id').unlink()
            host.write(_HOME + '/compute_id', text)
            host.restart_nova()


def test_shared_state_path(scene, source, target, shared_state):
    server, other, _ = _equal_names(scene, source, target)
    held = scene.hold_copy(target)
    server.migrate()
    held.wait()
    # What the ticket of the one names is the other's, but on another host.
    other.act({'reboot': {'type': 'HARD'}})
    status = other.becomes('ACTIVE', 'ERROR')
    held.release()
    server.ends_move('finished')
    server.has_its_data()
    for each in scene.servers:
        each.delete()
    assert status == 'ACTIVE'


def _equal_names(scene: Scene, source: Compute,
                 target: Compute) -> list[Server]:
    """Boot servers whose namespaces have equal names on different hosts.

    :returns: one that can only move to the namespace with the name of what
        the second one has on the source; this one; and one that has on the
        target what is named as what the first one has
    """
    servers = [scene.boot('large', on=host)
               for host in (source, source, target)]
    third = servers.pop()
    name = third.namespaces()[0].name
    servers.sort(key=lambda each: each.namespaces()[0].name != name)
    return [*servers, third]


# Options of Nova

@pytest.fixture
def rare_updates(source: Compute, target: Compute) -> abc.Iterator[None]:
    """One namespace on each host, of which nobody is told by the clock."""
    with compute.configured(
            source, target, DEFAULT={'update_resources_interval': 600},
            libvirt={'pmem_namespaces': 'SMALL:ns_0'}):
        yield


def test_freed_by_the_confirm(scene, source, target, rare_updates):
    server = _moves(scene.boot(on=source))
    server.confirm()
    assert _boots_soon(scene, source)


def test_freed_by_the_delete(scene, source, target, rare_updates):
    _moves(scene.boot(on=source)).delete()
    assert _boots_soon(scene, target)


def _boots_soon(scene: Scene, host: Compute) -> bool:
    """Say whether a server boots before anything happens by the clock."""
    def boots() -> bool:
        server = scene.new(on=host)
        status = server.becomes('ACTIVE', 'ERROR')
        server.delete()
        return status == 'ACTIVE'

    until(host.memory.namespaces['ns_0'].is_zero, 'it is not wiped')
    with contextlib.suppress(Failed):
        return until(boots, '', 15, interval=1)
    return False


def test_confirmed_by_the_clock_with_the_source_down(scene, source, target):
    server = scene.boot(on=source)
    had = server.namespaces()[0]
    _moves(server)
    wipes = source.memory.count('daxio', '-z', had.path)
    source.nova.kill()
    # That it is down is not seen yet, so what it is asked waits for it.
    with compute.configured(target, DEFAULT={
            'resize_confirm_window': 1, 'service_down_time': 600,
            'periodic_fuzzy_delay': 0}):
        server.migration_is('confirming', timeout=150)
        assert not had.is_zero()
        source.start_nova()
        server.migration_is('confirmed')
    server.becomes('ACTIVE')
    until(lambda: not _tickets(source), 'a ticket stays')
    assert had.is_zero()
    assert source.memory.count('daxio', '-z', had.path) == wipes + 1
    server.has_its_data()


@pytest.fixture
def soft_delete(scene: Scene) -> abc.Iterator[None]:
    with scene.controller.configured(
            'nova-api', reclaim_instance_interval=600):
        yield


def test_restored_after_a_move(scene, source, target, soft_delete):
    server = _moves(scene.boot(on=source))
    server.delete(wait=False)
    server.becomes('SOFT_DELETED')
    server.act({'restore': None})
    server.becomes('ACTIVE')
    server.runs_on(target)
    server.has_its_data()


def test_restored_after_a_copy(scene, source, target, soft_delete):
    server = scene.boot(on=source)
    held = scene.hold_copy(target)
    server.migrate()
    held.wait()
    server.delete(wait=False)
    held.release()
    server.ends_move('error')
    status = server.show()['status']
    assert status == 'SOFT_DELETED', status
    server.act({'restore': None})
    server.becomes('ACTIVE')
    server.has_its_data()


def test_guests_resumed_with_equal_names(scene, source, target):
    server, _, stranger = _equal_names(scene, source, target)
    held = scene.hold_copy(target)
    server.migrate()
    held.wait()
    target.nova.signal(signal.SIGSTOP, target.nova_processes())
    held.release()
    # The target has the server by everybody's word, and knows nothing of it.
    until(lambda: server.host is target, 'the source does not let go')
    target.nova.kill()
    target.virsh('destroy', stranger.uuid)
    before = collections.Counter(target.starts())
    with compute.configured(target, DEFAULT={
            'resume_guests_state_on_host_boot': 'true'}):
        stranger.becomes('ACTIVE')
        stranger.has_its_data()
        server.ends_move('finished', 'error')
        stranger.runs_on(target)
        server.has_its_data()
    mine = stranger.namespaces()[0].path
    starts = collections.Counter(target.starts()) - before
    assert {uuid for uuid, path in starts if path == mine} == {stranger.uuid}


# Tools

_NEEDS_B_NO = """\
#!/bin/sh
case " $* " in
    *' -b no '*|*'=no '*) ;;
    *' -z '*|*' --zero '*)
        echo 'daxio: failed to clear bad blocks on a device' >&2
        exit 1 ;;
esac
"""


def test_wipe_that_cannot_clear_bad_blocks(scene, source):
    server = scene.boot(on=source)
    had = server.namespaces()[0]
    tool = source.path('/usr/local/bin/daxio').read_text()
    with source.replaced('/usr/local/bin/daxio', tool.replace(
            '#!/bin/sh\n', _NEEDS_B_NO)):
        was_zero = _is_deleted_and_wiped(server, had)
    assert was_zero, 'it was not wiped'


def test_wipe_that_leaves_a_page(scene, source):
    server = scene.boot(on=source)
    had = server.namespaces()[0]
    source.memory.plan(tool='daxio', device=had.name, side='zero',
                       at=4 * MIB, action='flip')
    assert _is_deleted_and_wiped(server, had), 'it was not wiped again'


def _is_deleted_and_wiped(server: Server, had: Namespace) -> bool:
    """Delete a server; say whether what it had is soon wiped.

    Nothing is left to the tests that follow.
    """
    server.delete(wait=False)
    try:
        return until(had.is_zero, '', 20, interval=0.5)
    except Failed:
        had.clear()
        return False


# Tokens

def _token_expires_in_the_copy(
        scene: Scene, server: Server, target: Compute) -> None:
    """Have a copy last longer than the token of who asked for it."""
    # Or there is nothing that a token is needed for afterwards.
    target.run('rm', '-rf', _HOME + '/instances/_base')
    held = scene.hold_copy(target)
    token, until_ = scene.controller.short_token()
    scene.call('POST', '/servers/%s/action' % server.uuid,
               {'migrate': {'copy_pmem_devices': True}}, token=token)
    held.wait()
    time.sleep(max(0, until_ - time.time()))
    assert server.show()['OS-EXT-STS:task_state'] == 'resize_migrating'
    held.release()


@pytest.fixture
def patient(source: Compute) -> abc.Iterator[None]:
    """A host that does not give up a copy which is held."""
    with compute.configured(source, libvirt={'pmem_copy_stall_timeout': 300}):
        yield


def test_token_that_expires(scene, source, target, patient):
    server = scene.boot(on=source)
    _token_expires_in_the_copy(scene, server, target)
    server.arrives()


def test_token_that_expires_without_service_user(
        scene, source, target, patient):
    server = scene.boot(on=source)
    with compute.configured(target, service_user={
            'send_service_user_token': 'false'}):
        since = target.nova.size()
        _token_expires_in_the_copy(scene, server, target)
        server.ends_move('error')
        server.runs_on(source)
        server.has_its_data()
        assert 'see [service_user]' in target.nova.text(since)
