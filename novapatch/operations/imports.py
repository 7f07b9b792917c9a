# SPDX-License-Identifier: Apache-2.0
"""Adding an import where OpenStack's hacking wants it.

Imports come in three groups (standard library, third party, the project),
each sorted by the full path of what is imported, without regard to case:
``from a.b import c`` counts as ``a.b.c``, ``import a.b`` as ``a.b``.
"""

import ast
from dataclasses import dataclass
import sys
from typing import TypeAlias

from novapatch import errors
from novapatch.match import pattern as patterns
from novapatch.operations import base
from novapatch.text import blocks
from novapatch.text.source import Source

PROJECT = 'nova'

Import: TypeAlias = ast.Import | ast.ImportFrom
IMPORTS = (ast.Import, ast.ImportFrom)


def _module(node: Import) -> str:
    if isinstance(node, ast.ImportFrom):
        return '.' * node.level + (node.module or '')
    return node.names[0].name


def _key(node: Import) -> str:
    path = _module(node)
    if isinstance(node, ast.ImportFrom):
        path += '.' + node.names[0].name
    return path.lower()


def _group(node: Import) -> int:
    """0: __future__, 1: standard library, 2: third party, 3: the project."""
    top = _module(node).split('.')[0]
    if top == '__future__':
        return 0
    if top in sys.stdlib_module_names:
        return 1
    return 3 if top in (PROJECT, '') else 2


def _imports(tree: ast.Module) -> list[Import]:
    """The imports at the top of a module.

    They may be mixed with other statements (monkey patching comes before
    the rest of the imports), but a definition ends them.
    """
    found: list[Import] = []
    for node in tree.body:
        if isinstance(node, IMPORTS):
            found.append(node)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef,
                               ast.ClassDef)):
            break
    return found


@dataclass(frozen=True)
class AddImport(base.Edit):
    text: str

    operation = 'add_import'

    def _node(self) -> Import:
        statements = base.parse(self.text)
        if len(statements) != 1 or not isinstance(statements[0], IMPORTS):
            raise errors.BadText(text=self.text,
                                 reason='it is not one import')
        return statements[0]

    def apply(self, source: Source) -> Source:
        node = self._node()
        if self._is_there(source):
            raise errors.AlreadyThere(what=repr(self.text), line=1)
        text = blocks.placed(self.text, '')
        imports = _imports(source.tree)
        mates = [other for other in imports
                 if _group(other) == _group(node)]
        if not mates:
            return self._new_group(source, imports, text)
        smaller = [other for other in mates if _key(other) < _key(node)]
        later = [other for other in mates if _key(other) >= _key(node)]
        if smaller and later and later[0].lineno < smaller[-1].lineno:
            # Not sorted as a whole: the first place that fits.
            smaller = [other for other in smaller
                       if other.lineno < later[0].lineno]
        if smaller:
            return source.insert_lines(smaller[-1].end_lineno + 1, text)
        return source.insert_lines(later[0].lineno, text)

    def _new_group(self, source: Source, imports: list[Import],
                   text: str) -> Source:
        group = _group(self._node())
        earlier = [node for node in imports if _group(node) < group]
        if earlier:
            return source.insert_lines(earlier[-1].end_lineno + 1,
                                       '\n' + text)
        if imports:
            return source.insert_lines(imports[0].lineno, text + '\n')
        body = source.tree.body
        if ast.get_docstring(source.tree) is not None:
            return source.insert_lines(body[0].end_lineno + 1,
                                       '\n' + text)
        line = body[0].lineno if body else len(source.lines)
        return source.insert_lines(line, text + '\n\n')

    def _is_there(self, source: Source) -> bool:
        want = patterns.dump(self._node())
        return any(patterns.dump(node) == want for node in source.tree.body
                   if isinstance(node, IMPORTS))

    def changes(self) -> set[str]:
        return {'import'}
