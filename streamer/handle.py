"""One HDF5 handle for each raw file that this process reads, and how it is opened.

One, because HDF5 shares a dataset between all handles of a process, and refreshing a
dataset that is open twice breaks it: HDF5 1.14 and 2.0 then return the first chunk for
every other one, without an error.
"""

from __future__ import annotations

import ctypes
import fcntl
import io
import os
import threading
from typing import Any

import h5py
from h5py import h5d, h5f, h5o, h5p
from h5py._objects import phil

from streamer.announced import Announced, read_announced
from streamer.heap_format import is_sound
from writer.layout import MSG_HEADERS, MSGS, Meta
from writer.superblock import read_superblock

__all__ = ["GuardedFile", "Handle", "open_unlocked"]

# Beside a writer, HDF5 reads a piece of metadata again if its checksum does not fit, by default
# 100 times, and sleeps in between: a nanosecond, then each time twice as long. With one damaged
# byte that is for ever. So many attempts take 2 ms; who wants more of them opens anew.
_READ_ATTEMPTS = 20
_BEHIND_ALL = 2**62
_COLLECTION = b"GCOL\x01\0\0\0"


def open_unlocked(name: str, *, swmr: bool) -> h5f.FileID:
    """Open a file for reading, in a way that cannot harm whoever writes it.

    Without locks: with HDF5's default, a reader that merely holds the file makes the next
    open of the DAQ fail. And with a driver that nothing else in this process uses: all
    handles of a process with the same driver share one state of the file, so a reader
    with the default one would depend on how others opened it, and would keep a
    RawWriter's file marked as open after its close. The log driver reads as the default
    one does; here it logs nothing.

    Parameters
    ----------
    name
        The file.
    swmr
        Whether to read beside a writer; files of the oldest formats do not allow it.

    Returns
    -------
    h5py.h5f.FileID
        The handle.

    Raises
    ------
    OSError
        If HDF5 cannot open it so.
    """
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_fapl_log(os.devnull.encode(), 0, 0)
    access.set_file_locking(False, True)
    _bound_attempts(access)
    flags = h5f.ACC_RDONLY | (h5f.ACC_SWMR_READ if swmr else 0)
    handle = h5f.open(os.fsencode(name), flags, access)
    # HDF5_USE_FILE_LOCKING in the environment overrides what was asked for above, and HDF5
    # keeps the lock as long as the file is open: the next open of the DAQ would fail.
    fcntl.flock(handle.get_vfd_handle(), fcntl.LOCK_UN)
    return handle


def _bound_attempts(access: h5p.PropFAID) -> None:
    # h5py does not have this setting. Its extension modules know the library that they use.
    with phil:
        set_attempts = ctypes.CDLL(h5p.__file__).H5Pset_metadata_read_attempts
        set_attempts(ctypes.c_int64(access.id), ctypes.c_uint(_READ_ATTEMPTS))


