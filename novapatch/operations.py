# SPDX-License-Identifier: Apache-2.0
"""What the commands do: apply, diff, undo, and telling the state."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from novapatch import check
from novapatch import errors
from novapatch.patchset import PatchSet
from novapatch import plan as plans
from novapatch import record
from novapatch.record import Manifest
from novapatch.record import Record
from novapatch import transaction
from novapatch.tree import Tree


class State(Enum):
    PRISTINE = 'not applied'
    APPLIED = 'applied'
    OTHER = 'another version of the patch set is applied'
    HALF = 'half-applied: a run was interrupted; run undo'
    RECORDLESS = 'already applied (no record; undo with your VCS)'
    HALF_RECORDLESS = 'half-applied, and there is no record of it'


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
    by_hand = tuple(transaction.changed_by_hand(tree.root, manifest))
    reverted = tuple(
        entry.path for entry in manifest.files
        if entry.path not in by_hand
        and not transaction.is_after(tree.root, entry))
    if manifest.state != record.APPLIED:
        return Status(State.HALF, manifest, by_hand)
    # The second is what a working tree is known by.
    same = manifest.patch_set in (patch_set.digest(),
                                  patch_set.digest_of_edits())
    return Status(State.APPLIED if same else State.OTHER, manifest,
                  by_hand + reverted)


def _recognise(tree: Tree, patch_set: PatchSet) -> Status:
    """Without a record, ask every edit whether it is there.

    Only edits that can tell take part: a raised version alone does not
    say who raised it.
    """
    present, absent = [], []
    try:
        known = patch_set.read_values(tree, pristine=False)
    except errors.PatchError:
        # Applying will say what is wrong.
        return Status(State.PRISTINE)
    for path, edits in sorted(patch_set.edits.items()):
        if tree.skips(path) or not tree.has(path):
            continue
        source = tree.file(path).source
        bound = plans.bind(tree.release, path, edits, known)
        for edit, template in zip(bound, edits, strict=True):
            if edit.sets_value and edit != template:
                continue
            answer = edit.is_applied(source)
            if answer is not None:
                (present if answer else absent).append(f'{path}: {edit}')
    for path, origin in sorted(patch_set.new_files.items()):
        if not tree.skips(path):
            place = tree.root / path
            same = place.is_file() and (
                place.read_bytes() == origin.read_bytes())
            (present if same else absent).append(path)
    if not present:
        return Status(State.PRISTINE)
    state = State.HALF_RECORDLESS if absent else State.RECORDLESS
    return Status(state, None, (), tuple(present), tuple(absent))


def check_applicable(tree: Tree, found: Status) -> None:
    """Make sure that a tree is ready for an apply.

    :raises: HalfApplied, HalfAppliedNoRecord, OtherPatchSet, ChangedByHand
    """
    if found.state is State.HALF:
        raise errors.HalfApplied(tree=tree.root,
                                 state=found.manifest.state)
    if found.state is State.HALF_RECORDLESS:
        raise errors.HalfAppliedNoRecord(
            tree=tree.root, present=errors.listed(found.present, 3),
            absent=errors.listed(found.absent, 3))
    if found.state is State.OTHER:
        raise errors.OtherPatchSet(tree=tree.root)
    if found.state is State.APPLIED and found.by_hand:
        raise errors.ChangedByHand(tree=tree.root,
                                   paths=errors.listed(found.by_hand))


def prepare(tree: Tree, patch_set: PatchSet,
            link: bool = False) -> plans.Plan:
    """A plan whose result was checked.

    :raises: CheckFailed, and whatever making the plan raises
    """
    plan = plans.make(tree, patch_set, link)
    check.run(plan)
    return plan


def apply(tree: Tree, patch_set: PatchSet,
          link: bool = False) -> plans.Plan | None:
    """Apply a patch set; None if it is applied already.

    :raises: PatchError, in which case nothing was written
    """
    patch_set.check_release(tree.root, tree.release)
    found = status(tree, patch_set)
    check_applicable(tree, found)
    if found.state in (State.APPLIED, State.RECORDLESS):
        return None
    plan = prepare(tree, patch_set, link)
    transaction.write(tree.root, plan, patch_set.digest())
    return plan


def diff(tree: Tree, patch_set: PatchSet) -> str:
    """What an apply would change in the tree, or did change."""
    manifest = Record(tree.root).load()
    if manifest is None:
        plan = plans.make(tree, patch_set)
        return plans.diff([(change.path, change.before, change.after)
                           for change in plan.changes])
    store, changes = Record(tree.root), []
    for entry in manifest.files:
        before = None if entry.before is None else (
            store.original(entry.path).read_bytes())
        changes.append((entry.path, before, _read(tree.root, entry.path)))
    return plans.diff(changes)


def _read(root: Path, path: str) -> bytes | None:
    place = root / path
    return place.read_bytes() if place.is_file() else None
