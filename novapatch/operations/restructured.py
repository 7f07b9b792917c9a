# SPDX-License-Identifier: Apache-2.0
"""Edits of reStructuredText: sections, directives, parameters."""

from collections.abc import Iterator
from dataclasses import dataclass
import re
from typing import TypeVar

from novapatch import errors
from novapatch.operations import base
from novapatch.text import blocks
from novapatch.text.source import Source

T = TypeVar('T')

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
    for number in range(len(lines) - 1):
        title, under = lines[number].rstrip(), lines[number + 1].rstrip()
        if not title.strip() or _UNDERLINE.match(title):
            continue
        mark = _UNDERLINE.match(under)
        over = number > 0 and lines[number - 1].rstrip() == under
        if not mark or (title[0].isspace() and not over):
            continue
        if number > 0 and not over and lines[number - 1].strip():
            # The last line of a paragraph is no title.
            if not lines[number - 1].startswith('..'):
                continue
        yield Title(title.strip(), mark[1] * (2 if over else 1), number,
                    _start(lines, number - over))


def _start(lines: list[str], start: int) -> int:
    """The first of the labels above a title."""
    line = start - 1
    while line >= 0 and (not lines[line].strip()
                         or _LABEL.match(lines[line])):
        if lines[line].strip():
            start = line
        line -= 1
    return start


@dataclass(frozen=True)
class Section:
    """The lines of a section, to the next of its level (exclusive).

    ``own_end`` is where its first subsection starts.
    """

    start: int
    own_end: int
    end: int


def find_section(source: Source, title: str) -> Section:
    """The one section whose title is, or else starts with, a text.

    :raises: NoMatch, ManyMatches
    """
    titles = list(_titles(source.lines))
    # The styles of titles tell levels, in the order in which they come.
    styles = list(dict.fromkeys(each.style for each in titles))
    found = _one([(each.line, each) for each in titles if each.text == title]
                 or [(each.line, each) for each in titles
                     if each.text.startswith(title)], title, 'section')
    behind = titles[titles.index(found) + 1:]
    end = _trimmed(source.lines, 0, len(source.lines))
    return Section(found.start, behind[0].start if behind else end, next(
        (each.start for each in behind
         if styles.index(each.style) <= styles.index(found.style)), end))


def _one(found: list[tuple[int, T]], sought: str, kind: str) -> T:
    if not found:
        raise errors.NoMatch(kind=kind, sought=sought, hint='')
    if len(found) > 1:
        raise errors.ManyMatches(
            count=len(found), sought=sought,
            lines=errors.listed(line + 1 for line, item in found))
    return found[0][1]


def _words(text: str) -> str:
    return ' '.join(text.split())


def _trimmed(lines: list[str], start: int, end: int) -> int:
    """The end without the blank lines before it."""
    while end > start and not lines[end - 1].strip():
        end -= 1
    return end


def _gap(source: Source) -> str:
    """The blank lines this file has before a section, mostly."""
    starts = [title.start for title in _titles(source.lines)][1:]
    counts = [start - _trimmed(source.lines, 0, start) for start in starts]
    return '\n' * (max(set(counts), key=counts.count) if counts else 1)


@dataclass(frozen=True)
class RstAppend(base.Edit):
    """Append to the file."""

    text: str

    def apply(self, source: Source) -> Source:
        return _insert(source, len(source.lines), self.text)


@dataclass(frozen=True)
class RstInsertAfter(base.Edit):
    """Insert after a section and all its subsections."""

    section: str
    text: str

    def apply(self, source: Source) -> Source:
        return _insert(source, find_section(source, self.section).end,
                       self.text)


@dataclass(frozen=True)
class RstAppendSection(base.Edit):
    """Append to a section, before its first subsection."""

    section: str
    text: str

    def apply(self, source: Source) -> Source:
        return _insert(source, find_section(source, self.section).own_end,
                       self.text)


def _insert(source: Source, end: int, text: str) -> Source:
    """Put a text below the last line that is not blank before an end."""
    text = blocks.placed_plain(text, '')
    gap = _gap(source) if any(_titles(text.split('\n'))) else '\n'
    return source.insert_lines(_trimmed(source.lines, 0, end) + 1, gap + text)


def _indented_end(lines: list[str], start: int, end: int) -> int:
    """Where what hangs under a line ends."""
    margin = len(lines[start]) - len(lines[start].lstrip())
    line = start + 1
    while line < end and (
            not lines[line].strip()
            or len(lines[line]) - len(lines[line].lstrip()) > margin):
        line += 1
    return _trimmed(lines, start, line)


@dataclass(frozen=True)
class RstReplaceDirective(base.Edit):
    """Replace the one directive of a kind that contains a few words."""

    section: str
    directive: str
    contains: str
    text: str

    def apply(self, source: Source) -> Source:
        words = _words(self.contains)
        found = [
            (start, (start, end)) for start, end in _directives(
                source, self.section, self.directive)
            if words in _words('\n'.join(source.lines[start:end]))]
        start, end = _one(found, self.contains,
                          f'".. {self.directive}::" with the words')
        margin = source.indentation(start + 1)
        return source.splice(
            (source.start_of(start + 1), source.start_of(end + 1),
             blocks.placed_plain(self.text, margin)))


def _directives(source: Source, section: str,
                name: str) -> Iterator[tuple[int, int]]:
    """The first line, and the one after the last, of each of a kind."""
    found = find_section(source, section)
    for line in range(found.start, found.end):
        if source.lines[line].lstrip().startswith(f'.. {name}::'):
            yield line, _indented_end(source.lines, line, found.end)


@dataclass(frozen=True)
class RstAddRestParameter(base.Edit):
    """Add ``- name: reference`` to a list of parameters.

    :param after: the parameter to stand below
    :param line: ``'name: reference'``
    """

    section: str
    after: str
    line: str

    def apply(self, source: Source) -> Source:
        found = [
            (line, (line, start, end)) for start, end in _directives(
                source, self.section, 'rest_parameters')
            if (line := _item(source, self.after, start, end))]
        line, start, end = _one(found, self.after, 'parameter')
        name = self.line.rpartition(':')[0].strip()
        there = _item(source, name, start, end)
        if there is not None:
            raise errors.AlreadyThere(what=f'parameter {name}',
                                      line=there + 1)
        margin = source.indentation(line + 1)
        mark = source.lines[line].strip()[0]
        return source.insert_lines(_indented_end(source.lines, line, end) + 1,
                                   f'{margin}{mark} {self.line}\n')


def _item(source: Source, name: str, start: int, end: int) -> int | None:
    """The line of the item of a parameter."""
    for line in range(start, end):
        text = source.lines[line].strip()
        if text.startswith((f'- {name}:', f'* {name}:')):
            return line
    return None
