"""Folders of runs: one after the other as they were made, each whole, and those to come."""

import logging
import os
import shutil
import threading
import time
from pathlib import Path

import anyio
import h5py
import pytest

from streamer import (
    CheckpointError,
    FileReplaced,
    Gap,
    Position,
    RawFile,
    WriterStalled,
    follow,
    tail,
)
from streamer.errors import RowUnreadable
from streamer.opening import look_at_meta
from streamer.retry import Patience
from writer import RawWriter
from writer.layout import Meta

from .following import BACKENDS, WAYS, append, assert_rows, enlarge, fill, foreign, live, write
from .live.writers import message

GRACE = 0.3


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """On an event loop of either kind, or on none."""
    return request.param


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Which files were opened for what they say of themselves."""
    paths: list[Path] = []

    def noted(path: Path) -> Meta:
        paths.append(path)
        return look_at_meta(path)

    monkeypatch.setattr("streamer.runs.look_at_meta", noted)
    return paths


def given(messages) -> list[tuple[str, int]]:
    """Return the name of the file and the row of each."""
    return [(found.source.name, found.row) for found in messages]


def rows(name: str, *numbers: range) -> list[tuple[str, int]]:
    return [(name, row) for part in numbers for row in part]


# ------------------------------------------------------------------------------ the order


def test_runs_in_the_order_in_which_they_were_made(way: str, runs: Path):
    """Not by name, nor by the time of the last change, but as the files say themselves."""
    for name in ("c.h5", "a.h5", "b.h5"):
        write(runs / name, 5)
    os.utime(runs / "c.h5")
    with live(way, runs, until="end") as run:
        found = run.end()
        assert given(found) == rows("c.h5", range(5)) + rows("a.h5", range(5)) + rows(
            "b.h5", range(5)
        )
        assert run.follower.outcome == "end"
        assert run.follower.stats.rows == 15
        assert run.follower.position.source == "b.h5"


def test_the_last_one_is_followed_live(way: str, runs: Path):
    """Old runs first, then the rows of the live one as they come."""
    write(runs / "1.h5", 5)
    with RawWriter(runs / "2.h5") as out, live(way, runs) as run:
        append(out, 0, 3)
        run.has(8)
        append(out, 3, 6)
        run.has(11)
        assert given(run.messages) == rows("1.h5", range(5)) + rows("2.h5", range(6))


def test_a_run_that_appears_is_the_next(way: str, runs: Path):
    """A finished run does not end a folder: the one after it is picked up at once."""
    with live(way, runs) as run:
        write(runs / "1.h5", 5)
        run.has(5)
        with RawWriter(runs / "2.h5") as out:
            run.looked()
            append(out, 0, 5)
            run.has(10)
        write(runs / "3.h5", 5)
        run.has(15)
        assert run.running
        names = [name for name, _ in given(run.messages)]
        assert names == ["1.h5"] * 5 + ["2.h5"] * 5 + ["3.h5"] * 5


def test_a_file_that_appears_empty(way: str, runs: Path):
    """It is waited for, and holds up nobody."""
    with live(way, runs) as run:
        write(runs / "1.h5", 5)
        run.has(5)
        (runs / "2.h5").touch()
        run.looked()
        write(runs / "3.h5", 5)
        run.has(10)
        write(runs / "2.h5", 5)
        run.has(15)
        names = [name for name, _ in given(run.messages)]
        assert names == ["1.h5"] * 5 + ["3.h5"] * 5 + ["2.h5"] * 5


def test_a_stock_file_counts_as_complete_after_a_while(way: str, runs: Path):
    """A writer that never says that its run is over is given rotate_grace to go on."""
    with live(way, runs, rotate_grace=GRACE) as run:
        with foreign(runs / "1.h5", 5):
            run.has(5)
        write(runs / "2.h5", 5)
        run.has(10)
        assert given(run.messages) == rows("1.h5", range(5)) + rows("2.h5", range(5))


def test_rows_of_an_old_file_come_before_the_next_one(way: str, runs: Path):
    """As long as it is not still, a file that a newer one has followed is not over."""
    with live(way, runs, rotate_grace=1.0) as run, foreign(runs / "1.h5", 5) as file:
        run.has(5)
        write(runs / "2.h5", 5)
        for row in range(5, 25):
            enlarge(file, row + 1)
            fill(file, row, row + 1)
            run.has(row + 1)
        run.has(30)
        assert given(run.messages) == rows("1.h5", range(25)) + rows("2.h5", range(5))


def test_a_run_without_rows_is_passed_over(way: str, runs: Path):
    """A run of which nothing was recorded costs nothing."""
    write(runs / "1.h5", 2)
    write(runs / "2.h5", 0)
    write(runs / "3.h5", 2)
    with live(way, runs, until="end") as run:
        assert given(run.end()) == rows("1.h5", range(2)) + rows("3.h5", range(2))


def test_a_torn_tail_holds_up_nobody(way: str, runs: Path, tmp_path: Path):
    """Rows that a writer announced and never wrote are no rows, once a newer file is there."""
    with foreign(tmp_path / "1.h5", 5) as file:
        enlarge(file, 9)
        shutil.copy(tmp_path / "1.h5", runs)  # as it was when it was killed
    with live(way, runs, rotate_grace=GRACE) as run:
        run.has(5)
        write(runs / "2.h5", 5)
        run.has(10)
        assert given(run.messages) == rows("1.h5", range(5)) + rows("2.h5", range(5))


def damage(path: Path, row: int) -> None:
    """Make the page zero in which a message is."""
    content = bytearray(path.read_bytes())
    page = content.index(message(row, 136)) // 4096 * 4096
    content[page : page + 4096] = bytes(4096)
    path.write_bytes(content)
    os.utime(path, (time.time() - 100,) * 2)


@pytest.mark.parametrize("on_replace", ["raise", "continue"])
@pytest.mark.parametrize("kind", ["rawwriter", "foreign"])
def test_a_damaged_page_of_an_old_run_is_no_torn_tail(
    way: str, kind: str, on_replace: str, runs: Path
):
    """What is behind it can be read, and must not be lost in silence."""
    if kind == "rawwriter":
        write(runs / "1.h5", 2000)
    else:
        with foreign(runs / "1.h5", 300):
            pass
    damage(runs / "1.h5", 100)
    write(runs / "2.h5", 5)
    with (
        live(way, runs, until="end", on_replace=on_replace, rotate_grace=GRACE) as run,
        pytest.raises(RowUnreadable, match=r"1\.h5: row \d+ cannot be read"),
    ):
        run.end()
    assert 0 < len(run.messages) < 200
    assert run.follower.position.source == "1.h5"


def test_rows_of_io_group_0_are_not_lost_to_a_short_grace(way: str, runs: Path):
    """They look unwritten, and are given once it is sure that they are not."""
    with RawWriter(runs / "1.h5") as out:
        append(out, 0, 5)
        out.append([message(row, 136) for row in range(5, 50)])
    write(runs / "2.h5", 5)
    with live(way, runs, rotate_grace=0) as run:
        run.has(55)
        assert given(run.messages) == rows("1.h5", range(50)) + rows("2.h5", range(5))


def test_an_early_copy_of_a_run_does_not_hide_it(way: str, runs: Path):
    """Whichever of the two is found first: the run goes on in the longer file."""
    with RawWriter(runs / "m.h5") as out:
        append(out, 0, 500)
        for name in ("a.h5", "z.h5"):
            shutil.copy(runs / "m.h5", runs / name)
        with live(way, runs, rotate_grace=GRACE) as run:
            run.has(500)
            append(out, 500, 1000)
            run.has(1000)
            out.close()
            write(runs / "n.h5", 5)
            run.has(1005)
    assert_rows(run.messages, [*range(1000), *range(5)])
    assert given(run.messages[500:]) == rows("m.h5", range(500, 1000)) + rows("n.h5", range(5))


def test_a_finished_run_that_is_continued_is_taken_again(way: str, runs: Path, caplog):
    """As when somebody appends to it after the next run has begun."""
    write(runs / "1.h5", 5)
    with RawWriter(runs / "2.h5") as out, live(way, runs) as run:
        append(out, 0, 5)
        run.has(10)
        with RawWriter(runs / "1.h5") as again:
            append(again, 5, 9)
        run.until(lambda: "was written after it had counted as complete" in caplog.text)
        out.close()
        run.has(14)
        assert given(run.messages[10:]) == rows("1.h5", range(5, 9))


def test_a_finished_run_that_is_only_touched_is_not_taken_again(way: str, runs: Path, caplog):
    """A backup, or a change of permissions, adds no rows."""
    write(runs / "1.h5", 5)
    with RawWriter(runs / "2.h5") as out, live(way, runs) as run:
        append(out, 0, 5)
        run.has(10)
        (runs / "1.h5").chmod(0o600)
        shutil.copy(runs / "1.h5", runs / "backup.h5")
        deadline = time.monotonic() + 3
        run.until(lambda: time.monotonic() > deadline)
        append(out, 5, 6)
        run.has(11)
    assert "complete" not in caplog.text
    assert len(run.messages) == 11


def test_a_folder_that_cannot_be_listed_is_not_empty(
    way: str, runs: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its runs are given once it can be; until then, that is no end."""
    write(runs / "1.h5", 5)
    scan, failing = os.scandir, True

    def scandir(path):
        if failing and Path(path) == runs:
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr("streamer.runs.os.scandir", scandir)
    with live(way, runs, until="end", poll=0.01) as run:
        deadline = time.monotonic() + 3
        run.until(lambda: time.monotonic() > deadline)
        assert run.running
        assert "cannot be listed: Permission denied" in str(run.follower.trouble)
        failing = False
        assert given(run.end()) == rows("1.h5", range(5))


