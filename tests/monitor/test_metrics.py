"""Monitor against a slow reference, its parts against the whole, and its bounds."""

import json
import pickle
import subprocess
import sys
from functools import reduce
from importlib.util import find_spec
from itertools import product
from math import isclose
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer import RawFile
from streamer.monitor import Monitor
from streamer.monitor.counters import WORD_EDGES
from streamer.packets import Packets
from streamer.packets.decoded import LAYOUTS
from tests.monitor.reference import Reference
from tests.monitor.streams import (
    START,
    Random,
    as_packets,
    data_word,
    legacy,
    simulated,
    sync_word,
    trigger_word,
)
from writer import RawWriter
from writer.larpix import CONFIG_BITS, DATA_BITS, V3_DATA_BITS, pack
from writer.pacman import MAX_WORDS

ROOT = Path(__file__).parents[2]
needs_numba = pytest.mark.skipif(find_spec("numba") is None, reason="numba is not installed")
ENGINES = ("numpy", pytest.param("numba", marks=needs_numba))
# Small, so that random streams of a minute go beyond all of them.
SMALL = {"history": 20, "span": 4, "spans": 3, "trigger_reach": 7}
SEEDS = st.integers(0, 2**32)


def monitored(parts, **options):
    monitor = Monitor(**options)
    for part in parts:
        monitor.update(part)
    return monitor


def everything(monitor, now=None):
    return monitor.snapshot(now).as_dict(channels=None)


