# SPDX-License-Identifier: Apache-2.0

import shutil
import tarfile

import pytest

from novapatch import errors
from novapatch.plan import patchset
from novapatch import worktree
from patch_helpers import PATCH_SET
from patch_helpers import TREE
from patch_helpers import write


@pytest.fixture
def project(tmp_path):
    write(tmp_path / 'project', PATCH_SET)
    return tmp_path / 'project'


@pytest.fixture
def sdist(tmp_path):
    write(tmp_path / 'nova-34.0.0', TREE)
    with tarfile.open(tmp_path / 'nova.tar.gz', 'w:gz') as archive:
        archive.add(tmp_path / 'nova-34.0.0', 'nova-34.0.0')
    return tmp_path / 'nova.tar.gz'


@pytest.fixture
def refresh(project, sdist):
    def refresh(**options):
        return worktree.refresh(patchset.load(project),
                                project / 'work' / 'nova', sdist, **options)
    return refresh


def test_a_directory_of_somebody_else(project, refresh):
    write(project, {'work/nova/file': 'x'})
    with pytest.raises(errors.DirectoryExists):
        refresh()


@pytest.mark.parametrize('content', [None, b'no archive', 'cut'])
def test_a_bad_sdist(project, sdist, refresh, content):
    data = sdist.read_bytes()
    sdist.unlink()
    if content:
        sdist.write_bytes(data[:len(data) // 2] if content == 'cut'
                          else content)
    with pytest.raises(errors.NoSdist):
        refresh()
    assert not (project / 'work/nova').exists()


def test_a_download_that_fails(project, monkeypatch):
    monkeypatch.setattr(worktree.sys, 'executable', '/bin/false')
    with pytest.raises(errors.NoSdist, match='34.0.0'):
        worktree.refresh(patchset.load(project), project / 'work/nova')


def test_changed_by_hand(project, refresh):
    refresh()
    write(project, {'work/nova/nova/boat.py': 'mine = 1\n'})
    with pytest.raises(errors.ChangedByHand):
        refresh()
    assert 'refreshed' in refresh(force=True)


def test_new_files_are_links(project, refresh):
    assert 'made' in refresh()
    place = project / 'work/nova/nova/anchor.py'
    assert place.resolve() == project / 'nova/anchor.py'
    write(project, {'nova/anchor.py': 'def lift(v): return 2\n'})
    assert place.read_text() == 'def lift(v): return 2\n'
    assert 'up to date' in refresh()


def test_a_copy_of_the_project_has_links_of_its_own(
        project, refresh, sdist, tmp_path):
    refresh()
    shutil.copytree(project, tmp_path / 'copy', symlinks=True)
    copy = patchset.load(tmp_path / 'copy')
    place = copy.root / 'work/nova'
    assert 'refreshed' in worktree.refresh(copy, place, sdist)
    assert (place / 'nova/anchor.py').resolve() == (
        copy.root / 'nova/anchor.py').resolve()
    assert 'up to date' in worktree.refresh(copy, place, sdist)


def test_edits_that_changed(project, refresh):
    refresh()
    write(project, {'work/nova/.stestr/0': 'kept',
                    'edits/nova/version.py': '''
        from novapatch.edit import bump

        EDITS = [bump('VERSION')]
        '''})
    assert 'refreshed' in refresh()
    tree = project / 'work/nova'
    assert (tree / 'nova/version.py').read_text() == (
        "VERSION = 4\nMICRO = '2.9'\n")
    assert (tree / '.stestr/0').read_text() == 'kept\n'.strip()
    assert 'up to date' in refresh()


def test_a_new_file_that_went_away_and_one_that_came(project, refresh):
    refresh()
    (project / 'nova/deep/down/__init__.py').unlink()
    write(project, {'nova/rope.py': 'x = 1\n'})
    assert 'refreshed' in refresh()
    tree = project / 'work/nova'
    assert not (tree / 'nova/deep').exists()
    assert (tree / 'nova/rope.py').read_text() == 'x = 1\n'


def test_another_release_is_downloaded(project, sdist):
    cache = project / 'work/cache'
    cache.mkdir(parents=True)
    sdist.rename(cache / 'nova-34.0.7.tar.gz')
    with worktree.sources(patchset.load(project), None, '34.0.7') as place:
        assert (place / 'nova/boat.py').is_file()
    worktree.refresh(patchset.load(project), project / 'work/nova',
                     release='34.0.7')
    assert (project / 'work/nova/nova/anchor.py').is_file()


def test_an_older_python(refresh, monkeypatch):
    """That of Debian 12 does not know the argument ``filter``."""
    extractall = tarfile.TarFile.extractall
    monkeypatch.setattr(
        tarfile.TarFile, 'extractall',
        lambda archive, path: extractall(archive, path))
    monkeypatch.delattr(tarfile, 'data_filter', raising=False)
    refresh()
