# SPDX-License-Identifier: Apache-2.0
"""The guests' image: an initrd made of this host's own programs.

No package is installed into it and no root is needed to build it: programs
are copied with the libraries they are linked to, and the archive is written
here, with owners and modes as they shall be. It takes a second or two, so it
is built anew for each run and can't be stale.
"""

from collections import abc
import dataclasses
import os
import pathlib
import re
import shutil
import stat
import subprocess
import typing as ty

from lab import kernel as kernels

#: What a guest needs to have NVDIMMs, a port to the host, a network, a disk.
MODULES = (
    'virtio_pci', 'virtio_console', 'virtio_net', 'virtio_rng', 'virtio_blk',
    'ext4', 'nfit', 'nd_pmem', 'dax_pmem', 'device_dax')

#: Programs that are copied, and the Debian packages that have them.
PROGRAMS = {
    'busybox': 'busybox-static',
    'bash': 'bash',
    'ndctl': 'ndctl',
    'daxctl': 'daxctl',
    'daxio': 'pmdk-tools',
    'sshd': 'openssh-server',
    'ssh': 'openssh-client',
}

PYTHON = '/usr/bin/python3'

#: Parts of Python's library that no guest needs.
NOT_OF_PYTHON = re.compile(
    r'/(test|idlelib|lib2to3|ensurepip|tkinter|turtledemo|pydoc_data'
    r'|config-[^/]*|dist-packages|_sqlite3[^/]*|_curses[^/]*|readline[^/]*'
    r'|_dbm[^/]*|_gdbm[^/]*)(/|$)')

#: Names that guests can have. The nth has the address ADDRESS % n.
NAMES = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ'
ADDRESS = '10.77.0.%d'

#: Where a guest's disk is mounted, and what an image has besides the initrd.
DISK = '/disk'
VOLUME = '/opt'

AGENT = pathlib.Path(__file__).with_name('agent.py')
PORT = 'lab'

INIT = """\
#!/bin/busybox sh
export PATH=/usr/sbin:/usr/bin
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t devtmpfs dev /dev
busybox --install -s /usr/bin
mkdir -p /dev/pts /dev/shm
mount -t devpts -o mode=620,gid=5 devpts /dev/pts
ln -s /proc/self/fd /dev/fd
for module in $(cat /lab/modules/order); do
    insmod /lab/modules/$module.ko
done
# What nobody syncs is not to reach it by chance.
echo 0 > /proc/sys/vm/dirty_writeback_centisecs
mount -t ext4 -o commit=3600 /dev/vda {disk}
[ ! -e /dev/vdb ] || mount -t ext4 -o ro,noatime /dev/vdb {volume}
ip link set lo up
for word in $(cat /proc/cmdline); do
    case $word in
        lab.name=*) hostname ${word#*=} ;;
        lab.net=*)
            address=${word#*=}
            ip address add ${address#*,}/24 dev ${address%,*}
            ip link set ${address%,*} up ;;
    esac
done
exec busybox init
"""

INITTAB = """\
::respawn:/usr/sbin/sshd -D -f /lab/sshd_config
::respawn:/lab/agent
::restart:/bin/busybox init
"""

START_AGENT = """\
#!/bin/sh
for port in /sys/class/virtio-ports/*; do
    [ "$(cat $port/name)" = {port} ] &&
        exec {python} /lab/agent.py /dev/${{port##*/}} > /dev/console 2>&1
done
"""

#: The default takes a second and a half of emulation more.
KEX = 'KexAlgorithms curve25519-sha256\n'

SSHD_CONFIG = KEX + """\
HostKey /lab/key
AuthorizedKeysFile /lab/key.pub
PidFile none
StrictModes no
UsePAM no
UseDNS no
PasswordAuthentication no
KbdInteractiveAuthentication no
PrintMotd no
PrintLastLog no
MaxSessions 100
Subsystem sftp internal-sftp
"""

SSH_CONFIG = KEX + """\
IdentityFile ~/.ssh/key
GlobalKnownHostsFile /lab/known_hosts
StrictHostKeyChecking yes
LogLevel ERROR
"""


def address(name: str) -> str:
    """Return the address of a guest."""
    return ADDRESS % (NAMES.index(name) + 1)


class Missing(Exception):
    """A program that the lab needs is not installed."""


@dataclasses.dataclass(frozen=True)
class Image:
    """What QEMU boots.

    :ivar volume: a file system that all guests of the image read, if any
    """

    kernel: pathlib.Path
    initrd: pathlib.Path
    volume: pathlib.Path | None = None