def same(found, expected, path=""):
    """Compare, whole numbers exactly, and say where they differ."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), path
        for name, value in expected.items():
            same(found[name], value, f"{path}.{name}")
    elif isinstance(expected, float):
        assert found is not None, path
        assert isclose(found, expected, rel_tol=1e-9, abs_tol=1e-6), (path, found, expected)
    elif isinstance(expected, list) and found != expected:
        assert len(found) == len(expected), path
        for k, value in enumerate(expected):
            same(found[k], value, f"{path}[{k}]")
    else:
        assert found == expected, path


# ------------------------------------------------------------------------ the reference


def check_reference(parts, engine, arrived=None, **options):
    reference, monitor = Reference(**options), Monitor(engine=engine, **options)
    for part in parts:
        reference.update(part, arrived)
        monitor.update(part, arrived=arrived)
    same(everything(monitor), reference.as_dict())


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, count=st.integers(0, 120), cut=st.integers(0, 120))
def test_random_streams(engine, seed, count, cut):
    """All that is in a snapshot is what a slow, obvious count of all packets gives."""
    messages = Random(seed, garbage=0.05).messages(count)
    check_reference(as_packets(messages, [min(cut, count)]), engine, **SMALL)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("asic", ["v3", "v2-fifo", {1: "v2", 2: "v3", 5: "v2-fifo", 0: "v3"}])
def test_random_streams_of_other_chips(engine, asic):
    """So it is with 10 bits of ADC, with other counters, and with several kinds of chips."""
    v3 = {1, 2, 5} if asic == "v3" else {2} if isinstance(asic, dict) else ()
    for seed in range(4):
        messages = Random(seed, v3=v3).messages(80)
        check_reference(as_packets(messages, asic=asic), engine, **SMALL)


@pytest.mark.parametrize("engine", ENGINES)
def test_random_streams_of_the_newer_wire(engine):
    """So it is with headers and words of 24 bytes, and counters of 64 bits."""
    for seed in range(4):
        stream = Random(seed, wire="new24", v3={1, 2})
        parts = as_packets(stream.messages(80), asic={0: "v2", 1: "v3", 2: "v3", 5: "v2"})
        check_reference(parts, engine, **SMALL)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("source", [1, 77, {1: 1, 2: 1, 5: 2}, {}])
def test_trigger_source(engine, source):
    """Hits are compared with the triggers of the io_group that is chosen for theirs."""
    for seed in range(3):
        parts = as_packets(Random(seed).messages(80), [30])
        check_reference(parts, engine, trigger_source=source, **SMALL)


@pytest.mark.parametrize("engine", ENGINES)
def test_time_of_arrival(engine):
    """It stands for a time that a header does not have, and for one that is far ahead."""
    parts = as_packets(Random(1).messages(80), [30])
    check_reference(parts, engine, arrived=START + 10.5, tolerance=3.0, **SMALL)


def test_defaults():
    """The reference has the same parameters, and the same values of them."""
    check_reference(as_packets(Random(3).messages(150), [100]), "auto")


def test_reference_has_seen_everything():
    """The streams above have something in each counter and each histogram."""
    snapshot = monitored(as_packets(Random(5).messages(1_000)), trigger_reach=50).snapshot()
    missing = [name for name, column in snapshot.totals.items() if not column.sum()]
    assert missing == ["message"], "which comes from no wire"
    for name, histogram in snapshot.histograms.items():
        assert np.count_nonzero(histogram.total) > 5, name


def test_fields_are_where_they_are_taken():
    """Packets of all chips have the fields that are counted at the same bits, but for the ADC."""
    for layout in LAYOUTS.values():
        for name in ("packet_type", "chip_id", "channel_id", "local_fifo", "shared_fifo"):
            assert layout[name] == DATA_BITS[name]
        assert layout["timestamp"][0] == DATA_BITS["timestamp"][0]
        assert layout["downstream_marker"] == CONFIG_BITS["downstream_marker"]
    assert [DATA_BITS[name][0] for name in ("local_fifo", "shared_fifo")] == [58, 60]
    assert CONFIG_BITS["downstream_marker"][0] == 62


# ------------------------------------------------------------------ parts and the whole


def cut_at(draw, count):
    return sorted(draw(st.lists(st.integers(0, count), max_size=5)))


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=15, deadline=None)
@given(data=st.data(), seed=SEEDS, count=st.integers(0, 150))
def test_parts_add_up_to_the_whole(engine, data, seed, count):
    """Monitors of parts of a stream, merged in any grouping, equal that of the whole."""
    parts = as_packets(Random(seed, garbage=0.05).messages(count), cut_at(data.draw, count))
    whole = everything(monitored(parts, engine=engine, **SMALL))
    monitors = [monitored([part], engine=engine, **SMALL) for part in parts]
    while len(monitors) > 1:
        k = data.draw(st.integers(0, len(monitors) - 2))
        monitors[k].merge(monitors.pop(k + 1))
    assert everything(monitors[0]) == whole


@settings(max_examples=15, deadline=None)
@given(data=st.data(), seed=SEEDS, count=st.integers(0, 150))
def test_batches_do_not_matter(data, seed, count):
    """The same stream in other batches gives the same counts."""
    messages = Random(seed, garbage=0.05).messages(count)
    whole = everything(monitored(as_packets(messages), **SMALL))
    cut = as_packets(messages, cut_at(data.draw, count))
    assert everything(monitored(cut, **SMALL)) == whole
    assert everything(monitored([Packets.concatenate(cut)], **SMALL)) == whole


@pytest.mark.parametrize("engine", ENGINES)
def test_triggers_across_parts(engine):
    """Hits find their trigger in whatever part it was: each order of five, in any grouping."""
    options = {"engine": engine, "history": 2, "spans": 1, "trigger_reach": 2}
    for order in product("hT", repeat=5):
        words = {
            "h": lambda k: data_word(pack(DATA_BITS, chip_id=11, timestamp=10 * k), 1, 0),
            "T": lambda k: trigger_word(2, 10 * k),
        }
        messages = [(legacy([words[one](k)], START), 1) for k, one in enumerate(order)]
        parts = as_packets(messages, range(1, 5))
        whole = everything(monitored(parts, **options))
        from_left = [monitored([part], **options) for part in parts]
        reduce(lambda one, two: one.merge(two) or one, from_left)
        from_right = [monitored([part], **options) for part in parts]
        reduce(lambda two, one: one.merge(two) or one, reversed(from_right))
        assert everything(from_left[0]) == everything(from_right[0]) == whole, order


@pytest.mark.parametrize("seconds", [(0, 0), (0, 5), (5, 0)])
def test_many_hits_of_one_channel_in_parts(seconds):
    """Sums that were taken out of a full number are added too, also to those of another time."""
    hit = data_word(pack(DATA_BITS, chip_id=11, dataword=255), 1, 0)
    options = {"history": 2, "span": 1, "spans": 1}
    parts = as_packets([(legacy([hit] * 2_500, START + k), 1) for k in seconds], [1])
    one, two = (monitored([part], **options) for part in parts)
    one.merge(two)
    assert everything(one) == everything(monitored(parts, **options))
    assert one.snapshot().channels.total["adc_square_sum"].tolist() == [5_000 * 255**2]


def test_ages_and_dates_of_parts():
    """The last sync of a part counts when its second is no longer kept, and wrong dates too."""
    first = as_packets([hits_at(START)])
    second = as_packets([(legacy([sync_word("S", 10**7)], START + 1), 1)])
    second += as_packets([hits_at(START + k) for k in range(2, 30)])
    one, two = monitored(first, history=5), monitored(second, history=5)
    two.update(*as_packets([hits_at(START + 9_000), hits_at(0)]), arrived=START + 30)
    one.merge(two)
    snapshot = one.snapshot()
    assert snapshot.sync_age.tolist() == [29]
    assert (snapshot.misdated, snapshot.undated) == (1, 1)


def test_merged_monitor_goes_on():
    """After merging, what comes next is counted as if the same monitor had seen it all."""
    parts = as_packets(Random(8).messages(150), [50, 100])
    one, two = monitored(parts[:1], **SMALL), monitored(parts[1:2], **SMALL)
    before = everything(two)
    one.merge(two)
    one.update(parts[2])
    assert everything(one) == everything(monitored(parts, **SMALL))
    assert everything(two) == before


def test_monitors_of_io_groups_add_up():
    """Each io_group may have a monitor of its own, if it is compared with its own triggers."""
    messages = [pair for pair in Random(9).messages(300) if pair[1]]
    whole = everything(monitored(as_packets(messages), **SMALL))
    parts = [
        monitored(as_packets([pair for pair in messages if pair[1] == io_group]), **SMALL)
        for io_group in (255, 1, 5, 2)
    ]
    reduce(lambda one, two: one.merge(two) or one, parts)
    merged = everything(parts[0])
    for found in (whole, merged):
        del found["histograms"]["trigger_to_trigger"]
    assert merged == whole


def test_monitors_travel():
    """A monitor that was pickled, as to another process, goes on as it was."""
    parts = as_packets(Random(10, garbage=0.1).messages(150), [75])
    travelled = pickle.loads(pickle.dumps(monitored(parts[:1], **SMALL)))
    travelled.update(parts[1])
    assert everything(travelled) == everything(monitored(parts, **SMALL))


def test_monitors_that_differ_are_not_merged():
    """They would have counted different things."""
    with pytest.raises(ValueError, match="differ in drift_ticks, 1900 and 50"):
        Monitor().merge(Monitor(drift_ticks=50))


@needs_numba
def test_engines_may_be_merged():
    """They count the same, so what one has counted can be added to the other's."""
    parts = as_packets(simulated("module0", 0.4), [1_000, 3_000])
    both = monitored(parts[:1], engine="numpy")
    both.merge(monitored(parts[1:], engine="numba"))
    assert everything(both) == everything(monitored(parts, engine="numba"))
    assert everything(both) == everything(monitored(parts, engine="numpy"))


