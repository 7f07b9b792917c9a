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

    def one_a_line(self, index: int) -> bool:
        """Whether items have a line each, where one has an index.

        The item and a neighbour of it must be alone.  An only item says
        so by a bracket below it, or by a comma.
        """
        edges = [self.start, *(edge for item in self.items
                               for edge in (item.start, item.end)), self.end]
        breaks = ['\n' in self.source.text[end:start]
                  for end, start in zip(edges[::2], edges[1::2])]
        if len(self.items) == 1:
            return breaks[0] and (
                self.items[0].comma is not None or breaks[1])
        # A bracket is no neighbour.
        breaks[0] = breaks[-1] = True
        return all(breaks[max(index - 1, 0):max(index, 1) + 2])


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
            start = None
        else:
            start, end = first if start is None else start, last
    raise errors.ResultBroken(line=source.line_at(opening),
                              reason='a bracket is never closed')


def add_item(items: Items, new: str, after: int | None = None) -> Source:
    """Put a new item after the item of an index (default: the last).

    An index of -1 means before the first, on its line.
    """
    source, text = items.source, blocks.dedent(new)
    if not items.items:
        return _add_only_item(items, new)
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
    number = source.line_at(place)
    line = source.lines[number - 1]
    line_end = source.start_of(number) + len(line)
    has_comment = source.text[place:line_end].strip().startswith('#')
    beside = f'{before} {text}{behind}'
    if not (one_a_line or has_comment or '\n' in text) and (
            len(line) + len(beside) <= WIDTH):
        return source.splice((place, place, beside))
    first = items.items[after if one_a_line else 0].start
    margin = ' ' * (first - source.start_of(source.line_at(first)))
    below = '\n' + _lines(new, margin) + behind
    if has_comment:
        return source.splice((place, place, before),
                             (line_end, line_end, below))
    return source.splice((place, place, before + below))


def _add_only_item(items: Items, new: str) -> Source:
    source = items.source
    first, last = map(source.line_at, (items.start, items.end))
    if first == last:
        return source.splice((items.start + 1, items.end, new))
    margin = source.indentation(first) + ' ' * 4
    return source.insert_lines(last, _lines(new, margin) + ',\n')


def _lines(new: str, margin: str) -> str:
    return blocks.placed(new, margin).rstrip('\n')


def _is_single_tuple(items: Items) -> bool:
    """Whether the comma is there only because a tuple of one needs it."""
    text = items.source.text[items.start:items.end]
    return (text[0] == '(' and '\n' not in text and len(items.items) == 1
            and items.items[0].comma is not None)
