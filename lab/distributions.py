# SPDX-License-Identifier: Apache-2.0
"""What of this Python's installed packages guests are given.

They run Debian's Python, and have to find compiled modules that fit it.
"""

from collections import abc
import importlib.metadata

from packaging import requirements


def closure(
    names: abc.Iterable[str], without: abc.Container[str] = (),
) -> abc.Iterable[importlib.metadata.Distribution]:
    """Return distributions and all that they require.

    :param names: requirements as pip takes them; of versions nothing is
        checked
    :param without: names of those that are required and not needed
    :raises importlib.metadata.PackageNotFoundError: if one is not installed
    """
    found: dict[str, importlib.metadata.Distribution] = {}
    done: set[tuple[str, str]] = set()

    def add(wanted: requirements.Requirement) -> None:
        if wanted.name in without:
            return
        if wanted.name not in found:
            found[wanted.name] = importlib.metadata.distribution(wanted.name)
        for extra in ('', *wanted.extras):
            if (wanted.name, extra) in done:
                continue
            done.add((wanted.name, extra))
            for text in found[wanted.name].requires or ():
                needed = requirements.Requirement(text)
                if not needed.marker or needed.marker.evaluate(
                        {'extra': extra}):
                    add(needed)

    for name in names:
        add(requirements.Requirement(name))
    return found.values()
