"""Events in three projections, as they come: ``python examples/event_display.py raw.h5``.

One thread reads and builds the events; the window draws the newest when it has time. So to
draw never holds up the reading: what comes meanwhile is not drawn, and that is counted. With
``--save event.png`` there is no window: the file shows the biggest event so far.
"""

import argparse
import contextlib
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from streamer import LayoutError, StreamError, tail
from streamer.events import (
    Event,
    GapBuilder,
    Hits,
    Pedestals,
    TriggerBuilder,
    WindowBuilder,
    events,
)
from streamer.geometry import Geometry, tile_of

try:
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle
    from mpl_toolkits.axes_grid1 import make_axes_locatable
except ImportError:
    sys.exit("the event display draws with matplotlib, which is missing: pip install matplotlib")

BUILDERS = {"gap": GapBuilder, "window": WindowBuilder, "trigger": TriggerBuilder}
VELOCITY = 1.6  # of the drift [mm/us], at 0.5 kV/cm
CHIPS = {"v3": range(10, 170)}  # of a tile; of other tiles those from 11 to 110


class Reader(threading.Thread):
    """Reads to the end of the run, and keeps one event: the newest, or the biggest."""

    def __init__(self, args: argparse.Namespace, geometry: Geometry) -> None:
        super().__init__(daemon=True)
        self.live = tail(args.raw, until=args.until)
        self.events = events(
            self.live.packets(asic=args.asic),
            builder=BUILDERS[args.builder](min_hits=args.min_hits),
            geometry=geometry,
            pedestals=args.pedestals and Pedestals.load(args.pedestals),
        )
        self.keeps_biggest = args.save is not None
        self.event: Event | None = None
        self.n_events = self.behind = 0
        self.error: Exception | None = None
        self.over = threading.Event()

    def run(self) -> None:
        """Read, in a thread of its own."""
        try:
            for event in self.events:
                self.n_events += 1
                self.behind = self.live.lag.rows
                if self.event is None or not self.keeps_biggest or bigger(event, self.event):
                    self.event = event
        except (StreamError, LayoutError) as error:
            self.error = error
        finally:
            self.over.set()

    def stop(self) -> None:
        """End it before the end of the run."""
        self.live.close()
        self.join()


def bigger(one: Event, other: Event) -> bool:
    return one.n_hits > other.n_hits


