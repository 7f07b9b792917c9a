# SPDX-License-Identifier: Apache-2.0
"""What this project wants of the lab: pytest -p lab.plugin -p this."""

import pytest

from lab import lab as labs
from lab import plugin
from lab.tests import hosts

#: Nova's own user, as Debian numbers it.
NOVA_UID = 64060


@pytest.fixture(scope='session')
def lab_image(request):
    with labs.Folder(plugin.folder_of(request.config)) as folder:
        yield {'users': {'nova': NOVA_UID}, 'files': hosts.stage(folder.path)}
