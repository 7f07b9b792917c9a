# SPDX-License-Identifier: Apache-2.0
"""What the commands do: apply, diff, undo, and telling the state."""

from dataclasses import dataclass
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
    UPGRADED = ('not applied any more: Nova was replaced since; run undo, '
                'which leaves the new release alone')
    HALF = 'half-applied: a run was interrupted; run undo'
    RECORDLESS = 'already applied (no record; undo with your VCS)'
    OTHER_RECORDLESS = ('another version is applied, and there is no record '
                        'of the original Nova: get that again')
    HALF_RECORDLESS = 'half-applied, and there is no record of it'


#: What an apply can not start from.
_REFUSED = frozenset((State.UPGRADED, State.HALF, State.OTHER_RECORDLESS,
                      State.HALF_RECORDLESS))
#: What is neither applied nor waits for it.
BROKEN = _REFUSED - {State.OTHER_RECORDLESS} | {State.CHANGED, State.REVERTED}


@dataclass(frozen=True)
class Status:
    state: State
    manifest: Manifest | None = None
    changed: tuple[str, ...] = ()
    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()

    def paths(self) -> dict[str, tuple[str, ...]]:
        """The paths that tell the state, by what they tell."""
        patched = self.state is State.UPGRADED and (self.manifest.release,)
        return {title: paths for title, paths in (
            ('the release that was patched', patched),
            ('changed since (run undo; --force gives that up)', self.changed),
            ('there', self.present), ('not there', self.absent)) if paths}

    def check_applicable(self, tree: Tree) -> None:
        """Make sure that a tree is ready for an apply.

        :raises: NotReady
        """
        if self.state in _REFUSED or self.changed:
            raise errors.NotReady(
                tree=tree.root, release=tree.release, state='; '.join(
                    (self.state.value, *(
                        f'{title}: {errors.listed(paths)}'
                        for title, paths in self.paths().items()))))


def status(tree: Tree, patch_set: PatchSet) -> Status:
    """Find out how a tree and a patch set stand to each other."""
    manifest = Record(tree.root).load()
    if manifest is None:
        return _recognise(tree, patch_set)
    if transaction.is_replaced(tree.root, manifest, tree.known_release):
        return Status(State.UPGRADED, manifest)
    by_hand = tuple(transaction.changed_by_hand(tree.root, manifest))
    changed = tuple(entry.path for entry in manifest.files
                    if not transaction.is_after(tree.root, entry))
    if manifest.state != record.APPLIED:
        return Status(State.HALF, manifest, by_hand)
    if len(changed) == len(manifest.files) and not by_hand:
        return Status(State.REVERTED, manifest)
    # The second is what a working tree is known by.
    if manifest.patch_set not in (patch_set.digest(),
                                  patch_set.digest_of_edits()):
        return Status(State.OTHER, manifest, changed)
    return Status(State.CHANGED if changed else State.APPLIED, manifest,
                  changed)


def _recognise(tree: Tree, patch_set: PatchSet) -> Status:
    """Without a record, ask the marker; else see which new files are there.

    A tree that was made of our commits has no marker.
    """
    found = marker.read(_read(tree.root, marker.PATH) or b'')
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
        return Status(State.HALF_RECORDLESS, present=tuple(present),
                      absent=tuple(absent))
    if found and found.patch_set != patch_set.digest():
        return Status(State.OTHER_RECORDLESS)
    return Status(State.RECORDLESS)


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
        found.check_applicable(tree)
        if found.state in (State.APPLIED, State.RECORDLESS):
            return None
        replaces = found.state is State.OTHER
        plan = marker.mark(prepare(
            _Before(tree, found.manifest) if replaces else tree, patch_set),
            patch_set.digest())
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


def undo(tree: Tree, force: bool = False) -> Manifest:
    """Put everything back; see :func:`transaction.undo`."""
    with tree.alone():
        return transaction.undo(tree.root, force, tree.known_release)


def diff(tree: Tree, patch_set: PatchSet) -> str:
    """What an apply would change in the tree, or did change."""
    manifest = Record(tree.root).load()
    if manifest is None:
        plan = marker.mark(plans.make(tree, patch_set), patch_set.digest())
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
