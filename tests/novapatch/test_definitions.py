# SPDX-License-Identifier: Apache-2.0

import pytest

from novapatch.edit import add_function
from novapatch.edit import append_docstring
from novapatch.edit import append_file
from novapatch.edit import append_string
from novapatch import errors
from patch_helpers import check
from patch_helpers import refused

SOURCE = '''
    X = 1


    class A:
        def f(self):
            pass
            # of f

        # about g
        @guard
        def g(self):
            pass


    def h():
        pass
    '''
NEW = '''
            def new(self):
                """Doc."""
      '''


@pytest.mark.parametrize('edit, error', [
    (add_function(NEW, after='A.x'), errors.NoMatch),
    (add_function(NEW), errors.BadText),
    (add_function(NEW, after='A.f', before='A.g'), errors.BadText),
    (add_function('pass', after='A.f'), errors.BadText),
    (add_function('def g(): pass', after='A.f'), errors.AlreadyThere),
])
def test_refused(edit, error):
    refused(edit, SOURCE, error)


METHOD = '\n        def new(self):\n            """Doc."""\n'


@pytest.mark.parametrize('place, old, new', [
    ({'after': 'A.f'}, '# of f\n', '# of f\n' + METHOD),
    ({'before': 'A.g'}, '        # about g\n',
     METHOD[1:] + '\n        # about g\n'),
    ({'after': 'A.g'}, '(self):\n            pass\n\n\n',
     '(self):\n            pass\n' + METHOD + '\n\n'),
    ({'after': 'X'}, 'X = 1\n', 'X = 1\n\n\n    def new(self):\n'
     '        """Doc."""\n'),
    ({'before': 'h'}, '    def h', '    def new(self):\n'
     '        """Doc."""\n\n\n    def h'),
])
def test_add_function(place, old, new):
    assert SOURCE.count(old) == 1
    check(add_function(NEW, **place), SOURCE, SOURCE.replace(old, new))


# -- docstrings -----------------------------------------------------------

def test_no_docstring():
    refused(append_docstring('f', 'x'), 'def f():\n    pass\n',
            errors.NoMatch)
    refused(append_docstring('f', 'x'), 'f = 1\n', errors.NoMatch)
    for doc in '"Doc."', '"""Doc."""':
        refused(append_docstring('f', 'x'), f'def f():\n    {doc}\n',
                errors.WrongKind)


@pytest.mark.parametrize('before, text, after', [
    ('"""One.\n\n    More.\n    """', 'Two.',
     '"""One.\n\n    More.\n\n    Two.\n    """'),
    ('"""One.\n    """', ':param x: y',
     '"""One.\n\n    :param x: y\n    """'),
])
def test_append_docstring(before, text, after):
    check(append_docstring('f', text), f'def f():\n    {before}\n',
          f'def f():\n    {after}\n')


def test_append_file():
    check(append_file('\n\n\nx = 1'), 'a = 1\n', 'a = 1\n\n\nx = 1\n')


# -- strings --------------------------------------------------------------

def test_append_string_needs_a_string_with_room():
    edit = append_string('X', 'x')
    refused(edit, 'Y = """\n"""\n', errors.NoMatch)
    for source in ('X = 1\n', 'X = "a"\n', 'X = """a"""\n', 'X = f"""\n"""\n',
                   'X = """a\nb"""\n'):
        refused(edit, source, errors.WrongKind)


@pytest.mark.parametrize('before, after', [
    ('X = """History\n\n    * 1 - a\n      more\n"""\n',
     'X = """History\n\n    * 1 - a\n      more\n'
     '    * 2 - b\n      more\n"""\n'),
    ("X = '''\n  a\n    b\n  '''\n",
     "X = '''\n  a\n    b\n  * 2 - b\n    more\n  '''\n"),
    ('X = """\n"""\n', 'X = """\n* 2 - b\n  more\n"""\n'),
])
def test_append_string(before, after):
    check(append_string('X', '''
        * 2 - b
          more
        '''), before, after)
