# SPDX-License-Identifier: Apache-2.0

"""What a copy has still to do: extents, and what is known of the source's.

To look at the source takes a good part of the time of a copy that has little
to send, and so does ssh, which mostly waits until it is connected. So the
source is looked at meanwhile.
"""

import collections
from collections import abc
import contextlib
import dataclasses
import typing as ty

from nova.virt.pmem_transfer import extents
from nova.virt.pmem_transfer import job as pmem_job
from nova.virt.pmem_transfer import mapping
from nova.virt.pmem_transfer import proof

if ty.TYPE_CHECKING:
    from nova.virt.pmem_transfer import buffers

#: The most that is looked at ahead: extents, which bounds the memory; and
#: bytes of data among them, for a copy that has so much to send is not held up
#: by looking, and what is sent has to be read again.
EXTENTS_AHEAD = 1024
DATA_AHEAD = 128 * 1024 * 1024


@dataclasses.dataclass(eq=False)
class Piece:
    """An extent on its way.

    :ivar compare: whether to ask first if it is there already
    :ivar failures: how often it has failed
    :ivar buffer: where its data is, while it is under way
    :ivar is_known: whether the source was looked at ahead, for:
    :ivar runs: where data is in it
    :ivar proof: of its bytes, if they are to be compared
    """

    extent: extents.Extent
    compare: bool
    failures: int = 0
    buffer: 'buffers.Buffer | None' = None
    is_known: bool = False
    runs: abc.Sequence[extents.Run] = ()
    proof: bytes = b''


class Work:
    """The extents of a copy, which are handed out once and in order.

    They are not made before they are wanted: a large device takes no more
    memory than a small one.

    :ivar extents: how many there are
    """

    def __init__(self, job: pmem_job.Job) -> None:
        self._job = job
        self._pieces = self._cut()
        self._ahead: collections.deque[Piece] = collections.deque()
        self._data_ahead = 0
        self._maps: dict[int, mapping.Mapping] = {}
        self.extents = self._left = sum(
            extents.count(device.size, device.target_size, job.extent)
            for device in job.devices)

    def _cut(self) -> abc.Iterator[Piece]:
        for number, device in enumerate(self._job.devices):
            for extent in extents.cut(number, device.size, device.target_size,
                                      self._job.extent):
                yield Piece(extent, self._job.resume)

    def __len__(self) -> int:
        """Return how many were not handed out."""
        return self._left

    def take(self) -> Piece:
        """Hand out the next one."""
        self._left -= 1
        if not self._ahead:
            return next(self._pieces)
        piece = self._ahead.popleft()
        self._data_ahead -= sum(run.length for run in piece.runs)
        return piece

    def can_look_ahead(self) -> bool:
        return (len(self._ahead) < min(self._left, EXTENTS_AHEAD) and
                self._data_ahead < DATA_AHEAD)

    def look_ahead(self) -> None:
        """Look at the next extent that was not looked at."""
        piece = next(self._pieces)
        self._ahead.append(piece)
        # If it can't be read, whoever takes it is told.
        with contextlib.suppress(OSError), self._at_hand(piece) as data:
            self._look(piece, data)
            self._data_ahead += sum(run.length for run in piece.runs)

    def load(self, piece: Piece) -> None:
        """Find what is to be said of an extent, and copy its data.

        The buffer has its data then, and anything where zeros are. If it has
        to be sent again, it is looked at again.

        :raises OSError: if the source can't be read
        """
        if piece.is_known:
            self._copy(piece)
        else:
            with self._at_hand(piece) as data:
                self._look(piece, data)
                self._copy(piece)
        piece.is_known = False

    def _look(self, piece: Piece, data: 'memoryview | bytes') -> None:
        extent = piece.extent
        piece.runs, piece.proof = (), b''
        if piece.compare:
            piece.proof = proof.text(data)
        elif extent.source_offset is not None:
            piece.runs = extents.data_runs(
                self._source(extent), extent.source_offset, extent.length)
        piece.is_known = True

    def _copy(self, piece: Piece) -> None:
        extent = piece.extent
        for run in piece.runs:
            self._source(extent).copy(
                extent.source_offset + run.offset, run.length, piece.buffer,
                run.offset)

    def _at_hand(self, piece: Piece) -> contextlib.AbstractContextManager:
        """Have the bytes of an extent in memory, those of the source."""
        extent = piece.extent
        if extent.source_offset is None:
            return contextlib.nullcontext(bytes(extent.length))
        return self._source(extent).at_hand(
            extent.source_offset, extent.length)

    def _source(self, extent: extents.Extent) -> mapping.Mapping:
        if extent.device not in self._maps:
            device = self._job.devices[extent.device]
            self._maps[extent.device] = mapping.Mapping(
                device.path, device.size, self._job.careful)
        return self._maps[extent.device]
