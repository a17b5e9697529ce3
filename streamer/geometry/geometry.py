"""Geometry: where the pixels are that hits come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamer.errors import GeometryError
from streamer.geometry.grid import grid_modules
from streamer.geometry.layouts import CHIPS, IO_GROUPS, TILES, Layout
from streamer.geometry.modules import FilePath, Module, read_modules
from streamer.geometry.pixel_table import PixelTable
from streamer.geometry.places import Pixels, Places

__all__ = ["Geometry"]

# Of 33 bytes each: 1 GB.
_MOST_PIXELS: Final = 1 << 25


class Geometry:
    """Where pixels are; made by :meth:`load` from files, or by :meth:`grid` without one.

    Parameters
    ----------
    modules
        At least one. The io_groups of each come before those of the next.

    Attributes
    ----------
    unmapped : int
        How many of the hits looked up so far had no pixel. Set it to 0 to start counting again.
    n_pixels : int
        How many there are.
    io_groups : tuple of int
        Those that have pixels.
    pitches : dict
        Distance of neighbours [mm] by io_group, for those of which it is known.
    bounds : numpy.ndarray
        (3, 2) f8: the least and the greatest x, y and z of a pixel's centre [mm].
    sources : tuple of Path
        The files that it is from.

    Notes
    -----
    A hit is matched by its tile, not its io_channel: a tile's network can pass packets on to
    any of its four io_channels, and is set up anew when a chip fails.

    Modules of one layout share the tables in which pixels are looked up
    (:mod:`streamer.geometry.pixel_table`): 140 io_groups of ND-LAr take 7 MB.

    Examples
    --------
    >>> from pathlib import Path
    >>> _ = Path("map.json").write_text('{"geometry": {"1-1-11-0": [3.5, 0], "2-9-11-0": [0, 7]}}')
    >>> geometry = Geometry.load("map.json", modules=4)
    >>> places = geometry.places([8, 8, 1], [1, 4, 5], [11, 11, 11], [0, 0, 0])
    >>> places.y, places.mapped
    (array([ 7.,  7., nan], dtype=float32), array([ True,  True, False]))
    >>> geometry.n_pixels, geometry.unmapped
    (8, 1)
    """

    def __init__(self, modules: Iterable[Module]) -> None:
        self.unmapped = 0
        self._table = PixelTable(modules)
        self.n_pixels = self._table.n_pixels
        self.io_groups = tuple(self._table.modules)
        modules = list(dict.fromkeys(self._table.modules.values()))
        self.bounds = _bounds(modules)
        self.pitches = {
            io_group: module.layout.pitch
            for io_group, module in self._table.modules.items()
            if module.layout.pitch is not None
        }
        sources = dict.fromkeys(module.layout.source for module in modules)
        self.sources = tuple(source for source in sources if source is not None)

    @classmethod
    def load(
        cls,
        path: FilePath | Sequence[FilePath] | Mapping[int, FilePath],
        *,
        modules: int | None = None,
        offsets: Sequence[Sequence[float]] | Mapping[int, Sequence[float]] | None = None,
        io_groups_per_module: int | None = None,
        tile: int | None = None,
        tiles_per_io_group: int | None = None,
    ) -> Self:
        """Return the geometry that files tell of.

        Parameters
        ----------
        path
            A file, or one for each module: a list of them, or a dict by the number of the
            module, from 0. Each is a multi-tile layout of larnd-sim (YAML), a larpix-geometry
            layout of a single tile (YAML), or a map of pacmon (JSON); which, is seen from what
            is in it.
        modules
            Number of identical modules that this one file describes.
        offsets
            x, y, z [mm] that is added to the positions of each module: a list, or a dict by the
            number of the module. larnd-sim has them as ``tpc_offsets``, as z, y, x in cm.
        io_groups_per_module
            Module m has the io_groups from ``m * io_groups_per_module + 1`` on. The highest
            io_group of the file if not given: 2 for a module of 2x2, 4 for one of ND-LAr.
        tile
            Of a single tile: which of its io_group it is. Tile 1 if not given.
        tiles_per_io_group
            Of a pacmon map: see :func:`streamer.geometry.files.read_layout`.

        Raises
        ------
        GeometryError
            If a file cannot be read or used, or the parameters do not agree. It names the file
            and the key.

        Examples
        --------
        2x2, as if all modules were alike, and as it is::

            Geometry.load("multi_tile_layout-2.4.16.yaml", modules=4)

            most, module_2 = "multi_tile_layout-2.4.16.yaml", "multi_tile_layout-2.5.16.yaml"
            Geometry.load([most, most, module_2, most])

        Any file will do for a first look:

        >>> from pathlib import Path
        >>> _ = Path("map.json").write_text('{"geometry": {"1-1-11-0": [0, 0]}}')
        >>> geometry = Geometry.load("map.json", modules=2, offsets=[(0, 0, 0), (670, 0, 0)])
        >>> geometry
        <Geometry of 2 pixels in 2 io_groups: map.json>
        >>> geometry.bounds[0]
        array([  0., 670.])
        """
        return cls(
            read_modules(
                path,
                modules=modules,
                offsets=offsets,
                io_groups_per_module=io_groups_per_module,
                tile=tile,
                tiles_per_io_group=tiles_per_io_group,
            )
        )

    @classmethod
    def grid(
        cls,
        *,
        io_groups: int = IO_GROUPS,
        tiles: int = TILES,
        chips: range = range(CHIPS),
        pitch: float = 4.0,
    ) -> Self:
        """Return a plain grid, in which each address has a place, for want of a geometry file.

        Parameters
        ----------
        io_groups, tiles
            How many there are, from 1 on. All that a packet can name if not given.
        chips
            Chip ids of each tile: ``range(11, 111)`` makes the tiles of 2x2 square.
        pitch
            Distance of neighbours [mm].

        Returns
        -------
        Geometry
            io_groups beside each other; in them tiles, two in a row; in them chips, ten in a
            row; in them channels, eight in a row. It says nothing of where the pixels are.

        Raises
        ------
        GeometryError
            If one is nothing that a packet can name.

        Examples
        --------
        >>> Geometry.grid(io_groups=8, tiles=8, chips=range(11, 111))
        <Geometry of 409,600 pixels in 8 io_groups: a plain grid>
        """
        return cls(grid_modules(io_groups=io_groups, tiles=tiles, chips=chips, pitch=pitch))

    def __repr__(self) -> str:
        files = ", ".join(source.name for source in self.sources) or "a plain grid"
        return (
            f"<Geometry of {self.n_pixels:,} pixels in {len(self.io_groups)} io_groups: {files}>"
        )

    def places(
        self, io_group: ArrayLike, io_channel: ArrayLike, chip_id: ArrayLike, channel_id: ArrayLike
    ) -> Places:
        """Return where hits were, and count those for which there is no pixel.

        Parameters
        ----------
        io_group, io_channel, chip_id, channel_id
            (H,) of any integers: the columns of the hits.

        Returns
        -------
        Places
            H of them, in the same order.

        Raises
        ------
        GeometryError
            If the columns are not of integers, or not of the same length.
        """
        places = self._table.find(io_group, io_channel, chip_id, channel_id)
        self.unmapped += len(places) - int(np.count_nonzero(places.mapped))
        return places

    def pixels(self, io_groups: Iterable[int] | None = None) -> Pixels:
        """Return where all pixels are, for a display to draw.

        Parameters
        ----------
        io_groups
            Those of which they are wanted; all if not given. What has no pixels gives none.

        Raises
        ------
        GeometryError
            If they are so many that they would fill the memory.

        Examples
        --------
        >>> Geometry.grid(tiles=8).pixels([5]).x.max()
        np.float32(3404.0)
        """
        wanted = self.io_groups if io_groups is None else {*io_groups} & {*self.io_groups}
        sizes = np.diff([*self._table.first_pixels.values(), self.n_pixels])
        n = int(sizes[np.isin(self.io_groups, [*wanted])].sum())
        if n > _MOST_PIXELS:
            msg = f"{n:,} pixels would take {33 * n / 1e9:.0f} GB; name the io_groups to see"
            raise GeometryError(msg)
        parts = [self._of_io_group(io_group) for io_group in sorted(wanted)]
        return Pixels(
            *(
                np.concatenate([np.zeros(0, dtype), *(part[k] for part in parts)])
                for k, dtype in enumerate(("i8", "u1", "u1", "u1", "u1", "f4", "f4", "f4", "i1"))
            )
        )

    def _of_io_group(self, io_group: int) -> tuple[NDArray[Any], ...]:
        """Return the columns of the pixels of one."""
        layout, before, offset = self._table.modules[io_group]
        part = slice(*np.searchsorted(layout.io_group, [io_group - before, io_group - before + 1]))
        x, y, z = (
            column[part] + np.float32(shift)
            for column, shift in zip((layout.x, layout.y, layout.z), offset, strict=True)
        )
        return (
            self._table.first_pixels[io_group] + np.arange(len(x)),
            np.full(len(x), io_group, np.uint8),
            layout.tile[part],
            layout.chip_id[part],
            layout.channel_id[part],
            x,
            y,
            z,
            layout.drift[part],
        )


def _bounds(modules: Iterable[Module]) -> NDArray[np.float64]:
    """Return (3, 2) f8: the least and the greatest x, y and z; NaN where one is not known."""
    ends: dict[Layout, NDArray[np.float64]] = {}
    each = []
    for layout, _, offset in modules:
        if layout not in ends:
            columns = (layout.x, layout.y, layout.z)
            ends[layout] = np.array([[c.min(), c.max()] for c in columns], np.float64)
        each.append(ends[layout] + np.reshape(offset, (3, 1)))
    return np.stack([np.min(each, axis=0)[:, 0], np.max(each, axis=0)[:, 1]], axis=1)
