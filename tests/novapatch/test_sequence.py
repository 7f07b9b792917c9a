# SPDX-License-Identifier: Apache-2.0
"""Edits that share a parse give what they give one by one."""

import pytest

from novapatch.edit import add_argument
from novapatch.edit import add_function
from novapatch.edit import add_import
from novapatch.edit import append
from novapatch.edit import bump
from novapatch.edit import insert_after
from novapatch.edit import insert_before
from novapatch.edit import replace
from novapatch.edit import set_value
from novapatch import errors
from novapatch.plan import sequence
from novapatch.text.source import Source
from patch_helpers import text_of

SOURCE = text_of('''
    import os

    X = 1
    EMPTY = ()


    class A:
        V = 1

        def f(self):
            one()
            two()

        def g(self):
            one()
            return os
    ''')

NEW = 'def new(self):\n    return 1'


def one_by_one(edits):
    source = Source(SOURCE)
    for edit in edits:
        source = edit.apply(source)
    return source.text


@pytest.mark.parametrize('edits', [
    # other functions
    [insert_before('A.g', 'one()', 'a()'), insert_after('A.f', 'two()', 'b()'),
     bump('X'), bump('A.V')],
    # the same function, and the same place
    [insert_after('A.f', 'one()', 'a()'), insert_after('A.f', 'one()', 'b()')],
    # one builds on another
    [insert_after('A.f', 'one()', 'a()'), insert_after('A.f', 'a()', 'b()')],
    [add_function(NEW, after='A.f'),
     insert_before('A.new', 'return 1', 'b()')],
    [add_function(NEW, after='A.f'), insert_after('A.f', 'two()', 'b()')],
    [insert_after('A.f', 'two()', 'b()'), add_function(NEW, after='A.f')],
    [insert_after('A', 'V = 1', 'W = 2'), insert_after('A.g', 'one()', 'b()')],
    [add_import('from os import sys'), add_import('from os import re'),
     replace('A.g', 'os', 'sys'), replace('A.g', 'sys', 're')],
    [bump('X'), append('EMPTY', 'a'), append('EMPTY', 'b'), bump('X')],
    # the module is everything
    [insert_after('A.f', 'one()', 'a()'), insert_after('', 'X = $V', 'Y = 1'),
     set_value('Y', '2')],
    [add_argument('A.f', 'one()', 'x=1'), add_argument('A.g', 'one()', 'x=1')],
])
def test_like_one_by_one(edits):
    result = sequence.apply_all(Source(SOURCE), tuple(edits), True)
    assert result.text == one_by_one(edits)


def test_the_parses_are_few(monkeypatch):
    parsed = []
    real = sequence.Source.tree.func

    def tree(self):
        parsed.append(self)
        return real(self)

    monkeypatch.setattr(sequence.Source, 'tree', property(tree))
    sequence.apply_all(Source(SOURCE), (
        bump('X'), bump('A.V'), insert_after('A.f', 'one()', 'a()')), True)
    assert len({source.text for source in parsed}) == 2


@pytest.mark.parametrize('bad, error', [
    (insert_after('A.f', 'none()', 'a()'), errors.NoMatch),
    (replace('A.g', 'return $X', 'return $X +'), errors.BadText),
    (set_value('X', '1'), errors.NothingChanged),
])
def test_the_edit_to_blame(bad, error):
    with pytest.raises(error) as caught:
        sequence.apply_all(Source(SOURCE), (bump('A.V'), bad), True)
    assert caught.value.edit is bad


def test_a_match_that_an_earlier_edit_made_ambiguous():
    edits = (insert_before('A.f', 'one()', 'two()'),
             insert_after('A.f', 'two()', 'three()'))
    with pytest.raises(errors.ManyMatches):
        sequence.apply_all(Source(SOURCE), edits, True)
