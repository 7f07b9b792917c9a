# SPDX-License-Identifier: Apache-2.0
"""Blocks of lines: taking the indentation away and giving another.

The inside of a triple-quoted string must not move with the code around
it, for that would change its value.  A docstring is the exception: it
moves, because readers (and Sphinx) see it relative to the code.
"""

from collections.abc import Iterator
import io
import re
import textwrap
import tokenize
from typing import NamedTuple

# From Python 3.12 on f-strings come in pieces.
_FSTRING_START = getattr(tokenize, 'FSTRING_START', None)
_FSTRING_END = getattr(tokenize, 'FSTRING_END', None)
_LAYOUT = {tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT,
           tokenize.ENCODING, tokenize.NEWLINE}


class _String(NamedTuple):
    first: int
    last: int
    is_docstring: bool


def tokens(text: str) -> Iterator[tokenize.TokenInfo]:
    """Tokens of a fragment, up to where it stops making sense."""
    try:
        yield from tokenize.generate_tokens(io.StringIO(text).readline)
    except (tokenize.TokenError, SyntaxError):
        # A fragment may end in the middle of a statement.
        return


def _strings(text: str) -> Iterator[_String]:
    """The strings of a fragment that span lines (counted from 0)."""
    at_start, pending, nested = True, None, []
    for token in tokens(text):
        if pending and token.type not in (tokenize.NL, tokenize.COMMENT):
            alone = token.type in (tokenize.NEWLINE, tokenize.ENDMARKER)
            yield _String(*pending, alone)
            pending = None
        first, last = token.start[0] - 1, token.end[0] - 1
        if token.type == _FSTRING_START:
            nested.append(first)
        elif token.type == _FSTRING_END:
            first = nested.pop()
            if not nested and first < last:
                yield _String(first, last, False)
        elif token.type == tokenize.STRING and first < last:
            if at_start:
                pending = (first, last)
            else:
                yield _String(first, last, False)
        at_start = token.type in _LAYOUT and (
            at_start or token.type == tokenize.NEWLINE)
    if pending:
        yield _String(*pending, True)


def fixed_lines(text: str) -> set[int]:
    """Lines (from 0) that start inside a string that is no docstring."""
    return {line for string in _strings(text) if not string.is_docstring
            for line in range(string.first + 1, string.last + 1)}


def string_lines(text: str) -> set[int]:
    """Lines (from 0) that start inside any string."""
    return {line for string in _strings(text)
            for line in range(string.first + 1, string.last + 1)}


def dedent(text: str) -> str:
    """Strip surrounding blank lines and the common indentation."""
    lines = text.rstrip().split('\n')
    while lines and not lines[0].strip():
        del lines[0]
    text = '\n'.join(lines)
    fixed = fixed_lines(text)
    inside = string_lines(text)
    margins = [len(line) - len(line.lstrip())
               for number, line in enumerate(lines)
               if line.strip() and number not in inside]
    margin = min(margins, default=0)
    pattern = re.compile(f'[ \t]{{0,{margin}}}')
    return '\n'.join(
        line if number in fixed else pattern.sub('', line, count=1)
        for number, line in enumerate(lines))


def indent(text: str, prefix: str) -> str:
    """Put a prefix before every line that may move; ends with a newline."""
    fixed = fixed_lines(text)
    return ''.join(
        (line if number in fixed or not line.strip() else prefix + line)
        + '\n'
        for number, line in enumerate(text.rstrip('\n').split('\n')))


def placed(text: str, prefix: str) -> str:
    """Lines of an edit as they stand at an indentation."""
    return indent(dedent(text), prefix)


def dedent_plain(text: str) -> str:
    """Like :func:`dedent`, for a text that is no Python."""
    return textwrap.dedent(text.rstrip()).lstrip('\n')


def placed_plain(text: str, prefix: str) -> str:
    """Like :func:`placed`, for a text that is no Python."""
    return textwrap.indent(dedent_plain(text), prefix) + '\n'
