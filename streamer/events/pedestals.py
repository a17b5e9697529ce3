"""Pedestals: what the ADC of each channel reads without charge, and so the charge of a hit."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from streamer.errors import PedestalError
from streamer.geometry import tile_of
from streamer.geometry.documents import read_document

__all__ = ["Pedestals"]

_KEY: Final = re.compile(r"(\d{1,3})-(\d{1,3})-(\d{1,3})-(\d{1,3})")
# The greatest io_group, tile, chip and channel that a packet can have.
_MOST: Final = (255, 64, 255, 63)
_TILES, _CHIPS, _CHANNELS = (most + 1 for most in _MOST[1:])


class Pedestals:
    """The pedestal of each channel, and how to make charge from ADC values.

    The charge of a hit, in ke-, is::

        (adc / 256 * (vref - vcm) + vcm - pedestal) / gain

    and with 1,024 instead of 256 where the ADC has 10 bits (v3).

    Parameters
    ----------
    values
        Pedestals [mV] by ``"io_group-tile-chip-channel"``; tiles count from 1 in each
        io_group, see `streamer.geometry.tile_of`.
    vref, vcm
        Ends of the ADC's range [mV].
    gain
        mV for each ke-.
    default
        Pedestal of channels that are not named [mV]; nan, so that their charge is that too.

    Attributes
    ----------
    n_channels : int
        Channels with a pedestal of their own.
    missing : int
        How many of the hits looked up so far had no pedestal of their own. Set it to 0 to
        start counting again.

    Raises
    ------
    PedestalError
        If a key or value is wrong.

    Notes
    -----
    The numbers that are taken if no others are given are those of 2x2 in lbl-neutrino's
    ``plot_charge_trigger.py``: vref 1568 mV, vcm 478.1 mV, pedestal 580 mV, 4 mV for each ke-.

    Examples
    --------
    >>> pedestals = Pedestals({"1-1-11-0": 500.0})
    >>> columns = [1, 1], [2, 2], [11, 11], [0, 1]
    >>> pedestals.charge(*(np.array(column, "u1") for column in columns), np.array([45, 45]))
    array([42.420998, 22.420996], dtype=float32)
    >>> pedestals.missing
    1
    """

    def __init__(
        self,
        values: Mapping[str, float] | None = None,
        *,
        vref: float = 1568.0,
        vcm: float = 478.1,
        gain: float = 4.0,
        default: float = 580.0,
    ) -> None:
        numbers = {"vref": vref, "vcm": vcm, "gain": gain}
        for name, number in numbers.items():
            if not math.isfinite(number):
                msg = f"{name} is {number!r}, not a finite number"
                raise PedestalError(msg)
        if gain <= 0 or vref <= vcm:
            msg = f"gain {gain} and vref - vcm {vref - vcm} have to be above 0"
            raise PedestalError(msg)
        self.missing = 0
        self._step = vref - vcm
        self._vcm, self._gain = vcm, gain
        addresses, pedestals = _checked(values or {})
        self.n_channels = len(pedestals)
        # From io_group to a part of the table of chips, from there to a row of channels; row 0
        # is that of chips without any.
        present = np.unique(addresses[:, 0])
        self._parts = np.zeros(_MOST[0] + 1, np.intp)
        self._parts[present] = 1 + np.arange(len(present))
        keys = (self._parts[addresses[:, 0]] * _TILES + addresses[:, 1]) * _CHIPS + addresses[:, 2]
        chips, rows = np.unique(keys, return_inverse=True)
        self._rows = np.zeros((1 + len(present)) * _TILES * _CHIPS, np.int32)
        self._rows[chips] = 1 + np.arange(len(chips))
        self._named = np.zeros((1 + len(chips), _CHANNELS), np.bool)
        self._named[1 + rows, addresses[:, 3]] = True
        self._table = np.full((1 + len(chips), _CHANNELS), default)
        self._table[1 + rows, addresses[:, 3]] = pedestals

    @classmethod
    def load(cls, path: str | os.PathLike[str], **options: float) -> Self:
        """Return the pedestals in a file of JSON or YAML.

        Parameters
        ----------
        path
            Its keys are ``"io_group-tile-chip-channel"``, its values pedestals.
        **options
            As in `Pedestals`: ``vref``, ``vcm``, ``gain``, ``default``.

        Raises
        ------
        PedestalError
            If it cannot be read, is not such a file, or has a key twice.

        Examples
        --------
        >>> from pathlib import Path
        >>> _ = Path("pedestals.json").write_text('{"1-1-11-0": 580.2, "1-1-11-1": 575.9}')
        >>> Pedestals.load("pedestals.json").n_channels
        2
        """
        values: dict[Any, Any] = read_document(path, kind="file of pedestals", error=PedestalError)
        try:
            return cls(values, **options)
        except PedestalError as error:
            msg = f"{os.fspath(path)}: {error}"
            raise PedestalError(msg) from error

    def charge(
        self,
        io_group: NDArray[np.integer],
        io_channel: NDArray[np.integer],
        chip_id: NDArray[np.integer],
        channel_id: NDArray[np.integer],
        adc: NDArray[np.integer],
        *,
        ten_bits: NDArray[np.bool_] | bool = False,
    ) -> NDArray[np.float32]:
        """Return the charge of hits, and count those of channels without a pedestal.

        Parameters
        ----------
        io_group, io_channel, chip_id, channel_id
            (H,) integers that a packet can have.
        adc
            (H,) integers: ADC values.
        ten_bits
            (H,) bool: whether the ADC has 10 bits and not 8; or one for all.

        Returns
        -------
        numpy.ndarray
            (H,) f4 [ke-].
        """
        tile = tile_of(io_channel)
        row = self._rows[(self._parts[io_group] * _TILES + tile) * _CHIPS + chip_id]
        self.missing += len(row) - int(np.count_nonzero(self._named[row, channel_id]))
        share = adc / np.where(ten_bits, 1024.0, 256.0)
        millivolts = share * self._step + self._vcm - self._table[row, channel_id]
        charge: NDArray[np.float32] = (millivolts / self._gain).astype(np.float32)
        return charge


def _checked(values: Mapping[Any, Any]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the addresses (N, 4) and pedestals (N,)."""
    addresses = np.zeros((len(values), 4), np.int64)
    pedestals = np.zeros(len(values))
    for k, (key, value) in enumerate(values.items()):
        match = _KEY.fullmatch(key) if isinstance(key, str) else None
        numbers = tuple(map(int, match.groups())) if match else ()
        if not match or any(n > most for n, most in zip(numbers, _MOST, strict=True)):
            msg = f"the key {key!r} is not an io_group-tile-chip-channel, such as 1-1-11-0"
            raise PedestalError(msg)
        if isinstance(value, bool) or not isinstance(value, int | float):
            msg = f"the pedestal of {key} is {value!r}, not a number of mV"
            raise PedestalError(msg)
        if not math.isfinite(value):
            msg = f"the pedestal of {key} is {value!r}, not a number of mV"
            raise PedestalError(msg)
        addresses[k], pedestals[k] = numbers, value
    return addresses, pedestals
