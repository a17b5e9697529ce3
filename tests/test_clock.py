"""The clock: every packet at its time or at none, against cards whose truth is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer import Batch, Packets
from streamer.clock import COMMON, Clock
from streamer.clock.headertime import HeaderTime
from tests.cards import SECOND, START, Card, Run, as_batch, delays, pps, run, times
from writer.simulate import simulate

ROLLOVER = 1 << 32
FIRST = START + 3_000_000


def card(seed=1, *, seconds=6.0, rate=1_500, start=FIRST, phase=0, **options) -> Card:
    """A card with PPS that has sent random hits."""
    rng = np.random.default_rng(seed)
    receipts = times(rng, start, seconds, rate)
    options.setdefault("delays", delays(rng, len(receipts)))
    return Card(receipts, pps(start, int(seconds) + 1, phase), **options)


def free(seed=1, *, counter=ROLLOVER - 20 * SECOND, seconds=40.0, rate=200, **options) -> Card:
    """A card that runs free, with its counter at the start."""
    rng = np.random.default_rng(seed)
    receipts = times(rng, FIRST, seconds, rate)
    options.setdefault("delays", delays(rng, len(receipts)))
    options.setdefault("resets", FIRST - counter + ROLLOVER * np.arange(3))
    return Card(receipts, **options)


class Found:
    """What a clock made of a run, and how far that is from the truth."""

    def __init__(self, sent: Run, clock: Clock | None = None, cuts=()):
        self.clock = clock or Clock()
        self.packets = sent.packets()
        found = [self.clock.times(part) for part in sent.parts(cuts)]
        self.ticks, self.receipts, self.scales = map(np.concatenate, zip(*found, strict=True))
        self.truth, self.received = sent.ticks, sent.receipts
        self.is_placed = self.ticks >= 0

    def off(self, io_group=None) -> set[int]:
        """By how many ticks what was placed is off."""
        chosen = self.is_placed if io_group is None else self.is_placed & self.of(io_group)
        return {
            *(self.ticks - self.truth)[chosen].tolist(),
            *(self.receipts - self.received)[chosen].tolist(),
        }

    def of(self, io_group) -> np.ndarray:
        return self.packets.io_group == io_group

    def missing(self, since=0, until=1 << 62) -> int:
        """Words received from some tick to another that were not placed."""
        wanted = (self.received >= since) & (self.received < until) & (self.truth >= 0)
        return np.count_nonzero(wanted & ~self.is_placed)

    @property
    def counts(self) -> dict[str, int]:
        return {name: count for name, count in self.clock.counts.items() if count}

    @property
    def corrections(self) -> dict[str, int]:
        return {name: count for name, count in self.clock.corrections.items() if count}


# ----------------------------------------------------------------------------- with PPS


def test_every_word_after_the_first_sync_is_placed():
    """With PPS nothing is missing or wrong from the first reset on."""
    found = Found(run(card()))
    assert found.off() == {0}
    assert found.missing(since=START + SECOND) == 0
    assert found.clock.cards[1] == ("pps", True, True, True)


def test_words_before_the_first_sync_are_not_placed():
    """Nothing tells of what second they are; they are counted."""
    found = Found(run(card()))
    before = np.count_nonzero((found.received < START + SECOND) & (found.truth >= 0))
    assert found.counts == {"before the first sync": before}


def test_headers_of_messages_have_no_time():
    """Neither a time nor a reason why they have none."""
    found = Found(run(card()))
    assert not found.is_placed[found.packets.is_timestamp].any()
    assert not (found.truth[found.packets.is_timestamp] >= 0).any()


def test_hits_from_before_a_reset_are_of_the_second_before():
    """What was digitised before a reset, and read out after it, is at its own time."""
    found = Found(run(card(delays=500_000)))
    assert found.off() == {0}
    crossed = found.truth // SECOND < found.received // SECOND
    crossed = np.count_nonzero(crossed & found.is_placed)
    assert crossed == found.corrections["digitised before a sync"] > 200


def test_hits_read_out_nearly_a_second_late_are_placed():
    """As from a clogged UART."""
    found = Found(run(card(delays=9_500_000)))
    assert found.off() == {0}
    assert found.missing(since=START + SECOND) == 0


def slowly_unrolled(packets: Packets) -> list[int | None]:
    """Unroll word by word, by the rule in its shortest form."""
    offsets, found = {}, []
    names = ("packet_type", "trigger_type", "timestamp", "receipt_timestamp", "io_group")
    columns = (getattr(packets, name).tolist() for name in names)
    for kind, letter, stamp, receipt, io_group in zip(*columns, strict=True):
        if kind == 6 and letter == ord("S"):
            offsets[io_group] = offsets.get(io_group, 0) + round(stamp / SECOND) * SECOND
        back = SECOND if receipt < stamp else 0
        placed = kind == 0 and io_group in offsets
        found.append(offsets[io_group] + stamp - back if placed else None)
    return found


def test_simulated_data_is_unrolled_as_by_the_plain_rule():
    """To within a constant, the same as one period a SYNC word and one less at the edge."""
    batches = list(simulate("module0", seed=3, seconds=3))
    packets = Packets.concatenate([as_batch(sent).packets() for sent in batches])
    clock = Clock()
    ticks = clock.unwrap(packets)
    hits = np.flatnonzero(packets.is_data & (ticks >= 0))
    slow = slowly_unrolled(packets)
    differences = {ticks[k] - slow[k] for k in hits.tolist()}
    # The first SYNC word of the simulator comes at the very start.
    assert differences == {1_699_999_999 * SECOND}
    assert clock.corrections["digitised before a sync"] > 10


def test_simulated_hits_have_their_delays():
    """Some hops of 26.4 us; all are placed, once the headers have shown most of a second."""
    clock, count = Clock(), 0
    for number, sent in enumerate(simulate("module0", seed=3, seconds=3)):
        packets = as_batch(sent).packets()
        found = clock.times(packets)
        if number < 10:
            continue
        assert (found.ticks[~packets.is_timestamp] >= 0).all()
        delay = (found.receipts - found.ticks)[packets.is_data]
        assert not (delay % 264).any()
        assert (delay >= 264).all()
        middle = 1_700_000_000.05 + number / 10
        assert (abs(found.receipts[packets.is_data] / SECOND - middle) < 0.06).all()
        count += len(delay)
    assert count > 200_000
    assert clock.phase == 0


@pytest.mark.parametrize("phase", [0, 3_700_000, -2_500_000, 5_000_000])
def test_cards_agree_whatever_the_phase_of_the_pulse(phase):
    """All cards give a reset the same tick, though their Unix clocks differ a little."""
    leads = (0, -300_000, 300_000)
    cards = [
        card(k, phase=phase, io_group=k + 1, lead=lead, rate=700) for k, lead in enumerate(leads)
    ]
    sent = run(*cards)
    found = Found(sent)
    assert len(found.off()) == 1
    assert abs(found.off().pop()) < 400_000
    # The first card that knows the phase is the first in the file, not in a batch.
    assert (Found(sent, cuts=range(0, len(sent.batch), 20)).ticks == found.ticks).all()
    assert {state.is_tied for state in found.clock.cards.values()} == {True}
    assert {*found.scales[found.is_placed].tolist()} == {COMMON}
    assert (found.clock.phase * SECOND - phase + 400_000) % SECOND < 800_000


def test_a_whole_second_is_recognised():
    """If the pulse may be at the whole second, it is taken to be: ticks are exact."""
    assert Found(run(card(lead=20_000))).off() == {0}


def test_sync_words_at_the_change_of_the_second_do_not_mislead():
    """Headers of SYNC words may be of either second, if the Unix clock is right to 1 ms."""
    rng = np.random.default_rng(5)

    def lead(closed):
        return rng.integers(-10_000, 6_000, len(closed))

    found = Found(run(card(lead_at=lead, seconds=20), card(2, io_group=2, seconds=20)))
    assert found.off() == {0}
    assert found.missing(since=START + 2 * SECOND) == 0


def test_sync_values_are_rounded():
    """A card's own clock is off by some ticks a second, which do not add up."""
    found = Found(run(card(jitter=-9)))
    assert found.off() == {0}


