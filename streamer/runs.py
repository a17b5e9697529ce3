"""The raw files of a folder, in the order in which they were made, also those to come."""

from __future__ import annotations

import fnmatch
import heapq
import logging
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from streamer.errors import LayoutError, NotReady
from streamer.opening import look_at_meta
from streamer.position import Position
from writer.layout import UNREADABLE

__all__ = ["Run", "RunFolder"]

logger = logging.getLogger("streamer.follow")

# Which files of a folder are looked at, unless a pattern says otherwise.
_PATTERN = "*.h5"

# Some file systems tell the time of a change to the second: a folder that has changed is
# listed again for so long, so often.
_COARSE_SECONDS, _LIST_SECONDS = 2.0, 0.25
# A file that cannot be read yet is tried again after a while, and then after longer ones.
_TRY_SECONDS, _LONGEST_TRY_SECONDS = 0.02, 1.0
# So many files that are known are looked at again each time, in turn: under a name that is
# known may be another run by now, even with the same inode.
_AGAIN, _AGAIN_SECONDS = 50, 2.0
# Clocks of two computers differ by less.
_CLOCKS_SECONDS = 24 * 3600.0


class Run(NamedTuple):
    """A raw file. They sort as they were made."""

    #: Unix time in seconds at which the file says that it was made.
    created: float
    path: Path
    #: None if there is none, or if it cannot be read at present.
    run_id: str | None


@dataclass
class _Name:
    """What is known of the file of a name."""

    inode: int
    changed: int = -1
    #: When to try it again, if it could not be read [monotonic s].
    due: float = 0.0
    pause: float = _TRY_SECONDS


class _Left(NamedTuple):
    """A run that counts as complete, as it was then."""

    #: Where it was left.
    position: Position
    name: str
    modified: int
    size: int

    def has_grown(self, name: str, status: os.stat_result) -> bool:
        """Tell whether a file of this run may have rows that it had not then."""
        if name == self.name:
            return status.st_mtime_ns != self.modified
        return status.st_size > self.size  # a copy


