"""RawFile: a raw file, live, closed or left by a killed writer: its rows, verified."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from streamer.batch import Batch
from streamer.direct import Loaded
from streamer.errors import FileReplaced, RowsOutOfRange, RowUnreadable
from streamer.finality import ALL_BYTES, STEP_ROWS, Finality
from streamer.source import Source
from streamer.stamp import Stamp
from writer.layout import UNREADABLE, Meta
from writer.lock import is_locked

__all__ = ["RawFile", "Some"]

# A writer that lives does not leave its datasets unequal for so long.
_STILL_SECONDS = 1.0


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
    io_group 0. Real messages of that kind can be told from them once the file is closed,
    rows of a later batch have been seen, or if its writer is one of this project.

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
        self._lengths = (0, 0)
        self._announced = 0
        self._committed = 0
        self._counted = True
        self._finished_sign: tuple[int, ...] = ()
        self._is_finished = False
        self._source = Source(self.path)
        self._final = Finality(self._source, late_seconds)
        try:
            self._stamp = Stamp(self._source)
            self.refresh()
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):  # of a file server, for one
                raise self._source.not_readable(error) from error
            raise

    # What is there

    @property
    def reading(self) -> str:
        """How rows are read: ``"direct"``, or ``"h5py"`` where a file is not the plain case."""
        return self._source.rows.reading

    @property
    def meta(self) -> Meta:
        """What the file says of itself now; read anew, in about a millisecond."""
        return self._source.meta

    def __len__(self) -> int:
        if not self._counted:
            self._committed = self._count()
            self._counted = True
        return self._committed

    @property
    def created(self) -> float:
        """Unix time in seconds at which the file was made."""
        return self._stamp.created

    @property
    def run_id(self) -> str | None:
        """UUID of the run, if the file was made by a writer of this project and says so."""
        run_id = self._source.known.run_id
        return None if run_id == UNREADABLE else run_id

    @property
    def io_version(self) -> str | None:
        """Version of the messages' bytes, if the file says so: it never changes."""
        io_version = self._source.known.io_version
        return None if io_version == UNREADABLE else io_version

    @property
    def finished(self) -> bool:
        """Whether the writer has ended the run, and no row has come since.

        Only a :class:`writer.RawWriter` says so; of other writers one cannot know.
        """
        # A file in which the mark was not made at its creation will never have it.
        if self._source.known.finished is None or not self.closed:
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
        own = self.status
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
        return self._final.is_settled() or self.age > _STILL_SECONDS

    @property
    def status(self) -> os.stat_result:
        """What the system says of the file now, whatever has become of its name."""
        return os.fstat(self._source.fd)

    @property
    def sign(self) -> tuple[int, ...]:
        """Differs once the file has changed; may miss a change, as clocks are coarse."""
        status = self.status
        return status.st_mtime_ns, status.st_size, *self._lengths

    @property
    def closed(self) -> bool:
        """Whether nobody has it open for writing, as far as its mark says."""
        return self._source.closed

    @property
    def is_held(self) -> bool:
        """Whether a living :class:`writer.RawWriter` has it open."""
        return is_locked(self._source.fd)

    @property
    def age(self) -> float:
        """Seconds since the file was last written, by the file system's clock."""
        return self._source.age

    def was_left_at(self, row: int) -> bool:
        """Tell whether announced rows from this one on were never written.

        A killed writer leaves such rows. False if the file was closed, if its writer announces
        only what is there, or if a later row can be read: then an unreadable row is damaged,
        or still to come.
        """
        return self._final.was_left_at(row, self._announced)

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
            raise self._source.not_readable(error) from error

    def _look(self) -> int:
        self.check_same()
        source = self._source
        peeked = source.retrying(lambda: source.rows.peek())
        if peeked is None:
            return self._announced
        # Of the rows that are announced so far.
        settled = self._final.is_settled()
        self._lengths = source.retrying(lambda: source.rows.refresh(peeked))
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
            self._final.below = announced
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
        for left in self._source.PATIENCE.tries():
            batch, cause = self.read_available(start, stop)
            if cause is None:
                return batch
            row = start + len(batch)
            if self.is_final(row) or not left:
                raise RowUnreadable(self.path, row, cause)
            self._source.retrying(lambda: self._source.rows.refresh())
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
        return self._source.retrying(lambda: self._source.rows.headers(start, stop))

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
        found = self.read_some(start, stop, ALL_BYTES)
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
        if loaded.cause is not None and self._final.settle(loaded.stop, self._announced):
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
        return self._final.is_final(row)

    def _load(
        self, start: int, stop: int, wanted: NDArray[np.bool_] | None, max_bytes: int
    ) -> Loaded:
        return self._source.retrying(
            lambda: self._source.rows.load(start, stop, self._final.below, wanted, max_bytes)
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
        self._stamp.check()

    def _count(self) -> int:
        """Count the committed rows, from the end: what is not written yet is there."""
        count = stop = self._announced
        while stop > max(self._committed, self._final.below):
            start = max(self._committed, (stop - 1) // STEP_ROWS * STEP_ROWS)
            batch, cause = self.read_available(start, stop)
            if cause is None:
                break
            count, stop = start + len(batch), start
        return count

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._source.close()

    def __del__(self) -> None:
        if "_source" in self.__dict__:  # it was opened
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
        state = "closed"
        if self._source.is_open:
            state = f"{self._announced} rows, {self.reading}"
        return f"<RawFile {str(self.path)!r}, {state}>"
