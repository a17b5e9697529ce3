"""What a follower has to give, whatever happens to the writer, the file and the reader."""

from dataclasses import dataclass, field
from pathlib import Path

from streamer import Position

from .machine import Event


@dataclass
class Run:
    """A run, as its writer knows it."""

    number: int
    kind: str
    path: Path
    created: float = 0.0
    #: Rows that are flushed; those that are written; those that are announced.
    committed: int = 0
    written: int = 0
    announced: int = 0
    #: Whether its writer lives, and has it open.
    open: bool = True
    finished: bool = False
    #: Whether a name leads to it; and whether another run was written over it.
    there: bool = True
    destroyed: bool = False
    hidden: bool = False
    #: Rows that were given, by any follower.
    given: int = 0
    #: Of the rows that were committed before the present poll.
    floor: int = 0

    def flushed(self) -> None:
        self.committed = self.written

    def __str__(self) -> str:
        state = "destroyed" if self.destroyed else "there" if self.there else "without a name"
        rows = (
            f"{self.committed} rows committed, {self.written} written, {self.announced} announced"
        )
        return f"run {self.number} ({self.kind}, {self.path.name}, {state}: {rows})"


@dataclass
class Oracle:
    """Holds what one follower after the other gives against what was written."""

    folder: bool
    continues: bool
    runs: dict[int, Run] = field(default_factory=dict)
    #: What was stored by a commit: at least this is not given again.
    stored: tuple[int, int] | None = None
    # Of the present follower: the run it is in, the next row, and those it is done with.
    _run: Run | None = None
    _next: int = 0
    _done: list[int] = field(default_factory=list)
    _start: tuple[Run, int] | None = None
    _gap: bool = False
    #: Why the present follower gives nothing more.
    over: str | None = None
    #: Whether a file may be started again during the present poll.
    restarting: bool = False
    #: The row that cannot be read, if that was said last.
    unreadable: int | None = None

    # Followers

    def begin(self, position: Position | None) -> None:
        """Let another follower begin where the checkpoint says, after checking that."""
        before = [*self._done, *([self._run.number] if self._run else [])]
        last, reached = self._run, self._next
        self._run, self._next, self._done, self._gap = None, 0, [], False
        self._start = self.over = self.unreadable = None
        if position is None:
            assert self.stored is None, "a position that was committed is not stored"
            return
        found = [run for run in self.runs.values() if run.created == position.created]
        assert len(found) == 1, f"stored is a position in no run: {position}"
        run = found[0]
        assert position.row <= run.given, f"stored is row {position.row} of {run}, not given yet"
        if self.stored is not None:
            number, row = self.stored
            if number == run.number:
                assert position.row >= row, f"row {row} was committed, and {position} is stored"
            elif number in before and run.number not in before[before.index(number) + 1 :]:
                # It may have gone on, and have found nothing there yet.
                at = f"row {row} of run {number} was committed, and stored is {position} of {run}"
                assert position.row == 0, at
                assert number < run.number, at
                # Also what was given after it was committed: it has asked for more. Of runs that
                # it has gone through meanwhile, that was checked when it left them; and of one
                # that was gone it was told.
                if self.folder and last is not None and last.there:
                    self._assert_all_given(last, reached)
        self._start = run, position.row
        self.stored = run.number, position.row

    def forget(self) -> None:
        """Start over without a checkpoint."""
        self.stored = None

    def commit(self, position: Position | None) -> None:
        """Count all that was given as stored, after checking that."""
        if self._run is None or position is None:
            assert self._run is None, f"nothing is stored, and given was to row {self._next}"
            return
        if position.created == self._run.created:
            assert position.row == self._next, f"{self._next} rows given, and stored is {position}"
        self.stored = self._run.number, self._next

    def poll(self) -> None:
        """Note what has to be given by now."""
        for run in self.runs.values():
            run.floor = run.committed

    # What comes

    def take(self, event: Event) -> None:
        """Check what a follower has given."""
        what, *rest = event
        if what == "quiet":
            return
        self.unreadable = None
        assert self.over is None, f"{event} after {self.over}"
        getattr(self, f"_take_{what}")(*rest)

    def _take_wrong(self, text: str) -> None:
        raise AssertionError(text)

    def _take_layout(self, text: str) -> None:
        # Of a file that is started again while it is opened, what was read is of neither run.
        assert self.restarting, text

    def _take_row(self, number: int, row: int) -> None:
        run = self.runs[number]
        if run is not self._run:
            self._enter(run, row)
        assert row == self._next, f"row {row}, and not {self._next}, of {run}"
        assert row < run.written, f"row {row} of {run}"
        self._next += 1
        run.given = max(run.given, self._next)

    def _enter(self, run: Run, row: int) -> None:
        assert run.number not in self._done, f"once more: {run}"
        before = self._run
        if before is not None:
            assert self.folder, f"{run} after {before}, without a word"
            self._assert_all_given(before, self._next)
        elif self._start is not None and not self._gap:
            start, first = self._start
            if start is run:
                self._run, self._next = run, first
                return
            assert self.folder, f"{run}, and begun was in {start}"
            self._assert_all_given(start, first)
        self._leave()
        self._run, self._next, self._gap = run, 0, False

    def _leave(self) -> None:
        if self._run is not None:
            self._done.append(self._run.number)
        elif self._start is not None:
            self._done.append(self._start[0].number)
        self._run = self._start = None

    def _assert_all_given(self, run: Run, rows: int) -> None:
        if not run.destroyed:
            assert rows >= run.floor, f"only {rows} rows of {run} when it was left"

    def _take_gap(self, start: int, stop: int | None, reason: str) -> None:
        assert self.continues, "a gap that nobody asked for"
        self._replaced(start, stop == start, reason)
        assert stop in (None, start), f"{start} to {stop} is no gap of a file that is gone"
        self._leave()
        self._gap = True

    def _take_replaced(self, drained: bool, text: str) -> None:
        assert not self.continues, text
        self._replaced(None, drained, text)
        self.over = "replaced"

    def _replaced(self, row: int | None, drained: bool, reason: str) -> None:
        """Check that a file is gone, and that all of it was given that could be."""
        run, rows = self._where
        lost = [one for one in self.runs.values() if one.destroyed or not one.there]
        # In a folder it may be the next one, of which nothing was given.
        if self.folder and run is not None and row in (None, 0):
            later = [one for one in lost if one.number > run.number]
            if later and (run.destroyed or rows >= run.floor):
                return
        if run is None:  # one of which nothing was given
            assert row in (None, 0), f"{reason}: at row {row}"
            if drained:
                lost = [one for one in lost if not one.floor]
            assert lost, reason
            return
        assert row in (None, rows), f"{reason}: at row {row} and not {rows} of {run}"
        assert run.destroyed or not run.there, f"{reason}: but there is {run}"
        if drained:
            assert not run.destroyed, f"{reason}: nobody can know the rest of {run}"
            self._assert_all_given(run, rows)

    @property
    def after_a_gap(self) -> bool:
        """Whether a gap was given last."""
        return self._gap

    @property
    def _where(self) -> tuple[Run | None, int]:
        """The run that the follower is in, and the next row."""
        if self._run is None and self._start is not None and not self._gap:
            return self._start
        return self._run, self._next

    def _take_unreadable(self, row: int, text: str) -> None:
        run, rows = self._where
        if run is None:
            assert any(one.floor <= row < one.announced for one in self.runs.values()), text
        else:
            assert row == rows, f"{text}; the next of {run} is {rows}"
            assert run.floor <= row < run.announced, f"{text}: {run}"
        self.unreadable = row

    def _take_ended(self, outcome: str) -> None:
        assert not self.folder, outcome
        assert outcome == "finished", outcome
        run, rows = self._where
        if run is None:
            assert any(one.finished and not one.floor for one in self.runs.values()), outcome
        else:
            assert run.finished, f"{outcome}: {run}"
            assert rows == run.committed, f"{outcome} at row {rows} of {run}"
        self.over = "ended"

    # In the end

    def missing(self, path: Path) -> list[str]:
        """Return what was not given of what can be read, now that nobody writes."""
        return [
            f"{run.given} rows given of {run}"
            for run in self.runs.values()
            if run.there and (self.folder or run.path == path) and run.given < run.committed
        ]
