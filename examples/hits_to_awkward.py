"""Events as awkward arrays: ``python examples/hits_to_awkward.py raw.h5 [events.parquet]``.

Of what is in the file now; with ``--until finished`` also of what comes, to the end of the run
or to Ctrl-C. ``events = awkward.from_parquet("events.parquet")`` has them back; then
``awkward.sum(events.hits.adc, axis=1)`` is the ADC sum of each event.
"""

import argparse
import sys
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

import numpy as np

from streamer import LayoutError, StreamError, tail
from streamer.events import Event, GapBuilder, events

try:
    import awkward as ak
    import pyarrow  # noqa: F401 - with which awkward writes parquet
except ImportError as error:
    sys.exit(f"{error.name} is missing: pip install awkward pyarrow")


def until_ctrl_c(found: Iterator[Event]) -> Iterator[Event]:
    """Yield events until somebody has waited long enough: what there is by then is kept."""
    try:
        yield from found
    except KeyboardInterrupt:
        print("stopped")


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


def main() -> None:
    parser = argparse.ArgumentParser(description="Make awkward arrays of the events in a file.")
    parser.add_argument("raw", help="raw file, also one that is being written")
    parser.add_argument("parquet", nargs="?", type=Path, help="file for them; else to print them")
    parser.add_argument(
        "--until",
        choices=["end", "finished"],
        default="end",
        help="end: what is there now; finished: the end of the run",
    )
    args = parser.parse_args()
    if args.parquet and not args.parquet.parent.is_dir():
        sys.exit(f"error: {args.parquet}: there is no folder {args.parquet.parent}")
    # Give a geometry and pedestals too, and the hits have places and charges.
    found = events(tail(args.raw, until=args.until).packets(), builder=GapBuilder(min_hits=10))
    some = arrays(until_ctrl_c(found))
    try:
        first = next(some, None)
        if first is None:
            sys.exit("there are no events")
        if args.parquet:
            ak.to_parquet_row_groups(chain([first], some), args.parquet)
        else:
            first.type.show()
            for array in chain([first], some):
                array.hits.adc.show()
    except (StreamError, LayoutError) as error:
        sys.exit(f"error: {error}")
    print(f"{found.counts['in events']:,} of {found.counts['hits']:,} hits are in events")


if __name__ == "__main__":
    main()
