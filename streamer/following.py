"""What followers with and without an event loop have in common: all but the waiting."""

from __future__ import annotations

import itertools
import math
import os
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Literal, TypedDict

from streamer.checkpoint import Checkpoint
from streamer.errors import LayoutError, NotReady, StreamError, WriterStalled
from streamer.position import Position
from streamer.progress import Lag, Progress, Stats
from streamer.sequence import FIRST, Sequence
from streamer.step import Place, Step
from streamer.wake import Hints

__all__ = ["Continuing", "Following", "Options", "Raising"]

# While rows keep coming, their position is stored so often: to make sure of it on disk takes
# milliseconds.
_STORE_SECONDS = 1.0


class Options(TypedDict, total=False):
    """What may be chosen of following; see :func:`streamer.follow`."""

    start: str | int | Position
    until: str | int
    io_groups: Collection[int] | None
    idle_timeout: float | None
    poll: float
    max_batch_bytes: int
    hints: bool
    checkpoint: str | os.PathLike[str] | None
    rotate_grace: float


class Raising(Options, total=False):
    """The same, of who wants an error when the file is replaced."""

    on_replace: Literal["raise"]


class Continuing(Options):
    """The same, of who wants to go on then, and to be told what is missing."""

    on_replace: Literal["continue"]


class Following:
    """What a follower knows of itself.

    Parameters
    ----------
    source, start, until, io_groups, idle_timeout, poll, max_batch_bytes, hints, checkpoint
        As of :func:`streamer.follow`.
    on_replace, rotate_grace
        As of :func:`streamer.follow`.

    Raises
    ------
    ValueError
        If an argument makes no sense.
    CheckpointError
        If the checkpoint is damaged.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        *,
        start: str | int | Position,
        until: str | int,
        io_groups: Collection[int] | None,
        idle_timeout: float | None,
        poll: float,
        max_batch_bytes: int,
        hints: bool,
        checkpoint: str | os.PathLike[str] | None,
        on_replace: str,
        rotate_grace: float,
    ) -> None:
        if not 0 < poll <= threading.TIMEOUT_MAX:
            msg = f"poll is {poll}, not a positive number of seconds"
            raise ValueError(msg)
        if idle_timeout is not None and not idle_timeout > 0:
            msg = f"idle_timeout is {idle_timeout}, not a positive number of seconds"
            raise ValueError(msg)
        self._checkpoint = None if checkpoint is None else Checkpoint(checkpoint)
        if self._checkpoint is not None:
            start = self._checkpoint.load() or start
        self._steps = Sequence(
            source,
            start=start,
            until=until,
            io_groups=io_groups,
            max_batch_bytes=max_batch_bytes,
            on_replace=on_replace,
            rotate_grace=rotate_grace,
        )
        if checkpoint is not None and self._steps.takes(Path(checkpoint)):
            msg = f"{checkpoint}: the checkpoint has the name of a file that is followed"
            raise ValueError(msg)
        self._idle_timeout = idle_timeout
        self._poll = poll
        self._use_hints = hints
        self._progress = Progress(start)
        self._numbers = itertools.count()
        self._store_due = -math.inf
        self._idle_since: float | None = None
        self._closed = False
        self._bell = _Bell()
        self._hints: Hints | None = None
        self._hints_lock = threading.Lock()

    @property
    def path(self) -> Path:
        """The file, or the folder or pattern."""
        return self._steps.path

    @property
    def position(self) -> Position:
        """Where it is: after the last message that was given. Good to start from later."""
        return self._progress.position

    @property
    def checkpoint(self) -> Checkpoint | None:
        """Where the position is stored; None if it is not."""
        return self._checkpoint

    @property
    def outcome(self) -> str | None:
        """Why it has ended; None if it has not.

        ``"finished"``: the writer has ended the run. ``"end"`` or ``"row"``: it came to
        where `until` said. ``"closed"``: it was closed before.
        """
        if self._progress.outcome is not None and not self._progress.left:
            return self._progress.outcome
        return "closed" if self._closed else None

    @property
    def lag(self) -> Lag:
        """How far it is behind the file, as of the last look: rows, bytes and seconds."""
        return self._progress.lag

    @property
    def stats(self) -> Stats:
        """What it has done: rows, bytes, batches, looks, retries and the last row's time."""
        return self._progress.stats(self._steps.looks, self._steps.retries)

    @property
    def trouble(self) -> str | None:
        """What kept the last look from giving rows, in words; None if nothing did."""
        return self._progress.trouble

    def _call(self) -> _Call:
        """Return the next call of :meth:`_look`."""
        until = None
        number = next(self._numbers)
        if self._idle_timeout is not None:
            # Kept from call to call: who waits with shorter timeouts of his own, again and
            # again, hears of the silence too.
            self._idle_since = self._idle_since or time.monotonic()
            until = self._idle_since + self._idle_timeout
        progress = self._progress
        self._bell.call = _Call(
            progress.place, progress.trouble, until, number, progress.committed
        )
        if self._closed:  # just now: whoever did so may have ended the call before this one
            self._bell.call.end()
        return self._bell.call

    def _look(self, call: _Call) -> Step:
        """Look until there is something to tell, or until the call is over. In any thread.

        The rows that it returns follow those of the call: whether they are taken makes no
        difference here.
        """
        place = call.place
        while True:
            # Before looking: what changes from now on is not to be waited for, and of a silence
            # that is to be told of, the last look is behind the end.
            call.changed.clear()
            is_last = call.left <= 0
            try:
                step = self._steps.step(place, call)
            except (StreamError, LayoutError):
                if not call.is_over:
                    raise
                return Step(place)  # nobody waits for it any more, nor for what is wrong
            if call.is_over:
                return step
            # On to another file only once it is taken: of a call that was abandoned nothing is,
            # and the next one goes on in the file that this one has left.
            moved, place = step.place.file != place.file, step.place
            if step.read or moved or step.outcome is not None or step.gap is not None:
                self._store_in_passing(call, step)
                return step
            if self._start_hints():
                continue  # it may have changed just before
            self._store(call)
            left = call.left
            if left > 0:
                call.changed.wait(min(self._poll, left))
            if is_last or place != call.place or step.trouble != call.trouble:
                return step

    def _store(self, call: _Call) -> None:
        """Store the position that was committed when it was called, if it is another one."""
        # Before a file was found, there is no position that means anything.
        if self._checkpoint is not None and call.committed.created is not None:
            self._checkpoint.store(call.committed, call.number)
            self._store_due = time.monotonic() + _STORE_SECONDS

    def _store_in_passing(self, call: _Call, step: Step) -> None:
        """Store the position while rows keep coming: not with each batch, that takes time."""
        if call.committed.created is None:
            # Where it begins: who starts again after a crash must not begin elsewhere.
            if self._checkpoint is not None and step.facts is not None and step.place.row:
                begin = step.place.row - step.read
                facts = step.facts
                at = Position(
                    begin,
                    facts.created,
                    facts.run_id,
                    source=facts.path.name,
                    newest=facts.newest,
                    passed_over=facts.passed_over,
                )
                self._checkpoint.store(at, call.number)
        elif self._is_store_due():
            self._store(call)

    def _is_store_due(self) -> bool:
        return self._checkpoint is not None and time.monotonic() > self._store_due

    def _numbered(self) -> tuple[Position, int]:
        """Return the position to store now, and its place in the order of decisions.

        Not in the thread that stores it: one that was abandoned comes late.
        """
        number = next(self._numbers)
        return self._progress.committed, number

    def _commit_now(self, position: Position, number: int) -> None:
        """Store a position, on disk when this returns. In any thread."""
        if self._checkpoint is None:
            msg = f"{self.path}: followed without a checkpoint: there is nothing to commit to"
            raise StreamError(msg)
        self._store_due = time.monotonic() + _STORE_SECONDS
        if position.created is not None:
            self._checkpoint.store(position, number)

    def _start_hints(self) -> bool:
        """Start the hints, which nobody needs who still catches up; True if that was now."""
        with self._hints_lock:
            if self._hints is not None or not self._use_hints:
                return False
            self._hints = Hints(*self._steps.watched, self._bell.ring)
            return self._hints.active

    def _release_now(self) -> None:
        """Give back what the system has given: threads, watch and file."""
        with self._hints_lock:
            self._use_hints = False
            hints, self._hints = self._hints, None
        if hints is not None:
            hints.close()
        try:
            # Not behind a look that hangs: whoever goes on from there would be overwritten.
            if self._checkpoint is not None:
                self._commit_now(*self._numbered())
        finally:
            self._steps.close()

    def __del__(self) -> None:
        # Of a follower that was dropped in the middle. The steps go with it, and the file.
        hints = self.__dict__.get("_hints")
        if hints is not None:
            hints.drop()

    def _take(self, step: Step) -> bool:
        """Move on by a step; tell whether there is something to give."""
        # Also rows that are filtered out, and the next run, of which nothing is known yet.
        if step.read or step.place.file != self._progress.place.file:
            self._idle_since = None
        return self._progress.take(step)

    def _check_silence(self) -> None:
        """Raise if no row has come for as long as was allowed."""
        if self._closed or self._idle_timeout is None or self._idle_since is None:
            return
        if time.monotonic() < self._idle_since + self._idle_timeout:
            return
        self._idle_since = None  # whoever asks again waits as long again
        trouble, place = self._progress.trouble, self._progress.place
        if place == FIRST:
            msg = f"{trouble}, for {self._idle_timeout:g} s"
            raise NotReady(msg)
        trouble = trouble or "Its writer pauses, has died, or cannot say that the run is over"
        waited = f"no new row for {self._idle_timeout:g} s; the next is row {place.row or 0}"
        msg = f"{self.path}: {waited}. {trouble}"
        raise WriterStalled(msg)


class _Call:
    """A call of `_look`: what it goes on from, and until when [monotonic s]."""

    def __init__(
        self,
        place: Place,
        trouble: str | None,
        until: float | None,
        number: int,
        committed: Position,
    ) -> None:
        self.place = place
        self.trouble = trouble
        #: Its number among the calls, and the position its caller has finished with.
        self.number = number
        self.committed = committed
        self.changed = threading.Event()
        self._until = until
        #: Whether nobody waits for it any more.
        self.is_over = False

    @property
    def left(self) -> float:
        """For how long it may go on."""
        if self.is_over:
            return 0.0
        return threading.TIMEOUT_MAX if self._until is None else self._until - time.monotonic()

    def end(self) -> None:
        """Let it return soon, if it has not."""
        self.is_over = True
        self.changed.set()


class _Bell:
    """Wakes the call under way. Hints hold it, and not the follower, which may be dropped."""

    def __init__(self) -> None:
        self.call: _Call | None = None

    def ring(self) -> None:
        """Let it look at once. From any thread."""
        if self.call is not None:
            self.call.changed.set()
