"""Our files are larpix-control's, and its files are ours: closed, live, and left by the killed."""

import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from textwrap import dedent

import h5py
import numpy as np
import pytest

from streamer import RawFile
from streamer.rawhdf5format import from_rawfile, len_rawfile, to_rawfile
from writer import CannotWrite, RawWriter, WriterBusy, WriterKilled

from .writers import ROOT, Lines, check, environment, io_group, message, running, size_of

LOCKING = "HDF5_USE_FILE_LOCKING"


@pytest.fixture(scope="module")
def stock():
    """larpix-control's module, whose import must not change this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(LOCKING, "")
        import larpix.format.rawhdf5format as module
    assert LOCKING not in os.environ
    return module


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "raw.h5"


def rows_of(start: int, stop: int) -> tuple[list[bytes], list[int]]:
    """Return the messages and io groups of some rows."""
    rows = range(start, stop)
    return [message(row, size_of(row, "mixed")) for row in rows], [io_group(row) for row in rows]


def assert_right(found: dict, rows: int, start: int = 0) -> None:
    """Check every row of a result, all fields of it."""
    msgs, groups = found["msgs"], found["msg_headers"]["io_groups"]
    assert len(msgs) == len(groups) == rows - start
    assert not [k for k, data in enumerate(msgs, start) if not check(k, data)]
    assert list(map(int, groups)) == [io_group(row) for row in range(start, rows)]
    assert list(found["msg_headers"]) == ["io_groups"]


def by_rawwriter(path: Path, start: int, stop: int) -> None:
    msgs, groups = rows_of(start, stop)
    with RawWriter(path, io_version="0.0") as out:
        assert out.append(msgs, io_groups=groups) == range(start, stop)


def by_function(to_file: Callable, path: Path, start: int, stop: int) -> None:
    msgs, groups = rows_of(start, stop)
    to_file(path, msgs=msgs, msg_headers={"io_groups": groups}, io_version="0.0")


@pytest.fixture(params=["RawWriter", "to_rawfile"])
def ours(request: pytest.FixtureRequest) -> Callable[[Path, int, int], None]:
    """Each of our ways to append rows to a file."""
    return by_rawwriter if request.param == "RawWriter" else partial(by_function, to_rawfile)


# ------------------------------------------------------------------------ closed files

CHOICES = [
    {},
    {"start": 3},
    {"end": 3},
    {"start": 40, "end": 60},
    {"start": -7},
    {"end": -7},
    {"start": -9, "end": -2},
    {"start": 50, "end": 10**6},
    {"start": 60, "end": 50},
    {"mask": np.arange(100) % 3 == 0},
    {"mask": np.zeros(100, bool), "start": 3},
    {"msg_headers_only": True},
    {"version": "0.0", "io_version": "0.0"},
    {"attempts": 0},
]


def assert_read_alike(stock, path: Path) -> None:
    """Both functions give the same, field by field, for every choice of rows."""
    assert stock.len_rawfile(path) == len_rawfile(path) == 100
    for choice in CHOICES:
        assert from_rawfile(path, **choice) == stock.from_rawfile(path, **choice), choice


def test_stock_reads_ours(path: Path, ours, stock):
    """A closed file of ours is to larpix-control what it is to us."""
    ours(path, 0, 100)
    assert_read_alike(stock, path)
    assert_right(stock.from_rawfile(path), 100)


def test_we_read_stock(path: Path, stock):
    """A closed file of larpix-control is to us what it is to it."""
    by_function(stock.to_rawfile, path, 0, 100)
    assert_read_alike(stock, path)
    assert_right(from_rawfile(path), 100)


def test_files_are_continued_in_turns(path: Path, stock):
    """Each writer goes on where another has stopped, and created stays what it was."""
    others = [partial(by_function, stock.to_rawfile), partial(by_function, to_rawfile)]
    for first in (by_rawwriter, *others):
        path.unlink(missing_ok=True)
        first(path, 0, 10)
        made = from_rawfile(path)
        start, modified = 10, made["modified"]
        for append in (*others, by_rawwriter, *reversed(others), by_rawwriter) * 2:
            append(path, start, start + 1100)
            start += 1100
            for found in (from_rawfile(path), stock.from_rawfile(path)):
                assert_right(found, start)
                assert found["created"] == made["created"]
                assert found["modified"] > modified
                assert (found["version"], found["io_version"]) == ("0.0", "0.0")
            modified = found["modified"]


def test_stock_notices_the_versions_of_ours(path: Path, ours, stock):
    """larpix-control refuses our file for versions that do not go with it."""
    ours(path, 0, 1)
    before = path.read_bytes()
    for asked in ({"version": "1.0"}, {"io_version": "1.0"}, {"io_version": "0.1"}):
        with pytest.raises(AssertionError, match="mismatch"):
            stock.from_rawfile(path, **asked)
        with pytest.raises(AssertionError, match="mismatch"):
            stock.to_rawfile(path, **asked)
    assert from_rawfile(path)["msgs"] == rows_of(0, 1)[0]
    assert len(path.read_bytes()) == len(before)


# -------------------------------------------------------------------------- live files


def stock_once(stock, path: Path) -> dict | None:
    """Read with larpix-control's function; None where it fails as it does beside a writer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of its own
        try:
            return stock.from_rawfile(path)
        except (OSError, RuntimeError, KeyError):
            return None


