"""A file that is being made, in such a way that a crash sets it back and does not spoil it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Self

from streamer.convert.naming import give_name, has_name, lock, partial_names, settle, tidy
from streamer.convert.overlay import Overlay
from streamer.convert.statefile import State, read_state, write_state
from streamer.errors import StreamError

__all__ = ["CannotMake", "Partial", "Stored"]

logger = logging.getLogger("streamer.convert")


class CannotMake(StreamError):
    """Raised when an output cannot be made, or not under the name that it is to have."""


class Stored(NamedTuple):
    """What was known of a partial file when it was last stored."""

    #: What its maker has to know to go on; what JSON can hold.
    facts: dict[str, Any]
    #: Bytes that belong behind what is in the file, and are not in it yet.
    tail: bytes


class Partial(Overlay):
    """A file OUT that is being made, as ``OUT.partial`` until it is complete.

    Behaves as a file that is open for reading and writing, for one thread. A crash at any
    moment, of this process or of the machine, sets it back to what was stored last.

    Parameters
    ----------
    out
        The name that the file is to have.

    Attributes
    ----------
    out, path : Path
        That name, and the one that it has until then.
    stored : Stored or None
        What was stored last, if anything was.

    Raises
    ------
    CannotMake
        If it cannot be made, if somebody else is making it, or if something of that name
        is there that was not left by a call of this.

    Notes
    -----
    What was in the file when it was stored is not touched before the next time: bytes that
    are written over it are held in memory, in pages, and only what is new goes to the file at
    once. To store it makes sure that this is on disk, and then writes the pages, and what
    the maker says, into ``OUT.partial.state`` under another name, makes sure of it, and
    renames it. Only then the pages go to their places. So whoever finds the two files after a
    crash cuts off what is new, and writes the pages of the state to their places again.

    An error of the system in reading or writing is kept for :meth:`check`: HDF5, which calls
    these methods, takes no error well.

    Examples
    --------
    >>> import tempfile
    >>> out = Path(tempfile.mkdtemp()) / "out"
    >>> with Partial(out) as file:
    ...     _ = file.write(b"first, ")
    ...     file.store({"rows": 1})
    ...     _ = file.write(b"and what is lost")
    >>> with Partial(out) as file:
    ...     print(file.stored.facts, file.size)
    ...     _ = file.seek(0, os.SEEK_END)
    ...     _ = file.write(b"second")
    ...     file.finish()
    {'rows': 1} 7
    >>> out.read_bytes(), sorted(path.name for path in out.parent.iterdir())
    (b'first, second', ['out'])
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.path, self._state = partial_names(out)
        self.stored: Stored | None = None
        super().__init__(self._open())
        try:
            self._recover()
        except BaseException:
            self.close()
            raise

    def _open(self) -> int:
        try:
            while True:
                fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                try:
                    lock(fd)
                    tidy(self.out)
                    # Whoever had it until now may have given it its name just before.
                    if has_name(fd, self.path):
                        return fd
                except BaseException:
                    os.close(fd)
                    raise
                os.close(fd)
        except BlockingIOError as error:
            msg = f"{self.out}: is being made by another process, in {self.path.name}"
            raise CannotMake(msg) from error
        except OSError as error:
            msg = f"{self.out}: cannot be made: {error.strerror}"
            raise CannotMake(msg) from error

    def _recover(self) -> None:
        """Set the file back to what was stored last; to nothing, if nothing good was."""
        size = os.fstat(self._fd).st_size
        try:
            state = read_state(self._state)
        except FileNotFoundError:
            if size:
                self._refuse(self.path)
            try:
                self.restart()
            except CannotMake:
                self.discard()
                raise
            return
        except ValueError:
            self._refuse(self._state)
        except OSError as error:
            msg = f"{self._state}: cannot be read: {error.strerror}"
            raise CannotMake(msg) from error
        if state is None or size < state.size:
            logger.warning("%s: damaged, or of another version; starting over", self.path)
            self.restart()
            return
        self.begin(state.size)
        if state.facts is not None:
            self.stored = Stored(state.facts, state.tail)
        with self._guarded():
            self.put(state.pages)
            os.ftruncate(self._fd, state.size)

    def _refuse(self, path: Path) -> NoReturn:
        msg = f"{path}: is in the way, and no conversion made it: remove it, or give another name"
        raise CannotMake(msg) from None

    def restart(self) -> None:
        """Start over, with nothing.

        Raises
        ------
        CannotMake
            If that is not possible.
        """
        self.stored = None
        with self._guarded():
            os.ftruncate(self._fd, 0)
            # Also of nothing: so it is known of a file that it was left by this.
            write_state(self._state, State(None, 0, {}, b""))
        self.begin(0)

    @property
    def tail(self) -> bytes:
        """The tail that was stored last."""
        return b"" if self.stored is None else self.stored.tail

    def check(self) -> None:
        """Raise what has gone wrong since it was opened, if anything has.

        Raises
        ------
        CannotMake
            If the system could not read or write it, as on a full disk.
        """
        error = self.error
        if isinstance(error, OSError):
            msg = f"{self.out}: cannot be written: {error.strerror}"
            raise CannotMake(msg) from error
        if error is not None:
            raise error

    def store(self, facts: dict[str, Any], tail: bytes = b"") -> None:
        """Make sure that this much outlives a crash.

        Parameters
        ----------
        facts, tail
            As in :class:`Stored`.

        Raises
        ------
        CannotMake
            As :meth:`check`. What was stored before still is.
        """
        self.check()
        state = State(facts, self.size, self.pages(), tail)
        with self._guarded():
            self._check_name()
            if os.fstat(self._fd).st_size < self.size:
                os.ftruncate(self._fd, self.size)
            os.fsync(self._fd)
            write_state(self._state, state)
            self.keep()
            self.put(state.pages)
        self.stored = Stored(facts, tail)

    def finish(self, *, overwrite: bool = False) -> None:
        """Give it its name. It must be complete.

        Parameters
        ----------
        overwrite
            Whether something may have that name.

        Raises
        ------
        CannotMake
            If that is not possible. It stays as it is.
        """
        self.check()
        if self.pages() or self.size != self.kept:
            self.store({} if self.stored is None else self.stored.facts)
        with self._guarded():
            self._check_name()
            os.ftruncate(self._fd, self.size)
            os.fsync(self._fd)
            give_name(self.path, self.out, overwrite=overwrite)
            settle(self.out.parent)
            tidy(self.out)
            self._state.unlink(missing_ok=True)
        self.close()

    def _check_name(self) -> None:
        if not has_name(self._fd, self.path):
            # Of what has this name now, nothing is known.
            self.stored = None
            msg = f"{self.path}: was removed, or replaced, by somebody else while it was made"
            raise CannotMake(msg)

    def discard(self) -> None:
        """Remove it, and what was stored of it."""
        with suppress(OSError):
            if has_name(self._fd, self.path):
                self.path.unlink()
                self._state.unlink(missing_ok=True)
        self.close()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Let what goes wrong be the end of this object; raise it as :meth:`check` does."""
        try:
            yield
        except OSError as error:
            self.fail(error)
            self.check()
        except BaseException as error:
            # In the middle of it: nobody may go on with this object.
            self.fail(error)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
