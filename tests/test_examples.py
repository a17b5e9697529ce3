"""Each example runs as it stands, on a file of a real writer in a second process."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
SECONDS = 3


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What all examples print of one run, which they follow from before its beginning."""
    path = tmp_path_factory.mktemp("examples") / "raw.h5"
    started = {
        example.name: subprocess.Popen(
            [sys.executable, "-W", "error", example, path],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for example in sorted(EXAMPLES.glob("*.py"))
    }
    writer = [sys.executable, "-m", "writer", path, "--load", "tile", "--seconds", str(SECONDS)]
    written = subprocess.run(
        writer, check=True, capture_output=True, text=True, cwd=EXAMPLES.parent
    )
    outputs = {"writer": written.stdout}
    for name, process in started.items():
        outputs[name], errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert "Traceback" not in errors
    return outputs


def rows_written(outputs: dict[str, str]) -> int:
    found = re.search(r"([\d,]+) rows", outputs["writer"])
    assert found, outputs["writer"]
    return int(found[1].replace(",", ""))


def test_every_example_is_tested(outputs: dict[str, str]):
    """A new example gets a test here."""
    tested = {"follow.py", "data_quality.py", "event_feed.py", "many_consumers.py"}
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested
    assert tested < outputs.keys()


def test_follow_prints_every_message(outputs: dict[str, str]):
    """The ten-line example prints one line for each row, in order."""
    rows = [int(row) for row in re.findall(r"^row (\d+), ", outputs["follow.py"], re.MULTILINE)]
    assert rows == list(range(rows_written(outputs)))


def test_data_quality_counts_every_message(outputs: dict[str, str]):
    """The rates are printed while the run goes on, and the total is what was written."""
    out = outputs["data_quality.py"]
    assert out.count("sizes: median") >= 2
    assert f"finished: {rows_written(outputs):,} messages" in out


def test_event_feed_accounts_for_every_message(outputs: dict[str, str]):
    """What was shown and what was dropped add up to what was written."""
    found = re.search(r"shown ([\d,]+) messages, dropped ([\d,]+)", outputs["event_feed.py"])
    assert found, outputs["event_feed.py"]
    assert sum(int(number.replace(",", "")) for number in found.groups()) == rows_written(outputs)


def test_many_consumers_have_their_own_of_every_message(outputs: dict[str, str]):
    """The counter has every message; the display was shown it, or was told that it missed it."""
    out, rows = outputs["many_consumers.py"], rows_written(outputs)
    assert f"quality: {rows:,} messages in all" in out
    found = re.search(r"([\d,]+) messages shown, ([\d,]+) missed", out)
    assert found, out
    shown, missed = (int(number.replace(",", "")) for number in found.groups())
    assert shown + missed == rows
    gaps = re.findall(r"missed rows (\d+) to (\d+): ", out)
    assert sum(int(stop) - int(start) for start, stop in gaps) == missed > 0
