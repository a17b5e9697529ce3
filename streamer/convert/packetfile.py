"""A packets file, HDF5 format 2.4, as larpix-control's ``to_file`` makes it."""

from __future__ import annotations

import os
import time
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from streamer.convert.partial import Partial
from streamer.convert.rows import Blocks
from streamer.packets import Packets

__all__ = ["PacketFile"]

_VERSION = "2.4"
# 590 kB: so much is read at once, and so much may have to be stored beside the file.
_CHUNK_ROWS = 16384
# With the bytes of a field side by side, zlib's first level takes 3.5 times less room; its
# higher ones take hardly less, and many times as long.
_LEVEL = 1
_THREADS = min(4, os.cpu_count() or 1)

# As it stands in the files of larpix-control, which does not list all that there are.
_PACKET_TYPES = """
0: 'data',
1: 'test',
2: 'config write',
3: 'config read',
4: 'timestamp',
5: 'message',
"""
_MESSAGES = np.dtype([("message", "S64"), ("timestamp", "<u8"), ("index", "<u4")])
_CONFIGS = np.dtype(
    [
        ("timestamp", "<u8"),
        ("io_group", "u1"),
        ("io_channel", "u1"),
        ("chip_id", "u1"),
        ("registers", "u1", (239,)),
    ]
)


class PacketFile:
    """A packets file that is being made.

    Parameters
    ----------
    partial
        What it is made in: nothing as yet, or what was stored of such a file.
    dtype
        Of an entry of ``packets``.
    compressed
        Whether ``packets`` is to be compressed, which larpix-control does not do.

    Notes
    -----
    Datasets, types and attributes are those of larpix-control 3.7: ``_header`` with
    ``version``, ``created`` and ``modified`` [Unix s]; ``packets`` with ``packet_types``, and
    ``messages`` and ``configs`` without a row, as raw files hold no such things.

    Whole chunks go into the file; what does not fill one yet is its tail.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> out = Path(tempfile.mkdtemp()) / "packets.h5"
    >>> with Partial(out) as partial:
    ...     PacketFile(partial, np.dtype([("io_group", "u1")]), compressed=False).finish()
    ...     partial.finish()
    >>> with h5py.File(out) as file:
    ...     print(sorted(file), file["_header"].attrs["version"], len(file["packets"]))
    ['_header', 'configs', 'messages', 'packets'] 2.4 0
    """

    def __init__(self, partial: Partial, dtype: np.dtype[Any], *, compressed: bool) -> None:
        self._partial = partial
        self._compressed = compressed
        # zlib lets other threads go on meanwhile.
        self._pool = ThreadPoolExecutor(_THREADS) if compressed else None
        self._packed: deque[tuple[Future[bytes], int]] = deque()
        self._dtype = dtype
        self._blocks = Blocks(dtype, _CHUNK_ROWS, partial.tail)
        with self._guarded():
            if partial.size:
                # A handle of a file in Python shares nothing with others of this process.
                self._file = h5py.File(partial, "r+")
                self._packets = self._file["packets"]
            else:
                self._file = h5py.File(partial, "w", libver=("earliest", "latest"))
                self._packets = self._create(dtype)
            self._rows = len(self._packets)

    def _create(self, dtype: np.dtype[Any]) -> h5py.Dataset:
        now = time.time()
        header = self._file.create_group("_header")
        header.attrs["version"] = _VERSION
        header.attrs["created"] = now
        header.attrs["modified"] = now
        options = {"compression": _LEVEL, "shuffle": True} if self._compressed else {}
        packets = self._file.create_dataset(
            "packets", (0,), dtype, maxshape=(None,), chunks=(_CHUNK_ROWS,), **options
        )
        packets.attrs["packet_types"] = _PACKET_TYPES
        for name, entry in (("messages", _MESSAGES), ("configs", _CONFIGS)):
            self._file.create_dataset(name, (0,), entry, maxshape=(None,))
        return packets

    def append(self, packets: Packets) -> None:
        """Append packets."""
        records = packets.to_records().astype(self._dtype, copy=False)
        for block in self._blocks.take(records):
            self._write(block, _CHUNK_ROWS)

    def _write(self, block: NDArray[Any], rows: int) -> None:
        """Write a chunk, of which so many rows count."""
        data = np.ascontiguousarray(block).view(np.uint8)
        if self._pool is None:
            self._put(data, rows)
            return
        shuffled = np.ascontiguousarray(data.reshape(_CHUNK_ROWS, -1).T)
        self._packed.append((self._pool.submit(zlib.compress, shuffled.data, _LEVEL), rows))
        if len(self._packed) > _THREADS:
            self._put_packed()

    def _put_packed(self) -> None:
        """Write the chunk that waits the longest."""
        packed, rows = self._packed.popleft()
        self._put(packed.result(), rows)

    def _put(self, data: Any, rows: int) -> None:
        with self._guarded():
            self._packets.resize((self._rows + rows,))
            # Not through HDF5's own cache and filters, which know nothing of blocks.
            self._packets.id.write_direct_chunk((self._rows,), data)
        self._rows += rows

    def flush(self) -> bytes:
        """Hand all to the partial file; return the tail, to be stored with it."""
        while self._packed:
            self._put_packed()
        with self._guarded():
            self._file.flush()
        return self._blocks.tail()

    def finish(self) -> None:
        """Complete it, and close it."""
        left = self._blocks.rest()
        if len(left):
            block = np.zeros(_CHUNK_ROWS, left.dtype)
            block[: len(left)] = left
            self._write(block, len(left))
        while self._packed:
            self._put_packed()
        with self._guarded():
            self._file["_header"].attrs["modified"] = time.time()
            self._file.close()

    def close(self) -> None:
        """Leave it as it is. Idempotent."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        # After an error of the disk, or Ctrl-C, HDF5 may not be able to.
        with suppress(OSError, RuntimeError, ValueError):
            self._file.close()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Let errors of the partial file come before what HDF5 makes of them."""
        try:
            yield
        except (OSError, RuntimeError, ValueError, KeyError):
            self._partial.check()
            raise
        self._partial.check()
