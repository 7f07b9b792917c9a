# SPDX-License-Identifier: Apache-2.0
"""Known data on the vPMEM devices of a server, and where it is later."""

from collections.abc import Iterable, Sequence

from pmem_copy_tempest_plugin import pattern
from pmem_copy_tempest_plugin.probe import Block
from pmem_copy_tempest_plugin.probe import Device
from pmem_copy_tempest_plugin.probe import Probe


def _places(probe: Probe, device: Device) -> list[pattern.Place]:
    places = pattern.guest_places(device.size)
    if probe.sees_hosts:
        places += pattern.label_places()
    return places


def not_zero(probe: Probe, devices: Iterable[Device]) -> list[str]:
    """Say which places are not zero of those where data would be put.

    Whoever gets a namespace must find it zero.

    :returns: a line for each place
    :raises ProbeError: if a device can't be read
    """
    looks = {f'{place.name} of {device} is not zero':
             Block(device, place.start(device.size))
             for device in devices for place in _places(probe, device)}
    return [line for line, data in zip(
        looks, probe.read(list(looks.values()))) if any(data)]


class Mark:
    """Known data that was written to all devices of a server.

    The devices it was written to are remembered: those it is looked for on
    later may be larger.
    """

    def __init__(self, probe: Probe, devices: Sequence[Device]) -> None:
        """Write the data.

        :raises ProbeError: if that fails
        :raises ValueError: if a device is too small
        """
        self._probe = probe
        self._pattern = pattern.Pattern()
        self.devices = list(devices)
        probe.write({
            Block(device, place.start(device.size)):
            self._pattern.block(index, place)
            for index, device in enumerate(self.devices)
            for place in _places(probe, device)})

    def missing(self, devices: Sequence[Device]) -> list[str]:
        """Say where the data is not, that should be on these devices.

        :param devices: in the order of those that it was written to; there
            may be more, and they may be larger
        :returns: a line for each place; none means that all is there
        :raises ProbeError: if a device can't be read
        """
        if len(devices) < len(self.devices):
            return [f'{len(devices)} devices have no room for what was on '
                    f'{len(self.devices)}']
        wrong = []
        looks: dict[str, tuple[Block, bytes]] = {}
        for index, (old, new) in enumerate(zip(self.devices, devices)):
            if new.size < old.size:
                wrong.append(f'{new} has no room for what was on {old}')
                continue
            for place in _places(self._probe, old):
                looks[f'{place.name} of {new} does not have what was written '
                      f'to {old}'] = (Block(new, place.start(new.size)),
                                      self._pattern.block(index, place))
            if new.size > old.size and self._probe.sees_hosts:
                # What the guest has gained, before the label area.
                looks[f'{new} is not zero behind the data'] = (
                    Block(new, old.size - pattern.LABEL_AREA),
                    bytes(pattern.BLOCK))
        found = self._probe.read([block for block, _ in looks.values()])
        return wrong + [line for (line, (_, expected)), data in zip(
            looks.items(), found) if data != expected]

    def left_on(self, devices: Iterable[Device]) -> list[str]:
        """Say where this data still is.

        All places are looked at on devices that it was written to. On others
        the first one and the last one of the guest are: a copy begins with
        the one, a wipe ends with the other.

        :returns: a line for each place
        :raises ProbeError: if a device can't be read
        """
        looks: dict[str, tuple[Block, bytes]] = {}
        for device in devices:
            for index, old in enumerate(self.devices):
                places = _places(self._probe, old)
                if device not in self.devices:
                    guest = pattern.guest_places(old.size)
                    places = [guest[0], guest[-1]]
                for place in places:
                    start = place.start(device.size)
                    if start + pattern.BLOCK <= device.size:
                        looks[f'{place.name} of {device} still has what was '
                              f'written to {old}'] = (
                                  Block(device, start),
                                  self._pattern.block(index, place))
        found = self._probe.read([block for block, _ in looks.values()])
        return [line for (line, (_, ours)), data in zip(
            looks.items(), found) if data == ours]
