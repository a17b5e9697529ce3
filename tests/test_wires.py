"""Which wire messages are of, and what is counted where they are of none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer import decode
from streamer.packets.wires import sort_messages
from writer import pacman, pacman24
from writer.larpix import parity_ok

from .decoding import (
    FIELDS,
    HIT24,
    LAYOUTS,
    REVISIONS,
    U1,
    U2,
    assert_as_slow,
    assert_same,
    batch_of,
    faults_of,
    hits,
    legacy,
    new24,
    random_message,
)

# ------------------------------------------------------------------------------- faults


def test_every_kind_of_fault_of_a_message():
    """Each is counted with its row, and the messages beside it are whole."""
    good = legacy(hits(2))
    bad = {
        "empty": b"",
        "not data": b"?" + good[1:],
        "truncated": good[:-1],
        "overlong": good + b"\0",
        "other wire": new24(),
    }
    datas = [good, *(one for data in bad.values() for one in (data, good))]
    packets = decode(batch_of(datas), wire="legacy")
    assert faults_of(packets) == {kind: [101 + 2 * k] for k, kind in enumerate(bad)}
    assert (packets.n_messages, packets.n_words) == (6, 12)
    assert np.unique(packets.row).tolist() == [100, 102, 104, 106, 108, 110]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "empty"),
        (b"D", "truncated"),
        (legacy()[:7], "truncated"),
        (legacy(hits(3))[:8], "truncated"),
        (legacy(hits(3))[:-16], "truncated"),
        (legacy(hits(3)) + bytes(16), "overlong"),
        (b"!" + legacy()[1:], "not data"),
        (b"\0", "not data"),
        (new24(timestamp=5), "other wire"),
    ],
)
def test_messages_that_are_none_of_the_older_wire(data, kind):
    """By their length and header they are told what is wrong with them."""
    assert faults_of(decode(batch_of([data]), wire="legacy")) == {kind: [100]}


@pytest.mark.parametrize("size", range(8))
@pytest.mark.parametrize(
    ("wire", "kind"), [("legacy", "truncated"), ("new24", "truncated"), ("auto", "unknown wire")]
)
def test_piece_of_a_header_at_the_end_of_a_buffer(wire, kind, size):
    """It is counted, at any byte, and nothing is read that would lie behind it."""
    good = new24(HIT24) if wire == "new24" else legacy(hits(2))
    for before in range(8):
        packets = decode(batch_of([good, good[:size]], gaps=0, before=before), wire=wire)
        assert faults_of(packets) == {kind if size else "empty": [101]}
        assert packets.n_messages == 1


@pytest.mark.parametrize("revision", REVISIONS)
def test_messages_that_are_none_of_the_newer_wire(revision):
    """By their length, version and header they are told what is wrong with them."""
    good = new24(HIT24, revision=revision)
    datas = [good[:23], good[:24], good[:-24], good[:-1], good + bytes(24), good + b"\0", b""]
    datas += [b"S" + good[1:], good[:1] + b"\7\7\7" + good[4:], legacy(hits(1))]
    kinds = ["truncated"] * 4 + ["overlong"] * 2 + ["empty", "not data", "unknown wire"]
    packets = decode(batch_of([good, *datas, good]), wire="new24")
    assert packets.n_words == 6
    found = {row: kind for kind, rows in packets.faults.items() for row in rows.tolist()}
    assert [found[101 + k] for k in range(len(datas))] == [*kinds, "other wire"]


def test_text_of_a_card_is_no_data():
    """The newer wire has messages that are not made of words."""
    text = new24(kind=pacman24.MessageType.TEXT)[:4] + b"\5\0\0\0" + bytes(16) + b"hello"
    for wire in ("new24", "auto"):
        assert faults_of(decode(batch_of([text]), wire=wire)) == {"not data": [100]}


def test_unknown_words_are_counted_one_by_one():
    """A word that is not understood is left out, and its neighbours are not."""
    errors = pacman.words(pacman.Word.ERR, code=[1, 2])
    datas = [legacy(hits(2), errors, hits(1, seed=1)), legacy(errors), legacy(hits(2))]
    packets = decode(batch_of(datas))
    assert faults_of(packets) == {"unknown word": [100, 100, 101, 101]}
    assert packets.row.tolist() == [100] * 4 + [101] + [102] * 3
    kept = decode(batch_of([legacy(hits(2), hits(1, seed=1)), legacy(), legacy(hits(2))]))
    assert_same(packets, kept)


def test_io_channel_that_the_column_cannot_hold():
    """It is counted, not cut to another channel."""
    words = pacman24.words(pacman24.Word.DATA, io_channel=[1, 255, 256, 257, 65535, 2])
    packets = decode(batch_of([new24(words)]), wire="new24")
    assert packets.io_channel.tolist() == [0, 1, 255, 2]
    assert faults_of(packets) == {"io_channel over 255": [100] * 3}


def test_word_with_two_faults_is_counted_once():
    """Of chips that nobody knows, and of an io_channel that there is no room for."""
    words = pacman24.words(pacman24.Word.DATA, io_channel=[1, 256])
    packets = decode(batch_of([new24(words)], [5]), wire="new24", asic={})
    assert faults_of(packets) == {"io_channel over 255": [100], "unknown asic": [100]}
    assert packets.n_words == 0


@pytest.mark.parametrize(("wire", "letters"), [("legacy", b"DTS"), ("new24", b"DCTS")])
def test_every_other_letter_is_an_unknown_word(wire, letters):
    """Of the 256, only those that are known are read."""
    word = pacman.WORD if wire == "legacy" else pacman24.WORD
    words = np.zeros(256, word)
    words["type"] = np.arange(256)
    packets = decode(batch_of([legacy(words) if wire == "legacy" else new24(words)]), wire=wire)
    assert packets.n_words == len(letters)
    assert len(packets.faults["unknown word"]) == 256 - len(letters)


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


TRIGGER, SYNC = (
    pacman.words(pacman.Word.TRIG, trigger_type=2, timestamp=77),
    pacman.words(pacman.Word.SYNC, sync_type=pacman.SyncType.SYNC, timestamp=9_999_999),
)
TRIGGER24, SYNC24 = (
    pacman24.words(pacman24.Word.TRIG, trigger_type=2, timestamp=77),
    pacman24.words(pacman24.Word.SYNC, sync_type=pacman.SyncType.SYNC, timestamp=9_999_999),
)


@pytest.mark.parametrize("is_named", [True, False])
@pytest.mark.parametrize("wire", ["legacy", *REVISIONS])
def test_any_flipped_bit_is_another_packet_or_a_counted_fault(wire, is_named):
    """One wrong bit changes one packet at the most, or is counted; neighbours stay as they are."""
    if wire == "legacy":
        middle, neighbour = legacy(hits(1), SYNC, TRIGGER), legacy(hits(2))
    else:
        middle = new24(HIT24[:1], SYNC24, TRIGGER24, revision=wire)
        neighbour, wire = new24(HIT24), "new24"
    if not is_named:
        wire = "auto"
    size = len(middle)
    before = decode(batch_of([neighbour, middle, neighbour]), wire=wire).to_records()
    near = len(decode(batch_of([neighbour]), wire=wire))
    outcomes = set()
    for bit in range(8 * size):
        packets = decode(batch_of([neighbour, flipped(middle, bit), neighbour]), wire=wire)
        records = packets.to_records()
        assert records[:near].tobytes() == before[:near].tobytes()
        assert records[-near:].tobytes() == before[-near:].tobytes()
        count = sum(map(len, packets.faults.values()))
        if count:
            assert count == 1
            assert faults_of(packets) in [{kind: [101]} for kind in packets.faults]
            assert len(records) in (2 * near, len(before) - 1)
            outcomes.add(*packets.faults)
        else:
            assert np.count_nonzero(records != before) <= 1
            outcomes.add("packet")
    kinds = {"packet", "unknown word", "not data"}
    assert outcomes > kinds


BEGUN = st.sampled_from([b"", b"D", b"D\1\0\0", b"D\0\1\0\0\0\0\0", b"D" + bytes(7)])
OF_WORDS = {"unknown word", "unknown asic", "io_channel over 255"}


@settings(max_examples=200)
@given(
    datas=st.lists(st.builds(bytes.__add__, BEGUN, st.binary(max_size=80)), max_size=12),
    wire=st.sampled_from(["legacy", "new24"]),
    is_named=st.booleans(),
    asic=st.sampled_from([*LAYOUTS, {1: "v3", 2: "v2"}]),
)
def test_random_bytes_are_messages_or_counted_faults(datas, wire, is_named, asic):
    """Each message is decoded or counted, once, and good ones between them are all there."""
    good = legacy(hits(3)) if wire == "legacy" else new24(HIT24)
    mixed = [one for data in datas for one in (data, good)]
    batch = batch_of(mixed, [1] * len(mixed))
    packets = decode(batch, wire=wire if is_named else "auto", asic=asic)
    lost = sum(len(rows) for kind, rows in packets.faults.items() if kind not in OF_WORDS)
    assert packets.n_messages + lost == len(mixed)
    goods = packets.select(packets.row % 2 == 1)
    assert (goods.n_messages, goods.n_words) == (len(datas), 3 * len(datas))


def test_longest_messages():
    """A message of as many words as a header can count is one like any other."""
    rng = np.random.default_rng(0)
    datas = [legacy(hits(1)), random_message(rng, 65_535, b"D"), legacy(hits(2))]
    packets = decode(batch_of(datas))
    assert packets.n_words == 65_538
    assert not packets.faults
    words = np.frombuffer(datas[1][8:], pacman.Word.DATA.dtype)
    one = packets.select(packets.row == 101)
    assert (one.receipt_timestamp[1:] == words["receipt_timestamp"]).all()
    assert (one.valid_parity[1:] == parity_ok(words["packet"])).all()


def test_io_group_zero():
    """It is one like any other: nobody says that it is not."""
    packets = decode(batch_of([legacy(hits(2))] * 2, [0, 255]))
    assert packets.io_group.tolist() == [0] * 3 + [255] * 3
    assert not packets.faults


def test_no_messages():
    """No messages are no packets, with every column, of the dtype that it always has."""
    some, none = decode(batch_of([legacy(hits(1))])), decode(batch_of([]))
    assert len(none) == none.n_messages == none.n_words == none.payload_bytes == 0
    for name in [*FIELDS, "row", "time", "is_data"]:
        assert getattr(none, name).dtype == getattr(some, name).dtype
        assert getattr(none, name).shape == (0,)
    assert none.to_records().dtype == some.to_records().dtype


# -------------------------------------------------------------------------- which wire


@pytest.mark.parametrize(
    ("io_version", "wire"),
    [("0.0", "legacy"), ("0.7", "legacy"), ("1.0", "new24"), ("1.12", "new24")],
)
def test_io_version_names_the_wire(io_version, wire):
    """Where the file says it, messages of the other wire are faults."""
    batch = batch_of([legacy(hits(1)), new24(HIT24)], io_version=io_version)
    packets = decode(batch)
    assert_same(packets, decode(batch, wire=wire))
    assert faults_of(packets) == {"other wire": [101 if wire == "legacy" else 100]}


@pytest.mark.parametrize("io_version", [None, "", "2.0", "new-v1-word24", "1", "1.x", "01.0"])
def test_where_no_wire_is_named_each_message_says_it(io_version):
    """The fork that writes the newer wire calls it by a name of its own."""
    datas = [legacy(hits(2)), new24(HIT24), b"D" * 30, legacy(hits(1))]
    packets = decode(batch_of(datas, [1, 2, 3, 4], io_version=io_version))
    assert faults_of(packets) == {"unknown wire": [102]}
    assert packets.row.tolist() == [100] * 3 + [101] * 4 + [103] * 2
    wires = ["legacy", "new24", "legacy"]
    good = [datas[0], datas[1], datas[3]]
    kept = decode(batch_of(good, [1, 2, 4], io_version=io_version))
    assert_as_slow(kept, good, [1, 2, 4], ["v2"] * 3, wires)
    assert packets.payload_bytes == sum(map(len, good))


def test_faults_of_words_where_wires_are_mixed():
    """They are counted as in a file of one wire."""
    error, error24 = pacman.words(pacman.Word.ERR), pacman24.words(pacman24.Word.ERR)
    datas = [new24(HIT24, error24), legacy(hits(2), error), new24(error24)]
    packets = decode(batch_of(datas))
    assert faults_of(packets) == {"unknown word": [100, 101, 102]}
    assert packets.row.tolist() == [100] * 4 + [101] * 3 + [102]


@given(
    count=st.integers(0, 65_535),
    low=U2,
    version=st.tuples(U1, U1, U1),
    by_room=st.sampled_from([1, 24]),
)
def test_no_message_is_of_both_wires(count, low, version, by_room):
    """What has the length and the header of the older wire cannot have those of the newer."""
    length = 8 + 16 * count
    for part in (low, (length - 24) // by_room & 0xFFFF):
        header = b"D" + bytes(version) + part.to_bytes(2, "little") + count.to_bytes(2, "little")
        for versions in (version, (1, *version[1:]), (version[0], 1, version[2])):
            header = header[:1] + bytes(versions) + header[4:]
            buffer = np.zeros(length, "u1")
            buffer[:8] = list(header)
            found = sort_messages(buffer, np.array([0]), np.array([length]), None)
            assert (len(found.legacy), len(found.new24)) == (1, 0)


def test_number_of_bytes_that_the_data_server_cut():
    """It puts 16 bits of it into the header, whatever the message's length."""
    words = pacman24.words(pacman24.Word.DATA, io_channel=1 + np.arange(4_000) % 40)
    data = bytearray(new24(words))
    assert data[4:8] == (96_000).to_bytes(4, "little")
    data[4:8] = (96_000 % 65_536).to_bytes(4, "little")
    for wire in ("new24", "auto"):
        packets = decode(batch_of([bytes(data), new24(HIT24)]), wire=wire)
        assert packets.n_words == 4_003
        assert not packets.faults
    for wrong in (0, 96_000 % 65_536 - 24, 96_000 % 65_536 + 1, 96_000 - 24):
        data[4:8] = wrong.to_bytes(4, "little")
        assert list(decode(batch_of([bytes(data)]), wire="auto").faults) == ["unknown wire"]


