"""The bytes inside a message: dtypes of headers and words, packing.

A message is a header of 8 bytes and up to 65,535 words of 16 bytes, all little-endian
(io_version 0.0). Every kind of word is a dtype of 16 bytes, so the same memory can be viewed
as any of them; bytes that no field names are zero. A DATA word carries a LArPix packet, a
64-bit number whose fields are in `writer.larpix`. The newer wire is in `writer.pacman24`.

The formats are those of the legacy PACMAN firmware (larpix/pacman:
``larpix_to_axi_stream.vhd``, ``larpix_trig_to_axi_stream.vhd``,
``larpix_clk_to_axi_stream.vhd``) and of larpix-control (``pacman_msg_format.py``), and fields
bear larpix-control's names.

>>> hit = pack(DATA_BITS, chip_id=11, channel_id=3, timestamp=1_000, dataword=42)
>>> stream = words(Word.DATA, io_channel=[1, 2], receipt_timestamp=1_264, packet=hit)
>>> buffer, lengths = messages(stream, counts=[2], seconds=1_700_000_000)
>>> len(buffer), lengths.tolist(), buffer[:8].view(HEADER)["words"].tolist()
(40, [40], [2])
"""

from enum import Enum, IntEnum
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from writer.fields import at_offsets, behind, filled, within
from writer.larpix import CONFIG_BITS, DATA_BITS, PacketType, pack, parity_ok, with_parity

__all__ = [
    "HEADER",
    "WORD",
    "MAX_WORDS",
    "TICKS_PER_SECOND",
    "MessageType",
    "SyncType",
    "PacketType",
    "Word",
    "DATA_BITS",
    "CONFIG_BITS",
    "pack",
    "with_parity",
    "parity_ok",
    "words",
    "messages",
]

#: Header of a message: its `MessageType`, when it was put together [Unix seconds], and how
#: many words follow.
HEADER: Final = at_offsets(8, type=("u1", 0), seconds=("<u4", 1), words=("<u2", 6))

#: A word of any kind. It leaves no byte unnamed, so that a copy of it is complete.
WORD: Final = at_offsets(16, type=("u1", 0), body=("V15", 1))

#: As many words as a header can count.
MAX_WORDS: Final = 0xFFFF

#: Timestamps in words and packets count ticks of the 10 MHz master clock.
TICKS_PER_SECOND: Final = 10_000_000


class MessageType(IntEnum):
    """The first byte of a header, of which a raw file holds DATA only.

    >>> chr(MessageType.DATA)
    'D'
    """

    DATA = ord("D")
    REQUEST = ord("?")
    REPLY = ord("!")


class SyncType(IntEnum):
    """The second byte of a SYNC word, which says what the word's timestamp is.

    SYNC: the last value of a counter that was reset, or rolled over. HEARTBEAT: the counter
    now. CLOCK_SWITCH: the same, and ``clk_source`` is the new source.

    >>> chr(SyncType.HEARTBEAT)
    'H'
    """

    SYNC = ord("S")
    HEARTBEAT = ord("H")
    CLOCK_SWITCH = ord("C")


_NO_FIELDS: dict[str, tuple[str, int]] = {}


class Word(Enum):
    """The kinds of words: the ``letter`` in the first byte, and the ``dtype`` of all 16.

    A raw file holds DATA, TRIG and SYNC. The others travel in requests and replies, where TX
    has the letter of DATA; PONG, the reply to PING, is the same bytes and therefore the same
    member. Mind that timestamps [ticks] begin at byte 2, unaligned, in DATA and at byte 4 in
    TRIG and SYNC.

    >>> chr(Word.SYNC.letter), Word.SYNC.dtype.names
    ('S', ('type', 'sync_type', 'clk_source', 'timestamp'))
    """

    DATA = "D", {"io_channel": ("u1", 1), "receipt_timestamp": ("<u4", 2), "packet": ("<u8", 8)}
    TRIG = "T", {"trigger_type": ("u1", 1), "timestamp": ("<u4", 4)}
    SYNC = "S", {"sync_type": ("u1", 1), "clk_source": ("u1", 2), "timestamp": ("<u4", 4)}
    PING = "P", _NO_FIELDS
    PONG = "P", _NO_FIELDS
    WRITE = "W", {"address": ("<u4", 4), "value": ("<u4", 12)}
    READ = "R", {"address": ("<u4", 4), "value": ("<u4", 12)}
    TX = "D", {"io_channel": ("u1", 1), "packet": ("<u8", 8)}
    ERR = "E", {"code": ("u1", 1), "description": ("S14", 2)}

    def __init__(self, letter: str, fields: dict[str, tuple[str, int]]) -> None:
        self.letter = ord(letter)
        self.dtype = at_offsets(16, type=("u1", 0), **fields)


def words(kind: Word, **fields: ArrayLike) -> NDArray[np.void]:
    """Make words of one kind.

    Parameters
    ----------
    kind
        Which kind.
    **fields
        Values of the fields of ``kind.dtype`` except ``type``, whose shapes broadcast to (n,).
        What is left out is zero; text longer than its field is cut.

    Returns
    -------
    NDArray
        Words, ``kind.dtype``, of shape (n,); one word if all the fields are scalars.

    Raises
    ------
    TypeError
        If this kind of word has no such field.
    ValueError
        If a value does not fit into its field.

    Examples
    --------
    >>> words(Word.TRIG, trigger_type=2, timestamp=[10, 20])["timestamp"].tolist()
    [10, 20]
    """
    made = filled(f"{kind.name} word", kind.dtype, fields)
    made["type"] = kind.letter
    return made


def messages(
    words: NDArray[np.void],
    counts: ArrayLike,
    seconds: ArrayLike,
    *,
    kind: MessageType = MessageType.DATA,
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Put words behind headers, message after message.

    Parameters
    ----------
    words
        Words of all the messages, in order, any dtype of 16 bytes, of shape (n,).
    counts
        Number of words of each message, of shape (m,), which add up to n; each up to 65,535.
    seconds
        Unix seconds for each header, of shape (m,) or a scalar.
    kind
        Type of the messages.

    Returns
    -------
    buffer
        All messages, contiguous, u1, of shape (8 m + 16 n,).
    lengths
        Length of each message [bytes], i8, of shape (m,).

    Raises
    ------
    ValueError
        If the counts do not add up, a value does not fit into a header, or these are not words.

    Examples
    --------
    >>> syncs = words(Word.SYNC, sync_type=SyncType.SYNC, timestamp=[10_000_000, 9_999_999])
    >>> buffer, lengths = messages(syncs, [0, 2], 1_700_000_000)
    >>> lengths.tolist(), len(buffer)
    ([8, 40], 48)
    """
    sizes = np.atleast_1d(within("counts", counts, MAX_WORDS)).astype(np.int64)
    headers = np.zeros(len(sizes), HEADER)
    headers["type"] = kind
    headers["seconds"] = within("seconds", seconds, np.iinfo(np.uint32).max)
    headers["words"] = sizes
    return behind(headers, words, sizes, WORD.itemsize)
