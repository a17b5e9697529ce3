"""What followers with and without an event loop have in common: all but the waiting."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from streamer.batch import Batch
from streamer.errors import NotReady, WriterStalled
from streamer.position import Position
from streamer.progress import Lag, Progress, Stats
from streamer.steps import Step, Steps
from streamer.wake import Hints

__all__ = ["Following"]


class Following:
    """What a follower knows of itself.

    Parameters
    ----------
    steps
        The steps that it takes; its own.
    idle_timeout, poll, hints
        As in :func:`streamer.follow`.

    Raises
    ------
    ValueError
        If a time is not positive.
    """

    def __init__(
        self, steps: Steps, *, idle_timeout: float | None, poll: float, hints: bool
    ) -> None:
        if not 0 < poll <= threading.TIMEOUT_MAX:
            msg = f"poll is {poll}, not a positive number of seconds"
            raise ValueError(msg)
        if idle_timeout is not None and not idle_timeout > 0:
            msg = f"idle_timeout is {idle_timeout}, not a positive number of seconds"
            raise ValueError(msg)
        self._steps = steps
        self._idle_timeout = idle_timeout
        self._poll = poll
        self._use_hints = hints
        self._progress = Progress(steps.start)
        self._idle_since: float | None = None
        self._closed = False
        self._bell = _Bell()
        self._hints: Hints | None = None
        self._hints_lock = threading.Lock()

    @property
    def path(self) -> Path:
        """The file."""
        return self._steps.path

    @property
    def position(self) -> Position:
        """Where it is: after the last message that was given. Good to start from later."""
        return self._progress.position

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
        if self._idle_timeout is not None:
            # Kept from call to call: who waits with shorter timeouts of his own, again and
            # again, hears of the silence too.
            self._idle_since = self._idle_since or time.monotonic()
            until = self._idle_since + self._idle_timeout
        self._bell.call = _Call(self._progress.row, self._progress.trouble, until)
        return self._bell.call

    def _look(self, call: _Call) -> Step:
        """Look until there is something to tell, or until the call is over. In any thread.

        The rows that it returns follow those of the call: whether they are taken makes no
        difference here.
        """
        row = call.row
        while True:
            # Before looking: what changes from now on is not to be waited for.
            call.changed.clear()
            step = self._steps.step(row)
            row = step.row
            if step.read or step.outcome is not None:
                return step
            if self._start_hints():
                continue  # it may have changed just before
            left = call.left
            if left > 0:
                call.changed.wait(min(self._poll, left))
            if call.left <= 0 or row != call.row or step.trouble != call.trouble:
                return step

    def _start_hints(self) -> bool:
        """Start the hints, which nobody needs who still catches up; True if that was now."""
        with self._hints_lock:
            if self._hints is not None or not self._use_hints:
                return False
            self._hints = Hints(self.path, self._bell.ring)
            return self._hints.active

    def _release_now(self) -> None:
        """Give back what the system has given: threads, watch and file."""
        with self._hints_lock:
            self._use_hints = False
            hints, self._hints = self._hints, None
        if hints is not None:
            hints.close()
        self._steps.close()

    def __del__(self) -> None:
        # Of a follower that was dropped in the middle. The steps go with it, and the file.
        hints = self.__dict__.get("_hints")
        if hints is not None:
            hints.stop()

    def _take(self, step: Step) -> Batch | None:
        """Move on by a step; return its batch."""
        if self._closed:  # meanwhile, by another
            return None
        if step.read:  # also rows that are filtered out: their writer lives
            self._idle_since = None
        return self._progress.take(step)

    def _check_silence(self) -> None:
        """Raise if no row has come for as long as was allowed."""
        if self._idle_timeout is None or self._idle_since is None:
            return
        if time.monotonic() < self._idle_since + self._idle_timeout:
            return
        self._idle_since = None  # whoever asks again waits as long again
        trouble, row = self._progress.trouble, self._progress.row
        if row is None:
            msg = f"{trouble}, for {self._idle_timeout:g} s"
            raise NotReady(msg)
        msg = (
            f"{self.path}: no new row for {self._idle_timeout:g} s; the next is row {row}. "
            f"{trouble or 'Its writer pauses, has died, or cannot say that the run is over'}"
        )
        raise WriterStalled(msg)


class _Call:
    """A call of `_look`: what it goes on from, and until when [monotonic s]."""

    def __init__(self, row: int | None, trouble: str | None, until: float | None) -> None:
        self.row = row
        self.trouble = trouble
        self.changed = threading.Event()
        self._until = until
        self._over = False

    @property
    def left(self) -> float:
        """For how long it may go on."""
        if self._over:
            return 0.0
        return threading.TIMEOUT_MAX if self._until is None else self._until - time.monotonic()

    def end(self) -> None:
        """Let it return soon, if it has not."""
        self._over = True
        self.changed.set()


class _Bell:
    """Wakes the call under way. Hints hold it, and not the follower, which may be dropped."""

    def __init__(self) -> None:
        self.call: _Call | None = None

    def ring(self) -> None:
        """Let it look at once. From any thread."""
        if self.call is not None:
            self.call.changed.set()
