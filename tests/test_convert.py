"""Raw files become the packets files of larpix-control, whatever happens on the way."""

import io
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamer.convert.converting
import streamer.convert.packetfile
import streamer.convert.parquet
from streamer import LayoutError, NotReady
from streamer.convert import CannotConvert, Stopped, convert
from streamer.convert.footers import moved
from streamer.convert.partial import Partial
from streamer.convert.report import Conversion
from streamer.convert.statefile import read_state, write_state
from writer import RawWriter, pacman24
from writer.pacman import Word, messages, words
from writer.recording import record

ROOT = Path(__file__).parents[1]
SECONDS = 30.0
CHUNK = streamer.convert.packetfile._CHUNK_ROWS


# ----------------------------------------------------------------------- around files


def until(true, what=str) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline, what()
        time.sleep(0.005)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def packets_of(path: Path) -> np.ndarray:
    with h5py.File(path) as file:
        return file["packets"][:]


def random_messages(count: int, seed: int = 1) -> tuple[list[bytes], list[int]]:
    """Make messages of words of every kind, with any bits."""
    rng = np.random.default_rng(seed)

    def drawn(dtype: str, size: int) -> np.ndarray:
        return rng.integers(0, np.iinfo(dtype).max, size, dtype, endpoint=True)

    made = []
    for _ in range(count):
        parts = [
            words(
                Word.DATA,
                io_channel=drawn("u1", size),
                receipt_timestamp=drawn("u4", size),
                packet=drawn("u8", size),
            )
            for size in rng.integers(0, 12, 1)
        ]
        size = int(rng.integers(0, 3))
        parts.append(
            words(
                Word.SYNC,
                sync_type=rng.choice([*b"SHC"], size),
                clk_source=drawn("u1", size),
                timestamp=drawn("u4", size),
            )
        )
        parts.append(words(Word.TRIG, trigger_type=drawn("u1", size), timestamp=drawn("u4", size)))
        stream = np.concatenate([part.view("V16") for part in parts])
        buffer, _ = messages(rng.permutation(stream), [len(stream)], int(drawn("u4", 1)[0]))
        made.append(buffer.tobytes())
    return made, rng.integers(0, 256, count).tolist()


def written(path: Path, msgs: list[bytes], io_groups, **options) -> Path:
    with RawWriter(path, **{"io_version": "0.0", **options}) as out:
        out.append(msgs, io_groups)
    return path


def hits(count: int, first: int = 0) -> bytes:
    """Make a message with so many hits, which count on."""
    stream = words(Word.DATA, io_channel=1, packet=np.arange(first, first + count))
    return messages(stream, [count], 1_700_000_000)[0].tobytes()


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished file of a simulated detector, about 700,000 packets."""
    path = tmp_path_factory.mktemp("raw") / "raw.h5"
    record(path, load="2x2", seconds=1, fast=True)
    return path


@pytest.fixture(scope="module")
def converted(raw: Path) -> np.ndarray:
    """Its packets, converted without interruption."""
    out = raw.with_name("packets.h5")
    convert(raw, out)
    return packets_of(out)


# A second process that converts slowly enough to be hit, and says how far it is.
CONVERTS = """
import json, sys, time
import streamer.convert.converting
import streamer.steps
from streamer.convert import convert
raw, out, options = sys.argv[1:4]
streamer.convert.converting._STORE_SECONDS = 0.02
streamer.steps._STEP_ROWS = 1500
def told(done, total):
    print(done, flush=True)
    time.sleep(0.005)
done = convert(raw, out, told=told, **json.loads(options))
print(json.dumps(done.as_dict()), flush=True)
"""


@contextmanager
def converting(raw: Path, out: Path, **options) -> Iterator[subprocess.Popen]:
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", CONVERTS, raw, out, json.dumps(options)],
        cwd=ROOT,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


# --------------------------------------------------------------- beside larpix-control

STOCK = """
import sys
from larpix.format.hdf5format import from_file, to_file
from larpix.format.pacman_msg_format import parse
from larpix.format.rawhdf5format import from_rawfile
raw, theirs, ours, appended = sys.argv[1:5]
found = from_rawfile(raw)
packets, first = [], []
for io_group, message in zip(found["msg_headers"]["io_groups"], found["msgs"]):
    packets += parse(message, io_group=io_group)
    if len(packets) > 100_000:  # of a million, objects take too much memory
        to_file(theirs, packets, workers=1)
        packets, first = [], first or packets[:100]
