"""One step of following a file: a pure function of the position, for whichever loop drives it.

Nothing here waits for the file to grow. Whoever drives the steps, :class:`streamer.Follower`
or :func:`streamer.tail`, through :class:`streamer.sequence.Sequence`, waits between them.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import NamedTuple

from streamer.batch import Batch
from streamer.choice import Choice
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
# A writer that has lost its file to another name is given so long for its last rows.
_DRAIN_SECONDS = 1.0
# A DAQ appends some ten times a second; without hits, its heartbeats come every few seconds.
_SILENT_SECONDS = 5.0


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
        #: What the system said of the file just before the last look.
        self.status: os.stat_result | None = None
        self.choice = choice
        self._after = after
        self._raw: RawFile | None = None
        self._warned = self._told = False
        self._absent = False
        self._first: int | None = None
        self._stop: int | None = None
        self._missing: _Missing | None = None
        self._orphaned: float | None = None
        self._lost: float | None = None
        self._settling: float | None = None
        self._newest_due = 0.0
        self._last_seconds: int | None = None
        self._seen: tuple[int, ...] = ()
        self._seen_since = 0.0

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
            If the name is another file's now, and all rows of the old one have been given;
            or if the file was started again.
        RowUnreadable
            If the next row stays unreadable.
        LayoutError
            If the file is something else.
        """
        try:
            raw = self._opened()
            self.status = raw.status
            announced = raw.look()
            self._lost = None
            if self._first is None and not self._has_settled(raw):
                return Step(self._at(row))
            first = self._begin(raw)
            row = first if row is None else row
            stop = announced if self._stop is None else min(announced, self._stop)
            if row < stop:
                return self._read(raw, row, stop)
            return self._idle(raw, row)
        except NotReady as error:
            self._check_lost(error)
            return self._not_ready(row, error)
        except OSError as error:  # of a file server, for one
            self._check_lost(error)
            return self._not_ready(row, NotReady(f"{self.path}: cannot be read: {error}"))
        except LayoutError as error:
            if not self._check_lost(error):
                raise
            return self._not_ready(row, NotReady(str(error)))

    def _check_lost(self, error: Exception) -> bool:
        """Tell whether a file that cannot be read has lost its name; raise if that lasts."""
        reason = None if self._raw is None else self._raw.orphaned
        if reason is None:
            self._lost = None
            return False
        now = time.monotonic()
        self._lost = self._lost or now
        if now - self._lost > _DRAIN_SECONDS:
            msg = f"{self.path}: {reason}, and what it still had cannot be read: {error}"
            raise FileReplaced(msg) from error
        return True

    def is_still(self, seconds: float) -> bool:
        """Tell whether the file has not changed for so long, by its own clock or by ours."""
        raw = self._raw
        if raw is None:
            return False
        sign, now = raw.sign, time.monotonic()
        if sign != self._seen:
            self._seen, self._seen_since = sign, now
        return max(now - self._seen_since, raw.age) > seconds and not self._has_changed(raw)

    def _has_changed(self, raw: RawFile) -> bool:
        """Tell whether the file has been written since the last look.

        However long this process was held up in between: then what it saw proves nothing.
        """
        then, now = self.status, raw.status
        return then is None or (then.st_mtime_ns, then.st_size) != (now.st_mtime_ns, now.st_size)

    def is_over(self, row: int, seconds: float) -> bool:
        """Tell whether no row from this one on is there, or will come: it is still for so long."""
        if self._raw is None:
            return False
        if row >= min(self._raw.lengths):
            return self.is_still(seconds)
        # What is announced may be there as soon as all pages have come.
        still = self.is_still(max(seconds, 2 * _LATE_SECONDS))
        return still and not self._raw.is_final(row) and self._raw.was_left_at(row)

    def tell_of_silence(self, row: int) -> None:
        """Say once that perhaps no row will come from this one on: most files never say so."""
        raw = self._raw
        if raw is None or self._told or raw.is_held or not self.is_over(row, _SILENT_SECONDS):
            return
        self._told = True
        logger.warning(
            "%s: last written %.0f s ago, and nothing in it says that its run is over; waiting "
            "for row %d. To stop at what is there, follow until='end'",
            self.path,
            raw.age,
            row,
        )

    @property
    def finished(self) -> bool:
        """Whether its writer has ended the run and said so."""
        return self._raw is not None and self._raw.finished

    def has_grown(self, row: int) -> bool:
        """Tell whether there are rows from this one on, which were not there at the first look."""
        return self._raw is not None and not self._raw.was_left_at(row)

    @property
    def identity(self) -> Position | None:
        """What file it is, as the position of its first row; None if it was not found yet."""
        raw = self._raw
        return None if raw is None else Position(0, raw.created, raw.run_id)

    def _opened(self) -> RawFile:
        if self._raw is None:
            self._raw = RawFile(self.path, late_seconds=_LATE_SECONDS)
        return self._raw

    def _at(self, row: int | None) -> Place:
        return Place(self.number, row)

    def _not_ready(self, row: int | None, error: NotReady) -> Step:
        if self._raw is None and not self.path.exists():
            self._absent = True
        if not self._warned:
            self._warned = True
            logger.warning("%s; waiting for it", str(error))
        return Step(self._at(row), trouble=str(error))

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

    def _read(self, raw: RawFile, row: int, stop: int) -> Step:
        # Few enough rows for the processor's cache, and for a memory that is bounded.
        stop = min(stop, row + _STEP_ROWS)
        found = raw.read_some(row, stop, self.choice.max_bytes, self.choice.wanted)
        # If it was started again just now, these may be rows of another run.
        raw.check_same()
        read = found.stop - row
        if not read:
            return self._unreadable(raw, row, str(found.cause))
        self._missing = None
        self._orphaned = None
        batch = found.batch if len(found.batch) else None
        outcome = self._stopped(found.stop)
        facts = self._facts(raw, found.stop, batch)
        return Step(self._at(found.stop), batch, read, outcome, facts=facts)

    def _stopped(self, row: int) -> str | None:
        if self._stop is None or row < self._stop:
            return None
        return "end" if self.choice.until == "end" else "row"

    def _unreadable(self, raw: RawFile, row: int, cause: str) -> Step:
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
            self._check_name(raw)
        elif waited > _UNREADABLE_SECONDS and self._missing.looks > _UNREADABLE_LOOKS:
            raise RowUnreadable(self.path, row, cause)
        self.retries += 1
        return Step(self._at(row), trouble=cause, facts=self._facts(raw, row, None))

    def _idle(self, raw: RawFile, row: int) -> Step:
        """Find out whether there will be more."""
        outcome = self._stopped(row)
        if outcome is None and row >= min(raw.lengths) and raw.finished:
            # Of this run, and not of one that has as many rows, and was started just now.
            raw.check_same()
            outcome = "finished"
        if outcome is None:
            self._check_name(raw)
        return Step(self._at(row), outcome=outcome, facts=self._facts(raw, row, None))

    def _check_name(self, raw: RawFile) -> None:
        """Raise if the name is another file's, and the old one has nothing more to give."""
        reason = raw.orphaned
        if reason is None:
            self._orphaned = None
            return
        now = time.monotonic()
        self._orphaned = self._orphaned or now
        # Its writer may still have rows for it, under another name or none.
        if now - self._orphaned > _DRAIN_SECONDS and raw.still and not self._has_changed(raw):
            msg = f"{self.path}: {reason}, and all rows of the file that was followed were given"
            raise FileReplaced(msg, drained=True)

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
        raw, self._raw = self._raw, None
        if raw is not None:
            raw.close()


def _is_same(raw: RawFile, position: Position) -> bool:
    """Tell whether a file says that it is the run of a position."""
    ids = raw.run_id, position.run_id
    return raw.created == position.created and (None in ids or ids[0] == ids[1])
