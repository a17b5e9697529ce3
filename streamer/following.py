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
        return self._progress.stats

    @property
    def trouble(self) -> str | None:
        """What kept the last look from giving rows, in words; None if nothing did."""
        return self._progress.trouble

    def _take(self, step: Step) -> Batch | None:
        """Move on by a step; return its batch."""
        if self._closed:  # meanwhile, by another
            return None
        if step.read:  # also rows that are filtered out: their writer lives
            self._idle_since = None
        return self._progress.take(step)

    def _pause(self) -> float:
        """Return how long to wait for the next look, after one in vain."""
        if self._idle_timeout is None:
            return self._poll
        # Kept from call to call: who waits with shorter timeouts of his own, again and
        # again, hears of the silence too.
        now = time.monotonic()
        self._idle_since = self._idle_since or now
        left = self._idle_since + self._idle_timeout - now
        if left > 0:
            return min(self._poll, left)
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
