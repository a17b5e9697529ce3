"""``streamer demo``: a simulated detector in a second process, followed live by this one."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import BinaryIO, NoReturn

import click
import numpy as np

import writer
from streamer.delivered import Delivered
from streamer.errors import NotReady, WriterStalled
from streamer.panel import Shown, showing
from streamer.show import as_text, say
from streamer.tail import tail
from writer.errors import WriterError
from writer.recording import Recorded
from writer.simulate import LOADS

__all__ = ["demonstrate"]

# So often it is looked whether the writer lives, if nothing comes from it.
_TICK_SECONDS = 0.5
_BEGIN_SECONDS = 30.0
_RECENT_DELAYS = 20


def demonstrate(load: str, seconds: float) -> bool:
    """Let one process write what a simulated detector sends, and follow it live.

    Parameters
    ----------
    load
        Which detector, a name in `writer.simulate.LOADS`.
    seconds
        How long.

    Returns
    -------
    bool
        Whether each row that was written has been delivered, once and in order.

    Raises
    ------
    WriterError
        If the writer fails.

    Notes
    -----
    The writer and the folder of its file never outlive the call.
    """
    with (
        _ended_by_signals(),
        tempfile.TemporaryDirectory(prefix="streamer-demo-") as folder,
        _writing(Path(folder) / "raw.h5", load, seconds) as written,
    ):
        delivered, delays = _follow(written, load, seconds)
    if delays:
        middle, worst = 1e3 * statistics.median(delays), 1e3 * max(delays)
        click.echo(
            f"delay of a batch from the writer's append() to this process: "
            f"median {middle:.0f} ms, maximum {worst:.0f} ms"
        )
    rows, size = written.recorded.rows, written.recorded.bytes
    if delivered.complete and (rows, size) == (delivered.rows, delivered.bytes):
        click.echo(f"{rows:,} rows written = {delivered.rows:,} rows delivered")
        return True
    say(
        f"{rows:,} rows ({size:,} bytes) written, but {delivered.rows:,} rows "
        f"({delivered.bytes:,} bytes) delivered"
        + ("" if delivered.complete else ", not each once and in order")
    )
    return False


def _follow(written: _Written, load: str, seconds: float) -> tuple[Delivered, list[float]]:
    written.wait_for_file()
    begun = time.monotonic()
    delivered, delays = Delivered(), _Delays()
    size = LOADS[load]
    cards, tiles = size.io_groups, size.io_groups * size.tiles
    detector = f"{_counted(cards, 'PACMAN card')}, {_counted(tiles, 'tile')}, simulated: "
    detector += f"{size.hits_per_second:,.0f} hits/s"
    facts = [
        ("detector", detector),
        ("a process", f"writes {written.path.name}, in a folder that goes with it"),
        ("this one", 'follows it: for batch in tail("raw.h5").batches(): ...'),
    ]
    with (
        showing(f"streamer demo: {load}, for {seconds:g} s", facts) as show,
        tail(written.path, idle_timeout=_TICK_SECONDS) as following,
    ):
        message = ""
        while following.outcome is None:
            try:
                batch = following.next_batch()
            except StopIteration:
                break
            except (WriterStalled, NotReady):
                written.check_alive()
            else:
                now = time.monotonic()
                delivered.add(batch, now)
                delays.delivered(delivered.rows, now)
                message = as_text(batch.select(np.array([-1])), first_bytes=16).decode().strip()
            for recorded in written.look():
                delays.handed_over(recorded)
            recent = delays.known[-_RECENT_DELAYS:]
            delay = statistics.median(recent) if recent else None
            now = time.monotonic() - begun
            show(Shown(now, seconds, delivered, following.lag, delay, message))
    for recorded in written.wait():
        delays.handed_over(recorded)
    return delivered, delays.known


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


class _Delays:
    """How long each batch took from one process to the other."""

    def __init__(self) -> None:
        self.known: list[float] = []
        self._delivered: deque[tuple[int, float]] = deque()
        self._handed_over: deque[tuple[int, float]] = deque()

    def delivered(self, rows: int, now: float) -> None:
        """Note that so many rows have come."""
        self._delivered.append((rows, now))

    def handed_over(self, recorded: Recorded) -> None:
        """Note when a batch was handed to the writer; it may have come before that is known."""
        if not recorded.rows:
            return
        self._handed_over.append((recorded.rows, recorded.handed_over))
        while self._handed_over:
            rows, since = self._handed_over[0]
            while self._delivered and self._delivered[0][0] < rows:
                self._delivered.popleft()
            if not self._delivered:
                return
            self.known.append(self._delivered[0][1] - since)
            self._handed_over.popleft()


class _Written:
    """The writer, a second process, and what it says that it has written."""

    def __init__(self, path: Path, process: subprocess.Popen[bytes], complaints: BinaryIO) -> None:
        self.path = path
        self.recorded = Recorded(0, 0, 0.0, 0.0, 0.0)
        assert process.stdout is not None
        self._process = process
        self._output = process.stdout.fileno()
        self._complaints = complaints
        self._rest = b""
        os.set_blocking(self._output, False)

    def look(self) -> list[Recorded]:
        """Return what it has said since the last look."""
        while True:
            try:
                chunk = os.read(self._output, 1 << 16)
            except BlockingIOError:
                break
            if not chunk:
                break
            self._rest += chunk
        *lines, self._rest = self._rest.split(b"\n")
        said = [Recorded(**json.loads(line)) for line in lines]
        self.recorded = said[-1] if said else self.recorded
        return said

    def wait_for_file(self) -> None:
        """Wait until the file is open: the writer says so before its first batch."""
        deadline = time.monotonic() + _BEGIN_SECONDS
        while not self.look():
            self.check_alive()
            if time.monotonic() > deadline:
                self._fail(f"has not begun after {_BEGIN_SECONDS:g} s")
            time.sleep(0.01)

    def check_alive(self) -> None:
        """Raise if it has failed."""
        if self._process.poll():
            self._fail(f"ended with exit code {self._process.returncode}")

    def wait(self) -> list[Recorded]:
        """Wait for its end; return what it has said since the last look."""
        self._process.wait()
        self.check_alive()
        return self.look()

    def _fail(self, what: str) -> NoReturn:
        self._complaints.seek(0)
        *_, last = ["", *self._complaints.read().decode(errors="replace").splitlines()]
        why = last.removeprefix("error: ")
        msg = f"the simulated detector, process {self._process.pid}, {what}"
        raise WriterError(f"{msg}: {why}" if why else msg)


@contextmanager
def _writing(path: Path, load: str, seconds: float) -> Iterator[_Written]:
    """Run the writer; it has ended when this ends, however that happens."""
    command = [sys.executable, "-P", "-m", "writer", str(path), "--tell"]
    command += ["--load", load, "--seconds", str(seconds)]
    # The package that is in use here, whatever folder this is.
    places = [str(Path(writer.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    with (
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=complaints,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, places))},
            # Ctrl-C is for this process, which ends that one.
            start_new_session=True,
        ) as process,
    ):
        try:
            yield _Written(path, process, complaints)
        finally:
            # Its file is about to go; this does nothing to one that has ended.
            process.kill()


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let a SIGTERM, or the loss of the terminal, end this as Ctrl-C does: tidily."""

    def end(number: int, _: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = {}
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # not if started by nohup
            before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
