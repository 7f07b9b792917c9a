# SPDX-License-Identifier: Apache-2.0
"""Running the tests in a cloud that is up, and counting them."""

import collections

import pytest

from cloud.cloud import Cloud
from cloud import tempest
from cloud import TOP

#: What the last line calls the cases of each file.
_KINDS = {'test_client': 'client', 'test_deployments': 'deployment',
          'test_faults': 'fault', 'test_harness': 'fault',
          'test_moves': 'fault'}


class Counter:
    """Hands the cloud to the tests, and counts what became of them.

    :ivar passed: how many passed, by kind
    :ivar open: those that fail until an issue is done, by its name
    :ivar failed: the names of those that failed, or should have
    :ivar skipped: the names of those that did not run
    """

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self.passed: collections.Counter[str] = collections.Counter()
        self.open: dict[str, list[str]] = {}
        self.failed: list[str] = []
        self.skipped: list[str] = []

    @pytest.fixture
    def whole_cloud(self) -> Cloud:
        return self._cloud

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        file, _, name = report.nodeid.rpartition('/')[2].partition('.py::')
        reason = getattr(report, 'wasxfail', None)
        if reason is not None and report.skipped:
            self.open.setdefault(
                reason.partition(':')[0], []).append(name)
        elif report.failed:
            self.failed.append(name)
        elif report.skipped:
            self.skipped.append(name)
        elif report.when == 'call':
            self.passed[_KINDS[file]] += 1

    def line(self) -> str:
        """Return the last line of a run."""
        counts = ', '.join('%d %s' % (self.passed[kind], kind) for kind in (
            'Tempest', 'client', 'fault', 'deployment') if self.passed[kind])
        open_ = '; '.join('%s: %s' % (issue, ', '.join(names))
                          for issue, names in sorted(self.open.items()))
        return 'cloud: %s cases ran and passed, %d failed%s, %d skipped%s' % (
            counts or '0', len(self.failed),
            ' (%s)' % ', '.join(self.failed) if self.failed else '',
            len(self.skipped),
            '; %d are open (%s)' % (sum(map(len, self.open.values())), open_)
            if open_ else '')


def run(cloud: Cloud, arguments: list[str]) -> int:
    """Run tests, and count them.

    :param arguments: none for the short set, ``--all``, ``--tempest`` for all
        that Tempest runs, or what pytest is told to run
    :returns: the exit status
    """
    whole = arguments == ['--all']
    parts = {(): [tempest.run_short],
             ('--tempest',): [tempest.run_plugin, tempest.run_novas],
             ('--all',): [tempest.run_plugin, tempest.run_novas]}.get(
                 tuple(arguments), [])
    counter = Counter(cloud)
    if arguments != ['--tempest']:
        pytest.main(
            ['-p', 'no:cacheprovider', '--rootdir', str(TOP / 'cloud'),
             '--tb', 'short', '-v', '--durations', '0', '--durations-min', '1',
             # The libraries of the client are full of them.
             '-W', 'ignore', *(arguments if not parts else [
                 str(TOP / 'cloud' / 'tests'),
                 *([] if whole else ['-m', 'core'])])], plugins=[counter])
    for part in parts:
        try:
            counter.passed['Tempest'] += part(cloud)
        except tempest.Broken as error:
            counter.failed.append(str(error))
    if tempest.run_plugin in parts:
        for issue, names in tempest.OPEN.items():
            counter.open.setdefault(issue, []).extend(names)
    print(counter.line())
    return 1 if (counter.failed or counter.skipped or
                 not (counter.passed or counter.open)) else 0
