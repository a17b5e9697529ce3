"""Named fields at fixed places in bytes, and values that fit into them."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["at_offsets", "filled", "within"]


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
        msg = f"{name} must be whole numbers, got {array.dtype}"
        raise TypeError(msg)
    low, high = array.min(), array.max()
    if low < 0 or high > top:
        msg = f"{name} must be from 0 to {top}, got {low if low < 0 else high}"
        raise ValueError(msg)
    return array


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
