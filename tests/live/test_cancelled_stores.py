"""Calls of a follower with a checkpoint that are cancelled: what is stored never goes back."""

import asyncio
import json
import random
import threading
import time
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from streamer import Follower, follow, following, tail
from streamer.checkpoint import Checkpoint

from .writers import Writer, check, io_group, running

SEED = 20261122
NIGHTLY = [pytest.mark.nightly, pytest.mark.timeout(3600)]


class Disk:
    """What is stored, seen all the time: it never goes back."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._over = threading.Event()
        self._lock = threading.Lock()
        self.rows = [0]
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        try:
            while not self._over.wait(0.0005):
                self.look()
        except BaseException as error:  # noqa: BLE001 - it is raised in the test
            self.error = error

    def look(self) -> int:
        """Look now; return the row."""
        with self._lock:
            stored = Checkpoint(self._state).load()
            row = 0 if stored is None else stored.row
            if row != self.rows[-1]:
                self.rows.append(row)
        return row

    def __enter__(self) -> "Disk":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self.error is not None:
            raise self.error
        assert self.rows == sorted(self.rows), "what was stored has gone back"


class Cancelled:
    """A follower whose calls are cancelled at random moments, and what it was given."""

    def __init__(self, path: Path, state: Path, number: int, seed: str, how: str) -> None:
        self.rows = 0
        self._how = how
        self._path = path
        self._state = state
        self._number = number
        self._rng = random.Random(seed)

    def take(self, found) -> None:
        """Check the next message; there is no await between this and the follower."""
        assert (found.row, found.io_group) == (self.rows, io_group(self.rows))
        assert check(found.row, found.data)
        self.rows += 1

    async def _ask(self, live: Follower) -> None:
        what = self._rng.random()
        while True:
            if what < 0.7:
                self.take(await anext(live))
            else:
                for found in await live.next_batch():
                    self.take(found)
            if what < 0.15:
                await live.commit()

    async def run(self, writer: Writer, disk: Disk, patch: pytest.MonkeyPatch) -> None:
        """Cancel it so often."""
        stored = 0
        async with follow(
            self._path, checkpoint=self._state, poll=0.002, max_batch_bytes=3_000
        ) as live:
            for _ in range(self._number):
                assert not writer.ended  # and its pipe is emptied, or it would wait for that
                # Otherwise a message is seldom the one that a second is over with.
                patch.setattr(following, "_STORE_SECONDS", self._rng.choice([0.0, 0.01, 1.0]))
                moment = self._rng.choice([0.0, self._rng.uniform(0, 0.005), 0.02])
                if self._how == "scope":
                    with anyio.move_on_after(moment):
                        await self._ask(live)
                else:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._ask(live), moment)
                assert live.position.row == self.rows
                now = disk.look()
                assert stored <= now <= self.rows
                stored = now


@pytest.mark.parametrize(
    ("backend", "how"), [("asyncio", "scope"), ("trio", "scope"), ("asyncio", "wait_for")]
)
@pytest.mark.parametrize("number", [300, pytest.param(5_000, marks=NIGHTLY)])
def test_cancelled_calls_store_in_order(
    number: int, backend: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A store that comes late is none: what is on disk never goes back, and nothing is lost."""
    path, state = tmp_path / "raw.h5", tmp_path / "state.json"
    slow = random.Random(f"{SEED} slow")
    store = Checkpoint.store

    def store_late(self: Checkpoint, *arguments) -> None:
        time.sleep(slow.choice([0.0, 0.001, 0.01]))
        store(self, *arguments)

    monkeypatch.setattr(Checkpoint, "store", store_late)
    cancelled = Cancelled(path, state, number, f"{SEED} {backend} {how}", how)
    with running("rawwriter", path, batch=10, batches=1_000_000, pause=0.002) as writer:
        writer.wait_for(10)
        with Disk(state) as disk:
            anyio.run(cancelled.run, writer, disk, monkeypatch, backend=backend)
        writer.kill()
    assert len(disk.rows) > number / 10
    given = cancelled.rows
    with tail(path, checkpoint=state, until="end") as rest:
        cancelled.rows = rest.position.row
        assert given - 200 <= cancelled.rows <= given
        for found in rest:
            cancelled.take(found)
    assert writer.committed <= cancelled.rows <= writer.committed + 10
    assert json.loads(state.read_text())["position"]["row"] == cancelled.rows
