# SPDX-License-Identifier: Apache-2.0

"""Extents: the pieces in which devices are copied, and what is in them.

An extent is the unit of everything: of reading, sending, writing, reading
back, acknowledging, and trying again.
"""

import bisect
from collections import abc
import typing as ty

from nova.virt.pmem_transfer import layout

if ty.TYPE_CHECKING:
    from nova.virt.pmem_transfer import buffers

#: Sizes of an extent in bytes. The largest bounds the memory of a stream; the
#: smallest is for tests.
SMALLEST = 4096
LARGEST = 16 * layout.MIB

#: Bytes of zeros in a row that are worth not sending. Data is sent in whole
#: pages between such runs.
ZERO_RUN = 64 * 1024
PAGE = 4096


class Extent(ty.NamedTuple):
    """A piece of a target device, all of it in one section.

    :ivar device: number of the device, in the order of the ticket
    :ivar offset: bytes from the start of the target
    :ivar length: bytes
    :ivar source_offset: where the bytes come from; None if they are zeros
        that the source does not have
    """

    device: int
    offset: int
    length: int
    source_offset: int | None

    @property
    def place(self) -> list[int]:
        """What identifies it between the two ends."""
        return [self.device, self.offset, self.length]


class Run(ty.NamedTuple):
    """Bytes of an extent that are sent; what is between runs is zero."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        return self.offset + self.length


class NotAllowed(Exception):
    """An extent or run is not within what may be written."""


class Plan:
    """All extents of a copy, each known by its number.

    They are not kept: a large device takes no more memory than a small one.
    """

    def __init__(self, sizes: abc.Iterable[tuple[int, int]],
                 limit: int) -> None:
        """Cut devices.

        :param sizes: bytes of the source and of the target, for each
        :param limit: bytes of an extent, at most
        :raises layout.DevicesDoNotFit: see :func:`layout.sections`
        """
        self._limit = limit
        self._parts = []
        self._ends = []
        end = 0
        for device, (source_size, target_size) in enumerate(sizes):
            for section in layout.sections(source_size, target_size):
                self._parts.append((device, section, end))
                end += -(-section.length // limit)
                self._ends.append(end)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, number: int) -> Extent:
        device, section, first = self._parts[
            bisect.bisect_right(self._ends, number)]
        start = (number - first) * self._limit
        return Extent(device, section.target_offset + start,
                      min(self._limit, section.length - start),
                      None if section.source_offset is None
                      else section.source_offset + start)


def check(place: abc.Sequence[int], runs: abc.Sequence[Run],
          sections: abc.Sequence[layout.Section], limit: int) -> None:
    """Check what a peer wants to write against what it may.

    :param place: offset and length
    :param runs: the bytes of it that are sent
    :param sections: those of the device
    :param limit: the largest extent
    :raises NotAllowed: if it is not inside of a single section, or data is
        sent for one that is to be zero, or runs overlap or exceed the extent
    """
    offset, length = place
    if not 0 < length <= limit:
        raise NotAllowed('an extent of %d bytes; at most %d are agreed' %
                         (length, limit))
    section = next((each for each in sections if
                    0 <= offset - each.target_offset < each.length), None)
    if section is None or offset + length > (
            section.target_offset + section.length):
        raise NotAllowed('%d bytes at offset %d are more bytes than the '
                         'ticket says' % (length, offset))
    if runs and section.source_offset is None:
        raise NotAllowed('data at offset %d, where the ticket says zeros' %
                         offset)
    end = 0
    for run in runs:
        if run.offset < end or not run.length:
            raise NotAllowed('runs of data that overlap or are empty')
        end = run.end
    if end > length:
        raise NotAllowed('a run of data beyond its extent')


def most_runs(length: int) -> int:
    """Return how many runs an extent can have at most.

    :param length: of the extent in bytes
    """
    return length // ZERO_RUN + 1


def data_runs(memory: 'buffers.Memory', offset: int,
              length: int) -> list[Run]:
    """Find what has to be sent of ``length`` bytes from an offset on.

    Only aligned blocks of ``ZERO_RUN`` bytes are looked at, which costs next
    to nothing for data without zeros; the ends of what remains are then
    trimmed page by page.
    """
    runs = []
    start = None
    for block in range(0, length, ZERO_RUN):
        zero = memory.is_zero(offset + block, min(ZERO_RUN, length - block))
        if zero and start is not None:
            runs.append(_trimmed(memory, offset, start, block))
            start = None
        elif not zero and start is None:
            start = block
    if start is not None:
        runs.append(_trimmed(memory, offset, start, length))
    return runs


def _trimmed(memory: 'buffers.Memory', offset: int, start: int,
             end: int) -> Run:
    while memory.is_zero(offset + start, min(PAGE, end - start)):
        start += PAGE
    while True:
        page = (end - 1) // PAGE * PAGE
        if not memory.is_zero(offset + page, end - page):
            return Run(start, end - start)
        end = page
