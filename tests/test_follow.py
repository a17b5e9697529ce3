"""follow() and tail(): where they start and end, what they tell, and what may go wrong."""

import asyncio
import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from functools import partial
from itertools import islice, product
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import numpy as np
import pytest
from anyio import to_thread

from streamer import Follower, Message, Position, RawFile, Tail, follow, tail
from streamer.errors import (
    FileReplaced,
    LayoutError,
    NotReady,
    RowUnreadable,
    StreamError,
    WriterStalled,
)
from streamer.following import Following
from streamer.progress import Progress
from streamer.sequence import Sequence
from streamer.step import Step
from writer import RawWriter

from .following import (
    BACKENDS,
    WAYS,
    append,
    assert_rows,
    collect,
    enlarge,
    fill,
    foreign,
    live,
    write,
)
from .live.writers import ROOT, environment, io_group, message

# Long enough that no test ends by it; a wait that a hint or a close should end.
NEVER = 60.0
PR_SET_DUMPABLE = 4


def descriptors_of(path: Path) -> int:
    names = [str(path), str(path.resolve())]
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the descriptor of this very listing
            found += str(entry.readlink()) in names
    return found


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """On an event loop of either kind, or on none."""
    return request.param


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "raw.h5"


@pytest.fixture
def hundred(path: Path) -> Path:
    """A hundred rows of a run that has ended."""
    return write(path, 100)


# ---------------------------------------------------------------------- start and until

STARTS = [
    ("beginning", 0),
    (0, 0),
    (1, 1),
    (99, 99),
    (100, 100),
    (150, 100),
    (-1, 99),
    (-100, 0),
    (-101, 0),
    (-(10**12), 0),
    (np.int64(40), 40),
    ("end", 100),
    (Position(row=30), 30),
    (Position(row=100), 100),
]


@pytest.mark.parametrize(("start", "first"), STARTS, ids=lambda value: str(value)[:20])
def test_start(start, first: int, hundred: Path):
    """Every form of start gives the rows from there to the run's end."""
    for way, batches in product(WAYS, (False, True)):
        messages, follower = collect(way, hundred, start=start, batches=batches)
        assert_rows(messages, range(first, 100))
        assert follower.outcome == "finished"


UNTILS = [
    ("finished", 0, 100, "finished"),
    ("end", 0, 100, "end"),
    ("end", "end", 100, "end"),
    (0, 0, 0, "row"),
    (1, 0, 1, "row"),
    (99, 0, 99, "row"),
    (100, 0, 100, "row"),
    (np.int64(7), 0, 7, "row"),
    (101, 0, 100, "finished"),
    (30, 50, 50, "row"),
    (50, 50, 50, "row"),
    (20, "end", 20, "row"),
    ("end", 120, 120, "end"),
    (9, -95, 9, "row"),
]


@pytest.mark.parametrize(("until", "start", "stop", "outcome"), UNTILS)
def test_until(until, start, stop: int, outcome: str, hundred: Path):
    """Every form of until ends where it says, and a stop before the start gives nothing."""
    first = {"end": 100}.get(start, start)
    first = first + 100 if first < 0 else first
    for way, batches in product(WAYS, (False, True)):
        messages, follower = collect(way, hundred, start=start, until=until, batches=batches)
        assert_rows(messages, range(first, min(stop, 100)))
        assert follower.outcome == outcome


def test_start_at_the_end_of_a_live_file(way: str, path: Path):
    """Of a file that is there, only rows that come after the first look are given."""
    with RawWriter(path) as out:
        append(out, 0, 50)
        with live(way, path, start="end") as run:
            run.looked()
            append(out, 50, 60)
            run.has(10)
            out.close()
            assert_rows(run.end(), range(50, 60))


def test_start_at_the_end_of_a_file_that_comes(way: str, path: Path):
    """Of a file that was not there, all rows are new."""
    with live(way, path, start="end") as run:
        run.looked()
        write(path, 20)
        assert_rows(run.end(), range(20))


@pytest.mark.parametrize(
    ("start", "first"), [(70, 70), (-20, 30), (-200, 0), (Position(60), 60)], ids=str
)
def test_start_in_a_live_file(start, first: int, way: str, path: Path):
    """A start is found once: rows that come later do not move it, nor do rows to come."""
    with RawWriter(path) as out:
        append(out, 0, 50)
        with live(way, path, start=start) as run:
            run.looked()
            append(out, 50, 65)
            run.looked()
            assert_rows(run.messages, range(first, 65))
            append(out, 65, 100)
            out.close()
            assert_rows(run.end(), range(first, 100))


def test_until_the_end_of_a_live_file(way: str, path: Path):
    """What is committed at the first look is given, and not what comes meanwhile."""
    with RawWriter(path) as out:
        append(out, 0, 50)
        first_batch_bytes = 136 * 10
        with tail(path, until="end", max_batch_bytes=first_batch_bytes) as other:
            assert next(other).row == 0
            append(out, 50, 100)
            assert_rows(other, range(1, 50))
            assert other.outcome == "end"
        messages, follower = collect(way, path, until="end")
        assert_rows(messages, range(100))
        assert follower.outcome == "end"


def test_until_a_row_of_a_live_file(way: str, path: Path):
    """It waits for the row, and then ends though the run goes on."""
    with RawWriter(path) as out:
        append(out, 0, 50)
        with live(way, path, until=75) as run:
            run.has(50)
            run.looked()
            assert run.running
            assert run.follower.outcome is None
            append(out, 50, 100)
            assert_rows(run.end(), range(75))
            assert run.follower.outcome == "row"


def test_finished_within_a_poll(way: str, path: Path):
    """A clean close ends it within one poll, without any hint."""
    poll = 0.4
    with RawWriter(path) as out:
        append(out, 0, 50)
        with live(way, path, poll=poll, hints=False) as run:
            run.has(50)
            out.close()
            closed = time.monotonic()
            assert_rows(run.end(), range(50))
            # A busy machine gets as long again.
            assert run.ended_at - closed < 2 * poll
            assert run.follower.outcome == "finished"


def test_a_paused_run_goes_on(way: str, path: Path):
    """A run whose writer has closed is over, and one that is continued is met again."""
    with live(way, write(path, 20)) as run:
        assert_rows(run.end(), range(20))
    with RawWriter(path) as out:
        append(out, 20, 30)
        with live(way, path, start=run.follower.position) as run:
            run.has(10)
            run.looked()
            assert run.running, "the run is not over"
            out.close()
            assert_rows(run.end(), range(20, 30))


# ----------------------------------------------------------------------------- filters


