# SPDX-License-Identifier: Apache-2.0

import os
import shutil
import stat

import pytest

from novapatch import commands
from novapatch.commands import State
from novapatch import errors
from novapatch.plan import patchset
from novapatch.tree import marker
from novapatch.tree import transaction
from novapatch.tree.tree import Tree
from patch_helpers import PATCH_SET
from patch_helpers import snapshot
from patch_helpers import text_of
from patch_helpers import TREE
from patch_helpers import write


class Killed(BaseException):
    """What a process can't catch when it is killed."""


@pytest.fixture
def patch_set(tmp_path):
    write(tmp_path / 'project', PATCH_SET)
    return patchset.load(tmp_path / 'project')


@pytest.fixture
def root(tmp_path):
    write(tmp_path / 'tree', TREE)
    os.chmod(tmp_path / 'tree/nova/boat.py', 0o755)
    return tmp_path / 'tree'


def apply(root, patch_set):
    return commands.apply(Tree(root), patch_set)


def state(root, patch_set):
    return commands.status(Tree(root), patch_set).state


def fail_at(monkeypatch, step, error):
    """Let the os.replace of a number fail; gives the list of those made."""
    made = []
    real = os.replace

    def replace(source, target):
        if len(made) == step:
            raise error
        made.append(target)
        real(source, target)

    monkeypatch.setattr(os, 'replace', replace)
    return made


# -- what must not happen -------------------------------------------------

@pytest.mark.parametrize('refused', [
    'nova/boat.py', 'nova', 'doc/source', '.'])
def test_read_only(root, patch_set, monkeypatch, refused):
    before = snapshot(root)
    real = os.access
    # Not by mode bits: root could write all the same.
    monkeypatch.setattr(os, 'access', lambda path, mode: (
        os.path.realpath(path) != os.path.realpath(root / refused)
        and real(path, mode)))
    with pytest.raises(errors.NotWritable) as caught:
        apply(root, patch_set)
    assert refused.strip('.') in str(caught.value)
    assert snapshot(root) == before


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write anything')
def test_read_only_by_its_mode(root, patch_set):
    os.chmod(root / 'nova/boat.py', 0o444)
    with pytest.raises(errors.NotWritable):
        apply(root, patch_set)


def test_nothing_is_written_if_one_edit_fails(root, patch_set):
    write(root, {'nova/version.py': "VERSION = None\nMICRO = '2.9'\n"})
    before = snapshot(root)
    with pytest.raises(errors.NoVersion):
        apply(root, patch_set)
    assert snapshot(root) == before


def test_nothing_is_written_if_a_check_fails(root, patch_set):
    write(patch_set.root, {'nova/anchor.py': 'import nova.rope\n'})
    before = snapshot(root)
    with pytest.raises(errors.CheckFailed):
        apply(root, patch_set)
    assert snapshot(root) == before


STEPS = range(6)


@pytest.mark.parametrize('step', STEPS)
def test_a_failing_write_is_undone(root, patch_set, monkeypatch, step):
    before = snapshot(root)
    error = OSError(28, 'No space left on device', 'some/file')
    with monkeypatch.context() as patch:
        made = fail_at(patch, step, error)
        # Putting back needs the space that there is.
        real = transaction.undo
        patch.setattr(transaction, 'undo', lambda *args: (
            patch.undo(), real(*args)))
        with pytest.raises(errors.WriteFailed) as caught:
            apply(root, patch_set)
    assert len(made) == step
    assert 'everything was put back' in str(caught.value)
    assert 'No space left' in str(caught.value)
    assert snapshot(root) == before


def test_a_failing_write_that_can_not_be_undone(
        root, patch_set, monkeypatch):
    before = snapshot(root)
    with monkeypatch.context() as patch:
        fail_at(patch, 3, OSError(5, 'Input/output error', 'some/file'))
        with pytest.raises(errors.WriteFailed, match='run undo'):
            apply(root, patch_set)
    assert state(root, patch_set) is State.HALF
    transaction.undo(root)
    assert snapshot(root) == before


