# SPDX-License-Identifier: Apache-2.0
"""What is to be written into a tree."""

from dataclasses import dataclass
import hashlib
from pathlib import Path

from novapatch.operations.base import Edit
from novapatch.text.source import Source


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Change:
    """One file that changes, or is new (``before`` is None).

    ``link`` is set for a new file that becomes a symbolic link;
    ``sources`` are the texts before and after, with their syntax trees.
    """

    path: str
    before: bytes | None
    after: bytes
    mode: int
    edits: tuple[Edit, ...] = ()
    link: Path | None = None
    sources: tuple[Source, Source] | None = None


@dataclass(frozen=True)
class Plan:
    release: str
    changes: tuple[Change, ...]
    skipped: tuple[str, ...]
