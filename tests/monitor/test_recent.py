"""What is recent and what is of the whole run are told apart, in a run that changes."""

from importlib.util import find_spec

import numpy as np
import pytest

from streamer.monitor import Monitor
from tests.monitor.reference import Reference
from tests.monitor.streams import START, as_packets, data_word, legacy, sync_word
from tests.monitor.test_metrics import everything, monitored, same
from writer.larpix import DATA_BITS, pack

needs_numba = pytest.mark.skipif(find_spec("numba") is None, reason="numba is not installed")
ENGINES = ("numpy", pytest.param("numba", marks=needs_numba))
OPTIONS = {"history": 60, "span": 4, "spans": 3}
SECONDS = 40
CHIP_IDS = range(11, 111)


def hit(channel, adc, *, chip=11, io_channel=1, shared=0, bad=False):
    """Make a word with a hit."""
    fields = {"chip_id": chip, "channel_id": channel, "dataword": adc, "shared_fifo": shared}
    return data_word(pack(DATA_BITS, **fields) ^ np.uint64(bad << 63), io_channel, 0)


def second_of(k):
    """Make the message of a second: in the first half of the run all is as it is not later."""
    if k < SECONDS // 2:
        hits = [hit(0, 40 + k)] * 9 + [hit(1, 200, shared=2)] * 3 + [hit(2, 9, bad=True)]
        hits += [hit(3, 70, chip=200), hit(4, 10, io_channel=5)]
    else:
        hits = [hit(0, 90)] + [hit(1, 10 * (k % 3))] * 6 + [hit(2, 100 + k, shared=3)] * 4
        hits += [hit(1, 5, bad=True), hit(3, 30, chip=201), hit(3, 31, chip=5)] + [
            hit(4, 11, io_channel=5)
        ] * 2
    return legacy(hits + [sync_word("H", 1)] * (k % 3), START + k), 1


@pytest.fixture(scope="module")
def parts():
    return as_packets([second_of(k) for k in range(SECONDS)])


@pytest.fixture(scope="module")
def reference(parts):
    """What a slow count has of each channel, and by second."""
    slow = Reference(**OPTIONS)
    for part in parts:
        slow.update(part)
    return slow.as_dict()


@pytest.fixture(scope="module")
def snapshot(parts):
    return monitored(parts, **OPTIONS).snapshot()


@pytest.fixture(params=[True, False], ids=["recent", "total"])
def recent(request):
    return request.param


@pytest.fixture
def counts(reference, recent):
    """Columns of the slow count, either in the newest spans or of the whole run."""
    every = reference["channels"]["all"]
    which = "recent_" if recent else "total_"
    found = {name.removeprefix(which): np.array(every[name]) for name in every if which in name}
    return found | {"chip_id": np.array(every["chip_id"])}


def test_run_changes(reference):
    """No column of channels is the same in the newest spans as in the whole run, in parts."""
    every = {name: np.array(column) for name, column in reference["channels"]["all"].items()}
    for name in ("adc_sum", "adc_square_sum", "data_parity_errors", "shared_fifo_full"):
        parts = (
            every[f"{which}_{name}"] / every[f"{which}_data"] for which in ("total", "recent")
        )
        with np.errstate(invalid="ignore"):
            assert not np.allclose(*parts, equal_nan=True), name


def test_adc(snapshot, recent, counts):
    """Mean and RMS of the dataword are of the time that was asked for."""
    with np.errstate(invalid="ignore"):
        good = counts["data"] - counts["data_parity_errors"]
        mean = counts["adc_sum"] / good
        rms = np.sqrt(counts["adc_square_sum"] / good - mean**2)
    table = snapshot.channels
    np.testing.assert_allclose(table.adc_mean(recent=recent), mean)
    np.testing.assert_allclose(table.adc_rms(recent=recent), rms, atol=1e-6)
    if recent:
        np.testing.assert_array_equal(table.adc_mean(), table.adc_mean(recent=True))
        np.testing.assert_array_equal(table.adc_rms(), table.adc_rms(recent=True))


@pytest.mark.parametrize("name", ["data_parity_errors", "shared_fifo_half", "shared_fifo_full"])
def test_fraction_by_channel(snapshot, recent, counts, name):
    """Fractions of a channel's hits are of the time that was asked for."""
    table = snapshot.channels
    with np.errstate(invalid="ignore"):
        expected = counts[name] / counts["data"]
    np.testing.assert_allclose(table.fraction(name, recent=recent), expected)
    if recent:
        np.testing.assert_allclose(table.fraction(name), expected)


