# SPDX-License-Identifier: Apache-2.0

"""What the kernel says of a device node."""

import os
import stat

#: Where the kernel describes devices, each under its number.
_DEVICES = '/sys/dev/char'


def size(node: str) -> int:
    """Return the bytes of a device DAX; the size of its node is always 0.

    The kernel is asked for the number of the node, so that a node that is
    left from before, and means another device by now, is found.

    :raises OSError: if it is none, or not the one of that name
    """
    found = os.stat(node)
    if not stat.S_ISCHR(found.st_mode):
        raise OSError('%s is no character device' % node)
    folder = os.path.join(_DEVICES, '%d:%d' % (
        os.major(found.st_rdev), os.minor(found.st_rdev)))
    if _name(os.path.join(folder, 'subsystem')) != 'dax':
        raise OSError('%s is no device DAX' % node)
    if _name(folder) != os.path.basename(node):
        raise OSError('%s is not the device of that name' % node)
    with open(os.path.join(folder, 'size')) as file:
        return int(file.read())


def _name(link: str) -> str:
    return os.path.basename(os.path.realpath(link))
