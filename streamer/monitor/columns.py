"""Summing up what was counted by channel."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.monitor.addresses import CHANNELS
from streamer.monitor.places import unpacked
from streamer.monitor.recent import REST
from streamer.monitor.sparse import Entries
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


class _Block(NamedTuple):
    """Some chips that follow on each other, and what was seen of them."""

    #: (D,): their numbers.
    chips: NDArray[np.int64]
    #: (K,): the channels that were seen, as in arrays (D, 64).
    places: NDArray[np.int64]
    #: Where these are in columns.
    rows: slice | NDArray[np.int64]


class _Strays(NamedTuple):
    """What was counted of chips that have no number."""

    entries: Entries
    #: Which channel each of them is of.
    which: NDArray[np.int64]
    #: (M,): where these channels are in columns.
    rows: NDArray[np.int64]


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
        entries = store.strays.read()
        strays, which = np.unique(entries.places, return_inverse=True)
        # How many of these are before each chip; none is between channels of one.
        before = np.searchsorted(strays >> 6, store.chip_keys[order])
        # With room for every channel of every chip: of the same size, memory is used again.
        size = len(order) * CHANNELS + len(strays)
        keys, total, count, blocks = np.empty(size, np.uint32), _columns(size), 0, []
        is_stray = np.ones(size, np.bool_)
        for start in range(0, len(order), _BLOCK):
            chips = order[start : start + _BLOCK]
            found = np.concatenate([store.sums[:, chips], store.few_sums[:, chips]])
            for slot in range(1 + store.spans):
                _add(found, store, slot, chips, None)
            places = np.flatnonzero(found[0])
            rows = _rows(count, before[start : start + _BLOCK], places)
            keys[rows] = store.chip_keys[chips[places >> 6]] << np.uint32(6)
            keys[rows] |= (places & 63).astype(np.uint32)
            is_stray[rows] = False
            blocks.append(_Block(chips, places, rows))
            _take(found, blocks[-1], total)
            count += len(places)
        count += len(strays)
        outside = _Strays(entries, which, np.flatnonzero(is_stray[:count]))
        keys[outside.rows] = strays
        _take_strays(outside, total, None)
        # What is recent changes only when a span ends, or something in it comes late.
        state = (count, chosen.tobytes(), store.changes[chosen.any(axis=0)].tobytes())
        if self._last is None or self._last[0] != state:
            self._last = state, _named(_recent(store, chosen, blocks, outside, size), count)
        return Columns(keys[:count], self._last[1], _named(total, count))

    def __getstate__(self) -> dict[str, None]:
        return {"_last": None}


def _recent(
    store: Store,
    chosen: NDArray[np.bool_],
    blocks: list[_Block],
    strays: _Strays,
    size: int,
) -> list[NDArray[np.int64]]:
    """Return what is in chosen slots."""
    columns = _columns(size)
    for block in blocks:
        chips = block.chips
        found = np.zeros((len(CHANNEL_COUNTERS), len(chips), CHANNELS), np.int64)
        by_chip = chosen[store.chip_keys[chips] >> 16]
        for slot in np.flatnonzero(by_chip.any(axis=0)).tolist():
            _add(found, store, slot, chips, by_chip[:, slot])
        _take(found, block, columns)
    _take_strays(strays, columns, chosen)
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
    _, places, counters, counts = store.spilled(slot, chips if some is None else chips[some])
    if len(places):
        by_number = np.argsort(chips)
        rows = by_number[np.searchsorted(chips, places >> 6, sorter=by_number)]
        found[counters, rows, places & 63] += counts
    if some is not None and slot != REST:
        few = store.few[:, slot, chips]
        found[PACKED:] += few if some.all() else few * some[:, np.newaxis]


def _columns(size: int) -> list[NDArray[np.int64]]:
    return [np.empty(size, np.int64) for _ in CHANNEL_COUNTERS]


def _rows(
    first: int, strays: NDArray[np.int64], places: NDArray[np.int64]
) -> slice | NDArray[np.int64]:
    """Return the rows of channels, from one on, when so many strays are before each chip."""
    first += int(strays[0])
    if strays[0] == strays[-1]:
        return slice(first, first + len(places))
    rows = np.arange(first, first + len(places))
    rows += (strays - strays[0])[places >> 6]
    return rows


def _take(found: NDArray[np.int64], block: _Block, columns: list[NDArray[np.int64]]) -> None:
    """Copy from the counters of a block, (8, D, 64), into columns."""
    for column, values in zip(columns, found, strict=True):
        if isinstance(block.rows, slice):
            values.take(block.places, out=column[block.rows], mode="clip")
        else:
            column[block.rows] = values.take(block.places)


def _take_strays(
    strays: _Strays, columns: list[NDArray[np.int64]], chosen: NDArray[np.bool_] | None
) -> None:
    """Sum up strays into columns; or those in chosen slots, by io_group."""
    (slots, places, counters, counts), which, rows = strays
    if not len(rows):
        return
    if chosen is not None:
        counts = counts * chosen[places >> 22, slots]
    for column in columns[:PACKED]:
        column[rows] = 0
    for counter, column in enumerate(columns[PACKED:]):
        values = np.zeros(len(rows), np.int64)
        some = counters == counter
        np.add.at(values, which[some], counts[some])
        column[rows] = values
        if counter == 0:  # they have invalid parity, so as many are data packets
            columns[0][rows] = values


def _named(columns: list[NDArray[np.int64]], count: int) -> dict[str, NDArray[np.int64]]:
    """Return the first values of columns by name, read-only."""
    named = {name: column[:count] for name, column in zip(CHANNEL_COUNTERS, columns, strict=True)}
    for column in named.values():
        column.setflags(write=False)
    return named
