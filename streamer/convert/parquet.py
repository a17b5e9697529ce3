"""Packets as a Parquet table, for those who analyse tables. Needs pyarrow."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from streamer.convert.footers import moved
from streamer.convert.partial import Partial
from streamer.convert.rows import Blocks
from streamer.packets import Packets

__all__ = ["ParquetFile"]

# So many are read at once; 45 bytes each, before they are compressed.
_GROUP_ROWS = 262144
_ROW = "row"
_MAGIC = b"PAR1"
# A file ends with the length of its description, and the magic bytes.
_END = struct.Struct("<L4s")
# Behind each group's file, where that begins.
_PLACE = struct.Struct("<Q")


class ParquetFile:
    """A Parquet file of packets that is being made.

    Parameters
    ----------
    partial
        What it is made in: nothing as yet, or what was stored of such a file.
    dtype
        Of a packet's record; its fields become columns, after ``row``, i8.

    Notes
    -----
    A Parquet file is described at its end, and cannot be continued. So each group of rows is
    appended as a file of its own, and at the end their descriptions are joined into one, with
    the places that the groups have in the whole. Readers go where that says, so the others,
    some kB for each group, may stay where they are.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> out = Path(tempfile.mkdtemp()) / "packets.parquet"
    >>> with Partial(out) as partial:
    ...     ParquetFile(partial, np.dtype([("io_group", "u1")])).finish()
    ...     partial.finish()
    >>> pq.read_table(out).column_names
    ['row', 'io_group']
    """

    def __init__(self, partial: Partial, dtype: np.dtype[Any]) -> None:
        self._partial = partial
        dtypes = {_ROW: np.dtype("<i8")} | {name: dtype[name] for name in dtype.names or ()}
        self._schema = pa.schema(
            [(name, pa.from_numpy_dtype(one)) for name, one in dtypes.items()],
            metadata={"larpix_packets_version": "2.4"},
        )
        self._dtypes = dtypes
        tail = partial.tail
        count = len(tail) // sum(one.itemsize for one in dtypes.values())
        self._blocks, place = [], 0
        for one in dtypes.values():
            size = count * one.itemsize
            self._blocks.append(Blocks(one, _GROUP_ROWS, tail[place : place + size]))
            place += size

    def append(self, packets: Packets) -> None:
        """Append packets."""
        parts = (
            blocks.take(getattr(packets, name).astype(dtype, copy=False))
            for blocks, (name, dtype) in zip(self._blocks, self._dtypes.items(), strict=True)
        )
        for group in zip(*parts, strict=True):
            self._write(group)

    def _write(self, columns: tuple[NDArray[Any], ...]) -> None:
        """Append a group of rows, as a file of its own."""
        table = pa.Table.from_arrays([*map(pa.array, columns)], schema=self._schema)
        file = pa.BufferOutputStream()
        # With dictionaries it is as large, and takes twice as long.
        with pq.ParquetWriter(
            file, self._schema, compression="zstd", use_dictionary=False
        ) as writer:
            writer.write_table(table, row_group_size=_GROUP_ROWS)
        place = self._partial.seek(self._partial.size)
        self._partial.write(file.getvalue())
        self._partial.write(_PLACE.pack(place))
        self._partial.check()

    def flush(self) -> bytes:
        """Return the tail: each group is in the partial file at once."""
        return b"".join(blocks.tail() for blocks in self._blocks)

    def finish(self) -> None:
        """Complete it."""
        left = tuple(blocks.rest() for blocks in self._blocks)
        if len(left[0]) or not self._partial.size:
            self._write(left)
        parts = self._descriptions()
        whole = parts.pop()
        while parts:
            whole.append_row_groups(parts.pop())
        file = io.BytesIO()
        whole.write_metadata_file(file)
        self._partial.seek(self._partial.size)
        self._partial.write(file.getvalue()[len(_MAGIC) :])
        self._partial.check()

    def _descriptions(self) -> list[pq.FileMetaData]:
        """Return the descriptions of the groups, the last first, in places of the whole."""
        found, stop = [], self._partial.size
        while stop:
            stop -= _PLACE.size
            (start,) = _PLACE.unpack(self._read(stop, _PLACE.size))
            size, _ = _END.unpack(self._read(stop - _END.size, _END.size))
            footer = moved(self._read(stop - _END.size - size, size), start)
            file = footer + _END.pack(len(footer), _MAGIC)
            found.append(pq.read_metadata(pa.BufferReader(_MAGIC + file)))
            stop = start
        return found

    def _read(self, place: int, size: int) -> bytes:
        self._partial.seek(place)
        return self._partial.read(size) or b""

    def close(self) -> None:
        """Do nothing: what it is made in is closed by itself."""
