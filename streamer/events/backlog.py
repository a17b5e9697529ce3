"""Backlog: hits wait until nothing can come any more from before them."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.events.hits import NO_HITS, RawHits

__all__ = ["ALL_TIME", "NO_TRIGGERS", "STRETCH", "Backlog", "Closed", "Triggers"]

_BITS: Final = 19
#: Ticks of a stretch of time, which is closed at once: 52 ms.
STRETCH: Final = 1 << _BITS
#: A tick after all others.
ALL_TIME: Final = 1 << 62

# When sorted, a hit is its tick and its place in one number.
_PLACES: Final = 62 - _BITS
_FEW: Final = 32


class Triggers(NamedTuple):
    """N trigger words."""

    #: (N,) i8
    ticks: NDArray[np.int64]
    #: (N,) i8: row of the message.
    rows: NDArray[np.int64]
    #: (N,) u1
    io_groups: NDArray[np.uint8]
    #: (N,) u1: the trigger bits.
    bits: NDArray[np.uint8]

    def part(self, index: slice | NDArray[np.int64] | NDArray[np.bool_]) -> Triggers:
        """Return some of them."""
        return Triggers(
            self.ticks[index], self.rows[index], self.io_groups[index], self.bits[index]
        )


NO_TRIGGERS: Final = Triggers(
    np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint8), np.zeros(0, np.uint8)
)


class Closed(NamedTuple):
    """What is known up to a tick."""

    #: Place of the word that closed it, among those taken.
    place: int
    #: All hits and triggers before this tick are here or were here before.
    upto: int
    #: Sorted by time; of the same tick in the order of the file. No later than all before.
    hits: RawHits
    triggers: Triggers


class Backlog:
    """Holds hits and triggers back until their time is closed, and sorts them.

    At each word, what lies more than `lateness` before the newest time that two words in a row
    have reached is closed, in whole stretches of time: one word alone may be damaged, and would
    make all others late. A hit that comes for a closed stretch is late.

    Parameters
    ----------
    lateness
        Ticks.
    max_hits
        How many to hold at the most, and how many triggers; what comes when so many wait is
        left out.

    Attributes
    ----------
    n_held : int
        Hits that wait.
    n_late, n_late_triggers : int
        What came too late, and was left out.
    n_over, n_over_triggers : int
        What was left out as there was no room.

    Notes
    -----
    What is late, left out and returned depends on the words in their order alone, not on how
    many are taken at once.

    Examples
    --------
    >>> backlog = Backlog(lateness=100, max_hits=10)
    >>> receipts = np.array([50, 40, 3 * STRETCH, 3 * STRETCH + 1])
    >>> hits = RawHits(receipts - 5, *(np.zeros(4, dtype) for dtype in ("i8", "u4", "u2")))
    >>> for closed in backlog.take(receipts, np.arange(4), hits, np.arange(0), NO_TRIGGERS):
    ...     if len(closed.hits.ticks):
    ...         print(closed.place, closed.upto // STRETCH, closed.hits.ticks)
    3 1 [35 45]
    >>> backlog.n_held
    2
    """

    def __init__(self, lateness: int, max_hits: int) -> None:
        self.n_held = self.n_late = self.n_over = 0
        self.n_late_triggers = self.n_over_triggers = 0
        self._n_triggers = 0
        self._lateness, self._max_hits = lateness, max_hits
        self._newest = self._last = -ALL_TIME
        # Stretches before this one are closed.
        self._edge = -ALL_TIME >> _BITS
        self._hits: dict[int, list[RawHits]] = {}
        self._triggers: dict[int, list[Triggers]] = {}

    def take(
        self,
        receipts: NDArray[np.int64],
        hit_places: NDArray[np.int64],
        hits: RawHits,
        trigger_places: NDArray[np.int64],
        triggers: Triggers,
    ) -> list[Closed]:
        """Take words in the order of the file.

        Parameters
        ----------
        receipts
            (W,) i8: tick at which each word was received; -1 if not known.
        hit_places, hits
            (N,) i8, ascending: which of the words are the N hits.
        trigger_places, triggers
            The same of triggers.

        Returns
        -------
        list of Closed
            What was closed by them.
        """
        if not len(receipts):
            return []
        newest = self._reached(receipts)
        edges = newest - self._lateness >> _BITS
        starts = np.append(0, np.flatnonzero(edges[1:] != edges[:-1]) + 1)
        hit_stops = np.searchsorted(hit_places, np.append(starts[1:], len(edges))).tolist()
        trigger_stops = np.searchsorted(trigger_places, np.append(starts[1:], len(edges))).tolist()
        found: list[Closed] = []
        hit_start = trigger_start = 0
        for start, edge, hit_stop, trigger_stop in zip(
            starts.tolist(), edges[starts].tolist(), hit_stops, trigger_stops, strict=True
        ):
            if edge > self._edge:
                found += self._close(edge, start)
            self._hold(hits.part(slice(hit_start, hit_stop)))
            self._hold_triggers(triggers.part(slice(trigger_start, trigger_stop)))
            hit_start, trigger_start = hit_stop, trigger_stop
        return found

    def _reached(self, receipts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the newest time that two words in a row had reached at each word."""
        reached = np.full(len(receipts), self._newest)
        known = np.flatnonzero(receipts >= 0)
        if len(known):
            own = receipts[known]
            reached[known] = np.minimum(own, np.append(self._last, own[:-1]))
            self._last = int(own[-1])
        reached = np.maximum.accumulate(np.maximum(reached, self._newest))
        self._newest = int(reached[-1])
        return reached

    def finish(self) -> list[Closed]:
        """Close all time."""
        return self._close(ALL_TIME >> _BITS, 0)

    def _hold(self, hits: RawHits) -> None:
        numbers = hits.ticks >> _BITS
        late = numbers < self._edge
        n_late = int(np.count_nonzero(late))
        if n_late:
            self.n_late += n_late
            hits, numbers = hits.part(~late), numbers[~late]
        room = self._max_hits - self.n_held
        if len(numbers) > room:
            self.n_over += len(numbers) - room
            hits, numbers = hits.part(slice(room)), numbers[:room]
        self.n_held += len(numbers)
        for number, index in _groups(numbers):
            self._hits.setdefault(number, []).append(hits.part(index))

    def _hold_triggers(self, triggers: Triggers) -> None:
        numbers = triggers.ticks >> _BITS
        late = numbers < self._edge
        n_late = int(np.count_nonzero(late))
        self.n_late_triggers += n_late
        room = self._max_hits - self._n_triggers
        kept = np.flatnonzero(~late)[:room]
        self.n_over_triggers += len(late) - n_late - len(kept)
        self._n_triggers += len(kept)
        for number, index in _groups(numbers[kept]):
            part = triggers.part(kept).part(index)
            self._triggers.setdefault(number, []).append(part)

    def _close(self, edge: int, place: int) -> list[Closed]:
        self._edge = edge
        numbers = {number for number in (*self._hits, *self._triggers) if number < edge}
        found = []
        for number in sorted(numbers):
            hits = _sorted(RawHits.joined(self._hits.pop(number, [])), number << _BITS)
            triggers = self._triggers.pop(number, [])
            joined = Triggers(*map(np.concatenate, zip(NO_TRIGGERS, *triggers, strict=True)))
            order = np.argsort(joined.ticks, kind="stable")
            self.n_held -= len(hits.ticks)
            self._n_triggers -= len(order)
            found.append(Closed(place, number + 1 << _BITS, hits, joined.part(order)))
        if edge - 1 not in numbers:
            found.append(Closed(place, edge << _BITS, NO_HITS, NO_TRIGGERS))
        return found


def _groups(
    numbers: NDArray[np.int64],
) -> list[tuple[int, slice | NDArray[np.int64]]]:
    """Return each number that is there, and where."""
    if not len(numbers):
        return []
    low, high = int(numbers.min()), int(numbers.max())
    if low == high:
        return [(low, slice(None))]
    # Of few that are possible each is looked for, which is faster than to find which there are.
    present = range(low, high + 1) if high - low < _FEW else np.unique(numbers).tolist()
    found = ((number, np.flatnonzero(numbers == number)) for number in present)
    return [(number, index) for number, index in found if len(index)]


def _sorted(hits: RawHits, start: int) -> RawHits:
    """Return the hits of a stretch by time, and of the same tick in the order they came in."""
    keys = hits.ticks - start << _PLACES - 1
    keys |= np.arange(len(keys))
    keys.sort()
    return hits.part(keys & (1 << _PLACES - 1) - 1)
