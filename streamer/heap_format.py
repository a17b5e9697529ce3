"""How HDF5 stores variable-length data: references, heap collections and objects.

HDF5 stores a variable-length message as an object of a global heap collection, and in the
dataset a reference to it. Formats: HDF5 File Format Specification, III.E "Global Heap" and
IV.B "Global Heap ID"::

    reference    u4 length, u8 address of the collection, u4 index of the object
    collection   "GCOL", u1 version 1, 3 unused, u8 size of the collection, then objects
    object       u2 index, u2 reference count (0), 4 unused, u8 length, the bytes,
                 padded to a multiple of 8; index 0 is the free space at the end
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "HEADER",
    "OBJECT",
    "PAGE_BYTES",
    "REFERENCE",
    "SIGNATURE",
    "ReadInto",
    "collection_size",
    "is_sound",
    "read_object",
    "span",
    "stated_size",
]

#: What a row of ``msgs`` is in the file, if addresses have 8 bytes.
REFERENCE = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])

#: Reads bytes of the file, from an offset, into a buffer; returns how many there were.
ReadInto = Callable[[int, memoryview], int]

#: Bytes of the header of a collection, and of that of an object.
HEADER = 16
#: How a collection begins.
SIGNATURE = b"GCOL\x01"
#: The kernel writes whole pages, one after the other.
PAGE_BYTES = 4096

#: Header of an object: its index and its length.
OBJECT = struct.Struct("<H6xQ")

Length = TypeVar("Length", int, NDArray[np.int64])


def span(length: Length) -> Length:
    """Return how many bytes objects with messages of some lengths take in their collection."""
    return HEADER + (length + 7 & ~7)


def stated_size(address: int, read: ReadInto) -> int:
    """Read the size that a collection states, 0 if there is none."""
    header = memoryview(bytearray(HEADER))
    return collection_size(header[: read(address, header)])


def collection_size(header: memoryview) -> int:
    """Return the size that a collection states, 0 if there is none."""
    if len(header) < HEADER or bytes(header[:5]) != SIGNATURE:
        return 0
    return int.from_bytes(header[8:16], "little")


def read_object(block: memoryview | bytes, at: int) -> tuple[int, int]:
    """Return the index and the length that an object's header states."""
    index, length = OBJECT.unpack_from(block, at)
    return index, length


def is_sound(collection: bytes, size: int) -> bool:
    """Tell whether a collection is all there, and its objects and free space fill it exactly.

    Parameters
    ----------
    collection
        What there is of it.
    size
        How many bytes it says that it has.
    """
    if len(collection) < size:
        return False
    place = HEADER
    while place + HEADER <= size:
        index, length = read_object(collection, place)
        if index == 0:
            return place + length == size
        place += span(length)
    return place <= size
