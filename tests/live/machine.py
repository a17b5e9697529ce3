"""The two sides of the state machine, each in a process that can be killed at any command.

    python -m tests.live.machine writer
    python -m tests.live.machine reader

A server imports all that is needed and then forks one child after the other, which saves an
interpreter's start for each. The child takes lines of JSON, each one command, and answers
each with lines of JSON, of which the last is marked.
"""

import importlib
import json
import os
import random
import signal
import struct
import subprocess
import sys
import time
import traceback
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .writers import ROOT, Lines, _column, environment, say

#: What the reader does not wait for here as long as it does elsewhere [s].
BRISK = {
    "streamer.ending._DRAIN_SECONDS": 0.02,
    "streamer.steps._LATE_SECONDS": 0.01,
    "streamer.steps._UNREADABLE_SECONDS": 0.15,
    "streamer.rawfile._STILL_SECONDS": 0.02,
    "streamer.following._STORE_SECONDS": 0.1,
    "streamer.runs._LIST_SECONDS": 0.005,
    "streamer.runs._AGAIN_SECONDS": 0.05,
    "streamer.runs._LONGEST_TRY_SECONDS": 0.04,
}
_GRACE, _IDLE, _POLL = 0.03, 0.03, 0.002
_NOBODY = 65534

# ---------------------------------------------------------------------------- messages

_HEAD = struct.Struct("<IQI")  # the run, the row, and the size of the whole message
_CRC = struct.Struct("<I")
_BODY = 2 * random.Random(7).randbytes(1 << 14)


def message(run: int, row: int) -> bytes:
    """Return the message of a row of a run; some are longer than a page."""
    size = 24 + (row * 37 + run * 11) % 180 + (9000 if row % 23 == 17 else 0)
    head = _HEAD.pack(run, row, size)
    start = (row * 977 + run * 4099) % (1 << 14)
    body = _BODY[start : start + size - _HEAD.size - _CRC.size]
    return b"".join((head, _CRC.pack(zlib.crc32(body, zlib.crc32(head))), body))


def io_group(run: int, row: int) -> int:
    """Return the io group of a row of a run, which is never 0."""
    return 1 + (run + row) % 200


def run_of(row: int, group: int, data: bytes) -> int | None:
    """Return the run whose message of this row these bytes are; None if they are none."""
    if len(data) < _HEAD.size:
        return None
    run = _HEAD.unpack_from(data)[0]
    return run if data == message(run, row) and group == io_group(run, row) else None


# ---------------------------------------------------------------------------- the writers


_DATASETS = (
    ("msgs", h5py.vlen_dtype(np.dtype("u1"))),
    ("msg_headers", np.dtype([("io_groups", "u1")])),
)


class _Stock:
    """larpix-control's own function: opens and closes the file for each batch."""

    def __init__(self, path: Path, mode: str):
        from larpix.format.rawhdf5format import to_rawfile

        self._path, self._append = str(path), to_rawfile
        if mode == "w":
            self._begin_anew(path)
        elif mode == "x":
            to_rawfile(self._path)
        with h5py.File(path, locking=False) as file:
            self.created = float(file["meta"].attrs["created"])

    @staticmethod
    def _begin_anew(path: Path) -> None:
        # It has no way of its own to do so.
        now = time.time()
        with h5py.File(path, "w", libver="latest") as file:
            file.create_group("meta").attrs.update(
                {"version": "0.0", "created": now, "modified": now}
            )
            for name, dtype in _DATASETS:
                file.create_dataset(
                    name, shape=(0,), maxshape=(None,), compression="gzip", dtype=dtype
                )

    def append(self, _: int, msgs: list[bytes], groups: np.ndarray) -> None:
        self._append(self._path, msgs=msgs, msg_headers={"io_groups": groups})

    def close(self, **_) -> None:
        pass


class _Ours:
    """RawWriter."""

    def __init__(self, path: Path, mode: str):
        from writer import RawWriter

        if mode == "w":
            os.truncate(path, 0)
        self._out = RawWriter(path)
        self.created = float(self._out._file["meta"].attrs["created"])

    def append(self, row: int, msgs: list[bytes], groups: np.ndarray) -> None:
        assert self._out.append(msgs, groups).start == row

    def close(self, *, finished: bool) -> None:
        self._out.close(finished=finished)


