"""Whatever happens to writer, file and reader, in any order: each row once, or a word why not."""

import logging
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, currently_in_test_context, note, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from streamer.checkpoint import Checkpoint

from .machine import BRISK, KINDS, LOOSE, Reader, Remote, Server, serving
from .oracle import Oracle, Run

#: So long may it take until all is given that can be read [s].
PATIENCE = 6.0
ROWS = st.sampled_from([1, 2, 3, 7, 16, 17, 40, 150])


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Server, Server]]:
    """A writer's server and a reader's."""
    with serving("writer") as writer, serving("reader") as reader:
        yield writer, reader


class World:
    """A folder, who writes in it, who reads it, and the oracle that watches both.

    Its methods are the things that can happen; each says by its return whether it could.
    """

    def __init__(
        self, writer: Server, reader: Server, *, folder: bool = False, continues: bool = True
    ) -> None:
        self._writer, self._reader_server = writer, reader
        self._base = Path(tempfile.mkdtemp(prefix="machine"))
        self._runs = self._base / "runs"
        self._checkpoint = self._base / "state" / "position"
        # The reader may be nobody, who has to come in and to store his position.
        for path in (self._base, self._runs, self._checkpoint.parent):
            path.mkdir(exist_ok=True)
            path.chmod(0o777)
        self.oracle = Oracle(folder, continues)
        self.source = self._runs if folder else self._runs / "raw.h5"
        self._current: Run | None = None
        self.reader: Reader | Remote | None = None
        self._before: list | None = None
        #: Whether something was found, so that there is no sense in going on.
        self.broken = False

    # The writer

    def _tell(self, run: Run, do: str, **arguments) -> dict:
        return next(self._writer.ask(do=do, run=run.number, **arguments))

    def _open(self, kind: str, path: Path, mode: str = "x") -> Run:
        run = Run(len(self.oracle.runs) + 1, kind, path)
        run.created = self._tell(run, "open", kind=kind, path=str(path), mode=mode)["created"]
        self.oracle.runs[run.number] = run
        return run

    def _close(self, run: Run, *, finished: bool = True) -> None:
        """End a run properly: what was announced is written first."""
        if run.open:
            if run.announced > run.written:
                self._append(run, run.announced - run.written)
            self._tell(run, "close", finished=finished)
            run.flushed()
            run.open = False
            run.finished = finished and run.kind == "rawwriter"

    def _append(self, run: Run, rows: int, *, flush: bool = True) -> None:
        stop = run.written + rows
        options = {"flush": flush} if run.kind in LOOSE else {}
        before, run.written = run.written, stop
        run.announced = max(run.announced, stop)
        self._tell(run, "append", rows=[before, stop], options=options)
        if flush:
            run.flushed()

    @property
    def writable(self) -> Run | None:
        """The run that can go on."""
        run = self._current
        if run is None or run.destroyed or not run.open:
            return None
        # The stock writer opens it by its name.
        return None if run.kind == "stock" and (not run.there or run.hidden) else run

    def append(self, rows: int, *, flush: bool = True) -> None:
        """Append, or write and leave it to HDF5 when it comes to the file."""
        run = self.writable
        assert run is not None
        self._append(run, rows, flush=flush or run.kind not in LOOSE)

    def resize(self, rows: int) -> None:
        """Enlarge both datasets, and write nothing."""
        run = self.writable
        assert run is not None
        run.announced += rows
        self._tell(run, "resize", rows=run.announced)
        run.flushed()

    def next_file(self, kind: str, *, finished: bool = True) -> None:
        """Close the run and begin another one, in a file of its own."""
        number = len(self.oracle.runs) + 1
        if self._current is not None:
            self._close(self._current, finished=finished)
        if self.oracle.folder:
            path = self._runs / f"run_{number}.h5"
        else:
            path = self.source
            old = self._named(path)
            if old is not None:
                path.rename(path.with_name(f"raw.h5.{number}"))
                old.there = False
        self._current = self._open(kind, path)

    def restart(self, kind: str) -> None:
        """Begin another run in the same file, as mode "w" does."""
        old = self._current
        assert old is not None
        self._close(old)
        old.there, old.destroyed = False, True
        self._current = self._open(kind, old.path, "w")

    def rename_over(self, kind: str, rows: int, *, leave: bool) -> None:
        """Give the name to a new run. The writer of the old one may go on with that."""
        old = self._current
        assert old is not None
        # In a folder, a run that a newer one has followed is to be still; and the stock writer
        # would go on in the new one.
        leave = leave and old.open and not self.oracle.folder and old.kind != "stock"
        if not leave:
            self._close(old)
        new = self._open(kind, self._base / "new")
        if rows:
            self._append(new, rows)
        new.path.rename(old.path)
        new.path, old.there = old.path, False
        if kind == "stock":  # it knows the name only
            self._tell(new, "open", kind=kind, path=str(new.path), mode="a")
        if leave:
            self._close(new)
        else:
            self._current = new

    def delete(self) -> None:
        """Remove the name; a writer that has the file open goes on."""
        run = self._current
        assert run is not None
        run.path.unlink()
        run.there = False

    def _named(self, path: Path) -> Run | None:
        found = [run for run in self.oracle.runs.values() if run.there and run.path == path]
        return found[0] if found else None

    @property
    def named(self) -> Run | None:
        """The current run, if it has a name that one can open it by."""
        run = self._current
        return run if run is not None and run.there and not run.hidden else None

    def hide(self) -> None:
        """Take away all rights."""
        run = self._current
        assert run is not None
        run.path.chmod(0)
        run.hidden = True

    def show(self) -> None:
        """Give them back, for all files."""
        for run in self.hidden:
            run.path.chmod(0o644)
            run.hidden = False

    @property
    def hidden(self) -> list[Run]:
        """The runs that nobody may read."""
        return [run for run in self.oracle.runs.values() if run.hidden and run.there]

    def kill_writer(self) -> None:
        """Kill it; what it had not flushed may be there or not. A stock file goes on."""
        self._writer.kill()
        for run in self.oracle.runs.values():
            run.open = run.open and run is self._current and run is self.writable
            run.open = run.open and run.kind == "stock"
            if run.open:
                self._tell(run, "open", kind="stock", path=str(run.path), mode="a")

    # The reader

    def resume(self, *, remote: bool) -> None:
        """Follow, from where the checkpoint says."""
        if self.reader is not None:
            return
        self.oracle.begin(Checkpoint(self._checkpoint).load())
        options = {
            "checkpoint": str(self._checkpoint),
            "on_replace": "continue" if self.oracle.continues else "raise",
        }
        if remote:
            self.reader = Remote(self._reader_server, str(self.source), **options)
        else:
            self.reader = Reader(str(self.source), **options)

    def _take(self, events) -> None:
        before = self._before
        for event in events or ():
            follows = event[0] == "row" and before == [*event[:2], event[2] - 1]
            if not follows and before != event and currently_in_test_context():
                note(f"    {event}"[:300])
            before = self._before = event
            self.broken = True
            self.oracle.take(event)
            self.broken = False

    def kill_reader(self) -> None:
        """Kill it, with all that it has not stored."""
        reader, self.reader = self.reader, None
        if reader is not None:
            self._take(reader.kill())

    def kill_reader_in_a_poll(self, after: float) -> None:
        """Kill it while it gives rows."""
        self.resume(remote=True)
        reader = self.reader
        assert reader is not None
        self.oracle.poll()
        reader.begin(1000, batches=False)
        self._reader_server.wait_for_some(after)
        self.kill_reader()

    def _after_a_poll(self) -> None:
        if self.oracle.over == "replaced":  # start again, as one is told
            self.kill_reader()
            for path in self._checkpoint.parent.iterdir():
                path.unlink()
            self.oracle.forget()
        elif self.oracle.over is not None:
            self.kill_reader()

    def poll(self, most: int = 1000, *, batches: bool = False, remote: bool = False) -> None:
        """Take some of what there is."""
        self.resume(remote=remote)
        assert self.reader is not None
        self.oracle.poll()
        self._take(self.reader.poll(most, batches=batches))
        self._after_a_poll()

    def poll_beside(self, happening, most: int = 1000, *, batches: bool = False) -> None:
        """Take some of what there is, while something happens."""
        self.resume(remote=True)
        assert self.reader is not None
        self.oracle.poll()
        self.reader.begin(most, batches=batches)
        happening()
        self._take(self.reader.finish())
        self._after_a_poll()

    def commit(self) -> None:
        """Store the position."""
        if self.reader is None:
            return
        self._take(self.reader.commit())
        self.oracle.commit(Checkpoint(self._checkpoint).load())

    # In the end

    def settle(self, *, kill: bool = True, remote: bool = False) -> None:
        """Check that all that can be read is given, once nobody writes any more."""
        if kill:
            self._writer.kill()
        for run in list(self.oracle.runs.values()):
            if not kill:
                self._close(run)
            run.open = False
        self.show()
        deadline = time.monotonic() + PATIENCE
        first = True
        while first or (missing := self.oracle.missing(self.source)):
            if not first:
                told = f"not given: {missing}; unreadable: {self.oracle.unreadable}"
                assert time.monotonic() < deadline, told
            self.poll(remote=remote)
            first = False

    def close(self) -> None:
        """Leave nothing behind."""
        self._writer.kill()
        self._reader_server.kill()
        self.reader = None
        shutil.rmtree(self._base)


