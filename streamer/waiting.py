"""What waits for one consumer, and what its policy leaves out. No input, no output."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import NamedTuple

from streamer.batch import Batch, Gap
from streamer.position import Position

__all__ = ["QUEUES", "Entry", "Failure", "Latest", "Queue", "Sample"]


class Failure(NamedTuple):
    """What the follower raised."""

    error: Exception
    trace: TracebackType | None


class Entry(NamedTuple):
    """What waits for a consumer."""

    item: Batch | Gap | Failure
    #: Where a follower goes on after it.
    position: Position
    #: What it keeps in memory [bytes].
    size: int = 0
    #: How many messages it stands for, if it is a gap of the policy.
    missed: int = 0


class Queue:
    """What waits for one consumer, with the policy `block`; the others are made from it."""

    reason = ""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: deque[Entry] = deque()
        self._bytes = 0
        self._batches = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def has_room(self) -> bool:
        """Whether more may be read."""
        return self._bytes < self._capacity

    def put(self, entry: Entry) -> None:
        """Let something wait."""
        entries = self._entries
        if isinstance(entry.item, Failure) and entries and isinstance(entries[-1].item, Failure):
            entries.pop()  # who was not told of the first trial yet need not be told twice
        entries.append(entry)
        self._bytes += entry.size
        self._batches += isinstance(entry.item, Batch)

    def take(self) -> Entry:
        """Return what has waited for longest."""
        entry = self._entries.popleft()
        self._bytes -= entry.size
        self._batches -= isinstance(entry.item, Batch)
        return entry

    def clear(self) -> None:
        """Let go of everything."""
        self._entries.clear()
        self._bytes = self._batches = 0

    def _leave_out(self, index: int) -> None:
        """Put a gap in the place of a batch, one with the gap of this policy before it."""
        entry = self._entries[index]
        batch = entry.item
        assert isinstance(batch, Batch)
        self._bytes -= entry.size
        self._batches -= 1
        start, missed = int(batch.rows[0]), len(batch)
        if index:
            before = self._entries[index - 1]
            # A file that was started again has the same rows once more: that is another gap.
            if before.missed and isinstance(before.item, Gap) and _joins(before.item, batch):
                start, missed = before.item.start, missed + before.missed
                del self._entries[index - 1]
                index -= 1
        gap = Gap(start, int(batch.rows[-1]) + 1, self.reason, batch.source)
        self._entries[index] = Entry(gap, entry.position, missed=missed)


def _joins(gap: Gap, batch: Batch) -> bool:
    return gap.source == batch.source and gap.stop is not None and gap.stop <= batch.rows[0]


class Latest(Queue):
    """The newest, and a gap for those before."""

    reason = "newer ones came before these were taken"

    @property
    def has_room(self) -> bool:
        """Whether more may be read: always."""
        return True

    def put(self, entry: Entry) -> None:
        """Let something wait, in the place of the oldest if that is too much."""
        super().put(entry)
        while self._bytes > self._capacity and self._batches > 1:
            oldest = (k for k, one in enumerate(self._entries) if isinstance(one.item, Batch))
            self._leave_out(next(oldest))


class Sample(Queue):
    """One stretch after the other, and gaps between them."""

    reason = "those before these had not been taken"

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._full = False

    @property
    def has_room(self) -> bool:
        """Whether more may be read: always."""
        return True

    def put(self, entry: Entry) -> None:
        """Let something wait, or leave it out."""
        super().put(entry)
        if self._full and isinstance(entry.item, Batch):
            self._leave_out(len(self._entries) - 1)
        self._full = self._full or self._bytes >= self._capacity

    def take(self) -> Entry:
        """Return what has waited for longest. After the last, a new stretch begins."""
        entry = super().take()
        self._full = self._full and self._batches > 0
        return entry


QUEUES: dict[str, type[Queue]] = {"block": Queue, "latest": Latest, "sample": Sample}
