"""Doubt: words whose headers contradict what is known, and what to think of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.clock.known import SLACK, Known, Range, range_of
from writer.pacman import TICKS_PER_SECOND

__all__ = ["Doubt", "Verdict"]

# Messages that contradict, to be believed.
_FEWEST: Final = 3


@dataclass
class Verdict:
    """What to think of headers that have contradicted for long enough.

    >>> Verdict(2).seconds
    2
    """

    #: By how many whole seconds they are off; None if by no number of them.
    seconds: int | None


@dataclass
class Doubt:
    """Words in doubt: those that contradict, and what goes with them.

    Examples
    --------
    >>> doubt = Doubt(is_late=True, since=0, range=Range(20_000_000, 20_000_000))
    >>> doubt.add(np.array([20_000_000, 19_000_000, 15_000_000]))
    >>> doubt.verdict(10_000_000, Known(0, 0))
    Verdict(seconds=2)
    """

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

    def verdict(self, now: int, known: Known) -> Verdict | None:
        """Return what to think of them at the tick `now`; None as long as that is not clear."""
        passed = now - self.since
        if passed < TICKS_PER_SECOND or self.count < _FEWEST:
            return None
        # Shifted by so much, they go with what is known.
        first = -((known.high + SLACK - self.range.most) // TICKS_PER_SECOND)
        last = (self.range.least - known.low + SLACK) // TICKS_PER_SECOND + 1
        if first == last:
            return Verdict(first)
        return Verdict(None) if first > last and passed > 2 * TICKS_PER_SECOND else None
