"""References and the file's bytes become verified messages. Pure: no HDF5 library, no state.

HDF5 stores a variable-length message as an object of a global heap collection, and in the
dataset a reference to it. Formats: HDF5 File Format Specification, III.E "Global Heap" and
IV.B "Global Heap ID"::

    reference    u4 length, u8 address of the collection, u4 index of the object
    collection   "GCOL", u1 version 1, 3 unused, u8 size of the collection, then objects
    object       u2 index, u2 reference count (0), 4 unused, u8 length, the bytes,
                 padded to a multiple of 8; index 0 is the free space at the end

HDF5 appends objects and moves none, unless one is removed. So an object's place follows
from the lengths of those before it, without looking; and it is believed only when the
object's own index and length, in the file, agree with the reference.

A collection is written from its beginning to its end, and what was never written is zero.
Therefore, while a file is being written or when its writer was killed, an object is complete
once something behind it is there.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["REFERENCE", "Marks", "Payloads", "ReadInto", "gather", "is_sound"]

#: What a row of ``msgs`` is in the file, if addresses have 8 bytes.
REFERENCE = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])

#: Reads bytes of the file, from an offset, into a buffer; returns how many there were.
ReadInto = Callable[[int, memoryview], int]

#: What is known of collections: (address, index of an object) to (its offset in the
#: collection, the collection's size). Carried from call to call by the caller.
Marks = dict[tuple[int, int], tuple[int, int]]

_HEADER = 16
# Of an object: its index and its length.
_OBJECT = struct.Struct("<H6xQ")
_SIGNATURE = b"GCOL\x01"
_SIGNATURE_WORD, _FIVE_BYTES = int.from_bytes(_SIGNATURE, "little"), 2**40 - 1
# Stretches of the file with no more than this between them are read as one: chunks of
# references lie between collections, and a read costs as much as so many bytes.
_GAP_BYTES = 32 * 1024
# HDF5 fills up to so many collections at a time.
_OPEN = 16
# HDF5 lets a collection of several objects grow to this size.
_LARGE_BYTES = _WALK_BYTES = 64 * 1024
# For so many rows numpy is no faster than Python.
_FEW = 32
# The kernel writes whole pages, one after the other.
_PAGE_BYTES = 4096


class Payloads(NamedTuple):
    """The verified messages at the beginning of a run of references."""

    #: (B,) u1
    buffer: NDArray[np.uint8]
    #: (K,) i8: message k is ``buffer[starts[k] : starts[k] + lengths[k]]``.
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    #: What is wrong with the first one that is missing; None if all are there.
    cause: str | None


# The references ``[first, stop)``, which point into one collection: address, first, stop.
# A bare tuple, as there may be one for each message.
_Group = tuple[int, int, int]


def gather(
    refs: NDArray[Any],
    read: ReadInto,
    file_size: int,
    marks: Marks,
    *,
    final: int = 0,
    wanted: NDArray[np.bool_] | None = None,
) -> Payloads:
    """Read the messages that references point to, and verify each.

    Parameters
    ----------
    refs
        (N,) of `REFERENCE`. One that is all zeros is an empty message.
    read
        Reads from the file. Each stretch of the file is read once.
    file_size
        Bytes of the file: no message reaches beyond.
    marks
        What earlier calls learned; updated. May be empty, and may be wrong: it saves
        work, and is not believed.
    final
        So many of the messages, the first ones, are known to be completely on disk. Of
        the others this is made sure.
    wanted
        (N,) bool: the messages to read. The others are not read, beyond what shares a
        page of the file with one that is, nor verified; they come out as empty. None for
        all.

    Returns
    -------
    Payloads
        Of the first K messages, where K is N or the index of the first one that cannot
        be verified.

    Examples
    --------
    >>> image = bytearray(4196)
    >>> image[100:116] = b"GCOL" + bytes([1, 0, 0, 0]) + (4096).to_bytes(8, "little")
    >>> image[116:135] = (1).to_bytes(8, "little") + (3).to_bytes(8, "little") + b"abc"
    >>> def read(offset, view):
    ...     view[:] = image[offset : offset + len(view)]
    ...     return len(view)
    >>> found = gather(np.array([(3, 100, 1)], REFERENCE), read, len(image), {}, final=1)
    >>> found.buffer[found.starts[0] :][: found.lengths[0]].tobytes()
    b'abc'
    """
    if wanted is None and 0 < len(refs) <= _FEW:
        few = _gather_few(refs, read, file_size, marks, final)
        if few is not None:
            return few
    cause = None
    filled = (refs["length"] > 0) & (refs["index"] > 0) & (refs["address"] > 0)
    # Not the end of the message but less: the sum cannot overflow.
    filled &= (refs["address"] < file_size) & (refs["length"] < file_size)
    if not filled.all():
        empty = (refs["length"] == 0) & (refs["index"] == 0) & (refs["address"] == 0)
        possible = filled | empty
        if not possible.all():
            bad = int(np.argmin(possible))
            cause = f"its reference is impossible in a file of {file_size} bytes: {refs[bad]}"
            refs, filled = refs[:bad], filled[:bad]
            wanted = None if wanted is None else wanted[:bad]
    while True:
        rows = None if filled.all() else np.flatnonzero(filled)
        objects = refs if rows is None else refs[rows]
        known = final if rows is None else int(np.searchsorted(rows, final))
        chosen = wanted if rows is None or wanted is None else wanted[rows]
        found = _gather_objects(objects, read, file_size, marks, known, chosen)
        good = len(found.starts)
        if good == len(objects):
            break
        # Once more without it: the one before is now the last of its collection, and that
        # it is complete is to be made sure before it is read.
        bad, cause = good if rows is None else int(rows[good]), found.cause
        refs, filled = refs[:bad], filled[:bad]
        wanted = None if wanted is None else wanted[:bad]
    if rows is None:
        return found._replace(cause=cause)
    starts, lengths = np.zeros((2, len(refs)), np.int64)
    starts[rows], lengths[rows] = found.starts, found.lengths
    return Payloads(found.buffer, starts, lengths, cause)


def _gather_few(
    refs: NDArray[Any], read: ReadInto, file_size: int, marks: Marks, final: int
) -> Payloads | None:
    """Do what `gather` does, for the next few objects of one collection, as they come live.

    For so few, numpy's calls cost more than the work. None if they are anything else, or not
    all there: then it takes a closer look.
    """
    objects: list[tuple[int, int, int]] = refs.tolist()
    _, address, first = objects[0]
    begin, size = marks.get((address, first), (_HEADER if first == 1 else 0, 0))
    places, place = [], begin
    for index, (length, of, found) in enumerate(objects, first):
        if not length or of != address or found != index:
            return None
        places.append(place)
        place += _HEADER + (length + 7 & ~7)
    length, _, index = objects[-1]
    end = places[-1] + _HEADER + length
    if not begin or end > file_size - address:
        return None
    if end > size:  # unknown, or it has grown since it was marked
        size = _stated_size(address, read)
        if end > size:
            return None
    buffer = np.empty(end - begin, np.uint8)
    view = buffer.data
    if len(objects) > final and not _is_complete(address, length, index, places[-1], read=read):
        return None
    if read(address + begin, view) < len(view):
        return None
    starts = [at - begin + _HEADER for at in places]
    for number, ((length, _, index), start) in enumerate(zip(objects, starts, strict=True)):
        if _object(view, start - _HEADER) != (index, length):
            return None
        if number >= final and _has_late_page(
            address, length, index, places[number], size, view[start : start + length], read
        ):
            return None
    _mark_run(marks, address, (first, begin), (index + 1, place), size)
    return Payloads(buffer, np.array(starts), refs["length"].astype(np.int64), None)


def _gather_objects(
    refs: NDArray[Any],
    read: ReadInto,
    file_size: int,
    marks: Marks,
    final: int,
    wanted: NDArray[np.bool_] | None,
) -> Payloads:
    """Do what `gather` does, for references of which none is empty.

    If not all are there, only the number of those before the bad one means anything.
    """
    lengths = refs["length"].astype(np.int64)
    if not len(lengths):
        return Payloads(np.empty(0, np.uint8), lengths, lengths, None)
    indices = refs["index"].astype(np.int64)
    # Which reference each of the following is: they may be sorted, and left out.
    order, groups = _group(refs["address"].astype(np.int64))
    if order is not None:
        lengths, indices = lengths[order], indices[order]
        wanted = wanted if wanted is None else wanted[order]
    walked: set[int] = set()
    while True:
        places, sizes = _place(groups, lengths, indices, read, file_size, marks, walked)
        if wanted is None:
            parts, rows, sought = groups, order, (lengths, indices, places)
            part_sizes, gap = sizes, _GAP_BYTES
        else:
            kept, gap = np.flatnonzero(wanted), _PAGE_BYTES
            parts, part_sizes = _split(groups, sizes, kept, places, lengths, read)
            rows = kept if order is None else order[kept]
            sought = lengths[kept], indices[kept], places[kept]
        incomplete = []
        for address, _, stop in parts:
            last = stop - 1
            if (last if rows is None else rows[last]) >= final and not _is_complete(
                address, *(int(column[last]) for column in sought), read=read
            ):
                incomplete.append(last)
        buffer, starts, good = _fetch(parts, *sought, part_sizes, read, file_size, gap)
        good[incomplete] = False
        if final < len(refs):
            unsure = good & ((np.arange(len(good)) if rows is None else rows) >= final)
            late = _late(parts, *sought, part_sizes, starts, buffer, unsure, read)
            good[late] = False
        if good.all():
            break
        # In row order, the first that failed; and the collection that it lies in.
        failed = np.flatnonzero(~good)
        bad = int(failed[0] if rows is None else failed[np.argmin(rows[failed])])
        address = next(address for address, _, stop in parts if stop > bad)
        if address in walked:
            cause = (
                f"object {sought[1][bad]} of {sought[0][bad]} bytes is not, or not completely, "
                f"in the heap collection at {address}"
            )
            row = bad if rows is None else int(rows[bad])
            return Payloads(buffer, lengths[:row], lengths[:row], cause)
        # It may lie elsewhere than it follows from the lengths: look at each object.
        walked.add(address)
    _mark(marks, groups, lengths, indices, places, sizes)
    if rows is None:
        return Payloads(buffer, starts, lengths, None)
    all_starts, all_lengths = np.zeros((2, len(refs)), np.int64)
    all_starts[rows], all_lengths[rows] = starts, sought[0]
    return Payloads(buffer, all_starts, all_lengths, None)


def _mark(
    marks: Marks,
    groups: list[_Group],
    lengths: NDArray[np.int64],
    indices: NDArray[np.int64],
    places: NDArray[np.int64],
    sizes: list[int],
) -> None:
    """Remember where the next call will go on, or begin once more."""
    for (address, first, stop), size in zip(groups[-_OPEN:], sizes[-_OPEN:], strict=True):
        last = stop - 1
        end = int(places[last]) + _HEADER + (int(lengths[last]) + 7 & ~7)
        begin = int(indices[first]), int(places[first])
        _mark_run(marks, address, begin, (int(indices[last]) + 1, end), size)


def _mark_run(
    marks: Marks, address: int, begin: tuple[int, int], end: tuple[int, int], size: int
) -> None:
    """Remember where a run of objects begins and ends: the index and the place of each."""
    for index, place in (begin, end):
        marks.pop((address, index), None)
        marks[address, index] = place, size
    while len(marks) > 4 * _OPEN:
        del marks[next(iter(marks))]


def _group(addresses: NDArray[np.int64]) -> tuple[NDArray[np.int64] | None, list[_Group]]:
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


def _split(
    groups: list[_Group],
    sizes: list[int],
    kept: NDArray[np.int64],
    places: NDArray[np.int64],
    lengths: NDArray[np.int64],
    read: ReadInto,
) -> tuple[list[_Group], list[int]]:
    """Leave out of groups what is not kept, and part them where that saves a page."""
    parts, part_sizes = [], []
    begin = 0
    for (address, _, stop), size in zip(groups, sizes, strict=True):
        end = begin + int(np.searchsorted(kept[begin:], stop))
        rows = kept[begin:end]
        if not len(rows):
            continue
        gaps = places[rows[1:]] - (places[rows[:-1]] + _HEADER + lengths[rows[:-1]])
        edges = [0, *(np.flatnonzero(gaps > _PAGE_BYTES) + 1).tolist(), len(rows)]
        size = size or _stated_size(address, read)
        for low, high in pairwise(edges):
            parts.append((address, begin + low, begin + high))
            part_sizes.append(size)
        begin = end
    return parts, part_sizes


def _place(
    groups: list[_Group],
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
    spans = _HEADER + (lengths + 7 & ~7)
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
            mark = marks.get((address, index), (_HEADER, 0) if index == 1 else None)
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
    size = _collection_size(block[:held])
    base, place = 0, _HEADER
    while place + _HEADER <= min(size, file_size - address):
        if place + _HEADER > base + held:
            base = place
            held = read(address + base, block)
            if held < _HEADER:
                break
        index, length = _object(block, place - base)
        if index == 0:
            break
        if index in found:
            twice.add(index)
        found[index] = place
        place += _HEADER + (length + 7 & ~7)
    return [0 if index in twice else found.get(index, 0) for index in wanted], size


def _is_complete(address: int, length: int, index: int, place: int, *, read: ReadInto) -> bool:
    """Tell whether an object is on disk to its last byte, if its header is."""
    size = _stated_size(address, read)
    behind = place + _HEADER + (length + 7 & ~7)
    header = memoryview(bytearray(_HEADER))
    if behind + _HEADER <= size:
        if read(address + behind, header) < _HEADER:
            return False
        next_index, next_length = _object(header, 0)
        # While a collection grows, its first page may state a size that the header of its
        # free space does not have yet.
        free = next_index == 0 and _HEADER <= next_length <= size - behind
        return free or next_index == index + 1
    # Nothing fits behind it: then what its last page holds of it.
    start, stop = address + place, address + place + _HEADER + length
    start = max(start, (stop - 1) // _PAGE_BYTES * _PAGE_BYTES)
    tail = memoryview(bytearray(stop - start))
    return read(start, tail) == len(tail) and any(tail)


def _late(
    groups: list[_Group],
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
    lasts = (heads + _HEADER + lengths - 1) // _PAGE_BYTES
    across = np.flatnonzero(unsure & (lasts > heads // _PAGE_BYTES))
    # Most lie across two pages, and where the second begins is something else than zeros.
    at = np.maximum(starts[across] + lasts[across] * _PAGE_BYTES - heads[across] - _HEADER, 0)
    at = np.maximum(at, starts[across])
    short = (lasts - heads // _PAGE_BYTES)[across] == 1
    across = across[~(short & (buffer[at] != 0))]
    found = []
    for number in across.tolist():
        group = bisect_right(groups, number, key=lambda group: group[1]) - 1
        start, length = int(starts[number]), int(lengths[number])
        if _has_late_page(
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


def _has_late_page(
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
    begin = address + place + _HEADER
    end = begin + length
    last = (end - 1) // _PAGE_BYTES
    for page in range((begin - _HEADER) // _PAGE_BYTES + 1, last + 1):
        low, high = max(page * _PAGE_BYTES, begin), min((page + 1) * _PAGE_BYTES, end)
        if bytes(data[low - begin : high - begin]).strip(b"\0"):
            continue
        if page < last or not _is_followed(address, length, index, place, size, read):
            return True
    return False


def _is_followed(
    address: int, length: int, index: int, place: int, size: int, read: ReadInto
) -> bool:
    """Tell whether the page of an object's last byte holds the header that comes behind it."""
    behind = place + _HEADER + (length + 7 & ~7)
    last_byte = address + place + _HEADER + length - 1
    if (address + behind + _HEADER - 1) // _PAGE_BYTES != last_byte // _PAGE_BYTES:
        return False
    header = memoryview(bytearray(_HEADER))
    if behind + _HEADER > size or read(address + behind, header) < _HEADER:
        return False
    next_index, next_length = _object(header, 0)
    free = next_index == 0 and _HEADER <= next_length <= size - behind
    return free or next_index == index + 1


