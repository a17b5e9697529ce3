"""to_rawfile: the classic one-call writer of larpix-control, kept to its documentation."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from writer.columns import Buffer, field_column, message_column
from writer.errors import LengthMismatch, UnknownField
from writer.layout import MSG_HEADERS, check_creatable, dataset_dtypes, latest_version
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
    column, size = message_column([] if msgs is None else msgs)
    fields = dict(msg_headers or {})
    for name, values in fields.items():
        if np.ndim(values) != 1 or len(np.asarray(values)) != len(column):
            msg = f"{len(column)} messages, but {name} has the shape {np.shape(values)}"
            raise LengthMismatch(msg)
    if not Path(filename).exists():
        _check_fields(fields, len(column), check_creatable(version))
    out = RawWriter(filename, version=version, io_version=io_version)
    try:
        out.append_columns(column, size, fields)
    finally:
        # The next call may follow in a moment: the run is not over.
        out.close(finished=False)


def _check_fields(fields: Mapping[str, ArrayLike], count: int, version: str) -> None:
    known = dataset_dtypes[version][MSG_HEADERS]
    for name, values in fields.items():
        if name not in (known.names or ()):
            msg = f"no message header field {name!r} in version {version}: {known.names}"
            raise UnknownField(msg)
        field_column(name, values, count, known[name])
