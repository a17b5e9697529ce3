"""Events as awkward arrays: ``python examples/hits_to_awkward.py raw.h5 [events.parquet]``.

Also of a run that goes on, to its end. ``events = awkward.from_parquet("events.parquet")`` has
them back; then ``awkward.sum(events.hits.adc, axis=1)`` is the ADC sum of each event.
"""

import sys
from collections.abc import Iterator
from itertools import chain, islice

import numpy as np

from streamer import tail
from streamer.events import Event, GapBuilder, events

try:
    import awkward as ak
    import pyarrow  # noqa: F401 - with which awkward writes parquet
except ImportError as error:
    sys.exit(f"{error.name} is missing: pip install awkward pyarrow")


def arrays(found: Iterator[Event]) -> Iterator[ak.Array]:
    """Yield arrays of up to 10,000 events, so that a long run needs no more memory."""
    while some := list(islice(found, 10_000)):
        hits = np.concatenate([event.hits.to_records() for event in some])
        fields = ak.zip({name: hits[name].copy() for name in hits.dtype.names})
        yield ak.Array(
            {
                "event": [event.number for event in some],
                "start": [event.start for event in some],  # ticks of 100 ns
                "hits": ak.unflatten(fields, [event.n_hits for event in some]),
            }
        )


# Give a geometry and pedestals too, and the hits have places and charges.
found = events(tail(sys.argv[1]).packets(), builder=GapBuilder(min_hits=10))
some = arrays(found)
first = next(some, None)
if first is None:
    sys.exit("there are no events")
if len(sys.argv) > 2:
    ak.to_parquet_row_groups(chain([first], some), sys.argv[2])
else:
    first.type.show()
    for array in chain([first], some):
        array.hits.adc.show()
print(f"{found.counts['in events']:,} of {found.counts['hits']:,} hits are in events")
