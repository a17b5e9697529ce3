"""A slow mirror of a live file, and a follower of it, each as a real second process.

    python -m tests.live.mirror copy SOURCE TARGET --seed 1
    python -m tests.live.mirror follow TARGET --rows 6000

The mirror shows what a network file system can show of a file that another host writes: each
page as it once was, none older than before, but new and old ones side by side, and a length
that comes before the bytes or after them. No page is late by much more than half a second.
Once its input ends, it becomes an exact copy.

The follower starts again, from its position, after each error that means "not yet".
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from streamer import Position, tail
from streamer.errors import FileReplaced, NotReady, RowUnreadable, StreamError

from .writers import ROOT, Lines, environment, say, wrong_rows

PAGE = 4096
# When a pass sets the length of the copy: before its pages, by its pages as they come, or
# after all that lies within the old length.
GROWTHS = ("early", "between", "late")
# What part of the changed pages a pass copies.
SHARES = (0.1, 0.4, 0.8, 1.0)
# One page in so many is kept back for a while, as if it were in a cache.
KEPT, KEPT_SECONDS = 10, 0.3
# After so long a page is copied with the next pass, and so long may a pass take.
LATE_SECONDS, PASS_SECONDS = 0.4, 0.1
PAUSES = (0.0, 0.0002, 0.002)
NOT_YET = (NotReady, RowUnreadable, FileReplaced)

# ------------------------------------------------------------------------- the mirror


class Mirror:
    """Copies the pages of a file out of order, and knows what the copy holds."""

    def __init__(self, source: Path, target: Path, seed: int):
        self._source = source
        self._rng = random.Random(seed)
        self._target = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        self._shown = bytearray()
        # Of the pages that differ: since when, and until when they are kept back.
        self._waiting: dict[int, tuple[float, float]] = {}
        self.passes = self.pages = 0

    def copy(self) -> bool:
        """Make a pass; tell whether there was nothing left to copy."""
        try:
            now = self._source.read_bytes()
        except FileNotFoundError:
            return True
        changed = self._changed(now)
        if not changed and len(now) == len(self._shown):
            return True
        self.passes += 1
        pages, growth = self._chosen(changed), self._rng.choice(GROWTHS)
        if growth == "early" or not changed:
            self._grow(len(now))
        if growth == "late":
            pages.sort(key=lambda page: page * PAGE >= len(self._shown))
        pause = min(self._rng.choice(PAUSES), PASS_SECONDS / max(1, len(pages)))
        for page in pages:
            self._show(page * PAGE, now[page * PAGE : (page + 1) * PAGE])
            if pause:
                time.sleep(self._rng.uniform(0, pause))
        return False

    def _changed(self, now: bytes) -> list[int]:
        starts = range(0, len(now), PAGE)
        return [at // PAGE for at in starts if now[at : at + PAGE] != self._shown[at : at + PAGE]]

    def _chosen(self, changed: list[int]) -> list[int]:
        """Take some of the changed pages, in any order, and those that have waited too long."""
        now, rng = time.monotonic(), self._rng
        for page in changed:
            kept = rng.uniform(0, KEPT_SECONDS) if rng.randrange(KEPT) == 0 else 0.0
            self._waiting.setdefault(page, (now, now + kept))
        free = [page for page in changed if self._waiting[page][1] <= now]
        rng.shuffle(free)
        count = round(len(free) * rng.choice(SHARES))
        late = [page for page in free[count:] if now - self._waiting[page][0] > LATE_SECONDS]
        pages = free[:count] + late
        for page in pages:
            del self._waiting[page]
        return pages

    def _grow(self, size: int) -> None:
        if size > len(self._shown):
            os.truncate(self._target, size)
            self._shown.extend(bytes(size - len(self._shown)))

    def _show(self, at: int, page: bytes) -> None:
        os.pwrite(self._target, page, at)
        self._shown.extend(bytes(max(0, at + len(page) - len(self._shown))))
        self._shown[at : at + len(page)] = page
        self.pages += 1


def copy(source: Path, target: Path, seed: int) -> None:
    """Mirror a file until the input ends, and then until there is nothing left to copy."""
    mirror, last = Mirror(source, target, seed), Lines(sys.stdin.fileno())
    say("ready")
    while True:
        last.take(0.001)
        if mirror.copy() and last.ended:
            break
    assert source.read_bytes() == target.read_bytes()
    say(json.dumps({"passes": mirror.passes, "pages": mirror.pages}))


# ----------------------------------------------------------------------- the follower


def follow(path: Path, rows: int, timeout: float) -> None:
    """Follow a file to a row; print what was seen, and what was said instead of rows."""
    say("ready")
    deadline = time.monotonic() + timeout
    position = Position(0)
    wrong: list[int] = []
    said: Counter = Counter()
    batches = 0
    while position.row < rows and not wrong:
        left = max(0.001, deadline - time.monotonic())
        try:
            with tail(path, start=position, until=rows, poll=0.002, idle_timeout=left) as live:
                for batch in live.batches():
                    wrong += wrong_rows(batch, position.row, position.row + len(batch))
                    position = live.position
                    batches += 1
        except NOT_YET as error:
            said[type(error).__name__] += 1
            if time.monotonic() > deadline:
                break
            time.sleep(0.002)
        except (StreamError, ValueError) as error:  # nothing that anybody could wait for
            said[f"{type(error).__name__}: {error}"] += 1
            break
    say(json.dumps({"rows": position.row, "batches": batches, "wrong": wrong, "said": said}))


# --------------------------------------------------------------- seen from the outside


@contextmanager
def _process(*arguments: str) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-m", "tests.live.mirror", *arguments]
    with (
        TemporaryFile() as complaints,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            bufsize=0,
            cwd=ROOT,
            env=environment(),
        ) as process,
    ):
        try:
            process.stdout.readline()  # it is ready, or has died
            yield process
        finally:
            process.kill()  # does nothing to one that has ended
        complaints.seek(0)
        assert process.wait() == 0, complaints.read().decode()


def told(process: subprocess.Popen, timeout: float = 60.0) -> dict:
    """End the input of a process, and return what it says at its end."""
    return json.loads(process.communicate(timeout=timeout)[0])


@contextmanager
def mirroring(source: Path, target: Path, seed: int) -> Iterator[subprocess.Popen]:
    """Run a mirror; once it was :func:`told` to end, the target is as the source."""
    with _process("copy", str(source), str(target), f"--seed={seed}") as process:
        yield process


@contextmanager
def following(path: Path, rows: int, timeout: float) -> Iterator[subprocess.Popen]:
    """Run a follower to a row; :func:`told` returns what it saw."""
    with _process("follow", str(path), f"--rows={rows}", f"--timeout={timeout}") as process:
        yield process


def main() -> None:
    """Run a mirror or a follower."""
    parser = argparse.ArgumentParser(prog="python -m tests.live.mirror")
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("copy")
    command.set_defaults(run=copy)
    command.add_argument("source", type=Path)
    command.add_argument("target", type=Path)
    command.add_argument("--seed", type=int, required=True)
    command = commands.add_parser("follow")
    command.set_defaults(run=follow)
    command.add_argument("path", type=Path)
    command.add_argument("--rows", type=int, required=True, help="how many to wait for")
    command.add_argument("--timeout", type=float, default=60.0, help="seconds for all of it")
    arguments = vars(parser.parse_args())
    arguments.pop("run")(**arguments)


if __name__ == "__main__":
    main()
