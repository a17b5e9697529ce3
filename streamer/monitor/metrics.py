"""Monitor: what a stream of packets says of the detector, by second and in sum."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from streamer.monitor.counted import Counted
from streamer.monitor.counters import COUNTER, COUNTERS, TILES
from streamer.monitor.hits import Tables
from streamer.monitor.marks import Marks
from streamer.monitor.options import Options, engine
from streamer.monitor.recent import NO_KEY
from streamer.monitor.rest import count_messages, count_others, count_rest, find_marks
from streamer.monitor.runs import Runs, Sorts
from streamer.monitor.snapshot import Snapshot
from streamer.monitor.take import take_snapshot
from streamer.packets import Packets

__all__ = ["Monitor"]


class Monitor:
    """Rates, fractions and distributions of a stream of packets.

    Counts are kept of each io_group for each of its newest seconds, by the time in the
    messages' headers; as histograms, and of each channel, for the newest spans of some
    seconds; and of all since the beginning. They are whole numbers and depend only on what was
    seen, so that monitors of consecutive parts of a stream add up to that of the whole,
    exactly.

    Parameters
    ----------
    history
        Seconds that are kept of each io_group.
    span, spans
        Seconds in a span of time, and how many of these are kept of each io_group and channel.
    trigger_source
        Whose external triggers hits are compared with: the io_group of each io_group, or one
        for all; None: its own.
    trigger_reach
        After so many hits of an io_group, a trigger is forgotten.
    drift_ticks
        The longest drift [ticks of 100 ns].
    tolerance
        How far the time in a header may be ahead of `arrived` [s]; beyond it, `arrived` is
        used instead.
    engine
        What counts hits: ``"numpy"``; ``"numba"``, which is several times as fast, and needs
        that package (``pip install numba``); ``"auto"``: numba if it is
        there. What is counted is the same. numba compiles when it is first used, which takes
        some seconds.

    Raises
    ------
    ValueError
        If a parameter makes no sense.

    Notes
    -----
    Memory grows with the chips that there are, by some 15,000 bytes each with 64 channels, and
    not with the length of the run. A packet with a damaged address may name a chip that does not
    exist. Of one without any packet of valid parity, each channel takes some 20 bytes, and a
    line in a snapshot; but two wrong bits leave parity valid, and take as much as a chip. So on
    a line that is bad for days memory does grow, up to all addresses that there can be: what is
    seen once may be a quiet channel, and is kept. `reset` forgets it.

    How many messages were lost cannot be known: they bear no number. Seconds without messages
    or syncs, truncated messages and full FIFOs hint at it.

    Time is that of the card that sent a message. A card whose clock is set back, or one whose
    header was damaged into the future, keeps newer seconds than it sends until it has caught
    up. `Snapshot.newest` shows it, and passing `arrived` to `update` avoids it.

    Examples
    --------
    >>> from streamer.batch import Batch
    >>> from writer.simulate import simulate
    >>> monitor = Monitor()
    >>> for sent in simulate("tile", seconds=3):
    ...     starts = np.cumsum(sent.lengths) - sent.lengths
    ...     rows = np.arange(len(starts))
    ...     batch = Batch(rows, sent.io_groups, sent.buffer, starts, sent.lengths)
    ...     monitor.update(batch.packets())
    >>> snapshot = monitor.snapshot()
    >>> snapshot.io_groups, snapshot.complete, snapshot.history["sync_resets"]
    (array([1], dtype=uint8), array([False,  True,  True, False]), array([[1, 1, 1, 0]]))
    """

    def __init__(
        self,
        *,
        history: int = 600,
        span: int = 10,
        spans: int = 6,
        trigger_source: Mapping[int, int] | int | None = None,
        trigger_reach: int = 16384,
        drift_ticks: int = 1900,
        tolerance: float = 60.0,
        engine: str = "auto",
    ) -> None:
        self._options = Options(
            history,
            span,
            spans,
            trigger_source,
            trigger_reach,
            drift_ticks,
            tolerance,
            engine,
        )
        self.reset()

    def reset(self) -> None:
        """Forget all that was seen, also what would be needed to go on."""
        self._counted = Counted.nothing(self._options)

    def __repr__(self) -> str:
        groups, (chips, _) = self._counted.seconds.io_groups, self._counted.channels.chips_seen()
        return f"<Monitor: {len(groups)} io_groups, {len(chips):,} chips>"

    def update(self, packets: Packets, *, arrived: float | None = None) -> None:
        """Count packets, which are the next ones of the stream.

        Parameters
        ----------
        packets
            Of any number of messages.
        arrived
            Unix time at which they arrived, for messages without a time in their header, and
            for those whose header is further ahead of it than is tolerated. Without it, the
            former are counted in total only.

        Raises
        ------
        TypeError
            If these are no packets.
        """
        given: object = packets
        if not isinstance(given, Packets):
            msg = f"a Monitor counts packets, as .packets() gives them, not {given!r:.80}"
            raise TypeError(msg)
        counted, layout, channels = self._counted, self._counted.layout, self._counted.channels
        runs = Runs.of(packets.decoded)
        seconds = self._dated(runs, arrived)
        numbers = counted.seconds.numbers(runs.io_groups)
        for io_group in counted.seconds.io_groups[len(counted.spans.io_groups) :]:
            counted.spans.number(io_group)
        sorts = Sorts.of(numbers, seconds)
        slots = counted.seconds.places(sorts.numbers, sorts.seconds)
        tables, of = self._tables(sorts), sorts.of_runs
        marks = find_marks(packets, runs)
        count_messages(runs, of, tables, layout)
        count_others(packets, runs, of, tables, layout)
        count_hits = engine(self._options.engine)
        rest = count_hits(packets, runs, of, marks, tables, channels, counted.triggers, layout)
        count_rest(packets, rest, runs, of, tables, channels)
        self._count_marks(marks, runs, of, tables)
        counted.seconds.add(sorts.numbers, slots, tables.counts)
        self._note(sorts, tables)
        counted.faults.count(packets.faults, runs.rows, seconds)

    def _dated(self, runs: Runs, arrived: float | None) -> NDArray[np.int64]:
        """Return the second of each run; `NO_KEY` if it is not known."""
        missing = runs.seconds <= 0
        if arrived is None:
            seconds = np.where(missing, NO_KEY, runs.seconds)
        else:
            ahead = runs.seconds > arrived + self._options.tolerance
            self._counted.misdated += int(np.count_nonzero(ahead & runs.is_whole))
            seconds = np.where(missing | ahead, int(arrived), runs.seconds)
        self._counted.undated += int(np.count_nonzero(missing & runs.is_whole))
        return seconds

    def _note(self, sorts: Sorts, tables: Tables) -> None:
        """Keep the first second of each io_group, and the last one with a sync."""
        dated = sorts.seconds != NO_KEY
        np.minimum.at(self._counted.first, tables.io_groups[dated], sorts.seconds[dated])
        has_sync = tables.counts[:, COUNTER["sync_resets"]] > 0
        np.maximum.at(self._counted.last_sync, tables.io_groups[has_sync], sorts.seconds[has_sync])

    def _tables(self, sorts: Sorts) -> Tables:
        """Make room for what is to be counted."""
        spans = np.where(sorts.seconds == NO_KEY, NO_KEY, sorts.seconds // self._options.span)
        slots = self._counted.spans.places(sorts.numbers, spans)
        return Tables(
            counts=np.zeros((len(slots), len(COUNTERS) + TILES), np.int64),
            histograms=self._counted.spans.flat,
            rows=self._counted.spans.rows_at(sorts.numbers, slots),
            slots=slots,
            io_groups=np.array(self._counted.seconds.io_groups, np.uint8)[sorts.numbers],
            spans=spans,
        )

    def _count_marks(
        self, marks: Marks, runs: Runs, of: NDArray[np.int64], tables: Tables
    ) -> None:
        """Count the differences of external triggers."""
        if not len(marks.places):
            return
        sorts = of[runs.at(marks.places)]
        some, differences = self._counted.successive.follow(marks, tables.spans[sorts])
        self._count_differences(tables.rows[sorts[some]], differences)

    def _count_differences(self, rows: NDArray[np.int64], differences: NDArray[np.int64]) -> None:
        """Count differences of triggers (K,) in rows of histograms (K,)."""
        layout, name = self._counted.layout, "trigger_to_trigger"
        bins = layout.bins[name].find(differences)
        layout.add(self._counted.spans.flat, name, rows, bins)

    def merge(self, other: Monitor) -> None:
        """Add what another monitor has seen, of the part of the stream that comes next.

        Then this one is what it would be if it had seen both parts; the other one stays as it
        is. Also monitors of different io_groups may be merged, if no hits are compared with the
        triggers of others' io_groups; of these, what is in ``trigger_to_trigger`` depends on
        the order of all triggers.

        Raises
        ------
        ValueError
            If the two have not the same parameters.

        Examples
        --------
        >>> one, two = Monitor(spans=3), Monitor(spans=6)
        >>> one.merge(two)
        Traceback (most recent call last):
        ValueError: monitors cannot be merged if they differ in spans, 3 and 6
        """
        different = self._options.difference(other._options)
        if different is not None:
            msg = f"monitors cannot be merged if they differ in {different}"
            raise ValueError(msg)
        mine, theirs = self._counted, other._counted
        places = {}
        for their_number, io_group in enumerate(theirs.seconds.io_groups):
            number = mine.seconds.number(io_group)
            mine.seconds.merge(theirs.seconds, number, their_number)
            mine.spans.number(io_group)
            places[io_group] = mine.spans.merge(theirs.spans, number, their_number)
        mine.channels.merge(theirs.channels, places)
        held, bins = mine.triggers.merge(theirs.triggers)
        rows = self._rows_of(held.io_groups, held.keys)
        mine.layout.add(mine.spans.flat, "trigger", rows, bins)
        mine.layout.add(mine.spans.flat, "trigger_adc", rows, bins, held.adc.astype(np.int64))
        difference = mine.successive.merge(theirs.successive)
        if difference is not None and theirs.successive.first is not None:
            io_group, key, _ = theirs.successive.first
            rows = self._rows_of(np.array([io_group], np.uint8), np.array([key]))
            self._count_differences(rows, np.array([difference]))
        mine.faults.merge(theirs.faults)
        np.minimum(mine.first, theirs.first, out=mine.first)
        np.maximum(mine.last_sync, theirs.last_sync, out=mine.last_sync)
        mine.undated += theirs.undated
        mine.misdated += theirs.misdated

    def _rows_of(
        self, io_groups: NDArray[np.uint8], spans: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the rows of histograms of io_groups (K,) in spans (K,)."""
        recent = self._counted.spans
        sorts = Sorts.of(recent.numbers(io_groups), spans)
        slots = recent.places(sorts.numbers, sorts.seconds)
        return recent.rows_at(sorts.numbers, slots)[sorts.of_runs]

    def snapshot(self, now: float | None = None) -> Snapshot:
        """Return a copy of what was seen so far; later updates do not change it.

        Parameters
        ----------
        now
            Unix time, for the ages; None: the newest second of the stream. A stream that has
            come to a halt has no newer seconds: who watches a live one gives ``time.time()``.

        Returns
        -------
        Snapshot
            By io_group, second, tile, channel and chip.
        """
        return take_snapshot(self._counted, now)
