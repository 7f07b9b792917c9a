# SPDX-License-Identifier: Apache-2.0
"""Which commits a patch set is cut into: what ``series.toml`` says.

A commit has a ``name``, a ``message``, and ``files``: patterns as of a shell,
whose ``*`` also matches a slash. ``nova/objects/service.py`` claims a new
file, or all edits of that file; ``nova/virt/driver.py::Driver.spawn`` claims
what starts so among the edits of one that commits share. What belongs to none,
or to two, is an error.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import fields
from dataclasses import replace
import fnmatch
import hashlib
import re
import tomllib
from typing import Any
from typing import TypeAlias

from novapatch import errors
from novapatch.operations.base import Edit
from novapatch.plan.patchset import PatchSet

FILE = 'series.toml'
#: Columns of a summary line and of the lines below it, as Nova wants them.
SUMMARY, BODY = 49, 72

#: A new file, or an edit of a file.
_Part: TypeAlias = tuple[str, Edit | None]

_TRAILER = re.compile(r'[A-Z][A-Za-z-]+: \S')


@dataclass(frozen=True)
class Commit:
    name: str
    message: str
    files: tuple[str, ...]

    @property
    def summary(self) -> str:
        return self.message.split('\n')[0]

    @property
    def body(self) -> str:
        return self.message.partition('\n\n')[2].strip()


@dataclass(frozen=True)
class Series:
    """``date`` is in seconds since 1970."""

    branch: str
    author: str
    date: int
    commits: tuple[Commit, ...]


def _bad(reason: str) -> errors.PatchSetError:
    return errors.PatchSetError(path=FILE, reason=reason)


def load(patch_set: PatchSet) -> Series:
    """Read the definition of the commits of a patch set.

    :raises: PatchSetError
    """
    try:
        text = (patch_set.root / FILE).read_text()
        found = tomllib.loads(text)
        commits = tuple(_commit(each, found['branch'])
                        for each in found['commit'])
        series = Series(str(found['branch']), str(found['author']),
                        int(found['date'].timestamp()), commits)
    except KeyError as error:
        raise _bad(f'there is no {error}') from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise _bad(str(error)) from error
    names = [commit.name for commit in commits]
    for name in names:
        if names.count(name) > 1:
            raise _bad(f'two commits are called {name}')
    return series


def _commit(table: dict[str, Any], branch: str) -> Commit:
    name = table['name']
    unknown = table.keys() - {field.name for field in fields(Commit)}
    if unknown:
        raise _bad(f'commit {name}: what is {errors.listed(unknown)}?')
    lines = table['message'].strip().split('\n')
    if len(lines) < 3 or lines[1]:
        raise _bad(f'commit {name}: a message is a summary, an empty line, '
                   f'and what and why')
    for number, line in enumerate(lines):
        limit = BODY if number else SUMMARY
        if len(line) > limit:
            raise _bad(f'commit {name}: {line!r} is longer than {limit}')
    # Gerrit knows a change by it, also when it was exported anew.
    change = hashlib.sha1(f'{branch} {name}'.encode()).hexdigest()
    if not _TRAILER.match(lines[-1]):
        lines.append('')
    lines.append(f'Change-Id: I{change}')
    return Commit(name, '\n'.join(lines) + '\n', tuple(table['files']))


def split(series: Series,
          patch_set: PatchSet) -> Iterator[tuple[Commit, PatchSet]]:
    """What each commit adds to those before it, and changes in them.

    A file whose edits several commits share is given with all edits up to the
    commit, in the order of the patch set, so that the last one leaves it as an
    apply does.

    :raises: PatchSetError
    """
    owners = _owners(series, patch_set)
    for number, commit in enumerate(series.commits):
        paths = {path for (path, edit), owner in owners.items()
                 if owner == number}
        yield commit, replace(
            patch_set,
            edits={path: tuple(edit for edit in edits
                               if owners[path, edit] <= number)
                   for path, edits in patch_set.edits.items()
                   if path in paths},
            new_files={path: origin for path, origin
                       in patch_set.new_files.items() if path in paths},
            backports={path: origin for path, origin
                       in patch_set.backports.items() if path in paths})


def _owners(series: Series, patch_set: PatchSet) -> dict[_Part, int]:
    """The number of the commit of each new file and each edit."""
    wanted: list[_Part] = [(path, None) for path in (
        *patch_set.new_files, *patch_set.backports)]
    wanted += [(path, edit) for path, edits in patch_set.edits.items()
               for edit in edits]
    owners: dict[_Part, int] = {}
    for number, commit in enumerate(series.commits):
        for pattern in commit.files:
            matched = [part for part in wanted if _matches(pattern, *part)]
            if not matched:
                raise _bad(f'commit {commit.name}: nothing matches {pattern}')
            for part in matched:
                other = series.commits[owners.setdefault(part, number)]
                if other is not commit:
                    raise _bad(f'{_name(*part)} belongs to two commits, '
                               f'{other.name} and {commit.name}')
    for part in wanted:
        if part not in owners:
            raise _bad(f'{_name(*part)} belongs to no commit')
    return owners


def _matches(pattern: str, path: str, edit: Edit | None) -> bool:
    place, colons, start = pattern.partition('::')
    if not colons:
        return fnmatch.fnmatchcase(path, pattern)
    return (path == place and edit is not None
            and fnmatch.fnmatchcase(edit.subject, start + '*'))


def _name(path: str, edit: Edit | None) -> str:
    return path if edit is None else f'{path}::{edit.subject}'
