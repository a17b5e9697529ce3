"""A conversion at work: read, decode, write, and store how far it is."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np

from streamer.batch import Batch
from streamer.convert.partial import CannotMake, Partial
from streamer.convert.progress import Progress
from streamer.convert.report import Conversion, asic_text
from streamer.errors import FileReplaced, LayoutError, NotReady, StreamError, WriterStalled
from streamer.packets import Packets, decode
from streamer.packets.records import RECORD, record_dtype
from streamer.rawfile import RawFile
from streamer.tail import Tail, tail
from writer.version import __version__

__all__ = ["CannotConvert", "Make", "Output", "Source", "Stopped", "TooNarrow", "Work"]

logger = logging.getLogger("streamer.convert")

# So much work is lost at the most when it is killed. To store takes some milliseconds, and as
# long as the disk needs for what is new.
_STORE_SECONDS = 2.0
# So soon it is stopped while nothing comes.
_TICK_SECONDS = 0.2
# For so long rows that are there may be unreadable.
_PATIENCE_SECONDS = 30.0


class CannotConvert(StreamError):
    """Raised when a file cannot be converted, or not into one of that name."""


class Stopped(StreamError):
    """Raised when a conversion was stopped before its end. The same call goes on with it."""


class TooNarrow(Exception):
    """Raised for packets that need wider fields than the output has.

    Attributes
    ----------
    dtype : np.dtype
        Of records that hold both.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        super().__init__(dtype)
        self.dtype = dtype


class Output(Protocol):
    """A file of packets that is being made in a :class:`Partial`."""

    def append(self, packets: Packets) -> None:
        """Append packets, the fields of which are not wider than the output's.

        Raises
        ------
        CannotMake
            If that is not possible, as on a full disk.
        """

    def flush(self) -> bytes:
        """Hand all to the partial file; return the tail, to be stored with it."""

    def finish(self) -> None:
        """Complete it."""

    def close(self) -> None:
        """Leave it as it is. Idempotent."""


#: Opens an output of such records.
Make = Callable[[Partial, np.dtype[Any]], Output]


class Source(NamedTuple):
    """What is to be read, and how; as in :func:`streamer.convert.convert`."""

    raw: Path
    follow: bool
    stop: threading.Event
    wire: str
    asic: str | Mapping[int, str]


