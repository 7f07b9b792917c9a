# SPDX-License-Identifier: Apache-2.0
"""A guest: a virtual machine under emulation, with NVDIMMs of its own."""

from collections import abc
import concurrent.futures
import contextlib
import dataclasses
import io
import json
import os
import pathlib
import queue
import signal
import socket
import subprocess
import tarfile
import threading
import typing as ty

from lab import image as images

MIB = 1024 * 1024

#: Bytes at the end of an NVDIMM's file in which labels are kept.
LABEL_SIZE = 2 * MIB

#: Seconds for what takes a few when nobody else wants the processor.
TIMEOUT = 240

#: Where a guest finds the host's 127.0.0.1, and what it is called itself
#: there, in QEMU's user networking.
OUTSIDE = '10.0.2.2'
INSIDE = '10.0.2.15'

#: A panic ends the guest; what costs time and guards nothing here is off.
KERNEL_OPTIONS = (
    'console=ttyS0 quiet panic=-1 mitigations=off nokaslr cryptomgr.notests')

#: Tell the handle of each NVDIMM, which QEMU counts, and what it is called.
LIST_PLACES = """
for region in /sys/bus/nd/devices/region*; do
    IFS=, read nmem _ < $region/mapping0
    echo $(cat /sys/bus/nd/devices/$nmem/nfit/handle) $nmem ${region##*/}
done
"""


def with_us(*command: str) -> list[str]:
    """Return a command that ends when the thread that starts it does.

    It does not even begin if we have ended before it has asked for that.
    """
    return ['setpriv', '--pdeathsig', 'KILL', '--', 'sh', '-c',
            '[ "$PPID" = "$0" ] && exec "$@"', str(os.getpid()), *command]


class GuestError(Exception):
    """A guest does not do what it should."""


class GuestGone(GuestError):
    """The guest ended while something was asked of it."""


@dataclasses.dataclass(frozen=True)
class Result:
    """How a command ended: a negative status is the signal it died by."""

    status: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        """What it wrote to stdout, without the space around it."""
        return self.stdout.decode().strip()


class Command:
    """A command that runs in a guest."""

    def __init__(self, channel: 'Channel', call: '_Call') -> None:
        self._channel = channel
        self._call = call
        first = call.news.get(timeout=TIMEOUT)
        if 'error' in first:
            call.result(0)
        #: The number of the process in the guest.
        self.pid: int = first['pid']

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Signal it, and all that it has started."""
        self._channel.call('signal', pid=self.pid, signal=int(number))

    def kill(self) -> Result:
        """End it, and return what it has said so far."""
        self.signal(signal.SIGKILL)
        return self.wait()

    def wait(self, timeout: float = TIMEOUT) -> Result:
        """Wait for its end.

        :param timeout: in seconds
        :raises TimeoutError: if it runs on
        :raises GuestGone: if the guest ends
        """
        answer, data = self._call.result(timeout)
        middle = answer['stdout']
        return Result(answer['status'], data[:middle],
                      data[middle:].decode(errors='replace'))


class _Call:
    """A request, and what has come back for it so far."""

    def __init__(self) -> None:
        self.news: queue.SimpleQueue[dict[str, ty.Any]] = queue.SimpleQueue()
        self._done: concurrent.futures.Future[
            tuple[dict[str, ty.Any], bytes]] = concurrent.futures.Future()

    def take(self, answer: dict[str, ty.Any], data: bytes) -> None:
        if answer.get('done'):
            self._done.set_result((answer, data))
        self.news.put(answer)

    def fail(self, error: Exception) -> None:
        self._done.set_exception(error)
        self.news.put({'error': str(error)})

    def result(self, timeout: float) -> tuple[dict[str, ty.Any], bytes]:
        answer, data = self._done.result(timeout)
        if 'error' in answer:
            raise GuestError('%(error)s\nIn the guest:\n%(traceback)s'
                             % answer)
        return answer, data


class Channel:
    """The line to a guest's agent (see ``agent.py``)."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._lock = threading.Lock()
        self._last = 0
        self._ended = False
        #: What the agent says first.
        self.ready = _Call()
        self._calls = {0: self.ready}
        threading.Thread(target=self._receive, daemon=True).start()

    def start(self, op: str, data: bytes = b'', **request: ty.Any) -> _Call:
        """Ask for something, and don't wait for it."""
        call = _Call()
        with self._lock:
            if self._ended:
                raise GuestGone('the guest is not running')
            self._last += 1
            self._calls[self._last] = call
            line = json.dumps(
                dict(request, op=op, id=self._last, size=len(data)))
            with contextlib.suppress(OSError):  # the receiver notes the end
                self._socket.sendall(line.encode() + b'\n' + data)
        return call

    def call(
        self, op: str, data: bytes = b'', **request: ty.Any,
    ) -> tuple[dict[str, ty.Any], bytes]:
        """Ask for something, and return the answer."""
        return self.start(op, data, **request).result(TIMEOUT)

    def _receive(self) -> None:
        with self._socket.makefile('rb', 1 << 20) as file:
            with contextlib.suppress(OSError):
                while line := file.readline():
                    answer = json.loads(line)
                    data = file.read(answer['size'])
                    with self._lock:
                        done = answer.get('done')
                        call = (self._calls.pop if done else self._calls.get)(
                            answer['id'], None)
                    if call:
                        call.take(answer, data)
        with self._lock:
            self._ended = True
            calls, self._calls = self._calls, {}
        for call in calls.values():
            call.fail(GuestGone('the guest has ended'))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class Monitor:
    """The line to QEMU itself, for what no guest can do."""

    def __init__(self, sock: socket.socket) -> None:
        self._file = sock.makefile('rwb')
        sock.close()
        json.loads(self._file.readline())  # the greeting
        self.call('qmp_capabilities')

    def call(self, command: str, **arguments: ty.Any) -> ty.Any:
        """Have QEMU do something.

        :raises GuestError: if it refuses
        """
        request = {'execute': command, 'arguments': arguments}
        self._file.write(json.dumps(request).encode() + b'\n')
        self._file.flush()
        while line := self._file.readline():
            answer = json.loads(line)
            if 'error' in answer:
                raise GuestError(answer['error']['desc'])
            if 'return' in answer:
                return answer['return']
        raise GuestGone('QEMU has ended')


