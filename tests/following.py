"""Files to follow, and followers of them in threads: what the tests of following share."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import anyio
import h5py
import numpy as np
from anyio import to_thread

from streamer import Follower, Gap, Message, Tail, follow, tail
from writer import RawWriter

from .live.writers import check, io_group, message

BACKENDS = ["asyncio", "trio"]
WAYS = [*BACKENDS, "tail"]
VLEN = h5py.vlen_dtype(np.dtype("u1"))
HEADER = np.dtype([("io_groups", "u1")])


# ------------------------------------------------------------------------------- files


def append(out: RawWriter, start: int, stop: int) -> None:
    rows = range(start, stop)
    assert out.append([message(row, 136) for row in rows], list(map(io_group, rows))) == rows


def write(path: Path, rows: int) -> Path:
    """Make a file of a run that has ended."""
    with RawWriter(path) as out:
        append(out, 0, rows)
    return path


@contextmanager
def foreign(path: Path, rows: int = 0, mode: str = "w", **options) -> Iterator[h5py.File]:
    """Keep a file open as writers of another make do: nothing in it says that a run ends."""
    options = {"shape": (0,), "maxshape": (None,), "chunks": (16,)} | options
    with h5py.File(path, mode, libver=("v110", "v114"), locking=False) as file:
        file.create_group("meta").attrs.update(
            {"created": time.time(), "modified": time.time(), "version": "0.0"}
        )
        file.create_dataset("msgs", dtype=VLEN, **options)
        file.create_dataset("msg_headers", dtype=HEADER, **options)
        file.swmr_mode = True
        enlarge(file, rows)
        fill(file, 0, rows)
        yield file


def enlarge(file: h5py.File, rows: int, names: Iterable[str] = ("msgs", "msg_headers")) -> None:
    for name in names:
        file[name].resize((rows,))
        file[name].flush()


def fill(file: h5py.File, start: int, stop: int) -> None:
    for row in range(start, stop):
        file["msgs"][row] = np.frombuffer(message(row, 136), "u1")
        file["msg_headers"]["io_groups", row : row + 1] = [io_group(row)]
    file.flush()


def assert_rows(messages: Iterable[Message], rows: Iterable[int]) -> None:
    """Check that these are those rows, once, in order, byte for byte."""
    messages = list(messages)
    assert [found.row for found in messages] == list(rows)
    wrong = [
        found.row
        for found in messages
        if found.io_group != io_group(found.row) or not check(found.row, found.data)
    ]
    assert not wrong


# --------------------------------------------------------------------------- followers


class Live:
    """A follower that runs in a thread of its own, and what it has given so far."""

    def __init__(self, way: str, path: Path, *, batches: bool = False, **options) -> None:
        self.messages: list = []  # and gaps, of who wants to be told of them
        self.sizes: list[int] = []
        self.error: BaseException | None = None
        self.ended_at = 0.0
        self._batches = batches
        self._stop = threading.Event()
        self.follower: Follower | Tail = (tail if way == "tail" else follow)(path, **options)
        work = self._by_tail if way == "tail" else partial(anyio.run, self._loop, backend=way)
        self._thread = threading.Thread(target=self._guarded, args=[work])
        self._thread.start()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - it is raised in the test
            self.error = self.error or error
        self.ended_at = time.monotonic()

    def _by_tail(self) -> None:
        with self.follower as live:
            if self._batches:
                for batch in live.batches():
                    self._take(batch)
            else:
                for found in live:
                    self.messages.append(found)

    async def _loop(self) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._stopper)
            try:
                await self._by_follow()
            except Exception as error:  # noqa: BLE001 - bare, not in a group
                self.error = error
            group.cancel_scope.cancel()

    async def _by_follow(self) -> None:
        async with self.follower as live:
            if self._batches:
                async for batch in live.batches():
                    self._take(batch)
            else:
                async for found in live:
                    self.messages.append(found)

    def _take(self, batch) -> None:
        if isinstance(batch, Gap):
            self.messages.append(batch)
            return
        self.sizes.append(batch.payload_bytes)
        self.messages += batch

    async def _stopper(self) -> None:
        await to_thread.run_sync(self._stop.wait, abandon_on_cancel=True)
        await self.follower.aclose()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def until(self, condition: Callable[[], object], timeout: float = 30.0) -> None:
        """Wait for a condition, as long as the follower runs."""
        deadline = time.monotonic() + timeout
        while not condition():
            if not self.running:
                assert condition(), f"it has ended: {self.error!r}"
                return
            assert time.monotonic() < deadline, f"in vain; {len(self.messages)} messages"
            time.sleep(0.002)

    def has(self, rows: int) -> None:
        """Wait until so many messages have been given."""
        self.until(lambda: len(self.messages) >= rows)

    def looked(self, times: int = 2) -> None:
        """Wait until it has looked again, so often."""
        seen = self.follower.stats.looks
        self.until(lambda: self.follower.stats.looks >= seen + times)

    def end(self, timeout: float = 30.0) -> list[Message]:
        """Wait for the end; return all messages, or raise what it has raised."""
        self._thread.join(timeout)
        assert not self._thread.is_alive(), "it does not end"
        if self.error is not None:
            raise self.error
        return self.messages

    def close(self) -> None:
        """Close the follower from elsewhere, while it waits."""
        if isinstance(self.follower, Tail):
            self.follower.close()
        self._stop.set()


@contextmanager
def live(way: str, path: Path, **options) -> Iterator[Live]:
    """Follow a file in a thread, which ends here at the latest."""
    run = Live(way, path, **({"poll": 0.01} | options))
    try:
        yield run
    finally:
        run.close()
        run._thread.join(30)
        assert not run._thread.is_alive(), "a follower that is closed does not end"


def collect(way: str, path: Path, **options) -> tuple[list[Message], Follower | Tail]:
    """Follow a file to its end."""
    with live(way, path, **options) as run:
        return run.end(), run.follower
