"""What ``streamer tail`` does: write the messages of a file to stdout, as they come."""

from __future__ import annotations

import select
import sys
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from streamer.batch import Batch, Gap
from streamer.errors import FileReplaced, NotReady, WriterStalled
from streamer.position import Position
from streamer.rawfile import RawFile
from streamer.sequence import is_many
from streamer.show import HEADINGS, Bar, as_json, as_raw, as_text, say, text_bytes_within
from streamer.tail import Tail, tail
from writer.layout import IO_GROUPS

__all__ = ["print_messages"]

# So often somebody who waits for rows looks whether anybody still wants them.
_TICK_SECONDS = 1.0
_HEADERS_AT_ONCE = 1 << 20


def print_messages(
    path: Path,
    *,
    last: int | None,
    once: bool,
    io_groups: Collection[int] | None,
    form: str,
) -> None:
    """Write the messages of a raw file to stdout, and those to come, as they come.

    Parameters
    ----------
    path
        The file, or a folder or pattern of them. An absent one is waited for, and when
        another file has its name, it goes on with that one.
    last
        How many of the messages that are there to begin with; None for all.
    once
        Whether to end after what is there now, instead of when the run is over.
    io_groups
        Only messages of these PACMAN cards; None for all.
    form
        ``"text"``, ``"json"`` or ``"raw"``.

    Raises
    ------
    BrokenPipeError
        If nobody reads stdout any more.
    NotReady
        If the file is not there, and it is to be done once.
    StreamError, LayoutError
        As of :func:`streamer.tail`.
    """
    show = _shown_as(form)
    following = tail(
        path,
        start=_start(path, last, io_groups, once=once),
        until="end" if once else "finished",
        io_groups=io_groups,
        idle_timeout=_TICK_SECONDS,
        on_replace="continue",
    )
    with following:
        _give(following, show, once)
    if once and following.position.created is None and is_many(path):
        msg = f"{path}: no raw file in it"
        raise NotReady(msg)
    if following.outcome == "finished" and sys.stderr.isatty():
        say(f"{path}: the run is over, after {following.position.row:,} rows")


def _start(
    path: Path, last: int | None, io_groups: Collection[int] | None, *, once: bool
) -> str | int | Position:
    """Return where to begin, with so many messages of these io_groups."""
    if is_many(path):  # those of the newest run
        folder = path if path.is_dir() else path.parent
        if once and not folder.is_dir():
            msg = f"{folder}: absent"
            raise NotReady(msg)
        return "beginning" if last is None else -last if last else "end"
    try:
        with RawFile(path) as raw:
            row = 0 if last is None else _row_before(raw, last, io_groups)
            return Position(row, raw.created, raw.run_id)
    except NotReady:
        if once:
            raise
    return "beginning"  # all messages of a file that is still to come are new


def _row_before(raw: RawFile, last: int, io_groups: Collection[int] | None) -> int:
    """Return the row from which on there are so many messages of these io_groups."""
    first = len(raw)
    if io_groups is None:
        return max(0, first - last)
    while last and first:
        stop, first = first, max(0, first - _HEADERS_AT_ONCE)
        found = raw.read_headers(first, stop)[IO_GROUPS]
        (wanted,) = np.nonzero(np.isin(found, list(io_groups)))
        if len(wanted) >= last:
            return first + int(wanted[-last])
        last -= len(wanted)
    return first


def _shown_as(form: str) -> Callable[[Batch], bytes]:
    if form == "json":
        return as_json
    if form == "raw":
        return as_raw
    if not sys.stdout.isatty():
        return as_text
    from rich.console import Console

    console = Console()
    click.echo(HEADINGS)
    return partial(
        as_text,
        first_bytes=text_bytes_within(console.width),
        coloured=console.color_system is not None and not console.no_color,
    )


def _give(following: Tail[Any, Batch | Gap], show: Callable[[Batch], bytes], once: bool) -> None:
    """Write what comes, until nothing will."""
    out = sys.stdout.buffer
    first: int | None = None
    said = ""
    # On a terminal the messages themselves show how far it is.
    with Bar("catching up", wanted=not sys.stdout.isatty()) as bar:
        while True:
            try:
                batch = following.next_batch()
            except StopIteration:
                return
            except (WriterStalled, NotReady) as error:
                # Asking again goes on. That a file is waited for has been logged; not so
                # that it was there, and now HDF5 cannot read it for a while.
                if isinstance(error, NotReady) and following.trouble is None:
                    if once:
                        raise
                    if str(error) != said:
                        said = str(error)
                        say(f"{error}; trying again")
                _check_wanted()
                continue
            if isinstance(batch, Gap):  # what has happened has been logged
                if once:
                    raise FileReplaced(batch.reason)
                continue
            out.write(show(batch))
            # At once: whoever reads this wants it live.
            out.flush()
            row = following.position.row
            first = int(batch.rows[0]) if first is None else first
            bar.show(row - first, row - first + following.lag.rows)


def _check_wanted() -> None:
    """Raise if the reader of the pipe on stdout has gone, as behind "| head"."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    if any(event & select.POLLERR for _, event in poll.poll(0)):
        raise BrokenPipeError
