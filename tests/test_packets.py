"""Decoding: every kind of word of both wires, what cannot be decoded, and the columns."""

import dataclasses
import pickle
import sys
import tracemalloc
import weakref
from itertools import pairwise
from pathlib import Path

import anyio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer import Batch, Gap, Packets, RawFile, decode, follow, tail
from streamer.packets.columns import COLUMNS
from writer import RawWriter, pacman, pacman24
from writer.larpix import DATA_BITS, pack

from .decoding import (
    FIELDS,
    HIT24,
    LAYOUTS,
    REVISIONS,
    U1,
    U8,
    assert_as_slow,
    assert_same,
    batch_of,
    faults_of,
    hits,
    legacy,
    new24,
    random_message,
    random_new24,
)
from .following import foreign

BACKENDS = ["asyncio", "trio"]


# ----------------------------------------------------------------------- kinds of words


@pytest.mark.parametrize("asic", LAYOUTS)
@pytest.mark.parametrize("wire", ["legacy", *REVISIONS])
def test_random_words_as_a_slow_decoder_reads_them(wire, asic):
    """Each column and each field of random words, of each wire and each kind of chip."""
    rng = np.random.default_rng(5)
    sizes = [0, 1, 2, *rng.integers(0, 12, 40).tolist()]
    if wire == "legacy":
        datas = [random_message(rng, size) for size in sizes]
    else:
        datas = [random_new24(rng, size, wire) for size in sizes]
    name = wire if wire == "legacy" else "new24"
    io_groups = rng.integers(256, size=len(datas)).tolist()
    batch = batch_of(datas, io_groups, gaps=rng.integers(0, 40, len(datas)))
    packets = decode(batch, wire=name, asic=asic)
    assert not packets.faults
    assert_as_slow(packets, datas, io_groups, [asic] * len(datas), [name] * len(datas))


def test_lightpix_is_read_as_v2():
    """LightPix v1 sends the same packets."""
    batch = batch_of([legacy(hits(20))])
    assert_same(decode(batch, asic="lightpix"), decode(batch, asic="v2"))


def test_kinds_of_chips_by_io_group():
    """Each io_group's packets are read as those of its own chips."""
    rng = np.random.default_rng(6)
    datas = [random_message(rng, 5) for _ in range(30)]
    asics = {1: "v2", 2: "v3", 7: "v2-fifo"}
    io_groups = rng.choice(list(asics), len(datas)).tolist()
    packets = decode(batch_of(datas, io_groups), asic=asics)
    names = [asics[io_group] for io_group in io_groups]
    assert_as_slow(packets, datas, io_groups, names, ["legacy"] * len(datas))


def test_io_group_of_unknown_chips_keeps_what_no_chip_said():
    """Its packets are counted, one by one; its syncs and triggers need no chip."""
    syncs = pacman.words(pacman.Word.SYNC, sync_type=pacman.SyncType.SYNC, timestamp=9_999_999)
    datas = [legacy(hits(3)), legacy(hits(2), syncs), legacy(hits(3))]
    packets = decode(batch_of(datas, [1, 2, 1]), asic={1: "v2"})
    assert faults_of(packets) == {"unknown asic": [101, 101]}
    assert packets.row.tolist() == [100] * 4 + [101] * 2 + [102] * 4
    assert packets.timestamp[packets.is_sync].tolist() == [9_999_999]


def test_what_packets_are_by_type():
    """The booleans say what a type means for the chips that sent it."""
    stream = [
        pacman.words(pacman.Word.DATA, packet=pack(DATA_BITS, packet_type=[0, 1, 2, 3])),
        pacman.words(pacman.Word.SYNC, sync_type=pacman.SyncType.HEARTBEAT),
        pacman.words(pacman.Word.TRIG, trigger_type=2),
    ]
    batch = batch_of([legacy(*stream), legacy(*stream)], [1, 2])
    names = ["data", "test", "config_write", "config_read", "config", "timestamp"]
    names += ["message", "sync", "trigger"]
    one = ["timestamp", "data", "test", "config_write", "config_read", "sync", "trigger"]
    three = ["timestamp", "", "data", "config_write", "config_read", "sync", "trigger"]
    for asic, expected in [
        ("v2", one + one),
        ("v3", three + three),
        ({1: "v3", 2: "v2"}, three + one),
    ]:
        packets = decode(batch, asic=asic)
        for name in names:
            wanted = [
                kind.startswith(name) if name == "config" else kind == name for kind in expected
            ]
            assert getattr(packets, f"is_{name}").tolist() == wanted, name
        by_v3 = {"v2": [], "v3": [1, 2], str({1: "v3", 2: "v2"}): [1]}[str(asic)]
        from_chip = packets.packet_type < 4
        assert packets.is_v3.tolist() == (from_chip & np.isin(packets.io_group, by_v3)).tolist()


