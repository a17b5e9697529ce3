"""The bytes of messages, against larpix-control and against themselves."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from larpix import Packet_v2
from larpix.format import pacman_msg_format as control

from writer import pacman, pacman24
from writer.larpix import FIFO_DATA_BITS, V3_CONFIG_BITS, V3_DATA_BITS
from writer.pacman import (
    CONFIG_BITS,
    DATA_BITS,
    HEADER,
    MAX_WORDS,
    WORD,
    MessageType,
    PacketType,
    SyncType,
    Word,
    messages,
    pack,
    parity_ok,
    with_parity,
    words,
)

from . import decoding

SECONDS = 1_700_000_000
LAYOUTS = {
    "data": DATA_BITS,
    "fifo": FIFO_DATA_BITS,
    "v3": V3_DATA_BITS,
    "config": CONFIG_BITS,
    "v3 config": V3_CONFIG_BITS,
}


def random_fields(layout, n=3_000, seed=0, **fixed):
    rng = np.random.default_rng(seed)
    free = {name: width for name, (_, width) in layout.items() if name != "parity"}
    drawn = {
        name: rng.integers(1 << width, size=n, dtype=np.uint64) for name, width in free.items()
    }
    return drawn | fixed


def as_control(packets):
    return [Packet_v2(packet.tobytes()) for packet in packets.astype("<u8")]


def control_messages(buffer, lengths):
    stops = np.cumsum(lengths)
    pairs = zip(stops - lengths, stops, strict=True)
    return [control.parse_msg(buffer[start:stop].tobytes()) for start, stop in pairs]


def parsed(made, kind=MessageType.DATA):
    buffer, lengths = messages(made, [len(made)], SECONDS, kind=kind)
    return control_messages(buffer, lengths)[0][1]


def values(layout):
    return st.fixed_dictionaries(
        {
            name: st.integers(0, (1 << width) - 1)
            for name, (_, width) in layout.items()
            if name != "parity"
        }
    )


def unpacked(layout, packet):
    return {name: packet >> low & (1 << n) - 1 for name, (low, n) in layout.items()}


def test_imports_numpy_only():
    """Data-taking processes can import it without loading anything but numpy."""
    # As part of a package that does nothing when it is imported.
    code = (
        "import sys, types;"
        "package = sys.modules['writer'] = types.ModuleType('writer');"
        f"package.__path__ = [{str(Path(pacman.__file__).parent)!r}];"
        "import writer.pacman;"
        "assert not {'h5py', 'anyio', 'larpix'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", [name for name in DATA_BITS if name != "parity"])
def test_data_packets_as_control_reads_them(name):
    """Each field of thousands of random data packets is what larpix-control finds."""
    fields = random_fields(DATA_BITS)
    packets = as_control(pack(DATA_BITS, **fields))
    assert [getattr(packet, name) for packet in packets] == fields[name].tolist()


@pytest.mark.parametrize("kind", [PacketType.CONFIG_WRITE, PacketType.CONFIG_READ])
@pytest.mark.parametrize("name", [name for name in CONFIG_BITS if name != "parity"])
def test_config_packets_as_control_reads_them(name, kind):
    """Each field of random configuration packets is what larpix-control finds."""
    fields = random_fields(CONFIG_BITS, packet_type=np.full(3_000, kind))
    packets = as_control(pack(CONFIG_BITS, **fields))
    assert [getattr(packet, name) for packet in packets] == fields[name].tolist()


def test_data_packets_as_control_makes_them():
    """Packing gives the very bytes of larpix-control, parity included."""
    fields = random_fields(DATA_BITS, n=500)
    for index, packet in enumerate(pack(DATA_BITS, **fields)):
        reference = Packet_v2()
        for name, column in fields.items():
            setattr(reference, name, int(column[index]))
        reference.assign_parity()
        assert packet.tobytes() == reference.bytes()


@pytest.mark.parametrize("name", [name for name in FIFO_DATA_BITS if name != "parity"])
def test_packets_in_fifo_diagnostics_mode_as_control_reads_them(name):
    """Each field of random packets of a chip in this mode is what larpix-control finds."""
    fields = random_fields(FIFO_DATA_BITS)
    packets = as_control(pack(FIFO_DATA_BITS, **fields))
    for packet in packets:
        packet.fifo_diagnostics_enabled = True
    assert [getattr(packet, name) for packet in packets] == fields[name].tolist()


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@given(data=st.data())
def test_packet_round_trip(layout, data):
    """What is packed is found at the bits of the table."""
    fields = data.draw(values(layout))
    found = unpacked(layout, int(pack(layout, **fields)))
    assert found == fields | {"parity": found["parity"]}


@pytest.mark.parametrize(
    ("layout", "unnamed"),
    [
        (DATA_BITS, set()),
        (FIFO_DATA_BITS, {46}),
        (V3_DATA_BITS, set()),
        (CONFIG_BITS, set(range(26, 62))),
        (V3_CONFIG_BITS, {58, 59, 60, 61}),
    ],
    ids=LAYOUTS,
)
def test_fields_of_a_packet_fill_it(layout, unnamed):
    """No bit is named twice, and of data packets no bit is unnamed but one."""
    bits = [bit for low, n in layout.values() for bit in range(low, low + n)]
    assert sorted(bits) == sorted(set(range(64)) - unnamed)


@pytest.mark.parametrize(("name", "places"), decoding.BITS["v3"].items())
def test_fields_of_v3_are_where_their_table_says(name, places):
    """The newer chip's fields are at other bits than those of v2."""
    low, high = places
    layout = V3_DATA_BITS | V3_CONFIG_BITS
    assert layout[name] == (low, high - low + 1)


