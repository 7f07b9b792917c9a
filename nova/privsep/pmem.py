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

"""Making sure that a vPMEM device was zeroed.

An import of :mod:`nova.privsep.libvirt`, which runs ``daxio -z`` as root: its
exit status is 0 for what was cut short, too.
"""

import os
import stat

from nova import exception
from nova.i18n import _
from nova.virt.pmem_transfer import daxio


def check_zeroed(devpath: str, stdout: str, stderr: str) -> None:
    """Check that daxio says that it has zeroed the whole device.

    :param stdout: what daxio has printed there, which is nothing
    :param stderr: where it says how many bytes it has written
    :raises VPMEMCleanupFailed: if it does not
    """
    size = _size(devpath)
    counts = [int(count) for count in daxio.COPIED.findall(stderr or '')]
    if counts != [size]:
        raise exception.VPMEMCleanupFailed(
            dev=devpath, error=_(
                'daxio was to zero %(size)d bytes and said: %(said)s') %
            {'size': size, 'said': (stderr or '').strip() or _('nothing')})


def _size(devpath: str) -> int:
    """Return the bytes of a device; the kernel says 0 for a dax node."""
    found = os.stat(devpath)
    if not stat.S_ISCHR(found.st_mode):
        return found.st_size
    with open('/sys/dev/char/%d:%d/size' % (
            os.major(found.st_rdev), os.minor(found.st_rdev))) as size:
        return int(size.read())
