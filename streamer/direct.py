"""Rows of a live file, read through a handle that is held: what HDF5 itself cannot do.

References and headers come through the library, chunk by chunk and past its caches, or from
the file where a chunk cannot move; messages come from the file, see :mod:`streamer.heap`.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import h5py
import numpy as np
from h5py import h5d
from numpy.typing import NDArray

from streamer.announced import Announced, announced_lengths
from streamer.chunks import FILTERS, Column, TornChunk
from streamer.handle import Handle
from streamer.heap import REFERENCE, Marks, Payloads, gather
from writer.layout import IO_GROUPS, MSG_HEADERS, MSGS
from writer.superblock import Superblock, read_superblock

__all__ = ["BLANK", "DirectRows", "Loaded", "narrowed"]


class Loaded(NamedTuple):
    """The rows that are there, from the beginning of a range."""

    #: (K,) i8: the rows, without those that are not wanted.
    rows: NDArray[np.int64]
    #: (K,) u1
    io_groups: NDArray[np.uint8]
    #: The messages of these rows.
    payloads: Payloads
    #: The row before which all have been gone through.
    stop: int
    #: What is wrong with that row; None if it is the end of the range, or of what was to
    #: be read at a time.
    cause: str | None


#: Why a row is not there that looks as HDF5 shows rows that are not written yet.
BLANK = "empty or of io_group 0, as HDF5 shows rows that are not written yet"


def narrowed(
    start: int,
    io_groups: NDArray[np.uint8],
    payloads: Payloads,
    cause: str | None,
    wanted: NDArray[np.bool_] | None,
) -> Loaded:
    """Put together what was read from a row on, without what is not wanted."""
    count = len(payloads.starts)
    rows = np.arange(start, start + count)
    io_groups = io_groups[:count]
    cause = payloads.cause or cause
    if wanted is None:
        return Loaded(rows, io_groups, payloads, start + count, cause)
    chosen = wanted[io_groups]
    payloads = payloads._replace(starts=payloads.starts[chosen], lengths=payloads.lengths[chosen])
    return Loaded(rows[chosen], io_groups[chosen], payloads, start + count, cause)


class DirectRows:
    """The rows of one open raw file.

    Parameters
    ----------
    handle
        Handle of a raw file that :meth:`can_read`; given back with this object.
    fd
        Descriptor of the same file, open for reading; closed with this object.
    """

    #: The name of this way of reading.
    reading = "direct"

    def __init__(self, handle: Handle, fd: int) -> None:
        self._handle = handle
        self._fd = fd
        self.meta = handle.meta
        self._msgs = Column(handle.msgs, REFERENCE, fd)
        self._headers = Column(handle.headers, handle.headers.dtype, fd)
        self._marks: Marks = {}
        self._seen: Announced | None = None
        self._announced = (0, 0)
        # A writer of this project only adds rows: a chunk stays where it is.
        self._only_grows = handle.meta.finished is not None

    @staticmethod
    def can_read(file: h5py.File, superblock: Superblock) -> bool:
        """Tell whether a file is the plain case for which this way is made."""
        if superblock.version < 3 or superblock.base:
            return False
        if superblock.offset_size != 8 or superblock.length_size != 8:
            return False
        if file[MSG_HEADERS].dtype.hasobject:  # texts, which lie in the heap too
            return False
        for name in (MSGS, MSG_HEADERS):
            plan = file[name].id.get_create_plist()
            if plan.get_layout() != h5d.CHUNKED:
                return False
            if any(plan.get_filter(k)[0] not in FILTERS for k in range(plan.get_nfilters())):
                return False
        return True

    def peek(self) -> Announced | None:
        """Return how the file announces rows now; None if all is as it was.

        That is: it announces what it did at the last refresh, and all of that which was
        asked for was there. A refresh by HDF5 costs a hundred times as much, and a file that
        does not grow is looked at many times a second.
        """
        announced = self._handle.announced(self._fd)
        return None if announced == self._seen else announced

    def refresh(self, announced: Announced | None = None) -> tuple[int, int]:
        """Return how many rows ``msgs`` and ``msg_headers`` announce now.

        Parameters
        ----------
        announced
            What :meth:`peek` returned just before, if it was called.
        """
        if announced is not None and (lengths := self._grown(announced)) is not None:
            self._seen, self._announced = announced, lengths
            return lengths
        self._seen = None
        lengths = self._handle.refresh()
        if announced is not None and announced.states(lengths):
            self._seen, self._announced = announced, lengths
        return lengths

    def _grown(self, announced: Announced) -> tuple[int, int] | None:
        """Return how many rows are announced now, if they can be read without a refresh.

        That takes a third of a millisecond, which is most of what a live message waits for.
        """
        if self._seen is None or not self._only_grows:
            return None
        lengths = announced_lengths(announced, self._seen, self._announced)
        if lengths is None or any(
            now < then for now, then in zip(lengths, self._announced, strict=True)
        ):
            return None
        last = min(lengths) - 1
        return lengths if self._msgs.holds(last) and self._headers.holds(last) else None

    def headers(self, start: int, stop: int) -> NDArray[Any]:
        """Read message headers."""
        headers, cause = self._headers.read(start, stop)
        if cause is not None:
            raise TornChunk(cause)
        return headers

    def filled(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the rows that do not look blank, up to a chunk that cannot be read."""
        refs, _ = self._msgs.read(start, stop)
        headers, _ = self._headers.read(start, stop)
        count = min(len(refs), len(headers))
        written = (refs["address"][:count] != 0) & (headers[IO_GROUPS][:count] != 0)
        return start + np.flatnonzero(written)

    def load(
        self,
        start: int,
        stop: int,
        final_below: int,
        wanted: NDArray[np.bool_] | None,
        max_bytes: int,
    ) -> Loaded:
        """Read rows, up to the first that is not there.

        Parameters
        ----------
        start, stop
            The rows ``[start, stop)``, below the announced length.
        final_below
            Rows below this one are on disk as they will stay, also if they look blank.
        wanted
            (256,) bool: the io_groups to read; None for all.
        max_bytes
            To read messages of so many bytes at the most, but of one row at least.

        Returns
        -------
        Loaded
            The rows that are there.
        """
        refs, cause = self._msgs.read(start, stop)
        headers, headers_cause = self._headers.read(start, stop)
        refs = refs[: len(headers)]
        io_groups = headers[IO_GROUPS][: len(refs)]
        end, cause = len(refs), cause or headers_cause
        final = max(0, final_below - start)
        if not (refs["address"].all() and io_groups.all()):
            blank = (refs["address"] == 0) | (io_groups == 0)
            if blank[:final].any():
                # HDF5 reads zeros behind the end of a file that was cut short meanwhile.
                superblock = read_superblock(self._fd)
                if superblock is None or superblock.cut:
                    final = 0
            blank[:final] = False
            if blank.any():
                end, cause = int(np.argmax(blank)), BLANK
        chosen = None if wanted is None else wanted[io_groups[:end]]
        sizes = refs["length"][:end] if chosen is None else refs["length"][:end] * chosen
        if sizes.sum(dtype=np.int64) > max_bytes:
            taken = np.cumsum(sizes, dtype=np.int64)
            end, cause = max(1, int(np.searchsorted(taken, max_bytes, "right"))), None
        size = os.fstat(self._fd).st_size
        payloads = gather(
            refs[:end],
            self._read_into,
            size,
            self._marks,
            final=final,
            wanted=None if chosen is None else chosen[:end],
        )
        loaded = narrowed(start, io_groups, payloads, cause, wanted)
        if loaded.cause is not None:  # HDF5 may have remembered where a chunk was not yet
            self._seen = None
        return loaded

    def _read_into(self, offset: int, view: memoryview) -> int:
        done = 0
        while done < len(view):
            got = os.preadv(self._fd, [view[done:]], offset + done)
            if not got:
                break
            done += got
        return done

    def close(self, *, spoilt: bool = False) -> None:
        """Give the handle back, or close it for all if it is spoilt."""
        if spoilt:
            self._handle.spoil()
        else:
            self._handle.release()
        os.close(self._fd)
