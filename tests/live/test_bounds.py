"""What following costs at the most: memory, stalls of the loop, and hints that fail."""

import ctypes
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median

import anyio
import h5py
import numpy as np
import pytest

from streamer import follow, tail
from streamer.wake import Hints
from writer import RawWriter

from .writers import ROOT, check, environment, io_group, message, running, wrong_rows

MB = 1_000_000
WAYS = ["asyncio", "trio", "tail"]
BIG = 6144
CLONE_NEWUSER = 0x10000000


@contextmanager
def program(*arguments: object) -> Iterator[subprocess.Popen]:
    """Run one of the programs at the end of this file, which is ended here at the latest."""
    command = [sys.executable, "-W", "error", "-m", "tests.live.test_bounds"]
    with subprocess.Popen(
        [*command, *map(str, arguments)],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def answer(process: subprocess.Popen) -> dict:
    """Return the line of JSON that a program says next."""
    line = process.stdout.readline()
    assert line, "the program has failed"
    return json.loads(line)


def fill(path: Path, size: int, length: int = BIG) -> int:
    """Make a file of so many bytes; return its number of rows."""
    count = 30 * MB // length
    block = np.random.default_rng(length).bytes(length * count)
    rows = 0
    with RawWriter(path) as out:
        while rows * length < size:
            rows = out.append(block, 1, lengths=[length] * count).stop
    return rows


def write_small(folder: Path) -> None:
    with RawWriter(folder / "small.h5") as out:
        out.append([b"small"] * 10, 1)


# ------------------------------------------------------------------------------ memory


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """A file of 300 MB, and its rows. Beside it a small one, to get ready with."""
    folder = tmp_path_factory.mktemp("waiting")
    write_small(folder)
    yield folder / "raw.h5", fill(folder / "raw.h5", 300 * MB)
    shutil.rmtree(folder)


def grown(path: Path, rows: int, way: str, grain: str, max_batch_bytes: int) -> float:
    """Follow a file with a consumer that sleeps; return how much memory that took [bytes]."""
    with program("memory", path, way, grain, max_batch_bytes) as process:
        report = answer(process)
    assert report["rows"] == rows
    # It would be strange otherwise: a batch at least has to be there.
    assert report["grown"] > max_batch_bytes / 3
    return report["grown"]


@pytest.mark.parametrize(
    ("way", "grain", "max_batch_bytes"),
    [
        ("asyncio", "batches", 16 << 20),
        ("asyncio", "messages", 64 << 20),
        ("trio", "messages", 16 << 20),
        ("tail", "batches", 64 << 20),
        ("tail", "messages", 2 << 20),
    ],
)
def test_memory(way: str, grain: str, max_batch_bytes: int, waiting: tuple[Path, int]):
    """While 300 MB wait for a consumer that sleeps, one batch is held, and little more."""
    assert grown(*waiting, way, grain, max_batch_bytes) < max_batch_bytes + 32 * MB


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_memory_of_two_gigabytes(tmp_path: Path):
    """The same while 2 GB wait: it does not grow with the file."""
    path = tmp_path / "raw.h5"
    write_small(tmp_path)
    rows = fill(path, 2000 * MB)
    for way in WAYS:
        for grain in ("batches", "messages"):
            assert grown(path, rows, way, grain, 16 << 20) < (16 << 20) + 32 * MB
    path.unlink()


# ----------------------------------------------------------------------- the event loop


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file of messages of 64 kB: one step can read hundreds of megabytes of them."""
    folder = tmp_path_factory.mktemp("huge")
    fill(folder / "raw.h5", 300 * MB, 64_000)
    yield folder / "raw.h5"
    shutil.rmtree(folder)


async def largest_gap(path: Path, grain: str, max_batch_bytes: int) -> float:
    """Follow a file to its end; return for how long another task was kept waiting [s]."""
    gaps = []

    async def tick(*, task_status) -> None:
        task_status.started()
        last = time.perf_counter()
        while True:
            await anyio.sleep(0.001)
            now = time.perf_counter()
            gaps.append(now - last - 0.001)
            last = now

    async with (
        anyio.create_task_group() as group,
        follow(path, max_batch_bytes=max_batch_bytes) as live,
    ):
        await group.start(tick)
        if grain == "batches":
            async for _ in live.batches():
                pass
        else:
            async for _ in live:
                pass
        assert live.outcome == "finished"
        group.cancel_scope.cancel()
    assert len(gaps) > 3
    return max(gaps)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(
    ("grain", "max_batch_bytes"),
    [("batches", 256 << 20), ("messages", 256 << 20), ("messages", 16 << 20)],
)
def test_loop_is_not_kept_waiting(grain: str, max_batch_bytes: int, backend: str, huge: Path):
    """While a step reads for a tenth of a second, other tasks of the loop run on."""
    for _ in range(12):  # a machine can be busy with something else
        work = partial(anyio.run, largest_gap, huge, grain, max_batch_bytes, backend=backend)
        gap = median(work() for _ in range(5))
        if gap < 0.02:
            break
    assert gap < 0.02


# --------------------------------------------------------------------- hints that fail


@pytest.mark.parametrize("limit", ["max_inotify_instances", "max_inotify_watches"])
@pytest.mark.parametrize("way", WAYS)
def test_inotify_is_exhausted(way: str, limit: str, tmp_path: Path):
    """Where the system has no watch to give, the rows are the same, and nothing is left."""
    path = tmp_path / "raw.h5"
    with program("exhausted", path, way, limit) as process:
        if (begun := answer(process)) == "no namespace":
            pytest.skip("this system gives no user namespace, so its limits cannot be lowered")
        assert begun == f"{path}: absent; waiting for it"
        with running("rawwriter", path, batch=100, batches=20, pause=0.01) as writer:
            writer.wait()
        report = answer(process)
        assert process.wait(30) == 0
    assert (report["rows"], report["wrong"], report["outcome"]) == (2000, [], "finished")
    assert report["threads"] == 1
    assert not [name for name in report["descriptors"] if "inotify" in name]
    (line,) = [line for line in report["logged"] if "cannot be watched, only polled" in line]
    assert str(path.parent) in line


@pytest.fixture(scope="module")
def busy_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which a process writes to 10,000 files, as fast as it can."""
    folder = tmp_path_factory.mktemp("busy")
    with program("busy", folder, 10_000) as process:
        assert answer(process) == "ready"
        yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("way", WAYS)
def test_folder_of_busy_files(way: str, busy_folder: Path):
    """Among 10,000 files that are written all the time, the rows come, and the close too."""
    path = busy_folder / f"{way}.h5"
    with (
        program("follow", path, way, "messages", "finished") as process,
        running("rawwriter", path, batch=100, batches=30, pause=0.02) as writer,
    ):
        writer.wait()
        begun = time.monotonic()
        report = answer(process)
        took = time.monotonic() - begun
        assert process.wait(30) == 0
    assert (report["rows"], report["wrong"], report["outcome"]) == (3000, [], "finished")
    assert report["threads"] == 1
    assert took < 10


@pytest.mark.parametrize("way", WAYS)
def test_hints_that_never_come(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where the system accepts a watch and is silent, as for a file server, polling finds all."""

    class Silent(Hints):
        def __init__(self, folder: Path, pattern: str, notify) -> None:
            super().__init__(folder, f"another {pattern}", notify)
            silent.append(self)

    silent: list[Hints] = []
    monkeypatch.setattr("streamer.following.Hints", Silent)
    path = tmp_path / "raw.h5"
    with running("rawwriter", path, batch=100, batches=20, pause=0.01) as writer:
        report = followed(path, way, "messages", "finished")
        writer.wait()
    assert silent
    assert (report["rows"], report["wrong"], report["outcome"]) == (2000, [], "finished")


# --------------------------------------------------------------------- as data is taken


@pytest.mark.parametrize(
    "seconds",
    [
        3,
        pytest.param(60, marks=[pytest.mark.nightly, pytest.mark.timeout(300)]),
    ],
)
def test_data_taking(seconds: int, tmp_path: Path):
    """Beside five followers the stock loop loses no batch, and all of them see every row."""
    path = tmp_path / "raw.h5"
    batches = 10 * seconds
    rows = 6000 * batches
    with ExitStack() as stack:
        processes = [
            stack.enter_context(program("follow", path, way, grain, rows))
            for way, grain in [
                ("asyncio", "batches"),
                ("asyncio", "messages"),
                ("trio", "batches"),
                ("tail", "messages"),
                ("tail", "batches"),
            ]
        ]
        daq = stack.enter_context(program("daq", path, batches))
        report, _ = daq.communicate(timeout=200)
        assert json.loads(report)["failed"] == []
        for process in processes:
            report = answer(process)
            assert (report["rows"], report["wrong"], report["outcome"]) == (rows, [], "row")
    with h5py.File(path) as file:
        assert len(file["msgs"]) == len(file["msg_headers"]) == rows


# ------------------------------------------------------------- programs of a second process


def say(found: object) -> None:
    print(json.dumps(found), flush=True)


async def by_follow(path: Path, grain: str, take, **options) -> str:
    async with follow(path, **options) as live:
        if grain == "batches":
            async for batch in live.batches():
                take(batch)
        else:
            async for found in live:
                take(found)
        return live.outcome


def by_any(path: Path, way: str, grain: str, take, **options) -> str:
    """Give all that comes to a function; return the outcome."""
    if way != "tail":
        return anyio.run(partial(by_follow, path, grain, take, **options), backend=way)
    with tail(path, **options) as live:
        for found in live.batches() if grain == "batches" else live:
            take(found)
        return live.outcome


def followed(path: Path, way: str, grain: str, until: str) -> dict:
    """Follow a file of checkable rows, and say what was seen and what is left."""
    rows, wrong = 0, []
    logged: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: logged.append(record.getMessage())
    logger = logging.getLogger("streamer")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)

    def take(found) -> None:
        nonlocal rows
        if grain == "batches":
            wrong.extend(wrong_rows(found, rows, rows + len(found)))
            rows += len(found)
            return
        if (found.row, found.io_group) != (rows, io_group(rows)) or not check(rows, found.data):
            wrong.append(rows)
        rows += 1

    until = int(until) if until.isdecimal() else until
    try:
        outcome = by_any(path, way, grain, take, until=until)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    deadline = time.monotonic() + 5
    while threading.active_count() > 1 and time.monotonic() < deadline:
        if {thread.name[:11] for thread in threading.enumerate()} <= {"MainThread", "Trio thread"}:
            break  # trio's idle threads stay for a while
        time.sleep(0.01)
    threads = [t for t in threading.enumerate() if not t.name.startswith("Trio thread")]
    descriptors = []
    for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            descriptors.append(os.readlink(f"/proc/self/fd/{entry}"))  # noqa: PTH115
        except OSError:
            continue
    return {
        "rows": rows,
        "wrong": wrong,
        "outcome": outcome,
        "threads": len(threads),
        "descriptors": descriptors,
        "logged": logged,
    }


def exhausted(path: str, way: str, limit: str) -> None:
    """Follow a file in a user namespace of its own that has no watches."""
    if ctypes.CDLL(None).unshare(CLONE_NEWUSER):
        say("no namespace")
        return
    Path("/proc/sys/user", limit).write_text("0")
    # It asks for a watch once it has to wait; a writer that is faster would leave it no reason.
    waits = logging.Handler(logging.WARNING)
    waits.emit = lambda record: say(record.getMessage())
    logging.getLogger("streamer.follow").addHandler(waits)
    say(followed(Path(path), way, "batches", "finished"))


def busy(folder: str, count: str) -> None:
    """Write to many files, until killed."""
    names = [str(Path(folder, f"other-{number}")) for number in range(int(count))]
    for name in names:
        Path(name).touch()
    say("ready")
    rng = random.Random(1)
    parent = os.getppid()
    while os.getppid() == parent:  # it must not outlive the test, whatever becomes of that
        with open(rng.choice(names), "ab") as file:  # noqa: PTH123 - as fast as it can
            file.write(b"x")
            file.truncate(0)


def daq(path: str, batches: str) -> None:
    """Take data as larpix-control does: a call of its to_rawfile ten times a second."""
    from larpix.format.rawhdf5format import to_rawfile

    failed = []
    begun = time.monotonic()
    for batch in range(int(batches)):
        rows = range(batch * 6000, batch * 6000 + 6000)
        msgs = [message(row, 136) for row in rows]
        time.sleep(max(0.0, begun + 0.1 * batch - time.monotonic()))
        try:
            to_rawfile(path, msgs=msgs, msg_headers={"io_groups": [io_group(k) for k in rows]})
        except Exception as error:  # noqa: BLE001 - a batch that is lost
            failed.append(repr(error))
    say({"failed": failed})


def memory(path: str, way: str, grain: str, max_batch_bytes: str) -> None:
    """Follow a file with a consumer that sleeps at first, and say what memory it took."""
    by_any(Path(path).with_name("small.h5"), way, grain, lambda _: None)
    start = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # from now on, VmHWM is the most since
    rows = pauses = 0

    def take(found) -> None:
        nonlocal rows, pauses
        rows += len(found) if grain == "batches" else 1
        if pauses < 10 and rows > 100 * pauses:
            pauses += 1
            time.sleep(0.03)

    by_any(Path(path), way, grain, take, max_batch_bytes=int(max_batch_bytes))
    say({"rows": rows, "grown": resident("VmHWM") - start})


def resident(name: str) -> int:
    """Return a size from the process's status [bytes]."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


def main(name: str, *arguments: str) -> None:
    if name == "follow":
        path, way, grain, until = arguments
        say(followed(Path(path), way, grain, until))
    else:
        {"exhausted": exhausted, "busy": busy, "daq": daq, "memory": memory}[name](*arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
