# SPDX-License-Identifier: Apache-2.0

import pytest

from novapatch.edit import rst_add_rest_parameter
from novapatch.edit import rst_append
from novapatch.edit import rst_append_section
from novapatch.edit import rst_insert_after
from novapatch.edit import rst_replace_directive
from novapatch import errors
from patch_helpers import check
from patch_helpers import refused

PAGE = '''
    =====
    Boats
    =====

    .. note:: They float
       on water.

    Sailing (action)
    ================

    First one
    paragraph.

    Request
    -------

    .. rest_parameters:: parameters.yaml

      - id: id_path
      - wind: wind_sail
        and more
      - crew: crew

    .. note::

       Mind the wind.

    * One item
      of two lines.

      * An inner item.

    * Two items.

    .. _rowing:

    Rowing
    ======

    Request
    -------

    .. rest_parameters:: parameters.yaml

      - id: id_path
    '''


def test_no_section():
    refused(rst_append_section('Diving', 'x'), PAGE, errors.NoMatch)


def test_two_sections():
    message = refused(rst_append_section('Request', 'x'), PAGE,
                      errors.ManyMatches)
    assert 'lines 14, 40' in message


@pytest.mark.parametrize('edit, error', [
    (rst_replace_directive('Sailing', 'note', 'on water', 'x'),
     errors.NoMatch),
    (rst_replace_directive('Sailing', 'warning', 'Mind', 'x'),
     errors.NoMatch),
    (rst_replace_directive('Boats', 'note', '', 'x'), errors.ManyMatches),
    (rst_add_rest_parameter('Rowing', after='wind', line='x: y'),
     errors.NoMatch),
    (rst_add_rest_parameter('Boats', after='id', line='x: y'),
     errors.ManyMatches),
    (rst_add_rest_parameter('Sailing', after='id', line='crew: y'),
     errors.AlreadyThere),
])
def test_refused(edit, error):
    refused(edit, PAGE, error)


def replaced(old, new):
    assert PAGE.count(old) == 1
    return PAGE.replace(old, new)


def test_append():
    check(rst_append('Some\nmore.'), PAGE, PAGE.rstrip(' ') + '''
    Some
    more.
    ''')


def test_append_a_section_with_the_blank_lines_of_the_file():
    check(rst_append('.. _c:\n\nC\n-\n---\n\nx'), 'A\n===\n\nx\n\n\nB\n===\n',
          'A\n===\n\nx\n\n\nB\n===\n\n.. _c:\n\nC\n-\n---\n\nx\n')
    check(rst_append('.. _c:\n\nCCC\n---\n\nx'),
          'A\n===\n\nx\n\n\nB\n===\n',
          'A\n===\n\nx\n\n\nB\n===\n\n\n.. _c:\n\nCCC\n---\n\nx\n')


def test_append_section_stops_before_its_subsections():
    check(rst_append_section('Sailing', 'New.'), PAGE,
          replaced('    paragraph.\n', '    paragraph.\n\n    New.\n'))


def test_insert_after_goes_behind_the_subsections_and_before_the_label():
    check(rst_insert_after('Sailing', 'New.'), PAGE,
          replaced('Two items.\n', 'Two items.\n\n    New.\n'))


def test_replace_directive():
    check(rst_replace_directive('Sailing', 'note', 'Mind the',
                                '.. note::\n\n   Ours.\n'),
          PAGE, replaced('Mind the wind.', 'Ours.'))
    check(rst_replace_directive('Boats', 'note', 'float on', 'Ours.'),
          PAGE, replaced('.. note:: They float\n       on water.', 'Ours.'))


def test_add_rest_parameter():
    check(rst_add_rest_parameter('Sailing', after='wind',
                                 line='copy: copy_sail'),
          PAGE, replaced('and more\n', 'and more\n      - copy: copy_sail\n'))
