"""Rules of alarms, as a TOML file has them."""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from streamer.errors import StreamError
from streamer.whole import whole_number

__all__ = ["RULES", "Rule", "RulesError", "default_rules", "read_rules", "rules_of"]

#: The rules that there are, and what each has besides ``threshold`` and ``clear``.
RULES: Final = {
    "io_group_silent": ("io_groups",),
    "sync_stale": ("io_groups",),
    "parity_errors": ("seconds", "least"),
    "fifo_full": ("seconds", "least"),
    "channel_rate": (),
    "faults": ("seconds",),
    "clock_ahead": (),
}
_KNOWN = ", ".join(RULES)
# Those whose values are parts of packets, and so at most 1.
_PARTS: Final = ("parity_errors", "fifo_full")


class RulesError(StreamError, ValueError):
    """Raised when rules of alarms are wrong; names the file and the key."""


@dataclass(frozen=True)
class Rule:
    """When an alarm is raised and cleared.

    Parameters
    ----------
    name
        One of `RULES`.
    threshold
        Raised when a value is above it.
    clear
        Cleared when it is no longer above this, which is not above the threshold.
    seconds
        How many of the newest seconds are counted.
    least
        So many packets are needed to say anything.
    io_groups
        Those that have to be there; None: those that were seen.
    """

    name: str
    threshold: float
    clear: float
    seconds: int = 10
    least: int = 1
    io_groups: frozenset[int] | None = None


def default_rules() -> list[Rule]:
    """Return the rules of ``rules.toml``, which is beside this file.

    Examples
    --------
    >>> [rule.threshold for rule in default_rules() if rule.name == "sync_stale"]
    [2.5]
    """
    text = resources.files(__package__).joinpath("rules.toml").read_text("utf-8")
    return rules_of(tomllib.loads(text), "rules.toml")


def read_rules(path: str | os.PathLike[str]) -> list[Rule]:
    """Read the rules of a file.

    Raises
    ------
    RulesError
        If there is no such file, it is not TOML, has no rules, or something in it is wrong.
    """
    source = os.fspath(path)
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - any path-like will do
            found = tomllib.load(file)
    except OSError as error:
        msg = f"{source}: rules of alarms cannot be read: {error.strerror or error}"
        raise RulesError(msg) from error
    except (ValueError, RecursionError) as error:
        msg = f"{source}: rules of alarms are not TOML: {error}"
        raise RulesError(msg) from error
    if not found:  # as with a file that was cut off: it would watch nothing
        msg = f"{source}: there are no rules of alarms in it"
        raise RulesError(msg)
    return rules_of(found, source)


def rules_of(tables: Mapping[str, Any], source: str = "rules") -> list[Rule]:
    """Check rules.

    Parameters
    ----------
    tables
        Rule to its keys and values.
    source
        What they are from, for the errors.

    Raises
    ------
    RulesError
        If a rule or key is unknown, a threshold is missing, or a value makes no sense.

    Examples
    --------
    >>> rules_of({"faults": {"threshold": 3}})[0].clear
    3.0
    >>> rules_of({"sync_stale": {"clear": 3}}, "my.toml")
    Traceback (most recent call last):
    streamer.monitor.rules.RulesError: my.toml: sync_stale.threshold is missing
    """
    return [_rule(name, table, source) for name, table in tables.items()]


def _rule(name: str, table: Any, source: str) -> Rule:
    if name not in RULES:
        msg = f"{source}: there is no rule {name!r}, only {_KNOWN}"
        raise RulesError(msg)
    if not isinstance(table, Mapping):
        msg = f"{source}: {name} must be a table with a threshold, not {table!r}"
        raise RulesError(msg)
    known = ("threshold", "clear", *RULES[name])
    for key in table:
        if key not in known:
            msg = f"{source}: {name}.{key} is unknown; {name} has {', '.join(known)}"
            raise RulesError(msg)
    if "threshold" not in table:
        msg = f"{source}: {name}.threshold is missing"
        raise RulesError(msg)
    found: dict[str, Any] = {
        key: _number(f"{source}: {name}.{key}", table[key])
        for key in ("threshold", "clear")
        if key in table
    }
    for key in ("seconds", "least"):
        if key in table:
            found[key] = _count(f"{source}: {name}.{key}", table[key])
    if "io_groups" in table:
        found["io_groups"] = _io_groups(f"{source}: {name}.io_groups", table["io_groups"])
    found.setdefault("clear", found["threshold"])
    if found["clear"] > found["threshold"]:
        msg = f"{source}: {name}.clear is above {name}.threshold: the alarm would never end"
        raise RulesError(msg)
    if name in _PARTS and found["threshold"] >= 1:
        msg = f"{source}: {name}.threshold is a part of the packets, below 1: 0.05 for 5 %"
        raise RulesError(msg)
    return Rule(name, **found)


def _number(where: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool | str) else float(value)
    except (TypeError, OverflowError):
        number = math.nan
    # No value is negative: below 0, an alarm would never end.
    if not 0 <= number < math.inf:
        msg = f"{where} must be a number from 0 on, not {value!r:.40}"
        raise RulesError(msg)
    return number


def _count(where: str, value: Any) -> int:
    number = whole_number(value, least=1)
    if number is None:
        msg = f"{where} must be a whole number from 1 on, not {value!r}"
        raise RulesError(msg)
    return number


def _io_groups(where: str, value: Any) -> frozenset[int]:
    numbers = value if isinstance(value, list | tuple | set | frozenset) else []
    groups = [group for one in numbers if (group := whole_number(one, 0, 255)) is not None]
    if not groups or len(groups) < len(numbers):
        msg = f"{where} must be a list of numbers from 0 to 255, not {value!r}"
        raise RulesError(msg)
    return frozenset(groups)
