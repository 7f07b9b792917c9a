# SPDX-License-Identifier: Apache-2.0
"""What all edits have in common."""

import ast
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import re
from typing import Any
from typing import ClassVar
from typing import Self

from novapatch import errors
from novapatch.match import pattern as patterns
from novapatch.match import scope
from novapatch.text import blocks
from novapatch.text.source import Source

_VALUE = re.compile(r'\{\{(\w+)\}\}')


@dataclasses.dataclass(frozen=True)
class Edit:
    """One change of one file."""

    # Whether it is about Python, so that the syntax tree tells its effect.
    is_python: ClassVar[bool] = True

    @property
    def operation(self) -> str:
        """The name it has in a patch set."""
        raise NotImplementedError

    def apply(self, source: Source) -> Source:
        """The source with the change made.

        :raises: EditError if its place is not there exactly once
        """
        raise NotImplementedError

    def changes(self) -> set[str]:
        """The dotted names of what it may change."""
        return set()

    @property
    def shows(self) -> bool:
        """Whether the syntax tree shows the change (no mere comment)."""
        return self.is_python

    def bind(self, values: Mapping[str, str]) -> Self:
        """The same edit with every ``{{name}}`` replaced.

        :raises: UnknownValue
        """
        return dataclasses.replace(self, **{
            field.name: _bind(getattr(self, field.name), values)
            for field in dataclasses.fields(self)})

    @property
    def subject(self) -> str:
        """What it is about: its target, or how its text begins."""
        first = dataclasses.fields(self)[0]
        return str(getattr(self, first.name)).strip().split('\n')[0]

    def __str__(self) -> str:
        return f'{self.operation}({self.subject!r})'


def _bind(item: Any, values: Mapping[str, str]) -> Any:
    if isinstance(item, str):
        return fill(item, values)
    if isinstance(item, tuple):
        return tuple(_bind(child, values) for child in item)
    if isinstance(item, Edit):
        return item.bind(values)
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        return dataclasses.replace(item, **{
            field.name: _bind(getattr(item, field.name), values)
            for field in dataclasses.fields(item)})
    return item


def fill(text: str, values: Mapping[str, str]) -> str:
    """A text with every ``{{name}}`` replaced.

    :raises: UnknownValue
    """
    return _VALUE.sub(lambda found: _value(found[1], values), text)


def _value(name: str, values: Mapping[str, str]) -> str:
    if name not in values:
        raise errors.UnknownValue(name=name,
                                  known=errors.listed(sorted(values)))
    return values[name]


def parse(text: str) -> list[ast.stmt]:
    """The statements of a text of an edit, ``$X`` allowed.

    :raises: BadText
    """
    try:
        return ast.parse(patterns.with_holes(blocks.dedent(text))).body
    except SyntaxError as error:
        raise errors.BadText(text=text, reason=error) from error


def parse_expression(text: str) -> ast.expr:
    """The expression that a text of an edit is.

    :raises: BadText
    """
    try:
        # The brackets allow it to span lines.
        return ast.parse(
            f'(\n{patterns.with_holes(text)}\n)', mode='eval').body
    except SyntaxError as error:
        raise errors.BadText(text=text, reason=error) from error


def names_in(scope_name: str,
             statements: Iterable[patterns.Statement]) -> set[str]:
    """The dotted names that statements define in a scope."""
    prefix = scope_name + '.' if scope_name else ''
    return {prefix + name for statement in statements
            for name in scope.names_of(statement)}


@dataclasses.dataclass(frozen=True)
class Alternatives(Edit):
    """The first edit that fits is the one."""

    edits: tuple[Edit, ...]

    operation = 'alternatives'

    def apply(self, source: Source) -> Source:
        for edit in self.edits[:-1]:
            try:
                return edit.apply(source)
            except errors.EditError:
                # What the last one says is what gets reported.
                continue
        return self.edits[-1].apply(source)

    def changes(self) -> set[str]:
        return set().union(*(edit.changes() for edit in self.edits))

    @property
    def shows(self) -> bool:
        return all(edit.shows for edit in self.edits)

    @property
    def subject(self) -> str:
        return self.edits[0].subject

    def __str__(self) -> str:
        return ' or '.join(str(edit) for edit in self.edits)
