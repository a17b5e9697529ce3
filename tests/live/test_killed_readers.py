"""A follower with a checkpoint that is killed goes on where it was: nothing is missing."""

import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import pytest

from streamer import CheckpointError, Position
from streamer.checkpoint import Checkpoint

from .followers import Lives, row_of, serving_lives
from .manyruns import path_of, running_many
from .writers import Writer, running

SEED = 20261122
NIGHTLY = [pytest.mark.nightly, pytest.mark.timeout(3600)]
WAYS = [(way, grain) for way in ("asyncio", "trio", "tail") for grain in ("messages", "batches")]
BATCH = 20
# Rows of each run of a folder, and the numbers that a single file has.
STRIDES = {"folder": 20 * BATCH, "file": 1 << 40}
# What is stored may be older than what was given by a second; and the machine may be busy.
STORED_SECONDS, BUSY_SECONDS = 1.0, 1.5


@contextmanager
def written(kind: str, source: str, folder: Path) -> Iterator[tuple[Path, Writer]]:
    """Let a writer run for as long as this takes; give what is to be followed."""
    many = {"batch": BATCH, "batches": 20, "stride": STRIDES["folder"], "runs": 100_000}
    one = {"batch": BATCH, "batches": 1_000_000}
    path = folder if source == "folder" else path_of(folder, 0)
    with (
        running_many(kind, folder, pause=0.01, **many)
        if source == "folder"
        else running(kind, path, pause=0.01, size="mixed", **one)
    ) as writer:
        writer.wait_for(BATCH)
        yield path, writer
        writer.kill()


# --------------------------------------------------------------------- at random moments


class Campaign:
    """Lives of a follower, each held against what the one before it has left."""

    def __init__(self, lives: Lives, path: Path, source: str, state: Path, seed: str) -> None:
        self.rng = random.Random(seed)
        self.found: Counter[str] = Counter()
        self.oldest = 0.0
        self._lives = lives
        self._path = path
        self._stride = STRIDES[source]
        self._state = state
        self._stored: Position | None = None
        self.seen = 0

    def options(self) -> dict:
        """Choose a follower."""
        rng = self.rng
        way, grain = rng.choice(WAYS)
        return {
            "way": way,
            "grain": grain,
            "stride": self._stride,
            "checkpoint": str(self._state),
            "poll": rng.choice([0.002, 0.02]),
            "hints": rng.random() < 0.5,
            "max_batch_bytes": rng.choice([3_000, 30_000, 1 << 24]),
            "rotate_grace": 0.3,
            "commits": rng.random() < 0.25,
            "slow": rng.choice([0.0, 0.0, 0.0, 0.002]),
            "dies": (rng.randrange(1, 4), rng.randrange(1, 40)) if rng.random() < 0.3 else None,
        }

    def kill_one(self) -> None:
        """Kill one within 200 ms of its start, or of its first row; or at a step of a store."""
        options = self.options()
        self._lives.start(self._path, **options)
        if self.rng.random() < 0.5:
            self._lives.until("given", "dying", timeout=2)
        self._lives.until("dying", timeout=self.rng.uniform(0, 0.2))
        self._killed(options)

    def kill_slow_one(self, way: str, grain: str) -> None:
        """Kill one that is never without rows, after some seconds."""
        own = {"way": way, "grain": grain, "slow": 0.01, "dies": None, "commits": False}
        options = self.options() | own | {"max_batch_bytes": 30_000}
        self._lives.start(self._path, **options)
        self._lives.until("dying", timeout=self.rng.uniform(1.5, 3))
        self._killed(options)
        assert self._lives.given

    def _killed(self, options: dict) -> None:
        killed = time.monotonic()
        self._lives.kill()
        given, begin = self._lives.given, row_of(self._stored, self._stride)
        stored = Checkpoint(self._state).load()
        position = row_of(stored, self._stride)
        stop = self._check_given(given, begin)
        assert begin <= position <= stop, "a position of rows that were not handed over"
        if options["commits"] and given:
            assert position in given[-1][:2], "committed, and not stored"
        for _, behind, when in given:
            if behind > position:
                self.oldest = max(self.oldest, killed - when - options["slow"])
        assert self.oldest < STORED_SECONDS + BUSY_SECONDS
        self.found["killed itself" if self._lives.answer("dying") else "killed"] += 1
        self.found["with rows"] += bool(given)
        self.found["repeated"] += max(0, self.seen - begin) if given else 0
        self.seen = max(self.seen, stop)
        self._stored = stored

    def _check_given(self, given: list[tuple[int, int, float]], begin: int) -> int:
        """Check that these are the rows from a certain one on; return the row behind them."""
        for start, stop, _ in given:
            assert start == begin < stop
            begin = stop
        return begin

    def end(self) -> int:
        """Let one come to the end; return the number of all rows."""
        begin = row_of(self._stored, self._stride)
        for _ in range(2):  # the second has nothing left
            self._lives.start(self._path, **self._last_options())
            assert self._lives.until("outcome")
            self._lives.kill()
            assert self._lives.answer("outcome") == "end"
            stop = self._check_given(self._lives.given, begin)
            assert row_of(Checkpoint(self._state).load(), self._stride) == stop
            begin, rest = stop, len(self._lives.given)
        assert not rest
        assert stop >= self.seen
        return stop

    def _last_options(self) -> dict:
        own = {"until": "end", "dies": None, "commits": False, "slow": 0.0}
        return self.options() | own


