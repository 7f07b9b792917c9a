# SPDX-License-Identifier: Apache-2.0
"""What all edits have in common."""

from collections.abc import Mapping
import dataclasses
import re
from typing import dataclass_transform
from typing import Self

from novapatch import errors
from novapatch.text.source import Source

_VALUE = re.compile(r'\{\{(\w+)\}\}')


@dataclass_transform(frozen_default=True)
@dataclasses.dataclass(frozen=True)
class Edit:
    """One change of one file; each kind of it is a frozen dataclass."""

    def __init_subclass__(cls) -> None:
        dataclasses.dataclass(frozen=True)(cls)

    def apply(self, source: Source) -> Source:
        """The source with the change made, by one splice.

        :raises: EditError if its place is not there exactly once
        """
        raise NotImplementedError

    def changes(self) -> set[str]:
        """The dotted names of what it may change in a module."""
        return set()

    def bind(self, values: Mapping[str, str]) -> Self:
        """The same edit with every ``{{name}}`` replaced.

        :raises: UnknownValue
        """
        try:
            return dataclasses.replace(self, **{
                name: fill(text, values) for name, text in vars(self).items()
                if isinstance(text, str)})
        except errors.UnknownValue as error:
            error.edit = self
            raise

    @property
    def subject(self) -> str:
        """What it is about: its target, or how its text begins."""
        return next(iter(vars(self).values())).strip().split('\n')[0]

    def __str__(self) -> str:
        # AddImport is add_import in a patch set.
        name = re.sub(r'\B(?=[A-Z])', '_', type(self).__name__).lower()
        return f'{name}({self.subject!r})'


class TargetEdit(Edit):
    """One change of what a dotted name stands for."""

    target: str

    def changes(self) -> set[str]:
        return {self.target}


def fill(text: str, values: Mapping[str, str]) -> str:
    """A text with every ``{{name}}`` replaced.

    :raises: UnknownValue
    """
    for name in _VALUE.findall(text):
        if name not in values:
            raise errors.UnknownValue(name=name,
                                      known=errors.listed(sorted(values)))
    return _VALUE.sub(lambda found: values[found[1]], text)
