"""Hints that a file may have changed. They shorten a wait; nothing ever depends on one."""

from __future__ import annotations

import fnmatch
import logging
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

from watchdog.events import (
    FileClosedEvent,
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

__all__ = ["Hints"]

logger = logging.getLogger(__name__)
_QUIET = logging.getLogger("watchdog")

# Not the opening and reading of files: readers would wake each other.
_TELLING: list[type[FileSystemEvent]] = [
    FileClosedEvent,
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
]


# Changes of other files in a second. To hear of one takes some 20 us, of these 2 % of a core.
_MOST_OTHERS = 1000


class Hints:
    """Call a function whenever the operating system says that a file may have changed.

    Parameters
    ----------
    folder
        The folder in which the files are.
    pattern
        The names of the files, as a shell pattern; they need not exist yet.
    notify
        Called in a thread of the observer, often, and for no reason at times. Must not
        block.

    Notes
    -----
    Where nothing can be watched (no such folder, too many watches, another operating
    system's file server), there are no hints, and a line in the log says so. Nor are there
    any more once too much else happens in the folder: the system tells of all its files,
    and to hear of thousands of busy ones takes a core.

    Examples
    --------
    >>> import tempfile, threading
    >>> path = Path(tempfile.mkdtemp()) / "raw.h5"
    >>> changed = threading.Event()
    >>> hints = Hints(path.parent, "*.h5", changed.set)
    >>> path.write_bytes(b"new")
    3
    >>> changed.wait(5)
    True
    >>> hints.close()
    """

    def __init__(self, folder: Path, pattern: str, notify: Callable[[], None]) -> None:
        self._observer: BaseObserver | None = None
        observer: BaseObserver | None = None
        # When it is closed beside a busy writer, it logs an error that is none. Who has set
        # up logging still sees it; nobody else gets it on stderr.
        if not _QUIET.handlers:
            _QUIET.addHandler(logging.NullHandler())
        try:
            observer = Observer()  # this alone takes an inotify instance, and may fail
            handler = _Handler(folder, pattern, notify, observer.stop)
            observer.schedule(handler, str(folder), event_filter=_TELLING)
            observer.start()
        except (OSError, RuntimeError) as error:
            logger.info("%s: cannot be watched, only polled: %s", folder, str(error))
            if observer is not None:
                # As it was not started, its stop() would do nothing: this ends the thread
                # and the descriptors that it has already.
                observer.on_thread_stop()
        else:
            self._observer = observer
            # Python may collect garbage, and so drop a follower, in one of the observer's
            # threads, while it holds a lock that is needed to end it: another one has to.
            self._orders: SimpleQueue[None] = SimpleQueue()
            self._closer = threading.Thread(
                target=_stop_when_told, args=(observer, self._orders), daemon=True
            )
            self._closer.start()

    @property
    def active(self) -> bool:
        """Whether the operating system accepted the watch."""
        return self._observer is not None

    def drop(self) -> None:
        """End the observer's threads; they need a moment. From anywhere; does not block."""
        if self._observer is not None:
            self._orders.put(None)

    def close(self) -> None:
        """End the observer's threads, and wait for it. Idempotent."""
        observer, self._observer = self._observer, None
        if observer is not None:
            self._orders.put(None)
            self._closer.join()
            observer.join()


def _stop_when_told(observer: BaseObserver, orders: SimpleQueue[None]) -> None:
    orders.get()
    observer.stop()


class _Handler(FileSystemEventHandler):
    def __init__(
        self,
        folder: Path,
        pattern: str,
        notify: Callable[[], None],
        give_up: Callable[[], None],
    ) -> None:
        self._folder = folder
        self._matches = re.compile(fnmatch.translate(pattern)).match
        self._notify = notify
        self._give_up = give_up
        self._others = 0
        self._since = time.monotonic()

    def dispatch(self, event: FileSystemEvent) -> None:
        # In a folder of thousands of busy files this runs for each of their writes.
        for path in (event.src_path, event.dest_path):
            name = os.path.basename(os.fsdecode(path))  # noqa: PTH119 - hot path
            if name and self._matches(name):
                self._notify()
                return
        self._others += 1
        if self._others == _MOST_OTHERS:
            now = time.monotonic()
            if now - self._since < 1:
                logger.info("%s: too busy a folder to be watched, only polled", self._folder)
                self._give_up()
            self._others, self._since = 0, now
