# SPDX-License-Identifier: Apache-2.0
"""Fixtures for pytest, and an account of what ran on real device DAX.

Say ``-p lab.plugin``, or name it in ``pytest_plugins``. A project changes
the image by fixtures of the same name in its ``conftest.py``.
"""

from collections import abc
import pathlib
import typing as ty

import pytest

from lab import guest as guests
from lab import image as images
from lab import kernel as kernels
from lab import lab as labs

#: Characters of a guest's log that are shown with a failure.
TAIL = 3000

#: What a report says of itself if its case had to do with a real device.
DEVICE = ('lab', 'device')

_lab = pytest.StashKey[labs.Lab]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup('lab', 'guests with NVDIMMs')
    group.addoption(
        '--lab-must-run', action='store_true',
        help='fail if a case is skipped, or none uses a real device DAX')
    group.addoption(
        '--lab-folder', type=pathlib.Path,
        help='where kernel, images and logs are (default: work/lab)')


def folder_of(config: pytest.Config) -> pathlib.Path:
    """Return where kernel, images and logs are."""
    return (config.getoption('lab_folder') or
            config.rootpath / 'work' / 'lab').resolve()


# Fixtures

@pytest.fixture(scope='session')
def lab_image() -> dict[str, ty.Any]:
    """What the image shall have: arguments of ``lab.image.build``."""
    return {}


@pytest.fixture(scope='session')
def lab(request: pytest.FixtureRequest,
        lab_image: dict[str, ty.Any]) -> abc.Iterator[labs.Lab]:
    """The lab itself, for tests that boot guests of their own kind."""
    config = request.config
    try:
        place = labs.Lab(folder_of(config), **lab_image)
    except (images.Missing, kernels.KernelError) as error:
        pytest.exit('lab: %s' % error, returncode=1)
    config.stash[_lab] = place
    yield place
    del config.stash[_lab]
    place.close(keep_logs=request.session.testsfailed > 0)


@pytest.fixture
def guest(lab: labs.Lab) -> guests.Guest:
    """A guest that all tests share."""
    return lab.shared(1)[0]


@pytest.fixture(name='guests')
def two_guests(lab: labs.Lab) -> tuple[guests.Guest, ...]:
    """Two linked guests that all tests share; ``guest`` is the first."""
    return tuple(lab.shared(2))


@pytest.fixture
def fresh_guest(lab: labs.Lab) -> abc.Iterator[guests.Guest]:
    """A guest of the test's own, with blank NVDIMMs."""
    guest, = lab.boot()
    yield guest
    guest.close()


@pytest.fixture
def fresh_guests(lab: labs.Lab) -> abc.Iterator[tuple[guests.Guest, ...]]:
    """Two linked guests of the test's own."""
    pair = lab.boot(2)
    yield tuple(pair)
    for guest in pair:
        guest.close()


# The account

@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None],
) -> ty.Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    place = item.config.stash.get(_lab, None)
    if place and report.when == 'call' and report.passed and any(
            guest.touched for guest in place.guests):
        report.user_properties.append(DEVICE)
    if place and report.failed:
        for guest in place.guests:
            if guest.is_running or guest.touched:
                report.sections.append((
                    'end of %s' % guest.console, guest.log()[-TAIL:]))
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    place = item.config.stash.get(_lab, None)
    for guest in place.guests if place else ():
        guest.touched = False


# With pytest-xdist the tests run in workers, and these hooks in the process
# that collects their reports as well; only there they matter.

def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Account(config), 'lab account')


class _Account:
    """Counts, and has the last word."""

    def __init__(self, config: pytest.Config) -> None:
        self._must_run = config.getoption('lab_must_run')
        self._is_worker = hasattr(config, 'workerinput')
        self._devices = self._skipped = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._skipped += report.skipped
        self._devices += report.when == 'call' and (
            DEVICE in map(tuple, report.user_properties))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._must_run and not self._is_worker and (
                self._skipped or not self._devices):
            session.exitstatus = (
                session.exitstatus or pytest.ExitCode.TESTS_FAILED)

    def pytest_unconfigure(self, config: pytest.Config) -> None:
        line = 'lab: %d cases ran on real device DAX' % self._devices
        if self._skipped:
            line += '; %d were skipped' % self._skipped
        if not self._is_worker:
            # After pytest's own last line.
            config.add_cleanup(lambda: print(line))
