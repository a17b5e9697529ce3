"""Make a LArPix raw HDF5 file. Lives inside data-taking processes: loads h5py and numpy only."""

from writer.errors import (
    BadBatch,
    CannotWrite,
    DiskFull,
    LengthMismatch,
    UnknownField,
    WriterBusy,
    WriterError,
    WriterKilled,
)
from writer.layout import IncompatibleVersion, LayoutError
from writer.rawhdf5format import to_rawfile
from writer.rawwriter import RawWriter
from writer.version import __version__

__all__ = [
    "RawWriter",
    "to_rawfile",
    "BadBatch",
    "CannotWrite",
    "DiskFull",
    "IncompatibleVersion",
    "LayoutError",
    "LengthMismatch",
    "UnknownField",
    "WriterBusy",
    "WriterError",
    "WriterKilled",
    "__version__",
]
