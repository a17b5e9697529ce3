"""How the command says what is wrong: one line on stderr, and an exit code. The only place."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
from click.exceptions import Exit

from streamer.errors import LayoutError, StreamError
from streamer.show import say
from writer.errors import WriterError

__all__ = ["FAILED", "INTERRUPTED", "WRONG_CALL", "Commands", "run"]

#: Exit codes.
FAILED, WRONG_CALL, INTERRUPTED = 1, 2, 130


class Commands(click.Group):
    """A group of commands whose errors are translated for people.

    Examples
    --------
    >>> @click.group(cls=Commands)
    ... def commands():
    ...     pass
    >>> run(commands, ["--help"]) == 0
    Usage: streamer [OPTIONS] COMMAND [ARGS]...
    <BLANKLINE>
    Options:
      --help  Show this message and exit.
    True
    """

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        """Look at the call; ``--help`` is answered here."""
        with _translated():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was called."""
        with _translated():
            return super().invoke(ctx)


@contextmanager
def _translated() -> Iterator[None]:
    """Turn errors into those of which click makes a line and an exit code."""
    try:
        yield
    except (StreamError, WriterError, LayoutError) as error:
        raise click.ClickException(str(error)) from error
    except BrokenPipeError:
        # Nobody wants the rest, as behind "| head"; nor what is still in the buffer.
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        raise Exit(0) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        msg = f"{where}{error.strerror or error}"
        raise click.ClickException(msg) from error
    except KeyboardInterrupt:
        raise Exit(INTERRUPTED) from None


def run(commands: Commands, arguments: Sequence[str] | None = None) -> int:
    """Run what was called.

    Parameters
    ----------
    commands
        All of them.
    arguments
        What stands behind the name of the command; by default, of this process.

    Returns
    -------
    int
        The exit code.
    """
    with _streams_open(), _said_in_lines():
        try:
            code = commands.main(
                None if arguments is None else list(arguments),
                prog_name="streamer",
                standalone_mode=False,
            )
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx else "streamer"
            say(f"{error.format_message()} (see {path} --help)")
            return WRONG_CALL
        except click.ClickException as error:
            say(error.format_message())
            return FAILED
        except click.Abort:
            return INTERRUPTED
    return code if isinstance(code, int) else 0


@contextmanager
def _streams_open() -> Iterator[None]:
    """Open those that whoever started this has closed: no other file must take their place."""
    with ExitStack() as opened:
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:
                opened.callback(setattr, sys, name, None)
                nowhere = opened.enter_context(Path(os.devnull).open("w"))
                setattr(sys, name, nowhere)
        yield


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


@contextmanager
def _said_in_lines() -> Iterator[None]:
    """Say what is logged, and warned of, as all else is said."""
    logger, handler = logging.getLogger("streamer"), _Lines(logging.WARNING)
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: say(message)
            yield
    finally:
        logger.removeHandler(handler)
