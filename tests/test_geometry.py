"""Geometry: files of pixel positions in three formats, and where the pixels of hits are."""

import gzip
import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import yaml

from streamer.errors import GeometryError, StreamError
from streamer.geometry import Geometry, Pixels, Places, tile_of
from streamer.geometry.layouts import Layout
from streamer.geometry.modules import Module
from writer.detector import LOADS, Detector

# Pixels of two tiles that face each other, 4 mm apart; chip 12 is not on the second one.
MULTI_TILE = """
multitile_layout_version: 2.4.16
pixel_pitch: 4.0
chip_channel_to_position:
  11000: [0, 1]
  11001: [1, 1]
  12000: [0, 0]
  12063: [1, 0]
tile_chip_to_io:
  1: {11: 1001, 12: 1004}
  2: {11: 2006}
tile_positions:
  1: [-100, 50, -20.5]
  2: [100.0, 50, 20]
tile_orientations:
  1: [1, -1, 1]
  2: [-1, 1, -1]
"""
# io_group, io_channel, chip, channel: x, y, z by hand.
MULTI_TILE_PIXELS = {
    (1, 1, 11, 0): (-22.5, 48, -100),
    (1, 1, 11, 1): (-18.5, 48, -100),
    (1, 1, 12, 0): (-22.5, 52, -100),
    (1, 1, 12, 63): (-18.5, 52, -100),
    (2, 5, 11, 0): (22, 52, 100),
    (2, 5, 11, 1): (18, 52, 100),
}
TPC_CENTRES = """
tile_indeces: {1: [1, 1], 2: [2, 1]}
tpc_centers: {1: [0, 0, 0], 2: [1, -218, 3]}
"""
SINGLE_TILE = """
chips:
- - 11
  - [7, null, 0]
- - 12
  - [null, 3]
pixels:
- [0, -2.5, 1.25, [3], [3]]
- [3, 2, -4, [0], []]
- [7, 5, 6, [], []]
width: 31.0
"""
SINGLE_TILE_PIXELS = {
    (1, 1, 11, 0): (5, 6, 0),
    (1, 1, 11, 2): (-2.5, 1.25, 0),
    (1, 1, 12, 1): (2, -4, 0),
}
PACMON = """
{"geometry": {"1-1-11-0": [-1.5, 2], "1-8-110-63": [3, 4], "2-9-11-0": [5, 6.25]},
 "pixel_pitch": 4.434}
"""
PACMON_PIXELS = {
    (1, 1, 11, 0): (-1.5, 2, np.nan),
    (1, 29, 110, 63): (3, 4, np.nan),
    (2, 1, 11, 0): (5, 6.25, np.nan),
}
FORMATS = {
    "multi-tile": (MULTI_TILE, MULTI_TILE_PIXELS),
    "single tile": (SINGLE_TILE, SINGLE_TILE_PIXELS),
    "pacmon": (PACMON, PACMON_PIXELS),
}


@pytest.fixture
def written(tmp_path: Path):
    """Write a text under a name that says nothing of its format, and return its path."""
    paths = (tmp_path / f"geometry_{k}" for k in range(100))

    def write(text: str | bytes) -> Path:
        path = next(paths)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def at(geometry: Geometry, *hits: tuple[int, int, int, int]) -> Places:
    return geometry.places(*np.array(hits).T)


def n_places(one: Places | Pixels) -> int:
    """Return at how many different places they are."""
    return sum(len(np.unique((one.x + 1j * one.y)[one.z == z])) for z in np.unique(one.z))


def positions(places: Places) -> np.ndarray:
    return np.stack([places.x, places.y, places.z], axis=1)


# ------------------------------------------------------------------------- the formats


@pytest.mark.parametrize(("text", "pixels"), FORMATS.values(), ids=FORMATS)
def test_positions_are_those_of_the_file(text: str, pixels: dict, written):
    """Each format, known by its content, gives the positions calculated by hand, and no more."""
    geometry = Geometry.load(written(text))
    places = at(geometry, *pixels)
    assert places.mapped.all()
    np.testing.assert_array_equal(positions(places), np.array([*pixels.values()], "f4"))
    assert geometry.n_pixels == len(pixels)
    assert geometry.unmapped == 0


@pytest.mark.parametrize(("text", "pixels"), FORMATS.values(), ids=FORMATS)
def test_pixels_that_the_file_has_not_are_not_mapped(text: str, pixels: dict, written):
    """Of many addresses around them, none but those of the file is mapped."""
    geometry = Geometry.load(written(text))
    hits = [*product(range(4), range(40), (0, 10, 11, 12, 110, 255), (0, 1, 2, 62, 63))]
    places = at(geometry, *hits)
    expected = {(group, int(tile_of(io)), chip, ch) for group, io, chip, ch in pixels}
    found = [(hit[0], int(tile_of(hit[1])), *hit[2:]) in expected for hit in hits]
    np.testing.assert_array_equal(places.mapped, found)


@pytest.mark.parametrize("indices", ["{1: [1, 1], 2: [2, 1]}", "{1: [9, 1, 1], 2: [9, 2, 1]}"])
def test_centre_of_the_tpc_is_added(indices: str, written):
    """Where the file has centres of TPCs, as (x, y, z), its tiles say to which they belong."""
    centres = f"tile_indeces: {indices}\ntpc_centers: {{1: [0, 0, 0], 2: [1, -218, 3]}}"
    places = at(Geometry.load(written(MULTI_TILE + centres)), (1, 1, 11, 0), (2, 5, 11, 0))
    assert positions(places).tolist() == [[-22.5, 48, -100], [23, -166, 103]]


def test_direction_of_the_drift_is_that_of_the_tile(written):
    """What a tile collects comes from where it looks; formats without tiles say nothing."""
    assert Geometry.load(written(MULTI_TILE)).pixels().drift.tolist() == [1, 1, 1, 1, -1, -1]
    assert Geometry.load(written(PACMON)).pixels().drift.tolist() == [0, 0, 0]


