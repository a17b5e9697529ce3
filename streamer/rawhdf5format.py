"""The functions of larpix-control's ``larpix.format.rawhdf5format``, kept to their documentation.

Replace the import, and nothing else. What its documentation promises and its code does not
keep, works here; how reading beside a writer works, says :mod:`streamer.rawfile`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamer.errors import BadMask, NotReady, NotSynchronized
from streamer.rawfile import RawFile
from streamer.retry import Patience
from writer.layout import check_compatible, common_version
from writer.rawhdf5format import dataset_dtypes, latest_version, to_rawfile

__all__ = [
    "RawData",
    "dataset_dtypes",
    "from_rawfile",
    "latest_version",
    "len_rawfile",
    "to_rawfile",
]

# A file that is being made becomes readable within this.
_OPENING = Patience(attempts=50, seconds=2.0)
# `attempts` bounds the looks, and this the time that they take.
_SYNCHRONIZING_SECONDS = 60.0
# Large enough that a step costs nothing, small enough for the processor's cache.
_STEP_ROWS = 8192


class RawData(TypedDict):
    """What :func:`from_rawfile` returns."""

    created: float
    modified: float
    version: str
    io_version: str | None
    msgs: list[bytes] | None
    msg_headers: dict[str, list[int]]


def len_rawfile(filename: str | os.PathLike[str], attempts: int = 1) -> int:
    """Count the messages of a raw file, also while it is being written.

    Parameters
    ----------
    filename
        The file.
    attempts
        How often to look for equal lengths of both datasets; below 0 until they are
        equal, 0 to take the common length as it is. Files that nobody writes, or a
        :class:`writer.RawWriter`, have no need of it.

    Returns
    -------
    int
        Number of committed messages.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    LayoutError
        If it is not a raw file.
    NotSynchronized
        If the lengths were never equal (a RuntimeError).

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "raw.h5"
    >>> to_rawfile(path, [b"first", b"second"])
    >>> len_rawfile(path)
    2
    """
    with _opened(filename, attempts) as raw:
        return len(raw)


def from_rawfile(
    filename: str | os.PathLike[str],
    start: int | None = None,
    end: int | None = None,
    version: str | None = None,
    io_version: str | None = None,
    msg_headers_only: bool = False,
    mask: ArrayLike | None = None,
    attempts: int = 1,
) -> RawData:
    """Read messages of a raw file, also while it is being written.

    Opens and closes the file. A program that follows a file saves most of the time with
    :func:`streamer.follow` or :class:`streamer.RawFile`.

    Parameters
    ----------
    filename
        The file.
    start, end
        The rows ``[start, end)``, as a slice has them: negative ones count from the end,
        and beyond the end there is nothing.
    version, io_version
        Versions that the file must serve. A file without io_version serves any.
    msg_headers_only
        Whether to leave the messages out.
    mask
        (rows,) bool, instead of `start` and `end`: the rows to read.
    attempts
        As in :func:`len_rawfile`.

    Returns
    -------
    dict
        ``created``, ``modified`` (float, Unix seconds), ``version`` (the smaller minor of
        asked and found), ``io_version`` (or None), ``msgs`` (list of bytes, or None) and
        ``msg_headers`` (field to list of int).

    Raises
    ------
    FileNotFoundError, LayoutError, NotSynchronized
        As :func:`len_rawfile`.
    IncompatibleVersion
        If the file does not serve a version (an AssertionError).
    BadMask
        If the mask is not one bool a row (a ValueError).
    RowUnreadable
        If a message is damaged.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "raw.h5"
    >>> to_rawfile(path, [b"first", b"second"], msg_headers={"io_groups": [1, 2]})
    >>> from_rawfile(path, start=-1)["msgs"]
    [b'second']
    """
    with _opened(filename, attempts) as raw:
        meta = raw.meta
        check_compatible("version", meta.version, version, filename)
        if meta.io_version is not None:
            check_compatible("io_version", meta.io_version, io_version, filename)
        if mask is None:
            rows = range(*slice(start, end).indices(len(raw)))
            chosen = None
        else:
            chosen = _checked_mask(mask, len(raw), filename)
            found = np.flatnonzero(chosen)
            rows = range(int(found[0]), int(found[-1]) + 1) if len(found) else range(0)
        headers = [raw.read_headers(rows.start, rows.start)]
        msgs: list[bytes] = []
        for first in range(rows.start, rows.stop, _STEP_ROWS):
            stop = min(first + _STEP_ROWS, rows.stop)
            part = raw.read_headers(first, stop)
            headers.append(part if chosen is None else part[chosen[first:stop]])
            if not msg_headers_only:
                batch = raw.read(first, stop)
                msgs += (batch if chosen is None else batch.select(chosen[first:stop])).tolist()
        fields = np.concatenate(headers)
        return RawData(
            created=meta.created,
            modified=meta.modified,
            version=common_version(meta.version, version),
            io_version=meta.io_version,
            msgs=None if msg_headers_only else msgs,
            msg_headers={name: fields[name].tolist() for name in fields.dtype.names or ()},
        )


def _opened(filename: str | os.PathLike[str], attempts: int) -> RawFile:
    """Open a file, and look until its lengths agree, where that matters."""
    with Path(filename).open("rb"):  # absent or not accessible: Python's own errors, at once
        pass
    for left in _OPENING.tries():
        try:
            raw = RawFile(filename)
            break
        except NotReady:
            if not left:
                raise
    try:
        _synchronize(raw, attempts)
    except BaseException:
        raw.close()
        raise
    return raw


def _synchronize(raw: RawFile, attempts: int) -> None:
    if attempts == 0:
        return
    limit = Patience(attempts if attempts > 0 else sys.maxsize, _SYNCHRONIZING_SECONDS)
    for left in limit.tries():
        msgs, headers = raw.lengths
        if msgs == headers or raw.still:
            return
        if left:
            raw.look()
    msg = (
        f"{raw.path}: msgs has {msgs} rows and msg_headers {headers}: a batch is being "
        f"written. attempts=0 takes the common length"
    )
    raise NotSynchronized(msg)


def _checked_mask(mask: ArrayLike, rows: int, filename: object) -> NDArray[np.bool_]:
    chosen = np.asarray(mask)
    if not chosen.size:  # an empty list has no type
        chosen = chosen.astype(bool)
    if chosen.dtype != bool or chosen.shape != (rows,):
        msg = (
            f"{filename}: a mask is one bool a row, ({rows},); this one is {chosen.dtype} "
            f"of shape {chosen.shape}"
        )
        raise BadMask(msg)
    return chosen