@pytest.mark.parametrize('step', STEPS)
def test_a_killed_apply_is_known_and_can_be_undone(
        root, patch_set, monkeypatch, step):
    before = snapshot(root)
    with monkeypatch.context() as patch:
        fail_at(patch, step, Killed())
        with pytest.raises(Killed):
            apply(root, patch_set)
    assert state(root, patch_set) is State.HALF
    with pytest.raises(errors.NotReady, match='run undo'):
        apply(root, patch_set)
    transaction.undo(root)
    assert snapshot(root) == before
    assert state(root, patch_set) is State.PRISTINE


def test_a_kill_before_the_first_write_leaves_a_pristine_tree(
        root, patch_set, monkeypatch):
    before = snapshot(root)

    def save(self, manifest):
        raise Killed()

    with monkeypatch.context() as patch:
        patch.setattr(transaction.Record, 'save', save)
        with pytest.raises(Killed):
            apply(root, patch_set)
    assert state(root, patch_set) is State.PRISTINE
    assert apply(root, patch_set)
    transaction.undo(root)
    assert snapshot(root) == before


@pytest.mark.parametrize('step', range(3))
def test_a_killed_undo_can_be_repeated(root, patch_set, monkeypatch, step):
    before = snapshot(root)
    apply(root, patch_set)
    with monkeypatch.context() as patch:
        fail_at(patch, step, Killed())
        with pytest.raises(Killed):
            transaction.undo(root)
    assert state(root, patch_set) is State.HALF
    transaction.undo(root)
    assert snapshot(root) == before


def test_interrupted_by_the_user(root, patch_set, monkeypatch):
    before = snapshot(root)
    with monkeypatch.context() as patch:
        real = os.replace

        def replace(source, target):
            # Once; what puts everything back has to write as well.
            if target == root / 'nova/boat.py':
                patch.setattr(os, 'replace', real)
                raise KeyboardInterrupt
            real(source, target)

        patch.setattr(os, 'replace', replace)
        with pytest.raises(KeyboardInterrupt):
            apply(root, patch_set)
    assert snapshot(root) == before


def test_a_failing_undo_says_what_to_do(root, patch_set, monkeypatch):
    before = snapshot(root)
    apply(root, patch_set)
    with monkeypatch.context() as patch:
        fail_at(patch, 1, OSError(28, 'No space left', 'some/file'))
        with pytest.raises(errors.WriteFailed) as caught:
            transaction.undo(root)
    assert str(caught.value) == 'some/file: No space left; run undo again'
    transaction.undo(root)
    assert snapshot(root) == before


def test_undo_of_nothing(root):
    with pytest.raises(errors.NotApplied):
        transaction.undo(root)


def test_undo_refuses_what_was_changed_by_hand(root, patch_set):
    before = snapshot(root)
    apply(root, patch_set)
    write(root, {'nova/boat.py': 'mine = 1\n', 'nova/anchor.py': 'mine\n'})
    after = snapshot(root)
    with pytest.raises(errors.ChangedByHand) as caught:
        transaction.undo(root)
    assert 'nova/boat.py' in str(caught.value)
    assert 'nova/anchor.py' in str(caught.value)
    assert snapshot(root) == after
    transaction.undo(root, force=True)
    assert snapshot(root) == before


def test_undo_needs_the_originals(root, patch_set):
    apply(root, patch_set)
    (root / '.novapatch/original/nova/boat.py').unlink()
    after = snapshot(root)
    with pytest.raises(errors.BadState):
        transaction.undo(root)
    assert snapshot(root) == after


@pytest.mark.parametrize('text', ['{', '[]', '{"format": 9}', '{}'])
def test_a_manifest_that_can_not_be_read(root, patch_set, text):
    apply(root, patch_set)
    write(root, {'.novapatch/manifest.json': text})
    with pytest.raises(errors.BadState):
        transaction.undo(root)


# -- what must -------------------------------------------------------------

def test_apply_writes_all_and_keeps_modes(root, patch_set):
    plan = apply(root, patch_set)
    for change in plan.changes:
        place = root / change.path
        assert place.read_bytes() == change.after
        assert place.stat().st_mode & 0o777 == change.mode
    assert (root / 'nova/boat.py').stat().st_mode & 0o777 == 0o755
    assert not (root / '.novapatch/new').exists()
    assert not (root / 'doc/design.rst').exists()


