# SPDX-License-Identifier: Apache-2.0
"""The tests that the security page names are there."""

from pathlib import Path
import re

import pytest

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / 'doc/security.rst').read_text()
TESTS = [path for top in ('nova/tests', 'lab/tests')
         for path in (PROJECT / top).rglob('test_*.py')]
DEFINED = {name for path in TESTS for name in re.findall(
    r'^ *(?:class|def) (\w+)', path.read_text(), re.MULTILINE)}
FILES = {path.name for path in TESTS}

NAMED = [name for claim in re.findall(r'\[(``.*?)\]', PAGE, re.DOTALL)
         for name in re.findall(r'``(.*?)``', claim)]


def test_there_are_some():
    assert len(NAMED) > 20


@pytest.mark.parametrize('name', NAMED)
def test_claim(name):
    place, _, inside = name.rpartition('::')
    for word in [Path(place).name, *inside.split('.')] if place else (
            [name] if name.endswith('.py') else name.split('.')):
        assert word in FILES if word.endswith('.py') else word in DEFINED
