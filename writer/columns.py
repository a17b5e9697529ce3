"""What the caller hands over becomes columns that HDF5 can store. All checks are made here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from writer.errors import BadBatch, LengthMismatch

__all__ = [
    "Buffer",
    "MessageColumn",
    "field_column",
    "message_column",
    "placed_column",
    "pointed_column",
]

# A reference has 4 bytes for the length.
_LONGEST = 2**32 - 1

#: Anything with contiguous bytes inside.
Buffer = bytes | bytearray | memoryview | NDArray[Any]

# C's hvl_t: what HDF5 takes a message of variable length from. Python's objects, which h5py
# would make into these one by one, take four times as long.
_POINTER = np.dtype([("length", np.uintp), ("address", np.uintp)])


class MessageColumn(NamedTuple):
    """Messages as HDF5 takes them: where they lie in memory. They are not copied."""

    #: (N,) of C's hvl_t.
    pointers: NDArray[Any]
    #: Bytes of them all.
    size: int
    #: What they lie in; the pointers are good as long as it lives.
    held: object

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self.pointers)


def placed_column(
    buffer: NDArray[np.uint8], starts: NDArray[np.int64], lengths: NDArray[np.int64]
) -> MessageColumn:
    """Return messages that lie in a buffer as a column.

    Parameters
    ----------
    buffer
        (B,) u1, contiguous.
    starts, lengths
        (N,) i8: message ``k`` is ``buffer[starts[k] : starts[k] + lengths[k]]``.
    """
    return pointed_column(buffer.ctypes.data + starts, lengths, buffer)


def pointed_column(
    addresses: NDArray[Any], lengths: NDArray[np.int64], held: object
) -> MessageColumn:
    """Return messages that lie anywhere in memory as a column.

    Parameters
    ----------
    addresses, lengths
        (N,) integers: where each lies, and its bytes.
    held
        What they lie in.
    """
    pointers = np.empty(len(lengths), _POINTER)
    pointers["length"] = lengths
    pointers["address"] = addresses
    return MessageColumn(pointers, int(lengths.sum()), held)


def message_column(
    msgs: Iterable[Buffer] | Buffer, lengths: ArrayLike | None = None
) -> MessageColumn:
    """Turn messages into a column.

    Parameters
    ----------
    msgs
        The messages, N bytes-like objects; or all of them in one buffer, if `lengths` are
        given.
    lengths
        (N,) integers: the bytes of each message of the buffer.

    Returns
    -------
    MessageColumn
        N messages in one buffer.

    Raises
    ------
    BadBatch
        If something is not bytes-like, or the lengths do not make up the buffer; names
        the message.

    Examples
    --------
    >>> column = message_column([b"one", b"three"])
    >>> column.rows, column.size
    (2, 8)
    """
    sizes: Sequence[int] | NDArray[Any]
    if lengths is not None:
        joined, sizes = _cut(msgs, lengths)
    elif isinstance(msgs, bytes | bytearray | memoryview | str):
        msg = "msgs is one message, not a list of them; a buffer of many needs lengths"
        raise BadBatch(msg)
    else:
        joined, sizes = _join(msgs if isinstance(msgs, list) else list(_iterator(msgs)))
    lengths = np.asarray(sizes, np.int64)
    if joined.size > _LONGEST and lengths.max() > _LONGEST:
        row = int(np.argmax(lengths))
        msg = f"message {row} of the batch has {sizes[row]} bytes; at most {_LONGEST} are possible"
        raise BadBatch(msg)
    return placed_column(joined, np.cumsum(lengths) - lengths, lengths)


def _iterator(msgs: Any) -> Iterator[Any]:
    try:
        return iter(msgs)
    except TypeError as error:
        msg = f"msgs is no list of messages: {type(msgs).__name__}"
        raise BadBatch(msg) from error


def _join(msgs: list[Any]) -> tuple[NDArray[np.uint8], Sequence[int]]:
    if set(map(type, msgs)) <= {bytes, bytearray}:
        sizes = list(map(len, msgs))
    else:  # len() counts elements, of more than one byte or of none
        sizes = [_byte_count(row, message) for row, message in enumerate(msgs)]
    return np.frombuffer(b"".join(msgs), dtype="u1"), sizes


def _byte_count(row: int, message: Any) -> int:
    try:
        view = memoryview(message)
    except (TypeError, BufferError, ValueError) as error:
        msg = f"message {row} of the batch is not bytes: {type(message).__name__}"
        raise BadBatch(msg) from error
    # One number, of which a whole array may have been meant; pieces; or pointers.
    if view.ndim == 0 or not view.c_contiguous or "O" in view.format:
        msg = f"message {row} of the batch is not contiguous bytes: {type(message).__name__}"
        raise BadBatch(msg)
    return view.nbytes


def _cut(buffer: Any, lengths: ArrayLike) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    try:
        joined = np.frombuffer(buffer, dtype="u1")
    except (TypeError, ValueError, BufferError) as error:
        msg = f"with lengths, msgs is one contiguous buffer, not {type(buffer).__name__}"
        raise BadBatch(msg) from error
    try:
        sizes = np.asarray(lengths)
    except ValueError as error:
        msg = f"lengths is not a column of integers: {error}"
        raise BadBatch(msg) from error
    if sizes.ndim != 1 or (sizes.size and sizes.dtype.kind not in "iu"):
        msg = f"lengths is not a column of integers: shape {sizes.shape}, dtype {sizes.dtype}"
        raise BadBatch(msg)
    if (sizes < 0).any():
        row = int(np.argmax(sizes < 0))
        msg = f"message {row} of the batch has the length {sizes[row]}"
        raise BadBatch(msg)
    # Each by itself first: a sum of such lengths could overflow.
    if (sizes > joined.size).any() or sizes.sum() != joined.size:
        total = sum(sizes.tolist())
        msg = f"the lengths make up {total} bytes, the buffer has {joined.size}"
        raise BadBatch(msg)
    return joined, sizes


def field_column(name: str, values: ArrayLike, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Turn the values of a message header field into a column.

    Parameters
    ----------
    name
        The field, for the errors.
    values
        One integer for all messages, or (count,) integers.
    count
        Number of messages.
    dtype
        Type of the field: integers, except in fields of other makers.

    Returns
    -------
    ndarray
        (count,) of `dtype`.

    Raises
    ------
    LengthMismatch
        If there is not one value a message.
    BadBatch
        If a value is not an integer, or outside the type; names the message.
        Or if it is no value of a type other than integers.

    Examples
    --------
    >>> field_column("io_groups", [1, 2], 2, np.dtype("u1"))
    array([1, 2], dtype=uint8)
    """
    try:
        found = np.asarray(values)
    except ValueError as error:  # lists of different lengths
        msg = f"{name} is not one value a message: {error}"
        raise BadBatch(msg) from error
    if found.ndim == 0:
        found = np.broadcast_to(found, count)
    if found.shape != (count,):
        msg = f"{count} messages, but {name} has the shape {found.shape}"
        raise LengthMismatch(msg)
    if found.dtype == dtype or not count:
        return found.astype(dtype)
    if dtype.kind not in "iu":
        try:
            return found.astype(dtype)
        except (TypeError, ValueError) as error:
            msg = f"{name} cannot be stored as {dtype}: {error}"
            raise BadBatch(msg) from error
    whole = _whole(found)
    if not whole.all():
        row = int(np.argmin(whole))
        msg = f"message {row} of the batch: {name} {found.tolist()[row]!r} is not an integer"
        raise BadBatch(msg)
    bounds = np.iinfo(dtype)
    outside = (found < bounds.min) | (found > bounds.max)
    if outside.any():
        row = int(np.argmax(outside))
        limits = f"{bounds.min}..{bounds.max}"
        msg = f"message {row} of the batch: {name} {found[row]} is outside {limits}"
        raise BadBatch(msg)
    return found.astype(dtype)


def _whole(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell of each value whether it is an integer, of whatever size."""
    if values.dtype.kind in "iu":
        return np.ones(values.shape, dtype=bool)
    if values.dtype.kind == "f":
        whole: NDArray[np.bool_] = values == np.floor(values)
        return whole
    # Python objects: integers too large for numpy, or anything else.
    return np.array([isinstance(value, int) for value in values.tolist()], dtype=bool)
