"""Errors of writing.

::

    WriterError
    ├── BadBatch             also ValueError: nothing was written; names the message
    │   └── LengthMismatch   also AssertionError: one value a message was expected
    ├── UnknownField         also RuntimeError: no such message header field
    └── CannotWrite          also OSError: the file cannot be opened, continued or extended
        ├── WriterBusy       another writer has the file; waiting helps
        ├── WriterKilled     its writer died; only a copy can be continued
        └── DiskFull         nothing of this batch was written; freeing space helps

That a file is not a raw file at all is a :class:`writer.layout.LayoutError`.
"""

from __future__ import annotations

__all__ = [
    "BadBatch",
    "CannotWrite",
    "DiskFull",
    "LengthMismatch",
    "UnknownField",
    "WriterBusy",
    "WriterError",
    "WriterKilled",
]


class WriterError(Exception):
    """Root of the errors of writing."""


class BadBatch(WriterError, ValueError):
    """Raised when messages or io_groups cannot be stored. Nothing was written."""


class LengthMismatch(BadBatch, AssertionError):
    """Raised when there is not one value for each message. Nothing was written."""


class UnknownField(WriterError, RuntimeError):
    """Raised when the file has no such message header field. Nothing was written."""


class CannotWrite(WriterError, OSError):
    """Raised when a file cannot be opened, continued or extended."""


class WriterBusy(CannotWrite):
    """Raised when another writer has the file. It is as it was; trying again later helps."""


class WriterKilled(CannotWrite):
    """Raised when the file was left by a writer that died. It is as it was.

    HDF5 would cut such a file to the length that its superblock remembers, and with it
    all that came later. Readers of this project read all of it as it stands, and
    ``streamer recover FILE OUT`` makes a copy that anybody can read and continue.
    """


class DiskFull(CannotWrite):
    """Raised before a batch is written for which there is no room. The file is as it was."""
