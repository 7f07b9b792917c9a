# SPDX-License-Identifier: Apache-2.0
"""The text of one file, its syntax tree, and splicing text into it."""

import ast
from functools import cached_property
import re
from typing import TypeAlias

from novapatch import errors

Splice = tuple[int, int, str]
#: What has a place in the text.
Node: TypeAlias = ast.stmt | ast.expr | ast.excepthandler | ast.keyword


class Source:
    """A text that never changes; a splice gives a new one.

    Lines are counted from 1, as :mod:`ast` does, and end with ``\\n``.
    Positions are offsets in characters, while the columns of :mod:`ast`
    are bytes of UTF-8.
    """

    def __init__(self, text: str, splices: tuple[Splice, ...] = ()) -> None:
        """Take a text.

        :param splices: what it was made by, out of another
        """
        self.text = text
        self.splices = splices

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree.

        :raises: ResultBroken if the text is no Python
        """
        try:
            return ast.parse(self.text)
        except (SyntaxError, ValueError) as error:
            raise errors.ResultBroken(
                line=getattr(error, 'lineno', None), reason=error) from error

    @cached_property
    def lines(self) -> list[str]:
        """The lines without their ends; line n is ``lines[n - 1]``."""
        # str.splitlines would split at form feeds, which Python does not.
        return self.text.split('\n')

    @cached_property
    def _starts(self) -> list[int]:
        starts = [0]
        for line in self.lines:
            starts.append(starts[-1] + len(line) + 1)
        return starts

    def start_of(self, line: int) -> int:
        """The offset at which a line starts; past the end: the end."""
        return min(self._starts[min(line, len(self._starts)) - 1],
                   len(self.text))

    def offset(self, line: int, column: int) -> int:
        """Turn a position of :mod:`ast` into an offset."""
        text = self.lines[line - 1]
        if not text.isascii():
            column = len(text.encode()[:column].decode())
        return self._starts[line - 1] + column

    def span(self, node: Node) -> tuple[int, int]:
        """The offsets between which a node stands."""
        return (self.offset(node.lineno, node.col_offset),
                self.offset(node.end_lineno, node.end_col_offset))

    def segment(self, node: Node) -> str:
        """The text of a node."""
        start, end = self.span(node)
        return self.text[start:end]

    def line_at(self, offset: int) -> int:
        """The number of the line that holds an offset."""
        return self.text.count('\n', 0, offset) + 1

    def indentation(self, line: int) -> str:
        """The white space a line starts with."""
        text = self.lines[line - 1]
        return text[:len(text) - len(text.lstrip())]

    def is_blank(self, line: int) -> bool:
        return not self.lines[line - 1].strip()

    def is_comment(self, line: int) -> bool:
        """Whether a line that is not inside a string is a comment."""
        return self.lines[line - 1].lstrip().startswith('#')

    def splice(self, *splices: Splice) -> 'Source':
        """Replace ``text[start:end]`` for every (start, end, text)."""
        if not splices:
            return self
        text = self.text
        for start, end, new in sorted(splices, reverse=True):
            text = text[:start] + new + text[end:]
        return Source(text, splices)

    def insert_lines(self, line: int, text: str) -> 'Source':
        """Put whole lines before a line."""
        place = self.start_of(line)
        if place == len(self.text) and not self.text.endswith('\n'):
            text = '\n' + text if self.text else text
        return self.splice((place, place, text))


_BOM = '\ufeff'


class File:
    """The bytes of a file as a text to edit, and back.

    A text to edit has ``\\n`` at the end of every line.  What the file
    itself has is put back by :meth:`encode`: a byte order mark, CRLF, or no
    end of line after the last line.
    """

    def __init__(self, data: bytes) -> None:
        """Take the bytes of a file.

        :raises: UnreadableFile if they are no UTF-8, or if a carriage
            return stands alone (Python and we would count lines
            differently)
        """
        self.data = data
        try:
            text = data.decode('utf-8')
        except UnicodeDecodeError as error:
            raise errors.UnreadableFile(reason=error) from error
        self._mark = _BOM if text.startswith(_BOM) else ''
        text = text.removeprefix(_BOM)
        if re.search(r'\r(?!\n)', text):
            raise errors.UnreadableFile(
                reason='a carriage return stands alone')
        # A file that mixes both keeps every end as it is.
        self._crlf = '\r\n' in text and not re.search(r'(?<!\r)\n', text)
        if self._crlf:
            text = text.replace('\r\n', '\n')
        self._last_line = None
        if text and not text.endswith('\n'):
            self._last_line = text.rpartition('\n')[2]
            text += '\n'
        self.source = Source(text)

    def encode(self, source: Source) -> bytes:
        """The bytes of the edited text, in the manner of the file."""
        text = source.text
        if (self._last_line is not None
                and text[:-1].rpartition('\n')[2] == self._last_line):
            text = text[:-1]
        if self._crlf:
            text = text.replace('\n', '\r\n')
        return (self._mark + text).encode()
