# SPDX-License-Identifier: Apache-2.0
"""Writing a plan into a tree, wholly or not at all, and undoing it."""

import contextlib
import os
from pathlib import Path
import shutil
import stat

from novapatch import errors
from novapatch.tree.change import Change
from novapatch.tree.change import Plan
from novapatch.tree.change import sha256
from novapatch.tree import record
from novapatch.tree.record import Entry
from novapatch.tree.record import Manifest
from novapatch.tree.record import Record


def check_writable(root: Path, paths: list[str]) -> None:
    """Make sure, before the first write, that all can be written.

    Replacing a file needs its directory to be writable; that the file
    itself must be, too, respects whoever made it read-only.

    :raises: NotWritable
    """
    needed = {root}
    refused = []
    for path in paths:
        place = root / path
        needed.add(next(each for each in place.parents if each.exists()))
        if place.exists() and not place.is_symlink() and not os.access(
                place, os.W_OK):
            refused.append(path)
    refused += [str(each) for each in sorted(needed)
                if not os.access(each, os.W_OK | os.X_OK)]
    if refused:
        raise errors.NotWritable(paths=errors.listed(refused))


def write(root: Path, plan: Plan, patch_set: str) -> Manifest:
    """Write all changes of a plan.

    A failure is undone at once.  If the process dies in between, the
    manifest says so, and :func:`undo` puts everything back.

    :raises: NotWritable, WriteFailed
    """
    check_writable(root, [change.path for change in plan.changes])
    store = Record(root)
    manifest = record.new_manifest(root, plan, patch_set)
    try:
        # What an earlier run left behind without a manifest is nothing.
        store.remove()
        for change in plan.changes:
            _stage(root, store, change)
        store.save(manifest)
        for name in sorted(manifest.directories):
            (root / name).mkdir(exist_ok=True)
            # Whoever reads what is beside it is to read it, too.
            _own_as((root / name).parent, root / name)
        for change in plan.changes:
            os.replace(store.staged(change.path), root / change.path)
        _sync(root, manifest)
        manifest.state = record.APPLIED
        store.save(manifest)
    except OSError as error:
        raise errors.WriteFailed(
            path=error.filename or root, reason=error.strerror or error,
            outcome=_roll_back(root, store)) from error
    except KeyboardInterrupt:
        _roll_back(root, store)
        raise
    store.remove_staged()
    return manifest


def _stage(root: Path, store: Record, change: Change) -> None:
    """Keep the original and prepare the new file beside it."""
    staged = store.staged(change.path)
    if change.link is not None:
        staged.parent.mkdir(parents=True, exist_ok=True)
        staged.symlink_to(change.link)
        return
    record.write_durably(staged, change.after)
    os.chmod(staged, change.mode)
    if change.before is not None:
        record.write_durably(store.original(change.path), change.before)
        _own_as(root / change.path, staged)


def _own_as(model: Path, place: Path) -> None:
    """Give a file the mode and, as root, the owner of another."""
    status = model.stat()
    mine = place.stat()
    if (status.st_uid, status.st_gid) != (mine.st_uid, mine.st_gid):
        # Only root may; the content is what matters.
        with contextlib.suppress(PermissionError):
            os.chown(place, status.st_uid, status.st_gid)
    os.chmod(place, stat.S_IMODE(status.st_mode))


def _sync(root: Path, manifest: Manifest) -> None:
    for directory in {(root / entry.path).parent for entry in manifest.files}:
        if directory.is_dir():
            record.sync_directory(directory)


def _roll_back(root: Path, store: Record) -> str:
    try:
        if store.load() is None:
            shutil.rmtree(store.directory, ignore_errors=True)
        else:
            undo(root)
    except (OSError, errors.PatchError) as error:
        return f'and could not be put back ({error}): run undo'
    return 'everything was put back'


# -- looking ---------------------------------------------------------------

