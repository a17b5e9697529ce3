"""The chunks of a dataset of a live file, read past the library's caches."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from h5py import h5d, h5z
from h5py._objects import phil
from numpy.typing import NDArray

__all__ = ["FILTERS", "Column", "TornChunk"]


class TornChunk(Exception):
    """Raised when a chunk was read while it was being written. Reading again helps."""


class Column:
    """A one-dimensional chunked dataset, read past the library's chunk cache.

    Parameters
    ----------
    dataset
        The dataset.
    dtype
        Of its rows in the file.
    fd
        Descriptor of the file, open for reading.
    """

    def __init__(self, dataset: h5d.DatasetID, dtype: np.dtype[Any], fd: int) -> None:
        self.dataset = dataset
        self._dtype = dtype
        self._fd = fd
        plan = dataset.get_create_plist()
        self._rows: int = plan.get_chunk()[0]
        # In the order in which they are undone.
        self._filters = [plan.get_filter(k)[0] for k in range(plan.get_nfilters())][::-1]
        # The last chunk undone: consecutive ranges meet in the middle of one.
        self._last: tuple[int, bytes, bytes] | None = None
        # A chunk that is not filtered, and where it is: HDF5 does not move it.
        self._placed: tuple[int, int] = (-1, 0)

    def holds(self, row: int) -> bool:
        """Tell whether the chunk of a row can be read without asking HDF5 where it is."""
        first: int = row // self._rows * self._rows
        if first != self._placed[0] and not self._filters and row >= 0:
            if int(self.dataset.shape[0]) <= first:
                return False
            place = self.dataset.get_chunk_info_by_coord((first,)).byte_offset
            if place is not None:
                self._placed = first, place
        return first == self._placed[0]

    def read(self, start: int, stop: int) -> tuple[NDArray[Any], str | None]:
        """Return the rows ``[start, stop)``, zeros where nothing has been written.

        They end before the first chunk that cannot be read; then also say why.
        """
        chunks = range(start // self._rows * self._rows, stop, self._rows)
        parts, cause = [], None
        for first in chunks:
            try:
                parts.append(self._chunk(first))
            except (OSError, RuntimeError, KeyError, ValueError, TornChunk) as error:
                if not self.dataset.valid:  # another reader has closed the handle
                    raise
                cause = f"the chunk of rows {first} to {first + self._rows - 1}: {error}"
                break
        rows = np.frombuffer(b"".join(parts), self._dtype)
        return rows[start - chunks.start : stop - chunks.start], cause

    def _chunk(self, first: int) -> bytes:
        if first == self._placed[0]:
            size = self._rows * self._dtype.itemsize
            stored = os.pread(self._fd, size, self._placed[1])
            if len(stored) == size:
                return stored
        try:
            with phil:  # the lock of h5py, which 3.14 forgets here: another thread crashes it
                skipped, stored = self.dataset.read_direct_chunk((first,))
        except (OSError, RuntimeError, ValueError, MemoryError):
            # Of a chunk that is not there h5py may ask any size, and for memory to hold it.
            if self.dataset.get_chunk_info_by_coord((first,)).byte_offset is None:
                return bytes(self._rows * self._dtype.itemsize)
            raise
        if not self._filters:
            return bytes(stored)
        if self._last is not None and self._last[:2] == (first, stored):
            return self._last[2]
        rows = self._undone(stored, skipped)
        self._last = first, stored, rows
        return rows

    def _undone(self, stored: bytes, skipped: int) -> bytes:
        size = self._rows * self._dtype.itemsize
        for number, kind in enumerate(self._filters):
            if skipped >> (len(self._filters) - 1 - number) & 1:
                continue
            try:
                stored = FILTERS[kind](stored, self._dtype.itemsize)
            except (zlib.error, ValueError) as error:
                raise TornChunk(str(error)) from error
        if len(stored) != size:
            msg = f"{len(stored)} bytes in a chunk of {size}"
            raise TornChunk(msg)
        return stored


def _unshuffled(stored: bytes, itemsize: int) -> bytes:
    # The remainder of a chunk that is no whole number of items is stored as it is.
    whole = len(stored) // itemsize * itemsize
    planes = np.frombuffer(stored[:whole], np.uint8).reshape(itemsize, -1)
    return planes.T.tobytes() + stored[whole:]


def _checked(stored: bytes, itemsize: int) -> bytes:
    """Check and remove the Fletcher checksum, as H5_checksum_fletcher32 makes it."""
    data, found = stored[:-4], int.from_bytes(stored[-4:], "little")
    words = np.frombuffer(data + b"\0" * (len(data) % 2), ">u2").astype(np.uint64)
    weights = np.arange(len(words), 0, -1, dtype=np.uint64)
    # One's complement sums: 0 and 65535 are the same.
    low = int(words.sum()) % 65535
    high = int((words * weights % 65535).sum()) % 65535
    if (found & 0xFFFF) % 65535 != low or (found >> 16) % 65535 != high:
        msg = "checksum of a chunk does not fit"
        raise ValueError(msg)
    return data


#: The filters that can be undone here, and how.
FILTERS: dict[int, Callable[[bytes, int], bytes]] = {
    h5z.FILTER_DEFLATE: lambda stored, _: zlib.decompress(stored),
    h5z.FILTER_SHUFFLE: _unshuffled,
    h5z.FILTER_FLETCHER32: _checked,
}
