# SPDX-License-Identifier: Apache-2.0
"""Guests as whole compute hosts: libvirtd, QEMU, sshd and nova-compute."""

from collections import abc
import contextlib
import pathlib
import re
import shutil
import subprocess
import time
import tomllib
import typing as ty

from lab import distributions
from lab import guest as guests
from lab import image as images
from lab.moves import broker

ROOT = pathlib.Path(__file__).resolve().parents[2]
MIB = 1024 * 1024

#: Nova with the patch set.
NOVA = ROOT / 'work' / 'nova'

#: Users of guests, as Debian numbers them.
USERS = {'nova': 64060, 'libvirt-qemu': 64055}

#: Programs of a compute host that other guests do not have, with packages.
PROGRAMS = {
    'libvirtd': 'libvirt-daemon',
    'qemu-img': 'qemu-utils',
    'qemu-system-x86_64': 'qemu-system-x86',
    'scp': 'openssh-client',
    'virsh': 'libvirt-clients',
}

#: What these read, at its place; with packages.
FOLDERS = {
    '/usr/lib/x86_64-linux-gnu/libvirt/connection-driver':
        'libvirt-daemon-driver-qemu',
    '/usr/lib/x86_64-linux-gnu/qemu': 'qemu-system-common',
    '/usr/share/libvirt': 'libvirt0',
    '/usr/share/seabios': 'seabios',
}
OPTION_ROMS = '/usr/share/qemu'
BINDINGS = '/usr/lib/python3/dist-packages'

#: What Nova requires, and a nova-compute without networks never imports.
NOT_NEEDED = ('websockify', 'setuptools')

#: Parts of distributions that only their own tests and builds need, and the
#: plugins for networks, which import much.
LEFT_OUT = {'..', 'tests', 'test', 'locale', 'vif_plug_ovs',
            'vif_plug_linux_bridge'}

CODE = images.VOLUME
MAIN = 'compute.py'
STATE = images.DISK + '/nova'
LOG = images.DISK + '/nova-compute.log'
PIDS = '/run/libvirt/qemu/instance-*.pid'

#: What a guest has to have for all this; see ``lab.guest.Guest``.
GUEST = {'memory': 1536, 'disk': 64 * MIB, 'outside': True}

#: Seconds for a step under emulation, and between two looks at it.
PATIENCE = 900
PAUSE = 3

CONFIGURATION = """\
[DEFAULT]
host = {name}
my_ip = {address}
state_path = {state}
log_file = {log}
use_stderr = false
compute_driver = libvirt.LibvirtDriver
transport_url = {bus}
rpc_response_timeout = 900
long_rpc_timeout = 900
report_interval = 60
service_down_time = 900
resume_guests_state_on_host_boot = true
shutdown_timeout = 0
heal_instance_info_cache_interval = -1
sync_power_state_interval = -1
force_raw_images = false
use_cow_images = true
[oslo_concurrency]
lock_path = {state}/locks
[oslo_messaging_rabbit]
heartbeat_timeout_threshold = 0
[placement]
auth_type = none
endpoint_override = http://{outside}:{placement}
[neutron]
auth_type = none
endpoint_override = http://{outside}:{network}
[glance]
api_servers = http://{outside}:{image}
[image_cache]
manager_interval = -1
[key_manager]
backend = nova.keymgr.conf_key_mgr.ConfKeyManager
fixed_key = 00
[libvirt]
virt_type = qemu
cpu_mode = custom
cpu_models = qemu64
images_type = qcow2
pmem_namespaces = {namespaces}
pmem_copy_streams = 1
[vnc]
enabled = false
"""

COMMAND = """\
#!{python}
import sys
sys.path.insert(0, '{code}')
from {module} import {name}
sys.exit({name}())
"""

LIBVIRTD = """\
unix_sock_ro_perms = "0777"
unix_sock_rw_perms = "0777"
auth_unix_ro = "none"
auth_unix_rw = "none"
host_uuid = "{uuid}"
"""

#: With owners as libvirt sets them: it lends a device to QEMU's user.
QEMU = """\
user = "libvirt-qemu"
group = "libvirt-qemu"
dynamic_ownership = 1
remember_owner = 0
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
"""

#: Domains are on the disk: they outlive a loss of power.
START = """\
mkdir -p /var/lib /var/log/libvirt /var/cache /etc/libvirt {disk}/libvirt/qemu
ln -sfn /run /var/run
ln -sfn {disk}/libvirt/qemu /etc/libvirt/qemu
mkdir -p {state}/instances {state}/locks
chown nova:nova {state} {state}/instances {state}/locks
touch {log}
chown nova:nova {log}
libvirtd --daemon
"""


# The image

def stage(folder: pathlib.Path) -> dict[str, ty.Any]:
    """Put together what hosts need.

    :returns: arguments of ``lab.image.build``
    :raises lab.image.Missing: if a package is not installed
    """
    code = folder / 'code'
    for name in ('nova', 'nova.egg-info'):
        shutil.copytree(NOVA / name, code / name,
                        ignore=shutil.ignore_patterns(*LEFT_OUT))
    for distribution in distributions.closure(
            _requirements_of_nova(), NOT_NEEDED):
        for file in distribution.files or ():
            if not LEFT_OUT & set(file.parts):
                _copy(pathlib.Path(str(file.locate())), code / file)
    for path in _bindings():
        _copy(path, code / path.name)
    _copy(pathlib.Path(__file__).with_name(MAIN), code / MAIN)
    # What is not compiled yet: in a guest it would take minutes. By the
    # guests' Python, and files keep their times, so it counts there.
    subprocess.run([images.PYTHON, '-m', 'compileall', '-q', '-j', '0', code],
                   check=True, stdout=subprocess.DEVNULL)
    files = {name: _folder(name, package) for name, package in FOLDERS.items()}
    for command, function in _commands().items():
        files['/usr/local/bin/' + command] = _command(
            folder / command, function)
    roms = _folder(OPTION_ROMS, 'qemu-system-data')
    files |= {str(path): path for path in roms.glob('*.bin')}
    return {'volume': code, 'users': USERS, 'files': files,
            'programs': images.PROGRAMS | PROGRAMS}


