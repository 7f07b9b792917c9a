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

_lab = pytest.StashKey[labs.Lab]()
_count = pytest.StashKey[dict[str, int]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup('lab', 'guests with NVDIMMs')
    group.addoption(
        '--lab-must-run', action='store_true',
        help='fail if a case is skipped, or none uses a real device DAX')
    group.addoption(
        '--lab-folder', type=pathlib.Path,
        help='where kernel, images and logs are (default: work/lab)')


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_count] = {'device': 0, 'skipped': 0}


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
    folder = config.getoption('lab_folder') or (
        config.rootpath / 'work' / 'lab')
    try:
        place = labs.Lab(folder.resolve(), **lab_image)
    except (images.Missing, kernels.KernelError) as error:
        pytest.exit('the lab: %s' % error, returncode=1)
    config.stash[_lab] = place
    yield place
    del config.stash[_lab]
    failed = request.session.testsfailed > 0
    place.close(keep_logs=failed)
    if failed:
        config.add_cleanup(
            lambda: print('lab: the consoles are in %s' % place.folder))


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
    count = item.config.stash[_count]
    if report.skipped:
        count['skipped'] += 1
    if place and report.when == 'call' and report.passed and any(
            guest.touched for guest in place.guests):
        count['device'] += 1
    if place and report.failed:
        for guest in place.guests:
            if guest.is_running or guest.touched:
                report.sections.append((
                    'console of guest %s' % guest.name, guest.log()[-TAIL:]))
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    place = item.config.stash.get(_lab, None)
    for guest in place.guests if place else ():
        guest.touched = False


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    count = session.config.stash[_count]
    if session.config.getoption('lab_must_run') and not session.exitstatus:
        if count['skipped'] or not count['device']:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_unconfigure(config: pytest.Config) -> None:
    count = config.stash[_count]
    line = 'lab: %d cases ran on real device DAX' % count['device']
    if count['skipped']:
        line += '; %d were skipped' % count['skipped']
    # After pytest's own last line.
    config.add_cleanup(lambda: print(line))
