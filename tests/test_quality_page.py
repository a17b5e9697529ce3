"""The page and the tables of data_quality.py show what they say, and its clock goes on."""

import re
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure

from streamer.monitor import Alarms
from tests.monitor.reference import Reference
from tests.monitor.streams import START, as_packets, data_word, legacy, sync_word, trigger_word
from tests.monitor.test_metrics import monitored
from tests.test_examples import EXAMPLES, SECONDS, module
from writer import RawWriter
from writer.larpix import CONFIG_BITS, DATA_BITS, pack

DURATION = 30


def hit(channel, adc, io_channel=1, *, ticks=0, receipt=0, bad=False, **flags):
    fields = {"chip_id": 11, "channel_id": channel, "dataword": adc, "timestamp": ticks}
    packet = pack(DATA_BITS, **fields, **flags) ^ np.uint64(bad << 63)
    return data_word(packet, io_channel, receipt)


def message(k, io_group):
    """Make the message of a second: nothing is as often as anything else, nor as it was before."""
    words = [sync_word("S", 10**7 + k % 3 * io_group)] + [sync_word("H", 1)] * (7 * (k % 4))
    for n in range(k % 3 + io_group):
        words += [trigger_word(2, 1_000), hit(1, 50 + k, ticks=1_000 + 20 * n, receipt=2_000)]
    words += [hit(2, 20 * io_group + n, receipt=300 * n) for n in range(k + 5)]
    words += [hit(3, 99, 5, local_fifo=2, receipt=200_000)] * (k % 5)
    words += [hit(3, 98, 5, local_fifo=1, shared_fifo=3)] * (k % 2 + io_group)
    words += [hit(4, 7, bad=True)] * (k % 7)
    words += [data_word(pack(CONFIG_BITS, packet_type=2, chip_id=11), 1, 0)] * (k % 2 + 1)
    return legacy(words, START + k), io_group


@pytest.fixture(scope="module")
def parts():
    return as_packets([message(k, io_group) for k in range(DURATION) for io_group in (1, 2)])


@pytest.fixture(scope="module")
def snapshot(parts):
    return monitored(parts).snapshot()


@pytest.fixture(scope="module")
def truth(parts):
    """What a slow count of all packets has, as arrays, by second those that are complete."""
    slow = Reference()
    for part in parts:
        slow.update(part)
    found = slow.as_dict()
    complete = np.array(found["complete"])
    found["history"] = {
        name: np.array(counts)[:, complete] for name, counts in found["history"].items()
    }
    found["tiles"]["history"] = np.array(found["tiles"]["history"])[:, complete]
    found["seconds"] = np.array(found["seconds"])[complete]
    found["channels"] = {
        name: np.array(column) for name, column in found["channels"]["all"].items()
    }
    return found


@pytest.fixture(scope="module")
def quality():
    return module("data_quality")


@pytest.fixture
def drawn(quality, snapshot):
    """Draw a panel, and return its axes."""

    def draw(name):
        axes = Figure().subplots()
        getattr(quality, name)(axes, snapshot)
        return axes

    return draw


def check_lines(axes, truth, expected):
    """Compare lines over time, of which zeros are left out."""
    found = {line.get_label(): line for line in axes.get_lines()}
    assert found.keys() == {name for name, values in expected.items() if np.any(values > 0)}
    for name, line in found.items():
        seconds = np.asarray(line.get_xdata()).astype("datetime64[s]").astype(np.int64)
        np.testing.assert_array_equal(seconds, truth["seconds"])
        np.testing.assert_allclose(np.nan_to_num(line.get_ydata()), expected[name])


TYPES = ("data", "test", "config_write", "config_read", "timestamp", "message", "sync", "trigger")


def test_packets_by_type(drawn, truth):
    """Each type has a line with its rate."""
    expected = {name: truth["history"][name].sum(axis=0) for name in TYPES}
    check_lines(drawn("packet_rates"), truth, expected)


def test_flags_and_parity(drawn, truth):
    """FIFO flags are shown by hits, and invalid parity by packets of chips."""
    counts = {name: values.sum(axis=0) for name, values in truth["history"].items()}
    expected = {
        "local fifo half": counts["local_fifo_half"] / counts["data"],
        "local fifo full": counts["local_fifo_full"] / counts["data"],
        "shared fifo half": counts["shared_fifo_half"] / counts["data"],
        "shared fifo full": counts["shared_fifo_full"] / counts["data"],
        "invalid parity": counts["parity_errors"] / (counts["upstream"] + counts["downstream"]),
    }
    check_lines(drawn("flags"), truth, expected)


def test_hits_by_io_group(drawn, truth):
    """Each io_group has a line with the rate of its hits."""
    first, second = truth["history"]["data"]
    check_lines(drawn("card_rates"), truth, {"io_group 1": first, "io_group 2": second})