def _folder(name: str, package: str) -> pathlib.Path:
    path = pathlib.Path(name)
    if not path.is_dir():
        raise images.Missing('%s is not there; Debian has it in the package %s'
                             % (name, package))
    return path


def _bindings() -> list[pathlib.Path]:
    """Return libvirt's modules for Debian's Python, compiled for it."""
    found = sorted(pathlib.Path(BINDINGS).glob('libvirt*'))
    if not found:
        raise images.Missing('Python has no libvirt; Debian has it in the '
                             'package python3-libvirt')
    return [path for path in found if path.is_file()]


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.exists():  # some list what was never compiled
        shutil.copy2(source, target)


def _commands() -> dict[str, str]:
    """Return the commands that the patch set adds to Nova."""
    settings = tomllib.loads((NOVA / 'pyproject.toml').read_text())
    return {name: function
            for name, function in settings['project']['scripts'].items()
            if name.startswith('nova-pmem-')}


def _command(path: pathlib.Path, function: str) -> pathlib.Path:
    """Write a command as pip does."""
    module, _, name = function.partition(':')
    path.write_text(COMMAND.format(
        python=images.PYTHON, code=CODE, module=module, name=name))
    path.chmod(0o755)
    return path


def _requirements_of_nova() -> abc.Iterator[str]:
    for line in (NOVA / 'requirements.txt').read_text().splitlines():
        if line and not line.startswith('#'):
            yield line.partition('#')[0]


# Hosts

class Compute:
    """A guest on which everything of a compute host runs.

    :ivar name: what Nova calls it
    """

    def __init__(self, guest: guests.Guest, ports: abc.Mapping[str, int],
                 namespaces: abc.Mapping[str, abc.Sequence[str]]) -> None:
        """Describe it.

        :param ports: where services listen outside
        :param namespaces: by label, those that servers may have
        """
        self.guest = guest
        self.name = guest.name
        self._ports = ports
        self._namespaces = namespaces
        self._command: guests.Command | None = None

    def power_on(self) -> None:
        """Boot the guest, without nova-compute."""
        self.guest.boot()
        self.set_up()

    def set_up(self) -> None:
        """Write what a host has, and start libvirtd."""
        settings = CONFIGURATION.format(
            name=self.name, address=self.guest.address, state=STATE, log=LOG,
            outside=guests.OUTSIDE,
            namespaces=','.join(
                '%s:%s' % (label, '|'.join(names))
                for label, names in self._namespaces.items()),
            **{**self._ports, 'bus': broker.url(
                guests.OUTSIDE, self._ports['bus'])})
        self.guest.write('/etc/nova/nova.conf', settings.encode())
        self.guest.write('/etc/libvirt/libvirtd.conf', LIBVIRTD.format(
            uuid='00000000-0000-4000-8000-%012x' % (
                1 + images.NAMES.index(self.name))).encode())
        self.guest.write('/etc/libvirt/qemu.conf', QEMU.encode())
        self.guest.check('bash', '-ec', START.format(
            disk=images.DISK, state=STATE, log=LOG))

    def start_compute(self) -> None:
        """Start nova-compute, and don't wait for it."""
        self._command = self.guest.start(
            'python3', '%s/%s' % (CODE, MAIN), 'nova',
            environment={'PYTHONPATH': CODE, 'PYTHONWARNINGS': 'ignore'})

    def keep_log(self, folder: pathlib.Path) -> None:
        """Put what nova-compute has logged into a folder of this host."""
        if self.guest.is_running:
            (folder / ('nova-compute-%s.log' % self.name)).write_bytes(
                self.guest.read(LOG))

    def nodes_in_use(self) -> list[str]:
        """Return the device nodes that guests of this host have mapped."""
        maps = self.guest.shell('cat $(sed "s,.*,/proc/&/maps," %s) 2>&-'
                                % PIDS).text
        return sorted(set(re.findall(r'/dev/dax\S+', maps)))

    def wait_for_domain(self) -> None:
        """Wait until a guest of this host runs.

        :raises lab.guest.GuestError: if nova-compute ends before
        """
        wait_for(self.nodes_in_use, [self])

    def check_alive(self) -> None:
        """See that nova-compute runs.

        :raises lab.guest.GuestError: with what it said, if it has ended
        """
        assert self._command
        with contextlib.suppress(TimeoutError):
            result = self._command.wait(0)
            raise guests.GuestError('nova-compute on %s has ended: %s' % (
                self.name, result))


def wait_for(look: abc.Callable[[], ty.Any], hosts: abc.Iterable[Compute],
             patience: float = PATIENCE) -> ty.Any:
    """Look at something until it is true; nobody tells when it is.

    :param patience: in seconds
    :returns: what was found at last
    :raises lab.guest.GuestError: if it takes too long, or if nova-compute
        has ended on one of these hosts
    """
    deadline = time.monotonic() + patience
    while not (found := look()):
        for host in hosts:
            host.check_alive()
        if time.monotonic() > deadline:
            raise guests.GuestError('this takes more than %d s' % patience)
        time.sleep(PAUSE)
    return found
