# SPDX-License-Identifier: Apache-2.0

"""What a sender is asked to do."""

import dataclasses
import json

from nova.virt.pmem_transfer import layout

#: Format of the job; nova-compute and its sender are of the same version but
#: for the moment of an upgrade.
VERSION = 1


@dataclasses.dataclass(frozen=True)
class Device:
    """A device to be copied; sizes are in bytes.

    :ivar name: of the namespace on this host
    :ivar path: of its device node
    :ivar target_name: of the namespace on the other host
    """

    name: str
    path: str
    size: int
    target_name: str
    target_size: int


@dataclasses.dataclass(frozen=True)
class Job:
    """All that a sender has to know.

    :ivar receiver: the command that leads to a receiver
    :ivar devices: in the order of the ticket
    :ivar streams: connections at once
    :ivar extent: bytes of an extent
    :ivar bandwidth: bytes per second over all streams, 0 for no limit
    :ivar stall_timeout: seconds that a stream may stand still
    :ivar attempts: how often to try an extent, or a connection
    :ivar resume: whether to look first what is there already
    :ivar careful: whether to find bad memory and not be killed by it
    :ivar parent: the process that wants it, whose child the sender is; 0 if
        that does not matter
    """

    receiver: tuple[str, ...]
    devices: tuple[Device, ...]
    streams: int = 2
    extent: int = 8 * layout.MIB
    bandwidth: int = 0
    stall_timeout: float = 60
    attempts: int = 3
    resume: bool = False
    careful: bool = False
    parent: int = 0
    version: int = VERSION

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ValueError('version %r' % (self.version,))

    @property
    def total(self) -> int:
        """The bytes of all targets."""
        return sum(device.target_size for device in self.devices)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))  # noqa: N324

    @classmethod
    def from_json(cls, text: str) -> 'Job':
        """Read what :meth:`to_json` wrote.

        :raises ValueError: if it is anything else
        """
        try:
            fields = json.loads(text)  # noqa: N324
            fields['receiver'] = tuple(fields['receiver'])
            fields['devices'] = tuple(
                Device(**each) for each in fields['devices'])
            return cls(**fields)
        except (AttributeError, KeyError, RecursionError, TypeError) as error:
            raise ValueError(str(error)) from error
