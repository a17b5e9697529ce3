"""broadcast(): what each consumer is given, and that none is in the way of another."""

import asyncio
import gc
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import anyio
import numpy as np
import pytest
from anyio import lowlevel
from hypothesis import given
from hypothesis import strategies as st

from streamer import Batch, Follower, Gap, Position, follow
from streamer.broadcast import Hub, Subscription, broadcast
from streamer.errors import FileReplaced, StreamError, WriterStalled
from streamer.waiting import QUEUES, Entry, Failure
from writer import RawWriter

from .live.writers import io_group, message, running, wrong_rows

BACKENDS = ["asyncio", "trio"]
POLICIES = ["block", "latest", "sample"]
ROWS, SIZE = 100, 136
# As many messages as a batch of this many bytes has.
FIVE = 2 * 5 * SIZE
NIGHTLY = [pytest.mark.nightly, pytest.mark.timeout(3600)]


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


def write(path: Path, rows: int) -> Path:
    """Make a file of a run that has ended."""
    with RawWriter(path) as out:
        append(out, 0, rows)
    return path


@pytest.fixture
def hundred(path: Path) -> Path:
    """A hundred rows of a run that has ended: twenty batches, if asked for `FIVE`."""
    return write(path, ROWS)


def in_fives(path: Path, **options) -> Follower:
    """Follow in batches of five rows."""
    return follow(path, max_batch_bytes=FIVE, **({"poll": 0.01} | options))


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


async def everything(subscription: Subscription, taken: list | None = None) -> list[Batch | Gap]:
    """Take all there is."""
    taken = [] if taken is None else taken
    async for item in subscription:
        taken.append(item)
    return taken


def span(item: Batch | Gap) -> tuple[int, int]:
    """Return the rows that an item stands for."""
    if isinstance(item, Gap):
        assert item.stop is not None
        return item.start, item.stop
    return int(item.rows[0]), int(item.rows[-1]) + 1


def assert_tiled(items: list[Batch | Gap], start: int, stop: int) -> None:
    """Check that batches and gaps follow each other, from row to row, byte for byte."""
    row = start
    for item in items:
        first, after = span(item)
        assert first == row < after
        assert isinstance(item, Gap) or not wrong_rows(item, first, after)
        row = after
    assert row == stop


def waiting(hub: Hub) -> list[int]:
    """Return how many bytes wait in each subscription."""
    return [inbox.queue._bytes for inbox in hub._pump._inboxes.values()]


def handles(path: Path) -> int:
    """Return how many descriptors of a file are open."""
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found += entry.readlink() == path
    return found


# ------------------------------------------------------------------------- one, for all


@pytest.mark.parametrize("number", [1, 10])
def test_every_subscriber_is_given_every_batch(number: int, backend: str, hundred: Path):
    """The very same batches, read once, through the handles that one follower has."""

    async def main() -> None:
        taken = [[] for _ in range(number)]
        async with in_fives(hundred) as alone:
            await anext(alone)
            usual = handles(hundred)
        async with broadcast(in_fives(hundred)) as hub, anyio.create_task_group() as tasks:
            for one in taken:
                tasks.start_soon(everything, hub.subscribe(), one)
            await until(lambda: taken[0])
            assert handles(hundred) <= usual
        assert_tiled(taken[0], 0, ROWS)
        assert hub.follower.stats.batches == len(taken[0]) == 20
        assert all(
            one is other for items in taken for one, other in zip(items, taken[0], strict=True)
        )

    run(backend, main)


def test_subscribers_of_a_file_that_is_to_come(backend: str, path: Path):
    """Subscribed before there is anything, each is given the run from its first row."""

    async def main() -> None:
        taken = {policy: [] for policy in POLICIES}
        async with (
            broadcast(follow(path, poll=0.01)) as hub,
            anyio.create_task_group() as tasks,
        ):
            for policy, one in taken.items():
                tasks.start_soon(everything, hub.subscribe(policy), one)
            await until(lambda: hub.follower.stats.looks)
            with RawWriter(path) as out:
                for start in range(0, ROWS, 10):
                    append(out, start, start + 10)
                    await until(
                        lambda stop=start + 10: (
                            span(taken["block"][-1])[1] == stop if taken["block"] else False
                        )
                    )
        for one in taken.values():
            assert_tiled(one, 0, ROWS)

    run(backend, main)


# -------------------------------------------------------------------------------- block


