"""A folder of thousands of small runs, while new ones are written: each row once, in order."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import h5py
import pytest

from streamer.checkpoint import Checkpoint

from .followers import Lives, row_of, serving_lives
from .manyruns import running_many

NIGHTLY = [pytest.mark.nightly, pytest.mark.timeout(1800)]
STRIDE = 1000
OLD_ROWS = 3
# The numbers of the files are not in the order in which they were made.
STOCK, OURS, MORE, NEW = 50_000, 10_000, 30_000, 90_000
# So long the new ones are written, of which the last two overlap.
NEW_RUNS = {"batch": 5, "batches": 60, "pause": 0.04}
NEW_ROWS = 300
OLD_SECONDS = 2 * 24 * 3600.0


def write_old(folder: Path, runs: int) -> None:
    """Write so many runs that have ended, by three writers at once, and make them look old."""
    stock = min(60, runs // 5)
    ours = (runs - stock) // 2
    own = {"stride": STRIDE, "batch": OLD_ROWS, "batches": 1}
    with (
        running_many("stock", folder, first=STOCK, runs=stock, **own),
        running_many("rawwriter", folder, first=OURS, runs=ours, **own),
        running_many("rawwriter", folder, first=MORE, runs=runs - stock - ours, **own),
    ):
        pass
    then = time.time() - OLD_SECONDS
    for path in folder.iterdir():
        os.utime(path, (then, then))


def created(path: Path) -> float:
    with h5py.File(path, "r", locking=False) as file:
        return float(file["meta"].attrs["created"])


def in_order(folder: Path) -> list[int]:
    """Return the numbers of all runs in the order in which they were made, by h5py's word."""
    return [
        int(path.stem) for _, path in sorted((created(path), path) for path in folder.iterdir())
    ]


@contextmanager
def three_new_ones(folder: Path) -> Iterator[None]:
    """Write one after the other; before the second has ended, the third begins."""

    def one(number: int, kind: str):
        return running_many(kind, folder, first=NEW + number, runs=1, stride=STRIDE, **NEW_RUNS)

    with ExitStack() as others:
        with one(2, "rawwriter") as first:
            yield
            first.wait()
        second = others.enter_context(one(1, "stock"))
        second.wait_for(second.total - NEW_ROWS // 2)
        third = others.enter_context(one(0, "datasets"))
        third.wait_for((NEW + 0) * STRIDE + 5)
        assert not second.ended, "they do not overlap"


def rows_given(lives: Lives) -> list[tuple[int, int]]:
    """Return what was given, as parts of runs: neighbours in one run are joined."""
    parts: list[tuple[int, int]] = []
    for start, stop, _ in lives.given:
        if parts and parts[-1][1] == start and start % STRIDE:
            parts[-1] = parts[-1][0], stop
        else:
            parts.append((start, stop))
    return parts


@pytest.mark.parametrize("grain", ["batches", pytest.param("messages", marks=NIGHTLY)])
@pytest.mark.parametrize(
    "way", ["asyncio", *(pytest.param(way, marks=NIGHTLY) for way in ("trio", "tail"))]
)
@pytest.mark.parametrize("runs", [300, pytest.param(2000, marks=NIGHTLY)])
def test_each_row_of_each_run_once(runs: int, way: str, grain: str, tmp_path: Path):
    """Old runs and new ones as they were made; and after a restart only what is new."""
    folder, state = tmp_path / "runs", tmp_path / "state.json"
    folder.mkdir()
    write_old(folder, runs)
    old = [path.name for path in folder.iterdir()]
    options = {
        "way": way,
        "grain": grain,
        "stride": STRIDE,
        "checkpoint": str(state),
        "rotate_grace": 1.0,
        "counts": True,
    }
    with serving_lives() as lives:
        with three_new_ones(folder):
            lives.start(folder, **options, stop=NEW * STRIDE + NEW_ROWS)
        assert lives.until("outcome")
        lives.kill()
        numbers = in_order(folder)
        assert numbers[-3:] == [NEW + 2, NEW + 1, NEW]
        assert len(old) == runs == len(numbers) - 3
        expected = [
            (number * STRIDE, number * STRIDE + (NEW_ROWS if number >= NEW else OLD_ROWS))
            for number in numbers
        ]
        assert rows_given(lives) == expected
        opened = json.loads(lives.answer("opened"))
        # Once for what it says of itself, and once for its rows.
        assert {opened.pop(name) for name in old} == {2}
        print(runs, way, grain, "new ones opened:", opened)

        # What was in hand when it left comes again, and nothing else.
        begin, stop, _ = lives.given[-1]
        assert row_of(Checkpoint(state).load(), STRIDE) == begin
        lives.start(folder, **options, until="end")
        assert lives.until("outcome")
        lives.kill()
        assert [(start, stop) for start, stop, _ in lives.given] == [(begin, stop)]
        assert not set(json.loads(lives.answer("opened"))) & set(old)

        lives.start(folder, **options, stop=(NEW + 5) * STRIDE + NEW_ROWS)
        with running_many("rawwriter", folder, first=NEW + 5, runs=1, stride=STRIDE, **NEW_RUNS):
            pass
        assert lives.until("outcome")
        lives.kill()
        assert rows_given(lives) == [((NEW + 5) * STRIDE, (NEW + 5) * STRIDE + NEW_ROWS)]
        assert not set(json.loads(lives.answer("opened"))) & set(old)
