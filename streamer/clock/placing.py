"""Placing: many packets at once, by what is known of the counters of their cards. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.clock.cardtime import CardTime, is_cut
from streamer.clock.count import NEAR
from streamer.clock.reading import Reading, Reason
from writer.larpix import PacketType
from writer.pacman import TICKS_PER_SECOND, SyncType

if TYPE_CHECKING:
    from streamer.packets import Packets

__all__ = ["CardWords", "Placed", "Stretches", "place", "read", "words_by_card"]

# Of the newer wire's 64 bits: 14,000 years.
_MOST: Final = 1 << 62
# By how much a chip's counter may be above the card's when both are reset.
_TOLERANCE: Final = 1_000
# A chip that misses more pulses in a row is not followed.
_MOST_MISSED: Final = 8
# Bits of the chips' counters.
_V2_MASK, _V3_MASK, _FIFO_MASK = ((1 << bits) - 1 for bits in (31, 28, 16))

_Ticks = NDArray[np.int64]


class CardWords(NamedTuple):
    """W words, those of each card together and in order."""

    #: (W,) i8: which of the packets each is.
    places: _Ticks
    #: (W,) u1
    io_groups: NDArray[np.uint8]
    #: (W,) i8: the card's counter; of a SYNC word its last value.
    counters: _Ticks
    #: (W,) i8: row of the message, and the Unix second in its header; 0 if that has none.
    rows: _Ticks
    seconds: _Ticks
    #: (W,) bool: whether the header has a second; None if all have.
    timed: NDArray[np.bool_] | None
    #: (W,) bool: words that tell of a reset.
    is_sync: NDArray[np.bool_]
    #: Words that were left out, as their counter can be none.
    n_impossible: int


class Stretches(NamedTuple):
    """S stretches of words that are to be read in the same way."""

    #: (S,) i8: words in each.
    lengths: _Ticks
    #: (S,) i8: see `Reading`; `zero` is the Unix time at which the count began.
    zero: _Ticks
    counted: _Ticks
    step: _Ticks
    #: (S,) i8: number of a `Reason`.
    reasons: _Ticks
    is_pps: NDArray[np.bool_]
    is_tied: NDArray[np.bool_]
    is_straggling: NDArray[np.bool_]
    #: (W,) bool: words that contradict their headers; None if none does.
    contradicts: NDArray[np.bool_] | None


class Placed(NamedTuple):
    """When W words were."""

    ticks: _Ticks
    receipts: _Ticks
    #: (W,) bool: whether the times can be compared with those of other cards.
    is_tied: NDArray[np.bool_]
    #: (W,) i8: number of a `Reason`; then both times are -1.
    reasons: _Ticks
    n_straggling: int
    n_before_reset: int
    n_missed: int


def words_by_card(packets: Packets) -> CardWords:
    """Sort the words of packets by card.

    Parameters
    ----------
    packets
        The next of a stream.
    """
    kinds = packets.packet_type
    index = np.flatnonzero((kinds != PacketType.TIMESTAMP) & (kinds != PacketType.MESSAGE))
    io_groups = packets.io_group[index]
    if len(index) and (io_groups != io_groups[0]).any():
        order = np.argsort(io_groups, kind="stable")
        index, io_groups = index[order], io_groups[order]
    raw = packets.receipt_timestamp[index]
    # Words of the card itself.
    own = np.flatnonzero(kinds[index] >= PacketType.SYNC)
    is_sync = np.zeros(len(index), np.bool)
    is_sync[own] = kinds[index[own]] == PacketType.SYNC
    is_sync[own] &= packets.trigger_type[index[own]] == SyncType.SYNC
    counters = raw.astype(np.int64)
    counters[own] = packets.timestamp[index[own]]
    # As signed numbers, those above the half of 64 bits are negative.
    possible = (counters >= 0) & (counters < _MOST)
    n_impossible = len(index) - int(np.count_nonzero(possible))
    if n_impossible:
        index, io_groups = index[possible], io_groups[possible]
        counters, is_sync = counters[possible], is_sync[possible]
    seconds = packets.time[index]
    is_timed = seconds > 0
    return CardWords(
        index,
        io_groups,
        counters,
        packets.row[index],
        seconds,
        None if is_timed.all() else is_timed,
        is_sync,
        n_impossible,
    )


def read(words: CardWords, card_of: Callable[[int], CardTime]) -> Stretches:
    """Let the cards follow their words, in the order of the file.

    Parameters
    ----------
    words
        At least one; of whole messages.
    card_of
        Returns the card of an io_group.
    """
    n, counters, is_sync = len(words.places), words.counters, words.is_sync
    apart = np.ones(n, np.bool)
    apart[1:] = words.io_groups[1:] != words.io_groups[:-1]
    apart[1:] |= is_sync[1:] | is_sync[:-1]
    lows = _lows(words, apart)
    cut = apart.copy()
    cut[1:] |= is_cut(counters[:-1], counters[1:])
    starts = np.flatnonzero(cut)
    stops = np.append(starts[1:], n)
    readings: list[Reading | None] = [None] * len(starts)
    contradicts: NDArray[np.bool_] | None = None
    # In the order of the file also between cards: the first that knows a phase tells the rest.
    for k in np.argsort(words.places[starts]).tolist():
        start, stop = int(starts[k]), int(stops[k])
        card = card_of(int(words.io_groups[start]))
        part = slice(start, stop)
        if is_sync[start]:
            card.sync(int(counters[start]), int(words.seconds[start]))
            readings[k], is_in_doubt = card.at_sync()
            doubtful = np.ones(1, np.bool) if is_in_doubt else None
        else:
            timed = None if words.timed is None else words.timed[part]
            readings[k], doubtful = card.words(counters[part], lows[part], timed)
        if doubtful is not None:
            if contradicts is None:
                contradicts = np.zeros(n, np.bool)
            contradicts[part] = doubtful
    columns = np.array(readings, np.int64).T
    base, counted, step, origin, reasons = columns[:5]
    is_pps, is_tied, is_straggling = columns[5:].astype(np.bool)
    return Stretches(
        stops - starts,
        origin + base,
        counted,
        step,
        reasons,
        is_pps,
        is_tied,
        is_straggling,
        contradicts,
    )


def _lows(words: CardWords, apart: NDArray[np.bool_]) -> _Ticks:
    """Return for each word ticks of its header's second, less the counter at the header.

    The header is written after the last word of its message; those before it have waited.
    """
    first = apart.copy()
    first[1:] |= words.rows[1:] != words.rows[:-1]
    # Words of the next count, and of the one before that come after them.
    steps = np.diff(words.counters)
    first[1:] |= (steps < -NEAR) | (steps > TICKS_PER_SECOND // 2)
    starts = np.flatnonzero(first)
    stops = np.append(starts[1:], len(first))
    lows = words.seconds * TICKS_PER_SECOND - words.counters
    return np.repeat(lows[stops - 1], stops - starts)


def place(packets: Packets, words: CardWords, stretches: Stretches) -> Placed:
    """Return when words were.

    Parameters
    ----------
    packets
        Those that the words are of.
    words, stretches
        What was made of them.
    """
    lengths = stretches.lengths
    receipts = np.repeat(stretches.zero, lengths)
    reasons = np.repeat(stretches.reasons, lengths)
    # The value of a SYNC word is of the count before; it tells when the present one began.
    receipts += np.where(words.is_sync, 0, words.counters)
    if stretches.contradicts is not None:
        reasons[stretches.contradicts & (reasons == 0)] = Reason.CONTRADICTS
    ticks = receipts.copy()
    index = words.places
    digitised = packets.is_data[index] | packets.is_test[index]
    stamps = packets.timestamp[index].astype(np.int64)
    delays = words.counters - stamps
    early = np.flatnonzero(digitised & (delays < 0))
    masks = _masks(packets, index)
    delays &= masks
    np.subtract(ticks, delays, out=ticks, where=digitised)
    n_before = n_missed = 0
    if len(early):
        number = np.repeat(np.arange(len(lengths)), lengths)[early]
        mask = masks if isinstance(masks, int) else masks[early]
        back, missed = _before_reset(words.counters[early], stamps[early], mask, stretches, number)
        ticks[early] = receipts[early] - back
        unknown = stretches.counted[number] < 0
        why = np.where(unknown & ~missed, Reason.NO_COUNT_BEFORE, Reason.OUT_OF_STEP)
        reasons[early] = np.where((back < 0) & (reasons[early] == 0), why, reasons[early])
        fine = reasons[early] == 0
        n_missed = int(np.count_nonzero(fine & missed))
        n_before = int(np.count_nonzero(fine & ~missed))
    unplaced = reasons != 0
    ticks[unplaced] = receipts[unplaced] = -1
    straggling = np.repeat(stretches.is_straggling, lengths) & ~unplaced
    return Placed(
        ticks,
        receipts,
        np.repeat(stretches.is_tied, lengths),
        reasons,
        int(np.count_nonzero(straggling)),
        n_before,
        n_missed,
    )


def _masks(packets: Packets, index: _Ticks) -> _Ticks | int:
    """Return the bits of the chips' counters, for each word or for all."""
    is_fifo = packets.fifo_diagnostics_enabled[index] != 0
    is_v3 = packets.is_data[index] & packets.is_v3[index]
    if not (is_fifo.any() or is_v3.any()):
        return _V2_MASK
    return np.where(is_fifo, _FIFO_MASK, np.where(is_v3, _V3_MASK, _V2_MASK))