def test_fifo_flags_are_two_bits():
    """Full is a bit of its own, whatever more than half full says."""
    packets = pack(DATA_BITS, local_fifo=[0, 1, 2, 3], shared_fifo=[3, 2, 1, 0])
    found = decode(batch_of([legacy(pacman.words(pacman.Word.DATA, packet=packets))]))
    assert found.local_fifo.tolist() == [0, 0, 1, 2, 3]
    assert found.shared_fifo.tolist() == [0, 3, 2, 1, 0]


def test_time_of_a_newer_header():
    """Nanoseconds are one; 0, as data servers write, and anything else is none."""
    times = [0, 5, 10**18 - 1, 10**18, 1_700_000_000_999_999_999, 2**63 - 1, 2**63, 2**64 - 1]
    packets = decode(batch_of([new24(timestamp=time) for time in times]), wire="new24")
    assert packets.timestamp.tolist() == times
    assert packets.time.tolist() == [0, 0, 0, 10**9, 1_700_000_000, 9_223_372_036, 0, 0]


# ---------------------------------------------------------------------------- round trip

TICKS = st.integers(0, (1 << 32) - 1)


def fields(layout):
    return st.fixed_dictionaries(
        {
            name: st.integers(0, (1 << width) - 1)
            for name, (_, width) in layout.items()
            if name not in ("parity", "packet_type")
        }
    )


@st.composite
def chip_word(draw, wire, asic):
    """Draw a word with a packet, and what is to be found in it."""
    data, config = LAYOUTS[asic]
    data_type = 1 if asic == "v3" else 0
    kind = draw(st.sampled_from([data_type, 2, 3]))
    layout = data if kind == data_type else config
    values = draw(fields(layout)) | {"packet_type": kind}
    packet = pack(layout, **values)
    at = {"io_channel": draw(U1), "receipt_timestamp": draw(TICKS if wire is pacman else U8)}
    letters = [wire.Word.DATA] if wire is pacman else [wire.Word.DATA, wire.Word.CONFIG]
    word = wire.words(draw(st.sampled_from(letters)), packet=packet, **at)
    values.pop("magic_word", None)
    return word, values | at | {"valid_parity": 1, "parity": int(packet) >> 63}


@st.composite
def own_word(draw, wire):
    """Draw a word that the card says itself, and what is to be found in it."""
    ticks = draw(TICKS if wire is pacman else U8)
    kind = draw(U1)
    if draw(st.booleans()):
        word = wire.words(wire.Word.TRIG, trigger_type=kind, timestamp=ticks)
        return word, {"packet_type": 7, "trigger_type": kind, "timestamp": ticks}
    source = draw(st.integers(0, 1))
    word = wire.words(wire.Word.SYNC, sync_type=kind, clk_source=source, timestamp=ticks)
    found = {"packet_type": 6, "trigger_type": kind, "timestamp": ticks, "dataword": source}
    return word, found


@settings(max_examples=60)
@given(
    data=st.data(),
    wire=st.sampled_from([pacman, pacman24]),
    asic=st.sampled_from(list(LAYOUTS)),
    revision=st.sampled_from(REVISIONS),
)
def test_what_is_encoded_is_decoded(data, wire, asic, revision):
    """What goes into words comes out of the columns, and nothing else does."""
    word = st.one_of(chip_word(wire, asic), own_word(wire))
    drawn = data.draw(st.lists(st.lists(word, max_size=6), min_size=1, max_size=5))
    make = legacy if wire is pacman else lambda *words: new24(*words, revision=revision)
    batch = batch_of([make(*(word for word, _ in one)) for one in drawn])
    packets = decode(batch, asic=asic)
    assert not packets.faults
    expected = [found for one in drawn for found in [None, *(found for _, found in one)]]
    for place, found in enumerate(expected):
        if found is None:
            assert packets.packet_type[place] == 4
            continue
        for name, value in found.items():
            assert getattr(packets, name)[place] == value, (place, name)
    assert packets.io_group.tolist() == [
        1 + k % 8 for k, one in enumerate(drawn) for _ in range(1 + len(one))
    ]


