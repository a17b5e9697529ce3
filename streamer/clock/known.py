"""Known: what headers have left for the origin of a card's clock, and what goes with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from writer.pacman import TICKS_PER_SECOND

__all__ = ["SLACK", "Known", "Range", "range_of"]

#: By how many ticks a header may be early or late: 0.1 s.
SLACK: Final = TICKS_PER_SECOND // 10

# A Unix clock that is being corrected gains or loses up to 1 ms a second. One that was set by
# less than a second contradicts in part of each, and is followed faster.
_SLEW, _FAST_SLEW = 1_000, 50


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


def range_of(lows: NDArray[np.int64]) -> Range:
    """Return the range of lower ends, (N,) i8, of which there is at least one."""
    if len(lows) == 1:
        low = int(lows[0])
        return Range(low, low)
    return Range(int(lows.min()), int(lows.max()))


class Known:
    """What is known of an origin: it is from low to high, in ticks.

    Words are added as they come, and count from the next `update` on.

    Examples
    --------
    >>> known = Known(0, 9_000_000)
    >>> known.add(Range(-2_000_000, 500_000))
    >>> known.update()
    >>> known.low, known.high
    (500000, 8000000)
    """

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high
        # Of words since the last update.
        self._new: Range | None = None
        # Tick up to which the Unix clock was followed.
        self._followed: int | None = None

    def fits(self, found: Range) -> bool:
        """Tell whether words can be of the second that their headers say."""
        least, most = self.low - TICKS_PER_SECOND - SLACK, self.high + SLACK
        return least <= found.least and found.most <= most

    def is_late(self, low: int) -> bool:
        """Tell whether a header is later than all others of the card have been."""
        return low > self.high

    def add(self, found: Range) -> None:
        """Add words, from the next update on."""
        if self._new is None:
            self._new = found
        else:
            self._new.join(found)

    def update(self) -> None:
        """Take what was added into account."""
        if self._new is None:
            return
        self.low = max(self.low, self._new.most)
        self.high = min(self.high, self._new.least + TICKS_PER_SECOND)
        # A message may be put together late, when the card is busy, and never early.
        self.low = min(self.low, self.high)
        self._new = None

    def follow(self, now: int, *, is_fast: bool) -> bool:
        """Follow a Unix clock that does not go as the card's clock does, once a second.

        Returns
        -------
        bool
            Whether a second has passed.
        """
        if self._followed is None:
            self._followed = now
        passed = now - self._followed
        if passed < TICKS_PER_SECOND:
            return False
        slew = min(passed // (_FAST_SLEW if is_fast else _SLEW), TICKS_PER_SECOND)
        self.low -= slew
        self.high += slew
        self._followed = now
        return True

    def move(self, ticks: int) -> None:
        """Change the origin."""
        self.low += ticks
        self.high += ticks
        if self._new is not None:
            self._new = Range(self._new.least + ticks, self._new.most + ticks)
