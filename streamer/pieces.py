"""Messages that were found one way and another: which buffer each lies in, and where."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from writer.columns import MessageColumn, pointed_column

__all__ = ["Pieces"]


class Pieces:
    """So many messages, each in one of several buffers; at first all empty.

    Parameters
    ----------
    count
        How many.

    Examples
    --------
    >>> pieces = Pieces(3)
    >>> pieces.put(np.array([0, 2]), np.frombuffer(b"onethree", "u1"), [0, 3], [3, 5])
    >>> pieces[2].tobytes()
    b'three'
    >>> pieces.column(np.array([0, 1, 2])).size
    8
    """

    def __init__(self, count: int) -> None:
        self._buffers = [np.empty(0, np.uint8)]
        self._of = np.zeros(count, np.int64)
        self._starts, self._lengths = np.zeros((2, count), np.int64)

    def put(
        self,
        numbers: NDArray[np.integer] | int,
        buffer: NDArray[np.uint8],
        starts: ArrayLike,
        lengths: ArrayLike,
    ) -> None:
        """Say of some messages that they lie in this buffer, and where."""
        self._of[numbers] = len(self._buffers)
        self._starts[numbers], self._lengths[numbers] = starts, lengths
        self._buffers.append(buffer)

    def __getitem__(self, number: int) -> NDArray[np.uint8]:
        buffer, start = self._buffers[int(self._of[number])], int(self._starts[number])
        return buffer[start : start + int(self._lengths[number])]

    def column(self, numbers: NDArray[np.integer]) -> MessageColumn:
        """Return some of them, for a writer."""
        bases = np.array([buffer.ctypes.data for buffer in self._buffers], np.uintp)
        addresses = bases[self._of[numbers]] + self._starts[numbers].astype(np.uintp)
        return pointed_column(addresses, self._lengths[numbers], self._buffers)
