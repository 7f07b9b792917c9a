# SPDX-License-Identifier: Apache-2.0

"""Run the real command against a fake cloud."""

from collections.abc import Callable
from collections.abc import Iterator
import dataclasses
from importlib import metadata
import logging
import os
from pathlib import Path
import re
import signal
import sys
import traceback
from typing import NoReturn
import warnings

from openstackclient import shell
import pytest

import fake_cloud
from osc_pmem_copy import outcome

#: Variables that the command takes options from begin like this.
_OPTION_PREFIX = 'OS_'

#: What older releases of the client say to every microversion.
_OLDER_CLIENT = re.compile('API version .* is not in supported versions')


@dataclasses.dataclass
class Result:
    """What a command left behind."""

    status: int
    out: str
    #: The lines on standard error that say something.
    errors: list[str]


Run = Callable[..., Result]


@pytest.fixture(scope='session')
def imported() -> None:
    """Import what the command would import: runs are forked from here."""
    for group in metadata.entry_points().groups:
        if group.startswith('openstack.'):
            for entry_point in metadata.entry_points(group=group):
                entry_point.load()


@pytest.fixture
def cloud() -> Iterator[fake_cloud.FakeCloud]:
    with fake_cloud.serving() as cloud:
        yield cloud


@pytest.fixture
def arguments(
    cloud: fake_cloud.FakeCloud,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> list[str]:
    """Return the options that point the command at the cloud, only there."""
    for name in list(os.environ):
        if name.startswith(_OPTION_PREFIX):
            monkeypatch.delenv(name)
    # A clouds.yaml is looked for in these two.
    empty = tmp_path_factory.mktemp('home')
    monkeypatch.setenv('HOME', str(empty))
    monkeypatch.chdir(empty)
    return [
        '--os-auth-type=none',
        f'--os-endpoint={cloud.url}',
        '--os-identity-api-version=3',
    ]


@pytest.fixture
def run(
    imported: None,
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Run:
    """Return a function that runs the command.

    The client keeps its connection to a cloud for as long as its process
    lives, so each run has a process of its own. It is forked from this one,
    which has everything imported (importing takes twenty times as long as a
    run), and in which tests can change what they need to.
    """
    monkeypatch.setattr(outcome, 'POLL_INTERVAL', 0)

    def run(*argv: str) -> Result:
        out, err = tmp_path / 'out', tmp_path / 'err'
        with warnings.catch_warnings():
            # The other thread here, the cloud's, holds no locks.
            warnings.simplefilter('ignore', DeprecationWarning)
            child = os.fork()
        if child == 0:
            _run_and_exit([*arguments, *argv], out, err)
        try:
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        except BaseException:
            # A run that does not end must not outlive the test's timeout.
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise
        errors = [
            line
            for line in err.read_text().splitlines()
            if line and not _OLDER_CLIENT.search(line)
        ]
        return Result(status, out.read_bytes().decode(), errors)

    return run


def _run_and_exit(argv: list[str], out: Path, err: Path) -> NoReturn:
    """Be the command, with its output in files."""
    status = 99
    # newline: a progress line begins with a carriage return
    with out.open('w', newline='') as stdout, err.open('w') as stderr:
        try:
            sys.stdout, sys.stderr = stdout, stderr
            # Those that pytest put there.
            logging.getLogger().handlers.clear()
            status = shell.main(argv)
        except SystemExit as stop:
            status = int(stop.code or 0)
        except BaseException:
            traceback.print_exc()
    # Nothing of pytest may run in this process.
    os._exit(status)
