# SPDX-License-Identifier: Apache-2.0
"""Helpers of the tests of novapatch; all sources are invented."""

from pathlib import Path
import textwrap

import pytest

from novapatch import errors
from novapatch.text.source import Source


def text_of(text):
    return textwrap.dedent(text).lstrip('\n')


def changed(edit, before):
    """Apply an edit, and return the text after it."""
    after = edit.apply(Source(text_of(before)))
    if hasattr(edit, 'target'):
        compile(after.text, 'invented', 'exec')
    return after.text


def check(edit, before, after):
    assert changed(edit, before) == text_of(after)


def refused(edit, before, error):
    """Apply an edit that must fail; gives the message."""
    with pytest.raises(error) as caught:
        edit.apply(Source(text_of(before)))
    assert isinstance(caught.value, errors.EditError)
    return str(caught.value)


def write(root, files):
    """Write {path: text or bytes} under a directory."""
    for path, text in files.items():
        place = Path(root) / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(text, bytes):
            place.write_bytes(text)
        else:
            place.write_text(text_of(text))


def snapshot(root):
    """{path: (bytes, mode)} of all files, {path: None} of directories."""
    return {
        path.relative_to(root).as_posix():
        (path.read_bytes(), path.stat().st_mode) if path.is_file() else None
        for path in sorted(Path(root).rglob('*'))}


TREE = {
    'PKG-INFO': 'Metadata-Version: 2.1\nName: nova\nVersion: 34.0.0\n',
    'nova/__init__.py': b'',
    'nova/version.py': "VERSION = 3\nMICRO = '2.9'\n",
    'nova/boat.py': '''
        """Boats."""

        import os


        class Boat:
            def sail(self, wind):
                speed = wind * 2
                return self.move(speed)

            def move(self, speed):
                return os.path.join('sea', str(speed))
        ''',
    'doc/source/boats.rst': '''
        Boats
        =====

        They float.
        ''',
}

PATCH_SET = {
    'edits/__init__.py': '''
        from novapatch.edit import next_version

        RELEASES = ('34.0.0',)
        VALUES = {'micro': next_version('nova/version.py', 'MICRO')}
        ''',
    'edits/nova/version.py': '''
        from novapatch.edit import bump

        EDITS = [bump('VERSION'), bump('MICRO')]
        ''',
    'edits/nova/boat.py': '''
        from novapatch.edit import add_import
        from novapatch.edit import insert_before

        EDITS = [
            add_import('from nova import anchor'),
            insert_before('Boat.sail', 'return $X',
                          "anchor.lift('{{micro}}')"),
        ]
        ''',
    'edits/doc/source/boats.rst.py': '''
        from novapatch.edit import rst_append

        EDITS = [rst_append('Anchors since {{micro}}.')]
        ''',
    'nova/anchor.py': '''
        def lift(version):
            return version
        ''',
    'nova/deep/down/__init__.py': b'',
    'doc/source/anchors.rst': 'Anchors\n=======\n',
    'doc/design.rst': 'The own page of the project.\n',
    'nova/__pycache__/anchor.cpython-311.pyc': b'cache',
    'nova/.hidden': b'hidden',
}

SERIES = text_of("""
    branch = 'boats'
    author = 'A. Sailor <sailor@example.org>'
    date = 2026-11-27T00:00:00Z

    [[commit]]
    name = 'anchor'
    files = ['nova/anchor.py', 'nova/deep/*', 'nova/version.py::V']
    message = '''
    Add an anchor

    Boats drift otherwise.
    '''

    [[commit]]
    name = 'use'
    files = ['nova/boat.py', 'nova/version.py::MICRO', 'doc/*']
    message = '''
    Use the anchor

    From {{micro}} on.

    It holds.

    Implements: blueprint anchors
    '''
    """)
