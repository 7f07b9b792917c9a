# SPDX-License-Identifier: Apache-2.0
"""A host: a root of its own over the machine's, and namespaces of its own.

Its root is an overlay: it sees the machine's files, and what it writes stays
in memory. It has its own processes, name, mounts and ``/dev``, and shares
nothing with another host but the loopback.
"""

from collections import abc
import contextlib
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time

from cloud import ENV
from cloud import HOSTS
from cloud import LOGS
from cloud import TOP

PATH = '%s:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' % (
    ENV / 'bin')

#: Nodes of a /dev, with what ``mknod`` is told of them.
_NODES = {'null': 'c 1 3', 'zero': 'c 1 5', 'full': 'c 1 7',
          'random': 'c 1 8', 'urandom': 'c 1 9', 'tty': 'c 5 0'}

_SET_UP = """
set -eu
hostname {name}
cd {root}
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 run run
mkdir -p run/lock run/sshd
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts dev/pts
mount -t tmpfs -o mode=1777 shm dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
exec chroot . {python} -I {init}
"""


class Failed(Exception):
    """A command on a host ended badly."""


class Host:
    """A host that can be looked into from outside.

    :ivar name: its host name
    :ivar address: its own in 127.0.0.0/8
    :ivar root: where its files are, as seen from here
    """

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self.root = HOSTS / name / 'root'
        self.logs = LOGS / name
        self._init: subprocess.Popen | None = None
        self.pid = 0

    def path(self, inside: str | os.PathLike[str]) -> pathlib.Path:
        """Return where a path of the host is, as seen from here."""
        return self.root / os.fspath(inside).lstrip('/')

    def write(self, inside: str, text: str, mode: int = 0o644,
              owner: tuple[int, int] = (0, 0)) -> None:
        """Write a file on the host."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        os.chown(path, *owner)

    @contextlib.contextmanager
    def replaced(self, inside: str, text: str,
                 like: str | None = None) -> abc.Iterator[None]:
        """Have a file say something else for a while, or be there.

        :param like: another file, whose mode and owner a new one gets
        """
        path = self.path(inside)
        before = path.read_text() if path.exists() else None
        known = (path if like is None else self.path(like)).stat()
        self.write(inside, text, known.st_mode, (known.st_uid, known.st_gid))
        try:
            yield
        finally:
            if before is None:
                path.unlink()
            else:
                path.write_text(before)

    def mount(self, names: abc.Mapping[str, str]) -> None:
        """Make the host's root.

        :param names: addresses by name, for its ``/etc/hosts``
        """
        folder = HOSTS / self.name
        for part in ('upper', 'work', 'root'):
            (folder / part).mkdir(parents=True)
        _run('mount', '-t', 'overlay', 'overlay', '-o',
             'lowerdir=/,upperdir=%s/upper,workdir=%s/work' % (folder, folder),
             self.root)
        self._make_dev()
        self._show_checkout()
        self.logs.mkdir(parents=True, exist_ok=True)
        self.path('/var/log/cloud').mkdir(exist_ok=True)
        _run('mount', '--bind', self.logs, self.path('/var/log/cloud'))
        self.write('/etc/hostname', self.name + '\n')
        self.write('/etc/hosts', '127.0.0.1 localhost\n::1 localhost\n' +
                   ''.join('%s %s\n' % (address, name)
                           for name, address in names.items()))

    def _make_dev(self) -> None:
        dev = self.path('/dev')
        _run('mount', '-t', 'tmpfs', '-o', 'mode=755', 'dev', dev)
        for name, numbers in _NODES.items():
            _run('mknod', '-m', '666', dev / name, *numbers.split())

    def _show_checkout(self) -> None:
        """Have the checkout where it is, for users who can't enter its home.

        The machine may have it below a private folder, or on another disk.
        """
        top = self.path(TOP)
        top.mkdir(parents=True, exist_ok=True)
        for folder in TOP.parents:
            inside = self.path(folder)
            inside.chmod(inside.stat().st_mode | 0o055)
        _run('mount', '--bind', TOP, top)
        _run('mount', '-o', 'remount,bind,ro', top)

    def start(self) -> None:
        """Start the host: from here on commands can run there."""
        script = _SET_UP.format(
            name=self.name, root=shlex.quote(str(self.root)),
            python='/usr/bin/python3', init=TOP / 'cloud' / 'init.py')
        self._init = subprocess.Popen(
            ['unshare', '--mount', '--uts', '--pid', '--fork',
             '--kill-child=KILL', '--propagation', 'private',
             '/bin/sh', '-c', script], stdin=subprocess.DEVNULL)
        until(self._find_init, 'host %s does not start' % self.name)

    def find(self) -> None:
        """Find the host that another process has started.

        :raises Failed: if there is none
        """
        for pid in descendants(1):
            if 'cloud/init.py' in command_of(pid) and os.readlink(
                    '/proc/%d/root' % pid) == str(self.root):
                self.pid = pid
                return
        raise Failed('there is no host %s' % self.name)

    def _find_init(self) -> bool:
        assert self._init is not None
        if self._init.poll() is not None:
            raise Failed('host %s ended while it started' % self.name)
        children = _children(self._init.pid)
        if len(children) != 1 or 'init.py' not in command_of(children[0]):
            return False
        self.pid = children[0]
        return True

    def command(self, *command: object, user: str = 'root',
                group: str | None = None) -> list[str]:
        """Return a command that runs another one on this host.

        :param group: its primary group, if not the user's own
        """
        enter = ['nsenter', '--target', str(self.pid), '--mount', '--uts',
                 '--pid', '--root', '--wd', '--']
        if user != 'root':
            enter += ['setpriv', '--reuid', user, '--regid', group or user,
                      '--init-groups']
        return enter + [os.fspath(word) if isinstance(word, os.PathLike)
                        else str(word) for word in command]

    def run(self, *command: object, user: str = 'root', check: bool = True,
            timeout: float = 600,
            **kwargs: object) -> subprocess.CompletedProcess:
        """Run a command there, and return what it said, as text.

        :raises Failed: if it ends badly and ``check`` is set
        """
        done = subprocess.run(
            self.command(*command, user=user), env=environment(user),
            text=True, errors='backslashreplace', timeout=timeout,
            capture_output=True, **kwargs)
        if check and done.returncode:
            raise Failed('%s on %s: status %d: %s' % (
                ' '.join(map(str, command)), self.name, done.returncode,
                (done.stderr or done.stdout).strip()[-2000:]))
        return done

    def service(self, name: str, *command: object, user: str = 'root',
                group: str | None = None,
                **more: str) -> 'Service':
        """Return a service that is not started yet.

        :param more: what is in its environment besides the usual
        """
        return Service(self, name, [*command], user, group, more)


class Service:
    """A process that stays, with a log of its own.

    It ends with its host, at the latest.
    """

    def __init__(self, host: Host, name: str, command: list, user: str,
                 group: str | None, more: dict[str, str]) -> None:
        self.host = host
        self.name = name
        self.command = command
        self.user = user
        self.group = group
        self.environment = more
        self.log = host.logs / (name + '.log')

    def start(self) -> 'Service':
        with open(self.log, 'a') as log:
            entered = subprocess.Popen(
                self.host.command(*self.command, user=self.user,
                                  group=self.group),
                env=environment(self.user) | self.environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True)
        # Others than this process may have to find it.
        self._note.write_text('%d' % entered.pid)
        return self

    @property
    def _note(self) -> pathlib.Path:
        return HOSTS / self.host.name / (self.name + '.pid')

    @property
    def _entered(self) -> int:
        """The process that has entered the host, and waits for the other."""
        return int(self._note.read_text()) if self._note.exists() else 0

    @property
    def pid(self) -> int:
        """The process itself.

        :raises Failed: if it is not there
        """
        def entered() -> int:
            if not self.runs:
                raise Failed('%s does not run on %s; see %s' % (
                    self.name, self.host.name, self.log))
            return sum(_children(self._entered)[:1])
        return until(entered, '%s does not get onto %s' % (
            self.name, self.host.name))

    @property
    def runs(self) -> bool:
        entered = self._entered
        try:
            with open('/proc/%d/stat' % entered) as stat:
                name, state = stat.read().split('(')[1].split(')')
        except (FileNotFoundError, ProcessLookupError):
            return False
        # Whoever has started it may not have buried it yet.
        return name == 'nsenter' and state.split()[0] not in 'ZX'

    def tree(self) -> list[int]:
        """Return it and all that it has started, itself first."""
        return descendants(self.pid)

    def signal(self, number: signal.Signals, pids: list[int] | None = None,
               ) -> None:
        """Signal it, or some of its processes."""
        for pid in [self.pid] if pids is None else pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        if number in (signal.SIGKILL, signal.SIGCONT):
            # ``nsenter`` stops itself when its child is stopped.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._entered, signal.SIGCONT)

    def kill(self) -> None:
        """End it and all it has started, as when a host loses power."""
        if self.runs:
            tree = self.tree()
            self.signal(signal.SIGSTOP, tree)
            self.signal(signal.SIGKILL, descendants(tree[0]))
        self.wait()

    def stop(self, timeout: float = 60) -> None:
        """Ask it to end, and wait until it has."""
        if self.runs:
            self.signal(signal.SIGTERM)
        self.wait(timeout)

    def wait(self, timeout: float = 30) -> None:
        """Wait until it has ended."""
        def has_ended() -> bool:
            if self.runs:
                # When what it waits for is stopped, nsenter stops itself.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._entered, signal.SIGCONT)
            return not self.runs
        until(has_ended, '%s does not end on %s' % (
            self.name, self.host.name), timeout)

    def text(self, since: int = 0) -> str:
        """Return its log from an offset on, in bytes."""
        with open(self.log, 'rb') as log:
            log.seek(since)
            return log.read().decode('utf-8', 'backslashreplace')

    def size(self) -> int:
        """Return the bytes of its log: where what comes next will be."""
        return self.log.stat().st_size if self.log.exists() else 0


def environment(user: str) -> dict[str, str]:
    """Return the environment of a process on a host."""
    home = '/root' if user == 'root' else '/var/lib/' + user
    return {'PATH': PATH, 'HOME': home, 'USER': user, 'LANG': 'C.UTF-8',
            'PYTHONDONTWRITEBYTECODE': '1', 'PYTHONUNBUFFERED': '1'}


def descendants(pid: int) -> list[int]:
    """Return a process and all below it, itself first."""
    found = [pid]
    for each in found:
        found.extend(_children(each))
    return found


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for task in os.listdir('/proc/%d/task' % pid):
            with open('/proc/%d/task/%s/children' % (pid, task)) as children:
                found.extend(map(int, children.read().split()))
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def command_of(pid: int) -> str:
    """Return the command line of a process; nothing if it has ended."""
    try:
        with open('/proc/%d/cmdline' % pid) as line:
            return line.read().replace('\0', ' ').strip()
    except (FileNotFoundError, ProcessLookupError):
        return ''


def until(condition: abc.Callable[[], object], otherwise: str,
          timeout: float = 60, interval: float = 0.05) -> object:
    """Wait until something is true, and return it.

    For what nobody tells of, like a port that is about to be open.

    :raises Failed: with ``otherwise`` when the time is over
    """
    deadline = time.monotonic() + timeout
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise Failed('%s, after %d seconds' % (otherwise, timeout))
        time.sleep(interval)


def _run(*command: object) -> None:
    done = subprocess.run([str(word) for word in command],
                          capture_output=True, text=True)
    if done.returncode:
        raise Failed('%s: %s' % (' '.join(map(str, command)),
                                 done.stderr.strip()))


def say(text: str) -> None:
    """Tell whoever looks on how far we are."""
    print(text, file=sys.stderr, flush=True)
