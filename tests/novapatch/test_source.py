# SPDX-License-Identifier: Apache-2.0

import pytest

from novapatch.edit import append_file
from novapatch.edit import bump
from novapatch.edit import insert_after
from novapatch.edit import set_value
from novapatch import errors
from novapatch.text.source import File


@pytest.mark.parametrize('data', [b'\xff\xfe', b'a\rb\n'])
def test_unreadable(data):
    with pytest.raises(errors.UnreadableFile):
        File(data)


def edited(data, edit):
    file = File(data)
    return file.encode(edit.apply(file.source))


@pytest.mark.parametrize('data', [
    b'', b'a', b'a\n', b'a\r\n', b'a\r\nb', b'a\r\nb\n', b'\n\n',
    'é\n\x0c\n'.encode()])
def test_what_is_not_edited_stays(data):
    file = File(data)
    assert file.encode(file.source) == data


@pytest.mark.parametrize('before, after', [
    (b'x = 1\r\ny = 2\r\n', b'x = 1\r\nnew()\r\ny = 2\r\n'),
    (b'x = 1\r\ny = 2', b'x = 1\r\nnew()\r\ny = 2'),
    (b'x = 1\ny = 2', b'x = 1\nnew()\ny = 2'),
    (b'x = 1', b'x = 1\nnew()\n'),
    ('é = "ü"; x = 1\n'.encode(), None),
    (b'x = 1\n\x0c\ny = 2\n', b'x = 1\nnew()\n\x0c\ny = 2\n'),
])
def test_ends_of_lines(before, after):
    edit = insert_after('', 'x = 1', 'new()')
    if after is None:
        with pytest.raises(errors.NoRoom):
            edited(before, edit)
    else:
        assert edited(before, edit) == after


def test_columns_are_bytes_for_ast_and_characters_for_us():
    assert edited('x = {"é": "ü"}; y = 1\n'.encode(), bump('y')) == (
        'x = {"é": "ü"}; y = 2\n'.encode())


def test_append_to_a_file_without_end_of_line():
    assert edited(b'a\r\nb', append_file('c')) == b'a\r\nb\r\nc\r\n'


def test_an_unknown_value():
    with pytest.raises(errors.UnknownValue) as caught:
        set_value('x', '{{new}}').bind({'old': '1'})
    assert '{{new}}' in str(caught.value) and 'old' in str(caught.value)


def test_byte_order_mark_stays():
    data = '\ufeffX = 1\n'.encode()
    file = File(data)
    assert file.encode(file.source) == data
    edited = file.encode(bump('X').apply(file.source))
    assert edited == '\ufeffX = 2\n'.encode()
