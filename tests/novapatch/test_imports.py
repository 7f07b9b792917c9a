# SPDX-License-Identifier: Apache-2.0

import pytest

from novapatch.edit import add_import
from novapatch import errors
from patch_helpers import check
from patch_helpers import refused

SOURCE = '''
    # A licence

    """Doc."""

    import collections
    import os.path

    from oslo_log import log as logging
    import webob

    import nova.conf
    from nova import context
    # about the driver
    from nova.Virt import (
        driver,
    )

    LOG = 1
    '''


@pytest.mark.parametrize('text', ['x = 1', 'import a\nimport b', 'import'])
def test_no_import(text):
    refused(add_import(text), SOURCE, errors.BadText)


def test_an_import_that_is_there():
    refused(add_import('from nova  import context'), SOURCE,
            errors.AlreadyThere)


@pytest.mark.parametrize('text, above', [
    ('import os', 'import os.path'),
    ('import nova.api', 'import nova.conf'),
    ('from nova import conf2', 'from nova import context'),
    ('from nova import test', '# about the driver'),
    ('from nova.virt import zfs', 'LOG = 1'),
])
def test_add_import(text, above):
    before, line, after = SOURCE.partition(f'    {above}')
    gap = '\n' if above == 'LOG = 1' else ''
    before = before.removesuffix(gap)
    check(add_import(text), SOURCE,
          f'{before}    {text}\n{gap}{line}{after}')


def test_no_import_at_all():
    refused(add_import('import sys'), 'X = 1\n', errors.NoMatch)


def test_the_first_import_of_a_package():
    check(add_import('from nova import x'), 'import os\n\nX = 1\n',
          'import os\n\nfrom nova import x\n\nX = 1\n')


def test_an_import_in_a_function_is_another():
    check(add_import('import os'),
          'import os.path\n\n\ndef f():\n    import os\n',
          'import os\nimport os.path\n\n\ndef f():\n    import os\n')
