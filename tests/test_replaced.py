"""on_replace="continue": the old rows, a gap that is told, and the new file from its start."""

import os
import shutil
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from streamer import FileReplaced, Follower, Gap, Message, Position, RawFile, Tail
from streamer.retry import Patience
from streamer.step import Step
from streamer.steps import Steps
from writer import RawWriter

from .following import WAYS, append, assert_rows, enlarge, fill, foreign, live, write


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """On an event loop of either kind, or on none."""
    return request.param


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "raw.h5"


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a lost file less time for its last rows."""
    monkeypatch.setattr("streamer.ending._DRAIN_SECONDS", 0.2)
    monkeypatch.setattr("streamer.rawfile._STILL_SECONDS", 0.2)


def parts(given: Iterable[Message | Gap]) -> list[list[Message] | Gap]:
    """Return the messages between the gaps, and these."""
    found: list[list[Message] | Gap] = [[]]
    for one in given:
        if isinstance(one, Gap):
            found += [one, []]
        else:
            found[-1].append(one)
    return found


@pytest.mark.parametrize("batches", [False, True])
@pytest.mark.parametrize("rows", [5, 10, 50])
def test_renamed_over(rows: int, batches: bool, way: str, path: Path, tmp_path: Path):
    """All of the old file, a gap without rows, all of the new one, and its end."""
    other = write(tmp_path / "other.h5", rows)
    with foreign(path, 10), live(way, path, on_replace="continue", batches=batches) as run:
        run.has(10)
        other.replace(path)
        old, gap, new = parts(run.end())
        assert_rows(old, range(10))
        assert gap[:2] == (10, 10)
        assert gap.source == path
        assert "another file has this name now" in gap.reason
        assert_rows(new, range(rows))
        assert run.follower.outcome == "finished"
        assert run.follower.position.row == rows


@pytest.mark.parametrize("rows", [3, 10, 50])
def test_restarted_in_the_same_file(rows: int, way: str, path: Path):
    """A second run on the same inode, shorter or longer, is given from its first row."""
    with foreign(path, 10):
        pass
    with live(way, path, on_replace="continue", until=50) as run:
        run.has(10)
        run.looked()
        with foreign(path, rows) as file:
            run.has(11 + rows)
            enlarge(file, 50)
            fill(file, rows, 50)
            old, gap, new = parts(run.end())
        assert_rows(old, range(10))
        assert gap[:2] == (10, None)
        assert "started again" in gap.reason or "cut short" in gap.reason
        assert_rows(new, range(50))


def test_deleted_and_made_again(way: str, path: Path):
    """A file that comes after a while is the next one."""
    with live(way, path, on_replace="continue") as run:
        with foreign(path, 10):
            run.has(10)
            path.unlink()
            run.has(11)
        write(path, 20)
        old, gap, new = parts(run.end())
        assert_rows(old, range(10))
        assert gap[:2] == (10, 10)
        assert_rows(new, range(20))


def test_rows_that_come_after_the_rename_are_given_first(way: str, path: Path, tmp_path: Path):
    """What its writer still has for the old file belongs before the gap."""
    other = write(tmp_path / "other.h5", 7)
    with foreign(path, 10) as file, live(way, path, on_replace="continue") as run:
        run.has(10)
        other.replace(path)
        enlarge(file, 20)
        fill(file, 10, 20)
        old, gap, new = parts(run.end())
        assert_rows(old, range(20))
        assert gap[:2] == (20, 20)
        assert_rows(new, range(7))


def test_rows_that_come_while_it_is_decided_that_a_lost_file_is_over(
    way: str, path: Path, tmp_path: Path, monkeypatch
):
    """However long the process is held up between a look and what it makes of it."""
    look = RawFile.look
    looks = []
    other = write(tmp_path / "other.h5", 3)
    with foreign(path, 10) as file:

        def held_up(raw: RawFile) -> int:
            announced = look(raw)
            if raw.orphaned:
                looks.append(announced)
                if len(looks) == 2:
                    enlarge(file, 15)
                    fill(file, 10, 15)
                    time.sleep(0.5)  # longer than it may be without a name, and still
            return announced

        monkeypatch.setattr(RawFile, "look", held_up)
        with live(way, path, on_replace="continue") as run:
            run.has(10)
            other.replace(path)
            old, gap, new = parts(run.end())
    assert_rows(old, range(15))
    assert gap[:2] == (15, 15)
    assert_rows(new, range(3))


SPOILT = {
    "emptied": lambda path: os.truncate(path, 0),
    "cut": lambda path: os.truncate(path, 600),
    "text": lambda path: path.write_text("no longer a raw file"),
}


@pytest.mark.parametrize("on_replace", ["raise", "continue"])
@pytest.mark.parametrize("how", SPOILT)
def test_spoilt_and_then_replaced(
    how: str, on_replace: str, way: str, path: Path, tmp_path: Path, monkeypatch
):
    """What cannot be read any more is not waited for once the name is another file's."""
    for name in ("streamer.source.Source.PATIENCE", "streamer.opening._PATIENCE"):
        monkeypatch.setattr(name, Patience(3, 0.01))
    step, no_step = Steps.step, threading.Lock()

    def not_between(steps: Steps, row: int | None) -> Step:
        # In a spoilt file that has its name still, text is an error at once.
        with no_step:
            return step(steps, row)

    monkeypatch.setattr(Steps, "step", not_between)
    with foreign(path, 10):
        pass
    other = write(tmp_path / "other.h5", 3)
    with live(way, path, on_replace=on_replace) as run:
        run.has(10)
        with no_step:
            SPOILT[how](path)
            other.replace(path)
        if on_replace == "raise":
            with pytest.raises(FileReplaced, match="and what it still had cannot be read"):
                run.end()
            return
        old, gap, new = parts(run.end())
    assert_rows(old, range(10))
    assert gap[:2] == (10, None)
    assert_rows(new, range(3))


