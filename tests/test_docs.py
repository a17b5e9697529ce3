"""What the documentation shows works as it is shown."""

import doctest
import importlib
import os
import pkgutil
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import pytest

import streamer
import writer

ROOT = Path(__file__).parents[1]
SECONDS = 60


# --------------------------------------------------------------------------- docstrings


def modules_with_examples() -> list[str]:
    """Return the modules of both packages in whose source an example stands."""
    return [
        name
        for package in (streamer, writer)
        for name in (
            package.__name__,
            *(
                module.name
                for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
            ),
        )
        if ">>> " in source_of(name)
    ]


def source_of(name: str) -> str:
    path = ROOT.joinpath(*name.split("."))
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_in_docstrings(name: str, tmp_path: Path, monkeypatch, capsys):
    """Every example of a module gives what it shows."""
    # Examples that make files make them here, also those that ask for a folder themselves.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("streamer", "writer"):
            raise
        pytest.skip(f"{name} needs {error.name}")
    failed, tried = doctest.testmod(module)
    assert tried, "it has examples, and none was found"
    assert not failed, capsys.readouterr().out


def test_examples_are_found():
    """The modules that users meet first have examples, which are run above."""
    assert {"streamer.rawfile", "streamer.rawhdf5format", "writer.rawwriter"} <= set(
        modules_with_examples()
    )


# ------------------------------------------------------------------------------- README


class Block(NamedTuple):
    """A block of code in a Markdown text."""

    line: int
    source: str


def blocks(text: str, *languages: str) -> list[Block]:
    """Return the blocks between ```language and ```, whatever is around them."""
    found, fence, wanted, indent, first = [], "", False, 0, 0
    held: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        bare = line.strip()
        ticks = bare[: len(bare) - len(bare.lstrip("`~"))]
        if not fence:
            if len(ticks) >= 3 and len(set(ticks)) == 1:
                fence, held, first = ticks, [], number + 1
                indent = len(line) - len(line.lstrip())
                wanted = bare[len(ticks) :].strip().split(" ")[0] in languages
        elif bare == ticks and ticks.startswith(fence):
            if wanted:
                found.append(Block(first, "\n".join([*held, ""])))
            fence = ""
        else:
            held.append(line[min(indent, len(line) - len(line.lstrip())) :])
    assert not fence, f"the block that begins in line {first - 1} does not end"
    return found


def run_block(block: Block, folder: Path, seconds: float = SECONDS) -> str:
    """Run a block as a program of its own, and return its output; fail if it fails."""
    script = folder / f"line_{block.line}.py"
    # Empty lines before it, so that the lines of an error are those of the text.
    script.write_text("\n" * (block.line - 1) + block.source)
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": path, "TMPDIR": str(folder)}
    environment.pop("HDF5_USE_FILE_LOCKING", None)
    with subprocess.Popen(
        [sys.executable, "-W", "error", script],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            # With what it has started. It is not waited for yet, so the number is its own.
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            pytest.fail(f"line {block.line}: not done after {seconds} s\n{output}")
    assert process.returncode == 0, f"line {block.line}:\n{output}"
    return output


README = blocks((ROOT / "README.md").read_text(), "python", "py")


@pytest.mark.parametrize("block", README, ids=[f"line {block.line}" for block in README])
def test_python_in_the_readme(block: Block, tmp_path: Path):
    """Each block of the README is a whole program, which ends by itself and well."""
    run_block(block, tmp_path)


# Without a prompt: they set up an environment of their own, as the machines that test this
# project do.
SET_UP = {
    "python3 -m venv .venv && .venv/bin/pip install --quiet . && .venv/bin/streamer demo\n",
    "tests/run\n",
}


def as_pattern(line: str) -> str:
    """Return what a line of output may be: numbers differ, and dots stand for anything."""
    parts = re.split(r"(\.\.\.|[\d,.]+)", line.rstrip())
    found = [
        ".*" if part == "..." else r"[\d,.]+" if k % 2 else re.escape(part)
        for k, part in enumerate(parts)
    ]
    return re.sub(r"(\\ )+", r"\\s+", "".join(found))


def test_terminal_sessions_in_the_readme(tmp_path: Path, monkeypatch):
    """Each command does what is shown, but for its numbers; those without a prompt are known."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    killed = (
        "import os; from writer import RawWriter\n"
        "RawWriter('killed.h5').append([b'a message'], 1); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", killed], check=False)
    sessions = blocks((ROOT / "README.md").read_text(), "console")
    called = 0
    for session in sessions:
        if "$ " not in session.source:
            assert session.source in SET_UP
            continue
        for part in session.source.split("$ ")[1:]:
            command, *shown = part.splitlines()
            words = shlex.split(command)
            assert Path(words[0]).name == "streamer"
            done = subprocess.run(
                [sys.executable, "-m", "streamer", *words[1:]],
                capture_output=True,
                text=True,
                timeout=SECONDS,
            )
            assert done.returncode == 0, done.stderr
            said = done.stdout.splitlines()
            for expected, line in zip(shown, said, strict=False):
                assert expected == "..." or re.fullmatch(as_pattern(expected), line.rstrip())
            assert len(said) >= len(shown) - shown.count("...")
            called += 1
    assert called >= 5


def test_blocks_are_found_in_markdown():
    """Only Python, whole, without the indentation of a list, and with its line."""
    text = """
```python
first = 1

    # indented
```
```console
$ false
```
````python title="x"
text = '''
```
'''
````
- in a list

  ```python
  for _ in ():
      pass
  ```
~~~
```python
not this one
~~~
"""
    assert blocks(text, "python", "py") == [
        Block(3, "first = 1\n\n    # indented\n"),
        Block(11, "text = '''\n```\n'''\n"),
        Block(18, "for _ in ():\n    pass\n"),
    ]
    with pytest.raises(AssertionError, match="begins in line 2 does not end"):
        blocks("\n```python\n", "python")


def test_block_runs_in_a_folder_of_its_own(tmp_path: Path):
    """A block sees the packages, and leaves its files in its folder."""
    block = Block(
        5, "import streamer, writer\nopen('made', 'w').close()\nprint(streamer.__version__)\n"
    )
    assert run_block(block, tmp_path) == f"{streamer.__version__}\n"
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise SystemExit('told you')", "told you"),
        ("1 / 0", "line 7, in <module>"),
        ("await nothing", "SyntaxError"),
        ("import warnings\nwarnings.warn('old')", "UserWarning: old"),
    ],
    ids=["exit", "error", "syntax", "warning"],
)
def test_block_that_fails_is_noticed(source: str, said: str, tmp_path: Path):
    """Errors, exit codes and warnings fail the test, with the output."""
    with pytest.raises(AssertionError, match=said):
        run_block(Block(7, source), tmp_path)


def test_block_that_does_not_end_is_ended(tmp_path: Path):
    """After the time allowed, the test fails, and the program is gone with its children."""
    source = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with pytest.raises(pytest.fail.Exception, match=r"not done after 1 s\n\d+") as caught:
        run_block(Block(1, source), tmp_path, seconds=1)
    child = int(str(caught.value).split()[-1])
    deadline = time.monotonic() + 10
    while lives(child):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def lives(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"
