# SPDX-License-Identifier: Apache-2.0
"""Receivers that only acknowledge: what is left is what sending costs."""

from collections import abc
import contextlib
import fcntl
import itertools
import multiprocessing
import os
import socket

from nova.virt.pmem_transfer import wire

#: Bytes that go through a pipe at a time, into nothing.
_PIPE = 1024 ** 2


@contextlib.contextmanager
def receivers(job: wire.Sending, count: int) -> abc.Iterator[None]:
    """Have processes take in what so many streams of a job send."""
    devices = [wire.Target(
        each.target_name, '', each.target_size, each.size).described()
        for each in job.devices]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(job.socket)
        listener.listen()
        processes = [multiprocessing.Process(
            target=_serve, args=(listener, devices), daemon=True)
            for _ in range(count)]
        for each in processes:
            each.start()
        try:
            yield
        finally:
            for each in processes:
                each.kill()
                each.join()
            os.unlink(job.socket)


def _serve(listener: socket.socket, devices: list[dict]) -> None:
    source, sink = os.pipe()
    fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, _PIPE)
    nothing = os.open(os.devnull, os.O_WRONLY)

    def drop(size: int) -> None:
        # Without a copy, or this would take what the sender is to have.
        while size:
            count = os.splice(connection.fileno(), sink, min(size, _PIPE))
            if not count:
                raise EOFError('within a frame')
            size -= count
            while count:
                count -= os.splice(source, nothing, count)

    while True:
        connection, _ = listener.accept()
        with connection:
            while connection.recv(1) != b'\n':
                pass
            connection.sendall(wire.hello(devices=devices))
            for number in itertools.count():
                header = wire.Header.unpack(_take(
                    connection, wire.HEADER.size), number)
                if header.kind == wire.END:
                    connection.sendall(wire.line(end=True))
                    break
                drop(sum(run.length for run in wire.unpack_runs(_take(
                    connection, header.runs * wire.RUN.size))))
                connection.sendall(wire.line(stored=header.place))


def _take(connection: socket.socket, size: int) -> bytes:
    return connection.recv(size, socket.MSG_WAITALL) if size else b''
