# SPDX-License-Identifier: Apache-2.0

import os
import re
import shutil
import subprocess
import tarfile
import time

import pytest

from novapatch import cli
from novapatch import commands
from novapatch import errors
from novapatch.export.commits import export
from novapatch.plan import patchset
from novapatch.tree.tree import Tree
from patch_helpers import PATCH_SET
from patch_helpers import SERIES
from patch_helpers import snapshot
from patch_helpers import TREE
from patch_helpers import write

SUMMARIES = ['Add an anchor', 'Use the anchor']


@pytest.fixture
def tree(tmp_path):
    write(tmp_path / 'tree', TREE)
    return tmp_path / 'tree'


@pytest.fixture
def project(tmp_path):
    project = tmp_path / 'project'
    write(project, PATCH_SET | {'nova/deep/down/script': '#!/bin/sh\n',
                                'series.toml': SERIES})
    (project / 'nova/deep/down/script').chmod(0o755)
    return project


@pytest.fixture
def make(tmp_path, tree, project):
    def make(name='out'):
        summaries = export(
            Tree(tree), patchset.load(project), tmp_path / name)
        assert summaries == SUMMARIES
        return tmp_path / name
    return make


def git(place, *arguments):
    return git_or_patch(place, 'git', *arguments)


def git_or_patch(place, *command):
    env = dict(os.environ, GIT_CONFIG_GLOBAL=os.devnull, TZ='UTC')
    for role in 'AUTHOR', 'COMMITTER':
        env |= {f'GIT_{role}_NAME': 'a', f'GIT_{role}_EMAIL': 'a@example.org'}
    return subprocess.run(
        command, cwd=place, env=env, check=True, text=True,
        stdout=subprocess.PIPE).stdout


def checkout(tree):
    (tree / 'PKG-INFO').unlink()
    for command in ('init -q', 'add .', 'commit -qm upstream',
                    'tag -am t 34.0.0'):
        git(tree, *command.split())


@pytest.fixture
def applied(tmp_path, tree, project):
    """What a tree is after an apply, without what the tool notes there."""
    def applied():
        copy = tmp_path / 'copy'
        shutil.copytree(tree, copy)
        commands.apply(Tree(copy), patchset.load(project))
        shutil.rmtree(copy / '.novapatch')
        (copy / 'nova/novapatch_marker.py').unlink()
        return snapshot(copy)
    return applied


def without_git(place):
    return {path: what for path, what in snapshot(place).items()
            if path.split('/')[0] != '.git'}


def refused(make, error, match):
    with pytest.raises(error, match=match):
        make()


def test_place_that_is_taken(make, tmp_path):
    (tmp_path / 'out').mkdir()
    refused(make, errors.DirectoryExists, 'out exists')


def test_tree_that_is_patched_already(make, tree, project, tmp_path):
    commands.apply(Tree(tree), patchset.load(project))
    refused(make, errors.NotPristine, 'is not as released: applied')
    assert not (tmp_path / 'out').exists()


def test_checkout_whose_head_is_patched(make, tree, project):
    commands.apply(Tree(tree), patchset.load(project))
    checkout(tree)
    refused(make, errors.NotPristine, 'already applied')


@pytest.mark.skipif(os.geteuid() != 0, reason='only root gives files away')
def test_checkout_of_another_user(make, tree):
    checkout(tree)
    for place in (tree, *tree.rglob('*')):
        os.chown(place, 1234, 1234)
    # The tool itself asks git for the release, which is another matter.
    write(tree, {'PKG-INFO': TREE['PKG-INFO']})
    make()


def test_installed_nova(make, tree):
    (tree / 'PKG-INFO').unlink()
    write(tree, {'nova-34.0.0.dist-info/METADATA': 'Version: 34.0.0\n'})
    refused(make, errors.NotPristine, 'installed')


def test_commit_that_does_not_stand_by_itself(make, project):
    write(project, {'series.toml': SERIES.replace(
        "'nova/boat.py',", "'nova/boat.py::Boat',").replace(
        "'nova/deep/*',", "'nova/deep/*', 'nova/boat.py::from nova',")})
    refused(make, errors.CheckFailed, "'nova.anchor' imported but unused")


def test_place_that_is_not_there_in_one_commit(make, tree, tmp_path):
    before = snapshot(tree)
    write(tree, {'nova/boat.py': 'import os\n'})
    refused(make, errors.EditError, 'nova/boat.py.*Boat.sail')
    write(tree, {'nova/boat.py': TREE['nova/boat.py']})
    assert snapshot(tree) == before
    assert [path.name for path in tmp_path.iterdir()] == ['tree', 'project']


def test_author_without_an_address(make, project):
    write(project, {'series.toml': SERIES.replace('<sailor', '')})
    refused(make, errors.PatchSetError, 'is no author')


def test_no_git(make, monkeypatch):
    monkeypatch.setenv('PATH', '/nowhere')
    refused(make, errors.GitFailed, 'git init: .*No such file')


def test_the_branch_ends_as_an_apply_does(make, tree, applied):
    before = snapshot(tree)
    out = make()
    assert snapshot(tree) == before
    assert without_git(out / 'nova') == applied()
    assert git(out / 'nova', 'status', '--porcelain', '--ignored') == ''


