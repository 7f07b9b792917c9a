# SPDX-License-Identifier: Apache-2.0
"""What the tests on the cloud have in common."""

from collections import abc

import pytest

from cloud.compute import Compute
from cloud.host import Failed
from cloud.scene import Scene


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        'markers', 'core: in the short set of "make cloud"')


def is_open(
    issue: str, reason: str,
    raises: type[Exception] | tuple[type[Exception], ...] = (
        AssertionError, Failed),
    always: bool = True,
) -> pytest.MarkDecorator:
    """Mark a case that fails until an issue is done.

    It runs, and is counted by its name. When it passes, the mark has to go.

    :param raises: what it fails with; any other failure is one
    :param always: whether it fails each time; if not, it counts as open when
        it fails, and as passed when it does not
    """
    return pytest.mark.xfail(
        reason='%s: %s' % (issue, reason), strict=always, raises=raises)


@pytest.fixture
def scene(whole_cloud: object) -> abc.Iterator[Scene]:
    scene = Scene(whole_cloud)
    scene.begin()
    yield scene
    scene.end()


@pytest.fixture
def source(scene: Scene) -> Compute:
    return scene.computes[0]


@pytest.fixture
def target(scene: Scene) -> Compute:
    return scene.computes[1]
