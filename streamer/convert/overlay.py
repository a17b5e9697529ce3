"""A file of which what is there stays untouched, until that is to be replaced."""

from __future__ import annotations

import io
import os
from contextlib import suppress
from typing import Any

__all__ = ["Overlay", "write_all"]

_PAGE = 4096
_PUSH_BYTES = 16 * 1024 * 1024
# What may come in the middle of a call by HDF5.
_TAKEN = (OSError, MemoryError, KeyboardInterrupt)


class Overlay(io.RawIOBase):
    """A file, open for reading and writing, the first part of which is kept as it is.

    What is written over that part is held in memory, in pages; what is behind it goes to the
    file at once. For one thread.

    Parameters
    ----------
    fd
        Descriptor of the file, open for both; closed with this.
    kept
        Bytes that are kept, which is all that the file holds.

    Attributes
    ----------
    size : int
        Bytes that there are for whoever reads it here.
    kept : int
    error : BaseException or None
        What first went wrong in reading or writing: HDF5, which calls these methods, takes
        no error well. From then on nothing is written.

    Examples
    --------
    >>> import tempfile
    >>> fd, path = tempfile.mkstemp()
    >>> _ = os.write(fd, b"first")
    >>> with Overlay(fd, 5) as file:
    ...     _ = file.seek(3)
    ...     _ = file.write(b"m, and more")
    ...     _ = file.seek(0)
    ...     print(file.read(), os.pread(fd, 20, 0), file.pages())
    b'firm, and more' b'first and more' {0: b'firm,'}
    """

    # Also of one that could not be opened.
    _fd = -1

    def __init__(self, fd: int, kept: int = 0) -> None:
        super().__init__()
        self._fd = fd
        self.size = self.kept = self._pushed = kept
        self.error: BaseException | None = None
        self._pages: dict[int, bytearray] = {}
        self._place = 0

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def writable(self) -> bool:
        """Tell that it can be written."""
        return True

    def seekable(self) -> bool:
        """Tell that one can go to any place in it."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a place."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self.size}[whence]
        self._place = base + offset
        return self._place

    def tell(self) -> int:
        """Return the place."""
        return self._place

    def readinto(self, buffer: Any, /) -> int:
        """Read from the place on."""
        view = memoryview(buffer).cast("B")
        view = view[: max(0, self.size - self._place)]
        try:
            self._read(view, self._place)
        except _TAKEN as error:
            self.fail(error)
        self._place += len(view)
        return len(view)

    def write(self, data: Any, /) -> int:
        """Write all of it to the place."""
        view = memoryview(data).cast("B")
        place = self._place
        self._place += len(view)
        self.size = max(self.size, self._place)
        if self.error is None:
            try:
                over = max(0, min(len(view), self.kept - place))
                self._hold(view[:over], place)
                write_all(self._fd, view[over:], place + over)
                self._push()
            except _TAKEN as error:
                self.fail(error)
        return len(view)

    def _push(self) -> None:
        """Let the system begin to bring to disk what is new, so that it is there in time."""
        if self.size - self._pushed > _PUSH_BYTES:
            # What is not needed any more, Linux writes first; it does not wait for it.
            with suppress(OSError):
                size = self.size - self._pushed
                os.posix_fadvise(self._fd, self._pushed, size, os.POSIX_FADV_DONTNEED)
            self._pushed = self.size

    def truncate(self, size: int | None = None, /) -> int:
        """Give it a length. What is kept stays there all the same."""
        self.size = self._place if size is None else size
        if self.error is None:
            try:
                os.ftruncate(self._fd, max(self.size, self.kept))
            except _TAKEN as error:
                self.fail(error)
        return self.size

    def flush(self) -> None:
        """Do nothing: there is nothing in between."""

    def _read(self, view: memoryview, place: int) -> None:
        done = 0
        while done < len(view):
            got = os.preadv(self._fd, [view[done:]], place + done)
            if not got:
                break
            done += got
        view[done:] = bytes(len(view) - done)
        if place < self.kept:
            for number in range(place // _PAGE, -(-(place + len(view)) // _PAGE)):
                page = self._pages.get(number)
                if page is not None:
                    start, stop = number * _PAGE - place, (number + 1) * _PAGE - place
                    first, last = max(0, start), min(len(view), stop, self.kept - place)
                    view[first:last] = page[first - start : last - start]

    def _hold(self, view: memoryview, place: int) -> None:
        """Hold what is to be written over what is kept."""
        while view:
            number, start = divmod(place, _PAGE)
            page = self._pages.get(number)
            if page is None:
                page = bytearray(_PAGE)
                self._read(memoryview(page), number * _PAGE)
                self._pages[number] = page
            part = min(len(view), _PAGE - start)
            page[start : start + part] = view[:part]
            view, place = view[part:], place + part

    def pages(self) -> dict[int, bytes]:
        """Return what was written over what is kept: pages of 4096 bytes, by their number.

        The last one ends with what is kept.
        """
        return {
            number: bytes(page[: self.kept - number * _PAGE])
            for number, page in self._pages.items()
            if number * _PAGE < self.size
        }

    def put(self, pages: dict[int, bytes]) -> None:
        """Write pages to their places."""
        for number, page in pages.items():
            write_all(self._fd, memoryview(page), number * _PAGE)

    def keep(self) -> None:
        """Keep from now on what there is now, without what was held: that is to be put."""
        self.kept = self.size
        self._pages.clear()

    def begin(self, kept: int) -> None:
        """Keep so many bytes, which is all that the file holds; forget all else."""
        self.size = self.kept = self._pushed = kept
        self._place = 0
        self._pages.clear()

    def fail(self, error: BaseException) -> None:
        """Note an error; the first one counts."""
        if self.error is None:
            self.error = error

    def close(self) -> None:
        """Close the file. What is written from now on goes nowhere. Idempotent."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            self.fail(ValueError("it is closed"))
            os.close(fd)
        super().close()


def write_all(fd: int, view: memoryview, place: int) -> None:
    """Write all of it to a place of a file."""
    while view:
        done = os.pwrite(fd, view, place)
        view, place = view[done:], place + done
