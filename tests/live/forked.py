"""Writers that can be started and killed by the hundred.

    python -m tests.live.forked KIND

A server process imports all that a kind of writer needs and then forks one child for each run,
which saves an interpreter's start for each. It takes lines of JSON, each the arguments of one
run, and the word ``kill``, upon which it kills its child. The child speaks through the same
pipe, so that what it has committed comes before ``ended``.
"""

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .writers import ROOT, Lines, environment, say, write


class Server:
    """The server, seen from the test: one run after the other."""

    def __init__(self, process: subprocess.Popen):
        self._process = process
        self._lines = Lines(process.stdout.fileno())
        self.committed = 0
        self.ended = True
        self.status = 0
        self._until("ready")

    def _tell(self, line: str) -> None:
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def look(self, timeout: float = 0.0) -> list[str]:
        """Take what was said; return it."""
        lines = self._lines.take(timeout)
        for line in lines:
            word, *number = line.split()
            if word == "committed":
                self.committed = int(number[0])
            elif word == "ended":
                self.ended, self.status = True, int(number[0])
        return lines

    def _until(self, word: str, timeout: float = 60.0) -> None:
        deadline = time.monotonic() + timeout
        while not any(line.startswith(word) for line in self.look(deadline - time.monotonic())):
            assert not self._lines.ended, "the server of writers has died"
            assert time.monotonic() < deadline, f"no {word!r} after {timeout} s"

    def start(self, path: Path, **options) -> None:
        """Start a writer; it does not exist yet when this returns, or already writes."""
        assert self.ended
        self.committed, self.ended = 0, False
        self._tell(json.dumps({"path": str(path), **options}))

    def kill(self) -> None:
        """Kill the writer, and wait until it is dead and its last word is known."""
        self._tell("kill")
        self._until("ended")
        assert os.WIFSIGNALED(self.status) or self.status == 0, "the writer failed by itself"


@contextmanager
def serving(kind: str, preload: Path | None = None) -> Iterator[Server]:
    """Run a server for one kind of writer; it ends with all that it started."""
    command = [sys.executable, "-m", "tests.live.forked", kind]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=environment(preload),
    ) as process:
        try:
            yield Server(process)
        finally:
            process.stdin.close()  # it kills its child and ends
            process.wait(timeout=30)


def _child(kind: str, run: dict) -> None:
    try:
        write(kind, **run)
    except BaseException:  # noqa: BLE001 - a forked child must not return into its parent
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _end(child: int) -> int:
    """Kill a child that nobody has waited for yet, so that the number is still its own."""
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def main(kind: str) -> None:
    """Serve until the input ends."""
    if kind == "stock":
        import larpix.format.rawhdf5format  # noqa: F401
    if kind == "rawwriter":
        import writer  # noqa: F401
    say("ready")
    child = 0
    # Unbuffered: a child must not inherit requests that this process has not read yet.
    with open(0, "rb", buffering=0) as requests:
        while request := requests.readline():
            if request == b"kill\n":
                say(f"ended {_end(child)}")
                child = 0
            elif (child := os.fork()) == 0:
                _child(kind, json.loads(request))
    if child:
        _end(child)


if __name__ == "__main__":
    main(sys.argv[1])
