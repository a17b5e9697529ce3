"""Raw files become files of packets: HDF5 2.4, as larpix-control makes them, and Parquet."""

from streamer.convert.converting import CannotConvert, Stopped
from streamer.convert.entry import FORMS, convert
from streamer.convert.report import Conversion

__all__ = ["FORMS", "CannotConvert", "Conversion", "Stopped", "convert"]
