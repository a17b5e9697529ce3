"""Descriptions of Parquet files: the places that they name, moved along.

A description is a struct of Thrift's compact protocol (apache/thrift,
``thrift-compact-protocol.md``) as ``parquet.thrift`` (apache/parquet-format) has it. Of all
that is in one, only the places are known here; the rest is copied as it is.
"""

from __future__ import annotations

from typing import Final

__all__ = ["moved"]

# Types of the compact protocol; true and false are in the field's header.
_STOP, _TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = (
    range(13)
)
# Numbers of the fields on the way, from FileMetaData: row_groups; RowGroup.file_offset,
# RowGroup.columns; ColumnChunk.file_offset, .offset_index_offset, .column_index_offset,
# .meta_data; ColumnMetaData.data_page_offset, .index_page_offset, .dictionary_page_offset,
# .bloom_filter_offset.
_PLACES: Final = {
    (4, 5),
    (4, 1, 2),
    (4, 1, 4),
    (4, 1, 6),
    (4, 1, 3, 9),
    (4, 1, 3, 10),
    (4, 1, 3, 11),
    (4, 1, 3, 14),
}


def moved(description: bytes, distance: int) -> bytes:
    """Return a description of the same file, if it begins so many bytes later.

    Parameters
    ----------
    description
        The FileMetaData, without its length and the magic bytes.
    distance
        How much is before it, in bytes.

    Raises
    ------
    IndexError, ValueError
        If it is not such a struct.

    Examples
    --------
    A struct with the number of rows, 3, as field 3, and with one row group, field 4, whose
    field 5, ``file_offset``, is 4:

    >>> moved(bytes.fromhex("36 06 19 1c 56 08 00 00"), 1000).hex(" ")
    '36 06 19 1c 56 d8 0f 00 00'
    """
    copy = _Copy(description, distance)
    copy.struct(())
    if copy.place != len(description):
        msg = f"a description of {len(description)} bytes ends after {copy.place}"
        raise ValueError(msg)
    return bytes(copy.out)


class _Copy:
    """Copies values one after the other, with the places among them changed."""

    def __init__(self, source: bytes, distance: int) -> None:
        self._source, self._distance = source, distance
        self.place = 0
        self.out = bytearray()

    def struct(self, path: tuple[int, ...]) -> None:
        number = 0
        while kind := self._byte() & 0x0F:
            step = self.out[-1] >> 4
            number = number + step if step else _signed(self._varint())
            self._value(kind, (*path, number), in_list=False)

    def _value(self, kind: int, path: tuple[int, ...], *, in_list: bool) -> None:
        if kind in (_TRUE, _FALSE):
            self._bytes(int(in_list))
        elif kind == _BYTE:
            self._bytes(1)
        elif kind == _I64 and path in _PLACES:
            place = _signed(self._varint(copied=False))
            # In ColumnChunk.file_offset, which is no longer used, there may be a zero.
            self._put(2 * (place + self._distance if place else 0))
        elif kind in (_I16, _I32, _I64):
            self._varint()
        elif kind == _DOUBLE:
            self._bytes(8)
        elif kind == _BINARY:
            self._bytes(self._varint())
        elif kind in (_LIST, _SET):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint()
            for _ in range(count):
                self._value(head & 0x0F, path, in_list=True)
        elif kind == _MAP:
            count = self._varint()
            kinds = self._byte() if count else 0
            for _ in range(count):
                self._value(kinds >> 4, (*path, 0), in_list=True)
                self._value(kinds & 0x0F, (*path, 0), in_list=True)
        elif kind == _STRUCT:
            self.struct(path)
        else:
            msg = f"no type {kind} at {self.place}"
            raise ValueError(msg)

    def _byte(self) -> int:
        self._bytes(1)
        return self.out[-1]

    def _bytes(self, count: int) -> None:
        part = self._source[self.place : self.place + count]
        if len(part) < count:
            msg = "it ends in the middle"
            raise IndexError(msg)
        self.out += part
        self.place += count

    def _varint(self, *, copied: bool = True) -> int:
        value = shift = 0
        while True:
            byte = self._source[self.place]
            self.place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        if copied:
            self._put(value)
        return value

    def _put(self, value: int) -> None:
        while value > 0x7F:
            self.out.append(value & 0x7F | 0x80)
            value >>= 7
        self.out.append(value)


def _signed(zigzag: int) -> int:
    return zigzag >> 1 ^ -(zigzag & 1)
