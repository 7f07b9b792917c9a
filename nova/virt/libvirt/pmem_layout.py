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

"""Which bytes of which vPMEM device go where.

Decisions only: nothing here opens a device or starts a process.
"""

import collections
from collections import abc
import typing as ty

from oslo_utils import units

from nova.i18n import _

if ty.TYPE_CHECKING:
    from nova import objects

#: Bytes at the end of a device that hold the guest's NVDIMM labels. QEMU
#: places the label area there; Nova's guest definition asks for 2 MiB
#: (``LibvirtConfigGuestVPMEM.label_size``).
LABEL_AREA = 2 * units.Mi


class DevicesDoNotFit(Exception):
    """The devices of the destination can't hold those of the source."""


class DevicePair(ty.NamedTuple):
    """A vPMEM device of the source host and the one that takes its data."""

    source: 'objects.LibvirtVPMEMDevice'
    target: 'objects.LibvirtVPMEMDevice'


class Section(ty.NamedTuple):
    """A run of bytes of the target device.

    ``target_offset`` and ``length`` are bytes. ``source_offset`` is where the
    bytes come from, or None where the target has to read as zero.
    """

    target_offset: int
    length: int
    source_offset: int | None


def pair_devices(
    sources: abc.Sequence['objects.LibvirtVPMEMDevice'],
    targets: abc.Sequence['objects.LibvirtVPMEMDevice'],
) -> list[DevicePair]:
    """Say which device takes the data of which.

    Both lists are in the order of the labels in their flavor's ``hw:pmem``,
    which is the order in which a guest sees its devices. Devices with equal
    labels pair first, in that order; what is left over pairs by position.
    Targets beyond the number of sources stay empty.

    :param sources: the devices on the source host
    :param targets: the devices claimed on the destination host
    :returns: a pair per source, in the order of the sources
    :raises DevicesDoNotFit: if there are fewer targets than sources, or a
        target is smaller than its source
    """
    if len(targets) < len(sources):
        raise DevicesDoNotFit(
            _('%(old)d vPMEM devices are to be copied and %(new)d claimed') %
            {'old': len(sources), 'new': len(targets)})

    waiting = collections.defaultdict(collections.deque)
    for position, target in enumerate(targets):
        waiting[target.label].append(position)
    taken = {
        position: waiting[source.label].popleft()
        for position, source in enumerate(sources) if waiting[source.label]}
    free = iter(sorted(set(range(len(targets))) - set(taken.values())))

    pairs = [
        DevicePair(source, targets[
            taken[position] if position in taken else next(free)])
        for position, source in enumerate(sources)]
    for source, target in pairs:
        if target.size < source.size:
            raise DevicesDoNotFit(
                _('namespace %(target)s (label %(label)s) has %(new)d bytes '
                  'and is to take %(old)d bytes of %(source)s') %
                {'target': target.name, 'label': target.label,
                 'new': target.size, 'old': source.size,
                 'source': source.name})
    return pairs


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
            _('a device of %(old)d bytes can not be copied to one of '
              '%(new)d bytes') % {'old': source_size, 'new': target_size})
    if target_size == source_size:
        return [Section(0, source_size, 0)]
    data = source_size - LABEL_AREA
    cut = [
        Section(0, data, 0),
        Section(data, target_size - source_size, None),
        Section(target_size - LABEL_AREA, LABEL_AREA, data),
    ]
    return [section for section in cut if section.length]
