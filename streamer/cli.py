"""The command ``streamer``: look at raw files, live or not, and try it without a detector."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click

from streamer.convert import FORMS
from streamer.demo import demonstrate
from streamer.doctor import diagnose
from streamer.packets.wires import WIRES
from streamer.printing import print_messages
from streamer.recover import recover
from streamer.saying import FAILED, WRONG_CALL, Commands, run
from streamer.show import Bar, byte_figure
from streamer.showing import asic_of, convert_shown
from streamer.summary import summarize
from writer.recording import Recorded, record
from writer.simulate import LOADS
from writer.version import __version__

__all__ = ["main"]

# With so many messages `tail` begins unless told otherwise, as tail(1) does.
_ROWS = 10
# Batches of less would be of less than a message, and of more take too much memory.
_LEAST_BATCH_MS, _LARGEST_BATCH_MS = 1.0, 10_000.0
# A simulation that is so late does not catch up.
_LATE_SECONDS = 2.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    arguments
        What stands behind the name of the command; by default, what this process was
        called with.

    Returns
    -------
    int
        0; 1 if it failed; 2 if it was called wrongly; 130 after Ctrl-C. What is wrong is one
        line on stderr.
    """
    return run(_commands, arguments)


def _examples(*lines: str, before: str = "") -> str:
    """Return what stands at the end of a command's help; it is not wrapped."""
    return "\b\n" + before + "\n".join(["Examples:", *(f"  {line}" for line in lines)])


