"""What a raw file is found to be by its bytes, whatever it is: looked at, not read through."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from streamer.errors import FileReplaced, LayoutError, NotReady, RowUnreadable
from streamer.library import LibraryRows
from streamer.opening import TRANSIENT, open_descriptor
from streamer.rawfile import RawFile
from streamer.state import State, judge
from writer.layout import Meta
from writer.superblock import SIGNATURE, read_superblock

__all__ = ["Contents", "look_into"]

# So long a living writer may be in the middle of a batch before that counts.
_BATCH_SECONDS, _STEP_SECONDS = 0.3, 0.01
# A file that holds nothing yet was made just now if it is younger.
_RECENT_SECONDS = 5.0
_SAMPLES, _SAMPLE_ROWS, _SAMPLE_BYTES = 8, 16, 4 * 1024 * 1024
# Of version 3, with addresses of 8 bytes; see writer.superblock.
_SUPERBLOCK_BYTES = 48
_CHILD_SECONDS = 60.0
_CHILD = (
    "import pickle, sys; from pathlib import Path; from streamer.contents import look_into; "
    "sys.stdout.buffer.write(pickle.dumps(look_into(Path(sys.argv[1]))))"
)


class Contents(NamedTuple):
    """What a file is found to be, by its bytes."""

    #: As of :class:`streamer.state.State`; or ``absent``, ``folder``, ``not accessible``,
    #: ``empty``, ``not HDF5``, ``not a raw file``, ``not readable``.
    state: str
    #: How that is known.
    because: str
    #: What to do if there is nothing to be read; else None.
    remedy: str | None = None
    file_bytes: int | None = None
    #: Where the superblock says that the file ends.
    end_bytes: int | None = None
    #: Committed rows, and those that ``msgs`` and ``msg_headers`` announce.
    rows: int | None = None
    lengths: tuple[int, int] | None = None
    meta: Meta | None = None
    reading: str | None = None
    #: The first of the samples that cannot be read, and why.
    unreadable: str | None = None
    samples: int = 0
    #: What its writer flushes, while it has the file: ``"file"`` or ``"datasets only"``.
    flushes: str | None = None


def look_into(path: Path, *, apart: bool = False) -> Contents:
    """Find out what a raw file is, by its marks, its lengths, its end and samples of its rows.

    Parameters
    ----------
    path
        The file; it may be anything, or absent.
    apart
        Whether to look in another process, in which HDF5 takes no lock: needed where the
        environment makes it lock whatever it is told.

    Returns
    -------
    Contents
        What was found, in a tenth of a second; of a file that nobody writes and that is
        marked as open, in a second.

    Raises
    ------
    NotReady
        If the other process fails.

    Examples
    --------
    >>> look_into(Path("/"), apart=True).state
    'folder'
    """
    if apart:
        return _look_apart(path)
    for last in (False, True):
        try:
            fd = open_descriptor(path)
        except (NotReady, LayoutError) as error:
            return _inaccessible(path, error)
        try:
            return _look_open(path, fd)
        except FileReplaced as error:
            if last:
                return Contents("not readable", _reason(path, error), "Look again.")
        finally:
            os.close(fd)
    raise AssertionError  # the second time returns


def _look_apart(path: Path) -> Contents:
    """Look at a file in a process in which HDF5 takes no lock."""
    paths = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    environment = {**os.environ, "HDF5_USE_FILE_LOCKING": "FALSE", "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, path],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_CHILD_SECONDS,
        check=False,
    )
    if done.returncode:
        msg = f"{path}: cannot be looked at: {done.stderr.decode(errors='replace').strip()}"
        raise NotReady(msg)
    contents: Contents = pickle.loads(done.stdout)
    return contents


def _reason(path: Path, error: Exception) -> str:
    return str(error).removeprefix(f"{path}: ")


def _inaccessible(path: Path, error: Exception) -> Contents:
    try:
        cause = error.__cause__
        if path.is_dir():
            count = len(list(path.glob("*.h5")))
            return Contents("folder", f"not a file; *.h5 files in it: {count}", "Name a file.")
        if isinstance(cause, FileNotFoundError):
            if path.is_symlink():
                why = f"a symbolic link to {path.readlink()}, which is absent"
            elif path.parent.is_dir():
                why = "no file of that name in its folder"
            else:
                why = f"there is no folder {path.parent}"
            text = (
                "Look at the name, and whether the disk is mounted. If the run has not begun "
                "yet: streamer tail waits for the file."
            )
            return Contents("absent", why, text)
        if isinstance(cause, PermissionError):
            status = path.stat()
            why = (
                f"this user ({os.geteuid()}) may not read it; it belongs to user {status.st_uid}, "
                f"group {status.st_gid}, mode {status.st_mode & 0o7777:o}"
            )
            text = "Ask its owner to let you read it: chmod o+r, or chmod g+r and your group."
            return Contents("not accessible", why, text, status.st_size)
    except OSError:
        why = f"a folder on the way to it may not be entered by this user ({os.geteuid()})"
        return Contents("not accessible", why, "Ask the owner of the folders: chmod o+x.")
    text = "Look at the name, the disk and, on a network, the server; then look again."
    if isinstance(error, LayoutError):
        return Contents("not a raw file", _reason(path, error), "Name a file.")
    return Contents("not accessible", _reason(path, error), text)


def _look_open(path: Path, fd: int) -> Contents:
    status = os.fstat(fd)
    size = status.st_size
    superblock = read_superblock(fd)
    begun = os.pread(fd, _SUPERBLOCK_BYTES, 0)
    if begun.strip(b"\0") in (b"", SIGNATURE) or (superblock and size < _SUPERBLOCK_BYTES):
        age = time.time() - status.st_mtime
        text = (
            "Its writer has just made it; look again."
            if age < _RECENT_SECONDS
            else "If a writer has it, wait: HDF5 writes little before the first flush. Else its "
            "writer was killed before that, and there is nothing to be saved."
        )
        return Contents("empty", f"no complete HDF5 superblock in its {size:,} bytes", text, size)
    if superblock is None:
        why = f"it does not begin as HDF5 does, but with {begun[:8]!r}"
        text = "Look at the name; if it was copied, compressed or encrypted, undo that."
        return Contents("not HDF5", why, text, size)
    end = _end_of(fd, superblock.base, superblock.offset_size, superblock.version)
    try:
        with RawFile(path) as raw:
            return _look_at_rows(raw, fd)._replace(file_bytes=size, end_bytes=end)
    except LayoutError as error:
        text = "It is HDF5, and of another kind: look at the name. h5ls shows what is in it."
        return Contents("not a raw file", _reason(path, error), text, size, end)
    except NotReady as error:
        text = (
            "If its writer has just made it, look again. Else copy it before anything else, and "
            "try streamer recover FILE OUT."
        )
        return Contents("not readable", _reason(path, error), text, size, end)


def _end_of(fd: int, base: int, width: int, version: int) -> int:
    # HDF5 File Format Specification, II.A: the third address; before it the first of version
    # 0 and 1 stands at other places.
    place = base + {0: 24, 1: 28}.get(version, 12) + 2 * width
    return int.from_bytes(os.pread(fd, width, place), "little")


def _look_at_rows(raw: RawFile, fd: int) -> Contents:
    judgement = judge(raw)
    deadline = time.monotonic() + _BATCH_SECONDS
    while True:
        before = raw.closed, raw.sign[:2]
        rows = raw.refresh()
        # A living writer makes both columns longer, one after the other: one look in between
        # batches is enough. Of a file that nobody had open meanwhile, the lengths will stay.
        was_closed = before == (True, raw.sign[:2]) and raw.closed
        if rows == max(raw.lengths) or was_closed or judgement.state is State.WRITER_GONE:
            break
        if time.monotonic() > deadline:
            break
        time.sleep(_STEP_SECONDS)
        judgement = judge(raw)
    unreadable, samples = _sample(raw, rows)
    flushes = None
    if judgement.state in (State.LIVE, State.WRITER_GONE) and rows:
        flushes = _flushes(raw, fd, rows - 1, wait=judgement.state is State.LIVE)
    return Contents(
        state=judgement.state.value,
        because=judgement.because,
        rows=rows,
        lengths=raw.lengths,
        meta=raw.meta,
        reading=raw.reading,
        unreadable=unreadable,
        samples=samples,
        flushes=flushes,
    )


def _sample(raw: RawFile, rows: int) -> tuple[str | None, int]:
    """Read some rows of all parts of the file; return what is wrong, and how many were read."""
    last = max(0, rows - _SAMPLE_ROWS)
    done = stop = 0
    for number in range(_SAMPLES):
        start = max(stop, last * number // (_SAMPLES - 1))
        stop = min(rows, start + _SAMPLE_ROWS)
        if start == stop:
            continue
        found = raw.read_some(start, stop, _SAMPLE_BYTES)
        done += len(found.batch)
        if found.cause is not None:
            try:  # it may be in the middle of a change
                done += len(raw.read(found.stop, found.stop + 1))
            except RowUnreadable as error:
                return _reason(raw.path, error), done
    return None, done


def _flushes(raw: RawFile, fd: int, row: int, *, wait: bool) -> str | None:
    """Find out whether HDF5 lets others reach a row, which it does once the file is flushed.

    A writer that flushes datasets only leaves the end that the superblock states where it
    was, and HDF5 reads nothing behind that.
    """
    library = LibraryRows(os.dup(fd), raw.meta)
    deadline = time.monotonic() + _BATCH_SECONDS
    try:
        while True:
            superblock = read_superblock(fd)
            if superblock is None or superblock.version < 3 or superblock.closed:
                return None
            try:
                if library.load(row, row + 1, row + 1, None, _SAMPLE_BYTES).stop > row:
                    return "file"
            except TRANSIENT:
                pass
            if not wait or time.monotonic() > deadline:
                return "datasets only"
            time.sleep(_STEP_SECONDS)
    finally:
        library.close()
