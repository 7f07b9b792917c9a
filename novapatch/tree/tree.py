# SPDX-License-Identifier: Apache-2.0
"""A tree of Nova: what kind it is, which release, and safe reading."""

from collections.abc import Iterator
import contextlib
import email.parser
import fcntl
from functools import cached_property
import os
from pathlib import Path
import re
import subprocess

from novapatch import errors
from novapatch.text.source import File


class Tree:
    """An unpacked sdist, a git checkout, or a site-packages directory."""

    def __init__(self, root: Path, release: str | None = None) -> None:
        """Look at a tree.

        :param release: taken for granted instead of being found out
        :raises: NotNova
        """
        self.root = root.resolve()
        self._release = release
        self._files: dict[str, File] = {}
        for missing in (self.root, self.root / 'nova'):
            if not missing.is_dir():
                raise errors.NotNova(tree=root, missing=missing)
        self._git_said = 'no git tag'

    @cached_property
    def _metadata(self) -> Path | None:
        """The file with the name and version of the distribution."""
        candidates = [self.root / 'PKG-INFO',
                      *sorted(self.root.glob('nova-*.dist-info/METADATA')),
                      *sorted(self.root.glob('nova-*.egg-info/PKG-INFO'))]
        return next((path for path in candidates if path.is_file()), None)

    @property
    def is_installed(self) -> bool:
        """Whether this is a site-packages directory."""
        return (self._metadata is not None
                and self._metadata.parent != self.root)

    @cached_property
    def release(self) -> str:
        """The release of Nova, such as 34.0.0.

        :raises: ReleaseUnknown
        """
        release = self._release
        if not release and self._metadata:
            text = self._metadata.read_text(errors='replace')
            release = email.parser.HeaderParser().parsestr(text)['Version']
        release = release or self._release_of_git()
        if not release:
            raise errors.ReleaseUnknown(tree=self.root, git=self._git_said)
        return release

    @property
    def known_release(self) -> str | None:
        """The release, or None if it can't be found out."""
        try:
            return self.release
        except errors.ReleaseUnknown:
            return None

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep every other novapatch out of the tree.

        :raises: Busy
        """
        handle = os.open(self.root, os.O_RDONLY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise errors.Busy(tree=self.root) from error
            yield
        finally:
            os.close(handle)

    def _release_of_git(self) -> str | None:
        # Without this, git would find a repository around the tree.
        if not (self.root / '.git').exists():
            return None
        try:
            result = subprocess.run(
                ['git', '-C', str(self.root), 'describe', '--tags'],
                capture_output=True, text=True, check=True)
        except OSError:
            return None
        except subprocess.CalledProcessError as error:
            # It may be about the owner of the checkout.
            self._git_said = 'git says: ' + ' '.join(error.stderr.split())
            return None
        # A checkout some commits later counts as the release it is after:
        # whether the edits still fit, their places tell.
        return re.sub(r'-\d+-g[0-9a-f]+$', '', result.stdout.strip())

    def has(self, path: str) -> bool:
        return os.path.lexists(self.root / path)

    def skips(self, path: str) -> bool:
        """Whether a path has no place in this tree.

        What is installed is the package alone, perhaps without its tests.
        """
        if self.is_installed and not path.startswith('nova/'):
            return True
        return path.startswith('nova/tests/') and not self.has('nova/tests')

    @property
    def commands(self) -> tuple[str, str] | None:
        """Where the commands of an installed Nova are, from its root, and the
        first line that starts its interpreter; None if that is not known.
        """
        folder = '../../../bin'
        try:
            with (self.root / folder / 'nova-compute').open('rb') as command:
                first = command.readline().decode(errors='replace')
        except OSError:
            return None
        # Where the interpreter's path is too long, a shell starts it.
        return (folder, first) if self.is_installed and re.match(
            r'#!\S*python[\d.]*\s', first) else None

    def locate(self, path: str) -> Path:
        """The place of a path, that may not exist yet.

        :raises: OutsideTree, SymlinkInTree
        """
        place = self.root
        for part in Path(path).parts:
            if part in ('..', '/'):
                raise errors.OutsideTree(path=path)
            place = place / part
            if place.is_symlink():
                raise errors.SymlinkInTree(path=place)
        return place

    def read(self, path: str) -> bytes:
        return (self.root / path).read_bytes()

    def file(self, path: str) -> File:
        """A file, read once: what is parsed of it stays.

        :raises: UnreadableFile, SymlinkInTree, OutsideTree
        """
        if path not in self._files:
            if not self.locate(path).is_file():
                raise errors.UnreadableFile(
                    reason='the tree does not have it')
            self._files[path] = File(self.read(path))
        return self._files[path]
