"""What following costs: latency, speed beside larpix-control, processor and memory.

Run by hand, on an idle machine: ``python -m tests.bench.follow``.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import numpy as np
from larpix.format import rawhdf5format as stock

from streamer import follow
from tests.bench.files import RANGE, ROWS, fill, messages
from tests.bench.timing import limits, medians
from writer import RawWriter

POLL = 0.05
BATCH, BATCH_SECONDS, BATCHES = 10, 0.02, 500
IDLE_SECONDS = LOAD_SECONDS = 15.0
BIG_BYTES, BIG_BATCH_BYTES = 2_000_000_000, 16 * 1024 * 1024

# Work, unit, what was found, and how much it may be (or has to be, if that is a ratio).
Row = tuple[str, str, float, float]


@contextmanager
def second(*arguments: object) -> Iterator[subprocess.Popen]:
    """Run something in a second process, which is ended here at the latest."""
    command = [sys.executable, "-m", *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


# ----------------------------------------------------------------------------- latency


def write(path: str) -> None:
    """Append small batches at a steady pace, and print when each append had returned."""
    msgs, appended = messages(BATCH, 8), []
    with RawWriter(path) as out:
        print("ready", flush=True)
        sys.stdin.readline()
        begun = time.monotonic()
        for number in range(BATCHES):
            time.sleep(max(0.0, begun + number * BATCH_SECONDS - time.monotonic()))
            out.append(msgs, 1)
            appended.append(time.monotonic())
    print(json.dumps(appended), flush=True)


async def arrivals(path: Path, writer: subprocess.Popen, *, hints: bool) -> list[float]:
    """Return when each message came."""
    async with follow(path, hints=hints, poll=POLL) as live:
        writer.stdin.write(b"go\n")
        writer.stdin.flush()
        return [time.monotonic() async for _ in live]


def latency(folder: Path, *, hints: bool) -> tuple[float, float]:
    """Return median and 99th percentile of the time from an append's return to a message [ms]."""
    path = folder / f"latency-{hints}.h5"
    with second("tests.bench.follow", "write", path) as writer:
        writer.stdout.readline()
        came = anyio.run(lambda: arrivals(path, writer, hints=hints))
        appended = np.repeat(json.loads(writer.stdout.readline()), BATCH)
    # A message can be seen before append returns, which is no latency.
    late = np.maximum(0, np.array(came) - appended)
    return 1e3 * float(np.median(late)), 1e3 * float(np.quantile(late, 0.99))


def latencies(folder: Path) -> list[Row]:
    """Measure with hints and without."""
    with_hints, worst = latency(folder, hints=True)
    without, _ = latency(folder, hints=False)
    return [
        ("latency of a message, hints, p50", "ms", with_hints, 1.0),
        ("latency of a message, hints, p99", "ms", worst, 5.0),
        ("latency of a message, no hints, p50", "ms", without, 1e3 * POLL + 1),
    ]


# ------------------------------------------------------------------------- catching up


def catching_up(folder: Path) -> list[Row]:
    """Read a file that waits, beside larpix-control reading it in polls."""
    rows = []
    for ours in (False, True):
        path = folder / f"catch-up-{ours}.h5"
        fill(path, 8, ROWS, ours=ours)

        def in_polls(path=path):
            for start in range(0, ROWS, RANGE):
                stock.from_rawfile(path, start, start + RANGE)

        async def in_batches(path=path):
            async with follow(path, until=ROWS) as live:
                async for _ in live.batches():
                    pass

        async def in_messages(path=path):
            async with follow(path, until=ROWS) as live:
                async for _ in live:
                    pass

        seconds = medians(
            {
                "stock": in_polls,
                "batches": lambda work=in_batches: anyio.run(work),
                "messages": lambda work=in_messages: anyio.run(work),
            }
        )
        name = f"file of {'RawWriter' if ours else 'larpix-control'}"
        rows += [
            (f"batches(), {name}", "x stock", seconds["stock"] / seconds["batches"], 6.0),
            (f"async for msg, {name}", "x stock", seconds["stock"] / seconds["messages"], 1.2),
        ]
        path.unlink()
    return rows