def test_reader_waits_for_a_slow_block_subscriber(backend: str, hundred: Path):
    """Not more is read than may wait for it, and a batch; then it is given every row."""

    async def main() -> None:
        async with broadcast(in_fives(hundred)) as hub:
            slow = hub.subscribe(capacity=2000)
            quick = hub.subscribe()
            one = (await anext(quick)).buffer.nbytes
            assert await anext(quick)
            await until(lambda: not hub._pump._is_wanted())
            await anyio.wait_all_tasks_blocked()
            assert 2000 <= waiting(hub)[0] < 2000 + 2 * one
            assert hub.follower.stats.rows < ROWS
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(everything, quick)
                assert_tiled(await everything(slow), 0, ROWS)

    run(backend, main)


def test_one_batch_always_waits(backend: str, hundred: Path):
    """A capacity of a byte means one batch at a time."""

    async def main() -> None:
        async with broadcast(in_fives(hundred)) as hub:
            subscription, most = hub.subscribe(capacity=1), 0
            async for _ in subscription:
                most = max(most, len(subscription._inbox.queue))
                await until(lambda: subscription._inbox.queue or subscription.outcome)
            assert most <= 1
            assert subscription.position.row == ROWS

    run(backend, main)


# ------------------------------------------------------------------- what is left out


@pytest.mark.parametrize("policy", ["latest", "sample"])
def test_display_that_never_takes_does_not_stop_the_others(
    policy: str, backend: str, hundred: Path
):
    """Who takes all gets all, while another takes nothing; and that one is told of it."""

    async def main() -> None:
        async with broadcast(in_fives(hundred)) as hub:
            stuck = hub.subscribe(policy, capacity=1)
            assert_tiled(await everything(hub.subscribe()), 0, ROWS)
            items = await everything(stuck)
        assert_tiled(items, 0, ROWS)
        assert [type(item) for item in items] == (
            [Gap, Batch] if policy == "latest" else [Batch, Gap]
        )
        gap = next(item for item in items if isinstance(item, Gap))
        assert gap.stop - gap.start == stuck.missed == ROWS - 5
        assert gap.reason

    run(backend, main)


def test_latest_is_told_one_gap_and_given_the_newest(backend: str, path: Path):
    """Each time it asks, what it missed is one gap, before the newest batch."""

    async def main() -> None:
        with RawWriter(path) as out:
            async with broadcast(follow(path, poll=0.01)) as hub:
                display, all_of_it, done = hub.subscribe("latest"), hub.subscribe(), 0
                for stop in (30, 70, 100):
                    for start in range(done, stop, 10):
                        append(out, start, start + 10)
                        assert span(await anext(all_of_it)) == (start, start + 10)
                    gap, newest = await anext(display), await anext(display)
                    assert isinstance(gap, Gap)
                    assert span(gap) == (done, stop - 10)
                    assert span(newest) == (stop - 10, stop)
                    done = stop

    run(backend, main)


@pytest.mark.parametrize("capacity", [1, 3000, 6000])
def test_sample_is_given_stretches(capacity: int, backend: str, path: Path):
    """As much as may wait, unbroken; the next stretch begins when the last was taken."""

    async def main() -> None:
        with RawWriter(path) as out:
            async with broadcast(follow(path, poll=0.01)) as hub:
                all_of_it = hub.subscribe()

                sizes = []

                async def more(start: int, stop: int) -> None:
                    for row in range(start, stop, 10):
                        append(out, row, row + 10)
                        batch = await anext(all_of_it)
                        assert span(batch) == (row, row + 10)
                        sizes.append(hub._pump._entry(batch).size)

                await more(0, 10)
                sample = hub.subscribe("sample", capacity=capacity)
                await more(10, 90)
                fit = next(k for k in range(1, 9) if sum(sizes[1 : 1 + k]) >= capacity)
                stretch = [span(await anext(sample)) for _ in range(fit - 1)]
                await more(90, 100)
                last, gap = await anext(sample), await anext(sample)
                stretch.append(span(last))
                assert stretch == [(row, row + 10) for row in range(10, 10 + 10 * fit, 10)]
                assert isinstance(gap, Gap)
                assert span(gap) == (10 + 10 * fit, 100)
                await more(100, 110)
                assert span(await anext(sample)) == (100, 110)

    run(backend, main)


def test_gap_spans_rows_that_are_filtered_out(backend: str, hundred: Path):
    """It is from the first row that would have been given to the last."""

    async def main() -> None:
        wanted = [row for row in range(ROWS) if io_group(row) in (2, 3)]
        async with broadcast(in_fives(hundred, io_groups={2, 3})) as hub:
            stuck = hub.subscribe("latest")
            batches = await everything(hub.subscribe())
            gap, last = await everything(stuck)
        assert np.concatenate([batch.rows for batch in batches]).tolist() == wanted
        assert span(gap) == (wanted[0], span(batches[-2])[1])
        assert last is batches[-1]
        assert stuck.missed == len(wanted) - len(last)
        assert stuck.position.row == ROWS

    run(backend, main)


