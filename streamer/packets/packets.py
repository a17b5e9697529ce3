"""Packets: the words of messages, decoded into columns.

A column bears the name of its field in packets format 2.4, and holds what larpix-control
writes there: also a configuration packet has a ``dataword``, from the bits at its place, and
what a kind of packet has no bits for is 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.packets.columns import Columns
from streamer.packets.decoded import Decoded, concatenated
from streamer.packets.records import to_records
from streamer.packets.words import TIMESTAMP

__all__ = ["Packets"]


class Packets(Columns):
    """Packets as columns, each an array with one value a packet, and read-only.

    A message that could be decoded begins with a packet of type 4, its header, as with
    larpix-control's ``parse``; then comes one for each of its words. Made by `decode`.

    Parameters
    ----------
    decoded
        What the columns are computed from.
    source
        The file that they are from.
    faults
        Kind of fault to the rows with it.

    Attributes
    ----------
    source : Path or None
        The file that they are from; None if that is not known, or not one.
    faults : dict of str to NDArray
        What could not be decoded: rows, i8, ascending, one entry for each fault. Of a whole
        message: ``"empty"``; ``"truncated"`` and ``"overlong"``, by what its header counts;
        ``"not data"``, as requests and replies; ``"other wire"``, that it has the header and
        the length of the one wire and was to be of the other; ``"unknown wire"``, that it is
        of none. Of a word: ``"unknown word"``; ``"unknown asic"``, that nobody said what
        chips its io_group has; ``"io_channel over 255"``, which the column cannot hold.

    Examples
    --------
    See `decode`.

    >>> Packets.__name__
    'Packets'
    """

    def __init__(
        self, decoded: Decoded, source: Path | None, faults: dict[str, NDArray[np.int64]]
    ) -> None:
        super().__init__(decoded)
        self.source = source
        self.faults = faults

    def __len__(self) -> int:
        return len(self.decoded.words.packets)

    def __repr__(self) -> str:
        words, messages = (
            f"{count} {name}" if count == 1 else f"{count} {name}s"
            for count, name in ((self.n_words, "word"), (self.n_messages, "message"))
        )
        faults = ", ".join(f"{len(rows)} {kind}" for kind, rows in self.faults.items())
        return f"<Packets: {words} of {messages}, {'faults: ' if faults else 'no faults'}{faults}>"

    @property
    def n_messages(self) -> int:
        """Messages that were decoded, which is packets of type 4."""
        return int(np.count_nonzero(self.decoded.words.others.type == TIMESTAMP))

    @property
    def n_words(self) -> int:
        """Words that were decoded, which is all other packets."""
        return len(self) - self.n_messages

    @property
    def payload_bytes(self) -> int:
        """Bytes of these headers and words."""
        return self.decoded.payload_bytes()

    def to_records(self) -> NDArray[np.void]:
        """Return the entries of ``/packets`` in packets format 2.4.

        Returns
        -------
        NDArray
            (P,), of the 22 fields of `streamer.packets.records.RECORD` in its order, 36 bytes
            each. Of v3 chips ``dataword`` is u2, and of the newer wire ``receipt_timestamp`` u8.
        """
        return to_records(self.decoded, partial(getattr, self))

    def select(self, mask: NDArray[Any]) -> Packets:
        """Return some of the packets.

        Parameters
        ----------
        mask
            (P,) bool, or indices.

        Returns
        -------
        Packets
            Those for which the mask is true. They are without faults, which are no packets.

        Raises
        ------
        IndexError
            If the mask does not have one value a packet.

        Examples
        --------
        ``packets.select(packets.is_data)``
        """
        mask = np.asarray(mask)
        if mask.ndim != 1 or (mask.dtype == bool and len(mask) != len(self)):
            msg = f"a mask has one value for each of {len(self)} packets, not {mask!r}"
            raise IndexError(msg)
        return Packets(self.decoded.taken(np.arange(len(self))[mask]), self.source, {})

    @staticmethod
    def concatenate(parts: Iterable[Packets]) -> Packets:
        """Join packets, one after the other, with all their faults.

        Parameters
        ----------
        parts
            At least one; of one file if rows are to mean something.

        Raises
        ------
        ValueError
            If there is none.
        """
        parts = list(parts)
        if not parts:
            msg = "no packets to join"
            raise ValueError(msg)
        kinds = dict.fromkeys(kind for part in parts for kind in part.faults)
        faults = {
            kind: np.concatenate([part.faults[kind] for part in parts if kind in part.faults])
            for kind in kinds
        }
        sources = {part.source for part in parts}
        source = sources.pop() if len(sources) == 1 else None
        return Packets(concatenated([part.decoded for part in parts]), source, faults)