def test_hottest(snapshot, recent, counts):
    """The hottest channels are those with the most hits in the time that was asked for."""
    table = snapshot.channels
    order = sorted(range(len(table)), key=lambda k: (-counts["data"][k], k))
    for count in range(len(table) + 1):
        assert table.hottest(count, recent=recent).tolist() == order[:count]
    if recent:
        assert table.hottest(2).tolist() == order[:2]


def test_invalid_addresses(snapshot, recent, counts):
    """The part of hits from chips that do not exist is of the time that was asked for."""
    outside = (counts["chip_id"] < 11) | (counts["chip_id"] > 110)
    expected = counts["data"][outside].sum() / counts["data"].sum()
    assert snapshot.invalid_addresses(CHIP_IDS, recent=recent) == pytest.approx(expected)
    if recent:
        assert snapshot.invalid_addresses(CHIP_IDS) == pytest.approx(expected)


def test_rate_and_share(snapshot, reference):
    """Rates and shares are of the newest spans of time, by their length."""
    table, every = snapshot.channels, reference["channels"]["all"]
    assert table.seconds == reference["channels"]["seconds"] == 8
    expected = np.array(every["recent_data"])
    np.testing.assert_allclose(table.rate, expected / 8)
    np.testing.assert_allclose(table.share, expected / expected.sum())
    by_tile = {"1-1": expected[:-1].sum() / 8, "1-2": expected[-1] / 8}
    places = zip(*(column.tolist() for column in table.by("tile").address.values()), strict=True)
    names = ["-".join(map(str, place)) for place in places]
    assert dict(zip(names, table.by("tile").rate.tolist(), strict=True)) == by_tile
    # Channel 0 had the most hits of the run, and has too few of late.
    assert snapshot.noisy(3.0) == {"1-1-11": [1, 2]}


@pytest.mark.parametrize(
    ("name", "by"), [("shared_fifo_full", "data"), ("data", "packets"), ("messages", "words")]
)
def test_fraction_by_second(snapshot, reference, name, by):
    """Fractions of io_groups are of each second by itself."""
    history = {key: np.array(value) for key, value in reference["history"].items()}
    history["packets"] = history["words"] + history["messages"]
    found = snapshot.fraction(name) if by == "data" else snapshot.fraction(name, by=by)
    np.testing.assert_allclose(found, history[name] / history[by])
    assert len(np.unique(found)) > 1, "which differ"


# ---------------------------------------------------------------- what comes late


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", [{}, {"bad": True}, {"shared": 3}], ids=["good", "bad", "full"])
def test_late_hit_of_a_known_channel(parts, engine, kind):
    """A hit in a span that was shown before is in the next snapshot, as if none had been taken."""
    monitor = monitored(parts, engine=engine, **OPTIONS)
    before = monitor.snapshot().channels
    [comes_late] = as_packets([(legacy([hit(0, 77, **kind)], START + SECONDS - 7), 1)])
    monitor.update(comes_late)
    after = monitor.snapshot().channels
    is_late = (after.address["chip_id"] == 11) & (after.address["channel_id"] == 0)
    np.testing.assert_array_equal(after.recent["data"], before.recent["data"] + is_late)
    assert is_late.sum() == 1
    assert everything(monitor) == everything(monitored([*parts, comes_late], **OPTIONS))


@pytest.mark.parametrize("engine", ENGINES)
def test_late_part_that_is_merged(parts, engine):
    """So it is with hits that another monitor has seen."""
    monitor = monitored(parts, engine=engine, **OPTIONS)
    monitor.snapshot()
    late = as_packets([(legacy([hit(0, 77), hit(1, 3, shared=1)], START + SECONDS - 7), 1)])
    monitor.merge(monitored(late, engine=engine, **OPTIONS))
    assert everything(monitor) == everything(monitored([*parts, *late], **OPTIONS))


def test_snapshots_do_not_change_what_comes(parts):
    """With a snapshot after each second, all is as in a slow count of all packets."""
    monitor, slow = Monitor(**OPTIONS), Reference(**OPTIONS)
    for k in range(SECONDS):
        for part in as_packets([second_of(k)]):
            monitor.update(part)
            slow.update(part)
        monitor.snapshot()
    same(everything(monitor), slow.as_dict())
