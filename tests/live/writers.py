"""Writers of every kind, each run as a real second process.

    python -m tests.live.writers KIND PATH --batch 100 --batches 50 --size mixed

After each batch the writer prints ``committed N``: from then on the first N rows must be
readable, whatever happens to the writer. Every message says which row it is and carries a
checksum, so that no wrong row can pass for a right one.
"""

import argparse
import os
import selectors
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

import h5py
import numpy as np

ROOT = Path(__file__).parents[2]

# ---------------------------------------------------------------------------- messages

_HEAD = struct.Struct("<QI")  # the row, and the size of the whole message
_CRC = struct.Struct("<I")  # of everything but itself
_BODY = 2 * np.random.default_rng(1).bytes(1 << 16)
_MIXED = np.clip(np.random.default_rng(2).lognormal(5, 1.2, 1009), 24, 2048).astype(int).tolist()
_LARGE = np.random.default_rng(3).integers(24, 40_000, 211).tolist()


def message(row: int, size: int) -> bytes:
    """Return the message of a row: 24 bytes or more, checkable by themselves."""
    head = _HEAD.pack(row, size)
    start = row * 40503 % (1 << 16)
    body = _BODY[start : start + size - 16]
    return b"".join((head, _CRC.pack(zlib.crc32(body, zlib.crc32(head))), body))


def size_of(row: int, size: str) -> int:
    """Return how long the message of a row is: 136 bytes; 24 to 2048; or 24 to 40,000."""
    sizes = {"plain": (136,), "mixed": _MIXED, "large": _LARGE}[size]
    return sizes[row % len(sizes)]


def io_group(row: int) -> int:
    """Return the io group of a row, which is never 0."""
    return 1 + row % 7


def check(row: int, data: bytes) -> bool:
    """Tell whether these bytes are the whole message of this row."""
    return (
        len(data) >= 24
        and _HEAD.unpack_from(data) == (row, len(data))
        and _CRC.unpack_from(data, 12)[0] == zlib.crc32(data[16:], zlib.crc32(data[:12]))
    )


def wrong_rows(batch, start: int, stop: int) -> list[int]:
    """Return the rows from start to stop that this batch does not hold as they were written."""
    expected = range(start, stop)
    if len(batch) != len(expected) or batch.rows.tolist() != list(expected):
        return list(expected)
    groups, payloads = batch.io_groups.tolist(), batch.tolist()
    return [
        row
        for row, group, data in zip(expected, groups, payloads, strict=True)
        if group != io_group(row) or not check(row, data)
    ]


# ------------------------------------------------------------------------- the writers

Rows = tuple[list[bytes], np.ndarray]
Done = Callable[[int], None]


def _stock(path: Path, batches: Iterator[Rows], done: Done) -> None:
    """larpix-control's own function: opens and closes the file for each batch."""
    from larpix.format.rawhdf5format import to_rawfile

    for msgs, groups in batches:
        to_rawfile(str(path), msgs=msgs, msg_headers={"io_groups": groups})
        done(len(msgs))


def _rawwriter(path: Path, batches: Iterator[Rows], done: Done) -> None:
    """Ours."""
    from writer import RawWriter

    with RawWriter(path) as out:
        for msgs, groups in batches:
            out.append(msgs, io_groups=groups)
            done(len(msgs))


@contextmanager
def _long_lived(path: Path, **filters) -> Iterator[tuple[h5py.File, h5py.Dataset, h5py.Dataset]]:
    now = time.time()
    with h5py.File(path, "x", libver=("v110", "v114")) as file:
        file.create_group("meta").attrs.update(
            {"created": now, "modified": now, "version": "0.0"},
        )
        for name, dtype in (
            ("msgs", h5py.vlen_dtype(np.dtype("u1"))),
            ("msg_headers", np.dtype([("io_groups", "u1")])),
        ):
            file.create_dataset(name, shape=(0,), maxshape=(None,), dtype=dtype, **filters)
        file.swmr_mode = True
        yield file, file["msgs"], file["msg_headers"]


