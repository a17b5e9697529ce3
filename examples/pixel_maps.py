"""Maps of a run: ``python examples/pixel_maps.py raw.h5 maps.png [--geometry layout.yaml]``.

Mean and RMS of the ADC, and the rate, of each pixel at its place: a row for each io_group. Of
what is in the file now; with ``--until finished`` to the end of the run, or to Ctrl-C.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from streamer import LayoutError, StreamError, tail
from streamer.geometry import Geometry, Pixels
from streamer.monitor import Monitor, Table

try:
    from matplotlib import colormaps
    from matplotlib.axes import Axes
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
except ImportError:
    sys.exit("matplotlib is missing: pip install matplotlib")

HEIGHT = 5  # of a map [inches]
COLOURS = colormaps["viridis"].with_extremes(bad="0.9")


def by_pixel(channels: Table, geometry: Geometry, seconds: int) -> dict[str, np.ndarray]:
    """Return each map's values, one for each pixel; NaN where there was nothing.

    A pixel is read out by any of the four io_channels of its tile: their sums are added up.
    """
    address = channels.address
    places = geometry.places(**address)
    pixel, counts = places.pixel[places.mapped], channels.total

    def summed(values: np.ndarray) -> np.ndarray:
        return np.bincount(pixel, values[places.mapped], geometry.n_pixels)

    hits = summed(counts["data"])
    good = summed(counts["data"] - counts["data_parity_errors"])
    with np.errstate(invalid="ignore"):  # 0 / 0 of pixels without a hit is NaN, as it should be
        mean = summed(counts["adc_sum"]) / good
        square = summed(counts["adc_square_sum"]) / good
    return {
        "ADC mean [counts]": mean,
        "ADC RMS [counts]": np.sqrt(np.maximum(square - mean**2, 0)),
        "rate [Hz]": np.where(hits > 0, hits, np.nan) / seconds,
    }


def grid(channels: Table) -> Geometry:
    """Return a plain grid of what there was, for want of a file."""
    # A packet that was damaged on its way can name any chip.
    sound = channels.total["data"] > channels.total["data_parity_errors"]
    chips = channels.address["chip_id"][sound if sound.any() else slice(None)]
    return Geometry.grid(
        io_groups=max(1, channels.address["io_group"].max()),
        tiles=max(1, channels.by("tile").address["tile"].max()),
        chips=range(chips.min(), int(chips.max()) + 1),
    )


def scale(values: np.ndarray) -> Normalize:
    """Return a scale that all io_groups share, and that a few wild pixels do not spoil."""
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, [1, 99]) if len(values) else (0, 0)
    return Normalize(low, high if high > low else low + 1)


def draw(axes: Axes, pixels: Pixels, values: np.ndarray, norm: Normalize, pitch: float) -> None:
    """Draw each pixel as a square of its size; grey without a hit."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * pitch / 2
    squares = np.stack([pixels.x, pixels.y], axis=1)[:, np.newaxis] + corners
    # Not antialiased, or lines of the background are seen between them.
    style = {"cmap": COLOURS, "antialiased": False, "linewidths": 0}
    drawn = axes.add_collection(PolyCollection(squares, array=values, norm=norm, **style))
    axes.autoscale_view()
    axes.set_aspect("equal")
    axes.figure.colorbar(drawn, ax=axes, shrink=0.8, extend="both")


def page(maps: dict[str, np.ndarray], geometry: Geometry, io_groups: list[int]) -> Figure:
    """Draw all maps."""
    unit = "[mm]" if geometry.sources else "on a plain grid [mm]"
    wide, high = np.ptp(geometry.bounds[:2], axis=1)
    width = HEIGHT * np.clip((wide + 50) / (high + 50), 0.4, 3)
    size = len(maps) * (width + 1.8), len(io_groups) * (HEIGHT + 0.8) + 0.5
    figure = Figure(figsize=size, layout="constrained")
    scales = {name: scale(values) for name, values in maps.items()}
    panels = figure.subplots(len(io_groups), len(maps), squeeze=False)
    for row, io_group in zip(panels, io_groups, strict=True):
        pixels = geometry.pixels([io_group])
        pitch = geometry.pitches.get(io_group, 4.0)
        for axes, (name, values) in zip(row, maps.items(), strict=True):
            draw(axes, pixels, values[pixels.pixel], scales[name], pitch)
            axes.set(title=f"io_group {io_group}: {name}", xlabel=f"x {unit}", ylabel=f"y {unit}")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw maps of the pixels of a raw file.")
    parser.add_argument("raw", help="raw file, also one that is being written")
    parser.add_argument("png", type=Path, help="where to draw them")
    parser.add_argument("--geometry", type=Path, help="of the pixels; else they are on a grid")
    parser.add_argument("--modules", type=int, help="how many are built as this file says")
    parser.add_argument("--asic", default="v2", help="chips: v2, v2-fifo, v3 or lightpix")
    parser.add_argument(
        "--until",
        choices=["end", "finished"],
        default="end",
        help="end: what is there now; finished: the end of the run",
    )
    args = parser.parse_args()
    if not (args.png.suffix == ".png" and args.png.parent.is_dir()):
        sys.exit(f"error: {args.png}: give the name of a .png, in a folder that is there")
    monitor, first = Monitor(), None
    try:
        geometry = Geometry.load(args.geometry, modules=args.modules) if args.geometry else None
        for packets in tail(args.raw, until=args.until).packets(asic=args.asic):
            monitor.update(packets)
            if first is None and packets.time.any():
                first = int(packets.time[packets.time > 0].min())
    except KeyboardInterrupt:
        print("stopped")
    except (StreamError, LayoutError, ValueError) as error:
        sys.exit(f"error: {error}")
    snapshot = monitor.snapshot()
    seconds = max(1, (snapshot.time or 0) - (first or 0))
    channels = snapshot.channels
    hits = int(channels.total["data"].sum())
    if not hits:
        sys.exit("there is nothing to draw: no hits")
    geometry = geometry or grid(channels)
    maps = by_pixel(channels, geometry, seconds)
    seen = np.unique(channels.address["io_group"])
    io_groups = [k for k in seen.tolist() if k in geometry.io_groups]
    if not io_groups:
        sys.exit(f"there is nothing to draw: {hits:,} hits, all of other io_groups: {geometry}")
    figure = page(maps, geometry, io_groups)
    figure.suptitle(
        f"{Path(args.raw).name}: {hits:,} hits in {seconds:,} s, of {len(channels):,} "
        f"channels, {geometry.unmapped:,} of these without a pixel"
    )
    try:
        figure.savefig(args.png, dpi=80)
    except OSError as error:
        sys.exit(f"error: {error}")
    print(f"maps: {args.png}")


if __name__ == "__main__":
    main()
