# SPDX-License-Identifier: Apache-2.0

import pytest

#: Nova's own user, as Debian numbers it.
NOVA_UID = 64060


@pytest.fixture(scope='session')
def lab_image():
    return {'users': {'nova': NOVA_UID}}