def test_packed_packets_have_valid_parity():
    """Packets are packed with the parity that chips send."""
    assert parity_ok(pack(DATA_BITS, **random_fields(DATA_BITS))).all()


def test_parity_ok_as_control_tells():
    """Validity of random bits is what larpix-control says."""
    packets = np.random.default_rng(0).integers(1 << 64, size=3_000, dtype=np.uint64)
    expected = [packet.has_valid_parity() for packet in as_control(packets)]
    assert parity_ok(packets).tolist() == expected


@given(st.integers(0, (1 << 64) - 1), st.integers(0, 63))
def test_any_flipped_bit_breaks_parity(bits, flipped):
    """Parity tells when one bit is wrong."""
    packet = with_parity(bits)
    assert parity_ok(packet)
    assert not parity_ok(packet ^ np.uint64(1 << flipped))


@given(st.integers(0, (1 << 64) - 1))
def test_with_parity_changes_only_its_bit(bits):
    """Setting the parity leaves the other 63 bits alone."""
    assert (int(with_parity(bits)) ^ bits) & ~(1 << 63) == 0


def test_packing_broadcasts():
    """Scalars and arrays can be mixed."""
    packets = pack(DATA_BITS, chip_id=[[11], [12]], channel_id=[0, 1, 2])
    assert packets.shape == (2, 3)


def test_packing_nothing():
    """No values give no packets."""
    assert pack(DATA_BITS, chip_id=[], timestamp=np.zeros(0, np.int64)).shape == (0,)


@pytest.mark.parametrize("value", [-1, 64, np.array([3, 64]), np.int64(-5)])
def test_value_that_does_not_fit(value):
    """A value that would spill into the neighbour is refused, by name."""
    with pytest.raises(ValueError, match="channel_id must be from 0 to 63, got"):
        pack(DATA_BITS, chip_id=11, channel_id=value)


def test_fraction_of_a_count():
    """A value that is not a whole number is refused, by name."""
    with pytest.raises(TypeError, match="dataword must be whole numbers, got float64"):
        pack(DATA_BITS, dataword=1.5)


def test_list_of_small_and_large_numbers():
    """A packet is any number of 64 bits, also in a list, of which numpy makes floats."""
    packets = [0x2C, (1 << 64) - 1, 1 << 63, 3]
    assert words(Word.DATA, packet=packets)["packet"].tolist() == packets


@pytest.mark.parametrize(
    ("values", "error", "match"),
    [
        (1 << 64, ValueError, "packet must be from 0 to 18446744073709551615, got 1844674"),
        ([-1, 1 << 63], ValueError, "packet must be from 0 to 18446744073709551615, got -1"),
        ([0.5, 1 << 63], TypeError, "packet must be whole numbers, got float64"),
        ("1", TypeError, "packet must be whole numbers, got <U1"),
        (None, TypeError, "packet must be whole numbers, got object"),
    ],
)
def test_what_is_no_packet(values, error, match):
    """What is not from 0 to 2**64 - 1 is refused, and the error says so."""
    with pytest.raises(error, match=match):
        words(Word.DATA, packet=values)