def test_hits_by_tile(drawn, truth):
    """Each tile has its rate at its place, and no other place has any."""
    [image] = drawn("tile_rates").images
    shown = np.ma.filled(image.get_array(), np.nan)
    tiles = truth["tiles"]
    expected = np.full((3, 3), np.nan)
    expected[tiles["io_group"], tiles["tile"]] = tiles["history"].mean(axis=1)
    np.testing.assert_allclose(shown, expected)
    assert np.count_nonzero(np.isfinite(shown)) == 4


@pytest.mark.parametrize(
    ("panel", "name", "unit"),
    [
        ("adc", "adc", 1),
        ("sync_period", "sync_period", 1),
        ("readout_delay", "readout_delay", 0.1),
        ("after_trigger", "trigger", 0.1),
    ],
)
def test_histograms(drawn, truth, panel, name, unit):
    """Each filled bin is where its values are, with how many there were; so is what is outside."""
    histogram = truth["histograms"][name]
    counts, edges = np.sum(histogram["total"], axis=0), histogram["edges"]
    expected = {edges[k] * unit: counts[k] for k in np.flatnonzero(counts).tolist()}
    axes = drawn(panel)
    [patch] = axes.patches
    values, drawn_edges, _ = patch.get_data()
    is_whole = edges[1] - edges[0] == 1
    found = {
        low + is_whole * unit / 2: value
        for value, low in zip(values, drawn_edges, strict=False)
        if value
    }
    assert len(found) > 1
    assert [*found] == pytest.approx([*expected])
    assert [*found.values()] == [*expected.values()]
    outside = np.sum(histogram["total_outside"])
    assert [text.get_text() for text in axes.texts] == [f"{outside:,} outside"] * bool(outside)


def test_length_of_messages(drawn, truth):
    """Each bin has the messages by its width in words."""
    histogram = truth["histograms"]["words_per_message"]
    [patch] = drawn("words").patches
    values, edges, _ = patch.get_data()
    np.testing.assert_array_equal(edges, histogram["edges"])
    widths = [high - low for low, high in pairwise(histogram["edges"])]
    np.testing.assert_allclose(values * widths, np.sum(histogram["total"], axis=0))
    assert values.sum() > 0


@pytest.fixture
def filled(monkeypatch):
    """What is filled into histograms, by label."""
    found = {}
    monkeypatch.setattr(
        "matplotlib.axes.Axes.hist",
        lambda self, values, **options: found.update({options.get("label"): np.sort(values)}),
    )
    return found


def test_adc_of_each_channel(drawn, truth, filled):
    """Mean and RMS are of the whole run, and not of its newest part."""
    drawn("channel_adc")
    columns = truth["channels"]
    good = columns["total_data"] - columns["total_data_parity_errors"]
    has = good > 0
    mean = columns["total_adc_sum"][has] / good[has]
    rms = np.sqrt(columns["total_adc_square_sum"][has] / good[has] - mean**2)
    np.testing.assert_allclose(filled["mean"], np.sort(mean))
    np.testing.assert_allclose(filled["RMS"], np.sort(rms), atol=1e-6)
    recent = columns["adc_mean"][has].astype(float)
    assert not np.allclose(np.sort(recent), filled["mean"])


def test_hits_of_each_channel(drawn, truth, filled):
    """They are of the whole run."""
    drawn("channel_hits")
    assert filled[None].tolist() == sorted(truth["channels"]["total_data"])


def test_hottest_channels(drawn, truth):
    """Bars are the shares of the whole run [%], each beside its address, the most first."""
    columns = truth["channels"]
    fields = ("io_group", "io_channel", "chip_id", "channel_id")
    names = ["-".join(map(str, place)) for place in zip(*map(columns.get, fields), strict=True)]
    hits = columns["total_data"]
    order = np.argsort(-hits, kind="stable")
    axes = drawn("hot_channels")
    assert [text.get_text() for text in axes.get_yticklabels()] == [names[k] for k in order]
    widths = [bar.get_width() for bar in axes.patches]
    np.testing.assert_allclose(widths, 100 * hits[order] / hits.sum())


def test_page_has_every_panel(quality, snapshot, tmp_path, monkeypatch):
    """Each has a title of its own, and something to show."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: figures.append(figure))
    quality.page(snapshot, "raw.h5", tmp_path / "page.png")
    titles = [axes.get_title() for axes in figures[0].axes if axes.get_title()]
    assert len({*titles}) == len(quality.PANELS) == 12
    assert not [text for axes in figures[0].axes for text in axes.texts if "nothing" in str(text)]


# -------------------------------------------------------------------------------- tables


@pytest.fixture
def printed(quality, snapshot, capsys):
    """Cells of all lines of the tables, by the table's title."""
    quality.tables(snapshot, Alarms())
    found, title = {}, ""
    for line in capsys.readouterr().out.splitlines():
        if line.startswith("│"):
            found[title].append([cell.strip() for cell in line.strip("│").split("│")])
        elif line.strip() and line[0] == " ":
            title = line.strip()
            found[title] = []
    return found


