# SPDX-License-Identifier: Apache-2.0
"""A compute host: libvirtd, sshd and nova-compute, as nova's own user."""

from collections import abc
from concurrent import futures
import contextlib
import os
import pwd
import re
import signal
import subprocess
import uuid

from cloud import controller
from cloud import ENV
from cloud.host import descendants
from cloud.host import Failed
from cloud.host import Host
from cloud.host import PATH
from cloud.host import until
from cloud import HOSTS
from cloud import ini
from cloud.pmem import Memory

#: Users that Debian's packages of these services make.
USERS = {'nova': (64060, '/var/lib/nova', '/bin/bash'),
         'libvirt-qemu': (64055, '/var/lib/libvirt', '/usr/sbin/nologin')}
_LIBVIRT_GROUP = 64056

_QEMU_CONF = """\
user = "{user}"
group = "{user}"
dynamic_ownership = 1
remember_owner = 0
security_driver = "none"
cgroup_controllers = [ ]
namespaces = [ ]
stdio_handler = "file"
"""

_LIBVIRTD_CONF = """\
host_uuid = "{uuid}"
unix_sock_group = "libvirt"
unix_sock_rw_perms = "0770"
auth_unix_ro = "none"
auth_unix_rw = "none"
log_outputs = "3:stderr"
"""

SSHD_CONFIG = """\
ListenAddress {address}
Port {port}
HostKey /etc/ssh/cloud_host_key
PidFile none
UsePAM no
UseDNS no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
PrintMotd no
PrintLastLog no
Subsystem sftp /usr/lib/openssh/sftp-server
"""

SSH_CONFIG = """\
Host *
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
    LogLevel ERROR
"""

_SUDOERS = """\
Defaults:nova secure_path="{path}"
nova ALL=(root) NOPASSWD: {env}/bin/nova-rootwrap /etc/nova/rootwrap.conf *
"""


