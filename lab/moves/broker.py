# SPDX-License-Identifier: Apache-2.0
"""RabbitMQ, for one run: its files in a folder, its ports on loopback.

It needs no root, meets no other RabbitMQ, and ends with who started it.
"""

import contextlib
import os
import pathlib
import select
import socket
import subprocess
import tempfile
import time

from lab import guest

LOOPBACK = '127.0.0.1'

#: The wrapper in /usr/sbin insists on a user of RabbitMQ's own.
SERVER = '/usr/lib/rabbitmq/bin/rabbitmq-server'

#: Seconds that RabbitMQ may take to come up; it needs 5 to 10.
TIMEOUT = 240

#: Seconds between two looks at what does not tell that it is up.
PAUSE = 0.1


class BrokerError(Exception):
    """RabbitMQ does not start."""


def free_ports(number: int) -> list[int]:
    """Return ports of loopback on which nothing listens now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket())
                   for _ in range(number)]
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [each.getsockname()[1] for each in sockets]


def url(address: str, port: int) -> str:
    """Return what Nova calls a broker, by the port of one here.

    :param address: what its host is called where it is needed
    """
    return 'rabbit://guest:guest@%s:%d/' % (address, port)


class Broker:
    """A RabbitMQ with the user ``guest``.

    It believes that systemd starts it, to which it tells when it is up; then
    it runs as the child that was started, too, and not as a child of that.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        """Describe it; ``with`` starts and ends it.

        :param folder: where its files go; made if it is not there
        """
        self._folder = folder
        self.port, self._names, self._nodes = free_ports(3)
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> 'Broker':
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            with tempfile.TemporaryDirectory() as short:
                path = short + '/up'
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as up:
                    up.bind(path)
                    # Nodes ask this one, and not the machine's, where others
                    # are. One that RabbitMQ starts itself would stay behind.
                    self._start('/usr/bin/epmd', '-address', LOOPBACK)
                    self._wait_for_names()
                    self._wait(self._start(SERVER, NOTIFY_SOCKET=path), up)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        for process in reversed(self._processes):
            process.kill()
            process.wait()

    def _start(self, *command: str, **environment: str) -> int:
        """Start something that ends with us; return its number."""
        with open(self._folder / 'output.log', 'ab') as log:
            self._processes.append(subprocess.Popen(
                guest.with_us(*command), stdin=subprocess.DEVNULL,
                stdout=log, stderr=log,
                cwd=self._folder, env=self._environment() | environment,
                start_new_session=True))
        return self._processes[-1].pid

    def _environment(self) -> dict[str, str]:
        folder = str(self._folder)
        return {
            'PATH': '/usr/sbin:/usr/bin:/sbin:/bin',
            'HOME': folder,
            'ERL_EPMD_ADDRESS': LOOPBACK,
            'ERL_EPMD_PORT': str(self._names),
            'RABBITMQ_NODENAME': 'lab-%d@localhost' % os.getpid(),
            'RABBITMQ_NODE_IP_ADDRESS': LOOPBACK,
            'RABBITMQ_NODE_PORT': str(self.port),
            'RABBITMQ_DIST_PORT': str(self._nodes),
            'RABBITMQ_MNESIA_BASE': folder,
            'RABBITMQ_LOG_BASE': folder,
            'RABBITMQ_CONF_ENV_FILE': '/dev/null',
            'RABBITMQ_CONFIG_FILE': folder + '/none',
            'RABBITMQ_ENABLED_PLUGINS_FILE': folder + '/plugins',
            # One thread that does not spin when there is nothing to do.
            'RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS':
                '+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none '
                '-kernel inet_dist_use_interface {127,0,0,1}',
        }

    def _wait_for_names(self) -> None:
        """Wait until names of nodes can be asked for; it does not tell.

        :raises BrokerError: if that takes too long
        """
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            with socket.socket() as client:
                if not client.connect_ex((LOOPBACK, self._names)):
                    return
            time.sleep(PAUSE)
        raise BrokerError('epmd does not start')

    def _wait(self, pid: int, up: socket.socket) -> None:
        """Wait until RabbitMQ tells that it is up, as it tells systemd.

        :raises BrokerError: if it ends instead, or takes too long
        """
        process = os.pidfd_open(pid)
        try:
            while True:
                ready, _, _ = select.select([up, process], [], [], TIMEOUT)
                if up not in ready:
                    raise BrokerError('RabbitMQ does not start\n' + (
                        self._folder / 'output.log').read_text())
                if b'READY=1' in up.recv(4096).split():
                    return
        finally:
            os.close(process)
