# SPDX-License-Identifier: Apache-2.0

import pytest

from novapatch.edit import append
from novapatch.edit import bump
from novapatch.edit import set_value
from novapatch import errors
from novapatch.operations.values import raised
from patch_helpers import check
from patch_helpers import refused


@pytest.mark.parametrize('version', ['', 'x', '1.', '1.2b', '-1', 'v1'])
def test_what_is_no_version_is_not_raised(version):
    with pytest.raises(errors.NoVersion):
        raised(version)


@pytest.mark.parametrize('version, after', [
    ('74', '75'), ('1.2', '1.3'), ('2.104', '2.105'), ('1.9', '1.10'),
    ('2.99.9', '2.99.10')])
def test_a_version_is_raised_in_its_last_place(version, after):
    assert raised(version) == after


def test_bump_of_what_is_not_there_names_the_nearest():
    message = refused(bump('VERSIONS'), 'VERSION = 1', errors.NoMatch)
    assert "'VERSIONS'" in message and 'near: VERSION' in message


def test_bump_of_two_names_both_lines():
    message = refused(bump('V'), 'V = 1\nV = 2\n', errors.ManyMatches)
    assert "2 places match 'V' (lines 1, 2)" in message


@pytest.mark.parametrize('source', ['V = f()', 'V = None', "V = 'x'"])
def test_bump_of_no_version(source):
    refused(bump('V'), source, errors.NoVersion)


def test_bump_of_a_function():
    refused(bump('f'), 'def f():\n    pass\n', errors.WrongKind)


def test_bump_keeps_quotes_and_comments():
    check(bump('A.V'), '''
        class A:
            V: str = "1.9"  # of A
        ''', '''
        class A:
            V: str = "1.10"  # of A
        ''')


def test_set_value_needs_a_value():
    refused(set_value('x', '1'), 'x: int\n', errors.WrongKind)
    refused(set_value('x', '1 +'), 'x = 2\n', errors.BadText)


def test_set_value():
    check(set_value('x', "['a',\n 'b']"), 'if y:\n    x = [\n    ]\n',
          "if y:\n    x = ['a',\n     'b']\n")


@pytest.mark.parametrize('source', [
    'x = f', 'x = 1, 2', 'x = f(a, b)', 'x = [a for a in b]'])
def test_append_needs_a_literal_in_brackets(source):
    refused(append('x', 'c'), source, errors.WrongKind)


def test_append_refuses_what_is_there():
    refused(append('x', '"b"'), "x = ['a', 'b']", errors.AlreadyThere)
    refused(append('x', 'b: 2'), 'x = {b: 2}', errors.AlreadyThere)


def test_append_refuses_an_item_of_another_kind():
    refused(append('x', 'a'), 'x = {1: 2}', errors.BadText)
    refused(append('x', 'a: 1'), 'x = [1]', errors.BadText)


def test_append_within_needs_one_match():
    source = 'def f():\n    g((1, 2))\n    g((1, 2))\n'
    refused(append('f', '3', within='(1, ...)'), source, errors.ManyMatches)
    refused(append('f', '3', within='(5, ...)'), source, errors.NoMatch)


def test_append_within():
    check(append('f', '3', within='(1, ...)'),
          'def f():\n    g((1, 2))\n', 'def f():\n    g((1, 2, 3))\n')


def test_append_an_item_with_its_comment():
    check(append('HISTORY', "# Version 2: more\n{'rpc': 1}"), '''
        HISTORY = (
            # Version 1: first
            {'rpc': 1},  # one
        )
        ''', '''
        HISTORY = (
            # Version 1: first
            {'rpc': 1},  # one
            # Version 2: more
            {'rpc': 1},
        )
        ''')


@pytest.mark.parametrize('before, item, after', [
    ('x = ()', 'a', 'x = (a,)'),
    ('x = (a,)', 'b', 'x = (a, b)'),
    ('x = []', 'a', 'x = [a]'),
    ('x = {}', '"k": a', 'x = {"k": a}'),
    ('x = {\n}', '"k": a', 'x = {\n    "k": a,\n}'),
    ('x = {a, b}', 'c', 'x = {a, b, c}'),
])
def test_append_to_small_literals(before, item, after):
    check(append('x', item), before + '\n', after + '\n')
