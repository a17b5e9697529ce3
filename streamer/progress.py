"""How far a follower is: what was read and what of it was given. No input, no output."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from streamer.batch import Batch, Message
from streamer.position import Position, anchor_of
from streamer.steps import Facts, Step, header_seconds

__all__ = ["Lag", "Progress", "Stats"]

# As many messages are made into objects at once.
_PART_ROWS, _PART_BYTES = 1024, 1024 * 1024


class Lag(NamedTuple):
    """How far a follower is behind the file, as of its last look."""

    #: Rows that are announced and were not given, those that are filtered out included.
    rows: int
    #: Bytes of their messages, estimated from the mean of those that were given.
    bytes: int
    #: Seconds from the last message that was given to the newest one, by the Unix time in
    #: their PACMAN headers; None as long as either is unknown.
    seconds: float | None


class Stats(NamedTuple):
    """What a follower has done."""

    #: Messages given, and their bytes.
    rows: int
    bytes: int
    #: Batches read.
    batches: int
    #: Looks at the file; those among them that tried rows again that could not be read.
    looks: int
    retries: int
    #: Unix time in seconds at which the last rows came; None if none has.
    last_row_time: float | None


class Progress:
    """What was read, and what of it was given.

    Parameters
    ----------
    start
        As in :func:`streamer.follow`.
    """

    def __init__(self, start: str | int | Position) -> None:
        if not isinstance(start, Position):
            start = Position(start if isinstance(start, int) and start > 0 else 0)
        self._start = start
        #: Where the next step goes on; None as long as no step has found the file.
        self.row: int | None = None
        self.outcome: str | None = None
        #: What the last step found out.
        self.facts: Facts | None = None
        self.trouble: str | None = None
        self._batch: Batch | None = None
        self._messages: Iterator[Message] = iter(())
        self._given = 0
        self._last: Message | None = None
        self._rows = self._bytes = self._batches = 0
        self._last_row_time: float | None = None

    def take(self, step: Step) -> Batch | None:
        """Move on by a step; return its batch. All at once, so that nothing can come between."""
        self.row = step.row
        self.facts = step.facts or self.facts
        self.trouble = step.trouble
        self.outcome = step.outcome
        if step.read:
            self._last_row_time = time.time()
        if step.batch is not None:
            self._settle()
            self._batches += 1
            self._batch = step.batch
        return step.batch

    def next_message(self) -> Message | None:
        """Give the next message of the batch; None if there is none left."""
        for message in self._messages:
            self._given += 1
            return message
        if not self.left:
            return None
        self._messages = iter(self._part())
        return self.next_message()

    def _part(self) -> Batch:
        """Return the next messages of the batch, not many.

        To make objects of them copies them, twice for a moment, while the event loop waits.
        """
        assert self._batch is not None
        batch, first = self._batch, self._given
        if not first and len(batch) <= _PART_ROWS and batch.buffer.nbytes <= _PART_BYTES:
            return batch
        sizes = np.cumsum(batch.lengths[first : first + _PART_ROWS])
        count = max(1, int(np.searchsorted(sizes, _PART_BYTES, "right")))
        part = slice(first, first + count)
        starts, lengths = batch.starts[part], batch.lengths[part]
        low, high = int(starts.min()), int((starts + lengths).max())
        return Batch(
            batch.rows[part], batch.io_groups[part], batch.buffer[low:high], starts - low, lengths
        )

    @property
    def left(self) -> int:
        """How many messages of the batch have not been given."""
        return 0 if self._batch is None else len(self._batch) - self._given

    def rest(self) -> Batch | None:
        """Give what is left of the batch at once; None if there is nothing left."""
        batch, given = self._batch, self._given
        if batch is None or not self.left:
            return None
        self._messages = iter(())
        self._given = len(batch)
        return batch.select(np.arange(given, len(batch))) if given else batch

    def settle(self) -> None:
        """Count the batch, if all of it was given, and let go of its memory."""
        if not self.left:
            self._settle()

    def drop(self) -> None:
        """Give nothing more of what was read. The position stays where it is."""
        if self.left:
            self.row, self.outcome = self.position.row, None
        self._settle()

    def _settle(self) -> None:
        batch, given = self._batch, self._given
        self._messages = iter(())
        self._batch = None
        self._given = 0
        if batch is None or not given:
            return
        self._rows += given
        self._bytes += int(batch.lengths[:given].sum())
        self._last = batch[given - 1]

    @property
    def _last_given(self) -> Message | None:
        if self._batch is not None and self._given:
            return self._batch[self._given - 1]
        return self._last

    @property
    def position(self) -> Position:
        """The row after the last that was given; where it starts if none was."""
        if self.row is None:
            return self._start
        row = self.row
        if self._batch is not None and self._given < len(self._batch):
            first = self._given
            row = int(self._batch.rows[first - 1]) + 1 if first else int(self._batch.rows[0])
        last = self._last_given
        return Position(
            row,
            created=self.facts.created if self.facts else None,
            run_id=self.facts.run_id if self.facts else None,
            # One that started from a position has its anchor still.
            anchor_row=last.row if last else self._start.anchor_row,
            anchor=anchor_of(last) if last else self._start.anchor,
        )

    @property
    def lag(self) -> Lag:
        """How far what was given is behind the file."""
        if self.facts is None:
            return Lag(0, 0, None)
        stats, last = self.stats(), self._last_given
        rows = max(0, self.facts.announced - self.position.row)
        seconds = None
        if last is not None and self.facts.newest_seconds is not None:
            own = header_seconds(last.data)
            seconds = None if own is None else float(max(0, self.facts.newest_seconds - own))
        return Lag(rows, rows * stats.bytes // max(1, stats.rows), seconds)

    def stats(self, looks: int = 0, retries: int = 0) -> Stats:
        """Return what has been done."""
        rows, size = self._rows, self._bytes
        if self._batch is not None:
            rows += self._given
            size += int(self._batch.lengths[: self._given].sum())
        return Stats(rows, size, self._batches, looks, retries, self._last_row_time)