def test_rows_that_come_too_late_are_given_out_of_their_turn(way: str, runs: Path, caplog):
    """A file that goes on after it has counted as complete is taken again, where it was left."""
    with live(way, runs, rotate_grace=0.1) as run, foreign(runs / "1.h5", 5) as file:
        run.has(5)
        write(runs / "2.h5", 5)
        run.has(10)
        enlarge(file, 9)
        fill(file, 5, 9)
        run.has(14)
        assert f"{runs / '1.h5'}: was written after it had counted as complete" in caplog.text
        assert given(run.messages[10:]) == rows("1.h5", range(5, 9))


def test_a_live_run_is_not_lost_to_an_older_one_that_is_moved_in(way: str, runs: Path):
    """It is gone on with after the other, however long its writer has paused."""
    write(runs / "aside", 5)
    with RawWriter(runs / "live.h5") as out, live(way, runs, rotate_grace=0.1) as run:
        append(out, 0, 5)
        run.has(5)
        (runs / "aside").rename(runs / "older.h5")
        run.has(10)
        append(out, 5, 9)
        run.has(14)
        assert given(run.messages) == (
            rows("live.h5", range(5)) + rows("older.h5", range(5)) + rows("live.h5", range(5, 9))
        )


def test_a_run_that_is_renamed_before_it_is_read(way: str, runs: Path):
    """It is given under its new name."""
    with live(way, runs, rotate_grace=60) as run, RawWriter(runs / "1.h5") as out:
        append(out, 0, 3)
        run.has(3)
        write(runs / "2.h5", 3)
        run.until(lambda: run.follower._steps.ahead)
        (runs / "2.h5").rename(runs / "moved.h5")
        out.close()
        run.has(6)
        assert given(run.messages) == rows("1.h5", range(3)) + rows("moved.h5", range(3))


