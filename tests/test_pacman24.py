"""The bytes of messages of the newer wire, against the tables of their format."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from writer.larpix import V3_DATA_BITS, pack
from writer.pacman24 import WORD, MessageType, Revision, SyncType, Word, messages, words

from .decoding import REVISIONS, U1, U2, U8

TIME = 1_700_000_000_123_456_789


def test_every_word_has_24_bytes():
    """All kinds of words are views of the same 24 bytes, with the type in the first."""
    for kind in Word:
        assert kind.dtype.itemsize == WORD.itemsize == 24
        assert kind.dtype.fields["type"] == (np.dtype("u1"), 0)
    for revision in Revision:
        assert revision.header.itemsize == 24


@pytest.mark.parametrize(
    ("kind", "fields", "layout"),
    [
        (Word.DATA, {"pacman": 3, "io_channel": 40, "receipt_timestamp": 1 << 63}, "cBH4xQ8x"),
        (Word.DATA, {"packet": 0x0102030405060708}, "c15xQ"),
        (Word.CONFIG, {"pacman": 3, "io_channel": 300, "packet": 1 << 63}, "cBH12xQ"),
        (Word.TRIG, {"trigger_type": 2, "trigger_source": 5, "timestamp": 1 << 40}, "cxBB4xQ8x"),
        (
            Word.SYNC,
            {"pacman": 9, "sync_type": 83, "clk_source": 1, "timestamp": 7, "status": 1 << 31},
            "cBBB4xQI4x",
        ),
        (Word.PING, {"pacman": 255}, "cB22x"),
        (Word.WRITE, {"pacman": 1, "address": 0x24, "value": 0xDEADBEEF}, "cB6xII8x"),
        (Word.READ, {"pacman": 1, "address": 0x1010, "value": 7}, "cB6xII8x"),
        (Word.ERR, {"pacman": 1, "timestamp": 5, "code": 3}, "cB6xQI4x"),
    ],
)
def test_words_are_as_their_table_says(kind, fields, layout):
    """Each field is at its place, and bytes without a name are zero."""
    expected = struct.pack("<" + layout, bytes([kind.letter]), *fields.values())
    assert words(kind, **fields).tobytes() == expected


def test_letters_are_those_of_the_firmware():
    """Each kind begins with its letter."""
    assert {kind.name: chr(kind.letter) for kind in Word} == {
        "DATA": "D",
        "CONFIG": "C",
        "TRIG": "T",
        "SYNC": "S",
        "PING": "P",
        "WRITE": "W",
        "READ": "R",
        "ERR": "E",
    }
    assert [chr(kind) for kind in MessageType] == ["D", "?", "!", "S"]


@pytest.mark.parametrize(
    ("revision", "layout", "fields"),
    [
        (Revision.FIRST, "cBBxIQ8x", (1, 0, 2)),
        (Revision.SECOND, "cBBBIQ8x", (7, 1, 0, 2)),
        (Revision.LAST, "cBBBIQ8x", (7, 1, 0, 48)),
    ],
)
def test_headers_are_as_their_table_says(revision, layout, fields):
    """The three forms differ in the card's id, and in what they count."""
    options = {} if revision is Revision.FIRST else {"pacman": 7}
    buffer, lengths = messages(
        words(Word.PING, pacman=[1, 2]), [2], TIME, revision=revision, **options
    )
    assert lengths.tolist() == [72]
    assert buffer[:24].tobytes() == struct.pack("<" + layout, b"D", *fields, TIME)


def test_time_is_left_out_as_data_servers_do():
    """Nobody has to know it."""
    buffer, _ = messages(words(Word.PING), [1])
    assert not buffer[8:24].any()


@given(
    counts=st.lists(st.integers(0, 20), max_size=20),
    kind=st.sampled_from(MessageType),
    revision=st.sampled_from(REVISIONS),
    time=U8,
)
def test_messages_round_trip(counts, kind, revision, time):
    """Headers and words come back out of the buffer, messages without words included."""
    made = words(Word.DATA, packet=np.arange(sum(counts)))
    buffer, lengths = messages(made, counts, time, kind=kind, revision=revision)
    assert lengths.tolist() == [24 + 24 * count for count in counts]
    pieces = np.split(buffer, np.cumsum(lengths))
    assert len(pieces.pop()) == 0
    for count, piece in zip(counts, pieces, strict=True):
        header = piece[:24].view(revision.header)[0]
        assert (header["type"], header["major"], header["timestamp"]) == (kind, 1, time)
        told = header["bytes"] if revision is Revision.LAST else 24 * header["words"]
        assert told == 24 * count
    assert b"".join(piece[24:].tobytes() for piece in pieces) == made.tobytes()


@given(U1, U2, U8, U8)
def test_data_word_round_trip(pacman, io_channel, ticks, packet):
    """What goes into a word comes out of its 24 bytes."""
    made = words(
        Word.DATA, pacman=pacman, io_channel=io_channel, receipt_timestamp=ticks, packet=packet
    )
    again = np.frombuffer(made.tobytes(), Word.DATA.dtype)[0]
    assert again.item() == (ord("D"), pacman, io_channel, ticks, packet)


def test_words_of_all_kinds_in_one_message():
    """Words of several kinds go into one message once they are viewed as WORD."""
    hit = pack(V3_DATA_BITS, packet_type=1, dataword=1023)
    made = [words(Word.DATA, packet=hit), words(Word.SYNC, sync_type=SyncType.SYNC)]
    buffer, lengths = messages(np.concatenate([one.view(WORD) for one in made]), [2])
    assert buffer[24:].tobytes() == b"".join(one.tobytes() for one in made)
    assert lengths.tolist() == [72]


def test_words_that_are_not_contiguous():
    """A slice with a step is put together as well as a copy of it."""
    made = words(Word.DATA, packet=np.arange(10))[::2]
    buffer, _ = messages(made, [5])
    assert buffer[24:].view(Word.DATA.dtype)["packet"].tolist() == [0, 2, 4, 6, 8]


def test_counts_that_do_not_add_up():
    """Words without a message, or messages without their words, are refused."""
    with pytest.raises(ValueError, match="counts add up to 3, but there are 4 words"):
        messages(words(Word.DATA, packet=np.arange(4)), [1, 2])


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"io_channel": 1 << 16}, "io_channel must be from 0 to 65535"),
        ({"receipt_timestamp": -1}, "receipt_timestamp must be from 0 to 18446744073709551615"),
        ({"pacman": 256}, "pacman must be from 0 to 255"),
    ],
)
def test_value_that_does_not_fit(fields, match):
    """A value that would be cut is refused, by name."""
    with pytest.raises(ValueError, match=match):
        words(Word.DATA, **fields)


def test_unknown_word_field():
    """A field that a word has not is refused by name."""
    with pytest.raises(TypeError, match="a TRIG word has no field 'status' to set"):
        words(Word.TRIG, status=1)


def test_first_header_has_no_place_for_a_card():
    """The id is refused, not left out."""
    with pytest.raises(TypeError, match="a header of revision FIRST has no field 'pacman'"):
        messages(words(Word.PING), [1], pacman=3, revision=Revision.FIRST)


def test_count_that_no_header_can_hold():
    """It is refused: a header counts bytes in 32 bits."""
    with pytest.raises(ValueError, match="counts must be from 0 to 178956970, got 178956971"):
        messages(words(Word.PING), [178_956_971])