def follow_with_stock(stock, path: Path, writer) -> int:
    """Read until the writer has ended; return how often that gave rows while it wrote."""
    live = rows = 0
    deadline = time.monotonic() + 60
    while not writer.ended:
        assert time.monotonic() < deadline
        before = writer.committed
        found = stock_once(stock, path) if path.exists() else None
        if found is not None and not writer.ended:
            assert_right(found, len(found["msgs"]))
            assert len(found["msgs"]) >= max(rows, before)
            live += len(found["msgs"]) > rows
            rows = len(found["msgs"])
    found = stock_once(stock, path)
    assert_right(found, writer.total)
    return live


def test_stock_reads_beside_a_rawwriter(path: Path, stock):
    """While a RawWriter lives in another process, larpix-control reads all it has committed."""
    with running("rawwriter", path, batch=100, batches=40, pause=0.02, size="mixed") as writer:
        assert follow_with_stock(stock, path, writer) > 5


@contextmanager
def our_function(path: Path, batch: int, batches: int):
    """Run our to_rawfile in a second process."""
    script = """
        import sys, time
        from tests.live.test_interchange import Path, by_function, to_rawfile
        from tests.live.writers import say
        path, batch, batches = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
        for start in range(0, batch * batches, batch):
            by_function(to_rawfile, path, start, start + batch)
            say(str(start + batch))
            time.sleep(0.02)
        """

    class Live:
        total = batch * batches
        committed = 0

        @property
        def ended(self) -> bool:
            for line in lines.take():
                self.committed = int(line)
            return lines.ended

    command = [sys.executable, "-W", "error", "-c", dedent(script), path, str(batch), str(batches)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, cwd=ROOT, env=environment() | {LOCKING: "FALSE"}
    ) as process:
        lines = Lines(process.stdout.fileno())
        try:
            yield Live()
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()


def test_stock_reads_beside_our_function(path: Path, stock):
    """While our to_rawfile is called in another process, larpix-control reads all of it."""
    with our_function(path, 100, 40) as writer:
        assert follow_with_stock(stock, path, writer) > 5


