"""Where packets are counted by channel: memory for it, and three counters in one number.

A hit changes three counters of its channel. In one number, they are a third of the memory that
the processor has to fetch, which is most of what counting a hit costs, and that is kept.
"""

from __future__ import annotations

import math
import mmap
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = [
    "PACKED_ADC",
    "PACKED_DATA",
    "PACKED_FULL",
    "Places",
    "packed_hits",
    "unpacked",
    "zeros",
]

#: Three counters in 63 bits of a number. From bit 0 on: packets; from `PACKED_DATA` on: the sum
#: of datawords; from `PACKED_ADC` on: the sum of their squares. With datawords up to 1,023,
#: none overflows with up to 2,047 packets.
PACKED_DATA: Final = 11
PACKED_ADC: Final = 32
#: A number with so many packets, which is the highest bit of them, is to be unpacked.
PACKED_FULL: Final = 1 << PACKED_DATA - 1

# Of arrays as large as this, only the pages that are written to take memory.
_LARGE: Final = 256 * 1024


class Places(NamedTuple):
    """Where packets are counted by channel."""

    #: (2^24,) i4: the number of the chip with a key, 0 if there is none yet.
    chips: NDArray[np.int32]
    #: (1 + spans, chips, 64) i8: by slot, chip and channel, the first three `CHANNEL_COUNTERS`
    #: in one number, of fewer than `PACKED_FULL` packets.
    packed: NDArray[np.int64]
    #: (5, 1 + spans, chips, 64) u4: the others; they are not counted in slot 0.
    few: NDArray[np.uint32]
    #: (5, chips, 64) i8: the same of all slots together, and of those that were emptied.
    few_sums: NDArray[np.int64]


def zeros(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return an array of zeros; if it is large, it takes memory only where it is written to.

    numpy's own does not: it asks for pages of 2 MB, and clears memory that was used before.

    Examples
    --------
    >>> zeros((1000, 1000), "i4").sum()
    np.int64(0)
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < _LARGE:
        return np.zeros(shape, dtype)
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(pages, dtype).reshape(shape)


def packed_hits(adc: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return hits (H,) with these datawords as numbers to be added up."""
    found = adc * adc
    found <<= PACKED_ADC - PACKED_DATA
    found |= adc
    found <<= PACKED_DATA
    found |= 1
    return found


def unpacked(packed: NDArray[np.int64], counter: int) -> NDArray[np.int64]:
    """Return one of the three counters, 0 to 2, of any shape.

    Examples
    --------
    >>> packed = packed_hits(np.array([40, 50])).sum(keepdims=True)
    >>> [int(unpacked(packed, counter)[0]) for counter in range(3)]
    [2, 90, 4100]
    """
    low = (0, PACKED_DATA, PACKED_ADC)[counter]
    high = (PACKED_DATA, PACKED_ADC, 63)[counter]
    found: NDArray[np.int64] = packed >> low & 2 ** (high - low) - 1
    return found
