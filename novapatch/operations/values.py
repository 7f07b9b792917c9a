# SPDX-License-Identifier: Apache-2.0
"""Edits of values: constants, versions and literals."""

import ast
from dataclasses import dataclass
import re
from typing import TypeAlias

from novapatch import errors
from novapatch.match import pattern as patterns
from novapatch.match import scope
from novapatch.operations import base
from novapatch.text import blocks
from novapatch.text import layout
from novapatch.text.source import Source

Literal: TypeAlias = ast.List | ast.Tuple | ast.Dict | ast.Set


def raised(version: str) -> str:
    """The version after this one: 74 -> 75, 1.2 -> 1.3, 2.104 -> 2.105.

    :raises: NoVersion
    """
    found = re.fullmatch(r'((?:\d+\.)*)(\d+)', version)
    if not found:
        raise errors.NoVersion(value=version)
    return f'{found[1]}{int(found[2]) + 1}'


def _version(source: Source, node: ast.expr) -> str:
    if not isinstance(node, ast.Constant) or not isinstance(
            node.value, (int, str)):
        raise errors.NoVersion(value=source.segment(node))
    return str(node.value)


@dataclass(frozen=True)
class NextVersion:
    """For VALUES: the version after the one that is assigned to a target.

    It is read from the pristine tree.

    :param here: how new files write it; they get what the tree has
    """

    path: str
    target: str
    here: str = ''

    def read(self, source: Source) -> str:
        """The version in a source, or the one here, if that is more.

        An older release must not use a number for what a newer one has given
        it away for.

        :raises: NoVersion, WrongKind, NoMatch, ManyMatches
        """
        found = _version(source, scope.find_value(source, self.target))
        # 2.104 is more than 2.99.
        return max(self._of(found), self.here, key=lambda version: [
            int(number) for number in version.split('.') if number])

    def _of(self, version: str) -> str:
        return raised(version)


class ThisVersion(NextVersion):
    """For VALUES: the version itself that is assigned to a target."""

    def _of(self, version: str) -> str:
        return version


class SetValue(base.TargetEdit):
    """Give an assignment another value."""

    text: str

    def apply(self, source: Source) -> Source:
        patterns.parse_expression(self.text)
        node = scope.find_value(source, self.target)
        margin = source.indentation(node.lineno)
        text = blocks.placed(self.text, margin).strip()
        return source.splice((*source.span(node), text))


class Bump(base.TargetEdit):
    """Raise a version by one in its last place."""

    def apply(self, source: Source) -> Source:
        return _raise_at(source, scope.find_value(source, self.target))


class JsonBump(base.Edit):
    """Raise the version at a JSON pointer (RFC 6901) by one.

    JSON reads like Python, which tells the place of each value.
    """

    pointer: str

    def apply(self, source: Source) -> Source:
        found = {'': statement.value for statement in source.tree.body
                 if isinstance(statement, ast.Expr)}
        for part in self.pointer.split('/'):
            name = part.replace('~1', '/').replace('~0', '~')
            if name not in found:
                raise errors.NoMatch(kind='value', sought=self.pointer,
                                     hint='')
            node = found[name]
            found = _children(node)
        return _raise_at(source, node)


def _children(node: ast.expr) -> dict[str, ast.expr]:
    """The values in an object or array of JSON, by key or index."""
    if isinstance(node, ast.Dict):
        return dict(zip(map(ast.literal_eval, node.keys), node.values))
    return {str(index): value for index, value
            in enumerate(node.elts if isinstance(node, ast.List) else ())}


def _raise_at(source: Source, node: ast.expr) -> Source:
    """Raise the version that an expression is."""
    old = _version(source, node)
    start, end = source.span(node)
    text = source.text[start:end].replace(old, raised(old))
    return source.splice((start, end, text))


class Append(base.TargetEdit):
    """Append an item to a list, tuple, set or dict.

    :param item: ``"'key': value"`` for a dict; may have a comment above
    :param within: a pattern of the literal, if it is not the value of the
        target but stands in it
    """

    item: str
    within: str | None = None

    def apply(self, source: Source) -> Source:
        literal = self._literal(source)
        if self._is_in(source, literal):
            raise errors.AlreadyThere(what=repr(self.item),
                                      line=literal.lineno)
        items = layout.read_items(source, source.span(literal)[0])
        # The one item of a tuple needs its comma.
        comma = ',' if source.segment(literal) == '()' else ''
        return layout.add_item(items, self.item + comma)

    def _literal(self, source: Source) -> Literal:
        if self.within is None:
            node = scope.find_value(source, self.target)
        else:
            node = scope.one_expression(
                source, self.target, self.within).nodes[0]
        start, end = source.span(node)
        if not isinstance(node, Literal) or (
                source.text[start] not in '([{'
                or layout.read_items(source, start).end != end - 1):
            raise errors.WrongKind(
                sought=self.within or self.target, line=node.lineno,
                wanted='list, tuple, dict or set in brackets')
        return node

    def _is_in(self, source: Source, literal: Literal) -> bool:
        """Whether the item is there, with the comment it came with.

        A history may hold equal items that only their comments tell apart.
        """
        comment = '\n'.join(line for line in self.item.split('\n')
                            if line.lstrip().startswith('#'))
        form = '{%s\n}' if isinstance(
            literal, (ast.Dict, ast.Set)) else '[%s\n]'
        node = patterns.parse_expression(self.item, form)
        if not isinstance(node, Literal) or (
                isinstance(literal, ast.Dict) != isinstance(node, ast.Dict)):
            raise errors.BadText(text=self.item,
                                 reason='it is no item of this literal')
        return _dumps(node)[0] in _dumps(literal) and (
            ' '.join(comment.split())
            in ' '.join(source.segment(literal).split()))


def _dumps(literal: Literal) -> list[str]:
    if isinstance(literal, ast.Dict):
        return [f'{key and patterns.dump(key)}: {patterns.dump(value)}'
                for key, value in zip(literal.keys, literal.values)]
    return [patterns.dump(item) for item in literal.elts]
