"""buffered(): read ahead while the consumer works."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Generic, TypeVar

from streamer.broadcast import DEFAULT_CAPACITY, Subscription, broadcast, checked_capacity
from streamer.follow import Follower

__all__ = ["Buffered", "buffered"]

ManyT = TypeVar("ManyT")


def buffered(
    follower: Follower[Any, ManyT], *, capacity_bytes: int = DEFAULT_CAPACITY
) -> Buffered[ManyT]:
    """Let a follower read ahead in a task of its own, while the consumer works.

    Parameters
    ----------
    follower
        What :func:`follow` returned. From now on it belongs to the buffer, which closes it.
    capacity_bytes
        How much may wait for the consumer, in bytes of batches with their columns. A batch
        is still let in as long as less than that waits, so one always is.

    Returns
    -------
    Buffered
        To be entered with ``async with``. What that gives is an async iterator over the
        same batches, gaps and errors, in the same order, with the same end.

    Raises
    ------
    ValueError
        If the capacity is not a positive number, or the follower keeps a checkpoint: it
        would store as done what was read ahead. Store the `position` of what the
        ``async with`` gives instead, which is after the last batch that was taken.

    Notes
    -----
    It is a :func:`broadcast` to one consumer, who misses nothing.

    Examples
    --------
    >>> import anyio, tempfile
    >>> from pathlib import Path
    >>> from streamer import follow
    >>> from writer import RawWriter
    >>> path = Path(tempfile.mkdtemp()) / "raw.h5"
    >>> with RawWriter(path) as out:
    ...     rows = out.append([b"first", b"second"], io_groups=[1, 2])
    >>> async def main():
    ...     async with buffered(follow(path)) as ahead:
    ...         async for batch in ahead:
    ...             print(batch, ahead.position.row)
    >>> anyio.run(main)
    <Batch of 2: rows 0 to 1, 11 bytes> 2
    """
    return Buffered(follower, capacity_bytes)


class Buffered(Generic[ManyT]):
    """What :func:`buffered` returns: the block in which a follower reads ahead.

    Examples
    --------
    See :func:`buffered`.

    >>> Buffered.__name__
    'Buffered'
    """

    def __init__(self, follower: Follower[Any, ManyT], capacity_bytes: int) -> None:
        self._hub = broadcast(follower)
        self._capacity = checked_capacity(capacity_bytes)

    async def __aenter__(self) -> Subscription[ManyT]:
        await self._hub.__aenter__()
        return self._hub.subscribe(capacity=self._capacity)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._hub.__aexit__(kind, error, trace)
