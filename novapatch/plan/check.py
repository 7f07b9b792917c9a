# SPDX-License-Identifier: Apache-2.0
"""Checks of the result, before anything is written.

A place can be unique and still be wrong: the name that a hook uses may
not exist there.  So everything must compile, what is imported of Nova must be
in this release, and in files of Nova's no undefined or unused name may be new,
and what changed must be what the edits say they change.  (What names a file
of ours uses does not depend on the tree: ``make lint`` looks at that.)
"""

import ast
from collections.abc import Iterator
from collections import Counter
import copy
import importlib
import itertools
import re
import sys
from typing import TypeVar

from novapatch import errors
from novapatch.match import scope
from novapatch.operations.base import Edit
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

_NO_ARGUMENTS = ast.arguments(
    posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])

_PROJECT = 'nova'

Scope = TypeVar('Scope', ast.Module, ast.ClassDef)


def run(plan: Plan, tree: Tree) -> None:
    """Check all results of a plan for a tree.

    :raises: CheckFailed, PyflakesMissing
    """
    modules = _Modules(plan, tree)
    findings = [f'{change.path}: {finding}'
                for change in plan.changes if change.path.endswith('.py')
                for finding in _check(change, modules)]
    if findings:
        raise errors.CheckFailed(release=plan.release,
                                 findings='\n'.join(findings))


def _check(change: Change, modules: '_Modules') -> Iterator[str]:
    try:
        before, after = change.sources or (
            Source(''), Source(change.after.decode()))
        # Some errors (a "return" outside of a function) show only here.
        compile(after.tree, change.path, 'exec', dont_inherit=True)
    except (SyntaxError, ValueError, errors.ResultBroken) as error:
        yield f'does not compile: {error}'
        return
    yield from modules.missing(before, after)
    if change.before is not None:
        old, new = _units(before), _units(after)
        same = {name for name, lines in old.items() if new.get(name) == lines}
        # What a module has no more, a function that is the same may need.
        gone = old.keys() - new.keys() or (
            Counter(old[scope.MODULE]) - Counter(new[scope.MODULE]))
        yield from _names(before, after, set() if gone else same)
        yield from _undeclared(old.keys() | new.keys(), same, change.edits)


# -- names -----------------------------------------------------------------

def _names(before: Source, after: Source, same: set[str]) -> list[str]:
    """Names that are undefined or unused only since the change.

    To look at what changed is enough, and fast, as long as there is nothing
    to be found. A name may be used by a function that is the same.
    """
    return _new_messages(before, after, same) and _new_messages(
        before, after, set())


def _new_messages(before: Source, after: Source,
                  without: set[str]) -> list[str]:
    found = _messages(after, without)
    old = Counter(text for line, text in _messages(before, without)
                  ) if found else Counter()
    new = []
    for line, text in found:
        if old[text]:
            old[text] -= 1
        else:
            new.append(f'line {line}: {text}')
    return new


def _messages(source: Source, without: set[str]) -> list[tuple[int, str]]:
    try:
        pyflakes = importlib.import_module('pyflakes.checker')
    except ImportError as error:
        raise errors.PyflakesMissing(python=sys.executable) from error
    found = []
    for message in pyflakes.Checker(_pruned(source.tree, without)).messages:
        code = _CODES.get(type(message).__name__)
        if code and '# noqa' not in source.lines[message.lineno - 1]:
            text = message.message % message.message_args
            # "redefinition of ... from line 5" moves with the lines.
            found.append((message.lineno,
                          f'{code} {text.split(" from line")[0]}'))
    return found


def _pruned(node: Scope, without: set[str], around: str = '') -> Scope:
    """A copy in which functions of these names are as good as empty."""
    pruned = copy.copy(node)
    pruned.body = list(map(copy.copy, node.body))
    for index, child in enumerate(pruned.body):
        if isinstance(child, ast.ClassDef):
            pruned.body[index] = _pruned(
                child, without, f'{around}{child.name}.')
        elif isinstance(child, scope.FUNCTIONS) and (
                around + child.name in without):
            child.args, child.decorator_list = _NO_ARGUMENTS, []
            child.body = [ast.Pass()]
    return pruned


# -- what is imported ------------------------------------------------------

class _Modules:
    """Nova's modules in a tree, and those of a plan."""

    def __init__(self, plan: Plan, tree: Tree) -> None:
        self._tree = tree
        self._planned = {change.path: change.after for change in plan.changes}

    def missing(self, before: Source, after: Source) -> Iterator[str]:
        """What is imported of Nova only since a change, and is not there."""
        old = {what for what, line in _imported(before)}
        for (module, name), line in _imported(after):
            if (module, name) not in old and not self._has(module, name):
                yield f'line {line}: there is no {module}' + (
                    f'.{name}' if name else '')

    def _has(self, module: str, name: str) -> bool:
        data = self._read(module)
        # A module in a package, or else a name that one has.
        return data is not None and (
            not name or self._read(f'{module}.{name}') is not None
            or re.search(rb'\b%s\b' % name.encode(), data) is not None)

    def _read(self, module: str) -> bytes | None:
        bare = module.replace('.', '/')
        for path in f'{bare}.py', f'{bare}/__init__.py':
            if path in self._planned:
                return self._planned[path]
            if self._tree.has(path):
                return self._tree.read(path)
        return None


def _imported(source: Source) -> Iterator[tuple[tuple[str, str], int]]:
    """Yield ((module, name), line) of what is imported of Nova."""
    # Imports are statements: to look for them in expressions would take long.
    for node in itertools.chain(*scope.all_blocks(source.tree, True)):
        if isinstance(node, ast.Import):
            found = [(each.name, '') for each in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found = [(node.module or '', each.name) for each in node.names]
        else:
            continue
        for module, name in found:
            if module.split('.')[0] == _PROJECT:
                yield (module, name), node.lineno


# -- what changed ---------------------------------------------------------

def _undeclared(names: set[str], same: set[str],
                edits: tuple[Edit, ...]) -> Iterator[str]:
    """What changed although no edit says so."""
    declared: set[str] = set()
    for name in set().union(*(edit.changes() for edit in edits)):
        # A nested function is a part of the outermost one, and what is
        # assigned a part of the class or module.
        while name and name not in names:
            name = name.rpartition('.')[0]
        declared.add(name)
    for name in sorted(names - same - declared):
        yield f'{name or "the module"} changed, and no edit says so'


def _units(source: Source) -> dict[str, list[str]]:
    """The lines of each function, by its dotted name.

    What is in none counts for its class, or for the module, which is ``''``.
    """
    found: dict[str, list[str]] = {scope.MODULE: []}
    _collect(source, source.tree.body, scope.MODULE, found)
    return found


def _collect(source: Source, body: list[ast.stmt], around: str,
             found: dict[str, list[str]]) -> None:
    for node in body:
        name, end = around, node.end_lineno
        if isinstance(node, scope.DEFINITIONS):
            name = f'{around}.{node.name}'.lstrip('.')
        if isinstance(node, ast.ClassDef):
            end = scope.first_line(node.body[0]) - 1
        found.setdefault(name, []).extend(
            source.lines[scope.first_line(node) - 1:end])
        if isinstance(node, ast.ClassDef):
            _collect(source, node.body, name, found)
