"""What is wrong with and around a raw file, and what to do: ``streamer doctor``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from streamer.contents import Contents, look_into
from streamer.errors import LayoutError, NotReady
from streamer.host import (
    FileSystem,
    Holder,
    Holders,
    Locking,
    file_system,
    holders,
    locking,
)
from streamer.opening import open_descriptor
from streamer.show import byte_figure, iso_time
from streamer.state import State
from streamer.summary import Advice, advise
from writer.layout import MSG_HEADERS, MSGS
from writer.lock import is_locked
from writer.superblock import read_superblock

__all__ = ["Diagnosis", "diagnose"]


class Diagnosis(NamedTuple):
    """A raw file and what is around it, at one moment."""

    path: Path
    contents: Contents
    holders: Holders
    file_system: FileSystem
    locking: Locking
    advice: list[Advice]

    @property
    def healthy(self) -> bool:
        """Whether nothing has to be done."""
        return not any(advice.wrong for advice in self.advice)

    @property
    def uncommitted(self) -> int | None:
        """Rows that are announced, by one dataset at least, and not committed."""
        rows, lengths = self.contents.rows, self.contents.lengths
        return None if rows is None or lengths is None else max(lengths) - rows

    @property
    def unwritten(self) -> int | None:
        """Rows that both datasets announce, and that cannot be read."""
        rows, lengths = self.contents.rows, self.contents.lengths
        return None if rows is None or lengths is None else min(lengths) - rows

    def lines(self) -> list[tuple[str, str]]:
        """Return what to show, as names and values."""
        found, uncommitted = self.contents, self.uncommitted
        lines = [("file", str(self.path)), ("state", f"{found.state}: {found.because}")]
        if found.rows is not None and found.lengths is not None:
            lines.append(("rows", f"{found.rows:,} committed"))
            said = f"{uncommitted:,} rows, of which both datasets announce {self.unwritten:,}"
            lines.append(("uncommitted", said if uncommitted else "none"))
            if found.lengths[0] != found.lengths[1]:
                lines.append((MSGS, f"{found.lengths[0]:,} rows"))
                lines.append((MSG_HEADERS, f"{found.lengths[1]:,} rows"))
            verified = f"{found.samples:,} rows read and verified; streamer stat reads all"
            lines.append(("samples", verified))
        if found.file_bytes is not None:
            figure = byte_figure(found.file_bytes)
            lines.append(("on disk", f"{found.file_bytes:,} bytes ({figure})"))
        if found.meta is not None:
            lines.append(("created", iso_time(found.meta.created)))
            lines.append(("writer", found.meta.writer or "not stated"))
            lines.append(("reading", str(found.reading)))
        if found.flushes is not None:
            lines.append(("flushes", found.flushes))
        if found.state not in ("absent", "folder"):
            lines += self._held_by()
        kind, mount, reach = self.file_system
        where = f"{kind} on {mount}" if mount is not None else kind
        counted = "unknown, counts as remote" if reach == "unknown" else reach
        lines.append(("file system", f"{where} ({counted})"))
        value = self.locking.value
        said = "not set" if value is None else repr(value)
        return [*lines, ("locking", f"HDF5_USE_FILE_LOCKING is {said}")]

    def _held_by(self) -> Iterator[tuple[str, str]]:
        name = "held by"
        for holder in self.holders.found:
            yield name, _described(holder)
            name = ""
        hidden = self.holders.hidden
        if hidden is None:
            yield name, "unknown: it cannot be seen here"
        elif hidden:
            yield name, f"unknown of {hidden} processes of other users; only root may see them"
        elif name:
            yield name, "no process that can be seen here"

    def as_dict(self) -> dict[str, Any]:
        """Return the same for a program, ready for JSON."""
        found = self.contents
        lengths, meta = found.lengths, found.meta
        return {
            "file": str(self.path),
            "healthy": self.healthy,
            "state": found.state,
            "because": found.because,
            "rows": found.rows,
            "uncommitted": self.uncommitted,
            "unwritten": self.unwritten,
            "lengths": lengths and {MSGS: lengths[0], MSG_HEADERS: lengths[1]},
            "samples": found.samples,
            "file_bytes": found.file_bytes,
            "end_bytes": found.end_bytes,
            "created": meta and iso_time(meta.created),
            "writer": meta and meta.writer,
            "run_id": meta and meta.run_id,
            "reading": found.reading,
            "flushes": found.flushes,
            "holders": [holder._asdict() for holder in self.holders.found],
            "hidden_processes": self.holders.hidden,
            "file_system": {**self.file_system._asdict(), "remote": self.file_system.remote},
            "locking": {"HDF5_USE_FILE_LOCKING": self.locking.value, **_effects(self.locking)},
            "findings": [advice._asdict() for advice in self.advice],
        }


def _effects(setting: Locking) -> dict[str, bool]:
    return {name: value for name, value in setting._asdict().items() if name != "value"}


def _described(holder: Holder) -> str:
    does = {True: "writes", False: "reads", None: "cannot be looked into"}[holder.writes]
    lock = f"{'an' if holder.lock == 'exclusive' else 'a'} {holder.lock} lock"
    return f"{holder.pid} {holder.command}: {does}, {f'with {lock}' if holder.lock else 'no lock'}"


def diagnose(path: Path) -> Diagnosis:
    """Find out how a raw file is, and what is around it that may do harm.

    Nothing is locked, and nothing disturbed; it takes a tenth of a second, and at most two.

    Parameters
    ----------
    path
        The file; it may be anything, or absent.

    Returns
    -------
    Diagnosis
        What was found.

    Examples
    --------
    >>> import tempfile
    >>> from writer import RawWriter
    >>> path = Path(tempfile.mkdtemp()) / "raw.h5"
    >>> with RawWriter(path) as out:
    ...     rows = out.append([b"first", b"second"], io_groups=1)
    >>> found = diagnose(path)
    >>> found.contents.state, found.contents.rows
    ('finished', 2)
    """
    setting = locking(os.environ)
    # In an environment that makes HDF5 lock whatever it is told, another has to do it.
    contents = look_into(path, apart=setting.always)
    found, where = holders(path), file_system(path)
    writers = [holder for holder in found.found if holder.writes]
    if contents.state == State.WRITER_GONE.value and writers:
        why = (
            f"process {writers[0].pid} ({writers[0].command}) has it open for writing, and pauses"
        )
        contents = contents._replace(state=State.LIVE.value, because=why)
    advice = [
        *_about_contents(path, contents),
        *_about_holders(path, contents, found, where),
        *_about_place(contents, where),
        *_about_locking(contents, setting),
    ]
    return Diagnosis(path, contents, found, where, setting, advice)


# ------------------------------------------------------------------------ judging


def _about_contents(path: Path, found: Contents) -> Iterator[Advice]:
    if found.remedy is not None:
        yield Advice(found.state.replace(" ", "-"), True, found.remedy)
    size, end = found.file_bytes, found.end_bytes
    # Of a living writer, the two are not of one moment.
    if size is not None and end is not None and end > size and found.state != State.LIVE.value:
        text = (
            f"The file is {end - size:,} bytes shorter than it says: a copy that is not complete, "
            "or a disk that was full. Copy it again from where it was written."
        )
        yield Advice("cut-short", True, text)
    if found.rows is None or found.lengths is None:
        return
    state = State(found.state)
    yield from advise(state, found.rows, found.lengths, found.unreadable)
    if found.flushes != "datasets only" or size is None or end is None:
        return
    behind = (
        f"the superblock still says that the file ends at byte {end:,}, and {size - end:,} bytes "
        "lie behind that"
    )
    if state is State.LIVE:
        text = (
            f"Its writer flushes datasets and never the file: {behind}. Readers of this project "
            "see all that it flushed; readers with h5py see no message there before it closes "
            "the file. If it is killed, do not open the file for writing: HDF5 would cut it off "
            f"at that byte. streamer recover FILE OUT copies it. Better, let the writer call "
            "File.flush() after each batch."
        )
        yield Advice("flushes-datasets-only", False, text)
    elif state is State.WRITER_GONE:
        text = (
            f"Its writer was killed before it flushed the file: {behind}. h5py can read no "
            "message there, and whoever opens the file for writing, or clears its mark, cuts "
            f"them off. streamer recover FILE OUT copies all rows into a sound file."
        )
        yield Advice("end-behind", True, text)


def _about_holders(
    path: Path, found: Contents, seen: Holders, where: FileSystem
) -> Iterator[Advice]:
    for holder in seen.found:
        if (
            holder.lock is None
            or holder.writes
            or (holder.writes is None and holder.lock != "shared")
        ):
            continue
        text = (
            f"Process {holder.pid} ({holder.command}) has a lock on the file and only reads it: a "
            "DAQ that opens the file now, with HDF5's locks as they are by default, fails with "
            "'unable to lock file' and loses its batch. End that process; start it again with "
            "HDF5_USE_FILE_LOCKING=FALSE, or let it open the file with locking=False."
        )
        yield Advice("reader-locks", found.state != State.FINISHED.value, text)
    writers = [holder for holder in seen.found if holder.writes]
    if len(writers) > 1:
        numbers = ", ".join(str(holder.pid) for holder in writers)
        text = (
            f"Processes {numbers} have it open for writing. A process that was forked has what "
            "its parent had; if they are not such, end all but one: two writers spoil a file."
        )
        yield Advice("several-writers", False, text)
    if (
        found.state == State.LIVE.value
        and not writers
        and seen.hidden == 0
        and not where.remote
        and _is_marked_only(path)
    ):
        text = (
            "It is marked as open for writing and was written a moment ago, but no process that "
            "can be seen here has it. If its writer is not in another container, it was killed: "
            "look again in 5 seconds."
        )
        yield Advice("writer-not-seen", False, text)


def _is_marked_only(path: Path) -> bool:
    """Tell whether a file is still marked as open for writing, and not locked by a RawWriter."""
    try:
        fd = open_descriptor(path)
    except (NotReady, LayoutError):
        return False
    try:
        superblock = read_superblock(fd)
        marked = superblock is not None and superblock.version >= 3 and not superblock.closed
        return marked and not is_locked(fd)
    finally:
        os.close(fd)


def _about_place(found: Contents, where: FileSystem) -> Iterator[Advice]:
    may_grow = found.state not in (State.FINISHED.value, "folder")
    if where.kind == "overlay" and may_grow:
        text = (
            "The file is in a container's own layer (overlay): it goes with the container, and "
            "who looks from outside may see an older file. Mount the folder of the data instead."
        )
        yield Advice("overlay", False, text)
    if not where.remote or not may_grow:
        return
    if where.reach == "unknown":
        what = f"The file system is of a kind that is not known here ({where.kind}): it counts as "
    else:
        what = f"The file system ({where.kind}) is "
    if where.kind.startswith(("nfs", "cifs", "smb")):
        promise = "HDF5 does not promise that a file can be read there while it is written"
    elif where.kind in ("lustre", "gpfs", "mmfs"):
        promise = "HDF5 was tested on it, and needs the locks of its servers to be coherent"
    else:
        promise = "HDF5 was not tested on it for reading while a file is written"
    text = (
        f"{what}remote: {promise}, writers on other hosts cannot be seen, and there are no file "
        "events, so that new rows are seen at the next poll. Rows are verified all the same. "
        "Best write to a local disk, and follow the file on the host that writes it."
    )
    yield Advice("remote", False, text)


def _about_locking(found: Contents, setting: Locking) -> Iterator[Advice]:
    fails = (
        "While one has the file, a DAQ that opens it with HDF5's locks as they are by default "
        "fails with 'unable to lock file' and loses its batch. larpix-control means to turn them "
        "off for itself, but does so after h5py is loaded, too late; a RawWriter asks for none."
    )
    cure = (
        "Set HDF5_USE_FILE_LOCKING=FALSE where readers are started, and start those that run "
        "already anew: HDF5 looks at it once, when it is loaded."
    )
    if setting.always:
        text = (
            f"HDF5_USE_FILE_LOCKING={setting.value} endangers the DAQ: HDF5 then locks each file, "
            "also where a program says locking=False. So plain h5py scripts that are started here "
            "lock; readers of this project give the lock back in the millisecond in which they "
            f"open a file. {fails} A RawWriter that is started here locks too, and fails if there "
            f"is a reader that does. This doctor has looked without. {cure}"
        )
        yield Advice("locking-forced", True, text)
    elif setting.ignored:
        text = (
            f"HDF5_USE_FILE_LOCKING={setting.value} does nothing: HDF5 knows FALSE, 0, TRUE, 1 "
            "and BEST_EFFORT, in capitals, and ignores all else. So plain h5py scripts that are "
            f"started here lock; readers of this project do not. {fails} {cure}"
        )
        yield Advice("locking-ignored", True, text)
    elif setting.by_default and found.state in (State.LIVE.value, State.CLOSED.value):
        text = (
            "HDF5_USE_FILE_LOCKING is not set: plain h5py scripts that are started here lock the "
            "file, also with swmr=True, unless they say locking=False. Readers of this project "
            f"never lock. {fails} {cure}"
        )
        yield Advice("locking-by-default", False, text)
