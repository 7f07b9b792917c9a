# SPDX-License-Identifier: Apache-2.0
"""A cloud, and what guests need to be compute hosts of it."""

import pytest

from lab import lab as labs
from lab.moves import cloud as clouds
from lab.moves import computes
from lab import plugin


@pytest.fixture(scope='session')
def folder(request):
    """A folder for this run, whose logs stay if something fails."""
    folder = labs.Folder(plugin.folder_of(request.config))
    yield folder.path
    folder.close(keep=request.session.testsfailed > 0)


@pytest.fixture(scope='session')
def cloud(folder):
    cloud = clouds.Cloud(folder / 'services')
    yield cloud
    cloud.close()


@pytest.fixture(scope='session')
def lab_image(cloud, folder):
    """Put the image together while the cloud comes up."""
    return computes.stage(folder)