def test_tile_that_a_layout_is_can_be_named(written):
    """A layout of a single tile is tile 1 of io_group 1, or what one says."""
    path = written(SINGLE_TILE)
    geometry = Geometry.load({4: path}, tile=8)
    assert at(geometry, (5, 29, 11, 0), (5, 1, 11, 0)).mapped.tolist() == [True, False]


def test_pacmon_map_without_its_frame(written):
    """The first version of pacmon wrote pitch and pixels side by side."""
    geometry = Geometry.load(written('{"1-2-11-5": [1, 2], "pixel_pitch": 3.8}'))
    assert geometry.pitches == {1: 3.8}
    assert positions(at(geometry, (1, 8, 11, 5))).tolist() == [[1, 2, 0]]


@pytest.mark.parametrize(
    ("tiles", "expected"),
    [
        (["1-1", "1-8", "2-9", "2-16"], [(1, 1), (1, 8), (2, 1), (2, 8)]),
        (["1-1", "2-9"], [(1, 1), (2, 1)]),  # 5 to 8 would do: a part of 2x2
        (["1-1", "1-10", "2-11", "4-40"], [(1, 1), (1, 10), (2, 1), (4, 10)]),
        (["1-1", "2-2", "16-16"], [(1, 1), (2, 1), (16, 1)]),
        (["1-1", "1-9", "2-1", "2-4"], [(1, 1), (1, 9), (2, 1), (2, 4)]),
        (["1-1", "1-30"], [(1, 1), (1, 30)]),
    ],
    ids=["2x2", "part of 2x2", "ten each", "one each", "not counted through", "one io_group"],
)
def test_tiles_of_a_pacmon_map_are_counted_through(tiles: list, expected: list, written):
    """Its numbers of tiles go on from one io_group to the next, by as much as is found."""
    content = {f"{tile}-11-0": [k, 0] for k, tile in enumerate(tiles)}
    pixels = Geometry.load(written(json.dumps(content))).pixels()
    assert [*zip(pixels.io_group.tolist(), pixels.tile.tolist(), strict=True)] == expected


def test_tiles_of_a_pacmon_map_are_not_guessed(written):
    """Where several numbers of tiles would do, one has to say it."""
    path = written('{"1-1-11-0": [0, 0], "2-30-11-0": [1, 0]}')
    with pytest.raises(GeometryError, match=r"15 to 29 tiles .* give tiles_per_io_group"):
        Geometry.load(path)
    for tiles, tile in ((20, 10), (0, 30)):
        assert Geometry.load(path, tiles_per_io_group=tiles).pixels().tile.tolist() == [1, tile]
    with pytest.raises(GeometryError, match="2-30-11-0: no tile of io_group 2, if each has 30"):
        Geometry.load(path, tiles_per_io_group=30)


def test_plane_of_several_io_groups_is_not_known_from_a_map(written):
    """A map has no z: one plane is z = 0, of several nobody knows where they are."""
    one, several = written('{"2-1-11-0": [1, 2]}'), written(PACMON)
    assert Geometry.load(one, tiles_per_io_group=0).bounds[2].tolist() == [0, 0]
    assert np.isnan(Geometry.load(several).bounds[2]).all()
    assert at(Geometry.load(several), (1, 1, 11, 0)).mapped.all()


# --------------------------------------------------------------------------- matching


def test_four_io_channels_are_a_tile():
    """From 1: whatever the type of integers, also where one less than 0 would be 255."""
    io_channels = np.array([0, 1, 4, 5, 32, 33, 253, 255])
    for dtype in ("u1", "i2", "u4", "i8", "u8", ">u2"):
        assert tile_of(io_channels.astype(dtype)).tolist() == [0, 1, 1, 2, 8, 9, 64, 64]
    assert tile_of(5) == 2


def test_all_io_channels_of_a_tile_show_its_pixels(written):
    """A network may pass packets on to any of the four; other tiles' are others."""
    geometry = Geometry.load(written(MULTI_TILE))
    places = at(geometry, *((1, io_channel, 11, 1) for io_channel in range(8)))
    assert places.mapped.tolist() == [False, True, True, True, True, False, False, False]
    assert {*places.x[1:5].tolist()} == {-18.5}


def test_unmapped_hits_are_nowhere_and_counted(written):
    """They are not at (0, 0), where a pixel could be, and their number grows."""
    geometry = Geometry.load(written(MULTI_TILE))
    for n in (1, 2):
        places = at(geometry, (1, 1, 11, 0), (1, 1, 13, 0), (9, 1, 11, 0), (1, 1, 11, 2))
        assert places.mapped.tolist() == [True, False, False, False]
        assert np.isnan(positions(places)[1:]).all()
        assert places.pixel.tolist() == [0, -1, -1, -1]
        assert geometry.unmapped == 3 * n
    geometry.unmapped = 0
    at(geometry, (1, 1, 11, 0))
    assert geometry.unmapped == 0


