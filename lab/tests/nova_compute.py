# SPDX-License-Identifier: Apache-2.0
"""What runs in a guest as nova-compute.

It calls what Nova's libvirt driver calls around a copy: the methods of
``nova.virt.libvirt.pmem_copy.API``, which are the product's own, with all that
they use. As in a real nova-compute they run as nova's user, and what needs
root is done by a daemon of oslo.privsep, with no more capabilities than Nova
leaves it.

What has no part in this, and takes a minute to import under emulation, is not
there: the rest of the driver, its manager, the message bus, and the database,
whose rows come with each request.

``nova_compute.py SOCKET LOG`` is started by root, and returns when it can be
asked. A request is an object in JSON, sent to that socket; ``call`` is one of
:data:`CALLS`. This is a file of its own, put into the image as it is.
"""

from concurrent import futures
import contextlib
import dataclasses
import importlib
import json
import logging
import os
import pwd
import socket
import socketserver
import sys
import traceback
import types

from oslo_config import cfg


# What stands for Nova's own

class Row(types.SimpleNamespace):
    """An object of Nova's, with the fields that matter."""

    def __contains__(self, name):
        return hasattr(self, name)

    def save(self):
        """Do nothing: the test has the database."""


@dataclasses.dataclass
class LibvirtVPMEMDevice:
    """A device as Nova knows it; size and align are bytes."""

    name: str
    size: int
    devpath: str
    align: int = 0

    def obj_clone(self):
        return dataclasses.replace(self)


class Table:
    """Finds the rows that came with the last request."""

    def __init__(self):
        self.rows = {}

    def get_by_uuid(self, _context, uuid, **_options):
        try:
            return self.rows[uuid]
        except KeyError:
            raise exception.NotFound()

    def get_by_id(self, _context, number):
        return next(row for row in self.rows.values() if row.id == number)


CONTEXT = Row(elevated=lambda **_options: CONTEXT)
MIGRATIONS, INSTANCES = Table(), Table()

#: The provider of each host's resources.
PROVIDER = 'provider'

#: The moves of which something was copied while their guests ran. As a sender
#: ends with the thread that has started it, all are those of one.
COPYING, PRECOPIED = contextlib.ExitStack(), {}
LEAVING = futures.ThreadPoolExecutor(1)

POOL = futures.ThreadPoolExecutor(1)


def stand_in(name, **content):
    """Have something else imported as a module of Nova's."""
    module = sys.modules[name] = types.ModuleType(name)
    vars(module).update(content)
    parent, _, child = name.rpartition('.')
    setattr(importlib.import_module(parent), child, module)


stand_in('nova.context', get_admin_context=lambda **_options: CONTEXT)
stand_in('nova.objects', LibvirtVPMEMDevice=LibvirtVPMEMDevice,
         Migration=MIGRATIONS, Instance=INSTANCES, InstanceActionEvent=Row(
             event_start=lambda *_values, **_options: None,
             event_finish_with_failure=lambda *_values, **_options: None))
stand_in('nova.compute.task_states', DELETING='deleting',
         RESIZE_FINISH='resize_finish', RESIZE_MIGRATING='resize_migrating',
         RESIZE_PREP='resize_prep', RESIZE_REVERTING='resize_reverting',
         SOFT_DELETING='soft-deleting')
stand_in('nova.thread_pool_factory', ExecutorType=Row(LONG_TASK=None),
         spawn_on=lambda _kind, *call: POOL.submit(*call))
sys.modules['lxml'] = types.ModuleType('lxml')
sys.modules['lxml'].etree = None
stand_in('nova.virt.hardware')
# Of its options only those of the copy, and three of the host.
stand_in('nova.conf', CONF=cfg.CONF, __path__=[os.path.join(
    os.path.dirname(os.path.abspath(__file__)), 'nova', 'conf')])

from nova.conf import pmem_copy as options  # noqa: E402
from nova import exception  # noqa: E402
import nova.privsep  # noqa: E402
from nova.virt.libvirt.pmem import check_host  # noqa: E402
from nova.virt.libvirt.pmem import namespaces  # noqa: E402
from nova.virt.libvirt.pmem import pairing  # noqa: E402
from nova.virt.libvirt import pmem_copy  # noqa: E402
from oslo_privsep import priv_context  # noqa: E402


# Requests

class Move:
    """A migration and its server, as the database has them."""

    def __init__(self, row):
        self.pairs = [
            pairing.DevicePair(*(LibvirtVPMEMDevice(**device)
                                 for device in pair))
            for pair in row['pairs']]
        sources, self.claimed = map(list, zip(*self.pairs))
        self.migration = Row(id=1, **row['migration'])
        has = (self.claimed if self.migration.status == 'finished'
               else sources)
        self.instance = Row(
            uuid=row['migration']['instance_uuid'], host=row['host'],
            pairs=self.pairs,
            progress=0, task_state='resize_migrating', new_flavor=None,
            flavor=None, _context=CONTEXT,
            resources=_resources(has), migration_context=Row(
                migration_id=1, copy_pmem_devices=True,
                pmem_copy_socket=row['socket'], pmem_copy_off_since=None,
                old_resources=_resources(sources),
                new_resources=_resources(self.claimed)))


