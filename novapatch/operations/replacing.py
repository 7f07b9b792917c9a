# SPDX-License-Identifier: Apache-2.0
"""Replacing an expression or a run of statements."""

import ast
from dataclasses import dataclass

from novapatch import errors
from novapatch.match import pattern as patterns
from novapatch.match import scope
from novapatch.operations import base
from novapatch.operations import statements
from novapatch.text import blocks
from novapatch.text.source import Source


def _are_same(plain: str, bracketed: str) -> bool:
    """Whether code means the same without some brackets."""
    try:
        return patterns.dump(ast.parse(plain)) == patterns.dump(
            ast.parse(bracketed))
    except SyntaxError:
        return False


def _filled(source: Source, captures: patterns.Captures, text: str) -> str:
    """The text with the captured expressions in it.

    Where one would fall apart in its new surroundings (``a or b`` before
    ``.c``) they get brackets.
    """
    for name in patterns.PLACEHOLDER.findall(text):
        if name not in captures:
            raise errors.BadText(text=text, reason=(
                f'${name} does not occur in the pattern'))
    plain, bracketed = (patterns.PLACEHOLDER.sub(
        lambda found: form % source.segment(captures[found[1]]), text)
        for form in ('%s', '(%s)'))
    return plain if _are_same(plain, bracketed) else bracketed


@dataclass(frozen=True)
class Replace(base.TargetEdit):
    """Replace an expression, or statements; ``$X`` may be used in both."""

    pattern: str
    text: str

    def apply(self, source: Source) -> Source:
        wanted = patterns.read(self.pattern)
        if wanted.header:
            raise errors.BadText(text=self.pattern, reason=(
                'a header alone can not be replaced; replace its '
                'expression'))
        if wanted.expression is not None and self._is_expression():
            return self._expression(source, scope.one_expression(
                source, self.target, self.pattern))
        return self._statements(source, scope.one_statement(
            source, self.target, self.pattern))

    def _is_expression(self) -> bool:
        try:
            patterns.parse_expression(self.text)
        except errors.BadText:
            return False
        return True

    def _expression(self, source: Source,
                    match: patterns.Match[ast.expr]) -> Source:
        node = match.nodes[0]
        start, end = source.span(node)
        text = _filled(source, match.captures, blocks.dedent(self.text))
        # As in the text, with the line in the place of its margin.
        text = blocks.indent(text, source.indentation(node.lineno)).strip()
        if self._needs_brackets(source, start, end, text):
            text = f'({text})'
        return source.splice((start, end, text))

    def _needs_brackets(self, source: Source, start: int, end: int,
                        text: str) -> bool:
        """Whether an expression falls apart where it is to stand."""
        node = scope.find(source, self.target)
        # The target alone is parsed much faster than the whole file.
        first, last = 0, len(source.text)
        if isinstance(node, ast.stmt):
            first = source.start_of(scope.first_line(node))
            last = source.span(node)[1]
        head, tail = source.text[first:start], source.text[end:last]
        if head[:1].isspace():
            head = 'if 1:\n' + head
        return not _are_same(f'{head}{text}{tail}', f'{head}({text}){tail}')

    def _statements(self, source: Source,
                    match: patterns.Match[ast.stmt]) -> Source:
        statements.check_alone(source, match)
        text = _filled(source, match.captures, blocks.dedent(self.text))
        patterns.parse(text)
        margin = source.indentation(match.line)
        start = source.start_of(scope.first_line(match.nodes[0]))
        end = source.span(match.nodes[-1])[1]
        return source.splice(
            (start, end, blocks.indent(text, margin).rstrip('\n')))
