"""Counters of channels, or of chips, io_channels, tiles or io_groups, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streamer.monitor.addresses import split

__all__ = ["LEVELS", "Table", "named", "plain", "ratio", "tiles"]

#: What counters can be summed up by: how to make a key of a channel's, which fields it has.
LEVELS: Final = ("channel", "chip", "io_channel", "tile", "io_group")
_SHIFTS: Final = {"channel": 0, "chip": 6, "io_channel": 14, "tile": 14, "io_group": 22}
_FIELDS: Final = ("io_group", "io_channel", "chip_id", "channel_id")


@dataclass(frozen=True, eq=False)
class Table:
    """Counters of N channels, or whatever else, in the order of their addresses.

    Parameters
    ----------
    keys
        (N,) u4: 30 bits of address each; of the first channel, if it is not of channels.
    level
        One of `LEVELS`.
    recent, total
        Counter to its values, (N,) i8: in the newest spans of time, and since the beginning.
        ``data``: data packets; ``data_parity_errors``: those with invalid parity; ``adc_sum``
        and ``adc_square_sum``: over those with valid parity; ``local_fifo_half``,
        ``local_fifo_full``, ``shared_fifo_half`` and ``shared_fifo_full``: those with FIFO
        flags, by bits.
    seconds
        How long the newest spans of time are together.
    is_complete
        Whether all of each of them was seen; if not, rates are too low.

    Examples
    --------
    >>> counts = {"data": np.array([90, 10, 100]), "data_parity_errors": np.array([0, 0, 0])}
    >>> keys = np.array([1 << 22 | 1 << 14, 1 << 22 | 4 << 14, 1 << 22 | 5 << 14], "u4")
    >>> table = Table(keys, "channel", counts, counts, seconds=10, is_complete=True)
    >>> table.by("tile").recent["data"].tolist(), table.by("tile").rate.tolist()
    ([100, 100], [10.0, 10.0])
    """

    keys: NDArray[np.uint32]
    level: str
    recent: dict[str, NDArray[np.int64]]
    total: dict[str, NDArray[np.int64]]
    seconds: int
    is_complete: bool

    def __len__(self) -> int:
        return len(self.keys)

    def __repr__(self) -> str:
        return f"<Table of {len(self):,} {self.level}s>"

    @property
    def address(self) -> dict[str, NDArray[np.uint8]]:
        """The fields of the addresses, each of (N,) u1: of a channel all four; of tiles two."""
        address = split(self.keys)
        if self.level == "tile":
            return {"io_group": address.io_group, "tile": tiles(self.keys).astype(np.uint8)}
        count = 4 - ("channel", "chip", "io_channel", "io_group").index(self.level)
        return dict(zip(_FIELDS, address[:count], strict=False))

    @property
    def rate(self) -> NDArray[np.float64]:
        """(N,) f8: data packets in a second, in the newest spans of time [Hz]."""
        return self.recent["data"] / max(self.seconds, 1)

    @property
    def share(self) -> NDArray[np.float64]:
        """(N,) f8: the part of all data packets in the newest spans of time."""
        return self.recent["data"] / max(int(self.recent["data"].sum()), 1)

    def adc_mean(self, *, recent: bool = True) -> NDArray[np.float64]:
        """Return the mean dataword of data packets with valid parity, (N,) f8; NaN of none."""
        counts = self.recent if recent else self.total
        return ratio(counts["adc_sum"], counts["data"] - counts["data_parity_errors"])

    def adc_rms(self, *, recent: bool = True) -> NDArray[np.float64]:
        """Return the root mean square of their differences from the mean, (N,) f8."""
        counts = self.recent if recent else self.total
        square = ratio(counts["adc_square_sum"], counts["data"] - counts["data_parity_errors"])
        return np.sqrt(np.maximum(square - self.adc_mean(recent=recent) ** 2, 0))

    def fraction(self, name: str, *, recent: bool = True) -> NDArray[np.float64]:
        """Return a counter divided by data packets, (N,) f8; NaN where there are none.

        Parameters
        ----------
        name
            As ``data_parity_errors`` or ``shared_fifo_full``.
        recent
            Of the newest spans of time, else since the beginning.

        Raises
        ------
        ValueError
            If there is no such counter.
        """
        counts = self.recent if recent else self.total
        return ratio(named(counts, name), counts["data"])

    def hottest(self, count: int, *, recent: bool = True) -> NDArray[np.int64]:
        """Return the indices with the most data packets, (min(count, N),) i8.

        The highest first; of equal ones, the lower address first.
        """
        data = (self.recent if recent else self.total)["data"]
        if count < len(data):
            least = np.partition(data, len(data) - count)[len(data) - count] if count else 0
            chosen = np.flatnonzero(data >= least)
        else:
            chosen = np.arange(len(data))
        return chosen[np.argsort(-data[chosen], kind="stable")][:count]

    def by(self, level: str) -> Table:
        """Sum up.

        Parameters
        ----------
        level
            One of `LEVELS`, above the own one.

        Raises
        ------
        ValueError
            If it is not.
        """
        above = LEVELS[LEVELS.index(self.level) :]
        if level not in above:
            msg = f"{self.level}s can be summed up by {', '.join(above)}, not by {level!r}"
            raise ValueError(msg)
        groups = (self.keys >> np.uint32(_SHIFTS[level])).astype(np.int64)
        if level == "tile":
            groups = groups >> 8 << 8 | tiles(self.keys)
        starts = np.flatnonzero(np.append(True, groups[1:] != groups[:-1])[: len(groups)])

        def summed(counts: dict[str, NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
            if not len(starts):
                return counts
            return {name: np.add.reduceat(column, starts) for name, column in counts.items()}

        return Table(
            self.keys[starts],
            level,
            summed(self.recent),
            summed(self.total),
            self.seconds,
            self.is_complete,
        )

    @property
    def columns(self) -> dict[str, NDArray[Any]]:
        """All there is of each, (N,): address, rate, share, ADC mean and RMS, and counters."""
        columns: dict[str, NDArray[Any]] = self.address | {
            "rate": self.rate,
            "share": self.share,
            "adc_mean": self.adc_mean(),
            "adc_rms": self.adc_rms(),
        }
        columns |= {f"recent_{name}": column for name, column in self.recent.items()}
        columns |= {f"total_{name}": column for name, column in self.total.items()}
        return columns

    def rows(self, places: NDArray[np.int64]) -> list[dict[str, Any]]:
        """Return some of the lines for a program, ready for JSON."""
        columns = {name: plain(column[places]) for name, column in self.columns.items()}
        return [
            dict(zip(columns, line, strict=True)) for line in zip(*columns.values(), strict=True)
        ]


def tiles(keys: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Return the tile of each channel: four io_channels each, from 1; 0 of io_channel 0."""
    return (split(keys).io_channel.astype(np.int64) - 1) // 4 + 1


def named(counters: Mapping[str, NDArray[np.int64]], name: str) -> NDArray[np.int64]:
    """Return the counter of a name, or say which there are."""
    if name not in counters:
        msg = f"no counter is {name!r}; there are {', '.join(counters)}"
        raise ValueError(msg)
    return counters[name]


def ratio(count: NDArray[np.int64], by: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return count by another, NaN where that is 0."""
    return np.where(by > 0, count, np.nan) / np.maximum(by, 1)


def plain(array: NDArray[Any]) -> list[Any]:
    """Return an array as lists for JSON, which knows no NaN: None instead."""
    if array.dtype.kind == "f":
        is_nan = np.isnan(array)
        array = array.astype(object)
        array[is_nan] = None
    found: list[Any] = array.tolist()
    return found