def test_a_run_that_is_known_and_not_begun_is_not_done(way: str, runs: Path, tmp_path: Path):
    """Who goes on from a position in the run before it is given all of it."""
    state = tmp_path / "state.json"
    for name in ("1.h5", "2.h5"):
        with foreign(runs / name, 3):
            pass
    with live(way, runs, checkpoint=state, rotate_grace=60) as run:
        run.has(3)
        run.until(lambda: run.follower._steps.ahead)
    with live(way, runs, checkpoint=state, rotate_grace=0.1) as run:
        run.has(3)
        assert given(run.messages) == rows("2.h5", range(3))


def test_a_job_waits_for_a_run_that_may_go_on(way: str, runs: Path, tmp_path: Path):
    """A run that its writer has not finished is not left before it has been still."""
    state = tmp_path / "state.json"
    options = {"checkpoint": state, "until": "end", "rotate_grace": 1.0}
    with foreign(runs / "1.h5", 3) as file:
        write(runs / "2.h5", 3)
        with live(way, runs, **options) as run:
            run.has(3)
            enlarge(file, 6)
            fill(file, 3, 6)
            assert given(run.end()) == rows("1.h5", range(3))
    with live(way, runs, **options) as run:
        assert given(run.end()) == rows("1.h5", range(3, 6)) + rows("2.h5", range(3))