# --------------------------------------------------------------------- coming and going


def test_late_subscriber_starts_with_the_next_batch(backend: str, path: Path):
    """What was read before is no gap."""

    async def main() -> None:
        with RawWriter(path) as out:
            async with broadcast(follow(path, poll=0.01)) as hub:
                early = hub.subscribe()
                append(out, 0, 10)
                assert span(await anext(early)) == (0, 10)
                late = hub.subscribe()
                assert late.position.row == 10
                append(out, 10, 20)
                assert span(await anext(late)) == (10, 20)
                assert await anext(early)

    run(backend, main)


def test_nothing_is_read_for_nobody(backend: str, hundred: Path):
    """Without a subscription the file is not even looked at."""

    async def main() -> None:
        async with broadcast(in_fives(hundred)) as hub:
            await anyio.sleep(0.05)
            assert hub.follower.stats.looks == 0
            assert_tiled(await everything(hub.subscribe()), 0, ROWS)

    run(backend, main)


def test_reading_pauses_when_all_have_left(backend: str, hundred: Path):
    """The next to come goes on where the reading was, also with what was on its way."""

    async def main() -> None:
        async with broadcast(in_fives(hundred)) as hub:
            taken: list[Batch | Gap] = []
            while True:
                async with hub.subscribe(capacity=1) as subscription:
                    start = subscription.position.row
                    # All but the first find a batch that was on its way when the last one left.
                    item = await anext(subscription, None)
                    if item is None:
                        break
                    assert span(item)[0] == start
                    lost = subscription._inbox.queue
                    taken += [item, *(entry.item for entry in lost._entries)]
            assert_tiled(taken, 0, ROWS)

    run(backend, main)


def test_batch_on_its_way_is_for_the_next_subscriber(backend: str, path: Path):
    """Who leaves while the reader waits for rows takes none of them away."""

    async def main() -> None:
        with RawWriter(path) as out:
            async with broadcast(follow(path, poll=0.01)) as hub:
                async with hub.subscribe():
                    await until(lambda: hub.follower.stats.looks)
                append(out, 0, 10)
                await until(lambda: hub._pump._held)
                async with hub.subscribe() as second:
                    assert second.position.row == 0
                    assert span(await anext(second)) == (0, 10)

    run(backend, main)


def test_subscriber_that_leaves_holds_up_nobody(backend: str, hundred: Path):
    """Its error is its own; the others are given everything."""

    class Wrong(Exception):
        pass

    async def main() -> None:
        async with broadcast(in_fives(hundred)) as hub:
            other, subscription = hub.subscribe(), hub.subscribe(capacity=1)

            async def consume() -> None:
                async with subscription:
                    async for _ in subscription:
                        raise Wrong

            with pytest.raises(Wrong):
                await consume()
            assert subscription.outcome == "closed"
            assert await anext(subscription, None) is None
            assert_tiled(await everything(other), 0, ROWS)

    run(backend, main)


def test_subscription_that_is_forgotten_holds_up_nobody(backend: str, hundred: Path):
    """A loop that was left without a close is found out, however much is still to read."""

    async def main() -> None:
        async with broadcast(in_fives(hundred)) as hub:
            other, forgotten = hub.subscribe(), hub.subscribe(capacity=1)
            async for _ in forgotten:
                break
            taken: list[Batch | Gap] = []
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(everything, other, taken)
                await until(lambda: other._inbox.news and hub._pump._changed)
                del forgotten
                gc.collect()
            assert_tiled(taken, 0, ROWS)

    run(backend, main)


def test_close_during_a_wait(backend: str, path: Path):
    """Who waits is told that there is no more, and nobody else is."""

    async def main() -> None:
        with RawWriter(path) as out:
            async with (
                broadcast(follow(path, poll=0.01)) as hub,
                anyio.create_task_group() as tasks,
            ):
                other = hub.subscribe()
                subscription = hub.subscribe()
                tasks.start_soon(everything, subscription)
                await until(lambda: subscription._inbox.news)
                await subscription.aclose()
                await subscription.aclose()
                assert subscription.outcome == "closed"
                append(out, 0, 10)
                assert span(await anext(other)) == (0, 10)

    run(backend, main)


