"""The first bytes of an HDF5 file: who has it open, and how its addresses are stored.

Read from the file itself, because the library reads them once, when it opens the file.
Format: HDF5 File Format Specification, section II.A, "Disk Format: Level 0A".
"""

from __future__ import annotations

import os
from typing import NamedTuple

__all__ = ["SIGNATURE", "Superblock", "read_superblock"]

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_OPEN_FOR_WRITING = 1
_OPEN_FOR_SWMR = 4
_LONGEST = 52


class Superblock(NamedTuple):
    """What the superblock says at one moment."""

    version: int
    flags: int
    #: Bytes of a stored address, and of a stored length.
    offset_size: int
    length_size: int
    #: Byte of the file from which addresses count; not 0 behind a user block.
    base: int
    #: Where the file ends, as it says: HDF5 reads nothing behind the end it found at its open.
    end: int
    #: The file is shorter than that: a copy, for one, that is not complete.
    cut: bool

    @property
    def closed(self) -> bool:
        """Nobody has the file open for writing, and all that was written is on disk.

        False also if it cannot be known, in files of the library's oldest formats.
        """
        return self.version >= 3 and not self.flags

    @property
    def swmr(self) -> bool:
        """A writer has, or had when it was killed, the file open for readers beside it."""
        return bool(self.flags & _OPEN_FOR_WRITING and self.flags & _OPEN_FOR_SWMR)


def read_superblock(fd: int) -> Superblock | None:
    """Read the superblock of an open file.

    Parameters
    ----------
    fd
        File descriptor, open for reading.

    Returns
    -------
    Superblock or None
        None where the file holds none (yet).

    Examples
    --------
    >>> import h5py, os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "some.h5")
    >>> h5py.File(path, "w", libver="v110").close()
    >>> with open(path, "rb") as file:
    ...     read_superblock(file.fileno()).closed
    True
    """
    start = 0
    size = os.fstat(fd).st_size
    while os.pread(fd, len(SIGNATURE), start) != SIGNATURE:
        # Behind a user block, whose length is 512 bytes or twice that, and so on.
        start = max(512, 2 * start)
        if start >= size:
            return None
    block = os.pread(fd, _LONGEST, start).ljust(_LONGEST, b"\0")
    version = block[8]
    if version < 2:  # no flags in these
        flags, offset_size, length_size = 0, block[13], block[14]
        addresses = block[24 if version == 0 else 28 :]
    else:
        flags, offset_size, length_size = block[11], block[9], block[10]
        addresses = block[12:]
    # The base, one that does not matter here, and the end.
    base = int.from_bytes(addresses[:offset_size], "little")
    end = int.from_bytes(addresses[2 * offset_size : 3 * offset_size], "little")
    # The size after the superblock: a live file only grows.
    cut = end > os.fstat(fd).st_size
    return Superblock(version, flags, offset_size, length_size, base, end, cut)
