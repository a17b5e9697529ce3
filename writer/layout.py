"""The LArPix raw HDF5 format 0.0: names, types, versions and their rule.

====================  =====================================================================
``meta``              group; attributes ``created`` and ``modified`` (float, Unix seconds),
                      ``version`` and, optionally, ``io_version`` (str)
``msgs``              (N,) variable-length u1: one PACMAN message a row
``msg_headers``       (N,) compound; field ``io_groups`` (u1): the PACMAN card of the row
====================  =====================================================================

Source: larpix-control, ``larpix.format.rawhdf5format``. Whatever else a file holds is
ignored. Files made here carry three more attributes in ``meta``: ``run_id`` (str),
``writer`` (str) and ``finished`` (int): the number of rows once a :class:`writer.RawWriter`
has ended the run; -1 while one has the file, or when it was killed; -2 when one has closed
the file and the run goes on.
"""

from __future__ import annotations

import re
import time
import uuid
from typing import Any, NamedTuple

import h5py
import numpy as np

__all__ = [
    "IO_GROUPS",
    "META",
    "MSGS",
    "MSG_HEADERS",
    "PAUSED",
    "UNREADABLE",
    "WRITING",
    "IncompatibleVersion",
    "Layout",
    "LayoutError",
    "Meta",
    "check_compatible",
    "check_creatable",
    "common_version",
    "create_layout",
    "dataset_dtypes",
    "find_layout",
    "latest_version",
    "read_meta",
    "read_versions",
]

META, MSGS, MSG_HEADERS, IO_GROUPS = "meta", "msgs", "msg_headers", "io_groups"
WRITING, PAUSED = -1, -2

#: Stands for a text that is damaged, where that is no error.
UNREADABLE = "unreadable"

#: Most recent version of the format.
latest_version = "0.0"

#: The dtype of each dataset, by version: those that can be created.
dataset_dtypes: dict[str, dict[str, np.dtype[Any]]] = {
    "0.0": {
        MSGS: h5py.vlen_dtype(np.dtype("u1")),
        MSG_HEADERS: np.dtype([(IO_GROUPS, "u1")]),
    }
}

# As h5py chooses for the stock writer: 16 KiB of references, 1 KiB of headers. The last
# chunk is written again with every batch, so larger ones slow small batches down.
_CHUNK_ROWS = 1024


class LayoutError(Exception):
    """Raised when a file is not a LArPix raw HDF5 file. Waiting does not help."""


class IncompatibleVersion(LayoutError, AssertionError):
    """Raised when a version that was asked for does not go with that of the file."""


class Meta(NamedTuple):
    """What a raw file says of itself."""

    #: Unix time in seconds at which the file was made, and at which it was last written to.
    created: float
    modified: float
    version: str
    #: Version of the messages' bytes, such as ``"0.0"``; any text, or none.
    io_version: str | None
    #: Only in files made by this project: a UUID, the writer's name, and the mark of the
    #: end: the number of rows, `WRITING` or `PAUSED`.
    run_id: str | None = None
    writer: str | None = None
    finished: int | None = None