class _Datasets:
    """Keeps the file open and flushes the two datasets: the superblock is never written."""

    options: dict[str, Any] = {"compression": "gzip"}  # noqa: RUF012

    def __init__(self, path: Path, mode: str):
        self.created = time.time()
        self._file = h5py.File(path, mode, libver=("v110", "v114"))
        self._file.create_group("meta").attrs.update(
            {"created": self.created, "modified": self.created, "version": "0.0"}
        )
        for name, dtype in _DATASETS:
            self._file.create_dataset(
                name, shape=(0,), maxshape=(None,), dtype=dtype, **self.options
            )
        self._file.swmr_mode = True
        self._sets = self._file["msgs"], self._file["msg_headers"]

    def resize(self, rows: int) -> None:
        for dataset in self._sets:
            dataset.resize((rows,))

    def flush(self) -> None:
        for dataset in self._sets:
            dataset.flush()

    def append(self, row: int, msgs: list[bytes], groups: np.ndarray, *, flush: bool) -> None:
        stop = row + len(msgs)
        if stop > len(self._sets[0]):
            self.resize(stop)
        self._sets[0][row:stop] = _column(msgs)
        self._sets[1]["io_groups", row:stop] = groups
        if flush:
            self.flush()

    def close(self, **_) -> None:
        self._file.close()


class _Plain(_Datasets):
    """The same without filters, and in small chunks."""

    options = {"chunks": (16,)}  # noqa: RUF012


_KINDS = {"stock": _Stock, "rawwriter": _Ours, "datasets": _Datasets, "plain": _Plain}
KINDS = list(_KINDS)
#: Writers that can write without a flush, and enlarge without writing.
LOOSE = {"datasets", "plain"}


def _write() -> None:
    """Write what is asked for."""
    writers: dict[int, Any] = {}

    def rows(run: int, start: int, stop: int) -> tuple[int, list[bytes], np.ndarray]:
        groups = np.array([io_group(run, row) for row in range(start, stop)], "u1")
        return start, [message(run, row) for row in range(start, stop)], groups

    for command in _commands():
        run, what, answer = command["run"], command["do"], {}
        if what == "open":
            writers[run] = _KINDS[command["kind"]](Path(command["path"]), command["mode"])
            answer = {"created": writers[run].created}
        elif what == "append":
            writers[run].append(*rows(run, *command["rows"]), **command["options"])
        elif what == "resize":
            writers[run].resize(command["rows"])
            writers[run].flush()
        else:
            writers.pop(run).close(finished=command["finished"])
        _answer(answer, last=True)


# ---------------------------------------------------------------------------- the reader

#: A row: ``["row", run, row]``. Or ``["gap", start, stop, reason]``; ``["replaced", drained,
#: text]``; ``["unreadable", row, text]``; ``["layout", text]``; ``["quiet"]``;
#: ``["ended", outcome]``; ``["wrong", what]``.
Event = list


class Reader:
    """A follower, and what it gives. Dropped without a close, as by a crash."""

    def __init__(self, source: str, **options) -> None:
        from streamer import tail

        self._live = tail(
            source, poll=_POLL, idle_timeout=_IDLE, rotate_grace=_GRACE, hints=False, **options
        )

    def poll(self, most: int, *, batches: bool = False) -> Iterator[Event]:
        """Give so many messages or batches at the most, as long as there are some."""
        from streamer import FileReplaced, Gap, NotReady, RowUnreadable, WriterStalled
        from streamer.errors import LayoutError

        for _ in range(most):
            try:
                found = self._live.next_batch() if batches else next(self._live)
            except StopIteration:
                yield ["ended", self._live.outcome]
                return
            except (WriterStalled, NotReady):
                yield ["quiet"]
                return
            except FileReplaced as error:
                yield ["replaced", error.drained, str(error)]
                return
            except RowUnreadable as error:
                yield ["unreadable", error.row, str(error)]
                return
            except LayoutError as error:
                yield ["layout", str(error)]
                return
            except Exception:  # noqa: BLE001 - whatever it is, it is told
                yield ["wrong", traceback.format_exc()]
                return
            if isinstance(found, Gap):
                yield ["gap", *found[:3]]
                continue
            for one in found if batches else [found]:
                run = run_of(one.row, one.io_group, one.data)
                if run is None:
                    yield ["wrong", f"{one.source}, row {one.row}, {one.io_group}, {one.data!r}"]
                else:
                    yield ["row", run, one.row]

    def commit(self) -> Iterator[Event]:
        """Store the position."""
        self._live.commit()
        yield from ()

    def kill(self) -> Iterable[Event]:
        """Drop it in the middle; return what it had still said."""
        del self._live
        return self.finish()

    # As of one in another process, only that all is done before it is asked.
    _begun: Iterable[Event] = ()

    def begin(self, most: int, *, batches: bool) -> None:
        """Poll; what came is taken later."""
        self._begun = list(self.poll(most, batches=batches))

    def finish(self) -> Iterable[Event]:
        """Return what came."""
        begun, self._begun = self._begun, ()
        return begun


def hurry() -> None:
    """Let this process not wait long for what cannot come here."""
    for name, seconds in BRISK.items():
        module, _, attribute = name.rpartition(".")
        setattr(importlib.import_module(module), attribute, seconds)