# ------------------------------------------------------------------------ where they lie


@pytest.mark.parametrize("before", [0, 1, 7, 8, 9, 16])
@pytest.mark.parametrize("gaps", [0, 1, 5, 8, 16, "any"])
@pytest.mark.parametrize("wire", ["legacy", "new24"])
def test_messages_lie_anywhere_in_a_buffer(wire, gaps, before):
    """At any byte, from the first to the last, and with anything between."""
    rng = np.random.default_rng(1)
    make = random_message if wire == "legacy" else random_new24
    datas = [make(rng, size) for size in [*rng.integers(0, 9, 30).tolist(), 0]]
    expected = decode(batch_of(datas, io_version=None), wire=wire)
    if gaps == "any":
        gaps = rng.integers(0, 30, len(datas))
    batch = batch_of(datas, gaps=gaps, before=before)
    last = batch.starts[-1] + batch.lengths[-1]
    cut = Batch(batch.rows, batch.io_groups, batch.buffer[:last], batch.starts, batch.lengths)
    assert_same(decode(cut, wire=wire), expected)
    # The memory itself may begin at any byte too.
    odd = np.frombuffer(b"." + batch.buffer.tobytes(), "u1")[1:]
    shifted = Batch(batch.rows, batch.io_groups, odd, batch.starts, batch.lengths)
    assert_same(decode(shifted, wire=wire), expected)


@pytest.mark.parametrize("dtype", ["u2", "i4", "u4", "u8", "<i8"])
@pytest.mark.parametrize("name", ["starts", "lengths"])
@pytest.mark.parametrize("before", [0, 5])
def test_places_of_any_integers(dtype, name, before):
    """Who makes a batch may have other ones than 64 bits with a sign."""
    batch = batch_of([legacy(hits(3)), legacy(), legacy(hits(2))], before=before)
    other = dataclasses.replace(batch, **{name: getattr(batch, name).astype(dtype)})
    assert_same(decode(other), decode(batch))


@pytest.mark.parametrize("name", ["starts", "lengths"])
def test_places_that_are_no_integers(name):
    """They are refused, not rounded to another place."""
    batch = batch_of([legacy(hits(3))])
    wrong = dataclasses.replace(batch, **{name: getattr(batch, name).astype("f8")})
    with pytest.raises(TypeError, match="float64"):
        decode(wrong)


@pytest.mark.parametrize("name", ["starts", "lengths"])
def test_unsigned_places_too_large_for_a_sign(name):
    """They do not turn into places before the buffer."""
    wrong = dataclasses.replace(batch_of([legacy(hits(3))]), **{name: np.array([2**64 - 8], "u8")})
    with pytest.raises(ValueError, match="a message lies outside of its buffer of 88 bytes"):
        decode(wrong)


def test_messages_may_lie_in_any_order():
    """As in a file with more than one heap collection open."""
    rng = np.random.default_rng(2)
    datas = [random_message(rng, int(size)) for size in rng.integers(0, 9, 40)]
    expected = decode(batch_of(datas))
    order = rng.permutation(len(datas))
    mixed = batch_of([datas[k] for k in order], gaps=rng.integers(0, 30, len(datas)))
    back = np.argsort(order)
    batch = Batch(
        expected_rows := batch_of(datas).rows,
        batch_of(datas).io_groups,
        mixed.buffer,
        mixed.starts[back],
        mixed.lengths[back],
    )
    assert len(expected_rows) == len(datas)
    assert_same(decode(batch), expected)


@pytest.mark.parametrize("make", [random_message, random_new24])
def test_many_words_are_as_few(make):
    """What is gathered in blocks is what one gets message by message."""
    rng = np.random.default_rng(3)
    sizes = [0, 40_000, 1, 33_000, *rng.integers(0, 12, 300).tolist(), 65_535]
    datas = [make(rng, size) for size in sizes]
    batch = batch_of(datas, gaps=rng.integers(0, 3, len(datas)))
    one_by_one = [decode(batch.select(np.array([k]))) for k in range(len(batch))]
    assert_same(decode(batch), Packets.concatenate(one_by_one))


