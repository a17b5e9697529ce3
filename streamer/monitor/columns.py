"""Summing up what was counted by channel."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.monitor.addresses import CHANNELS
from streamer.monitor.places import unpacked
from streamer.monitor.recent import REST
from streamer.monitor.store import CHANNEL_COUNTERS, PACKED, Store

__all__ = ["Columns", "Reader"]

# Chips that are summed up at a time: their counters are in the processor's cache meanwhile.
_BLOCK: Final = 256


class Columns(NamedTuple):
    """Counters of all channels that were seen, ordered by address."""

    #: (C,) u4: numbers of 30 bits, see `streamer.monitor.addresses.split`.
    keys: NDArray[np.uint32]
    #: By name, (C,) i8: in chosen slots, and since the beginning.
    recent: dict[str, NDArray[np.int64]]
    total: dict[str, NDArray[np.int64]]


class Reader:
    """Sums up counters, and keeps what was recent the last time.

    Examples
    --------
    See `streamer.monitor.channels.Channels`.

    >>> Reader().read(Store(spans=1), np.ones((256, 2), bool)).keys
    array([], dtype=uint32)
    """

    def __init__(self) -> None:
        self._last: tuple[object, dict[str, NDArray[np.int64]]] | None = None

    def read(self, store: Store, chosen: NDArray[np.bool_]) -> Columns:
        """Sum up the counters of all channels.

        Parameters
        ----------
        store
            The same each time.
        chosen
            (256, 1 + spans): which slots count as recent, by io_group.

        Returns
        -------
        Columns
            Read-only: what has not changed is the same arrays as the last time.
        """
        order = 1 + np.argsort(store.chips)
        blocks = [order[start : start + _BLOCK] for start in range(0, len(order), _BLOCK)]
        # With room for every channel of every chip: of the same size, memory is used again.
        size = len(order) * CHANNELS
        keys, total, count, seen = np.empty(size, np.uint32), _columns(size), 0, []
        for chips in blocks:
            found = np.concatenate([store.sums[:, chips], store.few_sums[:, chips]])
            for slot in range(1 + store.spans):
                _add(found, store, slot, chips, None)
            places = np.flatnonzero(found[0])
            seen.append(places)
            some = slice(count, count + len(places))
            keys[some] = store.chip_keys[chips[places >> 6]] << np.uint32(6)
            keys[some] |= (places & 63).astype(np.uint32)
            _take(found, places, total, some)
            count = some.stop
        # What is recent changes only when a span ends, or something in it comes late.
        state = (count, chosen.tobytes(), store.changes[chosen.any(axis=0)].tobytes())
        if self._last is None or self._last[0] != state:
            self._last = state, _named(_recent(store, chosen, blocks, seen, size), count)
        return Columns(keys[:count], self._last[1], _named(total, count))

    def __getstate__(self) -> dict[str, None]:
        return {"_last": None}


def _recent(
    store: Store,
    chosen: NDArray[np.bool_],
    blocks: list[NDArray[np.int64]],
    seen: list[NDArray[np.int64]],
    size: int,
) -> list[NDArray[np.int64]]:
    """Return what is in chosen slots, of blocks of chips the places that were seen."""
    columns, count = _columns(size), 0
    for chips, places in zip(blocks, seen, strict=True):
        found = np.zeros((len(CHANNEL_COUNTERS), len(chips), CHANNELS), np.int64)
        by_chip = chosen[store.chip_keys[chips] >> 16]
        for slot in np.flatnonzero(by_chip.any(axis=0)).tolist():
            _add(found, store, slot, chips, by_chip[:, slot])
        _take(found, places, columns, slice(count, count + len(places)))
        count += len(places)
    return columns


def _add(
    found: NDArray[np.int64],
    store: Store,
    slot: int,
    chips: NDArray[np.int64],
    some: NDArray[np.bool_] | None,
) -> None:
    """Add a slot to counters (8, D, 64) of chips (D,); or of some of them, also the few."""
    packed = store.packed[slot, chips]
    if some is not None and not some.all():
        packed *= some[:, np.newaxis]
    for counter in range(PACKED if packed.any() else 0):
        found[counter] += unpacked(packed, counter)
    places, counts = store.spilled(slot, chips if some is None else chips[some])
    if len(places):
        by_number = np.argsort(chips)
        rows = by_number[np.searchsorted(chips, places >> 6, sorter=by_number)]
        found[:PACKED, rows, places & 63] += counts.T
    if some is not None and slot != REST:
        few = store.few[:, slot, chips]
        found[PACKED:] += few if some.all() else few * some[:, np.newaxis]


def _columns(size: int) -> list[NDArray[np.int64]]:
    return [np.empty(size, np.int64) for _ in CHANNEL_COUNTERS]


def _take(
    found: NDArray[np.int64],
    places: NDArray[np.int64],
    columns: list[NDArray[np.int64]],
    some: slice,
) -> None:
    """Copy counters (8, D, 64) at places into a part of columns."""
    for column, values in zip(columns, found, strict=True):
        values.take(places, out=column[some], mode="clip")


def _named(columns: list[NDArray[np.int64]], count: int) -> dict[str, NDArray[np.int64]]:
    """Return the first values of columns by name, read-only."""
    named = {name: column[:count] for name, column in zip(CHANNEL_COUNTERS, columns, strict=True)}
    for column in named.values():
        column.setflags(write=False)
    return named