def test_a_follower_that_starts_later_finds_the_same_times():
    """Ticks are of Unix time, not from where one began."""
    sent = run(card(seconds=12))
    whole, late = Found(sent), Clock()
    start = len(whole.ticks) // 2
    packets = whole.packets.select(np.arange(start, len(whole.ticks)))
    ticks = late.unwrap(packets)
    both = (ticks >= 0) & (packets.packet_type != 4)
    assert (ticks[both] == whole.ticks[start:][both]).all()
    assert np.count_nonzero(both) > 0.8 * np.count_nonzero(whole.is_placed[start:])


# -------------------------------------------------------------------- lost SYNC words


@pytest.mark.parametrize("lost", [{3}, {3, 4, 5}, {1}, {1, 2, 3}])
def test_a_lost_sync_word_costs_nothing_where_hits_are(lost):
    """The drop of the counter tells of the reset as well."""
    found = Found(run(card(seconds=9, lost=lost)))
    assert found.off() == {0}
    assert found.missing(since=START + 2 * SECOND) == 0
    assert found.corrections["resets without a sync"] == len(lost)


def test_pulses_that_the_card_missed_are_made_up_for():
    """The counter then goes on for several seconds, and its last value says so."""
    sent = card(seconds=9)
    sent.resets = np.delete(sent.resets, [3, 6, 7])
    found = Found(run(sent))
    assert found.off() == {0}
    assert found.missing(since=START + SECOND + 1) == 0
    assert found.corrections["syncs lost"] == 3


