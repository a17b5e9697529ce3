"""Checkpoints: what is stored survives everything, or is known to be damaged."""

import logging
import os
from pathlib import Path

import pytest

from streamer import CheckpointError, Position
from streamer.checkpoint import Checkpoint

OLD = Position(5, 1.75e9, "5b1c9c1e", 4, "8837156e5b839ae4", "raw.h5")
NEW = Position(9, 1.75e9, "5b1c9c1e", 8, "0123456789abcdef", "raw.h5")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.json"


@pytest.fixture
def twice(path: Path) -> Path:
    """A checkpoint that was stored twice."""
    for position in (OLD, NEW):
        Checkpoint(path).store(position)
    return path


def test_nothing_is_stored_at_first(path: Path):
    """A file that is absent is no position."""
    assert Checkpoint(path).load() is None


@pytest.mark.parametrize("position", [OLD, Position(0), Position(3, source="a name \u00e4.h5")])
def test_what_is_stored_is_loaded(position: Position, path: Path):
    """A position comes back as it was, whatever is known of its file."""
    Checkpoint(path).store(position)
    assert Checkpoint(path).load() == position


def test_the_newest_is_loaded(twice: Path):
    """What is stored later takes the place of what was."""
    assert Checkpoint(twice).load() == NEW


def test_nothing_else_is_left_in_the_folder(twice: Path):
    """There are the checkpoint and the one before it, and no temporary file."""
    names = sorted(found.name for found in twice.parent.iterdir())
    assert names == ["state.json", "state.json.previous"]


def damaged(text: bytes) -> list[bytes]:
    """Return the text cut at every byte, and with every bit changed."""
    cut = [text[:size] for size in range(len(text))]
    flipped = [
        text[:at] + bytes([text[at] ^ 1 << bit]) + text[at + 1 :]
        for at in range(len(text))
        for bit in range(8)
    ]
    return cut + flipped


def test_damage_of_every_byte_gives_the_one_before(twice: Path, caplog):
    """Cut or changed anywhere, the previous position is loaded, with a warning; never another."""
    text = twice.read_bytes()
    for number, spoilt in enumerate(damaged(text), 1):
        twice.write_bytes(spoilt)
        assert Checkpoint(twice).load() == OLD, spoilt
        assert len(caplog.records) == number
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    assert str(twice) in caplog.records[0].getMessage()


def test_damage_of_both_is_an_error(twice: Path):
    """Without any whole position it fails, and says what to do."""
    for path in (twice, twice.with_name("state.json.previous")):
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="Remove both, and say where to start") as caught:
        Checkpoint(twice).load()
    assert str(twice) in str(caught.value)


@pytest.mark.parametrize(
    "text", [b"", b"null", b"[]", b"{}", b'{"row": 5}', b"[" * 10_000, b"\xff"], ids=str
)
def test_other_files_are_no_checkpoints(text: bytes, path: Path):
    """A file of something else is never taken for a position."""
    path.write_bytes(text)
    with pytest.raises(CheckpointError):
        Checkpoint(path).load()


def test_a_damaged_one_does_not_take_the_place_of_a_good_one(twice: Path):
    """What is kept as the one before is whole."""
    twice.write_bytes(b"damaged")
    checkpoint = Checkpoint(twice)
    assert checkpoint.load() == OLD
    checkpoint.store(NEW)
    twice.write_bytes(b"damaged again")
    assert Checkpoint(twice).load() == OLD


def test_a_store_that_comes_late_is_left_out(path: Path):
    """What was decided on before does not take the place of what came after it."""
    checkpoint = Checkpoint(path)
    checkpoint.store(NEW, 2)
    checkpoint.store(OLD, 1)
    assert Checkpoint(path).load() == NEW


def test_a_folder_that_is_absent_is_an_error(path: Path):
    """That nothing can be stored is told, with the name."""
    with pytest.raises(CheckpointError, match="cannot be stored: No such file"):
        Checkpoint(path.parent / "absent" / "state.json").store(NEW)


def test_a_checkpoint_that_is_a_folder_is_an_error(tmp_path: Path):
    """A folder is not taken for a checkpoint that is absent."""
    with pytest.raises(CheckpointError, match="cannot be read: Is a directory"):
        Checkpoint(tmp_path).load()


def test_without_second_names_the_one_before_is_kept(twice: Path, monkeypatch):
    """A file system that has no hard links gets a copy."""

    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    Checkpoint(twice).store(OLD)
    twice.write_bytes(b"")
    assert Checkpoint(twice).load() == NEW


def test_what_a_crash_leaves_is_in_nobodys_way(twice: Path):
    """Half-written files of a process that was killed are overwritten."""
    for name in ("state.json.new", "state.json.previous.new"):
        twice.with_name(name).write_bytes(b"half")
    Checkpoint(twice).store(OLD)
    assert Checkpoint(twice).load() == OLD
    assert len(list(twice.parent.iterdir())) == 2


def test_a_full_disk_leaves_what_was_stored(twice: Path, monkeypatch):
    """Where nothing more can be written, the position that is stored stays."""

    def fail(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CheckpointError, match="No space left"):
        Checkpoint(twice).store(OLD)
    assert Checkpoint(twice).load() == NEW
    assert len(list(twice.parent.iterdir())) == 2
