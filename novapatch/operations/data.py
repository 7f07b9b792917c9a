# SPDX-License-Identifier: Apache-2.0
"""Edits of YAML, JSON and TOML."""

from dataclasses import dataclass
import json
import re
import tomllib
from typing import Any

from novapatch import errors
from novapatch.operations import base
from novapatch.operations.values import raised
from novapatch.text import blocks
from novapatch.text.source import Source

_KEY = re.compile(r'(?P<quote>[\'"]?)(?P<key>[^\s\'"#][^\'"]*?)(?P=quote)'
                  r'\s*:(?:\s|$)')
_GROUP = '# variables in '


def _above_comments(source: Source, place: int, first: int) -> int:
    """The line of the comment above a key, which belongs to it (from 0)."""
    while place > first and source.lines[place - 1].startswith('#'):
        place -= 1
    return place


@dataclass(frozen=True)
class YamlAddKey(base.Edit):
    """Add a key at the top level, in its sorted place in a group.

    A group starts at a comment line: "# variables in body".

    :param text: what stands under the key; if it says ``in: body``, that is
        the group
    """

    key: str
    text: str

    def apply(self, source: Source) -> Source:
        first, last = self._range(source)
        place = last
        for number in range(first, last):
            key = _KEY.match(source.lines[number])
            if not key:
                continue
            if key['key'] == self.key:
                raise errors.AlreadyThere(what=self.key, line=number + 1)
            if key['key'].lower() > self.key.lower():
                place = number
                break
        return source.insert_lines(
            _above_comments(source, place, first) + 1,
            f'{self.key}:\n' + blocks.placed_plain(self.text, '  '))

    def _range(self, source: Source) -> tuple[int, int]:
        """The first line of the group and the one after it (from 0)."""
        end = len(source.text.rstrip().split('\n'))
        headers = [number for number, line in enumerate(source.lines)
                   if line.startswith(_GROUP)]
        found = re.search(r'^\s+in: (\w+)', self.text, re.MULTILINE)
        starts = [number for number in headers if found
                  and source.lines[number] == _GROUP + found[1]]
        if not starts:
            return 0, end
        if len(starts) > 1:
            raise errors.ManyMatches(
                sought=source.lines[starts[0]], count=len(starts),
                lines=errors.listed(number + 1 for number in starts))
        return starts[0] + 1, next(
            (line for line in headers if line > starts[0]), end)


@dataclass(frozen=True)
class JsonBump(base.Edit):
    """Raise the version at a JSON pointer (RFC 6901) by one."""

    pointer: str

    def apply(self, source: Source) -> Source:
        wanted = self._load(source.text)
        *parts, last = [part.replace('~1', '/').replace('~0', '~')
                        for part in self.pointer.split('/')[1:]]
        try:
            holder = wanted
            for part in parts:
                holder = _child(holder, part)
            old = _child(holder, last)
        except (LookupError, TypeError) as error:
            raise errors.NoMatch(kind='value', sought=self.pointer,
                                 hint='') from error
        new = raised(str(old))
        holder[last if isinstance(holder, dict) else int(last)] = (
            new if isinstance(old, str) else json.loads(new))
        # The text has more than the data: the one place that gives it counts.
        for found in re.finditer(re.escape(str(old)), source.text):
            result = source.splice((*found.span(), new))
            if _loads_as(result.text, wanted):
                return result
        raise errors.NoMatch(kind='text', sought=str(old), hint='')

    def _load(self, text: str) -> Any:
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise errors.WrongKind(
                sought=self.pointer, line=error.lineno,
                wanted=f'JSON: {error.msg}') from error


def _child(holder: Any, part: str) -> Any:
    if isinstance(holder, list) and part.isdigit():
        return holder[int(part)]
    return holder[part]


def _loads_as(text: str, wanted: Any) -> bool:
    try:
        return json.loads(text) == wanted
    except json.JSONDecodeError:
        return False


@dataclass(frozen=True)
class TomlAddItem(base.Edit):
    """Add a string to a table: in its place if the keys are sorted."""

    table: str
    key: str
    value: str

    def apply(self, source: Source) -> Source:
        header, *rest = self._lines(source)
        names = {number: key[0] for number in rest if (
            key := re.match(r'[\w."\'-]+(?=\s*=)', source.lines[number]))}
        place = (rest[-1] if rest else header) + 1
        for number, name in names.items():
            if name == self.key:
                raise errors.AlreadyThere(what=name, line=number + 1)
        if list(names.values()) == sorted(names.values()):
            place = next((number for number, name in names.items()
                          if name > self.key), place)
        result = source.insert_lines(
            _above_comments(source, place, header + 1) + 1,
            f'{self.key} = {json.dumps(self.value)}\n')
        try:
            tomllib.loads(result.text)
        except tomllib.TOMLDecodeError as error:
            raise errors.ResultBroken(line='?', reason=error) from error
        return result

    def _lines(self, source: Source) -> list[int]:
        """The lines (from 0) of the header and of the items of the table."""
        header = f'[{self.table}]'
        starts = [number for number, line in enumerate(source.lines)
                  if line.split('#')[0].strip() == header]
        if not starts:
            raise errors.NoMatch(kind='table', sought=header, hint='')
        found = starts[:1]
        for number in range(starts[0] + 1, len(source.lines)):
            line = source.lines[number]
            if line.startswith('['):
                break
            if line.strip() and not line.startswith('#'):
                found.append(number)
        return found
