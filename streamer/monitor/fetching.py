"""Compiling by numba, and asking the processor for memory before it is needed.

Counters of a channel are anywhere in some MB. To wait for them takes as long as all else that
is done for a hit together; to ask for them some hits earlier takes next to nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, cast

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils
from numba.core.caching import FunctionCache
from numba.core.errors import NumbaError
from numba.extending import intrinsic

__all__ = ["compiled", "fetch"]

if getattr(numba.config, "DISABLE_JIT", False):
    msg = "numba is told not to compile, by NUMBA_DISABLE_JIT"
    raise ImportError(msg)


class _Kept(FunctionCache):
    """Where the result is kept; what cannot be read or written there is compiled anew."""

    @contextmanager
    def _guard_against_spurious_io_errors(self) -> Iterator[None]:
        with suppress(Exception):  # a full disk; and a pickle that is broken raises anything
            yield


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function when it is first called, and keep the result if there is a place.

    What is kept is used again as long as the sources in this folder are the same. numba alone
    would look at the time and size of the one file, which an update may leave as they are.
    """
    try:
        function.__qualname__ += f"_{_stamp():08x}"  # a part of the name under which it is kept
        kept = _Kept(function)  # type: ignore[no-untyped-call]
    except (OSError, RuntimeError):  # no sources; or no place, neither here nor in a user's folder
        return numba.njit(nogil=True)(function)
    found: Any = numba.njit(nogil=True)(function)
    found._cache = kept  # noqa: SLF001 - as numba's own ``cache=True`` does
    return cast("Callable[..., Any]", found)


@cache
def _stamp() -> int:
    """Return a checksum of the sources."""
    stamp = 0
    for path in sorted(Path(__file__).parent.glob("*.py")):
        stamp = zlib.crc32(path.read_bytes(), stamp)
    return stamp


def _prefetch(typing: Any, array: Any, place: Any) -> Any:
    """Call LLVM's ``llvm.prefetch``: to be written to (1), kept in the second cache (2), data."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind, _ = signature.args
        data = context.make_array(kind)(context, builder, arguments[0]).data
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        form = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        get: Any = cgutils.get_or_insert_function
        call = get(builder.module, form, "llvm.prefetch.p0i8")
        where = builder.bitcast(builder.gep(data, [arguments[1]]), byte)
        builder.call(call, [where, number(1), number(2), number(1)])
        return context.get_dummy_value()

    return numba.types.void(array, place), generate


_fetch: Any = intrinsic(_prefetch)


@compiled
def _tried(array: Any) -> bool:
    _fetch(array, 0)
    return True


def _ignored(array: Any, place: Any) -> None:
    """Do nothing."""


#: Asks for an entry of a flat array, at any place; nothing comes of one that does not exist.
fetch: Any
try:
    _tried(np.zeros(1, np.int64))
    fetch = _fetch
except NumbaError:  # another version of LLVM: then it is waited for
    fetch = compiled(_ignored)
