#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.

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
