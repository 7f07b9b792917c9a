# SPDX-License-Identifier: Apache-2.0

import configparser
from pathlib import Path
import re

import pytest

from novapatch import errors
from novapatch.export import series
from novapatch.plan import patchset
from patch_helpers import PATCH_SET
from patch_helpers import SERIES
from patch_helpers import write

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path):
    write(tmp_path, PATCH_SET)
    return tmp_path


def split(project, text=SERIES):
    (project / 'series.toml').write_text(text)
    patch_set = patchset.load(project)
    return [(commit.name, {path: [str(edit) for edit in edits]
                           for path, edits in part.edits.items()},
             sorted(part.new_files))
            for commit, part in series.split(
                series.load(patch_set), patch_set)]


def test_no_definition(project):
    with pytest.raises(errors.PatchSetError, match='series.toml.*No such'):
        series.load(patchset.load(project))


@pytest.mark.parametrize('old, new, message', [
    ("branch = 'boats'", '', "there is no 'branch'"),
    ("name = 'anchor'", '', "there is no 'name'"),
    ('date = 2026-11-27T00:00:00Z', "date = 'today'", 'timestamp'),
    ('[[commit]]', '[[commit', 'line 5'),
    ("name = 'use'", "name = 'anchor'", 'two commits are called anchor'),
    ("name = 'use'", "name = 'use'\nfile = []", 'commit use: what is file'),
    ('Add an anchor\n', 'Add an anchor\nA body', 'commit anchor: a message'),
    ('Add an anchor', 'x' * 50, "commit anchor: 'x{50}' is longer than 49"),
    ('Boats drift', 'x' * 73, "'x{73}.*' is longer than 72"),
    ("'doc/*'", "'doc/*', 'dox/*'", "commit use: nothing matches dox/"),
    ("'doc/*'", "'doc/*', 'nova/boat.py::Boat.dive'", 'nothing matches'),
    ("'doc/*'", "'doc/source/boats.rst'",
     'doc/source/anchors.rst belongs to no commit'),
    ("'nova/version.py::MICRO', ", '',
     'nova/version.py::MICRO belongs to no commit'),
    ("'doc/*'", "'doc/*', 'nova/version.py'",
     'nova/version.py::VERSION belongs to two commits, anchor and use'),
    ("'doc/*'", "'doc/*', 'nova/deep/*'",
     'nova/deep/down/__init__.py belongs to two commits, anchor and use'),
])
def test_bad_definition(project, old, new, message):
    assert old in SERIES
    with pytest.raises(errors.PatchSetError, match=message) as caught:
        split(project, SERIES.replace(old, new))
    assert str(caught.value).startswith('series.toml: ')
    assert '\n' not in str(caught.value)


def test_a_file_that_commits_share_grows(project):
    first, second = split(project)
    assert first == (
        'anchor', {'nova/version.py': ["bump('VERSION')"]},
        ['nova/anchor.py', 'nova/deep/down/__init__.py'])
    assert second[:2] == ('use', {
        'doc/source/boats.rst': ["rst_append('Anchors since {{micro}}.')"],
        'nova/boat.py': ["add_import('from nova import anchor')",
                         "insert_before('Boat.sail')"],
        'nova/version.py': ["bump('VERSION')", "bump('MICRO')"]})


def test_change_ids_last_and_differ(project):
    (project / 'series.toml').write_text(SERIES)
    first, second = series.load(patchset.load(project)).commits
    assert first.body.split('\n\n')[-1].startswith('Change-Id: I')
    # It joins the trailers that are there.
    trailers = second.body.split('\n\n')[-1].split('\n')
    assert [line.split(':')[0] for line in trailers] == [
        'Implements', 'Change-Id']
    assert first.body.split('\n')[-1] != trailers[-1]


def test_every_file_of_this_project_has_its_commit():
    patch_set = patchset.load(PROJECT)
    parts = list(series.split(series.load(patch_set), patch_set))
    for kind in 'new_files', 'backports':
        assert set().union(*(getattr(part, kind) for commit, part in parts)
                           ) == set(getattr(patch_set, kind))


def test_the_commands_of_this_project_are_those_of_its_packages():
    loaded = patchset.load(PROJECT)
    declared = {edit.key: edit.value
                for edit in loaded.edits['pyproject.toml']}
    assert loaded.commands == declared


def test_no_file_of_this_project_is_empty():
    # dpkg-source removes a file that a patch leaves empty.
    new = patchset.load(PROJECT).new_files
    assert [path for path, place in new.items()
            if not place.stat().st_size] == []


def test_the_changelog_knows_the_version():
    # It stands in the name of the wheel.
    settings = configparser.ConfigParser()
    settings.read(PROJECT / 'setup.cfg')
    version = settings['metadata']['version']
    titles = re.findall(r'^(\d[\d.]*).*\n=+$',
                        (PROJECT / 'CHANGELOG.rst').read_text(), re.MULTILINE)
    assert titles[0] == version