def _finite(_: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        msg = f"{value} is not a finite number."
        raise click.BadParameter(msg, param=parameter)
    return value


class _Name(click.Path):
    """The name of a file; not none at all, which would be the current folder."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not value:
            self.fail("it is empty.", param, ctx)
        return super().convert(value, param, ctx)


_file = partial(click.argument, type=_Name())
_load = partial(
    click.option, "--load", type=click.Choice(list(LOADS)), default="2x2", show_default=True
)
_seconds = partial(
    click.option,
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    callback=_finite,
)


@click.group(
    cls=Commands,
    invoke_without_command=True,
    epilog=_examples(
        "streamer demo           see it all, without a detector",
        "streamer tail raw.h5    messages as they come",
        "streamer stat raw.h5    what a file holds, and how it is",
    ),
)
@click.version_option(__version__, prog_name="streamer")
@click.pass_context
def _commands(context: click.Context) -> None:
    """Follow LArPix raw HDF5 files while the DAQ is still writing them.

    The writer is never disturbed: files are read without a lock, and nothing is written
    into them.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(WRONG_CALL)


@_commands.command(
    "tail",
    short_help="Show messages as they come.",
    epilog=_examples(
        "streamer tail raw.h5",
        "streamer tail runs/     all raw files of a folder, and those to come",
        "streamer tail raw.h5 -n 100 --io-group 1 --io-group 2",
        "streamer tail raw.h5 --from-start --once --format json > messages.json",
    ),
)
@_file("file")
@click.option(
    "-n",
    "--rows",
    type=click.IntRange(min=0),
    metavar="ROWS",
    help=f"Begin with the last ROWS messages (of the io_groups given).  [default: {_ROWS}]",
)
@click.option("--from-start", is_flag=True, help="Begin with the first row of the file.")
@click.option("--once", is_flag=True, help="End after what is there now.")
@click.option(
    "--io-group",
    "io_groups",
    type=click.IntRange(0, 255),
    multiple=True,
    metavar="G",
    help="Only messages of this PACMAN card; may be given several times.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "raw"]),
    default="text",
    show_default=True,
    help="Lines of text; lines of JSON; or the bytes of the messages and nothing else.",
)
def _tail(
    file: Path,
    rows: int | None,
    from_start: bool,
    once: bool,
    io_groups: tuple[int, ...],
    form: str,
) -> None:
    """Show the messages of a raw FILE, and those to come, as they come.

    Waits for a FILE that is absent, and goes on with a new one of the same name. Ends when
    the writer says that the run is over; larpix-control's writer never does, so end it with
    Ctrl-C. Of a folder, or a pattern in quotes, it shows one run after the other, from the
    newest on, and never ends by itself.

    Times are those of the PACMAN headers, in UTC. A message is of kind data, request or
    reply; or unknown, if it does not fit the message format 0.0.
    """
    if from_start and rows is not None:
        msg = "--from-start and --rows exclude each other."
        raise click.UsageError(msg)
    if form == "raw" and sys.stdout.isatty():
        msg = "Raw bytes would spoil the terminal: send them to a file or a pipe."
        raise click.UsageError(msg)
    last = None if from_start else _ROWS if rows is None else rows
    print_messages(file, last=last, once=once, io_groups=io_groups or None, form=form)


@_commands.command(
    "stat",
    short_help="Say what a file holds, and how it is.",
    epilog=_examples(
        "streamer stat raw.h5",
        "streamer stat raw.h5 --json | jq .io_groups",
        before="States:\n"
        "  live         a writer has it open: a RawWriter, by its lock, or some other\n"
        "               writer that has written within 5 s\n"
        "  closed       nobody has it open, and what it holds is complete\n"
        "  finished     closed, and its writer said that the run is over\n"
        "  writer gone  marked as open, but nobody writes it: its writer died\n\n\b\n",
    ),
)
@_file("file")
@click.option("--json", "as_object", is_flag=True, help="As one object of JSON.")
def _stat(file: Path, as_object: bool) -> int:
    """Say what a raw FILE holds and how it is, and what to do if something is wrong.

    All messages are read and verified; it fails if one is damaged.
    """
    summary = summarize(file)
    if as_object:
        click.echo(json.dumps(summary.as_dict(), indent=2))
    else:
        for name, value in summary.lines():
            click.echo(f"{click.style(f'{name:<12}', dim=True)} {value}")
        for advice in summary.advice:
            click.secho(f"\n{click.wrap_text(advice, 80)}", fg="yellow")
    return FAILED if summary.unreadable else 0


@_commands.command(
    "doctor",
    short_help="Say what is wrong with and around a file.",
    epilog=_examples(
        "streamer doctor raw.h5",
        "streamer doctor raw.h5 --json | jq .findings",
    ),
)
@_file("file")
@click.option("--json", "as_object", is_flag=True, help="As one object of JSON.")
def _doctor(file: Path, as_object: bool) -> int:
    """Say how a raw FILE is, who holds it, what endangers it or the DAQ, and what to do.

    Takes no lock and reads samples only, so it is quick; streamer stat reads all messages.
    FILE may be in any state, or absent. Fails if something has to be done.
    """
    found = diagnose(file)
    if as_object:
        click.echo(json.dumps(found.as_dict(), indent=2))
    else:
        for name, value in found.lines():
            click.echo(f"{click.style(f'{name:<12}', dim=True)} {value}")
        for advice in found.advice:
            colour = "yellow" if advice.wrong else None
            click.secho(f"\n{click.wrap_text(advice.text, 80)}", fg=colour)
        if found.healthy:
            click.secho("\nNothing is wrong.", fg="green")
    return 0 if found.healthy else FAILED


@_commands.command(
    "simulate",
    short_help="Write what a simulated detector sends.",
    epilog=_examples(
        "streamer simulate raw.h5 --load tile --seconds 60",
        "streamer simulate raw.h5       and in another terminal: streamer tail raw.h5",
    ),
)
@_file("out")
@_load(help="Which detector.")
@_seconds(help="How long.  [default: until Ctrl-C]")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    show_default=True,
    help="Same seed, same detector.",
)
@click.option(
    "--batch-ms",
    type=click.FloatRange(min=_LEAST_BATCH_MS, max=_LARGEST_BATCH_MS),
    default=100,
    metavar="MS",
    callback=_finite,
    show_default=True,
    help="Detector time of a batch [ms].",
)
@click.option(
    "--fast",
    is_flag=True,
    help="As fast as possible and always at the same date: the same bytes each time.",
)
@click.option("--append", is_flag=True, help="Continue OUT if it exists already.")
def _simulate(
    out: Path,
    load: str,
    seconds: float | None,
    seed: int,
    batch_ms: float,
    fast: bool,
    append: bool,
) -> int:
    """Write what a simulated detector sends into the raw file OUT, in real time.

    Ctrl-C ends the run as its normal end does: the file is closed, and says that the run is
    over. 2x2 makes 12 MB a second.
    """
    with _status_line(out) as told:
        done = record(
            out,
            load=load,
            seed=seed,
            seconds=seconds,
            batch_seconds=batch_ms / 1000,
            fast=fast,
            append=append,
            told=told,
        )
    click.echo(f"{out}: {done}")
    return 128 + done.signal if done.signal else 0