def test_chosen_packets():
    """Packets that were chosen are counted for their own message, also without its header."""
    [packets] = as_packets(simulated("tile", 0.2))
    whole = monitored([packets]).snapshot()
    again = monitored([packets.select(np.ones(len(packets), bool))]).snapshot()
    assert again.as_dict(channels=None) == whole.as_dict(channels=None)
    hits = monitored([packets.select(packets.is_data)]).snapshot()
    assert hits.history["data"].tolist() == whole.history["data"].tolist()
    assert hits.totals["messages"].tolist() == [0]
    assert hits.totals["bytes"] == 16 * hits.totals["data"]


# ------------------------------------------------------------------------------- time


def hits_at(second, io_group=1, count=3, channel=0):
    hit = pack(DATA_BITS, chip_id=11, channel_id=channel, dataword=50, downstream_marker=1)
    return legacy([data_word(hit, 1, 0)] * count, second), io_group


def test_first_and_last_second_are_incomplete():
    """They are shown, and said to be incomplete; so is one that a late card may add to."""
    messages = [hits_at(START + k, io_group) for k in range(6) for io_group in (1, 2)]
    snapshot = monitored(as_packets(messages[:-1])).snapshot()
    assert snapshot.seconds.tolist() == list(range(START, START + 6))
    # io_group 2 has not sent its last message yet, and is in the second before.
    assert snapshot.complete.tolist() == [False, True, True, True, False, False]


