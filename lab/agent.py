# SPDX-License-Identifier: Apache-2.0
"""What runs in a guest and does what the host asks.

It is a file of its own, with nothing but Python's standard library, and is
put into the image as it is. Requests and answers go through a virtio port:
a line of JSON, in which ``size`` says how many bytes follow it. Requests are
served in threads, so a long one holds up nobody; an answer bears the ``id``
of its request.

A device DAX node can only be mapped, and its stat size is 0; so bytes of
devices are moved here, through mappings.
"""

import grp
import hashlib
import io
import json
import mmap
import os
import pwd
import signal
import subprocess
import sys
import threading
import traceback


class Port:
    """The guest's end of the line to the host."""

    def __init__(self, path):
        raw = open(path, 'r+b', buffering=0)
        self._reader = io.BufferedReader(raw, 1 << 20)
        self._raw = raw
        self._lock = threading.Lock()

    def receive(self):
        """Return the next request and the bytes that came with it."""
        line = self._reader.readline()
        if not line:
            raise EOFError
        request = json.loads(line)
        return request, self._reader.read(request.get('size', 0))

    def send(self, answer, data=b''):
        line = json.dumps(dict(answer, size=len(data))).encode() + b'\n'
        with self._lock:
            for part in (line, data):
                view = memoryview(part)
                while view:
                    view = view[self._raw.write(view):]


def execute(request, data, tell):
    """Run a command to its end; tell its pid at once."""
    user = pwd.getpwnam(request['user'])
    groups = [g.gr_gid for g in grp.getgrall() if user.pw_name in g.gr_mem]
    process = subprocess.Popen(
        request['argv'], cwd=request['cwd'] or user.pw_dir,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        user=user.pw_uid, group=user.pw_gid, extra_groups=groups,
        start_new_session=True,
        env={'HOME': user.pw_dir, 'USER': user.pw_name,
             'LOGNAME': user.pw_name, 'LC_ALL': 'C',
             'PATH': '/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
             **request['env']})
    tell({'pid': process.pid})
    stdout, stderr = process.communicate(data)
    return {'status': process.returncode, 'stdout': len(stdout)}, (
        stdout + stderr)


def send_signal(request, data, tell):
    """Signal a command and whatever it has started in its session."""
    try:
        os.killpg(request['pid'], request['signal'])
    except ProcessLookupError:
        pass
    return {}, b''


def read(request, data, tell):
    with open(request['path'], 'rb') as file:
        return {}, file.read()


def write(request, data, tell):
    """Write a file, which nobody sees before it is whole and owned."""
    path = request['path']
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + '.new', 'wb') as file:
        file.write(data)
        os.fchmod(file.fileno(), request['mode'])
        user = pwd.getpwnam(request['user'])
        os.fchown(file.fileno(), user.pw_uid, user.pw_gid)
    os.rename(path + '.new', path)
    return {}, b''


def ask(request, data, tell):
    """Send bytes to a unix socket, and return what comes back."""
    import socket  # takes its time, and few ask

    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(request['path'])
        peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)
        with peer.makefile('rb') as answer:
            return {}, answer.read()


class Mapped:
    """A whole device, mapped."""

    def __init__(self, node):
        name = os.path.basename(os.path.realpath(node))
        with open('/sys/bus/dax/devices/%s/size' % name) as size:
            self._size = int(size.read())
        self._fd = os.open(node, os.O_RDWR)

    def __enter__(self):
        self._map = mmap.mmap(self._fd, self._size)
        self._view = memoryview(self._map)
        return self._view

    def __exit__(self, *_):
        self._view.release()
        self._map.close()
        os.close(self._fd)


def part(view, request):
    """Return the part of a device that is asked for."""
    offset = request['offset']
    length = request['length']
    end = len(view) if length is None else offset + length
    if not 0 <= offset <= end <= len(view):
        raise ValueError('%d to %d of %d bytes' % (offset, end, len(view)))
    return view[offset:end]


def peek(request, data, tell):
    with Mapped(request['node']) as view, part(view, request) as wanted:
        return {}, bytes(wanted)


def poke(request, data, tell):
    """Put bytes on a device; repeated, if a length is asked for."""
    if request['length'] is None:
        request['length'] = len(data)
    with Mapped(request['node']) as view, part(view, request) as wanted:
        times, rest = divmod(len(wanted), len(data) or 1)
        wanted[:] = data * times + data[:rest]
    return {}, b''


def digest(request, data, tell):
    with Mapped(request['node']) as view, part(view, request) as wanted:
        return {'digest': hashlib.sha256(wanted).hexdigest()}, b''


def is_filled(request, data, tell):
    """Say whether a part of a device consists of one byte only."""
    with Mapped(request['node']) as view, part(view, request) as wanted:
        # Comparing is memcmp's work, which is fast under emulation, too.
        size = 1 << 20
        block = data * size
        return {'answer': all(
            wanted[at:at + size] == block[:len(wanted) - at]
            for at in range(0, len(wanted), size))}, b''


OPERATIONS = {
    'run': execute, 'signal': send_signal, 'read': read, 'write': write,
    'ask': ask, 'peek': peek, 'poke': poke, 'digest': digest,
    'is_filled': is_filled,
}


def serve(port, request, data):
    identity = {'id': request['id']}
    try:
        answer, data = OPERATIONS[request['op']](
            request, data, lambda news: port.send({**identity, **news}))
    except Exception as error:
        answer, data = {
            'error': '%s: %s' % (type(error).__name__, error),
            'traceback': traceback.format_exc()}, b''
    port.send({**identity, 'done': True, **answer}, data)


def main():
    # A command gets the default of SIGPIPE whatever Python prefers.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    port = Port(sys.argv[1])
    port.send({'id': 0, 'done': True})
    while True:
        request, data = port.receive()
        threading.Thread(
            target=serve, args=(port, request, data), daemon=True).start()


if __name__ == '__main__':
    main()