def has_pixel(pixels: dict, hit: tuple) -> bool:
    """Say by the definition whether a hit has one of the pixels."""

    def tile(address: tuple) -> tuple:
        return (address[0], (address[1] - 1) // 4, *address[2:])

    return tile(hit) in {*map(tile, pixels)}


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", ">i4", ">u8"])
def test_columns_of_any_integers(dtype: str, written):
    """All give the same places, and what is no address has none, whatever it would wrap to."""
    limits = np.iinfo(dtype)
    odd = {0, 64, 128, 255, 256, 257, 1 << 32, (1 << 40) + 1, 1 << 63, -1, -256}
    odd |= {limits.min, limits.max}
    hits = [*MULTI_TILE_PIXELS]
    for column, value in product(range(4), odd):
        if limits.min <= value <= limits.max:
            hits.append((*hits[0][:column], value, *hits[0][column + 1 :]))
    columns = [np.array(column, dtype) for column in zip(*hits, strict=True)]
    places = Geometry.load(written(MULTI_TILE)).places(*columns)
    assert places.mapped.tolist() == [has_pixel(MULTI_TILE_PIXELS, hit) for hit in hits]
    np.testing.assert_array_equal(positions(places)[0], MULTI_TILE_PIXELS[1, 1, 11, 0])


def test_columns_of_different_integers_and_strides(written):
    """As they are in a structured array of packets."""
    hits = np.zeros(6, "u1,u2,i8,u1")
    hits[:] = [*MULTI_TILE_PIXELS]
    places = Geometry.load(written(MULTI_TILE)).places(*(hits[name] for name in hits.dtype.names))
    np.testing.assert_array_equal(positions(places), np.array([*MULTI_TILE_PIXELS.values()], "f4"))


def test_no_hits_have_no_places(written):
    """Also not as lists, which are of floats to numpy if they are empty."""
    places = Geometry.load(written(MULTI_TILE)).places([], [], [], [])
    assert len(places) == len(places.x) == len(places.mapped) == 0
    assert [places.x.dtype, places.mapped.dtype, places.pixel.dtype] == ["f4", "?", "i8"]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (([1], [1], [11.0], [0]), "chip_id must be a column of integers, not float64"),
        (([True], [1], [11], [0]), "io_group must be a column of integers, not bool"),
        (([1], [[1]], [11], [0]), r"io_channel must be .* of shape \(1, 1\)"),
        (([1], [1], [11], 0), r"channel_id must be .* of shape \(\)"),
        (([1, 1], [1], [11], [0]), r"one length, not \[2, 1, 1, 1\]"),
    ],
)
def test_what_is_no_columns_of_hits_is_refused(columns: tuple, said: str, written):
    """Nothing is stretched, and nothing rounded."""
    with pytest.raises(GeometryError, match=said):
        Geometry.load(written(MULTI_TILE)).places(*columns)


def test_many_hits_are_as_each_of_them():
    """A million random addresses, in and around a geometry of many parts, against a search."""
    rng = np.random.default_rng(1)
    address = np.unique(rng.integers((1, 1, 0, 0), (4, 9, 256, 64), (20_000, 4)), axis=0)
    layout = Layout.of(rng.permutation(address), np.ones((len(address), 3)))
    offsets = [(0, 0, 0), (1000, 0, 0), (0, -2000, 0.5)]
    modules = [Module(layout, 3 * k, offset) for k, offset in enumerate(offsets)]
    columns = rng.integers((0, 0, 0, 0), (12, 48, 256, 70), (1_000_000, 4)).T
    places = Geometry(modules).places(*columns)

    io_group, io_channel, chip, channel = columns
    module, local = np.divmod(io_group - 1, 3)
    wanted = np.ravel_multi_index(
        (local + 1, (io_channel + 3) // 4, chip, channel), (99,) * 2 + (256, 99)
    )
    there = np.ravel_multi_index(tuple(address.T), (99, 99, 256, 99))
    k = np.minimum(np.searchsorted(there, wanted), len(there) - 1)
    mapped = (there[k] == wanted) & (module >= 0) & (module < 3)
    assert 10_000 < mapped.sum() < 900_000
    np.testing.assert_array_equal(places.mapped, mapped)
    np.testing.assert_array_equal(places.pixel, np.where(mapped, k + module * len(address), -1))
    expected = 1 + np.array([*offsets, [np.nan] * 3], "f4")[np.where(mapped, module, 3)]
    np.testing.assert_array_equal(positions(places), expected)


# ---------------------------------------------------------------------------- modules


def test_one_file_serves_all_modules_of_2x2(written):
    """Odd io_groups are the first of the file, even ones the second, in each module."""
    geometry = Geometry.load(written(MULTI_TILE), modules=4)
    assert geometry.io_groups == (1, 2, 3, 4, 5, 6, 7, 8)
    assert geometry.n_pixels == 4 * 6
    for module in range(4):
        hits = [(group + 2 * module, *rest) for group, *rest in MULTI_TILE_PIXELS]
        expected = np.array([*MULTI_TILE_PIXELS.values()], "f4")
        np.testing.assert_array_equal(positions(at(geometry, *hits)), expected)
    assert not at(geometry, (9, 1, 11, 0)).mapped


@pytest.mark.parametrize("offsets", [[(0, 0, 0), (670, -1.5, 3)], {1: (670, -1.5, 3)}])
def test_modules_stand_where_their_offsets_say(offsets: object, written):
    """An offset in mm is added to x, y and z of all that a module has."""
    geometry = Geometry.load(written(MULTI_TILE), modules=2, offsets=offsets)
    places = at(geometry, (1, 1, 11, 0), (3, 1, 11, 0), (4, 5, 11, 1))
    assert positions(places).tolist() == [[-22.5, 48, -100], [647.5, 46.5, -97], [688, 50.5, 103]]
    assert geometry.bounds.tolist() == [[-22.5, 692], [46.5, 52], [-100, 103]]


def test_modules_may_be_built_differently(written):
    """A list has a file for each, in order; a dict by their numbers, from 0."""
    coarse, fine = written(MULTI_TILE), written(MULTI_TILE.replace("4.0", "2.0"))
    geometry = Geometry.load([coarse, fine, coarse])
    hits = [(group, 1, 11, 0) for group in (1, 3, 5)]
    assert at(geometry, *hits).x.tolist() == [-22.5, -21.5, -22.5]
    assert geometry.pitches == {1: 4, 2: 4, 3: 2, 4: 2, 5: 4, 6: 4}
    assert geometry.sources == (coarse, fine)

    geometry = Geometry.load({2: coarse, 1: fine})
    assert geometry.io_groups == (3, 4, 5, 6)
    assert at(geometry, *hits).mapped.tolist() == [False, True, True]


def test_io_groups_of_a_module_can_be_named(written):
    """A file may not have all of them: here only the first of two."""
    path = written('{"1-1-11-0": [1, 2]}')
    assert Geometry.load(path, modules=3).io_groups == (1, 2, 3)
    assert Geometry.load(path, modules=3, io_groups_per_module=2).io_groups == (1, 3, 5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"path": [], "modules": None}, "no geometry file is given"),
        ({"path": {}}, "no geometry file is given"),
        ({"path": ["a", 3]}, "got 1: 3"),
        ({"path": {-1: "a"}}, "got -1: 'a'"),
        ({"path": {"0": "a"}}, "got '0': 'a'"),
        ({"path": ["a", "a"], "modules": 2}, "omit it if each has its own"),
        ({"path": {True: "a"}}, "got True: 'a'"),
        ({"modules": True}, "modules must be a whole number of at least 1, not True"),
        ({"io_groups_per_module": True}, "must be a number from 1, not True"),
        ({"offsets": {False: (0, 0, 0)}}, "an offset for module False, but the modules"),
        ({"modules": 0}, "modules must be a whole number of at least 1, not 0"),
        ({"modules": "4"}, "modules must be a whole number of at least 1, not '4'"),
        ({"modules": 128}, "module 127, with 2 io_groups each, is beyond io_group 255"),
        ({"io_groups_per_module": 1}, "has io_group 2, but io_groups_per_module is 1"),
        ({"io_groups_per_module": -2}, "must be a number from 1, not -2"),
        ({"modules": 3, "offsets": [(0, 0, 0)]}, "1 offsets for 3 modules"),
        ({"modules": 2, "offsets": {2: (0, 0, 0)}}, r"module 2, but the modules are \[0, 1\]"),
        ({"offsets": [(0, 0)]}, "offset of module 0 must be x, y, z in mm"),
        ({"offsets": [(0, 0, "here")]}, "offset of module 0 must be x, y, z in mm"),
        ({"offsets": [(0, 0, float("inf"))]}, "offset of module 0 must be x, y, z in mm"),
        ({"tile": 2}, "tile does not apply to a multi-tile layout; omit it"),
        ({"tiles_per_io_group": 8}, "tiles_per_io_group does not apply to a multi-tile layout"),
    ],
)
def test_modules_that_cannot_be_are_refused(arguments: dict, said: str, written):
    """The error says what does not go together."""
    with pytest.raises(GeometryError, match=said):
        Geometry.load(**{"path": written(MULTI_TILE)} | arguments)


