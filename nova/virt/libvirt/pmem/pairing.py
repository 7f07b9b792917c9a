# SPDX-License-Identifier: Apache-2.0

"""Which bytes of which vPMEM device go where.

Decisions only: nothing here opens a device or starts a process.
"""

import collections
from collections import abc
import typing as ty

from nova.i18n import _
from nova.virt.pmem_transfer import extents

if ty.TYPE_CHECKING:
    from nova import objects


class DevicePair(ty.NamedTuple):
    """A vPMEM device of the source host and the one that takes its data."""

    source: 'objects.LibvirtVPMEMDevice'
    target: 'objects.LibvirtVPMEMDevice'


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
        raise extents.DevicesDoNotFit(
            _('%(old)d vPMEM devices are to be copied and %(new)d claimed') %
            {'old': len(sources), 'new': len(targets)})

    waiting: dict[str, collections.deque[int]] = (
        collections.defaultdict(collections.deque))
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
            raise extents.DevicesDoNotFit(
                _('namespace %(target)s (label %(label)s) has %(new)d bytes '
                  'and is to take %(old)d bytes of %(source)s') %
                {'target': target.name, 'label': target.label,
                 'new': target.size, 'old': source.size,
                 'source': source.name})
    return pairs
