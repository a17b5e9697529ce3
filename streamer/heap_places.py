"""Where in its collection each object of a heap is.

HDF5 appends objects and moves none, unless one is removed. So an object's place follows
from the lengths of those before it, without looking; where it does not, the collection is
gone through object by object.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from streamer.heap_format import (
    HEADER,
    PAGE_BYTES,
    ReadInto,
    collection_size,
    read_object,
    span,
    stated_size,
)

__all__ = ["Group", "Marks", "group_by_collection", "places_of", "split_groups"]

#: What is known of collections: (address, index of an object) to (its offset in the
#: collection, the collection's size). Carried from call to call by the caller.
Marks = dict[tuple[int, int], tuple[int, int]]

#: The references ``[first, stop)``, which point into one collection: address, first, stop.
#: A bare tuple, as there may be one for each message.
Group = tuple[int, int, int]

_WALK_BYTES = 64 * 1024


def group_by_collection(
    addresses: NDArray[np.int64],
) -> tuple[NDArray[np.int64] | None, list[Group]]:
    """Find the references into each collection; sort them if they are not together."""
    order = None
    while True:
        firsts = [0, *(np.flatnonzero(addresses[1:] != addresses[:-1]) + 1).tolist()]
        heads = addresses[firsts].tolist()
        if order is not None or len(set(heads)) == len(heads):
            stops = [*firsts[1:], len(addresses)]
            return order, list(zip(heads, firsts, stops, strict=True))
        order = np.argsort(addresses, kind="stable")
        addresses = addresses[order]


def split_groups(
    groups: list[Group],
    sizes: list[int],
    kept: NDArray[np.int64],
    places: NDArray[np.int64],
    lengths: NDArray[np.int64],
    read: ReadInto,
) -> tuple[list[Group], list[int]]:
    """Leave out of groups what is not kept, and part them where that saves a page."""
    parts, part_sizes = [], []
    begin = 0
    for (address, _, stop), size in zip(groups, sizes, strict=True):
        end = begin + int(np.searchsorted(kept[begin:], stop))
        rows = kept[begin:end]
        if not len(rows):
            continue
        gaps = places[rows[1:]] - (places[rows[:-1]] + HEADER + lengths[rows[:-1]])
        edges = [0, *(np.flatnonzero(gaps > PAGE_BYTES) + 1).tolist(), len(rows)]
        size = size or stated_size(address, read)
        for low, high in pairwise(edges):
            parts.append((address, begin + low, begin + high))
            part_sizes.append(size)
        begin = end
    return parts, part_sizes


def places_of(
    groups: list[Group],
    lengths: NDArray[np.int64],
    indices: NDArray[np.int64],
    read: ReadInto,
    file_size: int,
    marks: Marks,
    walked: set[int],
) -> tuple[NDArray[np.int64], list[int]]:
    """Find each object's offset in its collection, and each collection's size, 0 if unknown.

    An object that is not there gets the offset 0, where no object is.
    """
    spans = span(lengths)
    places = np.cumsum(spans) - spans
    firsts = [first for _, first, _ in groups]
    counts = [stop - first for _, first, stop in groups]
    gaps = set((np.flatnonzero(indices[1:] - indices[:-1] != 1) + 1).tolist())
    # Where a collection begins, a gap is none.
    broken = {bisect_right(firsts, gap) - 1 for gap in gaps.difference(firsts)}
    heads = places[firsts].tolist()
    shifts, sizes = [0] * len(groups), [0] * len(groups)
    search = []
    for number, ((address, _, _), index) in enumerate(
        zip(groups, indices[firsts].tolist(), strict=True)
    ):
        mark = None
        if address not in walked and number not in broken:
            mark = marks.get((address, index), (HEADER, 0) if index == 1 else None)
        if mark is None:
            search.append(number)
        else:
            shifts[number] = mark[0] - heads[number]
            sizes[number] = mark[1]
    places += np.repeat(shifts, counts)
    for number in search:
        address, first, stop = groups[number]
        walked.add(address)
        sought = indices[first:stop].tolist()
        places[first:stop], sizes[number] = _walk(address, sought, read, file_size)
    return places, sizes


def _walk(
    address: int, wanted: list[int], read: ReadInto, file_size: int
) -> tuple[list[int], int]:
    """Go through a collection object by object, for the offsets of some."""
    found: dict[int, int] = {}
    # One object has one index, and one reference to it. Two mean that one of them is damaged,
    # and a message of the same length could pass for the other.
    twice = {index for index, count in Counter(wanted).items() if count > 1}
    block = memoryview(bytearray(_WALK_BYTES))
    held = read(address, block)
    size = collection_size(block[:held])
    base, place = 0, HEADER
    while place + HEADER <= min(size, file_size - address):
        if place + HEADER > base + held:
            base = place
            held = read(address + base, block)
            if held < HEADER:
                break
        index, length = read_object(block, place - base)
        if index == 0:
            break
        if index in found:
            twice.add(index)
        found[index] = place
        place += span(length)
    return [0 if index in twice else found.get(index, 0) for index in wanted], size
