# SPDX-License-Identifier: Apache-2.0
"""Tempest finds the plugin, its options and its tests."""

from importlib import metadata
from pathlib import Path
import unittest

from oslo_config import cfg

from pmem_copy_tempest_plugin import config
from pmem_copy_tempest_plugin import plugin

README = Path(__file__).parent.parent / 'README.rst'


def all_tests():
    folder, top = plugin.PmemCopyPlugin().load_tests()
    loader = unittest.TestLoader()
    waiting = [loader.discover(folder, top_level_dir=top)]
    assert not loader.errors
    while waiting:
        each = waiting.pop()
        if isinstance(each, unittest.TestSuite):
            waiting.extend(each)
        else:
            yield each


def test_entry_point():
    found, = metadata.entry_points(
        group='tempest.test_plugins', name='pmem_copy_tests')
    assert found.load() is plugin.PmemCopyPlugin


def test_options_are_registered_as_they_are_listed():
    conf = cfg.ConfigOpts()
    plugin.PmemCopyPlugin().register_opts(conf)
    (group, options), = plugin.PmemCopyPlugin().get_opt_lists()
    conf([])
    for option in options:
        expected = option.default
        if isinstance(expected, str):
            expected = expected.replace('$$', '$')
        assert conf[group][option.name] == expected


def test_each_option_is_documented():
    text = README.read_text()
    missing = [option.name for option in config.OPTIONS
               if f'``{option.name}``' not in text]
    assert missing == []


def test_each_test_has_an_id_of_its_own():
    ids = []
    for test in all_tests():
        marks = getattr(test, test._testMethodName).__testtools_attrs
        found = [mark for mark in marks if mark.startswith('id-')]
        assert len(found) == 1, test.id()
        ids += found
    assert len(ids) > 30
    assert len(set(ids)) == len(ids)
