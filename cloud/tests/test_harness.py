# SPDX-License-Identifier: Apache-2.0
"""That the checks of the other cases can fail."""

import pytest

from cloud.pmem import MIB


def test_checks_see_what_they_are_for(scene, source, target):
    server = scene.boot(on=source)
    [namespace] = server.namespaces()
    server.has_its_data()
    assert not scene.leftovers()

    with pytest.raises(AssertionError, match='was shown as ERROR'):
        with scene.never_error(server):
            server.act({'os-resetState': {'state': 'error'}})
            server.becomes('ERROR')
    server.act({'os-resetState': {'state': 'active'}})
    with pytest.raises(AssertionError, match='is on cmp1'):
        server.runs_on(target)

    namespace.write(8 * MIB, b'something else')
    with pytest.raises(AssertionError, match='does not hold the data'):
        server.has_its_data()

    other = target.memory.namespaces['ns_0']
    other.write(0, b'left')
    assert scene.leftovers() == ['ns_0 on cmp2 is not zero']
    other.clear()
