"""Counting what is no data packet: messages, tests, configuration, syncs and triggers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from streamer.monitor.addresses import chip_keys
from streamer.monitor.channels import Channels
from streamer.monitor.counters import COUNTER, NOMINAL_SYNC_TICKS, WORD_BINS, Histograms
from streamer.monitor.hits import Tables
from streamer.monitor.marks import Marks
from streamer.monitor.runs import Runs
from streamer.monitor.store import CHIP_COUNTERS
from streamer.packets.words import TIMESTAMP
from writer.larpix import CONFIG_BITS, PacketType, parity_ok
from writer.pacman import SyncType

if TYPE_CHECKING:
    from streamer.packets import Packets

__all__ = [
    "EXTERNAL",
    "LATEST_SYNC",
    "count_messages",
    "count_others",
    "count_rest",
    "find_marks",
]

#: The bit of the external trigger.
EXTERNAL: Final = 1 << 1
#: A later sync counts as one of this: it is beyond what a counter of 32 bits can say.
LATEST_SYNC: Final = 2**32

_SYNCS: Final = {
    "sync_resets": SyncType.SYNC,
    "heartbeats": SyncType.HEARTBEAT,
    "clock_switches": SyncType.CLOCK_SWITCH,
}
_MESSAGE, _SYNC, _TRIGGER = 5, 6, 7
_CHIP, _MARKER = (np.uint64(CONFIG_BITS[name][0]) for name in ("chip_id", "downstream_marker"))


def count_messages(
    runs: Runs, sorts: NDArray[np.int64], tables: Tables, layout: Histograms
) -> None:
    """Count messages: N runs, and (N,) i8, the sort of each."""
    counts = tables.counts
    words = runs.counts - runs.is_whole
    for name, values in (("words", words), ("bytes", runs.sizes)):
        np.add.at(counts[:, COUNTER[name]], sorts, values)
    whole = sorts[runs.is_whole]
    found = np.bincount(whole, minlength=len(counts))
    for name in ("messages", "timestamp"):
        counts[:, COUNTER[name]] += found
    bins = WORD_BINS[np.minimum(words[runs.is_whole], len(WORD_BINS) - 1)]
    layout.add(tables.histograms, "words_per_message", tables.rows[whole], bins)


def find_marks(packets: Packets, runs: Runs) -> Marks:
    """Return the external triggers among packets, of which the runs are given."""
    others = packets.decoded.words.others
    chosen = np.flatnonzero((others.type == _TRIGGER) & (others.kind & EXTERNAL != 0))
    chosen = chosen[np.argsort(others.places[chosen])]
    places = others.places[chosen]
    io_groups = runs.io_groups[runs.at(places)]
    return Marks(places, io_groups, others.timestamp[chosen].astype(np.int64))


def count_others(
    packets: Packets, runs: Runs, sorts: NDArray[np.int64], tables: Tables, layout: Histograms
) -> None:
    """Count syncs and triggers, which no chip sends; N runs, and (N,) i8, the sort of each."""
    others = packets.decoded.words.others
    chosen = np.flatnonzero(others.type != TIMESTAMP)
    if not len(chosen):
        return
    types, kinds = others.type[chosen], others.kind[chosen]
    of = sorts[runs.at(others.places[chosen])]
    found = {
        "message": types == _MESSAGE,
        "sync": types == _SYNC,
        "trigger": types == _TRIGGER,
        "external_triggers": (types == _TRIGGER) & (kinds & EXTERNAL != 0),
    }
    found |= {name: (types == _SYNC) & (kinds == letter) for name, letter in _SYNCS.items()}
    _add(tables, of, found)
    reset = found["sync_resets"]
    ticks = np.minimum(others.timestamp[chosen][reset], np.uint64(LATEST_SYNC)).astype(np.int64)
    late = ticks - NOMINAL_SYNC_TICKS
    high, low = late >> 16, late & 0xFFFF
    for name, values in (
        ("sync_sum", late),
        ("sync_high_high", high * high),
        ("sync_high_low", high * low),
        ("sync_low_low", low * low),
    ):
        np.add.at(tables.counts[:, COUNTER[name]], of[reset], values)
    bins = layout.bins["sync_period"].find(late)
    layout.add(tables.histograms, "sync_period", tables.rows[of[reset]], bins)


def count_rest(
    packets: Packets,
    index: NDArray[np.int64],
    runs: Runs,
    sorts: NDArray[np.int64],
    tables: Tables,
    channels: Channels,
) -> None:
    """Count packets of chips that are no data: their indices (K,), N runs and (N,) sorts."""
    if not len(index):
        return
    words = packets.decoded.words
    numbers, of = words.packets[index], sorts[runs.at(index)]
    types = numbers & 3
    is_write, is_read = types == PacketType.CONFIG_WRITE, types == PacketType.CONFIG_READ
    is_config = is_write | is_read
    is_down = numbers >> _MARKER & 1 != 0
    is_bad = ~parity_ok(numbers)
    found = {
        "test": ~is_config,
        "write_upstream": is_write & ~is_down,
        "write_downstream": is_write & is_down,
        "read_upstream": is_read & ~is_down,
        "read_downstream": is_read & is_down,
        "config_parity_errors": is_config & is_bad,
    }
    chips = chip_keys(
        tables.io_groups[of], words.io_channels[index], (numbers >> _CHIP).astype(np.uint8)
    )
    columns = [found[name] for name in CHIP_COUNTERS]
    channels.count_on_chips(chips, np.stack(columns, axis=1).astype(np.int64), ~is_bad)
    found |= {
        "config_write": is_write,
        "config_read": is_read,
        "parity_errors": is_bad,
        "upstream": ~is_down,
        "downstream": is_down,
    }
    _add(tables, of, found)


def _add(tables: Tables, of: NDArray[np.int64], found: dict[str, NDArray[np.bool_]]) -> None:
    """Count those that were found, whose sorts are given."""
    for name, chosen in found.items():
        column = tables.counts[:, COUNTER[name]]
        column += np.bincount(of[chosen], minlength=len(column))
