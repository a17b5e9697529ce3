"""Which messages can be decoded, and on which wire they came: by length and header alone.

There are two wires, `writer.pacman` ("legacy": a header of 8 bytes, words of 16) and
`writer.pacman24` ("new24": both of 24 bytes). A message is of a wire if its header says that
it is data, and counts what its length leaves room for, exactly::

    legacy    u1 'D', u4 seconds, u1, u2 words
    new24     u1 'D', then version 1 in byte 2, or in byte 1 in the first revision; from byte 4
              the u4 number of words, or 24 times as many bytes in the last revision

No message is of both: the upper half of new24's count is the number of words of legacy. A
message with as many legacy words as that says is shorter than 65,536 times as many of the
newer words, or bytes, and with none it has 8 bytes and no header of 24.

The data server of the last revision passes the number of bytes on as 16 bits
(mulhearn/pacman, ``pacman_message.hh: write_header_data``), so that of a message of more than
65,535 bytes only the remainder is in the header: it is of this wire nevertheless.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from writer.fields import lead
from writer.pacman import HEADER, WORD, MessageType
from writer.pacman24 import VERSION, Revision
from writer.pacman24 import WORD as WORD_24

__all__ = ["WIRES", "Sorted", "named_wire", "sort_messages", "words_at"]

#: The names of the wires.
WIRES: Final = ("legacy", "new24")

_HEADER, _WORD = HEADER.itemsize, WORD.itemsize
# Of the newer wire: the first and the last form of a header, of which the one between has in
# the first 8 bytes the version of the last and the count of the first.
_FIRST, _LAST = lead(Revision.FIRST.header), lead(Revision.LAST.header)
_HEADER_24, _WORD_24 = Revision.LAST.header.itemsize, WORD_24.itemsize
_VERSION, _ = VERSION


class Sorted(NamedTuple):
    """The messages of each wire, and what is wrong with the others."""

    #: Indices of messages that can be decoded, i8, ascending.
    legacy: NDArray[np.int64]
    new24: NDArray[np.int64]
    #: Kind of fault to indices of messages, i8, ascending.
    faults: dict[str, NDArray[np.int64]]


def named_wire(io_version: str | None) -> str | None:
    """Return the wire that an io_version names; None if it names none.

    Examples
    --------
    >>> named_wire("0.0"), named_wire("1.0"), named_wire("new-v1-word24")
    ('legacy', 'new24', None)
    """
    match = re.fullmatch(r"([01])\.\d+", io_version or "")
    return WIRES[int(match[1])] if match else None


def words_at(buffer: NDArray[np.uint8], places: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return the numbers of 8 bytes at any places of a buffer.

    Parameters
    ----------
    buffer
        (B,) u1. Places outside of it hold anything.
    places
        (N,) i8: where each number begins.

    Returns
    -------
    NDArray
        (N,) u8.

    Examples
    --------
    >>> [hex(number) for number in words_at(np.arange(20, dtype="u1"), np.array([0, 3, 12]))]
    ['0x706050403020100', '0xa09080706050403', '0x131211100f0e0d0c']
    """
    if len(buffer) < 8:
        return np.zeros(len(places), np.uint64)
    if not (places & 7).any():
        aligned = buffer[: len(buffer) & ~7].view("<u8")
        return aligned.take(places >> 3, mode="clip")
    every = np.ndarray((len(buffer) - 7,), "<u8", buffer, strides=(1,))
    return every[np.clip(places, 0, len(buffer) - 8)].astype(np.uint64)


def sort_messages(
    buffer: NDArray[np.uint8],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    wire: str | None,
) -> Sorted:
    """Sort messages by wire.

    Parameters
    ----------
    buffer, starts, lengths
        As in a `Batch`, N messages.
    wire
        The only wire that they may be of; None: either.

    Returns
    -------
    Sorted
        Each message once: under a wire or under a kind of fault.

    Raises
    ------
    ValueError
        If a message does not lie in the buffer.
    """
    if not ((starts >= 0) & (lengths >= 0) & (starts <= len(buffer) - lengths)).all():
        msg = f"a message lies outside of its buffer of {len(buffer)} bytes"
        raise ValueError(msg)
    headers = words_at(buffer, starts)
    is_data = (headers.view(HEADER)["type"] == MessageType.DATA) & (lengths >= _HEADER)
    legacy = is_data & (lengths == _HEADER + _WORD * _legacy_counts(headers))
    every, none = np.arange(len(starts)), np.empty(0, np.int64)
    if wire == "legacy" and legacy.all():
        return Sorted(every, none, {})
    new24 = is_data & _fits_new24(headers, lengths)
    if wire == "new24" and new24.all():
        return Sorted(none, every, {})
    decoded = {"legacy": legacy, "new24": new24}.get(wire or "", legacy | new24)
    left = np.flatnonzero(~decoded)
    kinds = _faults(
        wire,
        headers[left],
        lengths[left],
        # Not of the header, which a short message does not have.
        buffer[np.minimum(starts[left], len(buffer) - 1)] if len(buffer) else headers[left],
        (legacy | new24)[left],
    )
    faults = {kind: left[kinds == kind] for kind in np.unique(kinds).tolist()}
    return Sorted(np.flatnonzero(legacy & decoded), np.flatnonzero(new24 & decoded), faults)


def _legacy_counts(headers: NDArray[np.uint64]) -> NDArray[np.int64]:
    return headers.view(HEADER)["words"].astype(np.int64)


def _new24_counts(headers: NDArray[np.uint64]) -> NDArray[np.int64]:
    return headers.view(_LAST)["bytes"].astype(np.int64)


def _fits_new24(headers: NDArray[np.uint64], lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which messages have the version and the count of the newer wire."""
    room = lengths - _HEADER_24
    counts = _new24_counts(headers)
    first, later = _versions(headers)
    as_words = (first | later) & (room == _WORD_24 * counts)
    remainder = (room > 0xFFFF) & (room & 0xFFFF == counts)
    as_bytes = later & ((room == counts) | remainder) & (room % _WORD_24 == 0)
    fits: NDArray[np.bool_] = (room >= 0) & (as_words | as_bytes)
    return fits


def _versions(headers: NDArray[np.uint64]) -> list[NDArray[np.bool_]]:
    """Tell where the version is right for the first form of a header, and for the later ones."""
    return [headers.view(form)["major"] == _VERSION for form in (_FIRST, _LAST)]


def _faults(
    wire: str | None,
    headers: NDArray[np.uint64],
    lengths: NDArray[np.int64],
    letters: NDArray[np.integer],
    fits_other: NDArray[np.bool_],
) -> NDArray[np.str_]:
    """Return what is wrong with messages that cannot be decoded."""
    unknown: NDArray[np.bool_] | bool = wire is None
    shortest, expected = _HEADER, _HEADER + _WORD * _legacy_counts(headers)
    if wire == "new24":
        first, later = _versions(headers)
        unknown = (lengths >= _HEADER_24) & ~(first | later)
        counts = _new24_counts(headers)
        # A number of bytes is one of whole words.
        in_bytes = later & (counts % _WORD_24 == 0)
        shortest, expected = _HEADER_24, _HEADER_24 + counts * np.where(in_bytes, 1, _WORD_24)
    return np.select(
        [
            lengths == 0,
            fits_other,
            letters != MessageType.DATA,
            np.broadcast_to(unknown, lengths.shape),
            (lengths < shortest) | (lengths < expected),
        ],
        ["empty", "other wire", "not data", "unknown wire", "truncated"],
        "overlong",
    )