def test_history_slides():
    """Only the newest seconds are kept, and the oldest of these is complete; totals stay."""
    messages = [hits_at(START + k) for k in range(30)]
    snapshot = monitored(as_packets(messages), history=10).snapshot()
    assert snapshot.seconds.tolist() == list(range(START + 20, START + 30))
    assert snapshot.complete.tolist() == [True] * 9 + [False]
    assert snapshot.history["data"].tolist() == [[3] * 10]
    assert snapshot.totals["data"].tolist() == [90]


def test_seconds_without_anything_are_shown():
    """A pause is seconds with no counts, not a gap on the axis."""
    snapshot = monitored(as_packets([hits_at(START), hits_at(START + 3)])).snapshot()
    assert snapshot.history["messages"].tolist() == [[1, 0, 0, 1]]


def test_single_header_in_the_future():
    """A damaged header does not take the display into the future, and is counted."""
    messages = [hits_at(START + k) for k in range(10)] + [hits_at(4_000_000_000)]
    snapshot = monitored(as_packets(messages)).snapshot()
    assert snapshot.time == START + 9
    assert snapshot.totals["data"].tolist() == [33]
    assert snapshot.message_age.tolist() == [0]


def test_card_with_a_wrong_clock():
    """It is shown in the seconds that it says, and the others in theirs."""
    messages = [
        hits_at(START + k + 50_000 * (io_group == 3), io_group)
        for k in range(9)
        for io_group in (1, 2, 3)
    ]
    snapshot = monitored(as_packets(messages)).snapshot()
    assert snapshot.time == START + 8
    assert snapshot.newest.tolist() == [START + 8, START + 8, START + 50_008]
    assert snapshot.history["data"].sum(axis=1).tolist() == [27, 27, 0]
    assert snapshot.totals["data"].tolist() == [27, 27, 27]


def test_return_after_a_long_pause():
    """After a day without messages, the second new second is shown."""
    messages = [hits_at(START + k) for k in range(5)]
    messages += [hits_at(START + 10**6 + k) for k in range(2)]
    assert monitored(as_packets(messages)).snapshot().time == START + 10**6 + 1


def test_ages():
    """They are counted from the last message, and the last sync, to now."""
    messages = [
        (legacy([sync_word("S", 10**7)], START), 1),
        (legacy([sync_word("H", 10**7)], START + 4), 1),
        hits_at(START + 7, 2),
    ]
    snapshot = monitored(as_packets(messages)).snapshot()
    assert snapshot.message_age.tolist() == [3, 0]
    np.testing.assert_equal(snapshot.sync_age, [7, np.nan])
    later = monitored(as_packets(messages)).snapshot(START + 10.5)
    assert later.message_age.tolist() == [6.5, 3.5]


