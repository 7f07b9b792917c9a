# SPDX-License-Identifier: Apache-2.0

import pytest

from novapatch.edit import replace
from novapatch import errors
from patch_helpers import check
from patch_helpers import refused


def test_no_match():
    refused(replace('f', 'g(2)', 'h()'), 'def f():\n    g(1)\n',
            errors.NoMatch)


def test_two_matches():
    refused(replace('f', 'g($X)', 'h($X)'), 'def f():\n    g(g(1))\n',
            errors.ManyMatches)


def test_a_header_alone():
    refused(replace('f', 'if a:', 'if b:'),
            'def f():\n    if a:\n        b\n', errors.BadText)


def test_a_placeholder_that_was_not_captured():
    refused(replace('f', 'g($X)', 'g($Y)'), 'def f():\n    g(1)\n',
            errors.BadText)


def test_a_placeholder_must_match_equal_things():
    refused(replace('f', '$X == $X', 'True'),
            'def f():\n    return a == b\n', errors.NoMatch)


@pytest.mark.parametrize('body, pattern, text, after', [
    ('return g(1)', 'g($X)', 'h($X, 2)', 'return h(1, 2)'),
    ('return g("a")', "g('a')", 'h', 'return h'),
    # brackets where the new would fall apart
    ('return not g(1)', 'g(1)', 'a or b', 'return not (a or b)'),
    ('return g(a or b)', 'g($X)', '$X.c', 'return (a or b).c'),
    ('return g(a)', 'g($X)', '$X.c', 'return a.c'),
    # the old inside of the new
    ('x = g(1)', 'g($X)', 'h(g($X))', 'x = h(g(1))'),
    ('x = g(1)  # why', 'x = g($X)', 'y = g($X)\nx = y',
     'y = g(1)\n    x = y  # why'),
    ('a()\n    b()\n    c()', 'a()\nb()', 'd()', 'd()\n    c()'),
    ('a()', 'a()', 'b()\nc()', 'b()\n    c()'),
    ('x = g(1)', 'x = g(1)', '# why\nx = h()', '# why\n    x = h()'),
    ('x = [g(1),\n         2]', 'g(1)', 'h(\n    1)',
     'x = [h(\n        1),\n         2]'),
])
def test_replace(body, pattern, text, after):
    check(replace('f', pattern, text), f'def f(self):\n    {body}\n',
          f'def f(self):\n    {after}\n')


def test_a_class_is_not_searched_inside_of_its_methods():
    check(replace('A', 'g(1)', 'h()'),
          'class A:\n    x = g(1)\n\n    def f(self):\n        g(1)\n',
          'class A:\n    x = h()\n\n    def f(self):\n        g(1)\n')