def test_started_again_while_it_is_asked_whether_it_is_finished(
    way: str, path: Path, tmp_path: Path, monkeypatch
):
    """The end of another run, which has as many rows, is not taken for that of the old one."""
    with RawWriter(path) as out:
        append(out, 0, 10)
        out.close(finished=False)
    other = write(tmp_path / "other.h5", 10)
    os.utime(other, (0, time.time() - 60))
    finished = RawFile.finished
    asked, begun = [], threading.Event()

    def started_again(raw: RawFile) -> bool:
        assert begun.wait(30)
        if len(run.messages) == 10 and not asked:
            asked.append(True)
            path.write_bytes(other.read_bytes())
            os.utime(path, (0, time.time() - 60))
        return finished.fget(raw)

    monkeypatch.setattr(RawFile, "finished", property(started_again))
    with live(way, path, on_replace="continue") as run:
        begun.set()
        old, gap, new = parts(run.end())
    assert_rows(old, range(10))
    assert gap[:2] == (10, None)
    assert_rows(new, range(10))


def test_the_same_run_put_back_goes_on(way: str, path: Path, tmp_path: Path):
    """A copy of the run under its name gives no row again."""
    with foreign(path, 10):
        pass
    with live(way, path, on_replace="continue", until=12) as run:
        run.has(10)
        copy = tmp_path / "copy"
        shutil.copy(path, copy)
        copy.replace(path)
        run.has(11)
        with foreign(tmp_path / "longer", 12) as file:
            created = file["meta"].attrs["created"]
        assert created
        given = run.messages[:]
        old, gap, new = parts(given)
        assert_rows(old, range(10))
        assert gap[:2] == (10, 10)
        run.looked(5)
        assert new == []
        assert run.follower.position.row == 10


def test_a_file_that_was_cut_gives_no_row_again(way: str, path: Path):
    """Rows that are taken back are a gap, and what then comes has rows of its own."""
    with foreign(path, 20) as file, live(way, path, on_replace="continue", until=30) as run:
        run.has(20)
        enlarge(file, 12)
        run.has(21)
        enlarge(file, 30)
        fill(file, 12, 30)
        old, gap, new = parts(run.end())
        assert_rows(old, range(20))
        assert gap[:2] == (20, None)
        assert_rows(new, range(20, 30))


@pytest.mark.parametrize("way", ["tail"])
def test_a_position_of_another_file(way: str, path: Path):
    """What the position is of is gone: a gap from its row on, and the file that is there."""
    write(path, 10)
    start = Position(7, created=1.0, run_id="another")
    with live(way, path, start=start, on_replace="continue") as run:
        nothing, gap, new = parts(run.end())
    assert nothing == []
    assert gap[:2] == (7, None)
    assert "not the file that the position belongs to" in gap.reason
    assert_rows(new, range(10))


def test_replaced_twice(way: str, path: Path, tmp_path: Path):
    """Each file has its place, and its gap before it."""
    others = [tmp_path / "4.h5", tmp_path / "6.h5"]
    for other in others:
        with foreign(other, int(other.stem)):
            pass
    with live(way, path, on_replace="continue") as run:
        with foreign(path, 10):
            run.has(10)
        rows = 10
        for other in others:
            rows += 1 + int(other.stem)
            other.replace(path)
            run.has(rows)
        found = parts(run.messages[:])
    assert [len(part) for part in found[::2]] == [10, 4, 6]
    assert [gap[:2] for gap in found[1::2]] == [(10, 10), (4, 4)]


def test_an_error_by_default(way: str, path: Path, tmp_path: Path):
    """Who has not said that it shall go on is told by an error, again and again."""
    other = write(tmp_path / "other.h5", 3)
    with foreign(path, 10), live(way, path) as run:
        run.has(10)
        other.replace(path)
        with pytest.raises(FileReplaced):
            run.end()
        follower = run.follower
        assert isinstance(follower, Follower | Tail)
        assert follower.position.row == 10
        assert follower.outcome == "closed"


def test_messages_and_batches_know_their_file(path: Path):
    """The source is the path that was followed."""
    write(path, 3)
    with live("tail", path) as run:
        assert {found.source for found in run.end()} == {path}