def test_ages_beyond_the_history():
    """The last sync is known also when its second is no longer kept."""
    messages = [(legacy([sync_word("S", 10**7)], START), 1)]
    messages += [hits_at(START + k) for k in range(40)]
    assert monitored(as_packets(messages), history=5).snapshot().sync_age.tolist() == [39]


def test_messages_without_time():
    """They are counted in total, and said to have none."""
    snapshot = monitored(as_packets([hits_at(0), hits_at(START)])).snapshot()
    assert (snapshot.undated, snapshot.misdated) == (1, 0)
    assert snapshot.totals["data"].tolist() == [6]
    assert snapshot.history["data"].tolist() == [[3]]


def test_nothing_with_a_time():
    """Without any second there is nothing to show by second, and no error."""
    snapshot = monitored(as_packets([hits_at(0)])).snapshot()
    assert snapshot.time is None
    assert snapshot.seconds.shape == (0,)
    assert snapshot.totals["data"].tolist() == [3]
    assert snapshot.channels.total["data"].tolist() == [3]


def test_empty_monitor():
    """Before anything came, a snapshot is empty, and can be shown."""
    for monitor in (Monitor(), monitored(as_packets([]))):
        snapshot = monitor.snapshot()
        assert (len(snapshot.io_groups), len(snapshot.channels)) == (0, 0)
        assert json.loads(snapshot.to_json())["faults"] == {}


# ------------------------------------------------------------------- what is in a snapshot


def test_snapshot_does_not_change():
    """What comes later is in later snapshots only."""
    parts = as_packets(simulated("tile", 0.4), [200])
    monitor = monitored(parts[:1])
    snapshot = monitor.snapshot()
    before = snapshot.to_json(channels=None)
    monitor.update(parts[1])
    assert snapshot.to_json(channels=None) == before


def test_json():
    """The JSON form is the snapshot's arrays as lists, without NaN."""
    snapshot = monitored(as_packets(simulated("tile", 2.5))).snapshot()
    found = json.loads(snapshot.to_json(histograms=False))
    assert found["history"]["data"] == snapshot.history["data"].tolist()
    assert found["channels"]["count"] == len(snapshot.channels)
    assert len(found["channels"]["hottest"]) == 100
    assert found["channels"]["hottest"][0]["recent_data"] == snapshot.channels.recent["data"].max()
    assert "histograms" not in found


def test_json_of_all_channels():
    """All channels are columns, of little more than the numbers in them; and strict JSON."""
    snapshot = monitored(as_packets(simulated("module0", 0.5))).snapshot()
    text = snapshot.to_json(channels=None, histograms=False)
    found = json.loads(text, parse_constant=pytest.fail)
    assert found == snapshot.as_dict(channels=None, histograms=False)
    table = snapshot.channels
    assert found["channels"]["all"]["total_data"] == table.total["data"].tolist()
    assert found["channels"]["all"]["channel_id"] == table.address["channel_id"].tolist()
    others = len(snapshot.to_json(channels=0, histograms=False))
    assert len(text) - others < 200 * len(table)


def test_reset():
    """Nothing of before is left, not even what a trigger or a fault would be compared with."""
    parts = as_packets(Random(4, garbage=0.1).messages(200), [100])
    monitor = monitored(parts[:1])
    monitor.reset()
    assert everything(monitor) == everything(Monitor())
    monitor.update(parts[1])
    assert everything(monitor) == everything(monitored(parts[1:]))