class Archive:
    """A cpio archive in the one format that the kernel unpacks (newc)."""

    def __init__(self, file: ty.BinaryIO) -> None:
        self._file = file
        self._names: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def add(self, name: str, data: bytes = b'', mode: int = 0o100644,
            uid: int = 0, mtime: int = 0) -> None:
        """Add a file, folder or link, and the folders that it is in.

        :param name: path in the guest, without a leading slash
        :param mode: permissions and kind, as stat has them
        :param uid: the owner; the group has the same number
        """
        if name in self._names:
            return
        folder = os.path.dirname(name)
        if folder and folder not in self._names:
            self.add(folder, mode=0o040755)
        self._put(name, data, mode, uid, mtime)

    def _put(self, name: str, data: bytes, mode: int, uid: int,
             mtime: int) -> None:
        self._names.add(name)
        encoded = os.fsencode(name) + b'\0'
        numbers = (len(self._names), mode, uid, uid, 1, mtime, len(data),
                   0, 0, 0, 0, len(encoded), 0)
        header = b'070701' + b''.join(b'%08x' % n for n in numbers) + encoded
        self._file.write(header + bytes(-len(header) % 4))
        self._file.write(data)
        self._file.write(bytes(-len(data) % 4))

    def add_host_file(self, path: pathlib.Path, name: str) -> None:
        """Add a file of this host under a name, with its time and mode."""
        status = path.stat()
        self.add(name, path.read_bytes(),
                 stat.S_IFREG | (status.st_mode & 0o755),
                 mtime=int(status.st_mtime))

    def add_link(self, name: str, target: str) -> None:
        self.add(name, os.fsencode(target), mode=0o120777)

    def add_program(self, name: str, text: str) -> None:
        self.add(name, text.encode(), mode=0o100755)

    def close(self) -> None:
        self._put('TRAILER!!!', b'', 0, 0, 0)


def find(program: str, package: str) -> pathlib.Path:
    """Return the path of a program of this host.

    :raises Missing: if it is not installed
    """
    # Those of the system; others may be wrappers that work here only.
    path = shutil.which(program, path='/usr/sbin:/usr/bin:/sbin:/bin')
    if path is None:
        raise Missing('%s is not installed; Debian has it in the package %s'
                      % (program, package))
    return pathlib.Path(path)


def build(
    folder: pathlib.Path,
    kernel: kernels.Kernel,
    *,
    programs: abc.Mapping[str, str] = PROGRAMS,
    modules: abc.Sequence[str] = MODULES,
    users: abc.Mapping[str, int] | None = None,
    files: abc.Mapping[str, pathlib.Path] | None = None,
    volume: pathlib.Path | None = None,
) -> Image:
    """Build an image.

    All guests of an image share their ssh keys: each user can log in as any
    other, on each guest.

    :param folder: where to put it; it exists
    :param programs: programs to have, and their Debian packages
    :param modules: kernel modules to load; what they need is added
    :param users: further users besides root, and their numbers
    :param files: files and folders of this host to have, too, by their paths
        in the guest; root owns them
    :param volume: a folder of this host that guests have as ``/opt``, and
        can't write to. What is much belongs there: the rest is unpacked into
        memory at each boot.
    :raises Missing: if a program is not installed
    :raises lab.kernel.KernelError: if the kernel lacks a module
    """
    users = users or {}
    initrd = folder / 'initrd'
    with open(initrd, 'wb') as file:
        archive = Archive(file)
        for name in ('bin', 'sbin', 'lib', 'lib64'):
            archive.add_link(name, 'usr/' + name)
        archive.add('tmp', mode=0o041777)
        for name in ('proc', 'sys', 'dev', 'run/sshd', 'var/empty', DISK[1:],
                     VOLUME[1:]):
            archive.add(name, mode=0o040755)
        _add_modules(archive, kernel, modules)
        _add_programs(archive, programs, dict(_expand(files or {})), volume)
        _add_settings(archive, users)
        _add_keys(archive, folder, users)
        archive.close()
    return Image(kernel.image, initrd, _file_system(
        volume, folder / 'volume') if volume else None)


def _file_system(folder: pathlib.Path, file: pathlib.Path) -> pathlib.Path:
    """Make a file system that has what a folder has."""
    used = subprocess.run(['du', '-sm', '--apparent-size', folder], check=True,
                          stdout=subprocess.PIPE)
    # Small files take a block each, all take an inode; holes cost nothing.
    with open(file, 'wb') as blank:
        blank.truncate((2 * int(used.stdout.split()[0]) + 16) << 20)
    subprocess.run(
        [find('mke2fs', 'e2fsprogs'), '-q', '-F', '-t', 'ext4', '-m', '0',
         '-O', '^has_journal', '-i', '4096', '-d', folder, file],
        check=True, stdin=subprocess.DEVNULL)
    return file


def _add_modules(archive: Archive, kernel: kernels.Kernel,
                 names: abc.Sequence[str]) -> None:
    modules = kernel.modules(*names)
    for name, data in modules.items():
        archive.add('lab/modules/%s.ko' % name, data)
    archive.add('lab/modules/order', '\n'.join(modules).encode())