@pytest.mark.parametrize("name", ["parity", "register_data", "adc"])
def test_unknown_packet_field(name):
    """A field that the layout has not, or that is computed, is refused by name."""
    with pytest.raises(TypeError, match=name):
        pack(DATA_BITS, **{name: 1})


def test_every_word_has_16_bytes():
    """All kinds of words are views of the same 16 bytes, with the type in the first."""
    for kind in Word:
        assert kind.dtype.itemsize == WORD.itemsize == 16
        assert kind.dtype.fields["type"] == (np.dtype("u1"), 0)


def test_letters_as_in_control():
    """Words, messages and types begin with the letters that larpix-control knows."""
    for name, message in [("DATA", "DATA"), ("REQUEST", "REQ"), ("REPLY", "REP")]:
        assert bytes([MessageType[name]]) == control.msg_type_table[message]
        for kind, letter in control.word_type_table[message].items():
            assert bytes([Word[kind].letter]) == letter


def test_data_words():
    """DATA words, whose clock is unaligned at byte 2, are what larpix-control reads."""
    rng = np.random.default_rng(0)
    io_channels, clocks = rng.integers(256, size=999), rng.integers(1 << 32, size=999)
    packets = pack(DATA_BITS, **random_fields(DATA_BITS, n=999))
    made = words(Word.DATA, io_channel=io_channels, receipt_timestamp=clocks, packet=packets)
    columns = io_channels.tolist(), clocks.tolist(), [packet.tobytes() for packet in packets]
    assert parsed(made) == [("DATA", *row) for row in zip(*columns, strict=True)]


def test_trigger_words():
    """TRIG words, whose clock is at byte 4, are what larpix-control reads."""
    made = words(Word.TRIG, trigger_type=[2, 255], timestamp=[0, 0xFFFFFFFF])
    assert parsed(made) == [("TRIG", b"\x02", 0), ("TRIG", b"\xff", 0xFFFFFFFF)]


@pytest.mark.parametrize("kind", SyncType)
def test_sync_words(kind):
    """SYNC words of each type are what larpix-control reads."""
    made = words(Word.SYNC, sync_type=kind, clk_source=1, timestamp=[9_999_999, 0xFFFFFFFF])
    letter = bytes([kind])
    assert parsed(made) == [("SYNC", letter, 1, 9_999_999), ("SYNC", letter, 1, 0xFFFFFFFF)]


@pytest.mark.parametrize(
    ("kind", "fields", "expected"),
    [
        (Word.PING, {}, ()),
        (Word.WRITE, {"address": 0x24, "value": 0xDEADBEEF}, (0x24, 0xDEADBEEF)),
        (Word.READ, {"address": 0x1010, "value": 7}, (0x1010, 7)),
        (Word.TX, {"io_channel": 32, "packet": 1 << 63}, (32, b"\0\0\0\0\0\0\0\x80")),
    ],
)
def test_request_words(kind, fields, expected):
    """Words of requests are what larpix-control reads."""
    made = words(kind, **fields)
    assert parsed(made, MessageType.REQUEST) == [(kind.name, *expected)]


@pytest.mark.parametrize(
    ("kind", "fields", "expected"),
    [
        (Word.PONG, {}, ("PONG",)),
        (Word.ERR, {"code": 3, "description": b"bad word"}, ("ERR", 3, b"bad word" + bytes(6))),
        (Word.READ, {"address": 1, "value": 2}, ("READ", 1, 2)),
    ],
)
def test_reply_words(kind, fields, expected):
    """Words of replies are what larpix-control reads."""
    assert parsed(words(kind, **fields), MessageType.REPLY) == [expected]


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("DATA", {"io_channel": 7, "receipt_timestamp": 1 << 31, "packet": 0x0102030405060708}),
        ("TRIG", {"trigger_type": 2, "timestamp": 123_456_789}),
        ("SYNC", {"sync_type": SyncType.SYNC, "clk_source": 1, "timestamp": 10_000_000}),
    ],
)
def test_words_as_control_makes_them(name, fields):
    """Words are byte for byte those of larpix-control, unnamed bytes included."""
    given_ = dict(fields)
    for text in ("trigger_type", "sync_type"):
        if text in given_:
            given_[text] = bytes([given_[text]])
    if "packet" in given_:
        given_["packet"] = given_["packet"].to_bytes(8, "little")
    reference = control.format_word("DATA", name, *given_.values())
    assert words(Word[name], **fields).tobytes() == reference


