"""What ``streamer demo`` shows: a live panel on a terminal, a line a second elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import click
import numpy as np

from streamer.delivered import Delivered, sparkline
from streamer.progress import Lag
from streamer.show import byte_figure

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Shown", "showing"]

_REDRAW_SECONDS, _LINE_SECONDS = 0.1, 1.0
# More io_groups than these are shown by one character each.
_MOST_LINES = 16
_SPARKLINE_STEPS = 40
_RATE_BAR = 20


class Shown(NamedTuple):
    """What there is to show at one moment."""

    #: Seconds since the file was opened, and how many it will be.
    seconds: float
    all_seconds: float
    delivered: Delivered
    lag: Lag
    #: Median of the last delays from append to here [s]; None as long as none is known.
    delay: float | None
    #: The last message, as a line of text.
    message: str


@contextmanager
def showing(title: str, facts: list[tuple[str, str]]) -> Iterator[Callable[[Shown], None]]:
    """Show how a demonstration goes on.

    Parameters
    ----------
    title
        What it is.
    facts
        Names and values of what does not change.

    Returns
    -------
    Callable
        To be called with what there is to show, as often as one likes.
    """
    click.echo(title)
    for name, value in facts:
        click.echo(f"  {name:<10} {value}")
    due = 0.0
    if not sys.stdout.isatty():
        due = _LINE_SECONDS

        def tell(shown: Shown) -> None:
            nonlocal due
            if shown.seconds >= due:
                due = shown.seconds // _LINE_SECONDS * _LINE_SECONDS + _LINE_SECONDS
                click.echo(_line(shown))

        yield tell
        return
    from rich.constrain import Constrain
    from rich.live import Live

    latest: Shown | None = None
    with Live(auto_refresh=False) as live:

        def redraw() -> None:
            if latest is not None:
                # Room for the terminal's own "^C", which would otherwise begin a new line.
                live.update(Constrain(_panel(latest), live.console.width - 4), refresh=True)

        def draw(shown: Shown) -> None:
            nonlocal due, latest
            latest = shown
            if shown.seconds >= due:
                due = shown.seconds + _REDRAW_SECONDS
                redraw()

        yield draw
        redraw()


def _line(shown: Shown) -> str:
    rates = shown.delivered.rates()
    present = rates.io_groups[shown.delivered.io_groups > 0]
    if len(present) > _MOST_LINES:
        each = f"{present.min():,.0f} to {present.max():,.0f} from each of {len(present)}"
    else:
        each = " ".join(f"{rate:,.0f}" for rate in present)
    return (
        f"{shown.seconds:4.0f} s  {shown.delivered.rows:10,} rows  "
        f"{rates.messages_per_second:8,.0f} messages/s  "
        f"{byte_figure(rates.bytes_per_second):>8}/s  lag {shown.lag.rows:,} rows  "
        f"io_groups {each}"
    )


def _panel(shown: Shown) -> RenderableType:
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    delivered, rates = shown.delivered, shown.delivered.rates()
    present = np.flatnonzero(delivered.io_groups)
    groups = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("io_group", "messages/s", "", "rows"):
        groups.add_column(heading, justify="left" if not heading else "right", no_wrap=True)
    top = max(rates.io_groups.max(), 1.0)
    if len(present) <= _MOST_LINES:
        for group in present.tolist():
            rate = rates.io_groups[group]
            bar = "█" * round(_RATE_BAR * rate / top)
            rows = f"{delivered.io_groups[group]:,}"
            groups.add_row(str(group), f"{rate:,.0f}", Text(f"{bar:<{_RATE_BAR}}", "cyan"), rows)
    else:
        each = rates.io_groups[present]
        for start in range(0, len(present), _SPARKLINE_STEPS):
            part = slice(start, start + _SPARKLINE_STEPS)
            blocks = sparkline([*each[part].tolist(), top])[:-1]
            mean, rows = each[part].mean(), delivered.io_groups[present[part]].sum()
            numbers = f"{present[part][0]}-{present[part][-1]}"
            groups.add_row(numbers, f"{mean:,.0f} each", Text(blocks, "cyan"), f"{rows:,}")
    figures = f"{rates.messages_per_second:,.0f}", f"{delivered.rows:,}"
    groups.add_row("all", figures[0], f"{byte_figure(rates.bytes_per_second)}/s", figures[1])

    history = delivered.history(_SPARKLINE_STEPS)
    delay = "" if shown.delay is None else f"{1e3 * shown.delay:.0f} ms"
    facts = Table.grid(padding=(0, 1))
    facts.add_column(style="dim", no_wrap=True, min_width=10)
    facts.add_column(no_wrap=True, overflow="crop")
    facts.add_row(
        "messages/s",
        Text.assemble((sparkline(history), "green"), f"  0 to {max(history, default=0):,.0f}"),
    )
    facts.add_row("lag", f"{shown.lag.rows:,} rows behind the file")
    facts.add_row("delay", f"{delay} from the writer's append() to this process")
    facts.add_row("newest", shown.message)
    title = f"{min(shown.seconds, shown.all_seconds):.0f} of {shown.all_seconds:g} s"
    return Panel(Group(groups, "", facts), title=title, title_align="left", expand=False)
