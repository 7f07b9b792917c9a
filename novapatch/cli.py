# SPDX-License-Identifier: Apache-2.0
"""The command line: ``python -m novapatch``."""

import argparse
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import replace
import gc
import os
from pathlib import Path
import sys

from novapatch import commands
from novapatch import errors
from novapatch.export.commits import export
from novapatch.plan import patchset
from novapatch.plan.patchset import PatchSet
from novapatch.tree.tree import Tree
from novapatch import worktree

PROJECT = Path(__file__).resolve().parent.parent


def _parser() -> argparse.ArgumentParser:
    # Before or after the command: what is not given must not override.
    common = argparse.ArgumentParser(
        add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument('--patch-set', type=Path, metavar='DIR', help=(
        'the project with edits/ and the new files'))
    common.add_argument('--release', metavar='R', help=(
        'the release of the tree, if it can not be found out'))
    common.add_argument('--any-release', action='store_true', help=(
        'try a release that is not supported: only its places tell '
        '("work" needs --release, too)'))
    parser = argparse.ArgumentParser(
        prog='novapatch', parents=[common],
        description='Apply a semantic patch set to a tree of Nova.')
    commands = parser.add_subparsers(required=True)

    def add(run: Callable[[argparse.Namespace], int],
            text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(run.__name__.strip('_'),
                                      parents=[common], help=text)
        command.set_defaults(run=run)
        return command

    for run, text in (
            (_apply, 'apply the patch set, wholly or not at all'),
            (_diff, 'show what apply would change, or did change'),
            (_status, 'tell whether the patch set is applied'),
            (_undo, 'put everything back, byte for byte')):
        command = add(run, text)
        command.add_argument('tree', type=Path, metavar='TREE', help=(
            'an unpacked sdist, a git checkout, or site-packages'))
    _add_force(command)
    work = add(_work, 'make or refresh a patched tree to work in')
    work.add_argument('directory', type=Path, nargs='?', metavar='DIR',
                      help='default: work/nova in the project')
    work.add_argument('--sdist', type=Path, metavar='FILE', help=(
        "Nova's sdist; default: the one pip downloads"))
    _add_force(work)
    commits = add(_export, 'make commits of the patch set: a branch, '
                           'patches, a quilt queue')
    commits.add_argument('tree', type=Path, nargs='?', metavar='TREE', help=(
        "an sdist, unpacked or not, or a git checkout; default: the one pip "
        "downloads"))
    commits.add_argument('--to', type=Path, metavar='DIR', help=(
        'default: work/export in the project'))
    return parser


def _add_force(command: argparse.ArgumentParser) -> None:
    command.add_argument('--force', action='store_true', help=(
        'give up what was changed by hand in patched files'))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    :returns: the exit status: 0, 1 after an error, 130 if interrupted
    """
    options = _parser().parse_args(arguments, argparse.Namespace(
        patch_set=PROJECT, release=None, any_release=False))
    # Syntax trees are many small objects and no garbage: looking for some
    # among them would take longer than everything else.
    collecting = gc.isenabled()
    gc.disable()
    try:
        status = options.run(options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Whoever reads has seen enough. Python would try once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (errors.PatchError, OSError) as error:
        print(f'novapatch: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('novapatch: interrupted; "status" tells how far it came',
              file=sys.stderr)
        return 130
    finally:
        if collecting:
            gc.enable()


def _patch_set(options: argparse.Namespace,
               tree: Tree | None = None) -> PatchSet:
    """The patch set; on demand one that takes the release of a tree.

    :param tree: if there is none yet, its release has to be an option
    """
    found = patchset.load(options.patch_set)
    release = tree.release if tree else options.release
    if not options.any_release or not release:
        return found
    try:
        found.check_release(options.patch_set, release)
    except errors.WrongRelease:
        print(f'novapatch: nobody has tried this with Nova {release}: '
              f'run its tests', file=sys.stderr)
    return replace(found, releases=(release, *found.releases))


def _apply(options: argparse.Namespace) -> int:
    tree = Tree(options.tree, options.release)
    plan = commands.apply(tree, _patch_set(options, tree))
    if plan is None:
        print(f'{tree.root}: already applied, nothing to do')
        return 0
    new = sum(change.before is None for change in plan.changes)
    print(f'{tree.root}: Nova {plan.release}: '
          f'{len(plan.changes) - new} files changed, {new} added')
    if plan.skipped:
        print(f'novapatch: skipped, for this tree has no place for them: '
              f'{errors.listed(plan.skipped)}', file=sys.stderr)
    return 0


def _diff(options: argparse.Namespace) -> int:
    tree = Tree(options.tree, options.release)
    sys.stdout.write(commands.diff(tree, _patch_set(options, tree)))
    return 0


def _undo(options: argparse.Namespace) -> int:
    tree = Tree(options.tree, options.release)
    manifest = commands.undo(tree, options.force)
    print(f'{tree.root}: {len(manifest.files)} files are as they were')
    return 0


def _status(options: argparse.Namespace) -> int:
    tree = Tree(options.tree, options.release)
    found = commands.status(tree, patchset.load(options.patch_set))
    print(f'{tree.root}: {found.state.value}')
    for title, paths in found.paths().items():
        print(f'{title}:', *paths, sep='\n  ')
    return 1 if found.state in commands.BROKEN else 0


def _work(options: argparse.Namespace) -> int:
    directory = options.directory or options.patch_set / 'work' / 'nova'
    print(worktree.refresh(
        _patch_set(options), directory, sdist=options.sdist,
        force=options.force, release=options.release))
    return 0


def _export(options: argparse.Namespace) -> int:
    directory = options.to or options.patch_set / 'work' / 'export'
    with worktree.sources(patchset.load(options.patch_set), options.tree,
                          options.release) as place:
        tree = Tree(place, options.release)
        commits = export(tree, _patch_set(options, tree), directory)
    print(*commits, f'{directory}: {len(commits)} commits', sep='\n')
    return 0
