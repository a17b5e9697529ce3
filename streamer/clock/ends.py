"""Ends: what many headers leave for the origin of a card's clock, if one of them is wrong."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from writer.pacman import TICKS_PER_SECOND

__all__ = ["Ends"]

# Messages that it takes: the header of one may be damaged.
_FEWEST: Final = 3


class Ends:
    """The outermost of the lower ends of messages' ranges.

    Each message leaves one second for the origin, see `streamer.clock.headertime`. Of all
    messages the one that leaves the least at either end is not believed: a single damaged
    header would move the origin for good.

    Examples
    --------
    >>> ends = Ends()
    >>> ends.note(np.array([-9_000_000, -9_000_000, -8_999_000, 0, 400, 70_000_000]))
    >>> ends.left(), ends.is_sure
    ((400, 1001000), True)
    """

    def __init__(self) -> None:
        # The two least and the two greatest.
        self._ends: NDArray[np.int64] = np.zeros(0, np.int64)
        # That of the last message.
        self._last: int | None = None

    @property
    def is_sure(self) -> bool:
        """Whether enough messages were noted."""
        return len(self._ends) >= _FEWEST

    def note(self, lows: NDArray[np.int64], *, is_alone: bool = False) -> None:
        """Note words.

        Parameters
        ----------
        lows
            (N,) i8: lower ends of their ranges, the same for all words of a message.
        is_alone
            Whether it is one word with a message of its own.
        """
        is_new = is_alone or int(lows[0]) != self._last
        heads = np.append(is_new, lows[1:] != lows[:-1])
        ends = np.sort(np.concatenate([self._ends, lows[heads]]))
        self._ends = ends if len(ends) < 4 else ends[[0, 1, -2, -1]]
        self._last = int(lows[-1])

    def left(self) -> tuple[int, int] | None:
        """Return the least and the greatest origin that is left; None if nothing was noted."""
        if not len(self._ends):
            return None
        place = int(self.is_sure)
        return int(self._ends[-1 - place]), int(self._ends[place]) + TICKS_PER_SECOND