def test_two_tasks_on_one_subscription(backend: str, path: Path):
    """The second is told, and the first is not disturbed."""

    async def main() -> None:
        with RawWriter(path) as out:
            async with (
                broadcast(follow(path, poll=0.01)) as hub,
                anyio.create_task_group() as tasks,
            ):
                subscription, taken = hub.subscribe(), []

                async def first() -> None:
                    taken.append(await anext(subscription))

                tasks.start_soon(first)
                await until(lambda: subscription._inbox.news)
                with pytest.raises(StreamError, match="two tasks"):
                    await anext(subscription)
                append(out, 0, 10)
                await until(lambda: taken)

    run(backend, main)


# --------------------------------------------------------------------------------- ends


def test_end_comes_after_everything(backend: str, hundred: Path):
    """Each is given what remains, then the end, again and again; also outside the block."""

    async def main() -> None:
        async with broadcast(in_fives(hundred)) as hub:
            subscriptions = [hub.subscribe() for _ in range(3)]
            await until(lambda: hub._pump.outcome)
            assert subscriptions[0].outcome is None
            assert_tiled(await everything(subscriptions[0]), 0, ROWS)
            assert await everything(subscriptions[0]) == []
            late = hub.subscribe()
            assert await everything(late) == []
            assert late.outcome == subscriptions[0].outcome == "finished"
            assert late.position.row == ROWS
        assert_tiled(await everything(subscriptions[1]), 0, ROWS)

    run(backend, main)


def test_block_that_is_left_before_the_end(backend: str, path: Path):
    """The follower is closed; who still iterates has what waits, and is told of the rest."""

    async def main() -> None:
        with RawWriter(path) as out:
            append(out, 0, 10)
            of_the_writer = handles(path)
            async with broadcast(follow(path, poll=0.01)) as hub:
                subscription, other = hub.subscribe(), hub.subscribe()
                assert await anext(other)
            assert hub.follower.outcome == "closed"
            assert handles(path) == of_the_writer
            assert span(await anext(subscription)) == (0, 10)
            for _ in range(2):
                with pytest.raises(StreamError, match="left before the end; the next is row 10"):
                    await anext(subscription)
            with pytest.raises(StreamError, match="inside"):
                hub.subscribe()

    run(backend, main)


def test_who_waits_is_told_that_the_block_is_left(backend: str, path: Path):
    """It does not wait for ever."""

    async def main() -> None:
        with RawWriter(path):
            errors = []

            async def consume(subscription: Subscription) -> None:
                try:
                    await everything(subscription)
                except StreamError as error:
                    errors.append(error)

            async with (
                anyio.create_task_group() as tasks,
                broadcast(follow(path, poll=0.01)) as hub,
            ):
                subscription = hub.subscribe()
                tasks.start_soon(consume, subscription)
                await until(lambda: subscription._inbox.news)
            assert len(errors) == 1

    run(backend, main)


def test_error_of_the_block_is_its_own(backend: str, path: Path):
    """It comes out as it is, in no group."""

    class Wrong(Exception):
        pass

    async def main() -> None:
        async with broadcast(follower) as hub:
            hub.subscribe()
            raise Wrong

    follower = follow(path, poll=0.01)
    with RawWriter(path), pytest.raises(Wrong):
        run(backend, main)
    assert follower.outcome == "closed"


def test_cancelled_block(backend: str, path: Path):
    """A hub whose task is cancelled ends with it, and the follower is closed."""

    async def main() -> None:
        with RawWriter(path):
            for seconds in (0.0, 0.001, 0.02):
                with anyio.move_on_after(seconds) as scope:
                    async with broadcast(follow(path, poll=0.01)) as hub:
                        await everything(hub.subscribe())
                assert scope.cancelled_caught
                assert hub.follower.outcome == "closed"

    run(backend, main)


def test_task_that_asyncio_cancels(path: Path):
    """Once or twice, at any moment: the follower is closed, and no task is left."""

    async def hold(follower: Follower) -> None:
        async with broadcast(follower) as hub, anyio.create_task_group() as tasks:
            tasks.start_soon(everything, hub.subscribe(capacity=1))
            await everything(hub.subscribe("latest"))

    async def main() -> None:
        rng, before = random.Random(1), asyncio.all_tasks()
        for twice in [False, True] * 20:
            follower = follow(path, poll=0.002, max_batch_bytes=FIVE)
            task = asyncio.create_task(hold(follower))
            await asyncio.sleep(rng.choice([0.0, rng.uniform(0, 0.02)]))
            task.cancel()
            if twice:
                await asyncio.sleep(rng.choice([0.0, 0.0005]))
                task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            assert asyncio.all_tasks() == before
            assert follower.outcome in (None, "closed")  # None if it was not even entered

    with RawWriter(path) as out:
        append(out, 0, ROWS)
        run("asyncio", main)


