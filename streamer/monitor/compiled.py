"""`streamer.monitor.hits.count_hits` in one pass, compiled by numba.

The same packets give the same counts. Compiling takes some seconds, once: numba keeps the
result beside this file, or where it keeps such things for the user.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numpy.typing import NDArray

from streamer.monitor.addresses import chip_keys
from streamer.monitor.channels import Channels
from streamer.monitor.counters import COUNTER, UART_TICKS, Histograms
from streamer.monitor.hits import CHIPS, CODES, Tables, add_codes
from streamer.monitor.marks import Held, Marks
from streamer.monitor.places import PACKED_ADC, PACKED_DATA, PACKED_FULL
from streamer.monitor.recent import REST
from streamer.monitor.runs import Runs
from streamer.monitor.triggers import Triggers

if TYPE_CHECKING:
    from streamer.packets import Packets

__all__ = ["compiled", "count_hits"]

_NEVER = np.iinfo(np.int64).max
# The cursor: the run and the packet that come next, how many packets of no chip and triggers
# are passed, how many hits were held, how many numbers were full, how many packets are no data.
_PACKET, _HELD, _SPILLED, _REST = 1, 4, 5, 6


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
    count = len(tables.rows)
    codes, io_channels = np.zeros((count, CODES), np.int64), np.zeros((count, 256), np.int64)
    bad = np.zeros(count, np.int64)
    room = np.maximum(triggers.reach - state.since[np.unique(tables.io_groups)], 0).sum()
    held = np.empty((4, min(int(room), len(packets))), np.int64)
    spilled = np.empty((3, len(packets)), np.int64)
    rest = np.empty(len(packets), np.int64)
    cursor = np.zeros(7, np.int64)
    channels.touch(tables.slots)
    starts = [layout.start(name) for name in ("adc", "readout_delay", "readout_delay_phase")]
    starts += [layout.start(name) for name in ("trigger", "trigger_adc")]
    while not _count(
        cursor,
        _fixed(words.packets, words.io_channels, words.receipts, packets.valid_parity),
        _fixed(runs.stops, sorts, runs.asics),
        *_fixed(np.append(np.sort(words.others.places), _NEVER)),
        _fixed(np.append(marks.places, _NEVER), marks.io_groups, marks.ticks),
        _fixed(tables.rows, tables.slots, tables.io_groups),
        _fixed(*CHIPS),
        (codes, io_channels, bad),
        tables.histograms,
        (*starts, layout.bins["readout_delay"].size),
        tuple(channels.places),
        tuple(state),
        (triggers.reach, *triggers.bins),
        held,
        spilled,
        rest,
    ):
        _know_chips(packets, runs, sorts, tables, channels, int(cursor[_PACKET]))
    slots, where, packed = spilled[:, : cursor[_SPILLED]]
    channels.spill(slots, where, packed)
    add_codes(tables, codes, io_channels)
    for name in ("parity_errors", "data_parity_errors"):
        tables.counts[:, COUNTER[name]] += bad
    which, ticks, mask, adc = held[:, : cursor[_HELD]].copy()
    if len(which):
        of, spans = tables.io_groups[which], tables.spans[which]
        triggers.hold(Held(of, spans, ticks, mask, adc.astype(np.uint16)))
    return rest[: cursor[_REST]]


def _fixed(*arrays: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Return views that are read-only: numba compiles anew for every sort of argument."""
    views = tuple(array.view() for array in arrays)
    for view in views:
        view.setflags(write=False)
    return views