def test_modules_are_counted_by_numbers_of_numpy_too(written):
    """As they come out of a column, also of one byte."""
    one, four, two = np.uint8(1), np.uint8(4), np.int64(2)
    path = written(MULTI_TILE)
    places = Geometry.load(path, modules=four, offsets={one: (1, 2, 3)}, io_groups_per_module=two)
    assert places.io_groups == tuple(range(1, 9))
    assert Geometry.load({one: path}, io_groups_per_module=np.uint8(200)).io_groups == (201, 202)
    assert Geometry.load(written(SINGLE_TILE), tile=np.uint8(8)).pixels().tile[0] == 8
    for number in (True, 1.0, 65):
        with pytest.raises(GeometryError, match=f"a tile is a number from 1 to 64, not {number}"):
            Geometry.load(written(SINGLE_TILE), tile=number)
    with pytest.raises(
        GeometryError, match=r"tiles_per_io_group must be a number from 0, not 8\.5"
    ):
        Geometry.load(written(PACMON), tiles_per_io_group=8.5)


def test_files_of_different_modules_need_their_number_of_io_groups(written):
    """One file with two io_groups and one with one do not say which the next module begins at."""
    paths = [written(MULTI_TILE), written(SINGLE_TILE)]
    with pytest.raises(GeometryError, match=r"different numbers .*geometry_0: 2, .*geometry_1: 1"):
        Geometry.load(paths)
    assert Geometry.load(paths, io_groups_per_module=2).io_groups == (1, 2, 3)


# ---------------------------------------------------------------- for displays, and grids


def test_pixels_are_all_there_in_order(written):
    """The export has each pixel once, by its address, with its number and its position."""
    geometry = Geometry.load(written(MULTI_TILE), modules=2, offsets=[(0, 0, 0), (0.1, 0, 0)])
    pixels = geometry.pixels()
    assert len(pixels) == geometry.n_pixels == 12
    assert pixels.pixel.tolist() == [*range(12)]
    rows = [*zip(pixels.io_group, pixels.tile, pixels.chip_id, pixels.channel_id, strict=True)]
    assert rows == sorted(rows)
    assert rows[3:6] == [(1, 1, 12, 63), (2, 2, 11, 0), (2, 2, 11, 1)]
    places = geometry.places(
        pixels.io_group, 4 * pixels.tile - 1, pixels.chip_id, pixels.channel_id
    )
    np.testing.assert_array_equal(places.pixel, pixels.pixel)
    np.testing.assert_array_equal(places.x, pixels.x)
    np.testing.assert_array_equal(places.y, pixels.y)
    np.testing.assert_array_equal(places.z, pixels.z)


def test_pixels_of_some_io_groups(written):
    """They keep their numbers; of what has none there are none."""
    geometry = Geometry.load(written(MULTI_TILE), modules=4)
    assert geometry.pixels([5, 200, 2, 2]).pixel.tolist() == [4, 5, 12, 13, 14, 15]
    assert len(geometry.pixels([])) == 0


def test_pixels_too_many_to_be_held_are_refused():
    """A grid of all addresses has 267 million; one has to say which to see."""
    grid = Geometry.grid()
    with pytest.raises(GeometryError, match="267,386,880 pixels would take 9 GB; name the io_gr"):
        grid.pixels()
    assert len(grid.pixels([255])) == 64 * 256 * 64


def test_repr_tells_the_files(written):
    """And how much is in them."""
    geometry = Geometry.load(written(MULTI_TILE), modules=3)
    assert repr(geometry) == "<Geometry of 18 pixels in 6 io_groups: geometry_0>"


