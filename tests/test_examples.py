"""Each example runs as it stands, on a file of a real writer in a second process."""

import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import matplotlib.image
import numpy as np
import pytest

from streamer import Packets, tail
from streamer.assembly import Event
from streamer.events import GapBuilder, TriggerBuilder, WindowBuilder, events
from streamer.geometry import Geometry
from writer.detector import LOADS, Detector

EXAMPLES = Path(__file__).parent.parent / "examples"
SECONDS = 60
#: What each example is given besides the raw file; {} is a folder for what it makes.
ARGUMENTS = {
    "follow.py": [],
    "event_feed.py": [],
    "many_consumers.py": [],
    "data_quality.py": ["--page", "{}/page.png"],
    "event_display.py": ["--save", "{}/event.png"],
    "hits_to_awkward.py": ["{}/events.parquet"],
}
#: A line of data_quality.py with rates of a second, as it prints while the run goes on.
RATES = re.compile(r"^\d\d:\d\d:\d\d +([\d,]+) messages/s +([\d,]+) hits/s ", re.MULTILINE)


def environment(**more: object) -> dict[str, str]:
    """No display, and warnings are errors."""
    fixed = {"MPLBACKEND": "Agg", "PYTHONWARNINGS": "error", "COLUMNS": "120"}
    return os.environ | fixed | {name: str(value) for name, value in more.items()}


def run(name: str, *arguments: object, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, EXAMPLES / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment(**more),
        timeout=SECONDS,
    )


def number(text: str) -> int:
    return int(text.replace(",", ""))


