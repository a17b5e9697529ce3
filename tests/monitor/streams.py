"""Streams of messages, random or simulated, and batches of them."""

import struct
from itertools import pairwise

import numpy as np

from streamer import Batch
from streamer.packets import decode
from writer.larpix import DATA_BITS, V3_DATA_BITS, pack
from writer.simulate import simulate

START = 1_700_000_000


def as_batch(messages, first_row=0):
    """Put (message, io_group) into a batch, whose rows begin with a number."""
    data = [message for message, _ in messages]
    lengths = np.array([len(one) for one in data], np.int64)
    return Batch(
        rows=np.arange(first_row, first_row + len(data)),
        io_groups=np.array([io_group for _, io_group in messages], np.uint8),
        buffer=np.frombuffer(b"".join(data), np.uint8),
        starts=np.cumsum(lengths) - lengths,
        lengths=lengths,
    )


def as_packets(messages, cuts=(), **options):
    """Decode messages, cut into batches before some of them."""
    edges = [0, *sorted(cuts), len(messages)]
    return [
        decode(as_batch(messages[start:stop], start), **options) for start, stop in pairwise(edges)
    ]


def simulated(load="tile", seconds=2.0, **options):
    """Return what a simulated detector sends, as (message, io_group)."""
    return [
        pair
        for batch in simulate(load, seconds=seconds, **options)
        for pair in zip(batch.tolist(), batch.io_groups.tolist(), strict=True)
    ]


def legacy(words, second):
    """Make a message of the older wire."""
    return struct.pack("<BIxH", ord("D"), second, len(words)) + b"".join(words)


def new24(words, second=0):
    """Make a message of the newer wire, whose header has the time in nanoseconds, or none."""
    header = struct.pack("<BBBBIQ8x", ord("D"), 7, 1, 0, 24 * len(words), second * 10**9)
    return header + b"".join(words)


def data_word(packet, io_channel, receipt, *, wire="legacy"):
    """Make a word with a packet of a chip."""
    if wire == "legacy":
        return struct.pack("<BBIxxQ", ord("D"), io_channel, receipt & 0xFFFFFFFF, int(packet))
    return struct.pack("<BBHIQQ", ord("D"), 7, io_channel, 0, receipt, int(packet))


def sync_word(letter, ticks, *, wire="legacy"):
    """Make a sync."""
    if wire == "legacy":
        return struct.pack("<BBBBI8x", ord("S"), ord(letter), 1, 0, ticks & 0xFFFFFFFF)
    return struct.pack("<BBBBIQ8x", ord("S"), 7, ord(letter), 1, 0, ticks)


def trigger_word(bits, ticks, *, wire="legacy"):
    """Make a trigger."""
    if wire == "legacy":
        return struct.pack("<BBHI8x", ord("T"), bits, 0, ticks & 0xFFFFFFFF)
    return struct.pack("<BBBBIQ8x", ord("T"), 7, bits, 0, 0, ticks)


class Random:
    """Random messages of a small detector in which everything happens.

    Counters run on, with a tick for about each word, so that hits are near triggers; time goes
    on by a second now and then, sometimes jumps, and is sometimes not known. A part of the hits
    are damaged: one bit is wrong, or two.
    """

    def __init__(self, seed, *, wire="legacy", v3=(), garbage=0.0, damaged=0.0):
        self.rng = np.random.default_rng(seed)
        self.wire, self.v3, self.garbage, self.damaged = wire, set(v3), garbage, damaged
        self.second, self.ticks = START, int(self.rng.integers(2**32))

    def messages(self, count):
        return [self.message() for _ in range(count)]

    def message(self):
        rng = self.rng
        io_group = int(rng.choice([0, 1, 2, 5, 255], p=[0.05, 0.4, 0.3, 0.2, 0.05]))
        if rng.random() < self.garbage:
            return rng.bytes(int(rng.integers(80))), io_group
        self.second += int(rng.choice([0, 1, 40], p=[0.7, 0.29, 0.01]))
        second = self.second + int(
            rng.choice([0, -1, 1, -100, 10**8], p=[0.9, 0.04, 0.04, 0.01, 0.01])
        )
        words = [
            self.word(io_group)
            for _ in range(
                int(rng.choice([0, 1, 2, 5, 12, 70], p=[0.05, 0.2, 0.3, 0.3, 0.14, 0.01]))
            )
        ]
        made = legacy if self.wire == "legacy" else new24
        return made(words, 0 if rng.random() < 0.03 else second), io_group

    def word(self, io_group):
        rng, wire = self.rng, self.wire
        self.ticks += int(rng.choice([1, 50, 5_000, 300_000], p=[0.3, 0.4, 0.29, 0.01]))
        kind = rng.choice(
            ["hit", "any", "S", "H", "T", "unknown"], p=[0.75, 0.1, 0.05, 0.03, 0.06, 0.01]
        )
        if kind == "S":
            letter = "S" if rng.random() < 0.8 else "C"
            return sync_word(letter, int(rng.choice([10**7, 10**7 + 3, 0xFFFFFFFF, 5])), wire=wire)
        if kind == "H":
            return sync_word("H", self.ticks, wire=wire)
        if kind == "T":
            return trigger_word(int(rng.integers(8)), self.ticks, wire=wire)
        if kind == "unknown":
            return b"?" * (16 if wire == "legacy" else 24)
        io_channel = int(rng.choice([0, 1, 4, 5, 33, 255]))
        receipt = self.ticks + int(rng.choice([100, 2_000, 10**6, -(10**4)]))
        if kind == "any":
            packet = rng.integers(2**63, dtype=np.uint64) * np.uint64(2) + np.uint64(
                rng.integers(2)
            )
        else:
            packet = self.hit(io_group)
            if rng.random() < 0.05:
                packet ^= np.uint64(1 << 63)
            if self.damaged and rng.random() < self.damaged:
                for bit in rng.integers(64, size=rng.choice([1, 2], p=[0.9, 0.1])).tolist():
                    packet ^= np.uint64(1 << bit)
        return data_word(packet, io_channel, max(receipt, 0), wire=wire)

    def hit(self, io_group):
        rng = self.rng
        fields = {
            "chip_id": int(rng.choice([11, 12, 255])),
            "channel_id": int(rng.integers(4)),
            "downstream_marker": int(rng.integers(2)),
            "local_fifo": int(rng.choice([0, 1, 2, 3], p=[0.8, 0.1, 0.05, 0.05])),
            "shared_fifo": int(rng.choice([0, 1, 2, 3], p=[0.8, 0.1, 0.05, 0.05])),
        }
        if io_group in self.v3:
            return pack(
                V3_DATA_BITS,
                packet_type=1,
                timestamp=self.ticks & 2**28 - 1,
                dataword=int(rng.integers(1024)),
                **fields,
            )
        return pack(
            DATA_BITS, timestamp=self.ticks & 2**31 - 1, dataword=int(rng.integers(256)), **fields
        )
