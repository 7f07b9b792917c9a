# SPDX-License-Identifier: Apache-2.0
"""Finding targets (dotted names) and places inside of them."""

import ast
from collections.abc import Iterable
from collections.abc import Iterator
from dataclasses import dataclass
import difflib
from typing import TypeAlias

from novapatch import errors
from novapatch.match import pattern as patterns
from novapatch.match.pattern import DEFINITIONS
from novapatch.match.pattern import N
from novapatch.text import blocks
from novapatch.text.source import Node
from novapatch.text.source import Source

MODULE = ''

Definition: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
Assignment: TypeAlias = ast.Assign | ast.AnnAssign
Named: TypeAlias = Definition | Assignment

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_BLOCKS = ('body', 'orelse', 'finalbody', 'handlers')


@dataclass(frozen=True)
class Target:
    """A dotted name; ``decorated`` tells apart several of that name."""

    name: str
    decorated: str | None = None

    def __str__(self) -> str:
        return self.name


def as_target(target: str | Target) -> Target:
    return target if isinstance(target, Target) else Target(target)


def blocks_of(node: ast.AST) -> Iterator[list]:
    """The lists of statements (or handlers) directly in a statement."""
    for field in _BLOCKS:
        block = getattr(node, field, None)
        # The body of a lambda is no block.
        if isinstance(block, list) and block:
            yield block
    for case in getattr(node, 'cases', ()):
        yield case.body


def all_blocks(node: ast.AST, into_definitions: bool) -> Iterator[list]:
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


def _named(scope: ast.AST) -> Iterator[tuple[str, Named]]:
    """What a module, class or function defines, also inside if and try."""
    for block in all_blocks(scope, into_definitions=False):
        for statement in block:
            for name in names_of(statement):
                yield name, statement


def _is_decorated(node: ast.AST, pattern: str) -> bool:
    wanted = patterns.read(pattern.lstrip('@'))
    return any(wanted.match_expression(decorator)
               for decorator in getattr(node, 'decorator_list', ()))


def find(source: Source, target: str | Target) -> ast.Module | Named:
    """The one definition or assignment that has a dotted name.

    :raises: TargetNotFound, TargetAmbiguous
    """
    target = as_target(target)
    node: ast.Module | Named = source.tree
    if target.name == MODULE:
        return node
    parts = target.name.split('.')
    for depth, part in enumerate(parts):
        found = list(_named(node))
        matches = [item for name, item in found if name == part]
        if depth == len(parts) - 1 and target.decorated:
            matches = [item for item in matches
                       if _is_decorated(item, target.decorated)]
        if not matches:
            near = difflib.get_close_matches(
                part, {name for name, item in found}, n=3)
            hint = f' (near: {errors.listed(near)})' if near else ''
            raise errors.TargetNotFound(target=target.name, hint=hint)
        if len(matches) > 1:
            raise errors.TargetAmbiguous(
                target=target.name, count=len(matches),
                lines=errors.listed(item.lineno for item in matches))
        node = matches[0]
    return node


def exists(source: Source, name: str) -> bool:
    try:
        find(source, name)
    except errors.TargetNotFound:
        return False
    except errors.TargetAmbiguous:
        return True
    return True


def find_definition(source: Source, target: str | Target) -> Definition:
    """Like :func:`find`, of functions and classes only.

    :raises: WrongKind too
    """
    node = find(source, target)
    if not isinstance(node, DEFINITIONS):
        raise _wrong_kind(target, node, 'function or class')
    return node


def find_function(source: Source, target: str | Target) -> Function:
    node = find(source, target)
    if not isinstance(node, FUNCTIONS):
        raise _wrong_kind(target, node, 'function')
    return node


def find_assignment(source: Source, target: str | Target) -> Assignment:
    """Like :func:`find`, of assignments with a value only."""
    node = find(source, target)
    if not isinstance(node, (ast.Assign, ast.AnnAssign)):
        raise _wrong_kind(target, node, 'assignment')
    if node.value is None:
        raise _wrong_kind(target, node, 'assignment of a value')
    return node


def _wrong_kind(target: str | Target, node: ast.AST,
                wanted: str) -> errors.WrongKind:
    return errors.WrongKind(sought=str(target), wanted=wanted,
                            line=getattr(node, 'lineno', 1))


def first_line(node: Node) -> int:
    """The line where a statement starts, its decorators included."""
    decorators = getattr(node, 'decorator_list', None)
    # "@" and the expression share a line in any code we will meet.
    return min([item.lineno for item in decorators or ()] + [node.lineno])


