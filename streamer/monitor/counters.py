"""What is counted of an io_group: numbers by second, and histograms by span of time.

The definitions are those of the field's online tools (mjkramer/larpix-monitor,
lbl-neutrino/pacmon), but FIFO flags are taken by bits, and other chips than v2 as they are.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from writer.pacman import TICKS_PER_SECOND

__all__ = [
    "COUNTER",
    "COUNTERS",
    "NOMINAL_SYNC_TICKS",
    "PACKET_TYPES",
    "TILES",
    "UART_TICKS",
    "WORD_BINS",
    "WORD_EDGES",
    "Bins",
    "Histograms",
]

#: Counters of an io_group in a second.
COUNTERS: Final = (
    # Messages, and the bytes and words of them that could be decoded.
    "messages",
    "bytes",
    "words",
    # Packets by type. The header of a message is a timestamp.
    "data",
    "test",
    "config_write",
    "config_read",
    "timestamp",
    "message",
    "sync",
    "trigger",
    # Packets of chips (data, test, write, read) with invalid parity; data packets among them.
    "parity_errors",
    "data_parity_errors",
    # Packets of chips by bit 62: a diagnostic, not something to choose packets by.
    "upstream",
    "downstream",
    # Packets that write or read a register.
    "write_upstream",
    "write_downstream",
    "read_upstream",
    "read_downstream",
    "config_parity_errors",
    # Data packets by FIFO flags: with bit 0, with bit 1, with either.
    "local_fifo_half",
    "local_fifo_full",
    "local_fifo_flagged",
    "shared_fifo_half",
    "shared_fifo_full",
    "shared_fifo_flagged",
    # Syncs by letter: S, H and C. Triggers with the bit of the external one.
    "sync_resets",
    "heartbeats",
    "clock_switches",
    "external_triggers",
    # Over syncs with S: sums of d, which is timestamp - NOMINAL_SYNC_TICKS, and of products
    # of its parts, d = high * 2^16 + low, so that no square overflows.
    "sync_sum",
    "sync_high_high",
    "sync_high_low",
    "sync_low_low",
)
#: The place of each.
COUNTER: Final = {name: place for place, name in enumerate(COUNTERS)}

#: Those by which packets are sorted, each in one of them.
PACKET_TYPES: Final = COUNTERS[COUNTER["data"] : COUNTER["trigger"] + 1]

#: Tiles of an io_group: 1 to 64, and 0, where io_channel 0 is counted.
TILES: Final = 65

#: The counter's last value before a reset, if that comes each second.
NOMINAL_SYNC_TICKS: Final = TICKS_PER_SECOND

#: (145,) i8: edges of bins for the number of words of a message; they are exact up to 64, and
#: from there on an eighth to a sixteenth wide.
WORD_EDGES: Final = np.concatenate(
    [np.arange(64), *(2**k * (8 + np.arange(8)) // 8 for k in range(6, 16)), [2**16]]
)
#: (65536,) i8: the bin of each number of words.
WORD_BINS: Final = np.repeat(np.arange(len(WORD_EDGES) - 1), np.diff(WORD_EDGES))


#: Ticks of a word on the UART of a chip: 66 bits, of 4 ticks each.
UART_TICKS: Final = 66 * 4
_DELAY_BINS = 512
_ADC_BINS = 1024
_SYNC_TICKS, _SKEW_TICKS = 100, 1000
_TRIGGER_TICKS = 10


class Bins(NamedTuple):
    """Bins of one width; then one for what is below them, and one for what is above.

    Examples
    --------
    >>> bins = Bins(first=-20, width=10, size=4)
    >>> bins.edges.tolist(), bins.find(np.array([-21, -20, 19, 20])).tolist()
    ([-20, -10, 0, 10, 20], [4, 0, 3, 5])
    """

    first: int
    width: int
    size: int

    @property
    def edges(self) -> NDArray[np.int64]:
        """(size + 1,) i8: a value is in bin k if ``edges[k] <= value < edges[k + 1]``."""
        return self.first + self.width * np.arange(self.size + 1)

    def find(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the bins of values, i8 of any shape: ``size`` below, ``size + 1`` above."""
        bins: NDArray[np.int64] = (values - self.first) // self.width
        return np.where(bins < 0, self.size, np.where(bins < self.size, bins, self.size + 1))


