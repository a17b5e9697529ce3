"""Snapshot: what a monitor has seen, as plain arrays and as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.monitor.addresses import split
from streamer.monitor.counters import PACKET_TYPES
from streamer.monitor.tables import Table, named, plain, ratio, tiles

__all__ = ["Histogram", "Snapshot", "SyncPeriod"]


class SyncPeriod(NamedTuple):
    """Deviation of the sync period: timestamp of S/S words minus 10,000,000 ticks."""

    #: (G,) i8: how many there were.
    syncs: NDArray[np.int64]
    #: (G,) f8 [ticks]; NaN where there were none.
    mean: NDArray[np.float64]
    #: (G,) f8 [ticks]: root mean square of the differences from the mean.
    sigma: NDArray[np.float64]


class Histogram(NamedTuple):
    """How often values were in each of B bins, by io_group."""

    #: (B + 1,) i8: a value is in bin k if ``edges[k] <= value < edges[k + 1]``.
    edges: NDArray[np.int64]
    #: (G, B) i8: in the newest spans of time, and since the beginning.
    recent: NDArray[np.int64]
    total: NDArray[np.int64]
    #: (G, 2) i8: how often they were below all bins, and above.
    recent_outside: NDArray[np.int64]
    total_outside: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What a monitor has seen: G io_groups, S seconds, T tiles, D chips.

    Made by `Monitor.snapshot`.

    Attributes
    ----------
    time : int or None
        The newest second; None if no message had a time.
    now : float
        Unix time that ages are counted to.
    seconds : NDArray
        (S,) i8: Unix seconds without a gap, of the messages' headers, the newest at last.
    complete : NDArray
        (S,) bool: whether the whole second was seen. The newest one never was, the one in
        which the stream began neither, and others not before every io_group is past them
        that is not more than 2 seconds behind.
    io_groups : NDArray
        (G,) u1: those that were seen, ascending.
    newest : NDArray
        (G,) i8: the newest second of each, -1 if it had none. If it is after `time`, the clock
        of this card is ahead of most.
    history : dict of str to NDArray
        Counter to (G, S) i8: so many in each second. Of messages: ``messages``, ``bytes`` and
        ``words``. Of packets by type: ``data``, ``test``, ``config_write``, ``config_read``,
        ``timestamp``, ``message``, ``sync``, ``trigger``. Of packets of chips: ``upstream``,
        ``downstream``, ``parity_errors``; of data packets: ``data_parity_errors``, and
        ``local_fifo_half``, ``_full`` and ``_flagged``, which is either, and so with
        ``shared_fifo``. Of configuration: ``write_upstream``, ``write_downstream``,
        ``read_upstream``, ``read_downstream``, ``config_parity_errors``. By letter:
        ``sync_resets`` (S), ``heartbeats`` (H), ``clock_switches`` (C); ``external_triggers``.
    totals : dict of str to NDArray
        Counter to (G,) i8: so many since the beginning, also without a time.
    tiles : dict of str to NDArray
        ``io_group`` and ``tile``, (T,) u1; ``history``, (T, S) i8, and ``total``, (T,) i8:
        data packets.
    channels : Table
        Counters of each channel.
    chips : dict of str to NDArray
        ``io_group``, ``io_channel`` and ``chip_id``, (D,) u1; packets that are no data since
        the beginning, (D,) i8: ``test``, ``write_upstream``, ``write_downstream``,
        ``read_upstream``, ``read_downstream``, ``config_parity_errors``.
    histograms : dict of str to Histogram
        ``adc``, ``readout_delay``, ``readout_delay_phase``, ``sync_period``, ``trigger``,
        ``trigger_adc``, ``trigger_to_trigger`` and ``words_per_message``: what each is, and its
        unit, is in the table of `streamer.monitor`.
    sync_period, recent_sync_period : SyncPeriod
        Since the beginning, and in the seconds that are shown.
    sync_history : NDArray
        (G, S) f8 [ticks]: the mean in each second; NaN where there was no S.
    message_age, sync_age : NDArray
        (G,) f8 [s]: from the newest second, and from the newest one with an S, to `now`, as
        headers have the time, so to a second. NaN where there was none.
    faults : dict of str to int
        Kind to number of faults since the beginning.
    fault_history : dict of str to NDArray
        Kind to (S,) i8: so many in each second, by the last message with a time before; or by
        the first one, if there was none before.
    undated, misdated : int
        Messages whose header has no time; and whose header was too far ahead of when they
        arrived.

    Examples
    --------
    >>> from streamer.monitor import Monitor
    >>> snapshot = Monitor().snapshot()
    >>> len(snapshot.io_groups), snapshot.faults
    (0, {})
    """

    time: int | None
    now: float
    seconds: NDArray[np.int64]
    complete: NDArray[np.bool_]
    io_groups: NDArray[np.uint8]
    newest: NDArray[np.int64]
    history: dict[str, NDArray[np.int64]]
    totals: dict[str, NDArray[np.int64]]
    tiles: dict[str, NDArray[Any]]
    channels: Table
    chips: dict[str, NDArray[Any]]
    histograms: dict[str, Histogram]
    sync_period: SyncPeriod
    recent_sync_period: SyncPeriod
    sync_history: NDArray[np.float64]
    message_age: NDArray[np.float64]
    sync_age: NDArray[np.float64]
    faults: dict[str, int]
    fault_history: dict[str, NDArray[np.int64]]
    undated: int
    misdated: int

    def __repr__(self) -> str:
        return (
            f"<Snapshot at {self.time}: {len(self.io_groups)} io_groups, "
            f"{len(self.seconds)} seconds, {len(self.channels):,} channels>"
        )

    @property
    def packets(self) -> NDArray[np.int64]:
        """(G, S) i8: packets of all types, which are 8 of the counters in `history`."""
        packets: NDArray[np.int64] = np.sum([self.history[name] for name in PACKET_TYPES], axis=0)
        return packets

    @property
    def parity_error_fraction(self) -> NDArray[np.float64]:
        """(G, S) f8: packets of chips with invalid parity, by packets of chips; NaN of none."""
        history = self.history
        return ratio(history["parity_errors"], history["upstream"] + history["downstream"])

    def fraction(self, name: str, by: str = "data") -> NDArray[np.float64]:
        """Return one counter divided by another, (G, S) f8; NaN where the latter is 0.

        Parameters
        ----------
        name, by
            Names in `history`, as ``"shared_fifo_full"``; or ``"packets"``, of all types.

        Raises
        ------
        ValueError
            If there is no such counter.
        """
        counters = self.history | {"packets": self.packets}
        return ratio(named(counters, name), named(counters, by))

    def noisy(self, rate: float) -> dict[str, list[int]]:
        """List channels that are faster than so many hits/s, as lists of disabled channels do.

        All io_channels of a tile lead to the same channel, so that their hits are summed up.

        Parameters
        ----------
        rate
            Hits a second [Hz] in the newest spans of time; a channel with more is listed.

        Returns
        -------
        dict
            ``"io_group-tile-chip_id"`` to channel_ids, ascending.
        """
        table = self.channels
        # As an address, but with the tile instead of the io_channel.
        pixels = table.keys & ~np.uint32(255 << 14) | tiles(table.keys).astype(np.uint32) << 14
        pixels, of = np.unique(pixels, return_inverse=True)
        hits = np.bincount(of, table.recent["data"], len(pixels))
        fast = pixels[hits > rate * max(table.seconds, 1)]
        found: dict[str, list[int]] = {}
        for *chip, channel in zip(*(field.tolist() for field in split(fast)), strict=True):
            found.setdefault("-".join(map(str, chip)), []).append(channel)
        return found

    def invalid_addresses(self, chip_ids: range, *, recent: bool = True) -> float:
        """Return the part of the data packets whose chip_id is not among those that exist.

        Parameters
        ----------
        chip_ids
            As ``range(11, 111)`` of a tile of 10 x 10 chips, ``range(10, 170)`` of 10 x 16.
        recent
            Of the newest spans of time, else since the beginning.
        """
        data = (self.channels.recent if recent else self.channels.total)["data"]
        known = np.isin(split(self.channels.keys).chip_id, chip_ids)
        return float(ratio(data[~known].sum(), data.sum()))

    def as_dict(self, *, channels: int | None = 100, histograms: bool = True) -> dict[str, Any]:
        """Return all of it for a program, ready for JSON, in which None stands for NaN.

        Parameters
        ----------
        channels
            So many of the hottest channels, as a list; None: all of them, as columns, which
            takes some 130 bytes each.
        histograms
            Whether with these.
        """
        table = self.channels
        listed = (
            {"all": {name: plain(column) for name, column in table.columns.items()}}
            if channels is None
            else {"hottest": table.rows(table.hottest(channels))}
        )
        found: dict[str, Any] = {
            "time": self.time,
            "now": self.now,
            "seconds": plain(self.seconds),
            "complete": plain(self.complete),
            "io_groups": plain(self.io_groups),
            "newest": plain(self.newest),
            "history": {name: plain(column) for name, column in self.history.items()},
            "parity_error_fraction": plain(self.parity_error_fraction),
            "totals": {name: plain(column) for name, column in self.totals.items()},
            "tiles": {name: plain(column) for name, column in self.tiles.items()},
            "channels": {
                "count": len(table),
                "seconds": table.seconds,
                "is_complete": table.is_complete,
                **listed,
            },
            "chips": {name: plain(column) for name, column in self.chips.items()},
            "sync_period": _columns(self.sync_period),
            "recent_sync_period": _columns(self.recent_sync_period),
            "sync_history": plain(self.sync_history),
            "message_age": plain(self.message_age),
            "sync_age": plain(self.sync_age),
            "faults": dict(self.faults),
            "fault_history": {name: plain(column) for name, column in self.fault_history.items()},
            "undated": self.undated,
            "misdated": self.misdated,
        }
        if histograms:
            found["histograms"] = {name: _columns(one) for name, one in self.histograms.items()}
        return found

    def to_json(self, **options: Any) -> str:
        """Return it as a text in JSON; options are those of `as_dict`."""
        return json.dumps(self.as_dict(**options), allow_nan=False)


def _columns(columns: Any) -> dict[str, Any]:
    return {name: plain(column) for name, column in columns._asdict().items()}
