"""Alarms: conditions in a snapshot that need attention at once."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from streamer.monitor.addresses import parse, split
from streamer.monitor.rules import Rule, default_rules, read_rules, rules_of
from streamer.monitor.snapshot import Snapshot

__all__ = ["AlarmEvent", "Alarms"]


class AlarmEvent(NamedTuple):
    """An alarm that was raised, or cleared."""

    #: The rule.
    name: str
    #: What it is about: an io_group, a channel, or a kind of fault.
    subject: str
    #: Whether it was raised, else cleared.
    raised: bool
    #: What was found, and the threshold that it crossed.
    value: float
    threshold: float
    #: Unix time, as the snapshot has it.
    time: float

    def __str__(self) -> str:
        what = "raised" if self.raised else "cleared"
        return f"{self.name} {what}: {self.subject} at {self.value:g}, limit {self.threshold:g}"


class _Earlier(NamedTuple):
    """What was found of a rule in earlier snapshots."""

    #: Subjects of its alarms that were raised and not cleared yet.
    active: Collection[str]
    #: Subject to Unix time: since when it has been silent, or from when on it has been awaited.
    since: dict[str, float]


class Alarms:
    """Compares snapshots with rules; raises each alarm once, and clears it once.

    A value above the threshold of a rule raises an alarm. It is cleared by a value that is not
    above the rule's other threshold, which is lower, so that it does not go on and off. A
    value that is not known changes nothing.

    When nothing comes at all, only the time of day tells: who watches a live stream checks by a
    clock, and not only after each `Monitor.update`, as in
    ``alarms.check(monitor.snapshot(time.time()))`` once a second. And of a stream whose headers
    have no time, as of some cards of the newer wire, nothing but faults is known, unless
    `Monitor.update` is told when packets arrived.

    Parameters
    ----------
    rules
        Rule to its keys and values, as `Alarms.from_toml` has them. None: those of the file
        ``rules.toml`` of this package, where they are explained.

    Raises
    ------
    RulesError
        If they make no sense.

    Examples
    --------
    >>> from streamer.batch import Batch
    >>> from streamer.monitor import Monitor
    >>> monitor, alarms = Monitor(), Alarms({"faults": {"threshold": 0}})
    >>> none = np.zeros(1, "i8")
    >>> monitor.update(Batch(none, none.astype("u1"), none.astype("u1"), none, none).packets())
    >>> for event in alarms.check(monitor.snapshot()):
    ...     print(event)
    faults raised: empty at 1, limit 0
    >>> alarms.check(monitor.snapshot()), len(alarms.active)
    ([], 1)
    """

    def __init__(self, rules: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self._rules = default_rules() if rules is None else rules_of(rules)
        self._active: dict[tuple[str, str], AlarmEvent] = {}
        self._since: dict[str, dict[str, float]] = {}

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> Self:
        """Take the rules of a file.

        Parameters
        ----------
        path
            A TOML file with a table for each rule: ``io_group_silent`` and ``sync_stale`` [s],
            ``parity_errors`` and ``fifo_full`` (parts of packets, below 1), ``channel_rate``
            [Hz], ``faults`` (a number), ``clock_ahead`` [s]. Each has a ``threshold``, and may
            have ``clear``, at which the alarm ends, else it is the threshold. The first two may
            have ``io_groups``, a list of those that have to be there; the fractions ``seconds``,
            how many of the newest are counted, and ``least``, how many packets are needed;
            faults ``seconds``. Rules that are left out do not count.

        Raises
        ------
        RulesError
            If it cannot be read, or something in it is wrong; names the file and the key.

        Examples
        --------
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        ...     _ = file.write("channel_rate = {threshold = 100, clear = 50}")
        ...     file.flush()
        ...     alarms = Alarms.from_toml(file.name)
        >>> alarms.active
        []
        """
        alarms = cls({})
        alarms._rules = read_rules(path)
        return alarms

    @property
    def active(self) -> list[AlarmEvent]:
        """The alarms that were raised and not cleared yet, the oldest first."""
        return list(self._active.values())

    def check(self, snapshot: Snapshot) -> list[AlarmEvent]:
        """Compare a snapshot with the rules.

        Parameters
        ----------
        snapshot
            A newer one than before. Of a live stream, one that was given the time.

        Returns
        -------
        list of AlarmEvent
            What was raised or cleared.
        """
        events = []
        for rule in self._rules:
            active = [subject for name, subject in self._active if name == rule.name]
            earlier = _Earlier(active, self._since.setdefault(rule.name, {}))
            for subject, value in _VALUES[rule.name](snapshot, rule, earlier).items():
                key = (rule.name, subject)
                if key not in self._active and value > rule.threshold:
                    event = AlarmEvent(*key, True, value, rule.threshold, snapshot.now)
                    self._active[key] = event
                elif key in self._active and value <= rule.clear:
                    event = AlarmEvent(*key, False, value, rule.clear, snapshot.now)
                    del self._active[key]
                else:
                    continue
                events.append(event)
        return events


def _by_group(snapshot: Snapshot, values: list[float]) -> dict[str, float]:
    groups = zip(snapshot.io_groups.tolist(), values, strict=True)
    return {f"io_group {group}": value for group, value in groups}


def _ages(
    snapshot: Snapshot, rule: Rule, ages: NDArray[np.float64], since: dict[str, float]
) -> dict[str, float]:
    """Return ages; of an io_group that has to be there and has none, from the beginning on."""
    by_group = _by_group(snapshot, ages.tolist())
    found = {name: age for name, age in by_group.items() if not math.isnan(age)}
    if rule.io_groups is None:
        return found
    since |= {name: snapshot.now - age for name, age in found.items()}
    begun = snapshot.now if snapshot.time is None else float(snapshot.seconds[0])
    # Of those that send, but never with a time, nothing is known.
    timeless = _by_group(snapshot, np.isnan(snapshot.message_age).tolist())
    values = {}
    for name in [f"io_group {group}" for group in sorted(rule.io_groups)]:
        if name in found:
            values[name] = found[name]
        elif begun > 0 and not timeless.get(name):  # 0: nobody said what time it is
            since[name] = min(since.get(name, begun), begun)
            values[name] = max(snapshot.now - since[name], 0.0)
    return values


def _last(snapshot: Snapshot, rule: Rule, name: str) -> NDArray[np.int64]:
    """Return a counter over the last seconds that are complete, (G,)."""
    columns = np.flatnonzero(snapshot.complete)[-rule.seconds :]
    total: NDArray[np.int64] = snapshot.history[name][:, columns].sum(axis=1)
    return total


def _fractions(
    snapshot: Snapshot, rule: Rule, some: NDArray[np.int64], every: NDArray[np.int64], what: str
) -> dict[str, float]:
    lines = zip(snapshot.io_groups.tolist(), some.tolist(), every.tolist(), strict=True)
    return {
        f"io_group {group}{what}": count / of for group, count, of in lines if of >= rule.least
    }


def _parity_errors(snapshot: Snapshot, rule: Rule, _: _Earlier) -> dict[str, float]:
    every = _last(snapshot, rule, "upstream") + _last(snapshot, rule, "downstream")
    return _fractions(snapshot, rule, _last(snapshot, rule, "parity_errors"), every, "")


def _fifo_full(snapshot: Snapshot, rule: Rule, _: _Earlier) -> dict[str, float]:
    data = _last(snapshot, rule, "data")
    found: dict[str, float] = {}
    for which in ("local", "shared"):
        full = _last(snapshot, rule, f"{which}_fifo_full")
        found |= _fractions(snapshot, rule, full, data, f", {which} FIFO")
    return found


def _channel_rate(snapshot: Snapshot, rule: Rule, earlier: _Earlier) -> dict[str, float]:
    table = snapshot.channels
    if not table.is_complete:
        return {}
    fast = table.keys[table.rate > rule.threshold].tolist()
    keys = np.union1d(fast, [parse(subject) for subject in earlier.active]).astype(np.uint32)
    rates = dict.fromkeys(keys.tolist(), 0.0)  # one that was not seen has no hits
    known = np.isin(table.keys, keys)
    rates |= zip(table.keys[known].tolist(), table.rate[known].tolist(), strict=True)
    return {str(split(np.uint32(key))): rate for key, rate in rates.items()}


def _faults(snapshot: Snapshot, rule: Rule, earlier: _Earlier) -> dict[str, float]:
    if snapshot.time is None:  # there is no message with a time
        return {kind: float(count) for kind, count in snapshot.faults.items()}
    counts = dict.fromkeys(earlier.active, 0.0)  # after a reset, there was none of them
    for kind, column in snapshot.fault_history.items():
        counts[kind] = float(column[-rule.seconds :].sum())
    return counts


def _clock_ahead(snapshot: Snapshot, _: Rule, __: _Earlier) -> dict[str, float]:
    if snapshot.time is None:
        return {}
    # A card that is ahead by less than the history makes its own time the newest of all; but it
    # is ahead of the time of day, if that was given.
    most = min(snapshot.time, snapshot.now)
    return _by_group(snapshot, np.maximum(snapshot.newest - most, 0).tolist())


def _silent(snapshot: Snapshot, rule: Rule, earlier: _Earlier) -> dict[str, float]:
    return _ages(snapshot, rule, snapshot.message_age, earlier.since)


def _stale(snapshot: Snapshot, rule: Rule, earlier: _Earlier) -> dict[str, float]:
    return _ages(snapshot, rule, snapshot.sync_age, earlier.since)


#: Of each rule, the values of its subjects; also of those with an alarm, if they are known.
_VALUES: Final[dict[str, Callable[[Snapshot, Rule, _Earlier], dict[str, float]]]] = {
    "io_group_silent": _silent,
    "sync_stale": _stale,
    "parity_errors": _parity_errors,
    "fifo_full": _fifo_full,
    "channel_rate": _channel_rate,
    "faults": _faults,
    "clock_ahead": _clock_ahead,
}
