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

# From Python 3.12 on f-strings come in pieces.
_FSTRING_START = getattr(tokenize, 'FSTRING_START', None)
_FSTRING_END = getattr(tokenize, 'FSTRING_END', None)
#: What is around a string that is a statement by itself.
_AROUND = {tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
           tokenize.ENDMARKER}


def tokens(text: str) -> Iterator[tokenize.TokenInfo]:
    """Tokens of a fragment, up to where it stops making sense."""
    try:
        yield from tokenize.generate_tokens(io.StringIO(text).readline)
    except (tokenize.TokenError, SyntaxError):
        # A fragment may end in the middle of a statement.
        return


def _inside(text: str) -> tuple[set[int], set[int]]:
    """Lines (from 0) that start in a docstring, and in another string."""
    docstrings: set[int] = set()
    others: set[int] = set()
    starts: list[int] = []
    found = [token for token in tokens(text)
             if token.type not in (tokenize.NL, tokenize.COMMENT)]
    for index, token in enumerate(found):
        if token.type == _FSTRING_START:
            starts.append(token.start[0])
        elif token.type == _FSTRING_END:
            others.update(range(starts.pop(), token.end[0]))
        elif token.type == tokenize.STRING:
            around = found[max(index - 1, 0):index] + found[index + 1:][:1]
            alone = all(each.type in _AROUND for each in around)
            (docstrings if alone else others).update(
                range(token.start[0], token.end[0]))
    return docstrings, others


def dedent(text: str) -> str:
    """Strip surrounding blank lines and the common indentation."""
    text = re.sub(r'\A(\s*\n)+', '', text.rstrip())
    lines = text.split('\n')
    docstrings, fixed = _inside(text)
    margin = min((len(line) - len(line.lstrip())
                  for number, line in enumerate(lines)
                  if line.strip() and number not in docstrings | fixed),
                 default=0)
    pattern = re.compile(f'[ \t]{{0,{margin}}}')
    return '\n'.join(
        line if number in fixed else pattern.sub('', line, count=1)
        for number, line in enumerate(lines))


def indent(text: str, prefix: str) -> str:
    """Put a prefix before every line that may move; ends with a newline."""
    docstrings, fixed = _inside(text)
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
