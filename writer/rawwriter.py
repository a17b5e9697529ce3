"""RawWriter: append a batch; when append returns, readers can read it."""

from __future__ import annotations

import os
import resource
import stat
import time
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from h5py import h5a, h5d, h5f, h5s, h5t
from numpy.typing import ArrayLike, NDArray

from writer.columns import Buffer, MessageColumn, field_column, message_column
from writer.errors import BadBatch, CannotWrite, DiskFull, UnknownField, WriterBusy, WriterKilled
from writer.layout import (
    IO_GROUPS,
    MSG_HEADERS,
    MSGS,
    PAUSED,
    WRITING,
    Layout,
    LayoutError,
    check_compatible,
    check_creatable,
    create_layout,
    find_layout,
    latest_version,
    read_versions,
)
from writer.lock import hold_lock
from writer.superblock import read_superblock
from writer.version import __version__

__all__ = ["RawWriter"]

# HDF5 2.0's "latest" writes files that 1.14 cannot open; these bounds start SWMR in both.
_LIBVER = ("v110", "v114")
# What HDF5 may add to a batch besides its rows: heap collections, a chunk, its indexes.
_SLACK_BYTES = 256 * 1024
# A stock writer has the file for milliseconds at a time: so long one waits for it.
_BUSY_SECONDS = 0.5


