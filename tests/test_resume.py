"""Checkpoints of followers: what is stored when, and where the next one goes on."""

import json
import sys
import threading
import time
from pathlib import Path

import anyio
import pytest

from streamer import (
    Checkpoint,
    CheckpointError,
    FileReplaced,
    Follower,
    StreamError,
    follow,
    tail,
)
from streamer.step import Step
from streamer.steps import Steps
from writer import RawWriter

from .following import BACKENDS, WAYS, append, assert_rows, live, write


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """On an event loop of either kind, or on none."""
    return request.param


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "raw.h5"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state.json"


def stored(state: Path) -> int:
    position = Checkpoint(state).load()
    assert position is not None
    return position.row


def test_the_next_one_goes_on(way: str, path: Path, state: Path):
    """As a cron job: each takes what has come since the last, and no row comes twice."""
    for rows in (10, 25, 25, 40):
        with RawWriter(path) as out:
            append(out, out.rows, rows)
            out.close(finished=False)
        before = stored(state) if state.exists() else 0
        with live(way, path, checkpoint=state, until="end") as run:
            assert_rows(run.end(), range(before, rows))
        assert stored(state) == rows


def test_the_checkpoint_is_older_than_the_start(way: str, path: Path, state: Path):
    """Where to start is of interest once only."""
    write(path, 10)
    with live(way, path, checkpoint=state, start=4, until=6) as run:
        assert_rows(run.end(), range(4, 6))
    with live(way, path, checkpoint=state, start=0) as run:
        assert_rows(run.end(), range(6, 10))


def test_a_message_in_hand_is_not_committed(path: Path, state: Path):
    """Who leaves in the middle is given that message again: it may not be done."""
    write(path, 10)
    with tail(path, checkpoint=state) as live:
        for message in live:
            if message.row == 4:
                break
    assert stored(state) == 4
    with tail(path, checkpoint=state) as live:
        assert next(live).row == 4


def test_a_batch_in_hand_is_not_committed(path: Path, state: Path):
    """Nor is a batch, as long as no other is asked for."""
    write(path, 10)
    with tail(path, checkpoint=state, max_batch_bytes=136 * 4) as live:
        batches = live.batches()
        assert len(next(batches)) == 2
        assert next(batches).rows[0] == 2
    assert stored(state) == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_commit_stores_at_once(backend: str, path: Path, state: Path):
    """After commit() the message in hand is done."""
    write(path, 10)

    async def main() -> None:
        async with follow(path, checkpoint=state) as live:
            async for message in live:
                await live.commit()
                assert stored(state) == message.row + 1

    anyio.run(main, backend=backend)


def test_commit_of_tail(path: Path, state: Path):
    """Without a loop too."""
    write(path, 3)
    with tail(path, checkpoint=state) as live:
        for message in live:
            live.commit()
            assert stored(state) == message.row + 1


def test_commit_without_a_checkpoint(path: Path):
    """There is nothing to commit to, and it says so."""
    write(path, 3)
    with tail(path) as live:
        next(live)
        with pytest.raises(StreamError, match="without a checkpoint"):
            live.commit()


def test_what_is_done_is_stored_while_it_waits(way: str, path: Path, state: Path):
    """Once there is nothing to read, the checkpoint is up to date."""
    with RawWriter(path) as out, live(way, path, checkpoint=state) as run:
        append(out, 0, 10)
        run.has(10)
        run.until(lambda: state.exists() and stored(state) == 10)


def test_what_is_done_is_stored_while_it_reads(path: Path, state: Path, monkeypatch):
    """A slow consumer of a batch that lasts does not wait for its end."""
    monkeypatch.setattr("streamer.following._STORE_SECONDS", 0.02)
    write(path, 100)
    with tail(path, checkpoint=state) as live:
        for message in live:
            time.sleep(0.001)
            if message.row > 60:
                break
        assert 20 < stored(state) <= message.row


def test_the_start_is_stored_before_anything_is_given(path: Path, state: Path):
    """Who dies with the first message in hand begins there again, not at a later end."""
    write(path, 10)
    live = tail(path, checkpoint=state, start=-3)
    assert next(live).row == 7
    assert stored(state) == 7
    del live


def test_the_end_is_stored_before_anything_comes(way: str, path: Path, state: Path):
    """What comes while nobody follows is not passed over, although it started at the end."""
    with RawWriter(path) as out:
        append(out, 0, 5)
        with live(way, path, checkpoint=state, start="end"):
            deadline = time.monotonic() + 30
            while not state.exists():
                assert time.monotonic() < deadline
        append(out, 5, 9)
        with live(way, path, checkpoint=state, start="end") as run:
            run.has(4)
            assert_rows(run.messages, range(5, 9))


