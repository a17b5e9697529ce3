"""Whether a file will have more rows: it has been still, has lost its name, or its writer says."""

from __future__ import annotations

import logging
import time

from streamer.errors import FileReplaced
from streamer.rawfile import RawFile

__all__ = ["Ending"]

logger = logging.getLogger("streamer.follow")

# A writer that has lost its file to another name is given so long for its last rows.
_DRAIN_SECONDS = 1.0
# A DAQ appends some ten times a second; without hits, its heartbeats come every few seconds.
_SILENT_SECONDS = 5.0


class Ending:
    """What is known of the end of one open file.

    Parameters
    ----------
    raw
        The file.
    late_seconds
        How much later than others a page of it may be seen, in seconds.

    Attributes
    ----------
    status : os.stat_result
        What the system said of the file just before the last look.

    Notes
    -----
    This process may be held up at any place, as by a file server that hangs, for longer than a
    file has to be still. Then what it saw proves nothing: so whatever is concluded from a look
    holds only if the file has not changed since just before that.
    """

    def __init__(self, raw: RawFile, *, late_seconds: float) -> None:
        self._raw = raw
        self._late_seconds = late_seconds
        self.status = raw.status
        self._told = False
        self._seen: tuple[int, ...] = ()
        self._seen_since = 0.0
        # Since when its name is another file's or none; and, besides, it cannot be read.
        self._orphaned: float | None = None
        self._lost: float | None = None

    def begin_look(self) -> None:
        """Note how the file is; before each look."""
        self.status = self._raw.status

    def end_look(self, *, has_read: bool = False) -> None:
        """Note that it could be looked at; and whether rows were read."""
        self._lost = None
        if has_read:
            self._orphaned = None

    @property
    def finished(self) -> bool:
        """Whether its writer has ended the run and said so."""
        return self._raw.finished

    def has_grown(self, row: int) -> bool:
        """Tell whether there are rows from this one on, which were not there at the first look."""
        return not self._raw.was_left_at(row)

    def is_over(self, row: int, seconds: float) -> bool:
        """Tell whether no row from this one on is there, or will come: it is still for so long."""
        raw = self._raw
        if row >= min(raw.lengths):
            return self._is_still(seconds)
        # What is announced may be there as soon as all pages have come.
        still = self._is_still(max(seconds, 2 * self._late_seconds))
        return still and not raw.is_final(row) and raw.was_left_at(row)

    def _is_still(self, seconds: float) -> bool:
        """Tell whether the file has not changed for so long, by its own clock or by ours."""
        raw = self._raw
        sign, now = raw.sign, time.monotonic()
        if sign != self._seen:
            self._seen, self._seen_since = sign, now
        return max(now - self._seen_since, raw.age) > seconds and not self._has_changed()

    def _has_changed(self) -> bool:
        """Tell whether the file has been written since the last look."""
        then, now = self.status, self._raw.status
        return (then.st_mtime_ns, then.st_size) != (now.st_mtime_ns, now.st_size)

    def tell_of_silence(self, row: int) -> None:
        """Say once that perhaps no row will come from this one on: most files never say so."""
        raw = self._raw
        if self._told or raw.is_held or not self.is_over(row, _SILENT_SECONDS):
            return
        self._told = True
        logger.warning(
            "%s: last written %.0f s ago, and nothing in it says that its run is over; waiting "
            "for row %d. To stop at what is there, follow until='end'",
            raw.path,
            raw.age,
            row,
        )

    def check_name(self) -> None:
        """Make sure that a file of which all rows have been read may have more.

        Raises
        ------
        FileReplaced
            If its name is another file's or none, and its writer adds nothing.
        """
        raw = self._raw
        reason = raw.orphaned
        if reason is None:
            self._orphaned = None
            return
        now = time.monotonic()
        self._orphaned = self._orphaned or now
        # Its writer may still have rows for it, under another name or none.
        if now - self._orphaned > _DRAIN_SECONDS and raw.still and not self._has_changed():
            msg = f"{raw.path}: {reason}, and all rows of the file that was followed were given"
            raise FileReplaced(msg, drained=True)

    def is_lost(self, error: Exception) -> bool:
        """Tell whether a file that cannot be read at present has lost its name besides.

        Raises
        ------
        FileReplaced
            If that lasts.
        """
        reason = self._raw.orphaned
        if reason is None:
            self._lost = None
            return False
        now = time.monotonic()
        self._lost = self._lost or now
        if now - self._lost > _DRAIN_SECONDS:
            msg = f"{self._raw.path}: {reason}, and what it still had cannot be read: {error}"
            raise FileReplaced(msg) from error
        return True
