"""Events: hits that belong together, with times and places, of any stream of packets."""

from streamer.events.assembly import Event
from streamer.events.drafts import Trigger
from streamer.events.gap import GapBuilder
from streamer.events.hits import Hits
from streamer.events.pedestals import Pedestals
from streamer.events.stream import AsyncEvents, Events, Options, events
from streamer.events.trigger import TriggerBuilder
from streamer.events.window import WindowBuilder

__all__ = [
    "AsyncEvents",
    "Event",
    "Events",
    "GapBuilder",
    "Hits",
    "Options",
    "Pedestals",
    "Trigger",
    "TriggerBuilder",
    "WindowBuilder",
    "events",
]