def test_tables():
    """Channels are summed up by chip, io_channel, tile and io_group."""
    table = monitored(as_packets(Random(6).messages(300))).snapshot().channels
    for level, fields in (
        ("chip", ("io_group", "io_channel", "chip_id")),
        ("io_channel", ("io_group", "io_channel")),
        ("tile", ("io_group", "tile")),
        ("io_group", ("io_group",)),
    ):
        found = table.by(level)
        assert tuple(found.address) == fields
        expected = {}
        tiles = (table.address["io_channel"].astype(int) - 1) // 4 + 1
        columns = table.address | {"tile": tiles}
        addresses = zip(*(columns[name].tolist() for name in fields), strict=True)
        for address, count in zip(addresses, table.total["data"].tolist(), strict=True):
            expected[address] = expected.get(address, 0) + count
        lines = zip(*(found.address[name].tolist() for name in fields), strict=True)
        assert dict(zip(lines, found.total["data"].tolist(), strict=True)) == expected
    with pytest.raises(
        ValueError, match="tiles can be summed up by tile, io_group, not by 'chip'"
    ):
        table.by("tile").by("chip")


def test_hottest():
    """The most come first, and of those with as many the one with the lower address."""
    messages = [hits_at(START, count=count, channel=k) for k, count in enumerate([5, 9, 5, 1])]
    table = monitored(as_packets(messages)).snapshot().channels
    for count in range(6):
        assert table.hottest(count, recent=False).tolist() == [1, 0, 2, 3][:count]


def test_list_of_noisy_channels():
    """Channels above a rate, by io_group, tile and chip, as the lists of those to be disabled."""
    messages = [hits_at(START + k, count=10 * c + 1, channel=c) for k in range(40) for c in (3, 4)]
    snapshot = monitored(as_packets(messages)).snapshot()
    assert snapshot.noisy(35) == {"1-1-11": [4]}
    assert snapshot.noisy(5) == {"1-1-11": [3, 4]}
    assert Monitor().snapshot().noisy(5) == {}


def test_noisy_channel_that_is_read_out_by_several_io_channels():
    """Its rate is that of all its hits, by whatever io_channel of its tile they come."""
    hit = pack(DATA_BITS, chip_id=11, channel_id=3, dataword=50)
    messages = [
        (legacy([data_word(hit, io_channel, 0)] * 3, START + k), 1)
        for k in range(40)
        for io_channel in (1, 4, 5)
    ]
    snapshot = monitored(as_packets(messages)).snapshot()
    assert snapshot.noisy(5) == {"1-1-11": [3]}
    assert snapshot.noisy(2) == {"1-1-11": [3], "1-2-11": [3]}


def test_invalid_addresses():
    """The part of hits from chips that do not exist."""
    snapshot = monitored(as_packets([hits_at(START)])).snapshot()
    assert snapshot.invalid_addresses(range(11, 111)) == 0
    assert snapshot.invalid_addresses(range(12, 111)) == 1
    assert np.isnan(Monitor().snapshot().invalid_addresses(range(5)))


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"history": 0}, "history must be a whole number from 1 on, got 0"),
        ({"span": 1.5}, "span must be a whole number from 1 on, got 1.5"),
        ({"spans": True}, "spans must be a whole number from 1 on, got True"),
        ({"span": 5000}, "span must be up to 3600 seconds, got 5000"),
        ({"tolerance": -1}, "tolerance must not be negative, got -1"),
        ({"trigger_source": {1: 256}}, "io_groups, which are from 0 to 255, got {1: 256}"),
        ({"trigger_source": True}, "io_groups, which are from 0 to 255, got True"),
        ({"trigger_source": {1: 2.0}}, "io_groups, which are from 0 to 255, got {1: 2.0}"),
        ({"trigger_source": 300}, "io_groups, which are from 0 to 255, got 300"),
        ({"engine": "cuda"}, "engine must be one of auto, numpy, numba, got 'cuda'"),
    ],
)
def test_parameters_that_make_no_sense(option, said):
    """They are refused, and the error says which and why."""
    with pytest.raises(ValueError, match=said):
        Monitor(**option)


