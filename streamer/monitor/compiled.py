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
    where, strays, rest = _located(packets, runs, sorts, tables, channels)
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
    _count_strays(packets, strays, sorts[runs.at(strays)], tables, channels)
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
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """Find the place of each data packet; those that have none; and packets that are no data."""
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
    strays = _at(where, NO_CHIP, unknown)
    good = strays[packets.valid_parity[strays] != 0]
    if len(good):
        channels.numbers(_chips(packets, good, sorts[runs.at(good)], tables))
        unknown, _ = locate(*arguments)
        strays = _at(where, NO_CHIP, unknown)
    return where, strays, _at(where, NO_DATA, no_data)


def _at(where: NDArray[np.int32], sign: int, count: int) -> NDArray[np.int64]:
    """Return which packets have a sign instead of a place, if any have."""
    return np.flatnonzero(where == sign) if count else np.empty(0, np.int64)


def _chips(
    packets: Packets, index: NDArray[np.int64], of: NDArray[np.int64], tables: Tables
) -> NDArray[np.uint32]:
    """Return the chips of packets, whose sorts are given."""
    words = packets.decoded.words
    chip_ids = (words.packets[index] >> np.uint64(2)).astype(np.uint8)
    return chip_keys(tables.io_groups[of], words.io_channels[index], chip_ids)


def _count_strays(
    packets: Packets,
    index: NDArray[np.int64],
    of: NDArray[np.int64],
    tables: Tables,
    channels: Channels,
) -> None:
    """Count packets by channel that have no place, whose sorts are given."""
    if len(index):
        numbers = packets.decoded.words.packets[index]
        channel_id = (numbers >> np.uint64(10)).astype(np.int64) & 63
        flags = (numbers >> np.uint64(58)).astype(np.uint8) & np.uint8(15)
        chips = _chips(packets, index, of, tables)
        channels.count_strays(chips, channel_id, tables.slots[of], flags)


def _fixed(*arrays: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Return views that are read-only: numba compiles anew for every sort of argument."""
    views = tuple(array.view() for array in arrays)
    for view in views:
        view.setflags(write=False)
    return views
