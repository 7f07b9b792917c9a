# SPDX-License-Identifier: Apache-2.0
"""Replacing an expression or a run of statements."""

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

_PLACEHOLDER = re.compile(r'\$([A-Za-z_]\w*)')


class _Filler(ast.NodeTransformer):
    """Puts what was captured in the place of the placeholders."""

    def __init__(self, captures: dict[str, ast.expr]) -> None:
        self.captures = captures

    def visit_Name(self, node: ast.Name) -> ast.expr:
        name = patterns.hole_name(node)
        return node if name is None else self.captures[name]


def _texts(source: Source, captures: patterns.Captures,
           text: str) -> dict[str, str]:
    texts = {name: node if isinstance(node, str) else source.segment(node)
             for name, node in captures.items()}
    for name in _PLACEHOLDER.findall(text):
        if name not in texts:
            raise errors.BadText(text=text, reason=(
                f'${name} does not occur in the pattern'))
    return texts


def _filled(source: Source, captures: patterns.Captures, text: str) -> str:
    """The text with the captured expressions in it.

    An expression that would fall apart in its new surroundings
    (``a or b`` before ``.c``) gets brackets.
    """
    texts = _texts(source, captures, text)
    plain = _PLACEHOLDER.sub(lambda found: texts[found[1]], text)
    nodes = {name: node for name, node in captures.items()
             if isinstance(node, ast.expr)}
    if not texts or nodes.keys() != texts.keys():
        return plain
    want = [patterns.dump(_Filler(nodes).visit(node))
            for node in base.parse(text)]
    try:
        have = [patterns.dump(node) for node in base.parse(plain)]
    except errors.BadText:
        have = []
    if want == have:
        return plain
    return _PLACEHOLDER.sub(lambda found: f'({texts[found[1]]})', text)


@dataclass(frozen=True)
class Replace(base.Edit):
    target: str | Target
    pattern: str
    text: str

    operation = 'replace'

    def apply(self, source: Source) -> Source:
        wanted = patterns.read(self.pattern)
        if wanted.header:
            raise errors.BadPattern(pattern=self.pattern, reason=(
                'a header alone can not be replaced; replace its '
                'expression'))
        if wanted.expression is not None and self._is_expression():
            return self._expression(source, scope.one_expression(
                source, self.target, self.pattern))
        return self._statements(source, scope.one_statement(
            source, self.target, self.pattern))

    def _is_expression(self) -> bool:
        try:
            base.parse_expression(blocks.dedent(self.text))
        except errors.BadText:
            return False
        return True

    def _expression(self, source: Source,
                    match: patterns.Match[ast.expr]) -> Source:
        node = match.nodes[0]
        start, end = source.span(node)
        text = _filled(source, match.captures, blocks.dedent(self.text))
        first, *others = text.split('\n')
        if others:
            # As in the text, with the line in the place of its margin.
            margin = source.indentation(node.lineno)
            text = first + '\n' + blocks.indent(
                '\n'.join(others), margin).rstrip('\n')
        result = source.splice((start, end, text))
        if _stands_at(result, self._region(source, result), start, text):
            return result
        return source.splice((start, end, f'({text})'))

    def _region(self, source: Source, result: Source) -> tuple[int, int]:
        """Where the target stands in the result."""
        first, last = scope.lines_of(
            source, scope.find(source, self.target))
        grown = len(result.text) - len(source.text)
        return (source.start_of(first),
                source.start_of(last) + len(source.lines[last - 1]) + grown)

    def _statements(self, source: Source,
                    match: patterns.Match[patterns.Statement]) -> Source:
        statements.check_alone(source, match)
        text = _filled(source, match.captures, blocks.dedent(self.text))
        base.parse(text)
        margin = source.indentation(match.line)
        start = source.start_of(scope.first_line(match.nodes[0]))
        end = source.span(match.nodes[-1])[1]
        return source.splice(
            (start, end, blocks.indent(text, margin).rstrip('\n')))

    def changes(self) -> set[str]:
        name = str(self.target)
        changed = {name}
        if not self._is_expression():
            changed |= base.names_in(name, base.parse(self.text))
            changed |= base.names_in(
                name, patterns.read(self.pattern).statements)
        return changed


def _stands_at(result: Source, region: tuple[int, int], start: int,
               text: str) -> bool:
    """Whether an expression is understood where it stands as alone."""
    want = patterns.dump(base.parse_expression(text))
    first, last = region
    # The target alone is parsed much faster than the whole file.
    head = 'if 1:\n' if result.text[first:first + 1] in (' ', '\t') else ''
    part = Source(head + result.text[first:last])
    start += len(head) - first
    end = start + len(text)
    line = part.line_at(start)
    try:
        nodes = list(ast.walk(part.tree))
    except errors.ResultBroken:
        return False
    return any(
        isinstance(node, ast.expr) and node.lineno <= line <= node.end_lineno
        and part.span(node) == (start, end)
        and patterns.dump(node) == want for node in nodes)
