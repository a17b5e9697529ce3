"""Rows of a damaged file, each for itself: those that can be read, and why others cannot.

A reader of a live file stops before the first row that is not right, and waits. Here nobody
writes, so it goes on behind it. What is believed: HDF5's own checksums of its indexes; that
messages lie in a collection in the order of their rows; and of a message the 16 bytes that
HDF5 keeps in front of it, and that something right follows, so that it is there to its end.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.collection import Collection, crossed
from streamer.direct import DirectRows
from streamer.heap import gather
from streamer.heap_format import PAGE_BYTES, is_sound
from streamer.left import (
    BAD_REFERENCE,
    BEYOND,
    DAMAGED,
    HEADERLESS,
    HOLED,
    TORN,
    UNREADABLE_REFERENCES,
    UNWRITTEN,
    ZERO_REFERENCES,
    Window,
    runs_of,
)
from streamer.pieces import Pieces
from streamer.salvage_columns import SalvageColumns
from writer.pacman import HEADER, WORD, MessageType
from writer.superblock import read_superblock

__all__ = ["Salvage"]

_ZEROS = bytes(PAGE_BYTES)
# So much is in memory at a time: bytes of messages, or one message.
_ROWS_AT_ONCE, _BYTES_AT_ONCE = 16 * 1024, 32 * 1024 * 1024
# So many rows are looked at one by one before it is tried again with many.
_ROWS_BY_ONE = 256
# Rows around a window that its own are compared with.
_CONTEXT_ROWS = 64
# Texts of `meta` may lie before the first message.
_MOST_TEXTS = 8
_LETTERS = [kind.value for kind in MessageType]


class Salvage(SalvageColumns):
    """The rows of an open file that nobody writes, each for itself.

    Parameters
    ----------
    rows
        The same, as it was opened. Not to be used, nor closed, any more.
    lengths
        Rows of ``msgs`` and of ``msg_headers``.
    trusted
        Whether all that is announced has been written, so that what looks blank is so.
    keep_uncommitted
        Whether messages without a header row are kept; the row is zeros then.
    """

    def __init__(
        self,
        rows: DirectRows,
        lengths: tuple[int, int],
        *,
        trusted: bool,
        keep_uncommitted: bool,
    ) -> None:
        super().__init__(rows, lengths, trusted=trusted)
        superblock = read_superblock(self._fd)
        self._cut = superblock is not None and superblock.cut
        self._keep_uncommitted = keep_uncommitted
        #: Whether HDF5 itself would not read a message of those that were read.
        self.damaged = False
        self._collections: dict[int, Collection] = {}
        self._checked: set[int] = set()
        self._before: tuple[int, ...] | None = None

    def until(self, start: int, stop: int) -> int:
        """Return up to which row from `start` on to read at a time, at the most to `stop`."""
        stop = min(stop, start + _ROWS_AT_ONCE)
        lengths = self._references(start, stop)[0]["length"].astype(np.int64)
        lengths[lengths >= os.fstat(self._fd).st_size] = 0
        rows = int(np.searchsorted(np.cumsum(lengths), _BYTES_AT_ONCE, "right"))
        return min(stop, start + max(1, rows))

    def read(self, start: int, stop: int) -> Window:
        """Read what can be read of the rows ``[start, stop)`` of ``msgs``."""
        low, high = max(0, start - _CONTEXT_ROWS), min(stop + _CONTEXT_ROWS, self._lengths[0])
        refs, lost = self._references(low, high)
        disordered = crossed(refs)[start - low : stop - low]
        refs, lost = refs[start - low : stop - low], lost[start - low : stop - low]
        headers, headerless = self._known_headers(start, stop)
        causes = np.zeros(stop - start, object)
        causes[lost] = UNREADABLE_REFERENCES
        empty = ~lost & (refs["address"] == 0) & (refs["length"] == 0) & (refs["index"] == 0)
        if empty.any():
            self._judge_empty(start, refs, empty, headerless, causes)
        causes[disordered & ~lost & ~empty] = BAD_REFERENCE
        size = os.fstat(self._fd).st_size
        impossible = (refs["address"] == 0) | (refs["index"] == 0) | (refs["length"] == 0)
        impossible |= (refs["address"] >= size) | (refs["length"] >= size)
        bad = BEYOND if self._cut else BAD_REFERENCE
        causes[impossible & ~empty & (causes == 0)] = bad
        if not self._keep_uncommitted:
            causes[headerless & (causes == 0)] = HEADERLESS
        found = self._messages(refs, np.flatnonzero((causes == 0) & ~empty), causes)
        doubtful = self._holes(start, refs, found, causes)
        kept = np.flatnonzero(causes == 0)
        filled = np.flatnonzero(refs["address"])
        if len(filled):
            self._before = tuple(refs[filled[-1]].tolist())
        messages = found.column(kept)
        return Window(start + kept, messages, headers[kept], runs_of(start, causes), doubtful)

    def _messages(
        self, refs: NDArray[Any], chosen: NDArray[np.intp], causes: NDArray[np.object_]
    ) -> Pieces:
        """Return those messages that can be read; of the others, note the causes."""
        messages = Pieces(len(refs))
        done = 0
        size = os.fstat(self._fd).st_size
        while done < len(chosen):
            found = gather(refs[chosen[done:]], self._read_into, size, self._marks)
            count = len(found.starts)
            messages.put(chosen[done : done + count], found.buffer, found.starts, found.lengths)
            done += count
            if found.cause is not None:
                self.damaged = True
                for position in chosen[done : done + _ROWS_BY_ONE].tolist():
                    message = self._message(refs, position)
                    if isinstance(message, str):
                        causes[position] = message
                    else:
                        messages.put(position, message, 0, len(message))
                done += _ROWS_BY_ONE
        return messages

    def check(self, start: int, stop: int) -> None:
        """Find out whether HDF5 can read the heap of these rows, which it does as a whole."""
        there = os.fstat(self._fd).st_size
        addresses = np.unique(self._references(start, stop)[0]["address"]).tolist()
        for address in addresses:
            if 0 < address < there and address not in self._checked:
                head = os.pread(self._fd, 16, address)
                size = int.from_bytes(head[8:], "little")
                sound = head.startswith(b"GCOL\x01") and size <= there
                if not sound or not is_sound(os.pread(self._fd, size, address), size):
                    self.damaged = True
        self._checked = set(addresses)

    def _message(self, refs: NDArray[Any], position: int) -> NDArray[np.uint8] | str:
        length, address, index = refs[position].tolist()
        collection = self._collections.get(address)
        if collection is None or (len(collection.data) <= length and length < collection.size):
            collection = self._collections[address] = Collection(self._fd, address, length)
            while len(self._collections) > 16:
                del self._collections[next(iter(self._collections))]
        following = None
        for other in refs[position + 1 : position + 17].tolist():
            if other[1:] == (address, index + 1):
                following = other[0]
                break
        found = collection.message(index, length, following)
        return (TORN if found else DAMAGED) if isinstance(found, bool) else found

    def _judge_empty(
        self,
        start: int,
        refs: NDArray[Any],
        empty: NDArray[np.bool_],
        headerless: NDArray[np.bool_],
        causes: NDArray[np.object_],
    ) -> None:
        """Find out which rows without a message are empty messages, and which are lost."""
        rows = start + np.flatnonzero(empty)
        absent, in_zeros = self._in_zeros(self._msgs, rows)
        causes[rows[rows >= self._lengths[1]] - start] = UNWRITTEN
        if not self._trusted:
            unwritten = absent | headerless[empty] | (rows >= self._last_written)
            causes[rows[unwritten] - start] = UNWRITTEN
        if in_zeros.any():
            suspects = rows[in_zeros]
            edges = np.flatnonzero(np.diff(suspects) > 1) + 1
            for run in np.split(suspects, edges):
                if not self._joins(start, refs, int(run[0]) - start, int(run[-1]) - start):
                    lost = run[causes[run - start] == 0]
                    causes[lost - start] = ZERO_REFERENCES

    def _joins(self, start: int, refs: NDArray[Any], first: int, last: int) -> bool:
        """Tell whether no message lies in the heap between those around empty rows."""
        filled = np.flatnonzero(refs["address"][:first])
        before = tuple(refs[filled[-1]].tolist()) if len(filled) else self._before
        after = self._filled_from(start + last + 1)
        if before is None:
            return after is None or after[2] <= _MOST_TEXTS
        if after is not None and after[1] == before[1]:
            return bool(after[2] == before[2] + 1)
        length, address, index = before
        return Collection(self._fd, address, length).ends_with(index, length) and (
            after is None or after[2] == 1
        )

    def _filled_from(self, row: int) -> tuple[int, ...] | None:
        while row < self._last_written:
            stop = min(self._lengths[0], row + 1024)
            refs = self._references(row, stop)[0]
            filled = np.flatnonzero(refs["address"])
            if len(filled):
                return tuple(refs[filled[0]].tolist())
            row = stop
        return None

    @staticmethod
    def _holes(
        start: int, refs: NDArray[Any], messages: Pieces, causes: NDArray[np.object_]
    ) -> list[int]:
        """Find large messages of which a page may be lost, which nothing else shows.

        Notes the cause of those of which one is, and returns the rows of the others.
        """
        doubtful = []
        for position in np.flatnonzero((causes == 0) & (refs["length"] >= PAGE_BYTES)).tolist():
            message = messages[position]
            if _ZEROS not in message.tobytes():
                continue
            header = message[: HEADER.itemsize].view(HEADER)[0]
            words = int(header["words"]) * WORD.itemsize
            if message[0] in _LETTERS and len(message) == HEADER.itemsize + words:
                causes[position] = HOLED
            else:
                doubtful.append(start + position)
        return doubtful