def _read() -> None:
    """Follow what is asked for; without the rights of root, who may read everything."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)
    reader = None
    for command in _commands():
        what = command.pop("do")
        if what == "open":
            reader = Reader(**command)
        else:
            for event in getattr(reader, what)(**command):
                _answer(event)
        _answer([], last=True)


class Remote:
    """A reader in a process of its own."""

    def __init__(self, server: "Server", source: str, **options) -> None:
        self._server = server
        server.start()
        self._ask("open", source=source, **options)

    def _ask(self, what: str, **arguments) -> list[Event]:
        return list(self._server.ask(do=what, **arguments))[:-1]

    def poll(self, most: int, *, batches: bool = False) -> Iterable[Event]:
        """Give so many messages or batches at the most, as long as there are some."""
        return self._ask("poll", most=most, batches=batches)

    def commit(self) -> Iterable[Event]:
        """Store the position."""
        return self._ask("commit")

    def begin(self, most: int, *, batches: bool) -> None:
        """Poll meanwhile."""
        self._server.tell(do="poll", most=most, batches=batches)

    def finish(self) -> Iterable[Event]:
        """Return what came."""
        return list(self._server.answers())[:-1]

    def kill(self) -> Iterable[Event]:
        """Kill it, in the middle of a poll or not; return what it still had said."""
        return self._server.kill()


# ---------------------------------------------------------------------------- the server


def _commands() -> Iterator[dict[str, Any]]:
    with open(0, "rb", buffering=0, closefd=False) as requests:
        while request := requests.readline():
            if request == b"end\n":
                return
            yield json.loads(request)


def _answer(answer: object, *, last: bool = False) -> None:
    say(json.dumps([last, answer]))


def _serve(role: str) -> None:
    if role == "writer":
        import larpix.format.rawhdf5format  # noqa: F401

        import writer  # noqa: F401
    else:
        import streamer
        import streamer.library
        import streamer.wake  # noqa: F401

        hurry()
    say("ready")
    with open(0, "rb", buffering=0, closefd=False) as requests:
        while request := requests.readline():
            if request != b"start\n":  # a command that a killed child did not take
                continue
            child = os.fork()
            if child:
                status = os.waitpid(child, 0)[1]
                say(f"ended {status}")
                continue
            try:
                say(f"child {os.getpid()}")
                _write() if role == "writer" else _read()
            except BaseException:  # noqa: BLE001 - a forked child must not return
                traceback.print_exc()
                os._exit(1)
            os._exit(0)


class Server:
    """A server, seen from the test."""

    def __init__(self, process: subprocess.Popen):
        self._process = process
        self._lines = Lines(process.stdout.fileno())
        self._taken: list[str] = []
        self._child = 0
        self._expect("ready")

    def _say(self, line: str) -> None:
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def _line(self, timeout: float = 30.0) -> str:
        deadline = time.monotonic() + timeout
        while not self._taken:
            left = deadline - time.monotonic()
            assert left > 0, "no answer"
            assert not self._lines.ended, "the server has died"
            self._taken = self._lines.take(left)
        return self._taken.pop(0)

    def _expect(self, word: str) -> str:
        found, *rest = self._line().split()
        assert found == word, f"{found} {rest}"
        return " ".join(rest)

    @property
    def running(self) -> bool:
        """Whether there is a child."""
        return self._child != 0

    def start(self) -> None:
        """Start a child, if there is none."""
        if not self._child:
            self._say("start")
            self._child = int(self._expect("child"))

    def tell(self, **command) -> None:
        """Give a command."""
        self.start()
        self._say(json.dumps(command))

    def answers(self) -> Iterator[Any]:
        """Return the answers to a command."""
        last = False
        while not last:
            line = self._line()
            if line.startswith("ended"):
                self._child = 0
                raise AssertionError("it failed; see what it printed")
            last, answer = json.loads(line)
            yield answer

    def ask(self, **command) -> Iterator[Any]:
        """Give a command and return the answers to it."""
        self.tell(**command)
        return self.answers()

    def wait_for_some(self, timeout: float) -> None:
        """Wait until something was said, but not for longer."""
        if not self._taken:
            self._taken = self._lines.take(timeout)

    def kill(self) -> list[Any]:
        """Kill the child; return what it had still said."""
        child, self._child = self._child, 0
        if not child:
            return []
        os.kill(child, signal.SIGKILL)
        answers = []
        while not (line := self._line()).startswith("ended"):
            last, answer = json.loads(line)
            if not last:
                answers.append(answer)
        return answers


@contextmanager
def serving(role: str) -> Iterator[Server]:
    """Run a server; it ends with its child."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.live.machine", role],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=environment(),
    ) as process:
        try:
            server = Server(process)
            yield server
            server.kill()
        finally:
            process.stdin.close()
            process.wait(timeout=30)


if __name__ == "__main__":
    _serve(sys.argv[1])
