"""Followers that are cancelled, left and closed at random moments: nothing lost, nothing twice."""

import asyncio
import gc
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from pathlib import Path

import anyio
import pytest
from h5py import h5f

from streamer import Batch, Follower, Message, Position, RawFile, follow, tail
from writer import RawWriter

from .writers import Writer, check, io_group, running, wrong_rows

SEED = 20261122
NIGHTLY = [pytest.mark.nightly, pytest.mark.timeout(3600)]


class Left(Exception):
    """What the body of a loop raises."""


class InFlight:
    """How many jobs are with one RawFile at once; each takes a little longer than it would."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.most = 0
        self.jobs = 0
        self._now: Counter[int] = Counter()
        self._lock = threading.Lock()
        for name in ("look", "read_some"):
            patch.setattr(RawFile, name, self._counted(getattr(RawFile, name)))

    def _counted(self, method: Callable) -> Callable:
        def wrapper(raw: RawFile, *arguments):
            with self._lock:
                self._now[id(raw)] += 1
                self.most = max(self.most, self._now[id(raw)])
                self.jobs += 1
            try:
                time.sleep(0.0005 * (self.jobs % 3))
                return method(raw, *arguments)
            finally:
                with self._lock:
                    self._now[id(raw)] -= 1

        return wrapper


class Campaign:
    """So many cancellations, and what was given between them."""

    def __init__(self, path: Path, number: int, seed: str) -> None:
        self.path = path
        self.number = number
        self.done = 0
        self.rows = 0
        self.position = Position(0)
        self.rng = random.Random(seed)
        self.writer: Writer | None = None

    @property
    def going(self) -> bool:
        # What the writer says has to be read, or it stops once the pipe is full.
        assert self.writer is None or self.writer.committed
        return self.done < self.number

    def moment(self) -> float:
        """Return a random time, as long as a step and a wait take, or none at all."""
        return self.rng.choice([0.0, self.rng.uniform(0, 0.002), self.rng.uniform(0, 0.01)])

    def follow(self) -> Follower:
        """Return a follower that goes on where the last one was left."""
        return follow(
            self.path,
            start=Position.from_json(self.position.to_json()),
            poll=self.rng.choice([0.001, 0.005, 0.05]),
            max_batch_bytes=self.rng.choice([136 * 3, 136 * 25, 1 << 20]),
            hints=self.rng.random() < 0.7,
        )

    def take(self, found: Message | Batch) -> None:
        """Check what was given; there is no await between this and the follower."""
        if isinstance(found, Batch):
            assert not wrong_rows(found, self.rows, self.rows + len(found))
            self.rows += len(found)
        else:
            assert (found.row, found.io_group) == (self.rows, io_group(self.rows))
            assert check(found.row, found.data)
            self.rows += 1

    async def consume(self, live: Follower) -> None:
        """Take what comes, until it is cancelled."""
        if self.rng.random() < 0.5:
            async for message in live:
                self.take(message)
        else:
            async for batch in live.batches():
                self.take(batch)

    def left(self, live: Follower) -> None:
        """Count a cancellation, after which the follower must be where its consumer is."""
        self.done += 1
        assert live.position.row == self.rows
        self.position = live.position


# ------------------------------------------------------------------ one follower, cancelled


async def scope(campaign: Campaign) -> None:
    """Cancel scopes of anyio."""
    async with campaign.follow() as live:
        while campaign.going:
            with anyio.move_on_after(campaign.moment()):
                await campaign.consume(live)
            campaign.left(live)


async def wait_for(campaign: Campaign) -> None:
    """asyncio's own timeout, around a loop or around one message."""
    async with campaign.follow() as live:
        while campaign.going:
            with suppress(TimeoutError):
                if campaign.rng.random() < 0.5:
                    campaign.take(await asyncio.wait_for(anext(live), campaign.moment()))
                    continue
                await asyncio.wait_for(campaign.consume(live), campaign.moment())
            campaign.left(live)


async def task_cancel(campaign: Campaign) -> None:
    """asyncio's own cancellation, at times twice."""
    async with campaign.follow() as live:
        while campaign.going:
            task = asyncio.create_task(campaign.consume(live))
            await asyncio.sleep(campaign.moment())
            task.cancel()
            if campaign.rng.random() < 0.3:
                await asyncio.sleep(0)
                task.cancel()
            await asyncio.wait([task])
            assert task.cancelled() or task.result()
            campaign.left(live)


# ------------------------------------------------- one follower after the other, each left


async def leave(campaign: Campaign, *, how: str) -> None:
    """A loop that is left after some messages, by break or by an error in its body."""
    while campaign.going:
        live = campaign.follow()
        with suppress(Left):
            async with live:
                after = campaign.rows + campaign.rng.randrange(1, 40)
                async for message in live:
                    campaign.take(message)
                    if campaign.rows == after:
                        if how == "break":
                            break
                        raise Left
        campaign.left(live)


