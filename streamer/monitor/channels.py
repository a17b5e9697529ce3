"""Counting packets by channel: in the newest spans of time, and in sum."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamer.monitor.places import PACKED_FULL, packed_hits, unpacked
from streamer.monitor.recent import REST
from streamer.monitor.store import CHIP_COUNTERS, PACKED, Store

__all__ = ["Channels"]

_ONE = np.uint32(1)


class Channels(Store):
    """Counters of all channels that were seen.

    Examples
    --------
    >>> from streamer.monitor.addresses import chip_keys
    >>> from streamer.monitor.columns import Reader
    >>> channels = Channels(spans=2)
    >>> chips = chip_keys(*np.array([[1, 1, 1], [5, 5, 5], [33, 33, 33]], "u1"))
    >>> channel_id, adc, flags = np.array([12, 0, 12]), np.array([40, 50, 60]), np.zeros(3, "u1")
    >>> channels.count(chips, channel_id, np.array([1]), np.zeros(3, "i8"), adc, flags)
    >>> Reader().read(channels, np.ones((256, 3), bool)).total["adc_sum"]
    array([ 50, 100])
    """

    def count(
        self,
        chips: NDArray[np.uint32],
        channel_id: NDArray[np.integer],
        slots: NDArray[np.int64],
        which: NDArray[np.int64],
        adc: NDArray[np.int64] | None,
        flags: NDArray[np.uint8],
    ) -> None:
        """Count data packets.

        Parameters
        ----------
        chips, channel_id
            (H,): the chips, as `chip_keys` has them, and channels from 0 to 63.
        slots, which
            (L,) and (H,) i8: slots of spans, as `Recent` gives them, and which of them is each
            packet's.
        adc
            (H,): datawords; None: of packets with invalid parity.
        flags
            (H,) u1: FIFO flags, bits 0 and 1 local, bits 2 and 3 shared.
        """
        self.touch(slots)
        of = slots.take(which)
        if adc is None and not (known := self.known(chips)).all():
            stray = ~known
            self.count_strays(chips[stray], channel_id[stray], of[stray], flags[stray])
            chips, channel_id, of, flags = chips[known], channel_id[known], of[known], flags[known]
        where = self.numbers(chips).astype(np.int64)
        where <<= 6
        where |= channel_id
        bits = [np.flatnonzero(flags & np.uint8(1 << bit)) for bit in range(4)]
        every = np.arange(len(where) if adc is None else 0)
        for counter, some in enumerate([every, *bits]):
            if len(some):
                np.add.at(self.few_sums[counter].reshape(-1), where[some], 1)
                some = some[of[some] != REST]
                flat = self.few[counter].reshape(len(self.few[counter]), -1)
                np.add.at(flat, (of[some], where[some]), _ONE)
        hits = packed_hits(np.zeros(len(where), np.int64) if adc is None else adc)
        self._count_packed(of, where, hits)

    def _count_packed(
        self, slots: NDArray[np.int64], where: NDArray[np.int64], hits: NDArray[np.int64]
    ) -> None:
        """Add hits to the channels at places in slots, all of (H,)."""
        packed = self.packed.reshape(-1)
        size = self.packed[0].size
        for start in range(0, len(where), PACKED_FULL):
            # No number is full before; so none overflows by as many hits as make one full.
            block = slice(start, start + PACKED_FULL)
            flat = slots[block] * size
            flat += where[block]
            np.add.at(packed, flat, hits[block])
            full = flat[packed.take(flat) & PACKED_FULL != 0]
            if len(full):
                full = np.unique(full)
                self.spill(*np.divmod(full, size), packed[full])
                packed[full] = 0

    def count_strays(
        self,
        chips: NDArray[np.uint32],
        channel_id: NDArray[np.integer],
        slots: NDArray[np.int64],
        flags: NDArray[np.uint8],
    ) -> None:
        """Count data packets with invalid parity of chips without a number; all are (H,)."""
        where = chips.astype(np.int64) << 6 | channel_id
        self.strays.add(slots, where, 0, 1)
        for bit in range(4):
            some = flags & np.uint8(1 << bit) != 0
            self.strays.add(slots[some], where[some], 1 + bit, 1)
        self.stray_chips.add(0, np.unique(chips).astype(np.int64), 0, 0)

    def touch(self, slots: NDArray[np.int64]) -> None:
        """Say in which slots something may be counted."""
        self.changes[slots] += 1

    def spill(
        self, slots: NDArray[np.int64], places: NDArray[np.int64], packed: NDArray[np.int64]
    ) -> None:
        """Count what was taken out of numbers that were full; all of (K,)."""
        for counter in range(PACKED):
            self.spills.add(slots, places, counter, unpacked(packed, counter))

    def count_on_chips(
        self, chips: NDArray[np.uint32], counts: NDArray[np.int64], is_valid: NDArray[np.bool_]
    ) -> None:
        """Count packets that are no data.

        Parameters
        ----------
        chips, is_valid
            (H,): the chip of each packet, and whether its parity is valid.
        counts
            (H, len(CHIP_COUNTERS)) i8
        """
        self.numbers(chips[is_valid])
        known = self.known(chips)
        np.add.at(self._chip_sums, self.numbers(chips[known]), counts[known])
        strays = chips[~known].astype(np.int64)
        for counter in range(len(CHIP_COUNTERS)):
            self.stray_chips.add(0, strays, counter, counts[~known, counter])

    # --------------------------------------------------------------------------- slots

    def leave(self, io_group: int, slot: int) -> None:
        """Add a slot of an io_group to the sums, and empty it."""
        self.touch(np.array([slot]))
        chips = np.flatnonzero(self.chip_keys[: self._count] >> 16 == io_group)
        packed = self.packed[slot, chips]
        for counter in range(PACKED):
            self.sums[counter, chips] += unpacked(packed, counter)
        self.packed[slot, chips] = 0
        spilled = self.spills.read(slot)
        of_group = np.isin(spilled.places >> 6, chips)
        self.spills.drop(of_group, slot)
        self.put(spilled.where(of_group).moved(REST))
        strays = self.strays.read(slot)
        of_group = strays.places >> 22 == io_group
        self.strays.drop(of_group, slot)
        self.strays.add(*strays.where(of_group).moved(REST))
        for few in self.few[:, slot]:
            few[chips[few[chips].any(axis=1)]] = 0

    def merge(self, other: Channels, slots: dict[int, dict[int, int]]) -> None:
        """Add what another one has counted.

        Parameters
        ----------
        other
            It stays as it is.
        slots
            Of each io_group: slots of the other one, and which slot each of them is here.
        """
        numbers = np.append(0, self.numbers(other.chips)).astype(np.int64)
        self._chip_sums[numbers[1:]] += other.chip_sums
        self.sums[:, numbers[1:]] += other.sums[:, 1 : other._count]
        self.few_sums[:, numbers[1:]] += other.few_sums[:, 1 : other._count]
        for io_group, places in slots.items():
            theirs = 1 + np.flatnonzero(other.chips >> 16 == io_group)
            for their_slot, slot in places.items():
                self._merge_slot(other, theirs, their_slot, numbers, slot)
        strays = other.strays.read()
        mine = np.zeros((256, 1 + other.spans), np.int64)
        for io_group, places in slots.items():
            mine[io_group, list(places)] = list(places.values())
        self.strays.add(mine[strays.places >> 22, strays.slots], *strays[1:])
        self.stray_chips.add(*other.stray_chips.read())
        self._take_over()

    def _merge_slot(
        self,
        other: Channels,
        theirs: NDArray[np.int64],
        their_slot: int,
        numbers: NDArray[np.int64],
        slot: int,
    ) -> None:
        """Add a slot of some of another one's chips, whose numbers here are given for all."""
        mine = numbers[theirs]
        packed = other.packed[their_slot, theirs]
        spilled = other.spilled(their_slot, theirs).moved(slot)
        spilled.places[:] = numbers[spilled.places >> 6] << 6 | spilled.places & 63
        self.put(spilled)
        if slot == REST:
            for counter in range(PACKED):
                self.sums[counter, mine] += unpacked(packed, counter)
            return
        self.touch(np.array([slot]))
        self.few[:, slot, mine] += other.few[:, their_slot, theirs]
        self.packed[slot, mine] += packed
        full = np.flatnonzero(self.packed[slot] & PACKED_FULL)
        flat = self.packed[slot].reshape(-1)
        self.spill(np.full(len(full), slot), full, flat[full])
        flat[full] = 0
