"""Whether a call may go on with what another one has begun, and from where."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from streamer.convert.converting import CannotConvert, Source
from streamer.convert.partial import Partial
from streamer.convert.progress import Progress
from streamer.errors import FileReplaced, NotReady
from streamer.rawfile import RawFile
from streamer.tail import tail
from writer.version import __version__

__all__ = ["resumed", "what_is_kept"]

logger = logging.getLogger("streamer.convert")

# A file in which a position is looked up is there; HDF5 may need a few attempts to open it.
_LOOK_SECONDS = 10.0
# So often one looks whether a file has come that is followed.
_WAITING_SECONDS = 0.25


def resumed(
    partial: Partial, source: Source, options: dict[str, Any], *, overwrite: bool
) -> Progress | None:
    """Return how far the same call has come; start over if that cannot be gone on with.

    Parameters
    ----------
    partial
        What the output is made in.
    source
        What is to be converted. If it is followed, it may be absent for the moment.
    options
        How.
    overwrite
        Whether another conversion may have been begun there.

    Returns
    -------
    Progress or None
        None if there is nothing to go on with; then nothing is stored.

    Raises
    ------
    CannotConvert
        If it is somebody's who wanted something else.
    NotReady
        If the file cannot be read, and is not to be waited for.
    """
    if partial.stored is None:
        return None
    if source.follow:
        _wait_for(source)
    facts = dict(partial.stored.facts)
    if facts.pop("version", None) != __version__:
        # Whose halves were decoded by two versions would be of neither, and nothing that
        # another one has stored is sure to mean the same.
        logger.warning("%s: was begun by another version; starting over", partial.path)
        partial.restart()
        return None
    progress = Progress.from_facts(facts)
    reason = _difference(progress, source.raw, options)
    if reason is None and not _is_outdated(progress, source.raw):
        return progress
    if reason is None:
        logger.warning("%s: complete, but rows have come since; starting over", partial.path)
    elif not overwrite:
        msg = f"{partial.path}: {reason}; remove it, or overwrite it, to start over"
        raise CannotConvert(msg)
    partial.restart()
    return None


def _wait_for(source: Source) -> None:
    """Wait until the file can be opened: without it nobody knows whether it is the same."""
    said = False
    while True:
        try:
            RawFile(source.raw).close()
        except NotReady as error:
            if source.stop.wait(_WAITING_SECONDS):
                raise
            if not said:
                logger.warning("%s; waiting for it", str(error))
                said = True
        else:
            return


def _difference(progress: Progress, raw: Path, options: dict[str, Any]) -> str | None:
    """Say why what was begun is not what is to be made, if it is not."""
    if progress.options != options:
        return "was begun with other options, or for another format"
    position = progress.position
    if position.created is not None:
        try:
            # Nothing is read, but the position is made sure of.
            with tail(raw, start=position, until=position.row, idle_timeout=_LOOK_SECONDS) as at:
                at.next_batch()
        except StopIteration:
            pass
        except FileReplaced as error:
            return f"was begun with another file: {error}"
    return None


def _is_outdated(progress: Progress, raw: Path) -> bool:
    """Tell whether what is complete would not be so if it were begun now."""
    if progress.outcome not in ("end", "stopped"):
        return False
    with RawFile(raw) as file:
        return len(file) > progress.position.row


def what_is_kept(partial: Partial) -> str:
    """Say what there is to go on with; if there is nothing, leave nothing."""
    if partial.stored is None or not (row := partial.stored.facts["position"]["row"]):
        partial.discard()
        return ""
    kept = partial.path.name
    return f". Its first {row:,} rows are kept in {kept}; the same call goes on there"
