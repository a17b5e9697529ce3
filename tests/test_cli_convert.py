"""``streamer convert`` as people use it: in pipes and on terminals, with Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

from streamer.cli import main
from tests.test_cli import ROOT, Call, called, environment, run, terminal, until
from writer import RawWriter
from writer.pacman import Word, messages, words
from writer.recording import record


def hits(count: int) -> bytes:
    stream = words(Word.DATA, io_channel=1, packet=range(count))
    return messages(stream, [count], 1_700_000_000)[0].tobytes()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def packets_in(path: Path) -> int:
    with h5py.File(path) as file:
        return len(file["packets"])


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("raw") / "raw.h5"
    record(path, load="tile", seconds=0.5, fast=True)
    return path


def test_help_shows_how_it_is_called(capfd: pytest.CaptureFixture):
    """With examples, as they are typed."""
    assert main(["convert", "--help"]) == 0
    said = capfd.readouterr().out
    assert "streamer convert raw.h5 packets.h5 --follow" in said
    assert "--asic" in said


def test_report_in_a_pipe(raw: Path, tmp_path: Path):
    """What there is, on stdout; nothing on stderr, and no bar."""
    done = run("convert", raw, tmp_path / "out.h5")
    assert (done.code, done.err) == (0, "")
    count = packets_in(tmp_path / "out.h5")
    assert f"messages, {count:,} packets, in {tmp_path / 'out.h5'}" in done.out
    assert "all rows that there were" in done.out


def test_report_for_programs(raw: Path, tmp_path: Path):
    """One object, with all that is in the other."""
    done = run("convert", raw, tmp_path / "out.parquet", "--json")
    found = json.loads(done.out)
    assert found.keys() == {
        "file",
        "out",
        "messages",
        "packets",
        "faults",
        "outcome",
        "resumed_at",
        "notes",
    }
    assert (found["faults"], found["outcome"], found["resumed_at"]) == ({}, "end", None)


def test_faults_are_reported_and_no_failure(tmp_path: Path):
    """As long as anything could be decoded."""
    with RawWriter(tmp_path / "raw.h5", io_version="0.0") as writer:
        writer.append([hits(3), hits(3)[:-1], b"noise", hits(2)[:-3]], 1)
    done = run("convert", tmp_path / "raw.h5", tmp_path / "out.h5")
    assert done.code == 0
    assert "not decoded: truncated: 2, in rows 1, 3\n" in done.out
    assert "not decoded: not data: 1, in rows 2\n" in done.out


def test_nothing_decoded_is_a_failure(tmp_path: Path):
    """In one line."""
    with RawWriter(tmp_path / "raw.h5", io_version="0.0") as writer:
        writer.append([b"noise"], 1)
    done = run("convert", tmp_path / "raw.h5", tmp_path / "out.h5")
    assert (done.code, done.out) == (1, "")
    assert "none of its 1 messages could be decoded" in done.complaint


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("absent.h5", "out.h5"), 1, "absent.h5"),
        ((".", "out.h5"), 1, "a folder or a pattern"),
        (("raw.h5", "raw.h5"), 1, "is the raw file"),
        (("raw.h5", "there.h5"), 1, "exists already"),
        (("raw.h5",), 2, "Missing argument 'OUT'"),
        (("raw.h5", "out.h5", "--to", "root"), 2, "'root' is not one of"),
        (("raw.h5", "out.h5", "--asic", "v9"), 2, "asic must be one of v2"),
        (("raw.h5", "out.h5", "--asic", "256=v2"), 2, "from 0 to 255"),
        (("raw.h5", "out.h5", "--asic", "v2", "--asic", "v3"), 2, "v2 and v3 cannot all"),
    ],
    ids=str,
)
def test_wrong_calls(arguments, code, text, raw: Path, tmp_path: Path, monkeypatch, capfd):
    """One line, and the exit code says whose fault it is."""
    monkeypatch.chdir(tmp_path)
    os.link(raw, "raw.h5")
    Path("there.h5").write_bytes(b"mine")
    assert main(["convert", *arguments]) == code
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("streamer: ")
    assert text in line
    assert names(tmp_path) == ["raw.h5", "there.h5"]


def test_wrong_chips_are_suspected(raw: Path, tmp_path: Path):
    """A conversion in which not one packet is a hit says so."""
    done = run("convert", raw, tmp_path / "out.h5", "--asic", "v3")
    assert done.code == 0
    assert done.out.endswith("  no packet is a hit: is asic v3 right?\n")
    assert "hit" not in run("convert", raw, tmp_path / "right.h5").out


def test_overwriting_has_to_be_said(raw: Path, tmp_path: Path):
    """Then it is."""
    (tmp_path / "out.h5").write_bytes(b"mine")
    refused = run("convert", raw, tmp_path / "out.h5")
    assert refused.code == 1
    assert "exists already; --overwrite replaces it" in refused.complaint
    assert (tmp_path / "out.h5").read_bytes() == b"mine"
    assert run("convert", raw, tmp_path / "out.h5", "--overwrite", "--compress").code == 0
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["packets"].compression == "gzip"


def test_following_ends_with_the_run(tmp_path: Path):
    """It waits for the file, says so, and ends well by itself."""
    path, out = tmp_path / "raw.h5", tmp_path / "out.h5"
    with called("convert", "--follow", path, out) as call:
        call.wait_for("absent; waiting for it", of="err")
        record(path, load="tile", seconds=0.2, fast=True)
        done = call.end()
    assert done.code == 0
    assert "the run is over" in done.out
    assert f"{packets_in(out):,} packets" in done.out


def test_interrupt_completes_what_is_followed(tmp_path: Path):
    """Ctrl-C is the end of it, and a good one."""
    path, out = tmp_path / "raw.h5", tmp_path / "out.h5"
    with RawWriter(path, io_version="0.0") as writer:
        writer.append([hits(2)] * 5, 1)
        with called("convert", "--follow", path, out) as call:
            until(lambda: (tmp_path / "out.h5.partial.state").exists())
            until(lambda: b'"messages": 5' in (tmp_path / "out.h5.partial.state").read_bytes())
            call.process.send_signal(signal.SIGINT)
            done = call.end()
    assert (done.code, done.err) == (0, "")
    assert "5 messages, 15 packets" in done.out
    assert "stopped, with all rows that there were then" in done.out
    assert packets_in(out) == 15
    assert names(tmp_path) == ["out.h5", "raw.h5"]


def test_interrupt_of_one_that_waits_leaves_nothing(tmp_path: Path):
    """No file, no output."""
    with called("convert", "--follow", tmp_path / "raw.h5", tmp_path / "out.h5") as call:
        call.wait_for("absent; waiting for it", of="err")
        call.process.send_signal(signal.SIGINT)
        done = call.end()
    assert done.code == 130
    assert names(tmp_path) == []


# The command; where it would move its bar on, it says so, and waits for a line.
GATED = """
import sys
import streamer.steps
from streamer.cli import main
from streamer.show import Bar
def show(bar, done, total):
    print(done, "of", total, flush=True)
    sys.stdin.readline()