def _column(msgs: list[bytes]) -> np.ndarray:
    """Turn messages into what h5py takes for a variable-length column."""
    if len(set(map(len, msgs))) == 1:
        return np.frombuffer(b"".join(msgs), dtype="u1").reshape(len(msgs), -1)
    rows = np.empty(len(msgs), dtype=object)
    rows[:] = [np.frombuffer(msg, dtype="u1") for msg in msgs]
    return rows


def _datasets(path: Path, batches: Iterator[Rows], done: Done) -> None:
    """Keeps the file open and flushes the two datasets: the superblock is never written."""
    with _long_lived(path, compression="gzip") as (_, msgs, headers):
        for data, groups in batches:
            start, stop = len(msgs), len(msgs) + len(data)
            msgs.resize((stop,))
            msgs[start:stop] = _column(data)
            headers.resize((stop,))
            headers["io_groups", start:stop] = groups
            msgs.flush()
            headers.flush()
            done(len(data))


def _file(path: Path, batches: Iterator[Rows], done: Done) -> None:
    """Keeps the file open and flushes all of it."""
    with _long_lived(path, compression="gzip") as (file, msgs, headers):
        for data, groups in batches:
            start, stop = len(msgs), len(msgs) + len(data)
            msgs.resize((stop,))
            msgs[start:stop] = _column(data)
            headers.resize((stop,))
            headers["io_groups", start:stop] = groups
            file.flush()
            done(len(data))


def _resize_first(path: Path, batches: Iterator[Rows], done: Done) -> None:
    """Enlarges both datasets before it fills them, without a filter on either."""
    with _long_lived(path) as (_, msgs, headers):
        for data, groups in batches:
            start, stop = len(msgs), len(msgs) + len(data)
            msgs.resize((stop,))
            headers.resize((stop,))
            msgs[start:stop] = _column(data)
            headers["io_groups", start:stop] = groups
            msgs.flush()
            headers.flush()
            done(len(data))


def _headers_first(path: Path, batches: Iterator[Rows], done: Done) -> None:
    """The worst order: a header is on disk before its message exists."""
    with _long_lived(path, compression="gzip") as (_, msgs, headers):
        for data, groups in batches:
            start, stop = len(msgs), len(msgs) + len(data)
            headers.resize((stop,))
            headers["io_groups", start:stop] = groups
            headers.flush()
            msgs.resize((stop,))
            msgs[start:stop] = _column(data)
            msgs.flush()
            done(len(data))


KINDS: dict[str, Callable[[Path, Iterator[Rows], Done], None]] = {
    "stock": _stock,
    "datasets": _datasets,
    "file": _file,
    "resize-first": _resize_first,
    "headers-first": _headers_first,
    "rawwriter": _rawwriter,
}


def _rows(batch: int, batches: int, pause: float, size: str, first: int) -> Iterator[Rows]:
    for start in range(first, first + batch * batches, batch):
        if pause and start > first:
            time.sleep(pause)
        rows = range(start, start + batch)
        yield (
            [message(row, size_of(row, size)) for row in rows],
            np.array([io_group(row) for row in rows], dtype="u1"),
        )


def say(line: str) -> None:
    """Print a line in one piece, so that a kill leaves all of it or nothing."""
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


def write(
    kind: str,
    path: str | Path,
    *,
    batch: int,
    batches: int,
    pause: float = 0.0,
    size: str = "plain",
    first: int = 0,
) -> None:
    """Write a file in this process, and say after each batch how many rows are committed."""
    committed = first

    def done(rows: int) -> None:
        nonlocal committed
        committed += rows
        say(f"committed {committed}")

    KINDS[kind](Path(path), _rows(batch, batches, pause, size, first), done)


# --------------------------------------------------------------- seen from the outside


def environment(preload: Path | None = None) -> dict[str, str]:
    """Return the environment of a second process, HDF5's locking as it is by default."""
    inherited = {key: os.environ[key] for key in os.environ if key != "HDF5_USE_FILE_LOCKING"}
    loaded = {"LD_PRELOAD": str(preload)} if preload else {}
    return inherited | {"OPENBLAS_NUM_THREADS": "1"} | loaded


