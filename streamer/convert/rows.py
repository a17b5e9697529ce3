"""Rows that come in any number, and go on in blocks of always the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Blocks"]


class Blocks:
    r"""Makes blocks of the same number of rows of what comes.

    Parameters
    ----------
    dtype
        Of a row.
    size
        Rows in a block.
    tail
        What :meth:`tail` returned of others, to go on from there.

    Examples
    --------
    >>> blocks = Blocks(np.dtype("u1"), 3)
    >>> [block.tolist() for block in blocks.take(np.array([1, 2], "u1"))]
    []
    >>> [block.tolist() for block in blocks.take(np.array([3, 4, 5, 6, 7], "u1"))]
    [[1, 2, 3], [4, 5, 6]]
    >>> blocks.tail(), blocks.rest()
    (b'\x07', array([7], dtype=uint8))
    """

    def __init__(self, dtype: np.dtype[Any], size: int, tail: bytes = b"") -> None:
        self._held = np.empty(size, dtype)
        self._count = len(tail) // dtype.itemsize
        self._held[: self._count] = np.frombuffer(tail, dtype)

    def take(self, rows: NDArray[Any]) -> Iterator[NDArray[Any]]:
        """Take rows, and yield the blocks that are full; each until the next is asked for."""
        size, done = len(self._held), 0
        if self._count:
            done = min(len(rows), size - self._count)
            self._held[self._count : self._count + done] = rows[:done]
            self._count += done
            if self._count < size:
                return
            self._count = 0
            yield self._held
        while len(rows) - done >= size:
            yield rows[done : done + size]
            done += size
        self._count = len(rows) - done
        self._held[: self._count] = rows[done:]

    def tail(self) -> bytes:
        """Return the rows that do not fill a block yet, as bytes."""
        return self._held[: self._count].tobytes()

    def rest(self) -> NDArray[Any]:
        """Return them as rows."""
        return self._held[: self._count]
