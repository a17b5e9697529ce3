"""A seeded detector: realistic messages at a realistic rate.

Try everything without an experiment. The same arguments always give the same bytes, and a
:class:`writer.detector.Detector` tells the truth that a monitor should find in them.

>>> batch = next(simulate("tile", seed=1))
>>> batch.tolist()[0][:1], len(batch.tolist()) == len(batch.lengths) == len(batch.io_groups)
(b'D', True)
"""

import time
from collections.abc import Iterator
from itertools import count
from typing import Final

from writer.detector import LOADS, Detector, Load, SimulatedBatch
from writer.pacman import TICKS_PER_SECOND

__all__ = ["LOADS", "START_TIME", "Detector", "Load", "SimulatedBatch", "simulate"]

#: When a simulated run begins unless told otherwise [Unix s]; fixed, so that runs repeat.
START_TIME: Final = 1_700_000_000


def simulate(
    load: str | Load = "2x2",
    *,
    seed: int = 0,
    seconds: float | None = None,
    batch_seconds: float = 0.1,
    start_time: float = START_TIME,
    realtime: bool = False,
) -> Iterator[SimulatedBatch]:
    """Yield what a detector sends, one batch for each interval of time.

    Parameters
    ----------
    load
        A name in `LOADS`, or a load of your own.
    seed
        The same seed and other arguments give the same bytes.
    seconds
        How long the detector sends; None, for ever.
    batch_seconds
        Detector time of a batch; the last one may be shorter.
    start_time
        When the detector begins [Unix s].
    realtime
        Yield each batch when its interval, counted from the first request, has passed; at once
        if it has passed already. Otherwise yield as fast as batches are asked for.

    Raises
    ------
    ValueError
        If there is no such load, or a time makes no sense.

    Examples
    --------
    >>> len(list(simulate("tile", seconds=0.25)))
    3
    """
    if isinstance(load, str):
        if load not in LOADS:
            msg = f"there is no load {load!r}, only {', '.join(LOADS)}"
            raise ValueError(msg)
        load = LOADS[load]
    if batch_seconds * TICKS_PER_SECOND < 1:
        msg = f"batch_seconds must be at least one tick of 100 ns, got {batch_seconds}"
        raise ValueError(msg)
    if seconds is not None and seconds < 0:
        msg = f"seconds must not be negative, got {seconds}"
        raise ValueError(msg)
    detector = Detector(load, seed)
    times = _intervals(round(start_time * TICKS_PER_SECOND), seconds, batch_seconds, realtime)
    return (detector.batch(start, stop) for start, stop in times)


def _intervals(
    first: int, seconds: float | None, batch_seconds: float, realtime: bool
) -> Iterator[tuple[int, int]]:
    """Yield start and stop of each batch [ticks], none of them early if in real time."""
    end = None if seconds is None else first + round(seconds * TICKS_PER_SECOND)
    begun, start = time.monotonic(), first
    for number in count(1):
        # From the number each time, lest errors of rounding add up.
        stop = first + round(number * batch_seconds * TICKS_PER_SECOND)
        stop = stop if end is None else min(stop, end)
        if start >= stop:
            return
        if realtime:
            due = begun + (stop - first) / TICKS_PER_SECOND
            time.sleep(max(0, due - time.monotonic()))
        yield start, stop
        start = stop
