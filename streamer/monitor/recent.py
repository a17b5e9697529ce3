"""Counters of each io_group for its newest seconds, or spans of seconds, and the sum of the rest.

What is kept depends on what was counted, and not on the order in which it came or how the
stream was cut: the newest keys by value, each with all that belongs to it. What belongs to an
older key, or to none, is added to the io_group's rest. So two of these add up exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = ["NO_KEY", "REST", "Recent"]

#: The key of what has no time.
NO_KEY = -1
#: The slot of what is older than the newest keys, or has no key.
REST = 0


class Recent:
    """The newest keys of each io_group, with a row of counters for each.

    Parameters
    ----------
    depth
        How many keys of an io_group are kept.
    width
        Counters in a row.
    leaving
        Called with an io_group and a slot, before the row in it is added to the rest.

    Attributes
    ----------
    io_groups : list of int
        Those that were seen; an io_group's number is its place here.
    keys : NDArray
        (G, 1 + depth) i8: the key in each slot, `NO_KEY` where none is, and in slot `REST`.
    rows : NDArray
        (G, 1 + depth, width) i8: the counters.

    Examples
    --------
    >>> recent = Recent(depth=2, width=1)
    >>> number = recent.number(5)
    >>> for second in (100, 102, 101, 100):
    ...     slot = recent.place(number, [second])[0]
    ...     recent.rows[number, slot, 0] += 1
    >>> recent.keys[number].tolist(), recent.rows[number, :, 0].tolist()
    ([-1, 101, 102], [2, 1, 1])
    """

    def __init__(
        self, depth: int, width: int, leaving: Callable[[int, int], None] | None = None
    ) -> None:
        self.depth, self.width = depth, width
        self.io_groups: list[int] = []
        self._numbers = np.full(256, -1, np.int64)
        self._slots: list[dict[int, int]] = []
        self._leaving = leaving
        self._keys = np.full((1, 1 + depth), NO_KEY, np.int64)
        self._rows = np.zeros((1, 1 + depth, width), np.int64)

    @property
    def keys(self) -> NDArray[np.int64]:  # noqa: D102 - see the class
        return self._keys[: len(self.io_groups)]

    @property
    def rows(self) -> NDArray[np.int64]:  # noqa: D102 - see the class
        return self._rows[: len(self.io_groups)]

    def number(self, io_group: int) -> int:
        """Return the number of an io_group, a new one if it was not seen before."""
        found = int(self._numbers[io_group])
        if found < 0:
            found = self._numbers[io_group] = len(self.io_groups)
            self.io_groups.append(io_group)
            self._slots.append({})
            if found == len(self._rows):
                self._grow()
        return int(found)

    def numbers(self, io_groups: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the numbers of io_groups (N,), u1; of those too that are new."""
        found = self._numbers[io_groups]
        if len(found) and found.min() < 0:
            # In the order in which they came.
            new, first = np.unique(io_groups[found < 0], return_index=True)
            for io_group in new[np.argsort(first)].tolist():
                self.number(io_group)
            found = self._numbers[io_groups]
        return found

    def _grow(self) -> None:
        more = len(self._rows)
        self._keys = np.concatenate([self._keys, np.full_like(self._keys, NO_KEY)])
        # Not concatenated: pages that were never written to take no memory.
        rows = np.zeros((2 * more, *self._rows.shape[1:]), np.int64)
        rows[:more] = self._rows
        self._rows = rows

    def place(self, number: int, keys: Iterable[int]) -> list[int]:
        """Return the slots of some keys of an io_group, after making room for them.

        Parameters
        ----------
        number
            Of the io_group.
        keys
            All the keys that are about to be counted, at once: of several, an older one might
            have to give its slot to a newer one.

        Returns
        -------
        list of int
            A slot for each, `REST` for those that are not among the newest.
        """
        slots = self._slots[number]
        wanted = list(keys)
        try:
            return [REST if key == NO_KEY else slots[key] for key in wanted]
        except KeyError:
            pass  # one of them is new, or too old
        kept = set(sorted(slots.keys() | (set(wanted) - {NO_KEY}))[-self.depth :])
        for key in [key for key in slots if key not in kept]:
            self._leave(number, slots.pop(key))
        free = sorted(set(range(1, 1 + self.depth)) - set(slots.values()), reverse=True)
        for key in sorted(kept - slots.keys()):
            slots[key] = free.pop()
            self._keys[number, slots[key]] = key
        return [slots.get(key, REST) for key in wanted]

    def _leave(self, number: int, slot: int) -> None:
        if self._leaving is not None:
            self._leaving(self.io_groups[number], slot)
        rows = self._rows[number]
        rows[REST] += rows[slot]
        rows[slot] = 0
        self._keys[number, slot] = NO_KEY

    def places(self, numbers: NDArray[np.int64], keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the slots of keys of many io_groups, each of (L,) and sorted by number."""
        found = np.empty(len(numbers), np.int64)
        cuts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
        listed = keys.tolist()
        for start, stop in pairwise(cuts):
            if start < stop:
                found[start:stop] = self.place(int(numbers[start]), listed[start:stop])
        return found

    def rows_at(self, numbers: NDArray[np.int64], slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where in `flat` the rows of numbers and slots begin, all of (L,)."""
        return (numbers * (1 + self.depth) + slots) * self.width

    @property
    def flat(self) -> NDArray[np.int64]:
        """All rows, one behind the other, to be counted in."""
        return self._rows.reshape(-1)

    def add(
        self, numbers: NDArray[np.int64], slots: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> None:
        """Add rows (L, width) to those of numbers and slots (L,), also if two are the same."""
        if len(rows) <= 64:
            for number, slot, row in zip(numbers.tolist(), slots.tolist(), rows, strict=True):
                self._rows[number, slot] += row
        else:
            np.add.at(self._rows, (numbers, slots), rows)

    def merge(self, other: Recent, number: int, other_number: int) -> dict[int, int]:
        """Add what another one has of an io_group.

        Returns
        -------
        dict
            The other's slots, and where each is now.
        """
        theirs = {slot: key for key, slot in other._slots[other_number].items()}
        mine = dict(zip(theirs, self.place(number, theirs.values()), strict=True))
        mine[REST] = REST
        for slot, place in mine.items():
            self._rows[number, place] += other._rows[other_number, slot]
        return mine
