"""Values of a geometry file as numbers; an error names the file, the key and what is expected."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from streamer.errors import GeometryError

__all__ = ["Fields", "shown"]

# Far beyond any detector, in mm, and far below what f4 can hold.
_LONGEST: Final = 1e9


def shown(key: object) -> str:
    """Return a key for an error, in one short line: in a bad file it can be any text.

    Examples
    --------
    >>> shown("tile_positions:  1 "), len(shown("1-1-11-0" * 1000))
    ('tile_positions: 1', 80)
    """
    text = " ".join(str(key).split())
    return text if len(text) <= 80 else f"{text[:76]} ..."


class Fields:
    """Takes values out of what a file holds, and says what is wrong with them.

    Parameters
    ----------
    path
        The file, for the errors.

    Examples
    --------
    >>> fields = Fields(Path("tile.yaml"))
    >>> fields.rows([[0, 1], [2, 3.5]], 2, str)
    array([[0. , 1. ],
           [2. , 3.5]])
    >>> fields.rows([[0, 1], [2]], 2, "pixels: entry {}".format)
    Traceback (most recent call last):
    streamer.errors.GeometryError: tile.yaml: pixels: entry 1: must be a list of 2 numbers, not [2]
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def refuse(self, key: object, why: str) -> NoReturn:
        """Raise an error that names the file and the key."""
        msg = f"{self.path}: {shown(key)}: {why}"
        raise GeometryError(msg)

    def expect(self, key: object, what: str, value: object) -> NoReturn:
        """Raise an error that says what the value of a key must be."""
        # Shortened, because with YAML a value can be endless: it may contain itself.
        self.refuse(key, f"must be {what}, not {reprlib.repr(value)}")

    def value(self, content: Mapping[Hashable, Any], key: Hashable, within: str = "") -> Any:
        """Return the value of a key that has to be there."""
        if key not in content:
            what = "this key is missing; take a whole copy of the file, or add it"
            self.refuse(f"{within}: {key}" if within else key, what)
        return content[key]

    def mapping(
        self, content: Mapping[Hashable, Any], key: Hashable, within: str = ""
    ) -> dict[Hashable, Any]:
        """Return a value that has to be keys with values."""
        found = self.value(content, key, within)
        if type(found) is not dict or not found:
            self.expect(f"{within}: {key}" if within else key, "keys with values", found)
        return found

    def listed(self, content: Mapping[Hashable, Any], key: Hashable) -> list[Any]:
        """Return a value that has to be a list."""
        found = self.value(content, key)
        if type(found) is not list or not found:
            self.expect(key, "a list with entries", found)
        return found

    def length(self, content: Mapping[Hashable, Any], key: Hashable) -> float:
        """Return a value that has to be a length."""
        found = self.value(content, key)
        if type(found) not in (int, float) or not 0 < found <= _LONGEST:
            self.expect(key, "a length in mm", found)
        return float(found)

    def vector(
        self, content: Mapping[Hashable, Any], key: Hashable, within: str
    ) -> NDArray[np.float64]:
        """Return (3,) f8: a value that has to be a list of three numbers."""
        found = self.value(content, key, within)
        return self.rows([found], 3, lambda _: f"{within}: {key}").ravel()

    def whole(
        self, values: Sequence[Any], low: int, high: int, key: Callable[[int], str]
    ) -> NDArray[np.int64]:
        """Return (N,) i8: N whole numbers within bounds; ``key`` names one by its index."""

        def right(values: Sequence[Any]) -> bool:
            return {*map(type, values)} <= {int} and low <= min(values) <= max(values) <= high

        if len(values) and not right(values):
            wrong = next(k for k, value in enumerate(values) if not right([value]))
            what = f"a whole number from {low} to {high}"
            self.expect(key(wrong), what, values[wrong])
        return np.array(values, np.int64)

    def rows(
        self, values: Sequence[Any], width: int, key: Callable[[int], str]
    ) -> NDArray[np.float64]:
        """Return (N, width) f8: N lists of numbers; ``key`` names one by its index."""
        found = _rows(values, width)
        if found is None:
            wrong = next(k for k, value in enumerate(values) if _rows([value], width) is None)
            self.expect(key(wrong), f"a list of {width} numbers", values[wrong])
        return found


def _rows(values: Sequence[Any], width: int) -> NDArray[np.float64] | None:
    if not ({*map(type, values)} <= {list} and {*map(len, values)} <= {width}):
        return None
    flat = list(chain.from_iterable(values))
    # By type, because numpy takes a bool for a number, and a list for another dimension.
    if not {*map(type, flat)} <= {int, float}:
        return None
    try:
        found = np.array(flat, np.float64).reshape(-1, width)
    except OverflowError:  # a whole number that no float can hold
        return None
    return found if (np.abs(found) <= _LONGEST).all() else None
