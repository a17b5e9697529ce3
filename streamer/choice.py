"""What a caller has chosen to be given of a file; checked."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.position import Position
from streamer.whole import whole_number

__all__ = ["DEFAULT_BATCH_BYTES", "Choice"]

#: What is held in memory at the most, in bytes of messages.
DEFAULT_BATCH_BYTES = 16 * 1024 * 1024


class Choice(NamedTuple):
    """What of a file is to be given; checked."""

    #: As of :func:`streamer.follow`.
    start: str | int | Position
    until: str | int
    #: (256,) bool: whether an io_group is wanted; None for all.
    wanted: NDArray[np.bool_] | None
    #: Bytes of messages in a batch at the most.
    max_bytes: int

    @classmethod
    def of(
        cls,
        start: str | int | Position,
        until: str | int,
        io_groups: Collection[int] | None,
        max_batch_bytes: int,
    ) -> Choice:
        """Check what a caller has chosen.

        Raises
        ------
        ValueError
            If it makes no sense.
        """
        if not isinstance(start, Position) and start not in ("beginning", "end"):
            if (first := whole_number(start)) is None:
                msg = f"start is {start!r}, not 'beginning', 'end', a row or a Position"
                raise ValueError(msg)
            start = first
        if until not in ("finished", "end"):
            if (stop := whole_number(until, 0)) is None:
                msg = f"until is {until!r}, not 'finished', 'end' or a row"
                raise ValueError(msg)
            until = stop
        if max_batch_bytes <= 0:
            msg = f"max_batch_bytes is {max_batch_bytes}, not a positive number"
            raise ValueError(msg)
        wanted = None if io_groups is None else _chosen(io_groups)
        # A batch is half of it: whoever iterates has one still while the next is read.
        return cls(start, until, wanted, max(1, max_batch_bytes // 2))

    @property
    def counts_from_end(self) -> bool:
        """Whether it depends on how many rows there are."""
        if self.start == "end" or self.until == "end":
            return True
        return isinstance(self.start, int) and self.start < 0


def _chosen(io_groups: Collection[int]) -> NDArray[np.bool_]:
    """Return for each possible io_group whether it is one of these."""
    try:
        several = list(io_groups)
    except TypeError:  # a number, and not several
        several = []
    groups = [group for one in several if (group := whole_number(one, 0, 255)) is not None]
    if not groups or len(groups) < len(several):
        msg = f"io_groups is {io_groups!r}, not a set of numbers from 0 to 255"
        raise ValueError(msg)
    wanted = np.zeros(256, bool)
    wanted[groups] = True
    return wanted
