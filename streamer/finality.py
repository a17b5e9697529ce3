"""Which of the announced rows are as they will stay: HDF5 announces some that are unwritten."""

from __future__ import annotations

import time
from functools import partial

import numpy as np
from numpy.typing import NDArray

from streamer.source import Source
from writer.layout import WRITING
from writer.lock import is_locked

__all__ = ["ALL_BYTES", "STEP_ROWS", "Finality"]

#: More bytes than a file has.
ALL_BYTES = 2**62
#: Rows looked at together at the end of a file, to find the last that is written.
STEP_ROWS = 1024
# Of rows that look written, so many are tried.
_PROOFS = 16
# Files of the oldest formats do not say whether they are closed: after so long they are.
_OLD_FORMAT_SECONDS = 10.0


class Finality:
    """What is known to be final in one open file.

    Parameters
    ----------
    source
        The file.
    late_seconds
        How much later than others a page of the file may be seen, in seconds.

    Attributes
    ----------
    below : int
        All rows before this one are as they will stay, blank ones too.
    """

    def __init__(self, source: Source, late_seconds: float) -> None:
        self._source = source
        self._late_seconds = late_seconds
        self.below = 0
        self._doubted: int | None = None
        self._doubted_since = 0.0

    def is_final(self, row: int) -> bool:
        """Tell whether a row will stay as it is: trying again does not help."""
        # While somebody writes, also a chunk of old rows may be in the middle of a change.
        return row < self.below and self._source.closed

    def is_settled(self) -> bool:
        """Tell whether all announced rows are on disk as they will stay.

        They are if nobody writes the file now, or somebody who announces only what is on
        disk; for earlier writers have closed the file then.
        """
        superblock = self._source.superblock
        if superblock is None or superblock.cut:
            return False
        if is_locked(self._source.fd):
            return True
        # Where pages may come late, the one that says so may come before the others.
        if self._late_seconds and self._source.age <= self._late_seconds:
            return False
        if superblock.closed:
            return True
        if superblock.version < 3:
            return self._source.age > _OLD_FORMAT_SECONDS
        return self._announces_written_only()

    def settle(self, row: int, announced: int) -> bool:
        """Find out whether a row that looks unwritten, or half written, will stay so.

        Parameters
        ----------
        row
            The row.
        announced
            Number of rows that are announced now.
        """
        if row < self.below:
            return False
        if self.is_settled():
            self._make_final(announced)
            return True
        if self._doubted is None:
            self._doubted, self._doubted_since = announced, time.monotonic()
            return False
        if time.monotonic() - self._doubted_since < self._late_seconds:
            return False
        # A writer fills rows in the order in which it announces them, and flushes them so:
        # once rows are there that were announced later, the earlier ones are complete.
        if not self._any_written(self._doubted, min(announced, self._doubted + STEP_ROWS)):
            superblock = self._source.superblock
            if superblock is None or superblock.cut or not superblock.closed:
                return False
        self._make_final(self._doubted)
        self._doubted = None
        return row < self.below

    def was_left_at(self, row: int, announced: int) -> bool:
        """Tell whether announced rows from this one on were never written.

        Parameters
        ----------
        row, announced
            As :meth:`settle`.
        """
        if self._source.closed or self._announces_written_only():
            return row >= announced
        return not self._any_written(row, announced)

    def _announces_written_only(self) -> bool:
        """Tell whether its writer is, or was when it was killed, a RawWriter."""
        # On any host: no other writer opens a file that has this mark.
        marked = self._source.known.finished is not None
        return marked and self._source.meta.finished == WRITING

    def _make_final(self, rows: int) -> None:
        # What was looked up before this was known may be older.
        self._source.retrying(lambda: self._source.rows.refresh())
        self.below = rows

    def _any_written(self, start: int, stop: int) -> bool:
        """Tell whether any of these rows is neither empty nor of io_group 0, and is there."""
        source = self._source

        def filled_rows(first: int, stop: int) -> NDArray[np.int64]:
            return source.rows.filled(first, stop)

        def is_written(row: int) -> bool:
            return source.rows.load(row, row + 1, 0, None, ALL_BYTES).stop > row

        # From the end: behind a damaged page there are good ones.
        while start < stop:
            first = max(start, (stop - 1) // STEP_ROWS * STEP_ROWS)
            filled = source.retrying(partial(filled_rows, first, stop))
            # All over the step: they lie in several collections, of which one may be damaged.
            for row in filled[:: -(-len(filled) // _PROOFS) or 1].tolist():
                if source.retrying(partial(is_written, row)):
                    return True
            stop = first
        return False
