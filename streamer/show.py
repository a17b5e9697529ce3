"""Messages as lines of text or of JSON, figures for people, and a bar for what takes long."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import numpy as np
from numpy.typing import NDArray

from streamer.batch import Batch
from writer.pacman import HEADER, WORD, MessageType

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = [
    "HEADINGS",
    "Bar",
    "as_json",
    "as_raw",
    "as_text",
    "byte_figure",
    "iso_time",
    "say",
    "text_bytes_within",
]

_KINDS = ("unknown", *(kind.name.lower() for kind in MessageType))
_LETTERS = [kind.value for kind in MessageType]
_KIND_OF_LETTER = np.array(
    [1 + _LETTERS.index(letter) if letter in _LETTERS else 0 for letter in range(256)], np.intp
)

_LINE = "%9d %8d  %s  %s %6s  %s\n"
#: Above the lines of :func:`as_text`.
HEADINGS = "      row io_group  time (UTC)            kind     words  first bytes"
_FIXED_COLUMNS = HEADINGS.index("first")
_JSON = (
    '{"row": %d, "io_group": %d, "time": %s, "kind": "%s", "words": %s, "length": %d, '
    '"data": "%s", "source": %s}\n'
)
_DIM, _RED, _CYAN, _PLAIN = "\x1b[2m", "\x1b[31m", "\x1b[36m", "\x1b[0m"

# What takes less time needs no bar.
_PATIENCE_SECONDS = 0.5


class _Columns(NamedTuple):
    """What the headers of messages say; one element a message."""

    kinds: NDArray[np.intp]
    #: ISO times, in UTC; None where the header has none.
    times: list[str | None]
    #: Number of words; None where it is no header.
    words: list[int | None]


def _columns(batch: Batch) -> _Columns:
    has_header = batch.lengths >= HEADER.itemsize
    where = batch.starts[has_header, np.newaxis] + np.arange(HEADER.itemsize)
    headers = np.zeros(len(batch), HEADER)
    headers[has_header] = batch.buffer[where].view(HEADER)[:, 0]
    # Other bytes may begin with these letters too; but then their length does not fit.
    fits = batch.lengths == HEADER.itemsize + WORD.itemsize * headers["words"].astype(np.int64)
    kinds = np.where(fits, _KIND_OF_LETTER[headers["type"]], 0)
    seconds, which = np.unique(np.where(kinds > 0, headers["seconds"], 0), return_inverse=True)
    times = np.array([iso_time(second) if second else None for second in seconds.tolist()], "O")
    words = headers["words"].astype("O")
    words[kinds == 0] = None
    return _Columns(kinds, times[which].tolist(), words.tolist())


def as_text(batch: Batch, *, first_bytes: int = 24, coloured: bool = False) -> bytes:
    r"""Show messages as text, a line each.

    Parameters
    ----------
    batch
        N messages.
    first_bytes
        How many bytes of each to show in hex, in groups of 8: a header of that size, and
        halves of words.
    coloured
        Whether to use the colours of a terminal.

    Returns
    -------
    bytes
        N lines: row, io_group, time, kind, number of words and the first bytes. Where a
        message is not one of io_version 0.0, by its letter or its length, its kind is
        ``unknown``, and time and words are ``-``.

    Examples
    --------
    >>> message = b"D" + (1_700_000_000).to_bytes(4, "little") + bytes(3)
    >>> batch = Batch(
    ...     rows=np.array([5]),
    ...     io_groups=np.array([1], "u1"),
    ...     buffer=np.frombuffer(message, "u1"),
    ...     starts=np.array([0]),
    ...     lengths=np.array([8]),
    ... )
    >>> print(HEADINGS, as_text(batch).decode(), sep="\n", end="")
          row io_group  time (UTC)            kind     words  first bytes
            5        1  2023-11-14T22:13:20Z  data         0  4400f15365000000
    """
    columns = _columns(batch)
    kinds = [f"{kind:<7}" for kind in _KINDS]
    line = _LINE
    if coloured:
        colours = (_RED, "", _CYAN, _CYAN)
        kinds = [
            f"{colour}{kind}{_PLAIN if colour else ''}"
            for colour, kind in zip(colours, kinds, strict=True)
        ]
        line = f"%9d %8d  {_DIM}%s{_PLAIN}  %s %6s  {_DIM}%s{_PLAIN}\n"
    rows = zip(
        batch.rows.tolist(),
        batch.io_groups.tolist(),
        [time or f"{'-':<20}" for time in columns.times],
        [kinds[kind] for kind in columns.kinds.tolist()],
        ["-" if words is None else words for words in columns.words],
        [data[:first_bytes].hex(" ", -8) for data in batch.tolist()],
        strict=True,
    )
    return "".join(map(line.__mod__, rows)).encode()


def text_bytes_within(columns: int) -> int:
    """Return how many first bytes :func:`as_text` can show in so many columns.

    Examples
    --------
    >>> text_bytes_within(80), text_bytes_within(10), text_bytes_within(1000)
    (10, 8, 24)
    """
    left = columns - _FIXED_COLUMNS
    # Every 8 bytes are 16 digits and a space.
    return max(8, min(24, left // 17 * 8 + left % 17 // 2))


def as_json(batch: Batch) -> bytes:
    """Show messages as JSON, an object a line.

    Parameters
    ----------
    batch
        N messages.

    Returns
    -------
    bytes
        N lines of objects with ``row``, ``io_group``, ``time`` (ISO, UTC, or null), ``kind``,
        ``words`` (or null), ``length`` [bytes], ``data`` (in hex) and ``source``, the file.
    """
    columns = _columns(batch)
    digits = batch.buffer.tobytes().hex()
    starts, lengths = batch.starts.tolist(), batch.lengths.tolist()
    rows = zip(
        batch.rows.tolist(),
        batch.io_groups.tolist(),
        ["null" if time is None else f'"{time}"' for time in columns.times],
        [_KINDS[kind] for kind in columns.kinds.tolist()],
        ["null" if words is None else words for words in columns.words],
        lengths,
        [
            digits[2 * start : 2 * (start + length)]
            for start, length in zip(starts, lengths, strict=True)
        ],
        [json.dumps(None if batch.source is None else os.fsdecode(batch.source))] * len(batch),
        strict=True,
    )
    return "".join(map(_JSON.__mod__, rows)).encode()


def as_raw(batch: Batch) -> bytes:
    """Return the bytes of messages, one message after the other."""
    return b"".join(batch.tolist())


def iso_time(seconds: float) -> str:
    """Return Unix seconds as an ISO time in UTC, to the second.

    Examples
    --------
    >>> iso_time(1_700_000_000.9)
    '2023-11-14T22:13:20Z'
    """
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def byte_figure(size: float) -> str:
    """Return a number of bytes for people.

    Examples
    --------
    >>> byte_figure(999), byte_figure(10_480_000), byte_figure(3.5e9)
    ('999 B', '10.5 MB', '3.5 GB')
    """
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size:.0f} B"


def say(message: object) -> None:
    """Say something on stderr, in the name of the command."""
    # One line, whatever HDF5, or the name of a file, has in it.
    click.echo(f"streamer: {' '.join(str(message).split())}", err=True)


class Bar:
    """A bar on stderr, if that is a terminal, for what takes longer than half a second.

    Parameters
    ----------
    title
        What is going on.
    wanted
        Whether there may be a bar at all.

    Examples
    --------
    >>> with Bar("reading") as bar:
    ...     bar.show(500, 1000)
    """

    def __init__(self, title: str, *, wanted: bool = True) -> None:
        self._title = title
        self._wanted = wanted and sys.stderr.isatty()
        self._due = time.monotonic() + _PATIENCE_SECONDS
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def show(self, done: int, total: int) -> None:
        """Say how far it is; at the end the bar vanishes for good."""
        if not self._wanted:
            return
        if done >= total:
            self.close()
        elif self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, total=total)
        elif time.monotonic() > self._due:
            self._progress = _rich_bar()
            self._task = self._progress.add_task(self._title, completed=done, total=total)
            self._progress.start()

    def close(self) -> None:
        """Take the bar away. Idempotent."""
        self._wanted = False
        progress, self._progress = self._progress, None
        if progress is not None:
            progress.stop()

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _rich_bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    return Progress(
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        "rows",
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
