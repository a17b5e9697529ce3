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
        ``"not data"``, such as requests and replies; ``"other wire"``: it has the header and
        length of the wire that was not asked for; ``"unknown wire"``: it fits neither wire.
        Of a word: ``"unknown word"``; ``"unknown asic"``: `asic` does not name the chips of
        its io_group; ``"io_channel over 255"``, which the column cannot hold.
    io_group : NDArray
        (P,) u1: PACMAN card, as the file says.
    io_channel : NDArray
        (P,) u1: UART of that card.
    chip_id, channel_id : NDArray
        (P,) u1: the chip, and the channel of that chip.
    packet_type : NDArray
        (P,) u1: 0 data, 1 test (of v3: data), 2 configuration write, 3 configuration read,
        4 timestamp: a message's header, 6 sync, 7 trigger. 5, a text, comes from no wire.
    downstream_marker, parity : NDArray
        (P,) u1: bits 62 and 63 of a packet.
    valid_parity : NDArray
        (P,) u1: 1 if an odd number of the 64 bits is set.
    timestamp : NDArray
        (P,) u8 [ticks]: the chip's counter, or the card's at a sync or trigger. Of a message's
        header the Unix time in seconds, of the newer wire whatever is there.
    dataword : NDArray
        (P,) u1, or u2 where there are v3 chips: the ADC's value; of a sync the clock's source.
    trigger_type : NDArray
        (P,) u1: 0 normal, 1 external, 2 cross, 3 periodic; of a sync its letter, S, H or C; of
        a trigger its bits.
    local_fifo, shared_fifo : NDArray
        (P,) u1: of the channel's FIFO, and the chip's: bit 0, more than half full; bit 1, full.
    register_address, register_data : NDArray
        (P,) u1: of a configuration packet.
    direction : NDArray
        (P,) u1: always 0, as larpix-control writes it.
    local_fifo_events, shared_fifo_events : NDArray
        (P,) u1 and u2: what the channel's FIFO holds, and the chip's, in FIFO diagnostics mode.
    counter : NDArray
        (P,) u4: always 0; the index of a text.
    fifo_diagnostics_enabled : NDArray
        (P,) u1: 1 if decoded as a packet of a chip in that mode.
    first_packet : NDArray
        (P,) u1: 1 in the first of a burst.
    receipt_timestamp : NDArray
        (P,) u4, or u8 of the newer wire [ticks]: when the packet came to the card.
    reset_sample_flag, cds_flag : NDArray
        (P,) u1: a v3 packet's flags, which format 2.4 has no fields for.
    row : NDArray
        (P,) i8: row of the message in the file.
    time : NDArray
        (P,) i8: Unix seconds of the message's header; 0 if that does not say.
    is_data, is_test, is_config_write, is_config_read, is_config : NDArray
        (P,) bool: by `packet_type`, and by what it means for the kind of chip.
    is_timestamp, is_message, is_sync, is_trigger : NDArray
        (P,) bool: by `packet_type`.
    is_v3 : NDArray
        (P,) bool: whether a LArPix v3 chip sent it.

    Examples
    --------
    >>> from streamer import RawFile
    >>> from writer.recording import record
    >>> done = record("raw.h5", load="tile", seconds=0.1, seed=1, fast=True)
    >>> with RawFile("raw.h5") as raw:
    ...     packets = raw.read(0, 3).packets()
    >>> packets
    <Packets: 16 words of 3 messages, no faults>
    >>> packets.dataword[packets.is_data]
    array([ 67,  46,  70,  37,  59,  41,  51, 103,  94,  91,  65,  51, 108,
            71,  48], dtype=uint8)
    >>> packets.select(packets.is_sync).timestamp
    array([9999998], dtype=uint64)
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
            Those for which the mask is true. They are without faults, which are not packets.

        Raises
        ------
        IndexError
            If the mask does not have one value a packet.
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
