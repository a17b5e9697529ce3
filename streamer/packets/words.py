"""Joined words: the words of many messages as columns, with what is rare kept apart.

Nearly all words carry a packet from a chip. So each has a number of 64 bits in which the
fields of that packet are, and whatever is not a packet of a chip, a message's header or what the
PACMAN says itself, is zero there and stands in a short list, `Others`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.packets.gathered import gathered, settle_memory
from writer.fields import lead
from writer.larpix import PacketType
from writer.pacman import HEADER, Word
from writer.pacman24 import Word as Word24

__all__ = ["TIMESTAMP", "Joined", "Others", "Words", "join_legacy", "join_new24"]

#: In the column ``packet_type``: a message's header.
TIMESTAMP: Final = PacketType.TIMESTAMP
# Both wires have the same letters.
_DATA, _CONFIG = Word24.DATA.letter, Word24.CONFIG.letter
_SYNC, _TRIGGER = Word24.SYNC.letter, Word24.TRIG.letter
# The first 8 bytes of a word with a packet, by wire.
_LEAD, _LEAD_24 = lead(Word.DATA.dtype), lead(Word24.DATA.dtype)
# The types of the words that carry no packet of a chip; 0 if unknown.
_TYPES: Final = np.zeros(256, np.uint8)
_TYPES[[_SYNC, _TRIGGER]] = PacketType.SYNC, PacketType.TRIGGER
# Unix time in nanoseconds, from 2001 to 2262: nothing else is a number of this size.
_FIRST_NANOSECOND, _LAST_NANOSECOND = np.uint64(10**18), np.uint64(2**63)
_NONE: Final = np.empty(0, np.uint64)


class Others(NamedTuple):
    """The packets that no chip made, M of them: timestamps, syncs and triggers."""

    #: (M,) i8: which of the P packets each is.
    places: NDArray[np.int64]
    #: (M,) u1: as in the column ``packet_type``.
    type: NDArray[np.uint8]
    #: (M,) u1: a sync's letter, or a trigger's bits.
    kind: NDArray[np.uint8]
    #: (M,) u1
    clk_source: NDArray[np.uint8]
    #: (M,) u8: what a message's header says of the time, or ticks.
    timestamp: NDArray[np.uint64]

    def taken(self, mask: NDArray[Any]) -> Others:
        """Return some of them."""
        return Others(
            self.places[mask],
            self.type[mask],
            self.kind[mask],
            self.clk_source[mask],
            self.timestamp[mask],
        )

    @staticmethod
    def joined(parts: Iterable[Others]) -> Others:
        """Return all of several."""
        parts = list(parts)
        return Others(
            np.concatenate([part.places for part in parts]),
            np.concatenate([part.type for part in parts]),
            np.concatenate([part.kind for part in parts]),
            np.concatenate([part.clk_source for part in parts]),
            np.concatenate([part.timestamp for part in parts]),
        )


class Words(NamedTuple):
    """P packets: of each message one for its header, and then one for each word."""

    #: (P,) u8: packets of chips; 0 for the others.
    packets: NDArray[np.uint64]
    #: (P,) u1: where they came from; 0 for the others.
    io_channels: NDArray[np.uint8]
    #: (P,) u4, of the newer wire u8: ticks at which they came; 0 for the others.
    receipts: NDArray[np.unsignedinteger]
    others: Others


class Joined(NamedTuple):
    """The words of N messages."""

    words: Words
    #: (N,) i8: packets of each message, that of its header included.
    counts: NDArray[np.int64]
    #: (N,) i8, Unix seconds; 0 if the header does not say.
    seconds: NDArray[np.int64]
    #: Kind of fault to the messages with such words, i8, an entry for each word.
    faults: dict[str, NDArray[np.int64]]


class _Found(NamedTuple):
    """M words that are not packets of chips."""

    places: NDArray[np.int64]
    #: (M, bytes of a word / 8) u8
    words: NDArray[np.uint64]


def join_legacy(
    buffer: NDArray[np.uint8],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    known: NDArray[np.bool_] | None = None,
) -> Joined:
    """Join the words of whole messages of the older wire.

    Parameters
    ----------
    buffer, starts, lengths
        As in a `Batch`, N messages.
    known
        (N,) bool: whether it is known of what chips a message's packets are; None if of all.

    Returns
    -------
    Joined
        The words that can be decoded.
    """
    counts = 1 + (lengths - 8 >> 4)
    begins = np.cumsum(counts) - counts
    packets, io_channels, receipts = _columns(counts, "<u4")
    times, found = [_NONE], []
    # A header and the 8 bytes before it are as long as a word.
    for block, heads, columns in gathered(buffer, starts - 8, begins, counts, 2):
        leads, numbers = columns
        times.append(numbers.take(heads).view(HEADER)["seconds"].astype(np.uint64))
        leads[heads], numbers[heads] = _DATA, 0
        rest = np.flatnonzero(leads.astype(np.uint8) != _DATA)
        if len(rest):
            found.append(_Found(rest + block.start, _taken_out(columns, rest)))
        packets[block] = numbers
        io_channels[block] = leads.view(_LEAD)["io_channel"]
        receipts[block] = leads.view(_LEAD)["receipt_timestamp"]
    time = np.concatenate(times)
    words = Words(packets, io_channels, receipts, _others(begins, time, found, Word))
    return _sorted_out(Joined(words, counts, time.astype(np.int64), {}), known)


def join_new24(
    buffer: NDArray[np.uint8],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    known: NDArray[np.bool_] | None = None,
) -> Joined:
    """Join the words of whole messages of the newer wire; as `join_legacy`."""
    counts = lengths // 24
    begins = np.cumsum(counts) - counts
    packets, io_channels, receipts = _columns(counts, "<u8")
    times, found, high = [_NONE], [], [np.empty(0, np.int64)]
    for block, heads, columns in gathered(buffer, starts, begins, counts, 3):
        leads, stamps, numbers = columns
        times.append(stamps.take(heads))
        leads[heads], stamps[heads], numbers[heads] = _DATA, 0, 0
        letters = leads.astype(np.uint8)
        rest = np.flatnonzero((letters != _DATA) & (letters != _CONFIG))
        if len(rest):
            found.append(_Found(rest + block.start, _taken_out(columns, rest)))
        packets[block] = numbers
        io_channel = leads.view(_LEAD_24)["io_channel"]
        io_channels[block] = io_channel
        receipts[block] = stamps
        high.append(np.flatnonzero(io_channel > 0xFF) + block.start)
    time = np.concatenate(times)
    is_time = (time >= _FIRST_NANOSECOND) & (time < _LAST_NANOSECOND)
    seconds = np.where(is_time, time // np.uint64(10**9), np.uint64(0)).astype(np.int64)
    words = Words(packets, io_channels, receipts, _others(begins, time, found, Word24))
    high_channels = {"io_channel over 255": np.concatenate(high)}
    return _sorted_out(Joined(words, counts, seconds, high_channels), known)


def _columns(
    counts: NDArray[np.int64], receipts: str
) -> tuple[NDArray[np.uint64], NDArray[np.uint8], NDArray[np.unsignedinteger]]:
    """Return columns of so many packets, to be filled in."""
    total = int(counts.sum())
    settle_memory(total)
    return np.empty(total, np.uint64), np.empty(total, np.uint8), np.empty(total, receipts)


def _taken_out(columns: list[NDArray[np.uint64]], places: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return some words of a block, and leave zeros in their place."""
    words = np.stack([column[places] for column in columns], axis=1)
    for column in columns:
        column[places] = 0
    return words


