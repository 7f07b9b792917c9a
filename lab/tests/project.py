# SPDX-License-Identifier: Apache-2.0
"""What this project wants of the lab: pytest -p lab.plugin -p this."""

import typing as ty

import pytest

#: Nova's own user, as Debian numbers it.
NOVA_UID = 64060


@pytest.fixture(scope='session')
def lab_image() -> dict[str, ty.Any]:
    return {'users': {'nova': NOVA_UID}}