def test_a_job_gives_what_was_passed_over(way: str, runs: Path, tmp_path: Path):
    """A run that could not be read the last time is given when it can be."""
    state = tmp_path / "state.json"
    write(runs / "1.h5", 3)
    whole = (runs / "1.h5").read_bytes()
    (runs / "1.h5").write_bytes(b"")
    write(runs / "2.h5", 3)
    options = {"checkpoint": state, "until": "end"}
    with live(way, runs, **options) as run:
        assert given(run.end()) == rows("2.h5", range(3))
    (runs / "1.h5").write_bytes(whole)
    with live(way, runs, **options) as run:
        assert given(run.end()) == rows("1.h5", range(3))
    with live(way, runs, **options) as run:
        assert run.end() == []


@pytest.mark.parametrize("name", ["raw.h5", "new.h5"])
def test_a_checkpoint_under_the_name_of_a_run(name: str, runs: Path):
    """It would take the place of data."""
    write(runs / "raw.h5", 3)
    errors = (ValueError, CheckpointError)
    with pytest.raises(errors, match=r"the name of a file that is followed|an HDF5 file"):
        tail(runs, checkpoint=runs / name)


def test_a_pattern_in_the_name_of_a_folder(tmp_path: Path):
    """Files of several folders are not followed."""
    with pytest.raises(ValueError, match="in the name of the files only"):
        tail(tmp_path / "run*" / "raw.h5")


# ------------------------------------------------------------------------- what is a run


def test_other_files_are_left_out(way: str, runs: Path, caplog):
    """Texts, packet files, folders and temporary files are none of its business."""
    caplog.set_level(logging.INFO, "streamer.follow")
    (runs / "notes.h5").write_text("not a run\n" * 100)
    (runs / "notes.txt").write_text("not a run\n")
    (runs / "deeper.h5").mkdir()
    write(runs / "raw.h5.tmp", 3)
    write(runs / "raw.h5", 3)
    with live(way, runs, until="end") as run:
        assert given(run.end()) == rows("raw.h5", range(3))
    left_out = [record for record in caplog.records if "notes.h5" in record.getMessage()]
    assert len(left_out) == 1


@pytest.mark.parametrize("name", ["copy.h5", "0.h5"])
def test_a_copy_of_a_run_is_no_other_run(name: str, way: str, runs: Path):
    """Whatever it is called, each of its rows is given once."""
    write(runs / "1.h5", 3)
    shutil.copy(runs / "1.h5", runs / name)
    write(runs / "2.h5", 3)
    with live(way, runs, until="end") as run:
        assert [found.row for found in run.end()] == [0, 1, 2] * 2