def _resources(devices):
    return [Row(identifier=device.name, metadata=device,
                provider_uuid=PROVIDER)
            for device in devices]


def _resources_of(instance, prefix=None):
    return (getattr(instance.migration_context, prefix + 'resources')
            if prefix else instance.resources)


def _api():
    """Return the door of a driver whose host has no guests."""
    host = Row(get_node_uuid=lambda: PROVIDER,
               list_guests=lambda **_options: [])
    api = pmem_copy.API(Row(
        job_tracker=Row(add_job=lambda *_process: None,
                        remove_job=lambda *_process: None),
        _host=host, _vpmems_by_name=namespaces.list_namespaces(),
        _get_vpmem_resources=list,
        _get_resources=_resources_of))
    api.pairs = lambda instance: instance.pairs
    api._precopied = PRECOPIED
    return api


def prepare(move):
    """Return where the data is received."""
    _api().prepare(move.instance, move.migration)
    return move.instance.migration_context.pmem_copy_socket


def precopy(move):
    """Copy while the guest runs."""
    move.instance.task_state = 'resize_prep'
    LEAVING.submit(COPYING.enter_context, _api().precopied(
        move.instance, move.migration, True)).result()


def copy(move):
    LEAVING.submit(_copy, move).result()


def _copy(move):
    with COPYING.pop_all():
        _api().copy(move.instance)


def finish(move):
    """Do what is done around the start of the guest, which there is not."""
    # The source has told that everything was copied; and Nova has given the
    # server what was claimed for it.
    move.instance.migration_context.pmem_copy_socket = None
    move.instance.resources = move.instance.migration_context.new_resources
    _api().finish(move.instance, move.migration)
    _api().started(move.instance)


def settle(_move):
    """Return the uuids of the migrations whose tickets were closed."""
    closed = []
    futures.wait(_api().settle(
        CONTEXT, lambda _ticket, _instance: True, closed.append))
    return [ticket.migration_uuid for ticket in closed]


def wipe_old(move):
    _api().wipe_left(move.instance)


def dirty(_move):
    """Return the names of namespaces that must not be given to a server."""
    return sorted(_api().dirty_names())


def check(move):
    """Return the lines of nova-pmem-copy, by their names, for the sources."""
    cfg.CONF.set_override('pmem_namespaces', ['LABEL:' + '|'.join(
        source.name for source, _ in move.pairs)], group='libvirt')
    return {line.name: line for look in check_host.CHECKS.values()
            for line in look()}


CALLS = {call.__name__: call for call in (
    prepare, precopy, copy, finish, settle, wipe_old, dirty, check)}


class Handler(socketserver.StreamRequestHandler):
    """Serves a request; it ends where the peer ends it."""

    def handle(self):
        try:
            answer = {'value': serve(json.load(self.rfile))}
        except Exception as error:
            traceback.print_exc()
            answer = {'error': type(error).__name__, 'message': str(error)}
        self.wfile.write(json.dumps(answer).encode())


def serve(request):
    moves = {row['migration']['uuid']: Move(row) for row in request['moves']}
    MIGRATIONS.rows = {
        uuid: move.migration for uuid, move in moves.items()}
    INSTANCES.rows = {
        move.instance.uuid: move.instance for move in moves.values()}
    return CALLS[request['call']](moves.get(request['move']))


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


# The service

# It looks from a fork, which has no thread that hears privsep's answers: the
# command itself starts privsep only there.
check_host.apart = lambda function: function()


def configure():
    cfg.CONF.register_opts(
        [*options.OPTS, cfg.ListOpt('pmem_namespaces')], group='libvirt')
    cfg.CONF.register_opts([
        cfg.StrOpt('host', default=socket.gethostname()),
        cfg.StrOpt('state_path')])
    cfg.CONF.register_opts([
        cfg.BoolOpt('send_service_user_token', default=True)],
        group='service_user')
    cfg.CONF(args=[], project='nova', prog='nova-compute')


def become(name):
    user = pwd.getpwnam(name)
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    os.environ.update(HOME=user.pw_dir, USER=name, LOGNAME=name)


def run(path, ready):
    """Serve; to be called as root.

    :param ready: file descriptor to which it is written that it can be asked
    """
    configure()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # of one that was killed
    server = Server(path, Handler)
    nova.privsep.sys_admin_pctxt.start(priv_context.Method.FORK)
    become('nova')
    os.write(ready, b'1')
    os.close(ready)
    server.serve_forever()


def main(path, log_path):
    wait, ready = os.pipe()
    if os.fork():
        os.close(ready)
        if os.read(wait, 1):
            return 0
        with open(log_path) as log:
            sys.stderr.write(log.read())
        return 1
    os.close(wait)
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    logging.basicConfig(level=logging.INFO)
    run(path, ready)


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
