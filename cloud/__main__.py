# SPDX-License-Identifier: Apache-2.0
"""``python -m cloud``: bring up a cloud, run the tests, end it."""

import argparse
import os
import signal
import subprocess
import sys

from cloud import box
from cloud import ENV
from cloud.host import command_of
from cloud.host import descendants
from cloud.host import Failed
from cloud import LOGS
from cloud import TOP
from cloud import Unable
from cloud import WORK

PID = WORK / 'pid'
RC = WORK / 'rc'

_RC = """\
# To be sourced. OS_CLOUD is admin, member or reader.
export OS_CLOUD=${{OS_CLOUD:-admin}}
export OS_CLIENT_CONFIG_FILE={work}/clouds.yaml
openstack() {{
    {enter} {env}/bin/openstack "$@"
}}
# cloud-shell cmp1 [COMMAND]: be root on a host
cloud-shell() {{
    host=$1
    shift
    [ $# -gt 0 ] || set -- /bin/bash
    {enter} env PYTHONPATH={top} \\
        {env}/bin/python -m cloud.enter "$host" "$@"
}}
"""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='cloud', description=__doc__)
    what = parser.add_subparsers(dest='what', required=True)
    run = what.add_parser('run', help='bring it up, run tests, end it')
    run.add_argument('tests', nargs='*', help='what pytest is to run')
    what.add_parser('up', help='bring it up, and leave it up')
    test = what.add_parser('test', help='run tests on one that is up')
    test.add_argument('tests', nargs='*', help='what pytest is to run')
    what.add_parser('down', help='end it')
    what.add_parser('stay', help=argparse.SUPPRESS)
    return parser.parse_known_args()[0]


def main() -> int:
    options = arguments()
    inside = os.environ.get(box.INSIDE) == '1'
    try:
        if inside:
            return _inside(options, sys.argv[2:])
        box.check()
        if options.what == 'down':
            return _down()
        if options.what == 'test':
            return _test()
        held = box.lock()
        if options.what == 'up':
            return _up(held)
        return box.run(sys.argv[1:], held)
    except (Unable, Failed) as error:
        print('cloud: %s' % error, file=sys.stderr)
        return 1


def _inside(options: argparse.Namespace, tests: list[str]) -> int:
    from cloud.cloud import Cloud

    cloud = Cloud()
    if options.what == 'test':
        cloud.find()
    else:
        box.furnish()
        cloud.up()
    if options.what == 'stay':
        print('ready', flush=True)
        signal.pause()
    from cloud import suite

    return suite.run(cloud, tests)


def _up(held: int) -> int:
    log = open(WORK / 'up.log', 'w')
    running = box.start(['stay'], held, stays=True, stdin=subprocess.DEVNULL,
                        stdout=subprocess.PIPE, stderr=log, text=True)
    PID.write_text('%d\n' % running.pid)
    if running.stdout.readline().strip() != 'ready':
        running.kill()
        sys.stderr.write((WORK / 'up.log').read_text())
        raise Unable('the cloud did not come up; its logs are in %s' % LOGS)
    RC.write_text(_rc(running.pid))
    print('The cloud is up. Have your shell use it, and end it:\n\n'
          '    . %s\n    openstack server list\n    make cloud-down\n' % RC)
    return 0


def _rc(pid: int) -> str:
    """Return a script that leads a shell's ``openstack`` into the box."""
    enter = ' '.join([*_enter(pid), '--'])
    return _RC.format(enter=enter, work=WORK, top=TOP, env=ENV)


def _enter(pid: int) -> list[str]:
    """Return the beginning of a command that is run in the box.

    :param pid: of ``unshare``, whose child is the first process inside
    """
    return ['nsenter', '--target', str(descendants(pid)[1]), '--mount',
            '--net', '--ipc', '--pid']


def _test() -> int:
    return subprocess.run(
        [*_enter(_running()), '--wd=%s' % TOP, '--', sys.executable, '-B',
         '-m', 'cloud', *sys.argv[1:]],
        env=os.environ | {box.INSIDE: '1'}).returncode


def _running() -> int:
    """Return the process to end when the cloud is to end.

    :raises Unable: if there is none
    """
    try:
        pid = int(PID.read_text())
    except FileNotFoundError:
        pid = 0
    if 'cloud.init' not in command_of(pid):
        raise Unable('the cloud of this checkout is not up')
    return pid


def _down() -> int:
    os.kill(_running(), signal.SIGKILL)
    os.close(box.wait_for_lock())
    box.forget()
    PID.unlink()
    RC.unlink(missing_ok=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
