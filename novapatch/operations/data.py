# SPDX-License-Identifier: Apache-2.0
"""Edits of YAML, JSON and TOML."""

from dataclasses import dataclass
import json
import re
import tomllib

from novapatch import errors
from novapatch.operations import base
from novapatch.operations.values import raised
from novapatch.text import blocks
from novapatch.text.source import Source

_KEY = re.compile(r'(?P<quote>[\'"]?)(?P<key>[^\s\'"#][^\'"]*?)(?P=quote)'
                  r'\s*:(?:\s|$)')
_IN = re.compile(r'^\s+in: (\w+)', re.MULTILINE)


@dataclass(frozen=True)
class YamlAddKey(base.Edit):
    """A key at the top level, in its sorted place in a group.

    A group starts at a comment line ("# variables in body").
    """

    key: str
    text: str
    section: str | None

    operation = 'yaml_add_key'
    is_python = False

    def _entry(self) -> str:
        text = blocks.dedent_plain(self.text)
        if text.startswith((f'{self.key}:', f'"{self.key}":',
                            f"'{self.key}':")):
            return text + '\n'
        return f'{self.key}:\n' + blocks.placed_plain(text, '  ')

    def _group(self) -> str | None:
        """The words of the comment of the group.

        A parameter says itself where it is (``in: body``).
        """
        if self.section is not None:
            return self.section.lstrip('# ')
        found = _IN.search(self._entry())
        return f'variables in {found[1]}' if found else None

    def _range(self, source: Source) -> tuple[int, int]:
        """The first line of the group and the one after it (from 0)."""
        lines, group = source.lines, self._group()
        end = len(lines)
        while end and not lines[end - 1].strip():
            end -= 1
        headers = [number for number, line in enumerate(lines)
                   if line.startswith('# variables in ')]
        if group is None:
            return 0, end
        starts = [number for number, line in enumerate(lines)
                  if line.startswith('#') and line.lstrip('# ') == group]
        if not starts and self.section is None:
            return 0, end
        if len(starts) != 1:
            kind = errors.NoMatch if not starts else errors.ManyMatches
            raise kind(kind='comment', sought=group, hint='',
                       count=len(starts), lines=errors.listed(starts))
        return starts[0] + 1, next(
            (line for line in headers if line > starts[0]), end)

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
        # A comment above a key belongs to the key.
        while place > first and source.lines[place - 1].startswith('#'):
            place -= 1
        return source.insert_lines(place + 1, self._entry())


# -- JSON -----------------------------------------------------------------

_SPACE = re.compile(r'\s*')


def _skip(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()


def _json_span(text: str, pointer: str) -> tuple[int, int]:
    """The offsets of the value that a JSON pointer (RFC 6901) names.

    :raises: NoMatch if there is none, WrongKind if it is no JSON
    """
    parts = [part.replace('~1', '/').replace('~0', '~')
             for part in pointer.split('/')[1:]]
    decoder = json.JSONDecoder()
    at = _skip(text, 0)
    try:
        for part in parts:
            at = _json_child(decoder, text, at, part)
            if at < 0:
                raise errors.NoMatch(kind='value', sought=pointer, hint='')
        return at, decoder.raw_decode(text, at)[1]
    except json.JSONDecodeError as error:
        raise errors.WrongKind(sought=pointer, line=error.lineno,
                               wanted=f'JSON: {error.msg}') from error


def _json_child(decoder: json.JSONDecoder, text: str, at: int,
                part: str) -> int:
    """The offset of a member of an object or list; -1: there is none."""
    is_object = text[at] == '{'
    if not is_object and text[at] != '[':
        return -1
    at, index = _skip(text, at + 1), 0
    while text[at] not in ']}':
        key = str(index)
        if is_object:
            key, at = decoder.raw_decode(text, at)
            at = _skip(text, _skip(text, at) + 1)
        if key == part:
            return at
        at = _skip(text, decoder.raw_decode(text, at)[1])
        if text[at] == ',':
            at = _skip(text, at + 1)
        index += 1
    return -1


@dataclass(frozen=True)
class JsonBump(base.Edit):
    pointer: str

    operation = 'json_bump'
    is_python = False

    def apply(self, source: Source) -> Source:
        start, end = _json_span(source.text, self.pointer)
        old = source.text[start:end]
        return source.splice(
            (start, end, old.replace(old.strip('"'),
                                     raised(old.strip('"')))))


# -- TOML -----------------------------------------------------------------

@dataclass(frozen=True)
class TomlAddItem(base.Edit):
    """A key in a table: in its place if the keys are sorted, else last."""

    table: str
    key: str
    value: str

    operation = 'toml_add_item'
    is_python = False

    def _text(self) -> str:
        try:
            tomllib.loads(f'x = {self.value}')
        except tomllib.TOMLDecodeError:
            return f'{self.key} = {json.dumps(self.value)}'
        return f'{self.key} = {self.value}'

    def _lines(self, source: Source) -> list[int]:
        """The lines (from 0) at which the keys of the table stand."""
        header = f'[{self.table}]'
        starts = [number for number, line in enumerate(source.lines)
                  if line.split('#')[0].strip() == header]
        if len(starts) != 1:
            kind = errors.NoMatch if not starts else errors.ManyMatches
            raise kind(kind='table', sought=header, hint='',
                       count=len(starts), lines=errors.listed(starts))
        keys = [starts[0]]
        for number in range(starts[0] + 1, len(source.lines)):
            line = source.lines[number]
            if line.startswith('['):
                break
            if line.strip() and not line.startswith('#'):
                keys.append(number)
        return keys

    def apply(self, source: Source) -> Source:
        if self._is_there(source):
            raise errors.AlreadyThere(what=self.key, line=1)
        header, *rest = self._lines(source)
        keys = [number for number in rest
                if re.match(r'[\w."\'-]+\s*=', source.lines[number])]
        names = [source.lines[number].split('=')[0].strip()
                 for number in keys]
        place = (rest[-1] if rest else header) + 1
        if names == sorted(names):
            place = next((number for number, name in zip(keys, names)
                          if name > self.key), place)
        while (place > header + 1
               and source.lines[place - 1].startswith('#')):
            place -= 1
        result = source.insert_lines(place + 1, self._text() + '\n')
        self._check(result)
        return result

    def _check(self, result: Source) -> None:
        try:
            tomllib.loads(result.text)
        except tomllib.TOMLDecodeError as error:
            raise errors.ResultBroken(line='?', reason=error) from error

    def _is_there(self, source: Source) -> bool:
        try:
            lines = self._lines(source)
        except errors.EditError:
            return False
        return any(source.lines[number].split('=')[0].strip() == self.key
                   for number in lines)
