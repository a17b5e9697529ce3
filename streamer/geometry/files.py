"""The three formats of geometry files, each read into a Layout.

- multi-tile layouts of larnd-sim (YAML, from its ``larndsim/pixel_layouts``): the pixels of a
  tile in columns and rows, and where each tile is, how it is turned, and what reads its chips;
- layouts of larpix-geometry (YAML): the pixels of a single tile;
- maps of pacmon (JSON): x and y of each "io_group-tile-chip-channel".
"""

from __future__ import annotations

import os
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streamer.errors import GeometryError
from streamer.geometry.documents import read_document
from streamer.geometry.fields import Fields, shown
from streamer.geometry.layouts import (
    CHANNELS,
    CHIPS,
    IO_CHANNELS,
    IO_GROUPS,
    TILES,
    Layout,
    tile_of,
)
from streamer.whole import whole_number

__all__ = ["read_layout"]

_Content = dict[Hashable, Any]

# Tiles of an io_group in the maps of 2x2.
_TILES_2X2: Final = 8
_ADDRESS: Final = re.compile(r"\d{1,9}(-\d{1,9}){3}", re.ASCII)


def read_layout(
    path: str | os.PathLike[str],
    *,
    tile: int | None = None,
    tiles_per_io_group: int | None = None,
) -> Layout:
    """Return the pixels in a geometry file, whose format is known by its content.

    Parameters
    ----------
    path
        The file.
    tile
        Of a larpix-geometry layout, which does not say it: which tile of io_group 1 it is. Tile
        1 if not given.
    tiles_per_io_group
        Of a pacmon map: by how much its numbers of tiles go on from one io_group to the next; 0
        if they begin with 1 in each. If not given, it is found, see Notes.

    Returns
    -------
    Layout
        All pixels of the file.

    Raises
    ------
    GeometryError
        If the file is none of the three, lacks a key, has a value of a wrong shape or that
        cannot be, or two pixels for one channel. It names the file and the key.

    Notes
    -----
    In a multi-tile layout, the centre of a pixel is (column, row) times the pitch, from the
    centre of the tile, times the signs of the tile's orientation, plus the tile's position,
    which the file gives as (z, y, x), plus the centre of its TPC where the file has one. pacmon
    (``layout/simplified_geometry.py``) and ndlar_flow do the same.

    A single tile is in the plane z = 0, and so is a map of a single io_group. A map of several
    io_groups does not say where their planes are: z is not known.

    pacmon's maps number the tiles of all io_groups through. Taken is 8 tiles for each, as in
    2x2, if what is there agrees with it, or else the one number that does. If none does, the
    tiles begin with 1 in each io_group.

    Examples
    --------
    >>> _ = Path("map.json").write_text('{"geometry": {"2-9-11-0": [3.8, 0]}}')
    >>> layout = read_layout("map.json")
    >>> layout, layout.tile
    (<Layout of 1 pixels: map.json>, array([1], dtype=uint8))
    """
    content = read_document(path, kind="geometry file", error=GeometryError)
    fields = Fields(Path(path))
    if content.keys() & {"chip_channel_to_position", "tile_chip_to_io", "tile_positions"}:
        _refuse(fields, "multi-tile layout", tile=tile, tiles_per_io_group=tiles_per_io_group)
        return _multi_tile(content, fields)
    if content.keys() & {"chips", "pixels"}:
        _refuse(fields, "layout of one tile", tiles_per_io_group=tiles_per_io_group)
        return _single_tile(content, fields, 1 if tile is None else tile)
    if "geometry" in content or any(map(_is_address, content)):
        _refuse(fields, "pacmon map", tile=tile)
        return _pacmon(content, fields, tiles_per_io_group)
    keys = shown(", ".join(map(str, list(content)[:5])))
    msg = (
        f"{path}: no known kind of geometry file; its keys: {keys}. Give a multi-tile layout "
        "of larnd-sim, a layout of larpix-geometry, or a map of pacmon"
    )
    raise GeometryError(msg)


def _refuse(fields: Fields, kind: str, **options: int | None) -> None:
    for name, value in options.items():
        if value is not None:
            msg = f"{fields.path}: {name} does not apply to a {kind}; omit it"
            raise GeometryError(msg)


