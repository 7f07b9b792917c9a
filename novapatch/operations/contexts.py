# SPDX-License-Identifier: Apache-2.0
"""Adding a context to a ``with`` statement that is there.

Nothing below the statement moves to the right, as it would if it were put
under a statement of its own.
"""

import ast
from dataclasses import dataclass

from novapatch import errors
from novapatch.match import scope
from novapatch.operations import base
from novapatch.text import blocks
from novapatch.text.source import Source

#: What the contexts on further lines are indented by, to stand below the
#: first one.
_INDENT = len('with ') * ' '


@dataclass(frozen=True)
class AddContext(base.TargetEdit):
    """Add a context to a ``with`` statement.

    :param pattern: the header of the statement
    :param first: whether it is entered before the others, and not after
    """

    pattern: str
    context: str
    first: bool = False

    def apply(self, source: Source) -> Source:
        base.parse_expression(blocks.dedent(self.context))
        match = scope.one_statement(source, self.target, self.pattern)
        node = match.nodes[-1]
        if not isinstance(node, ast.With):
            raise errors.WrongKind(
                sought=self.pattern, line=node.lineno, wanted='with')
        margin = source.indentation(node.lineno) + _INDENT
        text = blocks.placed(self.context, margin).strip()
        separator = ', \\\n' + margin
        start, end = self._ends(source, node)
        if self.first:
            return source.splice((start, start, text + separator))
        return source.splice((end, end, separator + text))

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
