"""One HDF5 handle for each raw file that this process reads, and how it is opened.

One, because HDF5 shares a dataset between all handles of a process, and refreshing a
dataset that is open twice breaks it: HDF5 1.14 and 2.0 then return the first chunk for
every other one, without an error.
"""

from __future__ import annotations

import os
import threading
from typing import BinaryIO

import h5py
from h5py import h5d, h5f, h5p

from writer.layout import MSG_HEADERS, MSGS, Meta

__all__ = ["Handle", "open_unlocked"]


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
    flags = h5f.ACC_RDONLY | (h5f.ACC_SWMR_READ if swmr else 0)
    return h5f.open(os.fsencode(name), flags, access)


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

    Notes
    -----
    Any thread may use it: HDF5 lets one in at a time, and a refresh by another reader
    only shows newer rows.
    """

    _shared: dict[tuple[int, int], Handle] = {}  # noqa: RUF012 - one for the process
    _lock = threading.Lock()

    def __init__(self, file: h5py.File, meta: Meta, raw: BinaryIO | None = None) -> None:
        self._file = file
        self._raw = raw
        self.meta = meta
        self._key: tuple[int, int] | None = None
        self.users = 1
        self.msgs: h5d.DatasetID = h5d.open(file.id, MSGS.encode())
        self.headers: h5d.DatasetID = h5d.open(file.id, MSG_HEADERS.encode())

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
        RuntimeError
            If a dataset is open once more: what would then be read is not to be trusted.
        """
        # The headers first: a writer that commits with them has then flushed the messages.
        self.headers.refresh()
        headers = self.headers.shape[0]
        self.msgs.refresh()
        lengths = self.msgs.shape[0], headers
        if h5f.get_obj_count(self._file.id, h5f.OBJ_DATASET) != 2:
            msg = (
                "another handle in this process has its datasets open through HDF5's log "
                "driver, and HDF5 cannot refresh a dataset that is open twice. Close it first"
            )
            raise RuntimeError(msg)
        return lengths

    def release(self) -> None:
        """Give it back; the last user closes it."""
        with self._lock:
            self.users -= 1
            if not self.users:
                self._close()

    def spoil(self) -> None:
        """Close it for all users: they find or open another when they next use it."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._key is not None and self._shared.get(self._key) is self:
            del self._shared[self._key]
        # The datasets first, or the file would stay open.
        for dataset in (self.msgs, self.headers):
            if dataset.valid:
                dataset.close()
        if self._file.id.valid:
            self._file.close()
        if self._raw is not None:
            self._raw.close()