class Machine(RuleBasedStateMachine):
    """All that can happen, in any order."""

    servers: tuple[Server, Server]
    world: World | None = None

    @initialize(
        folder=st.booleans(),
        continues=st.booleans(),
        kind=st.sampled_from(KINDS),
        rows=ROWS,
        begun=st.booleans(),
        remote=st.booleans(),
        killed=st.booleans(),
    )
    def begin(self, folder, continues, kind, rows, begun, remote, killed):
        self.end = {"kill": killed, "remote": remote}
        self.world = World(*self.servers, folder=folder, continues=continues)
        if begun:
            self.world.next_file(kind)
            self.world.append(rows)
        self.world.resume(remote=remote)

    @precondition(lambda self: self.world.writable)
    @rule(rows=ROWS)
    def append(self, rows):
        self.world.append(rows)

    @precondition(lambda self: self.world.writable and self.world.writable.kind in LOOSE)
    @rule(rows=ROWS)
    def append_without_flush(self, rows):
        self.world.append(rows, flush=False)

    @precondition(lambda self: self.world.writable and self.world.writable.kind in LOOSE)
    @rule(rows=ROWS)
    def resize_without_write(self, rows):
        self.world.resize(rows)

    @rule(kind=st.sampled_from(KINDS), finished=st.booleans())
    def next_file(self, kind, finished):
        self.world.next_file(kind, finished=finished)

    @precondition(lambda self: self.world.named)
    @rule(kind=st.sampled_from(KINDS))
    def restart(self, kind):
        self.world.restart(kind)

    @precondition(lambda self: self.world.named)
    @rule(kind=st.sampled_from(KINDS), rows=ROWS, leave=st.booleans())
    def rename_over(self, kind, rows, leave):
        self.world.rename_over(kind, rows, leave=leave)

    @precondition(lambda self: self.world.named)
    @rule()
    def delete(self):
        self.world.delete()

    @precondition(lambda self: self.world.named)
    @rule()
    def chmod_000(self):
        self.world.hide()

    @precondition(lambda self: self.world.hidden)
    @rule()
    def chmod_back(self):
        self.world.show()

    @rule()
    def kill_writer(self):
        self.world.kill_writer()

    @rule()
    def kill_reader(self):
        self.world.kill_reader()

    @rule(after=st.sampled_from([0.0, 0.002, 0.005]))
    def kill_reader_in_a_poll(self, after):
        self.world.kill_reader_in_a_poll(after)

    @rule(remote=st.booleans())
    def resume(self, remote):
        self.world.resume(remote=remote)

    @rule(most=st.sampled_from([1, 5, 1000]), batches=st.booleans(), remote=st.booleans())
    def poll(self, most, batches, remote):
        self.world.poll(most, batches=batches, remote=remote)

    @rule(most=st.integers(1, 5), stored=st.booleans(), remote=st.booleans())
    def kill_reader_after_a_few(self, most, stored, remote):
        self.world.poll(most, remote=remote)
        if stored:
            self.world.commit()
            self.world.poll(most, remote=remote)
        self.world.kill_reader()

    @precondition(lambda self: self.world.writable)
    @rule(rows=ROWS, batches=st.booleans())
    def append_beside_a_poll(self, rows, batches):
        self.world.poll_beside(lambda: self.world.append(rows), batches=batches)

    @precondition(lambda self: self.world.named)
    @rule(kind=st.sampled_from(KINDS), rows=ROWS, batches=st.booleans())
    def restart_beside_a_poll(self, kind, rows, batches):
        def restart():
            self.world.restart(kind)
            self.world.append(rows)

        self.world.oracle.restarting = True
        self.world.poll_beside(restart, batches=batches)
        self.world.oracle.restarting = False

    @rule()
    def commit(self):
        self.world.commit()

    def teardown(self):
        if self.world is not None:
            try:
                if not self.world.broken:
                    self.world.settle(**self.end)
            finally:
                self.world.close()


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Let the reader in this process not wait long for what cannot come here."""
    # Records that are kept keep their errors, and these what they were raised in.
    caplog.set_level(logging.ERROR, "streamer.follow")
    for name, seconds in BRISK.items():
        monkeypatch.setattr(name, seconds)


def _run(servers: tuple[Server, Server], examples: int, number: int | None) -> None:
    chosen = settings(
        max_examples=examples,
        stateful_step_count=20,
        derandomize=number is None,
        database=None,
        deadline=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        # What other processes do meanwhile is not told again: to shrink it does not help.
        phases=[Phase.generate],
    )
    machine = type("Machine", (Machine,), {"servers": servers})
    run_state_machine_as_test(
        machine if number is None else seed(number)(machine), settings=chosen
    )


@pytest.fixture
def world(servers: tuple[Server, Server], request: pytest.FixtureRequest) -> Iterator[World]:
    """A world of its own, as the test has asked for it."""
    found = World(*servers, **request.param)
    yield found
    found.close()


@pytest.mark.parametrize("world", [{"continues": True}, {"continues": False}], indirect=True)
def test_a_torn_tail_of_a_file_that_lost_its_name(world: World):
    """Rows that were announced, and never will be written, do not hide the next run."""
    world.next_file("datasets")
    world.append(5)
    world.resize(3)
    world.poll(remote=True)
    world.kill_writer()
    world.rename_over("stock", 4, leave=False)
    world.settle(remote=True)
    assert world.oracle.unreadable is None


@pytest.mark.parametrize("world", [{"folder": True}], indirect=True)
def test_a_run_that_could_not_be_read_when_a_newer_one_was(world: World):
    """Who goes on from a checkpoint is given the older run that can be read now."""
    world.next_file("stock")
    world.append(3)
    world.hide()
    world.next_file("stock")
    world.append(4)
    world.poll(remote=True)
    world.commit()
    world.kill_reader()
    world.show()
    world.settle(remote=True)
    assert world.oracle.runs[1].given == 3


@pytest.mark.parametrize("world", [{"folder": True}], indirect=True)
def test_a_position_in_a_run_that_cannot_be_read_at_present(world: World):
    """It is waited for, as a single file is, and not told to be gone."""
    world.next_file("stock")
    world.append(7)
    world.poll(3, remote=True)
    world.commit()
    world.kill_reader()
    world.hide()
    world.poll(remote=True)
    assert not world.oracle.after_a_gap


@pytest.mark.timeout(900)
def test_any_order_of_events(servers: tuple[Server, Server]):
    """Two hundred stories, always the same ones."""
    _run(servers, 200, None)


@pytest.mark.nightly
@pytest.mark.timeout(4 * 3600)
def test_many_orders_of_events(servers: tuple[Server, Server]):
    """Five thousand stories, each night others; the seed that is printed tells them again."""
    number = random.SystemRandom().getrandbits(32)
    print(f"seed {number}")
    _run(servers, 5000, number)
