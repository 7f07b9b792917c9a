# SPDX-License-Identifier: Apache-2.0

import sys

import pytest

from novapatch.edit import add_function
from novapatch.edit import add_import
from novapatch.edit import append
from novapatch.edit import insert_before
from novapatch import errors
from novapatch.plan import check
from novapatch.plan import sequence
from novapatch.text.source import File
from novapatch.text.source import Source
from novapatch.tree.change import Change
from novapatch.tree.change import Plan
from patch_helpers import text_of

BEFORE = '''
    import os


    class A:
        size = (1, 2)

        @guard
        def f(self, x):
            def inner():
                return x
            unused = 1
            return inner() + undefined

        def g(self):
            return os
    '''


class TreeOfNova:
    """What the check asks of a tree."""

    files = {'nova/__init__.py': b'', 'nova/i18n.py': b'_ = str',
             'nova/virt/__init__.py': b'', 'nova/virt/driver.py': b''}

    def has(self, path):
        return path in self.files

    def read(self, path):
        return self.files[path]


TREE_OF_NOVA = TreeOfNova()

HOOKED = 'return inner() + $X'


def findings(after=None, edits=(), before=BEFORE):
    """What the check says of a file whose text became another."""
    before = text_of(before)
    if after is None:
        file = File(before.encode())
        result = sequence.apply_all(file.source, tuple(edits), True)
        after, sources = file.encode(result), (file.source, result)
    else:
        after = text_of(after).encode()
        sources = [Source(before), Source(after.decode())]
    change = Change('x.py', before.encode(), after, 0o644,
                    tuple(edits), sources=tuple(sources))
    try:
        check.run(Plan('34.0.0', (change,), ()), TREE_OF_NOVA)
    except errors.CheckFailed as error:
        return error.details['findings']
    return ''


def of_new(text):
    change = Change('x.py', None, text.encode(), 0o644)
    with pytest.raises(errors.CheckFailed) as caught:
        check.run(Plan('34.0.0', (change,), ()), TREE_OF_NOVA)
    return str(caught.value)


@pytest.mark.parametrize('text, message', [
    ('def f(', 'does not compile'),
    ('return 1\n', 'does not compile'),
])
def test_a_new_file_that_is_wrong(text, message):
    assert message in of_new(text)


@pytest.mark.parametrize('text, missing', [
    ('import nova.rudder', 'nova.rudder'),
    ('from nova import rudder', 'nova.rudder'),
    ('from nova.virt import rudder', 'nova.virt.rudder'),
    ('from nova.virt.rudder import turn', 'nova.virt.rudder.turn'),
    ('from nova.i18n import _X', 'nova.i18n._X'),
    ('def f():\n    import nova.rudder', 'nova.rudder'),
])
def test_what_this_release_lacks(text, missing):
    assert of_new(text + '  # noqa\n').endswith(
        f'there is no {missing}')


@pytest.mark.parametrize('text', [
    'import nova.virt.driver', 'from nova.virt import driver',
    'from nova.i18n import _', 'from nova import virt', 'import novae',
    'from . import rudder', 'from .nova import rudder', 'from x import y'])
def test_what_this_release_has(text):
    change = Change('x.py', None, f'{text}  # noqa\n'.encode(), 0o644)
    check.run(Plan('34.0.0', (change,), ()), TREE_OF_NOVA)


def test_what_was_imported_before_is_not_looked_for():
    before = 'import nova.zvm\nnova.zvm\n'
    assert findings(before + 'nova.zvm\n', before=before).count(
        'there is no') == 0
    assert 'there is no nova.rudder' in findings(
        'import nova.rudder\n' + before, before=before)


def test_the_names_in_a_new_file_are_for_lint():
    change = Change('x.py', None, b'import os\nx = y\n', 0o644)
    check.run(Plan('34.0.0', (change,), ()), TREE_OF_NOVA)


@pytest.mark.parametrize('text, message', [
    ('x = y\n', "line 1: F821 undefined name 'y'"),
    ('def f():\n    x = 1\n', 'line 2: F841'),
    ('import os\n', 'line 1: F401'),
    ('import os\nimport os\nos\n', 'line 2: F811'),
    ('import os  # noqa\n', ''),
])
def test_names_that_are_wrong_since_a_change(text, message):
    found = findings(text, before='')
    assert message in found if message else ' F' not in found


IMPORTED = '''
    import os


    class A:
        def f(self):
            return os

        def g(self, x=os):
            return os
    '''


@pytest.mark.parametrize('used', ['return os', 'x=os'])
def test_a_name_that_only_other_functions_use_is_used(used):
    text = IMPORTED.replace(used, 'x=1' if '=' in used else 'return 1')
    after = text.replace('        def f(self):\n            return os',
                         '        def f(self):\n            return 1')
    assert ' F' not in findings(after, before=text)


@pytest.mark.parametrize('definition', [
    'import os', 'os = 1', 'def os(): pass', 'class os: pass'])
def test_a_name_that_went_away_from_under_other_functions(definition):
    before, after = (IMPORTED.replace('import os', text)
                     for text in (definition, 'x = 1'))
    assert "F821 undefined name 'os'" in findings(after, before=before)


def test_an_import_whose_last_use_went_away():
    text = IMPORTED.replace('def g(self, x=os):\n            return os',
                            'def g(self):\n            return 1')
    assert "F401 'os' imported but unused" in findings(
        text.replace('return os', 'return 2'), before=text)


def test_a_hook_that_uses_a_name_that_is_not_there():
    found = findings(edits=[insert_before('A.f', HOOKED, 'use(y)')])
    assert "F821 undefined name 'use'" in found
    assert "F821 undefined name 'y'" in found
    # What was wrong before is not our business.
    assert "'undefined'" not in found and 'F841' not in found


def test_an_import_that_nothing_uses():
    assert 'F401' in findings(edits=[add_import('import sys')])


def test_a_good_change():
    assert not findings(edits=[
        add_import('import sys'),
        add_function('def h(self):\n    return sys', after='A.g'),
        append('A.size', '3'),
        insert_before('A.f', HOOKED, '# why'),
        insert_before('A.f.inner', 'return x', 'print(x)')])


@pytest.mark.parametrize('old, new, name', [
    ('return os', 'return os.path', 'A.g'),
    ('(1, 2)', '(1, 3)', 'A'),
    ('class A', 'class A(object)', 'A'),
    ('@guard', '@guard(1)', 'A.f'),
    ('return x', 'return 1', 'A.f'),
    ('class A', 'X = 1\n\n\n    class A', 'the module'),
    ('import os', 'import os\n    import sys; sys', 'the module'),
    ('import os', 'import os\n    os.x()', 'the module'),
])
def test_a_change_that_no_edit_declares(old, new, name):
    assert f'{name} changed, and no edit says so' in findings(
        BEFORE.replace(old, new))


def test_a_moved_function_is_no_change():
    assert not findings('# new\n' + text_of(BEFORE))


def test_without_pyflakes(monkeypatch):
    monkeypatch.setitem(sys.modules, 'pyflakes.checker', None)
    with pytest.raises(errors.PyflakesMissing):
        findings(BEFORE)