@pytest.mark.parametrize(
    ("kills", "slow"), [(27, 1), pytest.param(300, 20, marks=NIGHTLY)], ids=["few", "many"]
)
@pytest.mark.parametrize("source", ["file", "folder"])
@pytest.mark.parametrize("kind", ["stock", "rawwriter"])
def test_killed_at_any_moment(kind: str, source: str, kills: int, slow: int, tmp_path: Path):
    """Each life begins at what was stored, no row is missing, and only later ones come again."""
    state, runs = tmp_path / "state.json", tmp_path / "runs"
    runs.mkdir()
    seed = f"{SEED} {kind} {source}"
    with serving_lives() as lives:
        with written(kind, source, runs) as (path, writer):
            campaign = Campaign(lives, path, source, state, seed)
            for kill in range(kills):
                assert not writer.ended  # and its pipe is emptied, or it would wait for that
                try:
                    campaign.kill_one()
                    if kill % (kills // slow) == 13:
                        campaign.kill_slow_one(*campaign.rng.choice(WAYS))
                except BaseException as error:
                    error.add_note(f"kill {kill} of seed {seed}; said: {lives.said[-20:]}")
                    raise
        rows = campaign.end()
    assert writer.committed <= rows <= writer.committed + BATCH
    print(campaign.found, f"{rows} rows, the oldest not stored {campaign.oldest:.2f} s old")
    assert campaign.found["with rows"] > kills / 6  # on a busy machine many come to nothing
    assert sorted(left.name for left in tmp_path.iterdir()) == [
        "runs",
        "state.json",
        "state.json.previous",
    ]


# --------------------------------------------------------------- at each step of a store


class Deaths:
    """Lives that kill themselves, one at each step of a store, and the lives after them."""

    def __init__(self, lives: Lives, path: Path, folder: Path, way: str, grain: str) -> None:
        self._lives = lives
        self._path = path
        self._folder = folder
        self._options = {
            "way": way,
            "grain": grain,
            "stride": STRIDES["file"],
            "commits": True,
            "stop": 5,
            "until": 5,
            "max_batch_bytes": 300,
        }

    def _live(self, state: Path, **options) -> None:
        self._lives.start(self._path, checkpoint=str(state), **self._options, **options)
        assert self._lives.until("dying", "outcome")
        self._lives.kill()

    def die(self, store: int, step: int) -> tuple[str, bool] | None:
        """Die there; return at what, and if the new position was stored. None if behind all."""
        state = self._folder / f"{store}-{step}" / "state.json"
        state.parent.mkdir()
        self._live(state, dies=(store, step))
        at = self._lives.answer("dying")
        if at is None:
            assert int(self._lives.answer("steps")) < step
            return None
        stores = [int(line[1]) for line in self._lives.said if line[0] == "storing"]
        assert len(stores) == store
        stored = Checkpoint(state).load()
        before = stores[-2] if store > 1 else None
        position = None if stored is None else stored.row
        assert position in (before, stores[-1])
        self._check_previous(state, stores)
        handed_over = max([stop for _, stop, _ in self._lives.given], default=0)
        assert (position or 0) <= handed_over
        self._check_next(state, position or 0)
        return at.split()[-1], position == stores[-1]

    def _check_previous(self, state: Path, stores: list[int]) -> None:
        """Spoil a copy of what was stored: what was stored before it is whole."""
        spoilt = shutil.copytree(state.parent, state.parent.with_suffix(".spoilt")) / state.name
        if spoilt.exists():
            spoilt.write_bytes(b"spoilt")
            with suppress(CheckpointError) if len(stores) < 3 else nullcontext():
                assert Checkpoint(spoilt).load().row in stores[:-1]

    def _check_next(self, state: Path, position: int) -> None:
        """Go on: with the row that is stored, to the end, and no rubbish is left."""
        self._live(state)
        begins = [start for start, _, _ in self._lives.given]
        ends = [stop for _, stop, _ in self._lives.given]
        assert [*begins, 5] == [position, *ends]
        assert Checkpoint(state).load().row == 5
        names = {left.name for left in state.parent.iterdir()}
        assert names <= {"state.json", "state.json.previous"}


@pytest.mark.parametrize(
    ("way", "grain"),
    [
        ("tail", "messages"),
        *(pytest.param(*each, marks=NIGHTLY) for each in WAYS if each != ("tail", "messages")),
    ],
)
def test_killed_at_each_step_of_a_store(way: str, grain: str, tmp_path: Path):
    """What is stored then is the old position or the new one, and no row is missing."""
    path = path_of(tmp_path, 0)
    options = {"batch": 10, "batches": 1_000_000, "pause": 0.05}
    with serving_lives() as lives, running("rawwriter", path, **options) as writer:
        writer.wait_for(10)
        deaths = Deaths(lives, path, tmp_path, way, grain)
        for store in (1, 2, 3):
            found = []
            while (at := deaths.die(store, len(found) + 1)) is not None:
                found.append(at)
            names = [name for name, _ in found]
            assert names.count("return:fsync") >= 2
            assert ("call:link" in names) == (store > 1)
            # From the moment on at which it has the name.
            last = len(names) - names[::-1].index("return:replace") - 1
            assert [new for _, new in found] == [step >= last for step in range(len(found))]
        writer.kill()