def current(root: Path, entry: Entry) -> str | None:
    """What a file is now: its SHA-256, its link, or None if it is gone."""
    place = root / entry.path
    if place.is_symlink():
        return os.readlink(place)
    if not place.is_file():
        return None
    return sha256(place.read_bytes())


def is_after(root: Path, entry: Entry) -> bool:
    """Whether a file is as the apply left it."""
    return current(root, entry) == (entry.link or entry.after)


def changed_by_hand(root: Path, manifest: Manifest) -> list[str]:
    """The files that are neither as before nor as after the apply."""
    return [entry.path for entry in manifest.files
            if not is_after(root, entry)
            and current(root, entry) != entry.before]


def is_replaced(root: Path, manifest: Manifest,
                release: str | None) -> bool:
    """Whether the tree has become another release since the apply.

    One that only has another name, such as a tag of its own, has all files as
    the apply left them.

    :param release: of the tree, if that is known
    """
    return release not in (None, manifest.release) and not all(
        is_after(root, entry) for entry in manifest.files
        if entry.before is not None)


# -- undoing ----------------------------------------------------------------

def undo(root: Path, force: bool = False,
         release: str | None = None) -> Manifest:
    """Put every file back as it was, byte for byte.

    It may be repeated until it succeeds, after any interruption. If the tree
    has become another release since, that is not taken back: only what the
    patch set has added goes.

    :param force: give up what was changed by hand since
    :param release: of the tree, if that is known
    :raises: NotApplied, ChangedByHand, MixedReleases, NotWritable, BadState,
        WriteFailed
    """
    store = Record(root)
    manifest = store.load()
    if manifest is None:
        raise errors.NotApplied(tree=root)
    if is_replaced(root, manifest, release):
        manifest.files = _added(root, manifest, release)
    by_hand = changed_by_hand(root, manifest)
    if by_hand and not force:
        raise errors.ChangedByHand(tree=root, paths=errors.listed(by_hand))
    check_writable(root, [entry.path for entry in manifest.files])
    for entry in manifest.files:
        if entry.before is not None and not store.original(
                entry.path).is_file():
            raise errors.BadState(path=store.original(entry.path),
                                  reason='it is gone')
    manifest.state = record.UNDOING
    try:
        store.save(manifest)
        for entry in manifest.files:
            if entry.before is None:
                _remove(root / entry.path)
            elif current(root, entry) != entry.before:
                _restore(root, store, entry)
        _sync(root, manifest)
        _remove_directories(root, manifest)
        store.remove()
    except OSError as error:
        raise errors.WriteFailed(
            path=error.filename or root, reason=error.strerror or error,
            outcome='run undo again') from error
    return manifest


def _added(root: Path, manifest: Manifest, release: str) -> list[Entry]:
    """What was added to a release that is gone."""
    mixed = [entry.path for entry in manifest.files
             if entry.before is not None and is_after(root, entry)]
    if mixed:
        raise errors.MixedReleases(
            tree=root, found=release, release=manifest.release,
            paths=errors.listed(mixed))
    return [entry for entry in manifest.files
            if entry.before is None and is_after(root, entry)]


def _restore(root: Path, store: Record, entry: Entry) -> None:
    place, staged = root / entry.path, store.staged(entry.path)
    record.write_durably(staged, store.original(entry.path).read_bytes())
    if place.exists():
        _own_as(place, staged)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
    os.replace(staged, place)


def _remove(place: Path) -> None:
    place.unlink(missing_ok=True)
    # Or else the directories we made would never be empty. One that may not be
    # removed is not used without its source.
    for cached in place.parent.glob(f'__pycache__/{place.stem}.*.pyc'):
        with contextlib.suppress(OSError):
            cached.unlink()


def _remove_directories(root: Path, manifest: Manifest) -> None:
    for name in sorted(manifest.directories, reverse=True):
        for directory in (root / name / '__pycache__', root / name):
            # Or else somebody put something there; it is not ours.
            with contextlib.suppress(OSError):
                directory.rmdir()
