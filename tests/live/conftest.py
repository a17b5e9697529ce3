"""Writers that are interrupted between any two pages of a write."""

import shutil
import subprocess
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a library that a writer can be made to load before all others; see pages.c."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler to make pages.c with")
    library = tmp_path_factory.mktemp("pages") / "pages.so"
    source = Path(__file__).with_name("pages.c")
    subprocess.run(
        ["cc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, source, "-ldl"],
        check=True,
    )
    return library