def test_grid_has_a_place_of_its_own_for_each_address():
    """No two are at the same, and all are whole pitches apart."""
    grid = Geometry.grid(io_groups=20, tiles=3, chips=range(9, 32), pitch=2.5)
    pixels = grid.pixels()
    assert len(pixels) == grid.n_pixels == 20 * 3 * 23 * 64
    assert n_places(pixels) == len(pixels)
    cells = np.stack([pixels.x, pixels.y], axis=1) / 2.5
    np.testing.assert_array_equal(cells, np.round(cells))
    assert (pixels.z == 0).all()


def test_grid_has_a_place_for_all_that_a_packet_can_name():
    """Random ones of all addresses: always the same places, no two at one."""
    shape = (255, 64, 256, 64)
    chosen = np.random.default_rng(1).choice(np.prod(shape), 100_000, replace=False)
    io_group, tile, chip, channel = np.unravel_index(chosen, shape)
    address = np.stack([io_group + 1, 4 * tile + 3, chip, channel], axis=1)
    grid = Geometry.grid()
    places = grid.places(*address.T)
    assert places.mapped.all()
    assert n_places(places) == len(address)
    again = Geometry.grid().places(*address.T)
    np.testing.assert_array_equal(positions(again), positions(places))
    assert at(grid, (0, 1, 11, 0), (1, 0, 11, 0)).mapped.tolist() == [False, False]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"io_groups": 0}, "io_groups must be a number from 1 to 255, not 0"),
        ({"io_groups": 256}, "io_groups must be"),
        ({"tiles": True}, "tiles must be a number from 1 to 64, not True"),
        ({"tiles": 65}, "tiles must be a number from 1 to 64, not 65"),
        ({"chips": range(11, 257)}, "chips must be a range of chip ids from 0 to 255"),
        ({"chips": range(5, 5)}, "chips must be"),
        ({"pitch": 0}, "pitch must be a length in mm, not 0"),
        ({"pitch": float("nan")}, "pitch must be"),
    ],
)
def test_grid_that_cannot_be_is_refused(arguments: dict, said: str):
    """The error says what can be."""
    with pytest.raises(GeometryError, match=said):
        Geometry.grid(**arguments)


def test_grid_takes_numbers_of_numpy():
    """As they come out of a column."""
    grid = Geometry.grid(io_groups=np.uint8(2), tiles=np.int64(1), chips=range(np.uint8(3), 5))
    assert grid.n_pixels == 2 * 2 * 64


def test_grid_has_the_channels_of_the_simulated_detector():
    """Its hot channels are all mapped in a grid of the size of 2x2."""
    grid = Geometry.grid(io_groups=8, tiles=8, chips=range(11, 111))
    hot = Detector(LOADS["2x2"], seed=1).hot_channels
    assert grid.places(*hot.T).mapped.all()


def test_tables_of_140_io_groups_are_small():
    """35 modules of ND-LAr, 14 million pixels, share the tables of one."""
    shape = (4, 10, 160, 64)
    address = np.indices(shape).reshape(4, -1).T + np.array([1, 1, 10, 0])
    layout = Layout.of(address, np.random.default_rng(1).random((len(address), 3)))
    geometry = Geometry([Module(layout, 4 * k, (670.0 * k, 0, 0)) for k in range(35)])
    assert geometry.n_pixels == 35 * 409_600
    assert geometry.io_groups == tuple(range(1, 141))
    arrays = [*vars(geometry._table).values(), *geometry._table._xyz]
    assert sum(array.nbytes for array in arrays if isinstance(array, np.ndarray)) < 10e6
    places = at(geometry, (1, 1, 10, 0), (140, 40, 169, 63))
    assert places.pixel.tolist() == [0, geometry.n_pixels - 1]


def test_modules_do_not_share_io_groups():
    """Nobody could say which of them a hit is from."""
    layout = Layout.of([[1, 1, 11, 0], [2, 1, 11, 0]], np.zeros((2, 3)))
    with pytest.raises(GeometryError, match="io_group 2 is beyond 255, or modules share it"):
        Geometry([Module(layout), Module(layout, 1)])


# -------------------------------------------------------------------------- bad files

BAD = {
    "empty": ("", "empty; give a geometry file"),
    "blank": (" \n\n", "empty"),
    "comment": ("# nothing", "holds nothing, not keys with values"),
    "binary": (b"\x93\xff\x00", r"not a text in UTF-8 \(byte 0\)"),
    "Latin-1": (f"# Bänke{MULTI_TILE}".encode("latin-1"), r"not a text in UTF-8 \(byte 3\)"),
    "gzip": (gzip.compress(MULTI_TILE.encode()), "compressed with gzip, unpack it first"),
    "control characters": (b"a: \x01", "not YAML: .*control characters"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file; give a geometry file"),
    "list": ("[1, 2]", "holds a list, not keys"),
    "text": ("not a geometry", "holds a str, not keys"),
    "cut YAML": (MULTI_TILE[:120] + "[", "not YAML: .*line 7, column 12"),
    "cut JSON": (PACMON[:60], "not JSON: .*line"),
    "other keys": ("a: 1\nb: 2", "its keys: a, b. Give a multi-tile layout"),
    "other keys, JSON": ('{"a": {"1-1-11-0": [0, 0]}}', "its keys: a"),
    "date": ("a: 2001-99-99", "not YAML: month"),
    "code": ("a: !!python/object/apply:os.getpid []", "not YAML: could not determine"),
    "documents": ("a: 1\n---\nb: 2", "not YAML: but found another document"),
    "key twice, JSON": ('{"1-1-11-0": [0, 0], "1-1-11-0": [1, 0]}', "'1-1-11-0' is there twice"),
    "long key twice": (
        f'{{"{"a" * 999}": 0, "{"a" * 999}": 1}}',
        r"'aaa.*\.\.\.a*' is there twice",
    ),
    "long other keys": (f"{'a' * 999}: 1", r"its keys: a* \.\.\."),
    "other keys of lines": ('"a\\nb": 1', "its keys: a b"),
    "key twice, YAML": (MULTI_TILE.replace("12063", "12000"), "key 12000 is there twice"),
}


@pytest.mark.parametrize(("text", "said"), BAD.values(), ids=BAD)
def test_file_that_is_no_geometry_is_refused(text: str | bytes, said: str, written):
    """The error names the file and says what is wrong with it."""
    path = written(text)
    with pytest.raises(GeometryError, match=said) as caught:
        Geometry.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(path))


