"""Open a raw file, whatever state it is in: live, closed, being made, left by a killed writer."""

from __future__ import annotations

import os
import stat
import threading
from contextlib import ExitStack
from pathlib import Path

import h5py

from streamer.chunks import TornChunk
from streamer.direct import DirectRows
from streamer.errors import NotReady
from streamer.handle import GuardedFile, Handle, open_unlocked
from streamer.library import LibraryRows
from streamer.retry import Patience
from writer.layout import LayoutError, Meta, find_layout, read_meta
from writer.superblock import SIGNATURE, Superblock, read_superblock

__all__ = ["TRANSIENT", "look_at_meta", "open_descriptor", "open_rows", "read_meta_anew"]

#: What HDF5 and h5py raise when they meet a file in the middle of a change.
TRANSIENT = (OSError, RuntimeError, KeyError, ValueError, TornChunk)

# The stock writer opens its file ten times a second, and is milliseconds in the middle.
_PATIENCE = Patience(attempts=100, seconds=1.0)
# Or two threads would open a file twice, each before it could find the other's handle.
_one_at_a_time = threading.Lock()


def open_descriptor(path: Path) -> int:
    """Open a file for reading, as the operating system has it.

    Raises
    ------
    NotReady
        If it is absent or not accessible.
    LayoutError
        If it is not a file.
    """
    try:
        # Without waiting: somebody may have made a pipe of that name.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        msg = f"{path}: absent"
        raise NotReady(msg) from error
    except OSError as error:
        msg = f"{path}: cannot be opened: {error.strerror}"
        raise NotReady(msg) from error
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
    except OSError as error:  # of a file server
        os.close(fd)
        msg = f"{path}: cannot be opened: {error.strerror}"
        raise NotReady(msg) from error
    os.close(fd)
    msg = f"{path}: a folder or a device, not a LArPix raw file"
    raise LayoutError(msg)


def open_rows(fd: int, path: Path) -> DirectRows | LibraryRows:
    """Open the file of a descriptor for reading its rows, in the way that it allows.

    Parameters
    ----------
    fd
        Its descriptor; stays the caller's.
    path
        Its name, for the errors.

    Raises
    ------
    NotReady
        If it is not a readable raw file yet.
    LayoutError
        If it is something else.
    """
    unlike = False
    for left in _PATIENCE.tries():
        superblock = _superblock_of(fd, path)
        try:
            with _one_at_a_time:
                return _open_once(fd, path, superblock, lenient=not left)
        except LayoutError:
            # If it was started again just now, the superblock was of the run before.
            if unlike or not left:
                raise
            unlike = True
        except TRANSIENT as error:
            if left:
                continue
            if superblock.flags and not superblock.swmr:
                return _open_flagged(fd, path, superblock)
            msg = f"{path}: HDF5 cannot open it: {error}"
            if "SWMR read access flag not the same" in str(error):
                msg = (
                    f"{path}: another handle in this process has it open without SWMR, "
                    f"through HDF5's log driver, which all of them share. Close it first"
                )
            raise NotReady(msg) from error
    raise AssertionError  # the last try returns or raises


def _open_once(
    fd: int, path: Path, superblock: Superblock, *, lenient: bool
) -> DirectRows | LibraryRows:
    shared = Handle.find(fd)
    if shared is not None:
        now = read_meta_anew(fd, path)
        if now is None or now.created == shared.meta.created:
            return _rows_of(shared, fd)
        shared.spoil()  # the file was started anew in the same place
    with GuardedFile(fd) as raw, h5py.File(raw, "r") as file:
        meta = _checked_meta(file, path, superblock, lenient=lenient)
        if not DirectRows.can_read(file, superblock):
            return LibraryRows(os.dup(fd), meta)
    name = _name(fd, path)
    if name is None:
        return _rows_of(_guarded_handle(fd, meta), fd)
    file = h5py.File(open_unlocked(name, swmr=True))
    try:
        handle = Handle(file, meta)
        handle.share(fd)
    except BaseException:
        file.close()
        raise
    return _rows_of(handle, fd)


