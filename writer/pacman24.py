"""The bytes inside a message of the newer wire, version 1.0: headers and words of 24 bytes.

As `writer.pacman`, for the cards with new firmware (mulhearn/pacman: ``pacman_message.hh`` and
its twin ``pacman_message.py``), which usually read LArPix v3. All is little-endian, and bytes
that no field names are zero. There were three forms of the header, all of them called 1.0, see
`Revision`.

>>> hit = pack(V3_DATA_BITS, packet_type=1, chip_id=11, channel_id=3, dataword=700)
>>> stream = words(Word.DATA, io_channel=[1, 2], receipt_timestamp=1_264, packet=hit)
>>> buffer, lengths = messages(stream, counts=[2])
>>> len(buffer), lengths.tolist(), buffer[:24].view(Revision.LAST.header)["bytes"].tolist()
(72, [72], [48])
"""

from enum import Enum, IntEnum
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from writer.fields import at_offsets, behind, filled, within
from writer.larpix import V3_DATA_BITS, pack
from writer.pacman import SyncType

__all__ = [
    "WORD",
    "MAX_WORDS",
    "VERSION",
    "MessageType",
    "Revision",
    "SyncType",
    "Word",
    "V3_DATA_BITS",
    "pack",
    "words",
    "messages",
]

#: A word of any kind. It leaves no byte unnamed, so that a copy of it is complete.
WORD: Final = at_offsets(24, type=("u1", 0), body=("V23", 1))

#: As many words as the data server puts into a message; a header can count more.
MAX_WORDS: Final = 16_000

#: Major and minor version in each header.
VERSION: Final = (1, 0)


class MessageType(IntEnum):
    """The first byte of a header, of which a raw file holds DATA. TEXT is not made of words.

    >>> chr(MessageType.TEXT)
    'S'
    """

    DATA = ord("D")
    REQUEST = ord("?")
    REPLY = ord("!")
    TEXT = ord("S")


_FIRST = {"major": ("u1", 1), "minor": ("u1", 2), "words": ("<u4", 4)}
_LATER = {"pacman": ("u1", 1), "major": ("u1", 2), "minor": ("u1", 3)}
_TIME = {"timestamp": ("<u8", 8)}


class Revision(Enum):
    """The forms of the header, each with its ``header`` dtype.

    FIRST counts words, and its version is in bytes 1 and 2. SECOND has the card's id in byte 1,
    and the version after it. LAST counts bytes instead. The data servers of all of them leave
    the timestamp 0; clients of LAST put Unix nanoseconds there.

    >>> Revision.FIRST.header.names, Revision.LAST.header.names[-2:]
    (('type', 'major', 'minor', 'words', 'timestamp'), ('bytes', 'timestamp'))
    """

    FIRST = _FIRST
    SECOND = _LATER | {"words": ("<u4", 4)}
    LAST = _LATER | {"bytes": ("<u4", 4)}

    def __init__(self, fields: dict[str, tuple[str, int]]) -> None:
        self.header = at_offsets(24, type=("u1", 0), **fields, **_TIME)


_CARD = {"pacman": ("u1", 1)}
_PACKET = {
    **_CARD,
    "io_channel": ("<u2", 2),
    "receipt_timestamp": ("<u8", 8),
    "packet": ("<u8", 16),
}
_REGISTER = {**_CARD, "address": ("<u4", 8), "value": ("<u4", 12)}


class Word(Enum):
    """The kinds of words: the ``letter`` in the first byte, and the ``dtype`` of all 24.

    A raw file holds DATA, CONFIG, which is a packet too, TRIG and SYNC. ``pacman`` is the id
    that a card has; timestamps are ticks.

    >>> chr(Word.CONFIG.letter), Word.CONFIG.dtype.names[1:]
    ('C', ('pacman', 'io_channel', 'receipt_timestamp', 'packet'))
    """

    DATA = "D", _PACKET
    CONFIG = "C", _PACKET
    TRIG = (
        "T",
        {**_CARD, "trigger_type": ("u1", 2), "trigger_source": ("u1", 3), **_TIME},
    )
    SYNC = (
        "S",
        {
            **_CARD,
            "sync_type": ("u1", 2),
            "clk_source": ("u1", 3),
            **_TIME,
            "status": ("<u4", 16),
        },
    )
    PING = "P", _CARD
    WRITE = "W", _REGISTER
    READ = "R", _REGISTER
    ERR = "E", {**_CARD, **_TIME, "code": ("<u4", 16)}

    def __init__(self, letter: str, fields: dict[str, tuple[str, int]]) -> None:
        self.letter = ord(letter)
        self.dtype = at_offsets(24, type=("u1", 0), **fields)


def words(kind: Word, **fields: ArrayLike) -> NDArray[np.void]:
    """Make words of one kind; as `writer.pacman.words`.

    Examples
    --------
    >>> words(Word.TRIG, trigger_type=2, timestamp=[10, 1 << 40])["timestamp"].tolist()
    [10, 1099511627776]
    """
    made = filled(f"{kind.name} word", kind.dtype, fields)
    made["type"] = kind.letter
    return made


def messages(
    words: NDArray[np.void],
    counts: ArrayLike,
    timestamps: ArrayLike = 0,
    *,
    pacman: ArrayLike = 0,
    kind: MessageType = MessageType.DATA,
    revision: Revision = Revision.LAST,
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Put words behind headers, message after message.

    Parameters
    ----------
    words
        Words of all the messages, in order, any dtype of 24 bytes, of shape (n,).
    counts
        Number of words of each message, of shape (m,), which add up to n.
    timestamps
        For each header, of shape (m,) or a scalar: 0, or Unix nanoseconds.
    pacman
        Id of the card, of shape (m,) or a scalar. `Revision.FIRST` has none.
    kind
        Type of the messages.
    revision
        Form of the headers.

    Returns
    -------
    buffer
        All messages, contiguous, u1, of shape (24 m + 24 n,).
    lengths
        Length of each message [bytes], i8, of shape (m,).

    Raises
    ------
    ValueError
        If the counts do not add up, a value does not fit into a header, or these are not words.
    TypeError
        If there is an id of a card, and no place for it in the header.

    Examples
    --------
    >>> syncs = words(Word.SYNC, sync_type=SyncType.SYNC, timestamp=[10_000_000, 9_999_999])
    >>> buffer, lengths = messages(syncs, [0, 2])
    >>> lengths.tolist(), len(buffer)
    ([24, 72], 96)
    """
    top = np.iinfo(np.uint32).max // WORD.itemsize
    sizes = np.atleast_1d(within("counts", counts, top)).astype(np.int64)
    of_card = {"pacman": pacman} if np.any(pacman) else {}
    headers = np.zeros(len(sizes), revision.header)
    headers[...] = filled(
        f"header of revision {revision.name}",
        revision.header,
        {"timestamp": timestamps, "major": VERSION[0], "minor": VERSION[1], **of_card},
    )
    headers["type"] = kind
    if revision is Revision.LAST:
        headers["bytes"] = WORD.itemsize * sizes
    else:
        headers["words"] = sizes
    return behind(headers, words, sizes, WORD.itemsize)
