# SPDX-License-Identifier: Apache-2.0
"""Patterns: fragments of Python that match pieces of a syntax tree.

- ``$X`` matches any expression (or any name after a dot); the same name
  twice must match equal things.
- ``...`` as the last item of a call, tuple, list, set or dict matches
  whatever else is there; alone on a line, between two statements, it
  matches any statements between them.
- The header of a compound statement (``if a:``, ``for a in b:``,
  ``try:``, ``except A:``, ``def f():``) matches whatever its body; of a
  ``def`` or ``class`` only the name counts.
- Several lines match consecutive statements of one block.
- A comment line matches the statement directly below the one comment that
  contains its words.

Strings compare by value, so quotes don't matter.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
import inspect
import re
import tokenize
from typing import Generic
from typing import TypeAlias
from typing import TypeVar

from novapatch import errors
from novapatch.text import blocks
from novapatch.text.source import Node

_HOLE = '__hole_'
_REST = '__rest__'
_PLACEHOLDER = re.compile(r'\$([A-Za-z_]\w*)')
_HANDLER = re.compile(r'except\b.*:$', re.DOTALL)

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)

Captures = dict[str, ast.expr | str]
Block = list[ast.stmt] | list[ast.excepthandler]
Statement: TypeAlias = ast.stmt | ast.excepthandler
N = TypeVar('N', bound=Node, covariant=True)


def with_holes(text: str) -> str:
    """Make a text with ``$X`` parseable."""
    return _PLACEHOLDER.sub(lambda found: _HOLE + found[1], text)


def hole_name(node: ast.AST) -> str | None:
    """The name of the placeholder that a node is, if it is one."""
    if isinstance(node, ast.Name) and node.id.startswith(_HOLE):
        return node.id.removeprefix(_HOLE)
    return None


def _with_rest(text: str) -> str:
    """Make ``...`` parseable after a keyword and inside a dict."""
    stack: list[tuple[str, bool]] = []
    starts, previous, result = [], None, text
    line_starts = [0]
    for line in text.split('\n'):
        line_starts.append(line_starts[-1] + len(line) + 1)
    for token in blocks.tokens(text):
        if token.string in ('(', '[', '{'):
            called = previous is not None and (
                previous.type == tokenize.NAME
                or previous.string in (')', ']'))
            stack.append((token.string, called))
        elif token.string == ':' and stack and stack[-1][0] == '{':
            stack[-1] = ('{', True)
        elif token.string in (')', ']', '}') and stack:
            bracket, special = stack.pop()
            if (special and bracket != '[' and previous is not None
                    and previous.string == '...'):
                row, column = previous.start
                starts.append(line_starts[row - 1] + column)
        previous = token
    for start in reversed(starts):
        result = result[:start] + '**' + _REST + result[start + 3:]
    return result


@dataclass(frozen=True)
class Match(Generic[N]):
    """A run of statements, or one expression, and what ``$X`` stand for.

    For statements ``block`` is the list that holds them and ``first`` and
    ``last`` the indexes of the ends of the run.
    """

    nodes: tuple[N, ...]
    captures: Captures
    block: Block | None = None
    first: int = 0
    last: int = 0

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
        if isinstance(want, str) and want.startswith(_HOLE):
            return isinstance(have, str) and self._capture(
                want.removeprefix(_HOLE), have)
        if isinstance(want, str) and _HOLE in want:
            want = want.replace(_HOLE, '$')
        # 1 == True == 1.0, but they are not the same text.
        return type(want) is type(have) and want == have

    def _same_node(self, want: ast.AST, have: ast.AST) -> bool:
        name = hole_name(want)
        if name is not None and isinstance(have, ast.expr):
            return self._capture(name, have)
        if type(want) is not type(have):
            return False
        if isinstance(want, ast.Call) and isinstance(have, ast.Call):
            return self._same_call(want, have)
        if isinstance(want, ast.Dict) and isinstance(have, ast.Dict):
            return self._same_dict(want, have)
        docstrings = docstring(want), docstring(have)
        if None not in docstrings:
            # It moves with the code around it.
            return inspect.cleandoc(docstrings[0]) == inspect.cleandoc(
                docstrings[1])
        for field in want._fields:
            if field in ('ctx', 'kind', 'type_comment'):
                continue
            if not self.same(getattr(want, field), getattr(have, field)):
                return False
        return True

    def _capture(self, name: str, have: ast.expr | str) -> bool:
        if name not in self.captures:
            self.captures[name] = have
            return True
        return _dump(self.captures[name]) == _dump(have)

    def _same_items(self, want: list, have: list) -> bool:
        if want and _is_ellipsis(want[-1]) and isinstance(
                want[-1], ast.expr):
            want, have = want[:-1], have[:len(want) - 1]
        return len(want) == len(have) and all(
            self.same(one, other)
            for one, other in zip(want, have, strict=True))

    def _same_call(self, want: ast.Call, have: ast.Call) -> bool:
        keywords = [keyword for keyword in want.keywords
                    if not _is_rest(keyword.value)]
        open_ended = is_open_ended(want)
        args = want.args
        if args and _is_ellipsis(args[-1]):
            args = args[:-1]
        if not self.same(want.func, have.func):
            return False
        if len(have.args) < len(args) or (
                not open_ended and len(have.args) > len(args)):
            return False
        if not open_ended and len(have.keywords) != len(keywords):
            return False
        return all(
            self.same(one, other) for one, other in zip(args, have.args)
        ) and self._same_keywords(keywords, have.keywords)

    def _same_keywords(self, want: list[ast.keyword],
                       have: list[ast.keyword]) -> bool:
        """Keywords match by name, in any order."""
        for keyword in want:
            values = [other.value for other in have
                      if other.arg == keyword.arg]
            if len(values) != 1 or not self.same(keyword.value, values[0]):
                return False
        return True

    def _same_dict(self, want: ast.Dict, have: ast.Dict) -> bool:
        keys, values = want.keys, want.values
        if keys and keys[-1] is None and _is_rest(values[-1]):
            keys, values = keys[:-1], values[:-1]
            if len(have.keys) < len(keys):
                return False
        elif len(have.keys) != len(keys):
            return False
        return all(
            (key is None) == (other is None)
            and (key is None or self.same(key, other))
            for key, other in zip(keys, have.keys)
        ) and all(self.same(one, other)
                  for one, other in zip(values, have.values))

    def same_header(self, want: ast.AST, have: ast.AST) -> bool:
        """Whether two compound statements have equal headers."""
        if type(want) is not type(have):
            return False
        if isinstance(want, DEFINITIONS) and isinstance(have, DEFINITIONS):
            return self.same(want.name, have.name)
        for field in want._fields:
            if field in ('body', 'orelse', 'finalbody', 'handlers',
                         'cases', 'type_comment'):
                continue
            if not self.same(getattr(want, field), getattr(have, field)):
                return False
        return True


def is_open_ended(call: ast.Call) -> bool:
    """Whether a call of a pattern has a ``...`` for other arguments."""
    return any(_is_rest(keyword.value) for keyword in call.keywords) or (
        bool(call.args) and _is_ellipsis(call.args[-1]))


def docstring(node: ast.AST) -> str | None:
    """The text of a statement that is just a string."""
    if isinstance(node, ast.Expr) and isinstance(
            node.value, ast.Constant) and isinstance(node.value.value, str):
        return node.value.value
    return None


def _dump(have: ast.AST | str) -> str:
    return have if isinstance(have, str) else dump(have)


def dump(node: ast.AST) -> str:
    """A text that is equal for equal code, wherever it stands."""
    # A name on the left is another context, not another name.
    return re.sub(r', ctx=(Load|Store|Del)\(\)', '', ast.dump(node))


def _is_ellipsis(node: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is Ellipsis


def _is_rest(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == _REST


def _is_gap(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and _is_ellipsis(node.value)


@dataclass(frozen=True)
class Pattern:
    """A pattern that was read: statements, of which an expression is one.

    ``header`` says that only the header of the last statement counts;
    ``words`` are those of a comment pattern.
    """

    text: str
    statements: tuple[Statement, ...] = ()
    header: bool = False
    words: str = ''

    @property
    def expression(self) -> ast.expr | None:
        """The expression, if the pattern is just one."""
        if len(self.statements) == 1 and not self.header and isinstance(
                self.statements[0], ast.Expr):
            return self.statements[0].value
        return None

    def match_expression(self, node: ast.AST) -> Match[ast.expr] | None:
        matcher = Matcher()
        if self.expression is not None and isinstance(
                node, ast.expr) and matcher.same(self.expression, node):
            return Match((node,), matcher.captures)
        return None

    def match_block(self, block: Block) -> Iterator[Match[Statement]]:
        """All runs of statements of a block that match."""
        for first in range(len(block)):
            matcher = Matcher()
            last = self._run(matcher, 0, block, first)
            if last is not None:
                yield Match(tuple(block[first:last + 1]), matcher.captures,
                            block, first, last)

    def _run(self, matcher: Matcher, index: int, block: Block,
             at: int) -> int | None:
        """Match the statements from an index on; the end of the run."""
        want = self.statements[index]
        if _is_gap(want) and 0 < index < len(self.statements) - 1:
            for later in range(at, len(block)):
                kept = dict(matcher.captures)
                end = self._run(matcher, index + 1, block, later)
                if end is not None:
                    return end
                matcher.captures = kept
            return None
        if at >= len(block):
            return None
        is_last = index == len(self.statements) - 1
        same = (matcher.same_header if self.header and is_last
                else matcher.same)
        if not same(want, block[at]):
            return None
        return at if is_last else self._run(
            matcher, index + 1, block, at + 1)


def read(text: str) -> Pattern:
    """Read a pattern.

    :raises: BadPattern if it is no fragment of Python
    """
    plain = blocks.dedent(text)
    if plain.startswith('#'):
        words = ' '.join(line.lstrip('# ') for line in plain.split('\n'))
        return Pattern(text, words=' '.join(words.split()))
    plain = _with_rest(with_holes(plain))
    if not plain:
        raise errors.BadPattern(pattern=text, reason='it is empty')
    try:
        if _HANDLER.match(plain):
            tree = ast.parse(f'try:\n    pass\n{plain}\n    pass')
            return Pattern(text, tuple(
                handler for handler in ast.walk(tree)
                if isinstance(handler, ast.excepthandler)), True)
        if plain.endswith(':'):
            return Pattern(text, tuple(_parse_header(plain)), True)
        return Pattern(text, tuple(ast.parse(plain).body))
    except SyntaxError as error:
        raise errors.BadPattern(pattern=text, reason=error) from error


def _parse_header(plain: str) -> list[ast.stmt]:
    last = plain.rpartition('\n')[2]
    margin = last[:len(last) - len(last.lstrip())]
    body = f'{plain}\n{margin}    pass'
    if last.strip() == 'try:':
        body += f'\n{margin}finally:\n{margin}    pass'
    return ast.parse(body).body
