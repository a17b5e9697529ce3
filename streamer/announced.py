"""How a raw file announces rows: the object headers of its datasets, without the library.

A dataspace is stored as the dataset's length and its maximal length, here unlimited, in a
header with a checksum at its end (HDF5 File Format Specification, IV.A.1.b "Version 2 Data
Object Header Prefix" and IV.A.2.b "The Dataspace Message").
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import NamedTuple

from h5py import h5p

__all__ = ["Announced", "announced_lengths", "read_announced"]

_UNLIMITED = b"\xff" * 8
_CHECKSUM = 4
# In the header of a dataset, the dataspace is the first message.
_HEADER_BYTES = 512


class Announced(NamedTuple):
    """The object headers of ``msgs`` and ``msg_headers``, as they are in the file."""

    msgs: bytes
    headers: bytes

    def states(self, lengths: tuple[int, int]) -> bool:
        """Tell whether these headers announce so many rows.

        If HDF5 has moved a dataspace elsewhere, this is false.
        """
        return all(
            length.to_bytes(8, "little") + _UNLIMITED in header
            for header, length in zip(self, lengths, strict=True)
        )


def read_announced(fd: int, places: tuple[int, int]) -> Announced:
    """Read both object headers.

    Parameters
    ----------
    fd
        Descriptor of the file, open for reading.
    places
        Where in the file they are.
    """
    msgs, headers = (os.pread(fd, _HEADER_BYTES, place) for place in places)
    return Announced(msgs, headers)


def announced_lengths(
    announced: Announced, earlier: Announced, lengths: tuple[int, int]
) -> tuple[int, int] | None:
    """Return how many rows headers announce, of which an earlier state is known.

    Parameters
    ----------
    announced
        The headers now.
    earlier, lengths
        The headers at another time, and the rows that they announced then.

    Returns
    -------
    tuple of int or None
        Rows of ``msgs`` and of ``msg_headers``. None if that cannot be said for sure: a
        header is being written just now, or differs in more than the number of rows.
    """
    found = [
        _length(header, before, length)
        for header, before, length in zip(announced, earlier, lengths, strict=True)
    ]
    return None if found[0] is None or found[1] is None else (found[0], found[1])


def _length(header: bytes, before: bytes, length: int) -> int | None:
    if header == before:
        return length
    size = _header_size(header)
    stated = length.to_bytes(8, "little") + _UNLIMITED
    if not size or before.count(stated, 0, size) != 1:
        return None
    at = before.index(stated)
    same = [slice(at), slice(at + 8, size - _CHECKSUM)]
    if any(header[part] != before[part] for part in same) or not _is_whole(header[:size]):
        return None
    return int.from_bytes(header[at : at + 8], "little")


def _header_size(header: bytes) -> int:
    """Return the bytes of an object header to the end of its checksum; 0 if not known."""
    if header[:5] != b"OHDR\x02":
        return 0
    flags = header[5]
    place = 6 + 16 * (flags >> 5 & 1) + 4 * (flags >> 4 & 1)
    width = 1 << (flags & 3)
    size = place + width + int.from_bytes(header[place : place + width], "little") + _CHECKSUM
    return size if size <= len(header) else 0


def _find_checksum() -> Callable[[bytes, int, int], int] | None:
    # The library's own: as it is no part of its interface, it may be missing one day.
    checksum = getattr(ctypes.CDLL(h5p.__file__), "H5_checksum_metadata", None)
    if checksum is not None:
        checksum.restype = ctypes.c_uint32
        checksum.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint32]
    return checksum


_checksum = _find_checksum()


def _is_whole(header: bytes) -> bool:
    """Tell whether the checksum at the end of an object header is right."""
    if _checksum is None:
        return False
    size = len(header) - _CHECKSUM
    return _checksum(header, size, 0) == int.from_bytes(header[size:], "little")
