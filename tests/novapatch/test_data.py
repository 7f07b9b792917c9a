# SPDX-License-Identifier: Apache-2.0

import pytest

from novapatch.edit import json_bump
from novapatch.edit import toml_add_item
from novapatch.edit import yaml_add_key
from novapatch import errors
from patch_helpers import check
from patch_helpers import refused

# -- YAML -----------------------------------------------------------------

YAML = '''
    # variables in path
    boat:
      in: path
    # variables in body
    Anchor:
      in: body
      description: |
        zebra: no key
    # about crews
    # of boats
    crew: &crew
      in: body
    "wind:x":
      in: body
    # variables in query
    mast:
      in: query
    '''


def test_yaml_refused():
    refused(yaml_add_key('crew', '  in: body'), YAML, errors.AlreadyThere)
    refused(yaml_add_key('x', '  in: body'), 2 * YAML, errors.ManyMatches)
    refused(yaml_add_key('x', '  in: header'), YAML, errors.NoMatch)
    refused(yaml_add_key('x', '  on: body'), YAML, errors.BadText)


@pytest.mark.parametrize('key, above', [
    ('aaa', 'Anchor:'), ('bow', '# about crews'), ('stern', '"wind:x"'),
    ('zoo', '# variables in query')])
def test_yaml_add_key(key, above):
    entry = f'{key}:\n      in: body\n    '
    check(yaml_add_key(key, '\n   in: body\n'), YAML,
          YAML.replace(above, entry + above))


def test_yaml_at_the_end_of_the_file():
    check(yaml_add_key('x', '\n  in: query'), YAML,
          YAML.rstrip(' ') + '    x:\n      in: query\n')


# -- JSON -----------------------------------------------------------------

JSON = '{"a" : [1,\n  {"b/c": "2.9", "d": null }], "e":3}'


@pytest.mark.parametrize('pointer', [
    '/x', '/a/2', '/a/1/x', '/e/0', '/a/-1'])
def test_json_no_such_value(pointer):
    refused(json_bump(pointer), JSON, errors.NoMatch)


def test_json_refused():
    refused(json_bump('/a'), '{"a": }', errors.ResultBroken)
    refused(json_bump('/a/1/d'), JSON, errors.NoVersion)


@pytest.mark.parametrize('edit, old, new', [
    (json_bump('/a/1/b~1c'), '2.9', '2.10'),
    (json_bump('/e'), ':3', ':4'),
])
def test_json(edit, old, new):
    check(edit, JSON, JSON.replace(old, new))


# -- TOML -----------------------------------------------------------------

TOML = '''
    [a."b.c"]  # sorted
    anchor = "x"
    # about crews
    crew = [
        "y",
    ]

    [d]
    z = 1
    b = 2
    '''


def test_toml_refused():
    refused(toml_add_item('x', 'k', 'v'), TOML, errors.NoMatch)
    refused(toml_add_item('d', 'b', 'v'), TOML, errors.AlreadyThere)


@pytest.mark.parametrize('table, key, place', [
    ('a."b.c"', 'bow', '    # about'), ('a."b.c"', 'mast', '\n    [d]'),
    ('d', 'zoo', '')])
def test_toml_add_item(table, key, place):
    line = f'    {key} = "m:f"\n'
    after = TOML.replace(place, line + place) if place else (
        TOML.rstrip(' ') + line)
    check(toml_add_item(table, key, 'm:f'), TOML, after)