def test_a_run_that_is_renamed_while_it_is_followed(way: str, runs: Path):
    """Under its new name it goes on, and is not given again."""
    with live(way, runs) as run, foreign(runs / "current.h5", 5) as file:
        run.has(5)
        (runs / "current.h5").rename(runs / "run_1.h5")
        run.looked(5)
        enlarge(file, 9)
        fill(file, 5, 9)
        run.has(9)
        run.looked(5)
        assert_rows(run.messages, range(9))


def test_a_name_that_is_used_again(way: str, runs: Path, monkeypatch):
    """Runs that take turns under one name are all given."""
    monkeypatch.setattr("streamer.ending._DRAIN_SECONDS", 0.1)
    with live(way, runs, rotate_grace=0.1) as run:
        for number in range(3):
            write(runs / "current.h5", 4)
            run.has(4 * number + 4)
            (runs / "current.h5").rename(runs / f"run_{number}.h5")
        assert [found.row for found in run.messages] == [0, 1, 2, 3] * 3


def test_a_finished_run_started_again_in_place(way: str, runs: Path):
    """The same inode with another run: an error by default, or a gap and its rows."""
    write(runs / "raw.h5", 5)
    for on_replace in ("raise", "continue"):
        with live(way, runs, on_replace=on_replace) as run:
            run.has(len(run.messages) or 5)
            with RawWriter(runs / "other", io_version="0.0") as out:
                append(out, 0, 7)
            (runs / "raw.h5").write_bytes((runs / "other").read_bytes())
            if on_replace == "raise":
                with pytest.raises(FileReplaced, match="started again"):
                    run.end()
                (runs / "other").unlink()
                continue
            run.has(15)
            assert isinstance(run.messages[7], Gap)
            assert run.messages[7][:2] == (7, None)
            assert_rows(run.messages[8:], range(7))


def test_rows_that_come_while_it_is_decided_that_a_run_is_over(way: str, runs: Path, monkeypatch):
    """However long the process is held up between a look and what it makes of it."""
    look = RawFile.look
    waiting, begun = [True], threading.Event()
    with foreign(runs / "a.h5", 5) as file:
        write(runs / "b.h5", 3)

        def held_up(raw: RawFile) -> int:
            announced = look(raw)
            assert begun.wait(30)
            if raw.path.name == "a.h5" and announced == 5 and waiting and len(run.messages) == 5:
                waiting.clear()
                enlarge(file, 9)
                fill(file, 5, 9)
                time.sleep(2 * GRACE)
            return announced

        monkeypatch.setattr(RawFile, "look", held_up)
        with live(way, runs, rotate_grace=GRACE) as run:
            begun.set()
            run.has(12)
            run.looked(20)
    assert given(run.messages) == [("a.h5", row) for row in range(9)] + [
        ("b.h5", row) for row in range(3)
    ]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kept", [True, False])
def test_cancelled_while_it_goes_on_to_the_next_run(kept: bool, backend: str, runs: Path):
    """The file of the last run is not opened again by its name, which is another one's now."""

    async def main() -> list:
        found = []
        async with follow(runs, poll=0.02) as messages:
            while len(found) < 20:
                found.append(await anext(messages))
            (runs / "raw.h5").rename(runs / ("run_1.h5" if kept else "run_1.done"))
            with RawWriter(runs / "raw.h5") as out:
                for _ in range(20):
                    with anyio.move_on_after(0.02):
                        found.append(await anext(messages))
                append(out, 0, 30)
                while len(found) < 50:
                    found.append(await anext(messages))
        return found

    write(runs / "raw.h5", 20)
    given = anyio.run(main, backend=backend)
    assert [found.row for found in given] == [*range(20), *range(30)]


