"""Ranges that words leave for the origin of a card's clock, and those that are in doubt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Doubt", "Range", "range_of"]


@dataclass
class Range:
    """The least and the greatest of the lower ends of some words' ranges, in ticks.

    >>> both = Range(2, 3)
    >>> both.join(Range(1, 2))
    >>> both
    Range(least=1, most=3)
    """

    least: int
    most: int

    def join(self, other: Range) -> None:
        """Become the range of both."""
        self.least, self.most = min(self.least, other.least), max(self.most, other.most)


@dataclass
class Doubt:
    """Words in doubt: those that contradict, and what goes with them."""

    #: Whether their headers are late, and not early.
    is_late: bool
    #: Tick of the first that contradicted.
    since: int
    range: Range
    #: Messages that they are of: their words have the same range.
    count: int = 0
    last: int | None = None

    def add(self, lows: NDArray[np.int64]) -> None:
        """Add lower ends of the ranges of words."""
        self.count += int(np.count_nonzero(lows[1:] != lows[:-1])) + (int(lows[0]) != self.last)
        self.last = int(lows[-1])
        self.range.join(range_of(lows))


def range_of(lows: NDArray[np.int64]) -> Range:
    """Return the range of lower ends, (N,) i8, of which there is at least one."""
    if len(lows) == 1:
        low = int(lows[0])
        return Range(low, low)
    return Range(int(lows.min()), int(lows.max()))
