"""What can be read of a range of rows, and which rows are left out, and why."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from writer.columns import MessageColumn

__all__ = [
    "BAD_REFERENCE",
    "BEYOND",
    "DAMAGED",
    "HEADERLESS",
    "HEADERS_ONLY",
    "HOLED",
    "TORN",
    "UNREADABLE_REFERENCES",
    "UNWRITTEN",
    "ZERO_REFERENCES",
    "Left",
    "Window",
    "mask_of",
    "runs_of",
]

#: Why a row is left out.
HEADERLESS = "it has no header row that can be read, so that its io_group is not known"
HEADERS_ONLY = "it has a header row, and no message"
UNREADABLE_REFERENCES = "HDF5 cannot read its piece of the list of messages"
ZERO_REFERENCES = "its piece of the list of messages is a page of zeros"
BAD_REFERENCE = "its entry in the list of messages is damaged"
DAMAGED = "its message is damaged, or was never written"
TORN = "the end of its message is damaged, or was never written"
HOLED = "a page of its message is zeros, which no PACMAN message has"
UNWRITTEN = "announced, but not there: never written, or behind the end of the file"
BEYOND = "its message would lie behind the end of the file"


class Left(NamedTuple):
    """Rows ``[start, stop)`` that are left out, and why."""

    start: int
    stop: int
    cause: str


class Window(NamedTuple):
    """What can be read of a range of rows."""

    #: (K,) i8: the rows.
    rows: NDArray[np.int64]
    #: K messages.
    messages: MessageColumn
    #: (K,), structured.
    headers: NDArray[Any]
    #: The other rows.
    left: list[Left]
    #: Rows that are kept, and have a whole page of zeros in their message.
    doubtful: list[int]


def runs_of(start: int, causes: NDArray[np.object_]) -> list[Left]:
    """Return the rows that have a cause, as ranges of the same one."""
    found: list[Left] = []
    for position in np.flatnonzero(causes != 0).tolist():
        row, cause = start + position, causes[position]
        if found and found[-1].stop == row and found[-1].cause == cause:
            found[-1] = Left(found[-1].start, row + 1, cause)
        else:
            found.append(Left(row, row + 1, cause))
    return found


def mask_of(ranges: list[Left], start: int, stop: int) -> NDArray[np.bool_]:
    """Return which of the rows ``[start, stop)`` are in any of these ranges."""
    mask = np.zeros(stop - start, bool)
    for low, high, _ in ranges:
        mask[low - start : high - start] = True
    return mask
