"""Hints of the operating system that a file may have changed."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streamer.wake import Hints


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture
def rung() -> threading.Event:
    return threading.Event()


@pytest.fixture
def hints(tmp_path: Path, rung: threading.Event) -> Iterator[Hints]:
    found = Hints(tmp_path, "raw_*.h5", rung.set)
    yield found
    found.close()


def test_a_change_of_a_file_rings(hints: Hints, tmp_path: Path, rung: threading.Event):
    """When it is made, when it is written, and when it is given its name."""
    assert hints.active
    path = tmp_path / "raw_1.h5"
    for change in (
        path.touch,
        lambda: path.write_bytes(b"more"),
        lambda: path.rename(tmp_path / "aside"),
        lambda: (tmp_path / "aside").rename(tmp_path / "raw_2.h5"),
    ):
        rung.clear()
        change()
        assert rung.wait(30)


def test_other_files_do_not_ring(hints: Hints, tmp_path: Path, rung: threading.Event):
    """Nor does reading: readers would wake each other."""
    path = tmp_path / "raw_1.h5"
    path.write_bytes(b"new")
    assert rung.wait(30)
    seen = threading.Event()
    other = Hints(tmp_path, "last", seen.set)
    try:
        rung.clear()
        (tmp_path / "other.h5").write_bytes(b"other")
        path.read_bytes()
        (tmp_path / "last").touch()  # events come in their order
        assert seen.wait(30)
        time.sleep(0.05)
        assert not rung.is_set()
    finally:
        other.close()


def test_too_busy_a_folder_is_only_polled(
    tmp_path: Path, rung: threading.Event, monkeypatch: pytest.MonkeyPatch, caplog
):
    """To hear of each write to thousands of other files would take a core."""
    caplog.set_level(logging.INFO, "streamer.wake")
    monkeypatch.setattr("streamer.wake._MOST_OTHERS", 5)
    before = threading.active_count()
    hints = Hints(tmp_path, "raw_*.h5", rung.set)

    def given_up() -> bool:
        for number in range(20):
            (tmp_path / f"other_{number}").write_bytes(b"new")
        return "too busy a folder to be watched, only polled" in caplog.text

    wait_until(given_up)
    hints.close()
    assert threading.active_count() == before


def test_a_folder_that_is_not_there_cannot_be_watched(tmp_path: Path, rung: threading.Event):
    """That is no error: who follows polls."""
    hints = Hints(tmp_path / "absent", "*.h5", rung.set)
    assert not hints.active
    hints.drop()
    hints.close()


def test_dropped_hints_end_their_threads(tmp_path: Path, rung: threading.Event):
    """Nobody waits for it, and to close them afterwards does nothing more."""
    before = threading.active_count()
    hints = Hints(tmp_path, "*.h5", rung.set)
    assert threading.active_count() > before
    hints.drop()
    hints.drop()
    wait_until(lambda: threading.active_count() == before)
    hints.close()
