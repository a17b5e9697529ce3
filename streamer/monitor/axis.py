"""The seconds that are shown, and which of them are complete.

The time of a message is what the card's own clock said. So a card may be ahead of the others
or behind, a second or, if its clock was never set, years; and a damaged header may say
anything. That spoils what is shown of this card, and not what is shown of the others.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.monitor.recent import NO_KEY, Recent

__all__ = ["Axis"]

# A second counts as an io_group's newest only if it had another one in the day before.
_LONGEST_SILENCE: Final = 86_400
# io_groups that are behind by no more seconds are waited for before a second is complete.
_BEHIND: Final = 2


class Axis(NamedTuple):
    """S seconds, without a gap, of G io_groups."""

    #: (S,) i8: Unix seconds, the newest one at last.
    seconds: NDArray[np.int64]
    #: (S,) bool: whether the whole second was seen.
    complete: NDArray[np.bool_]
    #: (G,) i8: the newest second of each io_group, `NO_KEY` if none is known.
    newest: NDArray[np.int64]

    @classmethod
    def of(cls, recent: Recent, first: int) -> Axis:
        """Choose the seconds to be shown.

        Parameters
        ----------
        recent
            What was counted, by second.
        first
            The first second of all.

        Returns
        -------
        Axis
            Up to as many seconds as there are, with the newest ones of most io_groups; if
            there are several such, the latest.
        """
        newest = np.array([_newest(keys[keys != NO_KEY]) for keys in recent.keys], np.int64)
        known = np.unique(newest[newest != NO_KEY])
        if not len(known):
            return cls(np.empty(0, np.int64), np.empty(0, np.bool_), newest)
        ends = np.sort(newest[newest != NO_KEY])
        counts = np.searchsorted(ends, known, "right")
        counts -= np.searchsorted(ends, known - recent.depth, "right")
        end = int(known[len(known) - 1 - np.argmax(counts[::-1])])
        start = max(end - recent.depth + 1, min(first, end))
        seconds = np.arange(start, end + 1)
        done = min(end, int(newest[newest >= end - _BEHIND].min())) - 1
        return cls(seconds, (first < seconds) & (seconds <= done), newest)

    def columns(self, keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return which of the seconds keys are (any shape), and whether they are any."""
        if not len(self.seconds):
            return np.zeros(keys.shape, np.int64), np.zeros(keys.shape, np.bool_)
        places = keys - self.seconds[0]
        return places, (places >= 0) & (places < len(self.seconds))


def _newest(seconds: NDArray[np.int64]) -> int:
    """Return the newest of different seconds; one alone in the far future does not count."""
    if not len(seconds):
        return NO_KEY
    ordered = np.sort(seconds)
    confirmed = np.flatnonzero(np.diff(ordered) <= _LONGEST_SILENCE)
    return int(ordered[confirmed[-1] + 1] if len(confirmed) else ordered[-1])
