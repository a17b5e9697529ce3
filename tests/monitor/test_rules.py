"""Rules of alarms: what there is, and what is said of wrong ones."""

import re

import numpy as np
import pytest

from streamer.errors import StreamError
from streamer.monitor import Alarms, Monitor, RulesError
from streamer.monitor.rules import RULES, default_rules, rules_of
from tests.monitor.streams import START, as_packets, legacy


def test_default_rules_are_all():
    """There is a default for every rule."""
    assert {rule.name for rule in default_rules()} == RULES.keys()


def test_rules_of_a_file(tmp_path):
    """Only the rules in the file count."""
    path = tmp_path / "rules.toml"
    path.write_text("[faults]\nthreshold = 1\nseconds = 5\n")
    alarms = Alarms.from_toml(path)
    monitor = Monitor()
    monitor.update(*as_packets([(legacy([], START), 1), (b"", 1)]))
    assert alarms.check(monitor.snapshot(START + 100)) == []
    monitor.update(*as_packets([(b"", 1)]))
    [event] = alarms.check(monitor.snapshot(START + 100))
    assert event.name == "faults"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[silence]\nthreshold = 1", "there is no rule 'silence', only io_group_silent, sync_"),
        ("[faults]\nseconds = 1", "faults.threshold is missing"),
        ("[faults]\nthreshold = '1'", "faults.threshold must be a number from 0 on, not '1'"),
        ("[faults]\nthreshold = true", "faults.threshold must be a number from 0 on, not True"),
        ("[faults]\nthreshold = -1", "faults.threshold must be a number from 0 on, not -1"),
        ("[faults]\nthreshold = 1\nclear = -1", "faults.clear must be a number from 0 on"),
        ("[faults]\nthreshold = 1" + "0" * 400, "faults.threshold must be a number from 0 on"),
        ("[parity_errors]\nthreshold = 5", "parity_errors.threshold is a part of the packets"),
        ("[fifo_full]\nthreshold = 1", "fifo_full.threshold is a part of the packets, below 1"),
        ("[faults]\nthreshold = nan", "faults.threshold must be a number from 0 on, not nan"),
        (
            "[faults]\nthreshold = 1\nclear = []",
            r"faults.clear must be a number from 0 on, not \[\]",
        ),
        ("[faults]\nthreshold = 1\nclear = 2", "faults.clear is above faults.threshold"),
        ("[faults]\nthreshold = 1\nleast = 2", "faults.least is unknown; faults has threshold, "),
        ("[faults]\nthreshold = 1\nseconds = 0", "faults.seconds must be a whole number from 1"),
        ("[faults]\nthreshold = 1\nseconds = 1.5", "faults.seconds must be a whole number"),
        ("[sync_stale]\nthreshold = 1\nio_groups = 3", "sync_stale.io_groups must be a list"),
        ("[sync_stale]\nthreshold = 1\nio_groups = [256]", "sync_stale.io_groups must be a list"),
        ("[sync_stale]\nthreshold = 1\nio_groups = [true]", "sync_stale.io_groups must be a list"),
        ("[sync_stale]\nthreshold = 1\nio_groups = [1.0]", "sync_stale.io_groups must be a list"),
        ("[sync_stale]\nthreshold = 1\nio_groups = []", "sync_stale.io_groups must be a list"),
        ("faults = 1", "faults must be a table with a threshold, not 1"),
        ("[faults", "rules of alarms are not TOML"),
        ("a = " + "[" * 5_000, "rules of alarms are not TOML"),
        ("a = " + "1" * 5_000, "rules of alarms are not TOML"),
        ("", "there are no rules of alarms in it"),
    ],
)
def test_rules_that_are_wrong(tmp_path, text, said):
    """The error names the file, the rule and the key, and what it should be."""
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with pytest.raises(RulesError, match=f"^{re.escape(str(path))}: {said}") as caught:
        Alarms.from_toml(path)
    assert isinstance(caught.value, StreamError)
    assert isinstance(caught.value, ValueError)


def test_whole_numbers_of_numpy():
    """A rule has them as those of Python; a truth value is not a number."""
    rule = {"threshold": 0.1, "seconds": np.int64(5), "least": np.uint8(3)}
    [found] = rules_of({"parity_errors": rule})
    assert (found.seconds, found.least, type(found.least)) == (5, 3, int)
    [found] = rules_of({"sync_stale": {"threshold": 1, "io_groups": [np.uint8(3), 3, 4]}})
    assert found.io_groups == {3, 4}
    for table in ({"seconds": True}, {"least": np.True_}):
        with pytest.raises(RulesError, match="must be a whole number from 1 on"):
            rules_of({"parity_errors": {"threshold": 0.1} | table})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "cannot be read: No such file"),
        (lambda path: path.mkdir(), "cannot be read: Is a directory"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "are not TOML"),
    ],
    ids=["absent", "a folder", "no text"],
)
def test_file_that_cannot_be_read(tmp_path, make, said):
    """So it is with a file that cannot be read."""
    path = tmp_path / "rules.toml"
    make(path)
    with pytest.raises(RulesError, match=said):
        Alarms.from_toml(path)
