"""How long to try again: bounded in attempts and in time, and written here only."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Patience"]


class Patience(NamedTuple):
    """A bound on trying again.

    Examples
    --------
    >>> [left for left in Patience(attempts=3, seconds=1).tries()]
    [2, 1, 0]
    """

    attempts: int
    seconds: float

    def tries(self) -> Iterator[int]:
        """Yield the number of attempts left, with growing pauses; 0 is the last one."""
        deadline = time.monotonic() + self.seconds
        pause = 0.0005
        for left in range(self.attempts - 1, 0, -1):
            if time.monotonic() > deadline:
                break
            yield left
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
        yield 0
