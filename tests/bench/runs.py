"""What positions, run folders, many consumers and recovery cost.

Run by hand, on an idle machine: ``python -m tests.bench.runs``.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import anyio
import numpy as np

from streamer import Follower, Position, RawFile, broadcast, follow, tail
from streamer.position import anchor_of
from streamer.recover import recover
from streamer.sequence import FIRST
from tests.bench.files import RANGE, fill, messages
from tests.bench.timing import limits
from writer import RawWriter

# Work, unit, what was found, and how much it may be.
Row = tuple[str, str, float, float]

RESUME_ROWS, RUNS, SUBSCRIBERS = 10_000_000, 10_000, 10
SHARED_ROWS, KILLED_BYTES = 1_800_000, 2_000_000_000
ROUNDS = 5


def large(path: Path, rows: int, *, killed: bool = False) -> None:
    """Write so many rows of 8 words, in batches of 6,000."""
    msgs = messages(RANGE, 8)
    buffer, lengths = b"".join(msgs), np.full(RANGE, len(msgs[0]))
    out = RawWriter(path)
    for _ in range(rows // RANGE):
        out.append(buffer, 1 + np.arange(RANGE) % 8, lengths=lengths)
    if killed:
        os.kill(os.getpid(), 9)
    out.close()


def resume(folder: Path) -> list[Row]:
    """Measure how long a follower takes from its making to the first message, far behind."""
    path = folder / "resume.h5"
    large(path, RESUME_ROWS + RANGE)
    with RawFile(path) as raw:
        last = raw.read(RESUME_ROWS - 1, RESUME_ROWS)[0]
        start = Position(RESUME_ROWS, raw.created, raw.run_id, last.row, anchor_of(last))
    size = path.stat().st_size

    async def first() -> float:
        begun = time.perf_counter()
        async with follow(path, start=start) as live:
            assert (await anext(live)).row == RESUME_ROWS
            return time.perf_counter() - begun

    seconds = [anyio.run(first) for _ in range(ROUNDS)]
    path.unlink()
    return [(f"resume at row 10 million of {size / 1e9:.1f} GB", "ms", 1e3 * median(seconds), 50)]


def polls(folder: Path) -> list[Row]:
    """Measure a look at a folder of finished runs, all of which have been given."""
    runs = folder / "runs"
    runs.mkdir()
    for number in range(RUNS):
        with RawWriter(runs / f"{number:05}.h5") as out:
            out.append([b"x"], 1)
    begun = time.perf_counter()
    with tail(runs, start="end", hints=False) as live:
        steps, place = live._steps, FIRST
        while place.row is None:
            place = steps.step(place).place
        first = time.perf_counter() - begun
        seconds = []
        for _ in range(200):
            time.sleep(0.05)
            begun = time.perf_counter()
            steps.step(place)
            seconds.append(time.perf_counter() - begun)
    shutil.rmtree(runs)
    return [
        ("first look at 10,000 finished runs", "s", first, float("inf")),
        ("poll of 10,000 finished runs, p50", "ms", 1e3 * median(seconds), 5),
        ("poll of 10,000 finished runs, worst", "ms", 1e3 * max(seconds), float("inf")),
    ]


async def shared(path: Path, subscribers: int) -> float:
    """Return the processor time of a hub with so many subscribers [s]."""

    async def take(messages) -> None:
        async with messages:
            async for _ in messages:
                pass

    begun = time.process_time()
    follower: Follower = follow(path)
    async with broadcast(follower) as hub, anyio.create_task_group() as tasks:
        for _ in range(subscribers):
            tasks.start_soon(take, hub.subscribe())
    return time.process_time() - begun


def consumers(folder: Path) -> list[Row]:
    """Measure what ten subscribers cost more than one."""
    path = folder / "shared.h5"
    fill(path, 8, SHARED_ROWS, ours=True)
    used: dict[int, list[float]] = {1: [], SUBSCRIBERS: []}
    for _ in range(ROUNDS):
        for count, seconds in used.items():
            seconds.append(anyio.run(lambda count=count: shared(path, count)))
    path.unlink()
    ratio = median(used[SUBSCRIBERS]) / median(used[1])
    return [("10 subscribers against 1, batches, CPU", "x", ratio, 1.5)]


def recovery(folder: Path) -> list[Row]:
    """Measure a recovery beside a plain copy of the same file."""
    path, copy = folder / "killed.h5", folder / "copy.h5"
    command = [sys.executable, "-m", "tests.bench.runs", "killed", path]
    subprocess.run(command, check=False)
    works = {
        "copy": lambda: subprocess.run(["cp", path, copy], check=True),
        "recover": lambda: recover(path, copy),
    }
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(3):
        for name, work in works.items():
            # What earlier writes left to do would be counted with this one.
            os.sync()
            begun = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - begun)
            copy.unlink()
    ratio = median(seconds["recover"]) / median(seconds["copy"])
    size = path.stat().st_size
    return [(f"recover of {size / 1e9:.1f} GB against cp, wall time", "x", ratio, 6)]


def main() -> None:
    """Print one table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = resume(folder) + polls(folder) + consumers(folder) + recovery(folder)
    limits("runs", rows)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["killed", path]:
            large(Path(path), KILLED_BYTES // 153, killed=True)
        case _:
            main()
