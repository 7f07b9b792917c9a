# SPDX-License-Identifier: Apache-2.0

"""What can't work is refused before anything is changed."""

from conftest import Run
from fake_cloud import FakeCloud
import pytest

RESIZE = ('server', 'resize', '--copy-pmem-devices')
MIGRATE = ('server', 'migrate', '--copy-pmem-devices')


def assert_refused(run: Run, cloud: FakeCloud, *argv: str) -> str:
    """Check that a command fails in one line and sends no action."""
    result = run(*argv)
    assert result.status == 1
    assert cloud.actions == []
    assert result.out == ''
    assert len(result.errors) == 1
    return result.errors[0]


@pytest.mark.parametrize('option', ['--confirm', '--revert'])
def test_resize_that_is_not_one(
    run: Run, cloud: FakeCloud, option: str
) -> None:
    line = assert_refused(run, cloud, *RESIZE, option, 'vm1')
    assert option in line
    # What is wrong in the arguments needs no cloud at all.
    assert cloud.requests == []


def test_resize_to_an_empty_flavor(run: Run, cloud: FakeCloud) -> None:
    line = assert_refused(run, cloud, *RESIZE, '--flavor', '', 'vm1')
    assert '--flavor' in line
    assert cloud.requests == []


def test_live_migration(run: Run, cloud: FakeCloud) -> None:
    line = assert_refused(run, cloud, *MIGRATE, '--live-migration', 'vm1')
    assert '--live-migration' in line
    assert cloud.requests == []


@pytest.mark.parametrize(
    'command', [(*RESIZE, '--flavor', 'bigger'), MIGRATE]
)
class TestMicroversion:
    def test_older_cloud(
        self, run: Run, cloud: FakeCloud, command: tuple[str, ...]
    ) -> None:
        cloud.max_microversion = '2.104'
        line = assert_refused(run, cloud, *command, 'vm1')
        assert line == (
            '--copy-pmem-devices needs compute API 2.105, but this cloud '
            'offers 2.104 at most.'
        )

    def test_cloud_without_microversions(
        self, run: Run, cloud: FakeCloud, command: tuple[str, ...]
    ) -> None:
        cloud.max_microversion = ''
        line = assert_refused(run, cloud, *command, 'vm1')
        assert 'this cloud offers no microversions' in line

    # 2.9 is greater as a number and as a string, and older as a version.
    @pytest.mark.parametrize('asked', ['2.104', '2.9', '2.1'])
    def test_older_one_asked_for(
        self,
        run: Run,
        cloud: FakeCloud,
        command: tuple[str, ...],
        asked: str,
    ) -> None:
        line = assert_refused(
            run, cloud, '--os-compute-api-version', asked, *command, 'vm1'
        )
        assert f'but {asked} was asked for' in line

    def test_older_one_asked_for_on_an_older_cloud(
        self, run: Run, cloud: FakeCloud, command: tuple[str, ...]
    ) -> None:
        # To ask for a newer one would not help.
        cloud.max_microversion = '2.104'
        line = assert_refused(
            run, cloud, '--os-compute-api-version', '2.79', *command, 'vm1'
        )
        assert 'this cloud offers 2.104' in line

    def test_newer_one_asked_for_than_there_is(
        self, run: Run, cloud: FakeCloud, command: tuple[str, ...]
    ) -> None:
        # The SDK's own check comes before any hook.
        cloud.max_microversion = '2.104'
        line = assert_refused(
            run, cloud, '--os-compute-api-version', '2.105', *command, 'vm1'
        )
        assert 'a maximum of 2.104' in line


def test_missing_server(run: Run, cloud: FakeCloud) -> None:
    line = assert_refused(run, cloud, *MIGRATE, 'no-such-server')
    assert 'no-such-server' in line


def test_live_migration_option_without_live_migration(
    run: Run, cloud: FakeCloud
) -> None:
    # What the core command checks, it still checks.
    line = assert_refused(run, cloud, *MIGRATE, '--block-migration', 'vm1')
    assert '--live-migration must be specified' in line


def test_abbreviated_command(run: Run, cloud: FakeCloud) -> None:
    # cliff finds no hooks by such a name. A move without the copy would be
    # the worst that could follow.
    result = run('server', 'migr', '--copy-pmem-devices', 'vm1')
    assert result.status == 2
    assert cloud.actions == []
