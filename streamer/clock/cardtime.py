"""CardTime: the Unix time of one PACMAN card's words.

Its counter, unwrapped, gives the tick of a word, exact but from an unknown beginning (`Counter`);
headers of messages give the second (`HeaderTime`). Together they give the Unix time of tick 0,
the origin; of cards with PPS, to the tick (`Phase`).
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streamer.clock.count import QUARTER
from streamer.clock.counter import Counter, Turn
from streamer.clock.headertime import HeaderTime
from streamer.clock.known import SLACK
from streamer.clock.phase import NARROW, Phase
from streamer.clock.reading import Reading, Reason
from writer.pacman import TICKS_PER_SECOND

__all__ = ["CardTime", "is_cut"]

# By how much a free card's ticks may be off Unix time.
_FREE: Final = TICKS_PER_SECOND // 2 + SLACK


class CardTime:
    """Follows one card, word by word in the order of the file.

    Parameters
    ----------
    mode
        ``"pps"``, ``"free"``, or ``"auto"``: what the words show.
    phase
        When in a second cards are reset: shared by all cards, set by the first that knows.
    corrections
        Counts of `streamer.clock.reading.CORRECTIONS`, shared as well.

    Attributes
    ----------
    origin : int or None
        Unix ticks of tick 0 of this card; None as long as it is not known.
    is_tied : bool
        Whether its ticks can be compared with those of other cards.

    Notes
    -----
    What is known is looked at anew at a *cut*, which depends on the words alone: after a SYNC
    word, and where the counter enters another quarter of a second.

    Examples
    --------
    >>> from streamer.clock.reading import CORRECTIONS
    >>> card = CardTime("pps", Phase(), dict.fromkeys(CORRECTIONS, 0))
    >>> card.sync(9_999_999, 1_700_000_000)
    >>> for twentieth in range(20):
    ...     counters = twentieth * 500_000 + np.arange(2)
    ...     lows = 1_700_000_000 * TICKS_PER_SECOND - counters
    ...     reading, _ = card.words(counters, lows, None)
    >>> card.sync(9_999_999, 1_700_000_001)
    >>> reading, _ = card.at_sync()
    >>> (reading.origin + reading.base) / TICKS_PER_SECOND, reading.is_tied
    (1700000001.0, True)
    """

    def __init__(self, mode: str, phase: Phase, corrections: dict[str, int]) -> None:
        self.origin: int | None = None
        self.is_tied = False
        self._counter = Counter(mode, corrections)
        self._header = HeaderTime()
        self._phase = phase
        self._corrections = corrections
        # The counter at the last word; None after a SYNC word.
        self._previous: int | None = None
        # Second in the header of the last SYNC word.
        self._seconds = 0
        # What was known before the counter dropped without a SYNC word.
        self._before: tuple[int | None, bool, HeaderTime] | None = None

    @property
    def mode(self) -> str | None:
        """``"pps"`` or ``"free"``; None as long as it is not known."""
        return self._counter.mode

    @property
    def has_time(self) -> bool:
        """Whether its headers tell the Unix time, and with it its ticks."""
        return self._header.is_there

    def sync(self, last: int, seconds: int) -> None:
        """Take a SYNC word: the counter was reset, or rolled over.

        Parameters
        ----------
        last
            The last value before.
        seconds
            Of the message's header; 0 if that does not say.
        """
        self._previous = None
        is_later, self._seconds = seconds > self._seconds, seconds
        if self._counter.sync(last, is_later=is_later):
            self._go_on()
            base = self._counter.count.base
            self._look(base, seconds * TICKS_PER_SECOND - base if seconds else None, is_alone=True)

    def at_sync(self) -> tuple[Reading, bool]:
        """Return how to read the SYNC word that was taken last, and whether it is in doubt.

        It is at 0 of the present count.
        """
        return self._reading(), self._header.is_in_doubt or self._header.contradicts

    def words(
        self,
        counters: NDArray[np.int64],
        lows: NDArray[np.int64],
        timed: NDArray[np.bool_] | None,
    ) -> tuple[Reading, NDArray[np.bool_] | None]:
        """Take words between which there is no cut.

        Parameters
        ----------
        counters
            (N,) i8: the card's counter at each.
        lows
            (N,) i8: ticks of the second in the message's header, less the counter at that time.
        timed
            (N,) bool: whether the header has a second; None if all have.

        Returns
        -------
        reading : Reading
            How to read them.
        doubtful : numpy.ndarray or None
            (N,) bool: which words are in doubt, as headers contradict; None if none is.
        """
        first = int(counters[0])
        if self._previous is None or is_cut(self._previous, first):
            turn = self._counter.enter(first)
            if turn is Turn.DROP:
                self._before = self.origin, self.is_tied, deepcopy(self._header)
                self._go_on()
            elif turn is Turn.BACK:
                assert self._before is not None
                self.origin, self.is_tied, self._header = self._before
            count = self._counter.count
            if not count.is_straggling:
                is_timed = timed is None or bool(timed[0])
                self._look(count.base + first, int(lows[0]) - count.base if is_timed else None)
        self._previous = int(counters[-1])
        count = self._counter.count
        base = count.base
        if count.is_straggling:
            base -= count.step
        else:
            count.note(counters)
        doubtful = self._header.take(counters + base, lows - base, timed)
        if doubtful is None:
            doubtful = self._far_off(lows - base, timed)
        return self._reading(), doubtful

    def _go_on(self) -> None:
        """Go on with a new count."""
        if not self._counter.count.is_continuous:
            self._forget()

    def _look(self, now: int, low: int | None, *, is_alone: bool = False) -> None:
        """Look at what is known, at the first word after a cut; and see `HeaderTime.look`."""
        verdict = self._header.look(now, low, is_alone=is_alone)
        if verdict is not None:
            self._believe(verdict.seconds)
            self._header.look(now, low)
        left = self._header.left
        if not self._header.is_settled:
            self._find_origin(left)
        elif self.is_tied and self.origin is not None and left is not None:
            self._phase.follow(self, self.origin, *left)

    def _believe(self, seconds: int | None) -> None:
        """Believe the headers rather than the count."""
        if self.origin is None or self.mode == "free" or seconds is None:
            self._corrections["clocks begun anew"] += 1
            self._forget()
            return
        self.origin += seconds * TICKS_PER_SECOND
        self._header.move(seconds * TICKS_PER_SECOND)
        self._corrections["syncs lost" if seconds > 0 else "seconds set back"] += abs(seconds)

    def _forget(self) -> None:
        """Forget the relation to Unix time."""
        self.origin, self.is_tied = None, False
        self._header.forget()
        self._phase.leave(self)

    def _find_origin(self, left: tuple[int, int] | None) -> None:
        """Find the Unix time of tick 0, if the headers leave no doubt."""
        if self.mode is None or (self.mode == "pps" and not self._counter.is_synced):
            return
        if left is None:
            self.origin = None if self._header.is_there else 0
        elif self.mode == "free":
            self._find_free_origin(*left)
        elif self._header.is_sure:
            self.origin = self._phase.origin(*left, base=self._counter.count.base)
            self.is_tied = self.origin is not None
            if self.is_tied:
                self._header.settle()

    def _find_free_origin(self, low: int, high: int) -> None:
        """Find an origin at once: one is as good as any other, as cards have no reset in common.

        The first header may be damaged, as others show.
        """
        if self.origin is None:
            self.origin = (low + high) // 2
        elif self._header.is_sure and not low - _FREE <= self.origin <= high + _FREE:
            self._corrections["clocks begun anew"] += 1
            self.origin = (low + high) // 2
        if self._header.is_sure and high - low <= NARROW:
            self._header.settle()

    def _far_off(
        self, lows: NDArray[np.int64], timed: NDArray[np.bool_] | None
    ) -> NDArray[np.bool_] | None:
        """Tell which words of a card that runs free have headers that the origin contradicts."""
        if self._header.is_settled or self.mode != "free" or self.origin is None:
            return None
        far = (lows > self.origin + _FREE) | (lows < self.origin - TICKS_PER_SECOND - _FREE)
        if timed is not None:
            far &= timed
        return far if far.any() else None

    def _reading(self) -> Reading:
        count, mode = self._counter.count, self.mode
        is_before = not self._counter.is_synced or (count.is_straggling and count.is_after_first)
        if mode is None or (mode == "pps" and is_before):
            reason = Reason.NO_SYNC
        else:
            reason = Reason.NO_SECOND if self.origin is None else Reason.NONE
        base, counted, step = count.base, count.counted, count.step
        if count.is_straggling:
            # Of the count before that one nothing is kept.
            base, counted, step = base - step, -1, 0
        return Reading(
            base,
            counted,
            step,
            self.origin or 0,
            reason,
            mode == "pps",
            self.is_tied,
            count.is_straggling,
        )


def is_cut(previous: Any, counter: Any) -> Any:
    """Tell whether what is known is looked at anew between two counters, or of arrays of them.

    >>> is_cut(np.array([5, 2_499_999]), np.array([9, 2_500_000])).tolist()
    [False, True]
    """
    return counter // QUARTER != previous // QUARTER
