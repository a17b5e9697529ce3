"""All that a monitor has counted, and what it needs to go on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from streamer.monitor.channels import Channels
from streamer.monitor.columns import Reader
from streamer.monitor.counters import COUNTERS, TILES, Histograms
from streamer.monitor.faults import Faults
from streamer.monitor.options import Options
from streamer.monitor.recent import NO_KEY, Recent
from streamer.monitor.successive import Successive
from streamer.monitor.triggers import Triggers

__all__ = ["Counted"]

_NEVER: Final = np.iinfo(np.int64).max


@dataclass(eq=False)
class Counted:
    """What was counted of a stream until now; `layout` is of the histograms.

    Examples
    --------
    >>> Counted.nothing(Options()).undated
    0
    """

    #: Seconds in a span of time.
    span: int
    layout: Histograms
    #: By second and by span of time, both of the same io_groups.
    seconds: Recent
    spans: Recent
    channels: Channels
    reader: Reader
    triggers: Triggers
    successive: Successive
    faults: Faults
    #: (256,) i8: of each io_group its first second, and its last one with a sync.
    first: NDArray[np.int64]
    last_sync: NDArray[np.int64]
    #: Messages without a time, and those too far ahead of when they arrived.
    undated: int = 0
    misdated: int = 0

    @classmethod
    def nothing(cls, options: Options) -> Self:
        """Return what there is before anything came."""
        layout, channels = Histograms(options.drift_ticks), Channels(options.spans)
        bins = layout.bins["trigger"]
        return cls(
            span=options.span,
            layout=layout,
            seconds=Recent(options.history, len(COUNTERS) + TILES),
            spans=Recent(options.spans, layout.width, channels.leave),
            channels=channels,
            reader=Reader(),
            triggers=Triggers(options.trigger_source, options.trigger_reach, bins),
            successive=Successive(),
            faults=Faults(options.history),
            first=np.full(256, _NEVER),
            last_sync=np.full(256, NO_KEY),
        )