@pytest.mark.parametrize("came_back", [True, False])
def test_a_position_in_a_run_that_is_away_for_a_moment(
    came_back: bool, way: str, runs: Path, tmp_path: Path
):
    """After the gap it goes on where it was, and gives nothing twice."""
    state = tmp_path / "state.json"
    with foreign(runs / "a.h5", 10) as file, live(way, runs, checkpoint=state) as run:
        run.has(10)
        run.looked()
        enlarge(file, 15)
    (runs / "a.h5").rename(tmp_path / "away.h5")
    with live(way, runs, checkpoint=state, on_replace="continue") as run:
        run.has(1)
        assert isinstance(run.messages[0], Gap)
        if came_back:
            with h5py.File(tmp_path / "away.h5", "r+", locking=False) as file:
                fill(file, 10, 15)
            (tmp_path / "away.h5").rename(runs / "a.h5")
            run.has(6)
            run.looked(5)
            assert_rows(run.messages[1:], range(10, 15))
        else:
            write(runs / "b.h5", 3)
            run.has(4)
            assert_rows(run.messages[1:], range(3))


@pytest.mark.parametrize("folder", [True, False])
def test_a_run_started_again_whose_file_stays_empty_for_a_while(
    folder: bool, way: str, runs: Path, monkeypatch
):
    """What cannot be read at present is waited for, and then given behind a gap."""
    monkeypatch.setattr("streamer.source.Source.PATIENCE", Patience(3, 0.01))
    monkeypatch.setattr("streamer.opening._PATIENCE", Patience(3, 0.01))
    path = runs / "raw.h5"
    with foreign(path, 5):
        pass  # nothing in it says that the run is over
    write(runs / "other", 7)
    source = runs if folder else path
    with live(way, source, on_replace="continue") as run:
        run.has(5)
        os.truncate(path, 0)
        run.looked(5)
        path.write_bytes((runs / "other").read_bytes())
        run.has(13)
    assert isinstance(run.messages[5], Gap)
    assert_rows(run.messages[6:], range(7))


@pytest.mark.parametrize("on_replace", ["raise", "continue"])
def test_a_run_that_is_removed_before_it_is_read(on_replace: str, way: str, runs: Path):
    """What was there and is gone is never passed over in silence."""
    with (
        live(way, runs, on_replace=on_replace, rotate_grace=60) as run,
        RawWriter(runs / "1.h5") as out,
    ):
        append(out, 0, 3)
        run.has(3)
        write(runs / "2.h5", 3)
        write(runs / "3.h5", 3)
        # Known to come next, and not opened: the first one is still being written.
        run.until(lambda: [file.path.name for file in run.follower._steps._files[1:]] == ["2.h5"])
        (runs / "2.h5").unlink()
        out.close()
        if on_replace == "raise":
            with pytest.raises(FileReplaced, match=r"2\.h5: was removed before it was read"):
                run.end()
            return
        run.has(7)
        assert run.messages[3][:2] == (0, None)
        assert given(run.messages[4:]) == rows("3.h5", range(3))


def test_a_run_that_is_removed_after_it_was_read(way: str, runs: Path, monkeypatch):
    """To clear away what has been given is nobody's loss."""
    monkeypatch.setattr("streamer.ending._DRAIN_SECONDS", 0.1)
    with live(way, runs, rotate_grace=0.1) as run:
        write(runs / "1.h5", 3)
        run.has(3)
        (runs / "1.h5").unlink()
        run.looked(5)
        write(runs / "2.h5", 3)
        run.has(6)
        assert given(run.messages) == rows("1.h5", range(3)) + rows("2.h5", range(3))


# -------------------------------------------------------------------- start, until, source


