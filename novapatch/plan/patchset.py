# SPDX-License-Identifier: Apache-2.0
"""Loading a patch set from the root of its project."""

from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field
import hashlib
from pathlib import Path
import re
import runpy
import traceback
from typing import Any

from novapatch import errors
from novapatch.operations.base import Edit
from novapatch.operations.values import NextVersion
from novapatch.tree.tree import Tree

# Where new files come from.  The rest of doc/ is the project's own.
_NEW = ('nova', 'api-ref', 'doc/source', 'doc/api_samples',
        'doc/notification_samples', 'releasenotes')

# Modules of newer releases, as far as the new files need them.  A tree that
# has such a file keeps its own.
_BACKPORTS = 'backports'


@dataclass(frozen=True)
class PatchSet:
    """Edits and new files, by the path they have in the tree.

    ``backports`` are new files for trees that have no such file; ``commands``
    are names of programs, with the module and function that each starts.
    """

    root: Path
    edits: dict[str, tuple[Edit, ...]]
    new_files: dict[str, Path]
    backports: dict[str, Path] = field(default_factory=dict)
    commands: dict[str, str] = field(default_factory=dict)
    releases: tuple[str, ...] = ()
    values: dict[str, NextVersion] = field(default_factory=dict)

    def check_release(self, tree: Path, release: str) -> None:
        """Make sure that the release is of a series that is supported.

        It is if one of its releases was tried: whether the edits still fit
        another, their places tell.

        :raises: WrongRelease
        """
        if self.releases and _series(release) not in map(
                _series, self.releases):
            raise errors.WrongRelease(
                tree=tree, found=release, supported=', '.join(
                    f'{_series(known)}.x' for known in self.releases))

    def digest(self) -> str:
        """What identifies this very version of the patch set."""
        total = hashlib.sha256()
        for path in [*_modules(self.root), *self.new_files.values(),
                     *self.backports.values()]:
            name = path.relative_to(self.root).as_posix()
            one = hashlib.sha256(path.read_bytes()).hexdigest()
            total.update(f'{name}\0{one}\0'.encode())
        return total.hexdigest()

    def digest_of_edits(self) -> str:
        """What identifies the edits and the names of the new files."""
        total = hashlib.sha256()
        for path in _modules(self.root):
            total.update(path.read_bytes() + b'\0')
        total.update('\0'.join([*self.new_files, *self.backports]).encode())
        return total.hexdigest()

    def read_values(self, tree: Tree) -> dict[str, str]:
        """The values that edits of a pristine tree may use as ``{{name}}``.

        :raises: PatchSetError
        """
        found = {}
        for name, wanted in self.values.items():
            try:
                found[name] = wanted.read(tree.file(wanted.path).source)
            except errors.EditError as error:
                raise errors.PatchSetError(
                    path='edits/__init__.py', reason=(
                        f'{name}: {wanted.path}: {error}')) from error
        return found

    def adapt(self, text: str, known: dict[str, str]) -> str:
        """A text of a new file, or its path, with the versions of a tree.

        :param known: what :meth:`read_values` has found there
        """
        words = {value.here: known[name]
                 for name, value in self.values.items() if value.here}
        if not words:
            return text
        # All at once: one may become what another is here.
        pattern = '|'.join(map(re.escape, words))
        return re.sub(rf'(?<![\d.])({pattern})(?!\.?\d)',
                      lambda found: words[found[1]], text)


def _series(release: str) -> str:
    """34.0 of 34.0.1, 34.0.0+local.2 and 34.0.0.0rc1."""
    found = re.match(r'\d+\.\d+(?=\.|$)', release)
    return found[0] if found else release


def load(root: Path) -> PatchSet:
    """Load the patch set of a project.

    :raises: PatchSetError
    """
    root = root.resolve()
    if not (root / 'edits').is_dir():
        raise errors.PatchSetError(path=root, reason=(
            'there is no edits/ here; name the project with --patch-set'))
    found = {module.relative_to(root / 'edits').as_posix():
             _run(root, module) for module in _modules(root)}
    about = found.pop('__init__.py', {})
    for name, module in found.items():
        if not isinstance(module.get('EDITS'), (list, tuple)) or not all(
                isinstance(edit, Edit) for edit in module['EDITS']):
            raise errors.PatchSetError(
                path=f'edits/{name}', reason='EDITS must be a list of edits')
    edits = {_target(name): tuple(module['EDITS'])
             for name, module in found.items()}
    known = about.get('VALUES', {})
    if not all(isinstance(value, NextVersion) for value in known.values()):
        raise errors.PatchSetError(path='edits/__init__.py', reason=(
            'VALUES must be made with next_version()'))
    new_files = {path: origin for top in _NEW
                 for path, origin in _files(root, top)}
    for path in sorted(new_files.keys() & edits.keys()):
        raise errors.PatchSetError(path=path, reason=(
            'the patch set both adds and changes this file'))
    return PatchSet(root, edits, new_files,
                    dict(_files(root / _BACKPORTS, '.')),
                    dict(about.get('COMMANDS', {})),
                    tuple(about.get('RELEASES', ())), known)


def _target(name: str) -> str:
    """The path that a module in edits/ changes."""
    bare = name.removesuffix('.py')
    # x.rst.py changes x.rst, but api.py changes api.py.
    return bare if Path(bare).suffix else name


def _is_ours(path: Path) -> bool:
    return path.suffix != '.pyc' and not any(
        part == '__pycache__' or part.startswith('.')
        for part in path.parts)


def _modules(root: Path) -> list[Path]:
    return sorted(path for path in (root / 'edits').rglob('*.py')
                  if _is_ours(path.relative_to(root)))


def _files(root: Path, top: str) -> Iterator[tuple[str, Path]]:
    for path in sorted((root / top).rglob('*')):
        inside = path.relative_to(root)
        if path.is_file() and _is_ours(inside):
            yield inside.as_posix(), path


def _run(root: Path, module: Path) -> dict[str, Any]:
    """Run a module of edits by its path, whatever sys.path is."""
    try:
        return runpy.run_path(str(module))
    except Exception as error:
        # Anything can go wrong in a module, and its line is what helps.
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames
                 if frame.filename == str(module)]
        at = f' (line {lines[-1]})' if lines else ''
        raise errors.PatchSetError(
            path=module.relative_to(root),
            reason=f'{type(error).__name__}: {error}{at}') from error
