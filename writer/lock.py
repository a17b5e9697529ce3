"""The mark of a living writer: a lock on one byte that no file has.

It is an open-file-description lock, far behind the end of the file. HDF5 uses another
kind (``flock``), so neither the library nor a stock reader or writer ever meets it, the
kernel drops it with the process that held it, and anybody may ask whether it is held.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

__all__ = ["hold_lock", "is_locked"]

_BYTE = 2**62
# struct flock of Linux: type, whence, start, length, pid; the latter 0 for this kind.
_FLOCK = "hhqqi0q"
# Kernels and file systems that know no such locks.
_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOVERFLOW}


def _request(kind: int) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, _BYTE, 1, 0)


def hold_lock(fd: int) -> bool:
    """Take the lock for as long as the descriptor stays open.

    Parameters
    ----------
    fd
        Descriptor of the raw file, open for writing.

    Returns
    -------
    bool
        False if another descriptor holds it. True also where the file system knows no
        such locks: there HDF5's own mark in the file has to do.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _request(fcntl.F_WRLCK))
    except OSError as error:
        return error.errno in _UNSUPPORTED
    return True


def is_locked(fd: int) -> bool:
    """Tell whether a living writer of this project has the file, without locking anything."""
    try:
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _request(fcntl.F_WRLCK))
    except OSError:
        return False
    kind: int = struct.unpack(_FLOCK, answer)[0]
    return kind != fcntl.F_UNLCK
