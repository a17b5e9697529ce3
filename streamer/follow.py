"""follow(): every new message of a raw file, once, in order, as it comes."""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable, Collection, Mapping
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, Unpack, cast, overload

import anyio
from anyio import lowlevel, to_thread

from streamer.batch import Batch, Gap, Message
from streamer.choice import DEFAULT_BATCH_BYTES
from streamer.errors import StreamError
from streamer.following import Continuing, Following, Raising
from streamer.packets import DECODED_BYTES, Packets, check_options
from streamer.position import Position
from streamer.sequence import DEFAULT_ROTATE_GRACE

__all__ = ["Batches", "Follower", "PacketBatches", "follow"]

# After so many messages that were there already, or 1 MB of them, other tasks have a turn.
_TURN_MESSAGES = 256
# A file server that hangs does not keep a program from ending for longer.
_CLOSING_SECONDS = 5.0

OneT = TypeVar("OneT")
ManyT = TypeVar("ManyT")


@overload
def follow(
    source: str | os.PathLike[str], **options: Unpack[Raising]
) -> Follower[Message, Batch]: ...


@overload
def follow(
    source: str | os.PathLike[str], **options: Unpack[Continuing]
) -> Follower[Message | Gap, Batch | Gap]: ...


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
    checkpoint: str | os.PathLike[str] | None = None,
    on_replace: str = "raise",
    rotate_grace: float = DEFAULT_ROTATE_GRACE,
) -> Follower[Any, Any]:
    """Follow a raw file: every message, once, in order, also those that are still to come.

    Parameters
    ----------
    source
        The file. It may be absent as yet; it is then waited for, and a line in the log
        says so. Or a folder (one that is absent ends with a slash), or a pattern of files in
        it, ``"runs/raw_*.h5"``: the runs in it, one after the other, in the order in which
        they were made; of a folder, its files ``*.h5``.
    start
        ``"beginning"``; ``"end"``: what comes from the first look on; a row, also one that
        is still to come; a negative number, -n: the last n rows, or all if there are
        fewer; or a :class:`Position` in this very file. Of a folder: not a row; the end, and
        the last n rows, are those of the newest run; and a position may be in any of them.
    until
        ``"finished"``: the writer has ended the run and said so, as a
        :class:`writer.RawWriter` does at its close. Other writers never say so: then the
        caller ends it, or `idle_timeout`, and a line in the log says so after a silence.
        ``"end"``: what is committed at the first look.
        A row: the rows before it; none if that is before the start. A folder never
        finishes, as another run may come, and has no rows of its own.
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
    checkpoint
        A file in which the position is stored, and from which it is taken if it exists; then
        `start` does not matter. A message is committed when the next one is asked for, or
        with :meth:`Follower.commit`; what is committed is stored when there is nothing to
        read, at least every second, at the end and at the close. After a kill, what was not
        stored is delivered again, and nothing is missed.
    on_replace
        What happens when the name is given to another file, or the run is started again in
        the same one. All rows of the old one that can still be read are given first. Then
        ``"raise"``: :class:`FileReplaced`. ``"continue"``: a :class:`Gap` instead of a
        message or batch, and then the new file from its beginning.
    rotate_grace
        Of a folder: seconds for which a file that a newer one has followed has to be still,
        to count as complete. One that its writer has finished is so at once.

    Returns
    -------
    Follower
        To be iterated with ``async for``, over messages or over batches.

    Raises
    ------
    ValueError
        If an argument makes no sense.
    CheckpointError
        If the checkpoint is damaged, and the one before it too.

    Notes
    -----
    Runs on asyncio and trio. HDF5 is called in one worker thread at a time and never in
    the event loop. Nothing is read before it is asked for. Cancelling at any await
    loses nothing and delivers nothing twice: the next call goes on with the next row.

    In a folder, rows that were announced in a file and never written, as a killed writer
    leaves them, are not waited for once a newer file is there. A run that appears late, made
    before the one that is being given, is given next; but not if it came while nobody followed.

    Examples
    --------
    >>> import anyio, tempfile
    >>> from pathlib import Path
    >>> from writer import RawWriter
    >>> path = Path(tempfile.mkdtemp()) / "raw.h5"
    >>> with RawWriter(path) as out:
    ...     rows = out.append([b"first", b"second"], io_groups=[1, 2])
    >>> async def main():
    ...     async for message in follow(path):
    ...         print(message.row, message.io_group, message.data)
    >>> anyio.run(main)
    0 1 b'first'
    1 2 b'second'
    """
    return Follower(
        source,
        start=start,
        until=until,
        io_groups=io_groups,
        idle_timeout=idle_timeout,
        poll=poll,
        max_batch_bytes=max_batch_bytes,
        hints=hints,
        checkpoint=checkpoint,
        on_replace=on_replace,
        rotate_grace=rotate_grace,
    )