def changed(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new, 1)


WRONG = [
    (MULTI_TILE, "pixel_pitch: 4.0", "", "pixel_pitch: this key is missing"),
    (
        MULTI_TILE,
        "pixel_pitch: 4.0",
        "pixel_pitch: 4 mm",
        "pixel_pitch: .* length in mm, not '4 mm'",
    ),
    (
        MULTI_TILE,
        "pixel_pitch: 4.0",
        "pixel_pitch: -1",
        "pixel_pitch: must be a length in mm, not -1",
    ),
    (MULTI_TILE, "pixel_pitch: 4.0", "pixel_pitch: .inf", "pixel_pitch: must be a length"),
    (MULTI_TILE, "tile_positions", "tile_place", "tile_positions: this key is missing"),
    (MULTI_TILE, "tile_orientations", "turned", "tile_orientations: this key is missing"),
    (MULTI_TILE, "tile_chip_to_io", "tile_chip", "tile_chip_to_io: this key is missing"),
    (MULTI_TILE, "chip_channel_to_position", "cells", "chip_channel_to_position: this key is mis"),
    (MULTI_TILE, "  2: [-1, 1, -1]", "", "tile_orientations: 2: this key is missing"),
    (MULTI_TILE, "  2: [100.0, 50, 20]", "", "tile_positions: 2: this key is missing"),
    (MULTI_TILE, "[-1, 1, -1]", "[-1, 1, 0]", r"tile_orientations: 2: .* not \[-1, 1, 0\]"),
    (MULTI_TILE, "[100.0, 50, 20]", "[100.0, 50]", "tile_positions: 2: must be a list of 3 num"),
    (MULTI_TILE, "[100.0, 50, 20]", "[100.0, .nan, 0]", "tile_positions: 2: must be"),
    (MULTI_TILE, "[100.0, 50, 20]", "[1e300, 50, 0]", "tile_positions: 2: must be"),
    (MULTI_TILE, "[100.0, 50, 20]", "[&a [*a], 50, 0]", "tile_positions: 2: must be"),
    (MULTI_TILE, "11001: [1, 1]", "11001: [1, 1, 1]", "chip_channel_to_position: 11001: must be"),
    (MULTI_TILE, "11001: [1, 1]", "11001: 5", "chip_channel_to_position: 11001: .*, not 5"),
    (MULTI_TILE, "11001: [1, 1]", "11001: [1, true]", "chip_channel_to_position: 11001: must be"),
    (MULTI_TILE, "11001: [1, 1]", "11064: [1, 1]", "_position: 11064: channel 64, but a chip has"),
    (MULTI_TILE, "11001: [1, 1]", "256001: [1, 1]", "_position: 256001: .*whole number from 0"),
    (MULTI_TILE, "11001: [1, 1]", "a: [1, 1]", "_position: a: must be a whole number from 0"),
    (MULTI_TILE, "{11: 2006}", "{11: 2000}", "tile_chip_to_io: 2: 11: .*io_channel from 1 to 255"),
    (MULTI_TILE, "{11: 2006}", "{11: 2256}", "tile_chip_to_io: 2: 11: .*io_channel from 1 to 255"),
    (MULTI_TILE, "{11: 2006}", "{11: 256001}", "tile_chip_to_io: 2: 11: must be a whole number"),
    (MULTI_TILE, "{11: 2006}", "{11: 1.5}", "tile_chip_to_io: 2: 11: must be a whole number"),
    (MULTI_TILE, "{11: 2006}", "{256: 2006}", "tile_chip_to_io: 2: 256: .*255, not 256"),
    (
        MULTI_TILE,
        "{11: 2006}",
        f"{{{'1' * 999}: 2006}}",
        r"tile_chip_to_io: 2: 1* \.\.\.: must be",
    ),
    (MULTI_TILE, "{11: 2006}", "[2006]", "tile_chip_to_io: 2: must be keys with values"),
    (
        MULTI_TILE,
        "{11: 2006}",
        "{11: 1001}",
        "two pixels for channel 0 of chip 11 on tile 1 of io",
    ),
    (MULTI_TILE + TPC_CENTRES, "tile_indeces", "indices", "tile_indeces: this key is missing"),
    (MULTI_TILE + TPC_CENTRES, "2: [2, 1]", "3: [2, 1]", "tile_indeces: 2: this key is missing"),
    (MULTI_TILE + TPC_CENTRES, "2: [2, 1]", "2: [2]", "tile_indeces: 2: must be 2 or 3 whole"),
    (
        MULTI_TILE + TPC_CENTRES,
        "2: [2, 1]",
        "2: [x, 1]",
        "tile_indeces: 2: must be a whole number",
    ),
    (MULTI_TILE + TPC_CENTRES, "2: [2, 1]", "2: [7, 1]", "tpc_centers: 7: this key is missing"),
    (SINGLE_TILE, "chips", "chip", "chips: this key is missing"),
    (SINGLE_TILE, "pixels", "pixel", "pixels: this key is missing"),
    (SINGLE_TILE, "[7, null, 0]", "7", "chips: entry 0: must be a list of a chip id and a list"),
    (SINGLE_TILE, "- - 11", "- - eleven", "chips: entry 0: must be a whole number from 0 to 255"),
    (
        SINGLE_TILE,
        "- - 12\n  - [null, 3]",
        "- - 11\n  - [3]",
        "two pixels for channel 0 of chip 11",
    ),
    (SINGLE_TILE, "[null, 3]", "[null, 4]", "chips: 12: channel 1: must be the number of a pixel"),
    (SINGLE_TILE, "[null, 3]", f"[{'null, ' * 64} 3]", "chips: 12: 65 channels, but a chip has"),
    (
        SINGLE_TILE,
        "[3, 2, -4, [0], []]",
        "[3, 2]",
        "pixels: entry 1: must be a list of a number, x",
    ),
    (
        SINGLE_TILE,
        "[3, 2, -4, [0], []]",
        "[3, 2, x]",
        "pixels: entry 1: must be a list of 2 numbers",
    ),
    (SINGLE_TILE, "[3, 2, -4, [0], []]", "[7, 2, 0]", "pixels: two have the number 7"),
    (SINGLE_TILE, "[3, 2, -4, [0], []]", "[a, 2, 0]", "pixels: entry 1: must be a whole number"),
    (PACMON, '"1-8-110-63"', '"1-8-110"', '1-8-110: a key must be "io_group-tile-chip-channel"'),
    (PACMON, '"1-8-110-63"', '"1-8\\n-1"', '1-8 -1: a key must be "io_group-tile-chip-channel"'),
    (PACMON, '"1-8-110-63"', '"1-8-110-64"', "1-8-110-64: must be a whole number from 0 to 63"),
    (PACMON, '"1-8-110-63"', '"1-8-256-63"', "1-8-256-63: must be a whole number from 0 to 255"),
    (PACMON, '"1-8-110-63"', '"0-8-110-63"', "0-8-110-63: must be a whole number from 1 to 255"),
    (
        PACMON,
        '"1-8-110-63"',
        '"1-01-11-0"',
        "two pixels for channel 0 of chip 11 on tile 1 of io_",
    ),
    (PACMON, "[3, 4]", "[3]", "1-8-110-63: must be a list of 2 numbers"),
    (PACMON, "[3, 4]", "[3, NaN]", "1-8-110-63: must be a list of 2 numbers"),
    (PACMON, "[3, 4]", "[3, 1" + "0" * 400 + "]", "1-8-110-63: must be a list of 2 numbers"),
    (PACMON, "[3, 4]", '"3, 4"', "1-8-110-63: must be a list of 2 numbers, not '3, 4'"),
    (PACMON, "4.434", "null", "pixel_pitch: must be a length in mm, not None"),
    (PACMON, PACMON, '{"geometry": {}}', "geometry: must be keys with values"),
]


