"""What one step of following gives: values, and no reading."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from streamer.batch import Batch, Gap
from writer.pacman import HEADER

__all__ = ["Facts", "Place", "Step", "header_seconds"]


class Facts(NamedTuple):
    """What a step found out about the file."""

    #: Rows that both datasets announce.
    announced: int
    created: float
    run_id: str | None
    path: Path
    #: Unix seconds in the PACMAN header of the newest row; None if it has not been looked up.
    newest_seconds: int | None
    #: Of a folder, as of a :class:`Position`.
    newest: float | None = None
    passed_over: tuple[str, ...] = ()


class Place(NamedTuple):
    """Where a step goes on."""

    #: Index of the file among those that are followed one after the other, from 0.
    file: int
    #: The row in it; None as long as it has not been found.
    row: int | None


class Step(NamedTuple):
    """What a step gives."""

    #: The place to go on from.
    place: Place
    #: The rows that were read, without those that are filtered out; None if there were none.
    batch: Batch | None = None
    #: How many rows were read, those that are filtered out included.
    read: int = 0
    #: Why no more rows will come: `finished`, `end` or `row`; None if they may.
    outcome: str | None = None
    #: Why there were none, if something is not as it should be.
    trouble: str | None = None
    facts: Facts | None = None
    #: What is missing here, if anything is.
    gap: Gap | None = None


def header_seconds(data: bytes) -> int | None:
    """Return the Unix seconds in the header of a PACMAN message, if it has any.

    Examples
    --------
    >>> header_seconds(b"D" + (1_700_000_000).to_bytes(4, "little") + bytes(3))
    1700000000
    """
    if len(data) < HEADER.itemsize:
        return None
    return int(np.frombuffer(data, HEADER, count=1)["seconds"][0]) or None