@pytest.fixture
def installed(tmp_path, root):
    """An installed Nova: its root, and where its commands are."""
    place = tmp_path / 'env/lib/python3.11/site-packages'
    place.parent.mkdir(parents=True)
    root.rename(place)
    (place / 'PKG-INFO').unlink()
    write(tmp_path, {
        'env/bin/nova-compute': '#!/the/env/bin/python3.11\nstart()\n'})
    write(place, {'nova-34.0.0.dist-info/METADATA': TREE['PKG-INFO']})
    return place, tmp_path / 'env/bin'


@pytest.fixture
def with_command(patch_set):
    about = patch_set.root / 'edits/__init__.py'
    about.write_text(about.read_text() + (
        "COMMANDS = {'nova-lift': 'nova.anchor:lift'}\n"))
    return patchset.load(patch_set.root)


def test_commands_beside_those_of_an_installed_nova(installed, with_command):
    root, folder = installed
    apply(root, with_command)
    assert (folder / 'nova-lift').read_text() == (
        '#!/the/env/bin/python3.11\nimport sys\n'
        'from nova.anchor import lift\nsys.exit(lift())\n')
    assert (folder / 'nova-lift').stat().st_mode & 0o777 == 0o755
    assert state(root, with_command) is State.APPLIED
    assert 'b/..' not in commands.diff(Tree(root), with_command)
    forget(root)
    assert state(root, with_command) is State.RECORDLESS


def test_commands_go_with_undo(installed, with_command):
    root, folder = installed
    before = snapshot(folder.parent)
    apply(root, with_command)
    transaction.undo(root)
    assert snapshot(folder.parent) == before


@pytest.mark.parametrize('text', [None, '#!/bin/sh\n', 'python\n', ''])
def test_no_commands_where_the_interpreter_is_not_known(
        installed, with_command, text):
    root, folder = installed
    (folder / 'nova-compute').unlink()
    if text is not None:
        write(folder, {'nova-compute': text})
    apply(root, with_command)
    assert not (folder / 'nova-lift').exists()


def test_a_command_that_is_somebody_elses(installed, with_command):
    root, folder = installed
    write(folder, {'nova-lift': 'theirs\n'})
    with pytest.raises(errors.NewFileExists, match='bin/nova-lift'):
        apply(root, with_command)
    assert (folder / 'nova-lift').read_text() == 'theirs\n'


def test_what_is_new_can_be_read_by_whoever_reads_the_rest(tmp_path, root):
    before = os.umask(0o077)
    try:
        write(tmp_path / 'closed', PATCH_SET)
        apply(root, patchset.load(tmp_path / 'closed'))
    finally:
        os.umask(before)
    for path, mode in (('nova/anchor.py', 0o644), ('nova/deep', 0o755),
                       ('nova/deep/down', 0o755),
                       ('nova/deep/down/__init__.py', 0o644)):
        assert stat.S_IMODE((root / path).stat().st_mode) == mode, path


@pytest.mark.skipif(os.geteuid() != 0, reason='only root gives files away')
def test_apply_and_undo_keep_owners(root, patch_set):
    place = root / 'nova/boat.py'
    os.chown(place, 1234, 1234)
    apply(root, patch_set)
    assert place.stat().st_uid == 1234
    transaction.undo(root)
    assert place.stat().st_uid == 1234


def test_undo_removes_what_python_cached(root, patch_set):
    before = snapshot(root)
    apply(root, patch_set)
    cache = root / 'nova/deep/down/__pycache__'
    cache.mkdir()
    (cache / '__init__.cpython-311.pyc').write_bytes(b'x')
    transaction.undo(root)
    assert snapshot(root) == before


def test_undo_does_not_mind_what_python_cached_for_others(
        root, patch_set, monkeypatch):
    apply(root, patch_set)
    write(root, {'nova/__pycache__/anchor.cpython-311.pyc': b'x'})
    real = type(root).unlink

    def unlink(path, **options):
        if path.suffix == '.pyc':
            raise PermissionError(13, 'not yours', str(path))
        real(path, **options)

    monkeypatch.setattr(type(root), 'unlink', unlink)
    transaction.undo(root)
    assert state(root, patch_set) is State.PRISTINE


def test_undo_keeps_what_somebody_put_beside(root, patch_set):
    apply(root, patch_set)
    write(root, {'nova/deep/theirs.py': 'x = 1\n'})
    transaction.undo(root)
    assert (root / 'nova/deep/theirs.py').exists()
    assert not (root / 'nova/deep/down').exists()


