"""The 64 bits of a LArPix packet: where its fields lie, by kind of chip, and packing.

A chip sends a packet, which travels in a DATA word of either wire (`writer.pacman`,
`writer.pacman24`). The layouts are those of larpix-control (``packet_v2.py``,
``packet_v3.py``), and fields bear its names. LightPix v1 sends v2 packets.

>>> hit = pack(DATA_BITS, chip_id=11, channel_id=3, timestamp=1_000, dataword=42)
>>> hex(hit), bool(parity_ok(hit))
('0x802a000003e80c2c', True)
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from writer.fields import within

__all__ = [
    "Layout",
    "PacketType",
    "DATA_BITS",
    "FIFO_DATA_BITS",
    "V3_DATA_BITS",
    "CONFIG_BITS",
    "V3_CONFIG_BITS",
    "pack",
    "parity_ok",
    "with_parity",
]

#: Names of fields, their lowest bit, and how many bits they have.
Layout = Mapping[str, tuple[int, int]]


class PacketType(IntEnum):
    """The type of a packet: the two lowest bits of those that LArPix chips send.

    LArPix v3 sends data as V3_DATA, and has no test packets. Those from TIMESTAMP on no chip
    sends: packets files number the header of a message, a text, and the SYNC and TRIG words
    of a card so.

    >>> PacketType(3).name, PacketType.V3_DATA == PacketType.TEST
    ('CONFIG_READ', True)
    """

    DATA = 0
    TEST = 1
    V3_DATA = 1
    CONFIG_WRITE = 2
    CONFIG_READ = 3
    TIMESTAMP = 4
    MESSAGE = 5
    SYNC = 6
    TRIGGER = 7


#: Fields of data and test packets: their lowest bit, and how many bits they have. In
#: ``local_fifo`` (the channel's) and ``shared_fifo`` (the chip's) bit 0 means more than half
#: full and bit 1 full; ``timestamp`` counts ticks.
DATA_BITS: Final = {
    "packet_type": (0, 2),
    "chip_id": (2, 8),
    "channel_id": (10, 6),
    "timestamp": (16, 31),
    "first_packet": (47, 1),
    "dataword": (48, 8),
    "trigger_type": (56, 2),
    "local_fifo": (58, 2),
    "shared_fifo": (60, 2),
    "downstream_marker": (62, 1),
    "parity": (63, 1),
}

#: The same of a chip in FIFO diagnostics mode, which shortens the timestamp and counts what
#: its FIFOs hold. A packet does not say that its chip is in this mode.
FIFO_DATA_BITS: Final = DATA_BITS | {
    "timestamp": (16, 16),
    "shared_fifo_events": (32, 12),
    "local_fifo_events": (44, 2),
}

#: Fields of data packets of LArPix v3, whose `packet_type` is `PacketType.V3_DATA`.
V3_DATA_BITS: Final = {
    "packet_type": (0, 2),
    "chip_id": (2, 8),
    "channel_id": (10, 6),
    "timestamp": (16, 28),
    "reset_sample_flag": (44, 1),
    "cds_flag": (45, 1),
    "dataword": (46, 10),
    "trigger_type": (56, 2),
    "local_fifo": (58, 2),
    "shared_fifo": (60, 2),
    "downstream_marker": (62, 1),
    "parity": (63, 1),
}

#: Fields of packets that write or read a register of a chip, as `DATA_BITS`.
CONFIG_BITS: Final = {
    "packet_type": (0, 2),
    "chip_id": (2, 8),
    "register_address": (10, 8),
    "register_data": (18, 8),
    "downstream_marker": (62, 1),
    "parity": (63, 1),
}

#: The same of LArPix v3, which wants a magic number in what is written.
V3_CONFIG_BITS: Final = CONFIG_BITS | {"magic_word": (26, 32)}

_PARITY = np.uint64(1 << 63)


def pack(layout: Layout, **fields: ArrayLike) -> NDArray[np.uint64]:
    """Pack LArPix packets, with valid parity.

    Parameters
    ----------
    layout
        One of the ``..._BITS``.
    **fields
        Integers or integer arrays whose shapes broadcast, for any of the layout's fields but
        ``parity``. What is left out is zero.

    Returns
    -------
    NDArray
        Packets, u8, of the broadcast shape.

    Raises
    ------
    TypeError
        If the layout has no such field, or a value is no integer.
    ValueError
        If a value does not fit into its field.

    Examples
    --------
    >>> hits = pack(DATA_BITS, chip_id=11, channel_id=[0, 63], timestamp=7, dataword=200)
    >>> [hex(packet) for packet in hits.tolist()]
    ['0xc800000007002c', '0xc800000007fc2c']
    >>> read = PacketType.CONFIG_READ
    >>> hex(pack(CONFIG_BITS, packet_type=read, chip_id=12, register_address=64))
    '0x10033'
    """
    packets = np.zeros((), np.uint64)
    for name, values in fields.items():
        if name == "parity" or name not in layout:
            msg = f"a packet of this layout has no field {name!r} to set"
            raise TypeError(msg)
        start, width = layout[name]
        column = within(name, values, (1 << width) - 1).astype(np.uint64)
        packets = packets | column << np.uint64(start)
    return with_parity(packets)


def with_parity(packets: ArrayLike) -> NDArray[np.uint64]:
    """Set bit 63 of packets (u8, any shape) so that an odd number of all 64 bits is set.

    >>> [hex(packet) for packet in with_parity([0, 1, 3]).tolist()]
    ['0x8000000000000000', '0x1', '0x8000000000000003']
    """
    body = np.asarray(packets, np.uint64) & ~_PARITY
    return body | np.logical_not(parity_ok(body)).astype(np.uint64) << np.uint64(63)


def parity_ok(packets: ArrayLike) -> NDArray[np.bool]:
    """Tell for packets (u8, any shape) whether an odd number of all 64 bits is set.

    >>> parity_ok([0, 1, 3]).tolist()
    [False, True, False]
    """
    ones: NDArray[np.uint8] = np.bitwise_count(np.asarray(packets, np.uint64))
    return (ones & 1).astype(np.bool)
