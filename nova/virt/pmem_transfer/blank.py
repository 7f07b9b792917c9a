# SPDX-License-Identifier: Apache-2.0

"""The command that looks whether a device reads as zero, as a whole.

A process of its own: memory that is damaged kills who reads it.
"""

import sys

from nova.virt.pmem_transfer import mapping

#: Bytes that are looked at together.
STEP = 64 * mapping.PAGE


def first_trace(path: str, size: int) -> int | None:
    """Return where there is something else than zero, about; or None.

    :param size: bytes of the device
    :raises OSError: if it can't be read
    """
    device = mapping.Mapping(path, size)
    try:
        for offset in range(0, size, STEP):
            length = min(STEP, size - offset)
            with device.at_hand(offset, length):
                if not device.is_zero(offset, length):
                    return offset
        return None
    finally:
        device.close()


def main() -> int:
    path, size = sys.argv[1], int(sys.argv[2])
    found = first_trace(path, size)
    if found is None:
        return 0
    print('there is data within %d bytes from %d on' % (STEP, found),
          file=sys.stderr)
    return 1


if __name__ == '__main__':
    sys.exit(main())
