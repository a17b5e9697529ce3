"""Decoding beside larpix-control, which runs in a process of its own.

It is asked with ``python -m tests.test_packets_larpix QUESTION ANSWER``: it sets a variable of
the environment when it is imported.
"""

import pickle
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from streamer import decode
from writer import pacman
from writer.larpix import DATA_BITS, pack

from .decoding import FIELDS, batch_of, hits, legacy, random_message

ROOT = Path(__file__).parents[1]


def answer(question: Path, into: Path) -> None:
    """Let larpix-control parse messages; write what it finds, as its file has it."""
    from larpix import Packet_v2
    from larpix.format import hdf5format, pacman_msg_format

    messages, io_groups, is_fifo = pickle.loads(question.read_bytes())
    Packet_v2.fifo_diagnostics_enabled = is_fifo
    packets, outcomes = [], []
    for data, io_group in zip(messages, io_groups, strict=True):
        try:
            found = pacman_msg_format.parse(data, io_group=io_group)
        except Exception as error:  # noqa: BLE001 - which one is what is asked
            outcomes.append(type(error).__name__)
        else:
            outcomes.append(len(found))
            packets += found
    into.with_suffix(".pickle").write_bytes(pickle.dumps(outcomes))
    try:
        hdf5format.to_file(into, packets, workers=1)
    except ValueError:  # it has found bytes where a number should be
        into.write_bytes(b"")


class Stock:
    """What larpix-control makes of messages."""

    def __init__(self, folder: Path, messages, io_groups, *, is_fifo: bool = False) -> None:
        question, into = folder / "question.pickle", folder / "answer.h5"
        question.write_bytes(pickle.dumps((messages, list(map(int, io_groups)), is_fifo)))
        command = [sys.executable, "-m", "tests.test_packets_larpix", question, into]
        subprocess.run(command, cwd=ROOT, check=True)
        #: Of each message, the number of packets or the name of an error.
        self.outcomes = pickle.loads(into.with_suffix(".pickle").read_bytes())
        self.records = None
        if into.stat().st_size:
            with h5py.File(into, locking=False) as file:
                self.records = file["packets"][:]


@pytest.fixture
def parse(tmp_path):
    return lambda messages, io_groups=None, **options: Stock(
        tmp_path, messages, [1] * len(messages) if io_groups is None else io_groups, **options
    )


def compare(parse, count, letters, *, is_fifo=False):
    """Decode random words, all fields of them, as larpix-control does."""
    rng = np.random.default_rng(len(letters) + count)
    sizes = [0, 1]
    while sum(sizes) < count:
        sizes.append(int(rng.integers(0, 40)))
    messages = [random_message(rng, size, letters) for size in sizes]
    io_groups = rng.integers(256, size=len(messages))
    stock = parse(messages, io_groups, is_fifo=is_fifo)
    assert stock.outcomes == [1 + size for size in sizes]
    batch = batch_of(messages, io_groups, gaps=rng.integers(0, 40, len(messages)))
    packets = decode(batch, wire="legacy", asic="v2-fifo" if is_fifo else "v2")
    assert not packets.faults
    records = packets.to_records()
    assert records.dtype == stock.records.dtype
    for name in FIELDS:
        np.testing.assert_array_equal(records[name], stock.records[name], name)
        np.testing.assert_array_equal(getattr(packets, name), stock.records[name], name)
    assert records.tobytes() == stock.records.tobytes()


KINDS = pytest.mark.parametrize("letters", [b"D", b"T", b"S", b"DTS"])


@KINDS
def test_random_words_as_it_parses_them(parse, letters):
    """Each field of random words of each kind, packets of all types, is what it writes."""
    compare(parse, 50_000, letters)


def test_random_words_in_fifo_diagnostics_mode_as_it_parses_them(parse):
    """The same where chips count what their FIFOs hold."""
    compare(parse, 50_000, b"D", is_fifo=True)


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize("is_fifo", [False, True])
@KINDS
def test_a_million_random_words_as_it_parses_them(parse, letters, is_fifo):
    """The same with a million words in either mode, in four parts each.

    `test_convert` compares whole files, of a million words too.
    """
    compare(parse, 250_000, letters, is_fifo=is_fifo)


# ------------------------------------------------------------------- where it is wrong


def with_count(count: int) -> bytes:
    """Make a message of three words whose header counts another number of them."""
    data = bytearray(legacy(hits(3)))
    data[6:8] = count.to_bytes(2, "little")
    return bytes(data)


def request() -> bytes:
    """Make a message to a card, with a packet to a chip."""
    stream = pacman.words(pacman.Word.TX, io_channel=1, packet=pack(DATA_BITS, chip_id=11))
    buffer, _ = pacman.messages(stream, [1], 0, kind=pacman.MessageType.REQUEST)
    return buffer.tobytes()


WRONG = {
    "unknown word": legacy(hits(1), pacman.words(pacman.Word.ERR, code=3), hits(1, seed=1)),
    "truncated": legacy(hits(3))[:-5],
    "counts two": with_count(2),
    "counts four": with_count(4),
    "empty": b"",
    "request": request(),
}


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    return Stock(tmp_path_factory.mktemp("wrong"), list(WRONG.values()), [1] * len(WRONG))


def outcomes(stock: Stock, name: str):
    """Return what larpix-control says of a message, and what is made of it here."""
    found = stock.outcomes[list(WRONG).index(name)]
    packets = decode(batch_of([WRONG[name]]), wire="legacy")
    return found, len(packets), {kind: rows.tolist() for kind, rows in packets.faults.items()}


def test_it_loses_a_message_to_one_unknown_word(stock):
    """It raises KeyError for the whole message; here only that word is lost, and counted."""
    assert outcomes(stock, "unknown word") == ("KeyError", 3, {"unknown word": [100]})


def test_it_fails_on_a_truncated_message(stock):
    """It raises an error of struct, which ends a whole batch; here the message is counted."""
    assert outcomes(stock, "truncated") == ("error", 0, {"truncated": [100]})


def test_it_ignores_the_number_of_words_in_the_header(stock):
    """It takes what is there for complete; here a message that contradicts itself is a fault."""
    assert outcomes(stock, "counts two") == (4, 0, {"overlong": [100]})
    assert outcomes(stock, "counts four") == (4, 0, {"truncated": [100]})


def test_it_fails_on_an_empty_message(stock):
    """It raises an error of struct; here it is counted."""
    assert outcomes(stock, "empty") == ("error", 0, {"empty": [100]})


def test_it_takes_the_packet_of_a_request_for_a_timestamp(stock):
    """It gives a packet that came at `bytes`, and cannot write it; here it is no data."""
    assert outcomes(stock, "request") == (2, 0, {"not data": [100]})
    assert stock.records is None


if __name__ == "__main__":
    answer(Path(sys.argv[1]), Path(sys.argv[2]))
