# SPDX-License-Identifier: Apache-2.0

import os
import shutil
import subprocess
import sys
import tarfile

import pytest

from novapatch import cli
from novapatch.tree.tree import Tree
from patch_helpers import PATCH_SET
from patch_helpers import snapshot
from patch_helpers import text_of
from patch_helpers import TREE
from patch_helpers import write


@pytest.fixture
def run(tmp_path, capsys):
    write(tmp_path / 'project', PATCH_SET)
    write(tmp_path / 'tree', TREE)

    def run(*arguments):
        status = cli.main(['--patch-set', str(tmp_path / 'project'),
                           *map(str, arguments)])
        return status, *capsys.readouterr()
    return run


def test_usage():
    with pytest.raises(SystemExit) as caught:
        cli.main(['fly'])
    assert caught.value.code == 2


def test_error(run, tmp_path):
    status, out, err = run('apply', tmp_path)
    assert (status, out) == (1, '')
    assert err.startswith('novapatch: ') and 'no tree of Nova' in err


def test_a_life(run, tmp_path):
    tree = tmp_path / 'tree'
    before = snapshot(tree)
    assert run('status', tree) == (0, f'{tree}: not applied\n', '')
    assert run('apply', tree) == (
        0, f'{tree}: Nova 34.0.0: 3 files changed, 4 added\n', '')
    assert run('status', tree) == (0, f'{tree}: applied\n', '')
    assert run('apply', tree)[:2] == (
        0, f'{tree}: already applied, nothing to do\n')
    assert '+++ b/nova/anchor.py' in run('diff', tree)[1]
    assert run('undo', tree)[0] == 0
    assert snapshot(tree) == before
    assert run('undo', tree)[0] == 1


@pytest.mark.parametrize('missing', ['nowhere', 'empty/nova'])
def test_directory_that_is_not_there_is_named(run, tmp_path, missing):
    (tmp_path / 'empty').mkdir()
    status, out, err = run('apply', tmp_path / missing.split('/')[0])
    assert (status, out) == (1, '')
    assert f'there is no directory {tmp_path / missing}' in err


