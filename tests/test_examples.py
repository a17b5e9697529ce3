"""Each example runs as it stands, on a file of a real writer in a second process."""

import importlib.util
import io
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

from streamer import Packets, RawFile, tail
from streamer.events import Event, GapBuilder, TriggerBuilder, WindowBuilder, events
from streamer.geometry import Geometry
from streamer.monitor import Monitor
from tests import window
from writer import RawWriter
from writer.simulate import LOADS, Detector, simulate

EXAMPLES = Path(__file__).parent.parent / "examples"
SECONDS = 60
#: What each example is given besides the raw file; {} is a folder for what it makes.
ARGUMENTS = {
    "follow.py": [],
    "event_feed.py": [],
    "many_consumers.py": [],
    "data_quality.py": ["--page", "{}/page.png"],
    "event_display.py": ["--save", "{}/event.png"],
    "hits_to_awkward.py": ["{}/events.parquet", "--until", "finished"],
    "pixel_maps.py": ["{}/maps.png", "--until", "finished"],
}
#: A line of data_quality.py with rates of a second, as it prints while the run goes on.
RATES = re.compile(r"^\d\d:\d\d:\d\d +([\d,]+) messages/s +([\d,]+) hits/s ", re.MULTILINE)


class Done(NamedTuple):
    """How an example has ended."""

    #: What it says at its end, or its exit code.
    end: object
    out: str


