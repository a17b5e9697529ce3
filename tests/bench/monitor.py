"""What a Monitor costs: hits a second of a file, and of a live one; and memory.

Part of ``python -m tests.bench.packets``; alone, ``python -m tests.bench.monitor``.
"""

import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anyio

from streamer import follow, tail
from streamer.monitor import Monitor
from tests.bench.follow import second
from tests.bench.timing import limits, medians
from writer import RawWriter
from writer.simulate import Load, simulate

# Work, unit, what was found, and how much it may be.
Row = tuple[str, str, float, float]

#: 2x2 with 8 words in a message: 400,000 channels, all of them sending.
LOAD = Load(io_groups=8, tiles=8, messages_per_second=7_750, words_per_message=8)
SECONDS, LIVE_SECONDS = 4, 15
# The low end of the full ND-LAr, and the high one, if thresholds are as low as in 2x2 [Hz].
LOW, HIGH = 14e6, 26e6


def through(path: Path, monitor: Monitor) -> None:
    """Read, decode and count a whole file."""
    for packets in tail(path, until="end").packets():
        monitor.update(packets)


def catching_up(folder: Path) -> list[Row]:
    """Count a file that waits, with both engines."""
    path = folder / "monitor.h5"
    with RawWriter(path, io_version="0.0") as out:
        for batch in simulate(LOAD, seconds=SECONDS):
            out.append(batch.tolist(), batch.io_groups)
    monitors = {name: Monitor(engine=name) for name in ("numba", "numpy")}
    works = {
        name: lambda monitor=monitor: through(path, monitor) for name, monitor in monitors.items()
    }
    seconds = medians(works)
    # Each has gone through the file once for each round, and once before.
    hits = monitors["numba"].snapshot().totals["data"].sum() / 8
    path.unlink()
    cost = {name: value / hits for name, value in seconds.items()}
    rate = {name: f"({1e-6 / value:.1f} M hits/s)" for name, value in cost.items()}
    return [
        (f"file to Monitor, numba {rate['numba']}", "ns/hit", 1e9 * cost["numba"], 1e9 / LOW),
        (f"file to Monitor, numpy {rate['numpy']}", "ns/hit", 1e9 * cost["numpy"], math.inf),
        ("what 26 million hits/s take of it", "processes", HIGH * cost["numba"], HIGH / LOW),
    ]


async def used_live(path: Path, engine: str) -> tuple[float, float]:
    """Return the part of a core that a live Monitor takes [%], and hits a second."""
    monitor = Monitor(engine=engine)
    wall = used = shown = 0.0
    async with follow(path) as live:
        async for packets in live.packets():
            monitor.update(packets)
            now = time.perf_counter()
            if now > shown + 1:
                shown = now
                snapshot = monitor.snapshot(time.time())
                if not wall:  # the first second compiles
                    before = snapshot.totals["data"].sum()
                    wall, used = time.perf_counter(), time.process_time()
        used, wall = time.process_time() - used, time.perf_counter() - wall
    hits = monitor.snapshot().totals["data"].sum() - before
    return 100 * used / wall, hits / wall


def living(folder: Path) -> list[Row]:
    """Follow 2x2 live, with a snapshot each second, with both engines."""
    rows = []
    for engine in ("numba", "numpy"):
        path = folder / f"live-{engine}.h5"
        with second("writer", path, "--load=2x2", f"--seconds={LIVE_SECONDS}"):
            part, rate = anyio.run(used_live, path, engine)
        rows.append((f"live 2x2, {engine} ({rate:,.0f} hits/s)", "% of a core", part, 20.0))
    return rows


def memory() -> list[Row]:
    """Count hits of 400,000 channels, in a second process."""
    command = [sys.executable, "-m", "tests.monitor.memory"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    alone, with_snapshot = map(int, done.stdout.split())
    return [
        ("memory of a Monitor, 400,000 channels", "MB", alone / 1e6, 200.0),
        ("the same, while it takes a snapshot", "MB", with_snapshot / 1e6, 200.0),
    ]


def monitoring(folder: Path) -> list[Row]:
    """Measure all of it."""
    return catching_up(folder) + living(folder) + memory()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        limits("monitor", monitoring(Path(name)))
