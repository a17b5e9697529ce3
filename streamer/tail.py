"""tail(): the synchronous twin of follow(), without an event loop."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, Unpack, cast, overload

from streamer.batch import Batch, Gap, Message
from streamer.choice import DEFAULT_BATCH_BYTES
from streamer.following import Continuing, Following, Raising
from streamer.packets import DECODED_BYTES, Packets, check_options
from streamer.position import Position
from streamer.sequence import DEFAULT_ROTATE_GRACE

__all__ = ["Tail", "tail"]

OneT = TypeVar("OneT")
ManyT = TypeVar("ManyT")
ItemT = TypeVar("ItemT")


@overload
def tail(source: str | os.PathLike[str], **options: Unpack[Raising]) -> Tail[Message, Batch]: ...


@overload
def tail(
    source: str | os.PathLike[str], **options: Unpack[Continuing]
) -> Tail[Message | Gap, Batch | Gap]: ...


def tail(
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
) -> Tail[Any, Any]:
    """Follow a raw file without an event loop; as :func:`streamer.follow` in all else.

    Parameters
    ----------
    source, start, until, io_groups, idle_timeout, poll, max_batch_bytes, hints, checkpoint
        As in :func:`streamer.follow`.
    on_replace, rotate_grace
        As in :func:`streamer.follow`.

    Returns
    -------
    Tail
        To be iterated with ``for``, over messages or over batches.

    Raises
    ------
    ValueError
        If an argument makes no sense.
    CheckpointError
        If the checkpoint is damaged, and the one before it too.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from writer import RawWriter
    >>> path = Path(tempfile.mkdtemp()) / "raw.h5"
    >>> with RawWriter(path) as out:
    ...     rows = out.append([b"first", b"second", b"third"], io_groups=[1, 2, 1])
    >>> for message in tail(path, start=-2, until="end"):
    ...     print(message.row, message.io_group, message.data)
    1 2 b'second'
    2 1 b'third'
    """
    return Tail(
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


class _Again(Iterator[ItemT]):
    """Gives what a function returns until that raises StopIteration.

    After any other error it goes on, which a generator does not.
    """

    def __init__(self, next_one: Callable[[], ItemT]) -> None:
        self._next_one = next_one

    def __next__(self) -> ItemT:
        return self._next_one()


class Tail(Following, Generic[OneT, ManyT]):
    """What :func:`tail` returns: an iterator over the messages of a file.

    Not to be made by hand, nor iterated by two threads at once; another thread may close it,
    and ask for its position, lag, stats and outcome. Best used in ``with``.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from writer import RawWriter
    >>> path = Path(tempfile.mkdtemp()) / "raw.h5"
    >>> with RawWriter(path) as out:
    ...     rows = out.append([b"first", b"second"], io_groups=[1, 2])
    >>> with tail(path) as live:
    ...     for batch in live.batches():
    ...         print(batch)
    <Batch of 2: rows 0 to 1, 11 bytes>
    """

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> OneT:
        # Before the next message is taken: who is told here that it failed has not lost it.
        if self._is_store_due():
            self.commit()
        message = self._progress.next_message()
        while message is None:
            self._advance()
            message = self._progress.next_message()
        return cast("OneT", message)

    def batches(self) -> Iterator[ManyT]:
        """Iterate over batches instead of messages: the same rows, and much faster."""
        return _Again(self.next_batch)

    @overload
    def packets(
        self: Tail[Message, Batch], *, wire: str = ..., asic: str | Mapping[int, str] = ...
    ) -> Iterator[Packets]: ...

    @overload
    def packets(
        self, *, wire: str = ..., asic: str | Mapping[int, str] = ...
    ) -> Iterator[Packets | Gap]: ...

    def packets(
        self, *, wire: str = "auto", asic: str | Mapping[int, str] = "v2"
    ) -> Iterator[Any]:
        """Iterate over decoded packets instead of messages; as of a Follower.

        Parameters
        ----------
        wire, asic
            As in :func:`streamer.decode`.

        Returns
        -------
        Iterator
            Over :class:`Packets`, of a batch or of a part of one, and over each :class:`Gap`.

        Raises
        ------
        ValueError
            If there is no such wire or chip.
        """
        check_options(wire, asic)

        def decoded() -> Packets | Gap:
            piece = self._next_piece()
            return piece.packets(wire=wire, asic=asic) if isinstance(piece, Batch) else piece

        return _Again(decoded)

    def _next_piece(self) -> Batch | Gap:
        piece = self._progress.piece(DECODED_BYTES)
        while piece is None:
            self._advance()
            piece = self._progress.piece(DECODED_BYTES)
        return piece

    def next_batch(self) -> ManyT:
        """Return the next rows at once, waiting for at least one.

        Raises
        ------
        StopIteration
            If it has ended.
        """
        batch = self._progress.rest()
        while batch is None:
            self._advance()
            batch = self._progress.rest()
        return cast("ManyT", batch)

    def commit(self) -> None:
        """Store the position behind the last message that was given; as of a Follower."""
        self._progress.commit()
        self._commit_now(*self._numbered())

    def _advance(self) -> None:
        """Wait for rows and read them."""
        self._progress.settle()
        while not self._closed and self._progress.outcome is None:
            if self._take(self._look(self._call())):
                return
            self._check_silence()
        self._release_now()
        raise StopIteration

    def close(self) -> None:
        """Close the file and end the watch: nothing more is given.

        Idempotent. The position can still be read. Another thread may call it, and so end
        a wait.
        """
        self._closed = True
        self._progress.drop()
        if self._bell.call is not None:
            self._bell.call.end()
        self._release_now()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
