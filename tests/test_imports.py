"""What importing costs, in which direction imports run, and that what is offered is listed."""

import ast
import importlib
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import is_typeddict

import pytest

import streamer
import writer

ROOT = Path(__file__).parents[1]
PACKAGES = ("streamer", "writer")
# From top to bottom: a layer imports from those below it, and within itself.
LAYERS = (
    ("streamer.cli",),
    ("streamer.monitor", "streamer.relay", "streamer.convert"),
    ("streamer.follow",),
    ("streamer.rawfile", "streamer.wake"),
    ("streamer.heap", "streamer.batch", "streamer.position"),
    ("writer",),
)
# What users import by these names besides what the two packages offer themselves.
PUBLIC_MODULES = (
    "streamer.clock",
    "streamer.convert",
    "streamer.events",
    "streamer.geometry",
    "streamer.monitor",
    "streamer.packets",
    "streamer.rawhdf5format",
    "writer.larpix",
    "writer.pacman",
    "writer.pacman24",
    "writer.rawhdf5format",
    "writer.simulate",
)

# ------------------------------------------------------------------ a fresh interpreter

LOOK = """
import json, os, sys
before = dict(os.environ)
import {name}
import logging, threading
print(json.dumps({{
    "modules": sorted(sys.modules),
    "environment": dict(os.environ) == before,
    "threads": [thread.name for thread in threading.enumerate()],
    "tasks": len(os.listdir("/proc/self/task")),
    "handlers": [
        name for name in (None, "streamer", "writer") if logging.getLogger(name).handlers
    ],
}}))
"""


def imported(name: str) -> dict:
    """Import something in a fresh interpreter, and tell what that did."""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("HDF5_USE_FILE_LOCKING", None)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOOK.format(name=name)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module", params=PACKAGES)
def fresh(request: pytest.FixtureRequest) -> tuple[str, dict]:
    return request.param, imported(request.param)


def test_importing_writer_loads_nothing_heavy():
    """A process that takes data loads h5py and numpy, nothing of the reading side."""
    loaded = {name.partition(".")[0] for name in imported("writer")["modules"]}
    assert {"writer", "h5py", "numpy"} <= loaded
    heavy = {"streamer", "anyio", "watchdog", "click", "rich", "trio", "larpix", "awkward"}
    assert not heavy & loaded


def test_importing_changes_no_environment_variable(fresh: tuple[str, dict]):
    """The environment belongs to the user, who may have reasons."""
    assert fresh[1]["environment"]


def test_importing_starts_no_thread(fresh: tuple[str, dict]):
    """Neither one of Python's nor any other."""
    assert fresh[1]["threads"] == ["MainThread"]
    assert fresh[1]["tasks"] == 1


def test_importing_sets_no_logging_up(fresh: tuple[str, dict]):
    """Where messages go is for the program to say."""
    assert fresh[1]["handlers"] == []


# ---------------------------------------------------------------- read from the sources


def sources() -> dict[str, Path]:
    """Return the file of each module of both packages."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


SOURCES = sources()
MODULES = [name for name in SOURCES if not name.endswith("__main__")]


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Walk through a module, except what only type checkers see."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from statements(child)


def imports_of(name: str, text: str, *, package: bool = False) -> set[str]:
    """Return what a module imports, by its full name: modules, and what is taken from them."""
    found = set()
    for node in statements(ast.parse(text)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = name.split(".")
                kept = parts[: len(parts) - node.level + package]
                base = ".".join([*kept, *([base] if base else [])])
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names)
    return found


def belongs(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


IMPORTS = {
    name: imports_of(name, path.read_text(), package=path.name == "__init__.py")
    for name, path in SOURCES.items()
}
# Between modules of our own only; a name that is no module is in the one it is taken from.
OWN = {name: {other for other in found if other in SOURCES} for name, found in IMPORTS.items()}


def users_of(module: str) -> set[str]:
    """Return our modules that import a module, or anything in it."""
    return {name for name, found in IMPORTS.items() if any(belongs(one, module) for one in found)}


def test_imports_are_found_in_every_form():
    """The tests below would notice: absolute, relative, late, aliased imports."""
    text = """
import h5py.h5f as low
from . import wake
from .wake import Waker
from ..other import thing
if TYPE_CHECKING:
    import awkward
def late():
    import anyio
    try:
        from trio import lowlevel
    except ImportError:
        import watchdog