def _others(
    heads: NDArray[np.int64],
    times: NDArray[np.uint64],
    found: list[_Found],
    kinds: type[Word] | type[Word24],
) -> Others:
    """List the headers of messages, and the words that are not packets of chips."""
    types = np.full(len(heads), TIMESTAMP, np.uint8)
    zeros = np.zeros(len(heads), np.uint8)
    parts = [Others(heads, types, zeros, zeros, times)]
    for places, words in found:
        sync, trigger = (words.view(kind.dtype)[:, 0] for kind in (kinds.SYNC, kinds.TRIG))
        is_sync = sync["type"] == _SYNC
        parts.append(
            Others(
                places,
                _TYPES[sync["type"]],
                np.where(is_sync, sync["sync_type"], trigger["trigger_type"]),
                (sync["clk_source"] & 1) * is_sync,
                np.where(is_sync, sync["timestamp"], trigger["timestamp"]).astype(np.uint64),
            )
        )
    return Others.joined(parts) if found else parts[0]


def _sorted_out(joined: Joined, known: NDArray[np.bool_] | None) -> Joined:
    """Leave out what cannot be decoded; `joined.faults` is by word, and afterwards by message."""
    words, counts = joined.words, joined.counts
    others = words.others
    faults = joined.faults
    if not others.type.all():
        faults = faults | {"unknown word": others.places[others.type == 0]}
    if known is not None and not known.all():
        lost = np.repeat(~known, counts)
        # Of a word there is one fault.
        for places in (others.places, *faults.values()):
            lost[places] = False
        faults = faults | {"unknown asic": np.flatnonzero(lost)}
    faults = {kind: places for kind, places in faults.items() if len(places)}
    if not faults:
        return joined._replace(faults=faults)
    kept = np.ones(len(words.packets), np.bool)
    kept[np.concatenate(list(faults.values()))] = False
    before, stops = np.cumsum(kept), np.cumsum(counts)
    left = others.taken(kept[others.places])
    return Joined(
        Words(
            words.packets[kept],
            words.io_channels[kept],
            words.receipts[kept],
            left._replace(places=before[left.places] - 1),
        ),
        np.diff(before[stops - 1], prepend=0),
        joined.seconds,
        {
            kind: np.atleast_1d(np.searchsorted(stops, places, "right"))
            for kind, places in faults.items()
        },
    )
