"""What a stream of packets says of the detector: metrics and alarms."""

from streamer.monitor.alarms import AlarmEvent, Alarms
from streamer.monitor.metrics import Monitor
from streamer.monitor.rules import RulesError
from streamer.monitor.snapshot import Histogram, Snapshot, SyncPeriod
from streamer.monitor.tables import Table

__all__ = [
    "AlarmEvent",
    "Alarms",
    "Histogram",
    "Monitor",
    "RulesError",
    "Snapshot",
    "SyncPeriod",
    "Table",
]
