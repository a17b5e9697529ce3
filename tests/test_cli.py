"""The command as people use it: in pipes and on terminals, with files in every state."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from streamer import RawFile, demo
from streamer.batch import Batch
from streamer.cli import main
from streamer.delivered import Delivered, sparkline
from streamer.show import Bar, as_json, as_raw, as_text
from streamer.state import State, file_state
from tests.live.writers import check, io_group, running
from writer import RawWriter
from writer.pacman import MessageType, Word, messages, words
from writer.simulate import START_TIME, simulate

ROOT = Path(__file__).parents[1]
COMMANDS = ("tail", "stat", "doctor", "recover", "convert", "simulate", "demo")
SECONDS = 30.0

# ------------------------------------------------------------------- around the command


def an_hour_ago() -> float:
    return time.time() - 3600


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"OPENBLAS_NUM_THREADS": "1", "TERM": "xterm", "COLUMNS": "100"} | more


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "streamer", *map(str, arguments)]


class Done:
    """How a call of the command ended."""

    def __init__(self, code: int, out: bytes, err: bytes):
        self.code, self.raw, self.out, self.err = code, out, out.decode(errors="replace"), err
        self.err = err.decode()

    @property
    def objects(self) -> list[dict]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def complaint(self) -> str:
        """The only line on stderr."""
        (line,) = self.err.splitlines()
        assert line.startswith("streamer: ")
        return line


def run(*arguments: object) -> Done:
    """Run the command to its end, in pipes."""
    done = subprocess.run(
        command(*arguments), cwd=ROOT, env=environment(), capture_output=True, timeout=SECONDS
    )
    return Done(done.returncode, done.stdout, done.stderr)


class Call:
    """A call that goes on, in pipes, and what it has said so far."""

    def __init__(self, process: subprocess.Popen):
        self.process = process
        self.seen = {"out": b"", "err": b""}
        for pipe in (process.stdout, process.stderr):
            os.set_blocking(pipe.fileno(), False)

    def look(self) -> None:
        for name, pipe in (("out", self.process.stdout), ("err", self.process.stderr)):
            with suppress(BlockingIOError):
                while chunk := os.read(pipe.fileno(), 1 << 16):
                    self.seen[name] += chunk

    def wait_for(self, text: str, of: str = "out") -> None:
        until(lambda: self.look() or text.encode() in self.seen[of], lambda: self.seen)

    def end(self) -> Done:
        until(lambda: self.look() or self.process.poll() is not None, lambda: self.seen)
        self.look()
        return Done(self.process.returncode, self.seen["out"], self.seen["err"])


def until(true: Callable[[], bool], what: Callable[[], object] = str) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline, what()
        time.sleep(0.01)


@contextmanager
def called(*arguments: object, **more: str) -> Iterator[Call]:
    """Run the command in pipes, next to the test."""
    process = subprocess.Popen(
        command(*arguments),
        cwd=ROOT,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            yield Call(process)
        finally:
            process.kill()


# A process gets Ctrl-C only from the terminal that controls it.
TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)


class Terminal:
    """A real terminal with the command on it."""

    def __init__(self, descriptor: int, process: subprocess.Popen):
        self._descriptor = descriptor
        self.process = process
        self.shown = ""
        os.set_blocking(descriptor, False)

    def look(self) -> None:
        # When nobody has the other end any more, reading fails.
        with suppress(BlockingIOError, OSError):
            while chunk := os.read(self._descriptor, 1 << 16):
                self.shown += chunk.decode(errors="replace")

    @property
    def text(self) -> str:
        """What was shown, without colours and movements."""
        self.look()
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.shown).replace("\r\n", "\n")

    def wait_for(self, text: str) -> None:
        until(lambda: text in self.text, lambda: self.shown)

    def press(self, key: bytes) -> None:
        os.write(self._descriptor, key)

    def end(self) -> int:
        until(lambda: self.look() or self.process.poll() is not None, lambda: self.shown)
        self.look()
        assert "Traceback" not in self.shown
        return self.process.returncode


@contextmanager
def terminal(*arguments: object, stdout: Path | None = None, **more: str) -> Iterator[Terminal]:
    """Run the command on a terminal of 100 columns, its output perhaps elsewhere."""
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (40, 100))
    with Path(stdout or os.devnull).open("wb") as elsewhere:
        process = subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL, *command(*arguments)],
            cwd=ROOT,
            env=environment(**more),
            stdin=its,
            stdout=elsewhere if stdout else its,
            stderr=its,
            start_new_session=True,
        )
    os.close(its)
    with process:
        try:
            yield Terminal(ours, process)
        finally:
            process.kill()
            os.close(ours)


# ------------------------------------------------------------------------ around files


def recorded(path: Path, *, load: str = "tile", seconds: float = 0.3) -> list[tuple[int, bytes]]:
    """Make a finished file; return io_group and message of each row."""
    rows = []
    with RawWriter(path, io_version="0.0") as out:
        for batch in simulate(load, seed=5, seconds=seconds):
            out.append(batch.buffer, batch.io_groups, lengths=batch.lengths)
            rows += zip(batch.io_groups.tolist(), batch.tolist(), strict=True)
    return rows


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[int, bytes]]]:
    """A finished file of several io_groups, and its rows."""
    path = tmp_path_factory.mktemp("made") / "raw.h5"
    return path, recorded(path, load="module0", seconds=0.1)


def batch_of(*datas: bytes) -> Batch:
    lengths = np.array([len(data) for data in datas], np.int64)
    return Batch(
        rows=np.arange(len(datas)),
        io_groups=np.ones(len(datas), "u1"),
        buffer=np.frombuffer(b"".join(datas), "u1"),
        starts=np.cumsum(lengths) - lengths,
        lengths=lengths,
    )


# ------------------------------------------------------------------ help, wrong calls


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command_has_an_example(name: str, capfd: pytest.CaptureFixture):
    """It says how the command is called, with an example."""
    assert main([name, "--help"]) == 0
    said = capfd.readouterr()
    assert not said.err
    assert re.search(rf"Examples:\n +streamer {name}", said.out)


def test_help_names_the_commands():
    """The command's own help lists them all, and ends with examples too."""
    done = run("--help")
    assert (done.code, done.err) == (0, "")
    assert all(re.search(rf"^  {name} +\w", done.out, re.MULTILINE) for name in COMMANDS)
    assert re.search(r"Examples:\n +streamer demo", done.out)