def test_a_pulse_that_stops_and_comes_back_costs_nothing():
    """The counter goes on, here for 20 seconds."""
    sent = card(seconds=30, rate=200)
    sent.resets = np.delete(sent.resets, np.arange(5, 25))
    found = Found(run(sent))
    assert found.off() == {0}
    assert found.missing(since=START + SECOND + 1) == 0


@pytest.mark.parametrize("seconds", [1.4, 2.0, 2.7, 11.3])
def test_after_an_outage_the_headers_tell_how_long_it_was(seconds):
    """Without any word nothing counts the seconds: words wait until headers are sure."""
    start = START + int(4.2 * SECOND)
    stop = start + round(seconds * SECOND)
    sent = run(
        card(seconds=seconds + 9),
        drop=lambda io_groups, closed: (closed >= start) & (closed < stop),
    )
    found = Found(sent)
    assert found.off() == {0}
    assert found.missing(since=stop + int(1.3 * SECOND)) == 0
    assert found.counts["contradicts the header"] >= found.missing(since=stop)


def test_an_outage_of_one_card_does_not_move_the_others():
    """Each card is followed by itself."""
    start, stop = START + 4 * SECOND, START + 7 * SECOND + 10
    cards = [card(k, io_group=k, seconds=12, rate=400) for k in (1, 2, 3)]
    found = Found(
        run(
            *cards,
            drop=lambda io_groups, closed: (io_groups == 2) & (closed > start) & (closed < stop),
        )
    )
    assert found.off(1) == found.off(3) == {0}
    assert not (found.ticks != found.truth)[
        found.is_placed & (found.received > stop + SECOND)
    ].any()


def test_one_damaged_header_moves_nothing():
    """The words of its message are not placed; all others are."""
    sent = run(card())
    row = len(sent.batch) // 2
    sent.batch.buffer[sent.batch.starts[row] + 2] ^= 0x40
    found = Found(sent)
    lost = found.packets.row == row
    assert found.off() == {0}
    assert found.missing(since=START + SECOND) == np.count_nonzero(lost) - 1
    assert found.counts["contradicts the header"] == np.count_nonzero(lost) - 1


def test_one_damaged_counter_moves_nothing():
    """A single receipt timestamp far off is no reset."""
    sent = run(card())
    row = len(sent.batch) // 2
    sent.batch.buffer[sent.batch.starts[row] + 8 + 5] ^= 0x80
    found = Found(sent)
    assert found.off() == {0}
    assert found.missing(since=START + SECOND) == 1


def test_a_unix_clock_that_is_set_does_not_move_the_count_for_long():
    """If it is set by whole seconds, the headers are believed after one of them."""
    change = START + 5 * SECOND + 100

    def lead(closed):
        return np.where(closed > change, 3 * SECOND, 0)

    found = Found(run(card(seconds=14, lead_at=lead)))
    assert found.off() == {0, 3 * SECOND}
    assert found.missing(since=change + int(1.3 * SECOND)) == 0
    assert found.corrections["syncs lost"] == 3


def test_a_unix_clock_that_is_off_by_less_is_not_believed():
    """The count goes on, however the headers waver by some tens of milliseconds."""

    def lead(closed):
        return (400_000 * np.sin((closed - START) / SECOND)).astype(np.int64)

    found = Found(run(card(seconds=20, rate=300, lead_at=lead)))
    assert len(found.off()) == 1
    assert found.missing(since=START + 2 * SECOND) == 0


