# SPDX-License-Identifier: Apache-2.0
"""Edits of reStructuredText: sections, directives, parameters."""

from collections.abc import Iterator
from dataclasses import dataclass
import re

from novapatch import errors
from novapatch.match import scope
from novapatch.operations import base
from novapatch.text import blocks
from novapatch.text.source import Source

_UNDERLINE = re.compile(r'([!-/:-@[-`{-~])\1{2,}$')
_LABEL = re.compile(r'\.\. (_.*:|index::.*|\.\..*)$')


@dataclass(frozen=True)
class Title:
    """A title, and where its section starts: at its overline or its labels.

    Lines count from 0.
    """

    text: str
    style: str
    line: int
    start: int


def _titles(lines: list[str]) -> Iterator[Title]:
    # Before the first line there is an empty one.
    for number, (above, title, under) in enumerate(
            zip(['', *lines], lines, lines[1:])):
        title, under, above = title.rstrip(), under.rstrip(), above.rstrip()
        mark, over = _UNDERLINE.match(under), above == under
        if not mark or not title or _UNDERLINE.match(title) or (
                title[0].isspace() and not over):
            continue
        # The last line of a paragraph is no title.
        if over or not above or above.startswith('..'):
            yield Title(title.strip(), mark[1] * (2 if over else 1), number,
                        _start(lines, number - over))


def _start(lines: list[str], start: int) -> int:
    """The first of the labels above a title."""
    for line in range(start - 1, -1, -1):
        if _LABEL.match(lines[line]):
            start = line
        elif lines[line].strip():
            break
    return start


def find_section(source: Source, title: str) -> tuple[int, int, int]:
    """The one section whose title is, or else starts with, a text.

    :returns: where it starts, where its first subsection does, and where the
        next one of its level does
    :raises: NoMatch, ManyMatches
    """
    titles = list(_titles(source.lines))
    # The styles of titles tell levels, in the order in which they come.
    styles = list(dict.fromkeys(each.style for each in titles))
    found = scope.one(
        [(each.line + 1, each) for each in titles if each.text == title]
        or [(each.line + 1, each) for each in titles
            if each.text.startswith(title)], 'section', title)
    behind = titles[titles.index(found) + 1:]
    ends = [each.start for each in behind
            if styles.index(each.style) <= styles.index(found.style)]
    end = len(source.lines)
    return (found.start, behind[0].start if behind else end,
            ends[0] if ends else end)


def _trimmed(lines: list[str], end: int) -> int:
    """The end without the blank lines before it."""
    while end > 0 and not lines[end - 1].strip():
        end -= 1
    return end


def _gap(source: Source) -> str:
    """The blank lines this file has before a section, mostly."""
    starts = [title.start for title in _titles(source.lines)][1:]
    counts = [start - _trimmed(source.lines, start) for start in starts]
    return '\n' * (max(set(counts), key=counts.count) if counts else 1)


def _insert(source: Source, end: int, text: str) -> Source:
    """Put a text below the last line that is not blank before an end."""
    text = blocks.placed_plain(text, '')
    gap = _gap(source) if any(_titles(text.split('\n'))) else '\n'
    return source.insert_lines(_trimmed(source.lines, end) + 1, gap + text)


class RstAppend(base.Edit):
    """Append to the file."""

    text: str

    def apply(self, source: Source) -> Source:
        return _insert(source, len(source.lines), self.text)


class RstInsertAfter(base.Edit):
    """Insert after a section and all its subsections."""

    section: str
    text: str

    def apply(self, source: Source) -> Source:
        start, own_end, end = find_section(source, self.section)
        return _insert(source, end, self.text)


class RstAppendSection(base.Edit):
    """Append to a section, before its first subsection."""

    section: str
    text: str

    def apply(self, source: Source) -> Source:
        start, own_end, end = find_section(source, self.section)
        return _insert(source, own_end, self.text)


def _hanging(source: Source, line: int) -> range:
    """A line (from 0) and those that hang under it."""
    margin, end = len(source.indentation(line + 1)), line + 1
    while end < len(source.lines) and (
            source.is_blank(end + 1)
            or len(source.indentation(end + 1)) > margin):
        end += 1
    return range(line, _trimmed(source.lines, end))


def _directives(source: Source, section: str, name: str) -> Iterator[range]:
    """The lines (from 0) of each directive of a kind."""
    start, own_end, end = find_section(source, section)
    for line in range(start, end):
        if source.lines[line].lstrip().startswith(f'.. {name}::'):
            yield _hanging(source, line)


class RstReplaceDirective(base.Edit):
    """Replace the one directive of a kind that contains a few words."""

    section: str
    directive: str
    contains: str
    text: str

    def apply(self, source: Source) -> Source:
        words = ' '.join(self.contains.split())
        found = scope.one(
            [(lines.start + 1, lines) for lines in _directives(
                source, self.section, self.directive)
             if words in ' '.join(' '.join(
                 source.lines[lines.start:lines.stop]).split())],
            f'".. {self.directive}::" with the words', self.contains)
        margin = source.indentation(found.start + 1)
        return source.splice((
            source.start_of(found.start + 1), source.start_of(found.stop + 1),
            blocks.placed_plain(self.text, margin)))


class RstAddRestParameter(base.Edit):
    """Add ``- name: reference`` to a list of parameters.

    :param after: the parameter to stand below
    :param line: ``'name: reference'``
    """

    section: str
    after: str
    line: str

    def apply(self, source: Source) -> Source:
        lists = [{_parameter(source.lines[line]): line for line in lines}
                 for lines in _directives(source, self.section,
                                          'rest_parameters')]
        there = scope.one([(names[self.after] + 1, names) for names in lists
                           if self.after in names], 'parameter', self.after)
        name = _parameter('- ' + self.line)
        if name in there:
            raise errors.AlreadyThere(what=f'parameter {name}',
                                      line=there[name] + 1)
        line = there[self.after]
        margin = source.indentation(line + 1)
        mark = source.lines[line].strip()[0]
        return source.insert_lines(
            _hanging(source, line).stop + 1,
            f'{margin}{mark} {self.line}\n')


def _parameter(line: str) -> str | None:
    """The name of the parameter that a line of a list starts."""
    found = re.match(r'\s*[-*] (\S+):\s', line)
    return found[1] if found else None
