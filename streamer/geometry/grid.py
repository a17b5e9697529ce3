"""A plain grid of pixels, for want of a geometry file: no two addresses at one place."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from streamer.errors import GeometryError
from streamer.geometry.layouts import CHANNELS, CHIPS, IO_GROUPS, TILES, Layout
from streamer.geometry.modules import Module
from streamer.whole import whole_number

__all__ = ["grid_modules"]

# Everything is read as a text is, from left to right and from top to bottom: 8 x 8 pixels are
# a chip, then 10 chips a row as on tiles, 2 tiles a row as in modules, and 8 io_groups.
_SIDE: Final = 8
_CHIPS_IN_ROW: Final = 10
_TILES_IN_ROW: Final = 2
_IO_GROUPS_IN_ROW: Final = 8
# Pixels left free between tiles, and twice as many between io_groups.
_GAP: Final = 4


def grid_modules(*, io_groups: int, tiles: int, chips: range, pitch: float) -> list[Module]:
    """Return modules of an io_group each, which share one layout.

    The parameters are those of :meth:`streamer.geometry.Geometry.grid`.

    Raises
    ------
    GeometryError
        If one is out of the range of what packets can name.

    Examples
    --------
    >>> first, second = grid_modules(io_groups=2, tiles=1, chips=range(11, 111), pitch=4)
    >>> first.layout, second.offset
    (<Layout of 6,400 pixels: no file>, (352.0, 0.0, 0.0))
    """
    io_groups = _number("io_groups", io_groups, IO_GROUPS)
    tiles = _number("tiles", tiles, TILES)
    if len(chips) == 0 or not 0 <= min(chips) <= max(chips) < CHIPS:
        msg = f"chips must be a range of chip ids from 0 to {CHIPS - 1}, not {chips!r}"
        raise GeometryError(msg)
    if not 0 < pitch < math.inf:
        msg = f"pitch must be a length in mm, not {pitch!r}"
        raise GeometryError(msg)

    tile, chip, channel = np.indices((tiles, len(chips), CHANNELS)).reshape(3, -1)
    tile_width = _SIDE * min(_CHIPS_IN_ROW, len(chips)) + _GAP
    tile_height = _SIDE * -(-len(chips) // _CHIPS_IN_ROW) + _GAP
    column = tile % _TILES_IN_ROW * tile_width
    column += chip % _CHIPS_IN_ROW * _SIDE + channel % _SIDE
    row = tile // _TILES_IN_ROW * tile_height
    row += chip // _CHIPS_IN_ROW * _SIDE + channel // _SIDE
    address = np.stack([np.ones_like(tile), tile + 1, np.array(chips)[chip], channel], axis=1)
    place = np.stack([column * pitch, row * -pitch, np.zeros(len(row))], axis=1)
    layout = Layout.of(address, place, pitch=float(pitch))

    width = min(_TILES_IN_ROW, tiles) * tile_width + _GAP
    height = -(-tiles // _TILES_IN_ROW) * tile_height + _GAP
    return [
        Module(
            layout,
            before,
            (
                float(before % _IO_GROUPS_IN_ROW * width * pitch),
                float(-(before // _IO_GROUPS_IN_ROW) * height * pitch),
                0.0,
            ),
        )
        for before in range(io_groups)
    ]


def _number(name: str, value: object, most: int) -> int:
    number = whole_number(value, 1, most)
    if number is None:
        msg = f"{name} must be a number from 1 to {most}, not {value!r}"
        raise GeometryError(msg)
    return number
