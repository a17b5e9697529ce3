"""Words out of messages that lie anywhere in a buffer, as columns of 8 bytes each."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Block", "gathered", "settle_memory"]

# Words that are gathered at a time.
_BLOCK: Final = 32 * 1024
# What the columns of a packet take, about, and the block that the C library minds at the most.
_PACKET_BYTES: Final = 64
_LARGEST_BYTES: Final = 32 * 1024 * 1024 - 64 * 1024


class Block(NamedTuple):
    """Words of some messages, one after the other."""

    #: Which of all the words these are.
    words: slice
    #: Which of these words are the first of a message.
    heads: NDArray[np.int64]
    #: Their first 8 bytes, the next 8, and so on; u8 each.
    columns: list[NDArray[np.uint64]]


def gathered(
    buffer: NDArray[np.uint8],
    places: NDArray[np.int64],
    begins: NDArray[np.int64],
    counts: NDArray[np.int64],
    width: int,
) -> Iterator[Block]:
    """Yield the words of messages, in blocks that the processor's cache holds.

    Parameters
    ----------
    buffer
        (B,) u1
    places
        (N,) i8: where in it the words of each message begin. May be 8 bytes outside of it,
        where anything is found.
    begins, counts
        (N,) i8: how many words come before those of each, and how many it has, at least one.
    width
        How many columns a word has.

    Examples
    --------
    >>> buffer = np.arange(40, dtype="u1")
    >>> [block] = gathered(buffer, np.array([1, 20]), np.array([0, 2]), np.array([2, 1]), 1)
    >>> [hex(number) for number in block.columns[0]]
    ['0x807060504030201', '0x100f0e0d0c0b0a09', '0x1b1a191817161514']
    >>> block.words, block.heads.tolist()
    (slice(0, 3, None), [0, 2])
    """
    if not len(counts):
        return
    shifts = places & 7
    is_shifted = bool((shifts != shifts[0]).any())
    # Only what these words cover is copied: the buffer may hold many times as much.
    begin, end = int(places.min()), int((places + 8 * width * counts).max())
    outside = 8 * (begin < 0)
    if is_shifted:
        # Numbers of 8 bytes from before the first word to behind the last: a word reaches into
        # the next number. What no word covers is never seen.
        first = begin >> 3
        numbers = np.empty((end >> 3) - first + 1, "<u8")
        covered = buffer[8 * first + outside : end]
        numbers.view(np.uint8)[outside : outside + len(covered)] = covered
        firsts = (places >> 3) - first
    else:
        numbers = buffer[begin + outside : end].view("<u8")
        if not numbers.flags.aligned:
            numbers = numbers.copy()
        firsts = places - begin - outside >> 3
    total = int(begins[-1] + counts[-1])
    cuts = np.searchsorted(begins, np.arange(_BLOCK, total, _BLOCK))
    # A set, as a message may be longer than a block.
    for start, stop in pairwise(sorted({0, *cuts.tolist(), len(counts)})):
        some = slice(start, stop)
        words = slice(int(begins[start]), int(begins[stop - 1] + counts[stop - 1]))
        heads = begins[some] - words.start
        index = np.repeat(firsts[some] - width * heads, counts[some])
        index += np.arange(0, width * len(index), width)
        columns = []
        for _ in range(width + is_shifted):
            columns.append(numbers.take(index, mode="clip"))
            index += 1
        if is_shifted:
            # Of each two neighbours the upper bytes of one and the lower ones of the other.
            low = np.repeat(shifts[some].astype(np.uint64) << np.uint64(3), counts[some])
            high = np.uint64(64) - low  # numpy shifts everything out by 64, as should be
            columns = [one >> low | other << high for one, other in pairwise(columns)]
        yield Block(words, heads, columns)


def settle_memory(packets: int) -> None:
    """Let the C library keep memory for so many packets and their columns.

    It gives memory back to the system when more is free than twice the largest block that was
    ever freed, up to 32 MB (mallopt(3), M_MMAP_THRESHOLD). To have the pages for the columns of
    each batch made again takes as long as to decode it. The block itself is never touched.

    Parameters
    ----------
    packets
        How many there are.
    """
    np.empty(min(_PACKET_BYTES * packets, _LARGEST_BYTES), np.uint8)
