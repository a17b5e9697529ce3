"""References and the file's bytes become verified messages. Pure: no HDF5 library, no state.

HDF5 appends objects and moves none, unless one is removed. So an object's place follows
from the lengths of those before it, without looking; and it is believed only when the
object's own index and length, in the file, agree with the reference.

A collection is written from its beginning to its end, and what was never written is zero.
Therefore, while a file is being written or when its writer was killed, an object is complete
once something behind it is there. See :mod:`streamer.heap_format` for what these are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.heap_format import (
    HEADER,
    PAGE_BYTES,
    REFERENCE,
    SIGNATURE,
    ReadInto,
    read_object,
    span,
    stated_size,
)
from streamer.heap_late import has_late_page, is_complete, late_objects
from streamer.heap_places import Group, Marks, group_by_collection, places_of, split_groups

__all__ = ["REFERENCE", "Marks", "Payloads", "gather"]

_SIGNATURE_WORD, _FIVE_BYTES = int.from_bytes(SIGNATURE, "little"), 2**40 - 1
# Stretches of the file with no more than this between them are read as one: chunks of
# references lie between collections, and a read costs as much as so many bytes.
_GAP_BYTES = 32 * 1024
# HDF5 fills up to so many collections at a time.
_OPEN = 16
# HDF5 lets a collection of several objects grow to this size.
_LARGE_BYTES = 64 * 1024
# For so many rows numpy is no faster than Python.
_FEW = 32


class Payloads(NamedTuple):
    """The verified messages at the beginning of a run of references."""

    #: (B,) u1
    buffer: NDArray[np.uint8]
    #: (K,) i8: message k is ``buffer[starts[k] : starts[k] + lengths[k]]``.
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    #: What is wrong with the first one that is missing; None if all are there.
    cause: str | None


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
    begin, size = marks.get((address, first), (HEADER if first == 1 else 0, 0))
    places, place = [], begin
    for index, (length, of, found) in enumerate(objects, first):
        if not length or of != address or found != index:
            return None
        places.append(place)
        place += span(length)
    length, _, index = objects[-1]
    end = places[-1] + HEADER + length
    if not begin or end > file_size - address:
        return None
    if end > size:  # unknown, or it has grown since it was marked
        size = stated_size(address, read)
        if end > size:
            return None
    buffer = np.empty(end - begin, np.uint8)
    view = buffer.data
    if len(objects) > final and not is_complete(address, length, index, places[-1], read=read):
        return None
    if read(address + begin, view) < len(view):
        return None
    starts = [at - begin + HEADER for at in places]
    for number, ((length, _, index), start) in enumerate(zip(objects, starts, strict=True)):
        if read_object(view, start - HEADER) != (index, length):
            return None
        if number >= final and has_late_page(
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
    order, groups = group_by_collection(refs["address"].astype(np.int64))
    if order is not None:
        lengths, indices = lengths[order], indices[order]
        wanted = wanted if wanted is None else wanted[order]
    walked: set[int] = set()
    while True:
        places, sizes = places_of(groups, lengths, indices, read, file_size, marks, walked)
        if wanted is None:
            parts, rows, sought = groups, order, (lengths, indices, places)
            part_sizes, gap = sizes, _GAP_BYTES
        else:
            kept, gap = np.flatnonzero(wanted), PAGE_BYTES
            parts, part_sizes = split_groups(groups, sizes, kept, places, lengths, read)
            rows = kept if order is None else order[kept]
            sought = lengths[kept], indices[kept], places[kept]
        incomplete = []
        for address, _, stop in parts:
            last = stop - 1
            if (last if rows is None else rows[last]) >= final and not is_complete(
                address, *(int(column[last]) for column in sought), read=read
            ):
                incomplete.append(last)
        buffer, starts, good = _fetch(parts, *sought, part_sizes, read, file_size, gap)
        good[incomplete] = False
        if final < len(refs):
            unsure = good & ((np.arange(len(good)) if rows is None else rows) >= final)
            late = late_objects(parts, *sought, part_sizes, starts, buffer, unsure, read)
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
    groups: list[Group],
    lengths: NDArray[np.int64],
    indices: NDArray[np.int64],
    places: NDArray[np.int64],
    sizes: list[int],
) -> None:
    """Remember where the next call will go on, or begin once more."""
    for (address, first, stop), size in zip(groups[-_OPEN:], sizes[-_OPEN:], strict=True):
        last = stop - 1
        end = int(places[last]) + span(int(lengths[last]))
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


def _fetch(
    groups: list[Group],
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
    ends = places + HEADER + lengths
    if not groups:
        return np.empty(0, np.uint8), ends, np.ones(0, bool)
    # Of each collection, the part from its first object to its last, or from its header
    # if that has not been seen; of the file, what is near together in one stretch.
    firsts = [first for _, first, _ in groups]
    highs = np.maximum.reduceat(ends, firsts).tolist()
    lows = [
        low if low > HEADER and size else 0
        for low, size in zip(np.minimum.reduceat(places, firsts).tolist(), sizes, strict=True)
    ]
    reach = highs[:]
    for number, (address, _, _) in enumerate(groups):
        # One large message, or a damaged length: the collection has to state as much before
        # memory is taken for it.
        if highs[number] > max(sizes[number], _LARGE_BYTES):
            sizes[number] = stated_size(address, read)
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
    buffer = np.empty(max(total, HEADER), np.uint8)
    view = buffer.data
    there = total
    for low, high, at in stretches:
        got = read(low, view[at : at + high - low])
        if got < high - low:  # the file has shrunk under our hands
            buffer[at + got : at + high - low] = 0
            there = min(there, at + got)

    heads = places + np.repeat(shifts, [stop - first for _, first, stop in groups])
    starts = heads + HEADER
    good = starts + lengths <= there
    # An object begins at any byte, so: the words at every byte.
    words = np.ndarray((len(buffer) - 7,), "<u8", buffer, strides=(1,))
    inside = heads if good.all() else np.where(good, heads, 0)
    good &= words[inside] == indices
    good &= words[inside + 8] == lengths

    # The collections' own headers, of those that were read from their beginning.
    begins = np.where((np.array(lows) == 0) & (np.array(shifts) + HEADER <= there), shifts, -1)
    stated = np.where(words[np.maximum(begins, 0)] & _FIVE_BYTES == _SIGNATURE_WORD, begins, -1)
    read_sizes = np.where(stated >= 0, words[np.maximum(stated, 0) + 8], 0).tolist()
    for number, (address, first, stop) in enumerate(groups):
        if not lows[number]:
            sizes[number] = read_sizes[number]
        elif highs[number] > sizes[number]:  # it has grown since it was marked
            sizes[number] = stated_size(address, read)
        if highs[number] > sizes[number]:
            good[first:stop] &= ends[first:stop] <= sizes[number]
    return buffer, starts, good
