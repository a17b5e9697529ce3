"""The one reader behind a broadcast: it asks the follower, and gives what it says to all."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

import anyio

from streamer.batch import Batch, Gap
from streamer.follow import Follower
from streamer.position import Position
from streamer.waiting import Entry, Failure, Queue

__all__ = ["Inbox", "Pump"]

logger = logging.getLogger(__name__)

# A subscription that was dropped and not closed is found out after so long. Its finalizer
# could not tell: it runs in any thread, and in the middle of whatever the loop is at.
_LOOK_SECONDS = 0.25


class Inbox:
    """Where the pump puts what is for one consumer."""

    def __init__(self, queue: Queue, position: Position) -> None:
        self.queue = queue
        #: Where the first that is put in follows.
        self.position = position
        #: What its consumer waits for; None if it does not wait.
        self.news: anyio.Event | None = None

    def ring(self) -> None:
        """Let its consumer look."""
        if self.news is not None:
            self.news.set()
            self.news = None


class Pump:
    """Asks the follower, and gives what it says to all."""

    def __init__(self, follower: Follower[Any, Any]) -> None:
        self.path = follower.path
        #: Why the follower has ended; None if it has not.
        self.outcome: str | None = None
        #: Whether the block of the hub was left.
        self.left = False
        self._follower = follower
        # In the order of joining. Only subscriptions keep them: those that were forgotten
        # do not hold up the others.
        self._inboxes: WeakValueDictionary[int, Inbox] = WeakValueDictionary()
        self._numbers = count()
        #: Where what will be given next follows.
        self.position = follower.position
        self._changed: anyio.Event | None = None
        self._failed = False
        self._held: Entry | None = None
        self._untold: Failure | None = None

    @property
    def all_given(self) -> bool:
        """Whether what was read was put into every inbox."""
        return self._held is None

    @property
    def reached(self) -> Position:
        """Where what will be read next follows."""
        return self._follower.position

    def join(self, inbox: Inbox) -> None:
        """Give it what comes from now on."""
        self._inboxes[next(self._numbers)] = inbox
        self.wake()

    def part(self, inbox: Inbox) -> None:
        """Give it nothing more."""
        for number, other in list(self._inboxes.items()):
            if other is inbox:
                del self._inboxes[number]
        self.wake()

    def wake(self) -> None:
        """Look again whether to read."""
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def tell(self, failure: Failure) -> None:
        """Note that a consumer was told."""
        if failure is self._untold:
            self._untold = None

    def raise_untold(self, *, quietly: bool) -> None:
        """Raise what nobody was there to be told of; else log what nobody stayed to hear."""
        failure, self._untold = self._untold, None
        if failure is None:
            return
        if self._held is not None and not quietly:
            raise failure.error.with_traceback(failure.trace)
        logger.warning("%s; no consumer has come to that", str(failure.error))

    def leave(self) -> None:
        """Let those who wait know that nothing more comes."""
        self.left = True
        self._ring()

    async def run(self) -> None:
        """Read until the end."""
        batches = self._follower.batches()

        async def read() -> Entry | None:
            try:
                return self._entry(await anext(batches))
            except StopAsyncIteration:
                return None
            except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
                return self._failure(error)

        while True:
            await self._until(self._is_wanted)
            # From here on it holds what was read, or nobody has it.
            self._held = await read()
            if self._held is None:
                break
            await self._until(self._inboxes.__len__)
            self._give(self._held)
            self._held = None
        self.outcome = self._follower.outcome or "closed"
        self._ring()

    def _give(self, entry: Entry) -> None:
        self.position = entry.position
        for inbox in list(self._inboxes.values()):
            inbox.queue.put(entry)
            inbox.ring()

    def _is_wanted(self) -> bool:
        inboxes = list(self._inboxes.values())
        if self._failed and not any(inbox.news is not None for inbox in inboxes):
            return False
        return bool(inboxes) and all(inbox.queue.has_room for inbox in inboxes)

    async def _until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self._changed = changed = anyio.Event()
            with anyio.move_on_after(_LOOK_SECONDS):
                await changed.wait()

    def _entry(self, item: Batch | Gap) -> Entry:
        self._failed = False
        size = 0
        if isinstance(item, Batch):
            columns = (item.rows, item.io_groups, item.buffer, item.starts, item.lengths)
            size = sum(column.nbytes for column in columns)
        return Entry(item, self._follower.position, size)

    def _failure(self, error: Exception) -> Entry:
        self._failed = True
        self._untold = Failure(error, error.__traceback__)
        return Entry(self._untold, self._follower.position)

    def _ring(self) -> None:
        for inbox in list(self._inboxes.values()):
            inbox.ring()
