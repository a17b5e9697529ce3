"""The names of a file that is being made: those that it has until then, and the one it gets."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path

__all__ = ["give_name", "has_name", "lock", "partial_names", "settle", "tidy"]


def partial_names(out: Path) -> tuple[Path, Path]:
    """Return the names that a file has until it is complete, and of what is stored of it.

    Examples
    --------
    >>> [path.name for path in partial_names(Path("out.h5"))]
    ['out.h5.partial', 'out.h5.partial.state']
    """
    return out.with_name(out.name + ".partial"), out.with_name(out.name + ".partial.state")


def give_name(path: Path, out: Path, *, overwrite: bool) -> None:
    """Give a file the name that it is to have; it may keep the other one too.

    Raises
    ------
    FileExistsError
        If something has that name, and is not to be overwritten.
    OSError
        If it is not possible.
    """
    if overwrite:
        path.replace(out)
        return
    try:
        # Unlike renaming, this never takes the name from another file.
        os.link(path, out)
    except FileExistsError:
        raise
    except OSError:  # a file system without second names
        if os.path.lexists(out):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        path.replace(out)


def tidy(out: Path) -> None:
    """Take from a complete file the name that it had until then, if it still has it.

    Raises
    ------
    OSError
        If it is not possible.
    """
    path, state = partial_names(out)
    if path.exists() and out.exists() and path.samefile(out):
        # In this order, so that a crash leaves nothing that is not known again.
        state.unlink(missing_ok=True)
        path.unlink(missing_ok=True)


def has_name(fd: int, path: Path) -> bool:
    """Tell whether an open file has this name."""
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    own = os.fstat(fd)
    return (named.st_dev, named.st_ino) == (own.st_dev, own.st_ino)


def lock(fd: int) -> None:
    """Take an open file for this process.

    Raises
    ------
    BlockingIOError
        If another one has it.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # a file system without locks
        return


def settle(folder: Path) -> None:
    """Make sure that the names in a folder are on disk."""
    # Some file systems refuse it for folders; then there is nothing more to be done.
    with suppress(OSError):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