class RawWriter:
    """Make a LArPix raw file, or continue one, and append batches of messages to it.

    When :meth:`append` returns, every reader can read the batch: those of this project
    with the handle they hold, h5py and larpix-control by opening the file. Any number of
    readers may be there; there is one writer at a time. Not for use by several threads at
    once.

    Parameters
    ----------
    path
        The file. Made if it is absent or empty, else continued after its last row.
    version
        Version of the format, such as ``"0.0"``; by default the latest, or the file's.
    io_version
        Version of the messages' bytes, stated in a new file and required of an old one.
    fsync
        Whether each batch is forced onto the disk before :meth:`append` returns, so that
        it outlives a loss of power. Slow; without it a batch outlives the process.

    Attributes
    ----------
    path : Path
        The file.

    Raises
    ------
    WriterBusy
        If another RawWriter has the file, in this process or another.
    WriterKilled
        If the file was left by a writer that was killed: HDF5 may cut such a file short.
    LayoutError
        If the file is something else.
    IncompatibleVersion
        If the versions do not go together (a LayoutError, and an AssertionError).
    CannotWrite
        If the file cannot be opened or made for another reason (an OSError).

    Warns
    -----
    UserWarning
        If the file's datasets differ in length, as a writer leaves them that was killed.
        The rows that only one of them has were never committed, and are dropped.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "raw.h5"
    >>> with RawWriter(path, io_version="0.0") as out:
    ...     out.append([b"first", b"second", b"third"], io_groups=[1, 2, 1])
    range(0, 3)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        version: str | None = None,
        io_version: str | None = None,
        fsync: bool = False,
    ) -> None:
        self.path = Path(path)
        self._fsync = fsync
        self._rows = 0
        self._broken: str | None = None
        absent = not self.path.exists()
        try:
            # A descriptor of our own: it bears the lock, and HDF5 never closes it.
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            msg = f"{self.path}: cannot be opened for writing: {error.strerror}"
            raise CannotWrite(msg) from error
        try:
            if not stat.S_ISREG(os.fstat(self._fd).st_mode):
                msg = f"{self.path}: is no regular file"
                raise CannotWrite(msg)
            if not hold_lock(self._fd):
                msg = f"{self.path}: another RawWriter has this file; one writer at a time"
                raise WriterBusy(msg)
            try:
                self._file = self._open(version, io_version)
            except BaseException:
                if absent:
                    self.path.unlink()
                raise
        except BaseException:
            os.close(self._fd)
            raise

    def _open(self, version: str | None, io_version: str | None) -> h5py.File:
        new = os.fstat(self._fd).st_size == 0
        if new:
            version = check_creatable(version)
            self._check_room(0, 0)
        else:
            self._check_closed()
        file = None
        try:
            # Without locks: a reader that holds one must not keep the DAQ from its file.
            file = h5py.File(self.path, "w" if new else "r+", libver=_LIBVER, locking=False)
            if version is not None and new:
                create_layout(file, version, io_version, f"larpix-streamer {__version__}")
            layout = find_layout(file, self.path)
            found, found_io = read_versions(layout.meta, self.path)
            check_compatible("version", found, version or latest_version, self.path)
            check_compatible("io_version", found_io, io_version, self.path)
            if layout.msg_headers.dtype.hasobject:
                msg = "message headers of variable length cannot be continued"
                raise ValueError(msg)
            self._rows = self._drop_uncommitted(layout)
            file.swmr_mode = True
            self._msgs: h5d.DatasetID = layout.msgs.id
            self._headers: h5d.DatasetID = layout.msg_headers.id
            self._header_dtype: np.dtype[Any] = layout.msg_headers.dtype
            # C's type, whose elements are pointers; that of the dtype would be Python's.
            self._msgs_type = h5t.vlen_create(h5t.NATIVE_UINT8)
            self._modified = _attribute(layout.meta, "modified")
            self._finished = _attribute(layout.meta, "finished")
            if self._finished is not None:
                self._finished.write(np.array(WRITING))
                h5f.flush(file.id)
        except BaseException as error:
            if file is not None:
                with suppress(OSError, RuntimeError):  # the first error says more
                    file.close()
            if isinstance(error, OSError | RuntimeError | ValueError):
                msg = f"{self.path}: HDF5 cannot open it for writing: {error}"
                raise CannotWrite(msg) from error
            raise
        return file

    def _check_closed(self) -> None:
        deadline = time.monotonic() + _BUSY_SECONDS
        while True:
            superblock = read_superblock(self._fd)
            if superblock is None:
                msg = f"{self.path}: not a LArPix raw file: not HDF5 at all"
                raise LayoutError(msg)
            if superblock.closed:
                return
            if superblock.version < 3:
                msg = (
                    f"{self.path}: made for HDF5 versions before 1.10 (libver='earliest'): "
                    "nobody could read it while it is written. Start a new file"
                )
                raise CannotWrite(msg)
            if time.monotonic() > deadline:
                break
            time.sleep(0.005)
        msg = (
            f"{self.path}: marked as open for writing: its writer was killed, or another "
            f"program is writing it. All that it holds can be read; go on in a new file, or "
            f"in the copy that 'streamer recover FILE OUT' makes"
        )
        raise WriterKilled(msg)

    def _drop_uncommitted(self, layout: Layout) -> int:
        lengths = len(layout.msgs), len(layout.msg_headers)
        rows = min(lengths)
        if max(lengths) > rows:
            warnings.warn(
                f"{self.path}: {max(lengths) - rows} uncommitted rows after row {rows - 1} "
                f"dropped: {MSGS} has {lengths[0]} rows, {MSG_HEADERS} {lengths[1]}",
                stacklevel=4,
            )
            # Shrinking clears the references and leaves the heap alone. Writing over them
            # would remove heap objects, and HDF5 then moves those that readers look at.
            layout.msgs.resize((rows,))
            layout.msg_headers.resize((rows,))
        return rows

    @property
    def rows(self) -> int:
        """Number of rows committed, those the file had before included."""
        return self._rows

    def append(
        self,
        msgs: Iterable[Buffer] | Buffer,
        io_groups: ArrayLike = 0,
        *,
        lengths: ArrayLike | None = None,
    ) -> range:
        """Append a batch; when this returns, readers can read it.

        Parameters
        ----------
        msgs
            N bytes-like objects, of any lengths; or one contiguous buffer of N messages.
        io_groups
            One integer of 0 to 255 for all messages, or (N,) of them.
        lengths
            (N,) integers: the bytes of each message, if `msgs` is one buffer.

        Returns
        -------
        range
            The rows of the batch.

        Raises
        ------
        BadBatch
            If something cannot be stored; names the message (a ValueError).
        DiskFull
            If there is no room for the batch.
        CannotWrite
            If the writer is closed, or HDF5 fails. After the latter only :meth:`close`
            is left; the rows committed before stay readable.

        Notes
        -----
        With the first two, nothing has changed, and the next batch may follow.

        Examples
        --------
        >>> import tempfile
        >>> with RawWriter(Path(tempfile.mkdtemp()) / "raw.h5") as out:
        ...     out.append(b"onethree", io_groups=7, lengths=[3, 5])
        range(0, 2)
        """
        try:
            column = message_column(msgs, lengths)
        except BadBatch as error:
            raise self._located(error) from error
        return self.append_columns(column, {IO_GROUPS: io_groups})

    def append_columns(self, column: MessageColumn, fields: Mapping[str, ArrayLike]) -> range:
        """Append a batch of checked messages, with any header fields that the file has.

        Parameters
        ----------
        column
            As from :func:`writer.columns.message_column`.
        fields
            Values of header fields, one for all messages or one a message; zeros where
            a field is left out.

        Returns
        -------
        range
            The rows of the batch.

        Raises
        ------
        UnknownField
            If the file has no such field (a RuntimeError).
        BadBatch, DiskFull, CannotWrite
            As :meth:`append`.
        """
        self._check_usable()
        count = column.rows
        headers = np.zeros(count, dtype=self._header_dtype)
        for name, values in fields.items():
            if name not in (headers.dtype.names or ()):
                msg = f"{self.path}: no message header field {name!r} in {headers.dtype.names}"
                raise UnknownField(msg)
            try:
                headers[name] = field_column(name, values, count, headers.dtype[name])
            except BadBatch as error:
                raise self._located(error) from error
        if count:
            self._check_room(column.size, count)
            try:
                self._commit(column, headers)
            except BaseException as error:
                self._broken = f"{type(error).__name__}: {error}"
                if isinstance(error, Exception):
                    _detach(self._file)
                    msg = (
                        f"{self.path}: HDF5 failed to write rows {self._rows} to "
                        f"{self._rows + count - 1}; those before are committed: {error}"
                    )
                    raise CannotWrite(msg) from error
                raise
        rows = range(self._rows, self._rows + count)
        self._rows = rows.stop
        return rows

    def _commit(self, column: MessageColumn, headers: NDArray[Any]) -> None:
        """Write a batch so that no reader ever sees a part of it.

        A row counts once both datasets have it, so the header rows are the commit mark.
        HDF5 orders nothing between two datasets, nor between a dataset and the heap its
        messages lie in; therefore everything of the messages is flushed before the
        headers are even enlarged: a size that is merely waiting to be written may be
        published by any flush, or by the library's cache when it is full.
        """
        start, stop = self._rows, self._rows + column.rows
        memory = h5s.create_simple((column.rows,))
        _write(self._msgs, memory, start, stop, column.pointers, self._msgs_type)
        self._stamp_modified()
        # The file, not the dataset: only this writes the superblock, without which other
        # readers cannot reach past the end that the file had when it was opened.
        h5f.flush(self._msgs)
        if self._fsync:
            os.fsync(self._fd)
        _write(self._headers, memory, start, stop, headers, None)
        self._headers.flush()
        if self._fsync:
            os.fsync(self._fd)

    def _stamp_modified(self) -> None:
        if self._modified is not None:
            self._modified.write(np.array(time.time()))

    def _check_usable(self) -> None:
        if self._file is None:
            msg = f"{self.path}: this writer is closed"
            raise CannotWrite(msg)
        if self._broken is not None:
            msg = f"{self.path}: this writer failed before, close it ({self._broken})"
            raise CannotWrite(msg)

    def _check_room(self, size: int, count: int) -> None:
        # Once HDF5 has failed to write, it can neither go on nor close the file properly:
        # better to ask before. A message costs a heap header and padding besides its bytes,
        # and its row 16 bytes of reference and a header.
        needed = size + 48 * count + _SLACK_BYTES
        disk = os.fstatvfs(self._fd)
        free = disk.f_bavail * disk.f_frsize
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        if limit != resource.RLIM_INFINITY:
            free = min(free, limit - os.fstat(self._fd).st_size)
        if needed > free:
            msg = (
                f"{self.path}: no room for rows {self._rows} to {self._rows + count - 1}: "
                f"{needed} bytes needed, {max(free, 0)} free. Nothing of them was written"
            )
            raise DiskFull(msg)

    def _located(self, error: BadBatch) -> BadBatch:
        return type(error)(f"{self.path}: batch from row {self._rows} on: {error}")

    def close(self, *, finished: bool = True) -> None:
        """Close the file. Idempotent.

        Parameters
        ----------
        finished
            Whether the run is over: stamps the mark that tells followers so, in files
            that were made by this project. False if somebody will continue the file; so
            it is, too, if the body of a ``with`` fails.

        Raises
        ------
        CannotWrite
            If HDF5 cannot write the rest. All committed rows stay readable.
        """
        file, self._file = self._file, None
        if file is None:
            return
        try:
            if self._broken is None:
                self._stamp_end(file, self._rows if finished else PAUSED)
            self._modified = self._finished = None
            file.close()
        except (OSError, RuntimeError, ValueError) as error:
            msg = f"{self.path}: HDF5 failed to close it after row {self._rows - 1}: {error}"
            raise CannotWrite(msg) from error
        finally:
            os.close(self._fd)

    def _stamp_end(self, file: h5py.File, mark: int) -> None:
        try:
            if self._finished is not None:
                self._finished.write(np.array(mark))
            self._stamp_modified()
            h5f.flush(file.id)
            if self._fsync:
                os.fsync(self._fd)
        except (OSError, RuntimeError, ValueError):
            _detach(file)
            with suppress(OSError, RuntimeError, ValueError):  # the first error says more
                file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Who is told to stop, by Ctrl-C or a cancellation, ends the run; who fails does not.
        self.close(finished=kind is None or not issubclass(kind, Exception))

    def __repr__(self) -> str:
        state = "closed" if self._file is None else "open"
        return f"<RawWriter {str(self.path)!r}, {self._rows} rows, {state}>"


def _attribute(group: h5py.Group, name: str) -> h5a.AttrID | None:
    """Open an attribute, to be written in place: h5py would replace it."""
    label = name.encode()
    return h5a.open(group.id, label) if h5a.exists(group.id, label) else None


def _detach(file: h5py.File) -> None:
    """Let HDF5 write what it still holds into nothing.

    After a failed write it cannot close the file. It tries again when the process ends, and
    crashes then, unless its writes succeed. None of them belongs to a committed row.
    """
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(nothing, file.id.get_vfd_handle(), inheritable=False)
    os.close(nothing)


def _write(
    dataset: h5d.DatasetID,
    memory: h5s.SpaceID,
    start: int,
    stop: int,
    values: NDArray[Any],
    memory_type: h5py.h5t.TypeID | None,
) -> None:
    """Enlarge a column and fill the new rows, without h5py's costly indexing."""
    dataset.set_extent((stop,))
    selected = dataset.get_space()
    selected.select_hyperslab((start,), (stop - start,))
    dataset.write(memory, selected, values, memory_type)
