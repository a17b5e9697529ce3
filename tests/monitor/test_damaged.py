"""Packets whose address was damaged: counted where it says, and in little memory."""

import pickle
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.monitor import Monitor
from tests.monitor.reference import Reference
from tests.monitor.streams import START, Random, as_packets, data_word, legacy
from tests.monitor.test_metrics import SEEDS, SMALL, cut_at, everything, monitored, same
from writer.larpix import CONFIG_BITS, DATA_BITS, pack
from writer.pacman import Word, messages, words

needs_numba = pytest.mark.skipif(find_spec("numba") is None, reason="numba is not installed")
ENGINES = ("numpy", pytest.param("numba", marks=needs_numba))
#: Some kB of counters of a chip.
PAGE = 10_000


def damaged(seed, count, draw, wire="legacy"):
    """Return parts of a random stream, cut anywhere, in which many packets are damaged."""
    chosen = Random(seed, wire=wire, garbage=0.02, damaged=0.5).messages(count)
    return as_packets(chosen, cut_at(draw, count), **({} if wire == "legacy" else {"asic": "v2"}))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("wire", ["legacy", "new24"])
@settings(max_examples=10, deadline=None)
@given(data=st.data(), seed=SEEDS, count=st.integers(0, 120))
def test_every_snapshot_is_right(engine, wire, data, seed, count):
    """After each part of a damaged stream, all is what a slow count of all packets gives."""
    reference, monitor = Reference(**SMALL), Monitor(engine=engine, **SMALL)
    for part in damaged(seed, count, data.draw, wire):
        reference.update(part)
        monitor.update(part)
        same(everything(monitor), reference.as_dict())


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=25, deadline=None)
@given(data=st.data(), seed=SEEDS, count=st.integers(0, 150))
def test_parts_of_a_damaged_stream_add_up(engine, data, seed, count):
    """Merged in any grouping, also after a journey to another process, they equal the whole."""
    parts = damaged(seed, count, data.draw)
    whole = everything(monitored(parts, engine=engine, **SMALL))
    monitors = [monitored([part], engine=engine, **SMALL) for part in parts]
    while len(monitors) > 1:
        k = data.draw(st.integers(0, len(monitors) - 2))
        other = monitors.pop(k + 1)
        before = everything(other)
        monitors[k].merge(pickle.loads(pickle.dumps(other)) if k % 2 else other)
        assert everything(other) == before
    assert everything(monitors[0]) == whole


def message(second, *packets):
    return legacy([data_word(packet, 5, 0) for packet in packets], second), 1


BAD = pack(DATA_BITS, chip_id=11, channel_id=7, dataword=50, local_fifo=3) ^ np.uint64(1 << 63)
GOOD = pack(DATA_BITS, chip_id=11, channel_id=9, dataword=50)
WRITE = pack(CONFIG_BITS, packet_type=2, chip_id=11)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", [GOOD, WRITE], ids=["data", "configuration"])
@pytest.mark.parametrize("later", [0, 4, 100])
def test_chip_whose_first_packets_are_damaged(engine, kind, later):
    """What was counted of it before is its own when it is known: recent, older and in total."""
    bad_write = WRITE ^ np.uint64(1 << 63)
    stream = [message(START, BAD), message(START + 4, *[BAD] * 3_000, bad_write)]
    stream += [message(START + 4 + later, kind, BAD)]
    parts = as_packets(stream, [1, 2])
    reference, monitor = Reference(**SMALL), Monitor(engine=engine, **SMALL)
    for part in parts:
        reference.update(part)
        monitor.update(part)
    same(everything(monitor), reference.as_dict())
    for cut in (1, 2):
        one = monitored(parts[:cut], engine=engine, **SMALL)
        one.merge(monitored(parts[cut:], engine=engine, **SMALL))
        assert everything(one) == everything(monitor)


def test_chip_that_only_one_of_two_parts_knows():
    """Whichever of two monitors knows a chip, its damaged packets of the other are added to it."""
    bad, good = as_packets([message(START, BAD, BAD), message(START, GOOD)], [1])
    for parts in ([bad, good], [good, bad]):
        one, two = (monitored([part]) for part in parts)
        one.merge(two)
        assert everything(one) == everything(monitored(parts))
        assert one.snapshot().channels.total["data"].tolist() == [2, 1]


# --------------------------------------------------------------------------------- memory


def hits(second, *, flipped, seed=0):
    """Return a hit of each of 400 chips, or 4,000 hits of them with a flipped bit of address."""
    rng = np.random.default_rng(seed)
    chip = rng.integers(400, size=4_000) if flipped else np.arange(400)
    channel = rng.integers(64, size=len(chip))
    packet = pack(DATA_BITS, chip_id=11 + chip % 100, channel_id=channel, dataword=40)
    if flipped:
        packet = packet ^ np.uint64(1) << rng.integers(2, 16, size=len(chip)).astype(np.uint64)
    stream = words(Word.DATA, io_channel=1 + chip // 100, packet=packet)
    buffer, _ = messages(stream, [len(chip)], second)
    return as_packets([(buffer.tobytes(), 1)])


@pytest.mark.parametrize("engine", ENGINES)
def test_strays_among_many_chips(engine):
    """They stand in the order of addresses, between more chips than are summed up at once."""
    parts = (
        hits(START, flipped=True) + hits(START + 5, flipped=False) + hits(START + 9, flipped=True)
    )
    reference, monitor = Reference(**SMALL), Monitor(engine=engine, **SMALL)
    for part in parts:
        reference.update(part)
        monitor.update(part)
    same(everything(monitor), reference.as_dict())


def size(monitor):
    monitor.snapshot()  # for which all is added up
    return len(pickle.dumps(monitor))


@pytest.mark.parametrize("engine", ENGINES)
def test_memory_of_chips_that_do_not_exist(engine):
    """A channel that damaged packets name takes some bytes, and not the counters of a chip."""
    monitor = monitored(hits(START, flipped=False), engine=engine)
    before = size(monitor)
    assert before > 400 * PAGE
    for k in range(10):
        monitor.update(*hits(START + 10 * k, flipped=True, seed=k))
    table = monitor.snapshot().channels
    chips = table.by("chip").address["chip_id"]
    strays = ~np.isin(table.address["chip_id"], range(11, 111))
    assert np.count_nonzero((chips < 11) | (chips > 110)) > 400, "so many do not exist"
    assert size(monitor) - before < 50 * np.count_nonzero(strays)


@pytest.mark.parametrize("engine", ENGINES)
def test_memory_does_not_grow_with_damaged_packets(engine):
    """Of the same channels, it is the same however many packets there were."""
    monitor = monitored(hits(START, flipped=False), engine=engine, history=5)
    sizes = []
    for k in range(40):
        monitor.update(*hits(START + 10 * k, flipped=True))
        sizes.append(size(monitor))
    assert max(sizes[10:]) == sizes[10]
