"""Packets: the words of messages, decoded into columns. Pure: no file, no state.

A column bears the name of its field in packets format 2.4, and holds what larpix-control
writes there: also a configuration packet has a ``dataword``, from the bits at its place, and
what a kind of packet has no bits for is 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from streamer.packets.columns import Columns
from streamer.packets.decoded import ASICS, UNKNOWN_ASIC, Decoded, concatenated
from streamer.packets.records import to_records
from streamer.packets.wires import WIRES, Sorted, named_wire, sort_messages
from streamer.packets.words import TIMESTAMP, join_legacy, join_new24

if TYPE_CHECKING:
    from streamer.batch import Batch

__all__ = ["DECODED_BYTES", "Packets", "check_options", "decode"]

#: Bytes of messages that are best decoded together: their packets have room in the
#: processor's cache.
DECODED_BYTES: Final = 2 * 1024 * 1024


def decode(batch: Batch, *, wire: str = "auto", asic: str | Mapping[int, str] = "v2") -> Packets:
    """Decode messages into packets.

    Parameters
    ----------
    batch
        N messages.
    wire
        ``"legacy"``: headers of 8 bytes, words of 16. ``"new24"``: both of 24 bytes, any
        revision. ``"auto"``: the one that the file's io_version names, 0.x or 1.x; where it
        names none, of each message the one of which it has the header and the exact length.
    asic
        What chips sent the packets: ``"v2"``, also for LightPix; ``"v2-fifo"``: v2 in FIFO
        diagnostics mode; ``"v3"``. Or these by io_group. Nothing in a file says so.

    Returns
    -------
    Packets
        What could be decoded, in the order of the file. What could not is counted in
        `Packets.faults`, and takes nothing else with it.

    Raises
    ------
    ValueError
        If there is no such wire or chip.

    Examples
    --------
    >>> from streamer.batch import Batch
    >>> from writer.larpix import DATA_BITS, pack
    >>> from writer.pacman import Word, messages, words
    >>> hits = pack(DATA_BITS, chip_id=11, channel_id=[3, 4], dataword=[40, 50])
    >>> stream = words(Word.DATA, io_channel=1, receipt_timestamp=1_000, packet=hits)
    >>> buffer, lengths = messages(stream, [2], 1_700_000_000)
    >>> batch = Batch(
    ...     rows=np.array([7]),
    ...     io_groups=np.array([1], "u1"),
    ...     buffer=buffer,
    ...     starts=np.array([0]),
    ...     lengths=lengths,
    ... )
    >>> packets = decode(batch)
    >>> packets
    <Packets: 2 words of 1 message, no faults>
    >>> packets.packet_type.tolist(), packets.dataword.tolist(), packets.row.tolist()
    ([4, 0, 0], [0, 40, 50], [7, 7, 7])
    >>> packets.timestamp[packets.is_timestamp].tolist()
    [1700000000]
    """
    codes = check_options(wire, asic)
    named = named_wire(batch.io_version) if wire == "auto" else wire
    found = sort_messages(batch.buffer, batch.starts, batch.lengths, named)
    if len(found.legacy) and len(found.new24):
        packets = _merged(batch, found, codes)
    elif len(found.new24) or named == "new24":
        packets = _joined(batch, found.new24, "new24", codes)
    else:
        packets = _joined(batch, found.legacy, "legacy", codes)
    for kind, index in found.faults.items():
        packets.faults[kind] = batch.rows[index]
    return packets


def check_options(wire: str, asic: str | Mapping[int, str]) -> NDArray[np.uint8]:
    """Check how to decode.

    Returns
    -------
    NDArray
        (256,) u1: the code of the chips of each io_group.

    Raises
    ------
    ValueError
        If there is no such wire, chip or io_group.

    Examples
    --------
    >>> check_options("legacy", "v3")[1] == check_options("auto", {1: "v3", 2: "v2"})[1]
    np.True_
    """
    if wire not in ("auto", *WIRES):
        msg = f"wire must be one of {', '.join(('auto', *WIRES))}, not {wire!r}"
        raise ValueError(msg)
    if not isinstance(asic, Mapping):
        return np.full(256, _code_of(asic), np.uint8)
    codes = np.full(256, UNKNOWN_ASIC, np.uint8)
    for io_group, name in asic.items():
        if io_group not in range(256):
            msg = f"asic by io_group: io_groups are from 0 to 255, not {io_group!r}"
            raise ValueError(msg)
        codes[int(io_group)] = _code_of(name)
    return codes


def _code_of(asic: str) -> int:
    if asic not in ASICS:
        msg = f"asic must be one of {', '.join(ASICS)}, not {asic!r}"
        raise ValueError(msg)
    return ASICS[asic]


def _joined(
    batch: Batch, index: NDArray[np.int64], wire: str, codes: NDArray[np.uint8]
) -> Packets:
    """Decode messages that are whole, and all of one wire."""
    if len(index) < len(batch.rows):
        batch = batch.select(index)
    rows, io_groups = batch.rows, batch.io_groups
    there = tuple(sorted({*codes.tolist()}))
    # Most often there is one kind of chips only.
    asics = codes[io_groups] if len(there) > 1 else np.full(len(rows), codes[0])
    known = asics != UNKNOWN_ASIC if UNKNOWN_ASIC in there else None
    join, width = (join_legacy, 16) if wire == "legacy" else (join_new24, 24)
    joined = join(batch.buffer, batch.starts, batch.lengths, known)
    return Packets(
        Decoded(
            joined.words,
            joined.counts,
            rows,
            joined.seconds,
            io_groups,
            asics,
            np.full(len(rows), width, np.uint8),
            tuple(code for code in there if code != UNKNOWN_ASIC),
            ASICS["v3"] in there,
        ),
        batch.source,
        {kind: rows[message] for kind, message in joined.faults.items()},
    )


def _merged(batch: Batch, found: Sorted, codes: NDArray[np.uint8]) -> Packets:
    """Decode messages of both wires, in the order of the file."""
    parts = [
        _joined(batch, found.legacy, "legacy", codes),
        _joined(batch, found.new24, "new24", codes),
    ]
    message = np.concatenate([found.legacy, found.new24])
    packets = Packets.concatenate(parts)
    merged = packets.select(np.argsort(packets.decoded.spread(message), kind="stable"))
    merged.faults |= {kind: np.sort(rows) for kind, rows in packets.faults.items()}
    return merged


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
