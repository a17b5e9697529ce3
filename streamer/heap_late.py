"""Which objects of a heap are on disk as they will stay, and which may come page by page."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

from streamer.heap_format import HEADER, PAGE_BYTES, ReadInto, read_object, span, stated_size
from streamer.heap_places import Group

__all__ = ["has_late_page", "is_complete", "late_objects"]


def is_complete(address: int, length: int, index: int, place: int, *, read: ReadInto) -> bool:
    """Tell whether an object is on disk to its last byte, if its header is."""
    size = stated_size(address, read)
    behind = place + span(length)
    header = memoryview(bytearray(HEADER))
    if behind + HEADER <= size:
        if read(address + behind, header) < HEADER:
            return False
        next_index, next_length = read_object(header, 0)
        # While a collection grows, its first page may state a size that the header of its
        # free space does not have yet.
        free = next_index == 0 and HEADER <= next_length <= size - behind
        return free or next_index == index + 1
    # Nothing fits behind it: then what its last page holds of it.
    start, stop = address + place, address + place + HEADER + length
    start = max(start, (stop - 1) // PAGE_BYTES * PAGE_BYTES)
    tail = memoryview(bytearray(stop - start))
    return read(start, tail) == len(tail) and any(tail)


def late_objects(
    groups: list[Group],
    lengths: NDArray[np.int64],
    indices: NDArray[np.int64],
    places: NDArray[np.int64],
    sizes: list[int],
    starts: NDArray[np.int64],
    buffer: NDArray[np.uint8],
    unsure: NDArray[np.bool_],
    read: ReadInto,
) -> list[int]:
    """Find the objects of which a page may be as it was before they were written."""
    if not groups:
        return []
    counts = [stop - first for _, first, stop in groups]
    heads = places + np.repeat([address for address, _, _ in groups], counts)
    lasts = (heads + HEADER + lengths - 1) // PAGE_BYTES
    across = np.flatnonzero(unsure & (lasts > heads // PAGE_BYTES))
    # Most lie across two pages, and where the second begins is something else than zeros.
    at = np.maximum(starts[across] + lasts[across] * PAGE_BYTES - heads[across] - HEADER, 0)
    at = np.maximum(at, starts[across])
    short = (lasts - heads // PAGE_BYTES)[across] == 1
    across = across[~(short & (buffer[at] != 0))]
    found = []
    for number in across.tolist():
        group = bisect_right(groups, number, key=lambda group: group[1]) - 1
        start, length = int(starts[number]), int(lengths[number])
        if has_late_page(
            groups[group][0],
            length,
            int(indices[number]),
            int(places[number]),
            sizes[group],
            buffer.data[start : start + length],
            read,
        ):
            found.append(number)
    return found


def has_late_page(
    address: int,
    length: int,
    index: int,
    place: int,
    size: int,
    data: memoryview,
    read: ReadInto,
) -> bool:
    """Tell whether a page of an object may be as it was before the object was written.

    Pages may come in any order, as from a file server. HDF5 writes a collection with whole
    objects only, so the page with an object's header holds all that it can of the object. Any
    other page holds zeros in the object's place, or is as new, or newer.
    """
    begin = address + place + HEADER
    end = begin + length
    last = (end - 1) // PAGE_BYTES
    for page in range((begin - HEADER) // PAGE_BYTES + 1, last + 1):
        low, high = max(page * PAGE_BYTES, begin), min((page + 1) * PAGE_BYTES, end)
        if bytes(data[low - begin : high - begin]).strip(b"\0"):
            continue
        if page < last or not _is_followed(address, length, index, place, size, read):
            return True
    return False


def _is_followed(
    address: int, length: int, index: int, place: int, size: int, read: ReadInto
) -> bool:
    """Tell whether the page of an object's last byte holds the header that comes behind it."""
    behind = place + span(length)
    last_byte = address + place + HEADER + length - 1
    if (address + behind + HEADER - 1) // PAGE_BYTES != last_byte // PAGE_BYTES:
        return False
    header = memoryview(bytearray(HEADER))
    if behind + HEADER > size or read(address + behind, header) < HEADER:
        return False
    next_index, next_length = read_object(header, 0)
    free = next_index == 0 and HEADER <= next_length <= size - behind
    return free or next_index == index + 1
