"""CardTime: the counter of one PACMAN card, followed through its resets.

A card's counter begins anew when a pulse each second (PPS) resets it, and when it rolls over. A
SYNC word says so, with the last value before. So there is one count after the other, and the
tick at which each began is known from those before it: to a whole second, where PPS resets.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streamer.clock.headertime import HeaderTime
from streamer.clock.phase import Phase
from streamer.clock.reading import Reading, Reason
from writer.pacman import TICKS_PER_SECOND

__all__ = ["NEAR", "CardTime", "is_cut"]

#: Ticks within which the words of a card come out of order: 10 ms.
NEAR: Final = TICKS_PER_SECOND // 100

_HALF: Final = TICKS_PER_SECOND // 2
_QUARTER: Final = TICKS_PER_SECOND // 4
_ALL_QUARTERS: Final = 0b1111
_ROLLOVER: Final = 1 << 32
# A counter that runs for longer is not reset by a PPS.
_STALE: Final = 5 * _HALF
# PPS resets at a whole second to within so many ticks, and so many for each second that it was
# missed: the card's own clock makes 1e-6 to 4e-6.
_TOLERANCE, _DRIFT = 1_000, 100


class CardTime:
    """Follows the counter of one card, word by word in the order of the file.

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
    mode : str or None
        ``"pps"`` or ``"free"``; None as long as it is not known.
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
        self.mode = None if mode == "auto" else mode
        self.origin: int | None = None
        self.is_tied = False
        self._is_open = mode == "auto"
        self._phase = phase
        self._corrections = corrections
        self._header = HeaderTime()
        # Where the present count began, and the count before.
        self._base = 0
        self._counted, self._step = -1, 0
        self._is_synced = False
        # Whether the present count began without a SYNC word.
        self._is_guessed = False
        # Its last two words and its highest. The last word of all, also of the count before.
        self._last = self._second = self._highest = -1
        self._previous: int | None = None
        # Quarters of a second in which words of the present count came, as bits.
        self._quarters = 0
        # Whether words of the count before may still come, and whether they do at present; and
        # whether that count is the first, of which the beginning is not known.
        self._is_at_reset = self._is_straggling = self._is_after_first = False

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
        # It is at 0 of the present count, whatever came just before it.
        self._is_straggling = False
        if last < self._highest - NEAR:
            self._corrections["syncs ignored"] += 1
            return
        counted = last + 1
        is_late = self._is_guessed and self._highest < NEAR
        if is_late and abs(counted - self._counted) <= NEAR:
            # The counter's drop came first, and was taken for this reset.
            self._counted, self._is_guessed, self._is_synced = counted, False, True
            return
        was_known = self._is_synced, self.mode
        self._begin_count(counted, self._time_of(counted))
        self._is_synced = True
        if was_known != (True, self.mode) and self.mode != "free":
            self._align()
        low = seconds * TICKS_PER_SECOND - self._base if seconds else None
        self._look(0, low, is_alone=True)

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
            self._classify(first)
            if not self._is_straggling:
                is_timed = timed is None or bool(timed[0])
                self._look(first, int(lows[0]) - self._base if is_timed else None)
        self._previous = int(counters[-1])
        base = self._base - self._step if self._is_straggling else self._base
        if not self._is_straggling:
            self._count(counters)
        return self._reading(), self._header.take(counters + base, lows - base, timed)

    # ------------------------------------------------------------------ the counter

    def _classify(self, first: int) -> None:
        """Find out to which count the words belong that begin here."""
        self._is_straggling = self._is_at_reset and first >= self._counted - NEAR
        last = self._last
        # One word alone may be damaged: two before the drop have to be above it.
        if self._is_straggling or min(last, self._second) - first <= _HALF:
            return
        self._corrections["resets without a sync"] += 1
        if self.mode != "free":
            seconds = max(1, -((NEAR - last) // TICKS_PER_SECOND))
            is_whole = last >= seconds * TICKS_PER_SECOND - NEAR
            self._begin_count(seconds * TICKS_PER_SECOND, seconds * TICKS_PER_SECOND)
            self._is_guessed = True
            if self.mode is None and seconds <= 2 and is_whole:
                self.mode = "pps"
            self._is_synced |= self.mode == "pps"
        elif last - first > _ROLLOVER // 2:
            self._begin_count(_ROLLOVER, _ROLLOVER)
            self._is_guessed = True
        else:
            # At least so long; nobody knows how much longer.
            self._begin_count(-1, last + 1)
            self._forget()

    def _time_of(self, counted: int) -> int:
        """Return the time that passed in a count [ticks]: whole seconds, where PPS resets."""
        seconds = round(counted / TICKS_PER_SECOND)
        tolerance = _TOLERANCE + _DRIFT * seconds
        is_whole = seconds > 0 and abs(counted - seconds * TICKS_PER_SECOND) <= tolerance
        if counted == _ROLLOVER:
            self.mode = self.mode or "free"
            return counted
        if is_whole and self._is_open and self.mode != "pps" and counted < _STALE:
            if self.mode == "free":
                self._forget()
            self.mode = "pps"
        if self.mode == "free":
            return counted
        # Also back to a whole second, after a reset that was at none.
        end = round((self._base + counted) / TICKS_PER_SECOND) * TICKS_PER_SECOND
        is_back = self._is_synced and abs(self._base + counted - end) <= tolerance
        if is_whole:
            self._corrections["syncs lost"] += seconds - 1
        elif self._is_synced and not is_back:
            self._corrections["irregular syncs"] += 1
        if is_back:
            return end - self._base
        return seconds * TICKS_PER_SECOND if is_whole else counted

    def _begin_count(self, counted: int, step: int) -> None:
        # A word near the end of a count is a straggler rather than the next one after nearly a
        # second of silence, if the card has not been silent before; of the first count nobody
        # knows, but its words are not placed.
        self._is_after_first = self.mode != "free" and not self._is_synced
        is_busy = self._is_after_first or self._quarters == _ALL_QUARTERS
        self._is_at_reset = counted > 0 and is_busy
        self._quarters = 0
        self._counted, self._step = counted, step
        self._base += step
        self._is_guessed = self._is_straggling = False
        self._last = self._second = self._highest = -1

    def _align(self) -> None:
        """Let the first count with a known beginning begin at a whole second of ticks."""
        ticks = -self._base % TICKS_PER_SECOND
        self._base += ticks
        self._header.shift(ticks)

    def _count(self, counters: NDArray[np.int64]) -> None:
        """Note where the counter is."""
        # The highest that two words in a row have reached: one alone may be damaged.
        highest = min(self._last, int(counters[0]))
        if len(counters) > 1:
            highest = max(highest, int(np.minimum(counters[1:], counters[:-1]).max()))
            self._second, self._last = int(counters[-2]), int(counters[-1])
        else:
            self._second, self._last = self._last, int(counters[0])
        self._highest = max(self._highest, highest)
        self._is_at_reset &= bool(counters.max() < NEAR)
        # There is a cut between quarters.
        self._quarters |= 1 << (int(counters[0]) // _QUARTER & 3)

    # ------------------------------------------------------------------ the Unix time

    def _look(self, counter: int, low: int | None, *, is_alone: bool = False) -> None:
        """Look at what is known, at the first word after a cut; and see `HeaderTime.look`."""
        now = self._base + counter
        verdict = self._header.look(now, low, is_alone=is_alone)
        if verdict is not None:
            self._believe(verdict.seconds)
            self._header.look(now, low)
        if self.mode is None and counter >= _STALE:
            self.mode = "free"
        if self.origin is None:
            self._find_origin()
        elif self.is_tied and self._header.low is not None and self._header.high is not None:
            self._phase.follow(self, self.origin, self._header.low, self._header.high)

    def _believe(self, seconds: int | None) -> None:
        """Believe the headers rather than the count."""
        if self.origin is None or self.mode == "free" or seconds is None:
            if self.origin is not None:
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

    def _find_origin(self) -> None:
        """Find the Unix time of tick 0, if the headers leave no doubt."""
        low, high = self._header.low, self._header.high
        if self.mode is None or (self.mode == "pps" and not self._is_synced):
            return
        if low is None or high is None:
            self.origin = None if self._header.is_there else 0
        elif self.mode == "free":
            # One is as good as any other: cards have no reset in common.
            self.origin, self._header.is_settled = (low + high) // 2, True
        elif self._header.is_sure:
            self.origin = self._phase.origin(low, high, base=self._base)
            self.is_tied = self._header.is_settled = self.origin is not None

    def _reading(self) -> Reading:
        reason = Reason.NONE
        is_before = not self._is_synced or (self._is_straggling and self._is_after_first)
        if self.mode is None or (self.mode == "pps" and is_before):
            reason = Reason.NO_SYNC
        elif self.origin is None:
            reason = Reason.NO_SECOND
        base, counted, step = self._base, self._counted, self._step
        if self._is_straggling:
            # Of the count before that one nothing is kept.
            base, counted, step = base - step, -1, 0
        return Reading(
            base,
            counted,
            step,
            self.origin or 0,
            reason,
            self.mode == "pps",
            self.is_tied,
            self._is_straggling,
        )


def is_cut(previous: Any, counter: Any) -> Any:
    """Tell whether what is known is looked at anew between two counters, or of arrays of them.

    >>> is_cut(np.array([5, 2_499_999]), np.array([9, 2_500_000])).tolist()
    [False, True]
    """
    return counter // _QUARTER != previous // _QUARTER
