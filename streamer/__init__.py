"""Read a LArPix raw HDF5 file, also while it is being written."""

from streamer.batch import Batch, Gap, Message
from streamer.broadcast import Hub, Subscription, broadcast
from streamer.buffered import Buffered, buffered
from streamer.checkpoint import Checkpoint
from streamer.errors import (
    BadMask,
    CheckpointError,
    FileReplaced,
    GeometryError,
    IncompatibleVersion,
    LayoutError,
    NotReady,
    NotSynchronized,
    PedestalError,
    RowsOutOfRange,
    RowUnreadable,
    StreamError,
    WriterStalled,
)
from streamer.follow import Batches, Follower, PacketBatches, follow
from streamer.packets import Packets, decode
from streamer.position import Position
from streamer.progress import Lag, Stats
from streamer.rawfile import RawFile
from streamer.rawhdf5format import from_rawfile, len_rawfile
from streamer.tail import Tail, tail
from writer.version import __version__

__all__ = [
    "follow",
    "tail",
    "broadcast",
    "buffered",
    "decode",
    "Follower",
    "Tail",
    "Batch",
    "Batches",
    "Buffered",
    "Checkpoint",
    "Gap",
    "Hub",
    "Lag",
    "Message",
    "PacketBatches",
    "Packets",
    "Position",
    "Stats",
    "Subscription",
    "RawFile",
    "from_rawfile",
    "len_rawfile",
    "BadMask",
    "CheckpointError",
    "FileReplaced",
    "GeometryError",
    "IncompatibleVersion",
    "LayoutError",
    "NotReady",
    "NotSynchronized",
    "PedestalError",
    "RowUnreadable",
    "RowsOutOfRange",
    "StreamError",
    "WriterStalled",
    "__version__",
]
