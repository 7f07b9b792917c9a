# SPDX-License-Identifier: Apache-2.0
"""Adding a context to a ``with`` statement that is there."""

import pytest

from novapatch.edit import add_context
from novapatch import errors
from novapatch.text.source import Source
from patch_helpers import text_of as src

ONE = src("""
    def f():
        with first(
            a, b,
        ) as x:
            body()
    """)


def test_no_such_statement():
    with pytest.raises(errors.NoMatch):
        add_context('f', 'with other():', 'new()').apply(Source(ONE))


def test_what_is_no_with():
    with pytest.raises(errors.WrongKind):
        add_context('f', 'body()', 'new()').apply(Source(ONE))


def test_contexts_in_brackets_are_refused():
    text = src("""
        def f():
            with (first(), second()):
                body()
        """)
    with pytest.raises(errors.NoRoom):
        add_context('f', 'with first(), second():', 'new()').apply(
            Source(text))


def test_what_is_no_expression():
    with pytest.raises(errors.BadText):
        add_context('f', 'with first(...) as x:', 'new(').apply(Source(ONE))


def test_first():
    edit = add_context('f', 'with first(...) as x:',
                       'new(\n    c)', first=True)
    result = edit.apply(Source(ONE))
    assert result.text == src("""
        def f():
            with new(
                     c), \\
                 first(
                a, b,
            ) as x:
                body()
        """)


def test_last():
    edit = add_context('f', 'with first(...) as x:', 'new()')
    result = edit.apply(Source(ONE))
    assert result.text == src("""
        def f():
            with first(
                a, b,
            ) as x, \\
                 new():
                body()
        """)
    assert edit.changes() == {'f'}
