"""Whole numbers that somebody gives: those of Python and of numpy, and no truth values."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["whole"]


def whole(value: Any, least: int, most: int | None = None) -> int | None:
    """Return a whole number as one of Python; None if it is not one, or too small or large.

    Examples
    --------
    >>> whole(np.uint8(3), least=1), whole(0, least=1), whole(True, least=1), whole(3.0, least=1)
    (3, None, None, None)
    >>> whole(256, least=0, most=255)
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        return None
    number = int(value)
    return number if least <= number and (most is None or number <= most) else None
