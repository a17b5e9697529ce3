"""The steps of following files one after the other: the runs of a folder, or of one name."""

from __future__ import annotations

import fnmatch
import logging
import math
import os
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from streamer.batch import Gap
from streamer.choice import Choice
from streamer.errors import FileReplaced, NotReady, RowUnreadable
from streamer.position import Position
from streamer.runs import Run, RunFolder
from streamer.step import Place, Step
from streamer.steps import ADVICE, Steps

__all__ = ["DEFAULT_ROTATE_GRACE", "FIRST", "Call", "Sequence", "is_many"]

logger = logging.getLogger("streamer.follow")

#: Seconds for which a file has to be still before the next run is given.
DEFAULT_ROTATE_GRACE = 5.0
#: Where to begin.
FIRST = Place(0, None)

# A folder of thousands of runs is looked through in parts, between which one can stop.
_LOOKING_SECONDS = 0.2
# So often it is asked whether a step that waits for another is still wanted.
_WAITING_SECONDS = 0.1


class Call(Protocol):
    """Who asks for a step."""

    #: Whether nobody waits for it any more.
    is_over: bool


class Sequence:
    """The steps of following a file, or the files of a folder. Any thread may call.

    Parameters
    ----------
    source, start, until, io_groups, max_batch_bytes, on_replace, rotate_grace
        As in :func:`streamer.follow`.

    Raises
    ------
    ValueError
        If one makes no sense.

    Notes
    -----
    A step is a function of the place: one that was abandoned, because its caller was
    cancelled, may be repeated, and gives the same files in the same order.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        *,
        start: str | int | Position,
        until: str | int,
        io_groups: Collection[int] | None,
        max_batch_bytes: int,
        on_replace: str,
        rotate_grace: float,
    ) -> None:
        if on_replace not in ("raise", "continue"):
            msg = f"on_replace is {on_replace!r}, not 'raise' or 'continue'"
            raise ValueError(msg)
        if not rotate_grace >= 0:
            msg = f"rotate_grace is {rotate_grace}, not a number of seconds"
            raise ValueError(msg)
        if not os.fspath(source):
            msg = "the source is empty: not the name of a file, a folder or a pattern"
            raise ValueError(msg)
        self.path = Path(source)
        self.start = start
        #: How often it looked.
        self.looks = 0
        self._choice = Choice.of(start, until, io_groups, max_batch_bytes)
        self._continues = on_replace == "continue"
        self._grace = rotate_grace
        # The lock makes a step that was abandoned and the next one follow each other. All
        # below belongs to who holds it.
        self._lock = threading.RLock()
        self._closed = False
        self._runs = _runs_of(os.fspath(source))
        self._begun = self._warned = False
        self._last: Run | None = None
        self._files: list[Steps] = []
        self._oldest = 0  # of those that are open
        self._newest = -math.inf
        if isinstance(start, Position):
            self._newest = start.newest or -math.inf
        if self._runs is None:
            self._files.append(Steps(self.path, self._choice))
        elif not _suits_runs(self._choice):
            msg = "of many files, start must be 'beginning', 'end', -n or a Position, not a row"
            msg = f"{self.path}: {msg}, and until 'finished' or 'end'"
            raise ValueError(msg)

    @property
    def watched(self) -> tuple[Path, str]:
        """The folder in which something changes when there may be more, and what there."""
        if self._runs is not None:
            return self._runs.folder, self._runs.pattern
        # The link itself does not change when the file behind it does.
        target = Path(os.path.realpath(self.path))  # of any link, also one to itself
        return target.parent, _literally(target.name)

    def takes(self, path: Path) -> bool:
        """Tell whether a file of this name would be followed."""
        folder, pattern = self.watched
        same = path.absolute().parent.resolve() == folder.resolve()
        return same and fnmatch.fnmatchcase(path.name, pattern)

    @property
    def ahead(self) -> int:
        """How many files are known and were not opened yet."""
        opened = sum(steps.identity is None for steps in self._files[self._oldest :])
        return opened + (len(self._runs) if self._runs is not None else 0)

    @property
    def retries(self) -> int:
        """How many looks were at rows that had been seen announced and could not be read."""
        return sum(steps.retries for steps in self._files)

    def step(self, place: Place, call: Call) -> Step:
        """Look for rows from a place on, and read them.

        Parameters
        ----------
        place
            Where to go on; `FIRST` to begin with.
        call
            Who asks. If nobody waits for it any more, nothing is looked for.

        Returns
        -------
        Step
            Rows, or none; and where to go on.

        Raises
        ------
        FileReplaced, RowUnreadable, LayoutError
            As :meth:`Steps.step`.
        """
        # Behind a step that takes its time, many may wait whose callers have gone long ago.
        while not self._lock.acquire(timeout=_WAITING_SECONDS):
            if self._closed or call.is_over:
                return Step(place)
        try:
            if self._closed or call.is_over:
                return Step(place)
            self.looks += 1
            if place.file == len(self._files):
                try:
                    waiting = self._open_next(place)
                except FileReplaced as error:
                    return self._replaced(place, error)
                if waiting is not None:
                    self._warn(waiting)
                    return waiting
            step = self._step(place)
            return step if self._runs is None else self._with_others(step, self._runs)
        finally:
            self._lock.release()

    def _warn(self, waiting: Step) -> None:
        """Say once what is waited for; but not that a large folder takes its time."""
        told = self._begun or (self._runs is not None and self._runs.trouble is not None)
        if told and not (self._warned or self._files or waiting.outcome):
            self._warned = True
            logger.warning("%s; waiting for it", waiting.trouble)

    def _with_others(self, step: Step, runs: RunFolder) -> Step:
        """Say of the files that are not being read what a position has to know."""
        if step.facts is None:
            return step
        # One that is known to follow, and has not been begun, is none of them.
        self._newest = max(self._newest, step.facts.created)
        newest = None if self._newest <= step.facts.created else self._newest
        others = runs.passed_over(max(self._newest, step.facts.created))
        taken = (steps.path.name for steps in self._files[step.place.file + 1 :])
        others = tuple(sorted({*others, *taken}))
        return step._replace(facts=step.facts._replace(newest=newest, passed_over=others))

    def _step(self, place: Place) -> Step:
        while self._oldest < place.file:  # whoever asks has all that it had
            self._files[self._oldest].close()
            self._oldest += 1
        steps = self._files[place.file]
        try:
            return self._step_in(steps, place)
        except (NotReady, OSError) as error:  # only just now: at the next look it is known
            return Step(place, trouble=str(error))

    def _step_in(self, steps: Steps, place: Place) -> Step:
        try:
            step = steps.step(place.row)
        except FileReplaced as error:
            if place.row is None and self._found_again(place.file):
                return Step(place)
            if self._runs is None or not error.drained:
                return self._replaced(place, error)
            step = Step(place)  # in a folder, it may have another name now
        except RowUnreadable:
            if not self._is_over(steps, place):
                raise
            step = Step(place)
        if self._runs is None:
            is_idle = step.facts is not None and not (step.read or step.outcome)
            if is_idle and steps.ending is not None:
                steps.ending.tell_of_silence(step.place.row or 0)
            return step
        if step.read:  # if this was its end, that is none of the folder
            return step._replace(outcome=None)
        return self._at_the_end(steps, step)

    # A name that is given to another file

    def _replaced(self, place: Place, error: FileReplaced) -> Step:
        """Go on with the file that has the name now, or tell of it."""
        if not self._continues:
            raise error
        logger.warning("%s; going on with what comes next", str(error))
        steps = self._files[place.file] if place.file < len(self._files) else None
        after = Place(place.file + 1, None)
        row, was, start = place.row, steps.identity if steps else None, self._choice.start
        if self._runs is None:
            if after.file == len(self._files):
                ended = None if row is None or was is None else was.at(row)
                choice = self._choice._replace(start="beginning")
                self._files.append(Steps(self.path, choice, after.file, ended))
        elif steps is not None:
            self._runs.forget(steps.path)
        else:  # the file of the position is not there: what takes its place has no rows
            self._begun = True
            if isinstance(start, Position):  # if it comes back, it goes on there
                self._runs.expect(start)
            self._files.append(Steps(self.path, self._choice, place.file))
        if row is None:
            row = start.row if isinstance(start, Position) and not place.file else 0
        gap = Gap(row, row if error.drained else None, str(error), steps.path if steps else None)
        return Step(after, gap=gap)

    # Many files

    def _open_next(self, place: Place) -> Step | None:
        """Go on to the next run of the folder; say what to wait for if there is none."""
        assert self._runs is not None
        start = self._choice.start
        if isinstance(start, Position) and not self._begun:
            self._runs.skip_before = start.created or 0.0
            self._runs.wanted = (*start.passed_over, start.source or "")
        through = self._runs.look(_LOOKING_SECONDS)
        if self._runs.trouble is not None:
            return Step(place, trouble=self._runs.trouble)
        if not through:
            trouble = f"{self.path}: looking through it, {self._runs.unread} files to go"
            return Step(place, trouble=trouble)
        if self._begun:
            run, begin = self._runs.take(), None
        elif isinstance(start, Position) and self._runs.may_hold(start):
            return Step(place, trouble=f"{self.path}: {start.source} cannot be read at present")
        else:
            self._last = self._runs.newest()
            run, begin = self._first_run()
            self._begun = True
        if run is None:
            outcome = "end" if self._choice.until == "end" else None
            return Step(place, outcome=outcome, trouble=f"{self.path}: no raw file in it yet")
        begin = begin or self._runs.left_at(run) or Position(0, run.created, run.run_id)
        choice = self._choice._replace(start=begin)
        self._files.append(Steps(run.path, choice, len(self._files)))
        return None

    def _first_run(self) -> tuple[Run | None, str | int | Position | None]:
        """Return the run to begin with, and where in it if that is not its beginning."""
        assert self._runs is not None
        start = self._choice.start
        if start == "beginning":
            return self._runs.take(), None
        if not isinstance(start, Position):  # the end, or the last rows before it
            return self._runs.take_newest(), start
        if start.created is None:  # of one that had found no file
            return self._runs.take(), None
        run = self._runs.take_from(start)
        if run is None:
            gone = f"the file that the position is of, {start.source}, is not there"
            msg = f"{self.path}: {gone}{ADVICE}"
            raise FileReplaced(msg)
        return run, start

    def _at_the_end(self, steps: Steps, step: Step) -> Step:
        """Go on with the next run, if this one has nothing more to give."""
        assert self._runs is not None
        place = step.place
        if place.row is not None and step.outcome != "finished" and steps.identity is not None:
            # A copy that was made before the end is not where the run goes on.
            longer = self._runs.longer_copy(steps.identity, steps.path)
            if longer is not None:
                logger.warning("%s: is a copy that ends early; going on in %s", steps.path, longer)
                begin = self._choice._replace(start=steps.identity.at(place.row))
                self._files[place.file] = Steps(longer, begin, place.file)
                steps.close()
                return step._replace(place=Place(place.file, None), outcome=None, trouble=None)
        ending, identity = steps.ending, steps.identity
        if place.row is None or ending is None or identity is None:
            if place.row is None and ending is None and not steps.path.exists():
                if self._found_again(place.file):
                    return step
                reason = f"{steps.path}: was removed before it was read"
                return self._replaced(place, FileReplaced(reason))
            return step
        if step.outcome == "end" and self._last is not None:
            # After the last one, those that were passed over, if it needs no place any more.
            after_last = (identity.created or 0.0) >= self._last.created
            if after_last and not (ending.finished and self._runs.any_before(self._last)):
                return step
        if step.outcome == "end" and not ending.finished and not self._is_over(steps, place):
            # What its writer still has for it would be lost to who goes on from a later run.
            return step if ending.has_grown(place.row) else step._replace(outcome=None)
        if step.outcome is None and not self._is_over(steps, place):
            return step
        if not self._has(place.file + 1):
            return step if step.outcome == "end" else step._replace(outcome=None)
        self._runs.leave(identity.at(place.row), steps.path, ending.status)
        if step.facts is not None and place.row < step.facts.announced:
            text = "%s: rows %d to %d were announced and never written; going on with the next run"
            logger.warning(text, steps.path, place.row, step.facts.announced)
        # The outcome is that of the file alone.
        return step._replace(place=Place(place.file + 1, None), outcome=None, trouble=None)

    def _found_again(self, number: int) -> bool:
        """Look for a run that has not been begun under another name."""
        if self._runs is None:
            return False
        self._runs.look(_LOOKING_SECONDS)
        steps = self._files[number]
        path = self._runs.renamed(steps.choice.start)
        if path is None or path == steps.path:
            return False
        steps.close()
        self._files[number] = Steps(path, steps.choice, number)
        return True

    def _is_over(self, steps: Steps, place: Place) -> bool:
        """Tell whether a file that a newer one has followed will have no more rows."""
        ending = steps.ending
        if self._runs is None or ending is None or place.row is None:
            return False
        return self._has(place.file + 1) and ending.is_over(place.row, self._grace)

    def _has(self, number: int) -> bool:
        """Tell whether there are so many files."""
        assert self._runs is not None
        return number < len(self._files) or (
            self._open_next(Place(number, None)) is None and number < len(self._files)
        )

    def close(self) -> None:
        """Close all files. Waits for a step that is under way. Idempotent."""
        self._closed = True
        with self._lock:
            for steps in self._files:
                steps.close()


def is_many(source: str | os.PathLike[str]) -> bool:
    """Tell whether a source is a folder or a pattern, and not a single file."""
    path = Path(source)
    if path.is_dir() or os.fspath(source).endswith(os.sep):
        return True
    return any(sign in str(path) for sign in "*?[") and not path.exists()


def _runs_of(source: str) -> RunFolder | None:
    if not is_many(source):
        return None
    path = Path(source)
    if any(sign in str(path.parent) for sign in "*?[") and not path.parent.exists():
        msg = f"{source}: a pattern may stand in the name of the files only, not in the folder's"
        raise ValueError(msg)
    if path.is_dir() or source.endswith(os.sep):
        return RunFolder(path)
    return RunFolder(path.parent, path.name)


def _literally(name: str) -> str:
    """Return the pattern of which a name is the only match."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in name)


def _suits_runs(choice: Choice) -> bool:
    """Tell whether what is chosen makes sense of many files, each with rows of its own."""
    if not isinstance(choice.until, str):
        return False
    return not isinstance(choice.start, int) or choice.start < 0
