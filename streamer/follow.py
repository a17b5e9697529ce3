"""follow(): every new message of a raw file, once, in order, as it comes."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio
from anyio import lowlevel, to_thread

from streamer.batch import Batch, Message
from streamer.errors import StreamError
from streamer.following import Following
from streamer.position import Position
from streamer.steps import DEFAULT_BATCH_BYTES, Steps

__all__ = ["Batches", "Follower", "follow"]

# After so many messages that were there already, or 1 MB of them, other tasks have a turn.
_TURN_MESSAGES = 256
# A file server that hangs does not keep a program from ending for longer.
_CLOSING_SECONDS = 5.0


def follow(
    source: str | os.PathLike[str],
    *,
    start: str | int | Position = "beginning",
    until: str | int = "finished",
    io_groups: Collection[int] | None = None,
    idle_timeout: float | None = None,
    poll: float = 0.05,
    max_batch_bytes: int = DEFAULT_BATCH_BYTES,
    hints: bool = True,
) -> Follower:
    """Follow a raw file: every message, once, in order, also those that are still to come.

    Parameters
    ----------
    source
        The file. It may be absent as yet; it is then waited for, and a line in the log
        says so.
    start
        ``"beginning"``; ``"end"``: what comes from the first look on; a row, also one that
        is still to come; a negative number, -n: the last n rows, or all if there are
        fewer; or a :class:`Position` in this very file.
    until
        ``"finished"``: the writer has ended the run and said so, as a
        :class:`writer.RawWriter` does at its close. Other writers never say so: then the
        caller ends it, or `idle_timeout`. ``"end"``: what is committed at the first look.
        A row: the rows before it; none if that is before the start.
    io_groups
        Only messages of these PACMAN cards; the others are not given. None for all.
    idle_timeout
        Seconds without a new row after which it fails. None: it waits for ever.
    poll
        Seconds between looks at the file when no hint comes.
    max_batch_bytes
        Bytes of messages to hold at the most. A single message may have more.
    hints
        Whether to let the operating system's notices of file changes shorten the wait.
        The rows are the same without.

    Returns
    -------
    Follower
        To be iterated with ``async for``, over messages or over batches.

    Raises
    ------
    ValueError
        If an argument makes no sense.

    Notes
    -----
    Runs on asyncio and trio. HDF5 is called in one worker thread at a time and never in
    the event loop. Nothing is read before it is asked for. To be cancelled at any await
    loses nothing and gives nothing twice: whoever asks again goes on with the next row.

    Examples
    --------
    >>> import anyio, tempfile
    >>> from writer import RawWriter
    >>> path = Path(tempfile.mkdtemp()) / "raw.h5"
    >>> with RawWriter(path) as out:
    ...     rows = out.append([b"first", b"second"], io_groups=[1, 2])
    >>> async def main():
    ...     async for message in follow(path):
    ...         print(message)
    >>> anyio.run(main)
    Message(row=0, io_group=1, data=b'first')
    Message(row=1, io_group=2, data=b'second')
    """
    steps = Steps(
        Path(source),
        start=start,
        until=until,
        io_groups=io_groups,
        max_batch_bytes=max_batch_bytes,
    )
    return Follower(steps, idle_timeout=idle_timeout, poll=poll, hints=hints)


class Follower(Following):
    """What :func:`follow` returns: an async iterator over the messages of a file.

    Not to be made by hand, nor used by two tasks at once. Best used in ``async with``,
    which closes the file at once; otherwise that happens when it is no longer referred to.

    Examples
    --------
    >>> import anyio, tempfile
    >>> from writer import RawWriter
    >>> path = Path(tempfile.mkdtemp()) / "raw.h5"
    >>> with RawWriter(path) as out:
    ...     rows = out.append([b"first", b"second"], io_groups=[1, 2])
    >>> async def main():
    ...     async with follow(path) as live:
    ...         async for batch in live.batches():
    ...             print(batch)
    ...     return live.outcome
    >>> anyio.run(main)
    <Batch of 2: rows 0 to 1, 11 bytes>
    'finished'
    """

    def __init__(
        self, steps: Steps, *, idle_timeout: float | None, poll: float, hints: bool
    ) -> None:
        super().__init__(steps, idle_timeout=idle_timeout, poll=poll, hints=hints)
        self._limiter: anyio.CapacityLimiter | None = None
        self._turn = 0
        self._busy = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        if self._turn >= _TURN_MESSAGES:
            self._turn = 0
            await lowlevel.checkpoint()
        message = self._progress.next_message()
        while message is None:
            await self._advance()
            message = self._progress.next_message()
        # Copying a large one takes its time too.
        self._turn += 1 + (len(message.data) >> 12)
        return message

    def batches(self) -> Batches:
        """Iterate over batches instead of messages: the same rows, and much faster.

        Returns
        -------
        Batches
            An async iterator over :class:`Batch`. Both ways may be used in turn.
        """
        return Batches(self)

    async def next_batch(self) -> Batch:
        """Return the next rows at once, waiting for at least one.

        Raises
        ------
        StopAsyncIteration
            If it has ended.
        """
        batch = self._progress.rest()
        while batch is None:
            await self._advance()
            batch = self._progress.rest()
        return batch

    async def _advance(self) -> None:
        """Wait for rows and read them."""
        if self._busy:
            msg = f"{self.path}: two tasks ask one follower at once; give each its own"
            raise StreamError(msg)
        self._busy = True
        try:
            await self._advance_alone()
        finally:
            self._busy = False

    async def _advance_alone(self) -> None:
        self._progress.settle()
        if self._limiter is None:  # not before there is a loop
            self._limiter = anyio.CapacityLimiter(1)
        while not self._closed and self._progress.outcome is None:
            call = self._call()
            # Abandoned when cancelled, so that a file server that hangs cannot keep a
            # program from ending. The look is a function of the row, and the lock in it
            # lets the next one wait: what an abandoned one has read is read once more.
            try:
                step = await to_thread.run_sync(
                    self._look, call, abandon_on_cancel=True, limiter=self._limiter
                )
            finally:
                call.end()
            # No await from here to the return: either all of the step counts or nothing.
            if self._take(step) is not None:
                return
            self._check_silence()
        await self._release()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Close the file and end the watch: nothing more is given.

        Idempotent. The position can still be read. Another task that waits for a message
        is told that there are no more.
        """
        self._closed = True
        self._progress.drop()
        if self._bell.call is not None:
            self._bell.call.end()
        await self._release()

    async def _release(self) -> None:
        with anyio.move_on_after(_CLOSING_SECONDS, shield=True):
            await to_thread.run_sync(self._release_now, abandon_on_cancel=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


class Batches:
    """An async iterator over the batches of a follower.

    Examples
    --------
    See :class:`Follower`.

    >>> Batches.__name__
    'Batches'
    """

    def __init__(self, follower: Follower) -> None:
        self._follower = follower

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        return await self._follower.next_batch()