def lines_of(source: Source, node: ast.Module | Node) -> tuple[int, int]:
    """The first and the last line of a target."""
    if isinstance(node, ast.Module):
        return 1, len(source.lines)
    return first_line(node), node.end_lineno


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


def find_expressions(node: ast.AST,
                     pattern: patterns.Pattern,
                     ) -> list[patterns.Match[ast.expr]]:
    """All expressions of a target that match, in the order of the text."""
    matches = [match for child in _expressions(node)
               if (match := pattern.match_expression(child))]
    return sorted(matches, key=lambda match: (
        match.line, match.nodes[0].col_offset))


def find_statements(source: Source, node: ast.Module | Node,
                    pattern: patterns.Pattern,
                    ) -> list[patterns.Match[patterns.Statement]]:
    """All runs of statements of a target that match."""
    if pattern.words:
        return _below_comments(source, node, pattern)
    return [match for block in all_blocks(node, _enters(node))
            for match in pattern.match_block(block)]


def one(matches: list[patterns.Match[N]], pattern: patterns.Pattern,
        kind: str, hint: str = '') -> patterns.Match[N]:
    """The only match.

    :raises: NoMatch, ManyMatches
    """
    if not matches:
        raise errors.NoMatch(kind=kind, sought=pattern.text, hint=hint)
    if len(matches) > 1:
        raise errors.ManyMatches(
            count=len(matches), sought=pattern.text,
            lines=errors.listed(sorted(match.line for match in matches)))
    return matches[0]


def one_expression(source: Source, target: str | Target,
                   pattern: str) -> patterns.Match[ast.expr]:
    """The one expression in a target that matches a pattern."""
    node, wanted = find(source, target), patterns.read(pattern)
    if wanted.expression is None:
        raise errors.BadPattern(pattern=pattern,
                                reason='it is no expression')
    matches = find_expressions(node, wanted)
    hint = '' if matches else _nearest(
        source, pattern, _calls_like(node, wanted.expression))
    return one(matches, wanted, 'expression', hint)


def one_statement(source: Source, target: str | Target,
                  pattern: str) -> patterns.Match[patterns.Statement]:
    """The one run of statements in a target that matches a pattern."""
    node, wanted = find(source, target), patterns.read(pattern)
    matches = find_statements(source, node, wanted)
    hint = '' if matches else _nearest(
        source, pattern, (statement
                          for block in all_blocks(node, _enters(node))
                          for statement in block))
    return one(matches, wanted, 'statement', hint)


def _calls_like(node: ast.AST, wanted: ast.expr) -> Iterator[ast.expr]:
    return (child for child in _expressions(node)
            if isinstance(child, ast.expr) and type(child) is type(wanted))


def _nearest(source: Source, sought: str,
             nodes: Iterable[Node]) -> str:
    """A hint at the lines that look most like what was not found."""
    lines = {source.lines[node.lineno - 1].strip(): node.lineno
             for node in nodes}
    near = difflib.get_close_matches(
        blocks.dedent(sought).split('\n')[0], lines, n=2, cutoff=0.5)
    if not near:
        return ''
    return ' (near: ' + errors.listed(
        f'line {lines[text]}: {text}' for text in near) + ')'


def _below_comments(source: Source, node: ast.Module | Node,
                    pattern: patterns.Pattern,
                    ) -> list[patterns.Match[patterns.Statement]]:
    """The statements directly below the comments that have the words."""
    first, last = lines_of(source, node)
    text = '\n'.join(source.lines[first - 1:last])
    inside = {first + line for line in blocks.string_lines(text)}
    comments: list[tuple[int, int]] = []
    line = first
    while line <= last:
        words: list[str] = []
        start = line
        while (line <= last and line not in inside
               and source.is_comment(line)):
            words.append(source.lines[line - 1].strip().lstrip('# '))
            line += 1
        if line == start:
            line += 1
        elif pattern.words in ' '.join(' '.join(words).split()):
            comments.append((start, line))
    matches = []
    for comment, below in comments:
        while below <= last and source.is_blank(below):
            below += 1
        match = _statement_at(node, below)
        if match is None:
            raise errors.NoRoom(line=comment, reason=(
                'there is no statement directly below the comment'))
        matches.append(match)
    return matches


def _statement_at(node: ast.AST,
                  line: int) -> patterns.Match[patterns.Statement] | None:
    for block in all_blocks(node, _enters(node)):
        for index, statement in enumerate(block):
            if first_line(statement) == line and not isinstance(
                    statement, ast.excepthandler):
                return patterns.Match((statement,), {}, block, index, index)
    return None
