# SPDX-License-Identifier: Apache-2.0

import ast
import configparser
from pathlib import Path

import pytest
from setuptools import find_packages

import novapatch

ROOT = Path(novapatch.__file__).parent

# Each uses what stands before it, and nothing behind it.
ORDER = ['errors', 'text', 'match', 'operations', 'tree', 'plan', 'commands',
         'export', 'worktree', 'cli']


def used_by(path):
    """The parts of novapatch that a module imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            first, *parts = node.module.split('.')
            if first == 'novapatch':
                yield parts[0] if parts else node.names[0].name


@pytest.mark.parametrize('part', ORDER)
def test_imports_go_one_way(part):
    place = ROOT / part
    paths = place.glob('*.py') if place.is_dir() else [ROOT / f'{part}.py']
    for path in paths:
        behind = set(ORDER[ORDER.index(part) + 1:])
        assert not behind & set(used_by(path)), path


def test_all_packages_are_installed():
    settings = configparser.ConfigParser()
    settings.read(ROOT.parent / 'setup.cfg')
    include = settings['options.packages.find']['include'].split(', ')
    assert settings['options']['packages'] == 'find:'
    assert set(find_packages(ROOT.parent, include=include)) == {
        '.'.join(path.relative_to(ROOT.parent).parent.parts)
        for path in ROOT.rglob('__init__.py')}
