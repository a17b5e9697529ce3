"""Addresses of channels and chips: fields, numbers of 30 and 24 bits, and texts."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["CHANNELS", "Address", "chip_keys", "parse", "split"]

#: Channels of a chip.
CHANNELS: Final = 64


class Address(NamedTuple):
    """Addresses of channels or chips, each field u1 and of the same shape."""

    io_group: NDArray[np.uint8]
    io_channel: NDArray[np.uint8]
    chip_id: NDArray[np.uint8]
    channel_id: NDArray[np.uint8]

    def __str__(self) -> str:
        return "-".join(str(int(field)) for field in self)


def split(keys: NDArray[np.integer] | np.integer) -> Address:
    """Return the four fields of keys of 30 bits, of any shape.

    Examples
    --------
    >>> str(split(np.uint32(1 << 22 | 5 << 14 | 33 << 6 | 12)))
    '1-5-33-12'
    """
    fields = (
        np.asarray(keys) >> low & top for low, top in ((22, 255), (14, 255), (6, 255), (0, 63))
    )
    return Address(*(field.astype(np.uint8) for field in fields))


def parse(text: str) -> int:
    """Return the key of an address that is written as `Address` writes it.

    Examples
    --------
    >>> str(split(np.uint32(parse("1-5-33-12"))))
    '1-5-33-12'
    """
    io_group, io_channel, chip_id, channel_id = map(int, text.split("-"))
    return io_group << 22 | io_channel << 14 | chip_id << 6 | channel_id


def chip_keys(
    io_group: NDArray[np.uint8], io_channel: NDArray[np.uint8], chip_id: NDArray[np.uint8]
) -> NDArray[np.uint32]:
    """Return addresses of chips (H,) as numbers of 24 bits.

    Examples
    --------
    >>> hex(chip_keys(*np.array([[1], [5], [33]], "u1"))[0])
    '0x10521'
    """
    chips = io_group.astype(np.uint32)
    chips <<= 8
    chips |= io_channel
    chips <<= 8
    chips |= chip_id
    return chips
