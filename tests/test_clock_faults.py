"""The clock where words are few, lost, damaged or out of their order."""

import numpy as np
import pytest

from streamer import Packets
from streamer.clock import Clock
from streamer.clock.headertime import HeaderTime
from tests.cards import SECOND, START, Card, Run, delays, pps, run, times

FIRST = START + 3_000_000


def card(seed=1, *, seconds=8, rate=300, **options) -> Card:
    """A card with PPS that has sent random hits."""
    rng = np.random.default_rng(seed)
    receipts = times(rng, FIRST, seconds, rate)
    options.setdefault("delays", delays(rng, len(receipts)))
    return Card(receipts, pps(FIRST, seconds + 1), **options)


def placed(sent: Run) -> tuple[np.ndarray, np.ndarray, Clock, Packets]:
    """By how much what was placed is off [s], received when; and the rest."""
    clock, packets = Clock(), sent.packets()
    found = clock.times(packets)
    chosen = found.ticks >= 0
    off = np.where(chosen, found.ticks - sent.ticks, 0)
    off = np.where(chosen & (off == 0), found.receipts - sent.receipts, off)
    return off / SECOND, chosen, clock, packets


def swapped(away: int, most: int):
    """Let words near a reset change places with its SYNC word and each other."""

    def reorder(order, received, is_sync):
        rng = np.random.default_rng(5)
        late = received[order] + rng.integers(0, most, len(order))
        near = abs((received[order] + away) % SECOND - away) < away
        return order[np.argsort(np.where(near, late, received[order]), kind="stable")]

    return reorder


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("rate", [30, 300, 2_000])
def test_words_that_change_places_around_a_reset_are_placed(seed, rate):
    """Also on a card whose last word before the reset was long ago."""
    sent = card(seed, rate=rate, reorder=swapped(100_000, 60_000), words_per_message=1 + 4 * seed)
    off, chosen, _, packets = placed(run(sent))
    assert not off.any()
    late = packets.is_data & (packets.time > START // SECOND + 2)
    assert np.count_nonzero(late & ~chosen) < 0.01 * np.count_nonzero(late)


@pytest.mark.parametrize("count", [1, 60])
def test_a_card_with_words_only_at_the_end_of_each_second_is_placed(count):
    """As of a pulser: they are of this second, not late ones of the one before."""
    seconds = START + SECOND * np.arange(12)
    pulses = (seconds[:, np.newaxis] + 9_950_000 + 20 * np.arange(count)).ravel()
    pulser = Card(pulses, pps(START, 13), io_group=2)
    sent = run(card(seconds=11), pulser)
    off, chosen, _, packets = placed(sent)
    assert not off.any()
    late = (sent.receipts > START + 2 * SECOND) & (packets.io_group == 2)
    assert chosen[late & packets.is_data].all()


@pytest.mark.parametrize("back", [0.90, 0.93, 0.96, 0.985])
@pytest.mark.parametrize("seconds", [1.4, 1.7, 3.4])
def test_who_comes_back_at_the_end_of_a_second_is_not_placed_a_second_early(back, seconds):
    """There a header that is late could be one of the next second."""
    stop = START + 5 * SECOND + int(back * SECOND)
    start = stop - int(seconds * SECOND)
    sent = run(
        card(rate=1_000), drop=lambda io_groups, closed: (closed >= start) & (closed < stop)
    )
    off, chosen, clock, packets = placed(sent)
    assert not off.any()
    assert chosen[(sent.receipts > stop + int(1.3 * SECOND)) & packets.is_data].all()
    assert clock.counts["contradicts the header"] > 0


@pytest.mark.parametrize("seed", range(12))
def test_few_words_with_lost_syncs_are_not_placed_a_second_early(seed):
    """A word that goes with either second does not clear those that contradict."""
    sent = run(
        card(seed, seconds=30, rate=10, lost={*range(4, 30, 2)}, words_per_message=1),
        card(seed + 50, seconds=30, io_group=2),
    )
    assert not placed(sent)[0].any()


def test_the_first_sync_word_does_not_end_a_doubt():
    """It aligns the count; but seconds may have been lost before it."""
    start, stop = START + 36 * SECOND // 10, START + 74 * SECOND // 10
    sent = run(
        card(rate=100, lost={1, 2, 3, 4, 5, 6, 7}, words_per_message=2),
        drop=lambda io_groups, closed: (closed >= start) & (closed < stop),
    )
    off, *_ = placed(sent)
    assert not off.any()


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("step", [1, -1])
def test_one_damaged_header_in_the_first_second_misleads_no_card(seed, step):
    """Neither in the second nor in the phase, which is the same for all."""
    sent = run(card(seed, words_per_message=3), card(seed + 9, io_group=2))
    rows = np.flatnonzero(sent.batch.io_groups == 1)
    row = rows[1 + seed * 6]
    assert sent.receipts[sent.packets().row == row].max() < START + SECOND
    at = sent.batch.starts[row] + 1
    seconds = sent.batch.buffer[at : at + 4].view("<u4")
    seconds += np.uint32(step % (1 << 32))
    off, chosen, clock, packets = placed(sent)
    assert not off.any()
    assert clock.phase == 0
    assert chosen[(packets.io_group == 2) & packets.is_data][-1_500:].all()


def test_a_sync_word_whose_header_contradicts_is_not_placed():
    """After an outage it is the first word."""
    start, stop = START + 4 * SECOND - 100_000, START + 7 * SECOND - 100_000
    sent = run(card(), drop=lambda io_groups, closed: (closed >= start) & (closed < stop))
    off, chosen, _, packets = placed(sent)
    syncs = np.flatnonzero(packets.is_sync & (sent.receipts > start))
    assert not off.any()
    assert not chosen[syncs[0]]
    assert chosen[syncs[-1]]


def test_a_doubt_ends_with_a_word_that_excludes_it():
    """What is known to half a second goes with words of the next second, too."""
    header = HeaderTime()
    for tick, low in [(0, 0), (1, -7_000_000)]:
        header.look(tick, low)
    assert header.left == (0, 3_000_000)
    header.settle()
    lows = np.array([6_800_000, 1_200_000, -900_000, -1_100_000, 500_000])
    doubtful = header.take(np.arange(3, 8), lows, None)
    assert doubtful.tolist() == [True, True, True, False, False]


@pytest.mark.parametrize("seed", range(6))
def test_words_that_a_first_sync_word_overtakes_mislead_nobody(seed):
    """Of the second before nothing is known, when a stream begins shortly before a reset."""
    rng = np.random.default_rng(seed)
    first = START + 7_300_000
    receipts = times(rng, first, 6, 300)
    # Nothing just before the reset but two words, which come after its SYNC word.
    receipts = receipts[(receipts < START + 9_880_000) | (receipts > START + SECOND)]
    receipts = np.sort(np.append(receipts, START + np.array([9_994_000, 9_997_000])))

    def reorder(order, received, is_sync):
        key = np.where(is_sync[order], received[order] - 10_000, received[order])
        return order[np.argsort(key, kind="stable")]

    sent = run(Card(receipts, pps(first, 7), reorder=reorder))
    off, chosen, clock, packets = placed(sent)
    assert not off.any()
    assert clock.corrections["resets without a sync"] == 0
    assert chosen[packets.is_data & (sent.receipts > START + 2 * SECOND)].all()


def damage(sent: Run, row: int, *, word: int = 0, to: int) -> None:
    """Let the counter in a word of a message be another one."""
    kind = sent.batch.starts[row] + 8 + 16 * word
    at = kind + (2 if sent.batch.buffer[kind] == ord("D") else 4)
    sent.batch.buffer[at : at + 4] = np.array([to], "<u4").view(np.uint8)


def sync_rows(packets: Packets) -> np.ndarray:
    return packets.row[packets.is_sync]


@pytest.mark.parametrize("has_time", [True, False])
def test_one_counter_that_is_too_low_is_no_reset(has_time):
    """Words go on above it: only it is lost."""
    sent = run(card(rate=2_000, has_time=has_time, words_per_message=1))
    late = sent.receipts - START
    row = sent.packets().row[(late > 4 * SECOND + 8_000_000) & sent.packets().is_data][0]
    damage(sent, row, to=1_000)
    off, chosen, clock, packets = placed(sent)
    assert len({*off[chosen & (packets.row != row)].tolist()}) == 1
    assert clock.corrections["resets without a sync"] == 0
    whole = (late > 2 * SECOND) & (packets.row != row) & packets.is_data
    assert chosen[whole].all()


@pytest.mark.parametrize("to", [500_000, 1 << 30])
def test_one_counter_that_is_too_low_costs_a_free_card_nothing(to):
    """Neither as a rollover nor as a reset by hand, of which nobody knows the length."""
    rng = np.random.default_rng(3)
    receipts = times(rng, FIRST, 8, 1_000)
    sent = run(Card(receipts, FIRST - np.array([3 << 30]), words_per_message=1))
    row = sent.packets().row[sent.packets().is_data][4_000]
    damage(sent, row, to=to)
    off, chosen, clock, packets = placed(sent)
    others = packets.is_data & (packets.row != row)
    assert len({*off[others & chosen].tolist()}) == 1
    assert np.count_nonzero(others & ~chosen) < 300
    assert clock.corrections["clocks begun anew"] == 0


@pytest.mark.parametrize("to", [10_200_000, 12_345_678, 0x40000000])
def test_a_damaged_value_of_a_sync_word_does_not_move_the_count(to):
    """A pulse was due where words no longer count, whatever the value says."""
    sent = run(card(rate=1_000), card(2, io_group=2))
    packets = sent.packets()
    damage(sent, sync_rows(packets)[7], to=to)
    off, chosen, clock, _ = placed(sent)
    assert not off.any()
    assert chosen[packets.is_data & (sent.receipts > START + 2 * SECOND)].all()
    assert clock.corrections["irregular syncs"] == 1


def test_a_sync_word_that_comes_twice_counts_once():
    """A busy card is not silent for a second, and its header would be of a later one."""
    sent = run(card(rate=1_000))
    row = sync_rows(sent.packets())[4]
    rows = np.insert(np.arange(len(sent.batch)), row, row)
    packets = sent.batch.select(rows).packets()
    again = np.flatnonzero(packets.is_sync)[4:6]
    clock = Clock()
    ticks = clock.unwrap(packets)
    assert ticks[again[0]] == ticks[again[1]] > 0
    kept = np.delete(np.arange(len(packets)), [again[1] - 1, again[1]])
    assert (ticks[kept] == Clock().unwrap(sent.packets())).all()
    assert clock.corrections["syncs ignored"] == 1


def test_pulses_that_move_are_followed():
    """As of a generator that was started anew; words went on counting meanwhile."""
    sent = card(seconds=14, rate=2_000)
    moved = sent.resets + 3_700_000
    sent.resets = np.concatenate([sent.resets[:6], moved[7:]])
    sent.lost = {9, 11}
    sent = run(sent)
    off, chosen, _, packets = placed(sent)
    assert not off.any()
    assert chosen[packets.is_data & (sent.receipts > START + 2 * SECOND)].all()


def test_a_damaged_first_header_misleads_no_free_card_for_long():
    """Words contradict it, until they show that it is that header which is wrong."""
    rng = np.random.default_rng(3)
    receipts = times(rng, FIRST, 8, 1_000)
    sent = run(Card(receipts, FIRST - np.array([3 << 30])))
    sent.batch.buffer[sent.batch.starts[0] + 2] ^= 0x40
    off, chosen, _, packets = placed(sent)
    late = packets.is_data & (packets.row > 0)
    assert np.abs(off[late]).max() < 1
    assert chosen[late & (sent.receipts > FIRST + SECOND // 4)].all()