@pytest.mark.parametrize("seed", range(8))
def test_cards_with_few_words_find_their_second_too(seed):
    """It takes them longer, and they are not wrong meanwhile."""
    few = card(seed, seconds=60, rate=1, words_per_message=1, lead=80_000)
    found = Found(run(few, card(seed + 9, seconds=60, rate=50, io_group=2)))
    assert found.off() == {0}
    assert found.missing(since=START + 20 * SECOND) == 0


@pytest.mark.parametrize("seed", range(8))
def test_cards_with_few_words_find_it_again_after_an_outage(seed):
    """As soon as words have shown which second it must be."""
    stop = START + 15 * SECOND + 5_500_000
    few = card(seed, seconds=50, rate=4, words_per_message=1)
    found = Found(
        run(few, drop=lambda io_groups, closed: (closed > START + 9 * SECOND) & (closed < stop))
    )
    late = found.is_placed & (found.received > stop + 2 * SECOND)
    assert {*(found.ticks - found.truth)[late].tolist()} == {0}
    assert found.missing(since=stop + 12 * SECOND) == 0


def test_a_damaged_first_header_does_not_mislead():
    """A second is believed only if several messages agree."""
    sent = run(card(seconds=9), card(2, io_group=2, start=START + 4 * SECOND + 1_000_000))
    for row in (0, np.flatnonzero(sent.batch.io_groups == 2)[0]):
        sent.batch.buffer[sent.batch.starts[row] + 2] ^= 0x02
    found = Found(sent)
    assert found.off() == {0}
    assert found.missing(since=START + 7 * SECOND) == 0


def test_a_second_is_not_guessed_from_words_at_its_change():
    """A card with words only there may be of either second."""
    clear = card(seconds=12)
    first = START + np.arange(1, 12) * SECOND
    unclear = card(2, seconds=12, io_group=2, lead=-80_000)
    unclear.receipts = (first[:, np.newaxis] + np.array([20_000, 40_000, 60_000])).ravel()
    unclear.delays = 264
    found = Found(run(clear, unclear))
    assert found.off() == {0}
    assert not found.is_placed[found.of(2)].any()
    assert found.counts["second not known yet"] > 30