def test_a_pattern_chooses_files(way: str, runs: Path):
    """Only what it matches is followed."""
    write(runs / "raw_1.h5", 2)
    write(runs / "cosmics_1.h5", 2)
    write(runs / "raw_2.hdf5", 2)
    with live(way, runs / "raw_*.h*5", until="end") as run:
        assert given(run.end()) == rows("raw_1.h5", range(2)) + rows("raw_2.hdf5", range(2))


def test_a_file_with_the_name_of_a_pattern(way: str, runs: Path):
    """A name that has such signs is a name, if there is a file of it."""
    write(runs / "raw[1].h5", 2)
    write(runs / "raw1.h5", 3)
    with live(way, runs / "raw[1].h5") as run:
        assert_rows(run.end(), range(2))


def test_a_folder_that_does_not_exist_yet(way: str, tmp_path: Path):
    """With a slash at its end, it is waited for."""
    with live(way, f"{tmp_path}/runs/") as run:
        run.looked()
        (tmp_path / "runs").mkdir()
        write(tmp_path / "runs" / "raw.h5", 3)
        run.has(3)
        assert_rows(run.messages, range(3))


def test_start_at_the_end(way: str, runs: Path):
    """Nothing of what is there, and all of what comes, in the newest run and after it."""
    write(runs / "1.h5", 3)
    with RawWriter(runs / "2.h5") as out, live(way, runs, start="end") as run:
        append(out, 0, 3)
        run.looked(3)
        shown = len(run.messages)  # those of its first look, if they came before it
        append(out, 3, 6)
        run.has(shown + 3)
        out.close()
        write(runs / "3.h5", 3)
        run.has(shown + 6)
        assert given(run.messages)[shown:] == rows("2.h5", range(3, 6)) + rows("3.h5", range(3))


def test_start_at_the_end_of_an_empty_folder(way: str, runs: Path):
    """All rows of a run that comes later are new."""
    with live(way, runs, start="end") as run:
        run.looked()
        write(runs / "1.h5", 3)
        run.has(3)
        assert_rows(run.messages, range(3))


def test_the_last_rows_are_those_of_the_newest_run(way: str, runs: Path):
    """A negative start counts from the end of the newest run."""
    write(runs / "1.h5", 30)
    write(runs / "2.h5", 30)
    with live(way, runs, start=-4, until="end") as run:
        assert given(run.end()) == rows("2.h5", range(26, 30))


def test_until_the_end_of_an_empty_folder(way: str, runs: Path):
    """What is there now is nothing."""
    with live(way, runs, until="end") as run:
        assert run.end() == []
        assert run.follower.outcome == "end"


def test_until_the_end_leaves_out_later_runs(way: str, runs: Path):
    """A run that comes meanwhile is for the next time."""
    write(runs / "1.h5", 3)
    write(runs / "2.h5", 3)
    with live(way, runs, until="end", max_batch_bytes=300) as run:
        run.has(1)
        write(runs / "3.h5", 3)
        assert {name for name, _ in given(run.end())} <= {"1.h5", "2.h5", "3.h5"}
        assert given(run.messages)[:6] == rows("1.h5", range(3)) + rows("2.h5", range(3))


def test_silence_of_a_folder(way: str, runs: Path):
    """No new row in any run is what idle_timeout is about."""
    write(runs / "1.h5", 3)
    with live(way, runs, idle_timeout=0.3) as run:
        with pytest.raises(WriterStalled, match="no new row"):
            run.end()
        assert len(run.messages) == 3


@pytest.mark.parametrize(
    "options", [{"start": 0}, {"start": 5}, {"until": 5}, {"rotate_grace": -1.0}], ids=str
)
def test_what_makes_no_sense_of_a_folder(options: dict, runs: Path):
    """Rows are those of one file."""
    with (
        pytest.raises(ValueError, match=r"of many files|rotate_grace"),
        live("tail", runs, **options),
    ):
        pass


# ------------------------------------------------------------------------------- positions


