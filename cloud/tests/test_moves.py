# SPDX-License-Identifier: Apache-2.0
"""Moves that nothing goes wrong with, and what they leave."""

from cloud.compute import configured


def test_migrate_and_confirm(scene, source, target):
    server = scene.boot(on=source)
    had = server.namespaces()
    with scene.never_error(server):
        server.migrate()
        server.becomes('VERIFY_RESIZE')
        server.runs_on(target)
        server.has_its_data()
        # Until it is confirmed, both hosts have the data.
        assert not had[0].is_zero()
        server.confirm()
    assert had[0].is_zero()
    server.has_its_data()


def test_resize_to_larger_and_revert(scene, source, target):
    server = scene.boot(on=source)
    with scene.never_error(server):
        server.resize('large')
        server.becomes('VERIFY_RESIZE')
        server.runs_on(target)
        server.has_its_data()
        taken = server.namespaces()
        assert taken[0].label == 'LARGE'
        # What the guest writes before the revert is not what comes back.
        taken[0].write(0, b'later')
        server.revert()
    server.runs_on(source)
    server.has_its_data()
    assert taken[0].is_zero()


def test_without_the_field_nothing_is_copied(scene, source, target):
    server = scene.boot(on=source)
    server.migrate(copy=False)
    server.becomes('VERIFY_RESIZE')
    assert all(each.is_zero() for each in server.namespaces())
    server.revert()
    server.has_its_data()


def test_stop_start_and_hard_reboot_keep_the_data(scene, source):
    server = scene.boot(on=source)
    server.stop()
    server.start()
    server.has_its_data()
    server.act({'reboot': {'type': 'HARD'}})
    server.becomes('ACTIVE')
    server.has_its_data()


def test_copy_that_fails_comes_back(scene, source, target):
    server = scene.boot(on=source)
    scene.fail_copies(target, action='exit', status=1, message='no luck\n')
    with scene.never_error(server):
        server.migrate()
        server.migration_is('error')
        server.becomes('ACTIVE')
    server.runs_on(source)
    server.has_its_data()
    assert 'can not be written' in server.reason()


def test_servers_that_came_and_went_leave_their_namespaces(
        scene, source, target):
    # Nova's own: ``ResourceTracker.update_usage``, which a delete calls, does
    # nothing for a server that it does not track as one of the host's, and a
    # server that has come by a move is first tracked so by the next update
    # of resources. What it had stays in ``assigned_resources`` until then.
    with configured(target, DEFAULT={'update_resources_interval': 600}):
        for _ in target.memory.of_label('LARGE'):
            server = scene.boot('large', on=source)
            server.migrate()
            server.becomes('VERIFY_RESIZE')
            server.confirm()
            server.delete()
        last = scene.boot('large', on=source)
        last.migrate()
        last.becomes('VERIFY_RESIZE', timeout=60)