class Follower(Following, Generic[OneT, ManyT]):
    """What :func:`follow` returns: an async iterator over the messages of a file.

    Do not construct it directly, nor use it from two tasks at once. Best used in ``async with``,
    which closes the file at once; otherwise that happens when it is garbage-collected.

    Examples
    --------
    >>> import anyio, tempfile
    >>> from pathlib import Path
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

    # Made in the thread of the loop that first iterates.
    _limiter: anyio.CapacityLimiter | None = None
    _turn = 0
    _busy = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> OneT:
        if self._turn >= _TURN_MESSAGES:
            self._turn = 0
            await lowlevel.checkpoint()
        # Before the next message is taken: who is cancelled here has not lost it.
        if self._is_store_due():
            await self.commit()
        message = self._progress.next_message()
        while message is None:
            await self._advance()
            message = self._progress.next_message()
        # Copying a large one takes its time too.
        self._turn += 1 + (len(message[2]) >> 12)
        return cast("OneT", message)

    def batches(self) -> Batches[ManyT]:
        """Iterate over batches instead of messages: the same rows, and much faster.

        Returns
        -------
        Batches
            An async iterator over :class:`Batch`. Both ways may be used in turn.
        """
        return Batches(self)

    @overload
    def packets(
        self: Follower[Message, Batch], *, wire: str = ..., asic: str | Mapping[int, str] = ...
    ) -> PacketBatches[Packets]: ...

    @overload
    def packets(
        self, *, wire: str = ..., asic: str | Mapping[int, str] = ...
    ) -> PacketBatches[Packets | Gap]: ...

    def packets(
        self, *, wire: str = "auto", asic: str | Mapping[int, str] = "v2"
    ) -> PacketBatches[Any]:
        """Iterate over decoded packets instead of messages: the same rows.

        Parameters
        ----------
        wire, asic
            As in :func:`streamer.decode`.

        Returns
        -------
        PacketBatches
            An async iterator over :class:`Packets`, of a batch, or of a part of one if it is
            large. Where a :class:`Gap` would come instead of a batch, it comes here too.

        Raises
        ------
        ValueError
            If there is no such wire or chip.

        Examples
        --------
        >>> import anyio, tempfile
        >>> from pathlib import Path
        >>> from writer import RawWriter
        >>> from writer.pacman import Word, messages, words
        >>> message, _ = messages(words(Word.TRIG, trigger_type=2, timestamp=[5, 9]), [2], 0)
        >>> path = Path(tempfile.mkdtemp()) / "raw.h5"
        >>> with RawWriter(path, io_version="0.0") as out:
        ...     rows = out.append([message.tobytes()], io_groups=[1])
        >>> async def main():
        ...     async for packets in follow(path).packets():
        ...         print(packets.timestamp[packets.is_trigger].tolist())
        >>> anyio.run(main)
        [5, 9]
        """
        check_options(wire, asic)
        return PacketBatches(self._next_piece, wire, asic)

    async def next_batch(self) -> ManyT:
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
        return cast("ManyT", batch)

    async def _next_piece(self) -> Batch | Gap:
        piece = self._progress.piece(DECODED_BYTES)
        while piece is None:
            await self._advance()
            piece = self._progress.piece(DECODED_BYTES)
        return piece

    async def commit(self) -> None:
        """Store the position behind the last message that was given, now, on disk.

        Raises
        ------
        CheckpointError
            If that is not possible.
        StreamError
            If there is no checkpoint.
        """
        self._progress.commit()
        # Not abandoned: it takes milliseconds, and is on disk or not when this returns. But
        # asyncio's own cancellation does not wait for it: hence the number.
        limiter = anyio.CapacityLimiter(1)  # not behind what else the program does in threads
        await to_thread.run_sync(self._commit_now, *self._numbered(), limiter=limiter)

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
            if self._take(step):
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
        limiter = anyio.CapacityLimiter(1)
        try:
            with anyio.move_on_after(_CLOSING_SECONDS, shield=True):
                await to_thread.run_sync(
                    self._release_now, abandon_on_cancel=True, limiter=limiter
                )
        except anyio.get_cancelled_exc_class():
            # No shield holds off a cancellation of asyncio's own: perhaps it has not begun.
            threading.Thread(target=self._release_now, daemon=True).start()
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


class Batches(Generic[ManyT]):
    """An async iterator over the batches of a follower.

    Examples
    --------
    See :class:`Follower`.

    >>> Batches.__name__
    'Batches'
    """

    def __init__(self, follower: Follower[Any, ManyT]) -> None:
        self._follower = follower

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ManyT:
        return await self._follower.next_batch()


class PacketBatches(Generic[ManyT]):
    """An async iterator over the packets of a follower.

    Examples
    --------
    See :meth:`Follower.packets`.

    >>> PacketBatches.__name__
    'PacketBatches'
    """

    def __init__(
        self,
        next_piece: Callable[[], Awaitable[Batch | Gap]],
        wire: str,
        asic: str | Mapping[int, str],
    ) -> None:
        self._next_piece = next_piece
        self._wire = wire
        self._asic = asic

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ManyT:
        piece = await self._next_piece()
        # No await from here on: who is cancelled has lost nothing.
        if isinstance(piece, Batch):
            return cast("ManyT", piece.packets(wire=self._wire, asic=self._asic))
        return cast("ManyT", piece)