@pytest.mark.parametrize(
    "io_groups", [{1}, [2, 5], (7, 7), range(1, 8), np.array([3, 4]), {0, 255}, frozenset({6})]
)
def test_io_groups(io_groups, hundred: Path):
    """Only messages of these cards are given, also across many small batches."""
    wanted = {int(group) for group in io_groups}
    rows = [row for row in range(100) if io_group(row) in wanted]
    for way, batches in product(WAYS, (False, True)):
        messages, follower = collect(
            way, hundred, io_groups=io_groups, batches=batches, max_batch_bytes=136 * 9
        )
        assert_rows(messages, rows)
        assert follower.outcome == "finished"
        assert follower.position.row == 100
        assert follower.stats.rows == len(rows)


def test_rows_that_are_filtered_out_are_no_silence(way: str, path: Path):
    """A writer whose rows nobody here wants has not stalled."""
    with RawWriter(path) as out, live(way, path, io_groups={200}, idle_timeout=1.0) as run:
        for start in range(20):
            before = time.monotonic()
            out.append([b"x"], [1])
            run.until(lambda start=start: run.follower.position.row == start + 1)
            while time.monotonic() < before + 0.06:
                run.looked(1)
        with pytest.raises(WriterStalled):
            run.end()
        assert run.messages == []
        assert run.ended_at >= before + 1.0


# ------------------------------------------------------------------------ idle_timeout


@pytest.mark.parametrize("hints", [True, False])
def test_silence(hints: bool, way: str, path: Path):
    """A file of which nobody says that its run is over is followed until idle_timeout."""
    with foreign(path, 10) as file, live(way, path, idle_timeout=0.6, hints=hints) as run:
        run.has(10)
        run.looked(5)
        before = time.monotonic()
        enlarge(file, 20)
        fill(file, 10, 20)
        run.has(20)
        with pytest.raises(WriterStalled, match=r"no new row for 0\.6 s; the next is row 20"):
            run.end()
        assert str(path) in str(run.error)
        assert isinstance(run.error, TimeoutError)
        assert 0.6 <= run.ended_at - before < 5
        assert_rows(run.messages, range(20))
        # It was closed then; no other end may be read out of it.
        assert run.follower.outcome == "closed"


def test_silence_is_no_end(path: Path):
    """After WriterStalled one may ask again, and again only after as long a silence."""
    with foreign(path, 10) as file, tail(path, idle_timeout=0.2, poll=0.02) as live:
        assert_rows(islice(live, 10), range(10))
        for _ in range(2):
            begun = time.monotonic()
            with pytest.raises(WriterStalled):
                next(live)
            assert time.monotonic() - begun > 0.19
            assert live.outcome is None
        enlarge(file, 20)
        fill(file, 10, 20)
        assert_rows(islice(live, 10), range(10, 20))


def test_file_that_never_comes(way: str, path: Path):
    """A file that is absent for idle_timeout is not a writer that has stalled."""
    begun = time.monotonic()
    with pytest.raises(NotReady, match=r"absent, for 0\.3 s") as caught:
        collect(way, path, idle_timeout=0.3)
    assert str(path) in str(caught.value)
    assert 0.29 < time.monotonic() - begun < 5


def test_timeout_is_of_the_writer_not_of_the_reader(path: Path):
    """A consumer that takes its time does not see a stall."""
    with RawWriter(path) as out, tail(path, idle_timeout=0.3, poll=0.02) as live:
        for row in range(3):
            append(out, row, row + 1)
            assert next(live).row == row
            time.sleep(0.4)
        append(out, 3, 4)
        assert next(live).row == 3


@pytest.mark.parametrize("hints", [True, False])
def test_a_process_that_was_stopped_looks_before_it_tells_of_silence(hints: bool, path: Path):
    """Rows that have come while it was held up are given, however long that was."""
    program = (
        "import sys; from streamer import tail\n"
        f"for message in tail(sys.argv[1], idle_timeout=1.0, poll=0.2, hints={hints}):\n"
        "    print(message.row, flush=True)\n"
    )
    with (
        foreign(path, 2) as file,
        subprocess.Popen(
            [sys.executable, "-c", program, path],
            env=environment() | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        try:
            assert [process.stdout.readline() for _ in range(2)] == ["0\n", "1\n"]
            process.send_signal(signal.SIGSTOP)
            enlarge(file, 3)
            fill(file, 2, 3)
            time.sleep(1.2)  # longer than the silence may be
            process.send_signal(signal.SIGCONT)
            out, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert out == "2\n"
    assert "WriterStalled" in errors


@pytest.mark.parametrize("backend", BACKENDS)
def test_silence_across_cancelled_waits(backend: str, path: Path):
    """Whoever waits with a timeout of his own, again and again, still hears of the stall."""

    async def main() -> None:
        async with follow(path, idle_timeout=0.5, poll=0.02) as live:
            assert (await anext(live)).row == 0
            begun = time.monotonic()
            with pytest.raises(WriterStalled):
                await impatiently(live)
            assert 0.45 < time.monotonic() - begun < 3

    async def impatiently(live: Follower) -> None:
        for _ in range(100):
            with anyio.move_on_after(0.1):
                await anext(live)

    with foreign(path, 1):
        anyio.run(main, backend=backend)


# ---------------------------------------------------------------------------- position


@pytest.mark.parametrize("max_batch_bytes", [1, 136 * 7, 1 << 24])
def test_position_after_every_message(max_batch_bytes: int, way: str, path: Path):
    """From every position, through JSON, the rest follows, exactly."""
    write(path, 30)
    positions = []
    with tail(path, max_batch_bytes=max_batch_bytes) as first:
        positions.append(first.position)
        for found in first:
            positions.append(first.position)
            assert first.position.anchor_row == found.row
    assert [position.row for position in positions] == list(range(31))
    for position in positions:
        again = Position.from_json(position.to_json())
        assert again == position
        messages, follower = collect(way, path, start=again)
        assert_rows(messages, range(position.row, 30))
        assert follower.position == positions[-1] or not messages
    assert positions[-1].run_id is not None
    assert positions[-1].created is not None


@pytest.mark.parametrize("backend", BACKENDS)
def test_position_is_the_same_on_a_loop(backend: str, path: Path):
    """Message by message, follow() and tail() are at the same position."""
    write(path, 30)

    async def main() -> list[Position]:
        async with follow(path) as live:
            return [live.position async for _ in live]

    with tail(path) as live:
        assert anyio.run(main, backend=backend) == [live.position for _ in live]


def test_position_of_a_resumed_follower(way: str, hundred: Path):
    """Before its first message a follower is where it was told to start."""
    with tail(hundred) as first:
        list(islice(first, 40))
        position = first.position
    with tail(hundred, start=position) as second:
        assert second.position == position
    messages, follower = collect(way, hundred, start=position, until=40)
    assert messages == []
    assert follower.position == position


def test_position_past_rows_that_are_filtered_out(way: str, hundred: Path):
    """Rows that were gone through are not read again; the anchor is what was given."""
    messages, follower = collect(way, hundred, io_groups={2}, until=50)
    position = follower.position
    assert position.row == 50
    assert position.anchor_row == messages[-1].row == 43
    rest, _ = collect(way, hundred, io_groups={2}, start=position)
    assert_rows(rest, range(50, 100, 7))


def test_position_of_another_file(way: str, hundred: Path, tmp_path: Path):
    """A position is applied to no file but its own, not even to one with the same rows."""
    with tail(hundred) as first:
        list(islice(first, 40))
        position = first.position
    other = write(tmp_path / "other.h5", 100)
    with pytest.raises(FileReplaced, match="not the file that the position belongs to"):
        collect(way, other, start=Position.from_json(position.to_json()))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"created": 1.0}, "made at"),
        ({"run_id": "another"}, "of run"),
        ({"row": 101}, "has 100 rows, and the position is row 101"),
        ({"anchor": "0" * 16}, "another message in row 39"),
        ({"anchor_row": 38}, "another message in row 38"),
    ],
)
def test_each_part_of_a_position_counts(changed: dict, reason: str, way: str, hundred: Path):
    """Whatever does not fit is named, together with the file."""
    with tail(hundred) as first:
        list(islice(first, 40))
        wrong = Position(**(vars(first.position) | changed))
    with pytest.raises(FileReplaced, match=reason) as caught:
        collect(way, hundred, start=wrong)
    assert str(hundred) in str(caught.value)


