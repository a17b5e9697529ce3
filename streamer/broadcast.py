"""broadcast(): many consumers of one follower, and none of them in the way of another."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar, cast, overload

import anyio
from anyio import lowlevel
from anyio.abc import TaskGroup

from streamer.batch import Gap
from streamer.errors import StreamError
from streamer.follow import Follower
from streamer.position import Position
from streamer.pump import Inbox, Pump
from streamer.waiting import QUEUES, Entry, Failure
from streamer.whole import whole_number

__all__ = ["DEFAULT_CAPACITY", "Hub", "Subscription", "broadcast", "checked_capacity"]

#: How much waits for a consumer at the most, in bytes, if nothing else is said.
DEFAULT_CAPACITY = 16 * 1024 * 1024

ManyT = TypeVar("ManyT")
ItemT = TypeVar("ItemT")


def broadcast(follower: Follower[Any, ManyT]) -> Hub[ManyT]:
    """Let many consumers have what one follower reads: one handle, one read.

    Parameters
    ----------
    follower
        What :func:`follow` returned. From now on it is the hub's: the hub alone asks it,
        and closes it at its own end.

    Returns
    -------
    Hub
        To be entered with ``async with``, and subscribed to.

    Raises
    ------
    ValueError
        If the follower keeps a checkpoint: it would store as done what was read, and not
        what a consumer has taken. Store the `position` of a subscription instead.

    Notes
    -----
    The follower is asked for the next batch as soon as every subscription with the policy
    ``"block"`` has room for it: one that nobody iterates over stops all. As long as there is
    no subscription, nothing is read; what comes while the last one leaves is kept for the
    next.

    In memory are the batches that wait, each once however many wait for it: of each
    subscription at the most its capacity and a batch, besides the one being read.

    For at-least-once across restarts, a consumer takes a batch, does its work, and then
    stores the `position` of its subscription; later that is where to follow from.

    Examples
    --------
    >>> import anyio, tempfile
    >>> from pathlib import Path
    >>> from streamer import follow
    >>> from writer import RawWriter
    >>> path = Path(tempfile.mkdtemp()) / "raw.h5"
    >>> with RawWriter(path) as out:
    ...     rows = out.append([b"first", b"second"], io_groups=[1, 2])
    >>> async def consume(name, subscription):
    ...     async with subscription:
    ...         async for batch in subscription:
    ...             print(name, batch)
    >>> async def main():
    ...     async with broadcast(follow(path)) as hub, anyio.create_task_group() as tasks:
    ...         tasks.start_soon(consume, "quality", hub.subscribe())
    ...         tasks.start_soon(consume, "display", hub.subscribe("latest"))
    >>> anyio.run(main)
    quality <Batch of 2: rows 0 to 1, 11 bytes>
    display <Batch of 2: rows 0 to 1, 11 bytes>
    """
    return Hub(follower)


def checked_capacity(capacity: int) -> int:
    """Return a capacity [bytes] as it is.

    Raises
    ------
    ValueError
        If it is not a positive number.

    Examples
    --------
    >>> checked_capacity(1024)
    1024
    """
    size = whole_number(capacity, 1)
    if size is None:
        msg = f"the capacity is {capacity!r}, not a positive number of bytes"
        raise ValueError(msg)
    return size


class Hub(Generic[ManyT]):
    """What :func:`broadcast` returns: a follower, and those who have what it reads.

    Notes
    -----
    To leave its block ends the reading and closes the follower. Whoever still iterates is
    given what waits for it, and is then told by a :class:`StreamError`, unless the
    follower had come to its end: so the tasks of the consumers belong inside the block.

    An error of the follower is raised in every subscription, at its place in the stream; if
    one of them asks again, so does the hub. If no subscription was left, it is raised at the
    end of the block.

    Examples
    --------
    See :func:`broadcast`.

    >>> Hub.__name__
    'Hub'
    """

    def __init__(self, follower: Follower[Any, ManyT]) -> None:
        if follower.checkpoint is not None:
            msg = (
                f"{follower.path}: this follower stores as done what was read, also what waits "
                "for a consumer: give it no checkpoint, and store a subscription's position"
            )
            raise ValueError(msg)
        #: What is read. Its lag and stats are of the reading; its position is too.
        self.follower = follower
        self._pump = Pump(follower)
        self._tasks: TaskGroup | None = None

    @overload
    def subscribe(
        self, policy: Literal["block"] = "block", *, capacity: int | None = None
    ) -> Subscription[ManyT]: ...

    @overload
    def subscribe(
        self, policy: Literal["latest", "sample"], *, capacity: int | None = None
    ) -> Subscription[ManyT | Gap]: ...

    def subscribe(
        self, policy: str = "block", *, capacity: int | None = None
    ) -> Subscription[Any]:
        """Subscribe to what is read from now on.

        Parameters
        ----------
        policy
            What happens when the consumer is slower than the file.

            ``"block"``: it is given everything. When as much waits for it as may, nothing
            more is read until it has taken some: for consumers that must see every row.

            ``"latest"``: it is given the newest. When more would wait than may, the oldest
            is left out: for a display.

            ``"sample"``: it is given unbroken stretches. When its capacity is full, new rows
            are left out until it has taken all that waits: for consumers that look at
            neighbouring rows. How much is left out depends on the consumer's pace alone.
        capacity
            How many bytes of batches wait for it, with the columns that belong to the
            messages. None: 16 MiB; of ``"latest"``: the newest batch alone. One batch may
            always wait. With the other policies a batch is still let in as long as less
            than that waits.

        Returns
        -------
        Subscription
            An async iterator over :class:`Batch` and :class:`Gap`.

        Raises
        ------
        StreamError
            If this is not inside the hub's block.
        ValueError
            If an argument makes no sense.

        Notes
        -----
        What is left out is told as one :class:`Gap`, in its place. The first batch that is
        given is the next that is read: what was read before is no gap. With several
        subscriptions from the very first row, make them before the first await.
        """
        if policy not in QUEUES:
            msg = f"policy is {policy!r}, not one of {', '.join(QUEUES)}"
            raise ValueError(msg)
        if capacity is None:
            capacity = 1 if policy == "latest" else DEFAULT_CAPACITY
        size = checked_capacity(capacity)
        if self._tasks is None or self._pump.left:
            msg = f"{self.follower.path}: subscribe inside `async with broadcast(...) as hub:`"
            raise StreamError(msg)
        return Subscription(self._pump, Inbox(QUEUES[policy](size), self._pump.position))

    async def __aenter__(self) -> Self:
        if self._tasks is not None:
            msg = f"{self.follower.path}: a hub is entered once"
            raise StreamError(msg)
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._pump.run)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._tasks is not None
        try:
            self._tasks.cancel_scope.cancel()
            # It is not told of the block's own error, which goes on as it is, in no group.
            await self._tasks.__aexit__(None, None, None)
        finally:
            self._pump.leave()
            await self.follower.aclose()
        self._pump.raise_untold(quietly=error is not None)


class Subscription(Generic[ItemT]):
    """What :meth:`Hub.subscribe` returns: an async iterator over batches and gaps.

    Best used in ``async with``, which ends it at once, so that nobody waits for it; that
    also happens, a little later, when it is no longer referred to. Not to be used by two
    tasks at once. To be cancelled while it waits loses nothing: whoever asks again goes on.

    Notes
    -----
    All subscriptions are given the same batches, not copies: their arrays are to be read
    and not written to.

    Examples
    --------
    See :func:`broadcast`.

    >>> Subscription.__name__
    'Subscription'
    """

    def __init__(self, pump: Pump, inbox: Inbox) -> None:
        self._pump = pump
        self._inbox = inbox
        self._position = inbox.position
        self._missed = 0
        self._busy = False
        self._closed: str | None = None
        pump.join(inbox)

    @property
    def position(self) -> Position:
        """Where it is: after the last batch or gap that was taken. Good to start from later."""
        if self._closed is None and not self._inbox.queue and self._pump.all_given:
            # Rows that are filtered out may have been read since.
            self._position = self._pump.reached
        return self._position

    @property
    def missed(self) -> int:
        """How many messages its policy left out, in the gaps that it was given."""
        return self._missed

    @property
    def outcome(self) -> str | None:
        """Why it has ended, as a follower says it; None if it has not.

        ``"closed"`` if it, or the follower, was closed before.
        """
        if self._closed is None and not self._inbox.queue:
            return self._pump.outcome
        return self._closed

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ItemT:
        if self._busy:
            msg = f"{self._pump.path}: two tasks ask one subscription at once; give each its own"
            raise StreamError(msg)
        self._busy = True
        try:
            await self._something()
        finally:
            self._busy = False
        # No await from here to the return: what is taken is given.
        entry = self._take()
        self._position = entry.position
        self._missed += entry.missed
        item = entry.item
        if not isinstance(item, Failure):
            return cast("ItemT", item)
        try:
            self._pump.tell(item)
            # One error for all: each starts with the trace of the reading, not of another.
            raise item.error.with_traceback(item.trace)
        finally:
            del entry, item

    async def _something(self) -> None:
        """Wait until there is something to take; others have a turn in any case."""
        if self._inbox.queue:
            await lowlevel.checkpoint()
        while self._closed is not None or not self._inbox.queue:
            if self._closed is not None or self._pump.outcome is not None:
                raise StopAsyncIteration
            if self._pump.left:
                msg = (
                    f"{self._pump.path}: the hub's block was left before the end; "
                    f"the next is row {self._position.row}"
                )
                raise StreamError(msg)
            news = self._inbox.news = anyio.Event()
            self._pump.wake()  # after an error it goes on only if it is asked
            await news.wait()

    def _take(self) -> Entry:
        queue = self._inbox.queue
        had_room = queue.has_room
        entry = queue.take()
        if queue.has_room and not had_room:
            self._pump.wake()
        return entry

    async def aclose(self) -> None:
        """End it: nothing more is given, and nobody waits for it. Idempotent.

        The position can still be read. Another task that waits for a batch is told that
        there are no more.
        """
        self._position = self.position
        self._closed = self.outcome or "closed"
        self._inbox.queue.clear()
        self._pump.part(self._inbox)
        self._inbox.ring()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()
