"""Loops over packets, compiled by numba: pure functions of arrays."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from streamer.monitor.counters import UART_TICKS
from streamer.monitor.fetching import compiled, fetch
from streamer.monitor.places import PACKED_ADC, PACKED_DATA, PACKED_FULL
from streamer.monitor.recent import REST

__all__ = ["AHEAD", "NO_CHIP", "NO_DATA", "OTHER", "count", "locate"]

#: Instead of a place: of packets of no chip, that are no data, of chips without a number.
OTHER: Final = -1
NO_DATA: Final = -2
NO_CHIP: Final = -3
#: The counters of a channel are asked for so many packets before they are needed.
AHEAD: Final = 24


@compiled
def locate(
    packets: Any,
    io_channels: Any,
    others: Any,
    runs: Any,
    io_groups: Any,
    data_types: Any,
    chips: Any,
    where: Any,
) -> tuple[int, int]:
    """Find the place of each data packet: the number of its chip times 64, plus its channel.

    Parameters
    ----------
    packets, io_channels
        (P,) each.
    others
        Places of the packets of no chip, ascending, and then one beyond all.
    runs
        Stops, sorts and codes of the chips of runs, (N,) each.
    io_groups
        (L,): of each sort.
    data_types
        Of data packets, by code of the chips.
    chips
        (2^24,): their numbers, 0 if they have none.
    where
        (P + AHEAD,) i4: is filled with the places, or what is there instead of one.

    Returns
    -------
    unknown, no_data
        How many data packets are of chips without a number, and packets of chips no data.
    """
    run_stops, run_sorts, run_kinds = runs
    p = other = unknown = no_data = 0
    for run in range(len(run_stops)):
        group = np.int64(io_groups[run_sorts[run]]) << 16
        data_type = np.int64(data_types[run_kinds[run]])
        stop = run_stops[run]
        while p < stop:
            number = np.int64(packets[p])
            if p == others[other]:
                where[p] = OTHER
                other += 1
            elif number & 3 != data_type:
                where[p] = NO_DATA
                no_data += 1
            else:
                chip = chips[group | np.int64(io_channels[p]) << 8 | number >> 2 & 255]
                if chip == 0:
                    where[p] = NO_CHIP
                    unknown += 1
                else:
                    where[p] = chip << 6 | number >> 10 & 63
            p += 1
    return unknown, no_data


@compiled
def count(
    where: Any,
    columns: Any,
    runs: Any,
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
) -> tuple[int, int]:
    """Count data packets, each where `locate` has found that it belongs.

    Returns
    -------
    held, spilled
        How many hits there were before any trigger, and how many numbers were full.
    """
    packets, io_channels, receipts, valid = columns
    run_stops, run_sorts, run_kinds = runs
    mark_places, mark_groups, mark_ticks = marks
    sort_rows, sort_slots, sort_groups = sorts
    tick_masks, adc_masks, adc_shifts = kinds
    by_code, by_io_channel, bad = counts
    adc_start, delay_start, phase_start, near_start, near_adc_start, delay_count = starts
    packed, few, few_sums = places
    source, fired, last_ticks, since = state
    reach, first_tick, bin_ticks, bin_count = trigger
    p = mark = holds = spills = 0
    for run in range(len(run_stops)):
        sort, kind = run_sorts[run], run_kinds[run]
        row, slot, group = sort_rows[sort], sort_slots[sort], sort_groups[sort]
        tick_mask, adc_mask = tick_masks[kind], adc_masks[kind]
        adc_shift = np.int64(adc_shifts[kind])
        base = slot * few.shape[2]
        stop = run_stops[run]
        while p < stop:
            fetch(packed, base + where[p + AHEAD])
            place = where[p]
            if place < 0:
                if place == NO_CHIP:  # what is left of these has invalid parity
                    number = np.int64(packets[p])
                    by_code[sort, number >> 58 & 31] += 1
                    by_io_channel[sort, io_channels[p]] += 1
                    bad[sort] += 1
                elif p == mark_places[mark]:
                    of = mark_groups[mark]
                    fired[of] = True
                    last_ticks[of] = mark_ticks[mark]
                    for one in range(256):
                        if source[one] == of:
                            since[one] = 0
                    mark += 1
                p += 1
                continue
            number = np.int64(packets[p])
            code = number >> 58 & 31
            by_code[sort, code] += 1
            by_io_channel[sort, io_channels[p]] += 1
            adc = number >> adc_shift & adc_mask if valid[p] else 0
            total = packed[base + place] + (1 | adc << PACKED_DATA | adc * adc << PACKED_ADC)
            if total & PACKED_FULL:
                spilled[0, spills], spilled[1, spills], spilled[2, spills] = slot, place, total
                spills += 1
                total = 0
            packed[base + place] = total
            if code & 15:
                for bit in range(4):
                    few_sums[1 + bit, place] += code >> bit & 1
                    if slot != REST:
                        few[1 + bit, slot, place] += code >> bit & 1
            if not valid[p]:
                bad[sort] += 1
                few_sums[0, place] += 1
                if slot != REST:
                    few[0, slot, place] += 1
                p += 1
                continue
            histograms[row + adc_start + adc] += 1
            ticks = number >> 16 & tick_mask
            delay = (np.int64(receipts[p]) & tick_mask) - ticks
            if delay < 0:
                histograms[row + delay_start + delay_count] += 1
                histograms[row + phase_start + UART_TICKS] += 1
            else:
                in_words = delay // UART_TICKS
                histograms[row + phase_start + delay - in_words * UART_TICKS] += 1
                above = delay_count + 1
                histograms[
                    row + delay_start + (in_words if in_words < delay_count else above)
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
    return holds, spills
