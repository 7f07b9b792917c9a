# SPDX-License-Identifier: Apache-2.0
"""What a patched tree says of itself, wherever it was taken.

The record of an apply stays where it was made. The marker goes with the code:
into a commit, a wheel, a package. It is a module, as others are not installed.
"""

import ast
from dataclasses import dataclass
from dataclasses import replace
import pprint

from novapatch.tree.change import Change
from novapatch.tree.change import Plan
from novapatch.tree.change import sha256

PATH = 'nova/novapatch_marker.py'

_TEXT = '''\
# SPDX-License-Identifier: Apache-2.0
"""Which patch set was applied to this Nova, and what its files are since."""

PATCH_SET = {patch_set!r}
RELEASE = {release!r}
FILES = {files}
'''


@dataclass(frozen=True)
class Marker:
    """What is in it; ``files`` has the SHA-256 of each path."""

    patch_set: str
    files: dict[str, str]


def mark(plan: Plan, patch_set: str) -> Plan:
    """A plan with the marker of it."""
    files = {change.path: sha256(change.after) for change in plan.changes}
    text = _TEXT.format(patch_set=patch_set, release=plan.release,
                        files=pprint.pformat(files))
    return replace(plan, changes=(
        *plan.changes, Change(PATH, None, text.encode(), 0o644)))


def read(data: bytes) -> Marker | None:
    """Read a marker; None if it is none that we have written."""
    try:
        found = {ast.unparse(node.targets[0]): ast.literal_eval(node.value)
                 for node in ast.parse(data).body
                 if isinstance(node, ast.Assign)}
        return Marker(str(found['PATCH_SET']), dict(found['FILES']))
    except (KeyError, SyntaxError, TypeError, ValueError):
        return None
