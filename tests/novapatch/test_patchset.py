# SPDX-License-Identifier: Apache-2.0

import pytest

from novapatch import errors
from novapatch.plan import patchset
from novapatch.plan import plans
from novapatch.tree.tree import Tree
from patch_helpers import PATCH_SET
from patch_helpers import TREE
from patch_helpers import write


@pytest.fixture
def project(tmp_path):
    write(tmp_path / 'project', PATCH_SET)
    return tmp_path / 'project'


@pytest.fixture
def root(tmp_path):
    write(tmp_path / 'tree', TREE)
    return tmp_path / 'tree'


def make(root, project, link=False, **options):
    return plans.make(Tree(root, **options), patchset.load(project), link)


def test_no_patch_set(tmp_path):
    with pytest.raises(errors.PatchSetError, match='no edits/'):
        patchset.load(tmp_path)


@pytest.mark.parametrize('text, message', [
    ('x = 1\n', 'EDITS must be a list'),
    ('EDITS = [1]\n', 'EDITS must be a list'),
    ('x = 1\nEDITS = bump(1)\n', 'NameError.*line 2'),
    ('EDITS = [\n', 'SyntaxError'),
    ('import nova_that_is_not_there\n', 'ModuleNotFoundError'),
])
def test_bad_module_of_edits(project, text, message):
    write(project, {'edits/nova/boat.py': text})
    with pytest.raises(errors.PatchSetError, match=message) as caught:
        patchset.load(project)
    assert 'edits/nova/boat.py' in str(caught.value)


def test_values_must_be_versions(project):
    write(project, {'edits/__init__.py': "VALUES = {'a': 1}\n"})
    with pytest.raises(errors.PatchSetError, match='next_version'):
        patchset.load(project)


def test_a_file_both_new_and_changed(project):
    write(project, {'nova/boat.py': ''})
    with pytest.raises(errors.PatchSetError, match='nova/boat.py'):
        patchset.load(project)


def test_what_a_patch_set_holds(project):
    loaded = patchset.load(project)
    assert set(loaded.edits) == {
        'nova/version.py', 'nova/boat.py', 'doc/source/boats.rst'}
    assert set(loaded.new_files) == {
        'nova/anchor.py', 'nova/deep/down/__init__.py',
        'doc/source/anchors.rst'}
    assert loaded.releases == ('34.0.0',)


def test_the_digest_tells_versions_apart(project):
    first = patchset.load(project).digest()
    assert patchset.load(project).digest() == first
    write(project, {'nova/anchor.py': 'lift = None\n'})
    assert patchset.load(project).digest() != first


# -- trees ----------------------------------------------------------------

def test_no_nova(tmp_path):
    with pytest.raises(errors.NotNova):
        Tree(tmp_path)


def test_unknown_release(root):
    (root / 'PKG-INFO').unlink()
    with pytest.raises(errors.ReleaseUnknown, match='--release'):
        Tree(root).release
    assert Tree(root, '34.0.0').release == '34.0.0'


@pytest.mark.parametrize('release', [
    '33.0.1', '34.1.0', '35.0.0', '34', '134.0.0', '34.01.0', 'master'])
def test_wrong_release(root, project, release):
    write(root, {'PKG-INFO': f'Name: nova\nVersion: {release}\n'})
    with pytest.raises(errors.WrongRelease) as caught:
        make(root, project)
    assert release in str(caught.value) and '34.0.x' in str(caught.value)


@pytest.mark.parametrize('release', [
    '34.0.0', '34.0.12', '34.0.0+pmemcopy.1', '34.0.0.0rc1', '34.0.1.dev4',
    '34.0.0-2~deb13'])
def test_other_releases_of_the_series(root, project, release):
    write(root, {'PKG-INFO': f'Name: nova\nVersion: {release}\n'})
    assert make(root, project).release == release


def test_new_files_have_the_versions_of_the_tree(root, project):
    write(project, {
        'edits/__init__.py': '''
        from novapatch.edit import next_version
        from novapatch.edit import this_version

        VALUES = {
            'micro': next_version('nova/version.py', 'MICRO', here='2.8'),
            'before': this_version('nova/version.py', 'MICRO', here='2.7'),
        }
        ''',
        'nova/deep/v2.8/two.txt': (
            'From 2.8. After 2.7, not 2.81, 1.2.8, 2.8.1'),
        'nova/deep/v2.8/bytes': b'\xff 2.8'})
    found = {change.path: change for change in make(
        root, project, link=True).changes}
    text = found['nova/deep/v2.10/two.txt']
    assert text.after == b'From 2.10. After 2.9, not 2.81, 1.2.8, 2.8.1'
    assert found['nova/deep/v2.10/bytes'].after == b'\xff 2.10'
    # A link would show what is here.
    assert text.link is None and found['nova/anchor.py'].link


