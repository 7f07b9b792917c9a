# SPDX-License-Identifier: Apache-2.0
"""``pmem-copy-tempest-verify``: whether the tests of this plugin really ran.

A skipped test fails no run of Tempest, and a class is skipped as a whole if,
say, ``[compute]max_microversion`` is not set. So a job that is to test this
feature asks here.
"""

import argparse
from collections.abc import Sequence
import io
import sys
from typing import Any, BinaryIO

import subunit
import testtools

#: What the names of the plugin's tests, and of their classes, have in them.
PREFIX = 'pmem_copy_tempest_plugin.'

PASSED = {'success', 'xfail'}


class Results(testtools.StreamResult):
    """What became of each test of the plugin.

    :ivar status: the last one of each test, as subunit calls it
    :ivar reason: why a test was skipped, if it says so
    """

    def __init__(self) -> None:
        super().__init__()
        self.status_of: dict[str, str] = {}
        self.reason_of: dict[str, str] = {}

    def status(self, test_id: str | None = None,
               test_status: str | None = None,
               file_name: str | None = None, file_bytes: bytes | None = None,
               **details: Any) -> None:
        if test_id is None or PREFIX not in test_id:
            return
        if test_status and test_status != 'exists':
            self.status_of[test_id] = test_status
        if file_name == 'reason' and file_bytes is not None:
            self.reason_of[test_id] = self.reason_of.get(
                test_id, '') + bytes(file_bytes).decode(errors='replace')


def read(stream: BinaryIO) -> Results:
    """Read the results of a run.

    :param stream: in subunit's format, version 2
    """
    results = Results()
    # What a worker has printed may stand between the events.
    case = subunit.ByteStreamToStreamResult(
        stream, non_subunit_name='printed')
    results.startTestRun()
    case.run(results)
    results.stopTestRun()
    return results


def complaints(results: Results, at_least: int = 1,
               open_tests: Sequence[str] = ()) -> list[str]:
    """Say what is wrong with a run.

    :param at_least: how many tests have to have passed
    :param open_tests: parts of the names of tests that are known to fail.
        Each has to fail, or the list would outlive what it is about.
    :returns: a line for each complaint; none means that all is well
    """
    found = []
    seen = set()
    for test, status in sorted(results.status_of.items()):
        known = {name for name in open_tests if name in test}
        seen |= known
        if status == 'skip':
            reason = results.reason_of.get(test, 'no reason given').strip()
            found.append(f'skipped: {test}: {reason}')
        elif status == 'inprogress':
            found.append(f'did not end: {test}')
        elif known and status in PASSED:
            found.append(f'known to fail, and passed: {test}')
        elif not known and status not in PASSED:
            found.append(f'failed: {test}')
    found += [f'known to fail, and did not run: {name}'
              for name in open_tests if name not in seen]
    passed = sum(status in PASSED for status in results.status_of.values())
    if passed < at_least:
        found.append(f'{passed} tests of the plugin passed, and at least '
                     f'{at_least} should have')
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    :returns: the exit status: 1 if there is something to complain about
    """
    parser = argparse.ArgumentParser(
        prog='pmem-copy-tempest-verify', description=(
            'Fail if tests of moves that copy vPMEM data were skipped, '
            'failed, or did not run.'))
    parser.add_argument('results', type=argparse.FileType('rb'), help=(
        'what "stestr last --subunit" prints, or - for standard input'))
    parser.add_argument('--at-least', type=int, default=1, metavar='N', help=(
        'how many tests have to have passed (default: 1)'))
    parser.add_argument('--open', action='append', default=[], metavar='NAME',
                        help=('a test that is known to fail, or a part of its '
                              'name; it has to fail, and may be given again'))
    options = parser.parse_args(arguments)
    stream = options.results
    if isinstance(stream, io.TextIOBase):
        # In some versions of Python "-" is text, whatever is asked for.
        stream = stream.buffer
    results = read(stream)
    found = complaints(results, options.at_least, options.open)
    for line in found:
        print(line, file=sys.stderr)
    passed = sum(status in PASSED for status in results.status_of.values())
    print(f'{passed} of {len(results.status_of)} tests of the plugin passed, '
          f'{len(options.open)} known to fail, {len(found)} complaints')
    return 1 if found else 0


if __name__ == '__main__':
    sys.exit(main())
