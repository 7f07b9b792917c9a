# SPDX-License-Identifier: Apache-2.0
"""Configuration files, from dicts."""

from collections import abc

Sections = abc.Mapping[str, abc.Mapping[str, object]]


def text(sections: Sections) -> str:
    """Return the text of a configuration file."""
    lines = []
    for section, options in sections.items():
        lines.append('[%s]' % section)
        lines += ['%s = %s' % (name, value)
                  for name, value in options.items() if value is not None]
        lines.append('')
    return '\n'.join(lines)


def merged(*parts: Sections) -> dict[str, dict[str, object]]:
    """Return sections of which later ones override earlier ones."""
    result: dict[str, dict[str, object]] = {}
    for part in parts:
        for section, options in part.items():
            result.setdefault(section, {}).update(options)
    return result
