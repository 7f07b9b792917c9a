# SPDX-License-Identifier: Apache-2.0
"""Adding a context to a ``with`` statement that is there.

Nothing below the statement moves to the right, as it would if it were put
under a statement of its own.
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

#: What the contexts on further lines are indented by, to stand below the
#: first one.
_INDENT = len('with ') * ' '


@dataclass(frozen=True)
class AddContext(base.Edit):
    """One more context: entered first, or last."""

    target: str | Target
    pattern: str
    context: str
    first: bool

    operation = 'add_context'

    def apply(self, source: Source) -> Source:
        base.parse_expression(blocks.dedent(self.context))
        match = scope.one_statement(source, self.target, self.pattern)
        node = match.nodes[-1]
        if not isinstance(node, ast.With):
            raise errors.WrongKind(
                sought=self.pattern, line=node.lineno, wanted='with')
        margin = source.indentation(node.lineno) + _INDENT
        text = blocks.indent(
            blocks.dedent(self.context), margin).strip('\n')
        separator = ', \\\n' + margin
        start, end = self._ends(source, node)
        if self.first:
            return source.splice((start, start, text.lstrip() + separator))
        return source.splice((end, end, separator + text.lstrip()))

    def _ends(self, source: Source, node: ast.With) -> tuple[int, int]:
        """Where the contexts start and end.

        :raises: NoRoom if there are brackets around them
        """
        start = source.span(node.items[0].context_expr)[0]
        last = node.items[-1]
        end = source.span(last.optional_vars or last.context_expr)[1]
        head = source.text[source.span(node)[0]:start]
        if head.strip() != 'with':
            raise errors.NoRoom(line=node.lineno, reason=(
                'the contexts stand in brackets'))
        return start, end

    def is_applied(self, source: Source) -> bool | None:
        try:
            node = scope.find(source, self.target)
        except errors.EditError:
            return False
        wanted = patterns.dump(base.parse_expression(
            blocks.dedent(self.context)))
        return any(wanted == patterns.dump(item.context_expr)
                   for child in ast.walk(node) if isinstance(child, ast.With)
                   for item in child.items)

    def changes(self) -> set[str]:
        return {str(self.target)}