def _multi_tile(content: _Content, fields: Fields) -> Layout:
    pitch = fields.length(content, "pixel_pitch")
    cells = fields.mapping(content, "chip_channel_to_position")
    tiles = fields.mapping(content, "tile_chip_to_io")
    positions = fields.mapping(content, "tile_positions")
    orientations = fields.mapping(content, "tile_orientations")

    # Each key is chip * 1000 + channel.
    keys, within = list(cells), "chip_channel_to_position"
    numbers = fields.whole(keys, 0, CHIPS * 1000 - 1, lambda k: f"{within}: {keys[k]}")
    chip, channel = np.divmod(numbers, 1000)
    for k in np.flatnonzero(channel >= CHANNELS)[:1]:
        what = f"channel {channel[k]}, but a chip has channels 0 to {CHANNELS - 1}; mend the key"
        fields.refuse(f"{within}: {keys[k]}", what)
    cell = fields.rows(list(cells.values()), 2, lambda k: f"{within}: {keys[k]}")
    local = (cell - (cell.min(axis=0) + cell.max(axis=0)) / 2) * pitch

    addresses, places, drifts = [], [], []
    for tile in tiles:
        position = fields.vector(positions, tile, "tile_positions")
        orientation = fields.vector(orientations, tile, "tile_orientations")
        if not (np.abs(orientation) == 1).all():
            what = "three of 1 and -1"
            fields.expect(f"tile_orientations: {tile}", what, orientations[tile])
        io_group, tile_number = _readout(tiles, tile, fields)
        # A chip that nothing reads cannot send a hit: it is left out, as its pixels are.
        read = io_group[chip] > 0
        n = np.count_nonzero(read)
        of_chip = chip[read]
        addresses.append(
            np.stack([io_group[of_chip], tile_number[of_chip], of_chip, channel[read]], axis=1)
        )
        centre = _tpc_centre(content, tile, fields)
        flat = local[read] * orientation[[2, 1]] + position[[2, 1]] + centre[:2]
        places.append(np.column_stack([flat, np.full(n, position[0] + centre[2])]))
        drifts.append(np.full(n, orientation[0]))
    drift = np.concatenate(drifts)
    address, place = np.concatenate(addresses), np.concatenate(places)
    return Layout.of(address, place, drift=drift, pitch=pitch, source=fields.path)


