"""A simulated detector: how big it is, what is true of it, and what it sends.

Modelled are hits all over the pixels with a few hot channels, the delay of the readout
network, counters that a pulse each second (PPS) resets, damaged packets, full FIFOs, triggers,
configuration traffic, and messages of the sizes that PACMAN cards send. Not modelled are
tracks, more noise at the PPS, and lost words.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from writer.pacman import (
    CONFIG_BITS,
    DATA_BITS,
    TICKS_PER_SECOND,
    WORD,
    SyncType,
    Word,
    messages,
    pack,
    words,
)

__all__ = ["LOADS", "Detector", "Load", "SimulatedBatch"]

# Every tile is one of 2x2: chips from 11 on, 25 of them on each of its four io_channels.
_CHANNELS, _CHIPS, _CHIPS_PER_IO_CHANNEL, _FIRST_CHIP = 64, 100, 25, 11

# Hits in a message: few, 64 if the card is busy, thousands if it had stalled.
_FEW, _BUSY, _BURST, _BURST_FRACTION = (5, 10), 64, (1_000, 4_000), 1e-4

# Chips pass a packet on to each other: 66 bits at 2.5 Mb/s for each hop.
_HOP_TICKS, _MEAN_HOPS = 264, 5

# ADC counts of a pixel without charge, of its noise, and of the mean charge of a hit.
_PEDESTAL, _NOISE, _SIGNAL = 45, 3, 25

# From the last word of a message to the time in its header.
_ASSEMBLY_TICKS = 2_000


@dataclass(frozen=True, kw_only=True)
class Load:
    """How big a detector is, and how much it sends.

    Parameters
    ----------
    io_groups
        Number of PACMAN cards, up to 255.
    tiles
        Tiles of each card, with four io_channels and 6,400 pixels each.
    messages_per_second
        Rate of each card [Hz], without the few that hold a single SYNC word.
    words_per_message
        Their mean number of DATA words, from 7.8 to 64. The share of busy ones follows from it.
    trigger_io_groups, triggers_per_second
        Cards with an external trigger, and the rate at each of them [Hz].

    Examples
    --------
    >>> round(LOADS["2x2"].hits_per_second, -3)
    622000.0
    """

    io_groups: int
    tiles: int
    messages_per_second: float
    words_per_message: float
    trigger_io_groups: tuple[int, ...] = (1,)
    triggers_per_second: float = 5.0

    def __post_init__(self) -> None:
        if not (1 <= self.io_groups <= 255 and 1 <= self.tiles <= 63):
            msg = f"a load has 1 to 255 io_groups of 1 to 63 tiles, got {self}"
            raise ValueError(msg)
        if not {*self.trigger_io_groups} <= {*range(1, self.io_groups + 1)}:
            msg = f"no such trigger_io_groups, got {self}"
            raise ValueError(msg)
        if not 0 <= self.busy_fraction < 1 - _BURST_FRACTION:
            msg = f"words_per_message must be from 7.8 to 64, got {self.words_per_message}"
            raise ValueError(msg)

    @property
    def hits_per_second(self) -> float:
        """Mean rate of DATA words of the whole detector [Hz]."""
        return self.io_groups * self.messages_per_second * self.words_per_message

    @property
    def busy_fraction(self) -> float:
        """Share of the messages with 64 words."""
        few, burst = sum(_FEW) / 2, sum(_BURST) / 2
        excess = self.words_per_message - few - _BURST_FRACTION * (burst - few)
        return excess / (_BUSY - few)


LOADS: Final = {
    # One tile on a bench: 5,000 to 20,000 hits/s.
    "tile": Load(io_groups=1, tiles=1, messages_per_second=1_250, words_per_message=8),
    # One module with pixels as active as in 2x2: 75,000 to 190,000 hits/s.
    "module0": Load(io_groups=2, tiles=8, messages_per_second=7_500, words_per_message=8.7),
    # As measured in run 3: 62,000 messages/s and 622,000 hits/s in all. Card 5 had the trigger
    # of the beam, card 6 that of the light.
    "2x2": Load(
        io_groups=8,
        tiles=8,
        messages_per_second=7_750,
        words_per_message=10.04,
        trigger_io_groups=(5, 6),
    ),
    # The floor of ND-LAr: what argon-39 and cosmics make, 0.3 to 0.45 million hits/s. Many
    # cards, little from each; thresholds as low as in 2x2 would give 14 to 26 million.
    "ndlar": Load(io_groups=140, tiles=10, messages_per_second=335, words_per_message=8),
}


class SimulatedBatch(NamedTuple):
    """Messages of one interval of time, in the order of their assembly.

    ``buffer`` holds them one after the other (u1), ``lengths`` their lengths [bytes] (i8, of
    shape (n,)), and ``io_groups`` the cards that sent them (u1, of shape (n,)).
    """

    buffer: NDArray[np.uint8]
    lengths: NDArray[np.int64]
    io_groups: NDArray[np.uint8]

    def tolist(self) -> list[bytes]:
        """Return the messages one by one."""
        data, stops = self.buffer.tobytes(), np.cumsum(self.lengths).tolist()
        return [data[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]


@dataclass(frozen=True)
class Detector:
    """What is true of a simulated detector, and what it sends in an interval of time.

    Parameters
    ----------
    load, seed
        How much it sends; and which of all the detectors with that load it is.
    hot_share
        Share of the hits that come from ``hot_channels``.
    parity_error_fraction
        Share of the packets of any type with invalid parity; nothing else is wrong in them.
    fifo_half_fraction, fifo_full_fraction
        Shares of the hits that say their FIFO is more than half full, and full (these say
        both). The local and the shared FIFO have the same shares, independently.
    config_fraction
        Share of the DATA words whose packets are no hits but write or read a register.

    Examples
    --------
    >>> Detector(LOADS["2x2"], seed=1).hot_channels.shape
    (32, 4)
    """

    load: Load
    seed: int = 0
    hot_share: float = 0.06
    parity_error_fraction: float = 1e-3
    fifo_half_fraction: float = 1e-2
    fifo_full_fraction: float = 1e-3
    config_fraction: float = 1e-4

    hot_per_io_group: ClassVar = 4
    sync_period_ticks: ClassVar = TICKS_PER_SECOND
    sync_jitter_ticks: ClassVar = 2
    heartbeat_period_ticks: ClassVar = 10 * TICKS_PER_SECOND

    @cached_property
    def hot_channels(self) -> NDArray[np.int64]:
        """Columns io_group, io_channel, chip_id, channel_id; of shape (n, 4)."""
        cards = np.repeat(np.arange(self.load.io_groups), self.hot_per_io_group)
        return np.stack([1 + cards, *_address(self._hot_pixels.ravel())], axis=1)

    @cached_property
    def _hot_pixels(self) -> NDArray[np.int64]:
        rng, n = np.random.default_rng(self.seed), self.hot_per_io_group
        cards = range(self.load.io_groups)
        return np.stack([rng.choice(self._pixels, n, replace=False) for _ in cards])

    @property
    def _pixels(self) -> int:
        return self.load.tiles * _CHIPS * _CHANNELS

    def batch(self, start: int, stop: int) -> SimulatedBatch:
        """Return what is sent from ``start`` to before ``stop`` [ticks of Unix time].

        It depends on nothing but these and the detector.
        """
        rng = np.random.default_rng([self.seed, start])
        cards, span = np.arange(self.load.io_groups), stop - start

        # The key of a word orders words by card, then by time.
        sent = rng.poisson(self.load.messages_per_second * span / TICKS_PER_SECOND, len(cards))
        sizes = self._sizes(rng, sent.sum())
        hits = np.bincount(np.repeat(cards, sent), sizes, len(cards)).astype(np.int64)
        first_keys = np.repeat(cards * span, hits)
        keys = np.sort(first_keys + rng.integers(span, size=len(first_keys)))
        data = self._data_words(rng, np.repeat(cards, hits), keys - first_keys + start)

        # A SYNC word comes before what has the same tick, because a new count begins with it.
        other_keys, others = self._other_words(rng, start, stop)
        places = np.searchsorted(keys, other_keys)
        unordered = np.insert(data.view(WORD), places, others)
        keys = np.insert(keys, places, other_keys)

        # A message ends behind its last hit, behind the last word of its card, and on both
        # sides of a SYNC word, which travels alone.
        ends = np.cumsum(sizes)
        ends += np.searchsorted(places, ends)
        card_ends = np.searchsorted(keys, (cards + 1) * span)
        lone = (places + np.arange(len(places)))[others["type"] == Word.SYNC.letter]
        ends = np.unique(np.concatenate([[0], ends, card_ends, lone, lone + 1]))

        senders, closed = np.divmod(keys[ends[1:] - 1], span)
        order = np.argsort(closed, kind="stable")
        counts = np.diff(ends)[order]
        shifts = ends[order] - (np.cumsum(counts) - counts)
        ordered = unordered[np.repeat(shifts, counts) + np.arange(len(unordered))]
        seconds = (start + closed[order] + _ASSEMBLY_TICKS) // TICKS_PER_SECOND
        buffer, lengths = messages(ordered, counts, seconds)
        return SimulatedBatch(buffer, lengths, (1 + senders[order]).astype(np.uint8))

    def _sizes(self, rng: np.random.Generator, n: int) -> NDArray[np.int64]:
        kind = rng.random(n)
        sizes = rng.integers(*_FEW, size=n, endpoint=True)
        sizes[kind < self.load.busy_fraction] = _BUSY
        bursts = kind >= 1 - _BURST_FRACTION
        sizes[bursts] = rng.integers(*_BURST, size=bursts.sum(), endpoint=True)
        return sizes

    def _data_words(
        self, rng: np.random.Generator, cards: NDArray[np.int64], ticks: NDArray[np.int64]
    ) -> NDArray[np.void]:
        n = len(ticks)
        pixels = rng.integers(self._pixels, size=n, dtype=np.uint32)
        hot = np.flatnonzero(rng.random(n) < self.hot_share)
        which = rng.integers(self.hot_per_io_group, size=len(hot))
        pixels[hot] = self._hot_pixels[cards[hot], which]
        io_channel, chip_id, channel_id = _address(pixels)

        # Hot channels fire on noise, without charge.
        charge = _SIGNAL * rng.standard_exponential(n, np.float32)
        charge[hot] = 0
        adc = _PEDESTAL + charge + _NOISE * rng.standard_normal(n, np.float32)
        hops = rng.geometric(1 / _MEAN_HOPS, n)
        packets = pack(
            DATA_BITS,
            chip_id=chip_id,
            channel_id=channel_id,
            timestamp=(ticks - _HOP_TICKS * hops) % TICKS_PER_SECOND,
            first_packet=1,
            dataword=np.clip(adc, 0, 255).astype(np.uint8),
            local_fifo=self._fifo(rng, n),
            shared_fifo=self._fifo(rng, n),
            downstream_marker=1,
        )
        configs = np.flatnonzero(rng.random(n) < self.config_fraction)
        packets[configs] = pack(
            CONFIG_BITS,
            packet_type=rng.integers(2, 4, size=len(configs)),
            chip_id=chip_id[configs],
            register_address=rng.integers(256, size=len(configs)),
            register_data=rng.integers(256, size=len(configs)),
            downstream_marker=1,
        )
        damaged = rng.random(n) < self.parity_error_fraction
        packets ^= damaged.astype(np.uint64) << np.uint64(DATA_BITS["parity"][0])
        receipts = ticks % TICKS_PER_SECOND
        return words(Word.DATA, io_channel=io_channel, receipt_timestamp=receipts, packet=packets)

    def _fifo(self, rng: np.random.Generator, n: int) -> NDArray[np.uint8]:
        filling = rng.random(n, np.float32)
        half, full = filling < self.fifo_half_fraction, filling < self.fifo_full_fraction
        return half + np.uint8(2) * full

    def _other_words(
        self, rng: np.random.Generator, start: int, stop: int
    ) -> tuple[NDArray[np.int64], NDArray[np.void]]:
        cards, span = np.arange(self.load.io_groups), stop - start
        period, beat_period = self.sync_period_ticks, self.heartbeat_period_ticks
        syncs = np.arange(start + -start % period, stop, period)
        beats = np.arange(start + (period // 2 - start) % beat_period, stop, beat_period)
        types = np.repeat([SyncType.SYNC, SyncType.HEARTBEAT], [len(syncs), len(beats)])
        types = np.tile(types, len(cards))
        sync_ticks = np.tile(np.concatenate([syncs, beats]), len(cards))
        jitter = self.sync_jitter_ticks
        last_counts = period + rng.integers(-jitter, jitter, size=len(types), endpoint=True)
        counters = np.where(types == SyncType.SYNC, last_counts, sync_ticks % period)
        sync_words = words(Word.SYNC, sync_type=types, clk_source=1, timestamp=counters)

        rate = self.load.triggers_per_second * span / TICKS_PER_SECOND
        triggered = np.array(self.load.trigger_io_groups, np.int64) - 1
        triggered = np.repeat(triggered, rng.poisson(rate, len(triggered)))
        trigger_ticks = rng.integers(start, stop, len(triggered))
        trigger_words = words(Word.TRIG, trigger_type=1 << 1, timestamp=trigger_ticks % period)

        where = np.concatenate([np.repeat(cards, len(syncs) + len(beats)), triggered])
        keys = where * span + np.concatenate([sync_ticks, trigger_ticks]) - start
        order = np.argsort(keys, kind="stable")
        both = np.concatenate([sync_words.view(WORD), trigger_words.view(WORD)])
        return keys[order], both[order]


def _address(pixels: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Return io_channel, chip_id and channel_id of the pixels of a card, counted from 0."""
    chips, channel_id = np.divmod(pixels, _CHANNELS)
    return 1 + chips // _CHIPS_PER_IO_CHANNEL, _FIRST_CHIP + chips % _CHIPS, channel_id
