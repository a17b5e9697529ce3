"""A position that outlives the process: stored so that no crash can spoil it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from contextlib import suppress
from pathlib import Path

from streamer.errors import CheckpointError
from streamer.position import Position
from writer.superblock import SIGNATURE

__all__ = ["Checkpoint"]

logger = logging.getLogger("streamer.follow")


class Checkpoint:
    """A file that holds a position.

    Parameters
    ----------
    path
        The file. Beside it, the one before is kept under the same name with ``.previous``
        behind it.

    Notes
    -----
    A store writes another file, with a checksum, makes sure that it is on disk, and gives it
    the name, which the operating system does at once or not at all: then makes sure of the
    name. So there is a whole position at any time, and a damaged one is known.

    Examples
    --------
    >>> import tempfile
    >>> checkpoint = Checkpoint(Path(tempfile.mkdtemp()) / "state.json")
    >>> checkpoint.load()
    >>> checkpoint.store(Position(row=5))
    >>> checkpoint.load().row
    5
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not os.fspath(path):
            msg = "the checkpoint has no name"
            raise ValueError(msg)
        self.path = Path(path)
        self._previous = self.path.with_name(self.path.name + ".previous")
        self._lock = threading.Lock()
        self._stored: Position | None = None
        self._newest = 0

    def load(self) -> Position | None:
        """Return what is stored; None if nothing is.

        Raises
        ------
        CheckpointError
            If the file is damaged, and the one before it too; or not accessible.
        """
        try:
            return _read(self.path)
        except FileNotFoundError:
            return None
        except ValueError as error:
            self._check_own(error)
            damage = f"{self.path}: {error}"
        except OSError as error:
            msg = f"{self.path}: the checkpoint cannot be read: {error.strerror}"
            raise CheckpointError(msg) from error
        try:
            position = _read(self._previous)
        except (OSError, ValueError) as error:
            msg = (
                f"{damage}; and of the one before it, {self._previous.name}: {error}. Remove "
                f"both, and say where to start"
            )
            raise CheckpointError(msg) from error
        logger.warning("%s; going on from the one before it, row %s", damage, position.row)
        return position

    def store(self, position: Position, number: int | None = None) -> None:
        """Store a position, on disk when this returns. From any thread.

        Parameters
        ----------
        position
            What to store.
        number
            Its place in the order of decisions: a position that was decided on earlier, but
            arrives later, is not stored.

        Raises
        ------
        CheckpointError
            If that is not possible. What was stored before still is.
        """
        with self._lock:
            if number is not None:
                if number < self._newest:
                    return
                self._newest = number
            if position == self._stored:
                return
            try:
                self._replace(_text(position.to_json()))
            except OSError as error:
                msg = f"{self.path}: the position cannot be stored: {error.strerror}"
                raise CheckpointError(msg) from error
            self._stored = position

    def _replace(self, text: bytes) -> None:
        # Always the same names: what a killed process leaves is overwritten by the next.
        written = self.path.with_name(self.path.name + ".new")
        try:
            _write(written, text)
            self._keep_previous()
            written.replace(self.path)
        finally:
            written.unlink(missing_ok=True)
        _settle(self.path.parent)

    def _check_own(self, error: ValueError) -> None:
        """Raise if what is there is no damaged checkpoint, but somebody's data."""
        with self.path.open("rb") as file:
            head = file.read(len(SIGNATURE))
        if head == SIGNATURE:
            msg = f"{self.path}: an HDF5 file, not a checkpoint; give the checkpoint another name"
            raise CheckpointError(msg) from error

    def _keep_previous(self) -> None:
        """Give what is stored now its second name. A damaged one would cost a good one."""
        try:
            _read(self.path)
        except FileNotFoundError:
            return
        except ValueError as error:
            self._check_own(error)
            return
        kept = self._previous.with_name(self._previous.name + ".new")
        try:
            try:
                kept.unlink(missing_ok=True)
                kept.hardlink_to(self.path)
            except OSError:  # not every file system has second names
                _write(kept, self.path.read_bytes())
            kept.replace(self._previous)
        finally:
            kept.unlink(missing_ok=True)


def _text(position: str) -> bytes:
    """Return what is stored for a position in JSON."""
    digest = hashlib.blake2b(position.encode(), digest_size=16).hexdigest()
    return f'{{"position": {position}, "digest": "{digest}"}}\n'.encode()


def _read(path: Path) -> Position:
    """Return the position in a file; ValueError if there is something else in it."""
    text = path.read_bytes()
    try:
        content = json.dumps(json.loads(text)["position"])
        position = Position.from_json(content)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        msg = "damaged, or not a checkpoint"
        raise ValueError(msg) from error
    # Byte for byte: nothing else than what was written is believed.
    if text != _text(content):
        msg = "damaged: its digest does not fit"
        raise ValueError(msg)
    return position


def _write(path: Path, text: bytes) -> None:
    with path.open("wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _settle(folder: Path) -> None:
    """Make sure that the names in a folder are on disk."""
    # Some file systems refuse it for folders; then there is nothing more to be done.
    with suppress(OSError):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
