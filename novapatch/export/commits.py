# SPDX-License-Identifier: Apache-2.0
"""A patch set as commits: a git branch, its patches, and a quilt queue.

The same patch set and the same Nova give the same bytes: names, times and the
settings of git are fixed here.
"""

from collections.abc import Iterable
from dataclasses import replace
import os
from pathlib import Path
import re
import shutil
import subprocess
import tempfile
import time

from novapatch import commands
from novapatch import errors
from novapatch.export import series as definition
from novapatch.operations import base
from novapatch.plan.patchset import PatchSet
from novapatch.tree.change import Plan
from novapatch.tree import record
from novapatch.tree.tree import Tree

#: The branch of what was there before.
BASE = 'nova'

_LEFT = shutil.ignore_patterns('__pycache__', '.git', record.NAME)
_DIFF = ('--no-renames', '--full-index', '--no-color', '--no-ext-diff',
         '--no-textconv', '--diff-algorithm=myers', '--unified=3',
         '--src-prefix=a/', '--dst-prefix=b/')


class _Git:
    """The repository of an export; the user's settings don't count."""

    def __init__(self, root: Path, series: definition.Series) -> None:
        name, mail = _person(series.author)
        self.root = root
        self._env = {key: value for key, value in os.environ.items()
                     if not key.startswith('GIT_')}
        # A checkout of another user is read, and nothing of it is run. What
        # -c says of that would not reach the git that a clone starts.
        self._config = tempfile.NamedTemporaryFile('w', prefix='gitconfig-')
        self._config.write('[safe]\n\tdirectory = *\n')
        self._config.flush()
        self._env |= {
            'GIT_CONFIG_GLOBAL': self._config.name,
            'GIT_CONFIG_NOSYSTEM': '1', 'LC_ALL': 'C'}
        for role in 'AUTHOR', 'COMMITTER':
            self._env |= {f'GIT_{role}_NAME': name, f'GIT_{role}_EMAIL': mail,
                          f'GIT_{role}_DATE': f'{series.date} +0000'}

    def run(self, *arguments: str | Path, text: str | None = None) -> str:
        """Run git.

        :param text: its input
        :raises: GitFailed
        """
        command = ['git', '-c', 'core.hooksPath=/dev/null', *arguments]
        try:
            return subprocess.run(
                command, cwd=self.root, env=self._env, input=text, text=True,
                capture_output=True, check=True).stdout
        except subprocess.CalledProcessError as error:
            lines = (error.stderr or error.stdout).strip().split('\n')
            fatal = [line for line in lines if line.startswith('fatal: ')]
            raise errors.GitFailed(command=arguments[0],
                                   reason=(fatal or lines[-1:])[0]) from error
        except OSError as error:
            raise errors.GitFailed(command=arguments[0],
                                   reason=error) from error

    def commit(self, message: str, paths: Iterable[str] = ('.',)) -> None:
        # What Nova ignores is part of its sdist, and may be part of a patch.
        self.run('add', '--force', '--pathspec-from-file=-',
                 text=''.join(f':(literal){path}\n' for path in paths))
        self.run('commit', '--quiet', '--cleanup=verbatim', '--file=-',
                 text=message)


def _person(author: str) -> tuple[str, str]:
    found = re.fullmatch(r'([^<>]+) <([^<> ]+)>', author)
    if found is None:
        raise errors.PatchSetError(path=definition.FILE, reason=(
            f'{author!r} is no author: Name <mail>'))
    return found[1], found[2]