def test_rows_that_are_filtered_out_are_passed(way: str, path: Path, state: Path):
    """The position goes on over what is not wanted."""
    write(path, 20)
    with live(way, path, checkpoint=state, io_groups={1}) as run:
        run.end()
    assert stored(state) == 20


def test_a_checkpoint_of_another_file(way: str, path: Path, state: Path, tmp_path: Path):
    """A position is never applied to another file, whatever its name."""
    write(path, 10)
    with live(way, path, checkpoint=state, until=5) as run:
        run.end()
    write(tmp_path / "other.h5", 20).replace(path)
    with (
        live(way, path, checkpoint=state) as run,
        pytest.raises(FileReplaced, match="not the file that the position belongs to"),
    ):
        run.end()
    assert stored(state) == 5


def test_a_damaged_checkpoint_is_an_error_at_once(path: Path, state: Path):
    """Before anything is read, and without touching it."""
    write(path, 10)
    state.write_text(json.dumps({"row": 3}))
    with pytest.raises(CheckpointError, match="say where to start"):
        tail(path, checkpoint=state)
    assert json.loads(state.read_text()) == {"row": 3}


def test_a_checkpoint_that_cannot_be_stored_is_an_error(way: str, path: Path, tmp_path: Path):
    """Nobody works for hours without a position and does not know it."""
    write(path, 10)
    with (
        live(way, path, checkpoint=tmp_path / "absent" / "state.json") as run,
        pytest.raises(CheckpointError, match="cannot be stored"),
    ):
        run.end()


def test_a_folder_resumes_across_runs(way: str, tmp_path: Path, state: Path):
    """What was done of each run is done, and new ones come after it."""
    (tmp_path / "runs").mkdir()
    given = []
    for number in range(3):
        write(tmp_path / "runs" / f"{number}.h5", 5)
        with live(way, tmp_path / "runs", checkpoint=state, until="end") as run:
            given += [(found.source.name, found.row) for found in run.end()]
    assert given == [(f"{number}.h5", row) for number in range(3) for row in range(5)]


def test_a_checkpoint_under_the_name_of_the_file(path: Path):
    """Also of one that is still to come: it would take its place."""
    with pytest.raises(ValueError, match="the name of a file that is followed"):
        tail(path, checkpoint=path)


def test_a_raw_file_is_no_damaged_checkpoint(path: Path, tmp_path: Path):
    """Nobody is told to remove data."""
    write(tmp_path / "other.h5", 3)
    with pytest.raises(CheckpointError, match="an HDF5 file, not a checkpoint"):
        tail(path, checkpoint=tmp_path / "other.h5")


@pytest.mark.parametrize("options", [{"start": -2}, {"start": -2, "until": "end"}], ids=str)
def test_rows_of_io_group_0_just_written(options: dict, way: str, path: Path):
    """What larpix-control writes by default is counted, also right after the close."""
    with RawWriter(path) as out:
        out.append([b"first", b"second", b"third"])
    with live(way, path, **options) as run:
        assert [found.data for found in run.end()] == [b"second", b"third"]


def test_resumed_right_after_the_close(way: str, path: Path):
    """A position in a file that was closed just now is right, whatever its rows look like."""
    with RawWriter(path) as out:
        out.append([b"first", b"second", b"third"])
        with live("tail", path, until=2) as run:
            run.end()
    with live(way, path, start=run.follower.position) as run:
        assert [found.data for found in run.end()] == [b"third"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_look_that_hangs_holds_up_no_position(
    backend: str, path: Path, state: Path, monkeypatch
):
    """Who closes meanwhile has stored it; when the look comes back, it is not stored again."""
    step, may_go_on = Steps.step, threading.Event()
    hung: list[Steps] = []

    def hanging(steps: Steps, row: int | None) -> Step:
        if hung[0] is steps:
            may_go_on.wait(30)
        return step(steps, row)

    async def main() -> None:
        first = follow(path, checkpoint=state)
        async with first:
            assert len(await first.next_batch()) == 5
            hung.append(first._steps._files[0])
            monkeypatch.setattr(Steps, "step", hanging)
            with anyio.move_on_after(0.2):
                await first.next_batch()
        assert stored(state) == 5
        with RawWriter(path) as out:
            append(out, 5, 10)
            out.close(finished=False)
        async with follow(path, checkpoint=state) as second:
            assert len(await second.next_batch()) == 5
            await second.commit()

    monkeypatch.setattr(sys.modules[Follower.__module__], "_CLOSING_SECONDS", 0.2)
    with RawWriter(path) as out:
        append(out, 0, 5)
        out.close(finished=False)
    try:
        anyio.run(main, backend=backend)
    finally:
        may_go_on.set()
    deadline = time.monotonic() + 30
    while hung[0].identity is not None:  # until it is closed
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert stored(state) == 10
