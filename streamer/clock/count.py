"""Count: what the words of a card show between two resets of its counter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from writer.pacman import TICKS_PER_SECOND

__all__ = ["NEAR", "QUARTER", "Count"]

#: Ticks within which the words of a card come out of order: 10 ms.
NEAR: Final = TICKS_PER_SECOND // 100
QUARTER: Final = TICKS_PER_SECOND // 4

_ALL_QUARTERS: Final = 0b1111
# Words of a second, at least, of a card that is not silent in the next one by chance.
_BUSY: Final = 16


@dataclass
class Count:
    """One count, from a reset to the next, and what words have shown of it.

    Examples
    --------
    >>> count = Count(base=30_000_000)
    >>> count.note(np.array([5, 7, 2_000_000, 9]))
    >>> count.last, count.highest
    (9, 9)
    """

    #: Tick at which it began.
    base: int
    #: The count before: its length by the counter, -1 if that is not known; and in ticks.
    counted: int = -1
    step: int = 0
    #: Whether ticks go on from those of the count before.
    is_continuous: bool = True
    #: Whether it began without a SYNC word.
    is_guessed: bool = False
    #: Whether words of the count before may still come, and whether they do at present; and
    #: whether that count is the first, of which the beginning is not known.
    is_at_reset: bool = False
    is_straggling: bool = False
    is_after_first: bool = False
    #: Whether words came in every quarter of the last second of the count before.
    is_after_busy: bool = False
    #: Its last two words; and the highest that two in a row have reached, as one alone may be
    #: damaged. -1 before there are any.
    last: int = -1
    second: int = -1
    highest: int = -1
    #: Quarters of a second in which words came, as bits; and how many words.
    quarters: int = 0
    n_words: int = 0

    @property
    def is_busy(self) -> bool:
        """Whether a second without words, of this card, would be a surprise."""
        return self.quarters == _ALL_QUARTERS and self.n_words >= _BUSY

    @property
    def reached(self) -> int:
        """What two words in a row have just shown, as one alone may be damaged."""
        return min(self.last, self.second)

    def note(self, counters: NDArray[np.int64]) -> None:
        """Note words, (N,) i8, all of one quarter of a second."""
        highest = min(self.last, int(counters[0]))
        if len(counters) > 1:
            highest = max(highest, int(np.minimum(counters[1:], counters[:-1]).max()))
            self.second, self.last = int(counters[-2]), int(counters[-1])
        else:
            self.second, self.last = self.last, int(counters[0])
        self.highest = max(self.highest, highest)
        self.is_at_reset &= bool(counters.max() < NEAR)
        self.n_words += len(counters)
        self.quarters |= 1 << (int(counters[0]) // QUARTER & 3)
