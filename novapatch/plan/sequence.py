# SPDX-License-Identifier: Apache-2.0
"""Making the edits of one file.

Each edit finds its place in the result of those before it.  To parse a
big file as rarely as possible, edits that can't have anything to do with
each other (they name other functions, and touch other places) share one
syntax tree, and their splices are made together.
"""

from novapatch import errors
from novapatch.operations.base import Edit
from novapatch.text.source import Source
from novapatch.text.source import Splice


def apply_all(source: Source, edits: tuple[Edit, ...],
              is_python: bool) -> Source:
    """The text after all edits.

    :raises: EditError, with the edit that failed as its ``edit``; or, if
        several did, Misses
    """
    try:
        result = _together(source, edits)
        if is_python:
            result.tree
        return result
    except errors.EditError:
        # One by one it becomes clear which edit is to blame, and perhaps
        # none is: an edit may build on one before it.
        return _one_by_one(source, edits, is_python)


def _one_by_one(source: Source, edits: tuple[Edit, ...],
                is_python: bool) -> Source:
    misses = []
    for edit in edits:
        try:
            result = _apply(source, edit)
            if is_python:
                result.tree
            source = result
        except errors.EditError as error:
            error.edit = edit
            misses.append(error)
    if len(misses) > 1:
        raise errors.Misses(misses)
    if misses:
        raise misses[0]
    return source


def _apply(source: Source, edit: Edit) -> Source:
    result = edit.apply(source)
    if result.text == source.text:
        raise errors.NothingChanged()
    return result


def _together(source: Source, edits: tuple[Edit, ...]) -> Source:
    """Like one by one, but with a parse only where edits may meet.

    An edit waits for the next parse if it may meet one before it.
    """
    waiting = list(edits)
    while waiting:
        names: set[str] = set()
        places: list[Splice] = []
        splices: list[Splice] = []
        later = []
        for edit in waiting:
            if _related(names, edit.changes()):
                later.append(edit)
            else:
                result = _apply(source, edit)
                if _meet(places, result.splices):
                    later.append(edit)
                else:
                    splices += result.splices
                places += result.splices
            names |= edit.changes()
        source, waiting = source.splice(*splices), later
    return source


def _related(names: set[str], others: set[str]) -> bool:
    """Whether any name is another, or stands in another."""
    return any(
        not name or not other or name == other
        or name.startswith(other + '.') or other.startswith(name + '.')
        for name in names for other in others)


def _meet(splices: list[Splice], others: tuple[Splice, ...]) -> bool:
    """Whether any places overlap or touch."""
    return any(start <= other_end and other_start <= end
               for start, end, text in splices
               for other_start, other_end, other_text in others)
