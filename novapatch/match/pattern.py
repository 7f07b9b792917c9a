# SPDX-License-Identifier: Apache-2.0
"""Patterns: fragments of Python that match pieces of a syntax tree.

- ``$X`` matches any expression; the same name twice must match equal things.
- ``...`` as the last item of a call, tuple, list or set matches whatever
  else is there.
- The header of a compound statement (``if a:``, ``for a in b:``,
  ``with a:``, ``def f():``) matches whatever its body; of a ``def`` or
  ``class`` only the name counts.
- Several lines match consecutive statements of one block.

Strings compare by value, so quotes don't matter.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
import re
from typing import cast
from typing import Generic
from typing import TypeAlias
from typing import TypeVar

from novapatch import errors
from novapatch.text import blocks
from novapatch.text.source import Node

_HOLE = '__hole_'
PLACEHOLDER = re.compile(r'\$([A-Za-z_]\w*)')
_BODY = ('body', 'orelse', 'finalbody', 'handlers', 'cases', 'type_comment')

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef

FUNCTIONS: tuple[type[Function], ...] = (
    ast.FunctionDef, ast.AsyncFunctionDef)
DEFINITIONS: tuple[type[Function | ast.ClassDef], ...] = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)

Captures = dict[str, ast.expr]
N = TypeVar('N', bound=Node, covariant=True)


def with_holes(text: str) -> str:
    """Make a text with ``$X`` parseable."""
    return PLACEHOLDER.sub(lambda found: _HOLE + found[1], text)


def _hole_name(node: ast.AST) -> str | None:
    """The name of the placeholder that a node is, if it is one."""
    if isinstance(node, ast.Name) and node.id.startswith(_HOLE):
        return node.id.removeprefix(_HOLE)
    return None


@dataclass(frozen=True)
class Match(Generic[N]):
    """A run of statements, or one expression, and what ``$X`` stand for."""

    nodes: tuple[N, ...]
    captures: Captures

    @property
    def line(self) -> int:
        return self.nodes[0].lineno


class Matcher:
    """Compares one pattern with one place, collecting captures."""

    def __init__(self) -> None:
        self.captures: Captures = {}

    def same(self, want: object, have: object) -> bool:
        """Whether a piece of a tree is as the pattern wants it."""
        if isinstance(want, ast.AST):
            return isinstance(have, ast.AST) and self._same_node(want, have)
        if isinstance(want, list):
            return isinstance(have, list) and self._same_items(want, have)
        if isinstance(want, str):
            # In a string it is what it looks like.
            want = want.replace(_HOLE, '$')
        # 1 == True == 1.0, but they are not the same text.
        return type(want) is type(have) and want == have

    def _same_node(self, want: ast.AST, have: ast.AST) -> bool:
        name = _hole_name(want)
        if name is not None and isinstance(have, ast.expr):
            known = self.captures.setdefault(name, have)
            return dump(known) == dump(have)
        if type(want) is not type(have):
            return False
        if isinstance(want, ast.Call) and isinstance(have, ast.Call):
            return self._same_call(want, have)
        return self._same_fields(want, have, ('ctx', 'kind', 'type_comment'))

    def _same_fields(self, want: ast.AST, have: ast.AST,
                     but: tuple[str, ...]) -> bool:
        return all(self.same(getattr(want, field), getattr(have, field))
                   for field in want._fields if field not in but)

    def _same_items(self, want: list, have: list) -> bool:
        if want and _is_ellipsis(want[-1]):
            want, have = want[:-1], have[:len(want) - 1]
        return len(want) == len(have) and all(map(self.same, want, have))

    def _same_call(self, want: ast.Call, have: ast.Call) -> bool:
        """Keywords match by name, in any order."""
        is_open = bool(want.args) and _is_ellipsis(want.args[-1])
        if not is_open and len(want.keywords) != len(have.keywords):
            return False
        if not self.same(want.func, have.func) or not self._same_items(
                want.args, have.args):
            return False
        for keyword in want.keywords:
            values = [other.value for other in have.keywords
                      if other.arg == keyword.arg]
            if len(values) != 1 or not self.same(keyword.value, values[0]):
                return False
        return True

    def same_header(self, want: ast.stmt, have: ast.stmt) -> bool:
        """Whether two compound statements have equal headers."""
        if type(want) is not type(have):
            return False
        if isinstance(want, DEFINITIONS) and isinstance(have, DEFINITIONS):
            return self.same(want.name, have.name)
        return self._same_fields(want, have, _BODY)


def dump(node: ast.AST) -> str:
    """A text that is equal for equal code, wherever it stands."""
    # A name on the left is another context, not another name.
    return re.sub(r', ctx=(Load|Store|Del)\(\)', '', ast.dump(node))


def _is_ellipsis(node: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is Ellipsis


@dataclass(frozen=True)
class Pattern:
    """A pattern that was read: statements, of which an expression is one.

    ``header`` says that only the header of the last statement counts.
    """

    text: str
    statements: tuple[ast.stmt, ...]
    header: bool

    @property
    def expression(self) -> ast.expr | None:
        """The expression, if the pattern is just one."""
        first = self.statements[0]
        if len(self.statements) == 1 and isinstance(first, ast.Expr):
            return first.value
        return None

    def match_expression(self, node: ast.AST) -> Match[ast.expr] | None:
        matcher = Matcher()
        if self.expression is not None and isinstance(
                node, ast.expr) and matcher.same(self.expression, node):
            return Match((node,), matcher.captures)
        return None

    def match_block(self, block: list[ast.stmt]) -> Iterator[Match[ast.stmt]]:
        """All runs of statements of a block that match."""
        for first in range(len(block) - len(self.statements) + 1):
            run = block[first:first + len(self.statements)]
            matcher = Matcher()
            last = matcher.same_header if self.header else matcher.same
            if all(map(matcher.same, self.statements[:-1], run)) and last(
                    self.statements[-1], run[-1]):
                yield Match(tuple(run), matcher.captures)


def read(text: str) -> Pattern:
    """Read a pattern.

    :raises: BadText if it is no fragment of Python
    """
    header = text.rstrip().endswith(':')
    # On one line with the header its body has the right margin.
    statements = parse(text, '%s pass' if header else '%s')
    if not statements:
        raise errors.BadText(text=text, reason='it is empty')
    return Pattern(text, tuple(statements), header)


def parse(text: str, form: str = '%s') -> list[ast.stmt]:
    """The statements of a fragment in a form; it may have ``$X``.

    :raises: BadText
    """
    try:
        return ast.parse(form % with_holes(blocks.dedent(text))).body
    except SyntaxError as error:
        raise errors.BadText(text=text, reason=error) from error


def parse_expression(text: str, form: str = '%s') -> ast.expr:
    """The expression that a fragment is, in a form.

    :raises: BadText
    """
    # The brackets allow it to span lines.
    return cast(ast.Expr, parse(text, f'(\n{form}\n)')[0]).value
