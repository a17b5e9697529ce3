"""What ``streamer convert`` does: convert, show how far it is, and end well at Ctrl-C."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import click

from streamer.convert import Stopped, convert
from streamer.convert.report import Conversion
from streamer.packets import check_options
from streamer.saying import INTERRUPTED
from streamer.show import Bar, say

__all__ = ["asic_of", "convert_shown"]


def asic_of(values: Sequence[str]) -> str | dict[int, str]:
    """Return what ``--asic`` says, given several times: ASIC for all, and G=ASIC for one.

    Raises
    ------
    click.BadParameter
        If it is something else.

    Examples
    --------
    >>> asic_of(["v3"]), asic_of(["1=v2", "2=v3"])
    ('v3', {1: 'v2', 2: 'v3'})
    >>> asic_of(["v2", "2=v3"])[2], asic_of(["v2", "2=v3"])[1], asic_of([])
    ('v3', 'v2', 'v2')
    """
    by_group = {}
    others = []
    for value in values:
        group, equals, asic = value.rpartition("=")
        if equals and group.isdecimal():
            by_group[int(group)] = asic
        else:
            others.append(value)
    try:
        if len(others) > 1:
            msg = f"{' and '.join(others)} cannot all be what all io_groups have"
            raise ValueError(msg)
        asic = others[0] if others else "v2"
        check_options("auto", asic)
        check_options("auto", by_group)
    except ValueError as error:
        msg = f"{error}."
        raise click.BadParameter(msg, param_hint="'--asic'") from error
    if not by_group:
        return asic
    return dict.fromkeys(range(256), asic) | by_group if others else by_group


def convert_shown(raw: Path, out: Path, *, follow: bool, **options: Any) -> Conversion | int:
    """Convert a file, and show on a terminal how far it is.

    Ctrl-C ends it: at once, or where it follows, once all is converted that is there. To be
    called in the main thread.

    Parameters
    ----------
    raw, out, follow, options
        As in :func:`streamer.convert.convert`.

    Returns
    -------
    Conversion or int
        What came of it; or the exit code, if it was interrupted.
    """
    shown = _followed(raw, out) if follow else _bar()
    try:
        with _interrupted() as stop, shown as told:
            return convert(raw, out, follow=follow, stop=stop, told=told, **options)
    except Stopped as stopped:
        say(f"{stopped}; the same command goes on from there")
        return INTERRUPTED


@contextmanager
def _interrupted() -> Iterator[threading.Event]:
    """Note Ctrl-C as an event; a second one is an interrupt."""
    stop = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    with Bar("converting") as bar:
        yield bar.show


@contextmanager
def _followed(raw: Path, out: Path) -> Iterator[Callable[[int, int], None]]:
    """Show how far it is in a file of which nobody knows the end."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(f"{raw}: waiting for rows")) as status:

        def tell(done: int, total: int) -> None:
            behind = f", {total - done:,} behind" if total > done else ""
            status.update(Text(f"{raw}: {done:,} rows converted{behind}; Ctrl-C completes {out}"))

        yield tell
