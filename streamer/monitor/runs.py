"""Runs of packets with the same message, and the io_group and second that they count for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.packets.decoded import UNKNOWN_ASIC
from streamer.packets.words import TIMESTAMP

if TYPE_CHECKING:
    from streamer.packets.decoded import Decoded

__all__ = ["Runs", "Sorts"]

# Bytes of a word of the older wire, and how much shorter its header is.
_LEGACY_WORD, _SHORTER = 16, 8


class Runs(NamedTuple):
    """N runs: packets of one message each, all of them if they were not chosen by somebody."""

    #: (N,) i8: how many packets each has.
    counts: NDArray[np.int64]
    #: (N,) i8: the packet after its last one.
    stops: NDArray[np.int64]
    #: (N,) bool: whether a run begins with the message's header.
    is_whole: NDArray[np.bool_]
    #: (N,) u1
    io_groups: NDArray[np.uint8]
    #: (N,) i8: rows in the file.
    rows: NDArray[np.int64]
    #: (N,) i8: Unix seconds of the header; 0 if that does not say.
    seconds: NDArray[np.int64]
    #: (N,) u1: code of the chips.
    asics: NDArray[np.uint8]
    #: (N,) i8: bytes of header and words.
    sizes: NDArray[np.int64]

    @classmethod
    def of(cls, decoded: Decoded) -> Runs:
        """Return the runs of packets."""
        others, counts = decoded.words.others, decoded.counts
        stops = np.cumsum(counts)
        is_whole = np.ones(len(counts), np.bool_)
        headers = others.places[others.type == TIMESTAMP]
        if len(headers) < len(counts):
            is_header = np.zeros(len(decoded.words.packets) + 1, np.bool_)
            is_header[headers] = True
            is_whole = is_header[stops - counts] & (counts > 0)
        sizes = counts * decoded.widths
        sizes -= _SHORTER * (is_whole & (decoded.widths == _LEGACY_WORD))
        runs = cls(
            counts,
            stops,
            is_whole,
            decoded.io_groups,
            decoded.rows,
            decoded.seconds,
            # If nobody said, there are no packets of chips.
            np.minimum(decoded.asics, UNKNOWN_ASIC - 1),
            sizes,
        )
        return runs if is_whole.all() else runs._joined()

    def _joined(self) -> Runs:
        """Join packets that were chosen one by one with those of the same row before them."""
        begins = self.is_whole.copy()
        begins[:1] = True
        begins[1:] |= self.rows[1:] != self.rows[:-1]
        starts = np.flatnonzero(begins)
        counts = np.add.reduceat(self.counts, starts)
        return Runs(
            counts,
            np.cumsum(counts),
            self.is_whole[starts],
            self.io_groups[starts],
            self.rows[starts],
            self.seconds[starts],
            self.asics[starts],
            np.add.reduceat(self.sizes, starts),
        )

    def at(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return which run packets are of, by their places, both of (K,)."""
        return np.searchsorted(self.stops, places, "right")


class Sorts(NamedTuple):
    """Packets by io_group and second: L sorts, in the order of these."""

    #: (L,) i8: the number of the io_group.
    numbers: NDArray[np.int64]
    #: (L,) i8: Unix seconds, `streamer.monitor.recent.NO_KEY` if not known.
    seconds: NDArray[np.int64]
    #: (N,) i8: the sort of each run.
    of_runs: NDArray[np.int64]

    @classmethod
    def of(cls, numbers: NDArray[np.int64], seconds: NDArray[np.int64]) -> Sorts:
        """Find the distinct pairs of a number, small and at least 0, and a second.

        Examples
        --------
        >>> sorts = Sorts.of(np.array([1, 0, 1]), np.array([7, 7, 7]))
        >>> [column.tolist() for column in sorts]
        [[0, 1], [7, 7], [1, 0, 1]]
        """
        if not len(numbers):
            none = np.empty(0, np.int64)
            return cls(none, none, none)
        lowest = int(seconds.min())
        span = int(seconds.max()) - lowest + 1
        size = (int(numbers.max()) + 1) * span
        codes = numbers * span + (seconds - lowest)
        if size > 4 * len(codes) + 4096:
            found, of_runs = np.unique(codes, return_inverse=True)
        else:  # nearly always: a few seconds of a few io_groups, and no need to sort
            seen = np.zeros(size, np.bool_)
            seen[codes] = True
            found = np.flatnonzero(seen)
            places = np.empty(size, np.int64)
            places[found] = np.arange(len(found))
            of_runs = places[codes]
        return cls(found // span, found % span + lowest, of_runs)