def test_position_beyond_the_end_of_a_follower_that_was_given_nothing(way: str, path: Path):
    """A start that was still to come is still to come for the next follower."""
    with RawWriter(path) as out:
        append(out, 0, 10)
        with live(way, path, start=20) as run:
            run.looked()
        position = run.follower.position
        assert position.row == 20
        with live(way, path, start=position) as run:
            run.looked()
            append(out, 10, 30)
            out.close()
            assert_rows(run.end(), range(20, 30))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "[]",
        "{}",
        '{"row": -1}',
        '{"row": 1.5}',
        '{"row": true}',
        '{"row": "1"}',
        '{"row": 1, "more": 2}',
        '{"row": 1, "created": "today"}',
        '{"row": 1, "run_id": 7}',
        '{"row": 5, "anchor_row": 2}',
        '{"row": 5, "anchor": "00"}',
        '{"row": 5, "anchor_row": 5, "anchor": "00"}',
        '{"row": 5, "anchor_row": -1, "anchor": "00"}',
        '{"row": 5, "anchor_row": 1.5, "anchor": "00"}',
    ],
)
def test_what_is_no_position(text: str):
    """Torn or foreign text is never taken for a position."""
    with pytest.raises(ValueError, match="not a position"):
        Position.from_json(text)


# --------------------------------------------------------------- outcome, lag and stats


def test_outcome_is_none_while_messages_are_left(hundred: Path):
    """An end is not told before its last message was given."""
    with tail(hundred, until=3) as live:
        for row in range(3):
            assert live.outcome is None
            assert next(live).row == row
        assert live.outcome == "row"
        for _ in range(2):
            with pytest.raises(StopIteration):
                next(live)
        assert live.outcome == "row"
    assert live.outcome == "row"


PACMAN_WORDS = bytes(8)


def timed(seconds: int) -> bytes:
    """Return a message with a PACMAN header of that Unix time."""
    return b"D" + seconds.to_bytes(4, "little") + b"\0" + (8).to_bytes(2, "little") + bytes(128)


def test_lag(way: str, path: Path, monkeypatch: pytest.MonkeyPatch):
    """Rows, bytes and seconds between what was given and what is committed."""
    monkeypatch.setattr("streamer.steps._NEWEST_SECONDS", 0.0)
    with RawWriter(path) as out:
        out.append([timed(1_700_000_000 + row) for row in range(100)], [1] * 100)
        with tail(path, max_batch_bytes=136 * 10) as live:
            assert tuple(live.lag) == (0, 0, None)
            for row in range(95):
                next(live)
                assert tuple(live.lag) == (99 - row, 136 * (99 - row), 99 - row), row
            out.append([timed(1_700_000_500)], [1])
            list(islice(live, 5))
            assert live.lag.rows in (0, 1)  # it need not have looked again
            next(live)
            assert tuple(live.lag) == (0, 0, 0.0)
            assert isinstance(live.lag.seconds, float)
        _, follower = collect(way, path, until=60)
        assert tuple(follower.lag) == (41, 41 * 136, 441.0)


def test_lag_of_messages_without_a_time(way: str, hundred: Path, path: Path, tmp_path: Path):
    """Where there is no header, or no time in it, there are no seconds; never an error."""
    short = tmp_path / "short.h5"
    with RawWriter(short) as out:
        out.append([b"", b"x", bytes(136)], [1, 1, 1])
    for until in (1, 2, 3):
        messages, follower = collect(way, short, until=until)
        assert len(messages) == until
        assert follower.lag.rows == 3 - until
        assert follower.lag.seconds is None


def test_lag_counts_what_is_filtered_out(way: str, hundred: Path):
    """The rows that are behind are rows of the file."""
    _, follower = collect(way, hundred, until=50, io_groups={2})
    assert follower.lag.rows == 50
    assert follower.lag.bytes == 50 * 136


def test_stats(way: str, hundred: Path):
    """What was given and what it took is counted, exactly."""
    with tail(hundred, max_batch_bytes=136 * 20) as live:
        assert tuple(live.stats) == (0, 0, 0, 0, 0, None)
        before = time.time()
        list(islice(live, 25))
        rows, size, batches, looks, retries, moment = live.stats
        assert (rows, size, batches, looks, retries) == (25, 25 * 136, 3, 3, 0)
        assert before <= moment <= time.time()
    messages, follower = collect(way, hundred, max_batch_bytes=136 * 20)
    assert len(messages) == 100
    rows, size, batches, looks, retries, moment = follower.stats
    assert (rows, size, batches, retries) == (100, 13_600, 10, 0)
    assert looks in (10, 11)
    assert before <= moment <= time.time()


def test_stats_do_not_count_what_was_not_given(hundred: Path):
    """Rows that were read and are still waiting are not counted."""
    with tail(hundred) as live:
        list(islice(live, 10))
        assert live.stats.rows == 10
        assert live.lag.rows == 90
        batch = live.next_batch()
        assert len(batch) == 90
        assert live.stats.rows == 100
        assert live.lag.rows == 0


# -------------------------------------------------------------------- batches and bounds


