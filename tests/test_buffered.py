"""buffered(): the same as its follower gives, read ahead."""

import random
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import anyio
import pytest

from streamer import Batch, Gap, Position, follow
from streamer.broadcast import Subscription
from streamer.buffered import buffered
from streamer.errors import StreamError, WriterStalled
from writer import RawWriter

from .live.writers import io_group, message, running, wrong_rows

BACKENDS = ["asyncio", "trio"]
ROWS, SIZE = 200, 136
FIVE = 2 * 5 * SIZE


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """On an event loop of either kind."""
    return request.param


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "raw.h5"


def append(out: RawWriter, start: int, stop: int) -> None:
    rows = range(start, stop)
    assert out.append([message(row, SIZE) for row in rows], list(map(io_group, rows))) == rows


@pytest.fixture
def file(path: Path) -> Path:
    """A run that has ended."""
    with RawWriter(path) as out:
        append(out, 0, ROWS)
    return path


def run(backend: str, work: Callable[[], Awaitable], seconds: float = 60):
    """Run something, not for ever."""

    async def limited():
        with anyio.fail_after(seconds):
            return await work()

    return anyio.run(limited, backend=backend)


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition."""
    with anyio.fail_after(30):
        while not condition():  # noqa: ASYNC110 - of things that no event tells of
            await anyio.sleep(0.001)


def assert_rows(batches: list[Batch], start: int, stop: int) -> None:
    """Check that these are the rows, once, in order, byte for byte."""
    row = start
    for batch in batches:
        assert not wrong_rows(batch, row, row + len(batch))
        row += len(batch)
    assert row == stop


@pytest.mark.parametrize("capacity", [1, 5000, 1 << 24])
def test_same_batches_same_end(capacity: int, backend: str, file: Path):
    """Whatever the capacity: those of the follower, in order, and then the end."""

    async def main() -> None:
        async with follow(file, max_batch_bytes=FIVE) as live:
            alone = [batch async for batch in live.batches()]
        follower = follow(file, max_batch_bytes=FIVE)
        async with buffered(follower, capacity_bytes=capacity) as ahead:
            batches = [batch async for batch in ahead]
            assert ahead.outcome == "finished"
            assert await anext(ahead, None) is None
        assert_rows(batches, 0, ROWS)
        assert list(map(len, batches)) == list(map(len, alone))

    run(backend, main)


def test_reads_while_the_consumer_works(backend: str, file: Path):
    """Nobody asks, and it reads on, as far as the capacity goes and a batch more."""

    async def main() -> None:
        follower = follow(file, max_batch_bytes=FIVE)
        async with buffered(follower, capacity_bytes=5000) as ahead:
            first = await anext(ahead)
            await until(lambda: follower.stats.rows > 2 * len(first))
            await anyio.sleep(0.05)
            kept = ahead._inbox.queue._bytes
            assert 5000 <= kept < 5000 + 2 * first.buffer.nbytes
            assert follower.stats.rows < ROWS
            # It says where its consumer is, and not how far it has read.
            assert ahead.position.row == len(first) < follower.position.row

    run(backend, main)


def test_same_errors_in_their_place(backend: str, path: Path):
    """After what was read before, bare; and who asks again goes on."""

    async def main() -> None:
        with RawWriter(path) as out:
            append(out, 0, 10)
            async with buffered(follow(path, poll=0.01, idle_timeout=0.05)) as ahead:
                await until(lambda: len(ahead._inbox.queue) == 2)
                assert_rows([await anext(ahead)], 0, 10)
                for _ in range(2):
                    with pytest.raises(WriterStalled):
                        await anext(ahead)
                append(out, 10, 20)
                assert_rows([await anext(ahead)], 10, 20)

    run(backend, main)


def test_error_comes_out_of_the_block_as_it_is(backend: str, path: Path):
    """In no group, and once."""

    async def main() -> None:
        async with buffered(follow(path, poll=0.01, idle_timeout=0.05)) as ahead:
            async for _ in ahead:
                pass

    with RawWriter(path), pytest.raises(WriterStalled):
        run(backend, main)


def test_error_beyond_what_was_asked_for_is_not_raised(backend: str, path: Path):
    """Who has enough does not hear what came of reading ahead."""

    async def main() -> None:
        with RawWriter(path) as out:
            append(out, 0, 10)
            async with buffered(follow(path, poll=0.01, idle_timeout=0.05)) as ahead:
                await until(lambda: len(ahead._inbox.queue) == 2)
                assert_rows([await anext(ahead)], 0, 10)

    run(backend, main)


def test_block_that_is_left_closes_the_follower(backend: str, path: Path):
    """Also while it reads; and what is asked for afterwards is no end."""

    async def main() -> None:
        with RawWriter(path) as out:
            append(out, 0, 10)
            follower = follow(path, poll=0.01)
            async with buffered(follower) as ahead:
                assert_rows([await anext(ahead)], 0, 10)
            assert follower.outcome == "closed"
            with pytest.raises(StreamError, match="left before the end"):
                await anext(ahead)

    run(backend, main)


def test_gaps_of_the_follower(backend: str, path: Path, tmp_path: Path):
    """A file that takes the place of another is told, as by the follower."""

    async def main() -> None:
        with RawWriter(path) as out:
            append(out, 0, 10)
            async with buffered(follow(path, poll=0.01, on_replace="continue")) as ahead:
                assert_rows([await anext(ahead)], 0, 10)
                await anyio.Path(path).rename(tmp_path / "old.h5")
                with RawWriter(path) as other:
                    append(other, 0, 5)
                gap = await anext(ahead)
                assert isinstance(gap, Gap)
                assert gap.start == 10
                assert_rows([batch async for batch in ahead], 0, 5)

    run(backend, main)


@pytest.mark.parametrize("capacity", [0, -5, 2.5, None])
def test_bad_capacity(capacity, path: Path):
    """It is said at once, not in the block."""
    with pytest.raises(ValueError, match="capacity"):
        buffered(follow(path), capacity_bytes=capacity)


def test_follower_with_a_checkpoint_is_refused(path: Path, tmp_path: Path):
    """It would store as done what was read ahead."""
    with pytest.raises(ValueError, match="position"):
        buffered(follow(path, checkpoint=tmp_path / "state.json"))


class Killed(Exception):
    """What ends a consumer in the middle of its work."""


async def part(path: Path, rng: random.Random, stored: list[Position], done: list[int]) -> None:
    """Work on some batches, be cancelled at times, and be ended by an error at last."""
    follower = follow(path, start=stored[-1], until=ROWS, poll=0.002, max_batch_bytes=FIVE)
    left = rng.randrange(1, 8)
    async with buffered(follower, capacity_bytes=rng.choice([1, 3000, 100_000])) as ahead:
        while ahead.outcome is None:
            with anyio.move_on_after(rng.choice([0.0, rng.uniform(0, 0.003), 1.0])):
                await work(ahead, rng, stored, done)
            left -= 1
            if left == 0:
                raise Killed


async def work(
    ahead: Subscription, rng: random.Random, stored: list[Position], done: list[int]
) -> None:
    async for batch in ahead:
        # In one piece, as if in a worker thread that is waited for.
        assert not wrong_rows(batch, int(batch.rows[0]), int(batch.rows[-1]) + 1)
        done += batch.rows.tolist()
        if rng.random() < 0.1:
            raise Killed
        stored.append(ahead.position)
        await anyio.sleep(rng.choice([0.0, rng.uniform(0, 0.002)]))


@pytest.mark.parametrize(
    "rounds",
    [10, pytest.param(500, marks=[pytest.mark.nightly, pytest.mark.timeout(3600)])],
    ids=["some", "many"],
)
def test_at_least_once_from_the_stored_position(rounds: int, backend: str, file: Path):
    """Cancelled and killed at random: started again from it, all rows were worked on.

    Twice only those of a batch whose position was not stored.
    """
    for seed in range(rounds):
        rng = random.Random(seed)
        stored, done, kills = [Position(0)], [], 0
        while stored[-1].row < ROWS:
            before = len(done)
            try:
                run(backend, partial(part, file, rng, stored, done))
            except Killed:
                kills += 1
            again = done[before:]
            assert again == list(range(again[0], again[0] + len(again))) if again else True
            assert kills < 1000
        assert sorted(set(done)) == list(range(ROWS))
        assert len(done) <= ROWS + 5 * kills


def test_beside_a_live_writer(backend: str, path: Path):
    """The rows of a second process, to the last."""

    async def main() -> None:
        batches = []
        async with buffered(follow(path, until=600, poll=0.002), capacity_bytes=4000) as ahead:
            async for batch in ahead:
                batches.append(batch)
                await anyio.sleep(0.001)
        assert_rows(batches, 0, 600)

    with running("rawwriter", path, batch=10, batches=60, pause=0.001) as writer:
        run(backend, main)
        writer.kill()


@pytest.mark.nightly
def test_reading_and_working_overlap(backend: str, path: Path):
    """Who works in a thread takes less time than reading and working one after the other."""
    with RawWriter(path) as out:
        for start in range(0, 400_000, 20_000):
            append(out, start, start + 20_000)

    def in_thread(batch: Batch) -> None:
        time.sleep(0.002)

    async def alone() -> None:
        async with follow(path) as live:
            async for batch in live.batches():
                await anyio.to_thread.run_sync(in_thread, batch)

    async def ahead() -> None:
        async with buffered(follow(path)) as live:
            async for batch in live:
                await anyio.to_thread.run_sync(in_thread, batch)

    def seconds(work: Callable[[], Awaitable]) -> float:
        begun = time.perf_counter()
        run(backend, work)
        return time.perf_counter() - begun

    pairs = [(seconds(alone), seconds(ahead)) for _ in range(6)][1:]
    assert sorted(second / first for first, second in pairs)[2] < 0.95
