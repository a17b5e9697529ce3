"""Named fields at fixed places in bytes, values that fit into them, and words behind headers."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["at_offsets", "behind", "filled", "lead", "within"]


def at_offsets(itemsize: int, **fields: tuple[str, int]) -> np.dtype[np.void]:
    """Return a dtype of so many bytes, with fields of a format at a byte each.

    Examples
    --------
    >>> at_offsets(8, type=("u1", 0), words=("<u2", 6)).fields["words"]
    (dtype('uint16'), 6)
    """
    formats, offsets = zip(*fields.values(), strict=True)
    return np.dtype(
        {"names": list(fields), "formats": formats, "offsets": offsets, "itemsize": itemsize}
    )


def lead(dtype: np.dtype[np.void]) -> np.dtype[np.void]:
    """Return a dtype of the first 8 bytes of another one, with those of its fields that fit.

    Examples
    --------
    >>> lead(at_offsets(16, type=("u1", 0), words=("<u2", 6), time=("<u8", 8))).names
    ('type', 'words')
    """
    fields = {
        name: (kind.str, offset)
        for name, (kind, offset, *_) in (dtype.fields or {}).items()
        if offset + kind.itemsize <= 8
    }
    return at_offsets(8, **fields)


def within(name: str, values: ArrayLike, top: int) -> NDArray[np.integer]:
    """Return values as an array, all of them whole numbers from 0 to `top`.

    Raises
    ------
    TypeError, ValueError
        If they are not; names the field.

    Examples
    --------
    >>> within("chip_id", [11, 12], 255)
    array([11, 12])
    """
    array = np.asarray(values)
    if not array.size:
        return array.astype(np.uint64)
    if array.dtype.kind not in "biu":
        # Of ints on both sides of 2**63 numpy makes floats, and of larger ones objects.
        exact = np.asarray(values, object)
        if not all(isinstance(value, int | np.integer) for value in exact.flat):
            msg = f"{name} must be whole numbers, got {array.dtype}"
            raise TypeError(msg)
        array = exact
    low, high = array.min(), array.max()
    if low < 0 or high > top:
        msg = f"{name} must be from 0 to {top}, got {low if low < 0 else high}"
        raise ValueError(msg)
    return array.astype(np.uint64) if array.dtype == object else array


def filled(what: str, dtype: np.dtype[np.void], fields: dict[str, ArrayLike]) -> NDArray[np.void]:
    """Return structures with these fields, and zero in all others.

    Parameters
    ----------
    what
        What they are, for the errors.
    dtype
        Their dtype; its first field, ``type``, is left to the caller.
    fields
        Values whose shapes broadcast to (n,).

    Returns
    -------
    NDArray
        Of the dtype and of shape (n,); one if all the fields are scalars.

    Raises
    ------
    TypeError
        If the dtype has no such field.
    ValueError
        If a value does not fit into its field.

    Examples
    --------
    >>> dtype = at_offsets(4, type=("u1", 0), count=("<u2", 2))
    >>> filled("pair", dtype, {"count": [1, 2]})["count"].tolist()
    [1, 2]
    """
    columns: dict[str, NDArray[Any]] = {}
    for name, values in fields.items():
        if name == "type" or name not in (dtype.names or ()):
            msg = f"a {what} has no field {name!r} to set"
            raise TypeError(msg)
        is_text = dtype[name].kind == "S"
        columns[name] = (
            np.asarray(values) if is_text else within(name, values, np.iinfo(dtype[name]).max)
        )
    shape = np.broadcast_shapes((1,), *(column.shape for column in columns.values()))
    made = np.zeros(shape, dtype)
    for name, column in columns.items():
        made[name] = column
    return made


def behind(
    headers: NDArray[np.void], words: NDArray[np.void], counts: NDArray[np.int64], size: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Put words behind headers, message after message.

    Parameters
    ----------
    headers
        One for each message, contiguous, of shape (m,).
    words
        Words of all the messages, in order, of shape (n,).
    counts
        Number of words of each message, of shape (m,).
    size
        Length of a word [bytes]. It and that of a header are multiples of 8.

    Returns
    -------
    buffer
        All messages, contiguous, u1.
    lengths
        Length of each message [bytes], i8, of shape (m,).

    Raises
    ------
    ValueError
        If the words are of another length, or the counts do not add up.

    Examples
    --------
    >>> headers, words = np.array([1, 2]).view("V8"), np.array([5, 6, 7]).view("V8")
    >>> buffer, lengths = behind(headers, words, np.array([2, 1]), 8)
    >>> buffer.view("<u8").tolist(), lengths.tolist()
    ([1, 5, 6, 2, 7], [24, 16])
    """
    if words.dtype.itemsize != size:
        msg = f"a word has {size} bytes here, but these have {words.dtype.itemsize}"
        raise ValueError(msg)
    if counts.sum() != len(words):
        msg = f"counts add up to {counts.sum()}, but there are {len(words)} words"
        raise ValueError(msg)
    head, body = headers.itemsize // 8, size // 8
    begins = head * np.arange(len(counts)) + body * (np.cumsum(counts) - counts)
    is_header = np.zeros(head * len(counts) + body * len(words), np.bool)
    is_header[begins[:, np.newaxis] + np.arange(head)] = True
    joined = np.empty(len(is_header), np.uint64)
    joined[is_header] = headers.view(np.uint64)
    # As one field, as a copy leaves out the bytes that no field names.
    joined[~is_header] = np.ascontiguousarray(words.view(f"V{size}")).view(np.uint64)
    return joined.view(np.uint8), headers.itemsize + size * counts
