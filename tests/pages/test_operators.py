# SPDX-License-Identifier: Apache-2.0
"""The operators' page has what the log may ask of an operator."""

import ast
from pathlib import Path
import re

import pytest

PROJECT = Path(__file__).parents[2]
PAGE = ' '.join((PROJECT / 'doc/operators.rst').read_text().split())

#: How much of a message tells it from others.
ENOUGH = 20


def _warnings():
    """Yield (module, text) of all that is logged as a warning, or worse."""
    for path in sorted((PROJECT / 'nova').rglob('*.py')):
        if 'tests' in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                        func=ast.Attribute(
                            value=ast.Name('LOG'),
                            attr='warning' | 'error' | 'exception'),
                        args=[ast.Constant(text), *_]):
                    yield path.stem, text


WARNINGS = list(_warnings())


def test_there_are_some():
    assert len(WARNINGS) > 20


@pytest.mark.parametrize('module, text', WARNINGS)
def test_warning(module, text):
    parts = re.split(r'%(?:\(\w+\))?[-\d.]*[a-z]', text)
    longest = max(parts, key=len).strip()
    assert longest[:ENOUGH] in PAGE