@given(st.integers(0, 255), st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1))
def test_data_word_round_trip(io_channel, clock, packet):
    """What goes into a word comes out of its 16 bytes."""
    made = words(Word.DATA, io_channel=io_channel, receipt_timestamp=clock, packet=packet)
    again = np.frombuffer(made.tobytes(), Word.DATA.dtype)[0]
    assert again.item() == (ord("D"), io_channel, clock, packet)


@pytest.mark.parametrize("name", ["type", "packet", "time"])
def test_unknown_word_field(name):
    """A field that a word has not, or that is its kind, is refused by name."""
    with pytest.raises(TypeError, match=f"a TRIG word has no field '{name}' to set"):
        words(Word.TRIG, **{name: 1})


def test_clock_that_does_not_fit():
    """A clock of more than 32 bits is refused, not wrapped."""
    with pytest.raises(ValueError, match="receipt_timestamp must be from 0 to 4294967295"):
        words(Word.DATA, receipt_timestamp=[0, 1 << 32])


@given(
    counts=st.lists(st.integers(0, 20), max_size=20),
    kind=st.sampled_from(MessageType),
    second=st.integers(0, (1 << 32) - 1),
)
def test_messages_round_trip(counts, kind, second):
    """Headers and words come back out of the buffer, empty messages included."""
    made = words(Word.TX, packet=np.arange(sum(counts)))
    seconds = (second + np.arange(len(counts))) % (1 << 32)
    buffer, lengths = messages(made, counts, seconds, kind=kind)
    assert lengths.tolist() == [8 + 16 * count for count in counts]
    pieces = np.split(buffer, np.cumsum(lengths))
    assert len(pieces.pop()) == 0
    headers = [piece[:8].view(HEADER)[0].item() for piece in pieces]
    assert headers == list(zip([kind] * len(counts), seconds, counts, strict=True))
    assert b"".join(piece[8:].tobytes() for piece in pieces) == made.tobytes()


def test_header_as_control_reads_it():
    """Type, second and count of words are what larpix-control finds in a header."""
    made = words(Word.TRIG, timestamp=np.arange(5))
    found = control_messages(*messages(made, [2, 3], [SECONDS, SECONDS + 1]))
    assert [header for header, _ in found] == [("DATA", SECONDS, 2), ("DATA", SECONDS + 1, 3)]


def test_words_of_all_kinds_in_one_message():
    """Words of several kinds go into one message once they are viewed as WORD."""
    kinds = [Word.DATA, Word.TRIG, Word.SYNC]
    made = np.concatenate([words(kind).view(WORD) for kind in kinds])
    assert [word[0] for word in parsed(made)] == ["DATA", "TRIG", "SYNC"]


def test_longest_message():
    """A header can count 65,535 words, and one more is refused."""
    made = words(Word.TRIG, timestamp=np.arange(MAX_WORDS + 1))
    buffer, lengths = messages(made[:-1], [MAX_WORDS], SECONDS)
    assert len(buffer) == lengths[0] == 1_048_568
    with pytest.raises(ValueError, match="counts must be from 0 to 65535, got 65536"):
        messages(made, [MAX_WORDS + 1], SECONDS)


def test_words_that_are_not_contiguous():
    """A slice with a step is put together as well as a copy of it."""
    made = words(Word.DATA, packet=np.arange(10))[::2]
    found = [word[-1] for word in parsed(made)]
    assert found == [int(n).to_bytes(8, "little") for n in range(0, 10, 2)]


def test_counts_that_do_not_add_up():
    """Words without a message, or messages without their words, are refused."""
    with pytest.raises(ValueError, match="counts add up to 3, but there are 4 words"):
        messages(words(Word.DATA, packet=np.arange(4)), [1, 2], SECONDS)


@pytest.mark.parametrize(
    ("made", "other", "match"),
    [
        (words(Word.TRIG, timestamp=[1, 2, 3]), pacman24, "24 bytes here, but these have 16"),
        (pacman24.words(pacman24.Word.TRIG, timestamp=[1, 2]), pacman, "16 .* have 24"),
        (np.arange(4, dtype="u8"), pacman, "16 bytes here, but these have 8"),
    ],
)
def test_words_of_another_wire(made, other, match):
    """They are refused, and not taken for more or fewer words of this one."""
    with pytest.raises(ValueError, match=match):
        other.messages(made, [len(made)], 0)
