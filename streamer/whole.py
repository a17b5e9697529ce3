"""Whole numbers, as callers give them: of Python or numpy, and not True or False."""

from __future__ import annotations

import operator
from typing import Any

__all__ = ["whole_number"]


def whole_number(value: Any, least: int | None = None, most: int | None = None) -> int | None:
    """Return a value as a plain int, which cannot overflow; None if it is not a whole number.

    Parameters
    ----------
    value
        Anything.
    least, most
        Between which it has to be, both included; None for no limit.

    Examples
    --------
    >>> import numpy as np
    >>> whole_number(np.uint8(3), 1), whole_number(True, 1), whole_number(3.0, 1)
    (3, None, None)
    >>> whole_number(0, 1, 64), whole_number(64, 1, 64), whole_number(65, 1, 64)
    (None, 64, None)
    """
    if isinstance(value, bool):
        return None
    try:
        number = operator.index(value)
    except TypeError:
        return None
    too_small = least is not None and number < least
    too_large = most is not None and number > most
    return None if too_small or too_large else number
