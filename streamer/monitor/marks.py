"""What is compared: hits, external triggers, and what is known of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Found", "Held", "Hits", "Marks", "State"]


class Hits(NamedTuple):
    """Data packets with valid parity, in the order of the stream.

    Each is of one of L sorts: of an io_group, in a span of time.
    """

    #: (H,) i8: which of the packets each is.
    places: NDArray[np.int64]
    #: (H,) i8: the sort of each.
    which: NDArray[np.int64]
    #: (H,) i8: the chip's counter.
    ticks: NDArray[np.int64]
    #: (H,) integers
    adc: NDArray[np.integer]
    #: i8, () or (H,): all bits of that counter.
    mask: NDArray[np.int64]
    #: (L,) u1: the io_group of each sort.
    io_groups: NDArray[np.uint8]
    #: (L,) i8: the span of time of each sort.
    keys: NDArray[np.int64]

    def part(self, start: int, stop: int) -> Hits:
        """Return the hits from one to before another."""
        if stop - start == len(self.places):
            return self
        some = slice(start, stop)
        return self._replace(
            places=self.places[some],
            which=self.which[some],
            ticks=self.ticks[some],
            adc=self.adc[some],
            mask=self.mask if self.mask.ndim == 0 else self.mask[some],
        )


class Marks(NamedTuple):
    """External triggers, in the order of the stream."""

    #: (T,) i8: which of the packets each is.
    places: NDArray[np.int64]
    #: (T,) u1
    io_groups: NDArray[np.uint8]
    #: (T,) i8
    ticks: NDArray[np.int64]

    def part(self, start: int, stop: int) -> Marks:
        """Return the triggers from one to before another."""
        some = slice(start, stop)
        return Marks(self.places[some], self.io_groups[some], self.ticks[some])


class Held(NamedTuple):
    """Hits from before any trigger that they could be compared with, in order, K of them."""

    #: (K,) u1
    io_groups: NDArray[np.uint8]
    #: (K,) i8: their spans of time.
    keys: NDArray[np.int64]
    #: (K,) i8: the chip's counter, and all bits of it.
    ticks: NDArray[np.int64]
    masks: NDArray[np.int64]
    #: (K,) u2
    adc: NDArray[np.uint16]

    def taken(self, chosen: NDArray[np.bool_]) -> Held:
        """Return some of them."""
        return Held(
            self.io_groups[chosen],
            self.keys[chosen],
            self.ticks[chosen],
            self.masks[chosen],
            self.adc[chosen],
        )


class State(NamedTuple):
    """What is to be known of the stream until now, by io_group, each of (256,)."""

    #: i8: the io_group whose triggers its hits are compared with; -1: none.
    source: NDArray[np.int64]
    #: bool: whether it had an external trigger itself, and i8: when the last one was.
    fired: NDArray[np.bool_]
    ticks: NDArray[np.int64]
    #: i8: its hits since the trigger that they are compared with, or all; up to the reach.
    since: NDArray[np.int64]


class Found(NamedTuple):
    """Hits that are near a trigger, N of them."""

    #: (N,) i8: which hits.
    hits: NDArray[np.int64]
    #: (N,) i8: the bin of each.
    bins: NDArray[np.int64]
