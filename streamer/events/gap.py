"""GapBuilder: an event ends where no hit comes for a while."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.events.backlog import Triggers
from streamer.events.drafts import Draft, check
from streamer.events.hits import NO_HITS, RawHits

__all__ = ["DRIFT_TICKS", "GapBuilder", "GapBuilding"]

#: The time that charge takes to drift through a module of 2x2, as event builders take it.
DRIFT_TICKS: Final = 1_820


@dataclass(frozen=True, kw_only=True)
class GapBuilder:
    """Begins a new event where two hits are further apart than a gap.

    The rule of larpix-v2-testing-scripts' ``event_builder.py`` and of DUNE/ndlar_flow's
    ``TimeDeltaRawEventBuilder``.

    Parameters
    ----------
    gap_ticks
        A hit more than so many ticks after the one before begins a new event.
    longest_ticks
        So does a hit more than so many ticks after the first one of its event, which is then
        cut.
    min_hits
        Events with fewer hits are left out.

    Notes
    -----
    An event is from its first hit to the tick after its last one.

    All hits of a time scale are taken together. Above some ten thousand a second no gap is
    left between them, and all events are cut: then take the `io_groups` of one module, or
    another builder.

    Examples
    --------
    >>> building = GapBuilder(min_hits=2).begin()
    >>> ticks = np.array([100, 900, 5_000, 9_000, 9_001])
    >>> hits = RawHits(ticks, *(np.zeros(5, dtype) for dtype in ("i8", "u4", "u2")))
    >>> from streamer.events.backlog import NO_TRIGGERS
    >>> for draft in building.add(hits, NO_TRIGGERS, upto=20_000):
    ...     print(draft.start, draft.stop, draft.hits.ticks)
    100 901 [100 900]
    9000 9002 [9000 9001]
    """

    gap_ticks: int = DRIFT_TICKS
    longest_ticks: int = 3 * DRIFT_TICKS
    min_hits: int = 1

    def __post_init__(self) -> None:
        check(self, gap_ticks=1, longest_ticks=0, min_hits=1)

    def begin(self) -> GapBuilding:
        """Begin to build, with nothing known."""
        return GapBuilding(self)


class GapBuilding:
    """Builds with a `GapBuilder`."""

    def __init__(self, rule: GapBuilder) -> None:
        self._rule = rule
        # The hits of the event that may go on.
        self._open = NO_HITS

    def add(self, hits: RawHits, triggers: Triggers, upto: int) -> list[Draft]:
        """Add hits, as any `Building`; triggers do not matter."""
        del triggers
        hits = RawHits.joined([self._open, hits])
        ticks = hits.ticks
        if not len(ticks):
            return []
        starts = self._starts(ticks)
        stops = [*starts[1:], len(ticks)]
        self._open = NO_HITS
        if upto - int(ticks[-1]) <= self._rule.gap_ticks:
            # The next hit may belong to the last event.
            self._open = hits.part(slice(starts.pop(), None))
            stops.pop()
        return [
            self._draft(hits, start, stop)
            for start, stop in zip(starts, stops, strict=True)
            if stop - start >= self._rule.min_hits
        ]

    def _starts(self, ticks: NDArray[np.int64]) -> list[int]:
        """Return where events begin."""
        longest = self._rule.longest_ticks
        gaps = np.flatnonzero(np.diff(ticks) > self._rule.gap_ticks) + 1
        starts: list[int] = []
        for start, stop in zip([0, *gaps.tolist()], [*gaps.tolist(), len(ticks)], strict=True):
            starts.append(start)
            last = int(ticks[stop - 1])
            while last - int(ticks[starts[-1]]) > longest:
                end = int(ticks[starts[-1]]) + longest
                starts.append(int(ticks.searchsorted(end, "right")))
        return starts

    def _draft(self, hits: RawHits, start: int, stop: int) -> Draft:
        last = int(hits.ticks[stop - 1])
        needs, is_cut = last + self._rule.gap_ticks + 1, False
        if stop < len(hits.ticks) and int(hits.ticks[stop]) < needs:
            needs, is_cut = int(hits.ticks[stop]) + 1, True
        first = int(hits.ticks[start])
        return Draft(needs, first, last + 1, hits.part(slice(start, stop)), is_cut=is_cut)
