"""What reading and writing files costs, beside larpix-control in the same run.

Run by hand, on an idle machine: ``python -m tests.bench.files``.
"""

import tempfile
from pathlib import Path

import numpy as np
import psutil
from larpix.format import rawhdf5format as stock

from streamer import RawFile, from_rawfile
from tests.bench.timing import medians, table
from writer import RawWriter, to_rawfile

RANGE = 6_000
ROWS = 300_000
WORDS = (8, 40)
APPENDS = {10: (200, 8.0), 100: (200, 6.0), 1_000: (60, 3.5), 6_000: (20, 3.5)}
BIG_BYTES = 2_000_000_000


def messages(count: int, words: int) -> list[bytes]:
    """Make messages of so many words, header included."""
    rng = np.random.default_rng(words)
    return [rng.bytes(8 + 16 * words) for _ in range(count)]


def fill(path: Path, words: int, rows: int, *, ours: bool) -> None:
    """Write a file in batches of 6,000, with either writer."""
    msgs, io_groups = messages(RANGE, words), [1 + k % 8 for k in range(RANGE)]
    if ours:
        with RawWriter(path, io_version="0.0") as out:
            for _ in range(rows // RANGE):
                out.append(msgs, io_groups)
    else:
        for _ in range(rows // RANGE):
            stock.to_rawfile(path, msgs, msg_headers={"io_groups": io_groups}, io_version="0.0")


def reading(folder: Path) -> list[tuple[str, str, float, float, float]]:
    """Read files in ranges and whole, with both."""
    rows = []
    for words in WORDS:
        for ours in (False, True):
            path = folder / f"read-{words}-{ours}.h5"
            fill(path, words, ROWS, ours=ours)

            def in_ranges(read, path=path):
                def work():
                    for start in range(0, ROWS, RANGE):
                        read(path, start, start + RANGE)

                return work

            def held(take, path=path):
                def work():
                    with RawFile(path) as raw:
                        for start in range(0, ROWS, RANGE):
                            take(raw.read(start, start + RANGE))

                return work

            seconds = medians(
                {
                    "stock": in_ranges(stock.from_rawfile),
                    "batch": held(len),
                    "list": held(lambda batch: batch.tolist()),
                    "stock whole": lambda path=path: stock.from_rawfile(path),
                    "whole": lambda path=path: from_rawfile(path),
                }
            )
            rate = {name: ROWS / value for name, value in seconds.items()}
            name = f"{words} words, file of {'RawWriter' if ours else 'larpix-control'}"
            rows += [
                (f"read to Batch: {name}", "rows/s", rate["stock"], rate["batch"], 8.0),
                (f"read to list: {name}", "rows/s", rate["stock"], rate["list"], 3.5),
                (f"from_rawfile: {name}", "rows/s", rate["stock whole"], rate["whole"], 2.0),
            ]
            path.unlink()
    return rows


def writing(folder: Path) -> list[tuple[str, str, float, float, float]]:
    """Append batches of several sizes, with all three."""
    rows = []
    for words in WORDS:
        for batch, (count, floor) in APPENDS.items():
            msgs, io_groups = messages(batch, words), [1 + k % 8 for k in range(batch)]
            path = folder / "write.h5"

            def calls(write, path=path, count=count, msgs=msgs, io_groups=io_groups):
                def work():
                    path.unlink(missing_ok=True)
                    for _ in range(count):
                        write(path, msgs, msg_headers={"io_groups": io_groups})

                return work

            def held(path=path, count=count, msgs=msgs, io_groups=io_groups):
                path.unlink(missing_ok=True)
                with RawWriter(path) as out:
                    for _ in range(count):
                        out.append(msgs, io_groups)

            seconds = medians(
                {
                    "stock": calls(stock.to_rawfile),
                    "append": held,
                    "to_rawfile": calls(to_rawfile),
                },
                rounds=5,
            )
            rate = {name: batch * count / value for name, value in seconds.items()}
            name = f"{batch:,} of {words} words"
            rows += [
                (f"RawWriter.append: {name}", "rows/s", rate["stock"], rate["append"], floor),
                (f"to_rawfile: {name}", "rows/s", rate["stock"], rate["to_rawfile"], 1.0),
            ]
    return rows


def memory(folder: Path) -> float:
    """Read 2 GB in ranges; return the most memory that it took beyond the start, in MB."""
    path = folder / "big.h5"
    fill(path, 40, BIG_BYTES // (8 + 16 * 40) // RANGE * RANGE, ours=True)
    process = psutil.Process()
    start = most = process.memory_info().rss
    with RawFile(path) as raw:
        for first in range(0, len(raw), RANGE):
            raw.read(first, min(first + RANGE, len(raw)))
            most = max(most, process.memory_info().rss)
    return (most - start) / 1e6


def main() -> None:
    """Print one table."""
    with tempfile.TemporaryDirectory() as folder:
        peak = memory(Path(folder))
        table("files", reading(Path(folder)) + writing(Path(folder)))
        print(f"memory above the start while reading 2 GB in ranges: {peak:.0f} MB (at most 64)")


if __name__ == "__main__":
    main()