# -- the state of a tree ---------------------------------------------------

def test_second_apply(root, patch_set):
    assert state(root, patch_set) is State.PRISTINE
    assert apply(root, patch_set)
    after = snapshot(root)
    assert state(root, patch_set) is State.APPLIED
    assert apply(root, patch_set) is None
    assert snapshot(root) == after


def test_a_value_that_the_pristine_tree_has_too_is_no_sign(
        root, patch_set):
    write(patch_set.root, {'edits/nova/boat.py': '''
        from novapatch.edit import set_value

        EDITS = [set_value('MICRO', "'{{micro}}'")]
        '''})
    write(root, {'nova/boat.py': "MICRO = '2.9'\n"})
    found = patchset.load(patch_set.root)
    assert state(root, found) is State.PRISTINE
    assert apply(root, found)


def test_another_version_is_applied(root, patch_set):
    before = snapshot(root)
    apply(root, patch_set)
    write(patch_set.root, {'nova/anchor.py': 'def lift(v): pass\n'})
    found = patchset.load(patch_set.root)
    assert state(root, found) is State.OTHER
    assert apply(root, found)
    assert state(root, found) is State.APPLIED
    assert 'pass' in (root / 'nova/anchor.py').read_text()
    transaction.undo(root)
    assert snapshot(root) == before


def test_another_version_that_can_not_be_written(
        root, patch_set, monkeypatch):
    apply(root, patch_set)
    write(patch_set.root, {'nova/anchor.py': 'new = 1\n'})
    with monkeypatch.context() as patch:
        def stage(*_arguments):
            raise OSError(28, 'No space left', 'some/file')

        patch.setattr(transaction, '_stage', stage)
        with pytest.raises(errors.NotReplaced) as caught:
            apply(root, patchset.load(patch_set.root))
    assert 'the older version of the patch set is off already' in str(
        caught.value)
    assert state(root, patch_set) is State.PRISTINE


def test_another_version_that_does_not_fit_leaves_the_first(root, patch_set):
    apply(root, patch_set)
    after = snapshot(root)
    write(patch_set.root, {'nova/anchor.py': 'import nova.rope\n'})
    with pytest.raises(errors.CheckFailed):
        apply(root, patchset.load(patch_set.root))
    assert snapshot(root) == after


def test_another_version_is_not_put_over_what_was_changed_by_hand(
        root, patch_set):
    apply(root, patch_set)
    write(root, {'nova/boat.py': 'mine = 1\n'})
    write(patch_set.root, {'nova/anchor.py': 'def lift(v): pass\n'})
    with pytest.raises(errors.NotReady, match='nova/boat.py'):
        apply(root, patchset.load(patch_set.root))


def test_nova_was_upgraded_since(root, patch_set):
    apply(root, patch_set)
    write(root, TREE | {'PKG-INFO': 'Name: nova\nVersion: 34.0.1\n'})
    upgraded = {path for path in snapshot(root) if 'novapatch' not in path}
    assert state(root, patch_set) is State.UPGRADED
    write(patch_set.root, {'edits/__init__.py': PATCH_SET[
        'edits/__init__.py'].replace("'34.0.0',", "'34.0.0', '34.0.1'")})
    with pytest.raises(errors.NotReady, match='run undo'):
        apply(root, patchset.load(patch_set.root))
    # What is there is not taken back to the older release, by no means.
    assert commands.undo(Tree(root), force=True)
    assert not (root / 'nova/anchor.py').exists()
    assert not (root / '.novapatch').exists()
    assert (root / 'PKG-INFO').read_text().endswith('34.0.1\n')
    assert (root / 'nova/boat.py').read_text() == text_of(
        TREE['nova/boat.py'])
    assert set(snapshot(root)) < upgraded
    assert apply(root, patchset.load(patch_set.root))


def test_same_nova_by_another_name(root, patch_set):
    before = snapshot(root)
    apply(root, patch_set)
    kept = (root / 'PKG-INFO').read_bytes()
    write(root, {'PKG-INFO': 'Name: nova\nVersion: 34.0.0+ours\n'})
    assert state(root, patch_set) is State.APPLIED
    commands.undo(Tree(root))
    (root / 'PKG-INFO').write_bytes(kept)
    assert snapshot(root) == before


