"""Writers of many runs, one after the other, each a real second process.

    python -m tests.live.manyruns KIND FOLDER --runs 1000 --batch 3 --batches 1

The files' names are numbers. Run N has the rows from N * `stride` on: so its messages are its
own, and what ``committed`` says is counted through all of them.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from .writers import KINDS, ROOT, Writer, environment, write


def path_of(folder: Path, number: int) -> Path:
    """Return the file of a run."""
    return folder / f"{number:05d}.h5"


@contextmanager
def running_many(
    kind: str,
    folder: Path,
    *,
    runs: int,
    stride: int,
    batch: int,
    batches: int,
    pause: float = 0.0,
    first: int = 0,
) -> Iterator[Writer]:
    """Run a writer of many runs, and see to it that it ends, and ends well."""
    options = {
        "runs": runs,
        "stride": stride,
        "batch": batch,
        "batches": batches,
        "pause": pause,
        "first": first,
    }
    command = [sys.executable, "-W", "error", "-m", "tests.live.manyruns", kind, str(folder)]
    command += [f"--{name}={value}" for name, value in options.items()]
    with (
        TemporaryFile() as complaints,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=complaints, cwd=ROOT, env=environment()
        ) as process,
    ):
        total = (first + runs - 1) * stride + batch * batches
        writer = Writer(process, first * stride, total)
        try:
            yield writer
            status = writer.wait()
        finally:
            process.kill()  # does nothing to one that has ended
        complaints.seek(0)
        assert writer.killed or status == 0, complaints.read().decode()


def main() -> None:
    """Write the runs."""
    parser = argparse.ArgumentParser(prog="python -m tests.live.manyruns")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--stride", type=int, required=True, help="numbers for each run's rows")
    parser.add_argument("--batch", type=int, required=True, help="messages a batch")
    parser.add_argument("--batches", type=int, required=True, help="batches a run")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between batches")
    parser.add_argument("--first", type=int, default=0, help="number of the first run")
    options = parser.parse_args()
    for number in range(options.first, options.first + options.runs):
        write(
            options.kind,
            path_of(options.folder, number),
            batch=options.batch,
            batches=options.batches,
            pause=options.pause,
            first=number * options.stride,
        )


if __name__ == "__main__":
    main()
