# SPDX-License-Identifier: Apache-2.0
"""Edits that add imports, functions, docstrings and whole ends of files.

Imports are sorted by the full path of what is imported, without regard to
case: ``from a.b import c`` counts as ``a.b.c``, ``import a.b`` as ``a.b``.
"""

import ast
import contextlib
import itertools
from typing import TypeAlias

from novapatch import errors
from novapatch.match import pattern as patterns
from novapatch.match import scope
from novapatch.operations import base
from novapatch.operations import statements
from novapatch.text import blocks
from novapatch.text.source import Source

Import: TypeAlias = ast.Import | ast.ImportFrom
IMPORTS = (ast.Import, ast.ImportFrom)


def _key(node: Import) -> str:
    path = node.names[0].name
    if isinstance(node, ast.ImportFrom):
        path = f'{"." * node.level}{node.module or ""}.{path}'
    return path.lower()


def _imports(tree: ast.Module) -> list[Import]:
    """The imports at the top of a module.

    They may be mixed with other statements (monkey patching comes before
    the rest of the imports), but a definition ends them.
    """
    top = itertools.takewhile(
        lambda node: not isinstance(node, patterns.DEFINITIONS), tree.body)
    return [node for node in top if isinstance(node, IMPORTS)]


class AddImport(base.Edit):
    """Add an import in its sorted place among those of its package.

    The first one of a package comes last.
    """

    text: str

    def apply(self, source: Source) -> Source:
        node, *more = patterns.parse(self.text)
        if more or not isinstance(node, IMPORTS):
            raise errors.BadText(text=self.text,
                                 reason='it is not one import')
        package = _key(node).split('.')[0]
        text, imports = blocks.placed(self.text, ''), _imports(source.tree)
        if not imports:
            raise errors.NoMatch(kind='import', sought=package, hint='')
        mates = [each for each in imports
                 if _key(each).split('.')[0] == package]
        if not mates:
            return source.insert_lines(imports[-1].end_lineno + 1,
                                       '\n' + text)
        for mate in mates:
            if patterns.dump(mate) == patterns.dump(node):
                raise errors.AlreadyThere(what=repr(self.text),
                                          line=mate.lineno)
        # Where they are not sorted as a whole, the first place that fits.
        smaller = list(itertools.takewhile(
            lambda mate: _key(mate) < _key(node), mates))
        line = smaller[-1].end_lineno + 1 if smaller else mates[0].lineno
        return source.insert_lines(line, text)

    def changes(self) -> set[str]:
        return {'import'}


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
                raise errors.AlreadyThere(what=name, line=getattr(
                    there, 'lineno', 1))
        margin = source.indentation(neighbour.lineno)
        text = blocks.placed(self.text, margin)
        gap = '\n' if margin else '\n\n'
        if self.after is not None:
            line = statements.end_of(source, neighbour) + 1
            return source.insert_lines(line, gap + text)
        line = statements.above_comments(source, scope.first_line(neighbour))
        return source.insert_lines(line, text + gap)


class AppendString(base.TargetEdit):
    """Append lines to a string constant that is assigned to a name.

    They get the indentation of the string's other lines.
    """

    text: str

    def apply(self, source: Source) -> Source:
        node = scope.find_value(source, self.target)
        lines = range(node.lineno + 1, node.end_lineno)
        margin = min((source.indentation(line) for line in lines
                      if not source.is_blank(line)), key=len, default='')
        return self._append(source, node, margin)

    def _append(self, source: Source, node: ast.expr, margin: str,
                gap: str = '') -> Source:
        end = source.lines[node.end_lineno - 1].strip()
        if not (isinstance(node, ast.Constant) and isinstance(node.value, str)
                and end in ('"""', "'''")):
            raise errors.WrongKind(
                sought=self.target, line=node.lineno,
                wanted='string whose closing quotes have a line of their own')
        return source.insert_lines(
            node.end_lineno, gap + blocks.placed_plain(self.text, margin))


class AppendDocstring(AppendString):
    """Append a paragraph to a docstring."""

    def apply(self, source: Source) -> Source:
        first, *_ = getattr(scope.find(source, self.target), 'body', [None])
        if not isinstance(first, ast.Expr):
            raise errors.NoMatch(kind='docstring', sought=self.target,
                                 hint='')
        margin = source.indentation(first.lineno)
        return self._append(source, first.value, margin, gap='\n')


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