# ------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("policy", POLICIES)
def test_error_comes_after_everything_to_each(policy: str, backend: str, path: Path):
    """What remains first, then the error, bare; and who asks again goes on."""

    async def main() -> None:
        with RawWriter(path) as out:
            append(out, 0, 10)
            async with broadcast(follow(path, poll=0.01, idle_timeout=0.05)) as hub:
                subscriptions = [hub.subscribe(policy) for _ in range(3)]
                await until(lambda: hub._pump._failed)
                for one in subscriptions:
                    assert span(await anext(one)) == (0, 10)
                    with pytest.raises(WriterStalled):
                        await anext(one)
                # Nobody asks, so nobody is told again.
                await anyio.sleep(0.1)
                assert not any(one._inbox.queue for one in subscriptions)
                append(out, 10, 20)
                for one in subscriptions:
                    assert span(await anext(one)) == (10, 20)

    run(backend, main)


def test_error_that_stays(backend: str, path: Path, tmp_path: Path):
    """A file that was replaced is no other for who asks again, or comes late."""

    async def main() -> None:
        with RawWriter(path) as out:
            append(out, 0, 10)
            async with broadcast(follow(path, poll=0.01)) as hub:
                early = hub.subscribe()
                assert span(await anext(early)) == (0, 10)
                await anyio.Path(path).rename(tmp_path / "old.h5")
                write(path, 5)
                for one in (early, early, hub.subscribe()):
                    with pytest.raises(FileReplaced):
                        await anext(one)

    run(backend, main)


def test_error_in_the_tasks_of_consumers_is_raised_by_them_alone(backend: str, path: Path):
    """Once for each that was told, and the hub adds none."""

    async def main() -> None:
        with RawWriter(path) as out:
            append(out, 0, 10)
            with pytest.raises(ExceptionGroup) as caught:
                async with (
                    broadcast(follow(path, poll=0.01, idle_timeout=0.05)) as hub,
                    anyio.create_task_group() as tasks,
                ):
                    tasks.start_soon(everything, hub.subscribe())
        assert [type(error) for error in caught.value.exceptions] == [WriterStalled]

    run(backend, main)


def test_error_that_nobody_is_there_for_is_raised_by_the_block(backend: str, path: Path):
    """The last one had left while the reader waited."""

    async def main() -> None:
        async with broadcast(follow(path, poll=0.01, idle_timeout=0.05)) as hub:
            async with hub.subscribe():
                await until(lambda: hub.follower.stats.looks)
            await until(lambda: hub._pump._held)

    with RawWriter(path), pytest.raises(WriterStalled):
        run(backend, main)


def test_error_that_nobody_is_there_for_does_not_hide_another(
    backend: str, path: Path, caplog: pytest.LogCaptureFixture
):
    """Then it is in the log, as is one that nobody stayed to hear."""

    class Wrong(Exception):
        pass

    async def told_to_nobody() -> None:
        async with broadcast(follow(path, poll=0.01, idle_timeout=0.05)) as hub:
            async with hub.subscribe():
                await until(lambda: hub.follower.stats.looks)
            await until(lambda: hub._pump._held)
            raise Wrong

    async def not_heard() -> None:
        async with broadcast(follow(path, poll=0.01, idle_timeout=0.05)) as hub:
            subscription = hub.subscribe()
            await until(lambda: hub._pump._failed)
            await subscription.aclose()

    with RawWriter(path):
        with pytest.raises(Wrong):
            run(backend, told_to_nobody)
        run(backend, not_heard)
    found = [record.message for record in caplog.records if record.name == "streamer.pump"]
    assert len(found) == 2
    assert all("no new row" in text for text in found)


def test_traces_of_one_error_do_not_grow(backend: str, path: Path):
    """Each consumer is shown how the reading failed, not how another was told."""

    async def main() -> list[int]:
        lengths = []
        with RawWriter(path) as out:
            append(out, 0, 10)
            async with broadcast(follow(path, poll=0.01, idle_timeout=0.05)) as hub:
                for one in [hub.subscribe() for _ in range(4)]:
                    assert await anext(one)
                    with pytest.raises(WriterStalled) as caught:
                        await anext(one)
                    lengths.append(len(caught.traceback))
        return lengths

    assert len(set(run(backend, main))) == 1


# ----------------------------------------------------------------------------- position


