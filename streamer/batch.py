"""Batch and Message: what travels."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.packets import Packets, decode

if TYPE_CHECKING:
    import awkward

__all__ = ["Batch", "Gap", "Message"]


class Message(NamedTuple):
    """One PACMAN message."""

    #: Row in the file, from 0.
    row: int
    #: PACMAN card that it came from.
    io_group: int
    data: bytes
    #: The file that it is from, as a follower found it.
    source: Path | None = None


class Gap(NamedTuple):
    """Rows that are not delivered; it comes in their place.

    Examples
    --------
    >>> Gap(10, 20, "a newer batch came before these were taken")
    Gap(start=10, stop=20, reason='a newer batch came before these were taken', source=None)
    """

    #: The first row that is missing.
    start: int
    #: The row after the last one; None if nobody can know it, as of a file that was replaced.
    stop: int | None
    #: Why, in words.
    reason: str
    #: The file whose rows they are.
    source: Path | None = None


_as_message: Callable[[tuple[int, int, bytes, Path | None]], Message] = partial(
    tuple.__new__, Message
)


@dataclass(frozen=True, eq=False)
class Batch:
    """Messages as columns: no object per message, and no copy of its bytes.

    Parameters
    ----------
    rows
        (N,) i8: row of each message in the file, ascending.
    io_groups
        (N,) u1: PACMAN card that each came from.
    buffer
        (B,) u1: bytes of the file in which the messages lie, with other bytes between.
    starts, lengths
        (N,) i8: message ``k`` is ``buffer[starts[k] : starts[k] + lengths[k]]``.
    source
        The file that they are from.
    io_version
        What that file says of the version of its messages' bytes; None if nothing.

    Examples
    --------
    >>> batch = Batch(
    ...     rows=np.array([5, 6]),
    ...     io_groups=np.array([1, 2], "u1"),
    ...     buffer=np.frombuffer(b"onethree", "u1"),
    ...     starts=np.array([0, 3]),
    ...     lengths=np.array([3, 5]),
    ... )
    >>> batch[1]
    Message(row=6, io_group=2, data=b'three', source=None)
    >>> batch.select(batch.io_groups == 1).tolist()
    [b'one']
    """

    rows: NDArray[np.int64]
    io_groups: NDArray[np.uint8]
    buffer: NDArray[np.uint8]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    source: Path | None = None
    io_version: str | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Message]:
        # Each message is copied when it is asked for: in an event loop others have a turn.
        view, stops = self.buffer.data, (self.starts + self.lengths).tolist()
        data = (
            view[start:stop].tobytes()
            for start, stop in zip(self.starts.tolist(), stops, strict=True)
        )
        # Not Message(...), which costs three times as much: it is a function in Python.
        columns = zip(self.rows.tolist(), self.io_groups.tolist(), data, repeat(self.source))
        return map(_as_message, columns)

    def __getitem__(self, index: int) -> Message:
        index = operator.index(index)
        start = int(self.starts[index])
        data = self.buffer[start : start + int(self.lengths[index])].tobytes()
        return Message(int(self.rows[index]), int(self.io_groups[index]), data, self.source)

    def __repr__(self) -> str:
        rows = f"rows {self.rows[0]} to {self.rows[-1]}" if len(self) else "no rows"
        return f"<Batch of {len(self)}: {rows}, {self.payload_bytes} bytes>"

    @property
    def payload_bytes(self) -> int:
        """Bytes of all messages together."""
        return int(self.lengths.sum())

    def tolist(self) -> list[bytes]:
        """Copy the messages out.

        Returns
        -------
        list of bytes
            One a message.
        """
        data = self.buffer.tobytes()
        stops = (self.starts + self.lengths).tolist()
        return [data[start:stop] for start, stop in zip(self.starts.tolist(), stops, strict=True)]

    def select(self, mask: NDArray[Any]) -> Batch:
        """Return some of the messages, in the same buffer.

        Parameters
        ----------
        mask
            (N,) bool, or indices.

        Returns
        -------
        Batch
            The messages for which the mask is true.

        Raises
        ------
        IndexError
            If the mask does not have one value a message.
        """
        rows = self.rows[mask]
        # numpy takes one bool or number for all, and no bools at all: comparisons gone wrong.
        if rows.ndim != 1 or (np.asarray(mask).dtype == bool and np.shape(mask) != (len(self),)):
            msg = f"a mask has one value for each of {len(self)} messages, not {mask!r}"
            raise IndexError(msg)
        return Batch(
            rows,
            self.io_groups[mask],
            self.buffer,
            self.starts[mask],
            self.lengths[mask],
            self.source,
            self.io_version,
        )

    def packets(self, *, wire: str = "auto", asic: str | Mapping[int, str] = "v2") -> Packets:
        """Decode the messages into packets.

        Parameters
        ----------
        wire, asic
            As in :func:`streamer.decode`.

        Returns
        -------
        Packets
            What could be decoded, and what could not.

        Raises
        ------
        ValueError
            If there is no such wire or chip.
        """
        return decode(self, wire=wire, asic=asic)

    def to_awkward(self) -> awkward.Array:
        """Return the messages as an awkward array, without copying their bytes.

        Returns
        -------
        awkward.Array
            N lists of u1. Needs the package awkward.

        Raises
        ------
        ModuleNotFoundError
            If awkward is not installed.
        """
        import awkward

        layout = awkward.contents.ListArray(
            awkward.index.Index64(self.starts),
            awkward.index.Index64(self.starts + self.lengths),
            awkward.contents.NumpyArray(self.buffer),
        )
        return awkward.Array(layout)
