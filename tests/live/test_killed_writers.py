"""What a writer had committed when it was killed is there, and nothing wrong is."""

import random
import time
import zlib
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import h5py
import pytest

from streamer import RawFile
from streamer.errors import NotReady
from writer.layout import LayoutError

from .forked import Server, serving
from .writers import KINDS, wrong_rows

SEED = 20261122
KILLS, KILLS_BETWEEN_PAGES = 50, 25
BATCHES = (1, 7, 100, 1000, 8000)


def _watch_until_killed(server: Server, path: Path, held: ExitStack, rng: random.Random):
    """Read a live file until the moment comes at which its writer is killed."""
    file, seen = None, 0
    early = rng.random() < 0.2
    now = time.monotonic()
    end = now + rng.uniform(0, 0.01) if early else now + 30
    delay = rng.uniform(0, 0.06)
    while time.monotonic() < end:
        server.look(0.0005)
        if server.committed and not early:
            early, end = True, min(end, time.monotonic() + delay)
        if file is None:
            try:
                file = held.enter_context(RawFile(path))
            except NotReady:
                continue
        rows = file.refresh()
        assert rows >= seen, "rows were taken back"
        assert not wrong_rows(file.read(seen, rows), seen, rows)
        seen = rows
    server.kill()
    return file, seen


def _is_destroyed(path: Path) -> bool:
    """Tell whether a chunk of a dataset cannot be decompressed, by HDF5 or anybody.

    HDF5 writes the last chunk of a dataset anew with each batch, in its old place if it
    has the same size. A writer that is killed between two pages of it leaves neither.
    """
    data = path.read_bytes()
    with path.open("rb") as raw, h5py.File(raw) as file:
        for dataset in (file["msgs"], file["msg_headers"]):
            for number in range(dataset.id.get_num_chunks() if dataset.compression else 0):
                chunk = dataset.id.get_chunk_info(number)
                try:
                    zlib.decompress(data[chunk.byte_offset :][: chunk.size])
                except zlib.error:
                    return True
    return False


def _left_behind(path: Path, committed: int, batch: int) -> int | None:
    """Open what a writer has left, check all of it, and return how many rows there are."""
    try:
        file = RawFile(path)
    except (NotReady, LayoutError):
        if committed and not _is_destroyed(path):
            raise
        return None
    with file:
        rows = file.refresh()
        assert rows <= committed + batch, "rows that nobody has begun to write"
        assert not wrong_rows(file.read(0, rows), 0, rows)
        assert rows >= committed or _is_destroyed(path), "committed rows are missing"
    return rows


def _one_kill(server: Server, path: Path, rng: random.Random) -> str:
    """Start a writer, kill it, and hold what it has left against what it had promised."""
    batch, size = rng.choice(BATCHES), rng.choice(("plain", "mixed"))
    server.start(path, batch=batch, batches=100_000, size=size)
    with ExitStack() as files:
        held, seen = _watch_until_killed(server, path, files, rng)
        rows = _left_behind(path, server.committed, batch)
        if held is not None and rows is not None:
            assert held.refresh() == rows
            assert not wrong_rows(held.read(seen, rows), seen, rows)
    # And once more, by a reader that nobody in this process has gone before.
    assert rows == _left_behind(path, server.committed, batch)
    if rows is None or rows < server.committed:
        return "destroyed" if server.committed else "nothing to open"
    if server.committed:
        return "all that was committed"
    return "rows nobody had promised" if rows else "empty"


def _many_kills(kind: str, kills: int, folder: Path, preload: Path | None = None) -> Counter:
    rng = random.Random(f"{SEED} {kind}")
    found: Counter = Counter()
    with serving(kind, preload) as server:
        for kill in range(kills):
            path = folder / f"{kill}.h5"
            try:
                found[_one_kill(server, path, rng)] += 1
            except Exception as error:
                error.add_note(f"{kind} writer, kill {kill} of seed {SEED}; the file: {path}")
                raise
            path.unlink(missing_ok=True)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_killed_writer_leaves_every_committed_row(kind: str, tmp_path: Path):
    """After each kill -9, a fresh and a held reader agree on rows that are all right."""
    found = _many_kills(kind, KILLS, tmp_path)
    assert found["all that was committed"] >= 0.7 * KILLS, found


@pytest.mark.parametrize("kind", KINDS)
def test_writer_killed_in_the_middle_of_a_write(kind: str, pages: Path, tmp_path: Path):
    """The same, where the kill falls between two pages of one write more often than not."""
    found = _many_kills(kind, KILLS_BETWEEN_PAGES, tmp_path, pages)
    assert found["all that was committed"] >= 0.5 * KILLS_BETWEEN_PAGES, found


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", KINDS)
def test_many_killed_writers(kind: str, pages: Path, tmp_path: Path):
    """The same, a thousand times for each kind of writer."""
    _many_kills(kind, 500, tmp_path)
    _many_kills(kind, 500, tmp_path, pages)