def test_table_of_packets(printed, truth):
    """It has the number, the rate in complete seconds and the share of each type."""
    totals = {name: np.sum(truth["totals"][name]) for name in TYPES}
    every = sum(totals.values())
    for name, *cells in printed["Packets"]:
        rate = truth["history"][name].sum(axis=0).mean()
        assert cells == [f"{totals[name]:,}", f"{rate:,.1f}", f"{totals[name] / every:.3%}"]
    assert [name for name, *_ in printed["Packets"]] == [*TYPES]


def test_table_of_cards(printed, truth):
    """Each column is what its head says: triggers are not heartbeats, nor full FIFOs half full."""
    totals, period = truth["totals"], truth["sync_period"]
    expected = []
    for k, io_group in enumerate(truth["io_groups"]):
        count = {name: values[k] for name, values in totals.items()}
        chips = count["upstream"] + count["downstream"]
        expected.append(
            [
                str(io_group),
                f"{count['messages']:,}",
                f"{count['data']:,}",
                f"{truth['history']['data'][k].mean():,.1f}",
                f"{count['parity_errors'] / chips:.3%}",
                f"{count['local_fifo_full'] / count['data']:.3%}",
                f"{count['shared_fifo_full'] / count['data']:.3%}",
                f"{count['sync_resets']:,}",
                f"{period['mean'][k]:+.2f} ± {period['sigma'][k]:.2f}",
                f"{count['external_triggers']:,}",
            ]
        )
        assert len({*expected[-1][1:]}) == 9 - (count["messages"] == count["sync_resets"])
    assert printed["Cards"] == expected


def test_table_of_the_hottest_channels(printed, truth):
    """Hits, share, ADC mean and RMS are of the whole run."""
    columns = truth["channels"]
    hits = columns["total_data"]
    [title] = [title for title in printed if title.startswith("Hottest")]
    expected = []
    for k in np.argsort(-hits, kind="stable").tolist():
        place = [columns[name][k] for name in ("io_group", "io_channel", "chip_id", "channel_id")]
        good = hits[k] - columns["total_data_parity_errors"][k]
        adc = ["-", "-"]
        if good:
            mean = columns["total_adc_sum"][k] / good
            rms = np.sqrt(max(columns["total_adc_square_sum"][k] / good - mean**2, 0))
            adc = [f"{mean:.1f}", f"{rms:.1f}"]
        share = f"{hits[k] / hits.sum():.3%}"
        expected.append([*map(str, place), f"{hits[k]:,}", share, *adc])
    assert printed[title] == expected


# -------------------------------------------------------------------------- each second


def test_line_of_a_second(quality, snapshot, truth):
    """It is of the newest second that was seen as a whole."""
    counts = {name: values[:, -1].sum() for name, values in truth["history"].items()}
    bad = counts["parity_errors"] / (counts["upstream"] + counts["downstream"])
    assert re.split("  +", quality.rates(snapshot)) == [
        f"{np.datetime64(int(truth['seconds'][-1]), 's').item():%H:%M:%S}",
        f"{counts['messages']:,} messages/s",
        f"{counts['data']:,} hits/s",
        f"{counts['bytes'] / 1e6:.1f} MB/s",
        "parity errors",
        f"{bad:.2%}",
    ]


# ------------------------------------------------------------------------------- silence


def test_alarm_when_nothing_comes_at_all(tmp_path):
    """The time of the cards goes on as ours, and a new message ends the alarm."""
    raw, rules = tmp_path / "raw.h5", tmp_path / "rules.toml"
    rules.write_text("[io_group_silent]\nthreshold = 1.0\n")
    with RawWriter(raw, io_version="0.0") as out:
        out.append([legacy([], START)], io_groups=1)
        process = subprocess.Popen(
            [sys.executable, "-u", EXAMPLES / "data_quality.py", raw, "--rules", rules],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with process.stdout as output:
            said = next(line for line in output if "ALARM" in line)
            assert re.search(r"io_group_silent raised: io_group 1 at [1-9]", said)
            assert re.search(r"  nothing for \d+ s$", output.readline())
            out.append([legacy([], START + 2)], io_groups=1)
            said = next(line for line in output if "ALARM" in line)
            assert "io_group_silent cleared: io_group 1 at 0" in said
            out.close()
            rest = output.read()
        assert process.wait(SECONDS) == 0
    assert "finished: 2 messages" in rest
