# SPDX-License-Identifier: Apache-2.0
"""The lab: a folder, an image, and the guests that were booted from it."""

from collections import abc
import contextlib
import fcntl
import os
import pathlib
import shutil
import tempfile
import typing as ty

from lab import guest as guests
from lab import image as images
from lab import kernel as kernels


class Folder:
    """A folder for one run. If it can't remove it, the next one does.

    :ivar path: where it is; named ``run-...``
    """

    def __init__(self, parent: pathlib.Path) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        with _only_one(parent):
            _remove_old_runs(parent)
            self.path = pathlib.Path(
                tempfile.mkdtemp(prefix='run-', dir=parent))
            # The kernel unlocks it when this process ends.
            self._lock = os.open(self.path, os.O_RDONLY)
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def __enter__(self) -> 'Folder':
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self, keep: bool = False) -> None:
        """Remove it, or leave it to be looked at until the next run."""
        if not keep:
            shutil.rmtree(self.path)
        os.close(self._lock)


class Lab:
    """Boots guests, and sees that none is left.

    :ivar folder: where this run has its files; named ``run-...``
    """

    def __init__(self, folder: pathlib.Path, **image: ty.Any) -> None:
        """Build an image.

        :param folder: where the kernel is kept, and runs have folders
        :param image: further arguments of ``lab.image.build``
        :raises lab.image.Missing: if a program is not installed
        :raises lab.kernel.KernelError: if there is no kernel to be had
        """
        self._folder = Folder(folder)
        self.folder = self._folder.path
        self._guests: list[guests.Guest] = []
        self._cables: list[guests.Cable] = []
        self._shared: list[guests.Guest] = []
        try:
            with _only_one(folder):
                kernel = kernels.get(folder)
            self.image = images.build(self.folder, kernel, **image)
        except BaseException:
            self.close()
            raise

    def boot(self, number: int = 1, **options: ty.Any) -> list[guests.Guest]:
        """Boot one guest, or two that are linked.

        :param options: as for ``lab.guest.Guest``
        """
        return _wait(self.power_on(number, **options))

    def power_on(
        self, number: int = 1, **options: ty.Any,
    ) -> list[guests.Guest]:
        """Start one guest, or two that are linked, and don't wait.

        Say ``wait_until_up`` before anything else is asked of them.
        """
        described = self._describe(number, **options)
        for guest in described:
            guest.power_on()
        return described

    def shared(self, number: int) -> list[guests.Guest]:
        """Return one guest or two that are there for all, running.

        Two are linked. Whoever uses them puts up with what others did.
        """
        if not self._shared:
            # The first has a cable for the second, which may never come.
            self._shared = self._describe(2)
        wanted = self._shared[:number]
        for guest in wanted:
            if not guest.is_running:
                guest.power_on()
        return _wait(wanted)

    def _describe(self, number: int, **options: ty.Any) -> list[guests.Guest]:
        ends: abc.Sequence[ty.Any] = (None,)
        if number == 2:
            self._cables.append(guests.Cable())
            ends = self._cables[-1].ends
        described = []
        for end in ends:
            name = next(n for n in images.NAMES
                        if not (self.folder / n).exists())
            described.append(guests.Guest(
                name, self.image, self.folder / name, network=end, **options))
        self._guests += described
        return described

    @property
    def guests(self) -> abc.Sequence[guests.Guest]:
        """All guests, those that have ended included."""
        return tuple(self._guests)

    def close(self, keep_logs: bool = False) -> None:
        """End all guests, and remove all files but, if asked, logs."""
        for guest in self._guests:
            guest.close()
        for cable in self._cables:
            cable.close()
        if keep_logs:
            for path in self.folder.iterdir():
                if path.is_file():
                    path.unlink()
        self._folder.close(keep_logs)


def _wait(booting: list[guests.Guest]) -> list[guests.Guest]:
    for guest in booting:
        if not guest.is_up:
            guest.wait_until_up()
    return booting


@contextlib.contextmanager
def _only_one(folder: pathlib.Path) -> abc.Iterator[None]:
    """Let one process at a time do what begins a run."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _remove_old_runs(folder: pathlib.Path) -> None:
    """Remove what earlier runs have left, and nothing of one that goes on."""
    for run in folder.glob('run-*'):
        lock = os.open(run, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        finally:
            os.close(lock)
        shutil.rmtree(run)
