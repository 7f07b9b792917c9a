# SPDX-License-Identifier: Apache-2.0
"""One layout rule for parameters, arguments and items of literals.

One item a line stays one item a line; what counts is how it is at the place
of the new item.  Otherwise an item goes on the line while that fits, else
on a new line under the first item.  A trailing comma, or its absence, stays
as found.
"""

from dataclasses import dataclass
import tokenize

from novapatch import errors
from novapatch.text import blocks
from novapatch.text.source import Source
from novapatch.text.source import Splice

WIDTH = 79


@dataclass(frozen=True)
class Item:
    """The offsets of an item, and of the end of the comma behind it."""

    start: int
    end: int
    comma: int | None


@dataclass(frozen=True)
class Items:
    """What stands between two brackets."""

    source: Source
    start: int
    end: int
    items: tuple[Item, ...]

    def text_of(self, index: int) -> str:
        item = self.items[index]
        return self.source.text[item.start:item.end]

    def _is_alone(self, index: int) -> bool:
        """Whether an item shares its lines with no other."""
        line_at, item = self.source.line_at, self.items[index]
        if index and line_at(self.items[index - 1].end) == line_at(
                item.start):
            return False
        return index + 1 == len(self.items) or line_at(
            item.end) < line_at(self.items[index + 1].start)

    def one_a_line(self, index: int) -> bool:
        """Whether items have a line each, where one has an index.

        The item and a neighbour of it must be alone.  An only item says
        so by a bracket below it, or by a comma.
        """
        if len(self.items) > 1:
            other = index - 1 if index else 1
            return self._is_alone(index) and self._is_alone(other)
        line_at, item = self.source.line_at, self.items[0]
        return line_at(self.start) < line_at(item.start) and (
            item.comma is not None
            or line_at(item.end) < line_at(self.end))


def read_items(source: Source, opening: int) -> Items:
    """Split what a bracket holds at its commas.

    This looks at tokens and not at the syntax tree, because the tree
    knows neither commas nor the brackets around an item.
    """
    text = source.text[opening:]
    starts = [opening]
    depth, in_lambda = 0, 0
    items: list[Item] = []
    start = end = None
    for token in blocks.tokens(text):
        while len(starts) < token.end[0]:
            starts.append(source.text.index('\n', starts[-1]) + 1)
        first = starts[token.start[0] - 1] + token.start[1]
        last = starts[token.end[0] - 1] + token.end[1]
        if token.string in ('(', '[', '{') and token.type == tokenize.OP:
            depth += 1
            if depth == 1:
                continue
        elif token.string in (')', ']', '}') and token.type == tokenize.OP:
            depth -= 1
            if depth == 0:
                if start is not None:
                    items.append(Item(start, end, None))
                return Items(source, opening, first, tuple(items))
        if token.type in (tokenize.NL, tokenize.COMMENT):
            continue
        if depth == 1 and token.string == 'lambda':
            in_lambda += 1
        elif depth == 1 and token.string == ':' and in_lambda:
            in_lambda -= 1
        if depth == 1 and token.string == ',' and not in_lambda:
            items.append(Item(start, end, last))
            start = end = None
            continue
        start, end = first if start is None else start, last
    raise errors.ResultBroken(line=source.line_at(opening),
                              reason='a bracket is never closed')


def add_item(items: Items, new: str, after: int | None = None) -> Source:
    """Put a new item after the item of an index (default: the last).

    An index of -1 means before the first, on its line.
    """
    source, text = items.source, blocks.dedent(new)
    if not items.items:
        return source.splice(_only_item(items, new))
    if after is None:
        after = len(items.items) - 1
    if after < 0:
        first = items.items[0].start
        return source.splice((first, first, text + ', '))
    item = items.items[after]
    place = item.end if item.comma is None else item.comma
    before, behind = (',', '') if item.comma is None else ('', ',')
    if _is_single_tuple(items):
        behind = ''
    one_a_line = items.one_a_line(after)
    beside = f'{before} {text}{behind}'
    if not one_a_line and _fits(source, place, beside):
        return source.splice((place, place, beside))
    below = '\n' + _lines(
        new, ' ' * _column(items, after if one_a_line else 0)) + behind
    comment = _after_comment(source, place)
    if comment == place:
        return source.splice((place, place, before + below))
    return source.splice((place, place, before), (comment, comment, below))


def _column(items: Items, index: int) -> int:
    first = items.items[index].start
    return first - items.source.start_of(items.source.line_at(first))


def _only_item(items: Items, new: str) -> Splice:
    source = items.source
    line = source.line_at(items.start)
    if line == source.line_at(items.end):
        return items.start + 1, items.end, new
    margin = source.indentation(line) + ' ' * 4
    place = source.start_of(source.line_at(items.end))
    return place, place, _lines(new, margin) + ',\n'


def _lines(new: str, margin: str) -> str:
    return blocks.placed(new, margin).rstrip('\n')


def _after_comment(source: Source, offset: int) -> int:
    """The end of the line, if only a comment follows on it."""
    end = source.text.find('\n', offset)
    end = len(source.text) if end < 0 else end
    rest = source.text[offset:end].strip()
    return end if rest.startswith('#') else offset


def _is_single_tuple(items: Items) -> bool:
    """Whether the comma is there only because a tuple of one needs it."""
    return (items.source.text[items.start] == '(' and len(items.items) == 1
            and items.items[0].comma is not None
            and items.source.line_at(items.start)
            == items.source.line_at(items.end))


def _fits(source: Source, place: int, text: str) -> bool:
    """Whether the line at a place has room for a text."""
    line = source.lines[source.line_at(place) - 1]
    return ('\n' not in text and _after_comment(source, place) == place
            and len(line) + len(text) <= WIDTH)
