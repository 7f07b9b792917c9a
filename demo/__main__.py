# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""``python -m demo``: bring up a cloud, move a server, tell the story."""

import argparse
import contextlib
import os
import pathlib
import signal
import sys
import time
from typing import Any

PROJECT = pathlib.Path(__file__).resolve().parent.parent
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='demo', description='Resize and migrate a server whose '
        'persistent memory is copied, on a whole Nova in one process.')
    parser.add_argument(
        'tree', nargs='?', type=pathlib.Path, metavar='TREE',
        default=os.environ.get('DEMO_NOVA', PROJECT / 'work' / 'nova'),
        help='the patched Nova (default: $DEMO_NOVA, or work/nova in the '
        'project)')
    parser.add_argument(
        '--size', type=int, default=64, metavar='MIB',
        help='size of each namespace, an even number (default: 64)')
    parser.add_argument(
        '--without-copy', action='store_true',
        help='leave --copy-pmem-devices away, to see the demo fail')
    parser.add_argument(
        '--without-failures', action='store_true',
        help='leave out what fails: a minute less')
    parser.add_argument(
        '--log', type=argparse.FileType('w'), metavar='FILE',
        help="where to put the services' log")
    options = parser.parse_args()
    if options.size <= 0 or options.size % 2:
        parser.error('a namespace is a multiple of 2 MiB')
    if not (pathlib.Path(options.tree) / 'nova').is_dir():
        parser.error('there is no Nova in %s; "python -m novapatch work" '
                     'makes one' % options.tree)
    return options


def ignore_signals() -> None:
    """Have cleaning up not be hurried or hindered."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def stop(number: int, frame: Any) -> None:
    """End in good order when a signal comes."""
    ignore_signals()
    print('\nInterrupted; cleaning up.', file=sys.stderr)
    sys.exit(128 + number)


def errors(log: str) -> list[str]:
    """Return the last lines of a log that tell of errors."""
    return [line for line in log.splitlines()
            if ' ERROR [' in line and '[stevedore' not in line
            or line.startswith('nova.exception.')][-20:]


def main() -> int:
    options = arguments()
    for number in SIGNALS:
        signal.signal(number, stop)
    # Variables such as OS_TEST_TIMEOUT would have the test harness interfere.
    for name in [n for n in os.environ if n.startswith('OS_')]:
        del os.environ[name]
    sys.path.insert(0, str(pathlib.Path(options.tree).resolve()))

    started = time.monotonic()
    print('# This takes two to four minutes.\n'
          '# Nova in %s: API, conductor, scheduler, placement and two '
          'nova-computes.' % options.tree, flush=True)
    from demo import cloud
    from demo import story
    with contextlib.ExitStack() as stack:
        try:
            nova = stack.enter_context(
                cloud.Cloud(story.namespaces(options.size)))
        except cloud.pmem.Missing as missing:
            print('FAILED: %s' % missing, file=sys.stderr)
            return 1
        stack.callback(ignore_signals)
        print('# The API is at %s after %.1f s.'
              % (nova.url, time.monotonic() - started), flush=True)
        try:
            story.Story(nova, copy=not options.without_copy,
                        failures=not options.without_failures).tell()
        except story.Failure as failure:
            print('', *errors(nova.log), 'FAILED: %s' % failure, sep='\n',
                  file=sys.stderr)
            return 1
        finally:
            if options.log:
                options.log.write(nova.log)
    print('\nPassed: the data was where it had to be at each step, and '
          'nowhere else (%.0f s).' % (time.monotonic() - started))
    return 0


if __name__ == '__main__':
    sys.exit(main())