@pytest.mark.parametrize("policy", POLICIES)
def test_position_is_after_what_was_taken(policy: str, backend: str, hundred: Path):
    """Not after what was read: from each one the rest can be had, without a gap in it."""

    async def main() -> None:
        async with broadcast(in_fives(hundred)) as hub:
            subscription = hub.subscribe(policy, capacity=2000)
            positions = [subscription.position]
            async for item in subscription:
                assert subscription.position.row == span(item)[1]
                positions.append(subscription.position)
        for position in positions[::5]:
            start = Position.from_json(position.to_json())
            async with broadcast(in_fives(hundred, start=start)) as hub:
                assert_tiled(await everything(hub.subscribe()), position.row, ROWS)

    run(backend, main)


def test_position_past_rows_that_are_filtered_out(backend: str, path: Path):
    """Who has taken all that was read is where the reading is."""

    async def main() -> None:
        with RawWriter(path) as out:
            append(out, 0, 10)
            async with broadcast(follow(path, poll=0.01, io_groups={1})) as hub:
                subscription = hub.subscribe()
                assert await anext(subscription)
                append(out, 10, 13)
                assert io_group(12) != 1
                await until(lambda: subscription.position.row == 13)
                await subscription.aclose()
            assert subscription.position.row == 13

    run(backend, main)


def test_position_where_it_starts_at_the_end(backend: str, path: Path):
    """Before anything came, it is where the follower is."""

    async def main() -> None:
        with RawWriter(path) as out:
            append(out, 0, 10)
            async with broadcast(follow(path, poll=0.01, start="end")) as hub:
                subscription = hub.subscribe()
                await until(lambda: subscription.position.row == 10)

    run(backend, main)


# --------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize("capacity", [0, -1, 1.5, "16 MB"])
def test_bad_capacity(capacity, backend: str, path: Path):
    """A capacity is a positive number of bytes."""

    async def main() -> None:
        async with broadcast(follow(path)) as hub:
            with pytest.raises(ValueError, match="capacity"):
                hub.subscribe(capacity=capacity)

    run(backend, main)


def test_bad_policy(backend: str, path: Path):
    """The error names those that there are."""

    async def main() -> None:
        async with broadcast(follow(path)) as hub:
            with pytest.raises(ValueError, match="block, latest, sample"):
                hub.subscribe("newest")

    run(backend, main)


def test_subscription_outside_the_block(backend: str, path: Path):
    """Nobody would ever give it anything."""

    async def main() -> None:
        hub = broadcast(follow(path))
        with pytest.raises(StreamError, match="inside"):
            hub.subscribe()
        async with hub:
            with pytest.raises(StreamError, match="once"):
                await hub.__aenter__()

    run(backend, main)


class Scripted:
    """A follower of which is known what it says, batch for batch."""

    path = Path("scripted.h5")
    outcome: str | None = None
    checkpoint = None

    def __init__(self, items: list) -> None:
        self.items = list(items)
        self.position = Position(0)

    def batches(self):
        return self

    async def __anext__(self) -> Batch | Gap:
        await lowlevel.checkpoint()
        if not self.items:
            self.outcome = "finished"
            raise StopAsyncIteration
        item = self.items.pop(0)
        if isinstance(item, Exception):
            raise item
        if span(item)[1] is not None:
            self.position = Position(span(item)[1])
        return item

    async def aclose(self) -> None:
        self.outcome = self.outcome or "closed"


def batch_of(start: int, stop: int, source: Path | None = None) -> Batch:
    rows = np.arange(start, stop)
    return Batch(
        rows,
        np.ones(len(rows), "u1"),
        np.zeros(10 * len(rows), "u1"),
        10 * np.arange(len(rows)),
        np.full(len(rows), 10),
        source,
    )


def test_follower_with_a_checkpoint_is_refused(hundred: Path, tmp_path: Path):
    """It would store as done what still waits for a consumer."""
    follower = follow(hundred, checkpoint=tmp_path / "state.json")
    with pytest.raises(ValueError, match="store a subscription's position"):
        broadcast(follower)
    assert not (tmp_path / "state.json").exists()


# ----------------------------------------------------------- gaps of the follower itself


