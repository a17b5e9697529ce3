"""What a geometry tells: where hits were, and where all pixels are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Pixels", "Places"]


@dataclass(frozen=True, eq=False)
class Places:
    """Where hits were, a value for each of H hits.

    Parameters
    ----------
    x, y, z
        (H,) f4: centre of its pixel [mm]; NaN where it is not mapped. z is along the drift, and
        NaN also where the geometry does not know it.
    mapped
        (H,) bool: whether there is a pixel for it.
    pixel
        (H,) i8: the number of its pixel, from 0, as in :class:`Pixels`; -1 where not mapped.

    Examples
    --------
    >>> from streamer.geometry import Geometry
    >>> places = Geometry.grid(tiles=1).places([1, 1], [4, 5], [0, 0], [2, 2])
    >>> places.x, places.mapped, places.pixel
    (array([ 8., nan], dtype=float32), array([ True, False]), array([ 2, -1]))
    """

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    z: NDArray[np.float32]
    mapped: NDArray[np.bool_]
    pixel: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.pixel)


@dataclass(frozen=True, eq=False)
class Pixels:
    """The pixels of a geometry, a value for each of N, in the order of their addresses.

    Parameters
    ----------
    pixel
        (N,) i8: its number, from 0: its index here, if all io_groups are here.
    io_group, tile, chip_id, channel_id
        (N,) u1: its address. Tiles count from 1 in each io_group.
    x, y, z
        (N,) f4: its centre [mm]; z is NaN where the geometry does not know it.
    drift
        (N,) i1: 1 if it collects what was at larger z, -1 if at smaller; 0 where the geometry
        does not know it. What took a time to come was at ``z + drift * velocity * time``.

    Examples
    --------
    >>> from streamer.geometry import Geometry
    >>> pixels = Geometry.grid(io_groups=2, tiles=8, chips=range(11, 111)).pixels([2])
    >>> len(pixels), pixels.pixel[0], pixels.tile.max()
    (51200, np.int64(51200), np.uint8(8))
    """

    pixel: NDArray[np.int64]
    io_group: NDArray[np.uint8]
    tile: NDArray[np.uint8]
    chip_id: NDArray[np.uint8]
    channel_id: NDArray[np.uint8]
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    z: NDArray[np.float32]
    drift: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.pixel)
