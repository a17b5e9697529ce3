"""A RawFile that is held open sees every row of every kind of writer, and no other."""

import time
from contextlib import closing
from pathlib import Path

import pytest

from streamer import RawFile
from writer import RawWriter

from .reader import open_soon
from .writers import KINDS, Writer, io_group, message, running, size_of, wrong_rows

IN_PLACE_SECONDS = 1.0
FLAGS = 11  # where the superblock says that the file is open for writing

# By messages a batch: how many batches, what pause between them, which sizes of messages.
PACE = {1: (600, 0.001, "plain"), 100: (400, 0.001, "mixed"), 8000: (20, 0.02, "mixed")}


class Reading:
    """One held RawFile, and how far it was read and found right."""

    def __init__(self, file: RawFile, writer: Writer, batch: int):
        self.file, self._writer, self._batch = file, writer, batch
        self.seen = self.steps = 0

    def look(self) -> int:
        """Refresh, read what is new, check all of it; return how many rows were new."""
        before = self._writer.committed
        rows = self.file.refresh()
        # HDF5 rewrites the last chunk in its old place; meanwhile nobody can read it.
        deadline = time.monotonic() + IN_PLACE_SECONDS
        while rows < before and time.monotonic() < deadline:
            rows = self.file.refresh()
        after = self._writer.committed
        assert len(self.file) == rows
        assert rows >= self.seen, "rows were taken back"
        assert rows >= before, "committed rows are missing"
        assert rows <= after + self._batch, "rows were seen that nobody has begun to write"
        new, start = rows - self.seen, self.seen
        if new:
            assert not wrong_rows(self.file.read(start, rows), start, rows)
            self.seen = rows
            self.steps += 1
        return new

    def reach(self, rows: int, timeout: float = 60.0) -> None:
        """Look until so many rows were seen."""
        deadline = time.monotonic() + timeout
        while self.seen < rows:
            assert time.monotonic() < deadline, f"{self.seen} of {rows} rows"
            self.look()

    def to_the_end(self, timeout: float = 60.0) -> None:
        """Look until the writer has ended and every row was seen."""
        deadline = time.monotonic() + timeout
        while not self._writer.ended:
            assert time.monotonic() < deadline, f"{self.seen} of {self._writer.total} rows"
            if not self.look():
                time.sleep(0.0005)
        self.look()
        assert self.seen == self._writer.total


@pytest.mark.parametrize("batch", PACE)
@pytest.mark.parametrize("kind", KINDS)
def test_reader_held_from_the_beginning_sees_every_row(kind: str, batch: int, tmp_path: Path):
    """One handle, opened at the first possible moment, sees all rows right and in order."""
    path = tmp_path / "raw.h5"
    batches, pause, size = PACE[batch]
    with (
        running(kind, path, batch=batch, batches=batches, pause=pause, size=size) as writer,
        open_soon(path) as file,
    ):
        reading = Reading(file, writer, batch)
        reading.to_the_end()
        assert reading.steps > 1, "nothing was read while it was written"
        assert not wrong_rows(file.read(0, writer.total), 0, writer.total)


@pytest.mark.parametrize("kind", KINDS)
def test_reader_that_comes_late_sees_every_row(kind: str, tmp_path: Path):
    """A file opened in the middle of the run gives all of it, from the first row."""
    path = tmp_path / "raw.h5"
    with running(kind, path, batch=300, batches=100, pause=0.002, size="mixed") as writer:
        writer.wait_for(writer.total // 2)
        with open_soon(path) as file:
            reading = Reading(file, writer, 300)
            assert reading.look() >= writer.total // 2
            assert not writer.ended, "the reader came too late to be of use"
            reading.to_the_end()


@pytest.mark.parametrize("kind", KINDS)
def test_two_readers_in_one_process_do_not_disturb_each_other(kind: str, tmp_path: Path):
    """Two handles on one live file each see all rows, also after the other was closed."""
    path = tmp_path / "raw.h5"
    with (
        running(kind, path, batch=100, batches=300, pause=0.002, size="mixed") as writer,
        open_soon(path) as file,
    ):
        first = Reading(file, writer, 100)
        first.reach(writer.total // 4)
        with RawFile(path) as other:
            second = Reading(other, writer, 100)
            while first.seen < writer.total // 2:
                first.look()
                second.look()
            assert second.seen >= writer.total // 4
        first.to_the_end()
        with RawFile(path) as last:
            Reading(last, writer, 100).to_the_end()


@pytest.mark.parametrize("kind", KINDS)
def test_message_that_is_written_in_part_is_not_seen(kind: str, pages: Path, tmp_path: Path):
    """A writer that stops between any two pages shows no message before all of it is there."""
    path = tmp_path / "raw.h5"
    with (
        running(kind, path, batch=100, batches=60, size="mixed", preload=pages) as writer,
        open_soon(path) as file,
    ):
        Reading(file, writer, 100).to_the_end()


def test_reader_and_writer_in_one_process(tmp_path: Path):
    """RawFile and RawWriter share a process; the writer's close is a real one all the same."""
    path = tmp_path / "raw.h5"
    out = RawWriter(path)
    with closing(out), open_soon(path) as file:
        seen = 0
        for batch in (1, 2, 50, 1000, 1, 5000, 3):
            rows = range(seen, seen + batch)
            sizes = [size_of(row, "mixed") for row in rows]
            msgs = [message(row, size) for row, size in zip(rows, sizes, strict=True)]
            assert out.append(msgs, io_groups=[io_group(row) for row in rows]) == rows
            assert file.refresh() == len(file) == out.rows == rows.stop
            assert not wrong_rows(file.read(seen, rows.stop), seen, rows.stop)
            seen = rows.stop
        out.close()
        assert path.read_bytes()[FLAGS] == 0, "the file still says that a writer has it open"
        with running("stock", path, batch=100, batches=20, first=seen) as writer:
            reading = Reading(file, writer, 100)
            reading.to_the_end()
        assert not wrong_rows(file.read(0, writer.total), 0, writer.total)
