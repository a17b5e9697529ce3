"""The clock where Unix time and the cards' counters do not run alike."""

import numpy as np
import pytest

from streamer.clock import Clock
from tests.cards import SECOND, START, Card, Run, pps, run, times

FIRST = START + 3_000_000
HOUR = 3_600


def drifting(rate: float):
    """Let a Unix clock gain on the pulses, by so much of the time that has passed."""
    return lambda closed: np.rint((closed - START) * rate).astype(np.int64)


def card(seed=1, *, seconds: int, rate: float, first=FIRST, **options) -> Card:
    """A card with PPS that has sent random hits, one a message."""
    receipts = times(np.random.default_rng(seed), first, seconds, rate)
    return Card(receipts, pps(first, seconds + 1), words_per_message=1, **options)


def placed(sent: Run, since: int) -> tuple[set[int], int, Clock]:
    """By how much hits that were received since some tick are off, and how many are missing."""
    clock, packets = Clock(), sent.packets()
    ticks = clock.unwrap(packets)
    late = packets.is_data & (sent.receipts >= since)
    assert late.any()
    off = (ticks - sent.ticks)[late & (ticks >= 0)]
    return {*off.tolist()}, np.count_nonzero(late & (ticks < 0)), clock


@pytest.mark.parametrize("rate", [5e-4, -5e-4])
def test_a_unix_clock_that_is_slewed_is_followed(rate):
    """As NTP does it, by 500 ppm: over 40 minutes by more than a second."""
    sent = run(card(seconds=2_400, rate=3, lead_at=drifting(rate)))
    off, n_missing, clock = placed(sent, START + 20 * SECOND)
    assert (off, n_missing) == ({0}, 0)
    assert clock.corrections["syncs lost"] == clock.corrections["seconds set back"] == 0


@pytest.mark.parametrize("rate", [1e-5, -1e-5])
def test_an_oscillator_that_drifts_for_hours_is_followed(rate):
    """Of a card that runs free: 10 ppm are a third of a second in ten hours."""
    receipts = times(np.random.default_rng(4), FIRST, 10 * HOUR, 0.2)
    # Nothing but the counter tells the time: it has rolled over 84 times.
    resets = FIRST - 20 * SECOND + (1 << 32) * np.arange(90)
    sent = run(Card(receipts, resets, lead_at=drifting(rate), words_per_message=1))
    off, n_missing, clock = placed(sent, FIRST)
    assert len(off) == 1
    assert n_missing == 0
    assert clock.corrections["clocks begun anew"] == 0


@pytest.mark.parametrize("jitter", [100, -100, 10])
def test_an_oscillator_that_drifts_between_pulses_adds_nothing_up(jitter):
    """10 ppm are 100 ticks a second, by which the SYNC words' values are off."""
    off, n_missing, _ = placed(run(card(seconds=900, rate=2, jitter=jitter)), START + 20 * SECOND)
    assert (off, n_missing) == ({0}, 0)


@pytest.mark.parametrize("lead", [4_000_000, -4_000_000])
def test_a_unix_clock_that_is_set_by_part_of_a_second_is_followed_soon(lead):
    """By 20 ms a second: its headers contradict in a part of each second, until they do not."""
    change = START + 30 * SECOND
    sent = run(
        card(seconds=120, rate=50, lead_at=lambda closed: np.where(closed > change, lead, 0))
    )
    off, n_missing, _ = placed(sent, START + 2 * SECOND)
    assert off == {0}
    assert n_missing > 0
    assert placed(sent, change + 25 * SECOND)[1] == 0


@pytest.mark.parametrize("rate", [5e-4, -5e-4])
def test_a_card_that_joins_after_a_drift_agrees_with_the_others(rate):
    """Pulses of a generator are at another time of the second by then, for all of them."""
    join = START + 1_600 * SECOND + 3_000_000
    sent = run(
        card(1, seconds=1_640, rate=3, lead_at=drifting(rate)),
        card(2, seconds=30, rate=50, first=join, io_group=2, lead_at=drifting(rate)),
    )
    off, n_missing, clock = placed(sent, join + 5 * SECOND)
    assert (off, n_missing) == ({0}, 0)
    assert clock.cards[2].is_tied


def pulser(seconds: int, phase: float, **options) -> Card:
    """A card that sends hits all the time for 20 s, and then only at one phase of each second."""
    busy = times(np.random.default_rng(3), FIRST, 20, 50)
    pulses = START + np.arange(21, seconds) * SECOND + round(phase * SECOND)
    pulses = (pulses[:, np.newaxis] + 300 * np.arange(3)).ravel()
    return Card(np.append(busy, pulses), pps(FIRST, seconds), words_per_message=1, **options)


@pytest.mark.parametrize(("rate", "phase"), [(-5e-4, 0.3), (5e-4, 0.7)])
def test_pulses_whose_header_comes_to_another_second_are_not_moved(rate, phase):
    """What headers said of other phases of the second, long ago, does not count against them."""
    off, n_missing, _ = placed(run(pulser(900, phase, lead_at=drifting(rate))), START + 2 * SECOND)
    assert (off, n_missing) == ({0}, 0)


@pytest.mark.parametrize("rate", [1e-5, -1e-5])
def test_pulses_of_a_generator_that_drifts_for_hours_are_followed(rate):
    """By 10 ppm; and a card that was away for hours is found again, at the same ticks."""
    stop = START + 8 * HOUR * SECOND
    sent = run(
        card(seconds=8 * HOUR + 300, rate=0.5, lead_at=drifting(rate)),
        card(2, seconds=8 * HOUR + 300, rate=0.5, io_group=2, lead_at=drifting(rate)),
        drop=lambda io_groups, closed: (
            (io_groups == 2) & (closed > stop - 5 * HOUR * SECOND) & (closed < stop)
        ),
    )
    off, _, clock = placed(sent, START + 60 * SECOND)
    assert off == {0}
    assert clock.corrections["syncs lost"] > 4 * HOUR