class Lines:
    """The lines that a process has printed, taken without a thread."""

    def __init__(self, descriptor: int):
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._rest = b""
        self.ended = False

    def take(self, timeout: float = 0.0) -> list[str]:
        """Return the lines printed since, after waiting so long for the first of them."""
        if self.ended:
            return []
        with selectors.DefaultSelector() as selector:
            selector.register(self._descriptor, selectors.EVENT_READ)
            while selector.select(timeout):
                timeout = 0.0
                chunk = os.read(self._descriptor, 1 << 16)
                if not chunk:
                    self.ended = True
                    break
                self._rest += chunk
        *lines, self._rest = self._rest.split(b"\n")
        return [line.decode() for line in lines]


class Writer:
    """A writer that runs in a process of its own."""

    def __init__(self, process: subprocess.Popen, first: int, total: int):
        self._process = process
        self._lines = Lines(process.stdout.fileno())
        self._committed = first
        self.total = total
        self.killed = False

    def _look(self, timeout: float = 0.0) -> None:
        for line in self._lines.take(timeout):
            word, number = line.split()
            assert word == "committed", line
            self._committed = int(number)

    @property
    def committed(self) -> int:
        """How many rows the writer has committed, by the last that it said."""
        self._look()
        return self._committed

    @property
    def ended(self) -> bool:
        """Whether the writer has said all that it will ever say."""
        self._look()
        return self._lines.ended

    def wait(self, timeout: float = 60.0) -> int:
        """Wait until the writer has ended, and return its exit status."""
        deadline = time.monotonic() + timeout
        while not self._lines.ended:
            left = deadline - time.monotonic()
            assert left > 0, f"the writer has not ended after {timeout} s"
            self._look(left)
        return self._process.wait(timeout)

    def wait_for(self, rows: int, timeout: float = 60.0) -> None:
        """Wait until so many rows are committed."""
        deadline = time.monotonic() + timeout
        while self.committed < rows:
            left = deadline - time.monotonic()
            assert left > 0, f"only {self._committed} of {rows} rows after {timeout} s"
            assert not self._lines.ended, f"ended with {self._committed} of {rows} rows"
            self._look(left)

    def kill(self) -> None:
        """End the writer as ``kill -9`` does; what it has committed stays known."""
        self.killed = True
        self._process.kill()
        self.wait()


@contextmanager
def running(
    kind: str,
    path: Path,
    *,
    batch: int,
    batches: int,
    pause: float = 0.0,
    size: str = "plain",
    first: int = 0,
    preload: Path | None = None,
) -> Iterator[Writer]:
    """Run a writer in a second process, and see to it that it ends, and ends well."""
    options = {
        "batch": batch,
        "batches": batches,
        "pause": pause,
        "size": size,
        "first": first,
    }
    command = [sys.executable, "-W", "error", "-m", "tests.live.writers", kind, str(path)]
    command += [f"--{name}={value}" for name, value in options.items()]
    with (
        TemporaryFile() as complaints,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=complaints,
            cwd=ROOT,
            env=environment(preload),
        ) as process,
    ):
        writer = Writer(process, first, first + batch * batches)
        try:
            yield writer
            status = writer.wait()
        finally:
            process.kill()  # does nothing to one that has ended
        complaints.seek(0)
        assert writer.killed or status == 0, complaints.read().decode()


def main() -> None:
    """Run one writer."""
    parser = argparse.ArgumentParser(prog="python -m tests.live.writers")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("path", type=Path)
    parser.add_argument("--batch", type=int, required=True, help="messages a batch")
    parser.add_argument("--batches", type=int, required=True)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between batches")
    parser.add_argument("--size", choices=("plain", "mixed", "large"), default="plain")
    parser.add_argument("--first", type=int, default=0, help="rows that are there already")
    write(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
