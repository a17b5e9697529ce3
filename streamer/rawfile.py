"""RawFile: a raw file, live, closed or left by a killed writer: its rows, verified."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from streamer.batch import Batch
from streamer.direct import DirectRows, Loaded
from streamer.errors import (
    FileReplaced,
    NotReady,
    RowsOutOfRange,
    RowUnreadable,
    StreamError,
)
from streamer.library import LibraryRows
from streamer.opening import TRANSIENT, open_descriptor, open_rows, read_meta_anew
from streamer.retry import Patience
from writer.layout import UNREADABLE, WRITING, Meta
from writer.lock import is_locked
from writer.superblock import read_superblock

__all__ = ["RawFile", "Some"]

_READING = Patience(attempts=100, seconds=2.0)
# Rows looked at together at the end of a file, to find the last that is written.
_STEP_ROWS = 1024
# Of rows that look written, so many are tried.
_PROOFS = 16
# Files of the oldest formats do not say whether they are closed: after so long they are.
_OLD_FORMAT_SECONDS = 10.0
# A writer that lives does not leave its datasets unequal for so long.
_STILL_SECONDS = 1.0

_ALL_BYTES = 2**62
# Where the attributes of a raw file are: they are the first that is written.
_HEAD_BYTES = 64 * 1024

Result = TypeVar("Result")


class Some(NamedTuple):
    """As many rows as could be read."""

    batch: Batch
    #: The row before which all have been gone through.
    stop: int
    #: What is wrong with that row; None if nothing is.
    cause: str | None


class RawFile:
    """A LArPix raw file, open for reading: live, closed or left by a killed writer.

    It takes no lock and writes nothing, so it never disturbs the writer. It stays with
    the file it opened, whatever becomes of the name. Use it from one thread at a time.

    Parameters
    ----------
    path
        The file.
    late_seconds
        How much later than others a page of the file may be seen, in seconds: 0 on a local
        file system, where all processes see each write at once. Then rows that look blank,
        or of which a page is zero, wait for so long.

    Attributes
    ----------
    path : Path
        The file.

    Raises
    ------
    NotReady
        If the file is absent, not accessible, or not a readable raw file yet.
    LayoutError
        If it is something else.

    Notes
    -----
    A row counts as committed when both datasets announce it and its message is verified:
    HDF5 announces rows that are not written yet, which then look like empty messages of
    io_group 0. Rows that really are so are told apart once the file is closed, or its
    writer is one of this project, or rows of a later batch have been seen.

    Examples
    --------
    >>> import tempfile
    >>> from writer import RawWriter
    >>> path = Path(tempfile.mkdtemp()) / "raw.h5"
    >>> with RawWriter(path) as out, RawFile(path) as raw:
    ...     rows = out.append([b"first", b"second"], io_groups=[1, 2])
    ...     raw.refresh()
    ...     raw.read(0, 2).tolist()
    2
    [b'first', b'second']
    """

    def __init__(self, path: str | os.PathLike[str], *, late_seconds: float = 0.0) -> None:
        self.path = Path(path)
        self._late_seconds = late_seconds
        self._lengths = (0, 0)
        self._finished_sign: tuple[int, ...] = ()
        self._is_finished = False
        self._created = 0.0
        self._stamp = 0
        self._announced = 0
        self._committed = 0
        self._counted = True
        self._final_below = 0
        self._doubted: int | None = None
        self._doubted_since = 0.0
        self._rows: DirectRows | LibraryRows | None = None
        self._fd = open_descriptor(self.path)
        try:
            self._rows = open_rows(self._fd, self.path)
            self._created = self._rows.meta.created
            self._find_stamp()
            self.refresh()
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):  # of a file server, for one
                raise self._not_readable(error) from error
            raise

    # What is there

    @property
    def reading(self) -> str:
        """How rows are read: ``"direct"``, or ``"h5py"`` where a file is not the plain case."""
        return self._source.reading

    @property
    def meta(self) -> Meta:
        """What the file says of itself now; read anew, in about a millisecond."""
        return read_meta_anew(self._open_fd, self.path) or self._source.meta

    def __len__(self) -> int:
        if not self._counted:
            self._committed = self._count()
            self._counted = True
        return self._committed

    @property
    def created(self) -> float:
        """Unix time in seconds at which the file was made."""
        return self._created

    @property
    def run_id(self) -> str | None:
        """UUID of the run, if the file was made by a writer of this project and says so."""
        run_id = self._source.meta.run_id
        return None if run_id == UNREADABLE else run_id

    @property
    def io_version(self) -> str | None:
        """Version of the messages' bytes, if the file says so: it never changes."""
        io_version = self._source.meta.io_version
        return None if io_version == UNREADABLE else io_version

    @property
    def finished(self) -> bool:
        """Whether the writer has ended the run, and no row has come since.

        Only a :class:`writer.RawWriter` says so; of other writers one cannot know.
        """
        # A file in which the mark was not made at its creation will never have it.
        if self._source.meta.finished is None:
            return False
        superblock = read_superblock(self._fd)
        if superblock is None or not superblock.closed:
            return False
        # The clock of a file system is coarse: a file that was just written may be written
        # again with the same time.
        sign = self.sign
        if sign != self._finished_sign or self.age < _STILL_SECONDS:
            self._finished_sign = sign
            self._is_finished = self.meta.finished == min(self._lengths)
        return self._is_finished

    @property
    def orphaned(self) -> str | None:
        """What has become of the file's name, if it is no longer this file's."""
        try:
            now = self.path.stat()
        except FileNotFoundError:
            return "was deleted, or given another name"
        except OSError:  # a folder that is not accessible at present
            return None
        own = os.fstat(self._fd)
        if (now.st_dev, now.st_ino) == (own.st_dev, own.st_ino):
            return None
        return "another file has this name now"

    @property
    def lengths(self) -> tuple[int, int]:
        """Rows of ``msgs`` and of ``msg_headers`` at the last look."""
        return self._lengths

    @property
    def still(self) -> bool:
        """Whether what is announced is all that there will be, for now.

        True if nobody writes the file, if its writer is one of this project, which
        announces only what is there, or if nothing has changed for a second.
        """
        if self._is_settled():
            return True
        return self.age > _STILL_SECONDS

    @property
    def sign(self) -> tuple[int, ...]:
        """What changes with the file, if not always: a clock may be coarse."""
        status = os.fstat(self._open_fd)
        return status.st_mtime_ns, status.st_size, *self._lengths

    @property
    def closed(self) -> bool:
        """Whether nobody has it open for writing, as far as its mark says."""
        superblock = read_superblock(self._open_fd)
        return superblock is not None and superblock.closed

    @property
    def age(self) -> float:
        """Seconds since the file was last written, by the file system's clock."""
        return time.time() - os.fstat(self._open_fd).st_mtime

    def was_left_at(self, row: int) -> bool:
        """Tell whether announced rows from this one on were never written.

        As a writer leaves them that was killed. Not if the file was closed, or its writer
        announces what is there only, and neither if a later one can be read: then what cannot
        be read is damaged, or is waited for.
        """
        if self.closed or self._announces_written_only():
            return row >= self._announced
        return not self._any_written(row, self._announced)

    def refresh(self) -> int:
        """Look for new rows.

        Returns
        -------
        int
            Number of committed rows, also ``len()`` of this object until the next look.

        Raises
        ------
        FileReplaced
            If the file was started again in its place, or has fewer rows than before.
        NotReady
            If HDF5 cannot read the file at present.
        """
        self.look()
        return len(self)

    def look(self) -> int:
        """Look for new rows, and do not verify them: those of the last batch may be missing.

        Returns
        -------
        int
            Number of rows that both datasets announce.

        Raises
        ------
        FileReplaced, NotReady
            As :meth:`refresh`.
        """
        try:
            return self._look()
        except OSError as error:  # of a file server, for one
            raise self._not_readable(error) from error

    def _look(self) -> int:
        self.check_same()
        peeked = self._retrying(lambda: self._source.peek())
        if peeked is None:
            return self._announced
        # Of the rows that are announced so far.
        settled = self._is_settled()
        self._lengths = self._retrying(lambda: self._source.refresh(peeked))
        announced = min(self._lengths)
        if announced < self._announced:
            msg = (
                f"{self.path}: has {announced} rows, and had {self._announced}: "
                f"it was started again or cut short"
            )
            raise FileReplaced(msg)
        self._announced = announced
        self._counted = self._committed == announced
        if settled and peeked.states(self._lengths):
            self._final_below = announced
        return announced

    def read(self, start: int, stop: int | None = None) -> Batch:
        """Read rows, all of them.

        Parameters
        ----------
        start, stop
            The rows ``[start, stop)``; by default to the last that is committed.

        Returns
        -------
        Batch
            N = stop - start messages.

        Raises
        ------
        RowsOutOfRange
            If these are not rows of ``range(len(self))`` (an IndexError).
        RowUnreadable
            If a row stays unreadable; names it and the cause. The rows before it can be
            read.
        """
        if stop is None:
            stop = max(start, len(self))
        self._check_range(start, stop)
        for left in _READING.tries():
            batch, cause = self.read_available(start, stop)
            if cause is None:
                return batch
            row = start + len(batch)
            if self.is_final(row) or not left:
                raise RowUnreadable(self.path, row, cause)
            self._retrying(lambda: self._source.refresh())
        raise AssertionError  # the last try returns or raises

    def read_headers(self, start: int, stop: int) -> NDArray[Any]:
        """Read message headers, all fields that the file has.

        Parameters
        ----------
        start, stop
            The rows ``[start, stop)``.

        Returns
        -------
        ndarray
            (stop - start,), structured; field ``io_groups`` u1.

        Raises
        ------
        RowsOutOfRange
            If these are not rows of ``range(len(self))`` (an IndexError).
        """
        self._check_range(start, stop)
        return self._retrying(lambda: self._source.headers(start, stop))

    def read_available(self, start: int, stop: int) -> tuple[Batch, str | None]:
        """Read rows, up to the first that is not there yet.

        Parameters
        ----------
        start, stop
            The rows ``[start, stop)``, all announced by :meth:`look`.

        Returns
        -------
        batch : Batch
            The rows that are there and right.
        cause : str or None
            What is wrong with the next one; None if none is missing.
        """
        found = self.read_some(start, stop, _ALL_BYTES)
        return found.batch, found.cause

    def read_some(
        self,
        start: int,
        stop: int,
        max_bytes: int,
        wanted: NDArray[np.bool_] | None = None,
    ) -> Some:
        """Read rows, as many as fit and up to the first that is not there yet.

        Parameters
        ----------
        start, stop
            The rows ``[start, stop)``, all announced by :meth:`look`.
        max_bytes
            Bytes of messages to read at the most; one row is always read.
        wanted
            (256,) bool: the io_groups to read; None for all.

        Returns
        -------
        Some
            The rows, and how far they go.
        """
        loaded = self._load(start, stop, wanted, max_bytes)
        if loaded.cause is not None and self._settle(loaded.stop):
            loaded = self._load(start, stop, wanted, max_bytes)
        payloads = loaded.payloads
        batch = Batch(
            loaded.rows,
            loaded.io_groups,
            payloads.buffer,
            payloads.starts,
            payloads.lengths,
            self.path,
            self.io_version,
        )
        return Some(batch, loaded.stop, loaded.cause)

    def is_final(self, row: int) -> bool:
        """Tell whether a row will stay as it is: trying again does not help."""
        superblock = read_superblock(self._fd)
        # While somebody writes, also a chunk of old rows may be in the middle of a change.
        return row < self._final_below and superblock is not None and superblock.closed

    def _load(
        self, start: int, stop: int, wanted: NDArray[np.bool_] | None, max_bytes: int
    ) -> Loaded:
        return self._retrying(
            lambda: self._source.load(start, stop, self._final_below, wanted, max_bytes)
        )

    def _check_range(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= self._announced:
            msg = f"{self.path}: rows {start} to {stop} asked for, it has {len(self)}"
            raise RowsOutOfRange(msg)

    def check_same(self) -> None:
        """Make sure that the file was not started again in the same place, as mode "w" does.

        Raises
        ------
        FileReplaced
            If it was: what was read just before may be of either run.
        """
        # HDF5 does not notice. But the time at which the file was made stands in it, as the
        # eight bytes of an attribute, and at another time other bytes stand there.
        there = os.pread(self._open_fd, 8, self._stamp)
        if self._stamp and there == struct.pack("<d", self._created):
            return
        meta = read_meta_anew(self._fd, self.path)
        if meta is None:
            return  # unreadable, like all the rest: the next look will tell
        if meta.created != self._created:
            msg = f"{self.path}: was started again, at Unix time {meta.created:.0f}"
            raise FileReplaced(msg)
        # Writers that change an attribute may move the others.
        self._find_stamp()

    def _find_stamp(self) -> None:
        head = os.pread(self._fd, _HEAD_BYTES, 0)
        self._stamp = max(0, head.find(struct.pack("<d", self._created)))

    # What is final

    def _is_settled(self) -> bool:
        """Tell whether all announced rows are on disk as they will stay.

        They are if nobody writes the file now, or somebody who announces only what is on
        disk; for earlier writers have closed the file then.
        """
        superblock = read_superblock(self._open_fd)
        if superblock is None or superblock.cut:
            return False
        if is_locked(self._fd):
            return True
        # Where pages may come late, the one that says so may come before the others.
        if self._late_seconds and self.age <= self._late_seconds:
            return False
        if superblock.closed:
            return True
        if superblock.version < 3:
            return self.age > _OLD_FORMAT_SECONDS
        return self._announces_written_only()

    def _announces_written_only(self) -> bool:
        """Tell whether its writer is, or was when it was killed, a RawWriter."""
        # On any host: no other writer opens a file that has this mark.
        return self._source.meta.finished is not None and self.meta.finished == WRITING

    def _make_final(self, rows: int) -> None:
        # What was looked up before this was known may be older.
        self._retrying(lambda: self._source.refresh())
        self._final_below = rows

    def _settle(self, row: int) -> bool:
        """Find out whether a row that looks unwritten, or half written, will stay so."""
        if row < self._final_below:
            return False
        announced = self._announced
        if self._is_settled():
            self._make_final(announced)
            return True
        if self._doubted is None:
            self._doubted, self._doubted_since = announced, time.monotonic()
            return False
        if time.monotonic() - self._doubted_since < self._late_seconds:
            return False
        # A writer fills rows in the order in which it announces them, and flushes them so:
        # once rows are there that were announced later, the earlier ones are complete.
        if not self._any_written(self._doubted, min(announced, self._doubted + _STEP_ROWS)):
            superblock = read_superblock(self._fd)
            if superblock is None or superblock.cut or not superblock.closed:
                return False
        self._make_final(self._doubted)
        self._doubted = None
        return row < self._final_below

    def _any_written(self, start: int, stop: int) -> bool:
        """Tell whether any of these rows is neither empty nor of io_group 0, and is there."""

        def is_written(row: int) -> bool:
            return self._source.load(row, row + 1, 0, None, _ALL_BYTES).stop > row

        # From the end: behind a damaged page there are good ones.
        while start < stop:
            first = max(start, (stop - 1) // _STEP_ROWS * _STEP_ROWS)
            filled = self._retrying(partial(self._source.filled, first, stop))
            # All over the step: they lie in several collections, of which one may be damaged.
            for row in filled[:: -(-len(filled) // _PROOFS) or 1].tolist():
                if self._retrying(partial(is_written, row)):
                    return True
            stop = first
        return False

    def _count(self) -> int:
        """Count the committed rows, from the end: what is not written yet is there."""
        count = stop = self._announced
        while stop > max(self._committed, self._final_below):
            start = max(self._committed, (stop - 1) // _STEP_ROWS * _STEP_ROWS)
            batch, cause = self.read_available(start, stop)
            if cause is None:
                break
            count, stop = start + len(batch), start
        return count

    # Handles

    @property
    def _open_fd(self) -> int:
        if self._fd < 0:
            msg = f"{self.path}: this RawFile is closed"
            raise StreamError(msg)
        return self._fd

    @property
    def _source(self) -> DirectRows | LibraryRows:
        fd = self._open_fd
        if self._rows is None:  # it could not be opened again when it was last tried
            self._rows = open_rows(fd, self.path)
        return self._rows

    def _retrying(self, call: Callable[[], Result]) -> Result:
        for left in _READING.tries():
            try:
                return call()
            except TRANSIENT as error:
                if not left:
                    raise self._not_readable(error) from error
            # The error may have come from a handle that is spoilt.
            self._source.close(spoilt=True)
            self._rows = None
            self._rows = open_rows(self._fd, self.path)
        raise AssertionError  # the last try returns or raises

    def _not_readable(self, error: Exception) -> NotReady:
        return NotReady(f"{self.path}: cannot be read at present: {error}")

    def close(self) -> None:
        """Close the file. Idempotent."""
        rows, self._rows = self._rows, None
        if rows is not None:
            rows.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        if "_fd" in self.__dict__:  # it was opened
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._rows is None else f"{self._announced} rows, {self.reading}"
        return f"<RawFile {str(self.path)!r}, {state}>"
