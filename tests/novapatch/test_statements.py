# SPDX-License-Identifier: Apache-2.0

import pytest

from novapatch.edit import insert_after
from novapatch.edit import insert_before
from novapatch.edit import MODULE
from novapatch import errors
from patch_helpers import changed
from patch_helpers import check
from patch_helpers import refused

FUNCTION = '''
    def f(self):
        """Doc."""
        # first: set
        # it up
        a = self.begin(1)
        if a:
            for b in a:
                use(b)
            # done with a
        elif self:
            pass
        with lock('x') as held:
            try:
                work(held)
            except OSError:
                undo(held)
        return a
        # the end
    '''


@pytest.mark.parametrize('pattern', [
    'self.finish()', 'b = self.begin(1)', 'if b:', 'for x in y:',
    "with lock('y') as held:", 'use(b)\nuse(b)',
    'while a:'])
def test_no_match(pattern):
    message = refused(insert_before('f', pattern, 'new()'), FUNCTION,
                      errors.NoMatch)
    assert repr(pattern) in message


def test_no_match_says_what_is_near():
    message = refused(insert_before('f', 'a = self.began(1)', 'new()'),
                      FUNCTION, errors.NoMatch)
    assert 'near: line 5: a = self.begin(1)' in message


def test_two_matches():
    source = 'def f():\n    g()\n    if g():\n        g()\n'
    message = refused(insert_after('f', 'g()', 'new()'), source,
                      errors.ManyMatches)
    assert '2 places' in message and 'lines 2, 4' in message


def test_no_target():
    message = refused(insert_after('A.fly', 'g()', 'new()'),
                      'class A:\n    def flo(self): pass\n',
                      errors.NoMatch)
    assert 'near: flo' in message


@pytest.mark.parametrize('pattern', [
    'if', 'x +', '', 'f(', 'else:', '# it up'])
def test_bad_pattern(pattern):
    refused(insert_after('f', pattern, 'new()'), FUNCTION,
            errors.BadText)


def test_bad_text():
    refused(insert_after('f', 'return a', 'new('), FUNCTION, errors.BadText)


@pytest.mark.parametrize('edit', [insert_before, insert_after])
@pytest.mark.parametrize('source, pattern', [
    ('if a: g()', 'g()'),
    ('if a:\n        b\n    else: g()', 'g()'),
    ('if a:\n        b\n    elif c:\n        d', 'if c:'),
    ('b; g(); c', 'g()'),
])
def test_no_room(edit, source, pattern):
    refused(edit('f', pattern, 'new()'), f'def f(a):\n    {source}\n',
            errors.NoRoom)


def inserted(before, line, text, after_line=False):
    """The source with lines put before (or after) the line that has words."""
    lines = before.split('\n')
    at = next(number for number, have in enumerate(lines) if line in have)
    margin = lines[at][:len(lines[at]) - len(lines[at].lstrip())]
    at += after_line
    return '\n'.join(lines[:at] + [margin + text] + lines[at:])


@pytest.mark.parametrize('pattern, line', [
    ('a = self.begin($X)', '# first: set'),
    ('$A = self.begin(1)', '# first: set'),
    ('a = self.begin(...)', '# first: set'),
    ('if a:', 'if a:'),
    ('for $X in a:', 'for b'),
    ('use(b)', 'use(b)'),
    ('with lock("x") as $H:', 'with lock'),
    ('return $X', 'return a'),
])
def test_insert_before(pattern, line):
    check(insert_before('f', pattern, 'new()'), FUNCTION,
          inserted(FUNCTION, line, 'new()'))


@pytest.mark.parametrize('pattern, line', [
    ('a = self.begin($X)', 'a = self'),
    ('for b in a:', 'use(b)'),
])
def test_insert_after(pattern, line):
    text = FUNCTION
    edit = insert_after('f', pattern, 'new()')
    after = inserted(text, line, 'new()', True)
    if pattern != 'a = self.begin($X)':
        after = after.replace('    new()', 'new()')
    check(edit, text, after)


def test_insert_after_keeps_the_comments_of_the_block():
    check(insert_after('f', 'if a:', 'new()'), '''
        def f():
            if a:
                b

                # of b
            # of c
            c
        ''', '''
        def f():
            if a:
                b

                # of b
            new()
            # of c
            c
        ''')


def test_a_comment_goes_next_to_the_statement():
    check(insert_before('A', 'VERSION = $X', '# 1.2: more'), '''
        class A:
            # 1.1: less
            VERSION = 1
        ''', '''
        class A:
            # 1.1: less
            # 1.2: more
            VERSION = 1
        ''')


def test_a_class_is_not_searched_inside_of_its_methods():
    check(insert_after('A', 'x = 1', 'y = 2'), '''
        class A:
            x = 1

            def f(self):
                x = 1
        ''', '''
        class A:
            x = 1
            y = 2

            def f(self):
                x = 1
        ''')


def test_triple_quoted_strings_stay_and_docstrings_move():
    after = changed(insert_after('f', 'a()', '''
            def g():
                """Doc.

                More.
                """
                return """
            one
              two
            """
        '''), 'def f():\n    a()\n')
    # Neither is the value of the string another, nor do the lines of the
    # docstring hang anywhere else than below its first.
    assert '\n            one\n              two\n            """' in after
    assert '    def g():\n        """Doc.\n\n        More.\n' in after


def test_blank_lines_at_the_ends_of_a_text_stay():
    check(insert_after('f', 'a()', '\n\nnew()\n\n'),
          'def f():\n    a()\n    b()\n',
          'def f():\n    a()\n\n    new()\n\n    b()\n')


def test_a_file_without_end_of_line_gets_its_own_line():
    check(insert_after(MODULE, 'a', 'b'), 'a', 'a\nb\n')
