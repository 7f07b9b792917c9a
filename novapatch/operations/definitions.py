# SPDX-License-Identifier: Apache-2.0
"""Edits that add functions, docstrings and whole ends of files."""

import ast
import contextlib
from dataclasses import dataclass

from novapatch import errors
from novapatch.match import pattern as patterns
from novapatch.match import scope
from novapatch.operations import base
from novapatch.operations import statements
from novapatch.text import blocks
from novapatch.text.source import Source


@dataclass(frozen=True)
class AddFunction(base.Edit):
    """Add a function, method or class beside something that has a name."""

    text: str
    after: str | None = None
    before: str | None = None

    @property
    def _neighbour(self) -> str:
        if (self.after is None) == (self.before is None):
            raise errors.BadText(text=self.text, reason=(
                'say either after=... or before=...'))
        return self.before if self.after is None else self.after

    def changes(self) -> set[str]:
        around, dot, _ = self._neighbour.rpartition('.')
        return {around + dot + name for statement in patterns.parse(self.text)
                for name in scope.names_of(statement)}

    def apply(self, source: Source) -> Source:
        neighbour = scope.find(source, self._neighbour)
        names = self.changes()
        if not names or isinstance(neighbour, ast.Module):
            raise errors.BadText(text=self.text, reason=(
                'it needs a definition, and a name to stand beside'))
        for name in names:
            with contextlib.suppress(errors.NoMatch):
                there = scope.find(source, name)
                raise errors.AlreadyThere(what=name, line=there.lineno)
        margin = source.indentation(neighbour.lineno)
        text = blocks.placed(self.text, margin)
        gap = '\n' if margin else '\n\n'
        if self.after is not None:
            line = statements.end_of(source, neighbour) + 1
            return source.insert_lines(line, gap + text)
        line = statements.above_comments(source, scope.first_line(neighbour))
        return source.insert_lines(line, text + gap)


@dataclass(frozen=True)
class AppendDocstring(base.TargetEdit):
    """Append a paragraph to a docstring."""

    text: str

    def apply(self, source: Source) -> Source:
        node = self._docstring(source)
        margin = source.indentation(node.lineno)
        text = '\n' + blocks.placed_plain(self.text, margin)
        last = source.lines[node.end_lineno - 1].strip()
        if last in ('"""', "'''"):
            return source.insert_lines(node.end_lineno, text)
        if last[-3:] not in ('"""', "'''"):
            raise errors.WrongKind(sought=self.target, line=node.lineno,
                                   wanted='docstring in triple quotes')
        end = source.span(node)[1] - 3
        return source.splice((end, end, f'\n{text}{margin}'))

    def _docstring(self, source: Source) -> ast.stmt:
        body = getattr(scope.find(source, self.target), 'body', None)
        if not body or patterns.docstring(body[0]) is None:
            raise errors.NoMatch(kind='docstring', sought=self.target,
                                 hint='')
        return body[0]


@dataclass(frozen=True)
class AppendString(base.TargetEdit):
    """Append lines to a string constant that is assigned to a name.

    They get the indentation of the string's other lines.
    """

    text: str

    def apply(self, source: Source) -> Source:
        node = self._string(source)
        lines = range(node.lineno + 1, node.end_lineno)
        margin = min((source.indentation(line) for line in lines
                      if not source.is_blank(line)), key=len, default='')
        return source.insert_lines(
            node.end_lineno, blocks.placed_plain(self.text, margin))

    def _string(self, source: Source) -> ast.Constant:
        node = scope.find_value(source, self.target)
        last = source.lines[node.end_lineno - 1].strip()
        if not (isinstance(node, ast.Constant) and isinstance(node.value, str)
                and last[:3] in ('"""', "'''")):
            raise errors.WrongKind(
                sought=self.target, line=node.lineno,
                wanted='string whose closing quotes have a line of their own')
        return node


@dataclass(frozen=True)
class AppendFile(base.Edit):
    """Append to a file; blank lines at the start of the text stay."""

    text: str

    def apply(self, source: Source) -> Source:
        blank = len(self.text) - len(self.text.lstrip('\n')) - 1
        return source.insert_lines(
            len(source.lines) + 1,
            '\n' * blank + blocks.dedent_plain(self.text) + '\n')

    def changes(self) -> set[str]:
        return {scope.MODULE}.union(*map(
            scope.names_of, patterns.parse(self.text)))
