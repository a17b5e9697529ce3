"""Which hits come when after an external trigger, whatever the stream is cut into."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from streamer.monitor.counters import Bins
from streamer.monitor.marks import Found, Held, Hits, Marks, State

__all__ = ["Triggers"]

_GROUPS = 256
# Tables have a line for each trigger and a column for each io_group: so many lines at once.
_LINES = 1024
# So many arrays of held hits, until they are joined.
_PARTS = 64


_NONE = np.empty(0, np.int64)
_NOTHING = Found(_NONE, _NONE)
_NO_HITS = Held(np.empty(0, np.uint8), _NONE, _NONE, _NONE, np.empty(0, np.uint16))


class Triggers:
    """The last external trigger of each io_group, and which hits came how long after it.

    A hit is compared with the last trigger before it in the stream. A trigger is forgotten
    after `reach` hits of the io_group that is compared with it: so not more than so many have
    to be held for the triggers of an earlier part of the stream.

    Parameters
    ----------
    source
        io_group to the one whose triggers its hits are compared with; hits of io_groups that
        are not named are not compared. Or one for all; or None, each with its own.
    reach
        Hits of an io_group.
    bins
        Of the differences [ticks].

    Examples
    --------
    >>> triggers = Triggers(None, reach=10, bins=Bins(-20, 10, 100))
    >>> hits = Hits(
    ...     places=np.array([1, 4]),
    ...     which=np.array([0, 0]),
    ...     ticks=np.array([90, 115]),
    ...     adc=np.array([40, 50]),
    ...     mask=np.array(2**31 - 1),
    ...     io_groups=np.array([5], "u1"),
    ...     keys=np.array([170]),
    ... )
    >>> marks = Marks(np.array([3]), np.array([5], "u1"), np.array([100]))
    >>> triggers.compare(hits, marks)
    Found(hits=array([1]), bins=array([3]))
    """

    def __init__(self, source: Mapping[int, int] | int | None, reach: int, bins: Bins) -> None:
        groups = range(_GROUPS)
        if source is None or isinstance(source, int):
            source = {group: group if source is None else source for group in groups}
        self.state = State(
            np.array([source.get(group, -1) for group in groups]),
            np.zeros(_GROUPS, np.bool_),
            *np.zeros((2, _GROUPS), np.int64),
        )
        self._held: list[Held] = []
        self.reach, self.bins = reach, bins

    def compare(self, hits: Hits, marks: Marks) -> Found:
        """Go on with the stream, and tell which hits are within the bins."""
        stops = np.searchsorted(hits.places, marks.places)
        found = []
        start = 0
        for first in range(0, max(1, len(stops)), _LINES):
            last = first + _LINES
            stop = int(stops[last]) if last < len(stops) else len(hits.places)
            some, part = hits.part(start, stop), marks.part(first, last)
            near = self._compare(some, part, stops[first:last] - start)
            found.append(Found(near.hits + start, near.bins))
            start = stop
        return Found(
            np.concatenate([near.hits for near in found]),
            np.concatenate([near.bins for near in found]),
        )

    def _compare(self, hits: Hits, marks: Marks, stops: NDArray[np.int64]) -> Found:
        """Do so, where before hit ``stops[k]`` comes trigger k."""
        groups, columns = np.unique(hits.io_groups, return_inverse=True)
        if not len(stops) and (self.state.since[groups] >= self.reach).all():
            return _NOTHING  # nearly always, where there are no triggers
        source = self.state.source[groups]
        # A table: line 0 is before the first trigger, line k behind trigger k - 1.
        lines, width = len(stops) + 1, len(groups)
        cells = columns.take(hits.which)
        if len(stops):
            lengths = np.diff(stops, prepend=0, append=len(hits.which))
            cells += np.repeat(np.arange(0, lines * width, width), lengths)
        counts = np.bincount(cells, minlength=lines * width).reshape(lines, width)
        # The line with whose trigger hits are compared, 0 if it is none of these.
        begins = np.zeros((lines, width), np.int64)
        is_source = marks.io_groups[:, np.newaxis] == source
        begins[1:] = is_source * np.arange(1, lines)[:, np.newaxis]
        begins = np.maximum.accumulate(begins, axis=0)
        is_new = begins > 0
        ticks = np.where(is_new, np.append(0, marks.ticks)[begins], self.state.ticks[source])
        is_known = is_new | self.state.fired[source]
        before = np.cumsum(counts, axis=0) - counts
        since = before - np.take_along_axis(before, begins, axis=0)
        since += np.where(is_new, 0, self.state.since[groups])
        # How many hits of a cell are within reach.
        within = np.minimum(counts, np.maximum(self.reach - since, 0))
        within[:, source < 0] = 0

        self._hold(hits, cells, np.where(is_known, 0, within), counts)
        near = self._near(hits, cells, ticks, np.where(is_known, within, 0), counts)
        if len(stops):
            self.state.since[np.isin(self.state.source, marks.io_groups)] = 0
            self.state.fired[marks.io_groups] = True
            # Of the same io_group, the last one stays.
            self.state.ticks[marks.io_groups] = marks.ticks
        self.state.since[groups] = np.minimum(since[-1] + counts[-1], self.reach)
        return near

    def _near(
        self,
        hits: Hits,
        cells: NDArray[np.int64],
        ticks: NDArray[np.int64],
        within: NDArray[np.int64],
        counts: NDArray[np.int64],
    ) -> Found:
        """Compare the first hits of each cell, so many as are within reach."""
        if not within.any():
            return _NOTHING
        differences = hits.ticks - ticks.take(cells)
        differences -= self.bins.first
        differences &= hits.mask
        near = np.flatnonzero(differences < self.bins.width * self.bins.size)
        near = near[_first(near, cells, within, counts)]
        return Found(near, differences[near] // self.bins.width)

    def _hold(
        self,
        hits: Hits,
        cells: NDArray[np.int64],
        within: NDArray[np.int64],
        counts: NDArray[np.int64],
    ) -> None:
        """Hold the first hits of each cell, so many as an earlier trigger may reach."""
        if not within.any():
            return
        held = np.flatnonzero(within.ravel().astype(np.bool_).take(cells))
        held = held[_first(held, cells, within, counts)]
        which = hits.which[held]
        self.hold(
            Held(
                hits.io_groups[which],
                hits.keys[which],
                hits.ticks[held],
                np.broadcast_to(hits.mask, hits.ticks.shape)[held],
                hits.adc[held].astype(np.uint16),
            )
        )

    def hold(self, held: Held) -> None:
        """Hold hits for which there may be an earlier trigger, those that one may reach."""
        self._held.append(held)
        if len(self._held) > _PARTS:
            self._held = [self._all_held()]

    def merge(self, other: Triggers) -> tuple[Held, NDArray[np.int64]]:
        """Go on with what another one has seen, of the part of the stream that comes next.

        Returns
        -------
        held : Held
            Hits that the other one held, and that are near a trigger from before.
        bins : NDArray
            i8: the bin of each.
        """
        held, mine, theirs = other._all_held(), self.state, other.state
        near, left = np.zeros(len(held.ticks), np.bool_), np.zeros(len(held.ticks), np.bool_)
        for io_group in np.unique(held.io_groups).tolist():
            of_group = np.flatnonzero(held.io_groups == io_group)
            of_group = of_group[: max(0, self.reach - int(mine.since[io_group]))]
            (near if mine.fired[mine.source[io_group]] else left)[of_group] = True
        differences = held.ticks - mine.ticks[mine.source[held.io_groups]] - self.bins.first
        differences &= held.masks
        near &= differences < self.bins.width * self.bins.size
        if left.any():
            self.hold(held.taken(left))
        fired = theirs.fired[mine.source] & (mine.source >= 0)
        added = np.minimum(mine.since + theirs.since, self.reach)
        mine.since[:] = np.where(fired, theirs.since, added)
        mine.ticks[theirs.fired] = theirs.ticks[theirs.fired]
        mine.fired[theirs.fired] = True
        return held.taken(near), differences[near] // self.bins.width

    def _all_held(self) -> Held:
        parts = [_NO_HITS, *self._held]
        return Held(
            np.concatenate([part.io_groups for part in parts]),
            np.concatenate([part.keys for part in parts]),
            np.concatenate([part.ticks for part in parts]),
            np.concatenate([part.masks for part in parts]),
            np.concatenate([part.adc for part in parts]),
        )


def _first(
    chosen: NDArray[np.int64],
    cells: NDArray[np.int64],
    within: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Tell which of some chosen hits are among the first ones of their cell.

    Parameters
    ----------
    chosen
        (K,) i8: indices of hits.
    cells
        (H,) i8: the cell of each hit.
    within, counts
        How many there are in each cell, and how many of them are the first ones.
    """
    first = (within > 0).ravel()[cells[chosen]]
    # A reach ends once after each trigger: so in few of the cells, unless it is very short.
    for cell in np.flatnonzero(((within > 0) & (within < counts)).ravel()).tolist():
        last = np.flatnonzero(cells == cell)[within.ravel()[cell] - 1]
        first &= (cells[chosen] != cell) | (chosen <= last)
    return first