@pytest.mark.parametrize(("text", "old", "new", "said"), WRONG)
def test_value_that_cannot_be_is_refused(text: str, old: str, new: str, said: str, written):
    """The error names the file and the key, and says what is expected."""
    path = written(changed(text, old, new))
    with pytest.raises(GeometryError, match=said) as caught:
        Geometry.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(path))


def test_chip_that_nothing_reads_is_not_mapped(written):
    """A tile of which no chip is left has no pixels, which is an error only if none has any."""
    text = changed(MULTI_TILE, "{11: 1001, 12: 1004}", "{99: 1001}")
    assert Geometry.load(written(text)).n_pixels == 2
    with pytest.raises(GeometryError, match="no pixels"):
        Geometry.load(written(changed(text, "{11: 2006}", "{99: 2006}")))
    none = changed(changed(SINGLE_TILE, "[7, null, 0]", "[null]"), "[null, 3]", "[null]")
    with pytest.raises(GeometryError, match="chips: no channel has a pixel"):
        Geometry.load(written(none))


def test_what_is_no_file_is_refused(tmp_path: Path):
    """A folder, a device, nothing: the error says so, and nothing waits."""
    with pytest.raises(GeometryError, match="a folder; give a geometry file"):
        Geometry.load(tmp_path)
    with pytest.raises(GeometryError, match="/dev/zero: no ordinary file"):
        Geometry.load("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(GeometryError, match="pipe: no ordinary file"):
        Geometry.load(tmp_path / "pipe")
    with pytest.raises(GeometryError, match=r"absent.yaml: .* cannot be read: No such file"):
        Geometry.load(tmp_path / "absent.yaml")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(GeometryError, match="1,073,741,824 bytes are too many"):
        Geometry.load(tmp_path / "huge")


def test_errors_are_of_the_tree():
    """One can catch them with all errors of reading, or as wrong values."""
    assert issubclass(GeometryError, StreamError)
    assert issubclass(GeometryError, ValueError)


def in_another_process(code: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_deep_nesting_does_not_end_the_process(written):
    """libyaml's composer, left to itself, would overflow the stack of the process."""
    code = """
import sys
from streamer.geometry import Geometry
for path in sys.argv[1:]:
    try:
        Geometry.load(path)
    except ValueError as error:
        print(error)
"""
    texts = ["a: " + "[" * 300_000, "- " * 300_000, "? " * 300_000, '{"a": ' * 300_000]
    said = in_another_process(code, *map(written, texts)).splitlines()
    assert [line.rpartition(": ")[2].partition(";")[0] for line in said] == 4 * [
        "nested too deeply"
    ]


def test_aliases_do_not_multiply(written):
    """A few lines of YAML that stand for billions of values are refused as they are read."""
    lines = ["a0: &a0 [1, 2]", *(f"a{k}: &a{k} [{f'*a{k - 1}, ' * 10}]" for k in range(1, 12))]
    text = changed(MULTI_TILE, "[1, 1]", "[*a11, *a11]")
    with pytest.raises(GeometryError, match="11001: must be a list of 2 numbers"):
        Geometry.load(written("\n".join(lines) + text))


def test_values_may_be_given_once_for_many_keys(written):
    """PyYAML writes a list that is there twice as an anchor and an alias."""
    text = changed(MULTI_TILE, "1: [-100, 50, -20.5]", "1: &id001 [-100, 50, -20.5]")
    text = changed(text, "2: [100.0, 50, 20]", "2: *id001")
    assert at(Geometry.load(written(text)), (2, 5, 11, 0)).x == [-18.5]


def test_pyyaml_without_libyaml_reads_the_same(written):
    """Slower: where PyYAML was built without the library in C."""
    code = """
import sys
sys.modules["yaml._yaml"] = None
import yaml
from streamer.geometry import Geometry
assert not hasattr(yaml, "CSafeLoader")
pixels = Geometry.load(sys.argv[1]).pixels()
print([*zip(pixels.x.tolist(), pixels.y.tolist(), pixels.z.tolist())])
try:
    Geometry.load(sys.argv[2])
except ValueError as error:
    print(error)
"""
    said = in_another_process(code, written(MULTI_TILE), written("a: " + "[" * 100)).splitlines()
    assert said[0] == str([tuple(map(float, xyz)) for xyz in MULTI_TILE_PIXELS.values()])
    assert "nested too deeply" in said[1]


# ------------------------------------------------------------------------- real files

REAL = Path(__file__).parents[2] / "shared" / "data" / "geometry"
COUNTS = {
    "multi_tile_layout-2.0.16.yaml": (78_400, 16, 1, 4.434),
    "multi_tile_layout-2.3.16.yaml": (77_665, 2, 8, 4.434),  # 15 chips are out of the network
    "multi_tile_layout-2.4.16.yaml": (78_400, 2, 8, 4.434),
    "multi_tile_layout-2.5.16.yaml": (102_400, 2, 8, 3.87975),
    "multi_tile_layout-3.0.40.yaml": (409_600, 4, 10, 3.8),
    "layout-2.4.0.yaml": (4_900, 1, 1, None),
    "geometry_singlecube.json": (4_900, 1, 1, 4.4),
}


def real(name: str) -> Path:
    path = REAL / name
    if not path.exists():
        pytest.skip(f"the real file {name} is not beside the project, in ../shared/data/geometry")
    return path


@pytest.mark.parametrize("name", COUNTS)
def test_real_files_have_their_pixels(name: str):
    """As many as they should, no two at one place, neighbours a pitch apart."""
    geometry = Geometry.load(real(name))
    pixels = geometry.pixels()
    n, io_groups, tiles, pitch = COUNTS[name]
    assert (geometry.n_pixels, len(geometry.io_groups), pixels.tile.max()) == (n, io_groups, tiles)
    assert {*geometry.pitches.values()} == ({pitch} if pitch else set())
    assert n_places(pixels) == n
    nearest = np.diff(np.unique(pixels.x[(pixels.io_group == 1) & (pixels.tile == 1)]))
    np.testing.assert_allclose(nearest, 4.434 if pitch in (None, 4.4) else pitch, atol=1e-3)


def test_real_map_and_layout_of_one_tile_agree():
    """pacmon's map was made of the layout of larpix-geometry."""
    layout = Geometry.load(real("layout-2.4.0.yaml")).pixels()
    map_ = Geometry.load(real("geometry_singlecube.json")).pixels()
    for name in ("chip_id", "channel_id", "x", "y", "z"):
        np.testing.assert_array_equal(getattr(layout, name), getattr(map_, name))


def tiles_by_definition(path: Path):
    """Yield io_group, tile, chip, channel and x, y, z of each pixel, one by one."""
    content = yaml.load(path.read_text(), yaml.CSafeLoader)
    pitch, cells = content["pixel_pitch"], content["chip_channel_to_position"]
    columns, rows = ({cell[k] for cell in cells.values()} for k in range(2))
    for tile, chips in content["tile_chip_to_io"].items():
        z, y, x = content["tile_positions"][tile]
        _, turned_y, turned_x = content["tile_orientations"][tile]
        if "tpc_centers" in content:
            dx, dy, dz = content["tpc_centers"][content["tile_indeces"][tile][-2]]
            x, y, z = x + dx, y + dy, z + dz
        for chip, channel, (column, row) in (
            (*divmod(k, 1000), cell) for k, cell in cells.items()
        ):
            if chip in chips:
                io_group, io_channel = divmod(chips[chip], 1000)
                yield (
                    *(io_group, (io_channel - 1) // 4 + 1, chip, channel),
                    x + turned_x * pitch * (column - max(columns) / 2),
                    y + turned_y * pitch * (row - max(rows) / 2),
                    z,
                )


@pytest.mark.parametrize("name", [name for name in COUNTS if name.startswith("multi_tile")])
def test_real_positions_are_those_of_the_definition(name: str):
    """Of every pixel: column and row times pitch, from the tile's centre, turned, and moved."""
    path = real(name)
    expected = np.array([*tiles_by_definition(path)])
    assert len(expected) == COUNTS[name][0]
    io_group, tile, chip, channel = expected[:, :4].astype(int).T
    places = Geometry.load(path).places(io_group, 4 * tile - 2, chip, channel)
    assert places.mapped.all()
    np.testing.assert_allclose(positions(places), expected[:, 4:], atol=2e-4)


def test_real_positions_are_those_that_pacmon_has():
    """Some of its geometry_mod013.json, which was made of this file."""
    places = at(
        Geometry.load(real("multi_tile_layout-2.3.16.yaml")),
        (1, 1, 11, 0),
        (1, 4, 11, 3),
        (1, 2, 18, 3),
    )
    expected = [(-294.861, 317.031), (-308.163, 312.597), (-90.897, 312.597)]
    np.testing.assert_allclose(positions(places)[:, :2], expected, atol=1e-3)
    assert {*places.z.tolist()} == {np.float32(-304.31)}


def test_real_files_make_2x2_as_it_was_built():
    """Three modules with tiles of 4,900 pixels and one with 6,400: 337,600 in all."""
    most, module_2 = real("multi_tile_layout-2.4.16.yaml"), real("multi_tile_layout-2.5.16.yaml")
    geometry = Geometry.load([most, most, module_2, most])
    assert geometry.n_pixels == 337_600
    assert geometry.io_groups == tuple(range(1, 9))
    assert len(geometry.pixels([5, 6])) == 102_400
    assert {group for group, pitch in geometry.pitches.items() if pitch < 4} == {5, 6}