def _rows_of(handle: Handle, fd: int) -> DirectRows:
    """Return the rows of a handle; if another reader has spoilt it just now, leave nothing."""
    with ExitStack() as left:
        left.callback(handle.release)
        own = os.dup(fd)
        left.callback(os.close, own)
        rows = DirectRows(handle, own)
        left.pop_all()
    return rows


def _guarded_handle(fd: int, meta: Meta) -> Handle:
    """Open a file that HDF5 cannot open by a name, or would refuse; for one reader."""
    with ExitStack() as opened:
        raw = opened.enter_context(GuardedFile(fd))
        end = raw.end
        file = opened.enter_context(h5py.File(raw, "r"))
        handle = Handle(file, meta, raw, end)
        opened.pop_all()
    return handle


def _open_flagged(fd: int, path: Path, superblock: Superblock) -> DirectRows:
    """Open a file whose writer died, or works, without SWMR: HDF5 refuses it.

    Through a Python file object the library does not look at the mark. What was written
    before that writer opened the file is as it was.
    """
    try:
        with GuardedFile(fd) as raw, h5py.File(raw, "r") as file:
            meta = _checked_meta(file, path, superblock, lenient=True)
            if not DirectRows.can_read(file, superblock):
                msg = f"{path}: open for writing without SWMR, and of an unusual layout"
                raise NotReady(msg)
        return _rows_of(_guarded_handle(fd, meta), fd)
    except TRANSIENT as error:
        msg = f"{path}: HDF5 cannot open it: {error}"
        raise NotReady(msg) from error


def _checked_meta(file: h5py.File, path: Path, superblock: Superblock, *, lenient: bool) -> Meta:
    # Texts that stay damaged cost no row: only a version that somebody asks for is missed.
    try:
        return read_meta(find_layout(file, path).meta, path, lenient=lenient)
    except LayoutError as error:
        if not superblock.cut and (superblock.closed or superblock.version < 3):
            raise
        msg = f"{path}: not complete yet, or not a raw file: {error}"
        raise NotReady(msg) from error


def _name(fd: int, path: Path) -> str | None:
    # The file that the descriptor has, also when its name is another's.
    own = Path(f"/proc/self/fd/{fd}")
    if not own.exists():
        return str(path)
    # HDF5 opens only what has a name still.
    return str(own) if own.resolve().exists() else None


def read_meta_anew(fd: int, path: Path) -> Meta | None:
    """Read what a file says of itself now; None if HDF5 cannot, as beside a dead writer.

    A handle that is held never sees a changed attribute. Through a Python file object
    HDF5 looks at the file anew, whoever else in the process has it open.
    """
    for left in _PATIENCE.tries():
        try:
            with GuardedFile(fd) as raw, h5py.File(raw, "r") as file:
                return read_meta(find_layout(file, path).meta, path)
        except (*TRANSIENT, LayoutError):
            if not left:
                break
    return None


def look_at_meta(path: Path) -> Meta:
    """Open a file for what it says of itself, once and without waiting, and close it.

    Texts that cannot be read at present, as they lie where messages are just being written,
    are `UNREADABLE`.

    Raises
    ------
    NotReady
        If it is absent, or not a readable raw file at present.
    LayoutError
        If it is something else.
    """
    fd = open_descriptor(path)
    try:
        superblock = _superblock_of(fd, path)
        with GuardedFile(fd) as raw, h5py.File(raw, "r") as file:
            return _checked_meta(file, path, superblock, lenient=True)
    except TRANSIENT as error:
        msg = f"{path}: HDF5 cannot open it: {error}"
        raise NotReady(msg) from error
    finally:
        os.close(fd)


def _superblock_of(fd: int, path: Path) -> Superblock:
    superblock = read_superblock(fd)
    if superblock is not None:
        return superblock
    # HDF5 writes the superblock when it first flushes: till then, zeros or nothing.
    if SIGNATURE.startswith(os.pread(fd, len(SIGNATURE), 0).rstrip(b"\0")):
        msg = f"{path}: empty so far"
        raise NotReady(msg)
    msg = f"{path}: not a LArPix raw file: not HDF5 at all"
    raise LayoutError(msg)