@pytest.mark.parametrize("gaps", [0, 1])
def test_few_messages_of_a_large_buffer(gaps):
    """They are decoded without a copy of the rest of it, and the packets do not keep it."""
    datas = [legacy(hits(3))] * 8
    batch = batch_of([bytes(1), *datas, bytes(1 << 24)], gaps=gaps, before=5)
    few = batch.select(np.arange(1, 9))
    tracemalloc.start()
    try:
        packets = decode(few)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1 << 20
    assert_same(packets, decode(batch_of(datas, few.io_groups, first=101)))
    buffer = weakref.ref(batch.buffer)
    del batch, few
    assert buffer() is None


# ---------------------------------------------------------------------------- columns


def test_column_is_computed_once_and_kept():
    """Who does not ask does not pay, and who asks again does not pay again."""
    packets = decode(batch_of([legacy(hits(3))]))
    assert "chip_id" not in vars(packets)
    assert packets.chip_id is packets.chip_id


@pytest.mark.parametrize("name", [*FIELDS, "row", "time", "is_data", "is_sync", "cds_flag"])
def test_columns_are_read_only(name):
    """Several consumers may have the same packets."""
    column = getattr(decode(batch_of([legacy(hits(3))])), name)
    assert column.shape == (4,)
    with pytest.raises(ValueError, match="read-only"):
        column[0] = 1


@pytest.mark.parametrize(
    ("wire", "asic", "dataword", "receipt", "size"),
    [
        ("legacy", "v2", "u1", "<u4", 36),
        ("legacy", "v3", "<u2", "<u4", 37),
        ("new24", "v2", "u1", "<u8", 40),
        ("new24", "v3", "<u2", "<u8", 41),
        ("new24", {1: "v2", 2: "v3"}, "<u2", "<u8", 41),
    ],
)
def test_dtypes_of_columns(wire, asic, dataword, receipt, size):
    """They are those of format 2.4, but for what v3 and the newer wire have more of."""
    packets = decode(batch_of([]), wire=wire, asic=asic)
    records = packets.to_records()
    assert records.dtype.names == FIELDS
    assert records.dtype.itemsize == size
    for name in FIELDS:
        assert getattr(packets, name).dtype == records.dtype[name], name
    assert (packets.dataword.dtype, packets.receipt_timestamp.dtype) == (dataword, receipt)
    assert packets.row.dtype == packets.time.dtype == np.int64


def test_name_that_is_no_column():
    """It is an error as of any other object, and no reason to compute anything."""
    packets = decode(batch_of([]))
    with pytest.raises(AttributeError, match="'Packets' object has no attribute 'adc'"):
        _ = packets.adc
    assert not hasattr(packets, "_part_1_1")


def test_packets_go_from_process_to_process():
    """They can be pickled, with what was computed or without."""
    packets = decode(batch_of([legacy(hits(3)), b"x"]))
    assert packets.chip_id[1]
    again = pickle.loads(pickle.dumps(packets))
    assert_same(again, packets)
    assert faults_of(again) == {"not data": [101]}


def test_what_packets_say_of_themselves():
    """How many, and what was wrong."""
    assert repr(decode(batch_of([legacy(hits(1))]))) == (
        "<Packets: 1 word of 1 message, no faults>"
    )
    assert repr(decode(batch_of([legacy(hits(2)), b"x", b"", b"y"]))) == (
        "<Packets: 2 words of 1 message, faults: 1 empty, 2 not data>"
    )


# ------------------------------------------------------------------- parts, and the whole


@pytest.fixture(scope="module")
def mixed() -> Packets:
    """Packets of both wires and of several kinds of chips, with faults."""
    rng = np.random.default_rng(4)
    datas = [
        random_message(rng, int(size), b"DDDSTX") if size % 2 else random_new24(rng, int(size))
        for size in rng.integers(0, 9, 60)
    ]
    return decode(batch_of([*datas, b"?"]), asic=dict.fromkeys(range(1, 8), "v3") | {3: "v2"})


