# SPDX-License-Identifier: Apache-2.0
"""Edits in functions: of statements, contexts of ``with``, expressions.

A comment directly above a statement belongs to it: what is inserted
before the statement goes above that comment (unless it is a comment
itself: that goes next to the statement, at the end of the comment).  A
comment behind the last statement of a block belongs to the block.
"""

import ast

from novapatch import errors
from novapatch.match import pattern as patterns
from novapatch.match import scope
from novapatch.operations import base
from novapatch.text import blocks
from novapatch.text.source import Source


def with_gaps(text: str, margin: str) -> str:
    """The text at its indentation, with the blank lines it asks for.

    An empty line at the very start or end of the text stays.
    """
    placed = blocks.placed(text, margin)
    head = text[:len(text) - len(text.lstrip())]
    tail = text[len(text.rstrip()):]
    return ('\n' if head.count('\n') > 1 else '') + placed + (
        '\n' if tail.count('\n') > 1 else '')


def above_comments(source: Source, line: int) -> int:
    """The first line of the comment directly above a statement."""
    margin = source.indentation(line)
    while (line > 1 and source.is_comment(line - 1)
           and source.indentation(line - 1) == margin):
        line -= 1
    return line


def end_of(source: Source, node: ast.stmt) -> int:
    """The last line of a statement, with the comments in its block.

    Such comments are indented more than the statement.
    """
    line = end = node.end_lineno
    margin = source.indentation(node.lineno)
    while any(scope.blocks_of(node)) and line < len(source.lines):
        line += 1
        if source.is_blank(line):
            continue
        if not source.is_comment(line) or len(
                source.indentation(line)) <= len(margin):
            break
        end = line
    return end


def check_alone(source: Source, match: patterns.Match[ast.stmt]) -> None:
    """Make sure that statements share their lines with nothing else.

    :raises: NoRoom
    """
    first, last = match.nodes[0], match.nodes[-1]
    line = first.lineno
    before = source.text[source.start_of(line):source.span(first)[0]]
    if before.strip() and not hasattr(first, 'decorator_list'):
        raise errors.NoRoom(line=line, reason=(
            f'the statement stands on one line with {before.strip()!r}'))
    behind = source.lines[last.end_lineno - 1][
        source.span(last)[1] - source.start_of(last.end_lineno):].strip()
    if behind and not behind.startswith('#'):
        raise errors.NoRoom(line=last.end_lineno, reason=(
            f'the statement stands on one line with {behind!r}'))
    if source.segment(first).startswith('elif'):
        raise errors.NoRoom(line=line, reason=(
            'an elif is a part of another statement'))


class _Insert(base.TargetEdit):
    pattern: str
    text: str

    @property
    def _is_comment(self) -> bool:
        return not patterns.parse(self.text)

    def apply(self, source: Source) -> Source:
        patterns.parse(self.text)
        match = scope.one_statement(source, self.target, self.pattern)
        check_alone(source, match)
        text = with_gaps(self.text, source.indentation(match.line))
        return source.insert_lines(self._line(source, match.nodes), text)

    def _line(self, source: Source, nodes: tuple[ast.stmt, ...]) -> int:
        raise NotImplementedError


class InsertBefore(_Insert):
    """Insert statements before others, and above their comment."""

    def _line(self, source: Source, nodes: tuple[ast.stmt, ...]) -> int:
        line = scope.first_line(nodes[0])
        return line if self._is_comment else above_comments(source, line)


class InsertAfter(_Insert):
    """Insert statements after others."""

    def _line(self, source: Source, nodes: tuple[ast.stmt, ...]) -> int:
        return end_of(source, nodes[-1]) + 1


class AddContext(base.TargetEdit):
    """Add a context to a ``with`` statement that is there.

    Nothing below the statement moves to the right, as it would if it were
    put under a statement of its own.

    :param pattern: the header of the statement
    :param first: whether it is entered before the others, and not after
    """

    pattern: str
    context: str
    first: bool = False

    def apply(self, source: Source) -> Source:
        patterns.parse_expression(self.context)
        match = scope.one_statement(source, self.target, self.pattern)
        node = match.nodes[-1]
        if not isinstance(node, ast.With):
            raise errors.WrongKind(
                sought=self.pattern, line=node.lineno, wanted='with')
        start = source.span(node.items[0].context_expr)[0]
        last = node.items[-1].optional_vars or node.items[-1].context_expr
        end = source.span(last)[1]
        if source.text[source.span(node)[0]:start].strip() != 'with':
            raise errors.NoRoom(line=node.lineno, reason=(
                'the contexts stand in brackets'))
        # On a further line they stand below the first one.
        margin = source.indentation(node.lineno) + len('with ') * ' '
        text = blocks.placed(self.context, margin).strip()
        separator = ', \\\n' + margin
        if self.first:
            return source.splice((start, start, text + separator))
        return source.splice((end, end, separator + text))


# -- replacing ------------------------------------------------------------

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
        check_alone(source, match)
        text = _filled(source, match.captures, blocks.dedent(self.text))
        patterns.parse(text)
        margin = source.indentation(match.line)
        start = source.start_of(scope.first_line(match.nodes[0]))
        end = source.span(match.nodes[-1])[1]
        return source.splice(
            (start, end, blocks.indent(text, margin).rstrip('\n')))