def test_what_a_commit_holds(make):
    place = make() / 'nova'
    assert git(place, 'log', '--format=%an %ae %ad %cn %cd', '--date=iso',
               'nova..boats').split('\n')[:2] == 2 * [
        'A. Sailor sailor@example.org 2026-11-27 00:00:00 +0000 '
        'A. Sailor 2026-11-27 00:00:00 +0000']
    message = git(place, 'log', '-1', '--format=%B')
    assert message.startswith('Use the anchor\n\nFrom 2.10 on.\n\nIt holds.')
    assert git(place, 'show', 'boats~1:nova/version.py') == (
        "VERSION = 4\nMICRO = '2.9'\n")
    assert git(place, 'show', 'boats:nova/version.py') == (
        "VERSION = 4\nMICRO = '2.10'\n")
    assert "lift('2.10')" in git(place, 'show', 'boats:nova/boat.py')


def test_what_nova_ignores_is_not_lost(make, tree, applied):
    write(tree, {'.gitignore': 'deep\nPKG-INFO\n'})
    assert without_git(make() / 'nova') == applied()


@pytest.mark.parametrize('branch', ['master', 'nova', None])
def test_checkout_stays_as_it_is_and_is_what_it_is_based_on(
        make, tree, project, branch):
    checkout(tree)
    git(tree, 'checkout', '-q', *(['-B', branch] if branch else ['--detach']))
    head = git(tree, 'rev-parse', 'HEAD')
    # Work in progress is not what is exported.
    write(tree, {'nova/boat.py': 'mine = 1\n'})
    before = snapshot(tree)
    place = make() / 'nova'
    assert snapshot(tree) == before
    assert git(place, 'rev-parse', 'boats~2', 'nova') == 2 * head
    assert 'class Boat' in git(place, 'show', 'boats:nova/boat.py')


@pytest.mark.parametrize('command', [
    ['git', 'am', '-q'], ['git', 'apply'], ['patch', '-sp1', '-i']])
@pytest.mark.parametrize('kind', ['patches', 'quilt'])
def test_who_takes_the_patches(make, tree, applied, kind, command):
    if kind == 'quilt' and 'am' in command:
        pytest.skip('a patch in a quilt queue is no mail')
    patches, expected = make() / kind, applied()
    names = sorted(path.name for path in patches.glob('*.patch'))
    if kind == 'quilt':
        assert names == (patches / 'series').read_text().split()
        assert names == ['01-anchor.patch', '02-use.patch']
    if 'am' in command:
        checkout(tree)
        del expected['PKG-INFO']
    for name in names:
        git_or_patch(tree, *command, patches / name)
    assert without_git(tree) == expected


def test_header_of_a_quilt_patch(make):
    text = (make() / 'quilt/02-use.patch').read_text()
    assert text.startswith('''\
Description: Use the anchor
 From 2.10 on.
 .
 It holds.
 .
 Implements: blueprint anchors
Author: A. Sailor <sailor@example.org>
Forwarded: no
Last-Update: 2026-11-27
---
diff --git a/doc/''')


def test_the_same_bytes_again(make, tmp_path, monkeypatch):
    first = make('first')
    # Whatever the user has set, and wherever and whenever it is done.
    write(tmp_path, {'home/.gitconfig': '''
        [user]
            name = me
        [core]
            hooksPath = /nowhere
        [commit]
            gpgsign = true
        [diff]
            noprefix = true
            renames = copies
            algorithm = patience
            context = 7
        [format]
            pretty = oneline
            coverLetter = true
            signOff = true
        '''})
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    monkeypatch.setenv('GIT_AUTHOR_NAME', 'me')
    monkeypatch.setenv('GIT_DIR', '/nowhere')
    monkeypatch.setenv('TZ', 'Asia/Tokyo')
    kept = os.umask(0o077)
    try:
        time.sleep(1)
        second = make('second')
    finally:
        os.umask(kept)
    monkeypatch.delenv('GIT_DIR')
    for kind in 'patches', 'quilt':
        assert {path.name: path.read_bytes()
                for path in (first / kind).iterdir()} == {
            path.name: path.read_bytes()
            for path in (second / kind).iterdir()}
    assert git(first / 'nova', 'rev-parse', 'HEAD') == git(
        second / 'nova', 'rev-parse', 'HEAD')
    # How far git shortens a digest depends on what else is there.
    text = (first / 'quilt/02-use.patch').read_text()
    assert re.findall(r'^index [0-9a-f]{40}\.\.[0-9a-f]{40} 100644$', text,
                      re.MULTILINE)


@pytest.mark.parametrize('kind', ['directory', 'sdist', 'default'])
def test_command(tmp_path, tree, project, capsys, kind):
    arguments = ['--patch-set', project, 'export']
    if kind != 'default':
        arguments += ['--to', tmp_path / 'out']
    sdist = tmp_path / 'nova.tar.gz'
    if kind != 'directory':
        if kind == 'default':
            sdist = project / 'work/cache/nova-34.0.0.tar.gz'
            sdist.parent.mkdir(parents=True)
        with tarfile.open(sdist, 'w:gz') as archive:
            archive.add(tree, 'nova-34.0.0')
    arguments += {'directory': [tree], 'sdist': [sdist], 'default': []}[kind]
    out = project / 'work/export' if kind == 'default' else tmp_path / 'out'
    assert cli.main([str(each) for each in arguments]) == 0
    assert capsys.readouterr().out.split('\n') == [
        *SUMMARIES, f'{out}: 2 commits', '']
    assert sorted(path.name for path in out.iterdir()) == [
        'nova', 'patches', 'quilt']
