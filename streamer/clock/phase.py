"""Phase: when in a second all cards are reset by the one pulse that they share."""

from __future__ import annotations

from statistics import median_low
from typing import Final

from streamer.clock.known import SLACK
from writer.pacman import TICKS_PER_SECOND

__all__ = ["NARROW", "Phase"]

_HALF: Final = TICKS_PER_SECOND // 2
#: Of a range no wider than this the middle is good enough.
NARROW: Final = TICKS_PER_SECOND * 26 // 100


class Phase:
    """When in a second all cards are reset; found by the first card that knows.

    With a GPS receiver's pulse it is at the whole second, with a generator's anywhere.

    Attributes
    ----------
    ticks : int or None
        From a whole Unix second to the resets, -P/2 to P/2; None as long as it is not known.

    Notes
    -----
    The header of a message tells its second by the card's own Unix clock. So that all cards
    give a reset the same second, these clocks have to agree to within half a second. The
    header of a SYNC word alone would not do: it is written at the very time when, with a GPS
    receiver's pulse, the second changes.

    Examples
    --------
    >>> phase, second = Phase(), TICKS_PER_SECOND
    >>> phase.origin(1_000 * second - 5_000, 1_000 * second + 200_000, base=3 * second)
    10000000000
    >>> phase.origin(999 * second, 1_000 * second + 50, base=0) is None
    True
    >>> phase.origin(999 * second + 5_000_000, 1_000 * second + 50, base=0)
    10000000000
    """

    def __init__(self) -> None:
        self.ticks: int | None = None
        # How far each card's headers have come from the phase since it was found: a generator
        # does not run as Unix time does.
        self._drifts: dict[object, int] = {}

    def origin(self, low: int, high: int, *, base: int) -> int | None:
        """Return the Unix time of a card's tick 0 [ticks].

        Parameters
        ----------
        low, high
            What the headers leave for it.
        base
            A tick at which the card was reset.

        Returns
        -------
        int or None
            The one with which that reset is at the phase; None if there are several, or the
            phase is not known.
        """
        middle, is_narrow = (low + high) // 2, high - low <= NARROW
        if self.ticks is None:
            if not is_narrow:
                return None
            ticks = (middle + base + _HALF) % TICKS_PER_SECOND - _HALF
            # At the whole second, if headers that are a little late allow it.
            self.ticks = 0 if abs(ticks) <= (high - low) // 2 + SLACK else ticks
        drift = median_low(self._drifts.values()) if self._drifts else 0
        shift = self.ticks + drift - base
        first = -((shift - low + SLACK) // TICKS_PER_SECOND)
        last = (high + SLACK - shift) // TICKS_PER_SECOND
        if first != last:
            if not is_narrow:
                return None
            # Another Unix clock than the other cards'; or one that has just been set.
            first = (middle - shift + _HALF) // TICKS_PER_SECOND
        return first * TICKS_PER_SECOND + shift - drift

    def follow(self, card: object, origin: int, low: int, high: int) -> None:
        """Note what the headers of a card leave now for the origin that it was given."""
        if high - low <= NARROW:
            off = max(low - SLACK - origin, 0) + min(high + SLACK - origin, 0)
            self._drifts[card] = off

    def leave(self, card: object) -> None:
        """Let a card no longer count."""
        self._drifts.pop(card, None)
