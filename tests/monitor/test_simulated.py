"""Monitor finds what is true of a simulated detector."""

import numpy as np
import pytest

from streamer.monitor import Monitor
from tests.monitor.streams import START, as_packets, data_word, legacy, simulated, trigger_word
from writer.detector import Detector, Load
from writer.larpix import DATA_BITS, pack
from writer.simulate import simulate

SECONDS, SEED = 12.5, 3
LOAD = Load(io_groups=3, tiles=8, messages_per_second=400, words_per_message=12)


@pytest.fixture(scope="module")
def detector():
    return Detector(LOAD, SEED)


@pytest.fixture(scope="module")
def snapshot():
    monitor = Monitor(span=5)
    for packets in as_packets(simulated(LOAD, SECONDS, seed=SEED), range(1_000, 15_000, 1_000)):
        monitor.update(packets)
    return monitor.snapshot()


def near(count, expected, sigmas=5):
    return abs(count - expected) <= sigmas * np.sqrt(expected)


def test_hot_channels(snapshot, detector):
    """The hottest channels are those that are hot, with their share of the hits."""
    hottest = snapshot.channels.hottest(len(detector.hot_channels))
    address = snapshot.channels.address
    found = np.stack([address[name][hottest] for name in address], axis=1)
    assert {*map(tuple, found.tolist())} == {*map(tuple, detector.hot_channels.tolist())}
    data = snapshot.channels.recent["data"].sum()
    assert near(snapshot.channels.share[hottest].sum() * data, detector.hot_share * data)


def test_rates(snapshot):
    """Rates of io_groups, tiles and channels are those of the load."""
    inner = snapshot.complete
    assert inner.sum() == 11
    hits = LOAD.messages_per_second * LOAD.words_per_message * inner.sum()
    found = snapshot.history["data"][:, inner].sum(axis=1)
    # Messages have 5 to 10 words, or 64, and few have thousands, of which much of sigma comes.
    few, burst = np.arange(5, 11), np.arange(1_000, 4_001)
    bursts, busy = 1e-4, LOAD.busy_fraction
    square = (1 - busy - bursts) * (few**2).mean() + busy * 64**2 + bursts * (burst**2).mean()
    sigma = np.sqrt(LOAD.messages_per_second * inner.sum() * square)
    assert (abs(found - hits) < 5 * sigma).all()
    assert abs(found.mean() - hits) < 5 * sigma / np.sqrt(3)
    # Apart from how long they are, messages come as often as they should.
    messages = snapshot.history["messages"][:, inner] - snapshot.history["sync"][:, inner]
    assert near(messages.sum(), 3 * LOAD.messages_per_second * inner.sum())
    tiles = snapshot.tiles
    assert tiles["tile"].tolist() == [*range(1, 9)] * 3
    assert tiles["history"].sum(axis=0).tolist() == snapshot.history["data"].sum(axis=0).tolist()
    table = snapshot.channels
    assert (table.seconds, table.is_complete) == (5, True)
    covered = np.isin(snapshot.seconds, np.arange(START + 5, START + 10))
    assert table.recent["data"].sum() == snapshot.history["data"][:, covered].sum()
    assert table.by("io_group").rate.tolist() == (
        snapshot.history["data"][:, covered].mean(axis=1).tolist()
    )


def test_fractions_by_type(snapshot):
    """Each packet is of one type; nearly all are data, and each message has a header."""
    history = snapshot.history
    assert (snapshot.packets == history["words"] + history["messages"]).all()
    inner = snapshot.complete
    fraction = (history["data"] / snapshot.packets)[:, inner]
    assert fraction.min() > 0.8
    assert (history["timestamp"] == history["messages"]).all()


def test_parity_errors(snapshot, detector):
    """The fraction of invalid parity is the one that was simulated."""
    errors, of_chips = (
        sum(snapshot.totals[name].sum() for name in names)
        for names in (["parity_errors"], ["upstream", "downstream"])
    )
    assert near(errors, detector.parity_error_fraction * of_chips)
    inner = snapshot.complete
    of_chips = (snapshot.history["upstream"] + snapshot.history["downstream"])[:, inner]
    errors = (snapshot.parity_error_fraction[:, inner] * of_chips).sum(axis=1)
    expected = detector.parity_error_fraction * of_chips.sum(axis=1)
    assert near(errors, expected).all()
    assert near(errors.sum(), expected.sum())


@pytest.mark.parametrize("which", ["local", "shared"])
def test_fifo_flags(snapshot, detector, which):
    """Their fractions are those that were simulated; full ones are more than half full too."""
    data = snapshot.totals["data"].sum()
    for name, expected in (
        ("half", detector.fifo_half_fraction),
        ("full", detector.fifo_full_fraction),
        ("flagged", detector.fifo_half_fraction),
    ):
        assert near(snapshot.totals[f"{which}_fifo_{name}"].sum(), expected * data)
    by_channel = snapshot.channels.total[f"{which}_fifo_full"].sum()
    assert by_channel == snapshot.totals[f"{which}_fifo_full"].sum()