@pytest.mark.parametrize(
    "max_batch_bytes", [1, 136, 2 * 136, 4 * 136 - 1, 136 * 14, 136 * 200, 10**9]
)
def test_batches_are_bounded(max_batch_bytes: int, way: str, hundred: Path):
    """Two batches, one given and the next, have no more bytes together than were allowed."""
    with live(way, hundred, max_batch_bytes=max_batch_bytes, batches=True) as run:
        assert_rows(run.end(), range(100))
    most = max(1, min(100, max_batch_bytes // 2 // 136))
    assert run.sizes == [136 * most] * (100 // most) + [136 * (100 % most)] * (100 % most > 0)


def test_message_beyond_the_bound(way: str, path: Path):
    """A message that is larger than max_batch_bytes is given all the same, alone."""
    big = bytes(range(256)) * 4096
    with RawWriter(path) as out:
        out.append([b"before", big, b"behind"], [1, 2, 3])
    with live(way, path, max_batch_bytes=1000, batches=True) as run:
        assert [found[:3] for found in run.end()] == [
            (0, 1, b"before"),
            (1, 2, big),
            (2, 3, b"behind"),
        ]
        assert run.sizes == [6, len(big), 6]


@pytest.mark.parametrize("backend", BACKENDS)
def test_messages_and_batches_in_turn(backend: str, hundred: Path):
    """A batch gives what the messages before it have left, and the other way round."""

    async def main() -> None:
        given: list[Message] = []
        async with follow(hundred, max_batch_bytes=136 * 20) as live:
            batches = live.batches()
            for _ in range(10):
                for _ in range(3):
                    given.append(await anext(live))
                    assert live.position.row == len(given)
                given += await anext(batches)
                assert live.position.row == len(given)
                assert live.position.anchor_row == len(given) - 1
                assert live.stats.rows == len(given)
            for iterator in (live, batches):
                with pytest.raises(StopAsyncIteration):
                    await anext(iterator)
        assert_rows(given, range(100))

    anyio.run(main, backend=backend)


def test_messages_and_batches_of_tail_in_turn(hundred: Path):
    """The same without a loop."""
    given: list[Message] = []
    with tail(hundred, max_batch_bytes=136 * 20) as live:
        batches = live.batches()
        for _ in range(10):
            given += islice(live, 3)
            given += next(batches)
        assert list(batches) == list(live) == []
    assert_rows(given, range(100))


# ----------------------------------------------------------------------------- closing


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("given", [0, 1, 50, 100])
def test_close(backend: str, given: int, hundred: Path):
    """After aclose() nothing more is given, and the position is that of the last message."""

    async def main() -> None:
        live = follow(hundred)
        for row in range(given):
            assert (await anext(live)).row == row
        position = live.position
        for _ in range(2):
            await live.aclose()
            # Whether there would have been more was not asked.
            assert live.outcome == "closed"
            for iterator in (live, live.batches()):
                with pytest.raises(StopAsyncIteration):
                    await anext(iterator)
            assert live.position == position
            assert live.stats.rows == given
            assert live.lag.rows == (100 - given if given else 0)

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("given", [0, 1, 50, 100])
def test_close_of_tail(given: int, hundred: Path):
    """The same without a loop."""
    live = tail(hundred)
    assert_rows(islice(live, given), range(given))
    position = live.position
    for _ in range(2):
        live.close()
        assert live.outcome == "closed"
        assert list(live) == list(live.batches()) == []
        assert live.position == position
        assert live.position.row == given


@pytest.mark.parametrize("hints", [True, False])
def test_close_during_a_wait(hints: bool, way: str, path: Path):
    """Whoever waits for rows when another task closes the follower is told so at once."""
    with foreign(path, 5), live(way, path, poll=NEVER, hints=hints) as run:
        run.has(5)
        run.until(lambda: run.follower.stats.looks >= (3 if hints else 2))
        begun = time.monotonic()
        run.close()
        assert_rows(run.end(), range(5))
        assert time.monotonic() - begun < 5
        assert run.follower.outcome == "closed"


def test_close_while_it_waits_for_the_file(way: str, path: Path):
    """The same before there is a file."""
    with live(way, path, poll=NEVER) as run:
        run.until(lambda: run.follower.stats.looks >= 2)
        run.close()
        assert run.end() == []
        assert run.follower.outcome == "closed"
        assert run.follower.position == Position(row=0)


def test_close_just_before_a_wait(path: Path, monkeypatch):
    """Another thread may close it at any time, also as it is about to wait: it ends."""
    call = Following._call

    def closed_by_another(live: Tail):
        other = threading.Thread(target=live.close)
        other.start()
        other.join()
        return call(live)

    with foreign(path, 5), tail(path, poll=NEVER) as live:
        assert_rows(islice(live, 5), range(5))
        monkeypatch.setattr(Following, "_call", closed_by_another)
        with pytest.raises(StopIteration):
            next(live)
        assert live.outcome == "closed"


@pytest.mark.parametrize("place", ["_part", "take"])
def test_close_while_a_batch_is_taken(place: str, hundred: Path, monkeypatch):
    """Another thread closes it just as rows are to be given: some of them are, or none."""
    method = getattr(Progress, place)
    others = []

    def closed_by_another(progress: Progress, *arguments):
        if not others:
            others.append(threading.Thread(target=live.close))
            others[0].start()
            others[0].join(0.2)
        return method(progress, *arguments)

    monkeypatch.setattr(Progress, place, closed_by_another)
    with tail(hundred) as live:
        given = list(live)
        others[0].join()
    assert_rows(given, range(len(given)))
    assert live.stats.rows == live.position.row == len(given)
    assert live.outcome == "closed" or len(given) == 100


@pytest.mark.parametrize("given", [0, 5])
def test_close_during_a_slow_look_is_no_silence(given: int, path: Path, monkeypatch):
    """A look that takes longer than idle_timeout, and a close meanwhile: it has just ended."""
    step, others = Sequence.step, []

    def slow(steps: Sequence, *arguments):
        time.sleep(0.3)
        others.append(threading.Thread(target=live.close))
        others[-1].start()
        others[-1].join(0.2)
        return step(steps, *arguments)

    with foreign(path, 5), tail(path, idle_timeout=0.2) as live:
        assert_rows(islice(live, given), range(given))
        monkeypatch.setattr(Sequence, "step", slow)
        assert list(live) == []
        others[0].join()


def test_close_during_a_look_that_fails(path: Path, monkeypatch):
    """What is wrong with the file is no matter any more to who has closed it."""
    check_same, others = RawFile.check_same, []

    def closed_by_another(raw: RawFile) -> None:
        others.append(threading.Thread(target=live.close))
        others[-1].start()
        others[-1].join(0.2)
        check_same(raw)

    with foreign(path, 5):
        pass
    with tail(path) as live:
        assert_rows(islice(live, 5), range(5))
        with foreign(path, 3):
            monkeypatch.setattr(RawFile, "check_same", closed_by_another)
            assert list(live) == []
        others[0].join()
        assert live.outcome == "closed"


def test_close_before_the_first_message_of_a_batch(hundred: Path, monkeypatch):
    """The position is where the batch begins, and stays there."""
    take, positions = Progress.take, []

    def closed_by_another(progress: Progress, step: Step) -> bool:
        has_rows = take(progress, step)
        other = threading.Thread(target=live.close)
        other.start()
        other.join()
        positions.append(live.position)
        return has_rows

    monkeypatch.setattr(Progress, "take", closed_by_another)
    with tail(hundred, start=-3) as live:
        assert list(live) == []
    assert positions[0].row == 97
    assert live.position == positions[0]


def test_close_after_an_interrupt(path: Path):
    """Ctrl-C may come just as the lock of the steps was taken: closing does not wait for it."""

    class Interrupted:
        def __init__(self, lock) -> None:
            self._lock = lock

        def acquire(self, *arguments, **options):
            self._lock.acquire(*arguments, **options)
            raise KeyboardInterrupt

        def __enter__(self):
            return self._lock.__enter__()

        def __exit__(self, *error):
            return self._lock.__exit__(*error)

    with foreign(path, 5), tail(path) as live:
        assert_rows(islice(live, 5), range(5))
        live._steps._lock = Interrupted(live._steps._lock)
        with pytest.raises(KeyboardInterrupt):
            next(live)


@pytest.mark.parametrize("backend", BACKENDS)
def test_close_while_the_program_uses_all_its_threads(backend: str, path: Path, tmp_path: Path):
    """Neither closing nor storing waits for threads that others of the program have."""
    may_end = threading.Event()

    async def main() -> None:
        to_thread.current_default_thread_limiter().total_tokens = 1
        async with anyio.create_task_group() as group:
            group.start_soon(to_thread.run_sync, may_end.wait)
            await anyio.wait_all_tasks_blocked()
            with anyio.fail_after(4):
                async with follow(path, checkpoint=tmp_path / "state.json") as live:
                    await anext(live)
                    await live.commit()
            may_end.set()

    with foreign(path, 5):
        try:
            anyio.run(main, backend=backend)
        finally:
            may_end.set()


def test_close_that_asyncio_cancels(path: Path):
    """A task that is cancelled twice leaves nothing open (the fixture looks)."""

    async def consume() -> None:
        async with live:
            await anext(live)
            waits.set()
            await anext(live)

    async def main() -> None:
        task = asyncio.create_task(consume())
        await waits.wait()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with foreign(path, 1):
        live, waits = follow(path), asyncio.Event()
        asyncio.run(main())
        deadline = time.monotonic() + 30
        while descriptors_of(path) > 1:  # the writer's
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.parametrize("backend", BACKENDS)
def test_close_during_a_step(backend: str, hundred: Path):
    """Rows that were being read when another task closed it are not given, nor an error."""
    reading, may_read = threading.Event(), threading.Event()

    async def main() -> list[Message]:
        given = []
        live = follow(hundred, max_batch_bytes=136 * 20)

        async def consume() -> None:
            async for found in live:
                given.append(found)

        async with anyio.create_task_group() as group:
            given += [await anext(live) for _ in range(10)]
            step = live._steps.step

            def slow_step(*asked):
                found = step(*asked)
                reading.set()
                may_read.wait(30)
                return found

            live._steps.step = slow_step
            group.start_soon(consume)
            await to_thread.run_sync(reading.wait)
            group.start_soon(live.aclose)
            await anyio.wait_all_tasks_blocked() if backend == "trio" else await anyio.sleep(0.05)
            may_read.set()
        assert live.outcome == "closed"
        assert live.position.row == 10
        return given

    assert_rows(anyio.run(main, backend=backend), range(10))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("absent", [True, False])
def test_cancelled_wait_is_given_up(absent: bool, backend: str, path: Path):
    """A wait of which nobody wants the end keeps no thread, and no program from ending."""

    def waiting() -> set[threading.Thread]:
        # Idle threads of trio stay for a while; these wait in this project's code.
        frames = sys._current_frames()
        return {
            thread
            for thread in threading.enumerate()
            if any("streamer" in line for line in traceback.format_stack(frames[thread.ident]))
        }

    async def main() -> None:
        live = follow(path, poll=NEVER, hints=False)
        with anyio.move_on_after(0.1) as scope:
            async for _ in live:
                pass
        assert scope.cancelled_caught
        deadline = time.monotonic() + 5
        while waiting() - before:
            assert time.monotonic() < deadline
            await anyio.sleep(0.005)
        await live.aclose()

    with nullcontext() if absent else foreign(path, 5):
        before = waiting()
        anyio.run(main, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_short_timeouts_do_not_pile_up_threads(backend: str, path: Path):
    """Who asks again and again, while each step takes long, waits for one step at a time."""
    with foreign(path, 5):
        pass

    async def main() -> int:
        most = 0
        async with follow(path, poll=0.01) as live:
            assert [(await anext(live)).row for _ in range(5)] == list(range(5))
            os.truncate(path, 0)  # it takes a second or two to find nothing in it
            deadline = time.monotonic() + 3
            while time.monotonic() < deadline:
                with anyio.move_on_after(0.02):
                    await anext(live)
                most = max(most, threading.active_count())
        return most

    assert anyio.run(main, backend=backend) < 15


def test_link_to_itself_is_waited_for(way: str, path: Path):
    """It may become one to a file."""
    path.symlink_to(path)
    with live(way, path) as run:
        run.looked(2)
        path.unlink()
        write(path, 10)
        assert_rows(run.end(), range(10))


@pytest.mark.parametrize("end", ["break", "drop", "drop after a wait", "error", "never asked"])
def test_nothing_is_left(end: str, way: str, path: Path):
    """However a loop is left: no thread and no descriptor stays (the fixture looks)."""

    class Wrong(Exception):
        pass

    async def by_follow() -> None:
        live = follow(path)
        if end.startswith("drop"):
            await anext(live)
            with anyio.move_on_after(0.0 if end == "drop" else 0.2):
                async for _ in live:  # the wait starts the hints
                    pass
        elif end != "never asked":
            async with live:
                async for _ in live:
                    if end == "break":
                        break
                    raise Wrong

    def by_tail() -> None:
        live = tail(path, idle_timeout=0.2)
        if end.startswith("drop"):
            next(live)
            if end == "drop after a wait":
                with pytest.raises(WriterStalled):
                    list(live)
        elif end != "never asked":
            with live:
                for _ in live:
                    if end == "break":
                        break
                    raise Wrong

    with foreign(path, 5):
        try:
            by_tail() if way == "tail" else anyio.run(by_follow, backend=way)
        except Wrong:
            assert end == "error"
        else:
            assert end != "error"


@pytest.mark.parametrize("backend", BACKENDS)
def test_loops_that_end_while_hints_come(backend: str, path: Path):
    """A hint on its way to a loop that ends meanwhile keeps no thread."""

    async def main() -> None:
        assert (await anext(follow(path, poll=0.001))).row == 0

    done = threading.Event()

    def touch() -> None:
        while not done.is_set():
            path.touch()
            time.sleep(0.0002)

    with foreign(path, 1):
        thread = threading.Thread(target=touch)
        thread.start()
        try:
            for _ in range(40):
                anyio.run(main, backend=backend)
        finally:
            done.set()
            thread.join()


# ------------------------------------------------------------------------ several at once


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("other", ["message", "batch"])
def test_two_tasks_on_one_follower(backend: str, other: str, path: Path):
    """The second task gets a clear error, and the first one its row."""

    async def main() -> None:
        async with follow(path, poll=0.01) as live, anyio.create_task_group() as group:
            first: list[Message] = []
            asked = anyio.Event()

            async def ask() -> None:
                first.append(await anext(live))
                asked.set()

            group.start_soon(ask)
            while not live.stats.looks:  # noqa: ASYNC110 - that is all there is to see
                await anyio.sleep(0.001)
            for _ in range(2):
                with pytest.raises(StreamError, match="two tasks ask one follower at once"):
                    await anext(live if other == "message" else live.batches())
            append(out, 0, 2)
            await asked.wait()
            assert_rows(first, [0])
            assert_rows([await anext(live)], [1])

    with RawWriter(path) as out:
        anyio.run(main, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_followers_of_one_file_in_one_loop(backend: str, path: Path):
    """Each gets all rows, whatever the other does, and the writer is in the same process."""

    async def consume(found: list[Message], **options) -> None:
        async with follow(path, poll=0.002, **options) as live:
            async for one in live:
                found.append(one)  # noqa: PERF401 - the end is looked at

    async def leave(found: list[Message]) -> None:
        async with follow(path, poll=0.002) as live:
            async for one in live:
                found.append(one)
                if len(found) == 333:
                    break

    async def main() -> None:
        found: list[list[Message]] = [[] for _ in range(4)]
        async with anyio.create_task_group() as group:
            group.start_soon(consume, found[0])
            group.start_soon(partial(consume, found[1], max_batch_bytes=136 * 20, hints=False))
            group.start_soon(partial(consume, found[2], io_groups={3}))
            group.start_soon(leave, found[3])
            with RawWriter(path) as out:
                for start in range(0, 1000, 50):
                    await to_thread.run_sync(append, out, start, start + 50)
        assert_rows(found[0], range(1000))
        assert_rows(found[1], range(1000))
        assert_rows(found[2], range(2, 1000, 7))
        assert_rows(found[3], range(333))

    anyio.run(main, backend=backend)


def test_beside_the_writer_in_one_thread(path: Path):
    """A writer and a tail may take turns in one thread."""
    with RawWriter(path) as out, tail(path, poll=0.001) as live:
        for start in range(0, 200, 10):
            append(out, start, start + 10)
            assert_rows(islice(live, 10), range(start, start + 10))
        out.close()
        assert list(live) == []
        assert live.outcome == "finished"


# --------------------------------------------------------------------------- waiting


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and record.name.startswith("streamer")
    ]


def test_waiting_is_logged_once(way: str, path: Path, caplog: pytest.LogCaptureFixture):
    """One line names the file that is waited for, however long it takes."""
    with live(way, path) as run:
        run.looked(10)
        path.touch()
        run.looked(5)
        path.unlink()
        write(path, 10)
        assert_rows(run.end(), range(10))
    (line,) = warnings_of(caplog)
    assert line == f"{path}: absent; waiting for it"


def test_nothing_is_logged_of_a_file_that_is_there(
    way: str, hundred: Path, caplog: pytest.LogCaptureFixture
):
    """Who does not wait is not warned."""
    collect(way, hundred)
    assert not warnings_of(caplog)


def test_a_silence_that_may_be_the_end_is_logged_once(
    way: str, path: Path, caplog: pytest.LogCaptureFixture
):
    """Most files never say that their run is over: who waits for it is told."""
    with foreign(path, 10):
        pass
    os.utime(path, (0, time.time() - 3600))
    with live(way, path) as run:
        run.has(10)
        run.until(lambda: warnings_of(caplog))
        run.looked(10)
        run.close()
    (line,) = warnings_of(caplog)
    assert line.startswith(f"{path}: last written 36")
    assert "s ago, and nothing in it says that its run is over; waiting for row 10" in line


def test_a_pause_of_a_writer_that_lives_is_not_logged(
    way: str, path: Path, caplog: pytest.LogCaptureFixture
):
    """A RawWriter says when a run is over, and until then that it lives."""
    with RawWriter(path) as out, live(way, path) as run:
        append(out, 0, 10)
        run.has(10)
        os.utime(path, (0, time.time() - 3600))
        run.looked(10)
        append(out, 10, 20)
        out.close()
        assert_rows(run.end(), range(20))
    assert not [line for line in warnings_of(caplog) if "last written" in line]


def test_folder_that_does_not_exist_yet(way: str, tmp_path: Path):
    """The folder may come later, too; there are no hints then."""
    path = tmp_path / "run" / "raw.h5"
    with live(way, path) as run:
        run.looked()
        path.parent.mkdir()
        run.looked()
        write(path, 10)
        assert_rows(run.end(), range(10))


def test_name_without_a_folder(way: str, hundred: Path, monkeypatch: pytest.MonkeyPatch):
    """A relative name is one of the working directory."""
    monkeypatch.chdir(hundred.parent)
    messages, _ = collect(way, Path(hundred.name))
    assert_rows(messages, range(100))


@pytest.mark.parametrize("absent", [True, False])
def test_hints_shorten_the_wait(absent: bool, way: str, path: Path):
    """With polls that never come, a hint brings the file and its rows."""
    if absent:
        with live(way, path, poll=NEVER) as run:
            run.until(lambda: run.follower.stats.looks >= 2)  # once more with hints
            with RawWriter(path) as out:
                append(out, 0, 10)
                run.has(10)
                out.close()
            assert_rows(run.end(), range(10))
        return
    with RawWriter(path) as out:
        append(out, 0, 10)
        with live(way, path, poll=NEVER) as run:
            run.has(10)
            for start in range(10, 50, 10):
                append(out, start, start + 10)
                run.has(start + 10)
            out.close()
            assert_rows(run.end(), range(50))


def test_hints_through_a_link(way: str, path: Path, tmp_path: Path):
    """A link in another folder is as good as the file."""
    link = tmp_path / "links" / "latest.h5"
    link.parent.mkdir()
    link.symlink_to(path)
    with RawWriter(path) as out:
        append(out, 0, 10)
        with live(way, link, poll=NEVER) as run:
            run.until(lambda: run.follower.stats.looks >= 3)
            append(out, 10, 20)
            run.has(20)
            out.close()
            assert_rows(run.end(), range(20))


def test_without_hints_only_the_poll_looks(way: str, path: Path):
    """With hints off, and polls that never come, nothing comes: the hints above were hints."""
    with foreign(path, 5) as file, live(way, path, poll=NEVER, hints=False) as run:
        run.until(lambda: run.follower.stats.looks == 2)
        time.sleep(0.3)  # until that look is over
        enlarge(file, 10)
        fill(file, 5, 10)
        time.sleep(0.3)
        assert_rows(run.messages, range(5))
        assert run.follower.stats.looks == 2


def test_readers_do_not_wake_each_other(way: str, path: Path):
    """Looking at a file is no reason to look at it: an idle follower only polls."""
    with (
        foreign(path, 5),
        live(way, path, poll=0.1) as run,
        live(way, path, poll=0.1) as other,
    ):
        for each in (run, other):  # the third look is the first with hints
            each.until(lambda each=each: each.follower.stats.looks >= 3)
        begun, looks = time.monotonic(), run.follower.stats.looks
        run.looked(5)
        waited = time.monotonic() - begun
        assert run.follower.stats.looks - looks <= waited / 0.1 + 1


def test_hints_that_never_stop(way: str, path: Path):
    """A file that is touched all the time is looked at often, and idle_timeout still counts."""
    done = threading.Event()

    def touch() -> None:
        while not done.is_set():
            os.utime(path)
            with path.open("r+b"):
                pass

    with foreign(path, 5):
        thread = threading.Thread(target=touch)
        thread.start()
        try:
            with live(way, path, poll=NEVER, idle_timeout=0.5) as run:
                with pytest.raises(WriterStalled):
                    run.end()
                assert_rows(run.messages, range(5))
                assert run.follower.stats.looks > 5
        finally:
            done.set()
            thread.join()


# ----------------------------------------------------------------------------- bad input

BAD = [
    ("start", "middle"),
    ("start", None),
    ("start", 1.5),
    ("start", b"end"),
    ("start", True),
    ("until", "start"),
    ("until", -1),
    ("until", 1.5),
    ("until", None),
    ("until", Position(3)),
    ("until", True),
    ("io_groups", []),
    ("io_groups", set()),
    ("io_groups", {256}),
    ("io_groups", {-1}),
    ("io_groups", {1.5}),
    ("io_groups", "12"),
    ("io_groups", 3),
    ("io_groups", np.array([], int)),
    ("poll", 0),
    ("poll", -0.1),
    ("poll", float("nan")),
    ("poll", float("inf")),
    ("idle_timeout", 0),
    ("idle_timeout", -1),
    ("idle_timeout", float("nan")),
    ("max_batch_bytes", 0),
    ("max_batch_bytes", -1),
]


@pytest.mark.parametrize(("name", "value"), BAD, ids=repr)
def test_bad_argument(name: str, value, path: Path):
    """An argument that makes no sense is named at once, not when rows are asked for."""
    for function in (follow, tail):
        with pytest.raises(ValueError, match=name):
            function(path, **{name: value})


@pytest.mark.parametrize("row", [-1, 1.5, "1", True])
def test_bad_row_of_a_position(row):
    """A position has a row of a file."""
    with pytest.raises(ValueError, match="row"):
        Position(row=row)


def test_pipe(way: str, path: Path):
    """A pipe will never be a raw file."""
    os.mkfifo(path)
    with pytest.raises(LayoutError, match="not a LArPix raw file"):
        collect(way, path)


def test_file_of_another_kind(way: str, path: Path):
    """Nor will a text."""
    path.write_text("row 1\n" * 1000)
    with pytest.raises(LayoutError, match="not a LArPix raw file"):
        collect(way, path)


def test_file_of_another_kind_that_comes(way: str, path: Path):
    """Nor will one that was waited for."""
    with live(way, path) as run:
        run.looked()
        path.write_text("row 1\n" * 1000)
        with pytest.raises(LayoutError, match="not a LArPix raw file"):
            run.end()


@pytest.fixture
def readable_folder() -> Iterator[Path]:
    """Return a folder that other users can enter, which pytest's are not."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize("kind", WAYS)
def test_permission_that_comes_back(kind: str, readable_folder: Path):
    """A file that may not be read is waited for, and read when it may; the reason is logged."""
    path = write(readable_folder / "raw.h5", 100)
    path.chmod(0o000)
    command = [sys.executable, "-m", "tests.test_follow", kind, "raw.h5"]
    with subprocess.Popen(
        command,
        cwd=readable_folder,
        env=environment() | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            assert process.stderr.readline() == (
                b"raw.h5: cannot be opened: Permission denied; waiting for it\n"
            )
            path.chmod(0o644)
            out, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (out, errors) == (b"100 finished\n", b"")


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a lost file less time for its last rows."""
    monkeypatch.setattr("streamer.ending._DRAIN_SECONDS", 0.2)
    monkeypatch.setattr("streamer.rawfile._STILL_SECONDS", 0.2)


def test_file_that_vanishes(way: str, path: Path):
    """All that its writer still has for it is given, and only then the loss is told."""
    with foreign(path, 10) as file, live(way, path) as run:
        run.has(10)
        path.unlink()
        run.looked()
        enlarge(file, 20)
        fill(file, 10, 20)
        with pytest.raises(FileReplaced, match="deleted, or given another name") as caught:
            run.end()
        assert str(path) in str(caught.value)
        assert_rows(run.messages, range(20))


def test_file_that_vanishes_and_was_finished(way: str, path: Path):
    """A run that has ended has ended, whatever became of the name."""
    with RawWriter(path) as out, live(way, path) as run:
        append(out, 0, 10)
        run.has(10)
        path.unlink()
        append(out, 10, 20)
        out.close()
        assert_rows(run.end(), range(20))
        assert run.follower.outcome == "finished"


def test_file_that_is_away_for_a_moment(way: str, path: Path, brisk):
    """A name that comes back at once was never lost."""
    with foreign(path, 10) as file, live(way, path) as run:
        run.has(10)
        path.rename(path.with_suffix(".away"))
        run.looked()
        path.with_suffix(".away").rename(path)
        run.looked()
        time.sleep(0.3)  # longer than a lost file is given
        run.looked()
        enlarge(file, 20)
        fill(file, 10, 20)
        run.has(20)
        assert_rows(run.messages, range(20))


@pytest.mark.parametrize("rows", [5, 10, 50])
def test_file_that_is_replaced(rows: int, way: str, path: Path, tmp_path: Path, brisk):
    """Another file under the name is not read on from the old one's row, however long it is."""
    other = write(tmp_path / "other.h5", rows)
    with foreign(path, 10), live(way, path) as run:
        run.has(10)
        other.replace(path)
        with pytest.raises(FileReplaced, match="another file has this name now"):
            run.end()
        assert_rows(run.messages, range(10))


@pytest.mark.parametrize("rows", [3, 10, 50])
def test_run_that_is_restarted_in_the_same_file(rows: int, way: str, path: Path):
    """A second run on the same inode, shorter or longer, is never spliced to the first."""
    with foreign(path, 10):
        pass
    inode = path.stat().st_ino
    with live(way, path) as run:
        run.has(10)
        run.looked()
        with foreign(path, rows) as file:
            assert path.stat().st_ino == inode
            with pytest.raises(FileReplaced, match=r"started again|cut short"):
                run.end()
            assert_rows(run.messages, range(10))
            assert len(file["msgs"]) == rows


def test_file_that_shrinks(way: str, path: Path):
    """Rows that are taken back are told, and nothing is given in their place."""
    with foreign(path, 20) as file, live(way, path) as run:
        run.has(20)
        enlarge(file, 12)
        with pytest.raises(FileReplaced, match="has 12 rows, and had 20"):
            run.end()
        assert_rows(run.messages, range(20))


@pytest.mark.parametrize("part", [0, 100, 3000, 200_000, 350_000])
def test_file_that_is_cut(part: int, path: Path):
    """A file of which a part is cut off gives right rows or none, and an error in the end."""
    write(path, 2000)
    given = []
    with tail(path, max_batch_bytes=136 * 10, idle_timeout=0.3, poll=0.01, start=1) as live:
        given.append(next(live))
        assert path.stat().st_size > 350_000
        with path.open("r+b") as file:
            file.truncate(part)
        with pytest.raises((FileReplaced, RowUnreadable, WriterStalled), match=str(path)):
            given.extend(live)
    assert_rows(given, range(1, 1 + len(given)))


# -------------------------------------------------------------------- rows that cannot be read


def test_damaged_row(way: str, path: Path):
    """The rows before are given, and the error names file, row and cause."""
    write(path, 100)
    image = path.read_bytes()
    at = image.index(message(60, 136)) - 16  # the header of the object in the heap
    path.write_bytes(image[:at] + b"\xff" * 16 + image[at + 16 :])
    with live(way, path) as run:
        with pytest.raises(RowUnreadable) as caught:
            run.end()
        assert_rows(run.messages, range(60))
    assert caught.value.path == str(path)
    assert caught.value.row == 60
    assert "heap collection" in caught.value.cause
    assert run.follower.position.row == 60


def test_row_that_is_announced_and_never_comes(
    way: str, path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It is tried for so long and so often, and given up with its name and the cause."""
    monkeypatch.setattr("streamer.steps._UNREADABLE_SECONDS", 0.5)
    with foreign(path, 10) as file, live(way, path) as run:
        run.has(10)
        begun = time.monotonic()
        enlarge(file, 20)
        with pytest.raises(RowUnreadable, match="row 10 cannot be read: empty or of io_group 0"):
            run.end()
        assert run.ended_at - begun > 0.5
        assert run.follower.stats.retries >= 20
        assert_rows(run.messages, range(10))


def test_row_that_is_announced_and_comes_late(way: str, path: Path):
    """Lengths lie; rows are given when they are there, and the tries are counted."""
    with foreign(path, 10) as file, live(way, path) as run:
        run.has(10)
        enlarge(file, 20)
        run.looked(5)
        assert len(run.messages) == 10
        assert run.follower.stats.retries >= 3
        assert "io_group 0" in run.follower.trouble
        fill(file, 10, 15)
        run.has(15)
        run.looked()
        assert len(run.messages) == 15
        fill(file, 15, 20)
        run.has(20)
        run.looked()
        assert run.follower.trouble is None
        assert_rows(run.messages, range(20))


@pytest.mark.parametrize("first", ["msgs", "msg_headers"])
def test_lengths_that_differ(first: str, way: str, path: Path):
    """A row that one dataset has and the other has not is not a row, and no error."""
    with foreign(path, 10) as file, live(way, path) as run:
        run.has(10)
        enlarge(file, 20, [first])
        run.looked(5)
        assert_rows(run.messages, range(10))
        assert run.follower.lag.rows == 0
        enlarge(file, 20)
        fill(file, 10, 20)
        run.has(20)
        assert_rows(run.messages, range(20))


@pytest.mark.parametrize("backend", BACKENDS)
def test_error_is_given_again(backend: str, path: Path):
    """Asking on after an error does not step over the row."""
    write(path, 100)
    image = path.read_bytes()
    at = image.index(message(60, 136)) - 16
    path.write_bytes(image[:at] + b"\xff" * 16 + image[at + 16 :])

    async def main() -> None:
        async with follow(path, start=58) as live:
            assert_rows([await anext(live), await anext(live)], [58, 59])
            for _ in range(3):
                with pytest.raises(RowUnreadable, match="row 60"):
                    await anext(live)
                assert live.position.row == 60
                assert live.outcome is None

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("grain", ["batches", "packets"])
def test_iterator_of_tail_goes_on_after_a_silence(grain: str, path: Path):
    """Asking again goes on, also of batches and packets."""
    with RawWriter(path) as out, tail(path, idle_timeout=0.1) as live:
        found = getattr(live, grain)()
        for number in range(3):
            with pytest.raises(WriterStalled):
                next(found)
            out.append([b"D" + bytes(7)] * (number + 1), io_groups=1)
            assert len(next(found)) == number + 1


def test_what_is_logged_keeps_no_follower_alive(path: Path, caplog):
    """Whoever keeps records would keep, with an error's traceback, the file open too."""
    with live("tail", path, poll=0.001) as run:
        run.until(lambda: "waiting for it" in caplog.text)
    kept = [value for record in caplog.records for value in record.args]
    assert kept
    assert not any(isinstance(value, BaseException) for value in kept)


# ----------------------------------------------------------------- program of a second process


def main(kind: str, path: str) -> None:
    """Follow a file as a user who is not root."""
    with TemporaryDirectory() as folder:  # all that is needed is imported then
        collect(kind, write(Path(folder) / "other.h5", 1))
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        # Linux gives /proc/self to root else, which is of no importance to the test.
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    messages, follower = collect(kind, Path(path))
    assert_rows(messages, range(len(messages)))
    print(len(messages), follower.outcome)


if __name__ == "__main__":
    main(*sys.argv[1:])
