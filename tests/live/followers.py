"""Followers with a checkpoint that can be started and killed by the hundred.

    python -m tests.live.followers

As of :mod:`tests.live.forked`: a server imports everything and forks one child for each life of
a follower. A life says each row that it was given, and only then counts the row as handed over:

    given START STOP TIME     these rows, whole and right [TIME: monotonic s]
    wrong START STOP          these rows, and not as they were written
    storing ROW               a position is about to be stored
    steps NUMBER              so many steps it took; after which the life goes on
    dying NUMBER NAME         killed by itself, at a step of a store
    opened {NAME: TIMES}      how often it has opened each file of the folder
    outcome OUTCOME           it has ended

Rows are counted through all runs of a folder: the files' names are numbers, each run has
`stride` numbers of its own, and messages say these.
"""

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import anyio._backends._asyncio
import trio  # noqa: F401 - it takes long to import

from streamer import Batch, Message, Position, follow, tail
from streamer.checkpoint import Checkpoint

from .forked import Server, _end
from .writers import ROOT, check, environment, io_group, say

# What a store asks the operating system for, as Python names it.
STEPS = {"open", "write", "flush", "fsync", "link", "unlink", "replace", "read", "close"}


def row_of(position: Position | None, stride: int) -> int:
    """Return the row of a position, counted through all runs."""
    if position is None:
        return 0
    assert position.source is not None
    return int(Path(position.source).stem) * stride + position.row


# ------------------------------------------------------------------------ seen by a test


class Lives(Server):
    """The server, seen from the test: one life after the other."""

    def __init__(self, process: subprocess.Popen):
        self.said: list[list[str]] = []
        super().__init__(process)

    def look(self, timeout: float = 0.0) -> list[str]:
        """Take what was said, and keep it."""
        lines = super().look(timeout)
        self.said += [line.split(maxsplit=3) for line in lines]
        return lines

    def start(self, path: Path, **options: Any) -> None:
        """Start a life."""
        self.said = []
        super().start(path, **options)

    def until(self, *words: str, timeout: float = 30.0) -> bool:
        """Wait until one of these was said; tell whether it was."""
        deadline = time.monotonic() + timeout
        while not any(line[0] in words for line in self.said):
            left = deadline - time.monotonic()
            if left < 0 or self._lines.ended:
                return False
            self.look(left)
        return True

    def kill(self) -> None:
        """Kill what lives, if it does, and wait until its last word is known."""
        self._tell("kill")
        self._until("ended")
        assert self.status in (0, signal.SIGKILL), f"a follower has failed: {self.status}"

    @property
    def given(self) -> list[tuple[int, int, float]]:
        """The rows that it was given: start, stop, and when."""
        assert not [line for line in self.said if line[0] == "wrong"], self.said
        lines = [line[1:] for line in self.said if line[0] == "given"]
        return [(int(start), int(stop), float(when)) for start, stop, when in lines]

    def answer(self, word: str) -> str | None:
        """Return what was said last after a word; None if it was not said."""
        found = [line[1:] for line in self.said if line[0] == word]
        return " ".join(found[-1]) if found else None


@contextmanager
def serving_lives() -> Iterator[Lives]:
    """Run a server; it ends with all that it started."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "tests.live.followers"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=environment(),
    ) as process:
        try:
            yield Lives(process)
        finally:
            process.stdin.close()
            process.wait(timeout=30)


# ------------------------------------------------------------------------------ one life


class Life:
    """One follower, and what it says of what it is given."""

    def __init__(
        self,
        path: str,
        *,
        way: str,
        grain: str,
        stride: int,
        slow: float = 0.0,
        commits: bool = False,
        stop: int | None = None,
        dies: tuple[int, int] | None = None,
        counts: bool = False,
        **options: Any,
    ):
        self._path = path
        self._way = way
        self._grain = grain
        self._stride = stride
        self._slow = slow
        self._commits = commits
        self._stop = stop
        self._options = options
        self._opened: Counter[str] | None = None
        if dies is not None:
            die_in_store(*dies, stride)
        if counts:
            self._opened = Counter()
            sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple) -> None:
        if event == "open" and isinstance(arguments[0], str | os.PathLike):
            name = Path(arguments[0])
            if str(name.parent) == self._path:
                self._opened[name.name] += 1

    def live(self) -> None:
        """Follow until it is killed, or has come to where it is to end."""
        live = anyio.run(self._follow, backend=self._way) if self._way != "tail" else self._tail()
        if self._opened is not None:
            say(f"opened {json.dumps(self._opened, separators=(',', ':'))}")
        say(f"outcome {live.outcome}")

    async def _follow(self):
        async with follow(self._path, **self._options) as live:
            async for found in live if self._grain == "messages" else live.batches():
                stop = self._take(found)
                if self._slow:
                    await anyio.sleep(self._slow)
                if self._commits:
                    await live.commit()
                if self._is_over(stop):
                    break
        return live

    def _tail(self):
        with tail(self._path, **self._options) as live:
            for found in live if self._grain == "messages" else live.batches():
                stop = self._take(found)
                if self._slow:
                    time.sleep(self._slow)
                if self._commits:
                    live.commit()
                if self._is_over(stop):
                    break
        return live

    def _take(self, found: Message | Batch) -> int:
        """Say what was given, and return the row behind it."""
        messages = [found] if isinstance(found, Message) else list(found)
        first = int(Path(found.source).stem) * self._stride + messages[0].row
        right = all(
            message.row + first == number + messages[0].row
            and message.io_group == io_group(number)
            and check(number, message.data)
            for number, message in enumerate(messages, first)
        )
        stop = first + len(messages)
        say(f"given {first} {stop} {time.monotonic():.4f}" if right else f"wrong {first} {stop}")
        return stop

    def _is_over(self, row: int) -> bool:
        return row == self._stop


def die_in_store(store: int, step: int, stride: int) -> None:
    """Make this process kill itself at a step of a store: before or after a call of the system.

    Steps are counted from 1, and so are stores; a store that has fewer steps says how many.
    """
    replace, stores = Checkpoint._replace, 0

    def replace_or_die(self: Checkpoint, text: bytes) -> None:
        nonlocal stores
        stores += 1
        position = Position.from_json(json.dumps(json.loads(text)["position"]))
        say(f"storing {row_of(position, stride)}")
        if stores != store:
            return replace(self, text)
        steps = 0

        def profile(frame: FrameType, event: str, call: Any) -> None:
            nonlocal steps
            if event in ("c_call", "c_return") and call.__name__ in STEPS:
                steps += 1
                if steps == step:
                    say(f"dying {step} {event[2:]}:{call.__name__}")
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(profile)
        try:
            return replace(self, text)
        finally:
            sys.setprofile(None)
            say(f"steps {steps}")

    Checkpoint._replace = replace_or_die


def _child(run: dict) -> None:
    try:
        Life(**run).live()
    except BaseException:  # noqa: BLE001 - a forked child must not return into its parent
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main() -> None:
    """Serve until the input ends."""
    say("ready")
    child = 0
    with open(0, "rb", buffering=0) as requests:
        while request := requests.readline():
            if request == b"kill\n":
                say(f"ended {_end(child)}")
                child = 0
            elif (child := os.fork()) == 0:
                _child(json.loads(request))
    if child:
        _end(child)


if __name__ == "__main__":
    main()