def _numbers(version: str) -> tuple[int, int] | None:
    match = re.fullmatch(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else None


def check_compatible(what: str, found: str | None, requested: str | None, path: object) -> None:
    """Raise unless the version of a file is compatible with a requested one.

    It is if the majors are equal and the file's minor is not the smaller one, compared as
    numbers: 0.10 is newer than 0.9. A version that is not two numbers is compatible only
    with the very same text.

    Parameters
    ----------
    what
        ``"version"`` or ``"io_version"``, for the error.
    found, requested
        The file's version and the one asked for; None asks for nothing.
    path
        The file, for the error.

    Raises
    ------
    IncompatibleVersion
        If they do not go together.

    Examples
    --------
    >>> check_compatible("version", "0.10", "0.9", "raw.h5")
    """
    if requested is None or found == requested:
        return
    if found is not None:
        has, wants = _numbers(found), _numbers(requested)
        if has and wants and has[0] == wants[0] and has[1] >= wants[1]:
            return
    msg = f"{path}: its {what} is {found or 'not stated'}, not compatible with {requested!r}"
    raise IncompatibleVersion(msg)


def common_version(found: str, requested: str | None) -> str:
    """Return the version with the smaller minor of the file's and the one asked for.

    Examples
    --------
    >>> common_version("0.10", "0.9")
    '0.9'
    """
    has = _numbers(found)
    wants = _numbers(requested) if requested is not None else None
    if has is None or wants is None:
        return found
    return f"{has[0]}.{min(has[1], wants[1])}"


def check_creatable(version: str | None) -> str:
    """Return the version to create a file with, the latest for None.

    Raises
    ------
    IncompatibleVersion
        If this software does not know the version; names those it does.
    """
    if version is None:
        return latest_version
    if version not in dataset_dtypes:
        msg = f"cannot create version {version!r}; known: {', '.join(dataset_dtypes)}"
        raise IncompatibleVersion(msg)
    return version


def create_layout(file: h5py.File, version: str, io_version: str | None, writer: str) -> None:
    """Make the group and the datasets of an empty raw file.

    Parameters
    ----------
    file
        An empty HDF5 file, open for writing.
    version
        A key of `dataset_dtypes`.
    io_version
        Version of the messages' bytes, or None.
    writer
        Name of the software.
    """
    now = time.time()
    attributes = file.create_group(META).attrs
    attributes["created"] = now
    attributes["modified"] = now
    attributes["version"] = version
    if io_version is not None:
        attributes["io_version"] = io_version
    # SWMR allows no new attributes later, so the mark of the end is made here.
    attributes["run_id"] = str(uuid.uuid4())
    attributes["writer"] = writer
    attributes["finished"] = np.int64(WRITING)
    for name, dtype in dataset_dtypes[version].items():
        # No gzip: it would compress the 16-byte references to messages, never a message.
        file.create_dataset(name, shape=(0,), maxshape=(None,), chunks=(_CHUNK_ROWS,), dtype=dtype)


class Layout(NamedTuple):
    """The objects of an open raw file."""

    meta: h5py.Group
    msgs: h5py.Dataset
    msg_headers: h5py.Dataset


def find_layout(file: h5py.File, path: object) -> Layout:
    """Find what a raw file has in an open HDF5 file.

    Raises
    ------
    LayoutError
        Names the first thing that is missing or of another kind.
    """
    found = []
    for name, kind in ((META, h5py.Group), (MSGS, h5py.Dataset), (MSG_HEADERS, h5py.Dataset)):
        thing = file.get(name)
        if not isinstance(thing, kind):
            msg = f"{path}: not a LArPix raw file: no {kind.__name__.lower()} {name!r}"
            raise LayoutError(msg)
        found.append(thing)
    layout = Layout(*found)
    if layout.msgs.ndim != 1 or h5py.check_vlen_dtype(layout.msgs.dtype) != np.dtype("u1"):
        msg = f"{path}: not a LArPix raw file: {MSGS!r} is not a column of variable-length u1"
        raise LayoutError(msg)
    headers = layout.msg_headers
    if headers.ndim != 1 or IO_GROUPS not in (headers.dtype.names or ()):
        msg = f"{path}: not a LArPix raw file: {MSG_HEADERS!r} has no field {IO_GROUPS!r}"
        raise LayoutError(msg)
    return layout


def _text(meta: h5py.Group, name: str, *, lenient: bool) -> str | None:
    try:
        value = meta.attrs.get(name)
    except OSError:
        # Texts lie in the heap with the first messages, and are damaged with them.
        if lenient:
            return UNREADABLE
        raise
    if value is None:
        return None
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def read_versions(
    meta: h5py.Group, path: object, *, lenient: bool = False
) -> tuple[str, str | None]:
    """Read the version of the format, and that of the messages' bytes if it is stated.

    Parameters
    ----------
    meta
        The group.
    path
        The file, for the error.
    lenient
        Whether a text that is damaged is `UNREADABLE`, and no error.

    Raises
    ------
    LayoutError
        If the former is missing.
    """
    version = _text(meta, "version", lenient=lenient)
    if version is None:
        msg = f"{path}: not a LArPix raw file: {META!r} has no attribute 'version'"
        raise LayoutError(msg)
    return version, _text(meta, "io_version", lenient=lenient)


def read_meta(meta: h5py.Group, path: object, *, lenient: bool = False) -> Meta:
    """Read what a raw file says of itself.

    Parameters
    ----------
    meta, path, lenient
        As in :func:`read_versions`.

    Raises
    ------
    LayoutError
        If an attribute that every raw file has is missing or of another type.
    """
    attributes = meta.attrs
    try:
        version, io_version = read_versions(meta, path, lenient=lenient)
        finished = attributes.get("finished")
        return Meta(
            created=float(attributes["created"]),
            modified=float(attributes.get("modified", attributes["created"])),
            version=version,
            io_version=io_version,
            run_id=_text(meta, "run_id", lenient=lenient),
            writer=_text(meta, "writer", lenient=lenient),
            finished=None if finished is None else int(finished),
        )
    except (KeyError, TypeError, ValueError) as error:
        msg = f"{path}: not a LArPix raw file: attributes of {META!r}: {error}"
        raise LayoutError(msg) from error
