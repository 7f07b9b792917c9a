# SPDX-License-Identifier: Apache-2.0
"""Finding targets (dotted names) and places inside of them."""

import ast
from collections.abc import Iterable
from collections.abc import Iterator
import difflib
import itertools
from typing import TypeVar

from novapatch import errors
from novapatch.match import pattern as patterns
from novapatch.match.pattern import DEFINITIONS
from novapatch.match.pattern import FUNCTIONS
from novapatch.text.blocks import dedent
from novapatch.text.source import Node
from novapatch.text.source import Source

MODULE = ''

T = TypeVar('T')
K = TypeVar('K', bound=ast.stmt)

ASSIGNMENTS: tuple[type[ast.Assign | ast.AnnAssign], ...] = (
    ast.Assign, ast.AnnAssign)


def blocks_of(node: ast.AST) -> Iterator[list[ast.stmt]]:
    """The lists of statements directly in a statement."""
    parts = *getattr(node, 'handlers', ()), *getattr(node, 'cases', ())
    for part in (node, *parts):
        for field in 'body', 'orelse', 'finalbody':
            if block := getattr(part, field, None):
                yield block


def all_blocks(node: ast.AST,
               into_definitions: bool) -> Iterator[list[ast.stmt]]:
    """All blocks in a statement, the outer before the inner."""
    for block in blocks_of(node):
        yield block
        for child in block:
            if into_definitions or not isinstance(child, DEFINITIONS):
                yield from all_blocks(child, into_definitions)


def names_of(statement: ast.AST) -> list[str]:
    """The names that a definition or an assignment gives."""
    if isinstance(statement, DEFINITIONS):
        return [statement.name]
    if isinstance(statement, ast.Assign):
        places = statement.targets
    elif isinstance(statement, ast.AnnAssign):
        places = [statement.target]
    else:
        return []
    return [ast.unparse(place) for place in places
            if isinstance(place, (ast.Name, ast.Attribute))]


def _named(scope: ast.AST) -> Iterator[tuple[str, ast.stmt]]:
    """What a module, class or function defines, also inside if and try."""
    for block in all_blocks(scope, into_definitions=False):
        for statement in block:
            for name in names_of(statement):
                yield name, statement


def find(source: Source, target: str) -> ast.Module | ast.stmt:
    """The one definition or assignment that has a dotted name.

    :raises: NoMatch, ManyMatches
    """
    node: ast.Module | ast.stmt = source.tree
    for part in target.split('.') if target != MODULE else ():
        found = list(_named(node))
        matches = [(item.lineno, item) for name, item in found if name == part]
        node = one(matches, 'name', target, '' if matches else _near(
            difflib.get_close_matches(part, {name for name, item in found})))
    return node


def find_kind(source: Source, target: str, kinds: tuple[type[K], ...],
              wanted: str) -> K:
    """Like :func:`find`, of some kinds of statements only.

    :raises: WrongKind too
    """
    node = find(source, target)
    if not isinstance(node, kinds):
        raise errors.WrongKind(sought=target, wanted=wanted,
                               line=getattr(node, 'lineno', 1))
    return node


def find_value(source: Source, target: str) -> ast.expr:
    """The value that is assigned to a dotted name.

    :raises: WrongKind too
    """
    wanted = 'assignment of a value'
    node = find_kind(source, target, ASSIGNMENTS, wanted)
    if node.value is None:
        raise errors.WrongKind(sought=target, wanted=wanted,
                               line=node.lineno)
    return node.value


def first_line(node: ast.stmt) -> int:
    """The line where a statement starts, its decorators included."""
    # "@" and the expression share a line in any code we will meet.
    decorators = getattr(node, 'decorator_list', ())
    return min([item.lineno for item in decorators], default=node.lineno)


# -- places inside of a target --------------------------------------------

def _enters(node: ast.AST) -> bool:
    """Whether a search in a target goes on into nested definitions.

    A function is searched as a whole; in a class or module only what
    stands in it directly, for its functions are targets of their own.
    """
    return isinstance(node, FUNCTIONS)


def _expressions(node: ast.AST) -> Iterator[ast.AST]:
    """All expressions in a target."""
    waiting: list[ast.AST] = [node]
    while waiting:
        current = waiting.pop()
        yield current
        for child in ast.iter_child_nodes(current):
            if _enters(node) or not isinstance(child, DEFINITIONS):
                waiting.append(child)


def one(found: list[tuple[int, T]], kind: str, sought: str,
        hint: str = '') -> T:
    """The only one of what was found, each with its line.

    :raises: NoMatch, ManyMatches
    """
    if not found:
        raise errors.NoMatch(kind=kind, sought=sought, hint=hint)
    if len(found) > 1:
        raise errors.ManyMatches(
            count=len(found), sought=sought,
            lines=errors.listed(sorted(line for line, item in found)))
    return found[0][1]


def one_expression(source: Source, target: str,
                   pattern: str) -> patterns.Match[ast.expr]:
    """The one expression in a target that matches a pattern."""
    node, wanted = find(source, target), patterns.read(pattern)
    if wanted.expression is None:
        raise errors.BadText(text=pattern, reason='it is no expression')
    expressions = list(_expressions(node))
    matches = [(match.line, match) for child in expressions
               if (match := wanted.match_expression(child))]
    hint = '' if matches else _nearest(source, pattern, [
        child for child in expressions if isinstance(child, ast.expr)
        and type(child) is type(wanted.expression)])
    return one(matches, 'expression', pattern, hint)


def one_statement(source: Source, target: str,
                  pattern: str) -> patterns.Match[ast.stmt]:
    """The one run of statements in a target that matches a pattern."""
    node, wanted = find(source, target), patterns.read(pattern)
    blocks = list(all_blocks(node, _enters(node)))
    matches = [(match.line, match) for block in blocks
               for match in wanted.match_block(block)]
    hint = '' if matches else _nearest(
        source, pattern, itertools.chain(*blocks))
    return one(matches, 'statement', pattern, hint)


def _nearest(source: Source, sought: str,
             nodes: Iterable[Node]) -> str:
    """A hint at the lines that look most like what was not found."""
    lines = {source.lines[node.lineno - 1].strip(): node.lineno
             for node in nodes}
    return _near(f'line {lines[text]}: {text}'
                 for text in difflib.get_close_matches(
                     dedent(sought).split('\n')[0], lines, n=2, cutoff=0.5))


def _near(things: Iterable[str]) -> str:
    listed = errors.listed(things)
    return f' (near: {listed})' if listed else ''
