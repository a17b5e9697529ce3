"""What has been delivered, and how fast: the bookkeeping of ``streamer demo``. No output."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.batch import Batch

__all__ = ["Delivered", "Rates", "sparkline"]

# Rates are means over so long.
_WINDOW_SECONDS = 2.0
_STEP_SECONDS = 0.5
_BLOCKS = "▁▂▃▄▅▆▇█"


class Rates(NamedTuple):
    """How fast messages come at present."""

    #: (256,) f8: messages of each io_group [Hz].
    io_groups: NDArray[np.float64]
    messages_per_second: float
    bytes_per_second: float


class _Moment(NamedTuple):
    time: float
    bytes: int
    io_groups: NDArray[np.int64]


class Delivered:
    """What has been delivered of a file from its first row on.

    Times are of any clock [s]. Rates count from when the first batch came: for how long the
    detector had sent that one is not known.

    Attributes
    ----------
    rows, bytes : int
        Messages, and the bytes in them.
    complete : bool
        Whether each row came once, in order, and none was left out.
    io_groups : NDArray
        (256,) i8: messages of each io_group.

    Examples
    --------
    >>> batch = Batch(
    ...     rows=np.arange(8),
    ...     io_groups=np.array([1, 1, 1, 2, 1, 1, 1, 2], "u1"),
    ...     buffer=np.zeros(80, "u1"),
    ...     starts=np.arange(8) * 10,
    ...     lengths=np.full(8, 10),
    ... )
    >>> delivered = Delivered()
    >>> delivered.add(batch.select(batch.rows < 4), now=0.0)
    >>> delivered.add(batch.select(batch.rows >= 4), now=2.0)
    >>> delivered.rows, delivered.complete, delivered.rates().io_groups[:3].tolist()
    (8, True, [0.0, 1.5, 0.5])
    >>> delivered.history(40)
    [2.0, 2.0, 2.0, 2.0]
    """

    def __init__(self) -> None:
        self.rows = 0
        self.bytes = 0
        self.complete = True
        self.io_groups = np.zeros(256, np.int64)
        self._moments: deque[_Moment] = deque()
        self._begun = 0.0
        self._steps: list[float] = []

    def add(self, batch: Batch, now: float) -> None:
        """Count a batch that has just come."""
        expected = np.arange(self.rows, self.rows + len(batch))
        self.complete = self.complete and np.array_equal(batch.rows, expected)
        if self._moments:
            self._spread(len(batch), now)
        else:
            self._begun = now
        self.rows += len(batch)
        self.bytes += batch.payload_bytes
        self.io_groups = self.io_groups + np.bincount(batch.io_groups, minlength=256)
        self._moments.append(_Moment(now, self.bytes, self.io_groups))
        while len(self._moments) > 1 and self._moments[1].time < now - _WINDOW_SECONDS:
            self._moments.popleft()

    def _spread(self, count: int, now: float) -> None:
        """Share messages out among the steps of time since the last ones came.

        The detector sent them in all that time. Counted where they came, a step with six
        batches would stand beside one with five.
        """
        start, stop = ((t - self._begun) / _STEP_SECONDS for t in (self._moments[-1].time, now))
        self._steps.extend([0.0] * (int(stop) + 1 - len(self._steps)))
        if stop <= start:
            self._steps[int(stop)] += count
            return
        for step in range(int(start), int(stop) + 1):
            within = min(stop, step + 1) - max(start, step)
            self._steps[step] += count * within / (stop - start)

    def rates(self) -> Rates:
        """Return how fast messages come, as the mean of the last two seconds."""
        if not self._moments:
            return Rates(np.zeros(256), 0.0, 0.0)
        first, last = self._moments[0], self._moments[-1]
        seconds = max(last.time - first.time, 1e-3)
        io_groups = (last.io_groups - first.io_groups) / seconds
        return Rates(io_groups, float(io_groups.sum()), (last.bytes - first.bytes) / seconds)

    def history(self, most: int) -> list[float]:
        """Return the rate of messages [Hz] in the last full half seconds, so many at most."""
        return [count / _STEP_SECONDS for count in self._steps[-1 - most : -1]]


def sparkline(values: list[float]) -> str:
    """Draw values as a line of blocks, from 0 to the greatest.

    Examples
    --------
    >>> sparkline([0, 1, 2, 4, 8])
    '▁▁▃▅█'
    """
    top = max(values, default=0) or 1
    return "".join(_BLOCKS[min(7, round(8 * value / top - 0.5))] for value in values)
