# SPDX-License-Identifier: Apache-2.0
"""The vocabulary of a patch set: what the modules in ``edits/`` import.

Targets are dotted names (``'API.resize'``), :data:`MODULE` for the module
itself, or :class:`Target`.  Patterns are explained in
:mod:`novapatch.match.pattern`.  Every place must be there exactly once.
"""

from novapatch.match.scope import MODULE
from novapatch.match.scope import Target
from novapatch.operations.base import Alternatives
from novapatch.operations.base import Edit
from novapatch.operations.contexts import AddContext
from novapatch.operations.data import JsonBump
from novapatch.operations.data import TomlAddItem
from novapatch.operations.data import YamlAddKey
from novapatch.operations.definitions import AddFunction
from novapatch.operations.definitions import AppendDocstring
from novapatch.operations.definitions import AppendFile
from novapatch.operations.definitions import AppendString
from novapatch.operations.imports import AddImport
from novapatch.operations.replacing import Replace
from novapatch.operations.restructured import RstAddRestParameter
from novapatch.operations.restructured import RstAppend
from novapatch.operations.restructured import RstInsert
from novapatch.operations.restructured import RstReplaceDirective
from novapatch.operations.signatures import AddArgument
from novapatch.operations.signatures import AddDecorator
from novapatch.operations.signatures import AddParameter
from novapatch.operations.statements import InsertBeside
from novapatch.operations.statements import InsertInto
from novapatch.operations.values import Append
from novapatch.operations.values import Bump
from novapatch.operations.values import NextVersion
from novapatch.operations.values import SetValue

__all__ = [
    'MODULE', 'Target', 'Edit', 'NextVersion', 'next_version', 'this_version',
    'set_value', 'bump', 'append', 'add_parameter', 'add_argument',
    'insert_before', 'insert_after', 'insert_first', 'insert_last',
    'add_function', 'replace', 'add_decorator', 'add_import',
    'append_docstring', 'append_string', 'add_context', 'append_file',
    'alternatives', 'rst_append', 'rst_insert_after', 'rst_append_section',
    'rst_replace_directive', 'rst_add_rest_parameter', 'yaml_add_key',
    'json_bump', 'toml_add_item',
]


def next_version(path: str, target: str | Target,
                 here: str = '') -> NextVersion:
    """For VALUES: the version after the one assigned to a target.

    :param here: how new files write it; they get what the tree has
    """
    return NextVersion(path, target, here)


def this_version(path: str, target: str | Target,
                 here: str = '') -> NextVersion:
    """For VALUES: the version that is assigned to a target."""
    return NextVersion(path, target, here, is_raised=False)


# -- Python ---------------------------------------------------------------

def set_value(target: str | Target, text: str) -> Edit:
    """Give an assignment another value."""
    return SetValue(target, text)


def bump(target: str | Target) -> Edit:
    """Raise a version by one in its last place."""
    return Bump(target)


def append(target: str | Target, item: str,
           within: str | None = None) -> Edit:
    """Append an item to a list, tuple, set or dict.

    :param item: ``"'key': value"`` for a dict; may have a comment above
    :param within: a pattern of the literal, if it is not the value of the
        target but stands in it
    """
    return Append(target, item, within)


def add_parameter(target: str | Target, parameter: str,
                  after: str | None = None) -> Edit:
    """Add a parameter: after a named one, or as the last ordinary one."""
    return AddParameter(target, parameter, after)


def add_argument(target: str | Target, call: str, argument: str) -> Edit:
    """Add an argument to the one call that matches."""
    return AddArgument(target, call, argument)


def insert_before(target: str | Target, pattern: str, text: str) -> Edit:
    """Insert statements before others, and above their comment."""
    return InsertBeside(target, pattern, text, False)


def insert_after(target: str | Target, pattern: str, text: str) -> Edit:
    """Insert statements after others."""
    return InsertBeside(target, pattern, text, True)