def test_parameters_of_numpy():
    """Its whole numbers do as well as those of Python, also small ones."""
    parts = as_packets(Random(12).messages(80), [30])
    small = {name: np.uint8(value) for name, value in SMALL.items()}
    source = {np.uint8(1): np.int64(2), np.uint8(2): np.int64(2)}
    one = monitored(parts, trigger_source=source, **small)
    two = monitored(parts, trigger_source={1: 2, 2: 2}, **SMALL)
    assert everything(one) == everything(two)
    one.merge(two)
    own, same_one = (monitored(parts, trigger_source=kind(1)) for kind in (np.uint8, int))
    assert everything(own) == everything(same_one)


# ------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=100), st.integers(0, 255)), max_size=20))
def test_garbage(engine, messages):
    """No bytes raise an error, and whatever is not counted as a message is a fault."""
    [packets] = as_packets(messages)
    monitor = monitored([packets], engine=engine)
    snapshot = monitor.snapshot()
    assert snapshot.totals["messages"].sum() + sum(snapshot.faults.values()) >= len(messages)
    json.loads(snapshot.to_json(channels=None))


@pytest.mark.parametrize("engine", ENGINES)
def test_random_words(engine):
    """Messages of random words of every kind, of all io_groups, and the largest that there is."""
    rng = np.random.default_rng(2)
    messages = [(legacy([], START), 0)]
    for _ in range(40):
        body = rng.integers(256, size=16 * 50, dtype=np.uint8)
        body[::16] = rng.choice([*b"DDDST?"], 50)
        message = legacy(
            [body.tobytes()[k : k + 16] for k in range(0, len(body), 16)], int(rng.integers(2**32))
        )
        messages.append((message, int(rng.integers(256))))
    messages.append((legacy([rng.bytes(16) for _ in range(MAX_WORDS)], START), 255))
    check_reference(as_packets(messages, [20]), engine, history=30, span=5, spans=2)


def test_words_per_message():
    """Numbers of words are exact up to 64, and each possible one has a bin."""
    counts = [0, 1, 63, 64, 71, 72, MAX_WORDS]
    word = sync_word("H", 1)
    messages = [(legacy([word] * count, START), 1) for count in counts]
    histogram = monitored(as_packets(messages)).snapshot().histograms["words_per_message"]
    bins = np.searchsorted(WORD_EDGES, counts, "right") - 1
    assert histogram.total[0, bins].tolist() == [1, 1, 1, 2, 2, 1, 1]
    assert WORD_EDGES[:66].tolist() == [*range(65), 72]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("count", [1_023, 1_024, 1_025, 5_000])
def test_many_hits_of_one_channel(engine, count):
    """Sums are exact for any number of hits with the largest dataword."""
    v2 = data_word(pack(DATA_BITS, chip_id=11, dataword=255, shared_fifo=3), 1, 0)
    v3 = data_word(pack(V3_DATA_BITS, packet_type=1, chip_id=12, dataword=1023), 1, 0)
    monitor = Monitor(engine=engine)
    for _ in range(2):
        monitor.update(*as_packets([(legacy([v2] * count, START), 1)]))
        monitor.update(*as_packets([(legacy([v3] * count, START), 1)], asic="v3"))
    table = monitor.snapshot().channels
    assert table.total["data"].tolist() == [2 * count, 2 * count]
    assert table.total["adc_sum"].tolist() == [2 * count * adc for adc in (255, 1023)]
    assert table.total["adc_square_sum"].tolist() == [2 * count * adc**2 for adc in (255, 1023)]
    assert table.total["shared_fifo_full"].tolist() == [2 * count, 0]
    assert table.adc_mean().tolist() == [255, 1023]
    assert table.adc_rms().tolist() == [0, 0]


@pytest.mark.parametrize("engine", ENGINES)
def test_many_triggers(engine):
    """More triggers than are compared at once give the same as one after the other."""
    rng = np.random.default_rng(1)
    words, ticks = [], 0
    for _ in range(4_000):
        ticks += int(rng.integers(200))
        hit = pack(DATA_BITS, chip_id=11, timestamp=ticks, dataword=9)
        words.append(trigger_word(2, ticks) if rng.random() < 0.6 else data_word(hit, 1, ticks))
    check_reference(as_packets([(legacy(words, START), 1)]), engine, trigger_reach=3)


