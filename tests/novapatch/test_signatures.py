# SPDX-License-Identifier: Apache-2.0

import pytest

from novapatch.edit import add_argument
from novapatch.edit import add_decorator
from novapatch.edit import add_parameter
from novapatch import errors
from patch_helpers import check
from patch_helpers import refused


# -- parameters -----------------------------------------------------------

def test_parameter_of_no_function():
    refused(add_parameter('f', 'x'), 'f = 1\n', errors.WrongKind)
    refused(add_parameter('g', 'x'), 'f = 1\n', errors.NoMatch)


def test_parameter_that_is_there():
    refused(add_parameter('f', 'a=1'), 'def f(a): pass\n',
            errors.AlreadyThere)


@pytest.mark.parametrize('before, after', [
    ('def f(): pass', 'def f(x=1): pass'),
    ('def f(a, b=2): pass', 'def f(a, b=2, x=1): pass'),
    ('def f(*args): pass', 'def f(x=1, *args): pass'),
    ('def f(a, *args, **kw): pass', 'def f(a, x=1, *args, **kw): pass'),
    ('def f(a, *, b): pass', 'def f(a, x=1, *, b): pass'),
    ('def f(**kw): pass', 'def f(x=1, **kw): pass'),
    ('def f(a, /): pass', 'def f(a, /, x=1): pass'),
    ('async def f(a) -> g(1): pass', 'async def f(a, x=1) -> g(1): pass'),
    ('def f(a: t[1, 2] = (1, 2)): pass',
     'def f(a: t[1, 2] = (1, 2), x=1): pass'),
    ('def f(a=lambda b, c: 1): pass',
     'def f(a=lambda b, c: 1, x=1): pass'),
])
def test_parameter(before, after):
    check(add_parameter('f', 'x=1'), before + '\n', after + '\n')


def test_parameter_of_a_decorated_function():
    check(add_parameter('A.f', 'x=1'), '''
        class A:
            @guard(1)
            def f(self, a,
                  b=2):
                pass
        ''', '''
        class A:
            @guard(1)
            def f(self, a,
                  b=2, x=1):
                pass
        ''')


PROPERTY = '''
    class A:
        @property
        def f(self):
            pass

        @f.setter
        def f(self, value):
            pass
    '''


def test_two_functions_of_a_name():
    refused(add_parameter('A.f', 'x=1'), PROPERTY, errors.ManyMatches)


# -- arguments ------------------------------------------------------------

def test_argument_of_no_call():
    source = 'def f(g):\n    g(1)\n'
    message = refused(add_argument('f', 'g(2)', 'x=1'), source,
                      errors.NoMatch)
    assert 'near: line 2: g(1)' in message
    refused(add_argument('f', 'g', 'x=1'), source, errors.WrongKind)


def test_argument_of_two_calls():
    message = refused(add_argument('f', 'g(...)', 'x=1'),
                      'def f():\n    g(1)\n    g(2)\n', errors.ManyMatches)
    assert 'lines 2, 3' in message


def test_argument_that_is_there():
    refused(add_argument('f', 'g(...)', 'x=1'), 'def f():\n    g(x=2)\n',
            errors.AlreadyThere)


@pytest.mark.parametrize('before, argument, after', [
    ('g()', 'x=1', 'g(x=1)'),
    ('g(a)', 'x=1', 'g(a, x=1)'),
    ('g(a, b=c)', 'x=1', 'g(a, b=c, x=1)'),
    ('g(a, b=c)', 'x', 'g(a, x, b=c)'),
    ('g(a, *b)', 'x=1', 'g(a, *b, x=1)'),
    ('g(a, **b)', 'x=1', 'g(a, **b, x=1)'),
    ('g(a, b=c)', '**x', 'g(a, b=c, **x)'),
    ('g((a for a in b))', 'x=1', 'g((a for a in b), x=1)'),
    ('g(h(1), (2))', 'x=1', 'g(h(1), (2), x=1)'),
    ('(g)(a)', 'x=1', '(g)(a, x=1)'),
    ('é.g(ü)', 'x=1', 'é.g(ü, x=1)'),
])
def test_argument(before, argument, after):
    pattern = 'é.g(...)' if 'é' in before else 'g(...)'
    check(add_argument('f', pattern, argument),
          f'def f():\n    return "é", {before}\n',
          f'def f():\n    return "é", {after}\n')


def test_argument_by_an_exact_pattern():
    check(add_argument('f', 'g($A, k=$B)', 'x=1'),
          'def f():\n    g(1, k=2)\n    g(1)\n',
          'def f():\n    g(1, k=2, x=1)\n    g(1)\n')


# -- decorators -----------------------------------------------------------

DECORATED = '''
    class A:
        @one
        @two(1,
             2)
        def f(self):
            pass
    '''


def test_decorator_that_is_there():
    refused(add_decorator('A.f', '@two(1, 2)'), DECORATED,
            errors.AlreadyThere)


def test_decorator_beside_one_that_is_not_there():
    message = refused(add_decorator('A.f', 'new', below='three'),
                      DECORATED, errors.NoMatch)
    assert 'there are: @one, @two(1, 2)' in message


@pytest.mark.parametrize('place, line', [
    ({'below': '@one'}, '    @one\n'),
    ({'above': 'two(...)'}, '    @one\n'),
    ({'below': 'two(1, $X)'}, '         2)\n'),
    ({}, '         2)\n'),
])
def test_decorator(place, line):
    source = DECORATED.replace('\n    ', '\n')
    after = source.replace(line, line + '    @new(a)\n')
    check(add_decorator('A.f', 'new(a)', **place), source, after)