def test_release_that_is_not_known_any_more(root, patch_set):
    apply(root, patch_set)
    (root / 'PKG-INFO').unlink()
    assert state(root, patch_set) is State.APPLIED
    assert commands.undo(Tree(root))


def test_nova_was_upgraded_in_part(root, patch_set):
    apply(root, patch_set)
    write(root, {'PKG-INFO': 'Name: nova\nVersion: 34.0.1\n',
                 'nova/version.py': TREE['nova/version.py']})
    after = snapshot(root)
    with pytest.raises(errors.MixedReleases, match='nova/boat.py'):
        commands.undo(Tree(root), force=True)
    assert snapshot(root) == after


def test_originals_were_put_back_by_other_means(root, patch_set):
    before = snapshot(root)
    apply(root, patch_set)
    write(root, TREE)
    os.chmod(root / 'nova/boat.py', 0o755)
    for path in 'nova/anchor.py', 'doc/source/anchors.rst', marker.PATH:
        (root / path).unlink()
    shutil.rmtree(root / 'nova/deep')
    assert state(root, patch_set) is State.REVERTED
    assert apply(root, patch_set)
    transaction.undo(root)
    assert snapshot(root) == before


def test_applied_and_changed_by_hand(root, patch_set):
    apply(root, patch_set)
    write(root, {'nova/boat.py': 'mine = 1\n'})
    found = commands.status(Tree(root), patch_set)
    assert found.state is State.CHANGED
    assert found.changed == ('nova/boat.py',)
    with pytest.raises(errors.NotReady, match='nova/boat.py'):
        apply(root, patch_set)


def forget(root):
    transaction.Record(root).remove()


def test_applied_without_a_record(root, patch_set):
    apply(root, patch_set)
    forget(root)
    assert state(root, patch_set) is State.RECORDLESS
    assert apply(root, patch_set) is None
    write(patch_set.root, {'nova/anchor.py': 'def lift(v): pass\n'})
    with pytest.raises(errors.NotReady, match='original Nova'):
        apply(root, patchset.load(patch_set.root))


def test_applied_by_commits_without_a_marker(root, patch_set):
    apply(root, patch_set)
    forget(root)
    (root / marker.PATH).unlink()
    assert state(root, patch_set) is State.RECORDLESS


@pytest.mark.parametrize('text', ['', 'PATCH_SET = 1', 'FILES = open("x")',
                                  '{', 'PATCH_SET = RELEASE = FILES = 1'])
def test_marker_that_is_none(root, patch_set, text):
    write(root, {marker.PATH: text})
    assert state(root, patch_set) is State.PRISTINE


@pytest.mark.parametrize('path', [
    'nova/boat.py', 'doc/source/boats.rst', 'nova/anchor.py'])
def test_half_applied_without_a_record(root, patch_set, path):
    before = (root / path).read_bytes() if (root / path).exists() else None
    apply(root, patch_set)
    forget(root)
    if before is None:
        (root / path).unlink()
    else:
        (root / path).write_bytes(before)
    found = commands.status(Tree(root), patch_set)
    assert found.state is State.HALF_RECORDLESS
    assert {name.split(':')[0] for name in found.absent} == {path}
    with pytest.raises(errors.NotReady) as caught:
        apply(root, patch_set)
    assert path in str(caught.value)


def test_a_tree_changed_by_hand_where_the_places_are_still_there(
        root, patch_set):
    place = root / 'nova/boat.py'
    place.write_text(place.read_text().replace('wind * 2', 'wind * 3'))
    before = snapshot(root)
    apply(root, patch_set)
    assert 'wind * 3' in place.read_text()
    assert "anchor.lift('2.10')" in place.read_text()
    transaction.undo(root)
    assert snapshot(root) == before


def test_diff_before_and_after_is_the_same(root, patch_set):
    before = commands.diff(Tree(root), patch_set)
    apply(root, patch_set)
    after = commands.diff(Tree(root), patch_set)
    assert before == after
    assert "+        anchor.lift('2.10')\n" in before
    assert '--- /dev/null\n+++ b/nova/anchor.py\n' in before
