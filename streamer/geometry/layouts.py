"""Layout: the pixels of one geometry file as a table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamer.errors import GeometryError

__all__ = ["CHANNELS", "CHIPS", "IO_CHANNELS", "IO_GROUPS", "TILES", "Layout", "tile_of"]

#: io_groups are 1 to 255: a byte of the raw file.
IO_GROUPS: Final = 255
#: io_channels are 1 to 255: a byte of a word.
IO_CHANNELS: Final = 255
#: Tiles are 1 to 64, four io_channels each.
TILES: Final = 64
#: Chip ids are 0 to 255: a byte of a packet.
CHIPS: Final = 256
#: Channels are 0 to 63: six bits of a packet.
CHANNELS: Final = 64


def tile_of(io_channel: ArrayLike) -> NDArray[np.int64]:
    """Return the tile that an io_channel belongs to, from 1 in each io_group.

    Parameters
    ----------
    io_channel
        One or an array, of any integers. Each tile has four.

    Returns
    -------
    numpy.ndarray
        i8 of the same shape: ``(io_channel - 1) // 4 + 1``. It is 0 for io_channel 0, which no
        packet of a chip has.

    Examples
    --------
    >>> tile_of(np.array([0, 1, 4, 5, 32, 255], "u1"))
    array([ 0,  1,  1,  2,  8, 64])
    """
    return np.asarray((np.asarray(io_channel).astype(np.int64) - 1) // 4 + 1)


@dataclass(frozen=True, eq=False)
class Layout:
    """The pixels of one geometry file, in the order of their addresses.

    Parameters
    ----------
    io_group, tile, chip_id, channel_id
        (N,) u1: address of each pixel, no two the same. Tiles count from 1 in each io_group.
    x, y, z
        (N,) f4: its centre [mm]; z is along the drift, NaN where that is not known.
    drift
        (N,) i1: 1 if it collects what was at larger z, -1 if at smaller; 0 where that is not
        known.
    pitch
        Distance of neighbours [mm]; None if it is not known.
    source
        The file; None if there is none.
    """

    io_group: NDArray[np.uint8]
    tile: NDArray[np.uint8]
    chip_id: NDArray[np.uint8]
    channel_id: NDArray[np.uint8]
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    z: NDArray[np.float32]
    drift: NDArray[np.int8]
    pitch: float | None = None
    source: Path | None = None

    @classmethod
    def of(
        cls,
        addresses: ArrayLike,
        xyz: ArrayLike,
        *,
        drift: ArrayLike = 0,
        pitch: float | None = None,
        source: Path | None = None,
    ) -> Layout:
        """Return the layout of pixels that are in any order.

        Parameters
        ----------
        addresses
            (N, 4): io_group, tile, chip_id and channel_id of each, within their limits.
        xyz
            (N, 3): their centres [mm].
        drift
            One, or (N,).

        Raises
        ------
        GeometryError
            If two have the same address, or there are none.

        Examples
        --------
        >>> layout = Layout.of([[1, 2, 11, 5], [1, 2, 11, 3]], [[3.8, 0, 0], [0, 0, 0]])
        >>> layout.channel_id, layout.x
        (array([3, 5], dtype=uint8), array([0. , 3.8], dtype=float32))
        """
        columns = np.asarray(addresses, np.int64).T
        if not columns.size:
            msg = f"{source}: no pixels; take another file"
            raise GeometryError(msg)
        limits = (IO_GROUPS + 1, TILES + 1, CHIPS, CHANNELS)
        keys = np.ravel_multi_index(tuple(columns), limits)
        order = np.argsort(keys, kind="stable")
        io_group, tile, chip_id, channel_id = columns[:, order].astype(np.uint8)
        for k in np.flatnonzero(np.diff(keys[order]) == 0)[:1]:
            msg = (
                f"{source}: two pixels for channel {channel_id[k]} of chip {chip_id[k]} on tile "
                f"{tile[k]} of io_group {io_group[k]}; keep the one that is right"
            )
            raise GeometryError(msg)
        x, y, z = np.asarray(xyz, np.float64).T[:, order].astype(np.float32)
        return cls(
            io_group,
            tile,
            chip_id,
            channel_id,
            x,
            y,
            z,
            np.broadcast_to(np.asarray(drift, np.int8), order.shape)[order],
            pitch,
            source,
        )

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        return f"<Layout of {len(self):,} pixels: {self.source or 'no file'}>"
