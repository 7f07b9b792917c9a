# SPDX-License-Identifier: Apache-2.0
"""Edits of YAML and TOML: an entry more, in its sorted place."""

import json
import re
import tomllib

from novapatch import errors
from novapatch.match import scope
from novapatch.operations import base
from novapatch.text import blocks
from novapatch.text.source import Source

_KEY = re.compile(r'(?P<quote>[\'"]?)(?P<key>[^\s\'"#][^\'"]*?)(?P=quote)'
                  r'\s*[:=](?:\s|$)')


def _add_entry(source: Source, mark: str, name: str, key: str,
               text: str) -> Source:
    """Add an entry to a group, before the first one with a greater key.

    A comment above an entry belongs to it.

    :param mark: what the lines between groups start with
    :param name: what follows in the line above the group
    """
    lines = [line.split('  #')[0].rstrip() for line in source.lines]
    first = 1 + scope.one([(number, number) for number, line
                           in enumerate(lines, 1) if line == mark + name],
                          'line', mark + name)
    last = first
    while last <= len(lines) and not lines[last - 1].startswith(mark):
        last += 1
    keys = {number: found['key'] for number in range(first, last)
            if (found := _KEY.match(lines[number - 1]))}
    for number, other in keys.items():
        if other == key:
            raise errors.AlreadyThere(what=key, line=number)
    while source.is_blank(last - 1):
        last -= 1
    place = next((number for number, other in keys.items()
                  if other.lower() > key.lower()), last)
    while place > first and lines[place - 2].startswith('#'):
        place -= 1
    return source.insert_lines(place, text)


class YamlAddKey(base.Edit):
    """Add a key at the top level of the parameters of the API reference.

    :param text: what stands under the key.  Where it says ``in: body``, the
        place is below the comment "# variables in body".
    """

    key: str
    text: str

    def apply(self, source: Source) -> Source:
        found = re.search(r'^\s+in: (\w+)', self.text, re.MULTILINE)
        if not found:
            raise errors.BadText(text=self.text, reason='it says no "in:"')
        return _add_entry(
            source, '# variables in ', found[1], self.key,
            f'{self.key}:\n' + blocks.placed_plain(self.text, '  '))


class TomlAddItem(base.Edit):
    """Add a string to a table."""

    table: str
    key: str
    value: str

    def apply(self, source: Source) -> Source:
        result = _add_entry(source, '[', f'{self.table}]', self.key,
                            f'{self.key} = {json.dumps(self.value)}\n')
        try:
            tomllib.loads(result.text)
        except tomllib.TOMLDecodeError as error:
            raise errors.ResultBroken(line='?', reason=error) from error
        return result