class Work:
    """A conversion, from where it was interrupted if it was.

    Parameters
    ----------
    source
        What is to be read.
    partial
        What the output is made in.
    make
        Opens the output.
    progress
        How far it is; kept up to date.
    """

    def __init__(self, source: Source, partial: Partial, make: Make, progress: Progress) -> None:
        self._source, self._partial, self._make = source, partial, make
        self._progress = progress
        self._resumed_at = progress.position.row or None
        # The row at which it ends, once it is known.
        self._last: int | None = None
        self._said = ""
        self._stored_row = progress.position.row
        self._store_due = time.monotonic() + _STORE_SECONDS
        self._output: Output | None = None
        if progress.dtype is not None and progress.outcome is None:
            self._output = make(partial, progress.dtype)

    def _store(self) -> None:
        """Make sure that so much outlives a crash."""
        tail_bytes = b"" if self._output is None else self._output.flush()
        self._partial.store({"version": __version__, **self._progress.facts()}, tail_bytes)
        self._stored_row = self._progress.position.row
        self._store_due = time.monotonic() + _STORE_SECONDS

    def run(self, told: Callable[[int, int], None]) -> None:
        """Convert what is left, and complete the output, but for its name.

        Raises
        ------
        TooNarrow
            If it has to be started over, with wider fields.
        StreamError, LayoutError
            As in :func:`streamer.convert.convert`.
        """
        if self._progress.outcome is None:
            try:
                outcome = self._convert(told)
            except CannotMake:
                raise
            except (StreamError, LayoutError):
                self._keep()
                raise
            self._check_result()
            self._complete(outcome)

    def _keep(self) -> None:
        """Store what there is to go on with; if there is nothing, leave nothing."""
        if self._progress.position.row:
            with suppress(CannotMake):
                self._store()
        else:
            self._partial.discard()

    def _convert(self, told: Callable[[int, int], None]) -> str:
        """Convert to the end; return what that was."""
        source, progress = self._source, self._progress
        with tail(
            source.raw,
            start="beginning" if progress.position.created is None else progress.position,
            until="finished" if source.follow else "end",
            idle_timeout=_TICK_SECONDS if source.follow else _PATIENCE_SECONDS,
        ) as live:
            while self._last is None or progress.position.row < self._last:
                stopped = source.stop.is_set()
                if stopped and not source.follow:
                    msg = f"{source.raw}: stopped before row {progress.position.row:,}"
                    raise Stopped(msg)
                try:
                    batch = live.next_batch()
                except StopIteration:
                    return str(live.outcome)
                except (NotReady, WriterStalled) as error:
                    if not source.follow:
                        raise
                    progress.position = live.position
                    # Only a look that began after it was stopped sees all that there was then.
                    if stopped:
                        break
                    self._idle(live, error)
                    continue
                except FileReplaced as error:
                    if not (source.follow and error.drained):
                        raise
                    return "replaced"
                self._take(batch)
                progress.position = live.position
                behind = live.lag.rows
                if stopped and self._last is None:
                    self._last = progress.position.row + behind
                told(progress.position.row, progress.position.row + behind)
                self._store_in_time()
        if progress.position.created is None:
            msg = f"{source.raw}: stopped while it was still absent"
            raise Stopped(msg)
        return "stopped"

    def _take(self, batch: Batch) -> None:
        """Convert some messages."""
        packets = decode(batch, wire=self._source.wire, asic=self._source.asic)
        if len(packets):
            self._output_for(record_dtype(packets.decoded)).append(packets)
        self._progress.count(len(batch), packets)

    def _output_for(self, dtype: np.dtype[Any]) -> Output:
        """Return the output, if it has room for such records."""
        progress = self._progress
        if self._output is None or progress.dtype is None:
            progress.dtype = dtype
            self._output = self._make(self._partial, dtype)
        wide = np.promote_types(dtype, progress.dtype)
        if wide != progress.dtype:
            raise TooNarrow(wide)
        return self._output

    def _idle(self, live: Tail[Any, Any], error: StreamError) -> None:
        """Say what is the matter while nothing comes, and store what came before."""
        # That a file is waited for has been logged; not so that HDF5 cannot read it for a while.
        if isinstance(error, NotReady) and live.trouble is None and str(error) != self._said:
            self._said = str(error)
            logger.warning("%s; trying again", str(error))
        self._store_in_time()

    def _store_in_time(self) -> None:
        """Store what is new, but not more often than needed: it makes the disk work."""
        is_new = self._progress.position.row > self._stored_row
        if is_new and time.monotonic() > self._store_due:
            self._store()

    def _check_result(self) -> None:
        """Raise if the output would hold nothing of what there is."""
        progress = self._progress
        if progress.messages and not progress.packets:
            self._partial.discard()
            kinds = ", ".join(f"{fault.total:,} {kind}" for kind, fault in progress.faults.items())
            msg = (
                f"{self._source.raw}: none of its {progress.messages:,} messages could be decoded "
                f"({kinds}). Nothing was written. Are wire {self._source.wire} and asic "
                f"{asic_text(self._source.asic)} right?"
            )
            raise CannotConvert(msg)

    def _complete(self, outcome: str) -> None:
        output = self._output or self._make(self._partial, RECORD)
        self._output = output
        output.finish()
        self.close()
        self._progress.outcome = outcome
        self._store()

    def report(self) -> Conversion:
        """Return what was converted, once it is complete."""
        progress = self._progress
        assert progress.outcome is not None
        notes = []
        if progress.packets and not progress.has_data:
            notes.append(f"no packet is a hit: is asic {asic_text(self._source.asic)} right?")
        with suppress(StreamError, LayoutError), RawFile(self._source.raw) as raw:
            if not self._source.follow and not raw.closed:
                notes.append(
                    "it is open for writing, or its writer died: rows that come later are not "
                    "converted"
                )
            absent = max(raw.lengths) - len(raw)
            if absent and raw.still:
                notes.append(
                    f"{absent:,} rows at its end are announced and not there, and left out: "
                    f"'streamer doctor {raw.path}' says more"
                )
        return Conversion(
            self._source.raw,
            self._partial.out,
            progress.messages,
            progress.packets,
            progress.faults,
            progress.outcome,
            self._resumed_at,
            tuple(notes),
        )

    def close(self) -> None:
        """Leave the output as it is. Idempotent."""
        output, self._output = self._output, None
        if output is not None:
            output.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
