# SPDX-License-Identifier: Apache-2.0
"""Edits of statements: inserting them.

A comment directly above a statement belongs to it: what is inserted
before the statement goes above that comment (unless it is a comment
itself: that goes next to the statement, at the end of the comment).  A
comment behind the last statement of a block belongs to the block.
"""

import ast
from dataclasses import dataclass

from novapatch import errors
from novapatch.match import pattern as patterns
from novapatch.match import scope
from novapatch.match.scope import Target
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


def is_comment_only(text: str) -> bool:
    return all(line.lstrip().startswith('#')
               for line in text.split('\n') if line.strip())


def above_comments(source: Source, line: int, not_above: int) -> int:
    """The first line of the comment directly above a statement."""
    margin = source.indentation(line)
    while (line - 1 > not_above and source.is_comment(line - 1)
           and source.indentation(line - 1) == margin):
        line -= 1
    return line


def end_with_comments(source: Source, line: int, margin: str) -> int:
    """The last line of a block that ends at a line, comments included.

    Such comments are indented more than what the block belongs to.
    """
    end = line
    while line < len(source.lines):
        line += 1
        if source.is_blank(line):
            continue
        if not source.is_comment(line) or len(
                source.indentation(line)) <= len(margin):
            break
        end = line
    return end


def end_of(source: Source, node: patterns.Statement) -> int:
    """The last line of a statement, with the comments in its block."""
    if not any(scope.blocks_of(node)):
        return node.end_lineno
    return end_with_comments(source, node.end_lineno,
                             source.indentation(node.lineno))


def check_alone(source: Source,
                match: patterns.Match[patterns.Statement]) -> None:
    """Make sure that statements share their lines with nothing else.

    :raises: NoRoom
    """
    first, last = match.nodes[0], match.nodes[-1]
    line = first.lineno
    before = source.text[source.start_of(line):source.span(first)[0]]
    if before.strip(' \t@') and not hasattr(first, 'decorator_list'):
        raise errors.NoRoom(line=line, reason=(
            f'the statement stands on one line with {before.strip()!r}'))
    behind = source.lines[last.end_lineno - 1][
        source.span(last)[1] - source.start_of(last.end_lineno):].strip()
    if behind and not behind.startswith('#'):
        raise errors.NoRoom(line=last.end_lineno, reason=(
            f'the statement stands on one line with {behind!r}'))
    for node in match.nodes:
        if isinstance(node, ast.excepthandler) or (
                isinstance(node, ast.If)
                and source.segment(node).startswith('elif')):
            raise errors.NoRoom(line=node.lineno, reason=(
                'an elif or except is a part of another statement'))


@dataclass(frozen=True)
class _Statements(base.Edit):
    """Base of the edits that bring statements into a target."""

    target: str | Target

    @property
    def inserted(self) -> str:
        raise NotImplementedError

    def changes(self) -> set[str]:
        name = str(self.target)
        return {name} | base.names_in(name, base.parse(self.inserted))

    @property
    def shows(self) -> bool:
        return not is_comment_only(self.inserted)


@dataclass(frozen=True)
class InsertBeside(_Statements):
    """Statements before or after others."""

    pattern: str
    text: str
    after: bool

    @property
    def operation(self) -> str:
        return 'insert_after' if self.after else 'insert_before'

    @property
    def inserted(self) -> str:
        return self.text

    def apply(self, source: Source) -> Source:
        base.parse(self.text)
        match = scope.one_statement(source, self.target, self.pattern)
        check_alone(source, match)
        margin = source.indentation(match.line)
        if self.after:
            line = end_of(source, match.nodes[-1]) + 1
        else:
            line = scope.first_line(match.nodes[0])
            if not is_comment_only(self.text):
                previous = match.block[match.first - 1].end_lineno if (
                    match.first) else 0
                line = above_comments(source, line, previous)
        return source.insert_lines(line, with_gaps(self.text, margin))


@dataclass(frozen=True)
class InsertInto(_Statements):
    """Statements at the start or end of a body."""

    text: str
    within: str | None
    last: bool

    @property
    def operation(self) -> str:
        return 'insert_last' if self.last else 'insert_first'

    @property
    def inserted(self) -> str:
        return self.text

    def apply(self, source: Source) -> Source:
        base.parse(self.text)
        owner: ast.AST = scope.find(source, self.target)
        if self.within is not None:
            owner = scope.one_statement(
                source, self.target, self.within).nodes[-1]
        body = getattr(owner, 'body', None)
        if not isinstance(body, list):
            raise errors.WrongKind(
                sought=self.within or str(self.target),
                line=getattr(owner, 'lineno', 1), wanted='block')
        if not body:
            return source.insert_lines(len(source.lines) + 1,
                                       blocks.placed(self.text, ''))
        margin = self._margin(source, owner, body)
        line = (self._at_end(source, owner, body) if self.last
                else self._at_start(source, body))
        return source.insert_lines(line, with_gaps(self.text, margin))

    def _margin(self, source: Source, owner: ast.AST,
                body: list[ast.stmt]) -> str:
        # The header may span lines, and the body begin on its last one.
        first = body[0]
        line = scope.first_line(first)
        before = source.text[source.start_of(line):
                             source.offset(line, first.col_offset)]
        if before.strip(' \t@') or line == getattr(owner, 'lineno', 0):
            raise errors.NoRoom(line=line, reason=(
                'the block stands on one line with its header'))
        return source.indentation(line)

    def _at_start(self, source: Source, body: list[ast.stmt]) -> int:
        if patterns.docstring(body[0]) is None:
            return above_comments(source, scope.first_line(body[0]), 0)
        if len(body) == 1:
            return body[0].end_lineno + 1
        return above_comments(source, scope.first_line(body[1]),
                              body[0].end_lineno)

    def _at_end(self, source: Source, owner: ast.AST,
                body: list[ast.stmt]) -> int:
        line = getattr(owner, 'lineno', None)
        if line is None:
            return len(source.lines)
        return end_with_comments(
            source, body[-1].end_lineno, source.indentation(line)) + 1