def _know_chips(
    packets: Packets,
    runs: Runs,
    sorts: NDArray[np.int64],
    tables: Tables,
    channels: Channels,
    start: int,
) -> None:
    """Give numbers to the chips of all packets from one on."""
    words = packets.decoded.words
    is_of_chip = np.ones(len(packets), np.bool_)
    is_of_chip[words.others.places] = False
    index = start + np.flatnonzero(is_of_chip[start:])
    of = np.repeat(sorts, runs.counts)[index]
    chip_ids = (words.packets[index] >> np.uint64(2)).astype(np.uint8)
    channels.numbers(chip_keys(tables.io_groups[of], words.io_channels[index], chip_ids))


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function when it is first called, and keep the result if there is a place."""
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither beside the file nor in the user's folder
        return numba.njit(nogil=True)(function)


@compiled
def _count(
    cursor: Any,
    columns: Any,
    runs: Any,
    others: Any,
    marks: Any,
    sorts: Any,
    kinds: Any,
    counts: Any,
    histograms: Any,
    starts: Any,
    places: Any,
    state: Any,
    trigger: Any,
    held: Any,
    spilled: Any,
    rest: Any,
) -> bool:
    """Count from the cursor on; return False, with the cursor there, at a chip that is new."""
    packets, io_channels, receipts, valid = columns
    run_stops, run_sorts, run_kinds = runs
    mark_places, mark_groups, mark_ticks = marks
    sort_rows, sort_slots, sort_groups = sorts
    data_types, tick_masks, adc_masks, adc_shifts = kinds
    by_code, by_io_channel, bad = counts
    adc_start, delay_start, phase_start, near_start, near_adc_start, delay_count = starts
    chips, packed, few, few_sums = places
    source, fired, last_ticks, since = state
    reach, first_tick, bin_ticks, bin_count = trigger
    p, other, mark = cursor[1], cursor[2], cursor[3]
    holds, spills, rests = cursor[4], cursor[5], cursor[6]
    for run in range(cursor[0], len(run_stops)):
        sort, kind = run_sorts[run], run_kinds[run]
        row, slot, group = sort_rows[sort], sort_slots[sort], np.int64(sort_groups[sort])
        data_type, tick_mask = np.int64(data_types[kind]), tick_masks[kind]
        adc_mask, adc_shift = adc_masks[kind], np.int64(adc_shifts[kind])
        stop = run_stops[run]
        while p < stop:
            if p == others[other]:
                if p == mark_places[mark]:
                    of = mark_groups[mark]
                    fired[of] = True
                    last_ticks[of] = mark_ticks[mark]
                    for one in range(256):
                        if source[one] == of:
                            since[one] = 0
                    mark += 1
                other += 1
                p += 1
                continue
            number = np.int64(packets[p])
            if number & 3 != data_type:
                rest[rests] = p
                rests += 1
                p += 1
                continue
            io_channel = np.int64(io_channels[p])
            chip = chips[group << 16 | io_channel << 8 | (number >> 2 & 255)]
            if chip == 0:
                cursor[:] = run, p, other, mark, holds, spills, rests
                return False
            channel, code = number >> 10 & 63, number >> 58 & 31
            by_code[sort, code] += 1
            by_io_channel[sort, io_channel] += 1
            adc = number >> adc_shift & adc_mask if valid[p] else 0
            total = packed[slot, chip, channel] + (
                1 | adc << PACKED_DATA | adc * adc << PACKED_ADC
            )
            if total & PACKED_FULL:
                spilled[0, spills], spilled[1, spills] = slot, chip << 6 | channel
                spilled[2, spills] = total
                spills += 1
                total = 0
            packed[slot, chip, channel] = total
            if code & 15:
                for bit in range(4):
                    few_sums[1 + bit, chip, channel] += code >> bit & 1
                    if slot != REST:
                        few[1 + bit, slot, chip, channel] += code >> bit & 1
            if not valid[p]:
                bad[sort] += 1
                few_sums[0, chip, channel] += 1
                if slot != REST:
                    few[0, slot, chip, channel] += 1
                p += 1
                continue
            ticks = number >> 16 & tick_mask
            histograms[row + adc_start + adc] += 1
            delay = (np.int64(receipts[p]) & tick_mask) - ticks
            if delay < 0:
                histograms[row + delay_start + delay_count] += 1
                histograms[row + phase_start + UART_TICKS] += 1
            else:
                in_words = delay // UART_TICKS
                histograms[row + phase_start + delay - in_words * UART_TICKS] += 1
                histograms[
                    row + delay_start + (in_words if in_words < delay_count else delay_count + 1)
                ] += 1
            of = source[group]
            if of >= 0 and since[group] < reach:
                since[group] += 1
                if fired[of]:
                    late = (ticks - last_ticks[of] - first_tick) & tick_mask
                    if late < bin_ticks * bin_count:
                        histograms[row + near_start + late // bin_ticks] += 1
                        histograms[row + near_adc_start + late // bin_ticks] += adc
                else:
                    held[0, holds], held[1, holds] = sort, ticks
                    held[2, holds], held[3, holds] = tick_mask, adc
                    holds += 1
            p += 1
    cursor[:] = len(run_stops), p, other, mark, holds, spills, rests
    return True
