# SPDX-License-Identifier: Apache-2.0
"""A server is watched all the time, and a wait ends with its story."""

import itertools

import pytest

from pmem_copy_tempest_plugin import probe
from pmem_copy_tempest_plugin import watch


def server(status, task=None, host='host1'):
    return {'status': status, 'OS-EXT-STS:task_state': task,
            probe.HOST: host, 'progress': 0}


@pytest.fixture
def watched():
    watchers = []

    def start(*servers):
        # The last one stays.
        looks = itertools.chain(servers, itertools.repeat(servers[-1]))

        def show():
            found = next(looks)
            if isinstance(found, Exception):
                raise found
            return found
        watchers.append(watch.Watch(show, 0.01))
        return watchers[-1]
    yield start
    for watcher in watchers:
        watcher.close()


def test_never_settles(watched):
    watcher = watched(server('RESIZE', 'resize_prep'))
    with pytest.raises(watch.Unsettled, match='RESIZE/resize_prep on host1'):
        watcher.settled({'ACTIVE'}, 0.2)


def test_active_with_a_task_is_not_settled(watched):
    watcher = watched(server('ACTIVE', 'deleting'))
    with pytest.raises(watch.Unsettled):
        watcher.settled({'ACTIVE'}, 0.2)


def test_api_fails(watched):
    watcher = watched(server('ACTIVE'), ConnectionError('gone'))
    with pytest.raises(ConnectionError):
        watcher.settled({'SHUTOFF'}, 10)


def test_settles(watched):
    watcher = watched(
        server('RESIZE', 'resize_prep'), server('RESIZE', 'resize_migrating'),
        server('VERIFY_RESIZE', host='host2'))
    state = watcher.settled({'VERIFY_RESIZE'}, 10)
    assert state == watch.State('VERIFY_RESIZE', None, 'host2', 0)
    assert watcher.statuses() == ['RESIZE', 'RESIZE', 'VERIFY_RESIZE']


def test_short_error_is_seen(watched):
    watcher = watched(server('RESIZE'), server('ERROR'), server('ACTIVE'))
    watcher.settled({'ACTIVE'}, 10)
    assert 'ERROR' in watcher.statuses()
