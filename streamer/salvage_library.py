"""Rows of a damaged file that is not the plain case: through h5py, which reads all or nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.left import DAMAGED, HEADERLESS, UNWRITTEN, Window, runs_of
from streamer.library import LibraryRows
from streamer.opening import TRANSIENT
from writer.columns import placed_column
from writer.layout import IO_GROUPS

__all__ = ["LibrarySalvage"]

_ALL_BYTES = 2**62
_ROWS_AT_ONCE = 4096


class LibrarySalvage:
    """The rows of a file that nobody writes, through h5py.

    A range that cannot be read is halved, down to the rows that cannot. h5py refuses a heap
    collection of which a part is damaged, so all of its rows are lost. HDF5 1.14 and 2.0
    can stay for ever in a heap that is damaged in certain ways; nothing here can prevent it.

    Parameters
    ----------
    rows
        The same, as it was opened; closed with this object.
    lengths
        Rows of ``msgs`` and of ``msg_headers``.
    trusted
        Whether all that is announced has been written, so that what looks blank is so.
    """

    def __init__(self, rows: LibraryRows, lengths: tuple[int, int], *, trusted: bool) -> None:
        self._rows = rows
        self._lengths = lengths
        self._trusted = trusted
        self._written: int | None = None
        #: What HDF5 said of the first rows that it could not read.
        self.complaint: str | None = None
        #: Whether HDF5 would not read a message of those that were read.
        self.damaged = False

    def until(self, start: int, stop: int) -> int:
        """Return up to which row from `start` on to read at a time, at the most to `stop`."""
        return min(stop, start + _ROWS_AT_ONCE)

    def read(self, start: int, stop: int) -> Window:
        """Read what can be read of the rows ``[start, stop)`` of ``msgs``."""
        there = max(start, min(stop, min(self._lengths)))
        causes = np.zeros(stop - start, object)
        causes[there - start :] = HEADERLESS
        messages: list[NDArray[np.uint8]] = []
        headers: list[NDArray[Any]] = []
        for first, last, found in self._halved(start, there):
            if found is None:
                causes[first - start : last - start] = DAMAGED
                continue
            messages += found[0]
            headers.append(found[1])
        kept = np.flatnonzero(causes == 0)
        empty = np.array([not len(message) for message in messages], bool)
        if not self._trusted and empty.any():
            unwritten = empty & (np.concatenate(headers)[IO_GROUPS] == 0)
            unwritten |= empty & (start + kept >= self._last_written)
            causes[kept[unwritten]] = UNWRITTEN
            messages = [messages[k] for k in np.flatnonzero(~unwritten)]
            headers = [np.concatenate(headers)[~unwritten]]
        rows = start + np.flatnonzero(causes == 0)
        joined = np.concatenate(headers) if headers else np.empty(0, [(IO_GROUPS, "u1")])
        lengths = np.array([len(message) for message in messages], np.int64)
        buffer = np.concatenate([np.empty(0, np.uint8), *messages])
        column = placed_column(buffer, np.cumsum(lengths) - lengths, lengths)
        return Window(rows, column, joined, runs_of(start, causes), [])

    def check(self, start: int, stop: int) -> None:
        """Do nothing: HDF5 has read these rows."""

    def _halved(
        self, start: int, stop: int
    ) -> list[tuple[int, int, tuple[list[NDArray[np.uint8]], NDArray[Any]] | None]]:
        if start >= stop:
            return []
        try:
            return [(start, stop, self._load(start, stop))]
        except (*TRANSIENT, MemoryError) as error:
            self.complaint = self.complaint or str(error)
            if stop - start == 1:
                return [(start, stop, None)]
        middle = (start + stop) // 2
        return self._halved(start, middle) + self._halved(middle, stop)

    def _load(self, start: int, stop: int) -> tuple[list[NDArray[np.uint8]], NDArray[Any]]:
        loaded = self._rows.load(start, stop, stop, None, _ALL_BYTES)
        buffer, starts, lengths, _ = loaded.payloads
        ends = (starts + lengths).tolist()
        messages = [buffer[low:high] for low, high in zip(starts.tolist(), ends, strict=True)]
        return messages, self._rows.headers(start, stop)

    @property
    def _last_written(self) -> int:
        """The row behind the last that has a message."""
        if self._written is None:
            self._written = row = min(self._lengths)
            while row > 0:
                start = max(0, row - 1024)
                found = [part for part in self._halved(start, row) if part[2] is not None]
                filled = [
                    first + k
                    for first, _, part in found
                    for k, message in enumerate(part[0] if part else [])
                    if len(message)
                ]
                if filled or not start:
                    self._written = filled[-1] + 1 if filled else 0
                    break
                row = start
        return self._written

    def close(self) -> None:
        """Close the file."""
        self._rows.close()
