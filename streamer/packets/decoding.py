"""Messages into packets. Pure: no file, no state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from streamer.packets.decoded import ASICS, UNKNOWN_ASIC, Decoded
from streamer.packets.packets import Packets
from streamer.packets.wires import WIRES, Sorted, named_wire, sort_messages
from streamer.packets.words import join_legacy, join_new24

if TYPE_CHECKING:
    from streamer.batch import Batch

__all__ = ["DECODED_BYTES", "check_options", "decode"]

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
        names none, decided for each message by its header and exact length.
    asic
        What chips sent the packets: ``"v2"``, also for LightPix; ``"v2-fifo"``: v2 in FIFO
        diagnostics mode; ``"v3"``. Or these by io_group. Nothing in a file says so.

    Returns
    -------
    Packets
        What could be decoded, in the order of the file. What could not is counted in
        `Packets.faults`, and costs no other message.

    Raises
    ------
    ValueError
        If there is no such wire or chip, or if a message does not lie in the batch's buffer.
    TypeError
        If the batch's ``starts`` or ``lengths`` are not integers.

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
    if not batch.starts.dtype == batch.lengths.dtype == np.int64:
        # Of unsigned numbers a place before the buffer, below 0, would be a large one.
        starts = batch.starts.astype(np.int64, casting="same_kind")
        lengths = batch.lengths.astype(np.int64, casting="same_kind")
        batch = replace(batch, starts=starts, lengths=lengths)
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
        (256,) u1: the code of the chips of each io_group, as in `ASICS`; `UNKNOWN_ASIC` for
        those that are not named.

    Raises
    ------
    ValueError
        If there is no such wire, chip or io_group.

    Examples
    --------
    >>> check_options("auto", "v3")[:3], check_options("auto", {1: "v3", 2: "v2"})[:3]
    (array([2, 2, 2], dtype=uint8), array([3, 2, 0], dtype=uint8))
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
