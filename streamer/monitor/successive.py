"""Differences of external triggers that follow each other, of whatever io_groups."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamer.monitor.marks import Marks

__all__ = ["Successive"]


class Successive:
    """The last external trigger; and the first one, which may follow one of an earlier part.

    Examples
    --------
    >>> successive = Successive()
    >>> marks = Marks(np.array([0, 5]), np.array([1, 2], "u1"), np.array([100, 130]))
    >>> successive.follow(marks, keys=np.array([17, 17]))
    (slice(1, None, None), array([30]))
    """

    def __init__(self) -> None:
        #: Its io_group, span of time, and ticks.
        self.first: tuple[int, int, int] | None = None
        self._last_ticks: int | None = None

    def follow(self, marks: Marks, keys: NDArray[np.int64]) -> tuple[slice, NDArray[np.int64]]:
        """Go on with the stream.

        Parameters
        ----------
        marks
            At least one.
        keys
            (T,) i8: their spans of time.

        Returns
        -------
        slice
            Which of them follow another one.
        differences : NDArray
            Of each of these, ticks since the one before, i8.
        """
        ticks = marks.ticks
        some = slice(0 if self._last_ticks is not None else 1, None)
        if self._last_ticks is not None:
            ticks = np.append(self._last_ticks, ticks)
        else:
            self.first = int(marks.io_groups[0]), int(keys[0]), int(ticks[0])
        self._last_ticks = int(ticks[-1])
        return some, np.diff(ticks)

    def merge(self, other: Successive) -> int | None:
        """Go on with what another one has seen, of the part of the stream that comes next.

        Returns
        -------
        int or None
            Ticks from the last trigger here to the first one there, if there are both.
        """
        last = self._last_ticks
        if other.first is None:
            return None
        self._last_ticks = other._last_ticks
        if last is None:
            self.first = other.first
            return None
        # As numpy's whole numbers do, which are of 64 bits.
        return int(np.diff([last, other.first[2]])[0])
