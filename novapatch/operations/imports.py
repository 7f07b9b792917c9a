# SPDX-License-Identifier: Apache-2.0
"""Adding an import where OpenStack's hacking wants it.

Imports are sorted by the full path of what is imported, without regard to
case: ``from a.b import c`` counts as ``a.b.c``, ``import a.b`` as ``a.b``.
"""

import ast
from dataclasses import dataclass
import itertools
from typing import TypeAlias

from novapatch import errors
from novapatch.match import pattern as patterns
from novapatch.operations import base
from novapatch.text import blocks
from novapatch.text.source import Source

PROJECT = 'nova'

Import: TypeAlias = ast.Import | ast.ImportFrom
IMPORTS = (ast.Import, ast.ImportFrom)


def _key(node: Import) -> str:
    path = node.names[0].name
    if isinstance(node, ast.ImportFrom):
        path = f'{"." * node.level}{node.module or ""}.{path}'
    return path.lower()


def _imports(tree: ast.Module) -> list[Import]:
    """The imports at the top of a module.

    They may be mixed with other statements (monkey patching comes before
    the rest of the imports), but a definition ends them.
    """
    top = itertools.takewhile(
        lambda node: not isinstance(node, patterns.DEFINITIONS), tree.body)
    return [node for node in top if isinstance(node, IMPORTS)]


@dataclass(frozen=True)
class AddImport(base.Edit):
    """Add an import in its sorted place among those of its package.

    The first one of a package comes last.
    """

    text: str

    def _node(self) -> Import:
        found = patterns.parse(self.text)
        if len(found) != 1 or not isinstance(found[0], IMPORTS):
            raise errors.BadText(text=self.text,
                                 reason='it is not one import')
        return found[0]

    def apply(self, source: Source) -> Source:
        node = self._node()
        package = _key(node).split('.')[0]
        text, imports = blocks.placed(self.text, ''), _imports(source.tree)
        if not imports:
            raise errors.NoMatch(kind='import', sought=package, hint='')
        mates = [each for each in imports
                 if _key(each).split('.')[0] == package]
        if not mates:
            return source.insert_lines(imports[-1].end_lineno + 1,
                                       '\n' + text)
        for mate in mates:
            if patterns.dump(mate) == patterns.dump(node):
                raise errors.AlreadyThere(what=repr(self.text),
                                          line=mate.lineno)
        # Where they are not sorted as a whole, the first place that fits.
        smaller = list(itertools.takewhile(
            lambda mate: _key(mate) < _key(node), mates))
        line = smaller[-1].end_lineno + 1 if smaller else mates[0].lineno
        return source.insert_lines(line, text)

    def changes(self) -> set[str]:
        return {'import'}
