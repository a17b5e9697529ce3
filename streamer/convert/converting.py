"""A conversion at work: read, decode, write, and store how far it is."""

from __future__ import annotations

import json
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
from streamer.convert.report import Conversion, Fault, asic_text
from streamer.convert.rows import TooNarrow
from streamer.errors import FileReplaced, LayoutError, NotReady, StreamError, WriterStalled
from streamer.packets import Packets, decode
from streamer.packets.records import RECORD
from streamer.position import Position
from streamer.rawfile import RawFile
from streamer.tail import Tail, tail
from writer.version import __version__

__all__ = ["CannotConvert", "Make", "Output", "Source", "Stopped", "Work"]

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


class Output(Protocol):
    """A file of packets that is being made in a :class:`Partial`."""

    def append(self, packets: Packets) -> None:
        """Append packets.

        Raises
        ------
        CannotMake
            If that is not possible, as on a full disk.
        TooNarrow
            If the fields are too narrow for them.
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
    """What is to be read, and how; as of :func:`streamer.convert.entry`."""

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
    made
        What the output is made in.
    asked
        How it is to be made, to be known again.
    make
        Opens the output.
    dtype
        Of its records; None: as the first packets need it.
    """

    def __init__(
        self,
        source: Source,
        made: Partial,
        asked: dict[str, Any],
        make: Make,
        dtype: np.dtype[Any] | None,
    ) -> None:
        self._source, self._made, self._asked, self._make = source, made, asked, make
        self._output: Output | None = None
        self._dtype = dtype
        self._position = Position(0)
        self._messages = self._packets = 0
        self._has_data = False
        self._faults: dict[str, Fault] = {}
        # How it ended; then the output is complete, and has only to be given its name.
        self._outcome: str | None = None
        self._resumed_at: int | None = None
        self._last: int | None = None
        self._said = ""
        self._stored_row = 0
        self._store_due = time.monotonic() + _STORE_SECONDS
        if made.stored is not None:
            self._take_up(made.stored.facts)
        if self._dtype is not None and self._outcome is None:
            self._output = make(made, self._dtype)

    def _take_up(self, facts: dict[str, Any]) -> None:
        self._position = Position.from_json(json.dumps(facts["position"]))
        self._stored_row = self._position.row
        self._messages, self._packets = facts["messages"], facts["packets"]
        self._has_data = facts["has_data"]
        self._faults = {
            kind: Fault(total, tuple(rows)) for kind, (total, rows) in facts["faults"].items()
        }
        self._outcome = facts["outcome"]
        self._resumed_at = self._position.row or None
        if facts["dtype"] is not None:
            self._dtype = np.dtype([(name, form) for name, form in facts["dtype"]])

    def _store(self) -> None:
        """Make sure that so much outlives a crash."""
        tail_bytes = b"" if self._output is None else self._output.flush()
        facts = {
            "version": __version__,
            "asked": self._asked,
            "position": json.loads(self._position.to_json()),
            "dtype": None if self._dtype is None else self._dtype.descr,
            "messages": self._messages,
            "packets": self._packets,
            "has_data": self._has_data,
            "faults": self._faults,
            "outcome": self._outcome,
        }
        self._made.store(facts, tail_bytes)
        self._stored_row = self._position.row
        self._store_due = time.monotonic() + _STORE_SECONDS

    def run(self, told: Callable[[int, int], None]) -> None:
        """Convert what is left, and complete the output, but for its name.

        Raises
        ------
        TooNarrow
            If it has to begin anew, with wider fields.
        StreamError, LayoutError
            As of :func:`streamer.convert.entry`.
        """
        if self._outcome is None:
            try:
                outcome = self._convert(told)
            except (CannotMake, TooNarrow):
                raise
            except (StreamError, LayoutError):
                self._keep()
                raise
            self._check_result()
            self._complete(outcome)

    def _keep(self) -> None:
        """Store what there is to go on with; if there is nothing, leave nothing."""
        if self._position.row:
            with suppress(CannotMake):
                self._store()
        else:
            self._made.discard()

    def _convert(self, told: Callable[[int, int], None]) -> str:
        """Convert to the end; return what that was."""
        source = self._source
        with tail(
            source.raw,
            start="beginning" if self._position.created is None else self._position,
            until="finished" if source.follow else "end",
            idle_timeout=_TICK_SECONDS if source.follow else _PATIENCE_SECONDS,
        ) as live:
            while self._last is None or self._position.row < self._last:
                stopped = source.stop.is_set()
                if stopped and not source.follow:
                    msg = f"{source.raw}: stopped before row {self._position.row:,}"
                    raise Stopped(msg)
                try:
                    batch = live.next_batch()
                except StopIteration:
                    return str(live.outcome)
                except (NotReady, WriterStalled) as error:
                    if not source.follow:
                        raise
                    self._position = live.position
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
                self._position = live.position
                behind = live.lag.rows
                if stopped and self._last is None:
                    self._last = self._position.row + behind
                told(self._position.row, self._position.row + behind)
                self._store_in_time()
        if self._position.created is None:
            msg = f"{source.raw}: stopped while it was still absent"
            raise Stopped(msg)
        return "stopped"

    def _take(self, batch: Batch) -> None:
        """Convert some messages."""
        packets = decode(batch, wire=self._source.wire, asic=self._source.asic)
        if len(packets):
            if self._output is None:
                self._dtype = packets.to_records().dtype
                self._output = self._make(self._made, self._dtype)
            self._output.append(packets)
        self._messages += len(batch)
        self._packets += len(packets)
        # To count them would cost time, and nobody needs more.
        self._has_data = self._has_data or bool(packets.is_data.any())
        for kind, rows in packets.faults.items():
            self._faults[kind] = self._faults.get(kind, Fault()).more(rows)

    def _idle(self, live: Tail[Any, Any], error: StreamError) -> None:
        """Say what is the matter while nothing comes, and store what came before."""
        # That a file is waited for has been logged; not so that HDF5 cannot read it for a while.
        if isinstance(error, NotReady) and live.trouble is None and str(error) != self._said:
            self._said = str(error)
            logger.warning("%s; trying again", str(error))
        self._store_in_time()

    def _store_in_time(self) -> None:
        """Store what is new, but not more often than needed: it makes the disk work."""
        if self._position.row > self._stored_row and time.monotonic() > self._store_due:
            self._store()

    def _check_result(self) -> None:
        """Raise if the output would hold nothing of what there is."""
        if self._messages and not self._packets:
            self._made.discard()
            kinds = ", ".join(f"{fault.total:,} {kind}" for kind, fault in self._faults.items())
            msg = (
                f"{self._source.raw}: none of its {self._messages:,} messages could be decoded "
                f"({kinds}). Nothing was written. Are wire {self._source.wire} and asic "
                f"{asic_text(self._source.asic)} right?"
            )
            raise CannotConvert(msg)

    def _complete(self, outcome: str) -> None:
        output = self._output or self._make(self._made, RECORD)
        self._output = output
        output.finish()
        self.close()
        self._outcome = outcome
        self._store()

    def report(self) -> Conversion:
        """Return what was converted, once it is complete."""
        assert self._outcome is not None
        notes = []
        if self._packets and not self._has_data:
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
            self._made.out,
            self._messages,
            self._packets,
            self._faults,
            self._outcome,
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