to_file(theirs, packets, workers=1)
pairs = zip(from_file(theirs, end=3000)["packets"], from_file(ours, end=3000)["packets"])
assert all(str(one) == str(other) and one.export() == other.export() for one, other in pairs)
whole = from_file(ours, end=0, load_configs=False)
assert whole["version"] == "2.4" and whole["created"] <= whole["modified"]
to_file(appended, first or packets[:100], workers=1)
"""


def laid_out(path: Path) -> dict:
    """Return what a packets file says of itself, but for times and how it is stored."""
    with h5py.File(path) as file:
        found = {name: dict(file[name].attrs) for name in file}
        times = [found["_header"].pop(name) for name in ("created", "modified")]
        assert all(isinstance(time, np.float64) for time in times)
        for name, dataset in file.items():
            if isinstance(dataset, h5py.Dataset):
                found[name, "type"] = dataset.dtype, dataset.shape, dataset.maxshape
                found[name, "fill"] = dataset.fillvalue.tobytes()
            kinds = {key: dataset.attrs.get_id(key).get_type() for key in dataset.attrs}
            found[name, "kinds"] = {key: kind.encode() for key, kind in kinds.items()}
        return found


@pytest.mark.parametrize(
    "words",
    [20_000, pytest.param(1_000_000, marks=[pytest.mark.nightly, pytest.mark.timeout(1800)])],
)
def test_same_file_as_larpix_control_makes(words: int, tmp_path: Path):
    """Every dataset, type, attribute and value, of words of every kind with any bits."""
    path = written(tmp_path / "raw.h5", *random_messages(words // 7))
    ours, theirs, appended = (tmp_path / name for name in ("ours.h5", "theirs.h5", "more.h5"))
    done = convert(path, ours)
    convert(path, appended)
    command = [sys.executable, "-c", STOCK, path, theirs, ours, appended]
    subprocess.run(command, check=True)
    assert laid_out(ours) == laid_out(theirs)
    mine, stock = packets_of(ours), packets_of(theirs)
    assert len(stock) > max(CHUNK, words)
    for field in stock.dtype.names:
        np.testing.assert_array_equal(mine[field], stock[field], err_msg=field)
    assert done.packets == len(stock)
    assert not done.faults
    # Their own function goes on with our file.
    more = packets_of(appended)
    assert (more[: len(mine)] == mine).all()
    assert (more[len(mine) :] == mine[:100]).all()


@pytest.mark.parametrize("count", [0, 1, CHUNK - 2, CHUNK - 1, CHUNK, 2 * CHUNK - 1])
@pytest.mark.parametrize("compressed", [False, True])
def test_any_number_of_packets(count: int, compressed: bool, tmp_path: Path):
    """None, one, and whole chunks, one more, or one less; each message has its own too."""
    path = written(tmp_path / "raw.h5", [hits(count)] if count else [], 1)
    done = convert(path, tmp_path / "out.h5", compressed=compressed)
    found = packets_of(tmp_path / "out.h5")
    assert done.packets == len(found) == (count + 1 if count else 0)
    assert found["packet_type"][1:].tolist() == (np.arange(count) & 3).tolist()
    assert found["chip_id"][1:].tolist() == (np.arange(count) >> 2 & 255).tolist()


def test_compressed_file_holds_the_same(raw: Path, converted: np.ndarray, tmp_path: Path):
    """HDF5 reads it as any other, and it is much smaller."""
    convert(raw, tmp_path / "out.h5", compressed=True)
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["packets"].compression == "gzip"
        assert file["packets"].shuffle
        assert (file["packets"][:] == converted).all()
    assert (tmp_path / "out.h5").stat().st_size < converted.nbytes / 3


def test_h5dump_style_reading_in_parts(raw: Path, converted: np.ndarray):
    """Parts across chunks, and single fields, as analyses read them."""
    with h5py.File(raw.with_name("packets.h5")) as file:
        some = slice(CHUNK - 5, 2 * CHUNK + 5)
        assert (file["packets"][some] == converted[some]).all()
        assert (file["packets"]["timestamp"] == converted["timestamp"]).all()


def newer_hit(ticks: int) -> bytes:
    """Make a message of the newer wire with one hit, received at this time."""
    stream = pacman24.words(pacman24.Word.DATA, io_channel=3, receipt_timestamp=ticks)
    return pacman24.messages(stream, [1])[0].tobytes()


def columns_of(path: Path) -> dict[str, np.ndarray]:
    """Return the columns of an output of either form."""
    if path.read_bytes()[:4] == b"PAR1":
        table = pq.read_table(path)
        return {name: table[name].to_numpy() for name in table.column_names}
    found = packets_of(path)
    return {name: found[name] for name in found.dtype.names}


# Cards of two generations write one file, of which nobody says the wire: (number of messages of
# the older wire, of the newer one, of the older one), each in batches of its own.
FEW, MANY = (3, 2, 1), (CHUNK + 2000, 2, 700)


def check_both_wires(out: Path, counts: tuple[int, int, int]) -> None:
    """Check that each packet of such a file is there once, and whole."""
    before, newer, after = counts
    found = columns_of(out)
    assert found["receipt_timestamp"].dtype == np.dtype("<u8")
    ticks = [0, 0] * before + [part for k in range(newer) for part in (0, (1 << 40) + k)]
    assert found["receipt_timestamp"].tolist() == ticks + [0, 0] * after
    assert found["packet_type"].tolist() == [4, 0] * sum(counts)


def messages_of_both_wires(counts: tuple[int, int, int]) -> list[list[bytes]]:
    before, newer, after = counts
    newest = [newer_hit((1 << 40) + k) for k in range(newer)]
    return [[hits(1)] * before, newest, [hits(1)] * after]


@pytest.mark.parametrize("counts", [FEW, MANY], ids=["one batch", "many batches"])
@pytest.mark.parametrize("options", [{}, {"compressed": True}, {"to": "parquet"}], ids=str)
def test_cards_of_both_wires_in_one_file(
    options: dict, counts: tuple[int, int, int], tmp_path: Path, monkeypatch, caplog
):
    """All fields are as wide as either wire needs, whenever the wider one comes first."""
    # So that both are met in an output of more than one group too.
    monkeypatch.setattr(streamer.convert.parquet, "_GROUP_ROWS", 5000)
    msgs = [*chain.from_iterable(messages_of_both_wires(counts))]
    path = written(tmp_path / "raw.h5", msgs, 1, io_version=None)
    done = convert(path, tmp_path / "out", **options)
    check_both_wires(tmp_path / "out", counts)
    assert (done.messages, done.packets, done.faults) == (len(msgs), 2 * len(msgs), {})
    assert done.resumed_at is None
    assert names(tmp_path) == ["out", "raw.h5"]
    assert ("messages of two wires" in caplog.text) == (counts == MANY)


@pytest.mark.parametrize("form", ["hdf5", "parquet"])
def test_card_of_the_wider_wire_joins_while_it_is_followed(form: str, tmp_path: Path, monkeypatch):
    """What was stored with narrower fields by then is converted once more, and once."""
    monkeypatch.setattr(streamer.convert.converting, "_STORE_SECONDS", 0.0)
    path, out, seen = tmp_path / "raw.h5", tmp_path / "out", []

    def write() -> None:
        with RawWriter(path) as writer:
            for number, msgs in enumerate(messages_of_both_wires(FEW), start=1):
                writer.append(msgs, 1)
                rows = sum(FEW[:number])
                until(lambda rows=rows: (rows, rows) in seen and stored_rows(out) == rows)

    thread = threading.Thread(target=write)
    thread.start()
    done = convert(path, out, follow=True, to=form, told=lambda *rows: seen.append(rows))
    thread.join()
    assert (done.outcome, done.messages) == ("finished", sum(FEW))
    check_both_wires(out, FEW)


@pytest.mark.parametrize("form", ["hdf5", "parquet"])
def test_wider_wire_is_met_again_after_an_interruption(form: str, tmp_path: Path):
    """Both before and after the fields were widened."""
    msgs = [*chain.from_iterable(messages_of_both_wires(MANY))]
    path, out = written(tmp_path / "raw.h5", msgs, 1, io_version=None), tmp_path / "out"
    for calls in (1, 2):
        stop, told = stop_after(calls)
        with pytest.raises(Stopped):
            convert(path, out, to=form, stop=stop, told=told)
    done = convert(path, out, to=form)
    assert done.resumed_at
    check_both_wires(out, MANY)


# ---------------------------------------------------------------------------- Parquet


@pytest.mark.parametrize("rows", [None, 20_000])
def test_parquet_has_the_same_columns(
    rows: int | None, raw: Path, converted: np.ndarray, tmp_path: Path, monkeypatch
):
    """All fields of a packet, and before them the message that it is from."""
    if rows is not None:
        monkeypatch.setattr(streamer.convert.parquet, "_GROUP_ROWS", rows)
    done = convert(raw, tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["row", *converted.dtype.names]
    for name in converted.dtype.names:
        column = table[name].to_numpy()
        assert column.dtype == converted.dtype[name]
        assert (column == converted[name]).all(), name
    row = table["row"].to_numpy()
    assert (row == np.cumsum(converted["packet_type"] == 4) - 1).all()
    assert (row[-1] + 1, len(row)) == (done.messages, done.packets)


def test_parquet_row_groups_are_of_bounded_size(raw: Path, tmp_path: Path):
    """None has more rows than can be read at once."""
    done = convert(raw, tmp_path / "out", to="parquet")
    found = pq.read_metadata(tmp_path / "out")
    sizes = [found.row_group(k).num_rows for k in range(found.num_row_groups)]
    assert sum(sizes) == found.num_rows == done.packets
    assert max(sizes) <= 262144
    assert found.metadata[b"larpix_packets_version"] == b"2.4"
    # Also one group alone, and one column, by its place.
    last = pq.ParquetFile(tmp_path / "out").read_row_group(len(sizes) - 1, columns=["row"])
    assert last["row"][-1].as_py() == done.messages - 1


def test_parquet_description_moves_along_with_all_that_it_names():
    """Dictionaries, indices of pages and nested columns too, which are not written here."""
    table = pa.table(
        {"text": ["a", "b", None] * 500, "list": [[1, 2], [], None] * 500, "x": [0.5] * 1500}
    )
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=400, write_page_index=True, use_dictionary=True)
    data, before = file.getvalue(), b"PAR1" + bytes(100_000)
    size = int.from_bytes(data[-8:-4], "little")
    footer = moved(data[-8 - size : -8], len(before))
    end = len(footer).to_bytes(4, "little") + b"PAR1"
    whole = before + data[: -8 - size] + footer + end
    found = pq.ParquetFile(pa.BufferReader(whole))
    assert found.read().equals(table)
    assert found.metadata.row_group(3).column(0).has_offset_index
    assert len(moved(footer, 0)) == len(footer)
    for wrong in (footer[:-1], footer + b"x", b"\x0e"):
        with pytest.raises((IndexError, ValueError)):
            moved(wrong, 1)


@pytest.mark.parametrize("name", ["out.parquet", "OUT.PARQUET", "out.pq"])
def test_parquet_of_nothing(name: str, tmp_path: Path):
    """A table with all columns, and no row, by any name that Parquet files have."""
    path = written(tmp_path / "raw.h5", [], 1)
    convert(path, tmp_path / name)
    table = pq.read_table(tmp_path / name)
    assert (table.num_rows, table.num_columns) == (0, 23)


def test_parquet_says_what_it_needs(raw: Path, tmp_path: Path):
    """Without pyarrow: how to install it; and nothing was begun."""
    script = """