async def drop(campaign: Campaign) -> None:
    """A loop that is left by a break, and nobody closes the follower."""
    while campaign.going:
        live = campaign.follow()
        after = campaign.rows + campaign.rng.randrange(1, 40)
        async for message in live:
            campaign.take(message)
            if campaign.rows == after:
                break
        campaign.left(live)
        del live


async def scope_around(campaign: Campaign) -> None:
    """A cancel scope around all of a follower's life, its close included."""
    while campaign.going:
        live = campaign.follow()
        with anyio.move_on_after(campaign.moment()):
            async with live:
                await campaign.consume(live)
        campaign.left(live)


async def close(campaign: Campaign) -> None:
    """Another task closes the follower while this one waits."""
    while campaign.going:
        live = campaign.follow()
        async with anyio.create_task_group() as group:
            group.start_soon(campaign.consume, live)
            await anyio.sleep(campaign.moment())
            await live.aclose()
        assert live.outcome == "closed"
        campaign.left(live)


WAYS: dict[str, tuple[str, Callable[[Campaign], Coroutine]]] = {
    "scope, asyncio": ("asyncio", scope),
    "scope, trio": ("trio", scope),
    "wait_for": ("asyncio", wait_for),
    "task.cancel": ("asyncio", task_cancel),
    "break, asyncio": ("asyncio", partial(leave, how="break")),
    "break, trio": ("trio", partial(leave, how="break")),
    "error, asyncio": ("asyncio", partial(leave, how="error")),
    "error, trio": ("trio", partial(leave, how="error")),
    "drop, asyncio": ("asyncio", drop),
    "drop, trio": ("trio", drop),
    "scope around, asyncio": ("asyncio", scope_around),
    "scope around, trio": ("trio", scope_around),
    "close, asyncio": ("asyncio", close),
    "close, trio": ("trio", close),
}


def held() -> tuple[int, int, set[str]]:
    """Return what followers hold: HDF5 files, descriptors of any type, and threads."""
    gc.collect()
    return (
        h5f.get_obj_count(h5f.OBJ_ALL, h5f.OBJ_FILE),
        len(os.listdir("/proc/self/fd")),  # noqa: PTH208 - only their number
        {
            thread.name
            for thread in threading.enumerate()
            if not thread.name.startswith("Trio thread")  # idle ones stay for ten seconds
        },
    )


def wait_until_back(before: tuple[int, int, set[str]]) -> None:
    """Wait until nothing is held beyond what was before."""
    deadline = time.monotonic() + 30  # an idle thread of trio's keeps its last job for ten
    while (now := held()) != before:
        assert time.monotonic() < deadline, f"held: {now}, before: {before}"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("cancelled", "left", "kind"),
    [
        (300, 60, "rawwriter"),
        pytest.param(10_000, 10_000, "rawwriter", marks=NIGHTLY),
        pytest.param(3_000, 1_000, "stock", marks=NIGHTLY),
    ],
)
@pytest.mark.parametrize("way", WAYS)
def test_cancellations(
    way: str,
    cancelled: int,
    left: int,
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """After every one of them the next row comes, and one job at most was in flight."""
    path = tmp_path / "raw.h5"
    backend, work = WAYS[way]
    # Where each time a new follower goes on, it has to open the file.
    number = cancelled if work in (scope, wait_for, task_cancel) else left
    campaign = Campaign(path, number, f"{SEED} {way}")
    in_flight = InFlight(monkeypatch)
    before = held()
    with running(kind, path, batch=10, batches=1_000_000, pause=0.002) as writer:
        writer.wait_for(10)
        campaign.writer = writer
        anyio.run(work, campaign, backend=backend)
        writer.kill()
        committed = writer.committed
    wait_until_back(before)
    with tail(path, start=campaign.position, until="end") as rest:
        for message in rest:
            campaign.take(message)
    assert committed <= campaign.rows <= committed + 10
    assert in_flight.jobs > number / 3
    assert in_flight.most == 1


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_followers_that_become_garbage_leave_nothing(backend: str, tmp_path: Path):
    """Python collects it in any thread at any moment, also in those that are to be ended."""
    path, other = tmp_path / "raw.h5", tmp_path / "other"
    before = held()
    stop = threading.Event()

    def write() -> None:  # events, so that the observer's threads run
        while not stop.is_set():
            other.write_bytes(b"")

    async def follow_and_drop() -> None:
        for _ in range(40):
            live = follow(path, poll=0.005)
            live.itself = live  # a cycle, which only the collector finds
            with anyio.move_on_after(0.03):
                async for _ in live:
                    pass

    thresholds = gc.get_threshold()
    writer = threading.Thread(target=write)
    writer.start()
    gc.set_threshold(20, 2, 2)
    try:
        with RawWriter(path) as out:
            out.append([b"message"], io_groups=1)
            anyio.run(follow_and_drop, backend=backend)
    finally:
        gc.set_threshold(*thresholds)
        stop.set()
        writer.join()
    wait_until_back(before)