def _fetch(
    groups: list[_Group],
    lengths: NDArray[np.int64],
    indices: NDArray[np.int64],
    places: NDArray[np.int64],
    sizes: list[int],
    read: ReadInto,
    file_size: int,
    gap: int,
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.bool_]]:
    """Read the objects; return the bytes, where in them each message is, and if it is right.

    Updates `sizes`.
    """
    ends = places + _HEADER + lengths
    if not groups:
        return np.empty(0, np.uint8), ends, np.ones(0, bool)
    # Of each collection, the part from its first object to its last, or from its header
    # if that has not been seen; of the file, what is near together in one stretch.
    firsts = [first for _, first, _ in groups]
    highs = np.maximum.reduceat(ends, firsts).tolist()
    lows = [
        low if low > _HEADER and size else 0
        for low, size in zip(np.minimum.reduceat(places, firsts).tolist(), sizes, strict=True)
    ]
    reach = highs[:]
    for number, (address, _, _) in enumerate(groups):
        # One large message, or a damaged length: the collection has to state as much before
        # memory is taken for it.
        if highs[number] > max(sizes[number], _LARGE_BYTES):
            sizes[number] = _stated_size(address, read)
            reach[number] = min(highs[number], sizes[number])
    stretches: list[list[int]] = []
    shifts = [0] * len(groups)
    total = 0
    for low, number in sorted((group[0] + lows[k], k) for k, group in enumerate(groups)):
        address = groups[number][0]
        high = max(low, min(address + reach[number], file_size))
        if stretches and low - stretches[-1][1] <= gap:
            total += max(0, high - stretches[-1][1])
            stretches[-1][1] = max(high, stretches[-1][1])
        else:
            stretches.append([low, high, total])
            total += high - low
        # What to add to an offset in the collection for one in the buffer.
        shifts[number] = stretches[-1][2] - stretches[-1][0] + address
    buffer = np.empty(max(total, _HEADER), np.uint8)
    view = buffer.data
    there = total
    for low, high, at in stretches:
        got = read(low, view[at : at + high - low])
        if got < high - low:  # the file has shrunk under our hands
            buffer[at + got : at + high - low] = 0
            there = min(there, at + got)

    heads = places + np.repeat(shifts, [stop - first for _, first, stop in groups])
    starts = heads + _HEADER
    good = starts + lengths <= there
    # An object begins at any byte, so: the words at every byte.
    words = np.ndarray((len(buffer) - 7,), "<u8", buffer, strides=(1,))
    inside = heads if good.all() else np.where(good, heads, 0)
    good &= words[inside] == indices
    good &= words[inside + 8] == lengths

    # The collections' own headers, of those that were read from their beginning.
    begins = np.where((np.array(lows) == 0) & (np.array(shifts) + _HEADER <= there), shifts, -1)
    stated = np.where(words[np.maximum(begins, 0)] & _FIVE_BYTES == _SIGNATURE_WORD, begins, -1)
    read_sizes = np.where(stated >= 0, words[np.maximum(stated, 0) + 8], 0).tolist()
    for number, (address, first, stop) in enumerate(groups):
        if not lows[number]:
            sizes[number] = read_sizes[number]
        elif highs[number] > sizes[number]:  # it has grown since it was marked
            sizes[number] = _stated_size(address, read)
        if highs[number] > sizes[number]:
            good[first:stop] &= ends[first:stop] <= sizes[number]
    return buffer, starts, good


def _stated_size(address: int, read: ReadInto) -> int:
    """Read the size that a collection states, 0 if there is none."""
    header = memoryview(bytearray(_HEADER))
    return _collection_size(header[: read(address, header)])


def _collection_size(header: memoryview) -> int:
    """Return the size that a collection states, 0 if there is none."""
    if len(header) < _HEADER or bytes(header[:5]) != _SIGNATURE:
        return 0
    return int.from_bytes(header[8:16], "little")


def _object(block: memoryview | bytes, at: int) -> tuple[int, int]:
    """Return the index and the length that an object's header states."""
    index, length = _OBJECT.unpack_from(block, at)
    return index, length


def is_sound(collection: bytes) -> bool:
    """Tell whether the objects of a whole collection fill it exactly, the free space included."""
    size = len(collection)
    place = _HEADER
    while place + _HEADER <= size:
        index, length = _object(collection, place)
        if index == 0:
            return place + length == size
        place += _HEADER + (length + 7 & ~7)
    return place <= size
