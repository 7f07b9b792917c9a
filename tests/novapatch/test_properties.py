# SPDX-License-Identifier: Apache-2.0
"""What must hold for any source."""

import ast

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from novapatch import commands
from novapatch.edit import add_parameter
from novapatch.edit import append
from novapatch.edit import insert_after
from novapatch.edit import insert_before
from novapatch.plan import patchset
from novapatch.text.layout import add_item
from novapatch.text.layout import read_items
from novapatch.text.source import File
from novapatch.text.source import Source
from novapatch.tree import transaction
from novapatch.tree.tree import Tree
from patch_helpers import PATCH_SET
from patch_helpers import snapshot
from patch_helpers import TREE
from patch_helpers import write

NAMES = st.sampled_from(['a', 'bb', 'ccc', 'long_name' * 6])
SIMPLE = st.sampled_from([
    'pass', 'x = 1', 'call(1, 2)', 'y = """one\n  two\n"""', '# comment',
    'z = [\n    1,\n]', 's = "é"; t = 2', ''])
HEADERS = st.sampled_from(['if x:', 'for i in x:', 'try:', 'while x:'])


def block(lines, depth):
    """Indent statements, but not the inside of strings."""
    margin = ' ' * 4 * depth
    return [margin + line if 'one\n' in line else
            '\n'.join(margin + part for part in line.split('\n'))
            for line in lines]


@st.composite
def bodies(draw, depth=1):
    """Lines of a function around one call of hook()."""
    lines = block(draw(st.lists(SIMPLE, max_size=4)), depth)
    if depth < 4 and draw(st.booleans()):
        header = draw(HEADERS)
        lines += block([header], depth) + draw(bodies(depth + 1))
        if header == 'try:':
            lines += block(['finally:', '    x = 2'], depth)
    else:
        lines += block(['hook()'], depth)
    return lines + block(draw(st.lists(SIMPLE, max_size=3)), depth)


@st.composite
def sources(draw):
    text = '\n'.join(['def f(x):', *draw(bodies()), 'END = (1,)'])
    return text + draw(st.sampled_from(['\n', '', '\n\n']))


def is_insertion(before, after, new):
    """Whether taking some run of lines out of one text gives the other."""
    before, after = before.split('\n'), after.split('\n')
    added = len(after) - len(before)
    return any(after[:at] + after[at + added:] == before
               and [line.strip() for line in after[at:at + added]] == new
               for at in range(len(after)))


@given(sources(), st.sampled_from([insert_before, insert_after]),
       st.booleans())
def test_an_insertion_leaves_every_other_line(source, operation, crlf):
    ends = '\r\n' if crlf else '\n'
    data = source.replace('\n', ends).encode()
    file = File(data)
    edit = operation('f', 'hook()', 'new()\nif new:\n    new()')
    result = edit.apply(file.source)
    compile(result.text, 'invented', 'exec')
    after = file.encode(result).decode()
    assert after.count('\r\n') == (after.count('\n') if crlf else 0)
    assert is_insertion(source, after.replace('\r\n', '\n'),
                        ['new()', 'if new:', 'new()'])


ITEMS = st.lists(st.sampled_from([
    'a', '(b)', 'f(1, 2)', 'lambda u, v: u', "'x, y'", 'c' * 40,
    '[\n    1,\n]']), max_size=6)
SEPARATORS = st.sampled_from([', ', ',\n    ', ',  # why\n    '])


@st.composite
def brackets(draw):
    items = draw(ITEMS)
    text = draw(st.sampled_from(['', '\n    ']))
    for index, item in enumerate(items):
        text += item
        if index < len(items) - 1:
            text += draw(SEPARATORS)
    ending = ['', '\n', ',', ',\n', '  # end\n']
    return f'x = [{text}{draw(st.sampled_from(ending)) if items else ""}]\n'


@given(brackets(), st.integers(-1, 5))
def test_an_item_is_added_and_no_other_changes(text, after):
    source = Source(text)
    items = read_items(source, 4)
    count = len(items.items)
    place = None if after >= count else after
    result = add_item(items, 'new', place)
    have = eval_items(text)
    at = count if place is None or not count else place + 1
    assert eval_items(result.text) == have[:at] + ['new'] + have[at:]
    # Not a character of the old went away, save for white space.
    left = iter(result.text)
    assert all(character in left for character in text.strip())


def eval_items(text):
    return [ast.unparse(item) for item in ast.parse(text).body[0].value.elts]


@given(st.lists(NAMES, max_size=5, unique=True), NAMES)
def test_a_parameter_is_the_last_ordinary_one(names, margin):
    text = f'def f({", ".join(names)}{", " if names else ""}*args):\n    pass'
    result = add_parameter('f', 'new').apply(Source(text + '\n'))
    found = [arg.arg for arg in result.tree.body[0].args.args]
    assert found == names + ['new']


@given(st.lists(st.integers(0, 99), max_size=30), st.integers(100, 999))
def test_append_to_a_list(numbers, new):
    source = Source(f'x = {numbers}\n')
    result = append('x', str(new)).apply(source)
    scope = {}
    exec(result.text, scope)
    assert scope['x'] == numbers + [new]


@settings(deadline=None, max_examples=25)
@given(st.binary(max_size=40).filter(lambda data: b'\r' not in data),
       st.booleans(), st.booleans(), st.integers(0, 2))
def test_apply_and_undo_give_the_same_bytes(
        tmp_path_factory, other, crlf, end, blank):
    top = tmp_path_factory.mktemp('undo')
    write(top / 'project', PATCH_SET)
    write(top / 'tree', TREE)
    boat = top / 'tree/nova/boat.py'
    data = boat.read_bytes().rstrip() + b'\n' * end + b'\n' * blank
    boat.write_bytes(data.replace(b'\n', b'\r\n') if crlf else data)
    (top / 'tree/nova/other.bin').write_bytes(other)
    before = snapshot(top / 'tree')
    tree, patch_set = Tree(top / 'tree'), patchset.load(top / 'project')
    commands.apply(tree, patch_set)
    assert snapshot(top / 'tree') != before
    assert (top / 'tree/nova/other.bin').read_bytes() == other
    transaction.undo(tree.root)
    assert snapshot(top / 'tree') == before
