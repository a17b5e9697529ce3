"""`streamer.monitor.hits.count_hits`, compiled by numba.

The same packets give the same counts. Compiling takes some seconds, once: numba keeps the
result beside the file, or where it keeps such things for the user.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streamer.monitor.addresses import chip_keys
from streamer.monitor.channels import Channels
from streamer.monitor.counters import COUNTER, Histograms
from streamer.monitor.hits import CHIPS, CODES, Tables, add_codes
from streamer.monitor.kernels import AHEAD, NO_CHIP, NO_DATA, count, locate
from streamer.monitor.marks import Held, Marks
from streamer.monitor.runs import Runs
from streamer.monitor.triggers import Triggers

if TYPE_CHECKING:
    from streamer.packets import Packets

__all__ = ["count_hits"]

_NEVER = np.iinfo(np.int64).max
_HISTOGRAMS = ("adc", "readout_delay", "readout_delay_phase", "trigger", "trigger_adc")


def count_hits(
    packets: Packets,
    runs: Runs,
    sorts: NDArray[np.int64],
    marks: Marks,
    tables: Tables,
    channels: Channels,
    triggers: Triggers,
    layout: Histograms,
) -> NDArray[np.int64]:
    """Count the data packets; as `streamer.monitor.hits.count_hits`."""
    words, state = packets.decoded.words, triggers.state
    where, rest = _located(packets, runs, sorts, tables, channels)
    channels.touch(tables.slots)
    places = channels.places
    size = places.packed[0].size
    sorts_of_packets = len(tables.rows)
    codes = np.zeros((sorts_of_packets, CODES), np.int64)
    io_channels = np.zeros((sorts_of_packets, 256), np.int64)
    bad = np.zeros(sorts_of_packets, np.int64)
    room = np.maximum(triggers.reach - state.since[np.unique(tables.io_groups)], 0).sum()
    held = np.empty((4, min(int(room), len(packets))), np.int64)
    spilled = np.empty((3, len(packets)), np.int64)
    holds, spills = count(
        where,
        _fixed(words.packets, words.io_channels, words.receipts, packets.valid_parity),
        _fixed(runs.stops, sorts, runs.asics),
        _fixed(np.append(marks.places, _NEVER), marks.io_groups, marks.ticks),
        _fixed(tables.rows, tables.slots, tables.io_groups),
        _fixed(CHIPS.tick_masks, CHIPS.adc_masks, CHIPS.adc_shifts),
        (codes, io_channels, bad),
        tables.histograms,
        (*map(layout.start, _HISTOGRAMS), layout.bins["readout_delay"].size),
        (
            places.packed.reshape(-1),
            places.few.reshape(*places.few.shape[:2], size),
            places.few_sums.reshape(-1, size),
        ),
        tuple(state),
        (triggers.reach, *triggers.bins),
        held,
        spilled,
    )
    channels.spill(*spilled[:, :spills])
    add_codes(tables, codes, io_channels)
    for name in ("parity_errors", "data_parity_errors"):
        tables.counts[:, COUNTER[name]] += bad
    if holds:
        which, ticks, masks, adc = held[:, :holds].copy()
        of, spans = tables.io_groups[which], tables.spans[which]
        triggers.hold(Held(of, spans, ticks, masks, adc.astype(np.uint16)))
    return rest


def _located(
    packets: Packets,
    runs: Runs,
    sorts: NDArray[np.int64],
    tables: Tables,
    channels: Channels,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Find the place of each data packet, and the packets of chips that are no data."""
    words = packets.decoded.words
    where = np.zeros(len(packets) + AHEAD, np.int32)
    arguments = (
        *_fixed(words.packets, words.io_channels),
        *_fixed(np.append(np.sort(words.others.places), _NEVER)),
        _fixed(runs.stops, sorts, runs.asics),
        *_fixed(tables.io_groups, CHIPS.data_types, channels.places.chips),
        where,
    )
    unknown, no_data = locate(*arguments)
    if unknown:
        index = np.flatnonzero(where[: len(packets)] == NO_CHIP)
        io_groups = tables.io_groups[sorts[runs.at(index)]]
        chip_ids = (words.packets[index] >> np.uint64(2)).astype(np.uint8)
        channels.numbers(chip_keys(io_groups, words.io_channels[index], chip_ids))
        locate(*arguments)
    if not no_data:
        return where, np.empty(0, np.int64)
    return where, np.flatnonzero(where == NO_DATA)


def _fixed(*arrays: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Return views that are read-only: numba compiles anew for every sort of argument."""
    views = tuple(array.view() for array in arrays)
    for view in views:
        view.setflags(write=False)
    return views
