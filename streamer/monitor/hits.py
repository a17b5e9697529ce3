"""Counting data packets: the part whose cost is by the hit.

A packet of a chip is a number of 64 bits, and only the few fields that are counted are taken
out of it. `streamer.monitor.compiled` does the same in one pass, if numba is installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.monitor.addresses import chip_keys
from streamer.monitor.channels import Channels
from streamer.monitor.counters import COUNTER, TILES, Histograms
from streamer.monitor.marks import Hits, Marks
from streamer.monitor.runs import Runs
from streamer.monitor.triggers import Triggers
from streamer.packets.decoded import ASICS, LAYOUTS
from writer.larpix import DATA_BITS, PacketType

if TYPE_CHECKING:
    from streamer.packets import Packets

__all__ = ["CHIPS", "CODES", "Chips", "Tables", "add_codes", "count_hits"]


class Chips(NamedTuple):
    """What differs between chips, by their code in `streamer.packets.decoded.ASICS`."""

    #: u1: the type of their data packets.
    data_types: NDArray[np.uint8]
    #: i8: all bits of their counter, and all bits of a dataword.
    tick_masks: NDArray[np.int64]
    adc_masks: NDArray[np.int64]
    #: u8: where a dataword begins.
    adc_shifts: NDArray[np.uint64]


def _chips() -> Chips:
    fields = [LAYOUTS[code] for code in sorted(LAYOUTS)]
    types = np.full(len(fields), PacketType.DATA, np.uint8)
    types[ASICS["v3"]] = PacketType.V3_DATA
    return Chips(
        types,
        np.array([2 ** field["timestamp"][1] - 1 for field in fields], np.int64),
        np.array([2 ** field["dataword"][1] - 1 for field in fields], np.int64),
        np.array([field["dataword"][0] for field in fields], np.uint64),
    )


CHIPS: Final = _chips()

# In packets of all chips, 16 bits are type, chip_id and channel_id, and the counter follows;
# and five bits are the FIFO flags, local half and full, shared half and full, and the marker.
_CHIP, _CHANNEL, _TICKS, _CODE = (
    np.uint64(DATA_BITS[name][0]) for name in ("chip_id", "channel_id", "timestamp", "local_fifo")
)
#: How many combinations of FIFO flags and marker there are.
CODES: Final = 32
_CODES: Final = np.arange(CODES)
_BY_CODE: Final = {
    "data": _CODES >= 0,
    "upstream": _CODES & 16 == 0,
    "downstream": _CODES & 16 != 0,
    "local_fifo_half": _CODES & 1 != 0,
    "local_fifo_full": _CODES & 2 != 0,
    "local_fifo_flagged": _CODES & 3 != 0,
    "shared_fifo_half": _CODES & 4 != 0,
    "shared_fifo_full": _CODES & 8 != 0,
    "shared_fifo_flagged": _CODES & 12 != 0,
}
_COLUMNS: Final = [COUNTER[name] for name in _BY_CODE]
_WEIGHTS: Final = np.stack(list(_BY_CODE.values()), axis=1).astype(np.int64)
# Four io_channels to a tile: 0; 1 to 4, 5 to 8, and so on.
_TILE_STARTS: Final = np.append(0, np.arange(1, 256, 4))


class Tables(NamedTuple):
    """Where the packets of L sorts are counted."""

    #: (L, len(COUNTERS) + TILES) i8: to be added to what was counted by second.
    counts: NDArray[np.int64]
    #: i8: histograms, and (L,) i8: where in it the row of each sort begins.
    histograms: NDArray[np.int64]
    rows: NDArray[np.int64]
    #: (L,) i8: the slot in which each sort is counted by channel.
    slots: NDArray[np.int64]
    #: (L,) u1 and i8: io_group and span of time.
    io_groups: NDArray[np.uint8]
    spans: NDArray[np.int64]


def add_codes(
    tables: Tables,
    codes: NDArray[np.int64],
    io_channels: NDArray[np.int64],
) -> None:
    """Count data packets by second.

    Parameters
    ----------
    tables
        Of L sorts.
    codes
        (L, 32) i8: packets by FIFO flags and marker.
    io_channels
        (L, 256) i8: packets by io_channel.
    """
    tables.counts[:, _COLUMNS] += codes @ _WEIGHTS
    tables.counts[:, -TILES:] += np.add.reduceat(io_channels, _TILE_STARTS, axis=1)


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
    """Count the data packets.

    Parameters
    ----------
    packets
        P packets.
    runs, sorts
        N runs, and (N,) i8: the sort of each.
    marks
        The external triggers among them.
    tables, channels, triggers
        What is counted in.
    layout
        Of the histograms.

    Returns
    -------
    NDArray
        i8: indices of the packets of chips that are no data.
    """
    words = packets.decoded.words
    which = np.repeat(sorts, runs.counts)
    kinds = runs.asics[:1]
    if (runs.asics != kinds).any():
        kinds = np.repeat(runs.asics, runs.counts)
    types = words.packets.astype(np.uint8)
    types &= 3
    is_data = types == CHIPS.data_types[kinds]
    is_data[words.others.places] = False
    is_rest = ~is_data
    is_rest[words.others.places] = False
    is_valid = packets.valid_parity.view(np.bool_)
    # Those with valid parity first: then the chips that there are are known.
    good = np.flatnonzero(is_data & is_valid)
    if len(good) or len(marks.places):
        part = _part(packets, good, which, tables)
        _count_good(part, kinds, marks, tables, channels, triggers, layout)
    bad = np.flatnonzero(is_data & ~is_valid)
    if len(bad):
        _count_bad(_part(packets, bad, which, tables), tables, channels)
    return np.flatnonzero(is_rest)


class _Part(NamedTuple):
    """Some of the data packets, H of them, and what is in all that are counted."""

    #: (H,) i8: which packets, and the sort of each.
    places: NDArray[np.int64]
    of: NDArray[np.int64]
    #: (H,) u8: their 64 bits, and integers: ticks when they were received.
    numbers: NDArray[np.uint64]
    receipts: NDArray[np.integer]
    #: (H,) u4 and u1: chip and channel.
    chips: NDArray[np.uint32]
    channel_id: NDArray[np.uint8]
    #: (H,) u1 each: FIFO flags and marker, and io_channel.
    flags: NDArray[np.uint8]
    io_channels: NDArray[np.uint8]


def _part(
    packets: Packets, index: NDArray[np.int64], which: NDArray[np.int64], tables: Tables
) -> _Part:
    """Take some data packets out of all, of which the sorts are given."""
    words = packets.decoded.words
    numbers, of = words.packets.take(index), which.take(index)
    io_channels = words.io_channels.take(index)
    flags = (numbers >> _CODE).astype(np.uint8)
    flags &= CODES - 1
    chip_ids = (numbers >> _CHIP).astype(np.uint8)
    chips = chip_keys(tables.io_groups.take(of), io_channels, chip_ids)
    channel_id = (numbers >> _CHANNEL).astype(np.uint8)
    channel_id &= 63
    receipts = words.receipts.take(index)
    return _Part(index, of, numbers, receipts, chips, channel_id, flags, io_channels)


def _count_good(
    part: _Part,
    kinds: NDArray[np.uint8],
    marks: Marks,
    tables: Tables,
    channels: Channels,
    triggers: Triggers,
    layout: Histograms,
) -> None:
    """Count those with valid parity; `kinds` are codes of the chips, of all packets or one."""
    places, of, numbers = part.places, part.of, part.numbers
    _count_flags(tables, part)
    kind = kinds[0] if len(kinds) == 1 else kinds.take(places)
    adc = (numbers >> CHIPS.adc_shifts[kind]).view(np.int64)
    adc &= CHIPS.adc_masks[kind]
    mask = np.asarray(CHIPS.tick_masks[kind])
    ticks = (numbers >> _TICKS).view(np.int64)
    ticks &= mask
    channels.count(part.chips, part.channel_id, tables.slots, of, adc, part.flags)
    rows = tables.rows.take(of)
    layout.add(tables.histograms, "adc", rows, adc)
    receipts = part.receipts.astype(np.int64)
    receipts &= mask
    _count_delays(tables, layout, rows, receipts - ticks)
    hits = Hits(places, of, ticks, adc, mask, tables.io_groups, tables.spans)
    near = triggers.compare(hits, marks)
    layout.add(tables.histograms, "trigger", rows[near.hits], near.bins)
    layout.add(tables.histograms, "trigger_adc", rows[near.hits], near.bins, adc[near.hits])


def _count_bad(part: _Part, tables: Tables, channels: Channels) -> None:
    """Count those with invalid parity, of which no field but flags and address is counted."""
    _count_flags(tables, part)
    found = np.bincount(part.of, minlength=len(tables.rows))
    for name in ("parity_errors", "data_parity_errors"):
        tables.counts[:, COUNTER[name]] += found
    channels.count(part.chips, part.channel_id, tables.slots, part.of, None, part.flags)


def _count_flags(tables: Tables, part: _Part) -> None:
    sorts = len(tables.rows)
    places = part.of << 8
    places |= part.io_channels
    by_channel = np.bincount(places, minlength=256 * sorts).reshape(sorts, 256)
    places = part.of << 5
    places |= part.flags
    by_code = np.bincount(places, minlength=CODES * sorts).reshape(sorts, CODES)
    add_codes(tables, by_code, by_channel)


def _count_delays(
    tables: Tables,
    layout: Histograms,
    rows: NDArray[np.int64],
    delays: NDArray[np.int64],
) -> None:
    words, phases = layout.bins["readout_delay"], layout.bins["readout_delay_phase"]
    short = delays.astype(np.int32)  # 31 bits and a sign, and twice as fast
    bins = short // np.int32(words.width)
    phase = short - bins * np.int32(words.width)
    before = np.flatnonzero(short < 0)
    phase[before] = phases.size
    bins[bins >= words.size] = words.size + 1
    bins[before] = words.size
    for name, places in (("readout_delay", bins), ("readout_delay_phase", phase)):
        layout.add(tables.histograms, name, rows, places)
