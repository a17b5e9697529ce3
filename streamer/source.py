"""An open raw file as it stands: its descriptor, its rows, and how they are opened again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from streamer.direct import DirectRows
from streamer.errors import NotReady, StreamError
from streamer.library import LibraryRows
from streamer.opening import TRANSIENT, open_descriptor, open_rows, read_meta_anew
from streamer.retry import Patience
from writer.layout import Meta
from writer.superblock import Superblock, read_superblock

__all__ = ["Source"]

Result = TypeVar("Result")


class Source:
    """The descriptor and the rows of one file, whatever becomes of its name.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    NotReady, LayoutError
        As :func:`streamer.opening.open_descriptor` and :func:`streamer.opening.open_rows`.
    """

    #: How long to try again what fails while somebody is in the middle of a change.
    PATIENCE = Patience(attempts=100, seconds=2.0)

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: DirectRows | LibraryRows | None = None
        self._known: Meta | None = None
        self._fd = open_descriptor(path)
        try:
            self._open()
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):  # of a file server, for one
                raise self.not_readable(error) from error
            raise

    @property
    def fd(self) -> int:
        """The descriptor, open for reading."""
        if self._fd < 0:
            msg = f"{self.path}: this RawFile is closed"
            raise StreamError(msg)
        return self._fd

    @property
    def rows(self) -> DirectRows | LibraryRows:
        """The rows, opened again if the last attempt to do so has failed."""
        return self._rows or self._open()

    @property
    def known(self) -> Meta:
        """What the file said of itself when it was opened, also while it cannot be read."""
        assert self._known is not None
        return self._known

    @property
    def meta(self) -> Meta:
        """What the file says of itself now; read anew, in about a millisecond."""
        return read_meta_anew(self.fd, self.path) or self.known

    @property
    def is_open(self) -> bool:
        """Whether the rows are open at present."""
        return self._rows is not None

    @property
    def superblock(self) -> Superblock | None:
        """What the file's first bytes say now; None if they are no superblock."""
        return read_superblock(self.fd)

    @property
    def closed(self) -> bool:
        """Whether nobody has it open for writing, as far as its mark says."""
        superblock = self.superblock
        return superblock is not None and superblock.closed

    @property
    def age(self) -> float:
        """Seconds since the file was last written, by the file system's clock."""
        return time.time() - os.fstat(self.fd).st_mtime

    def retrying(self, call: Callable[[], Result]) -> Result:
        """Call something that reads, again and with new handles if it meets a change.

        Raises
        ------
        NotReady
            If it fails for too long.
        """
        for left in self.PATIENCE.tries():
            try:
                return call()
            except TRANSIENT as error:
                if not left:
                    raise self.not_readable(error) from error
            # The error may have come from a handle that is spoilt.
            self.spoil()
            self._open()
        raise AssertionError  # the last try returns or raises

    def _open(self) -> DirectRows | LibraryRows:
        rows = self._rows = open_rows(self.fd, self.path)
        # If it was started again meanwhile, what is known is of the run that was opened first.
        if self._known is None or rows.meta.created == self._known.created:
            self._known = rows.meta
        return rows

    def spoil(self) -> None:
        """Close the rows and their handle, for all that share it; they are opened again."""
        rows, self._rows = self.rows, None
        rows.close(spoilt=True)

    def not_readable(self, error: Exception) -> NotReady:
        """Return our error for one of the library or of the file system."""
        return NotReady(f"{self.path}: cannot be read at present: {error}")

    def close(self) -> None:
        """Close the file. Idempotent."""
        rows, self._rows = self._rows, None
        if rows is not None:
            rows.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
