# SPDX-License-Identifier: Apache-2.0
"""These pages as a site: ``make docs``."""

import pathlib
import re

from docutils import nodes

project = 'nova-pmem-copy'
author = 'the authors of nova-pmem-copy'
extensions = ['openstackdocstheme']
html_theme = 'openstackdocs'
html_theme_options = {'show_other_versions': False}
openstackdocs_auto_name = False
openstackdocs_repo_name = ''
openstackdocs_use_storyboard = False
exclude_patterns = ['api_samples', 'source']
version = release = re.search(
    r'^version = (.+)$', pathlib.Path(__file__).parents[1].joinpath(
        'setup.cfg').read_text(), re.MULTILINE)[1]


def _link(_app, doctree):
    """Let links to pages lead to them here, too; others stay as they are.

    They are written so that they work where the sources are read.
    """
    for reference in doctree.findall(nodes.reference):
        page = re.fullmatch(r'(?:doc/)?([\w-]+)\.rst(#.*)?',
                            reference.get('refuri', ''))
        if page:
            name = {'README': 'index'}.get(page[1], page[1])
            reference['refuri'] = name + '.html' + (page[2] or '')


def setup(app):
    app.connect('doctree-read', _link)
