"""What is to be said of a raw file as a whole: ``streamer stat``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from streamer.errors import RowUnreadable
from streamer.rawfile import RawFile
from streamer.show import Bar, byte_figure, iso_time
from streamer.state import Judgement, State, judge
from writer.layout import MSG_HEADERS, MSGS, Meta

__all__ = ["Advice", "Summary", "advise", "summarize"]

# Few enough for the memory, and for a bar that moves.
_ROWS_AT_ONCE, _BYTES_AT_ONCE = 65536, 16 * 1024 * 1024
# More io_groups than these share lines.
_MOST_LINES = 16
_RECOVER = "streamer recover FILE OUT"


class Summary(NamedTuple):
    """A raw file as a whole, at one moment."""

    path: Path
    judgement: Judgement
    meta: Meta
    #: How rows are read: ``direct`` or ``h5py``.
    reading: str
    #: Committed rows, the bytes of their messages, and the bytes of the file.
    rows: int
    payload_bytes: int
    file_bytes: int
    #: Rows of each io_group.
    io_groups: dict[int, int]
    #: Rows that ``msgs`` and ``msg_headers`` announce.
    lengths: tuple[int, int]
    #: The first row that cannot be read although it is committed, if any, and why.
    unreadable: str | None

    @property
    def advice(self) -> list[str]:
        """What is wrong, and what to do, in plain words; nothing if all is well."""
        said = advise(self.judgement.state, self.rows, self.lengths, self.unreadable)
        texts = [advice.text for advice in said]
        if self.unreadable is not None:
            texts.append("Payload and io_groups are those of the rows before the damage.")
        return texts

    def lines(self) -> list[tuple[str, str]]:
        """Return what to show, as names and values."""
        meta = self.meta
        mean = f", {self.payload_bytes / self.rows:.0f} B a message" if self.rows else ""
        lines = [
            ("file", str(self.path)),
            ("state", f"{self.judgement.state.value}: {self.judgement.because}"),
            ("rows", f"{self.rows:,}"),
            ("payload", f"{self.payload_bytes:,} bytes{mean}"),
            ("on disk", f"{self.file_bytes:,} bytes ({byte_figure(self.file_bytes)})"),
            ("created", iso_time(meta.created)),
            ("modified", iso_time(meta.modified)),
            ("version", f"{meta.version}, io_version {meta.io_version or 'not stated'}"),
            ("writer", meta.writer or "not stated"),
            ("run id", meta.run_id or "not stated"),
            ("reading", self.reading),
        ]
        if self.lengths[0] != self.lengths[1]:
            lines.append((MSGS, f"{self.lengths[0]:,} rows"))
            lines.append((MSG_HEADERS, f"{self.lengths[1]:,} rows"))
        groups = list(self.io_groups.items())
        if len(groups) <= _MOST_LINES:
            return lines + [(f"io_group {group}", f"{rows:,} rows") for group, rows in groups]
        cells = [f"{group:>3}: {rows:<11,}" for group, rows in groups]
        folded = ["".join(cells[k : k + 4]).rstrip() for k in range(0, len(cells), 4)]
        return [*lines, ("io_groups", folded[0]), *(("", line) for line in folded[1:])]

    def as_dict(self) -> dict[str, Any]:
        """Return the same for a program, ready for JSON."""
        meta = self.meta
        return {
            "file": str(self.path),
            "state": self.judgement.state.value,
            "because": self.judgement.because,
            "rows": self.rows,
            "payload_bytes": self.payload_bytes,
            "file_bytes": self.file_bytes,
            "created": iso_time(meta.created),
            "modified": iso_time(meta.modified),
            "version": meta.version,
            "io_version": meta.io_version,
            "writer": meta.writer,
            "run_id": meta.run_id,
            "reading": self.reading,
            "lengths": {MSGS: self.lengths[0], MSG_HEADERS: self.lengths[1]},
            "io_groups": {str(group): rows for group, rows in self.io_groups.items()},
            "advice": self.advice,
        }


class Advice(NamedTuple):
    """Something that a person should know of a raw file."""

    #: What it is about, for programs; it stays the same.
    name: str
    #: Whether something is wrong, and does not pass by itself.
    wrong: bool
    #: What it is, and what to do, in plain words.
    text: str


def advise(
    state: State, rows: int, lengths: tuple[int, int], unreadable: str | None
) -> list[Advice]:
    """Say what is wrong with a raw file, and what to do.

    Parameters
    ----------
    state
        What becomes of it.
    rows
        Committed rows.
    lengths
        Rows that ``msgs`` and ``msg_headers`` announce.
    unreadable
        The first row that cannot be read although it is committed, if any, and why.

    Returns
    -------
    list of Advice
        Nothing if all is well.

    Examples
    --------
    >>> advise(State.CLOSED, 5, (5, 5), None)
    []
    """
    said = []
    live = state is State.LIVE
    if state is State.WRITER_GONE:
        text = (
            f"The writer has died, or pauses. Its {rows:,} committed rows can all be "
            "read by streamer as they are. Do not open the file with h5py in mode 'a' or "
            "'r+', nor clear its mark: HDF5 may then cut it short. Start the next run in a "
            f"new file. {_RECOVER} makes a copy that h5py and larpix-control can read."
        )
        said.append(Advice("writer-gone", True, text))
    if lengths[0] != lengths[1]:
        both = f"{MSGS} has {lengths[0]:,} rows and {MSG_HEADERS} {lengths[1]:,}. "
        if live:
            text = f"{both}The writer is in the middle of a batch; look again."
        else:
            text = (
                f"{both}The writer stopped in the middle of a batch: the "
                f"{min(lengths):,} rows that both have count, and the others are "
                f"half a message each. Readers of this project leave these out. {_RECOVER} makes "
                "a copy without them."
            )
        said.append(Advice("lengths-differ", not live, text))
    announced = min(lengths)
    if rows < announced:
        text = f"{announced - rows:,} rows at the end are announced and not written" + (
            " yet; look again." if live else ". Readers of this project leave them out."
        )
        said.append(Advice("rows-not-written", not live, text))
    if unreadable is not None:
        text = (
            f"{unreadable}. The file is damaged there: copy it to another disk before "
            "anything else, and look at the messages of the kernel about the disk. Then "
            f"{_RECOVER} copies all that can still be read."
        )
        said.append(Advice("damaged", True, text))
    return said


def summarize(path: Path) -> Summary:
    """Read a raw file from its first row to its last, and sum it up.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    Summary
        Of the rows that are committed at first; later ones of a live file are left out.

    Raises
    ------
    NotReady, FileReplaced
        If it cannot be read at present.
    LayoutError
        If it is something else.
    """
    with RawFile(path) as raw, Bar("reading") as bar:
        judgement = judge(raw)
        rows = raw.refresh()
        lengths = raw.lengths
        counts = np.zeros(256, np.int64)
        size = row = 0
        unreadable = None
        while row < rows and unreadable is None:
            bar.show(row, rows)
            stop = min(rows, row + _ROWS_AT_ONCE)
            found = raw.read_some(row, stop, _BYTES_AT_ONCE)
            if found.stop == row:
                try:
                    raw.read(row, row + 1)
                except RowUnreadable as error:
                    unreadable = str(error)
                continue
            size += found.batch.payload_bytes
            counts += np.bincount(found.batch.io_groups, minlength=256)
            row = found.stop
        return Summary(
            path,
            judgement,
            raw.meta,
            raw.reading,
            rows,
            size,
            path.stat().st_size,
            {group: count for group, count in enumerate(counts.tolist()) if count},
            lengths,
            unreadable,
        )