@pytest.mark.parametrize("kind", ["stock", "datasets", "file", "rawwriter"])
def test_we_read_beside_every_writer(kind: str, path: Path):
    """Each of our calls beside a writer gives all that is committed, right, and no error."""
    live = rows = 0
    with running(kind, path, batch=100, batches=40, pause=0.02, size="mixed") as writer:
        writer.wait_for(100)
        while not writer.ended:
            before = writer.committed
            count = len_rawfile(path, attempts=-1)
            found = from_rawfile(path, start=rows, attempts=-1)
            stop = rows + len(found["msgs"])
            assert_right(found, stop, start=rows)
            assert before <= count <= stop
            live += stop > rows and not writer.ended
            rows = stop
    assert live > 10
    assert_right(from_rawfile(path), writer.total)


# ---------------------------------------------------------------- one writer at a time

SECOND = {
    "RawWriter": ("another RawWriter has this file", by_rawwriter),
    "to_rawfile": ("another RawWriter has this file", partial(by_function, to_rawfile)),
    "stock": ("Unable to", None),
}


def second_writer(kind: str, path: Path, start: int) -> None:
    """Try to append, in whatever process this is."""
    append = SECOND[kind][1]
    if append is None:
        from larpix.format.rawhdf5format import to_rawfile as stock_to_rawfile

        append = partial(by_function, stock_to_rawfile)
    append(path, start, start + 5)


def in_another_process(kind: str, path: Path, start: int) -> tuple[int, str]:
    """Try it in a process of its own; return its exit status and what it complained of."""
    script = (
        "import sys\nfrom tests.live.test_interchange import Path, second_writer\n"
        "second_writer(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, kind, path, str(start)],
        cwd=ROOT,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("where", ["same process", "another process"])
@pytest.mark.parametrize("kind", SECOND)
def test_second_writer_is_refused(kind: str, where: str, path: Path, stock):
    """It gets a clear error and changes no byte; the first goes on, and all rows are right."""
    text = SECOND[kind][0]
    with RawWriter(path, io_version="0.0") as out, RawFile(path) as reader:
        for start in (0, 300, 600):
            msgs, groups = rows_of(start, start + 300)
            out.append(msgs, io_groups=groups)
            before = path.read_bytes()
            if where == "same process":
                error = OSError if kind == "stock" else WriterBusy
                with pytest.raises(error, match=text):
                    second_writer(kind, path, out.rows)
            elif start == 300:  # once will do: each costs the start of an interpreter
                status, complaint = in_another_process(kind, path, out.rows)
                assert status == 1
                assert text in complaint.splitlines()[-1]
            assert path.read_bytes() == before
            assert_right(from_rawfile(path), out.rows)
            assert reader.refresh() == out.rows
        msgs, groups = rows_of(900, 1000)
        out.append(msgs, io_groups=groups)
    assert_right(from_rawfile(path), 1000)
    assert_right(stock.from_rawfile(path), 1000)
    status, complaint = in_another_process(kind, path, 1000)
    assert (status, complaint) == (0, ""), "it may write once the first has ended"
    assert_right(from_rawfile(path), 1005)


def append_stubbornly(path: Path, io_group: int, calls: int) -> int:
    """Append numbered messages, again and again where it is refused; return how often it was."""
    refused = 0
    for call in range(calls):
        msgs = [b"%d %d" % (call, k) for k in range(10)]
        deadline = time.monotonic() + 30
        while True:
            try:
                to_rawfile(path, msgs, msg_headers={"io_groups": [io_group] * 10})
                break
            except WriterBusy:
                assert time.monotonic() < deadline
                refused += 1
    return refused


def test_two_processes_that_take_turns_lose_nothing(path: Path):
    """Each call of to_rawfile that is not refused is in the file, once, whole and in order."""
    script = """
        import sys
        from tests.live.test_interchange import Path, append_stubbornly
        path = Path(sys.argv[1])
        print("ready", flush=True)
        sys.stdin.readline()
        print(append_stubbornly(path, 2, 100))
        """
    command = [sys.executable, "-W", "error", "-c", dedent(script), path]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=environment()
    ) as process:
        try:
            assert process.stdout.readline() == b"ready\n"
            process.stdin.write(b"go\n")
            process.stdin.flush()
            refused = append_stubbornly(path, 1, 100)
            output, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0
    assert refused + int(output) > 0, "they never met"
    found = from_rawfile(path)
    expected = [b"%d %d" % (call, k) for call in range(100) for k in range(10)]
    groups = found["msg_headers"]["io_groups"]
    assert sorted(groups) == [1] * 1000 + [2] * 1000
    for mine in (1, 2):
        rows = zip(found["msgs"], groups, strict=True)
        assert [data for data, group in rows if group == mine] == expected


