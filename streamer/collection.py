"""One damaged heap collection: which of its messages are there, and whole. Pure but for reading.

See :mod:`streamer.heap` for what a collection is.
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.heap_format import HEADER, OBJECT, PAGE_BYTES, SIGNATURE, span

__all__ = ["Collection", "crossed"]

_COLLECTION_BYTES = 64 * 1024


class Collection:
    """A heap collection, as far as it is whole.

    Parameters
    ----------
    fd
        Descriptor of the file.
    address
        Where the collection begins.
    length
        Bytes of the message that is sought in it.
    """

    def __init__(self, fd: int, address: int, length: int) -> None:
        head = os.pread(fd, HEADER, address)
        size = int.from_bytes(head[8:16], "little") if head[:5] == SIGNATURE else 0
        there = max(0, os.fstat(fd).st_size - address)
        # A large message has a collection of its own, which has to say so first.
        sought = length + 4 * HEADER if length + 4 * HEADER <= size else 0
        self.data = os.pread(
            fd, min(max(sought, _COLLECTION_BYTES), size or there, there), address
        )
        self.address = address
        self.size = size
        #: The object behind the one that was looked at last: its index and its place.
        self.next = (1, HEADER)

    def ends_with(self, index: int, length: int) -> bool:
        """Tell whether an object is the last one, with nothing behind it but free space."""
        place = self.places.get(index)
        if place is None:
            return False
        behind = place + span(length)
        if behind + HEADER > self.size:
            return True
        # Not zeros: in a page that was lost, there may have been more.
        return self.data[behind : behind + HEADER] == OBJECT.pack(0, self.size - behind)

    @cached_property
    def places(self) -> dict[int, int]:
        """Where each object is, by its index, up to the first that is damaged."""
        found: dict[int, int] = {}
        place, last = HEADER, 0
        while place + HEADER <= len(self.data):
            index, length = OBJECT.unpack_from(self.data, place)
            # Messages may hold anything, also what looks like the head of an object.
            if index <= last or any(self.data[place + 2 : place + 8]):
                break
            found[index] = place
            last = index
            place += span(length)
        return found

    def message(self, index: int, length: int, following: int | None) -> NDArray[np.uint8] | bool:
        """Return a message; if it is not there, whether at least its beginning is.

        Parameters
        ----------
        index, length
            As its reference has them.
        following
            Length of the next message of the collection, if a row refers to it.
        """
        place = self._find(index, length, following)
        if not place:
            return False
        if not self._is_whole(place, index, length, following):
            return True
        return np.frombuffer(self.data, np.uint8, length, place + HEADER)

    def _find(self, index: int, length: int, following: int | None) -> int:
        header = OBJECT.pack(index, length)
        expected = self._expected(index)
        for place in (expected, self.places.get(index, 0)):
            if place and self.data[place : place + HEADER] == header:
                self.next = index + 1, place + span(length)
                return place
        # Behind a damaged object, whose length is not known: where its head is, and the next
        # one's behind it, and once only. Not where the collection's end is not known: the
        # next collection has the same indices.
        place = 0
        if following is not None and self.size:
            place = self._only(header, OBJECT.pack(index + 1, following))
        if place:
            self.next = index + 1, place + span(length)
        elif expected:
            self.next = index + 1, expected + span(length)
        return place

    def _expected(self, index: int) -> int:
        """Return where an object has to be, by those before it; 0 if that is not known."""
        if index == self.next[0]:
            return self.next[1]
        if index == 1:
            return HEADER
        before = self.places.get(index - 1, 0)
        return before and before + span(OBJECT.unpack_from(self.data, before)[1])

    def _only(self, header: bytes, next_header: bytes) -> int:
        size = span(OBJECT.unpack(header)[1])
        places: list[int] = []
        place = self.data.find(header, HEADER)
        while place >= 0 and len(places) < 2:
            if self.data.startswith(next_header, place + size):
                places.append(place)
            place = self.data.find(header, place + 1)
        return places[0] if len(places) == 1 and places[0] % 8 == 0 else 0

    def _is_whole(self, place: int, index: int, length: int, following: int | None) -> bool:
        """Tell whether an object is there to its end: something right is behind it."""
        end = place + HEADER + length
        if end > len(self.data):
            return False
        behind = place + span(length)
        if self.size and behind + HEADER > self.size:
            last_page = (self.address + end - 1) // PAGE_BYTES * PAGE_BYTES - self.address
            return any(self.data[max(place + HEADER, last_page) : end])
        header = self.data[behind : behind + HEADER]
        if len(header) < HEADER:
            return False
        next_index, next_length = OBJECT.unpack(header)
        if next_index == index + 1 and not any(header[2:8]):
            return True
        room = (self.size or behind + _COLLECTION_BYTES) - behind
        if next_index == 0 and HEADER <= next_length <= room:
            return True
        # Two bits that have flipped there are no harm here; a page that is lost changes more.
        right = [] if following is None else [OBJECT.pack(index + 1, following)]
        right += [OBJECT.pack(0, room)] if self.size else []
        return any(header) and any(_differing_bits(header, one) <= 2 for one in right)


def _differing_bits(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one, "little") ^ int.from_bytes(other, "little")).bit_count()


def crossed(refs: NDArray[Any]) -> NDArray[np.bool_]:
    """Find references that are not in the order in which HDF5 fills a collection.

    A damaged index may be that of another message of the same length. Of two references in
    the wrong order, one that its neighbours agree with is right.
    """
    crossed = np.zeros(len(refs), bool)
    filled = np.flatnonzero(refs["address"])
    addresses, indices = refs["address"][filled], refs["index"][filled].astype(np.int64)
    order = np.argsort(addresses, kind="stable")
    addresses, indices = addresses[order], indices[order]
    same = addresses[1:] == addresses[:-1]
    wrong = np.flatnonzero(same & (indices[1:] <= indices[:-1]))
    for first in wrong.tolist():
        for at in (first, first + 1):
            joined = any(
                0 <= other < len(indices)
                and addresses[other] == addresses[at]
                and indices[other] - indices[at] == other - at
                for other in (at - 1, at + 1)
            )
            if not joined:
                crossed[filled[order[at]]] = True
    return crossed
