"""RawWriter: what it takes, what it refuses, and that a refusal changes nothing."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import h5py
import numpy as np
import pytest

from streamer import RawFile
from writer import RawWriter
from writer.errors import (
    BadBatch,
    CannotWrite,
    DiskFull,
    LengthMismatch,
    WriterBusy,
    WriterError,
    WriterKilled,
)
from writer.layout import IncompatibleVersion, LayoutError

from .live.writers import environment, io_group, message, wrong_rows

ROOT = Path(__file__).parents[1]
FLAGS = 11  # where the superblock says that the file is open for writing
ONE = b"one"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "raw.h5"


def contents(path: Path) -> list[tuple[int, bytes]]:
    with RawFile(path) as raw:
        batch = raw.read(0)
        return list(zip(batch.io_groups.tolist(), batch.tolist(), strict=True))


def by_h5py(path: Path) -> list[tuple[int, bytes]]:
    with h5py.File(path) as file:
        return [
            (int(group), bytes(msg))
            for group, msg in zip(file["msg_headers"]["io_groups"], file["msgs"], strict=True)
        ]


def attributes(path: Path) -> dict:
    with path.open("rb") as raw, h5py.File(raw, "r") as file:
        return dict(file["meta"].attrs)


# ----------------------------------------------------------------------------- what it takes

TAKEN = {
    "list": [b"one", b"", b"three"],
    "tuple": (b"one", b"", b"three"),
    "generator": lambda: (msg for msg in (b"one", b"", b"three")),
    "bytearrays": [bytearray(b"one"), bytearray(), bytearray(b"three")],
    "memoryviews": [memoryview(b"one"), memoryview(b""), memoryview(b"xthreex")[1:6]],
    "arrays": [np.frombuffer(b"one", "u1"), np.zeros(0, "u1"), np.frombuffer(b"three", "u1")],
    "mixed": [b"one", bytearray(), np.frombuffer(b"three", "u1")],
    "array-of-objects": np.array([b"one", b"", b"three"], dtype=object),
    "array-of-bytes": np.array([b"one", b"", b"three"]),
}


@pytest.mark.parametrize("kind", TAKEN)
def test_messages_of_any_kind(kind: str, path: Path):
    """Bytes-like things, in anything that can be gone through, are stored as they are."""
    msgs = TAKEN[kind]
    with RawWriter(path) as out:
        assert out.append(msgs() if callable(msgs) else msgs, [1, 2, 3]) == range(3)
    assert contents(path) == by_h5py(path) == [(1, b"one"), (2, b""), (3, b"three")]


BUFFERS = {
    "bytes": b"onethree",
    "bytearray": bytearray(b"onethree"),
    "memoryview": memoryview(b"onethree"),
    "array": np.frombuffer(b"onethree", "u1"),
    "words": np.frombuffer(b"onethree", "<u4"),
    "signed": np.frombuffer(b"onethree", "i1"),
    "matrix": np.frombuffer(b"onethree", "u1").reshape(2, 4),
}


@pytest.mark.parametrize("lengths", [[3, 0, 5], (3, 0, 5), np.array([3, 0, 5], "u2")])
@pytest.mark.parametrize("kind", BUFFERS)
def test_one_buffer_with_lengths(kind: str, lengths, path: Path):
    """All messages in one buffer are cut by their lengths, which count bytes."""
    with RawWriter(path) as out:
        assert out.append(BUFFERS[kind], 7, lengths=lengths) == range(3)
    assert contents(path) == by_h5py(path) == [(7, b"one"), (7, b""), (7, b"three")]


def test_messages_of_wide_elements(path: Path):
    """An array's bytes count, not its elements."""
    msgs = [np.arange(3, dtype="<u4"), np.arange(2, dtype="<u8"), b"x", np.ones((2, 2), "<u2")]
    with RawWriter(path) as out:
        out.append(msgs, 1)
    assert [data for _, data in contents(path)] == [
        msg if isinstance(msg, bytes) else msg.tobytes() for msg in msgs
    ]