import sys
sys.modules["pyarrow"] = None
from streamer.cli import main
sys.exit(main(["convert", *sys.argv[1:]]))
"""
    command = [sys.executable, "-c", script, raw, tmp_path / "out.parquet"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.endswith(": pip install pyarrow\n")
    assert "Traceback" not in done.stderr
    assert names(tmp_path) == []


# ------------------------------------------------------------------ what is not decoded


def test_faults_are_counted_and_cost_no_neighbour(tmp_path: Path):
    """By kind, with the first rows; all other messages are there."""
    good, unknown = hits(3), bytearray(hits(3))
    unknown[8 + 16] = ord("X")
    request = b"?" + good[1:]
    msgs = [good, good[:-1], b"", good + b"\0", bytes(unknown), request, good]
    done = convert(written(tmp_path / "raw.h5", msgs, 1), tmp_path / "out.h5")
    assert done.faults == {
        "truncated": (1, (1,)),
        "empty": (1, (2,)),
        "overlong": (1, (3,)),
        "unknown word": (1, (4,)),
        "not data": (1, (5,)),
    }
    assert (done.messages, done.packets) == (7, 4 + 3 + 4)
    assert "not decoded: truncated: 1, in rows 1" in "\n".join(done.lines())


def test_random_bytes_cost_nothing_else(tmp_path: Path):
    """Nor do messages of 65,535 words, or io_group 0."""
    rng = np.random.default_rng(3)
    noise = [rng.bytes(int(size)) for size in rng.integers(1, 300, 200)]
    msgs = [message for one in noise for message in (one, hits(2))] + [hits(65_535)]
    done = convert(written(tmp_path / "raw.h5", msgs, 0), tmp_path / "out.h5")
    found = packets_of(tmp_path / "out.h5")
    assert sum(fault.total for fault in done.faults.values()) == 200
    assert done.packets == len(found) == 200 * 3 + 65_536
    assert not found["io_group"].any()


def test_more_rows_are_hinted_at_only_where_there_are_more(tmp_path: Path):
    """A row may have many faults of a kind."""
    unknown = bytearray(hits(4))
    unknown[8::16] = b"XXXX"
    msgs = [bytes(unknown), *[b"noise"] * 6, hits(1)]
    done = convert(written(tmp_path / "raw.h5", msgs, 1), tmp_path / "out.h5")
    said = done.lines()
    assert "  not decoded: unknown word: 4, in rows 0" in said
    assert "  not decoded: not data: 6, in rows 1, 2, 3, 4, 5, ..." in said


def test_rows_that_are_announced_and_not_there_are_reported(tmp_path: Path):
    """No gap is silent: of a file that was cut off, what is missing is said."""
    path = tmp_path / "raw.h5"
    rows = record(path, load="tile", seconds=1, fast=True).rows
    os.truncate(path, path.stat().st_size // 2)
    done = convert(path, tmp_path / "out.h5")
    assert 0 < done.messages < rows
    (note,) = done.notes
    assert f"{rows - done.messages:,} rows at its end are announced and not there" in note


@pytest.mark.parametrize("form", ["hdf5", "parquet"])
def test_nothing_decoded_is_an_error(form: str, tmp_path: Path):
    """It says what is wrong, and leaves nothing."""
    path = written(tmp_path / "raw.h5", [b"first", b"?" + hits(1)[1:]], 1)
    with pytest.raises(CannotConvert, match=r"none of its 2 messages .*not data") as caught:
        convert(path, tmp_path / "out", to=form)
    assert "wire auto" in str(caught.value)
    assert names(tmp_path) == ["raw.h5"]


def test_wrong_wire_is_an_error(raw: Path, tmp_path: Path):
    """As nothing can be decoded so."""
    with pytest.raises(CannotConvert, match="Are wire new24 and asic v2 right"):
        convert(raw, tmp_path / "out.h5", wire="new24")


# ------------------------------------------------------------------------- interrupted


def stop_after(calls: int) -> tuple[threading.Event, object]:
    """Return an event, and a function that sets it when it is called so often."""
    stop, seen = threading.Event(), []

    def told(done: int, total: int) -> None:
        seen.append(done)
        if len(seen) == calls:
            stop.set()

    return stop, told


@pytest.mark.parametrize("options", [{}, {"compressed": True}, {"to": "parquet"}], ids=str)
def test_stopped_goes_on_where_it_was(
    options: dict, raw: Path, converted: np.ndarray, tmp_path: Path
):
    """With each packet once; and the report is of the whole."""
    out = tmp_path / "out"
    for number in range(2):
        stop, told = stop_after(1)
        with pytest.raises(Stopped, match="stopped before row"):
            convert(raw, out, stop=stop, told=told, **options)
        assert names(tmp_path) == ["out.partial", "out.partial.state"], number
    done = convert(raw, out, **options)
    assert names(tmp_path) == ["out"]
    assert 0 < done.resumed_at < done.messages
    assert done.packets == len(converted)
    if options.get("to") == "parquet":
        table = pq.read_table(out)
        found = {name: table[name].to_numpy() for name in converted.dtype.names}
        assert all((found[name] == converted[name]).all() for name in found)
    else:
        assert (packets_of(out) == converted).all()


def test_output_says_when_it_was_begun_and_completed(raw: Path, tmp_path: Path):
    """In `created` and `modified`, also if it was interrupted in between."""
    out, begin = tmp_path / "out.h5", time.time()
    stop, told = stop_after(1)
    with pytest.raises(Stopped):
        convert(raw, out, stop=stop, told=told)
    between = time.time()
    convert(raw, out)
    with h5py.File(out) as file:
        header = dict(file["_header"].attrs)
    assert begin < header["created"] < between < header["modified"] < time.time()


def stored_rows(out: Path) -> int:
    """Return how many rows a conversion would not lose if it were killed now."""
    with suppress(FileNotFoundError):
        state = read_state(out.with_name(out.name + ".partial.state"))
        if state is not None and state.facts is not None:
            return state.facts["position"]["row"]
    return 0


def killed_and_resumed(raw: Path, out: Path, kills: int, **options) -> tuple[Conversion, int]:
    """Kill a conversion at random moments; return its report, and how often it resumed."""
    rng = random.Random(kills)
    resumed = 0
    for _ in range(kills):
        with converting(raw, out, **options) as process:
            line = process.stdout.readline()
            # Not for anything: the moment is to be any.
            time.sleep(rng.random() * 0.2)
            process.kill()
            assert line, process.stderr.read()
            # What was complete but for its name has nothing to say but the report.
            resumed += line[0] == "{" or int(line) > 1500
        if out.exists():  # it was faster
            out.unlink()
    with converting(raw, out, **options) as process:
        said, complaint = process.communicate(timeout=60)
    assert process.returncode == 0, complaint
    return json.loads(said.splitlines()[-1]), resumed


@pytest.mark.parametrize(("options", "kills"), [({}, 3), ({"to": "parquet"}, 2)], ids=str)
def test_killed_goes_on_where_it_was(
    options: dict, kills: int, raw: Path, converted: np.ndarray, tmp_path: Path
):
    """Kill -9 at random moments loses no packet, and brings none twice."""
    done, resumed = killed_and_resumed(raw, tmp_path / "out", kills, **options)
    assert resumed
    assert done["packets"] == len(converted)
    check_packets(tmp_path / "out", converted)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("options", [{}, {"compressed": True}, {"to": "parquet"}], ids=str)
def test_killed_many_times(options: dict, raw: Path, converted: np.ndarray, tmp_path: Path):
    """The same, at many more moments."""
    for number in range(10):
        out = tmp_path / str(number) / "out"
        out.parent.mkdir()
        killed_and_resumed(raw, out, 6, **options)
        check_packets(out, converted)


def check_packets(path: Path, expected: np.ndarray) -> None:
    """Check that a file of either form holds these packets."""
    if path.read_bytes()[:4] == b"PAR1":
        table = pq.read_table(path)
        assert table.num_rows == len(expected)
        assert all(
            (table[name].to_numpy() == expected[name]).all() for name in expected.dtype.names
        )
    else:
        assert (packets_of(path) == expected).all()


LIMITED = """
import resource, sys
from streamer.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(main(["convert", *sys.argv[2:]]))
"""


@pytest.mark.parametrize(("form", "part"), [("hdf5", 0.3), ("hdf5", 0.99), ("parquet", 0.6)])
def test_full_disk_is_said_and_gone_on_with(
    form: str, part: float, raw: Path, converted: np.ndarray, tmp_path: Path
):
    """No output of that name, what to do, and nothing lost once there is room."""
    check_full_disk(form, part, raw, converted, tmp_path)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("form", ["hdf5", "parquet"])
def test_disk_full_at_many_places(form: str, raw: Path, converted: np.ndarray, tmp_path: Path):
    """From the first byte to the last."""
    for number, part in enumerate(np.linspace(0, 1, 30)[:-1]):
        folder = tmp_path / str(number)
        folder.mkdir()
        check_full_disk(form, float(part), raw, converted, folder)


def check_full_disk(
    form: str, part: float, raw: Path, converted: np.ndarray, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    convert(raw, whole, to=form)
    limit = int(part * whole.stat().st_size) + 100
    whole.unlink()
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LIMITED, str(limit), raw, out, "--to", form],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"streamer: {out}: cannot be written: File too large")
    assert not out.exists()
    assert not list(tmp_path.glob("*.new"))
    convert(raw, out, to=form)
    check_packets(out, converted)
    assert names(tmp_path) == ["out"]


def test_full_disk_keeps_what_was_stored(raw: Path, tmp_path: Path, monkeypatch):
    """The error says how much that is."""
    monkeypatch.setattr(streamer.convert.converting, "_STORE_SECONDS", 0.0)
    stop, told = stop_after(2)
    with pytest.raises(Stopped):
        convert(raw, tmp_path / "out", stop=stop, told=told)
    size = (tmp_path / "out.partial").stat().st_size
    command = [sys.executable, "-c", LIMITED, str(size + 1_000_000), raw, tmp_path / "out"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "rows are kept in out.partial; the same call goes on there" in done.stderr
    assert convert(raw, tmp_path / "out").resumed_at > 0


def test_resuming_checks_that_it_is_the_same_run(raw: Path, tmp_path: Path):
    """The rows of another file never follow; started over only if that was said."""
    other, out = tmp_path / "raw.h5", tmp_path / "out.h5"
    record(other, load="tile", seconds=1, fast=True)
    stop, told = stop_after(1)
    with pytest.raises(Stopped):
        convert(raw, out, stop=stop, told=told)
    with pytest.raises(CannotConvert, match=r"out\.h5\.partial: was begun with another file"):
        convert(other, out)
    done = convert(other, out, overwrite=True)
    assert done.resumed_at is None
    assert len(packets_of(out)) == done.packets


@pytest.mark.parametrize("ends", [False, True])
def test_resuming_waits_for_a_file_that_is_followed(
    ends: bool, raw: Path, converted: np.ndarray, tmp_path: Path, caplog
):
    """It may be away for a moment, as it may be for whoever begins; a stop ends the wait."""
    path, out = tmp_path / "raw.h5", tmp_path / "out.h5"
    shutil.copy(raw, path)
    stop, told = stop_after(1)
    with pytest.raises(Stopped):
        convert(path, out, stop=stop, told=told)
    path.rename(tmp_path / "away")
    stop = threading.Event()
    with ThreadPoolExecutor() as pool:
        done = pool.submit(convert, path, out, follow=True, stop=stop)
        until(lambda: f"{path}: absent; waiting for it" in caplog.text)
        if ends:
            stop.set()
            with pytest.raises(NotReady, match="absent"):
                done.result(30)
            assert names(tmp_path) == ["away", "out.h5.partial", "out.h5.partial.state"]
            return
        (tmp_path / "away").rename(path)
        assert done.result(60).resumed_at
    assert (packets_of(out) == converted).all()


@pytest.mark.parametrize(
    "options", [{"to": "parquet"}, {"compressed": True}, {"asic": "v2-fifo"}, {"wire": "legacy"}]
)
def test_resuming_checks_that_it_is_the_same_call(options: dict, raw: Path, tmp_path: Path):
    """What was begun in one way is not ended in another."""
    stop, told = stop_after(1)
    with pytest.raises(Stopped):
        convert(raw, tmp_path / "out.h5", stop=stop, told=told)
    with pytest.raises(CannotConvert, match="was begun with other options"):
        convert(raw, tmp_path / "out.h5", **options)
    assert convert(raw, tmp_path / "out.h5", overwrite=True, **options).resumed_at is None


def test_faults_before_an_interruption_are_reported_too(tmp_path: Path):
    """They are stored with the rows."""
    path = tmp_path / "raw.h5"
    with RawWriter(path, io_version="0.0") as out:
        for _ in range(40):
            out.append([b"noise", *[hits(1)] * 999], 1)
    stop, told = stop_after(1)
    with pytest.raises(Stopped):
        convert(path, tmp_path / "out.h5", stop=stop, told=told)
    done = convert(path, tmp_path / "out.h5")
    assert done.resumed_at
    assert done.faults == {"not data": (40, (0, 1000, 2000, 3000, 4000))}


def test_hits_before_an_interruption_are_known_of(tmp_path: Path):
    """All are there; what comes after is none, and that is no reason for a remark."""
    path = written(tmp_path / "raw.h5", [hits(1)], 1)
    with RawWriter(path) as out:
        out.append([messages(words(Word.SYNC, timestamp=[1]), [1], 1)[0].tobytes()] * 40_000, 1)
    stop, told = stop_after(1)
    with pytest.raises(Stopped):
        convert(path, tmp_path / "out.h5", stop=stop, told=told)
    done = convert(path, tmp_path / "out.h5")
    assert done.resumed_at
    assert done.notes == ()


def test_killed_when_all_but_the_name_was_done(raw: Path, converted: np.ndarray, tmp_path: Path):
    """The same call gives it its name."""
    out = tmp_path / "out.h5"
    done = convert(raw, out)
    out.unlink()

    class Killed(Exception):
        pass

    def killed(*_: object, **__: object) -> None:
        raise Killed

    original = Partial.finish
    try:
        Partial.finish = killed
        with pytest.raises(Killed):
            convert(raw, out)
    finally:
        Partial.finish = original
    assert names(tmp_path) == ["out.h5.partial", "out.h5.partial.state"]
    again = convert(raw, out)
    assert (again.packets, again.outcome) == (done.packets, "end")
    assert (packets_of(out) == converted).all()


@pytest.mark.parametrize("stored", [True, False])
def test_killed_when_it_had_both_names(stored: bool, tmp_path: Path):
    """It is complete; what is left of the first name goes."""
    raw, out = written(tmp_path / "raw.h5", [hits(1)], 1), tmp_path / "out.h5"
    convert(raw, out)
    os.link(out, tmp_path / "out.h5.partial")
    if stored:
        (tmp_path / "out.h5.partial.state").write_bytes(b"of no account")
    with pytest.raises(CannotConvert, match=r"out\.h5: exists already"):
        convert(raw, out)
    assert names(tmp_path) == ["out.h5", "raw.h5"]


def test_rows_that_came_since_it_was_complete_are_not_left_out(tmp_path: Path, caplog):
    """Of one that could not get its name then."""
    path, out = tmp_path / "raw.h5", tmp_path / "out.h5"
    with RawWriter(path, io_version="0.0") as writer:
        writer.append([hits(2)] * 10, 1)
        with pytest.raises(CannotConvert, match=r"exists already.*kept in out\.h5\.partial"):
            convert(path, out, told=lambda *_: out.write_bytes(b"mine"))
        assert out.read_bytes() == b"mine"
        out.unlink()
        writer.append([hits(2)] * 10, 1)
        done = convert(path, out)
    assert (done.messages, done.packets, len(packets_of(out))) == (20, 60, 60)
    assert "rows have come since; starting over" in caplog.text


@pytest.mark.parametrize("version", ["0.0.1", None], ids=str)
def test_what_another_version_has_begun_is_started_over(
    version: str | None, raw: Path, converted: np.ndarray, tmp_path: Path, caplog
):
    """An older one or a newer one: no file is decoded by two."""
    out = tmp_path / "out.h5"
    stop, told = stop_after(1)
    with pytest.raises(Stopped):
        convert(raw, out, stop=stop, told=told)
    path = tmp_path / "out.h5.partial.state"
    state = read_state(path)
    # Whatever else it may have meant by what it stored.
    write_state(path, state._replace(facts={"version": version} if version else {}))
    done = convert(raw, out)
    assert done.resumed_at is None
    assert "out.h5.partial: was begun by another version; starting over" in caplog.text
    assert (packets_of(out) == converted).all()


def test_starting_over_where_nothing_can_be_written_is_said(raw: Path, tmp_path: Path):
    """As one error, as all that concerns the output."""
    stop, told = stop_after(1)
    with pytest.raises(Stopped):
        convert(raw, tmp_path / "out.h5", stop=stop, told=told)
    (tmp_path / "out.h5.partial.state.new").mkdir()
    with pytest.raises(CannotConvert, match="cannot be written: Is a directory"):
        convert(raw, tmp_path / "out.h5", overwrite=True, compressed=True)


def test_partial_file_that_somebody_removed_takes_no_name(raw: Path, tmp_path: Path):
    """And another conversion that was begun there since is not disturbed."""
    out = tmp_path / "out.h5"

    def begin_another(*_: object) -> None:
        if rest:
            for name in rest.pop():
                (tmp_path / name).unlink()
            stop, told = stop_after(1)
            with pytest.raises(Stopped):
                convert(raw, out, stop=stop, told=told)

    rest = [["out.h5.partial", "out.h5.partial.state"]]
    with pytest.raises(CannotConvert, match="was removed, or replaced, by somebody else"):
        convert(raw, out, told=begin_another)
    assert names(tmp_path) == ["out.h5.partial", "out.h5.partial.state"]
    done = convert(raw, out)
    assert done.resumed_at
    assert len(packets_of(out)) == done.packets


# --------------------------------------------------------------------- while it is made

WRITES = """
import sys
from writer.recording import record
record(sys.argv[1], load="module0", seconds=float(sys.argv[2]), batch_seconds=0.05)
"""


@contextmanager
def recording(path: Path, seconds: float) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-c", WRITES, path, str(seconds)]
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("form", ["hdf5", "parquet"])
def test_following_gives_the_same_as_converting_afterwards(form: str, tmp_path: Path):
    """It waits for the file, and ends when the run does."""
    path = tmp_path / "raw.h5"
    with recording(path, 0.5):
        done = convert(path, tmp_path / "live", follow=True, to=form)
    assert done.outcome == "finished"
    after = convert(path, tmp_path / "after")
    assert (done.messages, done.packets) == (after.messages, after.packets)
    check_packets(tmp_path / "live", packets_of(tmp_path / "after"))


def test_following_survives_kills(tmp_path: Path):
    """Of the follower, while the run goes on."""
    path, out = tmp_path / "raw.h5", tmp_path / "out.h5"
    with recording(path, 1.5):
        for _ in range(2):
            before = stored_rows(out)
            with converting(path, out, follow=True) as process:
                until(lambda before=before: stored_rows(out) > before, process.poll)
                process.kill()
        done = convert(path, out, follow=True)
    convert(path, tmp_path / "after.h5")
    assert done.resumed_at
    check_packets(out, packets_of(tmp_path / "after.h5"))


def test_following_is_completed_when_it_is_stopped(tmp_path: Path):
    """With all that was committed by then, though the run goes on."""
    path, out = tmp_path / "raw.h5", tmp_path / "out.h5"
    stop, told = threading.Event(), []
    with RawWriter(path, io_version="0.0") as writer:
        writer.append([hits(2)] * 10, 1)

        def run() -> None:
            until(lambda: told)
            # These are committed, and perhaps not seen yet.
            writer.append([hits(2)] * 10, 1)
            stop.set()

        thread = threading.Thread(target=run)
        thread.start()
        done = convert(path, out, follow=True, stop=stop, told=lambda *rows: told.append(rows))
        thread.join()
    assert done.outcome == "stopped"
    assert (done.messages, done.packets) == (20, 60)
    assert len(packets_of(out)) == 60
    assert names(tmp_path) == ["out.h5", "raw.h5"]


def test_following_that_is_stopped_first_converts_what_is_there(raw: Path, tmp_path: Path):
    """However much it is behind then."""
    stop = threading.Event()
    stop.set()
    done = convert(raw, tmp_path / "out.h5", follow=True, stop=stop)
    assert done.messages == h5py.File(raw)["msgs"].shape[0]


def test_following_a_file_that_never_comes(tmp_path: Path, caplog):
    """Stopped, it leaves nothing."""
    stop = threading.Event()

    def stop_waiting() -> None:
        until(lambda: "absent; waiting for it" in caplog.text)
        stop.set()

    thread = threading.Thread(target=stop_waiting)
    thread.start()
    with pytest.raises(Stopped, match="while it was still absent"):
        convert(tmp_path / "raw.h5", tmp_path / "out.h5", follow=True, stop=stop)
    thread.join()
    assert names(tmp_path) == []


def test_pauses_of_a_writer_are_no_reason_to_store(tmp_path: Path, monkeypatch):
    """A disk is given no more to do by many short ones than by rows that come all the time."""
    path, stores, told = tmp_path / "raw.h5", [], []
    monkeypatch.setattr(streamer.convert.converting, "_STORE_SECONDS", 3600.0)
    monkeypatch.setattr(streamer.convert.converting, "_TICK_SECONDS", 0.01)
    store = Partial.store
    monkeypatch.setattr(Partial, "store", lambda *of: stores.append(None) or store(*of))

    def write() -> None:
        with RawWriter(path, io_version="0.0") as writer:
            for number in range(10):
                writer.append([hits(2)], 1)
                until(lambda number=number: len(told) > number)
                time.sleep(0.05)  # the pause: some ticks

    thread = threading.Thread(target=write)
    thread.start()
    done = convert(path, tmp_path / "out.h5", follow=True, told=lambda *rows: told.append(rows))
    thread.join()
    assert done.messages == 10
    assert len(stores) == 1


def test_following_ends_with_the_file_when_another_takes_its_name(tmp_path: Path):
    """All rows of the one that was followed are there, and it is said."""
    path, out, seen = tmp_path / "raw.h5", tmp_path / "out.h5", threading.Event()
    RawWriter(path, io_version="0.0").close(finished=False)
    with RawWriter(path) as writer:
        writer.append([hits(1)] * 5, 1)

    def replace() -> None:
        seen.wait(SECONDS)
        path.rename(tmp_path / "older.h5")
        written(path, [hits(7)], 1)

    with RawWriter(path) as writer:
        writer.append([hits(1)] * 5, 1)
        writer.close(finished=False)
    thread = threading.Thread(target=replace)
    thread.start()
    done = convert(path, out, follow=True, told=lambda *_: seen.set())
    thread.join()
    assert (done.outcome, done.messages) == ("replaced", 10)
    assert "another file's now" in "\n".join(done.lines())


def test_not_following_says_that_more_may_come(tmp_path: Path):
    """It converts what is there, and no more."""
    with RawWriter(tmp_path / "raw.h5", io_version="0.0") as writer:
        writer.append([hits(1)], 1)
        done = convert(tmp_path / "raw.h5", tmp_path / "out.h5")
    assert done.messages == 1
    assert "it is open for writing" in done.notes[0]


# ---------------------------------------------------------------------- wrong arguments


def test_existing_output_is_left_alone(raw: Path, tmp_path: Path):
    """Unless it may be overwritten; then it is there, whole, until the end."""
    out = tmp_path / "out.h5"
    out.write_bytes(b"mine")
    with pytest.raises(CannotConvert, match=r"out\.h5: exists already"):
        convert(raw, out)
    assert names(tmp_path) == ["out.h5"]
    seen = []
    convert(raw, out, overwrite=True, told=lambda *_: seen.append(out.read_bytes()))
    assert set(seen) == {b"mine"}
    assert len(packets_of(out))


def test_raw_files_are_never_overwritten(raw: Path, tmp_path: Path):
    """Neither the one that is converted nor another."""
    other = written(tmp_path / "other.h5", [hits(1)], 1)
    for out, reason in ((raw, "is the raw file"), (other, "is a raw file, which is never")):
        before = out.read_bytes()
        with pytest.raises(CannotConvert, match=reason):
            convert(raw, out, overwrite=True)
        assert out.read_bytes() == before
    link = tmp_path / "link.h5"
    link.symlink_to(raw)
    with pytest.raises(CannotConvert, match="is the raw file"):
        convert(raw, link, overwrite=True)


@pytest.mark.parametrize("name", ["raw.h5", "raw.h5.partial", "raw.h5.partial.state"])
@pytest.mark.parametrize("there", [False, True])
def test_raw_file_that_is_waited_for_is_never_overwritten(name: str, there: bool, tmp_path: Path):
    """Its name is known, though it is still to come, or empty so far."""
    path = tmp_path / name
    if there:
        path.write_bytes(b"")
    with pytest.raises(CannotConvert, match="is the raw file"):
        convert(path, tmp_path / "raw.h5", follow=True, overwrite=True)
    assert names(tmp_path) == ([name] if there else [])


def test_raw_file_that_took_the_name_meanwhile_is_never_overwritten(tmp_path: Path):
    """The DAQ may begin a run while a conversion goes on; what was converted is kept."""
    path, out = written(tmp_path / "raw.h5", [hits(1)] * 5, 1), tmp_path / "out.h5"
    with pytest.raises(CannotConvert, match=r"is a raw file, which is never.*5 rows are kept"):
        convert(path, out, overwrite=True, told=lambda *_: written(out, [hits(2)], 1))
    with h5py.File(out) as file:
        assert len(file["msgs"]) == 1
    out.unlink()
    assert convert(path, out).messages == 5


@pytest.mark.parametrize(
    ("source", "out", "error", "text"),
    [
        ("absent.h5", "out.h5", NotReady, "absent.h5"),
        ("text.h5", "out.h5", LayoutError, "not HDF5 at all"),
        ("other.h5", "out.h5", LayoutError, "other.h5"),
        ("folder", "out.h5", CannotConvert, "a folder or a pattern"),
        ("*.h5", "out.h5", CannotConvert, "a folder or a pattern"),
        ("raw.h5", "folder", CannotConvert, "folder: is a folder"),
        ("raw.h5", "absent/out.h5", CannotConvert, "there is no folder"),
        ("raw.h5", "x" * 300, CannotConvert, "File name too long"),
    ],
)
def test_wrong_names_are_said(source, out, error, text, tmp_path: Path):
    """With the name, and nothing is made."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.h5").write_text("text")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    written(tmp_path / "raw.h5", [hits(1)], 1)
    before = names(tmp_path)
    with pytest.raises(error, match=text.replace("*", r"\*")):
        convert(tmp_path / source, tmp_path / out)
    assert names(tmp_path) == before