def test_resumed_in_the_middle_of_a_run(way: str, runs: Path):
    """From a position in any of the runs, what comes after it, also in later ones."""
    for name in ("1.h5", "2.h5", "3.h5"):
        write(runs / name, 10)
    with live(way, runs, until="end", batches=True, max_batch_bytes=600) as run:
        everything = given(run.end())
    with tail(runs, until="end") as stepwise:
        for number, _ in enumerate(stepwise, 1):
            with live(way, runs, until="end", start=stepwise.position) as run:
                assert given(run.end()) == everything[number:]


def test_runs_that_were_made_meanwhile_are_given(way: str, runs: Path):
    """What came while nobody followed comes after the position."""
    write(runs / "1.h5", 4)
    with live(way, runs, until="end") as run:
        run.end()
    write(runs / "2.h5", 4)
    write(runs / "3.h5", 4)
    with live(way, runs, until="end", start=run.follower.position) as run:
        assert given(run.end()) == rows("2.h5", range(4)) + rows("3.h5", range(4))


@pytest.mark.parametrize("on_replace", ["raise", "continue"])
def test_a_position_in_a_run_that_is_gone(on_replace: str, way: str, runs: Path):
    """It is told, and the runs that are newer come next if it is to go on."""
    for name in ("1.h5", "2.h5", "3.h5"):
        write(runs / name, 4)
    with live(way, runs / "[12].h5", until="end") as run:
        run.end()
    (runs / "2.h5").unlink()
    start = run.follower.position
    with live(way, runs, until="end", start=start, on_replace=on_replace) as run:
        if on_replace == "raise":
            with pytest.raises(FileReplaced, match=r"2\.h5, is not there"):
                run.end()
            return
        found = run.end()
    assert found[0][:2] == (4, None)
    assert given(found[1:]) == rows("3.h5", range(4))


def test_a_renamed_run_is_found_by_what_it_is(way: str, runs: Path):
    """A position does not depend on the name."""
    write(runs / "1.h5", 4)
    with live(way, runs, until="end", start=-2) as run:
        run.end()
    (runs / "1.h5").rename(runs / "archived.h5")
    write(runs / "2.h5", 4)
    with live(way, runs, until="end", start=run.follower.position) as run:
        assert given(run.end()) == rows("2.h5", range(4))


def test_old_runs_are_not_opened_for_a_position(runs: Path, opened: list[Path]):
    """What was last written long before the position's run was made costs no look into it."""
    for number in range(20):
        write(runs / f"{number}.h5", 1)
        os.utime(runs / f"{number}.h5", times=(0, time.time() - 2 * 24 * 3600))
    write(runs / "new.h5", 3)
    with live("tail", runs / "new*", until="end", start=-1) as run:
        run.end()
    opened.clear()
    with live("tail", runs, until="end", start=run.follower.position) as again:
        assert again.end() == []
    assert [path.name for path in opened] == ["new.h5"]


def test_each_run_is_opened_once(runs: Path, opened: list[Path]):
    """However often the folder is looked at, files that are known are left alone."""
    for number in range(20):
        write(runs / f"{number:02}.h5", 1)
    with live("tail", runs) as run:
        run.has(20)
        run.looked(20)
    assert len(opened) == 20


def test_a_damaged_row_of_an_old_run_is_an_error(way: str, runs: Path):
    """That rows behind it can be read shows that it is lost: no silence."""
    write(runs / "1.h5", 40)
    image = bytearray((runs / "1.h5").read_bytes())
    place = image.index(message(20, 136))
    image[place - 16] ^= 0xFF  # the index of its object
    (runs / "1.h5").write_bytes(image)
    write(runs / "2.h5", 3)
    with live(way, runs, rotate_grace=GRACE) as run:
        with pytest.raises(RowUnreadable) as caught:
            run.end()
        assert caught.value.row == 20
        assert caught.value.path.endswith("1.h5")
        assert isinstance(run.follower.position, Position)
        assert run.follower.position.row == 20
