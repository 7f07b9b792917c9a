# SPDX-License-Identifier: Apache-2.0

"""What nova-compute asks of a sender, and of a receiver."""

import dataclasses
import json
import typing as ty

from nova.virt.pmem_transfer import extents

#: Format of the jobs; nova-compute and what it starts are of the same version
#: but for the moment of an upgrade.
VERSION = 3


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
class Target:
    """A device that may be written; sizes are in bytes.

    :ivar name: of its namespace
    :ivar path: of its device node
    """

    name: str
    path: str
    size: int
    source_size: int

    def described(self) -> dict[str, ty.Any]:
        """Return what is said of it over the wire: never its path."""
        return {'name': self.name, 'size': self.size,
                'source_size': self.source_size}


@dataclasses.dataclass(frozen=True)
class _Job:
    """Goes over a pipe as one line of JSON."""

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))  # noqa: N324

    @classmethod
    def from_json(cls, text: str) -> ty.Self:
        """Read what :meth:`to_json` wrote.

        :raises ValueError: if it is anything else
        """
        try:
            fields = json.loads(text)  # noqa: N324
            if fields.get('version') != VERSION:
                raise ValueError('version %r' % (fields.get('version'),))
            return cls(**{name: tuple(value) if isinstance(value, list)
                          else value for name, value in fields.items()})
        except (AttributeError, RecursionError, TypeError) as error:
            raise ValueError(str(error)) from error


@dataclasses.dataclass(frozen=True)
class Sending(_Job):
    """All that a sender has to know.

    :ivar devices: in the order of the ticket
    :ivar socket: the path at which the receiver listens, on its host
    :ivar address: of that host; empty if it is this one
    :ivar ssh: the command that leads there, with its options
    :ivar local: how the paths of sockets of ssh begin, where nobody else may
        open any
    :ivar join: the command that joins its input and output to a socket there;
        empty where ssh forwards
    :ivar streams: connections at once
    :ivar extent: bytes of an extent
    :ivar bandwidth: bytes per second over all streams, 0 for no limit
    :ivar stall_timeout: seconds that a stream may stand still
    :ivar attempts: how often to try an extent, or a connection
    :ivar patience: seconds to go on trying once the receiver was reached
    :ivar time_limit: seconds that this sender may take; 0 for no limit
    :ivar attempt: which sender of this copy it is, from 0; all but the first
        look what is there already
    :ivar parent: the process that wants it, whose child the sender is; 0 if
        that does not matter
    """

    devices: tuple[Device, ...]
    socket: str
    address: str = ''
    ssh: tuple[str, ...] = ('ssh',)
    local: str = ''
    join: str = ''
    streams: int = 2
    extent: int = 8 * extents.MIB
    bandwidth: int = 0
    stall_timeout: float = 60
    attempts: int = 3
    patience: float = 60
    time_limit: float = 0
    attempt: int = 0
    parent: int = 0
    version: int = VERSION

    def __post_init__(self) -> None:
        object.__setattr__(self, 'devices', tuple(
            each if isinstance(each, Device) else Device(**each)
            for each in self.devices))

    @property
    def total(self) -> int:
        """The bytes of all targets."""
        return sum(device.target_size for device in self.devices)


@dataclasses.dataclass(frozen=True)
class Receiving(_Job):
    """All that a receiver has to know.

    :ivar socket: the path at which to listen
    :ivar targets: what may be written, in the order of the ticket
    :ivar notes: the file descriptor of the notes, which is locked
    """

    socket: str
    targets: tuple[Target, ...]
    notes: int
    version: int = VERSION

    def __post_init__(self) -> None:
        object.__setattr__(self, 'targets', tuple(
            each if isinstance(each, Target) else Target(**each)
            for each in self.targets))
