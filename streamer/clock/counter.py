"""Counter: the counter of one PACMAN card, unwrapped through its resets.

A card's counter begins anew when a pulse each second (PPS) resets it, and when it rolls over. A
SYNC word says so, with the last value before. So there is one count after the other, and the
tick at which each began is known from those before it: to a whole second, where PPS resets.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from streamer.clock.count import NEAR, Count
from writer.pacman import TICKS_PER_SECOND

__all__ = ["Counter", "Turn"]

_HALF: Final = TICKS_PER_SECOND // 2
_ROLLOVER: Final = 1 << 32
# A counter that runs for longer is not reset by a PPS.
_STALE: Final = 5 * _HALF
# PPS resets at a whole second to within so many ticks, and so many for each second that it was
# missed: the card's own clock makes 1e-6 to 4e-6.
_TOLERANCE, _DRIFT = 1_000, 100


class Turn(Enum):
    """What words show that begin in another quarter of a second."""

    #: The count goes on.
    ON = 0
    #: The counter dropped without a SYNC word: a new count began.
    DROP = 1
    #: It did not: what had seemed so was one damaged word.
    BACK = 2


@dataclass
class _Before:
    """What was known before the counter dropped."""

    count: Count
    mode: str | None
    is_synced: bool
    pulse: int | None


class Counter:
    """Follows the counter of one card through its resets.

    Parameters
    ----------
    mode
        ``"pps"``, ``"free"``, or ``"auto"``: what the words show.
    corrections
        Counts of `streamer.clock.reading.CORRECTIONS`.

    Attributes
    ----------
    mode : str or None
        ``"pps"`` or ``"free"``; None as long as it is not known.
    count : Count
        The present one.
    is_synced : bool
        Whether a reset has been seen, so that it is known when the present count began.
    pulse : int or None
        Tick of a pulse, from which all others are whole seconds away; None before the first.

    Examples
    --------
    >>> import numpy as np
    >>> from streamer.clock.reading import CORRECTIONS
    >>> counter = Counter("pps", dict.fromkeys(CORRECTIONS, 0))
    >>> counter.sync(9_999_998), counter.count.base
    (True, 10000000)
    >>> counter.enter(300), counter.count.note(np.array([300, 9_900_000, 9_900_001]))
    (<Turn.ON: 0>, None)
    >>> counter.enter(200), counter.count.base
    (<Turn.DROP: 1>, 20000000)
    """

    def __init__(self, mode: str, corrections: dict[str, int]) -> None:
        self.mode = None if mode == "auto" else mode
        self.count = Count(base=0)
        self.pulse: int | None = None
        self._is_open = mode == "auto"
        self.is_synced = False
        self._corrections = corrections
        # If the present count began with a drop of which there is one word so far.
        self._dropped: _Before | None = None

    def sync(self, last: int, *, is_later: bool = True) -> bool:
        """Take a SYNC word.

        Parameters
        ----------
        last
            The last value before the reset.
        is_later
            Whether its header is of a later second than that of the SYNC word before.

        Returns
        -------
        bool
            Whether a new count began.
        """
        count, counted = self.count, last + 1
        # It is at 0 of the present count, whatever came just before it.
        count.is_straggling = False
        if last < count.highest - NEAR:
            self._corrections["syncs ignored"] += 1
            return False
        if max(count.highest, -1 if count.is_guessed else count.last) < NEAR and (
            abs(counted - count.counted) <= NEAR
        ):
            if count.is_guessed:
                # The counter's drop came first, and was taken for this reset.
                count.counted, count.is_guessed, self.is_synced = counted, False, True
                return False
            if count.is_after_busy and not is_later:
                # The same once more: a busy card has not been silent for a second.
                self._corrections["syncs ignored"] += 1
                return False
        was_synced, was_mode = self.is_synced, self.mode
        self._begin(counted, self._time_of(counted))
        self.is_synced = True
        if not (was_synced and was_mode == self.mode) and self.mode != "free":
            self.pulse = self.count.base
        self.count.is_continuous = not (was_mode == "free" and self.mode == "pps")
        return True

    def enter(self, first: int) -> Turn:
        """Find out to which count words belong that begin in another quarter of a second.

        Parameters
        ----------
        first
            The counter at the first of them.
        """
        count = self.count
        if self._dropped is not None:
            before, self._dropped = self._dropped, None
            is_back = first - count.last > _HALF and first >= before.count.reached - NEAR
            if count.is_guessed and count.second < 0 and is_back:
                # It was but one word, which is damaged.
                self.count, self.mode = before.count, before.mode
                self.is_synced, self.pulse = before.is_synced, before.pulse
                self._corrections["resets without a sync"] -= 1
                return Turn.BACK
        count.is_straggling = count.is_at_reset and first >= count.counted - NEAR
        if count.is_straggling:
            return Turn.ON
        is_drop = count.reached - first > _HALF
        if is_drop:
            self._corrections["resets without a sync"] += 1
            self._dropped = _Before(count, self.mode, self.is_synced, self.pulse)
            self._drop(first)
        if self.mode is None and first >= _STALE:
            self.mode = "free"
        return Turn.DROP if is_drop else Turn.ON

    def _drop(self, first: int) -> None:
        """Begin a count where the counter dropped without a SYNC word."""
        last, reached = self.count.last, self.count.reached
        if last - reached > _HALF:
            last = reached
        if self.mode != "free":
            end = self._pulse_from(self.count.base + last - NEAR)
            is_whole = self.count.base + last >= end - NEAR
            step = end - self.count.base
            self._begin(step, step)
            if self.mode is None and step <= 2 * TICKS_PER_SECOND and is_whole:
                self.mode = "pps"
            if self.mode == "pps" and not self.is_synced:
                self.is_synced, self.pulse = True, self.count.base
        elif last - first > _ROLLOVER // 2:
            self._begin(_ROLLOVER, _ROLLOVER)
        else:
            # It was at least so long; nobody knows how much longer.
            self._begin(-1, last + 1)
            self.count.is_continuous = False
        self.count.is_guessed = True

    def _begin(self, counted: int, step: int) -> None:
        before = self.count
        self.count = Count(before.base + step, counted, step)
        self.count.is_after_busy = before.is_busy
        # A word near the end of a count is a straggler rather than the next one after nearly a
        # second of silence, if the card has not been silent before; of the first count nobody
        # knows, but its words are not placed.
        self.count.is_after_first = self.mode != "free" and not self.is_synced
        self.count.is_at_reset = counted > 0 and (self.count.is_after_first or before.is_busy)

    def _time_of(self, counted: int) -> int:
        """Return the time that passed in a count [ticks]: whole seconds, where PPS resets."""
        seconds = round(counted / TICKS_PER_SECOND)
        tolerance = min(_TOLERANCE + _DRIFT * seconds, NEAR)
        is_whole = seconds > 0 and abs(counted - seconds * TICKS_PER_SECOND) <= tolerance
        if counted == _ROLLOVER:
            self.mode = self.mode or "free"
            return counted
        if is_whole and self._is_open and self.mode != "pps" and counted < _STALE:
            self.mode = "pps"
        if self.mode == "free":
            return counted
        time = seconds * TICKS_PER_SECOND if is_whole else counted
        if self.is_synced:
            time = self._time_to_pulse(time, is_whole=is_whole, tolerance=tolerance)
        if is_whole:
            self._corrections["syncs lost"] += max(time // TICKS_PER_SECOND - 1, 0)
        return time

    def _time_to_pulse(self, time: int, *, is_whole: bool, tolerance: int) -> int:
        """Return how long a count took, if it ended at a pulse; and if not, what is given."""
        count = self.count
        at = count.base + time
        pulse = self._pulse_from(at - _HALF)
        due = self._pulse_from(count.base + count.highest - NEAR)
        off = abs(at - pulse)
        if off > tolerance and not is_whole:
            self._corrections["irregular syncs"] += 1
        if off > NEAR and at > due and count.highest >= 0:
            # The value is damaged, or was of the SYNC word before: words show no longer count.
            return due - count.base
        if off <= NEAR:
            # Also after a reset between two pulses.
            return pulse - count.base
        if is_whole:
            # Pulses are at another time now.
            self.pulse = at
        return time

    def _pulse_from(self, tick: int) -> int:
        """Return when the first pulse after the beginning of the count is due, from a tick on."""
        base = self.count.base
        pulse = base if self.pulse is None else self.pulse
        return pulse - (pulse - max(tick, base + 1)) // TICKS_PER_SECOND * TICKS_PER_SECOND
