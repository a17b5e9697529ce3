"""What packets are computed from: joined words, and what is known of their messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.packets.words import TIMESTAMP, Others, Words
from writer.larpix import (
    CONFIG_BITS,
    DATA_BITS,
    FIFO_DATA_BITS,
    V3_CONFIG_BITS,
    V3_DATA_BITS,
    Layout,
)

__all__ = ["ASICS", "LAYOUTS", "UNKNOWN_ASIC", "Decoded", "concatenated"]

#: Kinds of chips, and the code of each.
ASICS: Final = {"v2": 0, "v2-fifo": 1, "v3": 2, "lightpix": 0}
UNKNOWN_ASIC: Final = 3
#: Where the fields of their packets are, by code. A packet that writes or reads a register
#: has those of data too, and the other way round, from the bits at the same place.
LAYOUTS: Final[dict[int, Layout]] = {
    ASICS["v2"]: CONFIG_BITS | DATA_BITS,
    ASICS["v2-fifo"]: CONFIG_BITS | FIFO_DATA_BITS,
    ASICS["v3"]: V3_CONFIG_BITS | V3_DATA_BITS,
}


class Decoded(NamedTuple):
    """N messages and their P packets."""

    words: Words
    #: (N,) i8: packets of each message.
    counts: NDArray[np.int64]
    #: (N,) i8: row in the file.
    rows: NDArray[np.int64]
    #: (N,) i8: Unix seconds of the header, 0 if it does not say.
    seconds: NDArray[np.int64]
    #: (N,) u1
    io_groups: NDArray[np.uint8]
    #: (N,) u1: code of the chips, `UNKNOWN_ASIC` if nobody said.
    asics: NDArray[np.uint8]
    #: (N,) u1: bytes of a word.
    widths: NDArray[np.uint8]
    #: The codes of all the chips that there are, and maybe of some that there are not.
    codes: tuple[int, ...]
    #: Whether ``dataword`` has 16 bits.
    is_wide: bool

    def spread(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return for each packet the value of its message."""
        return np.repeat(values, self.counts)

    def payload_bytes(self) -> int:
        """Return how many bytes these headers and words had."""
        words = self.counts * self.widths
        # A header of the older wire is half as long as a word.
        is_legacy = self.widths == 16
        others = self.words.others
        headers = others.places[others.type == TIMESTAMP]
        if is_legacy.all():
            halves = len(headers)
        else:
            halves = int(np.count_nonzero(self.spread(is_legacy)[headers]))
        return int(words.sum()) - 8 * halves

    def taken(self, index: NDArray[np.int64]) -> Decoded:
        """Return the packets of these indices, each in a message of its own."""
        words = self.words
        message = self.spread(np.arange(len(self.rows)))[index]
        # Of each packet, where it stands among the others; -1 if a chip made it.
        place = np.full(len(words.packets), -1)
        place[words.others.places] = np.arange(len(words.others.places))
        found = place[index]
        others = words.others.taken(found[found >= 0])
        return Decoded(
            Words(
                words.packets[index],
                words.io_channels[index],
                words.receipts[index],
                others._replace(places=np.flatnonzero(found >= 0)),
            ),
            np.ones(len(index), np.int64),
            self.rows[message],
            self.seconds[message],
            self.io_groups[message],
            self.asics[message],
            self.widths[message],
            self.codes,
            self.is_wide,
        )


def concatenated(parts: Sequence[Decoded]) -> Decoded:
    """Join packets, one after the other."""
    words = [part.words for part in parts]
    others = [one.others for one in words]
    firsts = np.cumsum([0, *(len(one.packets) for one in words)]).tolist()
    return Decoded(
        Words(
            np.concatenate([one.packets for one in words]),
            np.concatenate([one.io_channels for one in words]),
            np.concatenate([one.receipts for one in words]),
            Others.joined(
                one._replace(places=one.places + first)
                for one, first in zip(others, firsts, strict=False)
            ),
        ),
        np.concatenate([part.counts for part in parts]),
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.seconds for part in parts]),
        np.concatenate([part.io_groups for part in parts]),
        np.concatenate([part.asics for part in parts]),
        np.concatenate([part.widths for part in parts]),
        tuple(sorted({code for part in parts for code in part.codes})),
        any(part.is_wide for part in parts),
    )