Bar.show = show
streamer.steps._STEP_ROWS = 100
sys.exit(main(["convert", *sys.argv[1:]]))
"""


def test_interrupt_of_one_that_does_not_follow_keeps_what_is_done(raw: Path, tmp_path: Path):
    """The same command goes on there, and says so."""
    path, out = raw, tmp_path / "out.h5"
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", GATED, path, out],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            call = Call(process)
            call.wait_for("100 of ")
            process.send_signal(signal.SIGINT)
            process.stdin.close()
            done = call.end()
        finally:
            process.kill()
    assert done.code == 130
    assert "stopped before row" in done.complaint
    assert "the same command goes on from there" in done.complaint
    again = run("convert", path, out)
    assert again.code == 0
    assert "went on from row 100\n" in again.out


def test_termination_of_one_that_follows_leaves_what_the_same_command_goes_on_with(
    tmp_path: Path,
):
    """A service that is restarted goes on, and completes it when the run is over."""
    path, out = tmp_path / "raw.h5", tmp_path / "out.h5"
    state = tmp_path / "out.h5.partial.state"
    with RawWriter(path, io_version="0.0") as writer:
        writer.append([hits(2)] * 5, 1)
        with called("convert", "--follow", path, out) as call:
            until(lambda: state.exists() and b'"messages": 5' in state.read_bytes())
            call.process.terminate()
            assert call.end().code == -signal.SIGTERM
        assert names(tmp_path) == ["out.h5.partial", "out.h5.partial.state", "raw.h5"]
        writer.append([hits(2)] * 5, 1)
    done = run("convert", "--follow", path, out)
    assert (done.code, done.err) == (0, "")
    assert "10 messages, 30 packets" in done.out
    assert "went on from row 5\n" in done.out
    assert names(tmp_path) == ["out.h5", "raw.h5"]


def test_terminal_shows_how_far_following_is(tmp_path: Path):
    """And what Ctrl-C does there."""
    path, out = tmp_path / "raw.h5", tmp_path / "out.h5"
    with RawWriter(path, io_version="0.0") as writer:
        writer.append([hits(2)] * 5, 1)
        with terminal("convert", "--follow", path, out, COLUMNS="250") as shown:
            shown.wait_for("5 rows converted")
            shown.press(b"\x03")
            shown.wait_for("stopped, with all rows that there were then")
            assert shown.end() == 0