class Compute(Host):
    """A compute host.

    :ivar memory: its persistent memory
    """

    def __init__(self, number: int) -> None:
        super().__init__('cmp%d' % number, '127.0.0.%d' % (number + 1))
        self.number = number
        self.memory = Memory(self)
        self.options: dict[str, dict[str, object]] = {}
        self.qemu_user = 'libvirt-qemu'
        self.libvirtd = self.service('libvirtd', '/usr/sbin/libvirtd')
        self.sshd = self.service('sshd', '/usr/sbin/sshd', '-D', '-e')
        self.nova = self.service(
            'nova-compute', 'nova-compute', '--config-file',
            '/etc/nova/nova.conf', user='nova')

    def configure(self) -> None:
        """Make users, keys and configuration."""
        self._add_users()
        self._copy_etc_nova()
        self.memory.install()
        self.write_nova_conf()
        self.write('/etc/sudoers.d/nova', _SUDOERS.format(
            path=PATH, env=ENV), 0o440)
        self.write_qemu_conf()
        self.write('/etc/libvirt/libvirtd.conf', _LIBVIRTD_CONF.format(
            uuid=uuid.uuid5(uuid.NAMESPACE_DNS, self.name)))
        self.write('/etc/ssh/sshd_config', self.sshd_config())
        self._install_keys()
        # As a package would: on the PATH of whoever comes by ssh.
        for command in 'nova-pmem-join', 'nova-pmem-copy':
            self.path('/usr/local/bin/' + command).symlink_to(
                ENV / 'bin' / command)

    def sshd_config(self, **options: object) -> str:
        return SSHD_CONFIG.format(
            **{'address': self.address, 'port': 22} | options)

    def _add_users(self) -> None:
        known = {each.pw_name for each in pwd.getpwall()}
        lines = {'passwd': [], 'group': [], 'shadow': []}
        for name, (uid, home, shell) in USERS.items():
            if name in known:
                continue
            lines['passwd'].append('%s:x:%d:%d::%s:%s' % (
                name, uid, uid, home, shell))
            members = 'nova' if name == 'libvirt-qemu' else ''
            lines['group'].append('%s:x:%d:%s' % (name, uid, members))
            lines['shadow'].append('%s:*:19000::::::' % name)
        lines['group'].append('libvirt:x:%d:nova' % _LIBVIRT_GROUP)
        for file, added in lines.items():
            with open(self.path('/etc/' + file), 'a') as text:
                text.write(''.join(line + '\n' for line in added))
        uid = USERS['nova'][0]
        for folder in ('', '/.ssh', '/instances', '/tmp'):
            path = self.path('/var/lib/nova' + folder)
            path.mkdir(parents=True, exist_ok=True)
            os.chown(path, uid, uid)
        self.path('/var/lib/nova/.ssh').chmod(0o700)

    def _copy_etc_nova(self) -> None:
        for file in (ENV / 'etc' / 'nova').rglob('*'):
            if file.is_file():
                self.write('/etc/nova/%s' % file.relative_to(
                    ENV / 'etc' / 'nova'), file.read_text())
        conf = self.path('/etc/nova/rootwrap.conf')
        conf.write_text(conf.read_text().replace(
            'exec_dirs=', 'exec_dirs=%s/bin,' % ENV))

    def write_nova_conf(self, **sections: dict[str, object]) -> None:
        """Write nova.conf, with other options than the usual if need be."""
        self.write('/etc/nova/nova.conf', ini.text(ini.merged(
            controller.nova_conf(), {
                'DEFAULT': {
                    'host': self.name, 'my_ip': self.address,
                    'debug': 'true',
                    'compute_driver': 'libvirt.LibvirtDriver',
                    'update_resources_interval': 10,
                    'rootwrap_config': '/etc/nova/rootwrap.conf',
                    'shutdown_timeout': 0,
                    # Guests end at once here, and copies within seconds; so
                    # does a nova-compute that is asked to end.
                    'graceful_shutdown_timeout': 60,
                    'manager_shutdown_timeout': 40,
                    'allow_resize_to_same_host': 'false'},
                'libvirt': {
                    'virt_type': 'qemu', 'cpu_mode': 'custom',
                    'cpu_models': 'qemu64', 'images_type': 'qcow2',
                    'pmem_namespaces': self.memory.of_config(),
                    # Tests of what hangs wait for it.
                    'pmem_copy_stall_timeout': 15,
                    'num_pcie_ports': 4}}, self.options, sections)))

    def write_qemu_conf(self) -> None:
        self.write('/etc/libvirt/qemu.conf', _QEMU_CONF.format(
            user=self.qemu_user))

    def _install_keys(self) -> None:
        """All hosts have the key of nova's user, as deployments set it up."""
        shared = HOSTS / 'nova_key'
        if not shared.exists():
            subprocess.run(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '',
                            '-C', 'nova', '-f', shared], check=True)
        uid = USERS['nova'][0]
        public = shared.with_suffix('.pub').read_text()
        for name, text in (('id_ed25519', shared.read_text()),
                           ('authorized_keys', public),
                           ('config', SSH_CONFIG)):
            self.write('/var/lib/nova/.ssh/' + name, text, 0o600, (uid, uid))
        # The probe of the tests looks at devices, which are root's.
        self.write('/root/.ssh/authorized_keys', public, 0o600)
        subprocess.run(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-f',
                        self.path('/etc/ssh/cloud_host_key')], check=True)

    # Services

    def start_services(self) -> None:
        """Start all but nova-compute."""
        self.libvirtd.start()
        self.sshd.start()
        self.await_sshd()
        self.await_libvirtd()

    def await_sshd(self, address: str | None = None, port: int = 22) -> None:
        until(lambda: controller.listens(address or self.address, port),
              'sshd does not listen on %s' % self.name)

    @contextlib.contextmanager
    def serving_ssh(self, *lines: str, address: str | None = None,
                    port: int = 22) -> abc.Iterator[None]:
        """Have another sshd for a while.

        :param lines: of its configuration, instead of those that it has of
            the same keywords
        """
        address = address or self.address
        keywords = {line.split()[0] for line in lines}
        usual = self.sshd_config(address=address, port=port).splitlines()
        self._restart_sshd('\n'.join([*lines, *(
            line for line in usual if line.split()[0] not in keywords)]) +
            '\n', address, port)
        try:
            yield
        finally:
            self._restart_sshd(self.sshd_config(), self.address, 22)

    def _restart_sshd(self, text: str, address: str, port: int) -> None:
        self.sshd.stop()
        self.write('/etc/ssh/sshd_config', text)
        self.sshd.start()
        self.await_sshd(address, port)

    def await_libvirtd(self) -> None:
        def answers() -> bool:
            if not self.libvirtd.runs:
                # Seen once, just after the user of QEMU was made: that user
                # was not known. Started again, libvirtd finds it.
                self.libvirtd.start()
            return self.virsh('uri', check=False).returncode == 0
        until(answers, 'libvirtd does not answer on %s' % self.name)

    def virsh(self, *command: object,
              check: bool = True) -> subprocess.CompletedProcess:
        return self.run('virsh', '-c', 'qemu:///system', *command, check=check)

    def restart_libvirtd(self) -> None:
        """Restart it; its guests live on."""
        self.libvirtd.signal(signal.SIGTERM)
        self.libvirtd.wait()
        self.libvirtd.start()
        self.await_libvirtd()

    def start_nova(self) -> None:
        """Start nova-compute, and wait until it takes requests."""
        since = self.nova.size()
        self.nova.start()
        self.await_nova(since)

    def restart_nova(self, **sections: dict[str, object]) -> None:
        """Restart nova-compute, with other options than the usual if need be.
        """
        self.nova.kill()
        self.write_nova_conf(**sections)
        self.start_nova()

    def await_nova(self, since: int = 0) -> None:
        def is_up() -> bool:
            if not self.nova.runs:
                raise Failed('nova-compute ended on %s; see %s' % (
                    self.name, self.nova.log))
            return 'Creating RPC server for service' in self.nova.text(since)
        until(is_up, 'nova-compute does not start on %s' % self.name, 120)

    def nova_processes(self) -> list[int]:
        """Return the processes that are nova-compute itself."""
        return [pid for pid in self.nova.tree()
                if _runs_nova_compute(pid)]

    def kill_nova(self, with_children: bool) -> None:
        """End nova-compute at once.

        :param with_children: also what it has started: privsep's daemons,
            what copies (as systemd does, unless ``KillMode=process`` is set)
        """
        if with_children:
            self.nova.kill()
            return
        ours = self.nova_processes()
        self.nova.signal(signal.SIGSTOP, ours)
        self.nova.signal(signal.SIGKILL, ours)
        self.nova.wait()

    def leftovers(self) -> list[int]:
        """Return the processes of nova's user that nova-compute isn't."""
        uid = USERS['nova'][0]
        ours = set(self.nova.tree()) if self.nova.runs else set()
        return [pid for pid in descendants(self.pid)
                if pid not in ours and _uid(pid) == uid]

    def devices_of(self, server_id: str) -> list[str]:
        """Return the vPMEM nodes a guest is defined with, in its order."""
        xml = self.virsh('dumpxml', server_id, check=False)
        if xml.returncode:
            return []
        return [line.split('<path>')[1].split('</path>')[0]
                for line in xml.stdout.splitlines() if '/dev/dax' in line]

    def guest(self, server_id: str) -> str:
        """Return the number of a running guest; each start gives another."""
        return self.virsh('domid', server_id, check=False).stdout.strip()

    def starts(self) -> list[tuple[str, str]]:
        """Return what guests were started: server and vPMEM node."""
        found = []
        for log in sorted(self.path('/var/log/libvirt/qemu').glob('*.log')):
            for line in log.read_text(errors='replace').splitlines():
                if line.startswith('-uuid '):
                    server = line.split()[1]
                found += [(server, path) for path in
                          re.findall(r'"mem-path":"(/dev/dax[^"]*)"', line)]
        return found

    def runs_guest(self, server_id: str) -> bool:
        return self.virsh('domstate', server_id,
                          check=False).stdout.strip() == 'running'


@contextlib.contextmanager
def configured(*hosts: Compute,
               **sections: dict[str, object]) -> abc.Iterator[None]:
    """Have the nova-computes of hosts run with other options for a while."""
    def restart(**sections: dict[str, object]) -> None:
        with futures.ThreadPoolExecutor() as pool:
            list(pool.map(lambda host: host.restart_nova(**sections), hosts))

    restart(**sections)
    try:
        yield
    finally:
        restart()


def _runs_nova_compute(pid: int) -> bool:
    try:
        with open('/proc/%d/cmdline' % pid, 'rb') as line:
            words = line.read().split(b'\0')
    except OSError:
        return False
    return any(word.endswith(b'nova-compute') or b'nova-compute:' in word
               for word in words[:3])


def _uid(pid: int) -> int | None:
    try:
        return os.stat('/proc/%d' % pid).st_uid
    except OSError:
        return None
