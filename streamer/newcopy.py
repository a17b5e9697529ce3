"""The copy that a recovery makes: under another name until it is complete."""

from __future__ import annotations

import os
import secrets
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from writer.columns import MessageColumn
from writer.errors import CannotWrite, DiskFull, WriterError
from writer.layout import (
    META,
    MSG_HEADERS,
    UNREADABLE,
    Meta,
    create_layout,
    latest_version,
)
from writer.rawwriter import RawWriter
from writer.version import __version__

__all__ = ["Copy"]

# As a RawWriter has it.
_LIBVER = ("v110", "v114")
_LEAST_BYTES = 1024 * 1024


class Copy:
    """A new raw file that gets its name once it is complete, and is removed otherwise.

    Parameters
    ----------
    out
        Its name; nothing may have it.
    meta
        What the original says of itself.
    header_dtype
        Type of the original's header rows. Fields of variable length are left out.

    Raises
    ------
    CannotWrite
        If it cannot be made.
    """

    def __init__(self, out: Path, meta: Meta, header_dtype: np.dtype[Any]) -> None:
        self._out = out
        self._has_run_id = meta.run_id not in (None, UNREADABLE)
        names = header_dtype.names or ()
        self._fields = [name for name in names if not header_dtype[name].hasobject]
        self._dropped = [name for name in names if name not in self._fields]
        #: In the same folder, so that it can be renamed.
        self._path = out.with_name(f".{out.name[:200]}.{secrets.token_hex(4)}.part")
        try:
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        except OSError as error:
            msg = f"{out}: cannot be written: {error.strerror}"
            raise CannotWrite(msg) from error
        try:
            self._begin(meta, np.dtype([(name, header_dtype[name]) for name in self._fields]))
            self._writer = RawWriter(self._path)
        except BaseException as error:
            self._path.unlink()
            self._say_of_copy(error)
            raise

    def _begin(self, meta: Meta, header_dtype: np.dtype[Any]) -> None:
        disk = os.statvfs(self._path)
        if disk.f_bavail * disk.f_frsize < _LEAST_BYTES:
            msg = f"{self._path}: no room on the disk"
            raise DiskFull(msg)
        io_version = None if meta.io_version == UNREADABLE else meta.io_version
        with h5py.File(self._path, "w", libver=_LIBVER, locking=False) as file:
            create_layout(file, latest_version, io_version, f"larpix-streamer {__version__}")
            attributes = file[META].attrs
            attributes["created"] = meta.created
            if meta.version not in (latest_version, UNREADABLE):
                attributes["version"] = meta.version
            # Of fixed length: it may have to be changed at the end, and then stays in place.
            run_id = meta.run_id if self._has_run_id else None
            attributes["run_id"] = np.bytes_(run_id or str(uuid.uuid4()))
            made = file[MSG_HEADERS]
            if made.dtype != header_dtype:
                chunks = made.chunks
                del file[MSG_HEADERS]
                file.create_dataset(
                    MSG_HEADERS, shape=(0,), maxshape=(None,), chunks=chunks, dtype=header_dtype
                )

    def append(self, messages: MessageColumn, headers: NDArray[Any]) -> None:
        """Append messages and their header rows.

        Parameters
        ----------
        messages
            N of them.
        headers
            (N,), of the original's type.
        """
        try:
            self._writer.append_columns(messages, {name: headers[name] for name in self._fields})
        except WriterError as error:
            self._say_of_copy(error)
            raise

    def finish(self, *, same_rows: bool) -> list[str]:
        """Close it and give it its name.

        Parameters
        ----------
        same_rows
            Whether each row has the number that it has in the original.

        Returns
        -------
        list of str
            What is to be known of it.

        Raises
        ------
        CannotWrite
            If that fails, or something else has the name now.
        """
        notes = []
        if self._dropped:
            notes.append(f"header fields of variable length, not copied: {self._dropped}")
        try:
            self._writer.close()
            if not same_rows:
                notes.append("rows behind those left out have other numbers in the copy")
                if self._has_run_id:
                    notes.append("therefore the copy has a run id of its own")
                    with h5py.File(self._path, "r+", libver=_LIBVER, locking=False) as file:
                        file[META].attrs.modify("run_id", np.bytes_(str(uuid.uuid4())))
            self._name()
        except WriterError as error:
            self._say_of_copy(error)
            raise
        return notes

    def _name(self) -> None:
        try:
            try:
                os.link(self._path, self._out)
            except FileExistsError:
                raise
            except OSError:  # a file system without links
                os.close(os.open(self._out, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
                self._path.replace(self._out)
        except OSError as error:
            msg = f"{self._out}: cannot be given its name: {error.strerror}"
            raise CannotWrite(msg) from error

    def _say_of_copy(self, error: BaseException) -> None:
        # Nobody knows the other name.
        if error.args and isinstance(error.args[0], str):
            error.args = (error.args[0].replace(str(self._path), str(self._out)), *error.args[1:])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(WriterError):
            self._writer.close(finished=False)
        self._path.unlink(missing_ok=True)
