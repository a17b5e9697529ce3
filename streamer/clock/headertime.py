"""HeaderTime: what the headers of a card's messages say of its clock.

The counter of a card is exact, and a message's header has the whole Unix second in which the
message was put together. A word received at the tick t of a card's clock, in a message of the
second h, leaves a range of one second for the Unix time of tick 0, the origin::

    h * P - t <= origin < (h + 1) * P - t        P: ticks of a second

Words at all phases of the second together leave little of it. A word whose range lies aside of
what the others have left contradicts: SYNC words were lost, and with them seconds of the card's
clock, or its Unix clock was set, or the header is damaged. All words are in doubt from then on,
until one comes that goes with the others and not with the one that contradicted. If for a
second none comes, the headers are right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.clock.doubt import Doubt, Range, range_of
from streamer.clock.ends import Ends
from writer.pacman import TICKS_PER_SECOND

__all__ = ["SLACK", "HeaderTime", "Verdict"]

#: By how many ticks a header may be early or late: 0.1 s.
SLACK: Final = TICKS_PER_SECOND // 10

# A Unix clock that is being corrected gains or loses up to 1 ms a second. One that was set by
# less than a second contradicts in part of each, and is followed faster.
_SLEW, _FAST_SLEW = 1_000, 50
# Messages that contradict, to be believed.
_FEWEST: Final = 3


@dataclass
class Verdict:
    """What to think of headers that have contradicted for long enough.

    Attributes
    ----------
    seconds : int or None
        By how many whole seconds they are off; None if by no number of them.

    Examples
    --------
    >>> Verdict(2).seconds
    2
    """

    seconds: int | None


class HeaderTime:
    """What is left for the origin of a card's clock.

    Attributes
    ----------
    low, high : int or None
        It is from low to high, in ticks; None as long as nothing is known.
    is_there : bool
        Whether any header had a time.
    is_settled : bool
        To be set when the origin has been taken from that. Until then nothing is in doubt,
        and low and high are those of `streamer.clock.ends.Ends`.
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
    >>> header.low / TICKS_PER_SECOND, header.high / TICKS_PER_SECOND
    (1000.05, 1000.1)
    """

    def __init__(self) -> None:
        self.low: int | None = None
        self.high: int | None = None
        self.is_there = self.is_settled = self.contradicts = False
        self._doubt: Doubt | None = None
        # Tick of the last word.
        self._last: int | None = None
        # Of words that are not in doubt, since the last look.
        self._new: Range | None = None
        self._has_contradicted = False
        self._slewed: int | None = None
        # Of messages, until settled.
        self._ends = Ends()

    @property
    def is_in_doubt(self) -> bool:
        """Whether the last word was in doubt."""
        return self._doubt is not None

    @property
    def is_sure(self) -> bool:
        """Whether enough messages have been taken to settle the origin."""
        return self._ends.is_sure

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
        if not self.is_settled:
            self._ends.note(own)
            return None
        found = range_of(own)
        if self._doubt is None and self._fits(found) and not self._is_late(found.most):
            self._add(found)
            return None
        silences = np.diff(ticks, prepend=ticks[0] if before is None else before)
        if timed is None:
            return self._sort_out(ticks, lows, silences > SLACK)
        # A word without a time is in doubt like the one before it.
        was = self._doubt is not None
        found_doubtful = self._sort_out(ticks[timed], own, silences[timed] > SLACK)
        doubtful: NDArray[np.bool_] = np.append(was, found_doubtful)
        return doubtful[np.cumsum(timed)]

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
        if not self.is_settled:
            if low is not None:
                self.is_there = True
                self._ends.note(np.array([low]), is_alone=is_alone)
            self._take_ends()
            return None
        if self._new is not None:
            self._merge(self._new)
            self._new = None
        if low is not None:
            self.is_there = True
            own = Range(low, low)
            is_after_silence = self._last is not None and now - self._last > SLACK
            self.contradicts = not self._fits(own)
            if self.contradicts or (is_after_silence and self._is_late(low)):
                # Its tick may be what is damaged.
                return self._verdict(now)
            if self._doubt is None:
                self._merge(own)
        self._slew(now)
        return self._verdict(now)

    def move(self, ticks: int) -> None:
        """Change the origin, or what has been taken for it; nothing is in doubt any more."""
        if self.low is not None and self.high is not None:
            self.low += ticks
            self.high += ticks
        if self._new is not None:
            self._new = Range(self._new.least + ticks, self._new.most + ticks)
        self._ends.move(ticks)
        self._doubt = None

    def shift(self, ticks: int) -> None:
        """Call all ticks so far by so much more."""
        doubt = self._doubt
        self.move(-ticks)
        if doubt is not None:
            doubt.since += ticks
            doubt.last = None
            doubt.range = Range(doubt.range.least - ticks, doubt.range.most - ticks)
        self._doubt = doubt
        if self._last is not None:
            self._last += ticks
        if self._slewed is not None:
            self._slewed += ticks

    def forget(self) -> None:
        """Begin anew."""
        self.low = self.high = self._new = self._doubt = self._slewed = None
        self._ends = Ends()
        self.is_settled = False

    def _fits(self, found: Range) -> bool:
        if self.low is None or self.high is None:
            return True
        return (
            self.low - SLACK - TICKS_PER_SECOND <= found.least and found.most <= self.high + SLACK
        )

    def _is_late(self, low: int) -> bool:
        """Tell whether a header is later than all others of the card have been."""
        return self.high is not None and low > self.high

    def _take_ends(self) -> None:
        left = self._ends.left()
        if left is None:
            return
        low, high = left
        if low > high + SLACK:
            # Seconds were lost in between, or more than one header is damaged.
            self.forget()
            return
        self.low, self.high = min(low, high), high

    def _add(self, found: Range) -> None:
        if self._new is None:
            self._new = found
        else:
            self._new.join(found)

    def _merge(self, found: Range) -> None:
        high = found.least + TICKS_PER_SECOND
        if self.low is None or self.high is None:
            self.low, self.high = found.most, high
        else:
            self.low, self.high = max(self.low, found.most), min(self.high, high)
        # A message may be put together late, when the card is busy, and never early.
        self.low = min(self.low, self.high)

    def _slew(self, now: int) -> None:
        """Follow a Unix clock that does not go as the card's clock does."""
        if self.low is None or self.high is None or self._slewed is None:
            self._slewed = now
            return
        passed = now - self._slewed
        if passed < TICKS_PER_SECOND:
            return
        slew = min(passed // (_FAST_SLEW if self._has_contradicted else _SLEW), TICKS_PER_SECOND)
        self.low -= slew
        self.high += slew
        self._slewed, self._has_contradicted = now, False

    # ------------------------------------------------------------------ doubt

    def _sort_out(
        self,
        ticks: NDArray[np.int64],
        lows: NDArray[np.int64],
        after_silence: NDArray[np.bool_],
    ) -> NDArray[np.bool_]:
        """Tell which words are in doubt, one after the other."""
        assert self.low is not None
        assert self.high is not None
        is_late = lows > self.high + SLACK
        # After a silence it may be of a second later.
        is_late |= after_silence & (lows > self.high)
        contradicts = is_late | (lows < self.low - TICKS_PER_SECOND - SLACK)
        # Words that go with what is known, but not if that were a second later, or earlier.
        is_not_later = lows < self.low - SLACK
        is_not_earlier = lows > self.high - TICKS_PER_SECOND + SLACK
        doubtful = np.zeros(len(lows), np.bool)
        start = 0
        while start < len(lows):
            if self._doubt is None:
                found = np.flatnonzero(contradicts[start:])
                stop = start + int(found[0]) if len(found) else len(lows)
                if stop > start:
                    self._add(range_of(lows[start:stop]))
                if stop == len(lows):
                    break
                since, own = int(ticks[stop]), range_of(lows[stop : stop + 1])
                self._doubt = Doubt(bool(is_late[stop]), since, own)
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

    def _verdict(self, now: int) -> Verdict | None:
        doubt = self._doubt
        if doubt is None or self.low is None or self.high is None:
            return None
        passed = now - doubt.since
        if passed < TICKS_PER_SECOND or doubt.count < _FEWEST:
            return None
        # Shifted by so much, they go with what is known.
        first = -((self.high + SLACK - doubt.range.most) // TICKS_PER_SECOND)
        last = (doubt.range.least - self.low + SLACK) // TICKS_PER_SECOND + 1
        if first == last:
            return Verdict(first)
        return Verdict(None) if first > last and passed > 2 * TICKS_PER_SECOND else None
