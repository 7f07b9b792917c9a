# SPDX-License-Identifier: Apache-2.0
"""What can go wrong: one class per failure, its message on the class."""

from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any


def listed(things: Iterable[object], at_most: int = 8) -> str:
    """Join things for a message, without flooding the terminal."""
    names = [str(thing) for thing in things]
    if len(names) > at_most:
        names[at_most:] = [f'and {len(names) - at_most} more']
    return ', '.join(names)


class PatchError(Exception):
    """Base of all errors; a subclass has a template in ``message``."""

    message = 'Something unexpected happened.'

    def __init__(self, **details: Any) -> None:
        self.details = details
        super().__init__(self.message.format(**details))


# -- an edit that does not fit the file -----------------------------------

class EditError(PatchError):
    """Base of the errors of one edit in one file.

    Edits know neither the release nor the file; whoever applies them adds
    both with :meth:`locate`.
    """

    place = ''
    edit: object = 'reading'

    def locate(self, release: str, path: str) -> 'EditError':
        """Say where this happened; returns the error itself."""
        self.place = f'Nova {release}: {path}: {self.edit}: '
        return self

    def __str__(self) -> str:
        return self.place + super().__str__()


class Misses(PatchError):
    message = '{count} places were not found:\n{places}'


def raise_misses(misses: Sequence[EditError]) -> None:
    """Raise what has gone wrong in some edits: all of it, if anything.

    :raises: Misses, EditError
    """
    if len(misses) == 1:
        raise misses[0]
    if misses:
        raise Misses(count=len(misses), misses=misses,
                     places='\n'.join(map(str, misses)))


class NoMatch(EditError):
    message = 'no {kind} matches {sought!r}{hint}'


class ManyMatches(EditError):
    message = '{count} places match {sought!r} (lines {lines}), not one'


class BadText(EditError):
    message = 'the text {text!r} can not be read: {reason}'


class WrongKind(EditError):
    message = '{sought!r} (line {line}) is no {wanted}'


class NoRoom(EditError):
    message = 'nothing can be inserted at line {line}: {reason}'


class AlreadyThere(EditError):
    message = '{what} is there already (line {line})'


class ResultBroken(EditError):
    message = 'the result would not compile: line {line}: {reason}'


class NothingChanged(EditError):
    message = 'it changes nothing'


class UnknownValue(EditError):
    message = ('{{{{{name}}}}} is not among the VALUES of edits/__init__.py '
               '({known})')


class NoVersion(EditError):
    message = '{value!r} is no version that could be raised by one'


class UnreadableFile(EditError):
    message = 'the file can not be read: {reason}'


# -- the patch set --------------------------------------------------------

class PatchSetError(PatchError):
    message = '{path}: {reason}'


class NewFileExists(PatchError):
    message = ('Nova {release}: {paths}: the patch set adds this, but the '
               'tree has it already')


# -- the tree -------------------------------------------------------------

class NotNova(PatchError):
    message = '{tree} is no tree of Nova: there is no directory {missing}'


class ReleaseUnknown(PatchError):
    message = ('the release of {tree} is unknown (no PKG-INFO, no '
               'nova-*.dist-info, {git}); name it with --release')


class WrongRelease(PatchError):
    message = ('{tree} is Nova {found}; this patch set supports '
               '{supported} (--any-release tries all the same)')


class SymlinkInTree(PatchError):
    message = ('{path} is a symbolic link; writing through it could change '
               'something outside of the tree')


class NotWritable(PatchError):
    message = 'no permission to write {paths}'


class OutsideTree(PatchError):
    message = '{path} leads out of the tree'


# -- the checks of the result ---------------------------------------------

class CheckFailed(PatchError):
    message = ('Nova {release}: the patched tree would be wrong, nothing '
               'was written:\n{findings}')


class PyflakesMissing(PatchError):
    message = ('pyflakes is needed to check the result; install it for '
               '{python}')


# -- the state of the tree ------------------------------------------------

class NotApplied(PatchError):
    message = '{tree}: there is no record of a patch set to undo'


class NotReady(PatchError):
    message = '{tree} is Nova {release}: {state}'


class MixedReleases(PatchError):
    message = ('{tree} is Nova {found}, and these files are still those of '
               'the patched {release}: {paths}; install Nova again first; or, '
               'if it still is {release}, say so with --release {release}')


class Busy(PatchError):
    message = '{tree}: another novapatch is at work here'


class ChangedByHand(PatchError):
    message = ('{tree}: changed since the patch set was applied: {paths} '
               '(--force gives those changes up)')


class BadState(PatchError):
    message = '{path} can not be read: {reason}'


class WriteFailed(PatchError):
    message = '{path}: {reason}; {outcome}'


class NotReplaced(PatchError):
    message = ('{reason}; the older version of the patch set is off already: '
               'apply again')


# -- the working tree -----------------------------------------------------

class DirectoryExists(PatchError):
    message = '{directory} exists{but}; remove it or name another directory'


class NoSdist(PatchError):
    message = 'the sdist of Nova {release} is not to be had: {reason}'


# -- commits ---------------------------------------------------------------

class NotPristine(PatchError):
    message = '{tree} is not as released: {state}'


class GitFailed(PatchError):
    message = 'git {command}: {reason}'
