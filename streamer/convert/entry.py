"""Convert a raw file into packets: ``streamer convert``."""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from streamer.convert.converting import CannotConvert, Make, Source, TooNarrow, Work
from streamer.convert.naming import partial_names, tidy
from streamer.convert.packetfile import PacketFile
from streamer.convert.partial import CannotMake, Partial
from streamer.convert.progress import Progress
from streamer.convert.report import Conversion
from streamer.convert.resuming import resumed, what_is_kept
from streamer.errors import LayoutError, StreamError
from streamer.packets import check_options
from streamer.rawfile import RawFile
from streamer.sequence import is_many

__all__ = ["FORMS", "convert"]

logger = logging.getLogger("streamer.convert")

#: What a raw file can be converted to.
FORMS = ("hdf5", "parquet")

_PARQUET_NAMES = (".parquet", ".pq")


def convert(
    raw: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    follow: bool = False,
    to: str | None = None,
    overwrite: bool = False,
    wire: str = "auto",
    asic: str | Mapping[int, str] = "v2",
    compressed: bool = False,
    stop: threading.Event | None = None,
    told: Callable[[int, int], None] | None = None,
) -> Conversion:
    """Convert a raw file into a file of packets.

    Parameters
    ----------
    raw
        The raw file: one file, live or not.
    out
        The file of packets. It gets this name once it is complete.
    follow
        Whether to convert also what is still to come, until the run is over; and to wait for
        a file that is absent. Otherwise what is there now.
    to
        ``"hdf5"``: a packets file 2.4, with the datasets, types, attributes and values that
        larpix-control's ``parse`` and ``to_file`` give. ``"parquet"``: a table with the same
        columns after one more, ``row``, i8: the message that each packet is from; needs
        pyarrow. By default what the name of `out` says.
    overwrite
        Whether `out` may exist, and another conversion may have been begun there.
    wire, asic
        As in :func:`streamer.packets.decode`.
    compressed
        Whether to compress the packets of an HDF5 file, with gzip: a third as large or less,
        and a third as fast. larpix-control does not, and reads it all the same. Parquet always
        is compressed.
    stop
        Set by another thread, or a handler of signals, to stop it soon. With `follow`, that is
        the end: what has been committed by then is converted, and the file completed.
        Otherwise :class:`Stopped` is raised.
    told
        Called now and then with the rows that are done, and all that there are.

    Returns
    -------
    Conversion
        How much it was, and the messages that could not be decoded.

    Raises
    ------
    CannotConvert
        If the output cannot have that name; if it cannot be written, as on a full disk; if no
        message could be decoded at all; if pyarrow is needed and not installed.
    Stopped
        If it was stopped.
    NotReady, LayoutError
        If there is no raw file.
    RowUnreadable, FileReplaced
        As in :func:`streamer.follow`.
    ValueError
        If an argument makes no sense.

    Notes
    -----
    Until it is complete, it is ``OUT.partial``; with ``OUT.partial.state``, where it is stored
    every two seconds how far it is. The same call goes on from there if this one was
    interrupted, also by a kill, a crash of the machine or a full disk: no packet is lost, and
    none comes twice. Another version of this software starts over, so that no file is decoded
    by two.

    What cannot be decoded is counted and left out; it never costs another message. A message
    whose words are not all known loses those words only.

    Memory does not grow with the file.

    Examples
    --------
    >>> import tempfile
    >>> from writer.recording import record
    >>> folder = Path(tempfile.mkdtemp())
    >>> done = record(folder / "raw.h5", load="tile", seconds=0.1, fast=True)
    >>> conversion = convert(folder / "raw.h5", folder / "packets.h5")
    >>> conversion.messages == done.rows, conversion.faults
    (True, {})
    """
    raw, out = Path(raw), Path(out)
    form = to or ("parquet" if out.suffix.lower() in _PARQUET_NAMES else "hdf5")
    if form not in FORMS:
        msg = f"to is {to!r}, not one of {', '.join(FORMS)}"
        raise ValueError(msg)
    check_options(wire, asic)
    make = _maker(form, compressed)
    obstacle = _obstacle(raw, out, overwrite)
    if obstacle is not None:
        raise CannotConvert(obstacle)
    if not follow:
        RawFile(raw).close()  # raises if there is nothing to convert
    asics = asic if isinstance(asic, str) else {str(key): asic[key] for key in sorted(asic)}
    options = {"to": form, "wire": wire, "asic": asics, "compressed": compressed}
    source = Source(raw, follow, stop or threading.Event(), wire, asic)
    with _opened(out) as partial:
        try:
            progress = resumed(partial, source, options, overwrite=overwrite) or Progress(options)
            while True:
                try:
                    with Work(source, partial, make, progress) as work:
                        work.run(told or _unseen)
                        break
                except TooNarrow as needed:
                    # The file does not say which wire it is of, and has messages of both.
                    logger.warning("%s: has messages of two wires; starting over", raw)
                    partial.restart()
                    progress = Progress(options, needed.dtype)
            # It may be hours since the name was looked at.
            obstacle = _obstacle(raw, out, overwrite)
            if obstacle is not None:
                raise CannotMake(obstacle)
            partial.finish(overwrite=overwrite)
            return work.report()
        except CannotMake as error:
            msg = f"{error}{what_is_kept(partial)}"
            raise CannotConvert(msg) from error


def _opened(out: Path) -> Partial:
    try:
        return Partial(out)
    except CannotMake as error:
        raise CannotConvert(str(error)) from error


def _unseen(done: int, total: int) -> None:
    pass


def _maker(form: str, compressed: bool) -> Make:
    if form == "hdf5":
        return functools.partial(PacketFile, compressed=compressed)
    try:
        from streamer.convert.parquet import ParquetFile
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "pyarrow":
            raise
        msg = "Parquet needs the package pyarrow: pip install pyarrow"
        raise CannotConvert(msg) from error
    return ParquetFile


def _obstacle(raw: Path, out: Path, overwrite: bool) -> str | None:
    """Say why an output cannot have that name, if it cannot."""
    if is_many(raw):
        return f"{raw}: a folder or a pattern, not one file: convert its files one by one"
    try:
        reason = _wrong_name(raw, out, overwrite)
    except OSError as error:  # of a folder that is not accessible
        return f"{error.filename}: {error.strerror}"
    return None if reason is None else f"{out}: {reason}"


def _wrong_name(raw: Path, out: Path, overwrite: bool) -> str | None:
    """Say what is wrong with the name of an output, if anything is."""
    # Also of a file that is still to come: none of these may ever be a raw file's.
    if any(_is_same(raw, path) for path in (out, *partial_names(out))):
        return "this name, or that of its partial files, is the raw file; give another name"
    if out.is_dir():
        return "is a folder"
    if not out.parent.is_dir():
        return f"there is no folder {out.parent}"
    if not os.path.lexists(out):
        return None
    if out.exists() and not out.is_file():
        return "is a pipe or a device, not a file"
    if not overwrite:
        tidy(out)
        return "exists already; --overwrite replaces it"
    if _is_raw(out):
        return "is a raw file, which is never overwritten"
    return None


def _is_same(one: Path, other: Path) -> bool:
    """Tell whether two names are of the same file, or will be."""
    if one.exists() and other.exists():
        return one.samefile(other)
    # Unlike resolve(), it takes a link to itself for a name.
    return os.path.realpath(one) == os.path.realpath(other)


def _is_raw(path: Path) -> bool:
    try:
        RawFile(path).close()
    except (StreamError, LayoutError):
        return False
    return True