def test_version(capfd: pytest.CaptureFixture):
    """It tells which one it is."""
    assert main(["--version"]) == 0
    assert re.fullmatch(r"streamer, version \d+\.\d+.*\n", capfd.readouterr().out)


def test_without_a_command_it_shows_help(capfd: pytest.CaptureFixture):
    """That is a wrong call, so the help is on stderr."""
    assert main([]) == 2
    said = capfd.readouterr()
    assert not said.out
    assert "Examples:" in said.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("tail", "FILE"),
        ("tale raw.h5", "tale"),
        ("tail raw.h5 -n many", "many"),
        ("tail raw.h5 -n -1", "-1"),
        ("tail raw.h5 --io-group 256", "256"),
        ("tail raw.h5 --format xml", "xml"),
        ("tail raw.h5 --from-start -n 5", "--from-start"),
        ("stat", "FILE"),
        ("stat a.h5 b.h5", "b.h5"),
        ("simulate raw.h5 --load 3x3", "3x3"),
        ("simulate raw.h5 --seconds 0", "--seconds"),
        ("simulate raw.h5 --seconds nan", "nan"),
        ("simulate raw.h5 --batch-ms 0.001", "--batch-ms"),
        ("simulate raw.h5 --seed -1", "--seed"),
        ("demo --seconds inf", "inf"),
        ("demo --lod 2x2", "--lod"),
    ],
)
def test_wrong_calls_are_one_line_and_code_2(
    arguments: str, said: str, capfd: pytest.CaptureFixture, tmp_path: Path, monkeypatch
):
    """The line says what is wrong and where help is, and no file is made."""
    monkeypatch.chdir(tmp_path)
    assert main(arguments.split()) == 2
    shown = capfd.readouterr()
    assert not shown.out
    (line,) = shown.err.splitlines()
    assert line.startswith("streamer: ")
    assert said in line
    assert "--help)" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", ["stat", "tail", "tail --once"])
def test_what_is_no_raw_file_is_one_line_and_code_1(arguments: str, tmp_path: Path, capfd):
    """Waiting would not help, so it does not wait."""
    path = tmp_path / "notes.txt"
    path.write_text("not a raw file")
    name, *options = arguments.split()
    assert main([name, str(path), *options]) == 1
    shown = capfd.readouterr()
    (line,) = shown.err.splitlines()
    assert line.startswith(f"streamer: {path}: ")
    assert not shown.out