def test_reader_that_has_seen_enough(run, tmp_path):
    command = [sys.executable, '-m', 'novapatch', '--patch-set',
               tmp_path / 'project', 'diff', tmp_path / 'tree']
    with subprocess.Popen(command, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as running:
        running.stdout.close()
        assert running.stderr.read() == b''


def test_second_one_at_the_same_time(run, tmp_path):
    tree = tmp_path / 'tree'
    before = snapshot(tree)
    with Tree(tree).alone():
        for command in 'apply', 'undo':
            status, out, err = run(command, tree)
            assert status == 1
            assert 'another novapatch is at work' in err
    assert snapshot(tree) == before
    assert run('apply', tree)[0] == 0


def test_all_places_that_are_missing_are_named(run, tmp_path):
    tree = tmp_path / 'tree'
    write(tree, {'nova/boat.py': 'x = 1\n', 'nova/version.py': 'y = 1\n'})
    (tmp_path / 'project/edits/__init__.py').write_text('')
    (tmp_path / 'project/edits/nova/boat.py').write_text(text_of('''
        from novapatch.edit import insert_before

        EDITS = [insert_before('Boat.sail', 'return $X', 'x()'),
                 insert_before('Boat.move', 'return $X', 'x()')]
        '''))
    status, out, err = run('apply', '--release', '34.0.0', tree)
    assert status == 1
    assert err.count('nova/boat.py') == 2
    assert err.count('nova/version.py') == 2
    assert err.startswith('novapatch: 5 places')


def test_git_takes_the_diff(run, tmp_path):
    tree = tmp_path / 'tree'
    script = tmp_path / 'project/nova/script'
    script.write_text('#!/bin/sh\n')
    script.chmod(0o755)
    patch = tmp_path / 'patch'
    patch.write_text(run('diff', tree)[1])
    copies = []
    for command in ['git', 'apply'], ['patch', '-sp1', '-i']:
        copy = tmp_path / ('by ' + command[0])
        shutil.copytree(tree, copy)
        subprocess.run([*command, patch], cwd=copy, check=True)
        copies.append(snapshot(copy))
    run('apply', tree)
    shutil.rmtree(tree / '.novapatch')
    assert snapshot(tree) == copies[0] == copies[1]


def test_undo_by_force(run, tmp_path):
    tree = tmp_path / 'tree'
    before = snapshot(tree)
    run('apply', tree)
    write(tree, {'nova/boat.py': 'mine = 1\n'})
    status, out, err = run('undo', tree)
    assert status == 1 and 'nova/boat.py' in err and '--force' in err
    assert 'nova/boat.py' in run('status', tree)[1]
    assert run('undo', '--force', tree)[0] == 0
    assert snapshot(tree) == before


def test_skipped_files_are_named(run, tmp_path):
    tree = tmp_path / 'tree'
    (tree / 'PKG-INFO').rename(tree / 'kept')
    write(tree, {'nova-34.0.0.dist-info/METADATA': 'Version: 34.0.0\n'})
    status, out, err = run('apply', tree)
    assert status == 0
    assert 'skipped' in err and 'doc/source/boats.rst' in err


def test_half_applied_is_a_failure(run, tmp_path):
    tree = tmp_path / 'tree'
    write(tree, {'nova/anchor.py': PATCH_SET['nova/anchor.py']})
    status, out, err = run('status', tree)
    assert status == 1
    assert 'half-applied' in out and 'nova/anchor.py' in out


def test_checkout_of_another_user(run, tmp_path, monkeypatch):
    tree = tmp_path / 'tree'
    (tree / 'PKG-INFO').unlink()
    subprocess.run(['git', 'init', '-q', tree], check=True)
    monkeypatch.setenv('GIT_TEST_ASSUME_DIFFERENT_OWNER', '1')
    status, out, err = run('apply', tree)
    assert status == 1
    assert 'dubious ownership' in err and '--release' in err


def test_release_may_come_after_the_command(run, tmp_path):
    tree = tmp_path / 'tree'
    (tree / 'PKG-INFO').unlink()
    assert run('apply', tree)[0] == 1
    assert run('apply', tree, '--release', '33.0.0')[0] == 1
    assert run('apply', tree, '--release', '34.0.0')[0] == 0


@pytest.mark.parametrize('tag, status', [('34.0.0', 0), ('33.1.0', 1)])
def test_release_of_a_git_checkout(run, tmp_path, tag, status):
    tree = tmp_path / 'tree'
    (tree / 'PKG-INFO').unlink()
    env = dict(os.environ, GIT_CONFIG_GLOBAL=os.devnull,
               GIT_AUTHOR_NAME='a', GIT_AUTHOR_EMAIL='a@example.org',
               GIT_COMMITTER_NAME='a', GIT_COMMITTER_EMAIL='a@example.org')
    for command in ('init -q', 'add .', 'commit -qm x',
                    f'tag -am t {tag}', 'commit -qm y --allow-empty'):
        subprocess.run(['git', '-C', tree, *command.split()], env=env,
                       check=True)
    result = run('apply', tree)
    assert result[0] == status
    assert tag in result[1] + result[2]


def test_any_release_on_demand_with_a_warning(run, tmp_path):
    tree = tmp_path / 'tree'
    before = snapshot(tree)
    status, out, err = run('apply', tree, '--release', '35.0.0')
    assert status == 1 and '--any-release' in err
    assert snapshot(tree) == before
    for command in ['diff'], ['apply', '--any-release']:
        status, out, err = run(
            '--any-release', *command, tree, '--release', '35.0.0')
        assert status == 0
        assert 'nobody has tried this with Nova 35.0.0' in err
    assert 'Nova 35.0.0: 3 files changed' in out


def test_no_warning_of_a_release_that_is_supported(run, tmp_path):
    assert run('apply', '--any-release', tmp_path / 'tree')[2] == ''


def test_any_release_does_not_make_places_fit(run, tmp_path):
    write(tmp_path / 'tree', {'nova/boat.py': 'x = 1\n'})
    status, out, err = run('apply', '--any-release', '--release', '35.0.0',
                           tmp_path / 'tree')
    assert status == 1 and "Nova 35.0.0: nova/boat.py" in err


def test_any_release_to_work_in(run, tmp_path):
    write(tmp_path / 'tree', {'PKG-INFO': 'Name: nova\nVersion: 35.0.0\n'})
    sdist = tmp_path / 'nova.tar.gz'
    with tarfile.open(sdist, 'w:gz') as archive:
        archive.add(tmp_path / 'tree', 'nova-35.0.0')
    command = ['work', '--sdist', sdist, '--release', '35.0.0']
    assert run(*command, tmp_path / 'one')[0] == 1
    status, out, err = run(*command, '--any-release', tmp_path / 'two')
    assert status == 0 and 'nobody has tried this with Nova 35.0.0' in err
    assert (tmp_path / 'two/nova/anchor.py').is_file()