class Namespace:
    """A devdax namespace of a guest, as it was when it was looked up.

    Its device node can have another number after the guest was booted.
    Offsets, lengths and sizes are bytes.
    """

    def __init__(self, guest: 'Guest', record: dict[str, ty.Any]) -> None:
        self.guest = guest
        self.name: str = record.get('name', '')
        #: As ndctl knows it, for example ``namespace0.0``.
        self.dev: str = record['dev']
        region = record['daxregion']
        self.align: int = region.get('align', 0)
        self.size: int = region['devices'][0]['size']
        self._node = '/dev/' + region['devices'][0]['chardev']

    @property
    def node(self) -> str:
        """Path of the device node."""
        self.guest.touched = True
        return self._node

    def read(self, offset: int = 0, length: int | None = None) -> bytes:
        """Return its bytes, or a part of them."""
        return self._call('peek', offset, length)[1]

    def write(self, offset: int, data: bytes) -> None:
        """Put bytes on it."""
        self._call('poke', offset, None, data)

    def fill(
        self, data: bytes, offset: int = 0, length: int | None = None,
    ) -> None:
        """Repeat data from an offset to the end, or for a length."""
        if length is None:
            length = self.size - offset
        self._call('poke', offset, length, data)

    def digest(self, offset: int = 0, length: int | None = None) -> str:
        """Return the SHA-256 of it or a part, in hexadecimal."""
        return self._call('digest', offset, length)[0]['digest']

    def is_zero(self, offset: int = 0, length: int | None = None) -> bool:
        """Say whether it, or a part, is all zero."""
        return self._call('is_filled', offset, length, b'\0')[0]['answer']

    def destroy(self) -> None:
        """Destroy the namespace; its bytes stay where they are."""
        self.guest.check('ndctl', 'destroy-namespace', '-f', self.dev)

    def _call(
        self, op: str, offset: int, length: int | None, data: bytes = b'',
    ) -> tuple[dict[str, ty.Any], bytes]:
        return self.guest.channel.call(
            op, data, node=self.node, offset=offset, length=length)


class Nvdimm:
    """The medium of an NVDIMM: memory of this process, not a file.

    It is there as long as this process holds it, whatever becomes of the
    guests that it is plugged into. Its last ``LABEL_SIZE`` bytes are the
    label area.
    """

    def __init__(self, size: int, content: bytes | None = None) -> None:
        """Make one.

        :param size: in bytes, without the label area
        :param content: all its bytes, label area included; blank if None
        """
        self.is_blank = content is None
        self.size = size + LABEL_SIZE
        self.fd = os.memfd_create('nvdimm')
        os.truncate(self.fd, self.size)
        if content is not None:
            if len(content) != self.size:
                raise ValueError('%d bytes for an NVDIMM of %d' % (
                    len(content), self.size))
            view = memoryview(content)
            while view:
                view = view[os.write(self.fd, view):]

    def read(self) -> bytes:
        """Return all its bytes, label area included."""
        with open(os.dup(self.fd), 'rb') as file:
            file.seek(0)
            return file.read()

    def close(self) -> None:
        if self.fd != -1:
            os.close(self.fd)
            self.fd = -1


