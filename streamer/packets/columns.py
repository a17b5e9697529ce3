"""Each column of packets, from their bits: pure, and computed only when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from streamer.packets.decoded import ASICS, LAYOUTS, Decoded
from writer.larpix import Layout, PacketType

__all__ = ["COLUMNS", "Column", "Columns", "Compute"]

_FIFO, _V3 = ASICS["v2-fifo"], ASICS["v3"]

Column = NDArray[Any]

#: Computes a column; may ask for another one by its name.
Compute = Callable[[Decoded, Callable[[str], Column]], Column]


# Parts of a packet: the first byte, and how many. Each field lies in one of them.
_PARTS: Final = ((0, 2), (2, 2), (4, 2), (6, 2), (0, 4), (2, 4), (4, 4))


def _container(low: int, width: int) -> tuple[int, int]:
    """Return the first part that holds a field."""
    return next(
        (first, size)
        for first, size in _PARTS
        if 8 * first <= low and low + width <= 8 * (first + size)
    )


def _part(first: int, size: int) -> Compute:
    """Make what copies a part of each packet: numpy is fast with what lies together."""
    parts = np.dtype(
        {"names": ["part"], "formats": [f"<u{size}"], "offsets": [first], "itemsize": 8}
    )
    return lambda decoded, _: decoded.words.packets.view(parts)["part"].copy()


def _extracted(
    layout: Layout, name: str, dtype: np.dtype[Any], get: Callable[[str], Column]
) -> Column:
    """Return a field of each packet."""
    low, width = layout[name]
    first, size = _container(low, width)
    part, shift = get(f"_part_{first}_{size}"), low - 8 * first
    column: Column = part >> shift if shift else part
    if shift + width < 8 * size and width < 8 * dtype.itemsize:
        column = column & ((1 << width) - 1)
    return column.astype(dtype)


def _bits(name: str, dtype: DTypeLike) -> Compute:
    """Make what computes a field of packets."""
    made = np.dtype(dtype)

    def compute(decoded: Decoded, get: Callable[[str], Column]) -> Column:
        codes = decoded.codes
        layouts = [LAYOUTS[code] for code in codes]
        if len(codes) == 1 and name in layouts[0]:
            return _extracted(layouts[0], name, made, get)
        column: Column = np.zeros(len(decoded.words.packets), made)
        for code, layout in zip(codes, layouts, strict=True):
            if len(codes) > 1 and name in layout:
                where = decoded.spread(decoded.asics == code)
                np.copyto(column, _extracted(layout, name, made, get), where=where)
        return column

    return compute


def _with_others(compute: Compute, name: str) -> Compute:
    """Make what computes a column that packets of no chip have a value in too."""

    def overlaid(decoded: Decoded, get: Callable[[str], Column]) -> Column:
        column = compute(decoded, get)
        values = getattr(decoded.words.others, name)
        # Zero is there already.
        some = np.flatnonzero(values)
        column[decoded.words.others.places[some]] = values[some]
        return column

    return overlaid


def _zeros(dtype: DTypeLike) -> Compute:
    return lambda decoded, _: np.zeros(len(decoded.words.packets), dtype)


def _of_message(name: str) -> Compute:
    return lambda decoded, _: decoded.spread(getattr(decoded, name))


def _of_type(*types: PacketType) -> Compute:
    def compute(_: Decoded, get: Callable[[str], Column]) -> Column:
        found: Column = get("packet_type") == types[0]
        for one in types[1:]:
            found |= get("packet_type") == one
        return found

    return compute


def _dataword(decoded: Decoded, get: Callable[[str], Column]) -> Column:
    return _bits("dataword", "<u2" if decoded.is_wide else "u1")(decoded, get)


def _valid_parity(decoded: Decoded, _: Callable[[str], Column]) -> Column:
    # What no chip made has no bit set, which is not valid.
    column: Column = np.bitwise_count(decoded.words.packets)
    column &= 1
    return column


def _fifo_diagnostics_enabled(decoded: Decoded, _: Callable[[str], Column]) -> Column:
    column = decoded.spread((decoded.asics == _FIFO).astype(np.uint8))
    column[decoded.words.others.places] = 0
    return column


def _is_v3(decoded: Decoded, _: Callable[[str], Column]) -> Column:
    column = decoded.spread(decoded.asics == _V3)
    column[decoded.words.others.places] = False
    return column


def _is_data(decoded: Decoded, get: Callable[[str], Column]) -> Column:
    types: Column = np.array(PacketType.DATA)
    if decoded.codes == (_V3,):
        types = np.array(PacketType.V3_DATA)
    elif _V3 in decoded.codes:
        types = np.where(get("is_v3"), np.uint8(PacketType.V3_DATA), np.uint8(PacketType.DATA))
    found: Column = get("packet_type") == types
    return found


def _is_test(decoded: Decoded, get: Callable[[str], Column]) -> Column:
    found: Column = get("packet_type") == PacketType.TEST
    if _V3 in decoded.codes:
        found &= ~get("is_v3")
    return found


#: How each column is computed, and the parts of packets from which several are.
COLUMNS: Final[dict[str, Compute]] = {
    **{f"_part_{first}_{size}": _part(first, size) for first, size in _PARTS},
    "io_group": _of_message("io_groups"),
    "io_channel": lambda decoded, _: decoded.words.io_channels,
    "chip_id": _bits("chip_id", "u1"),
    "packet_type": _with_others(_bits("packet_type", "u1"), "type"),
    "downstream_marker": _bits("downstream_marker", "u1"),
    "parity": _bits("parity", "u1"),
    "valid_parity": _valid_parity,
    "channel_id": _bits("channel_id", "u1"),
    "timestamp": _with_others(_bits("timestamp", "<u8"), "timestamp"),
    "dataword": _with_others(_dataword, "clk_source"),
    "trigger_type": _with_others(_bits("trigger_type", "u1"), "kind"),
    "local_fifo": _bits("local_fifo", "u1"),
    "shared_fifo": _bits("shared_fifo", "u1"),
    "register_address": _bits("register_address", "u1"),
    "register_data": _bits("register_data", "u1"),
    "direction": _zeros("u1"),
    "local_fifo_events": _bits("local_fifo_events", "u1"),
    "shared_fifo_events": _bits("shared_fifo_events", "<u2"),
    "counter": _zeros("<u4"),
    "fifo_diagnostics_enabled": _fifo_diagnostics_enabled,
    "first_packet": _bits("first_packet", "u1"),
    "receipt_timestamp": lambda decoded, _: decoded.words.receipts,
    "reset_sample_flag": _bits("reset_sample_flag", "u1"),
    "cds_flag": _bits("cds_flag", "u1"),
    "row": _of_message("rows"),
    "time": _of_message("seconds"),
    "is_data": _is_data,
    "is_test": _is_test,
    "is_config_write": _of_type(PacketType.CONFIG_WRITE),
    "is_config_read": _of_type(PacketType.CONFIG_READ),
    "is_config": _of_type(PacketType.CONFIG_WRITE, PacketType.CONFIG_READ),
    "is_timestamp": _of_type(PacketType.TIMESTAMP),
    "is_message": _of_type(PacketType.MESSAGE),
    "is_sync": _of_type(PacketType.SYNC),
    "is_trigger": _of_type(PacketType.TRIGGER),
    "is_v3": _is_v3,
}


class Columns:
    """Columns of packets, one value a packet: computed when asked for, then kept, read-only.

    Parameters
    ----------
    decoded
        What they are computed from.

    Notes
    -----
    What each means is told in `streamer.packets.Packets`.
    """

    io_group: NDArray[np.uint8]
    io_channel: NDArray[np.uint8]
    chip_id: NDArray[np.uint8]
    packet_type: NDArray[np.uint8]
    downstream_marker: NDArray[np.uint8]
    parity: NDArray[np.uint8]
    valid_parity: NDArray[np.uint8]
    channel_id: NDArray[np.uint8]
    timestamp: NDArray[np.uint64]
    dataword: NDArray[np.unsignedinteger]
    trigger_type: NDArray[np.uint8]
    local_fifo: NDArray[np.uint8]
    shared_fifo: NDArray[np.uint8]
    register_address: NDArray[np.uint8]
    register_data: NDArray[np.uint8]
    direction: NDArray[np.uint8]
    local_fifo_events: NDArray[np.uint8]
    shared_fifo_events: NDArray[np.uint16]
    counter: NDArray[np.uint32]
    fifo_diagnostics_enabled: NDArray[np.uint8]
    first_packet: NDArray[np.uint8]
    receipt_timestamp: NDArray[np.unsignedinteger]
    reset_sample_flag: NDArray[np.uint8]
    cds_flag: NDArray[np.uint8]
    row: NDArray[np.int64]
    time: NDArray[np.int64]
    is_data: NDArray[np.bool_]
    is_test: NDArray[np.bool_]
    is_config_write: NDArray[np.bool_]
    is_config_read: NDArray[np.bool_]
    is_config: NDArray[np.bool_]
    is_timestamp: NDArray[np.bool_]
    is_message: NDArray[np.bool_]
    is_sync: NDArray[np.bool_]
    is_trigger: NDArray[np.bool_]
    is_v3: NDArray[np.bool_]

    def __init__(self, decoded: Decoded) -> None:
        self.decoded = decoded

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *Columns.__annotations__})

    def __getattr__(self, name: str) -> Any:
        if name not in COLUMNS:
            msg = f"{type(self).__name__!r} object has no attribute {name!r}"
            raise AttributeError(msg)
        column = COLUMNS[name](self.decoded, partial(getattr, self))
        column.setflags(write=False)
        # Kept as a plain attribute, which is found before this method is asked.
        self.__dict__[name] = column
        return column