@pytest.mark.parametrize("policy", POLICIES)
def test_gap_of_the_follower_is_passed_on_in_its_place(policy: str, backend: str):
    """As it is, whatever the policy leaves out around it."""
    own = Gap(20, 30, "cannot be read")
    items = [batch_of(0, 10), batch_of(10, 20), own, batch_of(30, 40), batch_of(40, 50)]

    async def main() -> None:
        async with broadcast(Scripted(items)) as hub:
            slow, quick = hub.subscribe(policy, capacity=1), hub.subscribe()
            async with anyio.create_task_group() as tasks:
                taken = []
                tasks.start_soon(everything, quick, taken)
                if policy != "block":
                    await until(lambda: hub._pump.outcome)
                slowly = await everything(slow)
        assert own in slowly
        assert taken == items
        # From where the gap is known, the policy's gaps do not swallow it.
        assert [span(item) for item in slowly] == {
            "block": [(0, 10), (10, 20), (20, 30), (30, 40), (40, 50)],
            "latest": [(0, 20), (20, 30), (30, 40), (40, 50)],
            "sample": [(0, 10), (10, 20), (20, 30), (30, 50)],
        }[policy]

    run(backend, main)


def test_name_that_is_given_to_another_file(backend: str, path: Path, tmp_path: Path):
    """The follower's gap is between the files for all, and a policy's gap is of one file."""

    async def main() -> None:
        with RawWriter(path) as out:
            append(out, 0, 10)
            async with broadcast(follow(path, poll=0.01, on_replace="continue")) as hub:
                stuck, quick = hub.subscribe("latest"), hub.subscribe()
                assert span(await anext(quick)) == (0, 10)
                await anyio.Path(path).rename(tmp_path / "old.h5")
                write(path, 5)
                own, batch = await everything(quick)
                assert await everything(stuck) == [
                    Gap(0, 10, QUEUES["latest"].reason, path),
                    own,
                    batch,
                ]
        assert isinstance(own, Gap)
        assert own.start == 10
        assert_tiled([batch], 0, 5)

    run(backend, main)


def test_runs_of_a_folder(backend: str, tmp_path: Path):
    """One gap for each file of which something is left out."""

    async def main() -> None:
        paths = [write(tmp_path / f"{number}.h5", ROWS) for number in range(3)]
        async with broadcast(follow(tmp_path, until="end", max_batch_bytes=FIVE)) as hub:
            stuck = hub.subscribe("latest")
            items = await everything(hub.subscribe())
            *gaps, newest = await everything(stuck)
        for path in paths:
            assert_tiled([item for item in items if item.source == path], 0, ROWS)
        assert [(gap.source, *span(gap)) for gap in gaps] == [
            (paths[0], 0, ROWS),
            (paths[1], 0, ROWS),
            (paths[2], 0, ROWS - 5),
        ]
        assert newest is items[-1]
        assert stuck.position.source == paths[2].name
        assert stuck.position.row == ROWS

    run(backend, main)


def test_gaps_of_two_files_are_two():
    """Also if the one goes on with the row after the other's last."""
    queue = QUEUES["latest"](1)
    one, other = Path("one.h5"), Path("other.h5")
    for batch in (batch_of(0, 10, one), batch_of(10, 20, other), batch_of(0, 5, other)):
        queue.put(Entry(batch, Position(0), 1))
    queue.put(Entry(batch_of(5, 10, other), Position(0), 1))
    gaps = [queue.take().item for _ in range(3)]
    assert [(*gap[:2], gap.source) for gap in gaps] == [
        (0, 10, one),
        (10, 20, other),
        (0, 5, other),
    ]
    assert isinstance(queue.take().item, Batch)
    assert not queue


# ------------------------------------------------------------------------------ properties


@given(
    policy=st.sampled_from(POLICIES),
    capacity=st.integers(1, 60),
    sizes=st.lists(st.integers(-3, 30), max_size=60),
    takes=st.lists(st.integers(0, 4), max_size=60),
)
def test_queue_tiles_the_rows(policy: str, capacity: int, sizes: list[int], takes: list[int]):
    """Whatever comes and goes: all rows, in order, as they are or as gaps; memory bounded.

    A size is that of a batch; -1 is an error, less a gap of the follower.
    """
    queue, row, taken, errors = QUEUES[policy](capacity), 0, [], 0
    for number, size in enumerate(sizes):
        if size == -1:
            queue.put(Entry(Failure(StreamError(), None), Position(row)))
        elif size < 0:
            queue.put(Entry(Gap(row, row + 7, "own"), Position(row + 7)))
            row += 7
        else:
            queue.put(Entry(batch_of(row, row + 3), Position(row + 3), size))
            row += 3
        if policy == "latest":
            assert queue._bytes <= capacity or queue._batches == 1
        elif policy == "sample":
            assert queue._bytes < capacity + 30
        for _ in range(takes[number] if number < len(takes) else 0):
            taken += [queue.take()] if queue else []
    taken += [queue.take() for _ in range(len(queue))]
    assert queue._bytes == queue._batches == 0
    row = 0
    for entry in taken:
        if isinstance(entry.item, Failure):
            assert entry.position.row == row
            errors += 1
            continue
        first, row_after = span(entry.item)
        assert first == row
        assert entry.position.row == row_after
        if isinstance(entry.item, Gap) and entry.item.reason != "own":
            assert policy != "block"
            assert entry.missed == row_after - first
        row = row_after
    assert row == sum(7 if size < -1 else 3 if size >= 0 else 0 for size in sizes)
    assert errors <= sizes.count(-1)