def export(tree: Tree, patch_set: PatchSet, directory: Path) -> list[str]:
    """Make the commits of a patch set in a repository of their own.

    In the directory come into being ``nova/``, the repository, with our branch
    checked out on top of the tree (of its HEAD, if it is a checkout);
    ``patches/``, made by ``git format-patch``; and ``quilt/``, a queue as in
    ``debian/patches/``.

    :returns: the summaries of the commits
    :raises: PatchError, in which case the directory does not come into being
    """
    series = definition.load(patch_set)
    parts = list(definition.split(series, patch_set))
    if directory.exists():
        raise errors.DirectoryExists(directory=directory, but='')
    if tree.is_installed:
        raise errors.NotPristine(tree=tree.root, state=(
            'it is installed; name its sources (an sdist or a checkout)'))
    scratch = directory.with_name(directory.name + '.part')
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        git = _Git(scratch / 'nova', series)
        _base(git, tree, patch_set)
        commits = _commits(git, Tree(git.root, tree.release), series.branch,
                           parts)
        _patches(git, series, commits, scratch)
        os.rename(scratch, directory)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return [commit.summary for commit in commits]


def _base(git: _Git, tree: Tree, patch_set: PatchSet) -> None:
    """Make the repository of what the tree has.

    :raises: NotPristine
    """
    is_checkout = (tree.root / '.git').exists()
    if is_checkout:
        checkout, git.root = git.root, git.root.parent
        git.root.mkdir(parents=True)
        git.run('clone', '--quiet', '--no-local', tree.root, 'nova')
        git.root = checkout
        tree = Tree(git.root, tree.release)
    state = commands.status(tree, patch_set).state
    if state is not commands.State.PRISTINE:
        raise errors.NotPristine(tree=tree.root, state=state.value)
    if not is_checkout:
        shutil.copytree(tree.root, git.root, symlinks=True, ignore=_LEFT)
        git.run('init', '--quiet')
        git.commit(f'Nova {tree.release}\n')
    # It may be the branch that is checked out.
    git.run('update-ref', f'refs/heads/{BASE}', 'HEAD')


def _commits(git: _Git, tree: Tree, branch: str,
             parts: list[tuple[definition.Commit, PatchSet]],
             ) -> list[definition.Commit]:
    """Make all commits; returns them with their messages as they are."""
    known = parts[0][1].read_values(tree)
    commits = []
    git.run('checkout', '--quiet', '-b', branch)
    for commit, part in parts:
        # What was parsed for an earlier commit stays as it was before it.
        plan = commands.prepare(tree, part)
        commit = replace(commit, message=base.fill(commit.message, known))
        _write(tree.root, plan)
        git.commit(commit.message, [change.path for change in plan.changes])
        commits.append(commit)
    return commits


def _write(root: Path, plan: Plan) -> None:
    for change in plan.changes:
        place = root / change.path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(change.after)
        place.chmod(0o755 if change.mode & 0o100 else 0o644)


def _patches(git: _Git, series: definition.Series,
             commits: list[definition.Commit], directory: Path) -> None:
    """Write the patches of all commits, in both forms."""
    git.run('format-patch', '--quiet', '--zero-commit', '--no-signature',
            '--no-thread', '--no-attach', '--numbered', '--stat=72',
            f'--output-directory={directory / "patches"}', *_DIFF,
            f'{BASE}..HEAD')
    queue = directory / 'quilt'
    queue.mkdir()
    names: list[str] = []
    for back, commit in enumerate(reversed(commits)):
        diff = git.run('diff-tree', '-p', '-r', *_DIFF,
                       f'HEAD~{back + 1}', f'HEAD~{back}')
        names.insert(0, f'{len(commits) - back:02}-{commit.name}.patch')
        (queue / names[0]).write_text(_header(series, commit) + diff)
    (queue / 'series').write_text(''.join(f'{name}\n' for name in names))


def _header(series: definition.Series, commit: definition.Commit) -> str:
    """What DEP-3 asks of a patch in Debian."""
    lines = [f' {line}' if line else ' .' for line in
             commit.body.rpartition('Change-Id: ')[0].strip().split('\n')]
    day = time.strftime('%Y-%m-%d', time.gmtime(series.date))
    return '\n'.join((f'Description: {commit.summary}', *lines,
                      f'Author: {series.author}', 'Forwarded: no',
                      f'Last-Update: {day}', '---', ''))
