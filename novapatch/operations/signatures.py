# SPDX-License-Identifier: Apache-2.0
"""Edits of parameters, arguments and decorators."""

import ast
import re

from novapatch import errors
from novapatch.match import pattern as patterns
from novapatch.match import scope
from novapatch.operations import base
from novapatch.text import blocks
from novapatch.text import layout
from novapatch.text.source import Source


def _parameter_name(text: str) -> str:
    found = re.match(r'\**\s*(\w*)', text)
    return found[1] if found else ''


class AddParameter(base.TargetEdit):
    """Add a parameter, as the last ordinary one."""

    parameter: str

    def apply(self, source: Source) -> Source:
        node = scope.find_kind(source, self.target, scope.FUNCTIONS,
                               'function')
        opening = source.text.index('(', source.span(node)[0])
        items = layout.read_items(source, opening)
        names = [_parameter_name(items.text_of(index))
                 for index in range(len(items.items))]
        name = _parameter_name(self.parameter)
        if name in names:
            raise errors.AlreadyThere(what=f'a parameter {name}',
                                      line=node.lineno)
        # The "/" behind those that are positional only is an item, too.
        ordinary = len(node.args.posonlyargs) + len(node.args.args) + bool(
            node.args.posonlyargs)
        return layout.add_item(items, self.parameter, ordinary - 1)


class AddArgument(base.TargetEdit):
    """Add an argument to the one call that matches."""

    call: str
    argument: str

    def apply(self, source: Source) -> Source:
        node = scope.one_expression(source, self.target, self.call).nodes[0]
        if not isinstance(node, ast.Call):
            raise errors.WrongKind(sought=self.call, line=node.lineno,
                                   wanted='call')
        wanted = patterns.parse_expression(self.argument, 'f(%s)')
        if not isinstance(wanted, ast.Call):
            raise errors.BadText(text=self.argument,
                                 reason='it is no argument')
        present = {keyword.arg for keyword in node.keywords if keyword.arg}
        for keyword in wanted.keywords:
            if keyword.arg in present:
                raise errors.AlreadyThere(
                    what=f'an argument {keyword.arg}', line=node.lineno)
        opening = source.text.index('(', source.span(node.func)[1])
        items = layout.read_items(source, opening)
        place = len(node.args) - 1 if wanted.args else None
        return layout.add_item(items, self.argument, place)


class AddDecorator(base.TargetEdit):
    """Add a decorator below or above another one."""

    text: str
    below: str | None = None
    above: str | None = None

    def apply(self, source: Source) -> Source:
        node = scope.find_kind(source, self.target, patterns.DEFINITIONS,
                               'function or class')
        text = blocks.dedent(self.text).lstrip('@')
        if patterns.dump(patterns.parse_expression(text)) in map(
                patterns.dump, node.decorator_list):
            raise errors.AlreadyThere(what='the decorator',
                                      line=node.lineno)
        margin = source.indentation(node.lineno)
        # Directly above the function by default: it is called first.
        line = node.lineno
        if self.below is not None:
            line = _decorator(node.decorator_list, self.below).end_lineno + 1
        elif self.above is not None:
            line = _decorator(node.decorator_list, self.above).lineno
        return source.insert_lines(line, blocks.indent('@' + text, margin))


def _decorator(decorators: list[ast.expr], pattern: str) -> ast.expr:
    """The one decorator that matches a pattern."""
    wanted = patterns.read(blocks.dedent(pattern).lstrip('@'))
    hint = ' (there are: ' + errors.listed(
        '@' + ast.unparse(item) for item in decorators) + ')'
    return scope.one([(item.lineno, item) for item in decorators
                      if wanted.match_expression(item)],
                     'decorator', wanted.text, hint)