def test_messages_whose_elements_make_up_for_each_other(path: Path):
    """An array of more elements than bytes does not shift the message after it."""
    msgs = [np.array([1, 2], "<u2"), np.zeros((2, 0), "u1"), b"next"]
    with RawWriter(path) as out:
        out.append(msgs, 1)
    assert [data for _, data in contents(path)] == [msgs[0].tobytes(), b"", b"next"]


GROUPS = {
    "none": ((), [0, 0, 0]),
    "one": ((9,), [9, 9, 9]),
    "list": (([0, 255, 3],), [0, 255, 3]),
    "numpy": ((np.array([1, 2, 3], "i8"),), [1, 2, 3]),
    "bytes": ((np.frombuffer(b"\1\2\3", "u1"),), [1, 2, 3]),
    "whole-floats": (([1.0, 2.0, 3.0],), [1, 2, 3]),
    "scalar": ((np.uint64(200),), [200, 200, 200]),
}


@pytest.mark.parametrize("kind", GROUPS)
def test_io_groups_of_any_kind(kind: str, path: Path):
    """One integer for all messages, or one each."""
    given, expected = GROUPS[kind]
    with RawWriter(path) as out:
        out.append([b"a", b"b", b"c"], *given)
    assert [group for group, _ in by_h5py(path)] == expected


def test_rows_are_counted_on(path: Path):
    """Each append returns the rows of its batch; `rows` is how many there are."""
    with RawWriter(path) as out:
        assert out.rows == 0
        assert out.append([b"a", b"b"]) == range(2)
        assert out.append([]) == range(2, 2)
        assert out.append(b"", lengths=[]) == range(2, 2)
        assert out.append(iter([])) == range(2, 2)
        assert out.append([b"c"]) == range(2, 3)
        assert out.rows == 3
    assert out.rows == 3
    assert len(contents(path)) == 3


def test_empty_batch_changes_nothing(path: Path):
    """Nothing to append is nothing to write."""
    with RawWriter(path) as out:
        out.append([ONE])
        before = path.read_bytes()
        out.append([])
        assert path.read_bytes() == before


def test_append_is_readable_on_return(path: Path):
    """With the handle they hold: our readers; by opening it: everybody with h5py."""
    with RawWriter(path) as out, RawFile(path) as raw:
        for start in (0, 3, 6):
            out.append([b"a", b"bb", b""], 1)
            assert raw.refresh() == start + 3
            assert raw.read(start).tolist() == [b"a", b"bb", b""]
            program = (
                "import h5py, sys\n"
                "file = h5py.File(sys.argv[1], 'r', swmr=True, locking=False)\n"
                "print(len(file['msg_headers']), [bytes(m) for m in file['msgs']][-3:])\n"
            )
            done = subprocess.run(
                [sys.executable, "-c", program, str(path)], capture_output=True, check=True
            )
            assert done.stdout.decode() == f"{start + 3} [b'a', b'bb', b'']\n"


def test_fsync(path: Path):
    """With fsync the same is written."""
    with RawWriter(path, fsync=True) as out:
        out.append([b"a", b"b"], [1, 2])
        out.append([b"c"], 3)
    assert contents(path) == [(1, b"a"), (2, b"b"), (3, b"c")]


def test_fsync_forces_each_batch_onto_the_disk(path: Path):
    """The kernel is asked to, before append returns, and not without fsync."""
    calls = {}
    for fsync in (True, False):
        with RawWriter(path.with_name(f"{fsync}.h5"), fsync=fsync) as out:
            done = []
            original = os.fsync
            os.fsync = lambda fd, done=done, call=original: (done.append(fd), call(fd))
            try:
                out.append([ONE])
            finally:
                os.fsync = original
            calls[fsync] = len(done)
    assert calls == {True: 2, False: 0}


# --------------------------------------------------------------------------- what it refuses