def insert_first(target: str | Target, text: str,
                 within: str | None = None) -> Edit:
    """Insert statements at the start of a body, after the docstring.

    :param within: the header of the block to insert into instead
    """
    return InsertInto(target, text, within, False)


def insert_last(target: str | Target, text: str,
                within: str | None = None) -> Edit:
    """Insert statements at the end of a body, after its last comment."""
    return InsertInto(target, text, within, True)


def add_function(text: str, after: str | Target | None = None,
                 before: str | Target | None = None) -> Edit:
    """Add a function, method or class beside something that has a name."""
    return AddFunction(text, after, before)


def replace(target: str | Target, pattern: str, text: str) -> Edit:
    """Replace an expression, or statements; ``$X`` may be used in both."""
    return Replace(target, pattern, text)


def add_decorator(target: str | Target, text: str,
                  below: str | None = None,
                  above: str | None = None) -> Edit:
    """Add a decorator; with neither below nor above it is the innermost."""
    return AddDecorator(target, text, below, above)


def add_import(text: str) -> Edit:
    """Add an import in its sorted place."""
    return AddImport(text)


def append_docstring(target: str | Target, text: str,
                     after: str | None = None) -> Edit:
    """Append to a docstring.

    :param after: a parameter: the text goes below its ``:param name:``
    """
    return AppendDocstring(target, text, after)


def append_string(target: str | Target, text: str) -> Edit:
    """Append lines to a string constant that is assigned to a name.

    They get the indentation of the string's other lines.
    """
    return AppendString(target, text)


def add_context(target: str | Target, pattern: str, context: str,
                first: bool = False) -> Edit:
    """Add a context to a ``with`` statement.

    :param pattern: the header of the statement
    :param first: whether it is entered before the others, and not after
    """
    return AddContext(target, pattern, context, first)


def append_file(text: str) -> Edit:
    """Append to a file; blank lines at the start of the text stay."""
    return AppendFile(text)


def alternatives(*edits: Edit) -> Edit:
    """The first of several edits whose place is there."""
    return Alternatives(edits)


# -- reStructuredText -----------------------------------------------------

def rst_append(text: str) -> Edit:
    """Append to the file."""
    return RstAppend(text)


def rst_insert_after(section: str, text: str) -> Edit:
    """Insert after a section and all its subsections."""
    return RstInsert(section, text, False)


def rst_append_section(section: str, text: str) -> Edit:
    """Append to a section, before its first subsection."""
    return RstInsert(section, text, True)


def rst_replace_directive(section: str | None, directive: str,
                          contains: str, text: str) -> Edit:
    """Replace the one directive of a kind that contains a few words."""
    return RstReplaceDirective(section, contains, text, directive)


def rst_add_rest_parameter(section: str, *,
                           directive: str = 'rest_parameters',
                           after: str, line: str,
                           name: str | None = None,
                           contains: str | None = None) -> Edit:
    """Add ``- name: reference`` to a list of parameters.

    :param after: the parameter to stand below
    :param line: ``'name: reference'``, or the reference alone if ``name``
        is given
    :param contains: another parameter of the same list, if the section
        has several lists with ``after``
    """
    if name is not None and not line.startswith(name + ':'):
        line = f'{name}: {line}'
    return RstAddRestParameter(section, after, line, directive, contains)


# -- other files ----------------------------------------------------------

def yaml_add_key(key: str, text: str, section: str | None = None) -> Edit:
    """Add a key at the top level, sorted within its group.

    :param text: what stands under the key (or the entry with its key)
    :param section: the comment that starts the group; by default
        ``variables in X``, from the ``in: X`` of the text
    """
    return YamlAddKey(key, text, section)


def json_bump(pointer: str) -> Edit:
    """Raise the version at a JSON pointer by one."""
    return JsonBump(pointer)


def toml_add_item(table: str, key: str, value: str) -> Edit:
    """Add ``key = value`` to a table, sorted if the table is."""
    return TomlAddItem(table, key, value)
