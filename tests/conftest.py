"""What every test has: nothing may be left behind."""

import gc
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import hypothesis  # noqa: F401 - before garbage is frozen: it looks who refers to what
import pytest
import trio  # noqa: F401 - which registers something with it


def _descriptors() -> dict[str, str]:
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[entry.name] = str(entry.readlink())
        except OSError:  # the descriptor of this very listing
            continue
    return found


# Threads that libraries keep for the life of the process, by the start of their name:
# anyio's and trio's idle workers end by themselves.
_KEPT_THREADS = ("AnyIO worker", "Trio thread")
_KEPT_DESCRIPTORS = ("/dev/", "anon_inode:", "socket:", "pipe:")


# What a shell, or nohup, ignores for what it runs in the background, and how it is by default.
_IGNORED = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}


def pytest_configure() -> None:
    """Let tests interrupt the processes that they start: those inherit what is ignored here."""
    for number, handler in _IGNORED.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_collection_finish() -> None:
    """Keep what the suite itself has made out of each test's search for garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail the test that leaves a thread or an open file behind."""
    gc.collect()
    threads = set(threading.enumerate())
    files = set(_descriptors().items())
    yield

    def leaked() -> list[str]:
        new_threads = [
            thread.name
            for thread in set(threading.enumerate()) - threads
            if not thread.name.startswith(_KEPT_THREADS)
        ]
        new_files = [
            target
            for _, target in set(_descriptors().items()) - files
            if not target.startswith(_KEPT_DESCRIPTORS)
        ]
        return new_threads + new_files

    deadline = time.monotonic() + 5
    while leaked() and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    assert not leaked(), "left behind by this test"