# --------------------------------------------------------------------------- processor


async def used_while_idle(path: Path, *, hints: bool) -> float:
    """Return the part of a core that a follower takes while nothing comes [%]."""
    async with follow(path, hints=hints, poll=POLL) as live, anyio.create_task_group() as group:

        async def consume() -> None:
            async for _ in live:
                pass

        group.start_soon(consume)
        await anyio.sleep(2.0)
        wall, used = time.perf_counter(), time.process_time()
        await anyio.sleep(IDLE_SECONDS)
        used, wall = time.process_time() - used, time.perf_counter() - wall
        group.cancel_scope.cancel()
    return 100 * used / wall


async def used_at_load(path: Path) -> tuple[float, float]:
    """Return the part of a core that a follower takes at 2x2 load [%], and rows a second."""
    used = wall = rows = 0.0
    async with follow(path, poll=POLL) as live:
        async for batch in live.batches():
            if not wall:
                wall, used, rows = time.perf_counter(), time.process_time(), -len(batch)
            rows += len(batch)
        used, wall = time.process_time() - used, time.perf_counter() - wall
    return 100 * used / wall, rows / wall


def processor(folder: Path) -> list[Row]:
    """Measure what a follower uses while it waits, and at the load of a 2x2 module."""
    path = folder / "idle.h5"
    fill(path, 8, RANGE, ours=False)
    found = [
        (
            "idle, closed file of larpix-control",
            anyio.run(lambda: used_while_idle(path, hints=True)),
        ),
        ("idle, hints off", anyio.run(lambda: used_while_idle(path, hints=False))),
    ]
    path = folder / "held.h5"
    with second("tests.bench.follow", "write", path) as writer:
        writer.stdout.readline()
        found += [
            ("idle, live file of RawWriter", anyio.run(lambda: used_while_idle(path, hints=True)))
        ]
    rows = [(name, "% of a core", part, 1.0) for name, part in found]
    path = folder / "load.h5"
    with second("writer", path, "--load=2x2", f"--seconds={LOAD_SECONDS:g}"):
        part, rate = anyio.run(lambda: used_at_load(path))
    return [*rows, (f"batches() at 2x2 load ({rate:,.0f} rows/s)", "% of a core", part, 10.0)]


# ------------------------------------------------------------------------------ memory


def status(name: str) -> float:
    """Return a size from this process's status [MB]."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024e-6 for line in lines if line.startswith(name))


def grown(path: str, small: str) -> None:
    """Catch up, and print how much memory that took beyond the start."""

    async def work(name: str) -> None:
        async with follow(name, max_batch_bytes=BIG_BATCH_BYTES) as live:
            async for _ in live.batches():
                pass

    anyio.run(work, small)
    start = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # from now on, VmHWM is the most since
    anyio.run(work, path)
    print(status("VmHWM") - start, flush=True)


def memory(folder: Path) -> list[Row]:
    """Measure the most memory while catching up, in a second process."""
    path, small = folder / "big.h5", folder / "small.h5"
    fill(path, 40, BIG_BYTES // (8 + 16 * 40) // RANGE * RANGE, ours=True)
    fill(small, 8, RANGE, ours=True)
    with second("tests.bench.follow", "grown", path, small) as process:
        most = float(process.stdout.readline())
    path.unlink()
    return [("memory while catching up 2 GB", "MB", most, BIG_BATCH_BYTES / 1e6 + 32)]


def main() -> None:
    """Print one table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = latencies(folder) + catching_up(folder) + processor(folder) + memory(folder)
    limits("follow", rows)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["write", path]:
            write(path)
        case ["grown", path, small]:
            grown(path, small)
        case _:
            main()
