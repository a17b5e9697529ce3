"""What becomes of a raw file at present: it is live, closed, finished, or abandoned."""

from __future__ import annotations

import os
import time
from enum import Enum
from typing import NamedTuple

from streamer.errors import FileReplaced, NotReady
from streamer.opening import open_descriptor
from streamer.rawfile import RawFile
from writer.layout import PAUSED, WRITING
from writer.lock import is_locked
from writer.superblock import read_superblock

__all__ = ["Judgement", "State", "file_state", "judge"]

# A DAQ appends some ten times a second; without hits, its heartbeats come every few seconds.
_RECENT_SECONDS = 5.0
# A file that looks abandoned is watched for so long.
_WATCH_SECONDS, _WATCH_STEP_SECONDS = 1.0, 0.05


class State(Enum):
    """What becomes of a raw file at present.

    LIVE: a writer has it open. CLOSED: none has, and what it holds is complete; a writer
    that opens it for each batch, as larpix-control's does, may still go on. FINISHED: closed,
    and its writer said that the run is over. WRITER_GONE: marked as open for writing, but
    nobody writes it.

    Examples
    --------
    >>> State("writer gone")
    <State.WRITER_GONE: 'writer gone'>
    """

    LIVE = "live"
    CLOSED = "closed"
    FINISHED = "finished"
    WRITER_GONE = "writer gone"


class Judgement(NamedTuple):
    """The state of a file, and by what it was decided, in words."""

    state: State
    because: str


def file_state(raw: RawFile) -> State:
    """Return the state of a file; as :func:`judge`.

    Examples
    --------
    >>> import tempfile
    >>> from writer import RawWriter
    >>> path = tempfile.mkdtemp() + "/raw.h5"
    >>> with RawWriter(path) as out, RawFile(path) as raw:
    ...     file_state(raw)
    <State.LIVE: 'live'>
    >>> with RawFile(path) as raw:
    ...     file_state(raw)
    <State.FINISHED: 'finished'>
    """
    return judge(raw).state


def judge(raw: RawFile) -> Judgement:
    """Find out what becomes of a file at present.

    Parameters
    ----------
    raw
        The file.

    Returns
    -------
    Judgement
        The state, and how it is known.

    Raises
    ------
    FileReplaced
        If the name is no longer this file's.
    NotReady
        If the file cannot be read at present.

    Notes
    -----
    The marks in the file's superblock tell whether it is closed. If it is not, then a
    :class:`writer.RawWriter` is known by the lock that it holds, and any other writer by its
    writing: the file has changed within the last 5 s, or does so while it is watched, for
    1 s. One that pauses for longer cannot be told from a dead one.
    """
    fd = open_descriptor(raw.path)
    try:
        # Checked after the descriptor was opened: it is the one of this very file.
        if raw.orphaned is not None:
            msg = f"{raw.path}: {raw.orphaned}"
            raise FileReplaced(msg)
        deadline = time.monotonic() + _WATCH_SECONDS
        first = _stamp(fd)
        while True:
            found = _look(raw, fd, first)
            if found is not None:
                return found
            if time.monotonic() > deadline:
                break
            time.sleep(_WATCH_STEP_SECONDS)
        age = _ago(fd)
    finally:
        os.close(fd)
    why = f"marked as open for writing, but no RawWriter has it, and it was last written {age}"
    return Judgement(State.WRITER_GONE, why)


def _stamp(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_mtime_ns, status.st_size


def _look(raw: RawFile, fd: int, first: tuple[int, int]) -> Judgement | None:
    """Judge by one look; None if it seems abandoned."""
    superblock = read_superblock(fd)
    if superblock is None:
        msg = f"{raw.path}: no longer a readable raw file"
        raise NotReady(msg)
    recent = time.time() - os.fstat(fd).st_mtime < _RECENT_SECONDS
    if superblock.closed:
        return _judge_closed(raw, fd, recent)
    if is_locked(fd):
        return Judgement(State.LIVE, "a RawWriter has it open")
    # Where its lock is not seen, as on some file servers, a RawWriter has to be seen writing.
    recent = recent and raw.meta.finished != WRITING
    if recent or _stamp(fd) != first:
        return Judgement(State.LIVE, f"open for writing, and last written {_ago(fd)}")
    if superblock.version < 3:
        why = "its HDF5 format is so old that it does not say who has it open; last written "
        return Judgement(State.CLOSED, why + _ago(fd))
    return None


def _judge_closed(raw: RawFile, fd: int, recent: bool) -> Judgement:
    if raw.finished:
        return Judgement(State.FINISHED, "its writer closed it and said that the run is over")
    if raw.meta.finished == PAUSED:
        return Judgement(State.CLOSED, "its RawWriter closed it and said that the run goes on")
    if recent:
        why = f"last written {_ago(fd)}: its writer may open it again for each batch"
        return Judgement(State.CLOSED, why)
    return Judgement(State.CLOSED, f"nobody has it open for writing; last written {_ago(fd)}")


def _ago(fd: int) -> str:
    seconds = max(0.0, time.time() - os.fstat(fd).st_mtime)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago" if seconds >= 2 else f"{seconds:.1f} s ago"