class Display:
    """Draws events into a figure."""

    def __init__(self, geometry: Geometry) -> None:
        self.figure = plt.figure("event display", figsize=(11, 8))
        self.note = self.figure.text(0.01, 0.01, "")
        self.event: Event | None = None
        self.n_drawn = 0
        self.geometry = geometry
        self.drift = geometry.pixels().drift if geometry.sources else None
        # Of the tiles that have had hits, x and y of two corners.
        self.tiles: dict[int, tuple[float, float, float, float]] = {}

    def draw(self, event: Event) -> None:
        """Draw an event instead of what was there."""
        self.event, self.n_drawn = event, self.n_drawn + 1
        hits = event.hits.select(event.hits.mapped)
        colour = hits.adc if hits.charge is None else hits.charge
        hits = hits.select(np.argsort(colour))  # the highest on top
        depth, depth_name = self.depth(event, hits)
        dots = {"s": np.clip(3_000 / max(len(hits), 1), 3, 25), "c": np.sort(colour), "lw": 0}

        self.figure.clear()
        xy = self.figure.add_axes((0.08, 0.09, 0.84, 0.8))
        beside = make_axes_locatable(xy)
        zy = beside.append_axes("right", 2.6, pad=0.15, sharey=xy)
        xz = beside.append_axes("bottom", 2.0, pad=0.15, sharex=xy)
        scale = beside.append_axes("right", 0.15, pad=0.2)
        self.figure.colorbar(
            xy.scatter(hits.x, hits.y, **dots),
            cax=scale,
            label="ADC [counts]" if hits.charge is None else "charge [ke$^-$]",
        )
        zy.scatter(depth, hits.y, **dots)
        xz.scatter(hits.x, depth, **dots)

        self.find_tiles(hits)
        for left, bottom, right, top in self.tiles.values():
            size = right - left, top - bottom
            xy.add_patch(Rectangle((left, bottom), *size, fill=False, ec="0.8", lw=0.6, zorder=0))
        if self.tiles:
            left, bottom, right, top = np.array([*self.tiles.values()]).T
            xy.set_xlim(left.min() - 20, right.max() + 20)
            xy.set_ylim(bottom.min() - 20, top.max() + 20)
        # A plain grid says nothing of where the pixels are.
        name = "{} [mm]" if self.geometry.sources else "{} on a plain grid [mm]"
        xy.set(aspect="equal", ylabel=name.format("y"))
        xy.tick_params(labelbottom=False)
        zy.set(xlabel=depth_name)
        zy.tick_params(labelleft=False)
        xz.set(xlabel=name.format("x"), ylabel=depth_name)
        self.figure.suptitle(title(event))
        self.note = self.figure.text(0.01, 0.01, "", size="small", color="0.4")

    def say(self, note: str) -> None:
        """Say something below the event."""
        if note != self.note.get_text():
            self.note.set_text(note)
            self.figure.canvas.draw_idle()

    def depth(self, event: Event, hits: Hits) -> tuple[np.ndarray, str]:
        """Return where hits were along the drift: z if it can be told, else the time."""
        time = (hits.ticks - event.start) / 10
        if event.trigger is None:
            return time, "time in event [$\\mu$s]"
        if self.drift is not None:
            drift = self.drift[self.geometry.places(*address(hits)).pixel]
            if drift.all() and not np.isnan(hits.z).any():
                return hits.z + drift * VELOCITY * time, "z [mm]"
        return time, "time since trigger [$\\mu$s]"

    def find_tiles(self, hits: Hits) -> None:
        """Look up the corners of tiles that are new."""
        tiles = hits.io_group.astype(int) * 256 + tile_of(hits.io_channel)
        for tile in np.setdiff1d(tiles, [*self.tiles]).tolist():
            pixels = self.geometry.pixels([tile // 256])
            x, y = (axis[pixels.tile == tile % 256] for axis in (pixels.x, pixels.y))
            self.tiles[tile] = (x.min(), y.min(), x.max(), y.max())


def address(hits: Hits) -> tuple[np.ndarray, ...]:
    return hits.io_group, hits.io_channel, hits.chip_id, hits.channel_id


def title(event: Event) -> str:
    when = "time not known"
    if event.time is not None:
        when = f"{datetime.fromtimestamp(event.time, UTC):%Y-%m-%d %H:%M:%S.%f} UTC"
    trigger = "no trigger"
    if event.trigger is not None:
        trigger = f"trigger of io_group {event.trigger.io_group}, bits {event.trigger.bits:08b}"
    unmapped = np.count_nonzero(~event.hits.mapped)
    hits = f"{event.n_hits:,} hits" + (f", {unmapped:,} of them not mapped" if unmapped else "")
    return f"Event {event.number:,}    {when}\n{hits}    {trigger}"


def show(reader: Reader, display: Display) -> None:
    """Draw the newest event in a window, again and again, until it is closed."""
    if plt.get_backend().lower() == "agg":
        sys.exit("there is no display to open a window on: give --save event.png")

    def update() -> None:
        over = reader.over.is_set()  # asked first: what comes later is drawn the next time
        event, n_events = reader.event, reader.n_events
        if event is not None and event is not display.event:
            display.draw(event)
        note = "no event yet"
        if n_events:
            missed = n_events - display.n_drawn
            note = f"{n_events:,} events, {missed:,} of them not drawn; "
            note += f"{reader.behind:,} rows behind"
        if over:
            note = f"{note}; {reader.error or 'the run is over'}"
        display.say(note)

    timer = display.figure.canvas.new_timer(interval=250)
    timer.add_callback(update)
    timer.start()
    reader.start()
    with contextlib.suppress(KeyboardInterrupt):  # as good as closing the window
        plt.show()
    reader.stop()
    print(f"{reader.n_events:,} events, {display.n_drawn:,} of them drawn")


def save(reader: Reader, display: Display, path: Path) -> None:
    """Keep a picture of the biggest event so far, until the end of the run."""

    def update() -> None:
        event, n_events = reader.event, reader.n_events
        if event is not None:
            display.draw(event)
            display.say(f"the biggest of {n_events:,} events")
            part = path.with_name(f"{path.name}.part")
            display.figure.savefig(part, format="png", dpi=100)
            part.replace(path)  # so that nobody sees half a picture

    reader.start()
    try:
        while not reader.over.wait(1):
            if reader.event is not display.event:
                update()
    except KeyboardInterrupt:
        reader.stop()
    update()
    if display.event is not None:
        print(
            f"{reader.n_events:,} events; the biggest, event {display.event.number:,} of "
            f"{display.event.n_hits:,} hits, is in {path}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Show events of a raw file as they come.")
    parser.add_argument("raw", help="raw file, also one that is being written")
    parser.add_argument("--geometry", metavar="FILE", help="pixel positions; else a plain grid")
    parser.add_argument("--pedestals", metavar="FILE", help="of each channel, for the charge")
    parser.add_argument("--builder", choices=BUILDERS, default="gap", help="of events")
    parser.add_argument("--min-hits", type=int, default=10, help="fewer make no event")
    parser.add_argument("--asic", default="v2", help="chips: v2, v2-fifo, v3 or lightpix")
    parser.add_argument("--save", metavar="PNG", type=Path, help="no window, but a picture")
    parser.add_argument(
        "--until",
        choices=["finished", "end"],
        default="finished",
        help="finished: the end of the run; end: what is there now",
    )
    args = parser.parse_args()
    if args.save and not (args.save.suffix == ".png" and args.save.parent.is_dir()):
        sys.exit(f"error: {args.save}: give the name of a .png, in a folder that is there")
    try:
        # Of several modules: Geometry.load(file, modules=4, offsets=[(x, y, z), ...]).
        chips = CHIPS.get(args.asic, range(11, 111))
        grid = Geometry.grid(tiles=10, chips=chips)
        geometry = Geometry.load(args.geometry) if args.geometry else grid
        reader = Reader(args, geometry)
    except (StreamError, LayoutError, ValueError) as error:
        sys.exit(f"error: {error}")
    if args.save is None:
        show(reader, Display(geometry))
    else:
        plt.switch_backend("agg")  # which needs no display
        try:
            save(reader, Display(geometry), args.save)
        except OSError as error:
            sys.exit(f"error: {error}")
    if reader.error is not None:
        sys.exit(f"error: {reader.error}")
    if not reader.n_events:
        counts = [f"{n:,} {kind}" for kind, n in reader.events.counts.items() if n]
        found = ", ".join(counts) or "no hits"
        sys.exit(
            f"no event of {args.min_hits} hits or more ({found}): try --min-hits or --builder"
        )


if __name__ == "__main__":
    main()
