"""Counters that were taken out of their number before it overflowed: those of few channels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamer.monitor.places import unpacked

__all__ = ["Spills"]

_SLOT = 40


class Spills:
    """Three counters by slot and place, where something was put.

    Examples
    --------
    >>> spills = Spills()
    >>> spills.put(2, np.array([8, 7, 7]), np.array([[1, 2, 3], [10, 20, 30], [1, 2, 3]]))
    >>> spills.at(2)
    (array([7, 8]), array([[11, 22, 33],
           [ 1,  2,  3]]))
    """

    def __init__(self) -> None:
        # Slot and place in one number, ascending.
        self._keys = np.empty(0, np.int64)
        self._counts = np.empty((0, 3), np.int64)

    def put_packed(
        self, slots: NDArray[np.int64], places: NDArray[np.int64], packed: NDArray[np.int64]
    ) -> None:
        """Add counters in one number to those at slots and places; all are (K,)."""
        if len(places):
            counts = [unpacked(packed, counter) for counter in range(3)]
            self._add(slots << _SLOT | places, np.stack(counts, axis=1))

    def put(self, slot: int, places: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        """Add counters (K, 3) to those at places (K,) in a slot."""
        if len(places):
            self._add(slot << _SLOT | places, counts)

    def _add(self, keys: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        keys, counts = np.append(self._keys, keys), np.append(self._counts, counts, axis=0)
        self._keys, which = np.unique(keys, return_inverse=True)
        self._counts = np.zeros((len(self._keys), 3), np.int64)
        np.add.at(self._counts, which, counts)

    def at(self, slot: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the places in a slot, ascending (K,), and what is there (K, 3)."""
        first, last = np.searchsorted(self._keys, [slot << _SLOT, slot + 1 << _SLOT])
        return self._keys[first:last] & (1 << _SLOT) - 1, self._counts[first:last]

    def drop(self, slot: int, places: NDArray[np.int64]) -> None:
        """Forget places in a slot."""
        kept = ~np.isin(self._keys, slot << _SLOT | places)
        self._keys, self._counts = self._keys[kept], self._counts[kept]
