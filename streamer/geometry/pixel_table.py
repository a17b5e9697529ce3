"""From addresses to pixels by dense tables: no dict, no search, for any number of hits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamer.errors import GeometryError
from streamer.geometry.layouts import CHANNELS, CHIPS, IO_CHANNELS, IO_GROUPS, tile_of
from streamer.geometry.modules import Module
from streamer.geometry.places import Places

__all__ = ["PixelTable"]

# So many hits at once that what is computed for them stays in the processor's cache.
_AT_ONCE: Final = 1 << 15
_NOWHERE: Final = np.array([np.nan], np.float32)


class PixelTable:
    """All pixels of some modules, to be found by their addresses.

    Parameters
    ----------
    modules
        At least one. The io_groups of each come before those of the next.

    Attributes
    ----------
    n_pixels : int
        How many there are. They are numbered from 0, by io_group, tile, chip and channel.
    modules : dict
        The module of each io_group that has pixels, ascending.
    first_pixels : dict
        The number of the first pixel of each of these.

    Raises
    ------
    GeometryError
        If modules share io_groups.

    Notes
    -----
    A table leads from io_group, tile and chip to a row, and another from row and channel to one
    of the positions of all layouts, which lie behind each other. There are rows only for chips
    that have pixels. Modules of one layout have the same rows: in the first table their
    io_groups begin at the same places, and offset and numbers are added for each io_group. What
    has no pixel comes to the last position, which is none.

    Examples
    --------
    >>> from streamer.geometry.layouts import Layout
    >>> layout = Layout.of([[1, 2, 11, 5]], [[3.5, 0, 0]])
    >>> table = PixelTable([Module(layout), Module(layout, 1, (100, 0, 0))])
    >>> places = table.find([1, 2, 2], [8, 8, 1], [11, 11, 11], [5, 5, 5])
    >>> places.pixel, places.x
    (array([ 0,  1, -1]), array([  3.5, 103.5,   nan], dtype=float32))
    """

    def __init__(self, modules: Iterable[Module]) -> None:
        ordered = sorted(modules, key=lambda module: module.io_groups_before)
        layouts = list(dict.fromkeys(module.layout for module in ordered))
        groups = {
            layout: np.unique(layout.io_group, return_index=True, return_inverse=True)
            for layout in layouts
        }
        n_tiles = max(int(layout.tile.max()) for layout in layouts)
        tiles = tile_of(np.arange(IO_GROUPS + 1))
        # Tile 0, which is no tile, and block 0 have no pixels; row 0 has none either.
        self._tiles = np.where(tiles <= n_tiles, tiles, 0) * CHIPS

        # A block of the first table for each io_group of each layout.
        size, n_blocks, keys, begins = (n_tiles + 1) * CHIPS, 1, [], {}
        for layout, (names, _, which) in groups.items():
            begins[layout] = (n_blocks + np.arange(len(names))) * size
            keys.append(begins[layout][which] + layout.tile * np.int64(CHIPS) + layout.chip_id)
            n_blocks += len(names)
        # It ascends, because the pixels of a layout are ordered.
        key = np.concatenate(keys)
        row = np.cumsum(np.diff(key, prepend=0) > 0) * CHANNELS
        self._rows = np.zeros(n_blocks * size, np.int32)
        self._rows[key] = row
        self._places = np.full(row[-1] + CHANNELS, len(key), np.int32)
        self._places[row + np.concatenate([layout.channel_id for layout in layouts])] = np.arange(
            len(key)
        )
        self._xyz = [
            np.concatenate([*(getattr(layout, name) for layout in layouts), _NOWHERE])
            for name in "xyz"
        ]

        # What each io_group has of its own.
        self.n_pixels = 0
        self.modules: dict[int, Module] = {}
        self.first_pixels: dict[int, int] = {}
        self._begins = np.zeros(IO_GROUPS + 1, np.int64)
        self._numbers = np.zeros(IO_GROUPS + 1, np.int64)
        self._offsets = np.zeros((3, IO_GROUPS + 1), np.float32)
        starts = dict(zip(layouts, np.cumsum([0, *map(len, layouts)]).tolist(), strict=False))
        for module in ordered:
            names, firsts, _ = groups[module.layout]
            for k, (name, first) in enumerate(zip(names.tolist(), firsts.tolist(), strict=True)):
                io_group = module.io_groups_before + name
                if not max(self.modules, default=0) < io_group <= IO_GROUPS:
                    msg = f"io_group {io_group} is beyond {IO_GROUPS}, or modules share it"
                    raise GeometryError(msg)
                self.modules[io_group] = module
                self.first_pixels[io_group] = self.n_pixels + first
                self._begins[io_group] = begins[module.layout][k]
                self._numbers[io_group] = self.n_pixels - starts[module.layout]
                self._offsets[:, io_group] = module.offset
            self.n_pixels += len(module.layout)
        self._is_offset = [bool(offsets.any()) for offsets in self._offsets]

    def find(
        self, io_group: ArrayLike, io_channel: ArrayLike, chip_id: ArrayLike, channel_id: ArrayLike
    ) -> Places:
        """Return the pixels of hits.

        Parameters
        ----------
        io_group, io_channel, chip_id, channel_id
            (H,) of any integers.

        Raises
        ------
        GeometryError
            If they are not of integers, or not of the same length.
        """
        columns = (
            _integers("io_group", io_group),
            _integers("io_channel", io_channel),
            _integers("chip_id", chip_id),
            _integers("channel_id", channel_id),
        )
        lengths = [*map(len, columns)]
        if len({*lengths}) > 1:
            msg = f"the columns of hits must have one length, not {lengths}"
            raise GeometryError(msg)
        n = lengths[0]
        xyz, mapped = np.empty((3, n), np.float32), np.empty(n, np.bool_)
        pixel = np.empty(n, np.int64)
        for start in range(0, n, _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            self._find(
                [column[part] for column in columns], xyz[:, part], mapped[part], pixel[part]
            )
        x, y, z = xyz
        return Places(x, y, z, mapped, pixel)

    def _find(
        self,
        columns: list[NDArray[Any]],
        xyz: NDArray[np.float32],
        mapped: NDArray[np.bool_],
        pixel: NDArray[np.int64],
    ) -> None:
        """Find the pixels of a few hits, and put what was found into the other arrays."""
        masks = []
        for k, end in enumerate((IO_GROUPS + 1, IO_CHANNELS + 1, CHIPS, CHANNELS)):
            column = columns[k]
            if not 0 <= column.min() <= column.max() < end:
                # Some address 0 is looked up instead, and what is found is dropped below.
                masks.append(np.logical_or(column < 0, column >= end))
                column = np.where(masks[-1], 0, column)
            columns[k] = column.astype(np.uint8, copy=False)
        io_group, io_channel, chip_id, channel_id = columns

        at = _take(self._begins, io_group)
        at += _take(self._tiles, io_channel)
        at += chip_id
        row = _take(self._rows, at)
        row += channel_id
        place = _take(self._places, row).astype(np.int64)
        nowhere = len(self._xyz[0]) - 1
        for mask in masks:
            place[mask] = nowhere
        for k, of_places in enumerate(self._xyz):
            _take(of_places, place, out=xyz[k])
            if self._is_offset[k]:
                xyz[k] += _take(self._offsets[k], io_group)
        np.less(place, nowhere, out=mapped)
        np.add(place, _take(self._numbers, io_group), out=pixel)
        if not mapped.all():
            pixel[~mapped] = -1


def _take(table: NDArray[Any], at: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
    # No index is outside, and so none is clipped: it only saves the look at each.
    return np.asarray(table.take(at, out=out, mode="clip"))


def _integers(name: str, column: ArrayLike) -> NDArray[Any]:
    found = np.asarray(column)
    # An empty list is of floats to numpy.
    if found.ndim != 1 or (found.dtype.kind not in "iu" and found.size):
        msg = f"{name} must be a column of integers, not {found.dtype} of shape {found.shape}"
        raise GeometryError(msg)
    return found
