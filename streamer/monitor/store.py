"""Arrays over the chips that were seen, and the channels of each.

The address of a channel is an io_group, io_channel, chip_id and channel_id: 30 bits. A chip,
which has up to 64 channels, is given a number when it is first seen, and counters are arrays
over these numbers and channels. So memory grows with the chips that there are, whatever their
addresses.

But a packet whose address was damaged on its way names any chip. It has invalid parity, if one
bit is wrong: so a chip is given a number when a packet with valid parity has named it. What was
counted of it before, or of one that does not exist, is kept sparsely: as strays.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streamer.monitor.addresses import CHANNELS
from streamer.monitor.places import Places, zeros
from streamer.monitor.recent import REST
from streamer.monitor.sparse import Entries, Sparse

__all__ = ["CHANNEL_COUNTERS", "CHIP_COUNTERS", "FEW", "PACKED", "Store"]

#: What is counted of a channel: data packets; over those with valid parity, sums of dataword
#: and of its square; and what `FEW` has.
CHANNEL_COUNTERS: Final = (
    "data",
    "adc_sum",
    "adc_square_sum",
    "data_parity_errors",
    "local_fifo_half",
    "local_fifo_full",
    "shared_fifo_half",
    "shared_fifo_full",
)
#: Data packets with invalid parity, and with FIFO flags, by bits: usually few.
FEW: Final = CHANNEL_COUNTERS[3:]
#: What is counted of a chip besides: packets that are no data, and those of them that write or
#: read a register and have invalid parity.
CHIP_COUNTERS: Final = (
    "test",
    "write_upstream",
    "write_downstream",
    "read_upstream",
    "read_downstream",
    "config_parity_errors",
)

#: How many of the counters of a channel are in one number.
PACKED: Final = 3
_CHIPS = 1 << 24
# The first room, and how much more there is when it is too little.
_ROOM, _GROWTH = 64, 2


class Store:
    """Counters by chip and channel, with room for more chips.

    Parameters
    ----------
    spans
        How many of the newest spans of time are counted apart.

    Attributes
    ----------
    packed, few, few_sums : NDArray
        As of `streamer.monitor.places.Places`.
    spills : Sparse
        What was taken out of `packed`, by slot and place.
    sums : NDArray
        (3, chips, 64) i8: of the counters that are packed, what is in no slot any more.
    strays : Sparse
        By slot and address of a channel, the counters of `FEW`: data packets with invalid
        parity of chips that have no number, and their FIFO flags.
    stray_chips : Sparse
        By address, without slots, the `CHIP_COUNTERS` of all chips that have no number.
    changes : NDArray
        (1 + spans,) i8: how often something in a slot may have changed.

    Examples
    --------
    >>> store = Store(spans=2)
    >>> store.numbers(np.array([0x10521, 0x10520, 0x10521], "u4")).tolist()
    [2, 1, 2]
    >>> [hex(chip) for chip in store.chips]
    ['0x10520', '0x10521']
    """

    def __init__(self, spans: int) -> None:
        self.spans = spans
        self._chips = zeros((_CHIPS,), np.int32)
        # By the numbers of chips, which begin with 1.
        self.chip_keys = np.zeros(_ROOM, np.uint32)
        self._chip_sums = np.zeros((_ROOM, len(CHIP_COUNTERS)), np.int64)
        self._count = 1
        self.packed = zeros((1 + spans, _ROOM, CHANNELS), np.int64)
        self.spills, self.strays, self.stray_chips = Sparse(), Sparse(), Sparse()
        self.few = zeros((len(FEW), 1 + spans, _ROOM, CHANNELS), np.uint32)
        self.sums = zeros((PACKED, _ROOM, CHANNELS), np.int64)
        self.few_sums = zeros((len(FEW), _ROOM, CHANNELS), np.int64)
        self.changes = np.zeros(1 + spans, np.int64)

    @property
    def chips(self) -> NDArray[np.uint32]:
        """(D,) u4: keys of all chips that have a number, in the order of these."""
        return self.chip_keys[1 : self._count]

    @property
    def chip_sums(self) -> NDArray[np.int64]:
        """(D, len(CHIP_COUNTERS)) i8: what was counted of them."""
        return self._chip_sums[1 : self._count]

    @property
    def places(self) -> Places:
        """Where to count packets of chips that have a number; the slots are to be touched."""
        return Places(self._chips, self.packed, self.few, self.few_sums)

    def numbers(self, chips: NDArray[np.uint32]) -> NDArray[np.int32]:
        """Return the numbers of chips (H,) by their keys; those that are new are given one."""
        found = self._chips.take(chips)
        if len(found) and found.min() == 0:
            new = np.unique(chips[found == 0])
            stop = self._count + len(new)
            if stop > len(self.chip_keys):
                self._grow(max(stop, _GROWTH * len(self.chip_keys)))
            self.chip_keys[self._count : stop] = new
            self._chips[new] = np.arange(self._count, stop)
            self._count = stop
            found = self._chips.take(chips)
            self._take_over()
        return found

    def known(self, chips: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Tell which chips (H,) have a number, by their keys."""
        return self._chips.take(chips) > 0

    def _take_over(self) -> None:
        """Count as all others what there is in strays of chips that have a number by now."""
        strays = self.stray_chips.read()
        known = self.known(strays.places)
        if not known.any():
            return
        self.stray_chips.drop(known)
        _, chips, counters, counts = strays.where(known)
        np.add.at(self._chip_sums, (self._chips[chips], counters), counts)
        strays = self.strays.read()
        known = self.known(strays.places >> 6)
        self.strays.drop(known)
        slots, places, counters, counts = strays = strays.where(known)
        # From here on by number.
        places[:] = self._chips[places >> 6].astype(np.int64) << 6 | places & 63
        np.add.at(self.few_sums.reshape(len(FEW), -1), (counters, places), counts)
        few = self.few.reshape(*self.few.shape[:2], -1)
        kept = slots != REST
        few[counters[kept], slots[kept], places[kept]] += counts[kept].astype(np.uint32)
        # All of them have invalid parity, so as many are data packets.
        self.put(strays.where(counters == 0))

    def spilled(self, slot: int, chips: NDArray[np.integer]) -> Entries:
        """Return what was spilled in a slot of chips with these numbers."""
        spilled = self.spills.read(slot)
        if not len(spilled.places):  # nearly always
            return spilled
        return spilled.where(np.isin(spilled.places >> 6, chips))

    def put(self, entries: Entries) -> None:
        """Add to the counters that are packed."""
        is_old = entries.slots == REST
        _, places, counters, counts = entries.where(is_old)
        np.add.at(self.sums.reshape(PACKED, -1), (counters, places), counts)
        self.spills.add(*entries.where(~is_old))

    def _grow(self, room: int) -> None:
        self.chip_keys = _longer(self.chip_keys, 0, room, self._count)
        self._chip_sums = _longer(self._chip_sums, 0, room, self._count)
        self.packed = _longer(self.packed, 1, room, self._count)
        self.few = _longer(self.few, 2, room, self._count)
        self.sums = _longer(self.sums, 1, room, self._count)
        self.few_sums = _longer(self.few_sums, 1, room, self._count)

    def chips_seen(self) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Return keys of all chips that were seen (D,), ascending, and `CHIP_COUNTERS` (D, 6)."""
        strays = self.stray_chips.read()
        chips, which = np.unique(strays.places, return_inverse=True)
        sums = np.zeros((len(chips), len(CHIP_COUNTERS)), np.int64)
        np.add.at(sums, (which, strays.counters), strays.counts)
        keys = np.append(self.chips, chips.astype(np.uint32))
        order = np.argsort(keys)
        return keys[order], np.concatenate([self.chip_sums, sums])[order]

    def __getstate__(self) -> dict[str, Any]:
        # Without the room for what is to come, nor what can be found again.
        count = self._count
        state = self.__dict__ | {
            "chip_keys": self.chip_keys[:count].copy(),
            "_chip_sums": self._chip_sums[:count].copy(),
            "packed": self.packed[:, :count].copy(),
            "few": self.few[:, :, :count].copy(),
            "sums": self.sums[:, :count].copy(),
            "few_sums": self.few_sums[:, :count].copy(),
        }
        del state["_chips"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._chips = zeros((_CHIPS,), np.int32)
        self._chips[self.chips] = np.arange(1, self._count)


def _longer(array: NDArray[Any], axis: int, room: int, used: int) -> NDArray[Any]:
    """Return an array with room for more along an axis."""
    longer = zeros((*array.shape[:axis], room, *array.shape[axis + 1 :]), array.dtype)
    # Part by part, and only where something is: pages that were not written to take no memory.
    for part in np.ndindex(array.shape[:axis]):
        found = array[part][:used]
        if found.any():
            longer[part][:used] = found
    return longer