def _readout(
    tiles: _Content, tile: Hashable, fields: Fields
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (256,) io_group and tile of it that read each chip of a tile; 0 for no such chip."""
    chips = fields.mapping(tiles, tile, "tile_chip_to_io")
    key = [f"tile_chip_to_io: {tile}: {chip}" for chip in chips]
    ids = fields.whole(list(chips), 0, CHIPS - 1, key.__getitem__)
    # Each value is io_group * 1000 + io_channel.
    readers = fields.whole(
        list(chips.values()), 1001, IO_GROUPS * 1000 + IO_CHANNELS, key.__getitem__
    )
    io_group, io_channel = np.divmod(readers, 1000)
    for k in np.flatnonzero((io_channel < 1) | (io_channel > IO_CHANNELS))[:1]:
        what = f"io_group * 1000 + io_channel, with an io_channel from 1 to {IO_CHANNELS}"
        fields.expect(key[k], what, int(readers[k]))
    groups, numbers = np.zeros((2, CHIPS), np.int64)
    groups[ids], numbers[ids] = io_group, tile_of(io_channel)
    return groups, numbers


def _tpc_centre(content: _Content, tile: Hashable, fields: Fields) -> NDArray[np.float64]:
    """Return (3,) f8: x, y, z that is added to the position of a tile."""
    if "tpc_centers" not in content:
        return np.zeros(3)
    # (TPC, tile), or (module, TPC, tile).
    indices = fields.value(fields.mapping(content, "tile_indeces"), tile, "tile_indeces")
    if type(indices) is not list or len(indices) not in (2, 3):
        fields.expect(f"tile_indeces: {tile}", "2 or 3 whole numbers", indices)
    tpc = fields.whole(indices, 0, 10**6, lambda _: f"tile_indeces: {tile}")[-2]
    return fields.vector(fields.mapping(content, "tpc_centers"), int(tpc), "tpc_centers")


def _single_tile(content: _Content, fields: Fields, tile: int) -> Layout:
    number_of_tile = whole_number(tile, 1, TILES)
    if number_of_tile is None:
        msg = f"a tile is a number from 1 to {TILES}, not {tile!r}"
        raise GeometryError(msg)
    # Each pixel is [its number, x, y, neighbours ...].
    pixels = fields.listed(content, "pixels")
    at = "pixels: entry {}".format
    for k, pixel in enumerate(pixels):
        if type(pixel) is not list or len(pixel) < 3:
            fields.expect(at(k), "a list of a number, x, y ...", pixel)
    numbers = fields.whole([pixel[0] for pixel in pixels], 0, 10**9, at)
    xy = fields.rows([pixel[1:3] for pixel in pixels], 2, at)
    places = dict(zip(numbers.tolist(), range(len(pixels)), strict=True))
    if len(places) < len(pixels):
        number = next(one for k, one in enumerate(numbers.tolist()) if places[one] != k)
        fields.refuse("pixels", f"two have the number {number}; keep the one that is right")

    # Each chip is [its id, [the number of the pixel or null for each channel]].
    addresses, found = [], []
    for k, entry in enumerate(fields.listed(content, "chips")):
        at_chip = f"chips: entry {k}"
        if type(entry) is not list or len(entry) < 2 or type(entry[1]) is not list:
            fields.expect(at_chip, "a list of a chip id and a list of pixels", entry)
        [chip] = fields.whole(entry[:1], 0, CHIPS - 1, at_chip.format).tolist()
        if len(entry[1]) > CHANNELS:
            what = f"{len(entry[1])} channels, but a chip has channels 0 to {CHANNELS - 1}"
            fields.refuse(f"chips: {chip}", what)
        for channel, number in enumerate(entry[1]):
            if number is None:
                continue
            if type(number) is not int or number not in places:
                what = "the number of a pixel, or null"
                fields.expect(f"chips: {chip}: channel {channel}", what, number)
            addresses.append((1, number_of_tile, chip, channel))
            found.append(places[number])
    if not found:
        fields.refuse("chips", "no channel has a pixel; take another file")
    return Layout.of(np.array(addresses), _at(0, xy[found]), source=fields.path)


def _is_address(key: Hashable) -> bool:
    return isinstance(key, str) and _ADDRESS.fullmatch(key) is not None


def _pacmon(content: _Content, fields: Fields, tiles_per_io_group: int | None) -> Layout:
    pitch = fields.length(content, "pixel_pitch") if "pixel_pitch" in content else None
    if "geometry" in content:
        pixels = fields.mapping(content, "geometry")
    else:  # as the first version of pacmon wrote them
        pixels = {key: value for key, value in content.items() if key != "pixel_pitch"}
    keys = [str(key) for key in pixels if _is_address(key)]
    if len(keys) < len(pixels):
        wrong = next(key for key in pixels if not _is_address(key))
        what = 'a key must be "io_group-tile-chip-channel"; mend it or leave it out'
        fields.refuse(wrong, what)

    def at(k: int) -> str:
        return keys[k]

    parts = "-".join(keys).split("-")
    columns = [
        fields.whole([*map(int, parts[k::4])], low, high, at)
        for k, (low, high) in enumerate(
            ((1, IO_GROUPS), (1, IO_GROUPS * TILES), (0, CHIPS - 1), (0, CHANNELS - 1))
        )
    ]
    io_group, number = columns[:2]
    if tiles_per_io_group is None:
        step = _tiles_per_io_group(io_group, number, fields)
    else:
        wanted = whole_number(tiles_per_io_group, 0)
        if wanted is None:
            msg = f"tiles_per_io_group must be a number from 0, not {tiles_per_io_group!r}"
            raise GeometryError(msg)
        step = wanted
    columns[1] = number - (io_group - 1) * step
    for k in np.flatnonzero((columns[1] < 1) | (columns[1] > TILES))[:1]:
        what = f"no tile of io_group {io_group[k]}, if each has {step}; give tiles_per_io_group"
        fields.refuse(keys[k], what)
    xy = fields.rows(list(pixels.values()), 2, at)
    z = 0 if (io_group == io_group[0]).all() else np.nan
    return Layout.of(np.stack(columns, axis=1), _at(z, xy), pitch=pitch, source=fields.path)


def _tiles_per_io_group(
    io_group: NDArray[np.int64], number: NDArray[np.int64], fields: Fields
) -> int:
    """Return by how much the numbers of tiles go on from one io_group to the next."""
    # Of n each, those of io_group g are from (g - 1) * n + 1 to g * n.
    least = int((-(-number // io_group)).max())
    others = io_group > 1
    if not others.any():
        return 0
    most = int(((number[others] - 1) // (io_group[others] - 1)).min())
    if least > most:
        return 0
    if least <= _TILES_2X2 <= most:
        return _TILES_2X2
    if least < most:
        what = f"{least} to {most} tiles may belong to each io_group; give tiles_per_io_group"
        fields.refuse("geometry", what)
    return least


def _at(z: float, xy: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.column_stack([xy, np.full(len(xy), z, np.float64)])
