"""Record what a simulated detector sends: all that the commands which do so have in common."""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from writer.errors import CannotWrite
from writer.rawwriter import RawWriter
from writer.simulate import START_TIME, simulate

__all__ = ["Recorded", "record"]


class Recorded(NamedTuple):
    """What has been recorded so far."""

    #: Rows that were written, and the bytes of their messages.
    rows: int
    bytes: int
    #: Time of the detector that is in them, and time that it took [s].
    detector_seconds: float
    seconds: float
    #: When the last batch was handed to the writer [s of ``time.monotonic``, which all
    #: processes of a machine have in common]; before it could be read by anybody.
    handed_over: float
    #: Signal that ended it before its time, or 0.
    signal: int = 0

    def __str__(self) -> str:
        return f"{self.rows:,} rows, {self.bytes:,} bytes, {self.seconds:.1f} s"


def record(
    path: str | os.PathLike[str],
    *,
    load: str = "2x2",
    seed: int = 0,
    seconds: float | None = None,
    batch_seconds: float = 0.1,
    fast: bool = False,
    append: bool = False,
    told: Callable[[Recorded], None] | None = None,
) -> Recorded:
    """Write what a simulated detector sends into a raw file.

    Ctrl-C, or a SIGTERM, ends the run as its normal end does: the batch under way is
    completed and the file is closed. To be called in the main thread.

    Parameters
    ----------
    path
        The file to make.
    load, seed, seconds, batch_seconds
        As in :func:`writer.simulate.simulate`.
    fast
        As fast as possible and always at the same date, so that the same seed gives the
        same messages; otherwise at the pace of the clock, and now.
    append
        Whether a file that is there is continued after its last row, and not refused.
    told
        Called when the file is open, and after each batch that readers can read.

    Returns
    -------
    Recorded
        All of it.

    Raises
    ------
    ValueError
        If there is no such load, or a time makes no sense.
    WriterError, LayoutError
        If the file cannot be written, or is there and not to be continued.

    Examples
    --------
    >>> import tempfile
    >>> done = record(f"{tempfile.mkdtemp()}/raw.h5", load="tile", seconds=0.2, fast=True)
    >>> done.rows > 0, done.detector_seconds
    (True, 0.2)
    """
    batches = simulate(
        load,
        seed=seed,
        seconds=seconds,
        batch_seconds=batch_seconds,
        start_time=START_TIME if fast else time.time(),
        realtime=not fast,
    )
    # Simulated messages at the end of a real run would be a calamity.
    if not append and _holds_anything(path):
        msg = f"{os.fspath(path)}: exists already; --append continues it"
        raise CannotWrite(msg)
    begun = time.monotonic()
    rows = size = 0
    sent = handed_over = 0.0

    def so_far() -> Recorded:
        took = time.monotonic() - begun
        return Recorded(rows, size, sent, took, handed_over, signals[0] if signals else 0)

    with _signals_noted() as signals:
        with RawWriter(path, io_version="0.0") as out:
            if told:
                told(so_far())
            for number, batch in enumerate(batches, start=1):
                if signals:
                    break
                handed_over = time.monotonic()
                rows += len(out.append(batch.buffer, batch.io_groups, lengths=batch.lengths))
                size += len(batch.buffer)
                sent = number * batch_seconds
                sent = sent if seconds is None else min(sent, seconds)
                if told:
                    told(so_far())
        return so_far()


def _holds_anything(path: str | os.PathLike[str]) -> bool:
    """Tell whether there is a file that is not empty; what else is there the writer refuses."""
    try:
        found = Path(path).stat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size > 0


@contextmanager
def _signals_noted() -> Iterator[list[int]]:
    """Note SIGINT and SIGTERM in a list instead of being interrupted by them."""
    noted: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        noted.append(number)
        # Whoever asks twice does not want to wait.
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
