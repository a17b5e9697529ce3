"""Copy what can be read of a damaged raw file into a new one: ``streamer recover``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from streamer.direct import DirectRows
from streamer.errors import NotReady, StreamError
from streamer.handle import GuardedFile
from streamer.left import HEADERS_ONLY, Left
from streamer.newcopy import Copy
from streamer.opening import TRANSIENT, open_descriptor, open_rows
from streamer.rawfile import RawFile
from streamer.recovery import Recovery
from streamer.salvage import Salvage
from streamer.salvage_library import LibrarySalvage
from streamer.state import State, judge
from writer.layout import META, MSG_HEADERS, MSGS, UNREADABLE, WRITING, Meta
from writer.lock import is_locked
from writer.superblock import read_superblock

__all__ = ["CannotRecover", "recover"]

# Attributes of `meta` that a copy has too, with the same value or its own.
_CARRIED = {"created", "modified", "version", "io_version", "run_id", "writer", "finished"}


class CannotRecover(StreamError):
    """Raised when a file cannot be recovered into another. No copy was left."""


def recover(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    keep_uncommitted: bool = False,
    told: Callable[[int, int], None] | None = None,
) -> Recovery:
    """Copy every readable row of a damaged raw file into a new one.

    For files of writers that were killed, files that were cut short, and files of which a
    part is damaged. The original is only read. The copy gets its name once it is complete.

    Parameters
    ----------
    path
        The damaged file. Nobody may be writing it.
    out
        The copy; there must be nothing of that name.
    keep_uncommitted
        Whether to keep messages whose header row is missing or lost; in the copy it is
        zeros, so of io_group 0. The writer may not have meant them to count yet.
    told
        Called now and then with the work that is done, and all of it.

    Returns
    -------
    Recovery
        What was kept, and what was left out and why. If nothing is wrong with the file,
        nothing was written, and there is no copy.

    Raises
    ------
    CannotRecover
        If the file is being written, or the copy cannot have that name.
    NotReady, LayoutError
        If HDF5 finds no raw file in it at all.
    WriterError
        If the copy cannot be written, as on a full disk.

    Notes
    -----
    For each row it is verified that HDF5's own record of the message is right, and that the
    message is there to its end. HDF5 has no checksum of messages, so a changed byte within
    one cannot be noticed.

    A writer other than a :class:`writer.RawWriter` that pauses for longer than 5 s cannot be
    told from a dead one. If it goes on meanwhile, that is an error.

    The copy says that it was created when the original was. It has the original's run id
    only if each of its rows has the number that it had there: then a
    :class:`streamer.Position` in the one is right in the other. Otherwise it has one of its
    own. Where the original has none, the message that a position remembers has to be in its
    row.

    Examples
    --------
    >>> import tempfile
    >>> from writer import RawWriter
    >>> folder = Path(tempfile.mkdtemp())
    >>> with RawWriter(folder / "raw.h5") as writer:
    ...     rows = writer.append([b"first", b"second"], io_groups=[1, 2])
    >>> recover(folder / "raw.h5", folder / "copy.h5").nothing_wrong
    True
    """
    path, out = Path(path), Path(out)
    _check_name(path, out)
    fd = open_descriptor(path)
    try:
        _check_dead(path, fd)
        stamp = _stamp(fd)
        source = _Source(path, fd, keep_uncommitted=keep_uncommitted)
        try:
            if not source.troubles:
                checked = source.copy(None, told, 0.5)
                if not checked.left and not source.damaged:
                    return Recovery(path, None, checked.rows, checked.size, [], [], checked.notes)
            with Copy(out, source.meta, source.header_dtype) as copy:
                done = source.copy(copy, told, 1.0)
                if _stamp(fd) != stamp:
                    msg = f"{path}: was written to while it was copied: its writer lives"
                    raise CannotRecover(msg)
                notes = [*done.notes, *copy.finish(same_rows=done.same_rows)]
        finally:
            source.close()
    finally:
        os.close(fd)
    return Recovery(path, out, done.rows, done.size, source.troubles, done.left, notes)


def _check_name(path: Path, out: Path) -> None:
    if os.path.lexists(out):
        own = path.exists() and out.exists() and path.samefile(out)
        why = "is the damaged file itself; give the copy another name" if own else "exists already"
        msg = f"{out}: {why}"
        raise CannotRecover(msg)
    if not out.parent.is_dir():
        msg = f"{out}: there is no folder {out.parent}"
        raise CannotRecover(msg)


def _check_dead(path: Path, fd: int) -> None:
    """Raise if somebody is writing the file."""
    try:
        with RawFile(path) as raw:
            judgement = judge(raw)
        live, why = judgement.state is State.LIVE, judgement.because
    except NotReady:  # damaged
        live, why = is_locked(fd), "a RawWriter has it open"
    if live:
        msg = (
            f"{path}: is being written ({why}): there is nothing to recover. If its writer is "
            "dead, try again in a few seconds"
        )
        raise CannotRecover(msg)


def _stamp(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_mtime_ns, status.st_size


class _Done(NamedTuple):
    rows: int
    size: int
    left: list[Left]
    #: Whether each row that was kept has the number that it had.
    same_rows: bool
    notes: list[str]


class _Source:
    """A damaged file, open."""

    def __init__(self, path: Path, fd: int, *, keep_uncommitted: bool) -> None:
        self._path, self._fd = path, fd
        try:
            rows = open_rows(fd, path)
        except NotReady as error:
            msg = f"{error}. Its beginning, which leads to all else, is damaged"
            raise NotReady(msg) from error
        try:
            self.meta: Meta = rows.meta
            self._lengths = rows.refresh()
            self.header_dtype: np.dtype[Any] = rows.headers(0, 0).dtype
        except TRANSIENT as error:
            rows.close()
            msg = f"{path}: HDF5 cannot read it: {error}"
            raise NotReady(msg) from error
        try:
            trusted = self._look()
        except BaseException:
            rows.close()
            raise
        self._rows: Salvage | LibrarySalvage
        if isinstance(rows, DirectRows):
            self._rows = Salvage(
                rows, self._lengths, trusted=trusted, keep_uncommitted=keep_uncommitted
            )
        else:
            self._rows = LibrarySalvage(rows, self._lengths, trusted=trusted)

    def _look(self) -> bool:
        """Find out what is wrong with the file as a whole; tell whether it is complete."""
        self.troubles: list[str] = []
        superblock = read_superblock(self._fd)
        if superblock is None:
            msg = f"{self._path}: no longer a readable raw file"
            raise NotReady(msg)
        size = os.fstat(self._fd).st_size
        closed = superblock.closed or superblock.version < 3
        if not closed:
            how = "" if superblock.swmr else ", in a way in which HDF5 does not open it"
            self.troubles.append(f"its writer was killed: it is marked as open for writing{how}")
        if superblock.cut:
            self.troubles.append(f"cut off: it ends after {size:,} bytes, and says it has more")
        elif superblock.version >= 2 and superblock.offset_size == 8 and not superblock.base:
            end = int.from_bytes(os.pread(self._fd, 8, 28), "little")
            if end < size:
                self.troubles.append(f"HDF5 knows of the first {end:,} of its {size:,} bytes only")
        if self._lengths[0] != self._lengths[1]:
            self.troubles.append(
                f"{MSGS} has {self._lengths[0]:,} rows, and {MSG_HEADERS} {self._lengths[1]:,}"
            )
        return not superblock.cut and (closed or self.meta.finished == WRITING)

    def copy(
        self, copy: Copy | None, told: Callable[[int, int], None] | None, share: float
    ) -> _Done:
        """Read all rows, and write those that can be read, if there is a copy to be made."""
        left: list[Left] = []
        doubtful: list[int] = []
        rows = size = start = 0
        same_rows = True
        total = self._lengths[0]
        while start < total:
            stop = self._rows.until(start, total)
            window = self._rows.read(start, stop)
            if copy is None:
                self._rows.check(start, stop)
            elif len(window.rows):
                copy.append(window.messages, window.headers)
            rows += len(window.rows)
            size += window.messages.size
            same_rows = same_rows and (not len(window.rows) or rows == window.rows[-1] + 1)
            doubtful += window.doubtful
            for one in window.left:
                if left and left[-1].stop == one.start and left[-1].cause == one.cause:
                    one = Left(left.pop().start, one.stop, one.cause)
                left.append(one)
            start = stop
            if told is not None:
                told(int(share * start), total)
        if total < self._lengths[1]:
            left.append(Left(total, self._lengths[1], HEADERS_ONLY))
        return _Done(rows, size, left, same_rows, self._notes(doubtful))

    @property
    def damaged(self) -> bool:
        """Whether HDF5 would fail where nothing had to be left out."""
        return self._rows.damaged

    def _notes(self, doubtful: list[int]) -> list[str]:
        notes = []
        if self._rows.complaint:
            notes.append(f"HDF5 said first: {self._rows.complaint}")
        if doubtful:
            notes.append(
                f"{len(doubtful):,} messages have a page of zeros inside, which may be damage "
                f"or their own; the first is row {doubtful[0]}"
            )
        texts = {"version": self.meta.version, "io_version": self.meta.io_version}
        notes += [f"its {name} is damaged" for name, text in texts.items() if text == UNREADABLE]
        others = self._others()
        if others:
            notes.append(f"not part of the raw format, and not copied: {', '.join(others)}")
        return notes

    def _others(self) -> list[str]:
        """Return the names of what else is in the file."""
        try:
            with GuardedFile(self._fd) as raw, h5py.File(raw, "r") as file:
                found = [name for name in file if name not in (META, MSGS, MSG_HEADERS)]
                for name in (META, MSGS, MSG_HEADERS):
                    known = _CARRIED if name == META else set()
                    found += [f"{name}@{key}" for key in file[name].attrs if key not in known]
                found += [f"@{key}" for key in file.attrs]
                return found + [f"{META}/{name}" for name in file[META]]
        except TRANSIENT:
            return []

    def close(self) -> None:
        """Close the file."""
        self._rows.close()