@pytest.mark.parametrize("arguments", ["stat", "tail --once"])
def test_absent_file_is_one_line_and_code_1(arguments: str, tmp_path: Path, capfd):
    """What looks at a file as it is now cannot wait for it."""
    name, *options = arguments.split()
    assert main([name, str(tmp_path / "raw.h5"), *options]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert "absent" in line


def test_full_disk_is_one_line_and_code_1(made):
    """Also what the operating system says is said in a line."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command("tail", made[0], "--once"),
            cwd=ROOT,
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=SECONDS,
        )
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == ["streamer: No space left on device"]


@pytest.mark.parametrize("name", ["tail", "stat"])
def test_closed_stdout_is_no_trouble(made, name: str):
    """As a daemon may be started."""
    shell = ["sh", "-c", 'exec "$@" >&-', "sh", *command(name, made[0])]
    done = subprocess.run(shell, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, timeout=30)
    assert (done.returncode, done.stderr) == (0, b"")


# -------------------------------------------------------------------------------- tail


def test_tail_json_is_what_was_written(made):
    """Each row is an object with the row's io_group, header and bytes."""
    path, rows = made
    done = run("tail", path, "--from-start", "--format", "json")
    assert (done.code, done.err) == (0, "")
    expected = [
        {
            "row": row,
            "io_group": group,
            "time": "2023-11-14T22:13:20Z",
            "kind": "data",
            "words": (len(data) - 8) // 16,
            "length": len(data),
            "data": data.hex(),
            "source": str(path),
        }
        for row, (group, data) in enumerate(rows)
    ]
    assert START_TIME == 1_700_000_000  # the time above
    assert done.objects == expected


def test_tail_raw_is_the_bytes_alone(made):
    """Nothing is added between messages or around them."""
    path, rows = made
    done = run("tail", path, "--from-start", "--format", "raw")
    assert done.code == 0
    assert done.raw == b"".join(data for _, data in rows)


def test_tail_shows_the_last_ten_rows(made):
    """By default, as tail(1) does; each line begins with its row and io_group."""
    path, rows = made
    done = run("tail", path)
    lines = [line.split() for line in done.out.splitlines()]
    first = len(rows) - 10
    expected = [[str(row), str(rows[row][0])] for row in range(first, len(rows))]
    assert [line[:2] for line in lines] == expected
    assert [line[3] for line in lines] == ["data"] * 10
    assert lines[0][5] == rows[first][1][:8].hex()


@pytest.mark.parametrize(("count", "expected"), [(0, 0), (3, 3), (10**9, None)])
def test_tail_shows_as_many_rows_as_wanted(made, count: int, expected: int | None):
    """None of them, some, or all if more are wanted than there are."""
    path, rows = made
    done = run("tail", path, "-n", count, "--once")
    assert len(done.out.splitlines()) == (len(rows) if expected is None else expected)


def test_tail_of_one_io_group(made):
    """The last rows of this card are shown, though others came after them."""
    path, rows = made
    own = [row for row, (group, _) in enumerate(rows) if group == 2]
    done = run("tail", path, "-n", 50, "--io-group", 2, "--format", "json")
    assert [line["row"] for line in done.objects] == own[-50:]


def test_tail_of_rare_io_groups_goes_far_back(tmp_path: Path, monkeypatch, capfd):
    """They are looked for in as many headers as it takes."""
    monkeypatch.setattr("streamer.printing._HEADERS_AT_ONCE", 7)
    path = tmp_path / "raw.h5"
    with RawWriter(path) as out:
        out.append([b"%d" % row for row in range(100)], [3, 4, *[1] * 60, 3, *[1] * 37])
    options = ["--io-group", "3", "--io-group", "4", "--once", "--format", "json"]
    assert main(["tail", str(path), "-n", "2", *options]) == 0
    assert [json.loads(line)["row"] for line in capfd.readouterr().out.splitlines()] == [1, 62]


def test_tail_once_ends_though_the_writer_goes_on(tmp_path: Path):
    """What is there now is shown, and that is all."""
    with RawWriter(tmp_path / "raw.h5") as out:
        out.append([b"one", b"two"], 1)
        done = run("tail", out.path, "--once", "--format", "raw")
    assert (done.code, done.raw, done.err) == (0, b"onetwo", "")


def test_tail_pipe_is_live(tmp_path: Path):
    """A row is in the pipe as soon as it is in the file, not when a buffer is full."""
    with RawWriter(tmp_path / "raw.h5") as out:
        out.append([b"first"], 1)
        with called("tail", out.path, "--format", "raw") as call:
            call.wait_for("first")
            out.append([b"second"], 1)
            call.wait_for("second")
            out.close()
            done = call.end()
    assert (done.code, done.out, done.err) == (0, "firstsecond", "")


def test_tail_waits_for_an_absent_file(tmp_path: Path):
    """It says so once, and gives all rows of the file when it comes, more than the last ten."""
    path = tmp_path / "raw.h5"
    with called("tail", path, "--format", "json") as call:
        call.wait_for("waiting for it", of="err")
        with RawWriter(path) as out:
            out.append([b"message"] * 100, 1)
        done = call.end()
    assert done.code == 0
    assert "absent" in done.complaint
    assert [line["row"] for line in done.objects] == list(range(100))


def test_tail_goes_on_with_a_new_file_of_the_same_name(tmp_path: Path):
    """It says so on stderr, and begins at the new file's first row."""
    path, other = tmp_path / "raw.h5", tmp_path / "other.h5"
    with RawWriter(other) as new:
        new.append([b"new"] * 20, 2)
    with RawWriter(path) as out:
        out.append([b"old"], 1)
        with called("tail", path, "--format", "raw") as call:
            call.wait_for("old")
            other.replace(path)
            done = call.end()
    assert (done.code, done.out) == (0, "old" + 20 * "new")
    assert "another file has this name now" in done.complaint


def test_tail_of_a_folder(tmp_path: Path, capfd):
    """One run after the other; without --from-start, the end of the newest one."""
    for number in (2, 1):
        with RawWriter(tmp_path / f"{number}.h5") as out:
            out.append([b"%d%02d " % (number, row) for row in range(20)], 2)
    assert main(["tail", str(tmp_path), "--from-start", "--once", "--format", "raw"]) == 0
    assert capfd.readouterr().out.split() == [
        f"{number}{row:02}" for number in (2, 1) for row in range(20)
    ]
    assert main(["tail", f"{tmp_path}/*.h5", "-n", "3", "--once", "--format", "raw"]) == 0
    assert capfd.readouterr().out.split() == ["117", "118", "119"]


def test_tail_follows_a_second_process(tmp_path: Path):
    """Rows come while another process writes them, each of them once, and it ends with it."""
    path = tmp_path / "raw.h5"
    with called("tail", path, "--from-start", "--format", "json") as call:
        simulated = run("simulate", path, "--load", "module0", "--seconds", 1)
        done = call.end()
    assert (simulated.code, done.code) == (0, 0)
    objects = done.objects
    assert [line["row"] for line in objects] == list(range(len(objects)))
    assert f" {len(objects):,} rows," in simulated.out


def test_tail_follows_larpix_control(tmp_path: Path):
    """The stock writer's rows are given too, and Ctrl-C ends what it never says the end of."""
    path = tmp_path / "raw.h5"
    with (
        running("stock", path, batch=50, batches=4, pause=0.1) as stock,
        called("tail", path, "--from-start", "--format", "json") as call,
    ):
        stock.wait()
        call.wait_for('"row": 199')
        call.process.send_signal(signal.SIGINT)
        done = call.end()
    assert done.code == 130
    assert "Traceback" not in done.err
    for row, line in enumerate(done.objects):
        assert (line["row"], line["io_group"]) == (row, io_group(row))
        assert check(row, bytes.fromhex(line["data"]))


@pytest.mark.parametrize("rest", ["much", "nothing"])
def test_tail_ends_when_nobody_reads_it(rest: str, tmp_path: Path):
    """As behind "| head": without a word, also when it has nothing to write any more."""
    with RawWriter(tmp_path / "raw.h5") as out:
        out.append([b"a message"] * (100_000 if rest == "much" else 10), 1)
        with called("tail", out.path, "--from-start") as call:
            call.wait_for("\n")
            call.process.stdout.close()
            until(lambda: call.process.poll() is not None)
            assert (call.process.returncode, call.process.stderr.read()) == (0, b"")


def test_tail_on_a_terminal(tmp_path: Path):
    """There are headings, lines that fit, and Ctrl-C is the end without a traceback."""
    path = tmp_path / "raw.h5"
    rows = recorded(path)
    with RawWriter(path) as out, terminal("tail", path) as screen:
        screen.wait_for(f"{len(rows) - 1} ")
        out.append([b"?" * 50], 7)
        screen.wait_for("unknown")
        screen.press(b"\x03")
        assert screen.end() == 130
        lines = screen.text.splitlines()
    assert "io_group" in lines[0]
    assert "\x1b[31munknown" in screen.shown
    assert max(map(len, lines)) <= 100


def test_tail_on_a_terminal_says_that_the_run_is_over(made):
    """Whoever looks on is told why nothing comes any more."""
    path, rows = made
    with terminal("tail", path) as screen:
        assert screen.end() == 0
        assert f"the run is over, after {len(rows):,} rows" in screen.text


def test_tail_spoils_no_terminal(made):
    """Raw bytes on a terminal are a wrong call."""
    with terminal("tail", made[0], "--format", "raw") as screen:
        assert screen.end() == 2
        assert "spoil the terminal" in screen.text


# --------------------------------------------------------------------- how it is shown


def test_messages_that_are_none_are_unknown():
    """Another letter, another length, no header at all: no time and no words are made up."""
    good = messages(words(Word.TRIG, timestamp=[1, 2]), [2], 1)[0].tobytes()
    bad = (good[:-1], b"x" + good[1:], good + good, b"D", b"")
    lines = as_text(batch_of(good, *bad)).decode().splitlines()
    assert [line.split()[2:5] for line in lines] == [
        ["1970-01-01T00:00:01Z", "data", "2"],
        *[["-", "unknown", "-"]] * len(bad),
    ]
    objects = [json.loads(line) for line in as_json(batch_of(good, *bad)).splitlines()]
    assert [one["data"] for one in objects] == [data.hex() for data in (good, *bad)]
    assert {(one["kind"], one["time"], one["words"]) for one in objects[1:]} == {
        ("unknown", None, None)
    }
    assert as_raw(batch_of(good, *bad)) == b"".join((good, *bad))


def test_kinds_of_messages():
    """Requests and replies are told from data."""
    kinds = [MessageType.REQUEST, MessageType.REPLY, MessageType.DATA]
    datas = [messages(words(Word.PING), [1], 5, kind=kind)[0].tobytes() for kind in kinds]
    objects = [json.loads(line) for line in as_json(batch_of(*datas)).splitlines()]
    assert [one["kind"] for one in objects] == ["request", "reply", "data"]


def test_nothing_is_shown_of_no_messages():
    """An empty batch is no line, in any form."""
    assert as_text(batch_of()) == as_json(batch_of()) == as_raw(batch_of()) == b""


@contextmanager
def stderr_on_terminal(monkeypatch) -> Iterator[Callable[[], str]]:
    ours, its = pty.openpty()
    os.set_blocking(ours, False)
    with os.fdopen(its, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        try:
            yield lambda: os.read(ours, 1 << 16).decode()
        finally:
            monkeypatch.undo()
            os.close(ours)


def test_bar_is_shown_for_what_takes_long(monkeypatch):
    """It appears on a terminal, and vanishes at the end."""
    monkeypatch.setenv("TERM", "xterm")
    with stderr_on_terminal(monkeypatch) as shown:
        monkeypatch.setattr("streamer.show._PATIENCE_SECONDS", -1.0)
        with Bar("reading") as bar:
            bar.show(250, 1000)
            bar.show(1000, 1000)
        text, deadline = "", time.monotonic() + 10
        while "250/1000" not in text:
            assert time.monotonic() < deadline, text
            with suppress(BlockingIOError):  # the terminal passes it on in its own time
                text += shown()


def test_bar_is_not_shown_for_what_is_quick(monkeypatch):
    """Before half a second has passed there is none."""
    with stderr_on_terminal(monkeypatch) as shown:
        with Bar("reading") as bar:
            bar.show(250, 1000)
        with pytest.raises(BlockingIOError):
            shown()


# -------------------------------------------------------------------------------- stat


def states(path: Path) -> str:
    done = run("stat", path, "--json")
    assert (done.code, done.err) == (0, "")
    return json.loads(done.out)["state"]


def test_stat_of_a_finished_file(made):
    """All figures are those of what was written."""
    path, rows = made
    done = run("stat", path, "--json")
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    groups = [group for group, _ in rows]
    assert found["state"] == "finished"
    assert found["rows"] == len(rows)
    assert found["payload_bytes"] == sum(len(data) for _, data in rows)
    assert found["file_bytes"] == path.stat().st_size
    assert found["io_groups"] == {str(group): groups.count(group) for group in sorted({*groups})}
    assert found["lengths"] == {"msgs": len(rows), "msg_headers": len(rows)}
    assert (found["version"], found["io_version"], found["reading"]) == ("0.0", "0.0", "direct")
    assert found["writer"].startswith("larpix-streamer ")
    assert len(found["run_id"]) == 36
    assert found["advice"] == []
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found["created"])
    assert found["created"] <= found["modified"]


def test_stat_for_people(made):
    """The same figures in lines, and no colours in a pipe."""
    path, rows = made
    done = run("stat", path)
    assert done.code == 0
    assert re.search(r"^state +finished: ", done.out, re.MULTILINE)
    assert re.search(rf"^rows +{len(rows):,}$", done.out, re.MULTILINE)
    assert re.search(r"^io_group 2 +[\d,]+ rows$", done.out, re.MULTILINE)
    assert "\x1b" not in done.out


def test_stat_of_many_io_groups_fits_a_screen(tmp_path: Path, capfd):
    """A hundred cards share lines."""
    with RawWriter(tmp_path / "raw.h5") as out:
        out.append([b"message"] * 140, range(1, 141))
    assert main(["stat", str(out.path)]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert "140: 1" in lines[-1]
    assert len(lines) < 50
    assert max(map(len, lines[-35:])) <= 80


def test_stat_of_a_file_of_larpix_control(tmp_path: Path):
    """It is closed; nobody says whether the run is over, nor who wrote it."""
    path = tmp_path / "raw.h5"
    with running("stock", path, batch=5, batches=2) as stock:
        stock.wait()
    found = json.loads(run("stat", path, "--json").out)
    assert (found["state"], found["rows"], found["writer"]) == ("closed", 10, None)
    assert "again for each batch" in found["because"]
    os.utime(path, (an_hour_ago(), an_hour_ago()))
    assert "60 min ago" in json.loads(run("stat", path, "--json").out)["because"]


def test_stat_of_a_file_that_a_rawwriter_has(tmp_path: Path):
    """It is live by the writer's lock, however long the writer pauses."""
    with RawWriter(tmp_path / "raw.h5") as out:
        out.append([b"message"], 1)
        os.utime(out.path, (an_hour_ago(), an_hour_ago()))
        assert states(out.path) == "live"


def test_stat_of_a_file_that_another_writer_has(tmp_path: Path):
    """It is live by what is written."""
    path = tmp_path / "raw.h5"
    with running("file", path, batch=10, batches=10_000, pause=0.02) as other:
        other.wait_for(10)
        assert states(path) == "live"
        other.kill()


def test_stat_watches_a_file_that_looks_abandoned(tmp_path: Path):
    """A writer that has not written for long, but does now, is noticed."""
    path = tmp_path / "raw.h5"
    with running("file", path, batch=10, batches=10_000, pause=0.02) as other:
        other.wait_for(10)
        with RawFile(path) as raw:
            os.utime(path, (an_hour_ago(), an_hour_ago()))
            assert file_state(raw) is State.LIVE
        other.kill()


@pytest.mark.parametrize("kind", ["rawwriter", "file"])
def test_stat_of_a_file_whose_writer_was_killed(kind: str, tmp_path: Path):
    """It says so, what that means, and what to do and not to do; that is no failure."""
    path = tmp_path / "raw.h5"
    with running(kind, path, batch=10, batches=10_000, pause=0.01) as killed:
        killed.wait_for(50)
        killed.kill()
        committed = killed.committed
    if kind != "rawwriter":  # whose death is known at once, by its lock
        os.utime(path, (an_hour_ago(), an_hour_ago()))
    done = run("stat", path)
    assert (done.code, done.err) == (0, "")
    assert re.search(r"^state +writer gone: ", done.out, re.MULTILINE)
    assert "Do not open the file with h5py" in done.out
    with RawFile(path) as raw:
        assert re.search(rf"^rows +{len(raw):,}$", done.out, re.MULTILINE)
        assert len(raw) >= committed


def test_stat_of_unequal_lengths(tmp_path: Path, capfd):
    """Both lengths are shown, and the rows that only one dataset has are explained."""
    import h5py

    path = tmp_path / "raw.h5"
    with RawWriter(path) as out:
        out.append([b"message"] * 5, 1)
    with h5py.File(path, "r+") as file:
        file["msgs"].resize((8,))
    assert main(["stat", str(path), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["rows"] == 5
    assert found["lengths"] == {"msgs": 8, "msg_headers": 5}
    assert "in the middle of a batch" in found["advice"][0]


def test_stat_of_a_damaged_file(tmp_path: Path, capfd):
    """The row is named, and it is a failure."""
    path = tmp_path / "raw.h5"
    with RawWriter(path) as out:
        out.append([b"message %d" % row * 50 for row in range(100)], 1)
    content = bytearray(path.read_bytes())
    where = content.index(b"message 50")
    content[where - 16 : where] = bytes(16)  # what HDF5 says of it
    path.write_bytes(content)
    assert main(["stat", str(path)]) == 1
    said = " ".join(capfd.readouterr().out.split())
    assert "row 50 cannot be read" in said
    assert "damaged" in said


def test_stat_on_a_terminal(made):
    """It is the same there, in colour."""
    with terminal("stat", made[0]) as screen:
        assert screen.end() == 0
        assert "finished: " in screen.text
    assert "\x1b[" in screen.shown


# ---------------------------------------------------------------------------- simulate


def test_simulate_repeats_itself_by_seed(tmp_path: Path):
    """The same seed gives the same messages, and another one others."""
    found = []
    for name, seed in (("a", 4), ("b", 4), ("c", 5)):
        path = tmp_path / f"{name}.h5"
        assert run("simulate", path, "--load", "tile", "--seconds", 0.3, "--seed", seed, "--fast")
        with RawFile(path) as raw:
            found.append((raw.read(0).io_groups.tolist(), raw.read(0).tolist()))
    assert found[0] == found[1] != found[2]
    assert len(found[0][1]) > 100


def test_simulate_keeps_the_pace(tmp_path: Path):
    """A second of the detector takes a second, and batches are as long as wanted."""
    path, begun = tmp_path / "raw.h5", time.monotonic()
    done = run("simulate", path, "--load", "tile", "--seconds", 1, "--batch-ms", 250)
    assert time.monotonic() - begun >= 1
    assert (done.code, done.err) == (0, "")
    assert re.fullmatch(
        rf"{re.escape(str(path))}: [\d,]+ rows, [\d,]+ bytes, \d\.\d s\n", done.out
    )


def test_simulate_touches_no_file_that_is_there(tmp_path: Path):
    """Simulated rows never come behind real ones by mistake."""
    path = tmp_path / "raw.h5"
    rows = recorded(path)
    before = path.read_bytes()
    done = run("simulate", path, "--load", "tile", "--seconds", 0.1)
    assert (done.code, done.out) == (1, "")
    assert "--append" in done.complaint
    assert path.read_bytes() == before
    assert run("simulate", path, "--load", "tile", "--seconds", 0.2, "--append").code == 0
    with RawFile(path) as raw:
        assert raw.read(0, len(rows)).tolist() == [data for _, data in rows]
        assert len(raw) > len(rows)


def test_simulate_on_a_terminal(tmp_path: Path):
    """A line tells how it goes on, and Ctrl-C ends the run as its end does."""
    path = tmp_path / "raw.h5"
    with terminal("simulate", path, "--load", "tile") as screen:
        screen.wait_for("messages/s")
        screen.press(b"\x03")
        assert screen.end() == 130
        assert re.search(r"raw\.h5: [\d,]+ rows, ", screen.text)
    with RawFile(path) as raw:
        assert file_state(raw) is State.FINISHED


# -------------------------------------------------------------------------------- demo


def equality(text: str) -> bool:
    last = text.splitlines()[-1]
    match = re.fullmatch(r"([\d,]+) rows written = ([\d,]+) rows delivered", last)
    return match is not None and match[1] == match[2] != "0"


def test_demo_in_a_pipe(tmp_path: Path):
    """A line a second, and at the end: all that was written has been delivered."""
    with called("demo", "--seconds", 2.5, "--load", "module0", TMPDIR=str(tmp_path)) as call:
        done = call.end()
    assert (done.code, done.err) == (0, "")
    assert len(re.findall(r"messages/s +[\d.]+ MB/s  lag [\d,]+ rows", done.out)) == 2
    assert re.search(r"median \d+ ms, maximum \d+ ms", done.out)
    assert equality(done.out)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("load", ["2x2", "ndlar"])
def test_demo_on_a_terminal(load: str, tmp_path: Path):
    """A live panel that fits, and the same last line."""
    with terminal("demo", "--seconds", 1.5, "--load", load, TMPDIR=str(tmp_path)) as screen:
        assert screen.end() == 0
        text = screen.text
    assert "lag " in text
    assert "█" in text
    assert max(len(line) for line in text.splitlines() if "│" in line) <= 100
    assert equality(text)
    rows = text.split()[-3]
    assert re.findall(r"│ +all .* ([\d,]+) +│", text)[-1] == rows, "the panel is not the last"
    assert not list(tmp_path.iterdir())


def children(process: subprocess.Popen) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def gone(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_ZOMBIE
    return True


def test_demo_leaves_nothing_after_ctrl_c(tmp_path: Path):
    """Neither its folder nor the other process."""
    with terminal("demo", "--seconds", 600, "--load", "tile", TMPDIR=str(tmp_path)) as screen:
        screen.wait_for("newest")
        (child,) = children(screen.process)
        screen.press(b"\x03")
        assert screen.end() == 130
    until(lambda: gone(child))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_demo_leaves_nothing_after_signals(number: int, code: int, tmp_path: Path):
    """Nor when it is told to end in another way, in a pipe."""
    with called("demo", "--seconds", 600, "--load", "tile", TMPDIR=str(tmp_path)) as call:
        call.wait_for("messages/s")
        (child,) = children(call.process)
        call.process.send_signal(number)
        done = call.end()
    assert done.code == code
    assert "Traceback" not in done.err
    until(lambda: gone(child))
    assert not list(tmp_path.iterdir())


def test_demo_killed_takes_its_writer_with_it(tmp_path: Path):
    """Even if it could not clean up, nobody goes on filling the disk."""
    with called("demo", "--seconds", 600, "--load", "tile", TMPDIR=str(tmp_path)) as call:
        call.wait_for("messages/s")
        (child,) = children(call.process)
        call.process.kill()
        call.end()
    until(lambda: gone(child))


def test_demo_says_that_its_writer_died(tmp_path: Path):
    """That is a failure, in one line."""
    with called("demo", "--seconds", 600, "--load", "tile", TMPDIR=str(tmp_path)) as call:
        call.wait_for("messages/s")
        children(call.process)[0].kill()
        done = call.end()
    assert done.code == 1
    assert "the simulated detector" in done.complaint
    assert not list(tmp_path.iterdir())


def test_demo_fails_if_a_row_is_missing(monkeypatch, capfd):
    """The two numbers are counted on either side; a difference is said and is a failure."""
    count = Delivered.add

    def forgetful(self: Delivered, batch: Batch, now: float) -> None:
        count(self, batch.select(np.arange(len(batch) - (not self.rows))), now)

    monkeypatch.setattr(demo.Delivered, "add", forgetful)
    assert main(["demo", "--seconds", "0.5", "--load", "tile"]) == 1
    said = capfd.readouterr()
    assert "rows delivered" not in said.out
    (line,) = said.err.splitlines()
    assert re.search(r"[\d,]+ rows .* written, but [\d,]+ rows .* delivered", line)


def test_delivered_notices_a_gap():
    """Rows that come twice, or not at all, are no complete delivery."""
    batch = batch_of(b"one", b"two", b"three")
    for parts in ([0], [0, 2]), ([0, 1], [1, 2]), ([1, 0], [2]):
        delivered = Delivered()
        for now, part in enumerate(parts):
            delivered.add(batch.select(np.array(part)), float(now))
        assert not delivered.complete


def test_rate_is_steady_if_the_detector_is():
    """Batches that fall into steps of time unevenly make no waves."""
    delivered = Delivered()
    for number in range(50):
        batch = batch_of(*[b"message"] * 30)
        delivered.add(batch, now=5.0 + 0.3 * number)
    assert delivered.history(40) == pytest.approx([100.0] * len(delivered.history(40)))
    assert len({*sparkline(delivered.history(40))}) == 1
    assert delivered.rates().messages_per_second == pytest.approx(100.0)


# ------------------------------------------------------------------------- wrong calls


@pytest.mark.parametrize(
    "command", ["tail", "stat", "doctor", "simulate", "recover {out} ", "convert {out} "]
)
def test_an_empty_name_is_a_wrong_call(command: str, tmp_path: Path):
    """It is not the current folder, as an unset variable of a shell would have it."""
    done = run(*command.format(out=tmp_path / "out.h5").split(), "")
    assert done.code == 2
    assert "it is empty" in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize("what", ["--help", "--version", "tail --help"])
def test_help_that_nobody_can_read(what: str):
    """A full disk is an error in a line; a reader that has gone is none."""
    streamer = f"{sys.executable} -m streamer {what}"
    full = subprocess.run(
        ["sh", "-c", f"{streamer} > /dev/full"], capture_output=True, text=True, check=False
    )
    assert (full.returncode, full.stderr) == (1, "streamer: No space left on device\n")
    piped = ["bash", "-c", f"{streamer} | true; exit ${{PIPESTATUS[0]}}"]
    gone = subprocess.run(piped, capture_output=True, text=True, check=False)
    assert (gone.returncode, gone.stderr) == (0, "")


def test_simulate_into_what_is_no_file(tmp_path: Path):
    """A pipe or a device is refused before HDF5 sees it."""
    os.mkfifo(tmp_path / "pipe")
    for out in (tmp_path / "pipe", "/dev/full"):
        done = run("simulate", str(out), "--seconds", "1", "--fast")
        assert (done.code, done.err) == (1, f"streamer: {out}: is no regular file\n")


def test_simulate_in_batches_that_do_not_fit_in_memory(tmp_path: Path):
    """Too large a batch is a wrong call."""
    done = run("simulate", str(tmp_path / "raw.h5"), "--batch-ms", "1e9", "--fast")
    assert done.code == 2
    assert not (tmp_path / "raw.h5").exists()


@pytest.mark.parametrize("source", ["", "*.h5"])
def test_tail_once_of_no_runs(source: str, tmp_path: Path):
    """As of a file that is absent, it fails."""
    done = run("tail", f"{tmp_path}/{source}", "--once")
    assert done.code == 1
    assert "no raw file in it" in done.err


def test_an_error_is_one_line_whatever_the_name(tmp_path: Path):
    """Also of a file whose name has two."""
    done = run("stat", str(tmp_path / "two\nlines.h5"))
    assert done.code == 1
    assert len(done.err.splitlines()) == 1
