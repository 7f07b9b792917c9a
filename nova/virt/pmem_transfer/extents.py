# SPDX-License-Identifier: Apache-2.0

"""Which bytes go where, and the extents in which they are copied.

An extent is the unit of everything: of reading, sending, writing, reading
back, acknowledging, and trying again.
"""

import bisect
from collections import abc
import itertools
import typing as ty

if ty.TYPE_CHECKING:
    from nova.virt.pmem_transfer import memory as pmem_memory

MIB = 1024 * 1024

#: Bytes at the end of a device that hold the guest's NVDIMM labels. QEMU
#: places the label area there; Nova's guest definition asks for 2 MiB
#: (``LibvirtConfigGuestVPMEM.label_size``).
LABEL_AREA = 2 * MIB

#: Sizes of an extent in bytes. The largest bounds the memory of a stream; the
#: smallest is for tests.
SMALLEST = 4096
LARGEST = 16 * MIB

#: Bytes of zeros in a row that are worth not sending. Data is sent in whole
#: pages between such runs.
ZERO_RUN = 64 * 1024
PAGE = 4096


class DevicesDoNotFit(Exception):
    """The devices of the destination can't hold those of the source."""


class Section(ty.NamedTuple):
    """A run of bytes of the target device.

    ``target_offset`` and ``length`` are bytes. ``source_offset`` is where the
    bytes come from, or None where the target has to read as zero.
    """

    target_offset: int
    length: int
    source_offset: int | None


def sections(source_size: int, target_size: int) -> list[Section]:
    """Cut a target device into the sections that a copy has to write.

    A larger target keeps the label area at its own end, where the guest looks
    for it; the bytes in between, which the source did not have, are zero::

        source  | data          | labels |
        target  | data          | zero          | labels |

    :param source_size: bytes of the source device
    :param target_size: bytes of the target device
    :returns: sections that cover the whole target once, by offset
    :raises DevicesDoNotFit: if the target is smaller than the source, or the
        source too small for a label area
    """
    if target_size < source_size or source_size < LABEL_AREA:
        raise DevicesDoNotFit(
            'a device of %d bytes can not be copied to one of %d bytes' %
            (source_size, target_size))
    if target_size == source_size:
        return [Section(0, source_size, 0)]
    data = source_size - LABEL_AREA
    cut = [
        Section(0, data, 0),
        Section(data, target_size - source_size, None),
        Section(target_size - LABEL_AREA, LABEL_AREA, data),
    ]
    return [section for section in cut if section.length]


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
        :raises DevicesDoNotFit: see :func:`sections`
        """
        self._limit = limit
        self._parts = []
        self._ends = []
        end = 0
        for device, (source_size, target_size) in enumerate(sizes):
            for section in sections(source_size, target_size):
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


def share(before: abc.Sequence[int], done: abc.Sequence[int], number: int,
          of: int) -> abc.Iterator[int]:
    """Yield what is left of a share: of each so many extents, one.

    :param before: for each extent, whether it was done when all was shared out
    :param done: whether it is done now
    """
    left = (each for each, is_done in enumerate(before) if not is_done)
    for each in itertools.islice(left, number, None, of):
        if not done[each]:
            yield each


def check(place: abc.Sequence[int], runs: abc.Sequence[Run],
          sections: abc.Sequence[Section], limit: int) -> None:
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


def data_runs(memory: 'pmem_memory.Memory', offset: int,
              length: int) -> list[Run]:
    """Find what has to be sent of ``length`` bytes from an offset on.

    Only aligned blocks of ``ZERO_RUN`` bytes are looked at, which costs next
    to nothing for data without zeros; the ends of what remains are then
    trimmed page by page. A guest may write meanwhile: what comes of that is
    found when it is off, but it must not lead us astray.
    """
    if memory.is_zero(offset, length):
        return []
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
    return [run for run in runs if run.length]


def _trimmed(memory: 'pmem_memory.Memory', offset: int, start: int,
             end: int) -> Run:
    while start < end and memory.is_zero(
            offset + start, min(PAGE, end - start)):
        start += PAGE
    while start < end:
        page = (end - 1) // PAGE * PAGE
        if not memory.is_zero(offset + page, end - page):
            break
        end = page
    return Run(start, max(0, end - start))