REFUSED = {
    "str": (["text"], {}, "message 0"),
    "one-str": ("text", {}, "one message"),
    "one-bytes": (b"text", {}, "one message"),
    "one-bytearray": (bytearray(b"text"), {}, "one message"),
    "one-memoryview": (memoryview(b"text"), {}, "one message"),
    "one-array": (np.arange(4, dtype="u1"), {}, "message 0"),
    "ints": ([b"a", 5], {}, "message 1"),
    "none-inside": ([b"a", None], {}, "message 1"),
    "list-inside": ([b"a", b"b", [1, 2]], {}, "message 2"),
    "nothing": (None, {}, "msgs"),
    "number": (5, {}, "msgs"),
    "strided": ([b"a", np.arange(8, dtype="u1")[::2]], {}, "message 1"),
    "objects": ([np.array([b"a", None], dtype=object)], {}, "message 0"),
    "groups-too-few": ([b"a", b"b"], {"io_groups": [1]}, "io_groups"),
    "groups-too-many": ([b"a"], {"io_groups": [1, 2]}, "io_groups"),
    "groups-for-none": ([], {"io_groups": [1]}, "io_groups"),
    "groups-matrix": ([b"a", b"b"], {"io_groups": [[1], [2]]}, "io_groups"),
    "groups-ragged": ([b"a", b"b"], {"io_groups": [[1], [2, 3]]}, "io_groups"),
    "negative": ([b"a", b"b"], {"io_groups": [1, -1]}, "message 1"),
    "256": ([b"a", b"b"], {"io_groups": [1, 256]}, "message 1"),
    "all-256": ([b"a", b"b"], {"io_groups": 256}, "message 0"),
    "huge": ([b"a", b"b"], {"io_groups": [1, 1 << 80]}, "message 1"),
    "float": ([b"a", b"b"], {"io_groups": [1, 1.5]}, "message 1"),
    "nan": ([b"a", b"b"], {"io_groups": [1, float("nan")]}, "message 1"),
    "infinite": ([b"a", b"b"], {"io_groups": [1, float("inf")]}, "message 1"),
    "none": ([b"a"], {"io_groups": None}, "io_groups"),
    "none-among": ([b"a", b"b"], {"io_groups": [1, None]}, "message 1"),
    "text": ([b"a", b"b"], {"io_groups": ["1", "2"]}, "io_groups"),
    "lengths-short": (b"onethree", {"lengths": [3, 4]}, "7 bytes"),
    "lengths-long": (b"onethree", {"lengths": [3, 6]}, "8"),
    "lengths-negative": (b"onethree", {"lengths": [9, -1]}, "message 1"),
    "lengths-float": (b"onethree", {"lengths": [3.0, 5.0]}, "lengths"),
    "lengths-none": (b"onethree", {"lengths": [None, 8]}, "lengths"),
    "lengths-matrix": (b"onethree", {"lengths": [[3, 5]]}, "lengths"),
    "lengths-one": (b"onethree", {"lengths": 8}, "lengths"),
    "lengths-ragged": (b"onethree", {"lengths": [[3], [5, 6]]}, "lengths"),
    "lengths-bools": (b"on", {"lengths": [True, True]}, "lengths"),
    "lengths-that-overflow": (b"", {"lengths": np.array([1 << 63, 1 << 63], "u8")}, "lengths"),
    "lengths-of-list": ([b"one"], {"lengths": [3]}, "buffer"),
    "lengths-of-text": ("one", {"lengths": [3]}, "buffer"),
    "lengths-of-strided": (np.arange(8, dtype="u1")[::2], {"lengths": [4]}, "buffer"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_bad_batch_changes_nothing(kind: str, path: Path):
    """The error names the file and what is wrong; not a byte changes; the next batch goes in."""
    msgs, options, named = REFUSED[kind]
    with RawWriter(path) as out:
        out.append([ONE], 1)
        before = path.read_bytes()
        with pytest.raises(BadBatch) as caught:
            out.append(msgs, **options)
        assert isinstance(caught.value, ValueError)
        assert str(path) in str(caught.value)
        assert named in str(caught.value)
        assert path.read_bytes() == before
        assert out.append([b"two"], 2) == range(1, 2)
    assert contents(path) == [(1, ONE), (2, b"two")]


def test_wrong_number_of_io_groups_is_an_assertionerror_too(path: Path):
    """As the classic function documents."""
    with RawWriter(path) as out, pytest.raises(LengthMismatch) as caught:
        out.append([ONE], [1, 2])
    assert isinstance(caught.value, AssertionError)


def test_message_longer_than_the_format_can_say(path: Path):
    """A length of 4 bytes ends at 4 GiB: HDF5 would store the rest of such a length."""
    with RawWriter(path) as out:
        before = path.read_bytes()
        # No byte of it is ever touched, so it takes no memory.
        large = np.zeros((1 << 32) + 4, "u1")
        with pytest.raises(BadBatch, match="message 1"):
            out.append(large, 1, lengths=[4, 1 << 32])
        assert path.read_bytes() == before


class OwnError(Exception):
    pass


def test_error_of_the_callers_generator_is_his_own(path: Path):
    """What the messages' source raises comes out as it is, and nothing was written."""

    def source() -> Iterator[bytes]:
        yield ONE
        raise OwnError

    with RawWriter(path) as out:
        before = path.read_bytes()
        with pytest.raises(OwnError):
            out.append(source())
        assert path.read_bytes() == before
        assert out.append([ONE]) == range(1)


# ------------------------------------------------------------------------ beginning and end


def test_attributes_of_a_file(path: Path):
    """A file says when it was made and last written to, by whom, and in which format."""
    before = time.time()
    with RawWriter(path, version="0.0", io_version="2.4") as out:
        made = attributes(path)
        assert before <= made["created"] == made["modified"] <= time.time()
        assert (made["version"], made["io_version"]) == ("0.0", "2.4")
        assert made["writer"].startswith("larpix-streamer ")
        out.append([ONE])
        then = attributes(path)
        assert then["modified"] > made["modified"]
        time.sleep(0.002)
    closed = attributes(path)
    assert closed["modified"] > then["modified"]
    assert {key: closed[key] for key in ("created", "run_id", "version", "io_version")} == {
        key: made[key] for key in ("created", "run_id", "version", "io_version")
    }


def test_run_ids_differ(path: Path):
    """Two files are two runs."""
    other = path.with_name("other.h5")
    for name in (path, other):
        RawWriter(name).close()
    assert attributes(path)["run_id"] != attributes(other)["run_id"]


def test_finished_is_the_number_of_rows_once_closed(path: Path):
    """-1 while a writer has it, the rows after the end, -2 if somebody goes on."""
    out = RawWriter(path)
    assert attributes(path)["finished"] == -1
    out.append([ONE, ONE])
    assert attributes(path)["finished"] == -1
    out.close(finished=False)
    assert attributes(path)["finished"] == -2
    with RawWriter(path) as out:
        assert attributes(path)["finished"] == -1
        out.append([ONE])
    assert attributes(path)["finished"] == 3


def test_file_without_rows(path: Path):
    """A run without a message is a run."""
    RawWriter(path).close()
    assert attributes(path)["finished"] == 0
    assert contents(path) == []


def test_close_clears_the_mark_of_a_writer(path: Path):
    """Flags of an open writer, and none after it; closing again does nothing."""
    out = RawWriter(path)
    assert path.read_bytes()[FLAGS] == 5
    out.close()
    assert path.read_bytes()[FLAGS] == 0
    before = path.read_bytes()
    out.close()
    out.close(finished=False)
    assert path.read_bytes() == before


def test_use_after_close(path: Path):
    """A closed writer says so and writes nothing."""
    with RawWriter(path) as out:
        out.append([ONE])
    before = path.read_bytes()
    for batch in ([ONE], []):
        with pytest.raises(CannotWrite, match="closed") as caught:
            out.append(batch)
        assert str(path) in str(caught.value)
    assert path.read_bytes() == before


def test_error_in_the_with_body_closes_the_file(path: Path):
    """The error comes out; what was committed before it is there, and the file is closed."""

    def take_data() -> None:
        with RawWriter(path) as out:
            out.append([ONE], 1)
            raise OwnError

    with pytest.raises(OwnError):
        take_data()
    assert path.read_bytes()[FLAGS] == 0
    assert contents(path) == [(1, ONE)]


def test_repr(path: Path):
    """The text for people has path, rows and state."""
    out = RawWriter(path)
    out.append([ONE])
    assert repr(out) == f"<RawWriter {str(path)!r}, 1 rows, open>"
    out.close()
    assert repr(out) == f"<RawWriter {str(path)!r}, 1 rows, closed>"


def test_continuing_a_file(path: Path):
    """A closed file is continued after its last row, by whomever it was made."""
    with RawWriter(path, io_version="0.1") as out:
        out.append([b"a", b"b"], [1, 2])
    made = attributes(path)
    for number in range(3):
        with RawWriter(path) as out:
            assert out.rows == 2 + number
            assert out.append([b"c"], 3) == range(2 + number, 3 + number)
    assert contents(path) == by_h5py(path) == [(1, b"a"), (2, b"b")] + 3 * [(3, b"c")]
    assert attributes(path)["run_id"] == made["run_id"]


def test_continuing_a_file_with_rows_of_one_dataset(path: Path):
    """Rows that only one dataset has were never committed: dropped, with a warning."""
    with RawWriter(path) as out:
        out.append([b"a", b"b"], [1, 2])
    with h5py.File(path, "r+", libver="v110") as file:
        file["msgs"].resize((5,))
        file["msgs"][4] = np.frombuffer(b"lost", "u1")
    with pytest.warns(UserWarning, match="3 uncommitted rows"):
        out = RawWriter(path)
    with out:
        with RawFile(path) as raw:
            assert raw.lengths == (2, 2)
        assert out.append([b"c"], 3) == range(2, 3)
    assert contents(path) == by_h5py(path) == [(1, b"a"), (2, b"b"), (3, b"c")]


@pytest.mark.parametrize(
    "options", [{"version": "1.0"}, {"version": "0.1"}, {"io_version": "9.9"}], ids=str
)
def test_continuing_a_file_of_another_version(options, path: Path):
    """A version that the file does not serve leaves it as it was."""
    RawWriter(path, io_version="0.1").close()
    before = path.read_bytes()
    with pytest.raises(IncompatibleVersion, match=str(path)):
        RawWriter(path, **options)
    assert path.read_bytes() == before


def test_unknown_version_makes_no_file(path: Path):
    """What cannot be made is not begun."""
    with pytest.raises(IncompatibleVersion):
        RawWriter(path, version="7.0")
    assert not path.exists()


@pytest.mark.parametrize("text", [b"some text\n" * 100, b"\0" * 4096, b"x"])
def test_file_of_another_kind_is_left_alone(text: bytes, path: Path):
    """Nothing that is no raw file is ever written to."""
    path.write_bytes(text)
    with pytest.raises(LayoutError, match=str(path)):
        RawWriter(path)
    assert path.read_bytes() == text


def test_other_hdf5_file_is_left_alone(path: Path):
    """Nor is an HDF5 file of another kind."""
    with h5py.File(path, "w", libver="v110") as file:
        file["packets"] = np.arange(10)
    before = path.read_bytes()
    with pytest.raises(LayoutError, match=str(path)):
        RawWriter(path)
    assert path.read_bytes() == before


def test_file_cut_short_is_left_alone(path: Path):
    """A copy that is not complete is not continued."""
    with RawWriter(path) as out:
        out.append([bytes(3000)] * 10)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CannotWrite, match=str(path)):
        RawWriter(path)
    assert path.read_bytes() == whole[: len(whole) // 2]


def test_folder_cannot_be_written(tmp_path: Path):
    """A folder, or a path without one, is an OSError that names it."""
    for path in (tmp_path, tmp_path / "absent" / "raw.h5"):
        with pytest.raises(CannotWrite, match=str(path)) as caught:
            RawWriter(path)
        assert isinstance(caught.value, OSError)
    assert not (tmp_path / "absent").exists()


def test_empty_file_is_begun(path: Path):
    """A file without bytes is as good as none."""
    path.touch()
    with RawWriter(path) as out:
        out.append([ONE], 1)
    assert contents(path) == [(1, ONE)]


# --------------------------------------------------------------------- programs to be started


@contextmanager
def second_process(*arguments: object) -> Iterator[subprocess.Popen]:
    """Run one of the programs at the end of this file, in the folder of the project."""
    command = [sys.executable, "-m", "tests.test_rawwriter", *map(str, arguments)]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def report_of(*arguments: object) -> dict:
    """Run a program to its end, which must be a good one, and return what it says."""
    with second_process(*arguments) as process:
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0, f"ended with {process.returncode}"
    return json.loads(said)


# ------------------------------------------------------------------------- one writer at a time


def test_second_writer_of_the_process_is_refused(path: Path):
    """While one writer has the file there is no other; then there may be."""
    with RawWriter(path) as out:
        out.append([ONE], 1)
        before = path.read_bytes()
        with pytest.raises(WriterBusy, match=str(path)):
            RawWriter(path)
        assert path.read_bytes() == before
        out.append([ONE], 1)
    with RawWriter(path) as out:
        assert out.rows == 2


def test_killed_writers_file_is_refused(path: Path):
    """What a killed writer has left is not touched, and the error says how to save it."""
    with second_process("hold", path) as process:
        assert process.stdout.readline() == b"ready\n"
        with pytest.raises(WriterBusy):
            RawWriter(path)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    before = path.read_bytes()
    with pytest.raises(WriterKilled, match=r"its writer was killed.*streamer recover FILE OUT"):
        RawWriter(path)
    assert path.read_bytes() == before
    assert contents(path) == [(1, ONE)]


def test_many_processes_that_begin_one_file(path: Path):
    """Of all who begin a file at once one wins; the others are told; the file is his."""
    count = 6
    go = path.with_name("go")
    processes = []
    for number in range(count):
        command = [sys.executable, "-m", "tests.test_rawwriter", "race", path, go, str(number)]
        processes.append(
            subprocess.Popen(
                command, cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        )
    try:
        for process in processes:
            assert process.stdout.readline() == b"ready\n"
        go.touch()
        said = [json.loads(process.stdout.readline()) for process in processes]
        winners = [number for number, word in enumerate(said) if word == "wrote"]
        assert len(winners) == 1, said
        assert sorted(said) == ["WriterBusy"] * (count - 1) + ["wrote"]
        assert contents(path) == [(winners[0], b"mine")] * 5
        for process in processes:
            process.stdin.close()
            assert process.wait(30) == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdout.close()
            with suppress(OSError):
                process.stdin.close()
    assert contents(path) == [(winners[0], b"mine")] * 5
    assert path.read_bytes()[FLAGS] == 0


# ----------------------------------------------------------------------------------- a full disk


def rows_of(start: int, stop: int) -> tuple[list[bytes], list[int]]:
    rows = range(start, stop)
    return [message(row, 1000) for row in rows], [io_group(row) for row in rows]


def test_limit_of_the_file_size(path: Path):
    """Where the file may not grow, a batch is refused before it is begun; less goes on."""
    report = report_of("limit", path)
    assert report["error"] == "DiskFull"
    assert str(path) in report["text"]
    assert report["unchanged"]
    assert report["after"] == report["rows"] + 100
    with RawFile(path) as raw:
        assert not wrong_rows(raw.read(0), 0, report["after"])
    assert attributes(path)["finished"] == report["after"]


def test_no_room_for_a_new_file(path: Path):
    """A file that cannot be begun is not left behind, and the error says so."""
    report = report_of("no-room", path)
    assert report == {"error": "DiskFull", "there": False}


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("length", [1, 136, 2100, 4090, 40_000, 70_000])
def test_full_disk(length: int, tmp_path: Path):
    """On a disk that is full nothing changes, and once there is room the next batch goes in."""
    with small_disk(tmp_path / "disk", "8m") as disk:
        ballast, path = disk / "ballast", disk / "raw.h5"
        ballast.write_bytes(bytes(2 << 20))
        count = min(2000, max(4, 100_000 // length))
        batch = [bytes([k % 256]) * length for k in range(count)]
        with RawWriter(path) as out, RawFile(path) as raw:
            before = b""

            def fill_it() -> None:
                nonlocal before
                while True:
                    before = path.read_bytes()
                    out.append(batch, 1)

            with pytest.raises(DiskFull, match=str(path)):
                fill_it()
            assert path.read_bytes() == before
            assert out.rows == raw.refresh() >= len(batch)
            assert raw.read(out.rows - len(batch)).tolist() == batch
            ballast.unlink()
            assert out.append(batch, 1).stop == raw.refresh() == out.rows
        assert contents(path) == [(1, msg) for msg in batch] * (out.rows // len(batch))


def test_close_on_a_full_disk(tmp_path: Path):
    """Closing needs no room: what it writes has its place already."""
    with small_disk(tmp_path / "disk", "4m") as disk:
        path = disk / "raw.h5"
        with RawWriter(path) as out:
            out.append([ONE] * 3, 1)
            with suppress(OSError), (disk / "ballast").open("wb") as ballast:
                ballast.write(bytes(8 << 20))
            with pytest.raises(DiskFull):
                out.append([ONE], 1)
        assert path.read_bytes()[FLAGS] == 0
        assert attributes(path)["finished"] == 3
        assert contents(path) == [(1, ONE)] * 3


@pytest.mark.parametrize("what", ["limit", "disk"])
def test_failure_of_hdf5_itself(what: str, tmp_path: Path):
    """Where HDF5 fails in the middle: an error, all rows before it, no leak and no crash."""
    if what == "limit":
        path = tmp_path / "raw.h5"
        report = report_of("fail", path, 3 << 20)
        check_failed(path, report)
        return
    with small_disk(tmp_path / "disk", "3m") as disk:
        report = report_of("fail", disk / "raw.h5", 0)
        check_failed(disk / "raw.h5", report)


def check_failed(path: Path, report: dict) -> None:
    assert report["append"] == "CannotWrite"
    assert report["again"] == "CannotWrite"
    assert report["close"] in ("CannotWrite", "closed")
    assert report["seen"] == report["rows"] > 0, "the reader beside it"
    assert report["leaked"] == []
    with RawFile(path) as raw:
        assert len(raw) >= report["rows"]
        assert not wrong_rows(raw.read(0, report["rows"]), 0, report["rows"])


# ------------------------------------------------------------------- programs of a second process


def say(thing: object) -> None:
    print(json.dumps(thing), flush=True)


def descriptors(path: Path) -> list[str]:
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found.append(str(entry.readlink()))
    return [name for name in found if name.startswith(str(path))]


def hold(path: Path) -> None:
    with RawWriter(path) as out:
        out.append([ONE], 1)
        print("ready", flush=True)
        sys.stdin.read()


def race(path: Path, go: str, number: str) -> None:
    print("ready", flush=True)
    while not Path(go).exists():
        pass
    try:
        with RawWriter(path) as out:
            out.append([b"mine"] * 5, int(number))
            say("wrote")
            sys.stdin.read()
    except WriterError as error:
        say(type(error).__name__)


def limit(path: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, resource.RLIM_INFINITY))
    report: dict = {}
    with RawWriter(path) as out:
        try:
            while True:
                before = path.read_bytes()
                msgs, groups = rows_of(out.rows, out.rows + 300)
                out.append(msgs, groups)
        except CannotWrite as error:
            report |= {"error": type(error).__name__, "text": str(error), "rows": out.rows}
            report["unchanged"] = path.read_bytes() == before
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, resource.RLIM_INFINITY))
        out.append(*rows_of(out.rows, out.rows + 100))
        report["after"] = out.rows
    say(report)


def no_room(path: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    try:
        RawWriter(path)
    except CannotWrite as error:
        say({"error": type(error).__name__, "there": path.exists()})


def fail(path: Path, size: str) -> None:
    RawWriter._check_room = lambda self, size, count: None  # type: ignore[method-assign]
    if int(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), resource.RLIM_INFINITY))
    report = {}
    out = RawWriter(path)
    try:
        while True:
            out.append(*rows_of(out.rows, out.rows + 300))
    except CannotWrite as error:
        report["append"] = type(error).__name__
    report["rows"] = out.rows
    try:
        out.append([ONE])
    except CannotWrite as error:
        report["again"] = type(error).__name__
    with RawFile(path) as raw:
        report["seen"] = len(raw)
    try:
        out.close()
        report["close"] = "closed"
    except CannotWrite as error:
        report["close"] = type(error).__name__
    out.close()
    report["leaked"] = descriptors(path)
    say(report)


if __name__ == "__main__":
    {"hold": hold, "race": race, "limit": limit, "no-room": no_room, "fail": fail}[sys.argv[1]](
        Path(sys.argv[2]), *sys.argv[3:]
    )
