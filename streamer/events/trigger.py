"""TriggerBuilder: an event is what comes after an external trigger."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from streamer.events.backlog import ALL_TIME, NO_TRIGGERS, Triggers
from streamer.events.drafts import Builder, Draft, Trigger, cards, check, made
from streamer.events.hits import NO_HITS, RawHits

__all__ = ["WINDOW_TICKS", "TriggerBuilder", "TriggerBuilding"]

#: A drift of 1,820 ticks and a tenth more.
WINDOW_TICKS: Final = 2_002


@dataclass(frozen=True, kw_only=True)
class TriggerBuilder:
    """Takes the hits in a window after each trigger word, from all cards.

    The rule of DUNE/ndlar_flow's ``ExtTrigRawEventBuilder``: a hit at ticks from t0 to
    t0 + `after_ticks`, both included, belongs to a trigger at t0; if several triggers have it
    in their windows, to the first of them.

    Parameters
    ----------
    io_groups
        Cards whose trigger words count: one, several, or None for all. In run 3 of 2x2, those
        of card 5 are the beam, and those of card 6 light.
    bits
        Trigger words count that have any of these bits; bit 1, of value 2, is the external
        trigger of 2x2. 255 for all.
    after_ticks, before_ticks
        From the trigger to the window's end, and from its beginning to the trigger.
    rest
        Builds events of the hits that are in no window; None if they are not wanted.
    min_hits
        Events with fewer hits are left out. A trigger without hits is an event too, if not
        told otherwise.

    Notes
    -----
    An event is from the beginning to the end of its window.

    Examples
    --------
    >>> building = TriggerBuilder(io_groups=5).begin()
    >>> ticks = np.array([100, 1_000, 3_002, 3_003])
    >>> hits = RawHits(ticks, *(np.zeros(4, dtype) for dtype in ("i8", "u4", "u2")))
    >>> columns = [np.array([number]) for number in (1_000, 8, 5, 2)]
    >>> for draft in building.add(hits, Triggers(*columns), upto=20_000):
    ...     print(draft.trigger.ticks, draft.stop, draft.hits.ticks)
    1000 3003 [1000 3002]
    """

    io_groups: int | Collection[int] | None = None
    bits: int = 1 << 1
    after_ticks: int = WINDOW_TICKS
    before_ticks: int = 0
    rest: Builder | None = None
    min_hits: int = 0

    def __post_init__(self) -> None:
        cards(self.io_groups)
        made(Builder, "GapBuilder()", rest=self.rest)
        check(self, bits=1, after_ticks=0, before_ticks=0, min_hits=0)
        if self.bits > 0xFF:
            msg = f"bits is {self.bits}, but trigger words have 8 bits"
            raise ValueError(msg)

    def begin(self) -> TriggerBuilding:
        """Begin to build, with nothing known."""
        return TriggerBuilding(self)


class _Window(NamedTuple):
    """The hits of a trigger: those from start to before stop, which no earlier one has."""

    trigger: Trigger
    start: int
    stop: int


class TriggerBuilding:
    """Builds with a `TriggerBuilder`."""

    def __init__(self, rule: TriggerBuilder) -> None:
        self._rule = rule
        self._io_groups = cards(rule.io_groups)
        self._rest = None if rule.rest is None else rule.rest.begin()
        # Of hits before this tick it is known whether they are in a window.
        self._decided = -ALL_TIME
        # The windows that hits from there on can be in, and how many have become events.
        self._windows: list[_Window] = []
        self._n_done = 0
        self._covered = -ALL_TIME
        # The hits of windows that are no events yet, and those from `decided` on.
        self._open = NO_HITS

    def add(self, hits: RawHits, triggers: Triggers, upto: int) -> list[Draft]:
        """Add hits and triggers, as any `Building`."""
        rule = self._rule
        hits = RawHits.joined([self._open, hits])
        self._windows += self._opened(triggers)
        done = self._n_done
        while done < len(self._windows) and self._end(self._windows[done]) <= upto:
            done += 1
        found = [self._draft(hits, window) for window in self._windows[self._n_done : done]]
        found = [draft for draft in found if len(draft.hits.ticks) >= rule.min_hits]
        decided = upto - rule.before_ticks
        if self._rest is not None:
            outside = self._outside(hits, decided)
            rest = self._rest.add(outside, NO_TRIGGERS, decided)
            # Decided is known when all up to that later tick is.
            found += [draft._replace(needs=draft.needs + rule.before_ticks) for draft in rest]
            found.sort(key=lambda draft: (draft.needs, draft.start))
        self._decided = decided
        kept = self._windows[done].start if done < len(self._windows) else decided
        self._open = hits.part(slice(int(hits.ticks.searchsorted(min(kept, decided))), None))
        while done and self._windows[0].stop <= decided:
            del self._windows[0]
            done -= 1
        self._n_done = done
        return found

    def _opened(self, triggers: Triggers) -> list[_Window]:
        """Return the windows of the triggers that count."""
        rule = self._rule
        counts = triggers.bits & rule.bits != 0
        if self._io_groups is not None:
            counts &= np.isin(triggers.io_groups, self._io_groups)
        windows = []
        columns = triggers.part(counts)
        for tick, row, io_group, bits in zip(*(c.tolist() for c in columns), strict=True):
            start = max(tick - rule.before_ticks, self._covered)
            self._covered = max(start, tick + rule.after_ticks + 1)
            windows.append(_Window(Trigger(row, io_group, bits, tick), start, self._covered))
        return windows

    def _end(self, window: _Window) -> int:
        return window.trigger.ticks + self._rule.after_ticks + 1

    def _draft(self, hits: RawHits, window: _Window) -> Draft:
        part = slice(*hits.ticks.searchsorted([window.start, window.stop]).tolist())
        start, stop = window.trigger.ticks - self._rule.before_ticks, self._end(window)
        return Draft(stop, start, stop, hits.part(part), window.trigger)

    def _outside(self, hits: RawHits, decided: int) -> RawHits:
        """Return the hits that have been decided now to be in no window."""
        hits = hits.part(slice(*hits.ticks.searchsorted([self._decided, decided]).tolist()))
        if not self._windows:
            return hits
        starts, stops = (
            np.array([window[place] for window in self._windows], np.int64) for place in (1, 2)
        )
        number = starts.searchsorted(hits.ticks, "right") - 1
        return hits.part((number < 0) | (hits.ticks >= stops[number]))
