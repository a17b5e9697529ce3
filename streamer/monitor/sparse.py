"""Counts in memory for those only that there are: of few channels, or of few packets each."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Entries", "Sparse"]

# Of a key: a slot, 30 bits of a place, and 3 bits of a counter.
_PLACE_BITS, _COUNTER_BITS = 30, 3
_SLOT: Final = _PLACE_BITS + _COUNTER_BITS
# So many counts wait until they are added, or more by a part of those that there are.
_WAITING, _PART = 4096, 4


class Entries(NamedTuple):
    """Counts, none of them twice, ordered by slot, place and counter; each field (K,) i8."""

    slots: NDArray[np.int64]
    #: A channel of a chip: number or key of the chip, times 64, plus the channel.
    places: NDArray[np.int64]
    #: From 0 to 7.
    counters: NDArray[np.int64]
    counts: NDArray[np.int64]

    def where(self, chosen: NDArray[np.bool_]) -> Entries:
        """Return some of them."""
        return Entries(*(field[chosen] for field in self))

    def moved(self, slot: int) -> Entries:
        """Return all of them in a slot."""
        return self._replace(slots=np.full_like(self.slots, slot))


class Sparse:
    """Counts by slot, place and counter, where something was added.

    Examples
    --------
    >>> sparse = Sparse()
    >>> sparse.add(2, np.array([8, 7, 7]), 0, np.array([1, 10, 5]))
    >>> sparse.add(1, np.array([8]), 4, 3)
    >>> [field.tolist() for field in sparse.read()]
    [[1, 2, 2], [8, 7, 8], [4, 0, 0], [3, 15, 1]]
    >>> sparse.drop(np.array([True, False]), slot=2)
    >>> [field.tolist() for field in sparse.read()]
    [[1, 2], [8, 8], [4, 0], [3, 1]]
    """

    def __init__(self) -> None:
        # Ascending.
        self._keys = np.empty(0, np.int64)
        self._counts = np.empty(0, np.int64)
        # Keys and counts that are to be added: all at once, as that takes time for each of all.
        self._new: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        self._waiting = 0

    def add(
        self,
        slots: NDArray[np.int64] | int,
        places: NDArray[np.int64],
        counters: NDArray[np.int64] | int,
        counts: NDArray[np.int64] | int,
    ) -> None:
        """Add counts to what is there; all are (K,), or one for all."""
        if not len(places):
            return
        keys = places << _COUNTER_BITS
        keys |= np.asarray(slots, np.int64) << _SLOT
        keys |= counters
        self._new.append((keys, np.broadcast_to(np.asarray(counts, np.int64), keys.shape)))
        self._waiting += len(keys)
        if self._waiting > _WAITING + len(self._keys) // _PART:
            self._settle()

    def _settle(self) -> None:
        """Add what is waiting."""
        if not self._new:
            return
        keys = np.concatenate([self._keys, *(keys for keys, _ in self._new)])
        counts = np.concatenate([self._counts, *(counts for _, counts in self._new)])
        order = np.argsort(keys, kind="stable")  # which is fast, as most are in order
        keys = keys[order]
        starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
        self._keys, self._counts = keys[starts], np.add.reduceat(counts[order], starts)
        self._new, self._waiting = [], 0

    def read(self, slot: int | None = None) -> Entries:
        """Return all there is, or what is in a slot."""
        some = self._of(slot)
        keys = self._keys[some]
        return Entries(
            keys >> _SLOT,
            keys >> _COUNTER_BITS & (1 << _PLACE_BITS) - 1,
            keys & (1 << _COUNTER_BITS) - 1,
            self._counts[some],
        )

    def drop(self, chosen: NDArray[np.bool_], slot: int | None = None) -> None:
        """Forget some of what `read` returns."""
        if chosen.any():
            kept = np.ones(len(self._keys), np.bool_)
            kept[self._of(slot)] = ~chosen
            self._keys, self._counts = self._keys[kept], self._counts[kept]

    def _of(self, slot: int | None) -> slice:
        """Return where what is in a slot is, when all is added."""
        self._settle()
        if slot is None:
            return slice(None)
        return slice(*np.searchsorted(self._keys, [slot << _SLOT, slot + 1 << _SLOT]).tolist())
