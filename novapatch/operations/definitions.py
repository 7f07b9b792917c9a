# SPDX-License-Identifier: Apache-2.0
"""Edits that add functions, docstrings and whole ends of files."""

import ast
from dataclasses import dataclass
import re

from novapatch import errors
from novapatch.match import pattern as patterns
from novapatch.match import scope
from novapatch.match.scope import Target
from novapatch.operations import base
from novapatch.operations import statements
from novapatch.text import blocks
from novapatch.text.source import Source

_FIELD = re.compile(r'\s*:\w+[^:]*:')


@dataclass(frozen=True)
class AddFunction(base.Edit):
    text: str
    after: str | Target | None = None
    before: str | Target | None = None

    operation = 'add_function'

    @property
    def _neighbour(self) -> str | Target:
        if (self.after is None) == (self.before is None):
            raise errors.BadText(text=self.text, reason=(
                'say either after=... or before=...'))
        return self.before if self.after is None else self.after

    def _names(self) -> set[str]:
        around = str(self._neighbour).rpartition('.')[0]
        return base.names_in(around, base.parse(self.text))

    def apply(self, source: Source) -> Source:
        neighbour = scope.find(source, self._neighbour)
        names = self._names()
        if not names or isinstance(neighbour, ast.Module):
            raise errors.BadText(text=self.text, reason=(
                'it needs a definition, and a name to stand beside'))
        for name in names:
            if scope.exists(source, name):
                raise errors.AlreadyThere(
                    what=name, line=scope.lines_of(
                        source, scope.find(source, name))[0])
        margin = source.indentation(neighbour.lineno)
        text = blocks.placed(self.text, margin)
        gap = '\n' if margin else '\n\n'
        if self.after is not None:
            line = statements.end_of(source, neighbour) + 1
            return source.insert_lines(line, gap + text)
        line = statements.above_comments(
            source, scope.first_line(neighbour), 0)
        return source.insert_lines(line, text + gap)

    def changes(self) -> set[str]:
        return self._names()

    def __str__(self) -> str:
        return f'{self.operation}({", ".join(sorted(self._names()))!r})'


@dataclass(frozen=True)
class AppendDocstring(base.Edit):
    target: str | Target
    text: str
    after: str | None = None

    operation = 'append_docstring'
    # The tree shows a docstring, but a text that is there is no code.

    def _docstring(self, source: Source) -> ast.Constant:
        node = scope.find(source, self.target)
        body = getattr(node, 'body', None)
        if not body or patterns.docstring(body[0]) is None:
            raise errors.NoMatch(kind='docstring',
                                 sought=str(self.target), hint='')
        return body[0].value

    def apply(self, source: Source) -> Source:
        node = self._docstring(source)
        margin = source.indentation(node.lineno)
        text = blocks.placed_plain(self.text, margin)
        if self.after is not None:
            return source.insert_lines(
                self._after_field(source, node), text)
        end = source.span(node)[1]
        quotes = source.text[end - 3:end]
        if quotes not in ('"""', "'''"):
            raise errors.WrongKind(sought=str(self.target),
                                   line=node.lineno,
                                   wanted='docstring in triple quotes')
        if node.lineno == node.end_lineno:
            return source.splice(
                (end - 3, end - 3, f'\n\n{text}{margin}'))
        gap = '' if self._continues_fields(source, node) else '\n'
        if source.lines[node.end_lineno - 1].strip()[:3] == quotes:
            return source.insert_lines(node.end_lineno, gap + text)
        return source.splice(
            (end - 3, end - 3, '\n' + gap + text.rstrip('\n')))

    def _continues_fields(self, source: Source, node: ast.expr) -> bool:
        """Whether the new text is one more of a list of ``:fields:``."""
        if not _FIELD.match(self.text):
            return False
        for line in range(node.end_lineno - 1, node.lineno, -1):
            if source.is_blank(line):
                return False
            if _FIELD.match(source.lines[line - 1]):
                return True
        return False

    def _after_field(self, source: Source, node: ast.expr) -> int:
        """The line after the field that describes a parameter."""
        field = re.compile(
            rf'(\s*):\w+ (?:\S+ )?{re.escape(self.after)}:')
        found = [(line, match[1])
                 for line in range(node.lineno, node.end_lineno + 1)
                 if (match := field.match(source.lines[line - 1]))]
        if len(found) != 1:
            raise errors.NoMatch(kind='field of the docstring',
                                 sought=self.after, hint='')
        line, margin = found[0]
        while (line + 1 < node.end_lineno and not source.is_blank(line + 1)
               and len(source.indentation(line + 1)) > len(margin)):
            line += 1
        if line == node.end_lineno:
            raise errors.NoRoom(line=line, reason=(
                'the docstring ends on the line of that field'))
        return line + 1

    def changes(self) -> set[str]:
        return {str(self.target)}


@dataclass(frozen=True)
class AppendString(base.Edit):
    target: str | Target
    text: str

    operation = 'append_string'

    def _string(self, source: Source) -> ast.Constant:
        node = scope.find_assignment(source, self.target).value
        last = source.lines[node.end_lineno - 1].strip()
        if not (isinstance(node, ast.Constant) and isinstance(node.value, str)
                and last[:3] in ('"""', "'''")):
            raise errors.WrongKind(
                sought=str(self.target), line=node.lineno,
                wanted='string whose closing quotes have a line of their own')
        return node

    def apply(self, source: Source) -> Source:
        node = self._string(source)
        lines = range(node.lineno + 1, node.end_lineno)
        margin = min((source.indentation(line) for line in lines
                      if not source.is_blank(line)), key=len, default='')
        return source.insert_lines(
            node.end_lineno, blocks.placed_plain(self.text, margin))

    def changes(self) -> set[str]:
        return {str(self.target)}


@dataclass(frozen=True)
class AppendFile(base.Edit):
    text: str

    operation = 'append_file'
    is_python = False

    def _plain(self) -> str:
        return blocks.dedent_plain(self.text) + '\n'

    def apply(self, source: Source) -> Source:
        # Blank lines at the start of the text are meant.
        blank = '\n' * max(0, len(self.text)
                           - len(self.text.lstrip('\n')) - 1)
        return Source(source.text + blank + self._plain())

    def changes(self) -> set[str]:
        try:
            return {scope.MODULE} | base.names_in(
                '', ast.parse(self._plain()).body)
        except SyntaxError:
            return set()