class Disk:
    """A small disk with an ext4 file system: memory, as an NVDIMM is.

    It keeps what its guest has synced, whatever becomes of the guest.
    """

    def __init__(self, size: int = 16 * MIB) -> None:
        """Make one.

        :param size: in bytes; what is not used takes no memory
        :raises lab.image.Missing: if mke2fs is not installed
        """
        self.fd = os.memfd_create('disk')
        os.truncate(self.fd, size)
        subprocess.run(
            [images.find('mke2fs', 'e2fsprogs'), '-q', '-F', '-t', 'ext4',
             '-m', '0', '/proc/self/fd/%d' % self.fd],
            check=True, stdin=subprocess.DEVNULL, pass_fds=[self.fd])

    def close(self) -> None:
        if self.fd != -1:
            os.close(self.fd)
            self.fd = -1


class Cable:
    """A network between two guests; it outlives what is plugged in."""

    def __init__(self) -> None:
        self.ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    def close(self) -> None:
        for end in self.ends:
            end.close()


class Guest:
    """A virtual machine.

    :ivar name: its host name
    :ivar address: its address in the network of guests
    :ivar boots: how often it was started
    :ivar is_up: whether it has come up since
    :ivar process: QEMU, while it is switched on
    :ivar touched: whether a test has had to do with a device of it
    """

    def __init__(
        self,
        name: str,
        image: images.Image,
        folder: pathlib.Path,
        *,
        nvdimms: abc.Sequence[int | Nvdimm] = (128 * MIB, 128 * MIB),
        network: socket.socket | None = None,
        memory: int = 512,
        disk: int = 16 * MIB,
        outside: bool = False,
    ) -> None:
        """Describe it; ``boot`` starts it.

        :param folder: where its files go; it does not exist
        :param nvdimms: for each NVDIMM its size in bytes without labels, to
            have a blank one; or what is to be plugged in
        :param network: one end of a cable
        :param memory: in MiB
        :param disk: size in bytes
        :param outside: whether it reaches servers on this host's 127.0.0.1,
            as ``OUTSIDE``
        """
        self.name = name
        self.address = images.address(name)
        self.folder = folder
        self.boots = 0
        self.is_up = False
        self.touched = False
        self._image = image
        self._network = network
        self._memory = memory
        self._outside = outside
        folder.mkdir()
        self.console = folder / 'console.log'
        self.console.touch()
        self.nvdimms = [each if isinstance(each, Nvdimm) else Nvdimm(each)
                        for each in nvdimms]
        self.disk = Disk(disk)
        self.process: subprocess.Popen[bytes] | None = None

    # Power

    def boot(self) -> 'Guest':
        """Start it, and wait until it does what it is asked to."""
        self.power_on()
        return self.wait_until_up()

    def power_on(self) -> None:
        """Start it; to be called by a thread that lives on.

        When that thread ends, the kernel ends the virtual machine, so that
        it can't be left behind.
        """
        self.boots += 1
        self.is_up = False
        agent, far_agent = socket.socketpair()
        monitor, far_monitor = socket.socketpair()
        ends = [far_agent.fileno(), far_monitor.fileno()]
        if self._network:
            ends.append(self._network.fileno())
        with open(self.folder / 'qemu.log', 'ab') as log:
            self.process = subprocess.Popen(
                with_us(*self._command(*ends)), stdin=subprocess.DEVNULL,
                stdout=log, stderr=log,
                cwd=self.folder, start_new_session=True,
                pass_fds=[*ends, self.disk.fd,
                          *(nvdimm.fd for nvdimm in self.nvdimms)])
        far_agent.close()
        far_monitor.close()
        self.channel = Channel(agent)
        self._monitor_socket = monitor
        self._monitor: Monitor | None = None

    def _command(self, agent: int, monitor: int, network: int = -1,
                 ) -> abc.Iterator[str]:
        yield from (
            str(images.find('qemu-system-x86_64', 'qemu-system-x86')),
            '-nodefaults', '-no-user-config', '-display', 'none',
            '-accel', 'tcg,thread=multi', '-cpu', 'qemu64,+pdpe1gb',
            '-machine', 'q35,nvdimm=on',
            '-m', '%dM,slots=%d,maxmem=64G' % (
                self._memory, max(1, len(self.nvdimms))),
            '-kernel', str(self._image.kernel),
            '-initrd', str(self._image.initrd),
            '-append', ' '.join([
                KERNEL_OPTIONS, 'lab.name=' + self.name, *(
                    'lab.net=eth%d,%s' % each
                    for each in enumerate(self._addresses()))]),
            '-no-reboot',
            '-chardev', 'file,id=console,path=console.log,append=on',
            '-serial', 'chardev:console',
            '-chardev', 'socket,id=monitor,fd=%d' % monitor,
            '-mon', 'chardev=monitor,mode=control',
            '-device', 'virtio-rng-pci',
            '-device', 'virtio-serial-pci',
            '-chardev', 'socket,id=agent,fd=%d' % agent,
            '-device', 'virtserialport,chardev=agent,name=' + images.PORT,
            '-blockdev', 'driver=file,node-name=disk,locking=off,'
            'filename=/proc/self/fd/%d' % self.disk.fd,
            '-device', 'virtio-blk-pci,drive=disk')
        for number, nvdimm in enumerate(self.nvdimms):
            yield from (
                '-object', 'memory-backend-file,id=memory%d,share=on,'
                'mem-path=/proc/self/fd/%d,size=%d' % (
                    number, nvdimm.fd, nvdimm.size),
                '-device', 'nvdimm,memdev=memory%d,label-size=%d' % (
                    number, LABEL_SIZE))
        if network != -1:
            yield from (
                '-netdev', 'dgram,id=net,local.type=fd,local.str=%d' % network,
                '-device', 'virtio-net-pci,netdev=net,romfile=,mac=%s' % (
                    '52:54:00:00:00:%02x' % images.NAMES.index(self.name)))
        if self._outside:
            yield from (
                '-netdev', 'user,id=outside,ipv6=off',
                '-device', 'virtio-net-pci,netdev=outside,romfile=')
        if self._image.volume:
            yield from (
                '-blockdev', 'driver=file,node-name=volume,read-only=on,'
                'filename=%s' % self._image.volume.absolute(),
                '-device', 'virtio-blk-pci,drive=volume')

    def _addresses(self) -> abc.Iterator[str]:
        """Yield those of its network cards, which count in this order."""
        if self._network:
            yield self.address
        if self._outside:
            yield INSIDE

    def wait_until_up(self) -> 'Guest':
        """Wait for the end of the boot.

        :raises GuestError: with the end of its log, if it does not come up
        """
        try:
            self.channel.ready.result(TIMEOUT)
        except (GuestGone, TimeoutError) as error:
            raise GuestError('%s does not boot: %s\n%s' % (
                self.name, error, self.log()[-2000:])) from error
        self._write_labels()
        self.is_up = True
        return self

    def _write_labels(self) -> None:
        """Prepare blank NVDIMMs for namespaces; real ones come so."""
        self._places = self._find_places()
        for (nmem, region), nvdimm in zip(self._places, self.nvdimms):
            if nvdimm.is_blank:
                self.check('bash', '-ec', (
                    'ndctl disable-region {1}; ndctl init-labels -f {0};'
                    'ndctl enable-region {1}').format(nmem, region))
                nvdimm.is_blank = False

    def _find_places(self) -> list[list[str]]:
        """Return what the kernel calls each NVDIMM and its region.

        It numbers them as it comes across them, which differs.
        """
        lines = self.check('bash', '-c', LIST_PLACES).text.splitlines()
        return [line.split()[1:] for line in sorted(
            lines, key=lambda line: int(line.split()[0], 16))]

    def reboot(self) -> 'Guest':
        """Shut it down in an orderly way and boot it."""
        with contextlib.suppress(GuestGone):
            self.run('reboot', '-f')
        self._wait_for_end()
        return self.boot()

    def kill(self) -> None:
        """End it at once, as a loss of power does; ``boot`` starts it again.

        What has reached its NVDIMMs stays, and what was synced to its disk.
        """
        if self.process:
            self.process.kill()
            self._wait_for_end()

    @property
    def is_running(self) -> bool:
        """Whether it is switched on."""
        return bool(self.process) and self.process.poll() is None

    def _wait_for_end(self) -> None:
        assert self.process
        self.process.wait(TIMEOUT)
        self.process = None
        self.channel.close()
        self._monitor_socket.close()

    def close(self) -> None:
        """End it and let its NVDIMMs and disk go; its logs stay."""
        self.kill()
        self.disk.close()
        for nvdimm in self.nvdimms:
            nvdimm.close()

    def plug(self, plugged: bool = True) -> None:
        """Plug in the network cable, or pull it out."""
        if self._monitor is None:
            self._monitor = Monitor(self._monitor_socket)
        self._monitor.call('set_link', name='net', up=plugged)

    def log(self) -> str:
        """Return what has come from its console, and from QEMU."""
        return self.console.read_text(errors='replace') + (
            self.folder / 'qemu.log').read_text(errors='replace')

    # Commands and files

    def start(
        self, *command: str, user: str = 'root', stdin: bytes = b'',
        folder: str = '', environment: abc.Mapping[str, str] | None = None,
    ) -> Command:
        """Start a command, and don't wait for its end.

        :param user: who runs it
        :param folder: where; in the user's home unless told
        :param environment: what it finds there besides the usual
        """
        return Command(self.channel, self.channel.start(
            'run', stdin, argv=command, user=user, cwd=folder,
            env=dict(environment or {})))

    def run(self, *command: str, timeout: float = TIMEOUT,
            **options: ty.Any) -> Result:
        """Run a command to its end, and say how it ended.

        :param timeout: in seconds; then it is killed
        :param options: as for ``start``
        """
        process = self.start(*command, **options)
        try:
            return process.wait(timeout)
        except TimeoutError as error:
            said = process.kill()
            raise GuestError(
                '%s: %s takes more than %s seconds; it said %s' % (
                    self.name, command, timeout, said)) from error

    def check(self, *command: str, **options: ty.Any) -> Result:
        """Run a command that has to succeed.

        :raises GuestError: with what it said, if it does not
        """
        result = self.run(*command, **options)
        if result.status:
            raise GuestError('%s: %s ended with %d: %s%s' % (
                self.name, ' '.join(command), result.status, result.stderr,
                result.stdout.decode(errors='replace')))
        return result

    def shell(self, script: str, **options: ty.Any) -> Result:
        """Run a bash script to its end."""
        return self.run('bash', '-c', script, **options)

    def read(self, path: str) -> bytes:
        """Return what is in a file."""
        return self.channel.call('read', path=path)[1]

    def write(self, path: str, data: bytes, mode: int = 0o644,
              user: str = 'root') -> None:
        """Write a file; folders are made as needed."""
        self.channel.call('write', data, path=path, mode=mode, user=user)

    def ask(self, path: str, data: bytes) -> bytes:
        """Send bytes to a unix socket, and return what comes back."""
        return self.channel.call('ask', data, path=path)[1]

    def copy(self, path: pathlib.Path, to: str, user: str = 'root') -> None:
        """Copy a file or folder of this host, under a name in the guest."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode='w') as tar:
            tar.add(path, os.path.basename(to), filter=_without_caches)
        folder = os.path.dirname(to)
        self.check('mkdir', '-p', folder)
        self.check('tar', '-x', '-f', '-', '-C', folder,
                   stdin=archive.getvalue())
        self.check('chown', '-R', '%s:%s' % (user, user), to)

    # Namespaces

    def create_namespace(
        self, name: str, size: int, nvdimm: int = 0, align: int = 2 * MIB,
    ) -> Namespace:
        """Create a devdax namespace.

        :param name: may be empty; need not be unique
        :param size: in bytes, a multiple of 16 MiB. What is usable is less.
        :param nvdimm: on which one, counted from 0
        """
        self.touched = True
        output = self.check(
            'ndctl', 'create-namespace', '--mode=devdax', '--name=' + name,
            '--region=' + self._places[nvdimm][1], '--size=%d' % size,
            '--align=%d' % align)
        return Namespace(self, json.loads(output.stdout))

    def namespaces(self) -> list[Namespace]:
        """Return the namespaces that are enabled now."""
        self.touched = True
        output = self.check('ndctl', 'list', '-X').stdout
        return [Namespace(self, record)
                for record in (json.loads(output) if output else ())]

    def namespace(self, name: str) -> Namespace:
        """Return the namespace of a name.

        :raises LookupError: if there is none, or more than one
        """
        found = [each for each in self.namespaces() if each.name == name]
        if len(found) != 1:
            raise LookupError('%d namespaces %s' % (len(found), name))
        return found[0]


def _without_caches(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if member.name.endswith('__pycache__') else member
