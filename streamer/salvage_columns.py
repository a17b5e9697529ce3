"""The two columns of a damaged file, piece by piece: past those that HDF5 cannot read."""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.direct import DirectRows
from streamer.heap_format import PAGE_BYTES
from streamer.left import HEADERLESS, UNREADABLE_REFERENCES, Left, mask_of
from writer.layout import IO_GROUPS

__all__ = ["SalvageColumns"]


class SalvageColumns(DirectRows):
    """References and header rows of an open file that nobody writes.

    Parameters
    ----------
    rows
        The same, as it was opened. Not to be used, nor closed, any more.
    lengths
        Rows of ``msgs`` and of ``msg_headers``.
    trusted
        Whether all that is announced has been written, so that what looks blank is so.
    """

    def __init__(self, rows: DirectRows, lengths: tuple[int, int], *, trusted: bool) -> None:
        vars(self).update(vars(rows))
        self._lengths = lengths
        self._trusted = trusted
        #: What HDF5 said of the first piece that it could not read.
        self.complaint: str | None = None
        # The first rows of pieces that cannot be read, of each column.
        self._bad: dict[int, set[int]] = {}

    def _pieces(self, column: Any, start: int, stop: int) -> tuple[NDArray[Any], list[Left]]:
        """Read rows of a column, zeros where it cannot be read; and say where that is."""
        step = column.dataset.get_create_plist().get_chunk()[0]
        parts: list[NDArray[Any]] = [column.read(0, 0)[0]]
        lost = []
        row, all_at_once = start, True
        bad = self._bad.setdefault(id(column), set())
        while row < stop:
            first = row // step * step
            end = min(stop, first + step)
            if first not in bad:
                ends = range(first + step, stop, step) if all_at_once else [end]
                upto = next((other for other in ends if other in bad or not all_at_once), stop)
                try:
                    part, cause = column.read(row, upto)
                except MemoryError as error:  # a damaged size, of one of the pieces
                    if all_at_once:
                        all_at_once = False
                        continue
                    part, cause = parts[0], str(error)
                parts.append(part)
                row += len(part)
                if cause is None:
                    continue
                self.complaint = self.complaint or cause
                first = row // step * step
                end = min(stop, first + step)
                # HDF5 tries for milliseconds.
                bad.add(first)
            lost.append(Left(row, end, UNREADABLE_REFERENCES))
            parts.append(np.zeros(end - row, parts[0].dtype))
            row = end
        return np.concatenate(parts), lost

    def _references(self, start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        refs, lost = self._pieces(self._msgs, start, stop)
        return refs, mask_of(lost, start, stop)

    def _known_headers(self, start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read headers; tell also which are not known."""
        there = max(start, min(stop, self._lengths[1]))
        headers, lost = self._pieces(self._headers, start, there)
        headers = np.concatenate([headers, np.zeros(stop - there, headers.dtype)])
        unknown = mask_of([*lost, Left(there, stop, HEADERLESS)], start, stop)
        zero = ~unknown & (headers[IO_GROUPS] == 0)
        if zero.any():
            rows = start + np.flatnonzero(zero)
            absent, in_zeros = self._in_zeros(self._headers, rows)
            blank = absent
            if self._last_group:
                blank = absent | in_zeros
                blank |= (rows >= self._last_group) & (not self._trusted)
            unknown[rows[blank] - start] = True
        return headers, unknown

    @cached_property
    def _last_group(self) -> int:
        """The row behind the last of an io_group that is not 0; 0 if there is none."""
        return self._last(self._headers, self._lengths[1], IO_GROUPS)

    @cached_property
    def _last_written(self) -> int:
        """The row behind the last that has a message."""
        return self._last(self._msgs, self._lengths[0], "address")

    def _last(self, column: Any, stop: int, field: str) -> int:
        step = 64 * 1024
        while stop > 0:
            start = max(0, stop - 1) // step * step
            values = self._pieces(column, start, stop)[0][field]
            if values.any():
                return start + int(np.flatnonzero(values)[-1]) + 1
            stop = start
        return 0

    def _in_zeros(
        self, column: Any, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Tell which of some blank rows are not in the file, and which in a page of zeros."""
        absent, zeros = np.zeros((2, len(rows)), bool)
        plan = column.dataset.get_create_plist()
        step, itemsize = plan.get_chunk()[0], column.read(0, 0)[0].dtype.itemsize
        for first in np.unique(rows // step * step).tolist():
            here = rows // step * step == first
            try:
                offset = column.dataset.get_chunk_info_by_coord((first,)).byte_offset
            except (OSError, RuntimeError, ValueError):
                offset = None
            if offset is None:
                absent[here] = True
            elif not plan.get_nfilters():  # pages of the others have checksums
                places = offset + (rows[here] - first) * itemsize
                absent[here] = places + itemsize > os.fstat(self._fd).st_size
                pages = places // PAGE_BYTES
                blank = [page for page in np.unique(pages).tolist() if self._is_zero(page)]
                zeros[here] = np.isin(pages, blank)
        return absent, zeros

    def _is_zero(self, page: int) -> bool:
        return not any(os.pread(self._fd, PAGE_BYTES, page * PAGE_BYTES))
