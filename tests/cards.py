"""PACMAN cards with faults, and the truth about when their words were: for tests of the clock.

A card has a counter that is reset at known times, and hits that are digitised and received at
known times. Everything is in ticks of Unix time; what is sent follows from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from streamer import Batch, Packets
from writer import pacman, pacman24
from writer.larpix import DATA_BITS, FIFO_DATA_BITS, V3_DATA_BITS, pack

SECOND = 10_000_000
#: When runs begin: not at a whole second.
START = 1_700_000_000 * SECOND
_LAYOUTS = {
    "v2": (DATA_BITS, 31, 0),
    "v2-fifo": (FIFO_DATA_BITS, 16, 0),
    "v3": (V3_DATA_BITS, 28, 1),
}


@dataclass
class Card:
    """One card, and what it sends from its first reset on.

    `receipts` are ascending. A hit's chip missed the last `missed` resets. The SYNC words of
    `lost` resets, by number, are not sent. `swaps` are pairs of words, by number, that change
    places. Its Unix clock is `lead` ahead, and `lead_at` gives more at any time.
    """

    receipts: np.ndarray
    resets: np.ndarray
    io_group: int = 1
    delays: np.ndarray | int = 264
    missed: np.ndarray | int = 0
    lost: set[int] = field(default_factory=set)
    triggers: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    jitter: np.ndarray | int = 0
    lead: int = 0
    lead_at: object = None
    latency: int = 2_000
    words_per_message: int = 7
    skew: int = 0
    asic: str = "v2"
    wire: str = "legacy"
    has_time: bool = True
    reorder: object = None

    def counter(self, ticks, missed=0):
        """The counter at some times, of what missed so many resets."""
        number = np.searchsorted(self.resets, ticks, "right") - 1 - missed
        return ticks - self.resets[number]

    def sent(self) -> Sent:
        """What it sends."""
        made = pacman if self.wire == "legacy" else pacman24
        kinds, bits = made.Word, _LAYOUTS[self.asic][1]
        receipts = np.asarray(self.receipts, np.int64)
        hits = receipts - self.delays
        number = np.arange(len(hits))
        packets = pack(
            _LAYOUTS[self.asic][0],
            packet_type=_LAYOUTS[self.asic][2],
            chip_id=11 + number % 100,
            channel_id=number % 64,
            dataword=number % 200,
            timestamp=self.counter(hits, self.missed) % (1 << bits),
        )
        wrap = (1 << 32) if self.wire == "legacy" else (1 << 62)
        data = made.words(
            kinds.DATA,
            io_channel=1 + number % 32,
            receipt_timestamp=self.counter(receipts) % wrap,
            packet=packets,
        )
        # The first reset is only where the counter began.
        resets = np.arange(1, len(self.resets))
        resets = resets[[k not in self.lost for k in resets]]
        last = (self.resets[resets] - self.resets[resets - 1] - 1 + self.jitter) % wrap
        syncs = made.words(kinds.SYNC, sync_type=made.SyncType.SYNC, timestamp=last)
        triggers = made.words(
            kinds.TRIG, trigger_type=2, timestamp=self.counter(self.triggers) % wrap
        )
        parts = (syncs, triggers, data)
        words = np.concatenate([part.view(made.WORD) for part in parts])
        received = np.concatenate([self.resets[resets], self.triggers, receipts])
        digitised = np.concatenate([self.resets[resets], self.triggers, hits])
        is_sync = np.arange(len(words)) < len(syncs)
        order = np.argsort(received, kind="stable")
        if self.reorder is not None:
            order = self.reorder(order, received, is_sync)
        words, received, digitised, is_sync = (
            column[order] for column in (words, received, digitised, is_sync)
        )
        # A SYNC word travels alone.
        ends = np.flatnonzero(is_sync)
        ends = np.unique(
            [*range(0, len(words), self.words_per_message), *ends, *(ends + 1), len(words)]
        )
        counts = np.diff(ends)
        closed = np.maximum.reduceat(received, ends[:-1]) if len(words) else received
        closed = np.maximum.accumulate(closed)
        leads = 0 if self.lead_at is None else self.lead_at(closed)
        unix = closed + self.latency + self.lead + leads
        if self.wire == "legacy":
            buffer, lengths = made.messages(words, counts, unix // SECOND * self.has_time)
        else:
            buffer, lengths = made.messages(words, counts, unix * 100 * self.has_time)
        return Sent(
            np.split(buffer, np.cumsum(lengths)[:-1]),
            np.full(len(counts), self.io_group),
            closed + self.skew,
            np.split(np.stack([digitised, received]), ends[1:-1], axis=1),
        )


@dataclass
class Sent:
    """Messages, when each was put together, and when the words in it were."""

    data: list[np.ndarray]
    io_groups: np.ndarray
    closed: np.ndarray
    truth: list[np.ndarray]


@dataclass
class Run:
    """A raw file's worth of messages, and when each packet really was: ticks and receipts."""

    batch: Batch
    ticks: np.ndarray
    receipts: np.ndarray
    asic: dict[int, str]

    def packets(self) -> Packets:
        return self.batch.packets(asic=self.asic)

    def parts(self, cuts) -> list[Packets]:
        """The same in several batches."""
        rows = np.split(np.arange(len(self.batch)), sorted(cuts))
        return [self.batch.select(part).packets(asic=self.asic) for part in rows]


def run(*cards: Card, drop=None) -> Run:
    """Merge what cards send, in the order in which it was put together.

    `drop(io_groups, closed)` tells which messages are missing.
    """
    sents = [card.sent() for card in cards]
    io_groups, closed = (
        np.concatenate([getattr(sent, name) for sent in sents]) for name in ("io_groups", "closed")
    )
    data = [one for sent in sents for one in sent.data]
    truth = [one for sent in sents for one in sent.truth]
    order = np.argsort(closed, kind="stable")
    if drop is not None:
        order = order[~drop(io_groups[order], closed[order])]
    data, truth = ([column[k] for k in order] for column in (data, truth))
    lengths = np.array([len(one) for one in data], np.int64)
    batch = Batch(
        rows=np.arange(len(data)),
        io_groups=io_groups[order].astype(np.uint8),
        buffer=np.concatenate([np.zeros(0, np.uint8), *data]),
        starts=np.cumsum(lengths) - lengths,
        lengths=lengths,
    )
    header = np.full((2, 1), -1)
    both = np.concatenate([np.concatenate([header, one], axis=1) for one in truth], axis=1)
    return Run(batch, *both, {card.io_group: card.asic for card in cards})


def pps(start: int, seconds: int, phase: int = 0) -> np.ndarray:
    """Resets each second, from the one before the start on."""
    first = (start - phase) // SECOND
    return (first + np.arange(seconds + 2)) * SECOND + phase


def times(rng: np.random.Generator, start: int, seconds: float, rate: float) -> np.ndarray:
    """So many random times a second, ascending."""
    count = rng.poisson(seconds * rate)
    return np.sort(start + rng.integers(round(seconds * SECOND), size=count))


def delays(rng: np.random.Generator, count: int, most: int = 40) -> np.ndarray:
    """Readout delays: some hops of 264 ticks each."""
    return 264 * rng.integers(1, most, size=count)


def as_batch(sent, first: int = 0) -> Batch:
    """Lay a simulated batch out as one of a file."""
    return Batch(
        rows=first + np.arange(len(sent.lengths)),
        io_groups=sent.io_groups,
        buffer=sent.buffer,
        starts=np.cumsum(sent.lengths) - sent.lengths,
        lengths=sent.lengths,
    )