class GuardedFile(io.RawIOBase):
    """A file that HDF5 may read through Python, also if its heap is damaged or half written.

    HDF5 goes through a whole collection to read one text or message, and stays for ever,
    with all of Python, where zeros follow: as when only the first pages of a collection
    are on disk. Here such a collection is an OSError. Behind its end the file is zero, so
    that HDF5 opens it also if it was cut short. Handles of such files share nothing with
    others, and do not look at the mark that a writer leaves.

    Parameters
    ----------
    fd
        Descriptor of the file, open for reading; stays the caller's.
    """

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = os.dup(fd)
        self._place = 0
        self._start = 0
        self._collection = b""

    @property
    def end(self) -> int | None:
        """Where the file says now that it ends; None if it says nothing."""
        superblock = read_superblock(self._fd)
        return None if superblock is None else superblock.end

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a place; the end, which HDF5 asks for, is behind all that there can be."""
        self._place = _BEHIND_ALL if whence == os.SEEK_END else offset
        return self._place

    def tell(self) -> int:
        """Return where `seek` went."""
        return self._place

    def readinto(self, buffer: Any, /) -> int:
        """Read from there."""
        view = memoryview(buffer).cast("B")
        if self._place + len(view) > _BEHIND_ALL:
            msg = f"damaged: something is said to be at {self._place}"
            raise OSError(msg)
        done = 0
        while done < len(view):
            got = os.preadv(self._fd, [view[done:]], self._place + done)
            if not got:
                break
            done += got
        view[done:] = bytes(len(view) - done)
        # HDF5 reads the beginning of a collection, perhaps with what lies before it, and then
        # the rest: both of what was looked at here.
        at = self._lay_over(view) if self._start < self._place else 0
        while (at := bytes(view).find(_COLLECTION, at)) >= 0:
            self._start = self._place + at
            self._collection = self._sound_collection(self._start)
            at = self._lay_over(view)
        self._place += len(view)
        return len(view)

    def _lay_over(self, view: memoryview) -> int:
        """Put what was looked at into a read; return where in it that ends."""
        begin = max(self._start, self._place)
        part = self._collection[begin - self._start :][: max(0, self._place + len(view) - begin)]
        if not part:
            return 0
        at = begin - self._place
        view[at : at + len(part)] = part
        return at + len(part)

    def _sound_collection(self, place: int) -> bytes:
        size = int.from_bytes(os.pread(self._fd, 8, place + 8), "little")
        if size <= os.fstat(self._fd).st_size:
            collection = os.pread(self._fd, size, place)
            if is_sound(collection, size):
                return collection
        msg = f"the heap collection at {place} is damaged, or not completely written"
        raise OSError(msg)

    def close(self) -> None:
        """Close the file. Idempotent."""
        if not self.closed:
            os.close(self._fd)
        super().close()


class Handle:
    """An open raw file and its two datasets; shared by all readers of the process.

    Parameters
    ----------
    file
        The open file.
    meta
        What it said of itself when it was opened.
    raw
        The Python file that HDF5 reads it through, if any; closed with it.
    end
        Where that said that it ends, before HDF5 opened it.

    Notes
    -----
    Any thread may use it: HDF5 lets one in at a time, and a refresh by another reader
    only shows newer rows.
    """

    _shared: dict[tuple[int, int], Handle] = {}  # noqa: RUF012 - one for the process
    # Garbage is collected anywhere, also where this thread has it already.
    _lock = threading.RLock()

    def __init__(
        self,
        file: h5py.File,
        meta: Meta,
        raw: GuardedFile | None = None,
        end: int | None = None,
    ) -> None:
        self._file = file
        self._raw = raw
        self._end = end
        self.meta = meta
        self._key: tuple[int, int] | None = None
        self.users = 1
        self.msgs: h5d.DatasetID = h5d.open(file.id, MSGS.encode())
        self.headers: h5d.DatasetID = h5d.open(file.id, MSG_HEADERS.encode())
        self._places = (h5o.get_info(self.msgs).addr, h5o.get_info(self.headers).addr)

    def announced(self, fd: int) -> Announced:
        """Return the bytes with which the file announces rows now; cheap, and without HDF5."""
        return read_announced(fd, self._places)

    @classmethod
    def find(cls, fd: int) -> Handle | None:
        """Return the handle that another reader has of the file, for one user more."""
        status = os.fstat(fd)
        with cls._lock:
            handle = cls._shared.get((status.st_dev, status.st_ino))
            if handle is not None:
                handle.users += 1
            return handle

    def share(self, fd: int) -> None:
        """Let later readers of this file, which the descriptor has, find this handle."""
        status = os.fstat(fd)
        with self._lock:
            self._key = status.st_dev, status.st_ino
            self._shared[self._key] = self

    def refresh(self) -> tuple[int, int]:
        """Return how many rows ``msgs`` and ``msg_headers`` announce now.

        Raises
        ------
        OSError
            If HDF5 reads it through Python, and it has another end by now: HDF5 reads nothing
            behind the one that it found.
        RuntimeError
            If a dataset is open once more: what would then be read is not to be trusted.
        """
        if self._raw is not None and self._raw.end != self._end:
            msg = "opened beside a writer without SWMR, and the file has grown since"
            raise OSError(msg)
        # At once: another thread may be about to close the datasets, which are not to be open
        # twice while they are refreshed, and would not be counted afterwards.
        with phil:
            if h5f.get_obj_count(self._file.id, h5f.OBJ_DATASET) != 2:
                msg = (
                    "another handle in this process has its datasets open through HDF5's log "
                    "driver, and HDF5 cannot refresh a dataset that is open twice. Close it first"
                )
                raise RuntimeError(msg)
            # The headers first: a writer that commits with them has then flushed the messages.
            self.headers.refresh()
            headers = self.headers.shape[0]
            self.msgs.refresh()
            return self.msgs.shape[0], headers

    def release(self) -> None:
        """Give it back; the last user closes it."""
        with self._lock:
            self.users -= 1
            is_last = not self.users
            if is_last:
                self._forget()
        if is_last:
            self._close()

    def spoil(self) -> None:
        """Close it for all users: they find or open another when they next use it."""
        with self._lock:
            self._forget()
        self._close()

    def _forget(self) -> None:
        if self._key is not None and self._shared.get(self._key) is self:
            del self._shared[self._key]

    def _close(self) -> None:
        # Not under the lock: another thread may collect garbage, and so wait for the lock, while
        # it has that of h5py, which closing needs. The datasets first, or the file would stay
        # open.
        for dataset in (self.msgs, self.headers):
            if dataset.valid:
                dataset.close()
        if self._file.id.valid:
            self._file.close()
        if self._raw is not None:
            self._raw.close()
