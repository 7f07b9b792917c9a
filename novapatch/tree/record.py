# SPDX-License-Identifier: Apache-2.0
"""The record of an apply: ``.novapatch/`` in the tree.

It holds ``manifest.json``, the original bytes of the changed files under
``original/``, and, only while an apply runs, the new ones under ``new/``.
The manifest is written before the first change of the tree and removed
after the last, so a tree without one is as it was.
"""

from dataclasses import asdict
from dataclasses import dataclass
import json
import os
from pathlib import Path
import shutil
from typing import Self

from novapatch import errors
from novapatch.tree.change import Change
from novapatch.tree.change import Plan
from novapatch.tree.change import sha256

NAME = '.novapatch'
_FORMAT = 1

APPLYING = 'applying'
APPLIED = 'applied'
UNDOING = 'undoing'


@dataclass(frozen=True)
class Entry:
    """A file: its SHA-256 before (None: there was none) and after."""

    path: str
    before: str | None
    after: str
    link: str | None = None

    @classmethod
    def of(cls, change: Change) -> Self:
        return cls(change.path,
                   None if change.before is None else sha256(change.before),
                   sha256(change.after),
                   None if change.link is None else str(change.link))


@dataclass
class Manifest:
    state: str
    patch_set: str
    release: str
    files: list[Entry]
    directories: list[str]
    skipped: list[str]


def new_manifest(root: Path, plan: Plan, patch_set: str) -> Manifest:
    """The manifest of a plan, with the directories it has to create."""
    directories = {
        parent.as_posix() for change in plan.changes
        for parent in Path(change.path).parents
        if not (root / parent).exists()}
    return Manifest(APPLYING, patch_set, plan.release,
                    list(map(Entry.of, plan.changes)), sorted(directories),
                    list(plan.skipped))


def sync_directory(path: Path) -> None:
    """Make renames in a directory durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_durably(path: Path, data: bytes) -> None:
    """Write a file that is complete once it has its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + '.part')
    with part.open('wb') as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.rename(part, path)


class Record:
    """The directory ``.novapatch`` of a tree."""

    def __init__(self, root: Path) -> None:
        self.directory = root / NAME
        self._manifest = self.directory / 'manifest.json'

    def load(self) -> Manifest | None:
        """The manifest, or None if nothing is applied.

        :raises: BadState
        """
        if not self._manifest.exists():
            return None
        try:
            data = json.loads(self._manifest.read_text())
            if data.pop('format') != _FORMAT:
                raise ValueError('it was written by another version')
            data['files'] = [Entry(**item) for item in data['files']]
            return Manifest(**data)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise errors.BadState(path=self._manifest,
                                  reason=error) from error

    def save(self, manifest: Manifest) -> None:
        # What is here is nothing to commit.
        write_durably(self.directory / '.gitignore', b'*\n')
        data = {'format': _FORMAT, **asdict(manifest)}
        write_durably(self._manifest,
                      json.dumps(data, indent=1).encode() + b'\n')
        sync_directory(self.directory)

    def original(self, path: str) -> Path:
        return self.directory / 'original' / path

    def staged(self, path: str) -> Path:
        # A command of an installed Nova is not below its root.
        return self.directory / 'new' / path.replace('..', 'up')

    def remove_staged(self) -> None:
        shutil.rmtree(self.directory / 'new', ignore_errors=True)

    def remove(self) -> None:
        """Forget everything; the manifest goes first, for good."""
        self._manifest.unlink(missing_ok=True)
        if self.directory.exists():
            sync_directory(self.directory)
            shutil.rmtree(self.directory)
