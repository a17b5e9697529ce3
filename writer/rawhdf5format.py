"""to_rawfile: the classic one-call writer of larpix-control, kept to its documentation."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from writer.columns import Buffer, field_column, message_column
from writer.errors import BadBatch, LengthMismatch, UnknownField
from writer.layout import (
    MSG_HEADERS,
    LayoutError,
    check_creatable,
    dataset_dtypes,
    find_layout,
    latest_version,
)
from writer.rawwriter import RawWriter

__all__ = ["dataset_dtypes", "latest_version", "to_rawfile"]


def to_rawfile(
    filename: str | os.PathLike[str],
    msgs: Iterable[Buffer] | None = None,
    version: str | None = None,
    msg_headers: Mapping[str, ArrayLike] | None = None,
    io_version: str | None = None,
) -> None:
    """Append messages to a raw file; make it if it is absent.

    Opens and closes the file. A program that writes many batches saves most of the time
    with :class:`writer.RawWriter`.

    Parameters
    ----------
    filename
        The file.
    msgs
        N bytes-like objects. None only makes the file, or updates its ``modified``.
    version
        Version of the format: of a new file by default the latest; an existing one must
        serve it.
    msg_headers
        (N,) integers by header field, such as ``{"io_groups": [1, 2]}``. A field that is
        left out becomes zeros.
    io_version
        Version of the messages' bytes: stated in a new file; an existing one must serve it.

    Raises
    ------
    IncompatibleVersion
        If the file does not serve a version (a LayoutError, and an AssertionError).
    UnknownField
        If the file has no such header field (a RuntimeError).
    LengthMismatch
        If there is not one value a message (an AssertionError).
    BadBatch
        If a message or value cannot be stored; names it (a ValueError).
    LayoutError, CannotWrite
        As :class:`writer.RawWriter`.

    Notes
    -----
    All checks come before the first change to the file.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "raw.h5"
    >>> to_rawfile(path, [b"from 1", b"from 2"], msg_headers={"io_groups": [1, 2]})
    """
    column = message_column([] if msgs is None else msgs)
    fields = {
        name: _one_a_message(name, values, column.rows)
        for name, values in (msg_headers or {}).items()
    }
    path = Path(filename)
    if path.exists() and path.stat().st_size:
        try:
            _check_fields(fields, dataset_dtypes[latest_version][MSG_HEADERS])
        except (BadBatch, UnknownField):
            # The file may have more fields than are made here, or wider ones.
            _check_fields(fields, _header_dtype(path))
    else:
        _check_fields(fields, dataset_dtypes[check_creatable(version)][MSG_HEADERS])
    out = RawWriter(filename, version=version, io_version=io_version)
    try:
        out.append_columns(column, fields)
    finally:
        # The next call may follow in a moment: the run is not over.
        out.close(finished=False)


def _one_a_message(name: str, values: ArrayLike, count: int) -> NDArray[Any]:
    try:
        found = np.asarray(values)
    except ValueError as error:  # lists of different lengths
        msg = f"{name} is not one value a message: {error}"
        raise BadBatch(msg) from error
    if found.shape != (count,):
        msg = f"{count} messages, but {name} has the shape {found.shape}"
        raise LengthMismatch(msg)
    return found


def _check_fields(fields: Mapping[str, NDArray[Any]], header: np.dtype[Any]) -> None:
    for name, values in fields.items():
        if name not in (header.names or ()):
            msg = f"no message header field {name!r} in {header.names}"
            raise UnknownField(msg)
        field_column(name, values, len(values), header[name])


def _header_dtype(path: Path) -> np.dtype[Any]:
    """Read the type of a file's message headers, and neither lock nor change the file."""
    # Through a Python file object, because HDF5 shares its own handles with a writer here.
    with path.open("rb") as raw:
        try:
            with h5py.File(raw, "r") as file:
                header: np.dtype[Any] = find_layout(file, path).msg_headers.dtype
                return header
        except OSError as error:
            msg = f"{path}: not a LArPix raw file: HDF5 cannot open it: {error}"
            raise LayoutError(msg) from error