def test_file_of_a_living_stranger_is_refused(path: Path):
    """A program that keeps the file open in its own way is not disturbed by our attempt."""
    with running("file", path, batch=100, batches=160, pause=0.02, size="mixed") as writer:
        writer.wait_for(100)
        for way in ("RawWriter", "to_rawfile"):
            begun = time.monotonic()
            with pytest.raises(CannotWrite, match="another program is writing it"):
                second_writer(way, path, writer.committed)
            assert time.monotonic() - begun < 3
        assert not writer.ended, "it came too late to be of use"
    assert_right(from_rawfile(path), writer.total)


# ------------------------------------------------------------- left by a killed writer


@pytest.mark.parametrize("kind", ["rawwriter", "datasets"])
def test_file_of_a_killed_writer_is_not_continued(kind: str, path: Path, stock):
    """The error says that it was killed and what to do; no byte changes."""
    with running(kind, path, batch=100, batches=10**6, size="mixed") as writer:
        writer.wait_for(1000)
        writer.kill()
        committed = writer.committed
    before = path.read_bytes()
    for way in ("RawWriter", "to_rawfile"):
        with pytest.raises(WriterKilled, match="killed") as caught:
            second_writer(way, path, 0)
        assert f"{path}: " in str(caught.value)
        assert "go on in a new file" in str(caught.value)
        assert path.read_bytes() == before
    with pytest.raises(OSError, match="Unable to"):
        second_writer("stock", path, 0)
    assert path.read_bytes() == before
    found = from_rawfile(path, attempts=0)
    assert len(found["msgs"]) >= committed
    assert_right(found, len(found["msgs"]))


@pytest.mark.parametrize("way", ["RawWriter", "to_rawfile"])
@pytest.mark.parametrize(("msgs", "headers"), [(1030, 1000), (1000, 1030), (1000, 2500), (7, 0)])
def test_unequal_file_is_continued_from_its_committed_length(
    way: str, msgs: int, headers: int, path: Path, stock
):
    """The rows that only one dataset has are dropped, and their number is told."""
    rows = min(msgs, headers)
    made = rows_of(0, max(msgs, headers))
    stock.to_rawfile(path, made[0], msg_headers={"io_groups": made[1]}, io_version="0.0")
    with h5py.File(path, "r+") as file:
        file["msgs"].resize((msgs,))
        file["msg_headers"].resize((headers,))
    with closing(RawFile(path)) as held:
        assert held.refresh() == rows
        with pytest.warns(UserWarning, match=f"{abs(msgs - headers)} uncommitted rows") as told:
            second_writer(way, path, rows)
        assert len(told) == 1
        assert f"msgs has {msgs} rows, msg_headers {headers}" in str(told[0].message)
        assert held.refresh() == rows + 5
        batch = held.read(0)
        assert batch.tolist() == rows_of(0, rows + 5)[0]
        assert batch.io_groups.tolist() == rows_of(0, rows + 5)[1]
        by_function(stock.to_rawfile, path, rows + 5, rows + 1200)
        assert held.refresh() == rows + 1200
        assert_right(
            {"msgs": held.read(0).tolist(), "msg_headers": from_rawfile(path)["msg_headers"]},
            rows + 1200,
        )
    assert_right(from_rawfile(path), rows + 1200)
    assert_right(stock.from_rawfile(path), rows + 1200)