class RunFolder:
    """The raw files of a folder that have not been taken yet.

    Parameters
    ----------
    folder
        The folder; it may be absent as yet.
    pattern
        Which of its files, as a shell pattern.

    Notes
    -----
    Each file is opened once, for what it says of itself. Afterwards a look costs the same
    for ten thousand of them as for ten, until one comes or goes. A copy of a run, or another
    name of it, is no other run.

    Examples
    --------
    >>> import tempfile
    >>> from writer import RawWriter
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("b.h5", "a.h5"):
    ...     RawWriter(folder / name).close()
    >>> runs = RunFolder(folder)
    >>> runs.look()
    True
    >>> runs.take().path.name, runs.take().path.name, runs.take()
    ('b.h5', 'a.h5', None)
    """

    def __init__(self, folder: Path, pattern: str = _PATTERN) -> None:
        self.folder = folder
        self.pattern = pattern
        #: Why there are none, if the folder cannot be listed.
        self.trouble: str | None = None
        #: Files last written before this Unix time are of no interest, and not opened.
        self.skip_before = -math.inf
        #: But these are.
        self.wanted: tuple[str, ...] = ()
        self._names: dict[str, _Name] = {}
        self._unread: dict[str, None] = {}  # in the order in which they were found
        self._again: list[str] = []
        self._waiting: list[Run] = []
        # By the time at which they were made, the runs' ids.
        self._known: dict[float, set[str | None]] = {}
        # The last name under which a run was seen, and all names, with the runs' ids.
        self._paths: dict[float, Path] = {}
        self._copies: dict[float, dict[str, str | None]] = {}
        self._left: dict[float, _Left] = {}
        self._sign: tuple[int, int, int] | None = None
        self._sign_since = self._listed = -math.inf

    def look(self, seconds: float = math.inf) -> bool:
        """Look for files that have come.

        Parameters
        ----------
        seconds
            To open files for so long at the most.

        Returns
        -------
        bool
            Whether all of them have been looked at; False if time was over before.
        """
        try:
            self._list()
        except OSError as error:
            self.trouble = f"{self.folder}: cannot be listed: {error.strerror}"
            return True
        self.trouble = None
        self._look_again()
        now = time.monotonic()
        deadline = now + seconds
        waiting = len(self._waiting)
        later = [name for name in self._unread if self._names[name].due > now]
        for name in list(self._unread):
            if self._names[name].due > now:
                continue
            if time.monotonic() > deadline:
                return False
            self._examine(name)
        if len(self._waiting) > waiting:
            # One that could not be read a moment ago may have been made before it.
            for name in later:
                self._examine(name)
        return True

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def unread(self) -> int:
        """How many files have not been opened, or could not be read yet."""
        return len(self._unread)

    def take(self) -> Run | None:
        """Return the oldest that has not been taken; None if there is none."""
        return heapq.heappop(self._waiting) if self._waiting else None

    def take_newest(self) -> Run | None:
        """Return the newest, and take all that are older too."""
        newest = max(self._waiting, default=None)
        self._waiting.clear()
        return newest

    def newest(self) -> Run | None:
        """Return the newest that has not been taken."""
        return max(self._waiting, default=None)

    def take_from(self, position: Position) -> Run | None:
        """Return the run of a position, and take all that came before it.

        Returns
        -------
        Run or None
            None if it is not there.
        """
        run = None
        later = []
        last = max(position.newest or -math.inf, position.created or -math.inf)
        for found in self._waiting:
            ids = position.run_id, found.run_id
            if found.created == position.created and (None in ids or ids[0] == ids[1]):
                run = found
            elif found.created > last or found.path.name in position.passed_over:
                later.append(found)
        heapq.heapify(later)
        self._waiting = later
        return run

    def passed_over(self, created: float) -> tuple[str, ...]:
        """Return the names of files that have not been taken, and may be older than that."""
        if not self._unread and not self._waiting:
            return ()
        older = {run.path.name for run in self._waiting if run.created <= created}
        return tuple(sorted(older.union(self._unread)))

    def any_before(self, run: Run) -> bool:
        """Tell whether a run has not been taken that is older than this one."""
        return any(other < run for other in self._waiting)

    def may_hold(self, position: Position) -> bool:
        """Tell whether the run of a position may be a file that cannot be read at present."""
        return position.source in self._unread

    def renamed(self, start: object) -> Path | None:
        """Return the name that the run of a position has now; None if it is not there."""
        if not isinstance(start, Position) or start.created is None:
            return None
        path = self._paths.get(start.created)
        return path if path is not None and path.name in self._names else None

    def leave(self, position: Position, path: Path, status: os.stat_result) -> None:
        """Count a run as complete; if it is written after all, it is to be taken once more.

        Parameters
        ----------
        position
            Where it is left.
        path
            The name that it had.
        status
            What the system said of it before it was read to there.
        """
        if path.name in self._names:
            at = _Left(position, path.name, status.st_mtime_ns, status.st_size)
            self._left[position.created or 0.0] = at
            self._names[path.name].changed = status.st_ctime_ns

    def expect(self, position: Position) -> None:
        """If the run of a position comes, let it be taken from there on."""
        self._left[position.created or 0.0] = _Left(position, position.source or "", 0, 0)

    def left_at(self, run: Run) -> Position | None:
        """Return where a run was left; None if it was not begun."""
        left = self._left.pop(run.created, None)
        return None if left is None else left.position

    def longer_copy(self, position: Position, path: Path) -> Path | None:
        """Return the largest file of the same run, if that is another one."""
        copies = self._copies.get(position.created or 0.0, {})
        if len(copies) < 2 or (own := _status(path)) is None:
            return None
        sizes = {path: own.st_size}
        for name, run_id in copies.items():
            same = None in (run_id, position.run_id) or run_id == position.run_id
            other = self.folder / name
            if same and name in self._names and (status := _status(other)) is not None:
                sizes[other] = status.st_size
        longest = max(sizes, key=sizes.__getitem__)
        return longest if sizes[longest] > own.st_size else None

    def forget(self, path: Path) -> None:
        """Look anew at a file, which is another run now."""
        if path.name in self._names:
            self._names[path.name].due = 0.0
            self._unread[path.name] = None

    def _list(self) -> None:
        """List the folder, if it may have changed."""
        status = self.folder.stat()
        sign, now = (status.st_mtime_ns, status.st_ctime_ns, status.st_ino), time.monotonic()
        if sign != self._sign:
            self._sign_since = now
        elif self._listed > self._sign_since + _COARSE_SECONDS or (
            now < self._listed + _LIST_SECONDS
        ):
            return
        self._sign = None  # if this fails, it is tried again
        with os.scandir(self.folder) as entries:
            inodes = {entry.name: entry.inode() for entry in entries}
        self._sign, self._listed = sign, now
        for name in fnmatch.filter(inodes, self.pattern):
            known = self._names.get(name)
            if known is None or known.inode != inodes[name]:
                self._names[name] = _Name(inodes[name])
                self._unread[name] = None
        for name in self._names.keys() - inodes.keys():
            del self._names[name]
            self._unread.pop(name, None)

    def _look_again(self) -> None:
        """Look at some of the files that are known: whether they have changed."""
        if not self._again:
            self._again = list(self._names.keys() - self._unread.keys())
        some, self._again = self._again[:_AGAIN], self._again[_AGAIN:]
        now = time.monotonic()
        for name in some:
            known = self._names.get(name)
            # Not a live one each time.
            if known is not None and name not in self._unread and now > known.due:
                status = _status(self.folder / name)
                if status is not None and status.st_ctime_ns != known.changed:
                    self._unread[name] = None

    def _examine(self, name: str) -> None:
        """Find out which run a file is, if it is one."""
        known, path = self._names[name], self.folder / name
        try:
            status = path.stat()
            if name in self.wanted or status.st_mtime >= self.skip_before - _CLOCKS_SECONDS:
                meta = look_at_meta(path)
                run_id = None if meta.run_id == UNREADABLE else meta.run_id
                self._add(Run(meta.created, path, run_id), status)
        except (NotReady, OSError) as error:
            logger.debug("%s: not readable yet: %s", path, str(error))
            known.due, known.pause = (
                time.monotonic() + known.pause,
                min(2 * known.pause, _LONGEST_TRY_SECONDS),
            )
            return
        except LayoutError as error:
            if known.changed < 0:
                logger.info("%s; left out", str(error))
        known.inode, known.changed, known.pause = status.st_ino, status.st_ctime_ns, _TRY_SECONDS
        known.due = time.monotonic() + _AGAIN_SECONDS
        del self._unread[name]

    def _add(self, run: Run, status: os.stat_result) -> None:
        self._paths[run.created] = run.path
        self._copies.setdefault(run.created, {})[run.path.name] = run.run_id
        left = self._left.get(run.created)
        if not self._is_known(run):
            self._known.setdefault(run.created, set()).add(run.run_id)
            heapq.heappush(self._waiting, run)
        elif (
            left is not None
            and left.has_grown(run.path.name, status)
            and all(waiting.created != run.created for waiting in self._waiting)
        ):
            heapq.heappush(self._waiting, run)
            logger.warning(
                "%s: was written after it had counted as complete; the rest is given out of its "
                "turn. To wait for it, give files a longer rotate_grace",
                run.path,
            )

    def _is_known(self, run: Run) -> bool:
        # While a file is written, its texts cannot always be read.
        known = self._known.get(run.created, set())
        return bool(known) and (run.run_id is None or None in known or run.run_id in known)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None
