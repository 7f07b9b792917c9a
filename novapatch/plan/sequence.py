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
    waiting, one_by_one = list(edits), False
    misses: list[errors.EditError] = []
    while waiting:
        batch = waiting[:1] if one_by_one else waiting
        try:
            result, later = _together(source, batch)
            if is_python:
                result.tree
            source, waiting = result, later + waiting[len(batch):]
        except errors.EditError as error:
            # One by one it becomes clear which edit is to blame, and perhaps
            # none is: an edit may build on one before it.
            if one_by_one:
                error.edit = waiting.pop(0)
                misses.append(error)
            one_by_one = True
    errors.raise_misses(misses)
    return source


def _together(source: Source,
              edits: list[Edit]) -> tuple[Source, list[Edit]]:
    """The text after those edits that can share a parse, and the others.

    An edit waits for the next parse if it may meet one before it.
    """
    names: set[str] = set()
    places: list[Splice] = []
    splices: list[Splice] = []
    later = []
    for edit in edits:
        if _related(names, edit.changes()):
            later.append(edit)
        else:
            result = edit.apply(source)
            if result.text == source.text:
                raise errors.NothingChanged()
            if _meet(places, result.splices):
                later.append(edit)
            else:
                splices += result.splices
            places += result.splices
        names |= edit.changes()
    return source.splice(*splices), later


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