def _before_reset(
    counters: _Ticks,
    stamps: _Ticks,
    masks: _Ticks | int,
    stretches: Stretches,
    number: _Ticks,
) -> tuple[_Ticks, NDArray[np.bool_]]:
    """Return for words with a chip's counter above the card's how long before they were.

    Returns
    -------
    back : NDArray
        i8, ticks before they were received; -1 if that cannot be told.
    missed : NDArray
        bool: the chip was not reset when the card was.
    """
    counted, step = stretches.counted[number], stretches.step[number]
    is_pps = stretches.is_pps[number]
    known = counted >= 0
    before = known & (stamps <= counted + _TOLERANCE) & (stamps <= counted + counters)
    missed = is_pps & ~before & (stamps // TICKS_PER_SECOND <= _MOST_MISSED)
    missed &= stamps >= TICKS_PER_SECOND
    rest = stamps % TICKS_PER_SECOND
    same_count = rest <= counters
    # In a count of several seconds nothing tells in which of them.
    missed &= counters < TICKS_PER_SECOND + _TOLERANCE
    missed &= same_count | (known & (counted < TICKS_PER_SECOND + _TOLERANCE))
    delays = np.where(missed, rest, stamps)
    # Counters are congruent to the length of the count before, time to what it was taken for.
    delays = np.where(missed & same_count, counters - rest, counters + counted - delays)
    back = (delays & masks) + np.where(missed & same_count, 0, step - counted)
    return np.where(before | missed, back, -1), missed
