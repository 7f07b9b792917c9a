# SPDX-License-Identifier: Apache-2.0
"""Running the tests in a cloud that is up."""

import pytest

from cloud import TOP
from cloud.cloud import Cloud


class _Plugin:
    """Hands the cloud to the tests."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    @pytest.fixture
    def whole_cloud(self) -> Cloud:
        return self._cloud


def run(cloud: Cloud, arguments: list[str]) -> int:
    """Run pytest, by default on all tests, and return its status."""
    return int(pytest.main(
        ['-p', 'no:cacheprovider', '--rootdir', str(TOP / 'cloud'),
         # The libraries of the client are full of them.
         '-W', 'ignore',
         *(arguments or [str(TOP / 'cloud' / 'tests')])],
        plugins=[_Plugin(cloud)]))