@pytest.mark.parametrize("seed", range(4))
def test_selected_packets_are_as_they_were(mixed, seed):
    """Every column of a selection is the selection of the column."""
    mask = np.random.default_rng(seed).random(len(mixed)) < (0.0, 0.1, 0.5, 1.0)[seed]
    for index in (mask, np.flatnonzero(mask), np.flatnonzero(mask)[::-1]):
        part = mixed.select(index)
        assert part.to_records().tobytes() == mixed.to_records()[index].tobytes()
        for name in ["row", "time", "is_data", "is_test", "cds_flag"]:
            assert (getattr(part, name) == getattr(mixed, name)[index]).all()
        assert not part.faults


def test_parts_add_up_to_the_whole(mixed):
    """What is counted in parts is what is counted in all of them."""
    mask = np.random.default_rng(0).random(len(mixed)) < 0.5
    parts = [mixed.select(mask), mixed.select(~mask)]
    for name in ("n_messages", "n_words", "payload_bytes"):
        assert sum(getattr(part, name) for part in parts) == getattr(mixed, name)


@pytest.mark.parametrize("mask", [np.ones(3, bool), True, np.ones((2, 2), bool), 5])
def test_mask_that_is_not_one_value_a_packet(mixed, mask):
    """It is refused: comparisons that went wrong look like that."""
    with pytest.raises(IndexError, match="a mask has one value for each of"):
        mixed.select(mask)


@settings(max_examples=30)
@given(st.sets(st.integers(1, 39), max_size=6))
def test_batches_that_are_cut_anywhere_decode_to_the_same(cuts):
    """Decoding keeps nothing from one batch to the next."""
    rng = np.random.default_rng(8)
    datas = [random_message(rng, int(size), b"DDSTX") for size in rng.integers(0, 5, 40)]
    batch = batch_of([*datas[:20], b"x", *datas[20:]])
    edges = [0, *sorted(cuts), len(batch)]
    parts = [decode(batch.select(np.arange(start, stop))) for start, stop in pairwise(edges)]
    whole, joined = decode(batch), Packets.concatenate(parts)
    assert_same(joined, whole)
    assert faults_of(joined) == faults_of(whole)


def test_nothing_to_join():
    """There is no wire and no kind of chip that no packets would be of."""
    with pytest.raises(ValueError, match="no packets to join"):
        Packets.concatenate([])


def test_source_of_joined_packets():
    """It is kept if it is one."""
    one, other = (
        decode(dataclasses.replace(batch_of([legacy()]), source=Path(name))) for name in "ab"
    )
    assert Packets.concatenate([one, one]).source == Path("a")
    assert Packets.concatenate([one, other]).source is None


def test_payload_bytes():
    """They are those of the headers and words that were decoded."""
    datas = [legacy(hits(3)), legacy(), new24(HIT24), b"???"]
    packets = decode(batch_of(datas))
    assert packets.payload_bytes == sum(map(len, datas[:3]))
    assert (packets.n_messages, packets.n_words) == (3, 6)
    assert packets.select(packets.is_timestamp).payload_bytes == 8 + 8 + 24


# ------------------------------------------------------------------------- out of files


@pytest.fixture
def run(tmp_path):
    """Return a file of a run that has ended, in three batches, and its messages."""
    rng = np.random.default_rng(9)
    datas = [random_message(rng, int(size)) for size in rng.integers(0, 9, 300)]
    path = tmp_path / "raw.h5"
    with RawWriter(path, io_version="0.0") as out:
        for start in range(0, 300, 100):
            out.append(datas[start : start + 100], [1] * 100)
    return path, datas


def test_batches_know_the_io_version_of_their_file(tmp_path):
    """However they are read, and also a part of one."""
    for io_version in ("1.0", None):
        path = tmp_path / f"{io_version}.h5"
        with RawWriter(path, io_version=io_version) as out:
            out.append([legacy(hits(1))] * 4, [1] * 4)
        with RawFile(path) as raw:
            batch = raw.read(0, 4)
        assert batch.io_version == raw_version(path) == io_version
        assert batch.select(np.array([1])).io_version == io_version
        with tail(path) as live:
            next(live)
            assert live.next_batch().io_version == io_version


def raw_version(path):
    with RawFile(path) as raw:
        return raw.io_version


