"""Errors of reading.

::

    StreamError
    ├── NotReady         absent, or not a readable raw file yet; waiting helps
    ├── RowUnreadable    announced by both lengths, but unreadable; names row and cause
    ├── RowsOutOfRange   also IndexError: the file has no such rows
    ├── NotSynchronized  also RuntimeError: the datasets' lengths differ; waiting helps
    ├── BadMask          also ValueError: not one bool a row
    ├── WriterStalled    also TimeoutError: no new row for as long as was allowed
    ├── FileReplaced     the file is another one now; start again
    ├── GeometryError    also ValueError: pixel positions that are wrong, or asked for wrongly
    ├── PedestalError    also ValueError: a file of pedestals that is wrong
    └── CheckpointError  a stored position is damaged, or cannot be stored

    LayoutError              not this format; waiting does not help  (writer.layout)
    └── IncompatibleVersion  also AssertionError
"""

from __future__ import annotations

import os

from writer.layout import IncompatibleVersion, LayoutError

__all__ = [
    "CheckpointError",
    "FileReplaced",
    "GeometryError",
    "IncompatibleVersion",
    "LayoutError",
    "BadMask",
    "NotReady",
    "NotSynchronized",
    "RowUnreadable",
    "RowsOutOfRange",
    "PedestalError",
    "StreamError",
    "WriterStalled",
]


class StreamError(Exception):
    """Root of the errors of reading."""


class NotReady(StreamError):
    """Raised when a file is absent, or not a readable raw file yet. Waiting helps."""


class RowUnreadable(StreamError):
    """Raised when a row that both datasets announce cannot be read.

    The rows before it are not affected. Waiting helps if the writer is alive but slow.

    Attributes
    ----------
    path : str
        The file.
    row : int
        The first row that cannot be read.
    cause : str
        What is wrong with it.
    """

    def __init__(self, path: str | os.PathLike[str], row: int, cause: str) -> None:
        advice = f"Rows from {row + 1} on may be right; 'streamer recover' copies all that are"
        super().__init__(f"{os.fspath(path)}: row {row} cannot be read: {cause}. {advice}")
        self.path = os.fspath(path)
        self.row = row
        self.cause = cause


class RowsOutOfRange(StreamError, IndexError):
    """Raised when rows are asked for that the file does not have."""


class NotSynchronized(StreamError, RuntimeError):
    """Raised when the lengths of the datasets were not equal in as many looks as allowed."""


class BadMask(StreamError, ValueError):
    """Raised when a mask is not one bool a row."""


class WriterStalled(StreamError, TimeoutError):
    """Raised when no new row came for as long as was allowed. Asking again goes on."""


class FileReplaced(StreamError):
    """Raised when the name belongs to another file now, or the file was started again.

    Attributes
    ----------
    drained : bool
        Whether all rows of the file that was followed had been given.
    """

    def __init__(self, message: str, *, drained: bool = False) -> None:
        super().__init__(message)
        self.drained = drained


class GeometryError(StreamError, ValueError):
    """Raised when a file of pixel positions is wrong, or an argument of a lookup is."""


class PedestalError(StreamError, ValueError):
    """Raised when a file of pedestals cannot be read, or is wrong; names the file and key."""


class CheckpointError(StreamError):
    """Raised when a stored position is damaged beyond use, or cannot be stored."""
