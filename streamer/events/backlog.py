"""Backlog: hits wait until nothing can come any more from before them."""

from __future__ import annotations

from typing import Final, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from streamer.events.hits import NO_HITS, RawHits

__all__ = ["ALL_TIME", "NO_TRIGGERS", "STRETCH", "Backlog", "Closed", "Triggers", "Waiting"]

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


ColumnsT = TypeVar("ColumnsT", RawHits, Triggers)


class Waiting(Generic[ColumnsT]):
    """Hits, or trigger words, whose time is not closed.

    Parameters
    ----------
    nothing
        None of them.
    most
        How many to hold at the most; what comes when so many wait is left out.

    Attributes
    ----------
    n_held : int
        Those that wait.
    n_late : int
        Those that came too late, and were left out.
    n_over : int
        Those that were left out as there was no room.

    Examples
    --------
    >>> waiting = Waiting(NO_HITS, most=2)
    >>> ticks = STRETCH * np.array([3, 1, 2, 2]) + 5
    >>> waiting.hold(RawHits(ticks, *(np.zeros(4, dtype) for dtype in ("i8", "u4", "u2"))), 2)
    >>> waiting.n_held, waiting.n_late, waiting.n_over, waiting.stretches(3)
    (2, 1, 1, {2})
    """

    def __init__(self, nothing: ColumnsT, most: int) -> None:
        self.n_held = self.n_late = self.n_over = 0
        self._nothing: ColumnsT = nothing
        self._most = most
        self._parts: dict[int, list[ColumnsT]] = {}

    def hold(self, found: ColumnsT, edge: int) -> None:
        """Hold those that are not late, as far as there is room; stretches before edge are."""
        numbers = found.ticks >> _BITS
        late = numbers < edge
        n_late = int(np.count_nonzero(late))
        if n_late:
            self.n_late += n_late
            found, numbers = found.part(~late), numbers[~late]
        room = self._most - self.n_held
        if len(numbers) > room:
            self.n_over += len(numbers) - room
            found, numbers = found.part(slice(room)), numbers[:room]
        self.n_held += len(numbers)
        for number, index in _groups(numbers):
            self._parts.setdefault(number, []).append(found.part(index))

    def stretches(self, edge: int) -> set[int]:
        """Return the stretches before edge in which there are any."""
        return {number for number in self._parts if number < edge}

    def release(self, number: int) -> ColumnsT:
        """Return those of a stretch by time, and of the same tick in the order they came in."""
        parts = self._parts.pop(number, [self._nothing])
        found = parts[0]
        if len(parts) > 1:
            found = type(found)(*map(np.concatenate, zip(*parts, strict=True)))
        self.n_held -= len(found.ticks)
        keys = found.ticks - (number << _BITS) << _PLACES - 1
        keys |= np.arange(len(keys))
        keys.sort()
        released: ColumnsT = found.part(keys & (1 << _PLACES - 1) - 1)
        return released


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
    hits, triggers : Waiting
        What waits, and how much was left out.

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
    >>> backlog.hits.n_held
    2
    """

    def __init__(self, lateness: int, max_hits: int) -> None:
        self.hits, self.triggers = Waiting(NO_HITS, max_hits), Waiting(NO_TRIGGERS, max_hits)
        self._lateness = lateness
        self._newest = self._last = -ALL_TIME
        # Stretches before this one are closed.
        self._edge = -ALL_TIME >> _BITS

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
            self.hits.hold(hits.part(slice(hit_start, hit_stop)), self._edge)
            self.triggers.hold(triggers.part(slice(trigger_start, trigger_stop)), self._edge)
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

    def _close(self, edge: int, place: int) -> list[Closed]:
        self._edge = edge
        numbers = self.hits.stretches(edge) | self.triggers.stretches(edge)
        found = [
            Closed(
                place,
                number + 1 << _BITS,
                self.hits.release(number),
                self.triggers.release(number),
            )
            for number in sorted(numbers)
        ]
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
