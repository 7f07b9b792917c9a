# SPDX-License-Identifier: Apache-2.0
"""Known data, and where on a device it is put.

A device may have gigabytes, so what is looked at is a block in each place
where a mistake would show. Two places lie in the label area: QEMU keeps the
last 2 MiB of the backing device for it, so in a larger device it is elsewhere.
"""

import hashlib
import secrets
from typing import NamedTuple

#: Bytes in one place.
BLOCK = 64 * 1024
#: Bytes at the end of a namespace that the guest can't address.
LABEL_AREA = 2 * 1024 * 1024
#: What a copy deals with at once is a multiple of this.
EXTENT = 2 * 1024 * 1024


class Place(NamedTuple):
    """A block of a device.

    :ivar name: for messages
    :ivar offset: in bytes, from the beginning if it is positive or 0, else
        from the end
    """

    name: str
    offset: int

    def start(self, size: int) -> int:
        """Return where the block begins in a device of ``size`` bytes."""
        return self.offset if self.offset >= 0 else size + self.offset


def guest_places(size: int) -> list[Place]:
    """Return the places that a guest can address, in order.

    :param size: of the device on the host, in bytes
    :raises ValueError: if there is no room for them
    """
    end = size - LABEL_AREA
    if end < 3 * EXTENT:
        raise ValueError(f'a namespace of {size} bytes is too small to test')
    # Page by page, as a guest's dd reads them.
    middle = end // 2 // 4096 * 4096
    offsets = {
        'the beginning': 0,
        'the end of an extent': EXTENT - BLOCK // 2,
        'the middle': middle,
        'the end of what the guest has': end - BLOCK,
    }
    return [Place(name, offset) for name, offset in sorted(
        offsets.items(), key=lambda item: item[1])]


def label_places() -> list[Place]:
    """Return the places in the label area."""
    return [Place('the beginning of the label area', -LABEL_AREA),
            Place('the end of the label area', -BLOCK)]


class Pattern:
    """Bytes that nobody else writes, different in each place."""

    def __init__(self) -> None:
        self._token = secrets.token_bytes(16)

    def block(self, index: int, place: Place) -> bytes:
        """Return what belongs into a place.

        :param index: which device of the server it is, from 0
        """
        seed = b'%b %d %d' % (self._token, index, place.offset)
        return hashlib.shake_256(seed).digest(BLOCK)
