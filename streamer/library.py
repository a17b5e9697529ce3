"""Rows of a file that is not the plain case, read through h5py: opened for each look.

A handle that is held never reads a message that was written later: HDF5 compares its
address with the end that the file had when it was opened. So each look opens and closes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from streamer.announced import Announced
from streamer.direct import BLANK, Loaded, narrowed
from streamer.handle import GuardedFile
from streamer.heap import Payloads
from writer.layout import IO_GROUPS, MSG_HEADERS, MSGS, Meta

__all__ = ["LibraryRows"]


# Some file systems tell the time of a change to the second only.
_COARSE_SECONDS = 2.0


class LibraryRows:
    """The rows of a raw file, through h5py alone.

    Parameters
    ----------
    fd
        Descriptor of the same file, open for reading; closed with this object.
    meta
        What the file said of itself when it was opened.
    """

    #: The name of this way of reading.
    reading = "h5py"

    def __init__(self, fd: int, meta: Meta) -> None:
        self.meta = meta
        self._fd = fd
        self._seen: Announced | None = None

    @contextmanager
    def _opened(self) -> Iterator[h5py.File]:
        with GuardedFile(self._fd) as raw, h5py.File(raw, "r") as file:
            yield file

    def peek(self) -> Announced | None:
        """Return what changes with the file; None if all is as it was; as of DirectRows."""
        status = os.fstat(self._fd)
        sign = Announced(*(k.to_bytes(8, "little") for k in (status.st_mtime_ns, status.st_size)))
        # Within the same tick of a coarse clock it may have been written again.
        still = time.time() - status.st_mtime > _COARSE_SECONDS
        return None if still and sign == self._seen else sign

    def refresh(self, announced: Announced | None = None) -> tuple[int, int]:
        """Return how many rows ``msgs`` and ``msg_headers`` announce now."""
        self._seen = None
        with self._opened() as file:
            headers = len(file[MSG_HEADERS])
            lengths = len(file[MSGS]), headers
        self._seen = announced
        return lengths

    def headers(self, start: int, stop: int) -> NDArray[Any]:
        """Read message headers."""
        with self._opened() as file:
            headers: NDArray[Any] = file[MSG_HEADERS][start:stop]
            return headers

    def filled(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the rows that do not look blank."""
        with self._opened() as file:
            lengths = np.array([len(msg) for msg in file[MSGS][start:stop]], np.int64)
            io_groups = file[MSG_HEADERS][start:stop][IO_GROUPS]
        return start + np.flatnonzero((lengths > 0) & (io_groups != 0))

    def load(
        self,
        start: int,
        stop: int,
        final_below: int,
        wanted: NDArray[np.bool_] | None,
        max_bytes: int,
    ) -> Loaded:
        """Read rows, up to the first that is not there; as :meth:`DirectRows.load`."""
        with self._opened() as file:
            msgs = file[MSGS][start:stop]
            io_groups = file[MSG_HEADERS][start:stop][IO_GROUPS]
        lengths = np.fromiter(map(len, msgs), np.int64, len(msgs))
        blank = (lengths == 0) | (io_groups == 0)
        blank[: max(0, final_below - start)] = False
        end, cause = len(msgs), None
        if blank.any():
            end, cause = int(np.argmax(blank)), BLANK
            self._seen = None  # as soon as it can be read, it is to be seen
        taken = np.cumsum(lengths[:end])
        if end and taken[-1] > max_bytes:
            end, cause = max(1, int(np.searchsorted(taken, max_bytes, "right"))), None
        lengths = lengths[:end]
        buffer = np.concatenate([np.empty(0, np.uint8), *msgs[:end]])
        payloads = Payloads(buffer, np.cumsum(lengths) - lengths, lengths, None)
        return narrowed(start, io_groups, payloads, cause, wanted)

    def close(self, *, spoilt: bool = False) -> None:
        """Close the descriptor; nothing else is held, nor spoilt."""
        os.close(self._fd)
