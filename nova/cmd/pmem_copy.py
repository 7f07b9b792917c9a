# SPDX-License-Identifier: Apache-2.0

"""The command nova-pmem-copy, which tells whether vPMEM data can be moved.

``nova-pmem-copy check`` is run as nova's user on a compute host.
"""
# autopep8: off
# Else the second line reads a configuration, and fails with a traceback where
# that is not there or not for this user; main() says so.
import os; os.environ.setdefault('OS_NOVA_DISABLE_EVENTLET_PATCHING', '1')  # noqa
from nova import monkey_patch; monkey_patch.patch(backend='threading')  # noqa
# autopep8: on

from collections import abc
import shlex
import signal
import sys
import typing as ty

from oslo_config import cfg
from oslo_privsep import priv_context
from oslo_serialization import jsonutils

import nova.conf
from nova import config
from nova import objects
from nova import utils
from nova.virt.libvirt.pmem import check_host
from nova.virt.libvirt.pmem import check_peer
from nova.virt.libvirt.pmem import transfer
from nova.virt.pmem_transfer import wire

CONF = nova.conf.CONF

Line = check_host.Line


def check(peer: str | None) -> abc.Iterator[Line]:
    """Look at this host, and at the way to another one."""
    for name, look in check_host.CHECKS.items():
        yield from _lines(name, look)
    for name, look_at in check_peer.CHECKS.items() if peer is not None else ():
        lines = list(_lines(name, look_at, peer))
        yield from lines
        if any(line.ok is False for line in lines):
            break


def _lines(name: str, look: abc.Callable[..., abc.Iterator[Line]],
           *args: str) -> abc.Iterator[Line]:
    try:
        for line in look(*args):
            yield line._replace(text=transfer.printable(line.text))
    except Exception as error:
        yield Line(name, False, transfer.printable(str(error)))


def report(lines: abc.Iterable[Line], as_json: bool) -> int:
    """Print lines, each as soon as it is there.

    :returns: the exit status
    """
    told = []
    for line in lines:
        told.append(line)
        if not as_json:
            print('%-14s %s%s' % (line.name, {
                True: 'ok: ', None: 'not known: ', False: 'WRONG: '}[line.ok],
                line.text), flush=True)
    is_ok = all(line.ok is not False for line in told)
    if as_json:
        print(jsonutils.dumps({
            'ok': is_ok, 'protocol': wire.VERSION,
            'checks': [line._asdict() for line in told]}))
    return 0 if is_ok else 1


def _add_commands(commands: ty.Any) -> None:
    parser = commands.add_parser(
        'check', help='tell whether vPMEM data can be moved from and to here')
    parser.add_argument('--peer', metavar='HOST', help=(
        'look at the way to this host, too: its migration_inbound_addr'))
    parser.add_argument('--json', action='store_true')


def main() -> int:
    for number in signal.SIGTERM, signal.SIGHUP:
        # In order, so that nothing of it stays on a peer.
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    CONF.register_cli_opt(cfg.SubCommandOpt(
        'command', title='commands', handler=_add_commands))
    try:
        config.parse_args(sys.argv, configure_db=False, init_rpc=False,
                          prog='nova-pmem-copy')
    except cfg.Error as error:
        return report([Line('configuration', False, str(error))],
                      '--json' in sys.argv)
    if CONF.command.name is None:
        sys.stderr.write('usage: nova-pmem-copy check [--peer HOST] '
                         '[--json]\n')
        return 2
    objects.register_all()
    priv_context.init(root_helper=shlex.split(utils.get_root_helper()))
    return report(check(CONF.command.peer), CONF.command.json)


if __name__ == '__main__':
    sys.exit(main())