def test_packets_of_a_batch(run):
    """The short form decodes as decode does."""
    path, datas = run
    with RawFile(path) as raw:
        batch = raw.read(0, 300)
    assert_same(batch.packets(), decode(batch))
    assert_same(batch.packets(wire="legacy", asic="v3"), decode(batch, wire="legacy", asic="v3"))
    assert batch.packets().source == path
    assert batch.packets().n_words == sum((len(data) - 8) // 16 for data in datas)


@pytest.mark.parametrize("backend", BACKENDS)
def test_packets_of_a_follower(run, monkeypatch, backend):
    """They are those of its batches, one after the other."""
    path, _ = run

    async def main():
        async with follow(path) as live:
            return [packets async for packets in live.packets(asic="v2-fifo")]

    monkeypatch.setattr(sys.modules["streamer.follow"], "DECODED_BYTES", 4_000)

    found = anyio.run(main, backend=backend)
    assert len(found) > 3
    with RawFile(path) as raw:
        assert_same(Packets.concatenate(found), decode(raw.read(0, 300), asic="v2-fifo"))


def test_packets_of_a_tail(run):
    """They are those of its batches, one after the other."""
    path, _ = run
    with tail(path, max_batch_bytes=4_000) as live:
        found = list(live.packets(asic="v3"))
    assert len(found) > 3
    with RawFile(path) as raw:
        assert_same(Packets.concatenate(found), decode(raw.read(0, 300), asic="v3"))


@pytest.mark.parametrize("way", ["follow", "tail"])
def test_position_of_who_takes_packets(run, monkeypatch, way):
    """Large batches are decoded in parts, and what was taken of them is what counts."""
    path, datas = run
    monkeypatch.setattr(sys.modules[f"streamer.{way}"], "DECODED_BYTES", 2_000)

    def has_taken(live, packets):
        assert live.position.row == packets.row[-1] + 1
        assert live._progress.committed.row == packets.row[0]
        return packets

    async def main():
        async with follow(path) as live:
            found = [has_taken(live, await anext(live.packets()))]
            found.append(decode((await live.next_batch()).select(np.arange(20))))
            return found

    if way == "follow":
        first, rest = anyio.run(main)
    else:
        with tail(path) as live:
            first = has_taken(live, next(live.packets()))
            rest = decode(live.next_batch().select(np.arange(20)))
    sizes = np.cumsum([len(data) for data in datas])
    assert np.unique(first.row).tolist() == list(range(np.count_nonzero(sizes <= 2_000)))
    assert rest.row[0] == first.row[-1] + 1


def test_options_are_checked_before_anything_is_read(run):
    """Who asks for what there is not is told so at once, and loses nothing."""
    path, _ = run

    async def main():
        async with follow(path) as live:
            with pytest.raises(ValueError, match="wire must be one of"):
                live.packets(wire="old")
            return await live.next_batch()

    assert len(anyio.run(main)) == 300
    with tail(path) as live:
        with pytest.raises(ValueError, match="asic must be one of"):
            live.packets(asic="v1")
        assert len(live.next_batch()) == 300


@pytest.mark.parametrize("way", ["follow", "tail"])
def test_gap_comes_between_packets(tmp_path, monkeypatch, way):
    """Where another file takes the name, it is said between its packets and the old ones."""
    # A lost file has less time for its last rows.
    monkeypatch.setattr("streamer.ending._DRAIN_SECONDS", 0.2)
    monkeypatch.setattr("streamer.rawfile._STILL_SECONDS", 0.2)
    path, other = tmp_path / "raw.h5", tmp_path / "other.h5"
    with RawWriter(other, io_version="0.0") as out:
        out.append([legacy(hits(1))] * 6, [1] * 6)

    def taken(packets):
        if other.exists():
            other.replace(path)
        return packets

    async def main():
        async with follow(path, on_replace="continue") as live:
            return [taken(packets) async for packets in live.packets()]

    with foreign(path, 4):
        if way == "follow":
            found = anyio.run(main)
        else:
            with tail(path, on_replace="continue") as live:
                found = [taken(packets) for packets in live.packets()]
    assert [type(one) for one in found] == [Packets, Gap, Packets]
    assert found[-1].n_messages == 6


def test_columns_are_found_by_completion_and_help():
    """All of them, and each is told in the docstring."""
    names = {name for name in COLUMNS if not name.startswith("_")}
    assert names <= {*dir(decode(batch_of([])))}
    assert {name for name in names if name in Packets.__doc__} == names