def test_an_older_release_has_the_same_number(root, project):
    write(project, {'edits/__init__.py': """
        from novapatch.edit import next_version
        from novapatch.edit import this_version

        VALUES = {
            'micro': next_version('nova/version.py', 'MICRO', here='2.13'),
            'before': this_version('nova/version.py', 'MICRO', here='2.12'),
        }
        """})
    loaded = patchset.load(project)
    assert loaded.read_values(Tree(root)) == {
        'micro': '2.13', 'before': '2.12'}
    write(root, {'nova/version.py': "VERSION = 3\nMICRO = '2.100'\n"})
    assert loaded.read_values(Tree(root)) == {
        'micro': '2.101', 'before': '2.100'}


@pytest.mark.parametrize('is_there', [False, True])
def test_a_backport_is_for_trees_that_have_no_such_file(
        root, project, is_there):
    write(project, {'backports/nova/rope.py': 'tie = None\n'})
    if is_there:
        write(root, {'nova/rope.py': 'tie = knot = None\n'})
    found = {change.path: change.after
             for change in make(root, project).changes}
    assert found.get('nova/rope.py') == (
        None if is_there else b'tie = None\n')


def test_backports_count_for_the_digest(project):
    first = patchset.load(project)
    write(project, {'backports/nova/rope.py': 'tie = None\n'})
    second = patchset.load(project)
    assert first.digest() != second.digest()
    assert first.digest_of_edits() != second.digest_of_edits()


def test_file_missing(root, project):
    (root / 'nova/boat.py').unlink()
    with pytest.raises(errors.UnreadableFile) as caught:
        make(root, project)
    assert '34.0.0' in str(caught.value)
    assert 'nova/boat.py' in str(caught.value)


def test_new_file_that_exists(root, project):
    write(root, {'nova/anchor.py': 'theirs = 1\n'})
    with pytest.raises(errors.NewFileExists, match='nova/anchor.py'):
        make(root, project)


def test_symlinks_are_not_written_through(root, project):
    (root / 'nova/boat.py').rename(root / 'nova/real.py')
    (root / 'nova/boat.py').symlink_to('real.py')
    with pytest.raises(errors.SymlinkInTree, match='boat.py'):
        make(root, project)


def test_symlinked_directory(root, project, tmp_path):
    (tmp_path / 'elsewhere').mkdir()
    (root / 'nova/deep').symlink_to(tmp_path / 'elsewhere')
    with pytest.raises(errors.SymlinkInTree, match='deep'):
        make(root, project)


def test_an_error_names_release_file_edit_and_what_was_sought(
        root, project):
    write(root, {'nova/boat.py': '''
        import os

        class Boat:
            def sail(self, wind):
                self.move(wind)
        '''})
    with pytest.raises(errors.NoMatch) as caught:
        make(root, project)
    for part in ('Nova 34.0.0', 'nova/boat.py', 'insert_before',
                 'Boat.sail', 'return $X'):
        assert part in str(caught.value)


def test_a_value_that_can_not_be_read(root, project):
    write(root, {'nova/version.py': 'VERSION = 1\n'})
    with pytest.raises(errors.PatchSetError, match='micro.*MICRO'):
        make(root, project)


def test_an_unknown_value_names_its_file(root, project):
    write(project, {'edits/__init__.py': ''})
    with pytest.raises(errors.Misses, match='boats.rst'):
        make(root, project)


def test_an_edit_that_changes_nothing(root, project):
    write(project, {'edits/nova/version.py': '''
        from novapatch.edit import set_value

        EDITS = [set_value('VERSION', '3')]
        '''})
    with pytest.raises(errors.NothingChanged, match='version.py'):
        make(root, project)


def test_a_result_that_does_not_compile_names_the_edit(root, project):
    write(project, {'edits/nova/boat.py': '''
        from novapatch.edit import add_parameter

        EDITS = [add_parameter('Boat.sail', 'a b')]
        '''})
    with pytest.raises(errors.ResultBroken, match="'Boat.sail'"):
        make(root, project)


def test_values_are_those_of_the_pristine_tree(root, project):
    changes = {change.path: change for change in make(root, project).changes}
    assert b"lift('2.10')" in changes['nova/boat.py'].after
    assert b'since 2.10.' in changes['doc/source/boats.rst'].after
    assert changes['nova/version.py'].after == (
        b"VERSION = 4\nMICRO = '2.10'\n")


def test_site_packages_take_the_package_alone(root, project):
    (root / 'PKG-INFO').unlink()
    write(root, {'nova-34.0.0.dist-info/METADATA': 'Version: 34.0.0\n'})
    write(project, {'nova/tests/test_boat.py': ''})
    plan = make(root, project)
    assert plan.release == '34.0.0'
    assert set(plan.skipped) == {
        'doc/source/anchors.rst', 'doc/source/boats.rst',
        'nova/tests/test_boat.py'}
    assert {change.path for change in plan.changes} == {
        'nova/version.py', 'nova/boat.py', 'nova/anchor.py',
        'nova/deep/down/__init__.py'}
