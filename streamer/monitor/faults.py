"""Faults by kind, and when they were: as late as the message that was read before."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from streamer.monitor.recent import NO_KEY

__all__ = ["Faults"]


class Faults:
    """What could not be decoded.

    A message with a fault may have no time. It is counted in the second of the last message
    with a time in or before its row, and without a time if there is none.

    Parameters
    ----------
    depth
        How many of the newest seconds with faults are kept.

    Attributes
    ----------
    totals : dict of str to int
        Kind to number of faults.
    seconds : dict of str to dict of int to int
        Kind to Unix second to number of faults.
    early : dict of str to int
        Kind to number of faults before any message with a time, which may be in the part of
        the stream that comes before.

    Examples
    --------
    >>> faults = Faults(depth=10)
    >>> rows, seconds = np.array([4, 5]), np.array([99, 100])
    >>> faults.count({"empty": np.array([3, 8])}, rows, seconds)
    >>> faults.totals, faults.seconds
    ({'empty': 2}, {'empty': {100: 1}})
    """

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self.totals: dict[str, int] = {}
        self.seconds: dict[str, dict[int, int]] = {}
        self.early: dict[str, int] = {}
        self._last = NO_KEY

    def count(
        self,
        faults: Mapping[str, NDArray[np.int64]],
        rows: NDArray[np.int64],
        seconds: NDArray[np.int64],
    ) -> None:
        """Go on with the stream.

        Parameters
        ----------
        faults
            Kind to rows, one for each fault.
        rows, seconds
            (M,) i8: of the messages that were decoded; seconds may be `NO_KEY`.
        """
        timed = np.flatnonzero(seconds != NO_KEY)
        if faults:
            # Rows of several files may be out of order.
            ordered = np.maximum.accumulate(rows[timed])
            known = np.append(self._last, seconds[timed])
        for kind, bad in faults.items():
            found, counts = np.unique(
                known[np.searchsorted(ordered, bad, "right")], return_counts=True
            )
            for second, count in zip(found.tolist(), counts.tolist(), strict=True):
                self._add(kind, second, count)
        if len(timed):
            self._last = int(seconds[timed[-1]])

    def _add(self, kind: str, second: int, count: int) -> None:
        self.totals[kind] = self.totals.get(kind, 0) + count
        if second == NO_KEY:
            self.early[kind] = self.early.get(kind, 0) + count
        else:
            self._place(kind, second, count)

    def _place(self, kind: str, second: int, count: int) -> None:
        found = self.seconds.setdefault(kind, {})
        found[second] = found.get(second, 0) + count
        if len(found) > self._depth:
            del found[min(found)]

    def merge(self, other: Faults) -> None:
        """Go on with what another one has seen, of the part of the stream that comes next."""
        for kind, count in other.totals.items():
            self.totals[kind] = self.totals.get(kind, 0) + count
        for kind, found in other.seconds.items():
            for second, count in found.items():
                self._place(kind, second, count)
        for kind, count in other.early.items():
            if self._last == NO_KEY:
                self.early[kind] = self.early.get(kind, 0) + count
            else:
                self._place(kind, self._last, count)
        if other._last != NO_KEY:
            self._last = other._last