def _expand(
    files: abc.Mapping[str, pathlib.Path],
) -> abc.Iterator[tuple[str, pathlib.Path]]:
    """Yield the files of folders, too."""
    for name, path in files.items():
        inside = sorted(path.rglob('*')) if path.is_dir() else [path]
        for each in inside:
            if each.is_file():
                yield os.path.normpath(os.path.join(
                    name.lstrip('/'), each.relative_to(path))), each


def _add_programs(archive: Archive, programs: abc.Mapping[str, str],
                  files: abc.Mapping[str, pathlib.Path],
                  volume: pathlib.Path | None) -> None:
    """Add programs, Python, other files, and the libraries of all."""
    python = find(PYTHON, 'python3').resolve()
    linked = [python, *(find(*item) for item in programs.items())]
    found = {_place(path): path for path in (
        *linked, *_python_library(python))} | files
    linked += (path for path in found.values() if path.suffix == '.so')
    if volume:
        linked += volume.rglob('*.so')
    found |= {_place(path): path for path in _libraries(linked)
              if not (volume and path.is_relative_to(volume))}
    for name, path in found.items():
        archive.add_host_file(path, name)
    archive.add_link('usr/bin/python3', python.name)
    archive.add_link('usr/bin/sh', 'bash')


def _place(path: pathlib.Path) -> str:
    """Return where a file belongs if /lib and its like are links."""
    return re.sub(r'^/(bin|sbin|lib|lib64)/', r'/usr/\1/', str(path))[1:]


def _python_library(python: pathlib.Path) -> abc.Iterator[pathlib.Path]:
    """Yield the files of the library, compiled ones included."""
    root = pathlib.Path('/usr/lib', python.name)
    for path in sorted(root.rglob('*')):
        if path.is_file() and not NOT_OF_PYTHON.search(
                str(path)[len(str(root)):]):
            yield path


def _libraries(files: abc.Iterable[pathlib.Path]) -> set[pathlib.Path]:
    """Return the libraries that programs are linked to, as ldd finds them."""
    done = subprocess.run(
        ['ldd', *map(str, files)], capture_output=True, text=True)
    return {pathlib.Path(path) for path in re.findall(
        r'^\s+(?:\S+ => )?(/\S+) \(0x', done.stdout, re.MULTILINE)}


def _add_settings(archive: Archive, users: abc.Mapping[str, int]) -> None:
    everyone = {'root': 0, **users}
    passwd = ''.join(
        '%s:*:%d:%d::%s:/bin/bash\n' % (name, uid, uid, _home(name))
        for name, uid in everyone.items())
    group = ''.join('%s:*:%d:\n' % item for item in everyone.items())
    archive.add('etc/passwd', (
        passwd + 'sshd:*:101:65534::/run/sshd:/bin/false\n').encode())
    archive.add('etc/group', (
        group + 'tty:*:5:\nnogroup:*:65534:\n').encode())
    archive.add('etc/nsswitch.conf', b'hosts: files\n')
    archive.add('etc/hosts', '127.0.0.1 localhost\n'.encode() + ''.join(
        '%s %s\n' % (address(name), name) for name in NAMES).encode())
    archive.add('etc/inittab', INITTAB.encode())
    archive.add('etc/ssh/ssh_config', SSH_CONFIG.encode())
    archive.add('lab/sshd_config', SSHD_CONFIG.encode())
    archive.add_program('init', INIT.replace(
        '{disk}', DISK).replace('{volume}', VOLUME))
    archive.add_program(
        'lab/agent', START_AGENT.format(port=PORT, python=PYTHON))
    archive.add_host_file(AGENT, 'lab/agent.py')


def _home(user: str) -> str:
    return '/root' if user == 'root' else '/home/' + user


def _add_keys(archive: Archive, folder: pathlib.Path,
              users: abc.Mapping[str, int]) -> None:
    key = folder / 'key'
    subprocess.run(
        [find('ssh-keygen', 'openssh-client'), '-q', '-t', 'ed25519',
         '-N', '', '-C', 'lab', '-f', key],
        check=True, stdin=subprocess.DEVNULL)
    private = key.read_bytes()
    public = key.with_suffix('.pub').read_bytes()
    archive.add('lab/key', private, mode=0o100600)
    archive.add('lab/key.pub', public)
    archive.add('lab/known_hosts', b'* ' + public)
    for name, uid in {'root': 0, **users}.items():
        home = _home(name)[1:]
        archive.add(home, mode=0o040755, uid=uid)
        archive.add(home + '/.ssh', mode=0o040700, uid=uid)
        archive.add(home + '/.ssh/key', private, mode=0o100600, uid=uid)
