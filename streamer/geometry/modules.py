"""Modules of a detector: which geometry file is that of which io_groups, and where it stands."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from streamer.errors import GeometryError
from streamer.geometry.files import read_layout
from streamer.geometry.layouts import IO_GROUPS, Layout
from streamer.whole import whole_number

__all__ = ["FilePath", "Module", "read_modules"]

#: The name of a file.
FilePath = str | os.PathLike[str]


class Module(NamedTuple):
    """The pixels of a layout, in one of the places where they stand."""

    layout: Layout
    #: The first io_group of the layout is the one after so many.
    io_groups_before: int = 0
    #: What is added to x, y and z [mm].
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)


def read_modules(
    path: FilePath | Sequence[FilePath] | Mapping[int, FilePath],
    *,
    modules: int | None = None,
    offsets: Sequence[Sequence[float]] | Mapping[int, Sequence[float]] | None = None,
    io_groups_per_module: int | None = None,
    tile: int | None = None,
    tiles_per_io_group: int | None = None,
) -> list[Module]:
    """Return the modules of a detector, in the order of their io_groups.

    The parameters are those of :meth:`streamer.geometry.Geometry.load`. A file that is there
    for several modules is read once.

    Raises
    ------
    GeometryError
        If a file cannot be used, or the parameters do not agree with each other or with it.

    Examples
    --------
    >>> from pathlib import Path
    >>> _ = Path("map.json").write_text('{"geometry": {"1-1-11-0": [0, 0], "2-9-11-0": [0, 0]}}')
    >>> [module.io_groups_before for module in read_modules("map.json", modules=4)]
    [0, 2, 4, 6]
    """
    paths = _paths(path, modules)
    layouts = {
        name: read_layout(name, tile=tile, tiles_per_io_group=tiles_per_io_group)
        for name in {os.fspath(name): None for name in paths.values()}
    }
    width = _width([*layouts.values()], io_groups_per_module)
    last = max(paths)
    if last * width + int(layouts[os.fspath(paths[last])].io_group[-1]) > IO_GROUPS:
        msg = (
            f"module {last}, with {width} io_groups each, is beyond io_group {IO_GROUPS}; "
            "modules are counted from 0"
        )
        raise GeometryError(msg)
    places = _offsets(offsets, [*paths])
    return [
        Module(layouts[os.fspath(name)], number * width, places[number])
        for number, name in paths.items()
    ]


def _paths(
    path: FilePath | Sequence[FilePath] | Mapping[int, FilePath], modules: int | None
) -> dict[int, FilePath]:
    """Return the file of each module, by its number from 0."""
    if isinstance(path, str | os.PathLike):
        count = 1 if modules is None else whole_number(modules, 1)
        if count is None:
            msg = f"modules must be a whole number of at least 1, not {modules!r}"
            raise GeometryError(msg)
        return dict.fromkeys(range(count), path)
    if modules is not None:
        msg = "modules is for one file that describes all of them; omit it if each has its own"
        raise GeometryError(msg)
    paths: dict[int, FilePath] = {}
    for key, name in path.items() if isinstance(path, Mapping) else enumerate(path):
        number = whole_number(key, 0)
        if number is None or not isinstance(name, str | os.PathLike):
            msg = f"each module, by its number from 0, has a file; got {key!r}: {name!r}"
            raise GeometryError(msg)
        paths[number] = name
    if not paths:
        msg = "no geometry file is given; give one, or one for each module"
        raise GeometryError(msg)
    return dict(sorted(paths.items()))


def _width(layouts: list[Layout], io_groups_per_module: int | None) -> int:
    """Return how many io_groups a module has."""
    highest = {layout: int(layout.io_group[-1]) for layout in layouts}
    if io_groups_per_module is None:
        if len({*highest.values()}) > 1:
            each = ", ".join(f"{layout.source}: {n}" for layout, n in highest.items())
            msg = (
                f"the files have different numbers of io_groups; give io_groups_per_module: {each}"
            )
            raise GeometryError(msg)
        return max(highest.values())
    width = whole_number(io_groups_per_module, 1)
    if width is None:
        msg = f"io_groups_per_module must be a number from 1, not {io_groups_per_module!r}"
        raise GeometryError(msg)
    for layout, n in highest.items():
        if n > width:
            msg = f"{layout.source}: has io_group {n}, but io_groups_per_module is {width}"
            raise GeometryError(msg)
    return width


def _offsets(
    offsets: Sequence[Sequence[float]] | Mapping[int, Sequence[float]] | None, modules: list[int]
) -> dict[int, tuple[float, float, float]]:
    """Return what is added to x, y and z in each module."""
    found = dict.fromkeys(modules, (0.0, 0.0, 0.0))
    if offsets is None:
        return found
    if isinstance(offsets, Mapping):
        given = dict(offsets)
    elif len(offsets) == len(modules):
        given = dict(zip(modules, offsets, strict=True))
    else:
        msg = f"{len(offsets)} offsets for {len(modules)} modules; give one (x, y, z) for each"
        raise GeometryError(msg)
    for key, offset in given.items():
        number = whole_number(key, 0)
        if number not in found:
            msg = f"an offset for module {key!r}, but the modules are {modules}"
            raise GeometryError(msg)
        try:
            x, y, z = map(float, offset)
        except (TypeError, ValueError):
            x = y = z = np.nan
        if not np.isfinite([x, y, z]).all():
            msg = f"the offset of module {number} must be x, y, z in mm, not {offset!r}"
            raise GeometryError(msg)
        found[number] = (x, y, z)
    return found
