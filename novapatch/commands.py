# SPDX-License-Identifier: Apache-2.0
"""What the commands do: apply, diff, undo, and telling the state."""

from dataclasses import dataclass
from dataclasses import replace
from enum import Enum
from pathlib import Path

from novapatch import errors
from novapatch.plan import check
from novapatch.plan.patchset import PatchSet
from novapatch.plan import plans
from novapatch.tree.change import Plan
from novapatch.tree.change import sha256
from novapatch.tree import marker
from novapatch.tree import record
from novapatch.tree.record import Manifest
from novapatch.tree.record import Record
from novapatch.tree import transaction
from novapatch.tree.tree import Tree


class State(Enum):
    PRISTINE = 'not applied'
    APPLIED = 'applied'
    CHANGED = 'applied, and changed since'
    REVERTED = 'not applied any more: its files are the original ones'
    OTHER = 'another version of the patch set is applied'
    UPGRADED = 'not applied any more: Nova was replaced since; run undo'
    HALF = 'half-applied: a run was interrupted; run undo'
    RECORDLESS = 'already applied (no record; undo with your VCS)'
    OTHER_RECORDLESS = 'another version is applied (no record)'
    HALF_RECORDLESS = 'half-applied, and there is no record of it'


#: What is neither applied nor waits for it.
BROKEN = frozenset((State.CHANGED, State.REVERTED, State.UPGRADED, State.HALF,
                    State.HALF_RECORDLESS))


@dataclass(frozen=True)
class Status:
    state: State
    manifest: Manifest | None = None
    by_hand: tuple[str, ...] = ()
    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


def status(tree: Tree, patch_set: PatchSet) -> Status:
    """Find out how a tree and a patch set stand to each other."""
    manifest = Record(tree.root).load()
    if manifest is None:
        return _recognise(tree, patch_set)
    if transaction.is_replaced(tree.root, manifest, tree.known_release):
        return Status(State.UPGRADED, manifest)
    by_hand = tuple(transaction.changed_by_hand(tree.root, manifest))
    reverted = tuple(
        entry.path for entry in manifest.files
        if entry.path not in by_hand
        and not transaction.is_after(tree.root, entry))
    if manifest.state != record.APPLIED:
        return Status(State.HALF, manifest, by_hand)
    if len(reverted) == len(manifest.files):
        return Status(State.REVERTED, manifest)
    # The second is what a working tree is known by.
    if manifest.patch_set not in (patch_set.digest(),
                                  patch_set.digest_of_edits()):
        return Status(State.OTHER, manifest, by_hand + reverted)
    if by_hand or reverted:
        return Status(State.CHANGED, manifest, by_hand + reverted)
    return Status(State.APPLIED, manifest)


def _recognise(tree: Tree, patch_set: PatchSet) -> Status:
    """Without a record, ask the marker; else see which new files are there.

    A tree that was made of our commits has no marker.
    """
    data = _read(tree.root, marker.PATH)
    found = marker.read(data) if data is not None else None
    known = found.files if found else {
        path: sha256(origin.read_bytes())
        for path, origin in patch_set.new_files.items()}
    present: list[str] = []
    absent: list[str] = []
    for path, digest in sorted(known.items()):
        if not tree.skips(path):
            data = _read(tree.root, path)
            same = data is not None and sha256(data) == digest
            (present if same else absent).append(path)
    if not present:
        return Status(State.PRISTINE)
    if absent:
        return Status(State.HALF_RECORDLESS, None, (), tuple(present),
                      tuple(absent))
    if found and found.patch_set != patch_set.digest():
        return Status(State.OTHER_RECORDLESS)
    return Status(State.RECORDLESS)


def check_applicable(tree: Tree, found: Status) -> None:
    """Make sure that a tree is ready for an apply.

    :raises: HalfApplied, HalfAppliedNoRecord, OtherPatchSet, OtherRelease,
        ChangedSince
    """
    if found.state is State.HALF:
        raise errors.HalfApplied(tree=tree.root,
                                 state=found.manifest.state)
    if found.state is State.HALF_RECORDLESS:
        raise errors.HalfAppliedNoRecord(
            tree=tree.root, present=errors.listed(found.present, 3),
            absent=errors.listed(found.absent, 3))
    if found.state is State.OTHER_RECORDLESS:
        raise errors.OtherPatchSet(tree=tree.root)
    if found.state is State.UPGRADED:
        raise errors.OtherRelease(tree=tree.root, found=tree.release,
                                  release=found.manifest.release)
    if found.by_hand:
        raise errors.ChangedSince(tree=tree.root,
                                  paths=errors.listed(found.by_hand))


class _Before(Tree):
    """A patched tree as it was before; from the originals that are kept."""

    def __init__(self, tree: Tree, manifest: Manifest) -> None:
        super().__init__(tree.root, tree.release)
        self._entries = {entry.path: entry for entry in manifest.files}
        self._store = Record(tree.root)

    def has(self, path: str) -> bool:
        entry = self._entries.get(path)
        return super().has(path) if entry is None else (
            entry.before is not None)

    def read(self, path: str) -> bytes:
        if path in self._entries:
            return self._store.original(path).read_bytes()
        return super().read(path)


def prepare(tree: Tree, patch_set: PatchSet,
            link: bool = False) -> Plan:
    """A plan whose result was checked.

    :raises: CheckFailed, and whatever making the plan raises
    """
    plan = plans.make(tree, patch_set, link)
    check.run(plan, tree)
    return plan


def apply(tree: Tree, patch_set: PatchSet) -> Plan | None:
    """Apply a patch set; None if it is applied already.

    Another version of it is replaced, once it is clear that this one fits.

    :raises: PatchError, in which case nothing was written
    """
    patch_set.check_release(tree.root, tree.release)
    with tree.alone():
        found = status(tree, patch_set)
        check_applicable(tree, found)
        if found.state in (State.APPLIED, State.RECORDLESS):
            return None
        replaces = found.state is State.OTHER
        plan = prepare(_Before(tree, found.manifest) if replaces else tree,
                       patch_set)
        plan = _marked(plan, patch_set)
        if replaces:
            transaction.check_writable(
                tree.root, [change.path for change in plan.changes])
            transaction.undo(tree.root)
        try:
            transaction.write(tree.root, plan, patch_set.digest())
        except errors.WriteFailed as error:
            if replaces:
                raise errors.NotReplaced(reason=error) from error
            raise
        return plan


def _marked(plan: Plan, patch_set: PatchSet) -> Plan:
    mark = marker.change(plan, patch_set.digest())
    return replace(plan, changes=(*plan.changes, mark))


def undo(tree: Tree, force: bool = False) -> Manifest:
    """Put everything back; see :func:`transaction.undo`."""
    with tree.alone():
        return transaction.undo(tree.root, force, tree.known_release)


def diff(tree: Tree, patch_set: PatchSet) -> str:
    """What an apply would change in the tree, or did change."""
    manifest = Record(tree.root).load()
    if manifest is None:
        plan = _marked(plans.make(tree, patch_set), patch_set)
        return plans.diff(
            (change.path, change.before, change.after, change.mode)
            for change in plan.changes)
    original = Record(tree.root).original
    return plans.diff(
        (entry.path,
         None if entry.before is None else original(entry.path).read_bytes(),
         _read(tree.root, entry.path), _mode(tree.root / entry.path))
        for entry in manifest.files)


def _mode(place: Path) -> int:
    return place.stat().st_mode if place.exists() else 0o644


def _read(root: Path, path: str) -> bytes | None:
    place = root / path
    return place.read_bytes() if place.is_file() else None
