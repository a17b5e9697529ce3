"""How far a follower is: what was read and what of it was given. No input, no output."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from streamer.batch import Batch, Gap, Message
from streamer.position import Position, anchor_of
from streamer.sequence import FIRST
from streamer.step import Facts, Step, header_seconds

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

    Notes
    -----
    Another thread than the one that is given the rows may ask how far it is, or drop the rest.
    """

    def __init__(self, start: str | int | Position) -> None:
        if not isinstance(start, Position):
            start = Position(start if isinstance(start, int) and start > 0 else 0)
        #: Where the next step goes on.
        self.place = FIRST
        self.outcome: str | None = None
        #: What the last step that saw a file found out.
        self.facts: Facts | None = None
        self.trouble: str | None = None
        # Who goes on to another batch holds the lock; to go on within one takes none.
        self._lock = threading.RLock()
        self._dropped = False
        # Behind all that was given, if nothing is left of the batch.
        self._behind = self._done_behind = start
        self._last: Message | None = None
        self._batch: Batch | None = None
        self._gap: Gap | None = None
        self._messages: Iterator[Message] = iter(())
        self._given = self._done = 0
        self._rows = self._bytes = self._batches = 0
        self._last_row_time: float | None = None

    def take(self, step: Step) -> bool:
        """Move on by a step; tell whether there is something to give.

        All at once, so that nothing can come between.
        """
        with self._lock:
            if self._dropped:
                return False
            self.place = step.place
            self.facts = step.facts or self.facts
            self.trouble = step.trouble
            self.outcome = step.outcome
            if step.read:
                self._last_row_time = time.time()
            if step.facts is not None and step.place.row is not None and step.batch is None:
                self._behind = _moved(self._behind, step.facts, step.place.row)
                self._done_behind = self._behind
            if step.batch is not None:
                self._settle()
                self._batches += 1
                self._batch = step.batch
            self._gap = step.gap
            return step.batch is not None or step.gap is not None

    def next_message(self) -> Message | Gap | None:
        """Give the next message of the batch; None if there is none left.

        Who asks for it has done with the one before.
        """
        self._done = self._given
        for message in self._messages:
            self._given += 1
            return message
        with self._lock:
            if not self.left:
                return self._take_gap()
            self._messages = iter(self._part())
        return self.next_message()

    def _take_gap(self) -> Gap | None:
        gap, self._gap = self._gap, None
        return gap

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
            batch.rows[part],
            batch.io_groups[part],
            batch.buffer[low:high],
            starts - low,
            lengths,
            batch.source,
            batch.io_version,
        )

    @property
    def left(self) -> int:
        """How many messages of the batch have not been given."""
        with self._lock:
            if self._batch is None or self._dropped:
                return 0
            return len(self._batch) - self._given

    def rest(self) -> Batch | Gap | None:
        """Give what is left of the batch at once; None if there is nothing left."""
        with self._lock:
            self._done = self._given
            batch, given = self._batch, self._given
            if batch is None or not self.left:
                return self._take_gap()
            self._messages = iter(())
            self._given = len(batch)
        return batch.select(np.arange(given, len(batch))) if given else batch

    def piece(self, max_bytes: int) -> Batch | Gap | None:
        """Give the next messages of the batch, up to so many bytes; None if none is left."""
        with self._lock:
            self._done = self._given
            batch, first = self._batch, self._given
            if batch is None or not self.left:
                return self._take_gap()
            if not first and batch.payload_bytes <= max_bytes:
                return self.rest()
            stops = np.cumsum(batch.lengths[first:])
            count = max(1, int(np.searchsorted(stops, max_bytes, "right")))
            self._messages = iter(())
            self._given = stop = first + count
        return batch.select(np.arange(first, stop))

    def settle(self) -> None:
        """Count the batch, if all of it was given, and let go of its memory."""
        with self._lock:
            if not self.left:
                self._settle()
                self._done_behind = self._behind

    def drop(self) -> None:
        """Give nothing more, of what was read or is to come. The position stays where it is."""
        with self._lock:
            if self.left:
                self.outcome = None
            self._dropped = True
            # The batch stays, and with it the count of who is taking a message just now.
            self._messages, self._gap = iter(()), None

    def commit(self) -> None:
        """Count what was given last as done with too."""
        with self._lock:
            self._done, self._done_behind = self._given, self._behind

    def _settle(self) -> None:
        batch, given = self._batch, self._given
        self._messages = iter(())
        if batch is not None:
            if given:  # if not, it is known by now in which row it begins
                self._rows += given
                self._bytes += int(batch.lengths[:given].sum())
                self._last = batch[given - 1]
            done = None if self._done == given else self.committed
            self._behind = self.position
            self._done_behind = done or self._behind
        self._batch, self._given, self._done = None, 0, 0

    @property
    def _last_given(self) -> Message | None:
        if self._batch is not None and self._given:
            return self._batch[self._given - 1]
        return self._last

    @property
    def position(self) -> Position:
        """The row after the last that was given; where it starts if none was."""
        with self._lock:
            if self._batch is None:
                return self._behind
            return self._in_batch(self._batch, self._given)

    @property
    def committed(self) -> Position:
        """The row after the last that was given and that its taker has done with."""
        with self._lock:
            if self._batch is None:
                return self._done_behind
            return self._in_batch(self._batch, self._done)

    def _in_batch(self, batch: Batch, given: int) -> Position:
        """Return the position behind so many messages of a batch."""
        assert self.facts is not None
        if not given:
            return _moved(self._behind, self.facts, int(batch.rows[0]))
        row = self.place.row if given == len(batch) else int(batch.rows[given - 1]) + 1
        assert row is not None
        last = batch[given - 1]
        moved = _moved(self._behind, self.facts, row)
        return replace(moved, anchor_row=last.row, anchor=anchor_of(last))

    @property
    def lag(self) -> Lag:
        """How far what was given is behind the file."""
        with self._lock:
            facts, last, stats, row = self.facts, self._last_given, self.stats(), self.position.row
        if facts is None:
            return Lag(0, 0, None)
        rows = max(0, facts.announced - row)
        seconds = None
        if last is not None and facts.newest_seconds is not None:
            own = header_seconds(last.data)
            seconds = None if own is None else float(max(0, facts.newest_seconds - own))
        return Lag(rows, rows * stats.bytes // max(1, stats.rows), seconds)

    def stats(self, looks: int = 0, retries: int = 0) -> Stats:
        """Return what has been done."""
        with self._lock:
            rows, size = self._rows, self._bytes
            if self._batch is not None:
                given = self._given
                rows += given
                size += int(self._batch.lengths[:given].sum())
            return Stats(rows, size, self._batches, looks, retries, self._last_row_time)


def _moved(position: Position, facts: Facts, row: int) -> Position:
    """Return the position in a row of a file; without the anchor, if that is of another one."""
    own = position.created in (None, facts.created)
    own = own and (position.anchor_row is None or position.anchor_row < row)
    return Position(
        row,
        facts.created,
        facts.run_id,
        position.anchor_row if own else None,
        position.anchor if own else None,
        facts.path.name,
        facts.newest,
        facts.passed_over,
    )
