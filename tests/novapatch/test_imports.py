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
    ('import abc', 'import collections'),
    ('from collections import abc', 'import os.path'),
    ('import sys', ''),
    ('import os', 'import os.path'),
    ('import oslo_i18n', 'from oslo_log'),
    ('import webtest', ''),
    ('import nova.api', 'import nova.conf'),
    ('from nova import conf2', 'from nova import context'),
    ('from nova import test', '# about the driver'),
    ('from nova.virt import zfs', ''),
])
def test_add_import(text, above):
    lines = SOURCE.split('\n')
    ends = {'import sys': 'os.path', 'import webtest': 'webob',
            'from nova.virt import zfs': '    )'}
    if above:
        at = next(number for number, line in enumerate(lines)
                  if line.strip().startswith(above))
    else:
        at = next(number for number, line in enumerate(lines)
                  if line.endswith(ends[text])) + 1
    check(add_import(text), SOURCE,
          '\n'.join(lines[:at] + ['    ' + text] + lines[at:]))


@pytest.mark.parametrize('before, text, after', [
    ('"""Doc."""\n\nX = 1\n', 'import os',
     '"""Doc."""\n\nimport os\n\nX = 1\n'),
    ('X = 1\n', 'import os', 'import os\n\n\nX = 1\n'),
    ('import nova\n', 'import os', 'import os\n\nimport nova\n'),
    ('import os\n', 'import webob', 'import os\n\nimport webob\n'),
    ('import os\n\nimport nova.x\n', 'import webob',
     'import os\n\nimport webob\n\nimport nova.x\n'),
    ('from __future__ import annotations\n', 'import os',
     'from __future__ import annotations\n\nimport os\n'),
])
def test_a_new_group(before, text, after):
    check(add_import(text), before, after)


def test_an_import_in_a_function_is_another():
    check(add_import('import os'),
          'import abc\n\n\ndef f():\n    import os\n',
          'import abc\nimport os\n\n\ndef f():\n    import os\n')
