"""The parameters of a monitor, and what counts hits for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.whole import whole_number

__all__ = ["Options", "engine"]

_ENGINES = ("auto", "numpy", "numba")
_COUNTS = ("history", "span", "spans", "trigger_reach", "drift_ticks")
# Within this, no counter of 32 bits overflows: chips send at most 76,000 packets/s.
_LONGEST_SPAN = 3_600


@dataclass(frozen=True)
class Options:
    """As in `streamer.monitor.Monitor`.

    Raises
    ------
    ValueError
        If a parameter makes no sense.

    Examples
    --------
    >>> Options(span=0)
    Traceback (most recent call last):
    ValueError: span must be a whole number from 1 on, got 0
    """

    history: int = 600
    span: int = 10
    spans: int = 6
    trigger_source: Mapping[int, int] | int | None = None
    trigger_reach: int = 16_384
    drift_ticks: int = 1_900
    tolerance: float = 60.0
    #: It makes no difference to what is counted.
    engine: str = field(default="auto", compare=False)

    def __post_init__(self) -> None:
        for name in _COUNTS:
            value: Any = getattr(self, name)
            number = whole_number(value, least=1)
            if number is None:
                msg = f"{name} must be a whole number from 1 on, got {value!r}"
                raise ValueError(msg)
            object.__setattr__(self, name, number)
        if self.span > _LONGEST_SPAN:
            msg = f"span must be up to {_LONGEST_SPAN} seconds, got {self.span}"
            raise ValueError(msg)
        if not self.tolerance >= 0:
            msg = f"tolerance must not be negative, got {self.tolerance!r}"
            raise ValueError(msg)
        object.__setattr__(self, "trigger_source", _source(self.trigger_source))
        if self.engine not in _ENGINES:
            msg = f"engine must be one of {', '.join(_ENGINES)}, got {self.engine!r}"
            raise ValueError(msg)
        engine(self.engine)

    def difference(self, other: Options) -> str | None:
        """Say in which parameter another one is different, if in any."""
        for name in [one.name for one in fields(self) if one.compare]:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                return f"{name}, {mine!r} and {theirs!r}"
        return None


def _source(source: Any) -> dict[int, int] | int | None:
    """Return a trigger source as numbers of Python."""
    if source is None:
        return None
    numbers = [*source.keys(), *source.values()] if isinstance(source, Mapping) else [source]
    groups = [group for one in numbers if (group := whole_number(one, 0, 255)) is not None]
    if len(groups) < len(numbers):
        msg = f"trigger_source has io_groups, which are from 0 to 255, got {source!r}"
        raise ValueError(msg)
    if not isinstance(source, Mapping):
        return groups[0]
    return dict(zip(groups[: len(source)], groups[len(source) :], strict=True))


@cache
def engine(name: str) -> Callable[..., NDArray[np.int64]]:
    """Return what counts hits: compiled by numba, if it is installed and may be used.

    Raises
    ------
    ImportError
        If that is not possible, and nothing else may be used.
    """
    if name != "numpy":
        try:
            from streamer.monitor.compiled import count_hits as compiled
        except ImportError:
            if name == "numba":
                raise
        else:
            return compiled
    from streamer.monitor.hits import count_hits

    return count_hits
