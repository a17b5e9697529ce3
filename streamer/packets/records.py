"""The dtype of packets HDF5, format 2.4 of larpix-control, and how to fill it fast."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.packets.decoded import ASICS, LAYOUTS, Decoded
from streamer.packets.words import TIMESTAMP
from writer.larpix import Layout

__all__ = ["FIELDS", "RECORD", "record_dtype", "to_records"]

#: An entry of ``/packets``, 36 bytes (larpix-control, ``hdf5format.py``).
RECORD: Final = np.dtype(
    [
        ("io_group", "u1"),
        ("io_channel", "u1"),
        ("chip_id", "u1"),
        ("packet_type", "u1"),
        ("downstream_marker", "u1"),
        ("parity", "u1"),
        ("valid_parity", "u1"),
        ("channel_id", "u1"),
        ("timestamp", "<u8"),
        ("dataword", "u1"),
        ("trigger_type", "u1"),
        ("local_fifo", "u1"),
        ("shared_fifo", "u1"),
        ("register_address", "u1"),
        ("register_data", "u1"),
        ("direction", "u1"),
        ("local_fifo_events", "u1"),
        ("shared_fifo_events", "<u2"),
        ("counter", "<u4"),
        ("fifo_diagnostics_enabled", "u1"),
        ("first_packet", "u1"),
        ("receipt_timestamp", "<u4"),
    ]
)

#: Names of the fields, in their order.
FIELDS: Final = tuple(RECORD.names or ())

# Those that are not bits of packets.
_NO_BITS: Final = {"io_group", "io_channel", "valid_parity", "receipt_timestamp"}

# Records that the processor's cache holds.
_BLOCK = 16 * 1024


def record_dtype(decoded: Decoded) -> np.dtype[np.void]:
    """Return the dtype of packets as records, without making them.

    It is `RECORD`, with room for what LArPix v3 and the newer wire have more of.

    Parameters
    ----------
    decoded
        The packets.

    Examples
    --------
    >>> from streamer import decode
    >>> from streamer.batch import Batch
    >>> none = np.empty(0, np.int64)
    >>> batch = Batch(none, none.astype("u1"), none.astype("u1"), none, none)
    >>> record_dtype(decode(batch).decoded) == RECORD, RECORD.itemsize
    (True, 36)
    >>> record_dtype(decode(batch, wire="new24", asic="v3").decoded).itemsize
    41
    """
    wide = {
        "dataword": "<u2" if decoded.is_wide else "u1",
        "receipt_timestamp": decoded.words.receipts.dtype,
    }
    return np.dtype([(name, wide.get(name, RECORD[name])) for name in FIELDS])


def to_records(decoded: Decoded, get: Callable[[str], NDArray[Any]]) -> NDArray[np.void]:
    """Return packets as records.

    To compute each column and to store it takes more than twice as long: a record is put
    together 8 bytes at a time, most of which come from the same number.

    Parameters
    ----------
    decoded
        P packets.
    get
        Returns a column by its name.

    Returns
    -------
    NDArray
        (P,), of `record_dtype`.
    """
    dtype = record_dtype(decoded)
    eights, tail = _plan(decoded.codes, dtype)
    numbers, size = decoded.words.packets, dtype.itemsize
    records = np.empty(len(numbers), dtype)
    raw = records.view(np.uint8)
    scratch = np.empty((2, min(_BLOCK, len(numbers))), np.uint64)
    for first in range(0, len(numbers), _BLOCK):
        block = slice(first, first + _BLOCK)
        packets = numbers[block]
        eight, part = scratch[:, : len(packets)]
        for offset, (moves, columns) in enumerate(eights):
            # The first of them needs no place of its own.
            into = eight
            for shift, mask in moves.items():
                if shift < 0:
                    np.right_shift(packets, np.uint64(-shift), out=into)
                else:
                    np.left_shift(packets, np.uint64(shift), out=into)
                into &= np.uint64(mask)
                if into is part:
                    eight |= part
                into = part
            if not moves:
                eight[...] = 0
            for name, place in columns.items():
                field = np.ndarray((len(packets),), dtype[name], eight, place, (8,))
                field[...] = get(name)[block]
            start = first * size + 8 * offset
            np.ndarray((len(packets),), "<u8", raw, start, (size,))[...] = eight
        for name in tail:
            records[name][block] = get(name)[block]
    others = decoded.words.others
    records["packet_type"][others.places] = others.type
    records["timestamp"][others.places] = others.timestamp
    # Of headers these are zero already, and there is little else.
    rest = others.taken(np.flatnonzero(others.type != TIMESTAMP))
    records["trigger_type"][rest.places] = rest.kind
    records["dataword"][rest.places] = rest.clk_source
    return records


class _Eight(NamedTuple):
    """What goes into 8 bytes of a record."""

    #: By how much to shift a packet, to the left, and what of it to keep. Fields whose bits go
    #: the same way move together.
    moves: dict[int, int]
    #: The columns that have values in these bytes, and from which byte on.
    columns: dict[str, int]


@cache
def _plan(codes: tuple[int, ...], dtype: np.dtype[np.void]) -> tuple[list[_Eight], list[str]]:
    """Plan how to put records together.

    Parameters
    ----------
    codes
        Of the chips that there are.
    dtype
        Of a record.

    Returns
    -------
    eights : list of _Eight
        For each 8 bytes of it.
    tail : list of str
        The fields behind those.
    """
    of_columns: Collection[str] = FIELDS
    layout: Layout = {}
    if len(codes) == 1:
        of_columns, layout = _NO_BITS, LAYOUTS[codes[0]]
        if codes == (ASICS["v2-fifo"],):
            of_columns = _NO_BITS | {"fifo_diagnostics_enabled"}
    eights = [_Eight({}, {}) for _ in range(dtype.itemsize // 8)]
    tail = []
    assert dtype.fields is not None
    for name in FIELDS:
        place = dtype.fields[name][1]
        if place + dtype[name].itemsize > 8 * len(eights):
            tail.append(name)
            continue
        moves, columns = eights[place // 8]
        to = 8 * (place % 8)
        assert to + 8 * dtype[name].itemsize <= 64, f"{name} lies across 8 bytes"
        if name in of_columns:
            columns[name] = place % 8
        elif name in layout:
            low, width = layout[name]
            moves[to - low] = moves.get(to - low, 0) | ((1 << width) - 1) << to
    return eights, tail
