"""A file whose pages come late and out of order: right rows, or "not yet", and no wrong byte."""

from pathlib import Path

import pytest

from streamer import RawFile

from .mirror import NOT_YET, following, mirroring, told
from .writers import KINDS, running, wrong_rows

SEEDS = (1, 2)
SECONDS = 60.0
# Small batches: the same pages change again and again. Or messages of many pages.
RUNS = {
    1: {"batch": 60, "batches": 50, "pause": 0.01, "size": "mixed"},
    0: {"batch": 8, "batches": 50, "pause": 0.01, "size": "large"},
}


def follow_mirror(kind: str, seed: int, folder: Path) -> None:
    """Let a writer run, a mirror copy its file, and a follower read the copy to its last row."""
    run = RUNS[seed % 2]
    rows = run["batch"] * run["batches"]
    source, target = folder / f"{kind}-{seed}.h5", folder / f"{kind}-{seed}-mirror.h5"
    with (
        mirroring(source, target, seed) as mirror,
        following(target, rows, SECONDS) as follower,
        running(kind, source, **run) as writer,
    ):
        writer.wait(SECONDS)
        copied = told(mirror, SECONDS)
        seen = told(follower, 2 * SECONDS)
    assert copied["passes"] > 3, "the mirror has shown only the end"
    with RawFile(target) as file:
        assert not wrong_rows(file.read(0), 0, rows), "the mirror is no exact copy"
    assert seen["wrong"] == [], seen
    assert seen["rows"] == rows, seen
    assert set(seen["said"]) <= {error.__name__ for error in NOT_YET}, seen


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_right_rows_or_not_yet(kind: str, seed: int, tmp_path: Path):
    """Beside a mirror that copies pages out of order, each row comes once and right."""
    follow_mirror(kind, seed, tmp_path)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
def test_many_mirrors(kind: str, tmp_path: Path):
    """The same, with a hundred mirrors of each kind of writer."""
    for seed in range(100, 200):
        follow_mirror(kind, seed, tmp_path)
        for path in tmp_path.iterdir():
            path.unlink()
