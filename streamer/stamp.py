"""Whether a file is still the run that was opened, or was started again in its place."""

from __future__ import annotations

import os
import struct

from streamer.errors import FileReplaced
from streamer.opening import read_meta_anew
from streamer.source import Source

__all__ = ["Stamp"]

# Where the attributes of a raw file are: they are the first that is written.
_HEAD_BYTES = 64 * 1024


class Stamp:
    """The time at which a file was made, and where in the file it stands.

    HDF5 does not notice that a file is started again, as mode "w" does. But the time at which
    it was made stands in it, as the eight bytes of an attribute, and at another time other
    bytes stand there.

    Attributes
    ----------
    created : float
        Unix time in seconds at which the file was made.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.created = source.known.created
        self._bytes = struct.pack("<d", self.created)
        self._place = self._find()

    def check(self) -> None:
        """Make sure that it is still the same run.

        Raises
        ------
        FileReplaced
            If it is not: what was read just before may be of either run.
        """
        fd = self._source.fd
        if self._place and os.pread(fd, len(self._bytes), self._place) == self._bytes:
            return
        meta = read_meta_anew(fd, self._source.path)
        if meta is None:
            return  # unreadable, like all the rest: the next look will tell
        if meta.created != self.created:
            msg = f"{self._source.path}: was started again, at Unix time {meta.created:.0f}"
            raise FileReplaced(msg)
        # Writers that change an attribute may move the others.
        self._place = self._find()

    def _find(self) -> int:
        return max(0, os.pread(self._source.fd, _HEAD_BYTES, 0).find(self._bytes))
