# SPDX-License-Identifier: Apache-2.0
"""What this project wants of the lab: pytest -p lab.plugin -p this."""

import pathlib
import tempfile

import pytest

from lab.tests import hosts

#: Nova's own user, as Debian numbers it.
NOVA_UID = 64060


@pytest.fixture(scope='session')
def lab_image(request):
    work = request.config.rootpath / 'work' / 'lab'
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix='code-', dir=work) as folder:
        code = hosts.stage(pathlib.Path(folder))
        yield {'users': {'nova': NOVA_UID}, 'files': {hosts.CODE: code}}
