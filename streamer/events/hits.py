"""Hits: what events are made of, as columns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from streamer.events.pedestals import Pedestals
    from streamer.geometry import Geometry
    from streamer.packets import Packets

__all__ = ["NO_HITS", "Hits", "RawHits"]

# In the column `adc` of raw hits: the ADC has 10 bits.
_TEN_BITS: Final = 1 << 15


class RawHits(NamedTuple):
    """N hits as they wait for their event: as few columns as possible.

    Examples
    --------
    >>> RawHits.joined([NO_HITS, NO_HITS]).ticks
    array([], dtype=int64)
    """

    #: (N,) i8
    ticks: NDArray[np.int64]
    #: (N,) i8: row of the message.
    rows: NDArray[np.int64]
    #: (N,) u4: io_group, io_channel, chip_id and channel_id, a byte each.
    addresses: NDArray[np.uint32]
    #: (N,) u2, and in the highest bit whether it has 10 bits.
    adc: NDArray[np.uint16]

    @classmethod
    def of(cls, packets: Packets, index: NDArray[np.int64], ticks: NDArray[np.int64]) -> Self:
        """Return some of the packets, with the times of all."""
        addresses = np.zeros(len(index), np.uint32)
        parts = addresses.view(np.uint8).reshape(-1, 4)
        for place, name in enumerate(("channel_id", "chip_id", "io_channel", "io_group")):
            parts[:, place] = getattr(packets, name)[index]
        adc = packets.dataword[index].astype(np.uint16)
        if packets.dataword.dtype != np.uint8:
            is_v3 = packets.is_v3[index]
            adc |= np.where(is_v3, _TEN_BITS, 0).astype(np.uint16)
        return cls(ticks[index], packets.row[index], addresses, adc)

    @classmethod
    def joined(cls, parts: Iterable[RawHits]) -> RawHits:
        """Return hits of several, one after the other."""
        found = [part for part in parts if len(part.ticks)]
        if len(found) == 1:
            return found[0]
        if not found:
            return NO_HITS
        return cls(*(np.concatenate(columns) for columns in zip(*found, strict=True)))

    def part(self, index: Any) -> RawHits:
        """Return some of the hits, by a mask, indices or a slice."""
        return RawHits(self.ticks[index], self.rows[index], self.addresses[index], self.adc[index])


NO_HITS: Final = RawHits(
    np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint32), np.zeros(0, np.uint16)
)


@dataclass(frozen=True, eq=False)
class Hits:
    """H hits as columns.

    Parameters
    ----------
    row
        (H,) i8: row of the message in its file.
    io_group, io_channel, chip_id, channel_id
        (H,) u1
    ticks
        (H,) i8: when it was digitised, as of `streamer.clock.Clock`.
    adc
        (H,) u2: the ADC's value: 8 bits, of v3 chips 10.
    charge
        (H,) f4 [ke-]; None without pedestals.
    x, y, z
        (H,) f4 [mm]: centre of the pixel; NaN where it is not mapped, z also where the geometry
        does not know it. All NaN without a geometry.
    mapped
        (H,) bool: whether the geometry has a pixel for it.

    Examples
    --------
    >>> hits = Hits.of(NO_HITS, None, None)
    >>> len(hits), hits.charge is None, hits.to_records().dtype.names[:3]
    (0, True, ('row', 'io_group', 'io_channel'))
    """

    row: NDArray[np.int64]
    io_group: NDArray[np.uint8]
    io_channel: NDArray[np.uint8]
    chip_id: NDArray[np.uint8]
    channel_id: NDArray[np.uint8]
    ticks: NDArray[np.int64]
    adc: NDArray[np.uint16]
    charge: NDArray[np.float32] | None
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    z: NDArray[np.float32]
    mapped: NDArray[np.bool_]

    @classmethod
    def of(cls, raw: RawHits, geometry: Geometry | None, pedestals: Pedestals | None) -> Self:
        """Return hits with their places and charges."""
        channel_id, chip_id, io_channel, io_group = (
            np.ascontiguousarray(raw.addresses.view(np.uint8)[place::4]) for place in range(4)
        )
        address = (io_group, io_channel, chip_id, channel_id)
        adc = raw.adc & np.uint16(_TEN_BITS - 1)
        charge = None
        if pedestals is not None:
            charge = pedestals.charge(*address, adc, ten_bits=raw.adc >= _TEN_BITS)
        if geometry is None:
            unknown = np.full(len(adc), np.nan, np.float32)
            x, y, z = unknown, unknown, unknown
            mapped = np.zeros(len(adc), np.bool)
        else:
            places = geometry.places(*address)
            x, y, z, mapped = places.x, places.y, places.z, places.mapped
        return cls(raw.rows, *address, raw.ticks, adc, charge, x, y, z, mapped)

    def __len__(self) -> int:
        return len(self.ticks)

    def __repr__(self) -> str:
        return f"<Hits: {len(self)}>"

    def select(self, index: Any) -> Hits:
        """Return some of the hits.

        Parameters
        ----------
        index
            A mask of H, indices, or a slice, which copies nothing.
        """
        return Hits(
            self.row[index],
            self.io_group[index],
            self.io_channel[index],
            self.chip_id[index],
            self.channel_id[index],
            self.ticks[index],
            self.adc[index],
            None if self.charge is None else self.charge[index],
            self.x[index],
            self.y[index],
            self.z[index],
            self.mapped[index],
        )

    def to_records(self) -> NDArray[np.void]:
        """Return the hits as a structured array, (H,); without charge if there is none."""
        columns = {
            field.name: column
            for field in fields(self)
            if (column := getattr(self, field.name)) is not None
        }
        dtype = np.dtype([(name, column.dtype) for name, column in columns.items()])
        records = np.zeros(len(self), dtype)
        for name, column in columns.items():
            records[name] = column
        return records