def test_configuration(snapshot, detector):
    """Packets that write and read registers come in the share that was simulated."""
    names = ("config_write", "config_read")
    words = snapshot.totals["upstream"].sum() + snapshot.totals["downstream"].sum()
    found = sum(snapshot.totals[name].sum() for name in names)
    assert near(found, detector.config_fraction * words)
    chips = snapshot.chips
    assert found == sum(chips[name].sum() for name in ("write_downstream", "read_downstream"))


def test_sync_period(snapshot, detector):
    """One S each second, of the period and the jitter that were simulated."""
    inner = snapshot.complete
    assert (snapshot.history["sync_resets"][:, inner] == 1).all()
    jitter = detector.sync_jitter_ticks
    sigma = np.sqrt(((2 * jitter + 1) ** 2 - 1) / 12)
    period = snapshot.sync_period
    assert period.syncs.tolist() == [13, 13, 13]
    assert (abs(period.mean) < 5 * sigma / np.sqrt(13)).all()
    # Of whole numbers from -2 to 2: the variance of a sample, and how exactly 39 tell it.
    ticks = np.arange(-jitter, jitter + 1)
    exactness = np.sqrt(((ticks**4).mean() - sigma**4) / 39)
    assert abs((period.sigma**2).mean() - sigma**2 * 12 / 13) < 5 * exactness
    assert (abs(snapshot.sync_history[:, inner]) <= jitter).all()
    histogram = snapshot.histograms["sync_period"]
    middle = 100
    assert histogram.total[:, middle - jitter : middle + jitter + 1].sum() == 39


def test_readout_delay(snapshot):
    """Each hop on the way takes one word, and the mean number of hops is five."""
    histogram = snapshot.histograms["readout_delay"]
    hops = histogram.total.sum(axis=0)
    assert hops[0] == 0
    assert np.average(np.arange(len(hops)), weights=hops) == pytest.approx(5, rel=0.02)
    phase = snapshot.histograms["readout_delay_phase"].total
    assert phase[:, 0].sum() == phase.sum()
    # Digitised before the counters were reset, and received after it.
    below = histogram.total_outside[:, 0].sum()
    assert near(below, snapshot.totals["data"].sum() * 5 * 264e-7)


def test_adc(snapshot):
    """Hot channels have noise on a pedestal; the spectrum is that of all channels."""
    table = snapshot.channels
    hottest = table.hottest(12)
    # Now and then, a track crosses one of them.
    assert np.median(table.adc_mean()[hottest]) == pytest.approx(44.5, abs=0.3)
    assert np.median(table.adc_rms()[hottest]) == pytest.approx(3, abs=0.3)
    spectrum = snapshot.histograms["adc"]
    counts = spectrum.total.sum(axis=0)
    assert counts[256:].sum() == 0
    assert counts.sum() == table.total["data"].sum() - table.total["data_parity_errors"].sum()
    assert (counts * spectrum.edges[:-1]).sum() == table.total["adc_sum"].sum()
    assert (counts * spectrum.edges[:-1] ** 2).sum() == table.total["adc_square_sum"].sum()


def test_messages(snapshot):
    """Messages, words and bytes are those that were sent."""
    sent = list(simulate(LOAD, seconds=SECONDS, seed=SEED))
    assert snapshot.totals["messages"].sum() == sum(len(batch.lengths) for batch in sent)
    assert snapshot.totals["bytes"].sum() == sum(len(batch.buffer) for batch in sent)
    words = sum((batch.lengths - 8).sum() // 16 for batch in sent)
    assert snapshot.totals["words"].sum() == words
    assert snapshot.faults == {}


def test_triggers(snapshot, detector):
    """They come at their rate, at the io_group that has them."""
    triggers = snapshot.totals["external_triggers"]
    assert triggers.tolist() == snapshot.totals["trigger"].tolist()
    assert near(triggers[0], LOAD.triggers_per_second * SECONDS)
    assert triggers[1:].tolist() == [0, 0]


def test_trigger_correlation():
    """Hits that follow a trigger of another card are found at their delay, with their charge."""
    words = [trigger_word(2, 50_000)]
    delays = {-190: 1, -191: 0, 0: 1, 1_900: 2, 7_599: 1, 7_600: 0}
    hits = [delay for delay, count in delays.items() for _ in range(max(count, 1))]
    late = [
        data_word(pack(DATA_BITS, chip_id=11, timestamp=50_000 + delay, dataword=7), 1, 60_000)
        for delay in hits
    ]
    messages = [(legacy(words, START), 6), (legacy(late, START), 2)]
    [packets] = as_packets(messages)
    monitor = Monitor(trigger_source={2: 6})
    monitor.update(packets)
    histogram = monitor.snapshot().histograms["trigger"]
    [at] = np.nonzero(histogram.total[0])
    assert histogram.edges[at].tolist() == [-190, 0, 1_900, 7_590]
    assert histogram.total[0, at].tolist() == [1, 1, 2, 1]
    assert monitor.snapshot().histograms["trigger_adc"].total[0, at].tolist() == [7, 7, 14, 7]
    own = Monitor()
    own.update(packets)
    assert not own.snapshot().histograms["trigger"].total.any()
