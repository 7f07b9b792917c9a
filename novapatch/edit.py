# SPDX-License-Identifier: Apache-2.0
"""The vocabulary of a patch set: what the modules in ``edits/`` import.

What each makes, and of what, its class says.  Targets are dotted names
(``'API.resize'``), or :data:`MODULE` for the module itself.  Patterns are
explained in :mod:`novapatch.match.pattern`.  Every place must be there
exactly once.
"""

from novapatch.match import scope
from novapatch.operations import data
from novapatch.operations import definitions
from novapatch.operations import restructured
from novapatch.operations import signatures
from novapatch.operations import statements
from novapatch.operations import values

MODULE = scope.MODULE

# For VALUES.
next_version = values.NextVersion
this_version = values.ThisVersion

# Python
add_argument = signatures.AddArgument
add_context = statements.AddContext
add_decorator = signatures.AddDecorator
add_function = definitions.AddFunction
add_import = definitions.AddImport
add_parameter = signatures.AddParameter
append = values.Append
append_docstring = definitions.AppendDocstring
append_file = definitions.AppendFile
append_string = definitions.AppendString
bump = values.Bump
insert_after = statements.InsertAfter
insert_before = statements.InsertBefore
replace = statements.Replace
set_value = values.SetValue

# reStructuredText
rst_add_rest_parameter = restructured.RstAddRestParameter
rst_append = restructured.RstAppend
rst_append_section = restructured.RstAppendSection
rst_insert_after = restructured.RstInsertAfter
rst_replace_directive = restructured.RstReplaceDirective

# other files
json_bump = values.JsonBump
toml_add_item = data.TomlAddItem
yaml_add_key = data.YamlAddKey
