"""Taking a snapshot: from counters by number and slot to arrays by io_group and second."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.monitor.addresses import split
from streamer.monitor.axis import Axis
from streamer.monitor.channels import Channels
from streamer.monitor.counted import Counted
from streamer.monitor.counters import COUNTER, TILES, Histograms
from streamer.monitor.faults import Faults
from streamer.monitor.recent import NO_KEY, Recent
from streamer.monitor.snapshot import Histogram, Snapshot, SyncPeriod
from streamer.monitor.store import CHIP_COUNTERS
from streamer.monitor.tables import Table, ratio

__all__ = ["take_snapshot"]

_SYNC_SUMS = ("sync_sum", "sync_high_high", "sync_high_low", "sync_low_low")


def take_snapshot(counted: Counted, now: float | None) -> Snapshot:
    """Copy what a monitor has counted; `now` as in `Monitor.snapshot`."""
    seconds, spans, first = counted.seconds, counted.spans, int(counted.first.min())
    axis = Axis.of(seconds, first)
    # By io_group, not by number.
    order = np.argsort(np.array(seconds.io_groups, np.int64))
    io_groups = np.array(seconds.io_groups, np.uint8)[order]
    columns, shown = axis.columns(seconds.keys)
    shown &= seconds.keys != NO_KEY
    history = np.zeros((len(order), len(axis.seconds), seconds.width), np.int64)
    number, slot = np.nonzero(shown)
    history[np.argsort(order)[number], columns[number, slot]] = seconds.rows[number, slot]
    totals = seconds.rows.sum(axis=1)[order]
    time = int(axis.seconds[-1]) if len(axis.seconds) else None
    until = float(time or 0) if now is None else float(now)
    newest = axis.newest[order]
    chosen, length, is_complete = _newest_spans(spans, axis, first, counted.span)
    counts = {name: place for name, place in COUNTER.items() if name not in _SYNC_SUMS}
    return Snapshot(
        time=time,
        now=until,
        seconds=axis.seconds,
        complete=axis.complete,
        io_groups=io_groups,
        newest=newest,
        history={name: history[..., place].copy() for name, place in counts.items()},
        totals={name: totals[..., place].copy() for name, place in counts.items()},
        tiles=_tiles(io_groups, history[..., -TILES:], totals[..., -TILES:]),
        channels=_channels(counted, chosen, length, is_complete),
        chips=_chips(counted.channels),
        histograms=_histograms(counted.layout, spans, chosen, order),
        sync_period=_sync_period(totals),
        recent_sync_period=_sync_period(history.sum(axis=1)),
        sync_history=ratio(
            history[..., COUNTER["sync_sum"]], history[..., COUNTER["sync_resets"]]
        ),
        message_age=_ages(newest, until),
        sync_age=_ages(_last_syncs(seconds, axis, counted.last_sync)[order], until),
        faults=dict(counted.faults.totals),
        fault_history=_fault_history(counted.faults, axis, first),
        undated=counted.undated,
        misdated=counted.misdated,
    )


def _newest_spans(
    spans: Recent, axis: Axis, first: int, span: int
) -> tuple[NDArray[np.bool_], int, bool]:
    """Choose the spans of time that count as the newest; `first` is the first second of all.

    Returns
    -------
    chosen : NDArray
        (G, 1 + depth) bool: the slots.
    seconds : int
        How long they are together.
    is_complete : bool
        Whether they were seen as a whole: as many as there are, or else all that there is.
    """
    if not len(axis.seconds):
        return np.zeros(spans.keys.shape, np.bool_), 0, False
    last = int(axis.seconds[-1]) // span
    keys = np.arange(last - spans.depth + 1, last + 1)
    whole = axis.seconds[axis.complete]
    if len(whole):
        # Also those that begin before the seconds that are shown.
        done = keys[(keys * span > first) & ((keys + 1) * span - 1 <= whole[-1])]
        if len(done):
            return np.isin(spans.keys, done), span * len(done), True
    start = max(int(axis.seconds[0]), int(keys[0]) * span)
    return np.isin(spans.keys, keys[keys >= 0]), int(axis.seconds[-1]) - start + 1, False


def _channels(
    counted: Counted, chosen: NDArray[np.bool_], seconds: int, is_complete: bool
) -> Table:
    by_group = np.zeros((256, chosen.shape[1]), np.bool_)
    by_group[counted.spans.io_groups] = chosen
    keys, recent, total = counted.reader.read(counted.channels, by_group)
    return Table(keys, "channel", recent, total, seconds, is_complete)


def _chips(channels: Channels) -> dict[str, NDArray[Any]]:
    keys, counts = channels.chips_seen()
    io_group, io_channel, chip_id, _ = split(keys << np.uint32(6))
    found: dict[str, NDArray[Any]] = {
        "io_group": io_group,
        "io_channel": io_channel,
        "chip_id": chip_id,
    }
    return found | {
        name: column.copy() for name, column in zip(CHIP_COUNTERS, counts.T, strict=True)
    }


def _tiles(
    io_groups: NDArray[np.uint8], history: NDArray[np.int64], totals: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    place, tile = np.nonzero(totals)
    return {
        "io_group": io_groups[place],
        "tile": tile.astype(np.uint8),
        "history": history[place, :, tile],
        "total": totals[place, tile],
    }


def _histograms(
    layout: Histograms, spans: Recent, chosen: NDArray[np.bool_], order: NDArray[np.int64]
) -> dict[str, Histogram]:
    total = spans.rows.sum(axis=1)[order]
    recent = (spans.rows * chosen[..., np.newaxis]).sum(axis=1)[order]
    found = {}
    for name in layout.names:
        edges = layout.edges(name)
        count = len(edges) - 1
        now, ever = (layout.part(rows, name) for rows in (recent, total))
        outside = [
            rows[:, count:] if name in layout.bins else np.zeros((len(order), 2), np.int64)
            for rows in (now, ever)
        ]
        found[name] = Histogram(edges, now[:, :count], ever[:, :count], *outside)
    return found


def _sync_period(sums: NDArray[np.int64]) -> SyncPeriod:
    """Return mean and sigma, from exact sums over G io_groups."""
    count = sums[:, COUNTER["sync_resets"]]
    mean, sigma = np.full((2, len(count)), np.nan)
    for k, number in enumerate(count.tolist()):
        if number:
            total, high, mixed, low = (int(sums[k, COUNTER[name]]) for name in _SYNC_SUMS)
            squares = (high << 32) + (mixed << 17) + low
            mean[k] = total / number
            # Of whole numbers, so that what is nearly the same does not cancel out.
            sigma[k] = max(0, number * squares - total**2) ** 0.5 / number
    return SyncPeriod(count.copy(), mean, sigma)


def _last_syncs(seconds: Recent, axis: Axis, last: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the newest second with a sync of each io_group, none after its newest one."""
    has = seconds.rows[..., COUNTER["sync_resets"]] > 0
    keys = np.where(has & (seconds.keys <= axis.newest[:, np.newaxis]), seconds.keys, NO_KEY)
    found = keys.max(axis=1, initial=NO_KEY)
    # One so old that its second is no longer kept.
    older = last[seconds.io_groups] if len(found) else found
    return np.where((found == NO_KEY) & (older <= axis.newest), older, found)


def _ages(times: NDArray[np.int64], now: float) -> NDArray[np.float64]:
    return np.where(times == NO_KEY, np.nan, np.maximum(now - times, 0))


def _fault_history(faults: Faults, axis: Axis, first: int) -> dict[str, NDArray[np.int64]]:
    found = {}
    for kind in faults.totals:
        column = found[kind] = np.zeros(len(axis.seconds), np.int64)
        timed = faults.seconds.get(kind, {})
        places, shown = axis.columns(np.fromiter(timed, np.int64, len(timed)))
        column[places[shown]] = np.fromiter(timed.values(), np.int64, len(timed))[shown]
        if len(column) and axis.seconds[0] == first:
            column[0] += faults.early.get(kind, 0)
    return found