def test_what_fits_several_seconds_is_not_believed():
    """Until words have shown by how many seconds headers are off."""
    header = HeaderTime()
    for tick, low in [(0, 0), (1, -SECOND * 6 // 10)]:
        header.look(tick, low)
    header.look(2, None)
    assert header.left == (0, SECOND * 4 // 10)
    header.settle()
    for tick in (10, SECOND // 2, 2 * SECOND):
        lows = np.array([SECOND * 146 // 100 + tick % 7])
        assert header.take(np.array([tick]), lows, None).all()
    assert header.look(3 * SECOND, None) is None
    header.take(np.array([3 * SECOND]), np.array([SECOND * 18 // 10]), None)
    assert header.look(4 * SECOND, None).seconds == 2


def test_headers_that_are_late_for_a_while_move_nothing():
    """As when the card is too busy to send: its words are not placed meanwhile."""
    begin, end = START + 3 * SECOND + 100, START + 3 * SECOND + 7_000_000

    def lead(closed):
        return np.where((closed > begin) & (closed < end), SECOND, 0)

    found = Found(run(card(lead_at=lead)))
    assert found.off() == {0}
    assert found.missing(since=START + SECOND, until=begin) == 0
    assert found.missing(since=end + 2_000_000) == 0
    assert found.counts["contradicts the header"] > 800


def test_a_card_that_becomes_busy_is_followed():
    """Headers come later and later, by less than a tenth of a second: nothing is missing."""

    def lead(closed):
        return np.where(closed % (3 * SECOND) > 2 * SECOND, 800_000, 0)

    found = Found(run(card(seconds=20, rate=500, lead_at=lead)))
    assert found.off() == {0}
    assert found.missing(since=START + 2 * SECOND) == 0


# ------------------------------------------------------------------ out of their order


def late_syncs(order, received, is_sync):
    """SYNC words come after the first three words that they should come before."""
    order = order.tolist()
    for place in [k for k, word in enumerate(order) if is_sync[word]][1:]:
        if place + 3 < len(order):
            order[place : place + 4] = [*order[place + 1 : place + 4], order[place]]
    return np.array(order)


def early_syncs(order, received, is_sync):
    """SYNC words come before the last three words that they should come after."""
    order = order.tolist()
    for place in [k for k, word in enumerate(order) if is_sync[word]][1:]:
        if place + 3 < len(order):
            order[place - 3 : place + 1] = [order[place], *order[place - 3 : place]]
    return np.array(order)


@pytest.mark.parametrize("reorder", [late_syncs, early_syncs])
def test_words_that_overtake_a_sync_word_are_placed(reorder):
    """A busy card's words come a little out of order, also across a reset."""
    found = Found(run(card(reorder=reorder, rate=4_000)))
    assert found.off() == {0}
    assert found.missing(since=START + 2 * SECOND) == 0
    if reorder is early_syncs:
        assert found.corrections["received before a sync"] > 5
    else:
        assert found.corrections["resets without a sync"] > 3


def test_chips_that_missed_a_reset_are_placed():
    """Their counter went on, by whole seconds; flow takes it modulo one too."""
    sent = card(rate=700)
    sent.missed = np.where(np.arange(len(sent.receipts)) % 5 == 0, 1, 0)
    sent.missed[sent.receipts < START + 2 * SECOND] = 0
    found = Found(run(sent))
    assert found.off() == {0}
    assert found.missing(since=START + SECOND + 1) == 0
    assert found.corrections["chips that missed a sync"] > 400


def test_a_chip_that_is_never_reset_is_not_placed():
    """Its counter tells nothing of the card's time."""
    sent = card(rate=700)
    hits = sent.receipts - sent.delays
    sent.counter = lambda ticks, missed=0: (
        ticks - START + 50 * SECOND
        if ticks is hits or (len(ticks) == len(hits) and (ticks == hits).all())
        else Card.counter(sent, ticks, missed)
    )
    found = Found(run(sent))
    assert found.packets.is_data[found.is_placed].sum() == 0
    assert found.counts["chip out of step"] > 3_000


# ------------------------------------------------------------------------ running free


def test_a_free_card_is_placed_from_its_first_word_on():
    """Above 2.5 s a counter shows at once that no pulse resets it; also at the rollover."""
    found = Found(run(free()))
    assert found.missing() == 0
    assert len(found.off()) == 1
    assert abs(found.off().pop()) <= SECOND
    assert found.clock.cards[1] == ("free", True, False, True)
    assert {*found.scales[found.is_placed].tolist()} == {1}


@pytest.mark.parametrize("asic", ["v2", "v3", "v2-fifo"])
def test_chips_roll_over_more_often_than_the_card(asic):
    """A v2 chip's counter has 31 bits, a v3 chip's 28, and in FIFO diagnostics mode 16."""
    sent = free(counter=ROLLOVER // 2 - 20 * SECOND, seconds=60, rate=100, asic=asic)
    found = Found(run(sent))
    assert found.missing() == 0
    assert len(found.off()) == 1


@pytest.mark.parametrize("asic", ["v2", "v3", "v2-fifo"])
def test_chips_of_every_kind_are_placed_with_pps(asic):
    """The lengths of their counters do not matter, but for hits that cross a reset."""
    found = Found(run(card(asic=asic)))
    assert found.off() == {0}
    assert found.missing(since=START + SECOND) == 0


def test_a_lost_rollover_is_made_up_for():
    """The drop of the counter tells of it as well."""
    found = Found(run(free(lost={1})))
    assert found.missing() == 0
    assert len(found.off()) == 1
    assert found.corrections["resets without a sync"] == 1


def test_a_free_card_that_starts_at_0_is_known_as_such_after_a_while():
    """Until its counter is too high for PPS nothing is placed."""
    found = Found(run(free(counter=1_000, seconds=6, rate=500)))
    assert len(found.off()) == 1
    assert found.missing(since=FIRST + int(2.51 * SECOND)) == 0
    assert found.counts == {"before the first sync": found.missing()}


def test_a_free_card_that_is_said_to_be_one_is_placed_at_once():
    """With mode="free" there is nothing to find out."""
    found = Found(run(free(counter=1_000, seconds=6, rate=500)), Clock("free"))
    assert found.missing() == 0


def test_a_free_card_that_is_reset_by_hand_goes_on():
    """The SYNC word has the counter's last value."""
    sent = free(counter=9 * SECOND, seconds=20)
    sent.resets = np.array([FIRST - 9 * SECOND, FIRST + 8 * SECOND + 1_234])
    found = Found(run(sent), Clock("free"))
    assert len(found.off()) == 1
    assert found.missing() == 0


def test_a_free_card_that_is_reset_without_a_word_begins_anew():
    """Nobody knows for how long it had counted: Unix time gives a new beginning."""
    sent = free(counter=9 * SECOND, seconds=20)
    sent.resets = np.array([FIRST - 9 * SECOND, FIRST + 8 * SECOND + 1_234])
    sent.lost = {1}
    found = Found(run(sent))
    assert len(found.off()) == 2
    assert max(map(abs, found.off())) <= SECOND
    assert found.corrections["resets without a sync"] == 1


def test_a_card_whose_pulse_begins_later_is_tied_from_then_on():
    """It runs free, then PPS resets it: its ticks are those of the common scale."""
    sent = free(counter=30 * SECOND + 123, seconds=12, rate=300)
    sent.resets = np.concatenate([sent.resets[:1], pps(START + 6 * SECOND, 8)])
    found = Found(run(sent))
    late = found.received > START + 8 * SECOND
    assert {*(found.ticks - found.truth)[late].tolist()} == {0}
    assert found.clock.cards[1] == ("pps", True, True, True)


def test_a_card_that_is_said_to_have_pps_is_placed_from_its_first_reset_on():
    """Also if that comes at no whole second, as when the pulse is switched on."""
    sent = card(rate=3_000)
    sent.resets[0] -= 1_234_567
    found = Found(run(sent), Clock("pps"))
    assert found.off() == {0}
    assert found.missing(since=START + 2 * SECOND) == 0
    assert found.corrections["digitised before a sync"] > 0


def test_a_reset_between_two_pulses_costs_nothing():
    """Counters begin anew once more; the next pulse is at its whole second again."""
    sent = card(jitter=2)
    sent.resets = np.sort(np.append(sent.resets, START + int(3.4 * SECOND)))
    sent.resets[0] -= 1_234_567
    found = Found(run(sent), Clock("pps"))
    assert found.off() <= {-2, 0, 2}
    assert not (found.ticks - found.truth)[
        found.is_placed & (found.truth > START + 4 * SECOND)
    ].any()
    assert found.missing(since=START + SECOND) == 0
    assert found.corrections["irregular syncs"] == 1


def test_sync_words_that_make_no_sense_are_ignored():
    """Whose last value is below what had been counted: the counter's drop tells as well."""
    sent = card(jitter=-9_000_000)
    found = Found(run(sent), Clock("pps"))
    hits = found.packets.is_data & found.is_placed
    assert {*(found.ticks - found.truth)[hits].tolist()} == {0}
    assert not (found.packets.is_data & ~found.is_placed)[
        found.received > START + 2 * SECOND
    ].any()
    assert found.corrections["syncs ignored"] > 4


def test_an_unknown_mode_is_refused():
    """And it says which there are."""
    with pytest.raises(ValueError, match="auto, pps, free, not 'gps'"):
        Clock("gps")


# --------------------------------------------------------------------- the newer wire


def test_the_newer_wire_is_placed_by_its_headers():
    """Unix nanoseconds in the header, ticks of 64 bits in the words."""
    found = Found(run(card(wire="new24", asic="v3")))
    assert found.off() == {0}
    assert found.missing(since=START + SECOND) == 0


def test_without_a_time_in_the_header_a_card_counts_for_itself():
    """As from the newer wire's own data servers: cards cannot be compared."""
    cards = [card(k, io_group=k, wire="new24", asic="v3", has_time=False) for k in (1, 2)]
    found = Found(run(*cards))
    for io_group in (1, 2):
        assert len(found.off(io_group)) == 1
        assert {*found.scales[found.is_placed & found.of(io_group)].tolist()} == {io_group}
        assert found.clock.cards[io_group] == ("pps", True, False, False)
    assert found.missing(since=START + SECOND) == 0
    assert found.ticks.max() <= 8 * SECOND


def test_a_free_counter_of_64_bits_goes_on():
    """Beyond 32 bits, while the chip's rolls over."""
    sent = free(counter=5 * ROLLOVER - 3 * SECOND, wire="new24", asic="v3")
    sent.resets = sent.resets[:1]
    found = Found(run(sent))
    assert len(found.off()) == 1
    assert found.missing() == 0


def test_impossible_counters_are_counted():
    """64 bits can hold what no clock has counted; nothing else suffers."""
    sent = run(card(wire="new24", asic="v3"))
    row = len(sent.batch) // 2
    sent.batch.buffer[sent.batch.starts[row] + 24 + 15] = 0xFF
    found = Found(sent)
    assert found.off() == {0}
    assert found.counts["impossible counter"] == 1
    assert found.missing(since=START + SECOND) == 1


# ------------------------------------------------------------- what must always hold


def difficult(seed: int) -> Run:
    """Two cards with all faults at once."""
    rng = np.random.default_rng(seed)
    lost = {*rng.integers(1, 8, 2).tolist()}
    first = card(seed, seconds=7, rate=200, lost=lost, reorder=early_syncs, jitter=3)
    second = card(seed + 1, seconds=7, rate=30, io_group=2, skew=int(rng.integers(400_000)))
    second.missed = rng.integers(0, 2, len(second.receipts)) * (
        second.receipts > START + 3 * SECOND
    )
    third = free(seed, counter=ROLLOVER - 3 * SECOND, seconds=7, rate=100, io_group=3)
    start = START + int(rng.integers(2 * SECOND, 6 * SECOND))
    stop = start + int(rng.integers(2 * SECOND))
    sent = run(
        first,
        second,
        third,
        drop=lambda io_groups, closed: (io_groups == 1) & (closed > start) & (closed < stop),
    )
    for row in rng.integers(len(sent.batch), size=3).tolist():
        place = int(rng.integers(1, sent.batch.lengths[row]))
        sent.batch.buffer[sent.batch.starts[row] + place] ^= 1 << int(rng.integers(8))
    return sent


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1_000_000), data=st.data())
def test_nothing_depends_on_how_the_stream_is_cut(seed, data):
    """Also in the middle of a second, and into single messages."""
    sent = difficult(seed)
    whole = Found(sent)
    n = len(sent.batch)
    cuts = data.draw(st.lists(st.integers(0, n), max_size=12))
    some = data.draw(st.integers(0, n))
    parts = Found(sent, cuts=[*cuts, *range(some, min(n, some + 100))])
    for name in ("ticks", "receipts", "scales"):
        assert (getattr(parts, name) == getattr(whole, name)).all()
    assert parts.clock.counts == whole.clock.counts
    assert parts.clock.corrections == whole.clock.corrections
    assert parts.clock.cards == whole.clock.cards


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1_000_000))
def test_every_word_is_placed_or_counted(seed):
    """And no header; whatever the faults."""
    found = Found(difficult(seed))
    words = np.count_nonzero(~found.packets.is_timestamp)
    assert np.count_nonzero(found.is_placed) + sum(found.counts.values()) == words
    assert not found.is_placed[found.packets.is_timestamp].any()
    assert (found.receipts >= 0).tolist() == found.is_placed.tolist()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(min_size=16, max_size=160), min_size=1, max_size=30), st.data())
def test_random_bytes_are_placed_or_counted(payloads, data):
    """Whatever a message holds, it does no harm."""
    messages, io_groups = [], []
    for payload in payloads:
        count = len(payload) // 16
        letters = data.draw(st.lists(st.sampled_from(b"DSTX"), min_size=count, max_size=count))
        words = bytearray(payload[: 16 * count])
        for k, letter in enumerate(letters):
            words[16 * k] = letter
        header = b"D" + payload[:4] + b"\0" + count.to_bytes(2, "little")
        messages.append(header + bytes(words))
        io_groups.append(payload[0] % 3)
    lengths = np.array([len(message) for message in messages])
    batch = Batch(
        rows=np.arange(len(messages)),
        io_groups=np.array(io_groups, np.uint8),
        buffer=np.frombuffer(b"".join(messages), np.uint8),
        starts=np.cumsum(lengths) - lengths,
        lengths=lengths,
    )
    for mode in ("auto", "pps", "free"):
        clock, packets = Clock(mode), batch.packets()
        ticks = clock.unwrap(packets)
        assert np.count_nonzero(ticks >= 0) + sum(clock.counts.values()) == packets.n_words
        assert (ticks >= -1).all()
