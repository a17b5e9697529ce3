"""HeaderTime: what the headers of a card's messages say of its clock.

The counter of a card is exact, and a message's header has the whole Unix second in which the
message was put together. A word received at the tick t of a card's clock, in a message of the
second h, leaves a range of one second for the Unix time of tick 0, the origin::

    h * P - t <= origin < (h + 1) * P - t        P: ticks of a second

Words at all phases of the second together leave little of it. First they are gathered (`Ends`),
until the origin has been taken from them. From then on (`Known`) a word whose range lies aside
of what the others have left contradicts: SYNC words were lost, and with them seconds of the
card's clock, or its Unix clock was set, or the header is damaged. All words are in doubt from
then on (`Doubt`), until one comes that goes with the others and not with the one that
contradicted. If for a second none comes, the headers are right.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamer.clock.doubt import Doubt, Verdict
from streamer.clock.ends import Ends
from streamer.clock.known import SLACK, Known, Range, range_of
from writer.pacman import TICKS_PER_SECOND

__all__ = ["HeaderTime"]


class HeaderTime:
    """What is left for the origin of a card's clock.

    Attributes
    ----------
    is_there : bool
        Whether any header had a time.
    contradicts : bool
        Whether that of the word at the last look contradicted.

    Notes
    -----
    What is known changes at a `look` only. Of the words between two of them, extremes are
    taken: so nothing depends on how many words are taken at once.

    Examples
    --------
    >>> header = HeaderTime()
    >>> for second, tick in [(1_000, 0), (1_000, 9_000_000), (1_001, 9_500_000)] * 2:
    ...     low = second * TICKS_PER_SECOND - tick
    ...     _ = header.look(tick, low)
    ...     _ = header.take(np.array([tick]), np.array([low]), None)
    >>> header.left
    (10000500000, 10001000000)
    """

    def __init__(self) -> None:
        self.is_there = self.contradicts = False
        # Until the origin has been taken from what is left, and what is left by then.
        self._ends = Ends()
        self._left: tuple[int, int] | None = None
        # From then on.
        self._known: Known | None = None
        self._doubt: Doubt | None = None
        self._has_contradicted = False
        # Tick of the last word.
        self._last: int | None = None

    @property
    def left(self) -> tuple[int, int] | None:
        """The least and the greatest origin that is left [ticks]; None if nothing is known."""
        return self._left if self._known is None else (self._known.low, self._known.high)

    @property
    def is_settled(self) -> bool:
        """Whether the origin has been taken from what was left."""
        return self._known is not None

    @property
    def is_in_doubt(self) -> bool:
        """Whether the last word was in doubt."""
        return self._doubt is not None

    @property
    def is_sure(self) -> bool:
        """Whether enough messages have been taken to take the origin from them."""
        return self._ends.is_sure

    def settle(self) -> None:
        """Go on from what is left: the origin has been taken from it."""
        assert self._left is not None
        self._known = Known(*self._left)

    def move(self, ticks: int) -> None:
        """Change the origin; nothing is in doubt any more."""
        assert self._known is not None
        self._known.move(ticks)
        self._doubt = None

    def forget(self) -> None:
        """Begin anew."""
        self._ends = Ends()
        self._left = self._known = self._doubt = None

    def look(self, now: int, low: int | None, *, is_alone: bool = False) -> Verdict | None:
        """Make the words that were taken part of what is known.

        Parameters
        ----------
        now
            Tick at which the next word was received.
        low
            Lower end of its range; None if its header has no time.
        is_alone
            Whether it has a message of its own, as a SYNC word.

        Returns
        -------
        Verdict or None
            If headers have contradicted for a second: act on it, and call `move` or `forget`.
        """
        self.contradicts = False
        self.is_there |= low is not None
        known = self._known
        if known is None:
            self._gather(low, is_alone=is_alone)
            return None
        known.update()
        is_fit = True
        if low is not None:
            own = Range(low, low)
            is_after_silence = self._last is not None and now - self._last > SLACK
            self.contradicts = not known.fits(own)
            # Its tick may be what is damaged.
            is_fit = not (self.contradicts or (is_after_silence and known.is_late(low)))
            if is_fit and self._doubt is None:
                known.add(own)
                known.update()
        if is_fit and known.follow(now, is_fast=self._has_contradicted):
            self._has_contradicted = False
        return None if self._doubt is None else self._doubt.verdict(now, known)

    def _gather(self, low: int | None, *, is_alone: bool) -> None:
        if low is not None:
            self._ends.note(np.array([low]), is_alone=is_alone)
        left = self._ends.left()
        if left is None:
            return
        if left[0] > left[1] + SLACK:
            # Seconds were lost in between, or more than one header is damaged.
            self.forget()
        else:
            self._left = min(left), left[1]

    def take(
        self, ticks: NDArray[np.int64], lows: NDArray[np.int64], timed: NDArray[np.bool_] | None
    ) -> NDArray[np.bool_] | None:
        """Take words, and tell which of them are in doubt.

        Parameters
        ----------
        ticks
            (N,) i8: when each was received.
        lows
            (N,) i8: lower ends of their ranges.
        timed
            (N,) bool: which of them have a header with a time; None if all have.

        Returns
        -------
        numpy.ndarray or None
            (N,) bool; None if no word is.
        """
        before, self._last = self._last, int(ticks[-1])
        own = lows if timed is None else lows[timed]
        if not len(own):
            return None if self._doubt is None else np.ones(len(lows), np.bool)
        self.is_there = True
        known = self._known
        if known is None:
            self._ends.note(own)
            return None
        found = range_of(own)
        if self._doubt is None and known.fits(found) and not known.is_late(found.most):
            known.add(found)
            return None
        is_after_silence = np.diff(ticks, prepend=ticks[0] if before is None else before) > SLACK
        if timed is None:
            return self._sort_out(known, ticks, lows, is_after_silence)
        # A word without a time is in doubt like the one before it.
        was = self._doubt is not None
        doubtful: NDArray[np.bool_] = np.append(
            was, self._sort_out(known, ticks[timed], own, is_after_silence[timed])
        )
        return doubtful[np.cumsum(timed)]

    def _sort_out(
        self,
        known: Known,
        ticks: NDArray[np.int64],
        lows: NDArray[np.int64],
        is_after_silence: NDArray[np.bool_],
    ) -> NDArray[np.bool_]:
        """Tell which words are in doubt, one after the other."""
        # After a silence it may be of a second later.
        is_late = (lows > known.high + SLACK) | (is_after_silence & (lows > known.high))
        contradicts = is_late | (lows < known.low - TICKS_PER_SECOND - SLACK)
        # Words that go with what is known, but not if that were a second later, or earlier.
        is_not_later = lows < known.low - SLACK
        is_not_earlier = lows > known.high - TICKS_PER_SECOND + SLACK
        doubtful = np.zeros(len(lows), np.bool)
        start = 0
        while start < len(lows):
            if self._doubt is None:
                found = np.flatnonzero(contradicts[start:])
                stop = start + int(found[0]) if len(found) else len(lows)
                if stop > start:
                    known.add(range_of(lows[start:stop]))
                if stop == len(lows):
                    break
                self._doubt = Doubt(bool(is_late[stop]), int(ticks[stop]), range_of(lows[[stop]]))
                self._has_contradicted = True
                start = stop
            doubt = self._doubt
            ends = np.flatnonzero((is_not_later if doubt.is_late else is_not_earlier)[start:])
            stop = start + int(ends[0]) if len(ends) else len(lows)
            if stop > start:
                doubtful[start:stop] = True
                doubt.add(lows[start:stop])
            if stop < len(lows):
                self._doubt = None
            start = stop
        return doubtful