def test_link_to_itself_exists(raw: Path, tmp_path: Path):
    """It is a name like any other, and may be overwritten."""
    out = tmp_path / "out.h5"
    out.symlink_to(out)
    with pytest.raises(CannotConvert, match="exists already"):
        convert(raw, out)
    assert len(packets_of(convert(raw, out, overwrite=True).out))


def test_devices_and_pipes_are_not_replaced(raw: Path, tmp_path: Path):
    """Though they may be overwritten."""
    os.mkfifo(tmp_path / "pipe")
    for out in (tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(CannotConvert, match="is a pipe or a device"):
            convert(raw, out, overwrite=True)
    assert (tmp_path / "pipe").is_fifo()


def test_following_something_else_leaves_nothing(tmp_path: Path):
    """It is noticed once it is there."""
    (tmp_path / "raw.h5").write_text("text")
    with pytest.raises(LayoutError, match="not HDF5"):
        convert(tmp_path / "raw.h5", tmp_path / "out.h5", follow=True)
    assert names(tmp_path) == ["raw.h5"]


@pytest.mark.parametrize(
    "options", [{"to": "root"}, {"wire": "old"}, {"asic": "v9"}, {"asic": {1: "v9"}}]
)
def test_wrong_options_are_said(options: dict, raw: Path, tmp_path: Path):
    """Before anything is made."""
    with pytest.raises(ValueError, match="not"):
        convert(raw, tmp_path / "out.h5", **options)
    assert names(tmp_path) == []


def test_two_conversions_into_one_are_refused(raw: Path, tmp_path: Path):
    """The second is told."""
    with (
        Partial(tmp_path / "out.h5"),
        pytest.raises(CannotConvert, match="is being made by another process"),
    ):
        convert(raw, tmp_path / "out.h5")


def test_chips_may_differ_by_io_group(tmp_path: Path):
    """Then ADC values have the bits that the widest needs."""
    stream = words(Word.DATA, io_channel=1, packet=np.uint64(1 | 1023 << 46))
    data = messages(np.atleast_1d(stream), [1], 1_700_000_000)[0].tobytes()
    path = written(tmp_path / "raw.h5", [data, data], [1, 2])
    convert(path, tmp_path / "out.h5", asic={1: "v2", 2: "v3"})
    found = packets_of(tmp_path / "out.h5")
    assert found.dtype["dataword"] == np.dtype("<u2")
    assert found["dataword"].tolist() == [0, 255, 0, 1023]


@pytest.mark.parametrize(
    ("asic", "said"),
    [
        ("v3", "v3"),
        ({5: "v3"}, "5=v3"),
        (dict.fromkeys(range(256), "v3") | {5: "v2"}, "v3, 5=v2"),
    ],
    ids=["all", "another", "all but another"],
)
def test_wrong_chips_are_suspected(asic, said: str, tmp_path: Path):
    """Where not one packet is a hit; also where the conversion was interrupted."""
    syncs = messages(words(Word.SYNC, timestamp=[1]), [1], 1)[0].tobytes()
    data = messages(words(Word.DATA, io_channel=1, packet=[0, 4]), [2], 1)[0].tobytes()
    path = written(tmp_path / "raw.h5", [syncs, data] * 20_000, 1)
    note = f"no packet is a hit: is asic {said} right?"
    assert convert(path, tmp_path / "out.h5", asic=asic).notes == (note,)
    stop, told = stop_after(1)
    with pytest.raises(Stopped):
        convert(path, tmp_path / "again.h5", asic=asic, stop=stop, told=told)
    done = convert(path, tmp_path / "again.h5", asic=asic)
    assert done.resumed_at
    assert done.notes == (note,)
    assert convert(path, tmp_path / "right.h5").notes == ()


# ------------------------------------------------------------------------------- memory

MEMORY = """
import sys
from streamer.convert import convert
convert(sys.argv[1], sys.argv[2], to=sys.argv[3])
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


@pytest.mark.parametrize("form", ["hdf5", pytest.param("parquet", marks=pytest.mark.nightly)])
def test_memory_does_not_grow_with_the_file(form: str, tmp_path: Path):
    """Four times as many messages take as much."""
    peaks = []
    for seconds in (0.5, 2.0):
        path, out = tmp_path / f"{seconds}.h5", tmp_path / f"{seconds}.out"
        record(path, load="2x2", seconds=seconds, fast=True)
        command = [sys.executable, "-c", MEMORY, path, out, form]
        done = subprocess.run(
            command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=120
        )
        peaks.append(int(done.stdout) * 1024)
    assert peaks[1] - peaks[0] < 16e6, peaks
