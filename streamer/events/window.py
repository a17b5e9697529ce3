"""WindowBuilder: an event is where many hits come at once, and a little around it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamer.events.backlog import Triggers
from streamer.events.drafts import Draft, check
from streamer.events.gap import DRIFT_TICKS
from streamer.events.hits import NO_HITS, RawHits

__all__ = ["WindowBuilder", "WindowBuilding"]


@dataclass(frozen=True, kw_only=True)
class WindowBuilder:
    """Takes the bins of time with many hits, and those beside them.

    The rule of DUNE/ndlar_flow's ``SymmetricWindowRawEventBuilder``; but the edges of the bins
    are multiples of their width, in ticks of the clock, and not of whatever was read at once.

    Parameters
    ----------
    bin_ticks
        Width of a bin: half a drift if not given.
    threshold
        A bin with more hits than this makes an event.
    margin
        Bins that are added on either side. Neighbours are merged.
    longest_bins
        A longer event is cut into pieces of this length: with enough noise every bin is above
        the threshold, and the event would never end.
    min_hits
        Events with fewer hits are left out: the ``nhit_cut``.

    Notes
    -----
    An event is from the first edge of its bins to the last one.

    All hits of a time scale are counted together. The threshold that is taken if none is given
    is for a quiet module: a rate of 100,000 hits a second fills each bin of 910 ticks with 9
    hits on average, and then most bins are above it, and every event is cut. Of 2x2 as a whole,
    with 622,000 hits a second, that is 57 hits a bin. Take a threshold some standard deviations
    above the average, as 57 + 5 * 57 ** 0.5, so 95; or only the hits of one module, with the
    `io_groups` of `streamer.events.stream.events`; or a `TriggerBuilder`.

    Examples
    --------
    >>> building = WindowBuilder(threshold=2).begin()
    >>> ticks = np.array([100, 2_000, 2_100, 2_200, 3_000, 9_000])
    >>> hits = RawHits(ticks, *(np.zeros(6, dtype) for dtype in ("i8", "u4", "u2")))
    >>> from streamer.events.backlog import NO_TRIGGERS
    >>> for draft in building.add(hits, NO_TRIGGERS, upto=20_000):
    ...     print(draft.start, draft.stop, draft.hits.ticks)
    910 3640 [2000 2100 2200 3000]
    """

    bin_ticks: int = DRIFT_TICKS // 2
    threshold: int = 10
    margin: int = 1
    longest_bins: int = 64
    min_hits: int = 1

    def __post_init__(self) -> None:
        check(self, bin_ticks=1, threshold=0, margin=0, longest_bins=1, min_hits=1)

    def begin(self) -> WindowBuilding:
        """Begin to build, with nothing known."""
        return WindowBuilding(self)


class WindowBuilding:
    """Builds with a `WindowBuilder`."""

    def __init__(self, rule: WindowBuilder) -> None:
        self._rule = rule
        # Hits of bins that may become part of an event.
        self._open = NO_HITS
        # Of an event that was cut: the first bin of the rest, and the last one before that is
        # above the threshold.
        self._rest: tuple[int, int] | None = None

    def add(self, hits: RawHits, triggers: Triggers, upto: int) -> list[Draft]:
        """Add hits, as any `Building`; triggers do not matter."""
        del triggers
        hits = RawHits.joined([self._open, hits])
        width, margin = self._rule.bin_ticks, self._rule.margin
        # The bins before this one are complete.
        complete = upto // width
        cores = self._cores(hits.ticks, complete)
        rest, self._rest = self._rest, None
        if rest is not None:
            cores = np.append(rest[1], cores)
        # Those with no more than the margins of both between them are merged.
        breaks = np.flatnonzero(np.diff(cores) > 2 * margin + 1) + 1
        found: list[Draft] = []
        open_bin = complete - margin
        for run in np.split(cores, breaks) if len(cores) else []:
            begin, end = int(run[0]) - margin, int(run[-1]) + margin + 1
            if rest is not None:
                begin, rest = rest[0], None
            while end - begin > self._rule.longest_bins:
                stop = begin + self._rule.longest_bins
                if stop > complete:
                    break
                # It goes on at `stop` because of this bin.
                reason = int(run[run.searchsorted(stop - margin)])
                needs = max(reason + 1, stop) * width
                found.append(self._draft(hits, begin, stop, needs, is_cut=True))
                begin = stop
            if complete > end + margin:
                needs = (end + margin + 1) * width
                found.append(self._draft(hits, begin, end, needs, is_cut=False))
                continue
            open_bin = begin
            if begin > run[0] - margin:
                self._rest = begin, int(run[run.searchsorted(begin) - 1])
        kept = int(hits.ticks.searchsorted(open_bin * width))
        self._open = hits.part(slice(kept, None))
        return [draft for draft in found if len(draft.hits.ticks) >= self._rule.min_hits]

    def _cores(self, ticks: NDArray[np.int64], complete: int) -> NDArray[np.int64]:
        """Return the bins that are above the threshold."""
        width = self._rule.bin_ticks
        n = int(ticks.searchsorted(complete * width))
        if not n:
            return np.zeros(0, np.int64)
        bins = ticks[:n] // width
        heads = np.append(0, np.flatnonzero(np.diff(bins)) + 1)
        counts = np.diff(heads, append=n)
        cores: NDArray[np.int64] = bins[heads[counts > self._rule.threshold]]
        return cores

    def _draft(self, hits: RawHits, begin: int, end: int, needs: int, *, is_cut: bool) -> Draft:
        start, stop = begin * self._rule.bin_ticks, end * self._rule.bin_ticks
        part = slice(*hits.ticks.searchsorted([start, stop]).tolist())
        return Draft(needs, start, stop, hits.part(part), is_cut=is_cut)
