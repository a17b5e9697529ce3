"""Assembly: packets become hits, hits wait for their time, and a builder makes events of them."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.clock import COMMON, Clock, Times
from streamer.events.backlog import Backlog, Closed, Triggers
from streamer.events.drafts import Builder, Draft, Trigger, cards, made, whole
from streamer.events.hits import Hits, RawHits
from streamer.events.pedestals import Pedestals
from streamer.geometry import Geometry
from writer.pacman import TICKS_PER_SECOND

if TYPE_CHECKING:
    from streamer.packets import Packets

__all__ = ["DEFAULT_LATENESS", "DEFAULT_MAX_HITS", "Assembly", "Event"]

#: Seconds that a hit may be behind the newest word, if nothing else is said.
DEFAULT_LATENESS: Final = 1.0
#: Hits that wait at the most, if nothing else is said: 90 MB.
DEFAULT_MAX_HITS: Final = 4_000_000


@dataclass(frozen=True, eq=False)
class Event:
    """Hits that belong together.

    Parameters
    ----------
    number
        From 0, in the order in which events are complete.
    start, stop
        Half-open range of ticks ``[start, stop)``, as `streamer.clock.Clock` counts them.
    time
        Unix time of its start [s]; None if the messages carry no time. It is as accurate as
        the cards' own Unix clocks.
    hits
        Sorted by time; of the same tick in the order of the file.
    trigger
        The trigger word that it belongs to; None if it has none.
    is_cut
        Whether it goes on in the next one, as it was too long.
    io_group
        The card that it is from, if that has a time scale of its own; None if it is from all
        cards that one pulse resets.

    Examples
    --------
    >>> from streamer.events.hits import NO_HITS
    >>> Event(0, 5_000, 7_003, 0.0005, Hits.of(NO_HITS, None, None))
    <Event 0: no hits in 200.3 us>
    """

    number: int
    start: int
    stop: int
    time: float | None
    hits: Hits
    trigger: Trigger | None = None
    is_cut: bool = False
    io_group: int | None = None

    @property
    def n_hits(self) -> int:
        """How many hits it has."""
        return len(self.hits)

    def __repr__(self) -> str:
        hits = f"{self.n_hits} hit{'s' if self.n_hits != 1 else ''}" if self.n_hits else "no hits"
        trigger = "" if self.trigger is None else f", trigger of io_group {self.trigger.io_group}"
        length = (self.stop - self.start) * 1e6 / TICKS_PER_SECOND
        return f"<Event {self.number}: {hits} in {length:.1f} us{trigger}>"


class _Ready(NamedTuple):
    """An event that is complete, and what its order follows from."""

    place: int
    scale: int
    draft: Draft


class _Scale:
    """The hits of one time scale, which only there can be near each other."""

    def __init__(self, builder: Builder, lateness: int, max_hits: int) -> None:
        self.backlog = Backlog(lateness, max_hits)
        self._building = builder.begin()

    def build(self, scale: int, closed: list[Closed]) -> list[_Ready]:
        return [
            _Ready(place, scale, draft)
            for place, upto, hits, triggers in closed
            for draft in self._building.add(hits, triggers, upto)
        ]


class Assembly:
    """Makes events of packets: what `events` does, without a stream.

    Parameters
    ----------
    builder
        The rule by which hits make events.
    geometry, pedestals, clock, lateness, max_hits, io_groups, bad_parity, veto_ticks
        As of `streamer.events.stream`.

    Examples
    --------
    >>> from streamer.events.gap import GapBuilder
    >>> assembly = Assembly(GapBuilder())
    >>> assembly.finish(), assembly.counts["hits"]
    ([], 0)
    """

    def __init__(
        self,
        builder: Builder,
        *,
        geometry: Geometry | None = None,
        pedestals: Pedestals | None = None,
        clock: Clock | None = None,
        lateness: float = DEFAULT_LATENESS,
        max_hits: int = DEFAULT_MAX_HITS,
        io_groups: int | Collection[int] | None = None,
        bad_parity: bool = False,
        veto_ticks: int = 0,
    ) -> None:
        made(Builder, "GapBuilder()", builder=builder)
        made(Geometry, "Geometry.load(path)", geometry=geometry)
        made(Pedestals, "Pedestals.load(path)", pedestals=pedestals)
        made(Clock, "Clock()", clock=clock)
        if not (math.isfinite(lateness) and lateness >= 0):
            msg = f"lateness is {lateness!r}, not a time in seconds"
            raise ValueError(msg)
        self.clock = Clock() if clock is None else clock
        self._builder = builder
        self._geometry, self._pedestals = geometry, pedestals
        self._lateness = round(lateness * TICKS_PER_SECOND)
        self._max_hits = whole("max_hits", max_hits, 1)
        self._io_groups = cards(io_groups)
        self._bad_parity, self._veto_ticks = bad_parity, whole("veto_ticks", veto_ticks, 0)
        self._scales: dict[int, _Scale] = {}
        self._n_events = 0
        self._counts = dict.fromkeys(
            ("hits", "other io_groups", "bad parity", "vetoed", "not placed", "in events"), 0
        )

    @property
    def counts(self) -> dict[str, int]:
        """What became of the hits; each is counted under ``"hits"`` and once besides.

        ``"other io_groups"``, ``"bad parity"``, ``"vetoed"``: not wanted. ``"not placed"``: the
        clock's `counts` tell why. ``"late"``: it came when its time was closed. ``"over the
        limit"``: too many waited. ``"waiting"``: its time is not closed. ``"in events"``; and
        ``"in no event"``, so far. Of trigger words: ``"late triggers"``, ``"triggers over the
        limit"``.
        """
        counts = dict(self._counts)
        backlogs = [scale.backlog for scale in self._scales.values()]
        counts["late"] = sum(backlog.hits.n_late for backlog in backlogs)
        counts["over the limit"] = sum(backlog.hits.n_over for backlog in backlogs)
        counts["waiting"] = sum(backlog.hits.n_held for backlog in backlogs)
        counts["in no event"] = 2 * counts["hits"] - sum(counts.values())
        counts["late triggers"] = sum(backlog.triggers.n_late for backlog in backlogs)
        counts["triggers over the limit"] = sum(b.triggers.n_over for b in backlogs)
        return counts

    def add(self, packets: Packets) -> list[Event]:
        """Add the next packets of the stream.

        Parameters
        ----------
        packets
            All of them, also those that are no hits: they tell how late it is.

        Returns
        -------
        list of Event
            What they complete.
        """
        times = self.clock.times(packets)
        hits = self._hits_in(packets, times)
        triggers = np.flatnonzero(packets.is_trigger & (times.ticks >= 0))
        placed = times.receipts >= 0
        scales = times.scales[placed]
        if not len(scales):
            return []
        if (scales == scales[0]).all():
            return self._events(self._add(packets, times, int(scales[0]), None, hits, triggers))
        ready: list[_Ready] = []
        for scale in np.unique(scales).tolist():
            here = times.scales == scale
            words = np.flatnonzero(placed & here)
            ready += self._add(
                packets, times, scale, words, hits[here[hits]], triggers[here[triggers]]
            )
        # In the order of the words that completed them; a word is of one scale.
        return self._events(sorted(ready, key=lambda event: event.place))

    def finish(self) -> list[Event]:
        """Return what there is when nothing comes any more. Nothing can be added after that."""
        ready: list[_Ready] = []
        for number, scale in sorted(self._scales.items()):
            ready += scale.build(number, scale.backlog.finish())
        return self._events(ready)

    def _hits_in(self, packets: Packets, times: Times) -> NDArray[np.int64]:
        """Return which of the packets are hits that are wanted and placed."""
        counts = self._counts
        index = np.flatnonzero(packets.is_data)
        counts["hits"] += len(index)

        def keep(mask: NDArray[np.bool_], name: str) -> None:
            nonlocal index
            n = len(index)
            index = index[mask]
            counts[name] += n - len(index)

        if self._io_groups is not None:
            keep(np.isin(packets.io_group[index], self._io_groups), "other io_groups")
        if not self._bad_parity:
            keep(packets.valid_parity[index] == 1, "bad parity")
        if self._veto_ticks:
            keep(packets.timestamp[index] >= self._veto_ticks, "vetoed")
        keep(times.ticks[index] >= 0, "not placed")
        return index

    def _add(
        self,
        packets: Packets,
        times: Times,
        scale: int,
        words: NDArray[np.int64] | None,
        hits: NDArray[np.int64],
        triggers: NDArray[np.int64],
    ) -> list[_Ready]:
        """Add what is of one scale; `words` are its placed words, None if all are."""
        if scale not in self._scales:
            self._scales[scale] = _Scale(self._builder, self._lateness, self._max_hits)
        one = self._scales[scale]
        raw = RawHits.of(packets, hits, times.ticks)
        trigger_words = Triggers(
            times.ticks[triggers],
            packets.row[triggers],
            packets.io_group[triggers],
            packets.trigger_type[triggers],
        )
        if words is None:
            closed = one.backlog.take(times.receipts, hits, raw, triggers, trigger_words)
            return one.build(scale, closed)
        closed = one.backlog.take(
            times.receipts[words],
            words.searchsorted(hits),
            raw,
            words.searchsorted(triggers),
            trigger_words,
        )
        ready = one.build(scale, closed)
        return [event._replace(place=int(words[event.place])) for event in ready]

    def _events(self, ready: list[_Ready]) -> list[Event]:
        """Make events of drafts: number them, and look up places and charges of all at once."""
        if not ready:
            return []
        raw = RawHits.joined(draft.hits for _, _, draft in ready)
        hits = Hits.of(raw, self._geometry, self._pedestals)
        cards = self.clock.cards
        events = []
        stop = 0
        for number, (_, scale, draft) in enumerate(ready, start=self._n_events):
            first, stop = stop, stop + len(draft.hits.ticks)
            is_common = scale == COMMON
            has_time = is_common or cards[scale].has_time
            events.append(
                Event(
                    number,
                    draft.start,
                    draft.stop,
                    draft.start / TICKS_PER_SECOND if has_time else None,
                    hits.select(slice(first, stop)),
                    draft.trigger,
                    draft.is_cut,
                    None if is_common else scale,
                )
            )
        self._n_events += len(events)
        self._counts["in events"] += len(hits)
        return events