class Consumer:
    """One that comes, works, is cancelled, and leaves, at random."""

    def __init__(self, hub: Hub, rng: random.Random, *, native: bool) -> None:
        self.hub, self.rng, self.native = hub, rng, native
        self.policy = rng.choice(POLICIES)
        self.capacity = rng.choice([None, 1, 1000, 5000, 20000])
        self.late = rng.random() < 0.3
        self.leaves_after = rng.choice([None, None, 3, 20])
        self.pace = rng.choice([0.0, 0.0, 0.0005, 0.003])
        self.taken: list[Batch | Gap] = []
        self.cancelled = 0
        self.ended = False

    async def work(self) -> None:
        if self.late:
            await anyio.sleep(self.rng.uniform(0, 0.02))
        async with self.hub.subscribe(self.policy, capacity=self.capacity) as subscription:
            self.start = subscription.position.row
            while not self.ended and len(self.taken) != self.leaves_after:
                with suppress(TimeoutError):
                    if self.native and self.rng.random() < 0.5:
                        await asyncio.wait_for(self.some(subscription), self.moment())
                    else:
                        with anyio.fail_after(self.moment()):
                            await self.some(subscription)
                    continue
                self.cancelled += 1
                assert subscription.position.row == self.reached
            assert subscription.position.row == self.reached
            assert subscription.missed == sum(
                item.stop - item.start for item in self.taken if isinstance(item, Gap)
            )

    def moment(self) -> float:
        return self.rng.choice([0.0, self.rng.uniform(0, 0.002), self.rng.uniform(0, 0.02)])

    @property
    def reached(self) -> int:
        return span(self.taken[-1])[1] if self.taken else self.start

    async def some(self, subscription: Subscription) -> None:
        async for item in subscription:
            self.taken.append(item)
            if len(self.taken) == self.leaves_after:
                return
            if self.pace:
                await anyio.sleep(self.rng.uniform(0, self.pace))
        self.ended = True

    def check(self, stop: int) -> None:
        assert_tiled(self.taken, self.start, self.reached)
        if self.ended:
            assert self.reached == stop
        if self.policy == "block":
            assert not [item for item in self.taken if isinstance(item, Gap)]


async def campaign(path: Path, rows: int, seed: int, *, native: bool) -> int:
    """Let random consumers have a file; return how often one was cancelled."""
    rng = random.Random(seed)
    follower = follow(
        path, until=rows, poll=0.002, max_batch_bytes=rng.choice([FIVE, 2 * FIVE, 20 * FIVE])
    )
    with anyio.fail_after(60):
        async with broadcast(follower) as hub, anyio.create_task_group() as tasks:
            consumers = [Consumer(hub, rng, native=native) for _ in range(rng.randint(1, 6))]
            for consumer in consumers:
                tasks.start_soon(consumer.work)
        for consumer in consumers:
            consumer.check(rows)
    return sum(consumer.cancelled for consumer in consumers)


@pytest.mark.parametrize("rounds", [15, pytest.param(1000, marks=NIGHTLY)], ids=["some", "many"])
@pytest.mark.parametrize("way", [*BACKENDS, "asyncio's own"])
def test_random_consumers_of_a_file(way: str, rounds: int, path: Path):
    """With any policy, pace, capacity and cancellations: batches and gaps tile the rows."""
    write(path, 1000)
    cancelled = sum(
        anyio.run(
            partial(campaign, path, 1000, seed, native=way not in BACKENDS),
            backend=way if way in BACKENDS else "asyncio",
        )
        for seed in range(rounds)
    )
    assert cancelled > rounds


@pytest.mark.parametrize("rounds", [3, pytest.param(200, marks=NIGHTLY)], ids=["some", "many"])
def test_random_consumers_of_a_live_file(rounds: int, backend: str, tmp_path: Path):
    """The same beside a writer in a second process."""
    for seed in range(rounds):
        path = tmp_path / f"{seed}.h5"
        with running("rawwriter", path, batch=10, batches=60, pause=0.001) as writer:
            anyio.run(partial(campaign, path, 600, seed, native=False), backend=backend)
            writer.kill()


# --------------------------------------------------------------------------------- speed