@contextmanager
def _status_line(out: Path) -> Iterator[Callable[[Recorded], None] | None]:
    """Show on a terminal how the recording goes on."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(f"{out}: beginning")) as status:

        def tell(done: Recorded) -> None:
            pace, late = max(done.seconds, 1e-3), done.seconds - done.detector_seconds
            said = Text(f"{out}: {done.seconds:.0f} s, {done.rows:,} rows, ")
            said.append(f"{done.rows / pace:,.0f} messages/s, {byte_figure(done.bytes / pace)}/s")
            if late > _LATE_SECONDS:
                said.append(f"; {late:.0f} s behind: this computer is too slow for it", "red")
            status.update(said)

        yield tell


@_commands.command(
    "demo",
    short_help="See it all, without a detector.",
    epilog=_examples("streamer demo", "streamer demo --load ndlar --seconds 30"),
)
@_seconds(default=10, show_default=True, help="How long.")
@_load(help="Which detector.")
def _demo(seconds: float, load: str) -> int:
    """See it all without a detector: one process writes, and this one follows it live.

    Uses a temporary folder, which is removed at the end; 2x2 takes 12 MB for each second.
    Fails unless each row that was written has been delivered.
    """
    return 0 if demonstrate(load, seconds) else FAILED


@_commands.command(
    "recover",
    short_help="Copy what can be read of a damaged file.",
    epilog=_examples(
        "streamer recover raw.h5 recovered.h5",
        "streamer recover raw.h5 recovered.h5 --json > report.json",
    ),
)
@_file("file")
@_file("out")
@click.option(
    "--keep-uncommitted",
    is_flag=True,
    help="Keep messages whose header row is missing, with io_group 0.",
)
@click.option("--json", "as_object", is_flag=True, help="The report as one object of JSON.")
def _recover(file: Path, out: Path, keep_uncommitted: bool, as_object: bool) -> None:
    """Copy every readable row of a damaged raw FILE into a new file OUT, and say what was not.

    For what a killed writer has left, a file that was cut off, or that has bad pages. FILE is
    only read, and OUT must not exist. If nothing is wrong with FILE, that is said and nothing
    is written.

    HDF5 has no checksum of messages: one whose bytes have changed, but not its length, cannot
    be told from a good one.
    """
    with Bar("recovering") as bar:
        done = recover(file, out, keep_uncommitted=keep_uncommitted, told=bar.show)
    if as_object:
        click.echo(json.dumps(done.as_dict(), indent=2))
    else:
        click.echo("\n".join(done.lines()))


@_commands.command(
    "convert",
    short_help="Convert a file into packets.",
    epilog=_examples(
        "streamer convert raw.h5 packets.h5",
        "streamer convert raw.h5 packets.h5 --follow    while the run goes on",
        "streamer convert raw.h5 packets.parquet",
        "streamer convert raw.h5 packets.h5 --asic v2 --asic 5=v3",
    ),
)
@_file("file")
@_file("out")
@click.option("--follow", is_flag=True, help="Convert what comes too, until the run is over.")
@click.option(
    "--to",
    type=click.Choice(FORMS),
    help="A packets file, HDF5 2.4, or a Parquet table.  [default: by the name of OUT]",
)
@click.option(
    "--wire",
    type=click.Choice(["auto", *WIRES]),
    default="auto",
    show_default=True,
    help="The format of the messages: with words of 16 bytes, or of 24.",
)
@click.option(
    "--asic",
    "asics",
    multiple=True,
    metavar="ASIC|G=ASIC",
    help="What chips there are, or those of io_group G: v2, v2-fifo (in FIFO diagnostics mode), "
    "v3, lightpix; may be given several times.  [default: v2]",
)
@click.option("--compress", is_flag=True, help="Compress the HDF5 file; it takes longer.")
@click.option("--overwrite", is_flag=True, help="Replace an existing OUT at the end.")
@click.option("--json", "as_object", is_flag=True, help="The report as one object of JSON.")
def _convert(
    file: Path,
    out: Path,
    follow: bool,
    to: str | None,
    wire: str,
    asics: tuple[str, ...],
    compress: bool,
    overwrite: bool,
    as_object: bool,
) -> int:
    """Convert a raw FILE into a file of packets OUT, as larpix-control makes them.

    OUT gets its name once it is complete; until then there is OUT.partial. If it is
    interrupted, in whatever way, the same command goes on where it was.

    With --follow it waits for FILE and its rows until the writer says that the run is over;
    larpix-control's writer never does. Ctrl-C then completes OUT with what is there.

    Messages that cannot be decoded are left out, counted, and reported. It fails if there is
    no other.
    """
    done = convert_shown(
        file,
        out,
        follow=follow,
        to=to,
        overwrite=overwrite,
        wire=wire,
        asic=asic_of(asics),
        compressed=compress,
    )
    if isinstance(done, int):
        return done
    if as_object:
        click.echo(json.dumps(done.as_dict(), indent=2))
    else:
        click.echo("\n".join(done.lines()))
    return 0