@pytest.fixture(scope="module", autouse=True)
def fonts() -> None:
    """Let matplotlib open its fonts, which it keeps open, before tests look for such files."""
    figure = Figure()
    figure.text(0, 0, "text, $\\mu$")
    figure.savefig(io.BytesIO())


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Run an example as a program, in this process, where it need not be loaded again."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")

    def run(name: str, *arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        end: object = None
        try:
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        except SystemExit as error:
            end = error.code
        return Done(end, capsys.readouterr().out)

    yield run
    plt.close("all")


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
    with (folder / "errors").open("w") as errors, ExitStack() as ended:
        started = {}
        for name, arguments in ARGUMENTS.items():
            given = [argument.format(folder) for argument in arguments]
            with (folder / name).open("w") as output:
                started[name] = subprocess.Popen(
                    [sys.executable, EXAMPLES / name, raw, *given],
                    stdout=output,
                    stderr=errors,
                    env=os.environ | {"MPLBACKEND": "Agg", "PYTHONWARNINGS": "error"},
                )
                ended.callback(started[name].wait)
                ended.callback(started[name].kill)
        writer = subprocess.Popen(
            [sys.executable, "-m", "writer", raw, "--load", "tile"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=EXAMPLES.parent,
        )
        ended.callback(writer.wait)
        ended.callback(writer.kill)
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
    return len(np.unique((255 * picture).astype(np.uint8).view(np.uint32)))


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
    # Bursts of thousands of hits come every few seconds.
    assert 0.5 < np.mean(hits) / LOADS["tile"].hits_per_second < 3


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


def test_data_quality_raises_alarms(live: Run, run, tmp_path: Path):
    """An alarm is said when it is raised, and again at the end if it is still on."""
    rules = tmp_path / "rules.toml"
    rules.write_text("[parity_errors]\nthreshold = 1e-6\nleast = 1\n")
    done = run("data_quality.py", live.raw, "--rules", rules)
    assert done.end is None
    assert done.out.count("ALARM parity_errors raised: io_group 1 at") == 1
    assert "alarms that are on: 1\n  parity_errors: io_group 1 at" in done.out


def test_data_quality_shows_faults_where_there_is_nothing_else(run, tmp_path: Path):
    """Of a file in which no message is one of a card, it says what they are."""
    with RawWriter(tmp_path / "raw.h5") as out:
        out.append([b"no message of a card"] * 3, io_groups=1)
    done = run("data_quality.py", tmp_path / "raw.h5", "--page", tmp_path / "page.png")
    assert done.end is None
    assert "--:--:--  ALARM faults raised: not data at 3" in done.out
    assert "faults: 3 not data" in done.out
    assert colours_of(pixels_of(tmp_path / "page.png")) > 10


def test_data_quality_goes_on_with_a_file_that_is_started_again(finished: Path, tmp_path: Path):
    """Of two runs under one name it counts both, and says so."""
    raw = tmp_path / "raw.h5"
    with tail(finished) as run, RawWriter(raw, io_version="0.0") as out:
        some = run.next_batch()
        out.append(some.tolist(), some.io_groups)
        process = subprocess.Popen(
            [sys.executable, "-u", EXAMPLES / "data_quality.py", raw],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with process.stdout as output:
            assert " messages" in output.readline()  # it has begun with the first
            shutil.copy(finished, tmp_path / "next.h5")
            (tmp_path / "next.h5").replace(raw)
            said = output.read()
        assert process.wait(SECONDS) == 0
    assert f"{raw}: another file has this name now" in said
    with RawFile(finished) as whole:
        assert f"{len(some) + len(whole):,} messages" in said


def test_data_quality_draws_the_highest_io_group(run, tmp_path: Path):
    """255, of which one more is not a byte."""
    with RawWriter(tmp_path / "raw.h5") as out:
        for batch in simulate("tile", seconds=3):
            out.append(batch.tolist(), io_groups=255)
    done = run("data_quality.py", tmp_path / "raw.h5", "--page", tmp_path / "page.png")
    assert done.end is None
    assert colours_of(pixels_of(tmp_path / "page.png")) > 100


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
    """Write a layout of two tiles of 6,400 pixels, which face each other."""
    lines = ["multitile_layout_version: 2.4.16", "pixel_pitch: 4.0", "chip_channel_to_position:"]
    for chip, channel in product(range(100), range(64)):
        column, row = 8 * (chip % 10) + channel % 8, 8 * (chip // 10) + channel // 8
        lines.append(f"  {11 + chip}{channel:03}: [{column}, {row}]")
    tables: dict[str, list[str]] = {
        name: [] for name in ("chip_to_io", "positions", "orientations")
    }
    for tile, sign in ((1, 1), (2, -1)):
        chips = ", ".join(f"{chip}: {1000 * tile + 1}" for chip in range(11, 111))
        tables["chip_to_io"].append(f"  {tile}: {{{chips}}}")
        tables["positions"].append(f"  {tile}: [{-304 * sign}, 0, 0]")
        tables["orientations"].append(f"  {tile}: [{sign}, 1, 1]")
    for name, rows in tables.items():
        lines += [f"tile_{name}:", *rows]
    path = folder / "layout.yaml"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of a run of a module that has ended."""
    raw = tmp_path_factory.mktemp("module") / "raw.h5"
    with RawWriter(raw, io_version="0.0") as out:
        for batch in simulate("module0", seconds=2):
            out.append(batch.tolist(), batch.io_groups)
    return raw


@pytest.mark.parametrize("builder", [WindowBuilder, TriggerBuilder])
def test_event_display_has_other_builders_and_geometries(
    builder: type, finished: Path, run, tmp_path: Path
):
    """On a finished file, with positions of a file, it draws what the builder finds."""
    name = builder.__name__.removesuffix("Builder").lower()
    options = ["--builder", name, "--min-hits", 5, "--geometry", geometry_file(tmp_path)]
    done = run("event_display.py", finished, *options, "--save", tmp_path / "event.png")
    assert done.end is None
    found = list(events(tail(finished).packets(), builder=builder(min_hits=5)))
    biggest = max(event.n_hits for event in found)
    assert re.match(rf"{len(found):,} events; .* of {biggest:,} hits", done.out)
    assert colours_of(pixels_of(tmp_path / "event.png")) > 10


def module(name: str) -> ModuleType:
    """Return an example as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture
def display() -> Iterator[ModuleType]:
    """The event display as a module."""
    plt.switch_backend("agg")
    yield module("event_display")
    plt.close("all")


def test_event_display_shows_the_newest_event_in_a_window(live: Run, run):
    """It is drawn, with how many were not, until somebody closes the window."""
    matplotlib.use("module://tests.window")
    notes: list[str] = []

    def look(figure: Figure) -> None:
        notes.append(figure.texts[-1].get_text())
        if notes[-1].endswith("; the run is over"):
            titles.append(figure.get_suptitle())
            plt.close(figure)

    titles: list[str] = []
    window.FigureManager.look = look
    done = run("event_display.py", live.raw)
    found = live.events()
    assert done.end is None
    assert done.out.startswith(f"{len(found):,} events, ")
    assert titles[0].startswith(f"Event {found[-1].number:,} ")
    assert f"{len(found):,} events, " in notes[-1]


def test_event_display_ends_at_ctrl_c_as_when_its_window_is_closed(live: Run, run):
    """The reader ends too, and there is no trace."""
    matplotlib.use("module://tests.window")

    def look(figure: Figure) -> None:
        if figure.axes:
            raise KeyboardInterrupt

    window.FigureManager.look = look
    try:
        done = run("event_display.py", live.raw)
    except KeyboardInterrupt:
        pytest.fail("a trace")
    assert done.end is None
    assert re.match(r"[\d,]+ events, \d+ of them drawn", done.out)


def test_event_display_waits_for_the_first_event(run, tmp_path: Path):
    """Of a run that has not begun it does not say that it was 0 rows behind."""
    matplotlib.use("module://tests.window")

    def look(figure: Figure) -> None:
        if figure.texts[-1].get_text():
            assert figure.texts[-1].get_text() == "no event yet"
            plt.close(figure)

    window.FigureManager.look = look
    assert run("event_display.py", tmp_path / "absent.h5").end.startswith("no event of 10 hits")


def test_event_display_does_not_call_a_grid_positions(live: Run, display, tmp_path: Path):
    """Without a file of positions, the axes say that the places are those of a plain grid."""
    event = live.events()[0]
    for geometry, label in (
        (Geometry.grid(tiles=1), "x on a plain grid [mm]"),
        (Geometry.load(geometry_file(tmp_path)), "x [mm]"),
    ):
        hits = replace(event.hits, mapped=np.ones(event.n_hits, bool))
        shown = display.Display(geometry)
        shown.draw(replace(event, hits=hits))
        assert label in [axes.get_xlabel() for axes in shown.figure.axes]


def test_event_display_says_why_there_is_no_event(live: Run, run):
    """How many hits there were, and what became of them."""
    done = run("event_display.py", live.raw, "--save", "a.png", "--min-hits", 9999)
    hits = sum(np.count_nonzero(packets.is_data) for packets in live.packets())
    assert f"({hits:,} hits, " in done.end
    assert " in no event)" in done.end


def test_event_display_places_hits_along_the_drift(live: Run, display: ModuleType, tmp_path: Path):
    """After a trigger, z is as far from the plane as charge drifts in that time."""
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


def test_event_display_draws_three_projections(live: Run, display: ModuleType, tmp_path: Path):
    """x and y, depth and y, x and depth: each hit is in all three, at its place."""
    geometry = Geometry.load(geometry_file(tmp_path))
    builder = TriggerBuilder(min_hits=2)
    event = next(iter(events(live.packets(), builder=builder, geometry=geometry)))
    shown = display.Display(geometry)
    shown.draw(event)
    depth, _ = shown.depth(event, event.hits)
    found = {
        (axes.get_xlabel(), axes.get_ylabel()): axes.collections[0].get_offsets().tolist()
        for axes in shown.figure.axes
        if axes.get_ylabel() != "ADC [counts]"  # the scale of colours
    }
    x, y = event.hits.x, event.hits.y
    expected = {
        ("", "y [mm]"): (x, y),
        ("z [mm]", ""): (depth, y),
        ("x [mm]", "z [mm]"): (x, depth),
    }
    assert found.keys() == expected.keys()
    for labels, places in found.items():
        assert sorted(places) == sorted(np.column_stack(expected[labels]).tolist())


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


def test_hits_to_awkward_prints_without_a_file(live: Run):
    """Without a name to write to, it prints what kind of array it is, and its values."""
    # In a process of its own: awkward prints to what was stdout when it was loaded.
    command = [sys.executable, "-W", "error", EXAMPLES / "hits_to_awkward.py", live.raw]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS)
    assert "hits: var * {" in done.stdout
    assert re.search(r"^\[\[\d+, \d+", done.stdout, re.MULTILINE)


def test_hits_to_awkward_takes_what_is_there(live: Run, run, tmp_path: Path):
    """Of most writers nobody learns that a run is over: it does not wait for that."""
    raw = tmp_path / "raw.h5"
    with RawWriter(raw, io_version="0.0") as out:
        for batch in tail(live.raw).batches():
            out.append(batch.tolist(), batch.io_groups)
        done = run("hits_to_awkward.py", raw, tmp_path / "events.parquet")
    assert done.end is None
    ak = pytest.importorskip("awkward")
    events = ak.from_parquet(tmp_path / "events.parquet")
    assert 0 < len(events) <= len(live.events())


def test_hits_to_awkward_keeps_what_there_is_at_ctrl_c():
    """Who has waited long enough for a run's end gets the events so far."""

    def events() -> Iterator[int]:
        yield 1
        yield 2
        raise KeyboardInterrupt

    assert [*module("hits_to_awkward").until_ctrl_c(events())] == [1, 2]


# ------------------------------------------------------------------- maps of the pixels


def test_pixel_maps_draws_three_maps(live: Run):
    """Of the run, whole: mean and RMS of the ADC, and the rate."""
    assert colours_of(pixels_of(live.folder / "maps.png")) > 50


def test_pixel_maps_tell_each_pixel(live: Run, tmp_path: Path):
    """Of each pixel what its hits are like, whichever io_channel of its tile they came by."""
    maps_of = module("pixel_maps")
    geometry = Geometry.load(geometry_file(tmp_path))
    monitor, adcs = Monitor(), {}
    for packets in live.packets():
        monitor.update(packets)
        hits = packets.is_data & (packets.valid_parity == 1)
        places = geometry.places(
            *(getattr(packets, name)[hits] for name in ("io_group", "io_channel", "chip_id")),
            packets.channel_id[hits],
        )
        for pixel, adc in zip(places.pixel.tolist(), packets.dataword[hits], strict=True):
            adcs.setdefault(pixel, []).append(int(adc))
    adcs.pop(-1, None)
    assert adcs
    mean, rms, rate = maps_of.by_pixel(monitor.snapshot().channels, geometry, 10).values()
    assert {*np.flatnonzero(np.isfinite(mean)).tolist()} == adcs.keys()
    for pixel, values in adcs.items():
        assert mean[pixel] == pytest.approx(np.mean(values))
        assert rms[pixel] == pytest.approx(np.std(values), abs=1e-6)
        assert rate[pixel] >= len(values) / 10  # hits with invalid parity are in the rate too


def test_pixel_maps_draw_the_values_of_the_monitor(
    finished: Path, run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Each map has its own values, of each pixel a square of its size at its place."""
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: figures.append(figure))
    path = geometry_file(tmp_path)
    assert run("pixel_maps.py", finished, "a.png", "--geometry", path, "--modules", 2).end is None
    monitor, geometry = Monitor(), Geometry.load(path, modules=2)
    for packets in tail(finished).packets():
        monitor.update(packets)
    snapshot = monitor.snapshot()
    channels, [first, *_] = snapshot.channels, snapshot.seconds
    places = geometry.places(**channels.address)
    sums = {
        name: np.bincount(places.pixel[places.mapped], counts[places.mapped], geometry.n_pixels)
        for name, counts in channels.total.items()
    }
    with np.errstate(invalid="ignore"):
        good = sums["data"] - sums["data_parity_errors"]
        mean = sums["adc_sum"] / good
        expected = {
            "ADC mean [counts]": mean,
            "ADC RMS [counts]": np.sqrt(np.maximum(sums["adc_square_sum"] / good - mean**2, 0)),
            "rate [Hz]": np.where(sums["data"], sums["data"], np.nan) / (snapshot.time - first),
        }
    drawn = {axes.get_title(): axes for axes in figures[0].axes if axes.get_title()}
    titles = [f"io_group {io_group}: {name}" for io_group in (1, 2) for name in expected]
    assert [*drawn] == titles
    for title, axes in drawn.items():
        group, name = title.removeprefix("io_group ").split(": ")
        pixels = geometry.pixels([int(group)])
        [squares] = axes.collections
        values = np.ma.filled(squares.get_array().astype(float), np.nan)
        np.testing.assert_allclose(values, expected[name][pixels.pixel])
        assert np.isfinite(values).any()
        corners = np.array([path.vertices[:4] for path in squares.get_paths()])
        centres = np.stack([pixels.x, pixels.y], axis=1)
        np.testing.assert_allclose(corners.mean(axis=1), centres, atol=1e-3)
        np.testing.assert_allclose(np.ptp(corners, axis=1), 4.0, atol=1e-3)


def test_pixel_maps_with_a_geometry(finished: Path, run, tmp_path: Path):
    """Pixels are where the file says; how many channels have none is in the title."""
    done = run("pixel_maps.py", finished, "a.png", "--geometry", geometry_file(tmp_path))
    assert done.end is None
    assert done.out == "maps: a.png\n"
    assert colours_of(pixels_of(tmp_path / "a.png")) > 50


def test_pixel_maps_without_a_geometry(finished: Path, run, tmp_path: Path):
    """They are drawn on a plain grid of what there was."""
    assert run("pixel_maps.py", finished, "a.png").end is None
    assert colours_of(pixels_of(tmp_path / "a.png")) > 50


def test_pixel_maps_grid_has_no_chips_of_damaged_packets(live: Run):
    """It is of the io_groups, tiles and chips that the detector has."""
    monitor = Monitor()
    for packets in live.packets():
        monitor.update(packets)
    grid = module("pixel_maps").grid(monitor.snapshot().channels)
    pixels = grid.pixels()
    assert {*pixels.io_group} == {1}
    assert pixels.chip_id.min() >= 11
    assert pixels.chip_id.max() <= 110


# ------------------------------------------------------------------- what people run into


@pytest.mark.parametrize("name", ARGUMENTS)
def test_help_tells_the_arguments(name: str, run, capsys: pytest.CaptureFixture[str]):
    """--help is not taken for a file, and without a file the usage is shown."""
    done = run(name, "--help")
    assert done.end == 0
    assert "raw file, also one that is being written" in done.out
    assert run(name).end == 2


def test_ctrl_c_ends_a_run_that_does_not(tmp_path: Path):
    """With what was counted so far, and no trace."""
    raw = tmp_path / "raw.h5"
    names = {
        "follow.py": ("row 9,", "stopped"),
        "event_feed.py": ("rows 0 to 9", "shown 10 messages, dropped 0\nstopped"),
        "many_consumers.py": ("display: rows 0 to 9", "quality: 10 messages in all"),
    }
    with RawWriter(raw, io_version="0.0") as out, ExitStack() as ended:
        out.append([b"a message"] * 10, io_groups=1)
        started = {}
        for name in names:
            started[name] = subprocess.Popen(
                [sys.executable, "-u", EXAMPLES / name, raw],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            ended.callback(started[name].wait)
            ended.callback(started[name].kill)
        for name, process in started.items():
            begins, said = names[name]
            with process.stdout as output:
                before = next(line for line in output if line.startswith(begins))
                process.send_signal(signal.SIGINT)
                after = before + output.read()
            assert said in after
            assert "Traceback" not in after
            assert process.wait(SECONDS) == 0


def hide(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make an import of it fail as if it were not there."""
    for name in [name for name in sys.modules if name.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)


@pytest.mark.parametrize(
    ("name", "arguments", "missing", "said"),
    [
        ("event_display.py", [], "matplotlib", "pip install matplotlib"),
        ("data_quality.py", ["--page", "page.png"], "matplotlib", "pip install matplotlib"),
        ("pixel_maps.py", ["a.png"], "matplotlib", "pip install matplotlib"),
        ("hits_to_awkward.py", [], "awkward", "awkward is missing: pip install awkward"),
        ("hits_to_awkward.py", [], "pyarrow", "pyarrow is missing: pip install awkward pyarrow"),
    ],
)
def test_missing_package_is_said_in_a_line(
    name: str, arguments: list[str], missing: str, said: str, live: Run, run, monkeypatch
):
    """Where a package is not installed, one line says which, and how to get it."""
    hide(missing, monkeypatch)
    done = run(name, live.raw, *arguments)
    assert missing in done.end
    assert said in done.end
    assert "\n" not in done.end


def test_data_quality_needs_no_matplotlib_for_its_tables(live: Run, run, monkeypatch):
    """Only the page is drawn with it."""
    hide("matplotlib", monkeypatch)
    done = run("data_quality.py", live.raw)
    assert done.end is None
    assert "Hottest of" in done.out


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("event_display.py", [], "there is no display to open a window on: give --save"),
        ("event_display.py", ["--save", "a.png", "--geometry", "absent"], "error: absent: "),
        ("event_display.py", ["--save", "a.png", "--min-hits", "9999"], "no event of 9999 hits"),
        (
            "event_display.py",
            ["--save", "a.png", "--builder", "gap", "--min-hits", "0"],
            "error: ",
        ),
        ("event_display.py", ["--save", "a.png", "--asic", "v9"], "error: asic must be one of"),
        ("event_display.py", ["--save", "a.xyz"], "error: a.xyz: give the name of a .png"),
        ("event_display.py", ["--save", "absent/a.png"], "error: absent/a.png: give the name of"),
        ("event_display.py", ["--save", "folder.png"], "error: [Errno 21] Is a directory: "),
        ("data_quality.py", ["--page", "a"], "error: a: give the name of a .png"),
        ("data_quality.py", ["--page", "absent/a.png"], "error: absent/a.png: give the name of"),
        ("data_quality.py", ["--page", "folder.png"], "error: [Errno 21] Is a directory: "),
        (
            "hits_to_awkward.py",
            ["absent/a.parquet"],
            "error: absent/a.parquet: there is no folder",
        ),
        ("pixel_maps.py", ["a.xyz"], "error: a.xyz: give the name of a .png"),
        ("pixel_maps.py", ["folder.png"], "error: [Errno 21] Is a directory: "),
        ("pixel_maps.py", ["a.png", "--geometry", "absent"], "error: absent: "),
        ("pixel_maps.py", ["a.png", "--asic", "v9"], "error: asic must be one of"),
        ("data_quality.py", ["--rules", "absent"], "error: absent: "),
        ("data_quality.py", ["--asic", "v9"], "error: asic must be one of"),
    ],
)
def test_mistake_is_said_in_a_line(name: str, arguments: list[str], said: str, live: Run, run):
    """What cannot be done ends with one line that says why, and no trace."""
    Path("folder.png").mkdir()
    done = run(name, live.raw, *arguments)
    assert done.end.startswith(said)
    assert "\n" not in done.end


@pytest.mark.parametrize("name", ARGUMENTS)
def test_what_is_no_raw_file_is_said_in_a_line(name: str, run, tmp_path: Path):
    """So it is with a file that is not one of the DAQ."""
    path = tmp_path / "raw.h5"
    path.write_text("not HDF5\n" * 100)
    arguments = {"event_display.py": ["--save", "a.png"], "pixel_maps.py": ["a.png"]}
    done = run(name, path, *arguments.get(name, []))
    assert done.end.startswith(f"error: {path}: not a LArPix raw file")


@pytest.mark.parametrize(
    "name", ["data_quality.py", "event_display.py", "hits_to_awkward.py", "pixel_maps.py"]
)
def test_run_without_messages_is_no_trouble(name: str, run, tmp_path: Path):
    """A run that was ended before anything came gives a word, and no trace."""
    RawWriter(tmp_path / "raw.h5").close()
    arguments = {
        "event_display.py": ["--save", "a.png"],
        "data_quality.py": ["--page", "a.png"],
        "pixel_maps.py": ["a.png"],
    }
    done = run(name, tmp_path / "raw.h5", *arguments.get(name, []))
    said = ("there are no events", "no event of", "there is nothing to draw")
    assert done.end is None or done.end.startswith(said)
    assert not (tmp_path / "a.png").exists()
