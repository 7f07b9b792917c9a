# SPDX-License-Identifier: Apache-2.0
"""A patched tree to work in, made or brought up to date by one command.

New files are symbolic links to those of the project, so editing them
takes effect at once.  Test discovery resolves links on both sides of its
comparison, so linked tests are found.
"""

from collections.abc import Iterator
import contextlib
from pathlib import Path
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib

from novapatch import commands
from novapatch import errors
from novapatch.plan.patchset import PatchSet
from novapatch.tree import record
from novapatch.tree.record import Manifest
from novapatch.tree.record import Record
from novapatch.tree import transaction
from novapatch.tree.tree import Tree

#: Marks a directory that was made here, and may be made anew.
_MARKER = '.novapatch-work.json'


def refresh(patch_set: PatchSet, directory: Path,
            sdist: Path | None = None, force: bool = False,
            release: str | None = None) -> str:
    """Make a working tree, or derive it anew where the edits changed.

    Files that are not the patch set's (test results, caches) stay.

    :param release: of the sdist that is downloaded; the newest by default
    :returns: what was done, in one line
    :raises: NotOurs, NoSdist, ChangedByHand, and all that apply raises
    """
    made = not directory.exists()
    if made:
        _unpack(sdist or _download(patch_set, release), directory,
                marked=True)
    elif not (directory / _MARKER).is_file():
        raise errors.DirectoryExists(
            directory=directory, but=' and was not made by "novapatch work"')
    tree = Tree(directory)
    key = patch_set.digest_of_edits()
    found = Record(tree.root).load()
    if found and found.patch_set == key and _is_intact(
            tree, found, patch_set):
        return f'{directory}: up to date'
    if found is not None:
        transaction.undo(tree.root, force)
        tree = Tree(directory)
    plan = commands.prepare(tree, patch_set, link=True)
    transaction.write(tree.root, plan, key)
    return (f'{directory}: {"made" if made else "refreshed"} '
            f'({len(plan.changes)} files)')


@contextlib.contextmanager
def sources(patch_set: PatchSet, place: Path | None,
            release: str | None = None) -> Iterator[Path]:
    """A directory with Nova's sources.

    :param place: it, or an sdist; by default the one that pip downloads
    :param release: of that one; the newest by default
    :raises: NoSdist
    """
    if place is None:
        place = _download(patch_set, release)
    if not place.is_file():
        yield place
        return
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch, 'nova')
        _unpack(place, tree)
        yield tree


def _is_intact(tree: Tree, found: Manifest,
               patch_set: PatchSet) -> bool:
    """Whether all is as it was made, and of this very project."""
    ours = {str(origin) for origin in (patch_set.new_files
                                       | patch_set.backports).values()}
    return found.state == record.APPLIED and all(
        transaction.is_after(tree.root, entry)
        and (entry.link is None or entry.link in ours)
        for entry in found.files)


def _download(patch_set: PatchSet, release: str | None) -> Path:
    """Nova's sdist, downloaded once into work/cache/ of the project."""
    release = release or patch_set.releases[-1]
    cache = patch_set.root / 'work' / 'cache'
    sdist = cache / f'nova-{release}.tar.gz'
    if sdist.is_file():
        return sdist
    cache.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, '-m', 'pip', 'download', '--quiet',
               '--no-deps', '--no-binary', 'nova',
               '--dest', str(cache), f'nova=={release}']
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode or not sdist.is_file():
        lines = result.stderr.strip().split('\n')
        raise errors.NoSdist(release=release, reason=lines[-1])
    return sdist


def _unpack(sdist: Path, directory: Path, marked: bool = False) -> None:
    """Unpack an sdist; the directory appears only when it is complete."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
        try:
            with tarfile.open(sdist) as archive:
                # As an argument it is known from Python 3.11.4 on only.
                archive.extraction_filter = getattr(
                    tarfile, 'data_filter', lambda member, _path: member)
                archive.extractall(scratch)
        except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
            raise errors.NoSdist(release=sdist.name, reason=(
                f'{error}; if it is damaged, remove {sdist}')) from error
        tops = list(Path(scratch).iterdir())
        if len(tops) != 1:
            raise errors.NoSdist(release=sdist.name,
                                 reason='it is no sdist')
        if marked:
            (tops[0] / _MARKER).touch()
        shutil.move(tops[0], directory)
