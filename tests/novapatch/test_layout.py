# SPDX-License-Identifier: Apache-2.0

import pytest

from novapatch import errors
from novapatch.text.layout import add_item
from novapatch.text.layout import read_items
from novapatch.text.source import Source

LONG = 'a' * 70


def added(text, item, after=None):
    source = Source(text)
    return add_item(read_items(source, text.index('(')), item, after).text


def test_a_bracket_that_is_never_closed():
    with pytest.raises(errors.ResultBroken):
        read_items(Source('f(a, b'), 1)


@pytest.mark.parametrize('text, after', [
    # on one line
    ('f()', 'f(new)'),
    ('f(a)', 'f(a, new)'),
    ('f(a, b)', 'f(a, b, new)'),
    ('f(a, b,)', 'f(a, b, new,)'),
    # a last item with brackets of its own
    ('f(a, (b))', 'f(a, (b), new)'),
    ('f((a), ((b, c)))', 'f((a), ((b, c)), new)'),
    # commas that separate nothing
    ('f(lambda x, y: x)', 'f(lambda x, y: x, new)'),
    ("f('a, b')", "f('a, b', new)"),
    ('f(a[1, 2])', 'f(a[1, 2], new)'),
    # several a line
    ('f(a,\n  b, c)', 'f(a,\n  b, c, new)'),
    ('f(\n    a, b)', 'f(\n    a, b, new)'),
    ('f(\n    a)', 'f(\n    a, new)'),
    # one a line
    ('f(a,\n  b)', 'f(a,\n  b,\n  new)'),
    ('f(\n    a,\n    b)', 'f(\n    a,\n    b,\n    new)'),
    ('f(\n    a,\n    b,\n)', 'f(\n    a,\n    b,\n    new,\n)'),
    ('f(\n    a,\n    b,)', 'f(\n    a,\n    b,\n    new,)'),
    ('f(\n    a\n)', 'f(\n    a,\n    new\n)'),
    ('f(\n    a,\n)', 'f(\n    a,\n    new,\n)'),
    # one a line at the end, which is what counts
    ('f(\n    a, b,\n    c,\n    d)',
     'f(\n    a, b,\n    c,\n    d,\n    new)'),
    # comments
    ('f(\n    a,  # one\n    b,  # two\n)',
     'f(\n    a,  # one\n    b,  # two\n    new,\n)'),
    ('f(\n    a,\n    b  # two\n)',
     'f(\n    a,\n    b,  # two\n    new\n)'),
    # the line is full
    (f'f({LONG}, b)', f'f({LONG}, b,\n  new)'),
    (f'f({LONG},\n  b, c)', f'f({LONG},\n  b, c, new)'),
    (f'f(\n    {LONG}, b)', f'f(\n    {LONG}, b,\n    new)'),
])
def test_the_layout_rule(text, after):
    assert added(text, 'new') == after


def test_a_line_may_be_exactly_79_wide():
    fits = f'f({"a" * 71})'
    assert len(added(fits, 'new')) == 79
    assert added(f'f({"a" * 72})', 'new').count('\n') == 1


@pytest.mark.parametrize('text, after', [
    ('f(a, b)', 'f(a, new, b)'),
    ('f(a,\n  b)', 'f(a,\n  new,\n  b)'),
    ('f(\n    a,  # x\n    b)', 'f(\n    a,  # x\n    new,\n    b)'),
])
def test_an_item_in_the_middle(text, after):
    assert added(text, 'new', 0) == after


@pytest.mark.parametrize('text, after', [
    ('f(*a)', 'f(new, *a)'),
    ('f(\n    *a,\n    b)', 'f(\n    new, *a,\n    b)'),
])
def test_an_item_before_the_first(text, after):
    assert added(text, 'new', -1) == after
