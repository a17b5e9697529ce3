"""Batch and Message: messages as columns, and what can be done with them."""

from pathlib import Path

import awkward
import numpy as np
import pytest

from streamer import Batch, Message

DATA = [b"one", b"", b"\0\xff\0", b"four" * 50]


def made(datas=DATA, first=7, groups=(1, 0, 255, 3)) -> Batch:
    """Lay messages out as in a file: backwards, and with other bytes between."""
    buffer, starts = b"before", []
    for data in reversed(datas):
        starts.insert(0, len(buffer))
        buffer += data + b"between"
    return Batch(
        rows=np.arange(first, first + len(datas)),
        io_groups=np.array(groups[: len(datas)], "u1"),
        buffer=np.frombuffer(buffer, "u1"),
        starts=np.array(starts, "i8"),
        lengths=np.array([len(data) for data in datas], "i8"),
        source=SOURCE,
    )


SOURCE = Path("raw.h5")
EXPECTED = [
    Message(7, 1, DATA[0], SOURCE),
    Message(8, 0, DATA[1], SOURCE),
    Message(9, 255, DATA[2], SOURCE),
    Message(10, 3, DATA[3], SOURCE),
]


def test_message_is_a_tuple_with_names():
    """A message unpacks as row, io group, bytes and the file that it is from."""
    row, group, data, source = message = Message(5, 2, b"x")
    assert (row, group, data) == (message.row, message.io_group, message.data) == (5, 2, b"x")
    assert source is message.source is None


def test_len_is_the_number_of_messages():
    """The length counts messages, the empty one too."""
    assert len(made()) == 4


def test_iteration_gives_messages_in_order():
    """Iterating gives each message, with Python's own integers and bytes."""
    found = list(made())
    assert found == EXPECTED
    kinds = [tuple(map(type, message)) for message in found]
    assert kinds == [(int, int, bytes, type(SOURCE))] * 4
    assert all(type(message) is Message for message in found)


def test_iteration_can_be_repeated():
    """A batch is no iterator: it gives the same again."""
    batch = made()
    assert list(batch) == list(batch)


@pytest.mark.parametrize("index", range(-4, 4))
def test_index_gives_one_message(index):
    """An index, from either end, gives the message that iteration gives there."""
    message = made()[index]
    assert message == EXPECTED[index]
    assert tuple(map(type, message)) == (int, int, bytes, type(SOURCE))


def test_index_may_be_of_numpy():
    """Numbers that numpy made serve as an index."""
    assert made()[np.int64(2)] == EXPECTED[2]


@pytest.mark.parametrize("index", [4, 5, -5, 1 << 40])
def test_index_out_of_range_is_an_indexerror(index):
    """Beyond either end there is no message."""
    with pytest.raises(IndexError):
        made()[index]


@pytest.mark.parametrize("index", [slice(0, 1), slice(0, 2), 1.0, "1", None, [0]])
def test_index_that_is_no_integer_is_a_typeerror(index):
    """One message is asked for by one integer; a slice of one is not one message."""
    with pytest.raises(TypeError):
        made()[index]


def test_tolist_copies_the_bytes():
    """All messages come as bytes, in order."""
    found = made().tolist()
    assert found == DATA
    assert {type(data) for data in found} == {bytes}


def test_payload_bytes_counts_messages_only():
    """What lies between the messages does not count."""
    assert made().payload_bytes == sum(map(len, DATA))
    assert type(made().payload_bytes) is int


def test_repr_says_how_many_and_which():
    """The text for people names number, rows and bytes."""
    assert repr(made()) == "<Batch of 4: rows 7 to 10, 206 bytes>"


def test_select_by_mask():
    """A mask keeps the messages for which it is true, their rows and io groups too."""
    some = made().select(np.array([True, False, False, True]))
    assert list(some) == [EXPECTED[0], EXPECTED[3]]


def test_select_by_io_group():
    """A comparison of a column is a mask."""
    batch = made()
    assert list(batch.select(batch.io_groups > 2)) == EXPECTED[2:]


def test_select_by_indices():
    """Indices give the messages in their order."""
    assert list(made().select(np.array([3, 0]))) == [EXPECTED[3], EXPECTED[0]]


def test_select_copies_no_message():
    """What is selected lies in the same buffer."""
    batch = made()
    assert batch.select(np.array([True, False, True, True])).buffer is batch.buffer


def test_select_nothing():
    """Nothing selected is an empty batch."""
    assert list(made().select(np.zeros(4, bool))) == []


@pytest.mark.parametrize(
    "mask",
    [
        np.ones(3, bool),
        np.ones(5, bool),
        np.zeros(0, bool),
        np.ones((4, 1), bool),
        np.ones((1, 4), bool),
        np.bool_(True),
        False,
        np.array([4]),
        np.array([-5]),
        np.array([[0, 1]]),
        1,
    ],
    ids=repr,
)
def test_wrong_mask_is_an_indexerror(mask):
    """A mask has one value a message, and an index one of a message; one bool is none."""
    with pytest.raises(IndexError):
        made().select(mask)


def test_empty_batch():
    """A batch of nothing does all that others do."""
    batch = made([])
    assert len(batch) == batch.payload_bytes == 0
    assert list(batch) == batch.tolist() == []
    assert repr(batch) == "<Batch of 0: no rows, 0 bytes>"
    assert len(batch.select(np.zeros(0, bool))) == 0
    assert len(batch.to_awkward()) == 0
    with pytest.raises(IndexError):
        batch[0]


def test_batch_cannot_be_changed():
    """The columns belong together and stay so."""
    with pytest.raises(AttributeError):
        made().rows = np.arange(4)


def test_to_awkward_gives_the_messages():
    """As an awkward array the messages are lists of u1."""
    array = made().to_awkward()
    assert str(array.type) == "4 * var * uint8"
    assert [bytes(data) for data in array.to_list()] == DATA


def test_to_awkward_copies_nothing():
    """The awkward array's content and starts are the batch's own memory."""
    batch = made()
    layout = batch.to_awkward().layout
    assert isinstance(layout, awkward.contents.ListArray)
    assert np.shares_memory(layout.content.data, batch.buffer)
    assert layout.content.data.size == batch.buffer.size
    assert np.shares_memory(layout.starts.data, batch.starts)


def test_to_awkward_of_selected_messages():
    """Selected messages become those lists, still without a copy."""
    batch = made().select(np.array([3, 1]))
    array = batch.to_awkward()
    assert [bytes(data) for data in array.to_list()] == [DATA[3], DATA[1]]
    assert np.shares_memory(array.layout.content.data, batch.buffer)