class Histograms:
    """The histograms of an io_group in a span of time, one behind the other in a row.

    Parameters
    ----------
    drift_ticks
        How long charge drifts at the most: the length of drift that trigger correlation is
        measured in.

    Attributes
    ----------
    bins : dict of str to Bins
        ``adc``: of data packets with valid parity, their dataword. ``readout_delay``: of
        those, receipt_timestamp, as many bits as the chip's counter has, minus timestamp, in
        words on a UART; ``readout_delay_phase``: within such a word. ``sync_period``: of syncs
        with S, timestamp - 10,000,000 ticks. ``trigger``: of data packets with valid parity,
        timestamp minus that of the preceding external trigger; what is outside is not counted.
        ``trigger_adc``: the same, but the sum of their datawords. ``trigger_to_trigger``: of
        external triggers, timestamp minus that of the one before, whatever its io_group.
    width : int
        Of a row.

    Examples
    --------
    >>> Histograms(drift_ticks=1_900).bins["trigger"]
    Bins(first=-190, width=10, size=779)
    """

    def __init__(self, drift_ticks: int) -> None:
        first = -_TRIGGER_TICKS * round(drift_ticks / 10 / _TRIGGER_TICKS)
        trigger = Bins(first, _TRIGGER_TICKS, -(-(4 * drift_ticks - first) // _TRIGGER_TICKS))
        self.bins = {
            "adc": Bins(0, 1, _ADC_BINS),
            "readout_delay": Bins(0, UART_TICKS, _DELAY_BINS),
            "readout_delay_phase": Bins(0, 1, UART_TICKS),
            "sync_period": Bins(-_SYNC_TICKS, 1, 2 * _SYNC_TICKS + 1),
            "trigger": trigger,
            "trigger_adc": trigger,
            "trigger_to_trigger": Bins(-_SKEW_TICKS, 1, 2 * _SKEW_TICKS + 1),
        }
        self._starts: dict[str, int] = {}
        self.width = 0
        for name, bins in self.bins.items():
            self._starts[name] = self.width
            self.width += bins.size + 2
        self._starts["words_per_message"] = self.width
        self.width += len(WORD_EDGES) - 1

    @property
    def names(self) -> tuple[str, ...]:
        """Those with `bins`, and ``words_per_message``, whose edges are `WORD_EDGES`."""
        return tuple(self._starts)

    def edges(self, name: str) -> NDArray[np.int64]:
        """Return the edges of bins, one more than there are bins."""
        return self.bins[name].edges if name in self.bins else WORD_EDGES

    def start(self, name: str) -> int:
        """Return where in a row one begins."""
        return self._starts[name]

    def add(
        self,
        counters: NDArray[np.int64],
        name: str,
        rows: NDArray[np.int64],
        bins: NDArray[np.integer],
        counts: NDArray[np.int64] | int = 1,
    ) -> None:
        """Count values.

        Parameters
        ----------
        counters
            Rows of histograms, one behind the other, i8.
        name
            Of the histogram.
        rows, bins
            (K,): where in them the row of each value begins, i8, and its bin.
        counts
            (K,) i8: how often each value was, or one number for all.
        """
        places = rows + bins
        places += self._starts[name]
        np.add.at(counters, places, counts)

    def part(self, rows: NDArray[np.int64], name: str) -> NDArray[np.int64]:
        """Return one of rows (..., width): its bins, and what is below and above, if it is."""
        start, bins = self._starts[name], self.bins.get(name)
        size = len(WORD_EDGES) - 1 if bins is None else bins.size + 2
        return rows[..., start : start + size]
