"""Every kind of writer, every way of following it: each row once, in order, byte for byte."""

import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import anyio
import pytest

from streamer import Follower, Position, Tail, follow, tail
from streamer.errors import WriterStalled

from .writers import KINDS, Writer, check, io_group, running, wrong_rows

# Short batches with pauses, and large ones without: 4,900 and 24,000 rows.
RUNS = {
    "steady": {"batch": 70, "batches": 70, "pause": 0.01, "size": "mixed"},
    "fast": {"batch": 8000, "batches": 3, "pause": 0.0, "size": "plain"},
}
# Only a RawWriter says that its run is over: the others are followed to their last row.
SAYS_SO = ("rawwriter",)


class Seen:
    """What one follower has given, checked as it comes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows = 0
        self.wrong: list[int] = []
        self.follower: Follower | Tail | None = None
        self.error: BaseException | None = None

    def message(self, found) -> None:
        right = found.row == self.rows and found.io_group == io_group(found.row)
        if not (right and check(found.row, found.data)):
            self.wrong.append(self.rows)
        self.rows += 1

    def batch(self, batch) -> None:
        self.wrong += wrong_rows(batch, self.rows, self.rows + len(batch))
        self.rows += len(batch)


async def by_follow(path: Path, grain: str, seen: Seen, **options) -> None:
    async with follow(path, **options) as live:
        seen.follower = live
        if grain == "messages":
            async for found in live:
                seen.message(found)
        else:
            async for batch in live.batches():
                seen.batch(batch)


def by_tail(path: Path, grain: str, seen: Seen, **options) -> None:
    with tail(path, **options) as live:
        seen.follower = live
        if grain == "messages":
            for found in live:
                seen.message(found)
        else:
            for batch in live.batches():
                seen.batch(batch)


def guarded(seen: list[Seen], work) -> None:
    try:
        work()
    except BaseException as error:  # noqa: BLE001 - it is raised in the test
        seen[0].error = error


def followers(path: Path, until: int | str) -> tuple[list[Seen], list[threading.Thread]]:
    """Start all ways of following at once: two loops with four followers each, and tails."""
    everything: list[Seen] = []
    threads = []
    choices = [(grain, hints) for grain in ("messages", "batches") for hints in (True, False)]
    for backend in ("asyncio", "trio"):
        group = [Seen(f"{backend}, {grain}, hints {hints}") for grain, hints in choices]

        async def main(group=group) -> None:
            async with anyio.create_task_group() as tasks:
                for (grain, hints), seen in zip(choices, group, strict=True):
                    options = {"until": until, "hints": hints, "poll": 0.02}
                    tasks.start_soon(partial(by_follow, path, grain, seen, **options))

        work = partial(guarded, group, partial(anyio.run, main, backend=backend))
        threads.append(threading.Thread(target=work))
        everything += group
    for grain, hints in choices:
        seen = Seen(f"tail, {grain}, hints {hints}")
        work = partial(by_tail, path, grain, seen, until=until, hints=hints, poll=0.02)
        threads.append(threading.Thread(target=guarded, args=[[seen], work]))
        everything.append(seen)
    return everything, threads


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_row_once_in_order(kind: str, run: str, tmp_path: Path):
    """Twelve followers in one process, on asyncio, trio and no loop, of a real writer."""
    path = tmp_path / "raw.h5"
    rows = RUNS[run]["batch"] * RUNS[run]["batches"]
    everything, threads = followers(path, "finished" if kind in SAYS_SO else rows)
    for thread in threads:
        thread.start()
    with running(kind, path, **RUNS[run]) as writer:
        writer.wait(100)
        for thread in threads:
            thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "a follower has not ended"
    for seen in everything:
        if seen.error is not None:
            raise seen.error
        assert (seen.rows, seen.wrong) == (rows, []), seen.name
        assert seen.follower.outcome == ("finished" if kind in SAYS_SO else "row"), seen.name
        assert seen.follower.position.row == rows, seen.name
        stats = seen.follower.stats
        assert stats.rows == rows, seen.name
        if run == "steady":
            assert stats.batches > 5, f"{seen.name} did not follow, but came afterwards"


def wait_until(seen: Seen, rows: int, writer: Writer) -> None:
    deadline = time.monotonic() + 30
    while seen.rows < rows:
        assert time.monotonic() < deadline, f"{seen.rows} of {writer.committed} rows"
        assert seen.error is None
        time.sleep(0.002)


@pytest.mark.parametrize("way", ["asyncio", "trio", "tail"])
@pytest.mark.parametrize("kind", ["stock", "rawwriter", "file"])
def test_killed_writer_is_no_end(kind: str, way: str, tmp_path: Path):
    """After kill -9: all that was committed, then WriterStalled, and never "finished"."""
    path, idle = tmp_path / "raw.h5", 0.7
    seen = Seen(way)
    if way == "tail":
        work = partial(by_tail, path, "batches", seen, idle_timeout=idle, poll=0.02)
    else:
        main = partial(by_follow, path, "batches", seen, idle_timeout=idle, poll=0.02)
        work = partial(anyio.run, main, backend=way)
    with running(kind, path, batch=50, batches=100_000, pause=0.005) as writer:
        writer.wait_for(50)  # a writer's start may take longer than the timeout
        thread = threading.Thread(target=guarded, args=[[seen], work])
        thread.start()
        try:
            wait_until(seen, 500, writer)
        finally:
            writer.kill()
            killed, committed = time.monotonic(), writer.committed
            thread.join(30)
        waited = time.monotonic() - killed
    with pytest.raises(WriterStalled, match=f"no new row for {idle} s"):
        raise seen.error or AssertionError("it has ended without an error")
    assert not seen.wrong
    assert committed <= seen.rows <= committed + 50
    assert seen.follower.outcome == "closed"
    assert idle - 0.1 < waited < idle + 5


def test_resumed_again_and_again(tmp_path: Path):
    """Followers that leave after a few rows, each at the last one's position, miss nothing."""
    path = tmp_path / "raw.h5"
    run = RUNS["steady"]
    rows, given = run["batch"] * run["batches"], 0
    with running("stock", path, **run) as writer:
        position = Position(0)
        while given < rows:
            position = Position.from_json(position.to_json())
            with tail(path, start=position, poll=0.005, idle_timeout=30) as live:
                for found in live:
                    assert (found.row, found.io_group) == (given, io_group(given))
                    assert check(found.row, found.data)
                    given += 1
                    if given % 37 == 0 or given == rows:
                        position = live.position
                        break
                else:
                    pytest.fail("a stock file has no end")
        writer.wait()
        with suppress(WriterStalled), tail(path, start=position, idle_timeout=0.2) as live:
            pytest.fail(f"{next(live)} is one too many")
