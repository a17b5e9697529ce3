"""What killed writers leave is recovered: every committed row, for everybody to read."""

import hashlib
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import pytest

from streamer import RawFile
from streamer.errors import NotReady
from streamer.recover import CannotRecover, recover
from writer.layout import LayoutError

from .forked import Server, serving
from .test_killed_writers import _is_destroyed
from .writers import KINDS, ROOT, check, environment, io_group, running

SEED = 20261123
BATCHES = (1, 7, 100, 1000, 4000)
AN_HOUR = 3600

# Reads the files that it is told of with larpix-control, and says what is in them.
STOCK_READER = """
import hashlib, sys
from larpix.format.rawhdf5format import from_rawfile
for line in sys.stdin:
    found = from_rawfile(line.strip())
    whole = hashlib.sha256(bytes(found["msg_headers"]["io_groups"]))
    for message in found["msgs"]:
        whole.update(bytes(message))
    print(len(found["msgs"]), whole.hexdigest(), flush=True)
"""


@contextmanager
def stock_reader() -> Iterator[Callable[[Path], str]]:
    """Read files with larpix-control in another process, as it changes the environment."""
    with subprocess.Popen(
        [sys.executable, "-c", STOCK_READER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=environment(),
        text=True,
    ) as process:

        def read(path: Path) -> str:
            process.stdin.write(f"{path}\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        yield read
        process.stdin.close()


def contents(path: Path) -> tuple[list[bytes], list[int]]:
    with h5py.File(path) as file:
        return [row.tobytes() for row in file["msgs"]], file["msg_headers"]["io_groups"].tolist()


def left_by_a_killed_writer(server: Server, path: Path, rng: random.Random) -> None:
    """Start a writer, and kill it some time after its first batch or, rarely, before."""
    server.start(path, batch=rng.choice(BATCHES), batches=100_000, size=rng.choice(SIZES))
    end = time.monotonic() + 30
    if rng.random() > 0.1:
        while not server.committed and time.monotonic() < end:
            server.look(0.0005)
    end = time.monotonic() + rng.uniform(0, 0.03)
    while time.monotonic() < end:
        server.look(0.0005)
    server.kill()
    if path.exists():  # a foreign writer is dead once it has not written for long
        os.utime(path, (time.time() - AN_HOUR,) * 2)


SIZES = ("plain", "mixed")


def one_recovery(server: Server, path: Path, rng: random.Random, read: Callable) -> str:
    left_by_a_killed_writer(server, path, rng)
    before = path.read_bytes() if path.exists() else None
    copy = path.with_suffix(".copy.h5")
    try:
        done = recover(path, copy)
    except (NotReady, LayoutError):
        assert not server.committed or _is_destroyed(path)
        assert not copy.exists()
        return "nothing to open"
    assert path.read_bytes() == before
    assert copy.exists() == (done.out is not None)
    found = copy if done.out else path
    msgs, groups = contents(found)
    assert len(msgs) == len(groups) == done.rows
    lost = {row for left in done.left for row in range(left.start, left.stop)}
    rows = [row for row in range(done.rows + len(lost)) if row not in lost]
    for row, data, group in zip(rows, msgs, groups, strict=False):
        assert check(row, data), f"row {row} is wrong"
        assert group == io_group(row)
    assert rows[: server.committed] == list(range(server.committed)) or _is_destroyed(path)
    whole = hashlib.sha256(bytes(groups))
    for data in msgs:
        whole.update(data)
    assert read(found) == f"{len(msgs)} {whole.hexdigest()}"
    if done.out:
        with RawFile(copy) as raw:
            assert raw.finished
        assert recover(copy, path.with_suffix(".again.h5")).nothing_wrong
        copy.unlink()
    return "recovered" if done.out else "nothing wrong"


def many_recoveries(kind: str, kills: int, folder: Path, preload: Path | None = None) -> Counter:
    rng = random.Random(f"{SEED} {kind}")
    found: Counter = Counter()
    with serving(kind, preload) as server, stock_reader() as read:
        for kill in range(kills):
            path = folder / f"{kill}.h5"
            try:
                found[one_recovery(server, path, rng, read)] += 1
            except Exception as error:
                error.add_note(f"{kind} writer, kill {kill} of seed {SEED}; the file: {path}")
                raise
            path.unlink(missing_ok=True)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_killed_writers_are_recovered(kind: str, tmp_path: Path):
    """Committed rows are in the copy, h5py and larpix-control read it, the original stays."""
    found = many_recoveries(kind, 2, tmp_path)
    assert found["recovered"] + found["nothing wrong"] >= 1, found


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", KINDS)
def test_many_files_of_killed_writers_are_recovered(kind: str, pages: Path, tmp_path: Path):
    """The same, 50 times for each kind, and 50 times killed between pages of a write."""
    found = many_recoveries(kind, 50, tmp_path)
    found += many_recoveries(kind, 50, tmp_path, pages)
    assert found["recovered"] + found["nothing wrong"] >= 70, found


@pytest.mark.parametrize("kind", ["rawwriter", "file"])
def test_file_that_is_being_written_is_refused(kind: str, tmp_path: Path):
    """There is nothing to recover, and no copy is begun."""
    path = tmp_path / "raw.h5"
    with running(kind, path, batch=10, batches=100_000, pause=0.01) as live:
        live.wait_for(50)
        with pytest.raises(CannotRecover, match="is being written"):
            recover(path, tmp_path / "copy.h5")
        live.kill()
    assert [entry.name for entry in tmp_path.iterdir()] == ["raw.h5"]
