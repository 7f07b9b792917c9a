# SPDX-License-Identifier: Apache-2.0
"""What applying a patch set to a tree would do; nothing is written."""

from collections.abc import Iterable
from collections.abc import Iterator
import difflib
import io
from pathlib import Path
import stat

from novapatch import errors
from novapatch.operations.base import Edit
from novapatch.plan.patchset import PatchSet
from novapatch.plan import sequence
from novapatch.tree.change import Change
from novapatch.tree.change import Plan
from novapatch.tree.tree import Tree


#: What git calls the content of an empty file.
_EMPTY_BLOB = 'e69de29'

_COMMAND = """\
import sys
from {module} import {function}
sys.exit({function}())
"""


def make(tree: Tree, patch_set: PatchSet, link: bool = False) -> Plan:
    """Find all places and compute all results.

    :param link: let new files be links to those of the patch set
    :raises: WrongRelease, NewFileExists, EditError; Misses, if
        several places are not there
    """
    patch_set.check_release(tree.root, tree.release)
    known = patch_set.read_values(tree)
    new_files = patch_set.new_files | {
        path: origin for path, origin in patch_set.backports.items()
        if not tree.has(path)}
    skipped = [path for paths in (patch_set.edits, new_files)
               for path in sorted(paths) if tree.skips(path)]
    changes: list[Change] = []
    misses: list[errors.EditError] = []
    for path in sorted(patch_set.edits.keys() - skipped):
        try:
            changes.append(_change(tree, path, patch_set.edits[path], known))
        except (errors.EditError, errors.Misses) as error:
            misses += [miss.locate(tree.release, path) for miss
                       in error.details.get('misses', [error])]
    errors.raise_misses(misses)
    new = [_new(patch_set, path, new_files[path], known, link)
           for path in sorted(new_files.keys() - skipped)]
    for change in new:
        tree.locate(change.path)
    new += _commands(tree, patch_set)
    there = [change.path for change in new if tree.has(change.path)]
    if there:
        raise errors.NewFileExists(release=tree.release,
                                   paths=errors.listed(there))
    return Plan(tree.release, tuple(changes + new), tuple(skipped))


def _change(tree: Tree, path: str, edits: tuple[Edit, ...],
            known: dict[str, str]) -> Change:
    file = tree.file(path)
    bound = tuple(edit.bind(known) for edit in edits)
    after = sequence.apply_all(file.source, bound, path.endswith('.py'))
    mode = stat.S_IMODE(tree.locate(path).stat().st_mode)
    return Change(path, file.data, file.encode(after), mode, bound,
                  sources=(file.source, after))


def _new(patch_set: PatchSet, path: str, origin: Path,
         known: dict[str, str], link: bool) -> Change:
    data = origin.read_bytes()
    after = patch_set.adapt(data.decode(errors='surrogateescape'),
                            known).encode(errors='surrogateescape')
    # Whatever the umask was with which this project was copied.
    mode = 0o755 if origin.stat().st_mode & 0o100 else 0o644
    return Change(patch_set.adapt(path, known), None, after, mode,
                  link=origin if link and after == data else None)


def _commands(tree: Tree, patch_set: PatchSet) -> Iterator[Change]:
    """What pip makes of entry points, beside the commands of Nova."""
    if tree.commands is not None:
        folder, first = tree.commands
        for name, start in patch_set.commands.items():
            module, _, function = start.partition(':')
            text = _COMMAND.format(module=module, function=function)
            yield Change(f'{folder}/{name}', None, (first + text).encode(),
                         0o755)


def diff(changes: Iterable[tuple[str, bytes | None, bytes | None, int]]
         ) -> str:
    """A diff as git makes it, of (path, before, after, mode).

    None is no file. What is not below the root, as commands of an installed
    Nova, is left out.
    """
    return ''.join(_diff(path, before, after, mode)
                   for path, before, after, mode in changes
                   if before != after and not path.startswith('../'))


def _diff(path: str, before: bytes | None, after: bytes | None,
          mode: int) -> str:
    old = '/dev/null' if before is None else f'a/{path}'
    new = '/dev/null' if after is None else f'b/{path}'
    try:
        # A line ends with "\\n" and nothing else, and keeps its end.
        sides = [list(io.StringIO((data or b'').decode()))
                 for data in (before, after)]
    except UnicodeDecodeError:
        return f'Binary files {old} and {new} differ\n'
    lines = []
    for line in difflib.unified_diff(sides[0], sides[1], old, new):
        lines.append(line)
        if not line.endswith('\n'):
            lines.append('\n\\ No newline at end of file\n')
    about = ''
    if before is None:
        # Without it git takes no new file, and patch no empty one.
        about = f'new file mode 100{"755" if mode & 0o100 else "644"}\n'
        if not after:
            about += f'index {"0" * 7}..{_EMPTY_BLOB}\n'
    elif after is None:
        about = 'deleted file mode 100644\n'
    return f'diff --git a/{path} b/{path}\n' + about + ''.join(lines)
