# SPDX-License-Identifier: Apache-2.0
"""Checks of the result, before anything is written.

A place can be unique and still be wrong: the name that a hook uses may
not exist there.  So everything must compile, no undefined or unused name
may be new, what is imported of Nova must be in this release, and what changed
must be what the edits say they change.
"""

import ast
from collections.abc import Iterator
from collections import Counter
import importlib
import re
import sys
from types import ModuleType

from novapatch import errors
from novapatch.match import pattern as patterns
from novapatch.match import scope
from novapatch.operations.base import Edit
from novapatch.operations.imports import IMPORTS
from novapatch.operations.imports import PROJECT
from novapatch.text.source import Node
from novapatch.text.source import Source
from novapatch.tree.change import Change
from novapatch.tree.change import Plan
from novapatch.tree.tree import Tree

# flake8's names of what pyflakes finds
_CODES = {
    'UnusedImport': 'F401',
    'RedefinedWhileUnused': 'F811',
    'UndefinedName': 'F821',
    'UnusedVariable': 'F841',
}

Units = dict[str, list[Node]]


def run(plan: Plan, tree: Tree) -> None:
    """Check all results of a plan for a tree.

    :raises: CheckFailed, PyflakesMissing
    """
    pyflakes = _pyflakes()
    modules = _Modules(plan, tree)
    findings = [f'{change.path}: {finding}'
                for change in plan.changes if change.path.endswith('.py')
                for finding in _check(pyflakes, change, modules)]
    if findings:
        raise errors.CheckFailed(release=plan.release,
                                 findings='\n'.join(findings))


def _pyflakes() -> ModuleType:
    try:
        return importlib.import_module('pyflakes.checker')
    except ImportError as error:
        raise errors.PyflakesMissing(python=sys.executable) from error


def _check(pyflakes: ModuleType, change: Change,
           modules: '_Modules') -> Iterator[str]:
    try:
        before, after = change.sources or (None, Source(
            change.after.decode()))
        # Some errors (a "return" outside of a function) show only here.
        compile(after.tree, change.path, 'exec', dont_inherit=True)
    except (SyntaxError, ValueError, errors.ResultBroken) as error:
        yield f'does not compile: {error}'
        return
    yield from _names(pyflakes, change.path, before, after)
    yield from modules.missing(before, after)
    if before is not None:
        yield from undeclared(before, after, change.edits)


def _names(pyflakes: ModuleType, path: str, before: Source | None,
           after: Source) -> Iterator[str]:
    """Names that are undefined or unused only since the change."""
    found = list(_messages(pyflakes, path, after))
    if not found:
        return
    old: Counter[str] = Counter()
    if before is not None:
        old.update(text for line, text in _messages(
            pyflakes, path, before))
    for line, text in found:
        if old[text]:
            old[text] -= 1
        else:
            yield f'line {line}: {text}'


def _messages(pyflakes: ModuleType, path: str,
              source: Source) -> Iterator[tuple[int, str]]:
    for message in pyflakes.Checker(source.tree, filename=path).messages:
        code = _CODES.get(type(message).__name__)
        if code and '# noqa' not in source.lines[message.lineno - 1]:
            text = message.message % message.message_args
            # "redefinition of ... from line 5" moves with the lines.
            yield message.lineno, f'{code} {text.split(" from line")[0]}'


# -- what is imported ------------------------------------------------------

class _Modules:
    """Nova's modules in a tree, and those of a plan."""

    def __init__(self, plan: Plan, tree: Tree) -> None:
        self._tree = tree
        self._planned = {change.path: change.after for change in plan.changes}

    def missing(self, before: Source | None,
                after: Source) -> Iterator[str]:
        """What is imported of Nova only since a change, and is not there."""
        old = set() if before is None else {
            what for what, line in _imported(before)}
        for (module, name), line in _imported(after):
            if (module, name) not in old and not self._has(module, name):
                yield f'line {line}: there is no {module}' + (
                    f'.{name}' if name else '')

    def _has(self, module: str, name: str) -> bool:
        text = self._text(module)
        if text is None or not name:
            return text is not None
        # A module in a package, or else a name that one has.
        return (self._text(f'{module}.{name}') is not None
                or re.search(rf'\b{name}\b', text) is not None)

    def _text(self, module: str) -> str | None:
        bare = module.replace('.', '/')
        for path in f'{bare}.py', f'{bare}/__init__.py':
            if path in self._planned:
                return self._planned[path].decode(errors='replace')
            if self._tree.has(path):
                return self._tree.read(path).decode(errors='replace')
        return None


def _imported(source: Source) -> Iterator[tuple[tuple[str, str], int]]:
    """Yield ((module, name), line) of what is imported of Nova."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            found = [(each.name, '') for each in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found = [(node.module or '', each.name) for each in node.names]
        else:
            continue
        for module, name in found:
            if module.split('.')[0] == PROJECT:
                yield (module, name), node.lineno


# -- what changed ---------------------------------------------------------

def units(source: Source) -> tuple[Units, set[str]]:
    """The code of each function, class and assignment, by dotted name.

    What has no name counts for the class or module it stands in (the
    module is ``''``); imports count as ``import``.  Also returned: the
    names of the functions and classes.
    """
    found: Units = {}
    definitions: set[str] = {scope.MODULE}
    _collect(source.tree.body, '', found, definitions)
    return found, definitions


def _collect(body: list[ast.stmt], prefix: str, found: Units,
             definitions: set[str]) -> None:
    for node in body:
        names = [prefix + name for name in scope.names_of(node)]
        if isinstance(node, scope.DEFINITIONS):
            definitions.update(names)
        if isinstance(node, IMPORTS) and not prefix:
            names = ['import']
        if isinstance(node, ast.ClassDef):
            found.setdefault(names[0], []).extend(
                [*node.bases, *node.keywords, *node.decorator_list])
            _collect(node.body, names[0] + '.', found, definitions)
            continue
        for name in names or [prefix.rstrip('.')]:
            found.setdefault(name, []).append(node)


def _changed(old_source: Source, old: list[Node], new_source: Source,
             new: list[Node]) -> bool:
    if len(old) != len(new):
        return True
    # Equal texts are equal code, and a lot quicker to compare.
    return any(
        (old_source.segment(one) != new_source.segment(other)
         or bool(getattr(one, 'decorator_list', None)))
        and patterns.dump(one) != patterns.dump(other)
        for one, other in zip(old, new, strict=True))


def undeclared(before: Source, after: Source,
               edits: tuple[Edit, ...]) -> Iterator[str]:
    """What changed and should not have, or should have and did not."""
    old, old_definitions = units(before)
    new, new_definitions = units(after)
    changed = {name for name in old.keys() | new.keys()
               if _changed(before, old.get(name, []),
                           after, new.get(name, []))}
    definitions = old_definitions | new_definitions
    known = old.keys() | new.keys()
    declared: set[str] = set()
    for edit in edits:
        mine = {unit for name in edit.changes()
                for unit in _covered(name, known, definitions)}
        declared |= mine
        if edit.shows and not mine & changed:
            yield f'{edit} did not change what it names'
    for name in sorted(changed - declared):
        yield f'{name or "the module"} changed, and no edit says so'


def _covered(name: str, known: set[str],
             definitions: set[str]) -> Iterator[str]:
    """The units that an edit of a name may change.

    A nested function is a part of the outermost one; with a class or
    module come the assignments in it, but none of its functions.
    """
    while name and name not in known:
        name = name.rpartition('.')[0]
    yield name
    for unit in known:
        if unit.rpartition('.')[0] == name and unit not in definitions:
            yield unit