"""
    assert imports_of("streamer.follow", text) == {
        "h5py.h5f",
        "streamer",
        "streamer.wake",
        "streamer.wake.Waker",
        "other",
        "other.thing",
        "anyio",
        "trio",
        "trio.lowlevel",
        "watchdog",
    }
    assert imports_of("streamer", "from .batch import Batch", package=True) == {
        "streamer.batch",
        "streamer.batch.Batch",
    }
    assert {"streamer.heap", "writer.layout"} <= OWN["streamer.direct"]


def test_writer_never_imports_streamer():
    """The writing side does not know the reading side."""
    assert not {name for name in users_of("streamer") if belongs(name, "writer")}


@pytest.mark.parametrize("name", ["streamer.heap", "streamer.batch"])
def test_pure_modules_do_without_hdf5(name: str):
    """Neither they nor what they import of ours touches the HDF5 library."""
    seen, left = set(), {name}
    while left:
        module = left.pop()
        seen.add(module)
        assert not [one for one in IMPORTS[module] if belongs(one, "h5py")], module
        left |= OWN[module] - seen
    assert name in seen


def test_anyio_is_used_in_two_places():
    """Following, and sharing what is followed, are asynchronous; everything else is not."""
    sharing = {"streamer.broadcast", "streamer.pump", "streamer.buffered"}
    assert users_of("anyio") <= {"streamer.follow"} | sharing


def test_watchdog_is_used_in_one_place():
    """Only wake knows where file events come from."""
    assert users_of("watchdog") <= {"streamer.wake"}


def test_layers_import_downwards_only():
    """From the command to the pure parts, and from there to the file format."""

    def layer(name: str) -> int | None:
        return next(
            (k for k, row in enumerate(LAYERS) if any(belongs(name, one) for one in row)), None
        )

    upwards = [
        (name, other)
        for name, found in OWN.items()
        for other in found
        if (low := layer(name)) is not None and (high := layer(other)) is not None and high < low
    ]
    assert not upwards


def test_no_two_modules_import_each_other():
    """There is an order in which the modules could be written."""
    left = {name: OWN[name] - set(PACKAGES) - {name} for name in MODULES if name not in PACKAGES}
    while free := {name for name, needs in left.items() if not needs & left.keys()}:
        left = {name: needs for name, needs in left.items() if name not in free}
    assert not left


# --------------------------------------------------------------------- what is offered


def load(name: str) -> ModuleType:
    """Import a module, or skip the test where what it needs is optional and absent."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in PACKAGES:
            raise
        pytest.skip(f"{name} needs {error.name}")


def defined_in(text: str) -> set[str]:
    """Return the public names that a module defines itself."""
    found = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            made_by = ast.unparse(node.value.func) if isinstance(node.value, ast.Call) else ""
            if made_by.rpartition(".")[2] in ("TypeVar", "getLogger"):  # tools of the module
                continue
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {
                name.id
                for target in targets
                for name in ast.walk(target)
                if isinstance(name, ast.Name)
            }
    return {name for name in found if not name.startswith("_")}


@pytest.mark.parametrize("name", [name for name in MODULES if name != "writer.version"])
def test_all_lists_what_a_module_offers(name: str):
    """Each listed name exists, once, and each public name defined there is listed."""
    module = load(name)
    listed = module.__all__
    assert len(set(listed)) == len(listed)
    assert not [one for one in listed if not hasattr(module, one)]
    assert defined_in(SOURCES[name].read_text()) <= set(listed)


@pytest.mark.parametrize("package", [streamer, writer], ids=PACKAGES)
def test_all_of_a_package_is_complete(package: ModuleType):
    """A package lists all that one can take from it, and nothing else."""
    names = {
        name
        for name, value in vars(package).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert set(package.__all__) == names | {"__version__"}


@pytest.mark.parametrize("package", [streamer, writer], ids=PACKAGES)
def test_packages_offer_all_their_errors(package: ModuleType):
    """Whatever is raised can be caught by the name that the package gives it."""
    errors = importlib.import_module(f"{package.__name__}.errors")
    # The roots of the trees too.
    assert set(errors.__all__) <= set(package.__all__)
    assert all(getattr(package, name) is getattr(errors, name) for name in errors.__all__)


def offered() -> dict[str, object]:
    """Return the functions and classes that users meet, except errors and mere records.

    A record, a tuple or dict of named fields, is shown by what returns it.
    """
    found = {}
    for module in [streamer, writer, *map(importlib.import_module, PUBLIC_MODULES)]:
        for name in module.__all__:
            value = getattr(module, name)
            if not (inspect.isclass(value) or inspect.isfunction(value)):
                continue
            if is_typeddict(value):
                continue
            if inspect.isclass(value) and issubclass(value, BaseException | tuple):
                continue
            found[f"{value.__module__}.{name}"] = value
    return found


OFFERED = offered()


def test_what_is_offered_is_found():
    """The test below would notice: functions, classes, of both packages."""
    assert {"streamer.rawfile.RawFile", "writer.rawwriter.RawWriter"} <= OFFERED.keys()
    assert {"writer.rawhdf5format.to_rawfile", "writer.simulate.simulate"} <= OFFERED.keys()
    assert not [name for name in OFFERED if name.endswith("Error")]


@pytest.mark.parametrize("name", OFFERED)
def test_what_is_offered_is_shown_by_an_example(name: str):
    """The docstring of each public function and class shows how it is used."""
    assert ">>>" in (inspect.getdoc(OFFERED[name]) or "")