class Run(NamedTuple):
    """A run that all examples have followed from before its beginning."""

    folder: Path
    rows: int
    #: What each example has printed.
    outputs: dict[str, str]

    @property
    def raw(self) -> Path:
        return self.folder / "raw.h5"

    def packets(self) -> Iterator[Packets]:
        return tail(self.raw).packets()

    def events(self) -> list[Event]:
        return list(events(self.packets(), builder=GapBuilder(min_hits=10)))


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All examples beside a writer, which ends when one of them has reported twice."""
    folder = tmp_path_factory.mktemp("examples")
    raw = folder / "raw.h5"
    with (folder / "errors").open("w") as errors:
        started = {}
        for name, arguments in ARGUMENTS.items():
            given = [argument.format(folder) for argument in arguments]
            with (folder / name).open("w") as output:
                started[name] = subprocess.Popen(
                    [sys.executable, EXAMPLES / name, raw, *given],
                    stdout=output,
                    stderr=errors,
                    env=environment(),
                )
        writer = subprocess.Popen(
            [sys.executable, "-m", "writer", raw, "--load", "tile"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=EXAMPLES.parent,
        )
        deadline = time.monotonic() + SECONDS
        while len(RATES.findall((folder / "data_quality.py").read_text())) < 2:
            assert time.monotonic() < deadline, (folder / "errors").read_text()
            time.sleep(0.05)
        assert writer.poll() is None
        writer.terminate()  # which is a normal end of the run
        written, _ = writer.communicate(timeout=SECONDS)
        codes = {name: process.wait(SECONDS) for name, process in started.items()}
    said = (folder / "errors").read_text()
    assert codes == dict.fromkeys(ARGUMENTS, 0), said
    assert "Traceback" not in said
    found = re.search(r"([\d,]+) rows", written)
    assert found, written
    return Run(folder, number(found[1]), {name: (folder / name).read_text() for name in codes})


def pixels_of(path: Path) -> np.ndarray:
    """Return the picture in a PNG, (height, width, 4), after a look at whether it is one."""
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert not path.with_name(f"{path.name}.part").exists()
    return matplotlib.image.imread(path)


def colours_of(picture: np.ndarray) -> int:
    return len(np.unique((255 * picture).astype(np.uint8).reshape(-1, 4), axis=0))


def test_every_example_is_tested():
    """A new example gets a test here."""
    assert {path.name for path in EXAMPLES.glob("*.py")} == ARGUMENTS.keys()


# ------------------------------------------------------------------------- the messages


def test_follow_prints_every_message(live: Run):
    """The ten-line example prints one line for each row, in order."""
    rows = re.findall(r"^row (\d+), ", live.outputs["follow.py"], re.MULTILINE)
    assert [*map(int, rows)] == list(range(live.rows))


def test_event_feed_accounts_for_every_message(live: Run):
    """What was shown and what was dropped add up to what was written."""
    out = live.outputs["event_feed.py"]
    found = re.search(r"shown ([\d,]+) messages, dropped ([\d,]+)", out)
    assert found, out
    assert sum(map(number, found.groups())) == live.rows


def test_many_consumers_have_their_own_of_every_message(live: Run):
    """The counter has every message; the display was shown it, or was told that it missed it."""
    out = live.outputs["many_consumers.py"]
    assert f"quality: {live.rows:,} messages in all" in out
    found = re.search(r"([\d,]+) messages shown, ([\d,]+) missed", out)
    assert found, out
    shown, missed = map(number, found.groups())
    assert shown + missed == live.rows
    gaps = re.findall(r"missed rows (\d+) to (\d+): ", out)
    assert sum(int(stop) - int(start) for start, stop in gaps) == missed > 0


# ----------------------------------------------------------------------------- the quality


def test_data_quality_reports_while_the_run_goes_on(live: Run):
    """Each second it tells the rates of the detector that is simulated."""
    rates = RATES.findall(live.outputs["data_quality.py"])
    assert len(rates) >= 2
    hits = [number(one) for _, one in rates]
    assert np.mean(hits) == pytest.approx(LOADS["tile"].hits_per_second, rel=0.5)


def test_data_quality_counts_every_packet(live: Run):
    """The totals are those of all messages that were written, decoded at once."""
    out = live.outputs["data_quality.py"]
    assert f"finished: {live.rows:,} messages" in out
    packets = Packets.concatenate(live.packets())
    for name, expected in {
        "data": packets.is_data,
        "config_write": packets.is_config_write,
        "timestamp": packets.is_timestamp,
        "sync": packets.is_sync,
        "trigger": packets.is_trigger,
    }.items():
        found = re.search(rf"^│ {name} +│ +([\d,]+) ", out, re.MULTILINE)
        assert found, out
        assert number(found[1]) == np.count_nonzero(expected)
    assert "faults: none" in out


def test_data_quality_finds_the_hot_channels(live: Run):
    """The hottest channels are those that the simulated detector has made hot."""
    _, table = live.outputs["data_quality.py"].split("Hottest of ")
    rows = re.findall(r"^│ (\d+) +│ +(\d+) +│ +(\d+) +│ +(\d+) +│", table, re.MULTILINE)
    truth = Detector(LOADS["tile"]).hot_channels
    assert {tuple(map(int, row)) for row in rows[: len(truth)]} == {*map(tuple, truth.tolist())}


def test_data_quality_draws_a_page(live: Run):
    """The page is a picture of the size that was meant, with many colours."""
    page = pixels_of(live.folder / "page.png")
    assert page.shape[:2] == (1200, 1360)
    assert colours_of(page) > 100


def test_data_quality_raises_alarms(live: Run, tmp_path: Path):
    """An alarm is said when it is raised, and again at the end if it is still on."""
    rules = tmp_path / "rules.toml"
    rules.write_text("[parity_errors]\nthreshold = 1e-6\nleast = 1\n")
    done = run("data_quality.py", live.raw, "--rules", rules)
    assert done.returncode == 0, done.stderr
    assert len(re.findall("ALARM parity_errors raised: io_group 1 at", done.stdout)) == 1
    assert "alarms that are on: 1\n  parity_errors: io_group 1 at" in done.stdout


# ------------------------------------------------------------------------------ the events


def test_event_display_saves_the_biggest_event(live: Run):
    """It has built the events that are in the file, and the picture is of the biggest one."""
    found = live.events()
    biggest = max(found, key=lambda event: event.n_hits)  # the first of them
    said = f"{len(found):,} events; the biggest, event {biggest.number:,} of {biggest.n_hits:,} "
    assert said in live.outputs["event_display.py"]
    picture = pixels_of(live.folder / "event.png")
    assert picture.shape[:2] == (800, 1100)
    assert colours_of(picture) > 10


def geometry_file(folder: Path) -> Path:
    """Write a layout of 16 tiles of 6,400 pixels, on two planes that face each other."""
    lines = ["multitile_layout_version: 2.4.16", "pixel_pitch: 4.0", "chip_channel_to_position:"]
    for chip, channel in product(range(100), range(64)):
        column, row = 8 * (chip % 10) + channel % 8, 8 * (chip // 10) + channel // 8
        lines.append(f"  {11 + chip}{channel:03}: [{column}, {row}]")
    tables: dict[str, list[str]] = {
        name: [] for name in ("chip_to_io", "positions", "orientations")
    }
    for tile in range(16):
        side, place = divmod(tile, 8)
        chips = ", ".join(f"{chip}: {1000 * side + 1001 + 4 * place}" for chip in range(11, 111))
        x, y, sign = 310 * (place % 2) - 155, 310 * (place // 2) - 465, 1 - 2 * side
        tables["chip_to_io"].append(f"  {tile + 1}: {{{chips}}}")
        tables["positions"].append(f"  {tile + 1}: [{-304 * sign}, {y}, {x}]")
        tables["orientations"].append(f"  {tile + 1}: [{sign}, 1, 1]")
    for name, rows in tables.items():
        lines += [f"tile_{name}:", *rows]
    path = folder / "layout.yaml"
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("builder", [WindowBuilder, TriggerBuilder])
def test_event_display_has_other_builders_and_geometries(builder: type, tmp_path: Path):
    """On a finished file, with positions of a file, it draws what the builder finds."""
    raw = tmp_path / "raw.h5"
    writer = [sys.executable, "-m", "writer", raw, "--load", "module0", "--seconds", "2", "--fast"]
    subprocess.run(writer, check=True, capture_output=True, cwd=EXAMPLES.parent)
    name = builder.__name__.removesuffix("Builder").lower()
    options = ["--builder", name, "--min-hits", 5, "--geometry", geometry_file(tmp_path)]
    done = run("event_display.py", raw, *options, "--save", tmp_path / "event.png")
    assert done.returncode == 0, done.stderr
    found = list(events(tail(raw).packets(), builder=builder(min_hits=5)))
    biggest = max(event.n_hits for event in found)
    assert re.match(rf"{len(found):,} events; .* of {biggest:,} hits", done.stdout)
    assert colours_of(pixels_of(tmp_path / "event.png")) > 10


@pytest.fixture
def display() -> Iterator[ModuleType]:
    """The event display as a module."""
    spec = importlib.util.spec_from_file_location("event_display", EXAMPLES / "event_display.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.plt.switch_backend("agg")
    yield module
    module.plt.close("all")


def test_event_display_places_hits_along_the_drift(live: Run, display: ModuleType, tmp_path: Path):
    """After a trigger, z is as far from the plane as charge drifts in that time; else, the time."""
    geometry = Geometry.load(geometry_file(tmp_path))
    builder = TriggerBuilder(min_hits=2)
    event = next(iter(events(live.packets(), builder=builder, geometry=geometry)))
    time = (event.hits.ticks - event.trigger.ticks) / 10
    z, name = display.Display(geometry).depth(event, event.hits)
    assert name == "z [mm]"
    np.testing.assert_allclose(z, -304 + 1.6 * time)
    shown, name = display.Display(Geometry.grid()).depth(event, event.hits)
    assert name.startswith("time since trigger")
    np.testing.assert_array_equal(shown, time)


def test_event_display_titles_tell_the_event(live: Run, display: ModuleType):
    """A title has the number, the time in UTC, how many hits, and the trigger."""
    builder = TriggerBuilder(min_hits=2)
    event = next(iter(events(live.packets(), builder=builder, geometry=Geometry.grid())))
    title = display.title(event)
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(event.time))
    assert re.match(rf"Event {event.number} +{moment}\.\d{{6}} UTC\n", title)
    assert f"{event.n_hits} hits" in title
    assert "trigger of io_group 1, bits 00000010" in title
    assert "not mapped" not in title


def test_hits_to_awkward_writes_all_events(live: Run):
    """The parquet file has the events of the run, with the hits of each."""
    ak = pytest.importorskip("awkward")
    found = live.events()
    array = ak.from_parquet(live.folder / "events.parquet")
    assert array.event.tolist() == [event.number for event in found]
    assert array.start.tolist() == [event.start for event in found]
    assert array.hits.adc.tolist() == [event.hits.adc.tolist() for event in found]
    assert array.hits.chip_id.tolist() == [event.hits.chip_id.tolist() for event in found]
    assert array.hits.row.tolist() == [event.hits.row.tolist() for event in found]
    total = sum(event.n_hits for event in found)
    assert f"{total:,} of " in live.outputs["hits_to_awkward.py"]


# ------------------------------------------------------------------- what people run into


def test_hits_to_awkward_prints_without_a_file(live: Run):
    """Without a name to write to, it prints what kind of array it is, and its values."""
    done = run("hits_to_awkward.py", live.raw)
    assert done.returncode == 0, done.stderr
    assert "hits: var * {" in done.stdout
    assert re.search(r"^\[\[\d+, \d+", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("name", "arguments", "missing", "said"),
    [
        ("event_display.py", ["--save", "event.png"], "matplotlib", "pip install matplotlib"),
        ("data_quality.py", ["--page", "page.png"], "matplotlib", "pip install matplotlib"),
        ("hits_to_awkward.py", [], "awkward", "pip install awkward"),
        ("hits_to_awkward.py", [], "pyarrow", "pip install awkward pyarrow"),
    ],
)
def test_missing_package_is_said_in_a_line(
    name: str, arguments: list[str], missing: str, said: str, live: Run, tmp_path: Path
):
    """Where a package is not installed, one line says which, and how to get it."""
    error = f"raise ModuleNotFoundError('no {missing}', name={missing!r})"
    (tmp_path / f"{missing}.py").write_text(error)
    done = run(name, live.raw, *arguments, PYTHONPATH=tmp_path)
    assert done.returncode == 1
    assert missing in done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_data_quality_needs_no_matplotlib_for_its_tables(live: Run, tmp_path: Path):
    """Only the page is drawn with it."""
    (tmp_path / "matplotlib.py").write_text("raise ImportError")
    done = run("data_quality.py", live.raw, PYTHONPATH=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Hottest of" in done.stdout


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("event_display.py", [], "no display to open a window on: give --save"),
        ("event_display.py", ["--save", "a.png", "--geometry", "absent"], "error: absent: "),
        ("event_display.py", ["--save", "a.png", "--min-hits", "9999"], "no event of 9999 hits"),
        ("data_quality.py", ["--rules", "absent"], "error: absent: "),
        ("data_quality.py", ["--asic", "v9"], "error: asic must be one of"),
    ],
)
def test_mistake_is_said_in_a_line(name: str, arguments: list[str], said: str, live: Run):
    """What cannot be done ends with one line that says why, and no trace."""
    done = run(name, live.raw, *arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