# ------------------------------------------------------------------------------- engines


def run(source):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "off", ["sys.modules['numba'] = None", "os.environ['NUMBA_DISABLE_JIT'] = '1'"]
)
def test_numba_is_not_needed(off: str):
    """Where it is missing, or may not compile, numpy counts; who asks for numba is told why."""
    source = f"""
import os, sys
{off}
from streamer.monitor import Monitor
from tests.monitor.streams import as_packets, simulated
monitor = Monitor()
monitor.update(*as_packets(simulated("tile", 0.2)))
print(int(monitor.snapshot().totals["data"].sum()))
try:
    Monitor(engine="numba")
except ImportError as error:
    print(error)
"""
    expected = monitored(as_packets(simulated("tile", 0.2))).snapshot().totals["data"].sum()
    count, said = run(source).splitlines()
    assert int(count) == expected
    assert "numba" in said


def test_numba_is_loaded_when_it_is_used():
    """To import the package takes no longer because numba is installed."""
    source = "import sys, streamer.monitor; print('numba' in sys.modules)"
    assert run(source) == "False\n"


@needs_numba
def test_code_that_cannot_be_kept():
    """Where there is no place for compiled code, it is compiled each time."""
    from streamer.monitor.fetching import compiled

    found = {}
    exec("def double(number): return 2 * number", found)  # which is in no file
    assert compiled(found["double"])(21) == 42


@needs_numba
def test_place_for_compiled_code_that_is_spoiled(tmp_path, monkeypatch):
    """Where its disk is full, or what it holds is broken, code is compiled anew."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    use = "import streamer.monitor.fetching"  # compiles a little
    run(f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500)); {use}")
    run(use)
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert kept
    for path in kept:
        path.write_bytes(b"")
    run(use)


# --------------------------------------------------------------------------------- memory


def test_memory_does_not_grow_with_the_run():
    """It is the same after a minute and after an hour of the same channels."""
    monitor = Monitor(history=30, span=5, trigger_reach=100)
    sizes = []
    for k in range(120):
        monitor.update(*as_packets([hits_at(START + 30 * k + j) for j in range(30)]))
        sizes.append(len(pickle.dumps(monitor)))
    assert max(sizes) == sizes[20]


@pytest.mark.parametrize(
    ("engine", "used"),
    [
        ("auto", 64),
        pytest.param("numpy", 64, marks=pytest.mark.nightly),
        pytest.param("numpy", 49, marks=pytest.mark.nightly),
        pytest.param("numba", 49, marks=[pytest.mark.nightly, needs_numba]),
    ],
)
def test_memory_of_400_000_channels(engine, used):
    """A monitor of so many takes at most 200 MB, all spans full, and a snapshot being taken."""
    command = [sys.executable, "-m", "tests.monitor.memory", engine, str(used)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert max(map(int, done.stdout.split())) <= 200e6


def test_what_is_no_packets_is_refused(tmp_path: Path):
    """Who forgets .packets() is told of it."""
    with RawWriter(tmp_path / "raw.h5") as out:
        out.append([b"a message"])
    with RawFile(tmp_path / "raw.h5") as raw:
        batch = raw.read(0)
    with pytest.raises(TypeError, match=r"packets, as \.packets\(\) gives them, not <Batch of 1"):
        Monitor().update(batch)


def test_fraction_of_an_unknown_counter():
    """The error has the names that there are."""
    snapshot = Monitor().snapshot()
    for fraction in (snapshot.fraction, snapshot.channels.fraction):
        with pytest.raises(ValueError, match=r"no counter is 'foo'; there are .*parity_errors"):
            fraction("foo")
