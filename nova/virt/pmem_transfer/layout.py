# SPDX-License-Identifier: Apache-2.0

"""Which bytes of a vPMEM device go where in another one."""

import typing as ty

MIB = 1024 * 1024

#: Bytes at the end of a device that hold the guest's NVDIMM labels. QEMU
#: places the label area there; Nova's guest definition asks for 2 MiB
#: (``LibvirtConfigGuestVPMEM.label_size``).
LABEL_AREA = 2 * MIB


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
