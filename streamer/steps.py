"""One step of following a file: a pure function of the position, for whichever loop drives it.

Nothing here waits for the file to grow. Whoever drives the steps, :class:`streamer.Follower`
or :func:`streamer.tail`, through :class:`streamer.sequence.Sequence`, waits between them.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import NamedTuple

from streamer.batch import Batch
from streamer.choice import Choice
from streamer.ending import Ending
from streamer.errors import FileReplaced, LayoutError, NotReady, RowUnreadable
from streamer.position import Position, anchor_of
from streamer.rawfile import RawFile
from streamer.step import Facts, Place, Step, header_seconds

__all__ = ["ADVICE", "Steps"]

#: What to do about a position whose file is gone.
ADVICE = (
    ". To go on with what is there, follow with on_replace='continue', or without the position"
)

logger = logging.getLogger("streamer.follow")

# So long may a row be announced and not readable, and so often is it tried.
_UNREADABLE_SECONDS, _UNREADABLE_LOOKS = 10.0, 20
# Looking for the newest message's time costs as much as reading some rows.
_NEWEST_SECONDS = 0.25
# At 8 words a message about 2 MB, and two milliseconds' work: larger steps leave the processor's
# cache, smaller ones spend their time on the way between the threads.
_STEP_ROWS = 16384
# A file may come over a network, or be copied in place: its pages then come in any order.
_LATE_SECONDS = 1.0


class _Missing(NamedTuple):
    """A row that is announced and cannot be read, since when and how often tried."""

    row: int
    since: float
    looks: int


class Steps:
    """The steps of following one file. Used by one thread at a time.

    Parameters
    ----------
    path
        The file.
    choice
        What to give of it.
    number
        Index of this file among those that are followed, from 0.
    after
        The file whose place it takes: where that one ended, and what it was. If it is the
        same run, as of a file that was copied and put back, it goes on there.

    Notes
    -----
    What is kept here is what was found out of the file: whether a step was delivered makes
    no difference to it, and a step that is repeated gives the same.
    """

    def __init__(
        self, path: Path, choice: Choice, number: int = 0, after: Position | None = None
    ) -> None:
        self.path = path
        self.number = number
        #: How often it looked at rows that it had seen announced and could not read.
        self.retries = 0
        self.choice = choice
        #: What is known of its end; None as long as it was not found.
        self.ending: Ending | None = None
        self._after = after
        self._raw: RawFile | None = None
        self._warned = False
        self._absent = False
        self._first: int | None = None
        self._stop: int | None = None
        self._missing: _Missing | None = None
        self._settling: float | None = None
        self._newest_due = 0.0
        self._last_seconds: int | None = None

    def step(self, row: int | None) -> Step:
        """Look for rows from a position on, and read them.

        Parameters
        ----------
        row
            Where to go on; None before the first step that found the file.

        Returns
        -------
        Step
            Rows, or none; and where to go on.

        Raises
        ------
        FileReplaced
            If the name is another file's now, and all rows of the old one have been given, or
            cannot be read any more; or if the file was started again.
        RowUnreadable
            If the next row stays unreadable.
        LayoutError
            If the file is something else.
        """
        try:
            raw, ending = self._opened()
            ending.begin_look()
            announced = raw.look()
            ending.end_look()
            if self._first is None and not self._has_settled(raw):
                return Step(self._at(row))
            first = self._begin(raw)
            row = first if row is None else row
            stop = announced if self._stop is None else min(announced, self._stop)
            if row < stop:
                return self._read(raw, ending, row, stop)
            return self._idle(raw, ending, row)
        except (NotReady, LayoutError, OSError) as error:
            is_lost = self.ending is not None and self.ending.is_lost(error)
            if isinstance(error, LayoutError) and not is_lost:
                raise
            return self._not_ready(row, error)

    @property
    def identity(self) -> Position | None:
        """What file it is, as the position of its first row; None if it was not found yet."""
        raw = self._raw
        return None if raw is None else Position(0, raw.created, raw.run_id)

    def _opened(self) -> tuple[RawFile, Ending]:
        if self._raw is None:
            self._raw = RawFile(self.path, late_seconds=_LATE_SECONDS)
        if self.ending is None:
            self.ending = Ending(self._raw, late_seconds=_LATE_SECONDS)
        return self._raw, self.ending

    def _at(self, row: int | None) -> Place:
        return Place(self.number, row)

    def _not_ready(self, row: int | None, error: Exception) -> Step:
        if self._raw is None and not self.path.exists():
            self._absent = True
        trouble = str(error)
        if isinstance(error, OSError):  # of a file server, for one
            trouble = f"{self.path}: cannot be read: {error}"
        if not self._warned:
            self._warned = True
            logger.warning("%s; waiting for it", trouble)
        return Step(self._at(row), trouble=trouble)

    def _has_settled(self, raw: RawFile) -> bool:
        """Tell whether the end of a file that was just closed can be known.

        Rows without a message, or of io_group 0, count only once they are sure to stay so.
        """
        if self._first is not None or not self.choice.counts_from_end:
            return True
        if len(raw) == min(raw.lengths) or not raw.closed:
            return True
        now = time.monotonic()
        self._settling = self._settling or now
        return now - self._settling > 2 * _LATE_SECONDS

    def _begin(self, raw: RawFile) -> int:
        """Find the first row. Once for all: a step that is repeated gives the same."""
        if self._first is None:
            now = len(raw)
            start, until = self.choice.start, self.choice.until
            if self._after is not None and _is_same(raw, self._after):
                first = self._after.row
            elif isinstance(start, Position):
                first = self._resume(raw, start)
            elif start == "beginning":
                first = 0
            elif start == "end":
                # Of a file that has come since it was asked for, all rows are new.
                first = 0 if self._absent else now
            else:
                first = int(start)
                if first < 0:
                    first = max(0, now + first)
            if until != "finished":
                self._stop = now if until == "end" else int(until)
            self._first = first
        return self._first

    def _resume(self, raw: RawFile, position: Position) -> int:
        """Make sure that a position is one of this very file."""
        reason = None
        if position.created is not None and position.created != raw.created:
            reason = f"it was made at {raw.created}, and the position's file at {position.created}"
        # One that cannot be read, or that is not stated, is no proof of another run.
        elif None not in (position.run_id, raw.run_id) and position.run_id != raw.run_id:
            reason = f"it is of run {raw.run_id}, and the position of run {position.run_id}"
        elif position.anchor_row is not None and position.row > min(raw.lengths):
            # Of one that was given nothing, the row may still be to come.
            reason = f"it has {min(raw.lengths)} rows, and the position is row {position.row}"
        elif position.anchor_row is not None:
            anchor = raw.read(position.anchor_row, position.anchor_row + 1)[0]
            if anchor_of(anchor) != position.anchor:
                reason = f"it has another message in row {position.anchor_row}"
        if reason is not None:
            msg = f"{self.path}: not the file that the position belongs to: {reason}{ADVICE}"
            raise FileReplaced(msg)
        return position.row

    def _read(self, raw: RawFile, ending: Ending, row: int, stop: int) -> Step:
        # Few enough rows for the processor's cache, and for a memory that is bounded.
        stop = min(stop, row + _STEP_ROWS)
        found = raw.read_some(row, stop, self.choice.max_bytes, self.choice.wanted)
        # If it was started again just now, these may be rows of another run.
        raw.check_same()
        read = found.stop - row
        if not read:
            return self._unreadable(raw, ending, row, str(found.cause))
        self._missing = None
        ending.end_look(has_read=True)
        batch = found.batch if len(found.batch) else None
        outcome = self._stopped(found.stop)
        facts = self._facts(raw, found.stop, batch)
        return Step(self._at(found.stop), batch, read, outcome, facts=facts)

    def _stopped(self, row: int) -> str | None:
        if self._stop is None or row < self._stop:
            return None
        return "end" if self.choice.until == "end" else "row"

    def _unreadable(self, raw: RawFile, ending: Ending, row: int, cause: str) -> Step:
        """Give up on a row that stays as it is; otherwise it is tried again."""
        now = time.monotonic()
        if self._missing is None or self._missing.row != row:
            self._missing = _Missing(row, now, 0)
        self._missing = self._missing._replace(looks=self._missing.looks + 1)
        waited = now - self._missing.since
        if raw.is_final(row):
            raise RowUnreadable(self.path, row, cause)
        # In a file that lost its name, rows that were never written are not waited for.
        if raw.orphaned is not None and raw.was_left_at(row):
            ending.check_name()
        elif waited > _UNREADABLE_SECONDS and self._missing.looks > _UNREADABLE_LOOKS:
            raise RowUnreadable(self.path, row, cause)
        self.retries += 1
        return Step(self._at(row), trouble=cause, facts=self._facts(raw, row, None))

    def _idle(self, raw: RawFile, ending: Ending, row: int) -> Step:
        """Find out whether there will be more."""
        outcome = self._stopped(row)
        if outcome is None and row >= min(raw.lengths) and raw.finished:
            # Of this run, and not of one that has as many rows, and was started just now.
            raw.check_same()
            outcome = "finished"
        if outcome is None:
            ending.check_name()
        return Step(self._at(row), outcome=outcome, facts=self._facts(raw, row, None))

    def _facts(self, raw: RawFile, row: int, batch: Batch | None) -> Facts:
        announced = min(raw.lengths)
        newest = None
        if row >= announced:
            newest = self._last_seconds if batch is None else header_seconds(batch[-1].data)
        elif time.monotonic() > self._newest_due:
            self._newest_due = time.monotonic() + _NEWEST_SECONDS
            last = raw.read_available(announced - 1, announced)[0]
            newest = header_seconds(last[0].data) if len(last) else None
        if newest is not None:
            self._last_seconds = newest
        return Facts(announced, raw.created, raw.run_id, self.path, self._last_seconds)

    def close(self) -> None:
        """Close the file. Idempotent."""
        raw, self._raw, self.ending = self._raw, None, None
        if raw is not None:
            raw.close()


def _is_same(raw: RawFile, position: Position) -> bool:
    """Tell whether a file says that it is the run of a position."""
    ids = raw.run_id, position.run_id
    return raw.created == position.created and (None in ids or ids[0] == ids[1])