@pytest.mark.parametrize(
    ("start", "length"), [(-1, 8), (0, -8), (50, 8), (0, 1 << 40), ((1 << 63) - 1, 8)]
)
def test_message_outside_of_its_buffer(start, length):
    """A batch that was put together wrongly is refused: what would be read is not its own."""
    batch = batch_of([legacy(hits(1))] * 2)
    batch.starts[1], batch.lengths[1] = start, length
    if start == 50:
        batch.starts[1] = len(batch.buffer) - 7
    with pytest.raises(ValueError, match="a message lies outside of its buffer of 96 bytes"):
        decode(batch)


@pytest.mark.parametrize("wire", ["", "old", "Legacy", None, 24])
def test_wire_that_is_none(wire):
    """The error says which there are."""
    with pytest.raises(ValueError, match="wire must be one of auto, legacy, new24, not"):
        decode(batch_of([]), wire=wire)


@pytest.mark.parametrize("asic", ["", "v1", 2, None, {1: "v9"}, {1: 2}])
def test_chips_that_are_none(asic):
    """The error says which there are."""
    with pytest.raises(ValueError, match="asic must be one of v2, v2-fifo, v3, lightpix, not"):
        decode(batch_of([]), asic=asic)


@pytest.mark.parametrize("io_group", [-1, 256, "1", None])
def test_io_group_that_is_none(io_group):
    """The error says which there are."""
    with pytest.raises(ValueError, match="io_groups are from 0 to 255, not"):
        decode(batch_of([]), asic={io_group: "v2"})
